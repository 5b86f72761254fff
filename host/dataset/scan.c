/* The one pass over a data set's rows, however large: what names their content, what is known of
 * their values, sums of their columns. Rows are looked at a block at a time, while it is in the
 * cache; hashing, which has to go from first to last, is most of the work, and the rest is done
 * beside it where there are two threads. Of rows that lie in a map, what is behind is given
 * back. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "base/sha256.h"
#include "base/text.h"
#include "config/config.h"
#include "dataset/readers.h"

enum {
    BLOCK = 1 << 20,   /* bytes, at least a row */
    BEHIND = 32 << 20, /* bytes of a map that are held at most */
    LONG = 256 << 20,  /* bytes whose reading is worth a word on the way */
    CHUNK = 1024,      /* floats looked at in one go */
    PACKED = 64,       /* rows packed at once */
};

/* ---- floats ---- */

static bool fits(float value, bool unit)
{
    return unit ? value >= 0.0f && value <= 1.0f : isfinite(value);
}

/* Place of the first value that is not in [0,1], or not finite; SIZE_MAX: all are. */
static size_t first_unfit(const float *v, size_t n, bool unit)
{
    for (size_t i = 0; i < n; i += CHUNK) {
        const size_t end = n - i < CHUNK ? n : i + CHUNK;
        unsigned good = 1;
        for (size_t j = i; unit && j < end; j++) {
            good &= (unsigned)(v[j] >= 0.0f) & (unsigned)(v[j] <= 1.0f);
        }
        for (size_t j = i; !unit && j < end; j++) {
            good &= (unsigned)(fabsf(v[j]) < INFINITY);
        }
        for (size_t j = i; !good && j < end; j++) {
            if (!fits(v[j], unit)) {
                return j;
            }
        }
    }
    return SIZE_MAX;
}

/* n floats more, the first of which is number `first`. */
static void look_at_floats(vae_facts *facts, const float *v, size_t n, size_t first)
{
    if (facts->outside == SIZE_MAX) {
        const size_t at = first_unfit(v, n, true);
        facts->outside = at == SIZE_MAX ? at : first + at;
    }
    if (facts->wild == SIZE_MAX && facts->outside != SIZE_MAX) { /* what is wild is outside */
        const size_t at = first_unfit(v, n, false);
        facts->wild = at == SIZE_MAX ? at : first + at;
    }
}

static vae_facts facts_of(const vae_dataset *set)
{
    vae_facts facts = {.known = true, .outside = SIZE_MAX, .wild = SIZE_MAX};
    const size_t width = vae_dataset_width(set), most = 1 + BLOCK / width;
    for (size_t i = 0, n; set->dtype == VAE_F32 && i < set->n; i += n) {
        n = set->n - i < most ? set->n - i : most;
        look_at_floats(&facts, vae_dataset_row(set, i, NULL), n * width, i * width);
    }
    return facts;
}

vae_status vae_dataset_check_range(const vae_dataset *set, vae_likelihood likelihood, vae_mean mean,
                                   vae_error *err)
{
    if (set->dtype != VAE_F32) {
        return VAE_OK;
    }
    const bool bernoulli = vae_likelihood_of(likelihood)->unit;
    const bool unit = bernoulli || mean == VAE_MEAN_SIGMOID;
    const vae_facts facts = set->facts.known ? set->facts : facts_of(set);
    const size_t i = unit ? facts.outside : facts.wild, width = vae_dataset_width(set);
    if (i == SIZE_MAX) {
        return VAE_OK;
    }
    const float value = ((const float *)set->rows)[i];
    return isfinite(value)
               ? vae_fail(err, VAE_ERR_DATA,
                          "%s: row %zu, column %zu: value %.9g is outside [0,1], which %s; scale "
                          "the data or use --%s",
                          set->source, i / width, i % width, (double)value,
                          bernoulli ? "the Bernoulli likelihood needs" : "--mean sigmoid needs",
                          bernoulli ? "likelihood gaussian" : "mean linear")
               : vae_fail(err, VAE_ERR_DATA,
                          "%s: row %zu, column %zu: value %g is not a finite number%s; clean the "
                          "data",
                          set->source, i / width, i % width, (double)value,
                          vae_beyond_float(value));
}

/* ---- all types ---- */

typedef struct {
    const vae_dataset *set;
    vae_sha256_sum *hash;
    vae_facts facts;
    vae_sums *sums; /* or NULL */
    /* the block: rows first .. first+n-1, packed where they are bits */
    size_t first, n;
    const uint8_t *rows;
    uint8_t *room; /* for packing */
} scan;

/* The bits that are set in any of them. */
static uint8_t either_of(const uint8_t *bytes, size_t n)
{
    uint64_t either = 0, eight;
    size_t i = 0;
    for (; i + sizeof eight <= n; i += sizeof eight) {
        memcpy(&eight, bytes + i, sizeof eight);
        either |= eight;
    }
    for (; i < n; i++) {
        either |= bytes[i];
    }
    either |= either >> 32;
    either |= either >> 16;
    either |= either >> 8;
    return (uint8_t)either;
}

static void look(scan *s)
{
    const size_t bytes = s->n * vae_dataset_row_bytes(s->set);
    if (s->set->dtype == VAE_U8) {
        s->facts.either |= either_of(s->rows, bytes);
    } else if (s->set->dtype == VAE_F32) {
        look_at_floats(&s->facts, (const float *)(const void *)s->rows, s->n * s->set->d,
                       s->first * s->set->d);
    }
    if (s->sums != NULL) {
        vae_sums_add(s->sums, s->rows, s->n, vae_dataset_row_bytes(s->set));
    }
}

/* Part 0 of a block's work, and part 1. */
static void work(void *ctx, int thread, size_t first, size_t end)
{
    scan *s = ctx;
    (void)thread;
    for (size_t part = first; part < end; part++) {
        if (part == 0) {
            vae_sha256_add(s->hash, s->rows, s->n * vae_dataset_row_bytes(s->set));
        } else {
            look(s);
        }
    }
}

static void pack_rows(void *ctx, int thread, size_t first, size_t end)
{
    const scan *s = ctx;
    const size_t width = vae_dataset_row_bytes(s->set);
    (void)thread;
    for (size_t i = first; i < end; i++) {
        vae_dataset_row(s->set, s->first + i, s->room + i * width);
    }
}

static vae_status check_bools(const scan *s, vae_error *err)
{
    const size_t d = s->set->d, bytes = s->n * d;
    const uint8_t *bools = (const uint8_t *)s->set->rows + s->first * d;
    if (either_of(bools, bytes) <= 1) {
        return VAE_OK;
    }
    size_t at = 0;
    while (bools[at] <= 1) {
        at++;
    }
    return vae_fail_boolean(err, s->set->source, s->first + at / d, at % d, bools[at]);
}

static vae_status scan_blocks(scan *s, const vae_data_options *options, vae_error *err)
{
    const vae_dataset *set = s->set;
    const int threads = vae_threads(options->config != NULL ? options->config->threads : 0);
    const size_t stride = vae_dataset_stride(set), most = 1 + (BLOCK - 1) / stride;
    const bool tell = options->progress != NULL && set->map != NULL && set->n * stride >= LONG;
    const uint8_t *held = set->rows; /* from here on, of a map */
    vae_status status = VAE_OK;
    vae_dataset_in_order(set, true);
    for (s->first = 0; s->first < set->n; s->first += s->n) {
        s->n = set->n - s->first < most ? set->n - s->first : most;
        s->rows = (const uint8_t *)set->rows + s->first * stride;
        const uint8_t *end = s->rows + s->n * stride;
        if (set->loose) {
            TRY(check_bools(s, err));
            vae_parallel(threads, s->n, PACKED, pack_rows, s);
            s->rows = s->room;
        }
        vae_parallel(threads, 2, 1, work, s);
        if (set->map != NULL && (end - held >= BEHIND || s->first + s->n == set->n)) {
            vae_map_drop(set->map, (size_t)(held - vae_map_bytes(set->map)), (size_t)(end - held));
            TRY(vae_map_check(set->map, err));
            held = end;
            if (tell) {
                options->progress(options->ctx, s->first + s->n, set->n);
            }
        }
    }
    vae_dataset_in_order(set, false);
done:
    if (tell && status != VAE_OK) {
        options->progress(options->ctx, set->n,
                          set->n); /* no word stands in the way of the error's */
    }
    return status;
}

vae_status vae_dataset_scan(vae_dataset *set, const vae_data_options *options, vae_error *err)
{
    static const vae_data_options nothing;
    const size_t width = vae_dataset_row_bytes(set);
    const uint64_t head[3] = {set->n, set->d, (uint64_t)set->dtype};
    vae_sums sums = {.d = 0};
    scan s = {.set = set, .facts = {.outside = SIZE_MAX, .wild = SIZE_MAX}};
    vae_status status = VAE_OK;
    assert(!set->draws);
    options = options != NULL ? options : &nothing;
    const bool threshold =
        options->config != NULL && options->config->binarize == VAE_BINARIZE_THRESHOLD;
    if (options->means) {
        TRY(vae_sums_begin(&sums, set, threshold, err));
        s.sums = &sums;
    }
    if (set->loose) {
        const size_t bytes = (1 + (BLOCK - 1) / set->d) * width;
        s.room = malloc(bytes);
        if (s.room == NULL) {
            TRY(vae_fail_memory(err, bytes, "rows of bits"));
        }
    }
    TRY(vae_sha256_begin(&s.hash, err));
    vae_sha256_add(s.hash, head, sizeof head);
    TRY(scan_blocks(&s, options, err));
    TRY(vae_sha256_end(&s.hash, set->sha256, err));
    s.facts.known = true;
    set->facts = s.facts;
    if (s.sums != NULL) {
        vae_sums_settle(&sums);
        free(set->sums);
        set->sums = sums.sum;
        set->summed_threshold = threshold;
        sums.sum = NULL;
    }
done:
    vae_sha256_drop(s.hash);
    vae_sums_close(&sums);
    free(s.room);
    return status;
}
