/* The CPU backend's inner loops, compiled once per level with -DVAE_ISA=<name> and its -march. They
 * are written for the auto-vectorizer: sums go to LANES partial sums that are combined in fixed
 * order, so neither vector width nor thread count shows in the result. */
#include "backend/cpu/kernels.h"

#include <string.h>

#include "philox.h"

enum { LANES = 16, QUADS = NORMAL_GROUPS };

static float combine(const float lane[LANES])
{
    float half[LANES / 2];
    for (int i = 0; i < LANES / 2; i++) {
        half[i] = lane[i] + lane[i + LANES / 2];
    }
    float quarter[4] = {half[0] + half[4], half[1] + half[5], half[2] + half[6], half[3] + half[7]};
    return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

#define FOR_TILE(body)                                                                             \
    for (size_t r = 0; r < rows; r++) {                                                            \
        float *restrict out = y + r * ldy;                                                         \
        for (size_t i = 0; i < cols; i++) {                                                        \
            float v = out[i] + b[i];                                                               \
            out[i] = body;                                                                         \
        }                                                                                          \
    }                                                                                              \
    break
#define TILE_CASE(ACT, name, f, df, keeps)                                                         \
    case VAE_ACT_##ACT:                                                                            \
        FOR_TILE(f(v));

static void bias_act(float *y, float *pre, size_t ldy, const float *restrict b, size_t rows,
                     size_t cols, vae_activation act)
{
    for (size_t r = 0; pre != NULL && r < rows; r++) {
        for (size_t i = 0; i < cols; i++) {
            pre[r * ldy + i] = y[r * ldy + i] + b[i];
        }
    }
    switch (act) {
    case VAE_ACT_NONE:
        FOR_TILE(v);
        VAE_ACTIVATIONS(TILE_CASE)
    }
}

#define FOR_GRAD(derivative)                                                                       \
    for (size_t r = 0; r < rows; r++) {                                                            \
        float *restrict out = dx + r * ldx;                                                        \
        const float *restrict v = from + r * ldf;                                                  \
        for (size_t i = 0; i < cols; i++) {                                                        \
            out[i] *= derivative(v[i]);                                                            \
        }                                                                                          \
    }                                                                                              \
    break
#define GRAD_CASE(ACT, name, f, df, keeps)                                                         \
    case VAE_ACT_##ACT:                                                                            \
        FOR_GRAD(df);

static void act_grad(float *dx, size_t ldx, const float *from, size_t ldf, size_t rows, size_t cols,
                     vae_activation act)
{
    switch (act) {
    case VAE_ACT_NONE:
        break;
        VAE_ACTIVATIONS(GRAD_CASE)
    }
}

static inline __attribute__((always_inline)) float float_of(float v)
{
    return v;
}

static inline __attribute__((always_inline)) float float_of_bf16(uint16_t bits)
{
    return vae_float_of_bits((int32_t)((uint32_t)bits << 16));
}

/* The sums of one type, by VALUE as floats. */
#define COLUMN_SUMS(NAME, TYPE, VALUE)                                                             \
    static void NAME(float *db, const TYPE *dy, size_t ld, size_t rows, size_t cols)               \
    {                                                                                              \
        enum { BLOCK = 256, MOST = 64 };                                                           \
        double total[MOST] = {0};                                                                  \
        for (size_t r0 = 0; r0 < rows; r0 += BLOCK) {                                              \
            size_t end = r0 + BLOCK < rows ? r0 + BLOCK : rows;                                    \
            float sum[MOST] = {0};                                                                 \
            for (size_t r = r0; r < end; r++) {                                                    \
                const TYPE *restrict row = dy + r * ld;                                            \
                if (cols == MOST) {                                                                \
                    for (size_t i = 0; i < MOST; i++) {                                            \
                        sum[i] += VALUE(row[i]);                                                   \
                    }                                                                              \
                } else {                                                                           \
                    for (size_t i = 0; i < cols; i++) {                                            \
                        sum[i] += VALUE(row[i]);                                                   \
                    }                                                                              \
                }                                                                                  \
            }                                                                                      \
            for (size_t i = 0; i < cols; i++) {                                                    \
                total[i] += (double)sum[i];                                                        \
            }                                                                                      \
        }                                                                                          \
        for (size_t i = 0; i < cols; i++) {                                                        \
            db[i] = (float)total[i];                                                               \
        }                                                                                          \
    }
COLUMN_SUMS(column_sums, float, float_of)
COLUMN_SUMS(column_sums_bf16, uint16_t, float_of_bf16)

static void widen(float *restrict to, const uint16_t *restrict from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        to[i] = float_of_bf16(from[i]);
    }
}

static inline __attribute__((always_inline)) uint16_t bf16_of_float(float v)
{
    const uint32_t bits = (uint32_t)vae_bits_of_float(v);
    const uint32_t nearest = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
    return (uint16_t)((bits & 0x7FFFFFFFu) > 0x7F800000u ? 0x7FFFu : nearest);
}

static void narrow(uint16_t *restrict to, const float *restrict from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        to[i] = bf16_of_float(from[i]);
    }
}

#define FOR_BF16(to, body)                                                                         \
    for (size_t r = 0; r < rows; r++) {                                                            \
        uint16_t *restrict out = (to) + r * ldy;                                                   \
        const float *restrict in = c + r * ldc;                                                    \
        for (size_t i = 0; i < cols; i++) {                                                        \
            const float v = in[i] + b[i];                                                          \
            out[i] = bf16_of_float(body);                                                          \
        }                                                                                          \
    }
#define BF16_CASE(ACT, name, f, df, keeps)                                                         \
    case VAE_ACT_##ACT:                                                                            \
        FOR_BF16(y, f(v))                                                                          \
        break;

static void bias_act_bf16(uint16_t *y, uint16_t *pre, size_t ldy, const float *c, size_t ldc,
                          const float *restrict b, size_t rows, size_t cols, vae_activation act)
{
    if (pre != NULL) {
        FOR_BF16(pre, v)
    }
    switch (act) {
    case VAE_ACT_NONE:
        FOR_BF16(y, v)
        break;
        VAE_ACTIVATIONS(BF16_CASE)
    }
}

#define FOR_GRAD_BF16(factor)                                                                      \
    for (size_t r = 0; r < rows; r++) {                                                            \
        uint16_t *restrict out = dx + r * ldx;                                                     \
        const float *restrict in = c + r * ldc;                                                    \
        const uint16_t *restrict v = from + r * ldf;                                               \
        for (size_t i = 0; i < cols; i++) {                                                        \
            out[i] = bf16_of_float(in[i] * (factor));                                              \
        }                                                                                          \
    }                                                                                              \
    break
#define GRAD_BF16_CASE(ACT, name, f, df, keeps)                                                    \
    case VAE_ACT_##ACT:                                                                            \
        FOR_GRAD_BF16(df(float_of_bf16(v[i])));

static void act_grad_bf16(uint16_t *dx, size_t ldx, const float *c, size_t ldc,
                          const uint16_t *from, size_t ldf, size_t rows, size_t cols,
                          vae_activation act)
{
    switch (act) {
    case VAE_ACT_NONE:
        for (size_t r = 0; r < rows; r++) {
            narrow(dx + r * ldx, c + r * ldc, cols);
        }
        break;
        VAE_ACTIVATIONS(GRAD_BF16_CASE)
    }
}

/* Words of streams first .. first+QUADS-1, word w of stream i in out[w][i]. */
static inline void philox_quads(uint32_t out[4][QUADS], uint64_t seed, uint64_t first,
                                uint64_t block)
{
    uint32_t *restrict c0 = out[0], *restrict c1 = out[1];
    uint32_t *restrict c2 = out[2], *restrict c3 = out[3];
    for (uint32_t i = 0; i < QUADS; i++) {
        uint64_t stream = first + i;
        c0[i] = (uint32_t)block;
        c1[i] = (uint32_t)(block >> 32);
        c2[i] = (uint32_t)stream;
        c3[i] = (uint32_t)(stream >> 32);
    }
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < QUADS; i++) {
            uint64_t p0 = (uint64_t)0xD2511F53u * c0[i], p1 = (uint64_t)0xCD9E8D57u * c2[i];
            c0[i] = (uint32_t)(p1 >> 32) ^ c1[i] ^ k0;
            c2[i] = (uint32_t)(p0 >> 32) ^ c3[i] ^ k1;
            c1[i] = (uint32_t)p1;
            c3[i] = (uint32_t)p0;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

static void binarize_row(float *x, const uint8_t *u8, const float *f32, size_t n, uint64_t seed,
                         uint64_t stream, uint64_t block)
{
    uint32_t words[4][QUADS];
    for (size_t i = 0; i < n; i += 4 * QUADS) {
        size_t most = n - i < 4 * QUADS ? n - i : 4 * QUADS;
        uint32_t flat[4 * QUADS];
        philox_quads(words, seed, stream + i / 4, block);
        for (size_t q = 0; q < QUADS; q++) {
            for (size_t w = 0; w < 4; w++) {
                flat[4 * q + w] = words[w][q];
            }
        }
        for (size_t j = 0; u8 != NULL && j < most; j++) {
            x[i + j] = (float)vae_binarize_u8(u8[i + j], flat[j]);
        }
        for (size_t j = 0; f32 != NULL && j < most; j++) {
            x[i + j] = (float)vae_binarize_f32(f32[i + j], flat[j]);
        }
    }
}

/* Four values at a time, from a table that stays in the cache. */
static void unpack_bits(float *x, const uint8_t *bits, size_t n)
{
    static const float four[16][4] = {{0, 0, 0, 0}, {1, 0, 0, 0}, {0, 1, 0, 0}, {1, 1, 0, 0},
                                      {0, 0, 1, 0}, {1, 0, 1, 0}, {0, 1, 1, 0}, {1, 1, 1, 0},
                                      {0, 0, 0, 1}, {1, 0, 0, 1}, {0, 1, 0, 1}, {1, 1, 0, 1},
                                      {0, 0, 1, 1}, {1, 0, 1, 1}, {0, 1, 1, 1}, {1, 1, 1, 1}};
    for (size_t i = 0; i < n / 8; i++) {
        memcpy(x + 8 * i, four[bits[i] & 15], sizeof four[0]);
        memcpy(x + 8 * i + 4, four[bits[i] >> 4], sizeof four[0]);
    }
    for (size_t j = n / 8 * 8; j < n; j++) {
        x[j] = (float)(bits[j / 8] >> j % 8 & 1);
    }
}

static void convert_row(float *x, const void *row, vae_dtype dtype, size_t n, vae_binarize binarize,
                        uint64_t seed, uint64_t stream, uint64_t block)
{
    const uint8_t *u8 = dtype == VAE_U8 ? row : NULL;
    const float *f32 = dtype == VAE_F32 ? row : NULL;
    if (dtype == VAE_BITS) {
        unpack_bits(x, row, n);
        return;
    }
    if (binarize == VAE_BINARIZE_STATIC || binarize == VAE_BINARIZE_DYNAMIC) {
        binarize_row(x, u8, f32, n, seed, stream, block);
        return;
    }
    /* byte/255 as the division rounds it, all 256 of them */
    for (size_t i = 0; u8 != NULL && i < n; i++) {
        const float byte = u8[i];
        x[i] = byte * (1.0f / 256.0f) + byte * (1.0f / 65280.0f);
    }
    for (size_t i = 0; f32 != NULL && i < n; i++) {
        x[i] = f32[i];
    }
    for (size_t i = 0; binarize == VAE_BINARIZE_THRESHOLD && i < n; i++) {
        x[i] = x[i] >= 0.5f ? 1.0f : 0.0f;
    }
}

static void normals(float *eps, size_t n_quads, uint64_t seed, uint64_t stream, uint64_t block)
{
    uint32_t words[4][QUADS];
    float n[4][QUADS];
    for (size_t q = 0; q < n_quads; q += QUADS) {
        size_t most = n_quads - q < QUADS ? n_quads - q : QUADS;
        philox_quads(words, seed, stream + q, block);
        for (int i = 0; i < QUADS; i++) {
            vae_box_muller(words[0][i], words[1][i], &n[0][i], &n[1][i]);
        }
        for (int i = 0; i < QUADS; i++) {
            vae_box_muller(words[2][i], words[3][i], &n[2][i], &n[3][i]);
        }
        for (size_t i = 0; i < most; i++) {
            for (size_t w = 0; w < 4; w++) {
                eps[4 * (q + i) + w] = n[w][i];
            }
        }
    }
}

static void latent_row(float *z, float *log_pq, const float *mu, const float *logvar,
                       const float *eps, size_t Z)
{
    for (size_t j = 0; j < Z; j++) {
        z[j] = mu[j] + vae_expf(0.5f * logvar[j]) * eps[j];
    }
    if (log_pq != NULL) {
        double sum = 0;
        for (size_t j = 0; j < Z; j++) {
            sum += 0.5 * ((double)eps[j] * eps[j] + (double)logvar[j] - (double)z[j] * z[j]);
        }
        *log_pq = (float)sum;
    }
}

static float kl_row(const float *mu, const float *logvar, size_t Z)
{
    float lane[LANES] = {0};
    size_t j = 0;
    for (; j + LANES <= Z; j += LANES) {
        for (size_t i = 0; i < LANES; i++) {
            lane[i] += vae_kl(mu[j + i], logvar[j + i], vae_expf(logvar[j + i]));
        }
    }
    for (size_t i = 0; j + i < Z; i++) {
        lane[i] += vae_kl(mu[j + i], logvar[j + i], vae_expf(logvar[j + i]));
    }
    return combine(lane);
}

/* latent_grad_row for one objective, which is a constant where this is inlined: the loops have no
 * branch, and vectorize. */
static inline __attribute__((always_inline)) void
latent_grad(float *restrict dmu, float *restrict dlogvar, const float *restrict dz,
            const float *restrict mu, const float *restrict logvar, const float *restrict eps,
            size_t Z, float w, float scale, vae_objective objective)
{
    const float sw = scale * w;
    for (size_t j = 0; j < Z; j++) {
        float sigma = vae_expf(0.5f * logvar[j]);
        float g = dz[j], extra = 0.0f;
        if (objective != VAE_OBJ_ELBO) {
            float z = mu[j] + sigma * eps[j];
            bool iwae = objective == VAE_OBJ_IWAE;
            g += sw * (iwae ? z : z - eps[j] / sigma);
            g *= objective == VAE_OBJ_DREG ? w : 1.0f;
            extra = iwae ? -0.5f * sw : 0.0f;
        }
        dmu[j] += g;
        dlogvar[j] += 0.5f * g * eps[j] * sigma + extra;
    }
}

static void latent_grad_row(float *dmu, float *dlogvar, const float *dz, const float *mu,
                            const float *logvar, const float *eps, size_t Z, float w, float scale,
                            vae_objective objective)
{
    switch (objective) {
    case VAE_OBJ_IWAE:
        latent_grad(dmu, dlogvar, dz, mu, logvar, eps, Z, w, scale, VAE_OBJ_IWAE);
        break;
    case VAE_OBJ_DREG:
        latent_grad(dmu, dlogvar, dz, mu, logvar, eps, Z, w, scale, VAE_OBJ_DREG);
        break;
    case VAE_OBJ_STL:
        latent_grad(dmu, dlogvar, dz, mu, logvar, eps, Z, w, scale, VAE_OBJ_STL);
        break;
    case VAE_OBJ_ELBO:
    default:
        latent_grad(dmu, dlogvar, dz, mu, logvar, eps, Z, w, scale, VAE_OBJ_ELBO);
    }
}

static float bernoulli_row(float *dl, const float *logits, const float *restrict x, size_t D,
                           float scale)
{
    float lane[LANES] = {0};
    size_t d = 0;
    for (; d + LANES <= D; d += LANES) {
        float g[LANES];
        for (size_t i = 0; i < LANES; i++) {
            lane[i] += vae_bernoulli(logits[d + i], x[d + i], &g[i]);
        }
        if (dl != NULL) {
            for (size_t i = 0; i < LANES; i++) {
                dl[d + i] = g[i] * scale;
            }
        }
    }
    for (size_t i = 0; d + i < D; i++) {
        float g;
        lane[i] += vae_bernoulli(logits[d + i], x[d + i], &g);
        if (dl != NULL) {
            dl[d + i] = g * scale;
        }
    }
    return combine(lane);
}

/* The value's loss by either mean; `mean` is a constant where this is inlined. */
static inline __attribute__((always_inline)) float
gaussian(vae_mean mean, float l, float x, float logvar, float inv_var, float *dl, float *dlogvar)
{
    return mean == VAE_MEAN_SIGMOID ? vae_gaussian_sigmoid(l, x, logvar, inv_var, dl, dlogvar)
                                    : vae_gaussian(l, x, logvar, inv_var, dl, dlogvar);
}

static inline __attribute__((always_inline)) float gaussian_row(float *dl, const float *logits,
                                                                const float *x, size_t D,
                                                                float variance, float scale,
                                                                vae_mean mean)
{
    const float logvar = vae_logf(variance), inv_var = 1.0f / variance;
    float lane[LANES] = {0};
    for (size_t d = 0; d < D; d += LANES) {
        size_t most = D - d < LANES ? D - d : LANES;
        for (size_t i = 0; i < most; i++) {
            float dm, unused;
            lane[i] += gaussian(mean, logits[d + i], x[d + i], logvar, inv_var, &dm, &unused);
            if (dl != NULL) {
                dl[d + i] = dm * scale;
            }
        }
    }
    return combine(lane);
}

static inline __attribute__((always_inline)) float gaussian_learned_row(float *dl,
                                                                        const float *logits,
                                                                        const float *x, size_t D,
                                                                        float scale, vae_mean mean)
{
    float lane[LANES] = {0};
    for (size_t d = 0; d < D; d += LANES) {
        size_t most = D - d < LANES ? D - d : LANES;
        for (size_t i = 0; i < most; i++) {
            float draw, dm, dlogvar;
            float logvar = vae_bounded_logvar(logits[D + d + i], &draw);
            float inv_var = vae_expf(-logvar);
            lane[i] += gaussian(mean, logits[d + i], x[d + i], logvar, inv_var, &dm, &dlogvar);
            if (dl != NULL) {
                dl[d + i] = dm * scale;
                dl[D + d + i] = dlogvar * draw * scale;
            }
        }
    }
    return combine(lane);
}

static float recon_row(float *dl, const float *logits, const float *x, size_t D, vae_recon recon,
                       float scale)
{
    switch (recon.likelihood) {
    case VAE_GAUSSIAN:
        return recon.mean == VAE_MEAN_SIGMOID
                   ? gaussian_row(dl, logits, x, D, recon.variance, scale, VAE_MEAN_SIGMOID)
                   : gaussian_row(dl, logits, x, D, recon.variance, scale, VAE_MEAN_LINEAR);
    case VAE_GAUSSIAN_LEARNED:
        return recon.mean == VAE_MEAN_SIGMOID
                   ? gaussian_learned_row(dl, logits, x, D, scale, VAE_MEAN_SIGMOID)
                   : gaussian_learned_row(dl, logits, x, D, scale, VAE_MEAN_LINEAR);
    case VAE_BERNOULLI:
    default:
        return bernoulli_row(dl, logits, x, D, scale);
    }
}

static void decode_row(float *restrict x_hat, const float *restrict logits, size_t D,
                       vae_recon recon)
{
    if (!vae_mean_is_sigmoid(recon.likelihood, recon.mean)) {
        memcpy(x_hat, logits, D * sizeof *x_hat);
        return;
    }
    for (size_t d = 0; d < D; d++) {
        x_hat[d] = vae_sigmoidf(logits[d]);
    }
}

/* One line of the transforms of winograd.c, of `type` at place i: a macro, so that vectors and what
 * is left over of them are the same sums. */
typedef float lanes __attribute__((vector_size(64), aligned(4), may_alias));
#define AT(type, pointer) (*(type *)((pointer) + i))
#define OF(type, pointer) (*(const type *)((pointer) + i))
#define LOOP(line)                                                                                 \
    do {                                                                                           \
        size_t i = 0;                                                                              \
        for (; i + LANES <= n; i += LANES) {                                                       \
            line(lanes)                                                                            \
        }                                                                                          \
        for (; i < n; i++) {                                                                       \
            line(float)                                                                            \
        }                                                                                          \
    } while (0)

#define PUT_WINDOW(type, to, x0, x1, x2)                                                           \
    AT(type, to) = (x0) - (x1);                                                                    \
    AT(type, (to) + point) = (x1);                                                                 \
    AT(type, (to) + 2 * point) = (x1) - (x2);
#define WINDOW_0(type)                                                                             \
    const type x0 = OF(type, d[0]) - OF(type, d[3]), x1 = OF(type, d[1]) - OF(type, d[4]);         \
    const type x2 = OF(type, d[2]) - OF(type, d[5]);                                               \
    PUT_WINDOW(type, to, x0, x1, x2)
#define WINDOW_1(type)                                                                             \
    const type x0 = OF(type, d[3]), x1 = OF(type, d[4]), x2 = OF(type, d[5]);                      \
    PUT_WINDOW(type, to, x0, x1, x2)
#define WINDOW_2(type)                                                                             \
    const type x0 = OF(type, d[3]) - OF(type, d[6]), x1 = OF(type, d[4]) - OF(type, d[7]);         \
    const type x2 = OF(type, d[5]) - OF(type, d[8]);                                               \
    PUT_WINDOW(type, to, x0, x1, x2)
#define WINDOW(type)                                                                               \
    const type y0 = OF(type, d[3]), y1 = OF(type, d[4]), y2 = OF(type, d[5]);                      \
    const type a0 = OF(type, d[0]) - y0, a1 = OF(type, d[1]) - y1, a2 = OF(type, d[2]) - y2;       \
    const type b0 = y0 - OF(type, d[6]), b1 = y1 - OF(type, d[7]), b2 = y2 - OF(type, d[8]);       \
    PUT_WINDOW(type, to, a0, a1, a2)                                                               \
    PUT_WINDOW(type, to + 3 * point, y0, y1, y2)                                                   \
    PUT_WINDOW(type, to + 6 * point, b0, b1, b2)

static void window_9(float *to, size_t point, const float *const d[9], size_t n, int line)
{
    switch (line) {
    case 0:
        LOOP(WINDOW_0);
        break;
    case 1:
        LOOP(WINDOW_1);
        break;
    case 2:
        LOOP(WINDOW_2);
        break;
    default:
        LOOP(WINDOW);
    }
}

#define PUT_FILTER(type, to, x0, x1)                                                               \
    AT(type, to) = (x0);                                                                           \
    AT(type, (to) + point) = (x0) + (x1);                                                          \
    AT(type, (to) + 2 * point) = (x1);
#define FILTER_0(type)                                                                             \
    const type x0 = OF(type, e[0]), x1 = OF(type, e[1]);                                           \
    PUT_FILTER(type, to, x0, x1)
#define FILTER_1(type)                                                                             \
    const type x0 = OF(type, e[0]) + OF(type, e[2]), x1 = OF(type, e[1]) + OF(type, e[3]);         \
    PUT_FILTER(type, to, x0, x1)
#define FILTER_2(type)                                                                             \
    const type x0 = OF(type, e[2]), x1 = OF(type, e[3]);                                           \
    PUT_FILTER(type, to, x0, x1)
#define FILTER(type)                                                                               \
    const type x0 = OF(type, e[0]), x1 = OF(type, e[1]), x2 = OF(type, e[2]), x3 = OF(type, e[3]); \
    const type y0 = x0 + x2, y1 = x1 + x3;                                                         \
    PUT_FILTER(type, to, x0, x1)                                                                   \
    PUT_FILTER(type, to + 3 * point, y0, y1)                                                       \
    PUT_FILTER(type, to + 6 * point, x2, x3)

static void filter_9(float *to, size_t point, const float *const e[4], size_t n, int line)
{
    switch (line) {
    case 0:
        LOOP(FILTER_0);
        break;
    case 1:
        LOOP(FILTER_1);
        break;
    case 2:
        LOOP(FILTER_2);
        break;
    default:
        LOOP(FILTER);
    }
}

#define SUM(type, p) OF(type, m + (p)*point)
#define RESULTS(type)                                                                              \
    const type x3 = SUM(type, 3), x4 = SUM(type, 4), x5 = SUM(type, 5);                            \
    const type a0 = SUM(type, 0) + x3, a1 = SUM(type, 1) + x4, a2 = SUM(type, 2) + x5;             \
    const type b0 = x3 - SUM(type, 6), b1 = x4 - SUM(type, 7), b2 = x5 - SUM(type, 8);             \
    AT(type, to[0]) = a0 + a1;                                                                     \
    AT(type, to[1]) = a1 - a2;                                                                     \
    AT(type, to[2]) = b0 + b1;                                                                     \
    AT(type, to[3]) = b1 - b2;

static void results_4(float *const to[4], const float *m, size_t point, size_t n)
{
    LOOP(RESULTS);
}

static double sum_squares(const float *g, size_t n)
{
    double lane[LANES] = {0}, total = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (size_t j = 0; j < LANES; j++) {
            lane[j] += (double)g[i + j] * (double)g[i + j];
        }
    }
    for (size_t j = 0; i + j < n; j++) {
        lane[j] += (double)g[i + j] * (double)g[i + j];
    }
    for (int j = 0; j < LANES; j++) {
        total += lane[j];
    }
    return total;
}

static void adam(float *restrict p, const float *restrict g, float *restrict m, float *restrict v,
                 size_t n, const vae_adam *adam, float g_scale, float lr, float step_size,
                 float rsqrt_c2)
{
    const vae_adam a = *adam;
    for (size_t i = 0; i < n; i++) {
        p[i] = vae_adam_element(p[i], g[i] * g_scale, &m[i], &v[i], &a, lr, step_size, rsqrt_c2);
    }
}

#define TEXT_(x)    #x
#define TEXT(x)     TEXT_(x)
#define JOIN_(a, b) a##b
#define JOIN(a, b)  JOIN_(a, b)

extern const cpu_kernels JOIN(vae_cpu_kernels_, VAE_ISA);
const cpu_kernels JOIN(vae_cpu_kernels_, VAE_ISA) = {
    .isa = TEXT(VAE_ISA),
    .bias_act = bias_act,
    .act_grad = act_grad,
    .column_sums = column_sums,
    .column_sums_bf16 = column_sums_bf16,
    .widen = widen,
    .narrow = narrow,
    .bias_act_bf16 = bias_act_bf16,
    .act_grad_bf16 = act_grad_bf16,
    .convert_row = convert_row,
    .normals = normals,
    .latent_row = latent_row,
    .kl_row = kl_row,
    .latent_grad_row = latent_grad_row,
    .recon_row = recon_row,
    .decode_row = decode_row,
    .window_9 = window_9,
    .filter_9 = filter_9,
    .results_4 = results_4,
    .sum_squares = sum_squares,
    .adam = adam,
};
