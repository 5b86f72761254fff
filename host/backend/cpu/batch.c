/* The CPU backend's operations that bring a batch's rows: gathered, binarized, drawn. */
#include "backend/cpu/cpu.h"

#include "philox.h"

/* Values from j on of a row that is drawn: [mean | logvar] in the data set. */
static void draw_row(const cpu_backend *be, float *x, const vae_dataset *set, size_t row, size_t j0,
                     size_t end, uint64_t draw, uint64_t seed)
{
    const size_t D = set->d, quads = (D + 3) / 4;
    const float *mean = (const float *)set->rows + row * 2 * D, *logvar = mean + D;
    for (size_t j = j0; j < end; j += ROW_PIECE) {
        float eps[ROW_PIECE];
        const size_t n = end - j < ROW_PIECE ? end - j : ROW_PIECE;
        be->k->normals(eps, (n + 3) / 4, seed, vae_rng_stream(VAE_RNG_STACK, row * quads + j / 4),
                       vae_rng_block(draw, 0));
        be->k->latent_row(x + (j - j0), NULL, mean + j, logvar + j, eps, n);
    }
}

void vae_cpu_fetch(const vae_data *data, const vae_plan *plan, size_t first, size_t end)
{
    enum { SOME = 64 };
    uint32_t row[SOME];
    for (size_t at = first; at < end; at += SOME) {
        const size_t n = end - at < SOME ? end - at : SOME;
        for (size_t i = 0; i < n; i++) {
            row[i] = (uint32_t)vae_cpu_data_row(data, plan, at + i);
        }
        vae_dataset_fetch(data->set, row, n);
    }
}

/* Values from j0 on of a row of bits that lie as booleans: packed a piece at a time. */
static void unpack_loose(const cpu_backend *be, float *x, const vae_dataset *set, size_t row,
                         size_t j0, size_t end)
{
    const uint8_t *bools = (const uint8_t *)set->rows + row * set->d;
    uint8_t bits[ROW_PIECE / 8];
    for (size_t j = j0; j < end; j += ROW_PIECE) {
        const size_t n = end - j < ROW_PIECE ? end - j : ROW_PIECE;
        vae_pack_bools(bits, bools + j, n);
        be->k->convert_row(x + (j - j0), bits, VAE_BITS, n, VAE_BINARIZE_NONE, 0, 0, 0);
    }
}

typedef struct {
    const cpu_backend *be;
    vae_mat x;
    const vae_data *data;
    size_t D;
    vae_binarize binarize;
    uint64_t seed;
} gathering;

static void gather_rows(void *ctx, int thread, size_t first, size_t end)
{
    const gathering *a = ctx;
    const vae_plan *plan = vae_cpu_now(a->be);
    const vae_dataset *set = a->data->set;
    const uint64_t block = a->binarize == VAE_BINARIZE_DYNAMIC ? vae_rng_block(plan->draw, 0) : 0;
    const size_t quads = (a->D + 3) / 4, stride = vae_dataset_stride(set);
    (void)thread;
    if (a->data->fetch_ahead > 0 && a->be->cursor + a->data->fetch_ahead < a->be->plan_n) {
        vae_cpu_fetch(a->data, plan + a->data->fetch_ahead, first, end);
    }
    for (size_t r = first; r < end; r++) {
        const size_t row = vae_cpu_data_row(a->data, plan, r);
        if (r + 1 < end) { /* rows lie anywhere; of a long one the beginning will do */
            const size_t next = vae_cpu_data_row(a->data, plan, r + 1);
            vae_cpu_prefetch((const char *)set->rows + next * stride,
                             stride < ROW_PIECE ? stride : ROW_PIECE);
        }
        for (size_t j = 0, some; j < a->D; j += some) {
            float room[ROW_PIECE], *x = vae_cpu_make(a->be, room, a->x, r, j);
            some = vae_cpu_piece(a->be, a->D - j);
            if (set->draws) {
                draw_row(a->be, x, set, row, j, j + some, plan->draw, a->seed);
            } else if (set->loose) {
                unpack_loose(a->be, x, set, row, j, j + some);
            } else {
                const char *from = vae_dataset_row(set, row, NULL);
                a->be->k->convert_row(x, from + vae_row_bytes(set->dtype, j), set->dtype, some,
                                      a->binarize, a->seed,
                                      vae_rng_stream(VAE_RNG_BINARIZE, row * quads + j / 4), block);
            }
            vae_cpu_put(a->be, a->x, r, j, x, some);
        }
    }
}

void vae_cpu_gather(vae_backend *base, vae_mat x, vae_data *data, size_t B, size_t D,
                    vae_binarize binarize, uint64_t seed)
{
    cpu_backend *be = vae_cpu_self(base);
    gathering a = {be, x, data, D, binarize, seed};
    vae_cpu_parallel(be, B, D, gather_rows, &a);
}
