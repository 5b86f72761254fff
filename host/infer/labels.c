/* Labels in files: CSV fields, NPZ arrays. */
#include "infer/labels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void vae_text_csv(FILE *out, const char *text)
{
    const bool quote = strpbrk(text, ",\"\r\n") != NULL || text[0] == ' ';
    fputs(quote ? "\"" : "", out);
    for (; *text != '\0'; text++) {
        fputs(*text == '"' ? "\"" : "", out);
        fputc(*text, out);
    }
    fputs(quote ? "\"" : "", out);
}

void vae_label_csv(FILE *out, const vae_dataset *set, size_t row)
{
    const uint32_t label = set->labels[row];
    vae_text_csv(out, label != VAE_NO_LABEL ? set->classes.name[label] : "");
}

/* UTF-8, known to be valid, as NumPy's texts of `width` four-byte characters: (n,width). */
static void widen(uint32_t *to, size_t width, const vae_classes *classes)
{
    for (size_t i = 0; i < classes->n; i++) {
        uint32_t *at = to + i * width; /* of the next character */
        for (const char *c = classes->name[i]; *c != '\0'; c++) {
            const unsigned char byte = (unsigned char)*c;
            if (byte < 0x80) {
                *at++ = byte;
            } else if (byte < 0xc0) {
                at[-1] = at[-1] << 6 | (byte & 0x3f);
            } else {
                const uint32_t three = byte < 0xf0 ? 0x0f : 0x07;
                *at++ = byte & (byte < 0xe0 ? 0x1f : three);
            }
        }
    }
}

static vae_status add_names(vae_label_arrays *a, vae_npz_writer *w, const vae_classes *classes,
                            vae_error *err)
{
    size_t width = 1;
    char descr[24];
    for (size_t i = 0; i < classes->n; i++) {
        const size_t length = strlen(classes->name[i]);
        width = length > width ? length : width;
    }
    a->names = calloc(classes->n * width, sizeof(uint32_t));
    if (a->names == NULL) {
        return vae_fail_memory(err, classes->n * width * sizeof(uint32_t), "names of classes");
    }
    widen(a->names, width, classes);
    snprintf(descr, sizeof descr, "<U%zu", width);
    vae_npz_add(w, "class_names", descr, width * sizeof(uint32_t), &classes->n, 1, a->names);
    return VAE_OK;
}

vae_status vae_label_arrays_add(vae_label_arrays *a, vae_npz_writer *w, const vae_dataset *set,
                                vae_error *err)
{
    const bool numbers = vae_classes_are_numbers(&set->classes);
    bool bytes = true, gaps = false;
    vae_status status = VAE_OK;
    if (set->labels == NULL) {
        return VAE_OK;
    }
    int64_t *value = malloc((set->classes.n + 1) * sizeof *value);
    a->labels = malloc(set->n * sizeof(int64_t));
    if (value == NULL || a->labels == NULL) {
        TRY(vae_fail_memory(err, set->n * sizeof(int64_t), "labels"));
    }
    for (size_t i = 0; i < set->classes.n; i++) {
        value[i] = (int64_t)i;
        if (numbers) {
            vae_class_number(set->classes.name[i], &value[i]);
        }
    }
    for (size_t i = 0; i < set->n; i++) {
        const uint32_t y = set->labels[i];
        gaps = gaps || y == VAE_NO_LABEL;
        bytes = bytes && y != VAE_NO_LABEL && value[y] >= 0 && value[y] <= 255;
    }
    for (size_t i = 0; i < set->n; i++) {
        const uint32_t y = set->labels[i];
        if (bytes) {
            ((uint8_t *)a->labels)[i] = (uint8_t)value[y];
        } else if (numbers && gaps) {
            ((double *)a->labels)[i] = y != VAE_NO_LABEL ? (double)value[y] : NAN;
        } else {
            ((int64_t *)a->labels)[i] = y != VAE_NO_LABEL ? value[y] : -1;
        }
    }
    const char *wide = numbers && gaps ? "<f8" : "<i8";
    vae_npz_add(w, "labels", bytes ? "|u1" : wide, bytes ? 1 : sizeof(int64_t), &set->n, 1,
                a->labels);
    if (!numbers) {
        TRY(add_names(a, w, &set->classes, err));
    }
done:
    free(value);
    return status;
}

void vae_label_arrays_clear(vae_label_arrays *a)
{
    free(a->labels);
    free(a->names);
    *a = (vae_label_arrays){0};
}
