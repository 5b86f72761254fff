/* Whole training steps of a small model, many in one launch: phases with a barrier of the grid
 * between them, where a graph has nodes.
 *
 * Everything lies in L2 anyway, so a phase is tiles of a product, spread over the blocks: a warp
 * loads what it multiplies straight into registers (mma.h), the warps of a block share out k and
 * add up through shared memory. A step of a model with one hidden layer a side has seven phases:
 *   1 first layer: tiles of 16 rows x 32 columns
 *   2 head, latent, decoder's first layer: 16 rows a block, whose k or columns are few, or
 *     several blocks for the same rows, each some of the last product's columns; the other blocks
 *     gather the next step's batch
 *   3 logits, loss, dlogits: tiles
 *   4 gradient of the decoder's hidden layer: tiles
 *   5 back through the latent, likewise; one block adds up the totals, the others do the
 *     decoder's weight gradients, a warp for 32 x 32 weights
 *   6 the encoder's weight gradients
 *   7 norm and Adam: a block's share of parameters and moments stays in its shared memory from
 *     step to step
 * More layers are more phases like 1 and 4.
 *
 * Who computes a tile changes nothing: tiles, the shares of k and the order of all sums follow from
 * sizes, so results are the same for any number of blocks. Nothing here may be read through the
 * non-coherent cache (__restrict__, __ldg): other blocks write it during the launch. Shared memory
 * is dynamic only. */
#include "kernels.h"
#include "launch.h"
#include "mma.h"
#include "random.h"
#include "rows.h"
#include "vae_math.h"
#include "vector.h"

enum {
    WARPS = VAE_BLOCK / 32,
    TILE_M = 16,
    TILE_N = 32,
    PART_LD = TILE_N + 4, /* of a warp's sums in shared memory: no two lanes in one bank */
    PART = TILE_M * PART_LD,
    AHEAD = 4,   /* chunks of k on their way at once */
    ITEMS = 128, /* pieces of work to cut a product into: about a device's multiprocessors */
    W_TILE = 32, /* of weight gradients, either way */
    ROW_LANES = VAE_BLOCK / TILE_M,
    SUMS = WARPS * PART * (int)sizeof(float), /* doubles of block_sums lie in it, too */
    SHARED = SUMS + 128                       /* and the step's entry of the plan */
};

/* 32 bits: a division of 64 is a page of code, and phases begin with some. */
static __host__ __device__ __forceinline__ uint32_t parts(uint32_t n, uint32_t of)
{
    return (n + of - 1) / of;
}

/* ---- scratch: what passes between blocks beside the matrices ---- */

struct control {
    uint32_t arrived;          /* at barriers, since the launch; all blocks poll this line */
    alignas(128) uint32_t bad; /* a step went bad: nothing is updated */
};

/* Tiles of a layer's weight gradient. */
static uint32_t weight_tiles(const vae_whole_layer &l)
{
    return parts((uint32_t)l.out, W_TILE) * parts((uint32_t)l.ldw, W_TILE);
}

/* a / n without a division, which takes a phase's start longer than anything else there; exact for
 * a * n < 2^32. */
struct divisor {
    uint64_t inverse, n; /* no padding: kernels.h, vae_rows */
};

static divisor divisor_of(uint32_t n)
{
    return {(((uint64_t)1 << 32) + n - 1) / n, n};
}

static __device__ __forceinline__ uint32_t quotient(uint32_t a, const divisor &by)
{
    return (uint32_t)(a * by.inverse >> 32);
}

/* How a phase is cut: `tiles` tiles of columns, `wide` of them at a time, by rows. */
struct cut {
    divisor across;
    uint32_t items, tiles;
    uint64_t wide;
};

/* What the kernel is told. scratch: control, then (tiles) doubles, then (columns of tiles, B)
 * floats, then twins. Twins: where rows, not columns, are shared out, several blocks do the same
 * rows, each some columns of the last product; the products before it they all do, and all but the
 * first keep what these make to themselves: of head and z (B,y.ld), (B,x.ld), and so of their
 * gradients. */
struct persistent_job {
    vae_persistent of;
    size_t squares, recon, twins, bytes; /* places in scratch, its size */
    cut forward[VAE_WHOLE_LAYERS], backward[VAE_WHOLE_LAYERS];
    divisor weights[VAE_WHOLE_LAYERS]; /* columns of tiles of a layer's weight gradient */
    uint32_t row_blocks;               /* that share out rows alone */
    uint32_t each;                     /* a block's share of the flat buffers */
    uint32_t
        first_tile[VAE_WHOLE_LAYERS + 2]; /* of each layer's weight gradient; [n_layers]: all */
};

static cut cut_of(uint32_t rows, uint32_t columns, uint32_t most_across)
{
    const uint32_t row_tiles = parts(rows, TILE_M), tiles = parts(columns, TILE_N);
    uint32_t wide = most_across > 0 ? parts(tiles, most_across) : parts(row_tiles * tiles, ITEMS);
    wide = most_across > 0 || wide < WARPS ? wide : (uint32_t)WARPS;
    const uint32_t across = parts(tiles, wide);
    return {divisor_of(across), row_tiles * across, tiles, wide};
}

static __host__ __device__ __forceinline__ size_t twin_size(const vae_whole_step &step)
{
    const vae_whole_layer *const head = &step.layers[step.n_encoder - 1];
    return step.B * (head[0].y.ld + head[1].x.ld);
}

static persistent_job plan_job(const vae_whole_step &step, uint32_t spread, uint32_t blocks)
{
    persistent_job job;
    memset(&job, 0, sizeof job);
    for (uint32_t l = 0; l < step.n_layers; l++) {
        job.first_tile[l + 1] = job.first_tile[l] + weight_tiles(step.layers[l]);
    }
    const uint32_t B = (uint32_t)step.B, head = (uint32_t)step.n_encoder - 1;
    for (uint32_t l = 0; l < step.n_layers; l++) {
        const vae_whole_layer &layer = step.layers[l];
        job.weights[l] = divisor_of(parts((uint32_t)layer.ldw, W_TILE));
        job.forward[l] = l == head ? cut_of(B, (uint32_t)step.layers[l + 1].out, spread)
                                   : cut_of(B, (uint32_t)layer.out, 0);
        job.backward[l] = l == head + 1 ? cut_of(B, (uint32_t)step.layers[head].in, spread)
                                        : cut_of(B, (uint32_t)layer.in, 0);
    }
    const uint32_t f = job.forward[head].items, b = job.backward[head + 1].items;
    job.row_blocks = f > b ? f : b;
    job.each = parts((uint32_t)step.n, 16 * blocks) * 16;
    job.squares = 256;
    job.recon = job.squares + job.first_tile[step.n_layers] * sizeof(double);
    job.twins = job.recon + parts((uint32_t)step.D, TILE_N) * step.B * sizeof(float);
    job.twins = (job.twins + 15) / 16 * 16;
    job.bytes = job.twins + (spread - 1) * twin_size(step) * sizeof(float);
    return job;
}

/* ---- what a block knows throughout ---- */

template <vae_product P> struct worker {
    typedef typename product_elem<P>::type T;
    const vae_persistent &job;
    const persistent_job &plans;
    const uint32_t *first_tile;
    uint64_t first_entry; /* of the plan; read once */
    float *part;          /* shared: SHARED bytes */
    double *squares;
    float *recon;
    control *ctl;
    uint32_t barriers;
    uint32_t *times; /* of the block, in the last step, if wanted; else NULL */
    uint32_t phase, since;

    __device__ __forceinline__ const vae_whole_step &step() const
    {
        return job.step;
    }
    __device__ __forceinline__ const T *weights() const
    {
        return static_cast<const T *>(job.weights);
    }
    /* x of layer l in step s; the batch has two places. */
    __device__ __forceinline__ T *x_of(uint32_t l, uint32_t s) const
    {
        return static_cast<T *>(l == 0 && s % 2 == 1 ? job.x_next : job.step.layers[l].x.data);
    }
    /* Head, or its gradient, of one of the blocks that do the same rows; z, or its gradient. */
    __device__ __forceinline__ T *head_of(void *first, uint32_t twin) const
    {
        return twin == 0 ? static_cast<T *>(first)
                         : reinterpret_cast<T *>(static_cast<char *>(job.scratch) + plans.twins) +
                               (twin - 1) * twin_size(job.step);
    }
    __device__ __forceinline__ T *z_of(void *first, uint32_t twin) const
    {
        return twin == 0 ? static_cast<T *>(first)
                         : head_of(first, twin) +
                               job.step.B * job.step.layers[job.step.n_encoder - 1].y.ld;
    }
    /* The step's entry of the plan, in shared memory: three phases want it, and from the cursor it
     * is two loads that wait for each other. To be read after the next barrier of the block. */
    __device__ __forceinline__ vae_plan *plan() const
    {
        return reinterpret_cast<vae_plan *>(part + SUMS / sizeof(float));
    }
    __device__ __forceinline__ void fetch_plan(uint32_t s) const
    {
        const vae_word2 *from = reinterpret_cast<const vae_word2 *>(job.now.plan + first_entry + s);
        if (threadIdx.x < sizeof(vae_plan) / sizeof *from) {
            reinterpret_cast<vae_word2 *>(plan())[threadIdx.x] = from[threadIdx.x];
        }
    }
    __device__ __forceinline__ void meet()
    {
        barriers++;
        mark(VAE_MARK_PHASES + 2 * phase);
        const uint32_t arrived = times != NULL ? ticks() : 0;
        grid_sync(&ctl->arrived, barriers * gridDim.x);
        if (times != NULL) {
            since = ticks();
            if (threadIdx.x == 0) {
                times[VAE_MARK_PHASES + 2 * phase + 1] = since - arrived;
            }
            phase++;
        }
    }
    __device__ __forceinline__ void mark(uint32_t what) const
    {
        if (times != NULL && threadIdx.x == 0) {
            times[what] = ticks() - since;
        }
    }
};

/* ---- products of a block: 16 rows, some tiles of columns ---- */

template <typename T> struct operands {
    const T *a; /* (rows,lda), k side by side */
    uint32_t lda, rows;
    const T *b; /* (n,ldb), k side by side; or (K,ldb), columns side by side */
    uint32_t ldb, n, K;
};

/* A warp's share of a tile: chunks begin .. end-1. */
template <vae_product P, bool COLUMNS, typename T>
static __device__ __forceinline__ void warp_tile(float (*c)[4][4], const operands<T> &of,
                                                 uint32_t m0, uint32_t n0, uint32_t begin,
                                                 uint32_t end)
{
    const uint32_t g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const T *a0 = of.a + (size_t)(m0 + g) * of.lda, *a1 = a0 + (size_t)8 * of.lda;
    const bool real0 = m0 + g < of.rows, real1 = m0 + g + 8 < of.rows;
    for (uint32_t c0 = begin; c0 < end; c0 += AHEAD) {
        uint32_t a[AHEAD][2][4], b[AHEAD][4][4];
        VAE_UNROLL
        for (uint32_t d = 0; d < AHEAD; d++) {
            if (c0 + d < end) {
                const uint32_t k = (c0 + d) * CHUNK<T> + t * PIECE<T>, n = n0 + 4 * g;
                fetch_row(a[d][0], a0, real0, k, of.lda);
                fetch_row(a[d][1], a1, real1, k, of.lda);
                if (COLUMNS) {
                    fetch_columns(b[d], of.b, of.ldb, n, k, of.K);
                } else {
                    VAE_UNROLL
                    for (uint32_t q = 0; q < 4; q++) {
                        fetch_row(b[d][q], of.b + (size_t)(n + q) * of.ldb, n + q < of.n, k,
                                  of.ldb);
                    }
                }
            }
        }
        VAE_UNROLL
        for (uint32_t d = 0; d < AHEAD; d++) {
            if (c0 + d < end) {
                multiply<P, 1>(c, a[d], b[d]);
            }
        }
    }
}

/* Rows m0 .. m0+15 of the product, tiles first .. first+tiles-1 of its columns, by all warps: as
 * many tiles at a time as there are warps, or fewer, of which each is then shared out by its k.
 * finish(row, column, v, fetched): four neighbouring sums, by eight neighbouring lanes a tile's
 * row; fetched: what fetch(row, column) loaded, early, so that one wait is enough for all loads. */
template <vae_product P, bool COLUMNS, typename T, typename G, typename F>
static __device__ __forceinline__ void block_product(float *part, const operands<T> &of,
                                                     uint32_t m0, uint32_t first, uint32_t tiles,
                                                     G fetch, F finish)
{
    const uint32_t warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const uint32_t chunks = parts(of.K, CHUNK<T>);
    for (uint32_t done = 0; done < tiles;) {
        const uint32_t left = tiles - done, now = left < WARPS ? left : (uint32_t)WARPS;
        const uint32_t halvings = (now <= WARPS / 2) + (now <= WARPS / 4) + (now <= WARPS / 8);
        const uint32_t shares = 1u << halvings; /* of a tile's k; tile and share by shifts */
        const uint32_t tile = warp >> halvings, share = warp & (shares - 1);
        const auto row_of = [&](uint32_t i) { return m0 + i % 128 / 8; };
        const auto column_of = [&](uint32_t i) {
            return (first + done + i / 128) * TILE_N + i % 8 * 4;
        };
        const uint32_t pieces = now * (TILE_M * TILE_N / 4);
        auto fetched = fetch(row_of(threadIdx.x), column_of(threadIdx.x), threadIdx.x < pieces);
        if (tile < now) {
            float c[1][4][4] = {};
            warp_tile<P, COLUMNS>(c, of, m0, (first + done + tile) * TILE_N,
                                  chunks * share >> halvings, chunks * (share + 1) >> halvings);
            VAE_UNROLL
            for (int i = 0; i < 4; i++) { /* row g + 8*(i/2), columns 8t + 4*(i%2) + q */
                const float v[4] = {c[0][0][i], c[0][1][i], c[0][2][i], c[0][3][i]};
                elem<float>::put4(
                    part + warp * PART + (g + i / 2 * 8) * PART_LD + 8 * t + i % 2 * 4, v);
            }
        }
        __syncthreads();
        for (uint32_t i = threadIdx.x, next; i < pieces; i = next) {
            const uint32_t at = i / 128, row = i % 128 / 8, column = i % 8 * 4;
            const auto mine = fetched;
            next = i + VAE_BLOCK;
            fetched = fetch(row_of(next), column_of(next), next < pieces);
            float sum[4] = {0, 0, 0, 0};
            for (uint32_t s = 0; s < shares; s++) {
                float v[4];
                elem<float>::get4(v, part + (at * shares + s) * PART + row * PART_LD + column);
                VAE_UNROLL
                for (int e = 0; e < 4; e++) {
                    sum[e] += v[e];
                }
            }
            finish(row_of(i), column_of(i), sum, mine);
        }
        __syncthreads();
        done += now;
    }
}

/* ---- layers ---- */

/* -log p(x|l) of one value and its derivative. */
static __device__ __forceinline__ float recon_loss(const vae_persistent &job, float l, float x,
                                                   float *dl)
{
    float unused;
    return job.step.recon.likelihood == VAE_BERNOULLI
               ? vae_bernoulli(l, x, dl)
               : vae_gaussian(l, x, job.logvar, job.inv_var, dl, &unused);
}

/* y = act(x W^T + b) of 16 rows and some tiles of columns; in the last layer dlogits in its place,
 * and each row's loss over a tile. */
template <vae_product P>
static __device__ __forceinline__ void forward_tiles(const worker<P> &me, uint32_t s, uint32_t l,
                                                     uint32_t twin, uint32_t m0, uint32_t first,
                                                     uint32_t tiles)
{
    typedef typename worker<P>::T T;
    const vae_whole_step &step = me.step();
    const vae_whole_layer &layer = step.layers[l];
    const uint32_t B = (uint32_t)step.B, out = (uint32_t)layer.out, ld = (uint32_t)layer.y.ld;
    const T *bias = me.weights() + layer.bias;
    const bool of_head = l == step.n_encoder - 1;
    T *y = me.head_of(layer.y.data, of_head ? twin : 0), *pre = static_cast<T *>(layer.aux);
    const bool last = l == step.n_layers - 1;
    const T *x0 = me.x_of(0, s);
    const uint32_t ldx = (uint32_t)step.layers[0].x.ld;
    const float scale = 1.0f / (float)B;
    const operands<T> of = {me.z_of(me.x_of(l, s), of_head ? 0 : twin),
                            (uint32_t)layer.x.ld,
                            B,
                            me.weights() + layer.weight,
                            (uint32_t)layer.ldw,
                            out,
                            (uint32_t)layer.x.ld};
    struct beside {
        float b[4], x[4];
    };
    const auto fetch = [&](uint32_t r, uint32_t c, bool wanted) {
        beside of_it = {};
        if (wanted && r < B && c < ld) {
            elem<T>::get4(of_it.b, bias + c);
            if (last) {
                elem<T>::get4(of_it.x, x0 + (size_t)r * ldx + c);
            }
        }
        return of_it;
    };
    const auto finish = [&](uint32_t r, uint32_t c, float *v, const beside &of_it) {
        const float *b = of_it.b, *x = of_it.x;
        float loss = 0;
        const bool real = r < B && c < ld;
        VAE_UNROLL
        for (uint32_t e = 0; e < 4; e++) {
            const bool inside = real && c + e < out;
            v[e] = inside ? v[e] + b[e] : 0.0f;
            if (last && inside) {
                float dl;
                loss += recon_loss(me.job, v[e], x[e], &dl);
                v[e] = dl * scale;
            }
        }
        if (last) {
            loss = group_sum(loss, 8);
            if (r < B && c % TILE_N == 0) {
                me.recon[(size_t)(c / TILE_N) * B + r] = loss;
            }
        }
        if (!real) {
            return;
        }
        if (!last && layer.act != VAE_ACT_NONE) {
            if (vae_act_keeps_input(layer.act)) {
                elem<T>::put4(pre + (size_t)r * ld + c, v);
            }
            VAE_UNROLL
            for (uint32_t e = 0; e < 4; e++) {
                v[e] = c + e < out ? vae_act(layer.act, v[e]) : 0.0f;
            }
        }
        elem<T>::put4(y + (size_t)r * ld + c, v);
    };
    block_product<P, false>(me.part, of, m0, first, tiles, fetch, finish);
}

/* dx = (dy W) * act' of 16 rows and some tiles of columns. */
template <vae_product P>
static __device__ __forceinline__ void input_tiles(const worker<P> &me, uint32_t l, uint32_t twin,
                                                   uint32_t m0, uint32_t first, uint32_t tiles)
{
    typedef typename worker<P>::T T;
    const vae_whole_step &step = me.step();
    const vae_whole_layer &layer = step.layers[l], &below = step.layers[l - 1];
    const uint32_t B = (uint32_t)step.B, in = (uint32_t)layer.in, ld = (uint32_t)layer.dx.ld;
    const vae_activation act = l == step.n_encoder ? VAE_ACT_NONE : below.act;
    const T *from = static_cast<const T *>(vae_act_keeps_input(act) ? below.aux : layer.x.data);
    const bool of_head = l == step.n_encoder - 1;
    T *dx = me.z_of(layer.dx.data, of_head ? 0 : twin);
    const operands<T> of = {me.head_of(layer.dy.data, of_head ? twin : 0),
                            (uint32_t)layer.dy.ld,
                            B,
                            me.weights() + layer.weight,
                            (uint32_t)layer.ldw,
                            0,
                            (uint32_t)layer.out};
    struct beside {
        float y[4];
    };
    const auto fetch = [&](uint32_t r, uint32_t c, bool wanted) {
        beside of_it = {};
        if (wanted && r < B && c < ld) {
            elem<T>::get4(of_it.y, from + (size_t)r * ld + c);
        }
        return of_it;
    };
    const auto finish = [&](uint32_t r, uint32_t c, float *v, const beside &of_it) {
        const float *y = of_it.y;
        if (r >= B || c >= ld) {
            return;
        }
        VAE_UNROLL
        for (uint32_t e = 0; e < 4; e++) {
            v[e] = c + e < in ? v[e] * vae_act_grad(act, y[e]) : 0.0f;
        }
        elem<T>::put4(dx + (size_t)r * ld + c, v);
    };
    block_product<P, true>(me.part, of, m0, first, tiles, fetch, finish);
}

/* A phase's items: f(first row, which of those across, first tile, tiles). */
template <typename F> static __device__ __forceinline__ void share_out(const cut &by, F f)
{
    for (uint32_t i = blockIdx.x; i < by.items; i += gridDim.x) {
        const uint32_t group = quotient(i, by.across), wide = (uint32_t)by.wide;
        const uint32_t which = i - group * (uint32_t)by.across.n;
        const uint32_t first = which * wide, left = by.tiles - first;
        f(group * TILE_M, which, first, left < wide ? left : wide);
    }
}

/* ---- the latent, of rows m0 .. m0+15: ROW_LANES threads a row, a quad of latents each ---- */

template <typename T>
static __device__ __forceinline__ void get_some(float *v, const T *p, uint32_t n)
{
    VAE_UNROLL
    for (uint32_t i = 0; i < 4; i++) {
        v[i] = i < n ? elem<T>::get(p + i) : 0.0f;
    }
}

/* Backward too draws the noise, rather than keep it. */
template <vae_product P, bool BACKWARD>
static __device__ __forceinline__ void latent_rows(const worker<P> &me, uint32_t twin, uint32_t m0)
{
    typedef typename worker<P>::T T;
    const vae_whole_step &step = me.step();
    const vae_whole_layer &head_layer = step.layers[step.n_encoder - 1];
    const vae_whole_layer &z_layer = step.layers[step.n_encoder];
    const vae_plan *plan = me.plan();
    const uint32_t Z = (uint32_t)step.Z, quads = parts(Z, 4);
    const uint32_t r = m0 + threadIdx.x / ROW_LANES, lane = threadIdx.x % ROW_LANES;
    const T *head =
        me.head_of(head_layer.y.data, BACKWARD ? 0 : twin) + (size_t)r * head_layer.y.ld;
    float kl = 0;
    /* z's padding, too: a twin's is anything */
    for (uint32_t q = lane; r < step.B && q < (uint32_t)z_layer.x.ld / 4; q += ROW_LANES) {
        float mu[4], logvar[4], eps[4];
        const uint32_t n = q < quads ? Z - 4 * q : 0;
        get_some(mu, head + 4 * q, n);
        get_some(logvar, head + Z + 4 * q, n);
        random_eps4(eps, step.noise.seed, VAE_RNG_EPS, plan->first + r, quads, q, plan->draw,
                    plan->particle0);
        if (!BACKWARD) {
            float z[4];
            VAE_UNROLL
            for (uint32_t i = 0; i < 4; i++) {
                z[i] = i < n ? mu[i] + vae_expf(0.5f * logvar[i]) * eps[i] : 0.0f;
                kl += i < n ? vae_kl(mu[i], logvar[i], vae_expf(logvar[i])) : 0.0f;
            }
            elem<T>::put4(me.z_of(z_layer.x.data, twin) + (size_t)r * z_layer.x.ld + 4 * q, z);
        } else {
            const float scale = 1.0f / (float)step.B * plan->beta;
            T *dhead = me.head_of(head_layer.dy.data, twin) + (size_t)r * head_layer.dy.ld;
            float dz[4];
            elem<T>::get4(dz, me.z_of(z_layer.dx.data, twin) + (size_t)r * z_layer.dx.ld + 4 * q);
            VAE_UNROLL
            for (uint32_t i = 0; i < 4; i++) {
                const float sigma = vae_expf(0.5f * logvar[i]);
                if (i < n) {
                    elem<T>::put(dhead + 4 * q + i, dz[i] + scale * mu[i]);
                    elem<T>::put(dhead + Z + 4 * q + i,
                                 0.5f * dz[i] * eps[i] * sigma +
                                     scale * vae_dkl_dlogvar(vae_expf(logvar[i])));
                }
            }
        }
    }
    if (!BACKWARD) {
        kl = group_sum(kl, ROW_LANES);
        if (twin == 0 && lane == 0 && r < step.B) {
            step.kl_row[r] = kl;
        }
    }
    __syncthreads();
}

/* ---- the batch ---- */

/* x: the batch of step s, by the blocks from `first` on: a warp takes a vector a lane of a row. Not
 * inlined, as it is called in two places and is much code; and so not given the worker, which would
 * have to be in memory then, and its pointers be of any address space. */
template <vae_product P>
static __device__ __noinline__ void gather_batch(const vae_persistent &job,
                                                 typename worker<P>::T *x, uint64_t first_entry,
                                                 uint32_t s, uint32_t first)
{
    typedef typename worker<P>::T T;
    constexpr uint32_t N = elem<T>::N;
    const vae_whole_step &step = job.step;
    if (s >= job.n_steps || blockIdx.x < first) {
        return;
    }
    const uint64_t entry = first_entry + s;
    const uint32_t D = (uint32_t)step.D, chunks = parts(D, N), pieces = parts(chunks, 32);
    const uint32_t blocks = gridDim.x - first;
    const size_t padded = (size_t)parts(D, 16) * 16, quads = parts(D, 4);
    value_rule rule = {step.binarize, step.noise.seed, 0, 0};
    if (step.binarize == VAE_BINARIZE_DYNAMIC) {
        rule.block = vae_rng_block(job.now.plan[entry].draw, 0);
    }
    for (uint32_t i = blockIdx.x - first + blocks * (threadIdx.x / 32); i < step.B * pieces;
         i += blocks * WARPS) {
        const uint32_t r = i / pieces, chunk = i % pieces * 32 + threadIdx.x % 32;
        if (chunk >= chunks) {
            continue;
        }
        uint32_t number;
        float v[N];
        const size_t place = row_place(&number, job.rows, job.now.plan, entry, r);
        rule.stream = vae_rng_stream(VAE_RNG_BINARIZE, number * quads);
        if (job.rows.dtype == VAE_U8) {
            convert<T>(v, static_cast<const uint8_t *>(job.rows.rows) + place * padded, chunk,
                       rule);
        } else if (job.rows.dtype == VAE_F32) {
            convert<T>(v, static_cast<const float *>(job.rows.rows) + place * padded, chunk, rule);
        } else {
            convert<T>(v, static_cast<const uint32_t *>(job.rows.rows) + place * parts(D, 32),
                       chunk, rule);
        }
        VAE_UNROLL
        for (uint32_t e = 0; step.binarize == VAE_BINARIZE_THRESHOLD && e < N; e++) {
            v[e] = v[e] >= 0.5f ? 1.0f : 0.0f;
        }
        store16(x + (size_t)r * step.layers[0].x.ld + chunk * N, elem<T>::pack(v));
    }
}

/* ---- weight gradients: a warp for 32 x 32 weights, k the rows of the batch ---- */

static __device__ __forceinline__ float word_sum(uint32_t word, float)
{
    return float_of(word);
}

static __device__ __forceinline__ float word_sum(uint32_t word, vae_bf16)
{
    return float_of(word << 16) + float_of(word & 0xFFFF0000u);
}

/* One tile of a layer's weight gradient, into grads, with the bias gradient in the first tile of a
 * row of them; its sum of squares. */
template <vae_product P>
static __device__ __forceinline__ double weight_tile(const worker<P> &me, uint32_t s, uint32_t l,
                                                     uint32_t tile)
{
    typedef typename worker<P>::T T;
    constexpr uint32_t DEEP = AHEAD / 2;
    const vae_whole_step &step = me.step();
    const vae_whole_layer &layer = step.layers[l];
    const uint32_t g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, B = (uint32_t)step.B;
    const uint32_t out = (uint32_t)layer.out, down = quotient(tile, me.plans.weights[l]);
    const uint32_t n = down * W_TILE + 4 * g,
                   j = (tile - down * (uint32_t)me.plans.weights[l].n) * W_TILE;
    const T *dy = static_cast<const T *>(layer.dy.data), *x = me.x_of(l, s);
    float c[2][4][4] = {}, db[4] = {0, 0, 0, 0};
    for (uint32_t k0 = 0; k0 < B; k0 += DEEP * CHUNK<T>) {
        uint32_t a[DEEP][4][4], b[DEEP][4][4];
        VAE_UNROLL
        for (uint32_t d = 0; d < DEEP; d++) {
            const uint32_t k = k0 + d * CHUNK<T> + t * PIECE<T>;
            fetch_columns(a[d], dy, (uint32_t)layer.dy.ld, n, k, B);
            fetch_columns(b[d], x, (uint32_t)layer.x.ld, j + 4 * g, k, B);
        }
        VAE_UNROLL
        for (uint32_t d = 0; d < DEEP; d++) {
            VAE_UNROLL
            for (int i = 0; i < 16; i++) {
                db[i / 4] += word_sum(a[d][i / 4][i % 4], T());
            }
            multiply<P, 2>(c, a[d], b[d]);
        }
    }
    double squares = 0;
    float *dw = step.grads + layer.weight;
    VAE_UNROLL
    for (uint32_t i = 0; i < 8; i++) { /* row n + i/2, columns j + 8t + 4*(i%2) + q */
        const uint32_t row = n + i / 2, column = j + 8 * t + i % 2 * 4, at = i % 4;
        const float v[4] = {c[i / 4][0][at], c[i / 4][1][at], c[i / 4][2][at], c[i / 4][3][at]};
        if (row < out && column < layer.ldw) {
            elem<float>::put4(dw + (size_t)row * layer.ldw + column, v);
            VAE_UNROLL
            for (int e = 0; e < 4; e++) {
                squares += (double)v[e] * (double)v[e];
            }
        }
    }
    VAE_UNROLL
    for (uint32_t q = 0; q < 4; q++) {
        db[q] = group_sum(db[q], 4); /* the four lanes t of a group g */
        if (j == 0 && t == 0 && n + q < out) {
            step.grads[layer.bias + n + q] = db[q];
            squares += (double)db[q] * (double)db[q];
        }
    }
    for (unsigned o = 16; o > 0; o /= 2) {
        squares += __shfl_xor_sync(0xFFFFFFFFu, squares, o);
    }
    return squares;
}

/* The gradients of layers begin .. end-1, by the blocks from `first` on. */
template <vae_product P>
static __device__ __forceinline__ void
weight_gradients(const worker<P> &me, uint32_t s, uint32_t begin, uint32_t end, uint32_t first)
{
    if (blockIdx.x < first) {
        return;
    }
    const uint32_t blocks = gridDim.x - first;
    for (uint32_t i = me.first_tile[begin] + blockIdx.x - first + blocks * (threadIdx.x / 32);
         i < me.first_tile[end]; i += blocks * WARPS) {
        uint32_t l = begin;
        while (i >= me.first_tile[l + 1]) {
            l++;
        }
        const double squares = weight_tile(me, s, l, i - me.first_tile[l]);
        if (threadIdx.x % 32 == 0) {
            me.squares[i] = squares;
        }
    }
}

/* ---- totals and the update ---- */

/* The block's sum, of all its threads and in all of them, by lanes and then by warps; part: shared,
 * WARPS doubles nobody else uses before the block's next barrier. */
static __device__ __forceinline__ double sum_of_block(double v, double *part)
{
    for (unsigned o = 16; o > 0; o /= 2) {
        v += __shfl_xor_sync(0xFFFFFFFFu, v, o);
    }
    if (threadIdx.x % 32 == 0) {
        part[threadIdx.x / 32] = v;
    }
    __syncthreads();
    v = part[0];
    for (uint32_t i = 1; i < WARPS; i++) {
        v += part[i];
    }
    return v;
}

/* Of n values, this thread's; many on their way at once. */
template <typename V>
static __device__ __forceinline__ double sum_of_thread(const V *values, uint32_t n)
{
    constexpr uint32_t TURNS = 8;
    double sum = 0;
    VAE_ROLLED
    for (uint32_t i = threadIdx.x; i < n; i += TURNS * VAE_BLOCK) {
        V v[TURNS];
        VAE_UNROLL
        for (uint32_t u = 0; u < TURNS; u++) {
            v[u] = i + u * VAE_BLOCK < n ? values[i + u * VAE_BLOCK] : V(0);
        }
        VAE_UNROLL
        for (uint32_t u = 0; u < TURNS; u++) {
            sum += (double)v[u];
        }
    }
    return sum;
}

/* By one block: totals +=, as accumulate does; says whether a step has gone bad. */
template <vae_product P> static __device__ __forceinline__ void add_totals(const worker<P> &me)
{
    const vae_whole_step &step = me.step();
    const uint32_t B = (uint32_t)step.B, tiles = parts((uint32_t)step.D, TILE_N);
    double *part = reinterpret_cast<double *>(me.part);
    vae_totals before = {};
    if (threadIdx.x == 0) {
        before = *step.totals;
    }
    const double own_kl = sum_of_thread(step.kl_row, B);
    const double recon = sum_of_block(sum_of_thread(me.recon, tiles * B), part);
    const double kl = sum_of_block(own_kl, part + WARPS);
    if (threadIdx.x == 0) {
        const vae_plan *plan = me.plan();
        vae_totals *totals = step.totals;
        const double objective = recon + (double)plan->beta * kl;
        totals->recon = before.recon + recon;
        totals->kl = before.kl + kl;
        totals->objective = before.objective + objective;
        totals->examples = before.examples + (double)B;
        if (before.bad_step == 0 && !isfinite(recon + kl + objective)) {
            totals->bad_step = before.bad_step = plan->step;
        }
        me.ctl->bad = before.bad_step != 0;
    }
    __syncthreads();
}

/* A block's share of the flat buffers: in shared memory behind the sums, if it is to live there.
 * Worked out anew where it is needed, rather than kept in registers throughout. */
struct share {
    uint32_t begin, end;
    float *p, *m, *v;
    uint32_t base; /* place 0 of p, m, v is element `base` */
};

static_assert(sizeof(vae_plan) <= 128 && sizeof(vae_plan) % 8 == 0, "the plan's place");

static __device__ __forceinline__ share share_of(const persistent_job &plan, float *shared)
{
    const vae_persistent &job = plan.of;
    const vae_whole_step &step = job.step;
    const uint32_t n = (uint32_t)step.n, each = plan.each;
    const uint32_t begin = blockIdx.x * each < n ? blockIdx.x * each : n;
    const uint32_t end = n - begin < each ? n : begin + each;
    if (!job.in_shared) {
        return {begin, end, step.params, step.m, step.v, 0};
    }
    float *own = shared + SHARED / sizeof(float);
    return {begin, end, own, own + each, own + 2 * each, begin};
}

/* TURNS quads of a thread, from i0 on, as far as they are the block's own. */
template <uint32_t TURNS>
static __device__ __forceinline__ void fetch_gradients(float (*g)[4], const float *grads,
                                                       const share &own, uint32_t i0)
{
    VAE_UNROLL
    for (uint32_t u = 0; u < TURNS; u++) {
        vae_word4 v = {{0, 0, 0, 0}};
        if (i0 + u * 4 * VAE_BLOCK < own.end) {
            v = load16(grads + i0 + u * 4 * VAE_BLOCK);
        }
        elem<float>::unpack(g[u], v);
    }
}

/* The norm, by every block for itself, and Adam on its share. */
template <vae_product P> static __device__ __forceinline__ void update(const worker<P> &me)
{
    typedef typename worker<P>::T T;
    constexpr uint32_t TURNS = 4;
    const vae_whole_step &step = me.step();
    const vae_plan *plan = me.plan();
    const float lr = plan->lr, step_size = plan->step_size, rsqrt_c2 = plan->rsqrt_c2;
    /* all loads before the first wait: the first turn's gradients, too */
    const share own = share_of(me.plans, me.part);
    const uint32_t went_bad = me.ctl->bad;
    float g[TURNS][4];
    fetch_gradients<TURNS>(g, step.grads, own, own.begin + 4 * threadIdx.x);
    const double sum = sum_of_block(sum_of_thread(me.squares, me.first_tile[step.n_layers]),
                                    reinterpret_cast<double *>(me.part));
    const bool bad = went_bad != 0 || !isfinite(sum);
    const double norm = sqrt(sum);
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        step.totals->grad_norm = norm;
        if (went_bad == 0 && !isfinite(sum)) {
            step.totals->bad_step = plan->step;
        }
    }
    me.mark(VAE_MARK_NORM);
    const float g_scale = step.clip_norm > 0 && norm > (double)step.clip_norm
                              ? (float)((double)step.clip_norm / norm)
                              : 1.0f;
    T *weights = static_cast<T *>(me.job.weights);
    const bool write_weights = sizeof(T) == 2 || me.job.in_shared;
    for (uint32_t i0 = own.begin + 4 * threadIdx.x; !bad && i0 < own.end;
         i0 += TURNS * 4 * VAE_BLOCK) {
        if (i0 >= own.begin + TURNS * 4 * VAE_BLOCK) {
            fetch_gradients<TURNS>(g, step.grads, own, i0);
        }
        VAE_UNROLL
        for (uint32_t u = 0; u < TURNS; u++) {
            const uint32_t i = i0 + u * 4 * VAE_BLOCK, at = i - own.base;
            if (i < own.end) {
                float p[4], m[4], v[4];
                elem<float>::get4(p, own.p + at);
                elem<float>::get4(m, own.m + at);
                elem<float>::get4(v, own.v + at);
                VAE_UNROLL
                for (int e = 0; e < 4; e++) {
                    p[e] = vae_adam_element(p[e], g[u][e] * g_scale, &m[e], &v[e], &step.adam, lr,
                                            step_size, rsqrt_c2);
                }
                elem<float>::put4(own.p + at, p);
                elem<float>::put4(own.m + at, m);
                elem<float>::put4(own.v + at, v);
                if (write_weights) {
                    elem<T>::put4(weights + i, p);
                }
            }
        }
    }
    __syncthreads();
}

/* ---- the kernel ---- */

/* Copies the share into shared memory, or back. A thread meets the same elements whenever the block
 * goes over its share, so no barrier is wanted. */
static __device__ __forceinline__ void move_share(const persistent_job &plan, float *shared,
                                                  bool back)
{
    const vae_persistent &job = plan.of;
    const vae_whole_step &step = job.step;
    const share own = share_of(plan, shared);
    for (uint32_t i = own.begin + 4 * threadIdx.x; job.in_shared && i < own.end;
         i += 4 * VAE_BLOCK) {
        float *const flat[] = {step.params + i, step.m + i, step.v + i};
        float *const here[] = {own.p + i - own.base, own.m + i - own.base, own.v + i - own.base};
        VAE_UNROLL
        for (int a = 0; a < 3; a++) {
            store16(back ? flat[a] : here[a], load16(back ? here[a] : flat[a]));
        }
    }
}

/* The forward phase of layer l: y of it in tiles; or, from the head, 16 rows a block, the latent
 * and the decoder's first layer as well, which need no more than those rows. One place in the code
 * for all layers: instructions that a block has not in its cache cost as much as data. */
template <vae_product P>
static __device__ __forceinline__ void forward_phase(const worker<P> &me, uint32_t s, uint32_t l)
{
    const vae_whole_step &step = me.step();
    const uint32_t latent = l == step.n_encoder - 1;
    share_out(me.plans.forward[l],
              [&](uint32_t m0, uint32_t which, uint32_t first, uint32_t tiles) {
                  const uint32_t head_tiles = parts((uint32_t)step.layers[l].out, TILE_N);
                  for (uint32_t i = 0; i <= latent; i++) {
                      const bool before = i < latent;
                      if (i == 1) {
                          me.mark(VAE_MARK_HEAD);
                          latent_rows<P, false>(me, which, m0);
                          me.mark(VAE_MARK_LATENT);
                      }
                      forward_tiles(me, s, l + i, latent != 0 ? which : 0, m0, before ? 0 : first,
                                    before ? head_tiles : tiles);
                  }
              });
}

/* The same backward: dx of layer l; or, from the decoder's first layer, of the head too. */
template <vae_product P>
static __device__ __forceinline__ void backward_phase(const worker<P> &me, uint32_t l)
{
    const vae_whole_step &step = me.step();
    const uint32_t latent = l == step.n_encoder;
    share_out(me.plans.backward[l],
              [&](uint32_t m0, uint32_t which, uint32_t first, uint32_t tiles) {
                  const uint32_t z_tiles = parts((uint32_t)step.layers[l].in, TILE_N);
                  for (uint32_t i = 0; i <= latent; i++) {
                      const bool before = i < latent;
                      if (i == 1) {
                          me.mark(VAE_MARK_DZ);
                          latent_rows<P, true>(me, which, m0);
                          me.mark(VAE_MARK_DHEAD);
                      }
                      input_tiles(me, l - i, latent != 0 ? which : 0, m0, before ? 0 : first,
                                  before ? z_tiles : tiles);
                  }
              });
}

template <vae_product P>
static __device__ __forceinline__ void whole_step(worker<P> &me, uint32_t s)
{
    const vae_whole_step &step = me.step();
    const uint32_t head = (uint32_t)step.n_encoder - 1;
    me.fetch_plan(s);
    /* blocks that have no rows where rows are what is shared out */
    const uint32_t groups = me.plans.row_blocks, spare = groups < gridDim.x ? groups : 0;
    for (uint32_t l = 0; l < step.n_layers; l += l == head ? 2 : 1) {
        forward_phase(me, s, l);
        if (l == head) {
            gather_batch<P>(me.job, me.x_of(0, s + 1), me.first_entry, s + 1, spare);
            me.mark(VAE_MARK_GATHER);
        }
        me.meet();
    }
    for (uint32_t l = (uint32_t)step.n_layers; l-- > 0;) {
        uint32_t first = spare;
        if (l > 0) {
            backward_phase(me, l);
        }
        if (l == head + 1 && blockIdx.x == spare) {
            add_totals(me);
            me.mark(VAE_MARK_TOTALS);
        }
        if (l == head + 1 || l == 0) {
            first = l > 0 && spare + 1 < gridDim.x ? spare + 1 : 0;
            weight_gradients(me, s, l, l > 0 ? (uint32_t)step.n_layers : head + 1, first);
        }
        me.meet();
        l -= l == head + 1 ? 1 : 0;
    }
    update(me);
    me.meet();
}

/* Grid: any, all of it resident; a block keeps its share of the state in shared memory behind
 * SHARED bytes of sums. */
template <vae_product P>
__global__ void __launch_bounds__(VAE_BLOCK)
    persistent_kernel(const __grid_constant__ persistent_job plan)
{
    VAE_DYNAMIC_SHARED(float, shared);
    const vae_persistent &job = plan.of;
    char *scratch = static_cast<char *>(job.scratch);
    worker<P> me = {job,
                    plan,
                    plan.first_tile,
                    plan_number(job.now),
                    shared,
                    reinterpret_cast<double *>(scratch + plan.squares),
                    reinterpret_cast<float *>(scratch + plan.recon),
                    reinterpret_cast<control *>(scratch),
                    0,
                    NULL,
                    0,
                    0};
    const uint32_t begun = ticks(), begun_ns = nanoseconds();
    move_share(plan, shared, false);
    gather_batch<P>(job, me.x_of(0, 0), me.first_entry, 0, 0);
    me.meet();
    for (uint32_t s = 0; s < job.n_steps; s++) {
        if (job.times != NULL && s + 1 == job.n_steps) {
            me.times = job.times + blockIdx.x * VAE_MARKS;
            me.since = ticks();
        }
        whole_step(me, s);
    }
    if (me.times != NULL && threadIdx.x == 0) {
        me.times[VAE_MARK_LAUNCH_CYCLES] = ticks() - begun;
        me.times[VAE_MARK_LAUNCH_NS] = nanoseconds() - begun_ns;
    }
    move_share(plan, shared, true);
}

template <vae_product P> static void *kernel_address(void)
{
    return reinterpret_cast<void *>(persistent_kernel<P>);
}

static const void *kernel_of(vae_product product)
{
    return product == VAE_PRODUCT_BF16   ? kernel_address<VAE_PRODUCT_BF16>()
           : product == VAE_PRODUCT_TF32 ? kernel_address<VAE_PRODUCT_TF32>()
                                         : kernel_address<VAE_PRODUCT_FP32>();
}

extern "C" size_t vae_persistent_scratch(const vae_whole_step *step, uint32_t spread)
{
    return plan_job(*step, spread, 1).bytes;
}

extern "C" size_t vae_persistent_shared(size_t n, unsigned blocks, bool in_shared)
{
    return SHARED + (in_shared ? 3 * sizeof(float) * 16 * parts((uint32_t)n, 16 * blocks) : 0);
}

extern "C" cudaError_t vae_persistent_occupancy(int *blocks, vae_product product, size_t shared)
{
    const void *kernel = kernel_of(product);
    cudaError_t status =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    return status == cudaSuccess
               ? cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, kernel, VAE_BLOCK, shared)
               : status;
}

extern "C" cudaError_t vae_persistent_launch(const vae_persistent *job, vae_product product,
                                             unsigned blocks, size_t shared, cudaStream_t stream)
{
    persistent_job plan = plan_job(job->step, (uint32_t)job->spread, blocks);
    memcpy(&plan.of, job, sizeof plan.of);
    plan.of.logvar = logf(job->step.recon.variance);
    plan.of.inv_var = 1.0f / job->step.recon.variance;
    switch (product) {
    case VAE_PRODUCT_FP32:
        VAE_LAUNCH_COOPERATIVE((persistent_kernel<VAE_PRODUCT_FP32>), blocks, VAE_BLOCK, shared,
                               stream, plan);
        break;
    case VAE_PRODUCT_TF32:
        VAE_LAUNCH_COOPERATIVE((persistent_kernel<VAE_PRODUCT_TF32>), blocks, VAE_BLOCK, shared,
                               stream, plan);
        break;
    case VAE_PRODUCT_BF16:
        VAE_LAUNCH_COOPERATIVE((persistent_kernel<VAE_PRODUCT_BF16>), blocks, VAE_BLOCK, shared,
                               stream, plan);
        break;
    }
    return cudaGetLastError();
}
