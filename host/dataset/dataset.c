/* The data set in memory: what readers and users of its rows share. */
#include "dataset/dataset.h"

#include <math.h>
#include <stdlib.h>

#include "base/sha256.h"
#include "dataset/readers.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "npy data and content hashes are read as little-endian; this machine is not"
#endif

size_t vae_row_bytes(vae_dtype dtype, size_t d)
{
    if (dtype == VAE_BITS) {
        return (d + 7) / 8;
    }
    return dtype == VAE_U8 ? d : d * sizeof(float);
}

vae_status vae_dataset_hash(vae_dataset *set, vae_error *err)
{
    uint64_t head[3] = {set->n, set->d, (uint64_t)set->dtype};
    const struct iovec parts[2] = {{head, sizeof head},
                                   {set->rows, set->n * vae_row_bytes(set->dtype, set->d)}};
    return vae_sha256(set->sha256, parts, 2, err);
}

vae_status vae_labels_from_floats(uint8_t **labels, const float *values, size_t n, const char *name,
                                  vae_error *err)
{
    uint8_t *bytes = malloc(n > 0 ? n : 1);
    if (bytes == NULL) {
        return vae_fail_memory(err, n, "labels");
    }
    for (size_t i = 0; i < n; i++) {
        if (!(values[i] >= 0 && values[i] <= 255) || values[i] != floorf(values[i])) {
            free(bytes);
            return vae_fail(err, VAE_ERR_DATA,
                            "%s: label of row %zu: expected a whole number from 0 to 255, found %g",
                            name, i, (double)values[i]);
        }
        bytes[i] = (uint8_t)values[i];
    }
    *labels = bytes;
    return VAE_OK;
}

void vae_dataset_free(vae_dataset *set)
{
    if (set == NULL) {
        return;
    }
    free(set->rows);
    free(set->labels);
    free(set->factors);
    for (size_t i = 0; set->column_names != NULL && i < set->d; i++) {
        free(set->column_names[i]);
    }
    free(set->column_names);
    free(set);
}

vae_status vae_dataset_check_range(const vae_dataset *set, vae_likelihood likelihood,
                                   vae_error *err)
{
    if (set->dtype != VAE_F32) {
        return VAE_OK;
    }
    const bool unit = vae_likelihood_of(likelihood)->unit;
    const float *values = set->rows;
    const size_t width = vae_dataset_width(set);
    for (size_t i = 0; i < set->n * width; i++) {
        float value = values[i];
        if (unit ? value >= 0.0f && value <= 1.0f : isfinite(value)) {
            continue;
        }
        if (!isfinite(value)) {
            return vae_fail(err, VAE_ERR_DATA,
                            "%s: row %zu, column %zu: value %g is not a finite number; clean the "
                            "data",
                            set->source, i / width, i % width, (double)value);
        }
        return vae_fail(err, VAE_ERR_DATA,
                        "%s: row %zu, column %zu: value %.9g is outside [0,1], which the Bernoulli "
                        "likelihood needs; scale the data or use --likelihood gaussian",
                        set->source, i / width, i % width, (double)value);
    }
    return VAE_OK;
}

static vae_status need_floats(const vae_dataset *set, vae_error *err)
{
    return set->dtype == VAE_F32
               ? VAE_OK
               : vae_fail(err, VAE_ERR_DATA,
                          "%s: holds bytes; columns of floats can be standardized, bytes are "
                          "value/255 already",
                          set->source);
}

vae_status vae_dataset_moments(const vae_dataset *set, const uint32_t *index, size_t n,
                               float *shift, float *scale, vae_error *err)
{
    vae_status status = need_floats(set, err);
    if (status != VAE_OK) {
        return status;
    }
    double *sum = calloc(set->d, sizeof *sum);
    if (sum == NULL) {
        return vae_fail_memory(err, set->d * sizeof *sum, "the means of columns");
    }
    const float *rows = set->rows;
    for (int pass = 0; pass < 2; pass++) { /* the mean, then the spread around it */
        for (size_t i = 0; i < n; i++) {
            const float *row = rows + (index != NULL ? index[i] : i) * set->d;
            for (size_t col = 0; col < set->d; col++) {
                double v = (double)row[col] - (pass > 0 ? (double)shift[col] : 0);
                sum[col] += pass > 0 ? v * v : v;
            }
        }
        for (size_t col = 0; col < set->d; col++) {
            double mean = sum[col] / (double)n;
            if (pass == 0) {
                shift[col] = (float)mean;
            } else { /* rounding of the mean alone is no spread */
                double sd = sqrt(mean), least = 1e-6 * fabs((double)shift[col]);
                scale[col] = sd > least ? (float)sd : 1.0f;
            }
            sum[col] = 0;
        }
    }
    free(sum);
    return VAE_OK;
}

vae_status vae_dataset_standardize(vae_dataset *set, const float *shift, const float *scale,
                                   vae_error *err)
{
    vae_status status = need_floats(set, err);
    float *rows = set->rows;
    for (size_t i = 0; status == VAE_OK && i < set->n; i++) {
        for (size_t col = 0; col < set->d; col++) {
            rows[i * set->d + col] = (rows[i * set->d + col] - shift[col]) / scale[col];
        }
    }
    return status;
}

float vae_dataset_value(const vae_dataset *set, size_t row, size_t col)
{
    if (set->dtype == VAE_BITS) {
        const uint8_t *bits = (const uint8_t *)set->rows + row * vae_row_bytes(VAE_BITS, set->d);
        return (float)(bits[col / 8] >> col % 8 & 1);
    }
    size_t i = row * vae_dataset_width(set) + col;
    return set->dtype == VAE_U8 ? (float)((const uint8_t *)set->rows)[i] / 255.0f
                                : ((const float *)set->rows)[i];
}

vae_status vae_dataset_check_labels(const vae_dataset *set, size_t n_classes, bool required,
                                    vae_error *err)
{
    if (set->labels == NULL) {
        return required
                   ? vae_fail(err, VAE_ERR_DATA,
                              "%s: no labels; the model needs the class of each row", set->source)
                   : VAE_OK;
    }
    for (size_t i = 0; i < set->n; i++) {
        if (set->labels[i] >= n_classes) {
            return vae_fail(err, VAE_ERR_DATA,
                            "%s: row %zu: label %u; the model has %zu classes, 0 to %zu",
                            set->source, i, (unsigned)set->labels[i], n_classes, n_classes - 1);
        }
    }
    return VAE_OK;
}

size_t vae_grid_row(const size_t *sizes, size_t n_factors, const size_t *level)
{
    size_t row = 0;
    for (size_t k = 0; k < n_factors; k++) {
        row = row * sizes[k] + level[k];
    }
    return row;
}

void vae_grid_levels(size_t *level, const size_t *sizes, size_t n_factors, size_t row)
{
    for (size_t k = n_factors; k-- > 0; row /= sizes[k]) {
        level[k] = row % sizes[k];
    }
}
