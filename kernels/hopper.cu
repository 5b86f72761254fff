/* Hopper's products of rows by up to 400 columns, and of weights of 784 by 400; what is narrow goes
 * to hopper_narrow.cu. */
#include "hopper_tiles.h"

#ifdef __CUDACC__
/* ---- rows by up to 400 columns, and weights of 784 by 400 ----
 * Clusters of two blocks share the tiles of b: each loads half of them, into both. */

typedef struct {
    int rows, stages; /* of the batch; along k, of 64, or of 32 rows of a weight */
    int cols;
    float least; /* FORWARD: results below are made this: 0 (ReLU) or -Inf */
    const float *bias;
    weight_parts parts;
} product_work;

/* The ring: a slot has a's tile, 128 of m, and b's, up to 400 of n. */
template <int KIND> struct tiles_of {
    static constexpr int SLOTS = KIND == WEIGHT ? 6 : 3;
    static constexpr int BOX = KIND == WEIGHT ? HALF : CHUNK;
    static constexpr int A_BYTES = 2 * BOX;
    static constexpr int SLOT = A_BYTES + (KIND == FORWARD ? COLS * 128 : M_TILES * BOX);
};

/* What a block does of a weight. */
struct weight_share {
    int tile, unit, from, to;
    bool shared; /* the cluster's blocks take the same rows */
};
HELPER weight_share share_of(const product_work &g, int rank)
{
    constexpr int WHOLE = (M_TILES - 1) / CLUSTER; /* clusters for a stretch of rows */
    weight_share s;
    const int cluster = (int)blockIdx.x / CLUSTER, *splits = g.parts.splits;
    int split, of;
    s.shared = cluster < WHOLE * splits[0];
    if (s.shared) {
        s.tile = cluster % WHOLE * CLUSTER + rank;
        split = cluster / WHOLE;
        of = splits[0];
    } else {
        s.tile = M_TILES - 1;
        split = (cluster - WHOLE * splits[0]) * CLUSTER + rank;
        of = splits[1];
    }
    s.unit = s.tile * splits[0] + split;
    s.from = (int)((int64_t)g.stages * split / of);
    s.to = split < of ? (int)((int64_t)g.stages * (split + 1) / of) : s.from;
    return s;
}

/* TAIL: steps of 16 in the last stage along k. */
template <int KIND, int TAIL>
__global__ void CLUSTERED __launch_bounds__(384, 1)
    product_kernel(const __grid_constant__ CUtensorMap map_a,
                   const __grid_constant__ CUtensorMap map_b,
                   const __grid_constant__ CUtensorMap map_y,
                   const __grid_constant__ CUtensorMap map_out, const product_work g)
{
#ifdef ON_HOPPER
    constexpr int TA = KIND == WEIGHT, TB = KIND != FORWARD;
    constexpr int SLOTS = tiles_of<KIND>::SLOTS, SLOT = tiles_of<KIND>::SLOT;
    constexpr int A_BYTES = tiles_of<KIND>::A_BYTES, SUMMERS = KIND == WEIGHT ? 2 : 0;
    extern __shared__ uint8_t raw[];
    __shared__ __align__(8) uint64_t bars[2 * SLOTS + 2];
    __shared__ __align__(8) float bias[COLS];
    const uint32_t base = (shared_at(raw) + 1023) & ~1023u;
    const uint32_t full = shared_at(bars), empty = full + 8 * SLOTS, stored = empty + 8 * SLOTS;
    const int warp = __shfl_sync(0xFFFFFFFFu, (int)threadIdx.x / 32, 0), group = warp / 4;
    const int lane = (int)threadIdx.x % 32, rank = cluster_rank();
    if (threadIdx.x == 0) {
        for (int s = 0; s < SLOTS; s++) {
            bar_init(full + 8 * s, 1);
            bar_init(empty + 8 * s, (8 + SUMMERS) * CLUSTER);
        }
        bar_init(stored, 8);
        bar_init(stored + 8, 8);
        bar_init_done();
    }
    for (int i = (int)threadIdx.x; KIND == FORWARD && i < COLS; i += (int)blockDim.x) {
        bias[i] = i < g.cols ? g.bias[i] : 0.0f;
    }
    __syncthreads();
    cluster_sync();

    weight_share own = {(int)blockIdx.x, 0, 0, g.stages, true};
    int turns = 1;
    if (KIND == WEIGHT) {
        own = share_of(g, rank);
    } else { /* the blocks of a cluster take the same number of turns, the last one for nothing */
        const int tiles = (g.rows + ROWS - 1) / ROWS + CLUSTER - 1;
        turns = (tiles / CLUSTER * CLUSTER - own.tile + (int)gridDim.x - 1) / (int)gridDim.x;
    }
    const int peer = own.shared ? rank ^ 1 : rank;
    ring<SLOTS> at;
    auto release = [&](int slot, uint32_t times) {
        bar_arrive_at(empty + 8 * slot, rank, times);
        if (CLUSTER == 2) {
            bar_arrive_at(empty + 8 * slot, peer, times);
        }
    };

    if (group == 0) {
        fewer_registers<KIND == WEIGHT ? 40 : 24>();
        if (warp == 0 && lane == 0) {
            for (int turn = 0; turn < turns; turn++) {
                const int tile = own.tile + turn * (int)gridDim.x;
                for (int k = own.from; k < own.to; k++, at.next()) {
                    const uint32_t to = base + (uint32_t)(at.slot * SLOT);
                    const uint32_t bar = full + 8 * at.slot;
                    bar_wait(empty + 8 * at.slot, at.phase ^ 1);
                    bar_expect(bar, SLOT);
                    if (KIND == WEIGHT) {
                        tma_load(to, &map_a, tile * 128, k * 32, bar);
                        tma_load(to + HALF, &map_a, tile * 128 + 64, k * 32, bar);
                    } else {
                        tma_load(to, &map_a, k * 64, tile * ROWS, bar);
                    }
                    constexpr int BOXES = KIND == FORWARD ? 2 : M_TILES;
                    constexpr int BOX = KIND == FORWARD ? COLS / 2 * 128 : tiles_of<KIND>::BOX;
                    for (int i = 0; i < BOXES; i++) {
                        const int x = KIND == FORWARD ? k * 64 : i * 64;
                        const int y = KIND == FORWARD  ? i * (COLS / 2)
                                      : KIND == WEIGHT ? k * 32
                                                       : k * 64;
                        const uint32_t there = to + A_BYTES + (uint32_t)(i * BOX);
                        if (!own.shared) {
                            tma_load(there, &map_b, x, y, bar);
                        } else if ((i & 1) == rank) {
                            tma_load_both(there, &map_b, x, y, bar);
                        }
                    }
                }
                /* Two slots for the result. To INPUT they bring y, whose sign is ReLU's
                 * derivative and in whose place it goes. */
                for (int part = 0; KIND != WEIGHT && part < 2; part++, at.next()) {
                    const uint32_t to = base + (uint32_t)(at.slot * SLOT);
                    const uint32_t bar = full + 8 * at.slot;
                    bar_wait(empty + 8 * at.slot, at.phase ^ 1);
                    if (KIND == FORWARD) {
                        bar_arrive(bar);
                        continue;
                    }
                    bar_expect(bar, (uint32_t)(3 + part) * 2 * CHUNK);
                    for (int i = 0; i < 3 + part; i++) {
                        tma_load(to + (uint32_t)(i * 2 * CHUNK), &map_y, (3 * part + i) * 64,
                                 tile * ROWS, bar);
                    }
                }
            }
        } else if (KIND != WEIGHT && warp == 1 && lane == 0) {
            /* sends results off and gives their slots back */
            for (int turn = 0; turn < turns; turn++) {
                at.slot = (at.slot + g.stages) % SLOTS;
                for (int part = 0; part < 2; part++, at.next()) {
                    bar_wait(stored + 8 * part, (uint32_t)turn & 1);
                    for (int i = 0; i < 3 + part; i++) {
                        tma_store(&map_out, (3 * part + i) * 64,
                                  (own.tile + turn * (int)gridDim.x) * ROWS,
                                  base + (uint32_t)(at.slot * SLOT + i * 2 * CHUNK));
                    }
                    tma_store_wait();
                    release(at.slot, 8);
                }
            }
        } else if (KIND == WEIGHT && (warp == 1 || warp == 2)) {
            /* column sums of the two chunks of a, or of one of b: that with the tile's number */
            const bool mine = warp == 1 || !g.parts.sums_of_b;
            const int chunk = g.parts.sums_of_b ? 2 + own.tile : warp - 1;
            float total[8] = {0, 0, 0, 0, 0, 0, 0, 0};
            for (int k = own.from; k < own.to; k++, at.next()) {
                bar_wait(full + 8 * at.slot, at.phase);
                if (mine) {
                    add_rows(total, base + (uint32_t)(at.slot * SLOT + chunk * HALF), lane);
                }
                __syncwarp();
                if (lane == 0) {
                    release(at.slot, 1);
                }
            }
            if (mine && own.from < own.to) {
                put_sums(g.parts.sums + own.unit * 128 + (warp - 1) * 64, total, lane);
            }
        }
    } else {
        more_registers<KIND == WEIGHT ? 232 : 240>();
        const int half = group - 1;
        if (KIND == WEIGHT && own.tile == M_TILES - 1 && half == 1) {
            turns = 0; /* nothing of m is there */
            for (int k = own.from; k < own.to; k++, at.next()) {
                bar_wait(full + 8 * at.slot, at.phase);
                if (lane == 0) {
                    release(at.slot, 1);
                }
            }
        }
        constexpr uint32_t A_STEP = (TA ? 2048 : 32) / 16, B_STEP = (TB ? 2048 : 32) / 16;
        constexpr int BOX = tiles_of<KIND>::BOX, STEPS = KIND == WEIGHT ? 2 : 4;
        constexpr uint32_t B_SECOND = (TB ? 3 * BOX : COLS0 * 128) / 16;
        float d0[COLS0 / 2], d1[(COLS - COLS0) / 2];
        for (int turn = 0; turn < turns && own.from < own.to; turn++) {
            int before = -1, scale = 0;
            auto stage = [&](auto steps) {
                bar_wait(full + 8 * at.slot, at.phase);
                const uint32_t slot = base + (uint32_t)(at.slot * SLOT);
                const uint64_t a = descriptor(slot + (uint32_t)(half * BOX), BOX);
                const uint64_t b = descriptor(slot + A_BYTES, BOX);
                hold(d0);
                hold(d1);
                mma_begin();
                VAE_UNROLL
                for (int i = 0; i < decltype(steps)::value; i++) {
                    mma<TA, TB>(d0, a + i * A_STEP, b + i * B_STEP, i > 0 ? 1 : scale);
                    mma<TA, TB>(d1, a + i * A_STEP, b + i * B_STEP + B_SECOND, i > 0 ? 1 : scale);
                }
                mma_commit();
                scale = 1;
                mma_wait<1>(); /* the stage before is done, its slot free */
                if (before >= 0 && lane == 0) {
                    release(before, 1);
                }
                before = at.slot;
                at.next();
            };
            for (int k = own.from; k + 1 < own.to; k++) {
                stage(number<STEPS>());
            }
            stage(number<TAIL>());
            mma_wait<0>();
            hold(d0);
            hold(d1);
            if (lane == 0) {
                release(before, 1);
            }

            if (KIND == WEIGHT) {
                float4 *to = g.parts.partial + (size_t)((own.unit * 2 + half) * (COLS / 8)) * 128 +
                             (warp & 3) * 32 + lane;
                VAE_UNROLL
                for (int j = 0; j < COLS0 / 8; j++) {
                    to[j * 128] =
                        make_float4(d0[4 * j], d0[4 * j + 1], d0[4 * j + 2], d0[4 * j + 3]);
                }
                VAE_UNROLL
                for (int j = 0; j < (COLS - COLS0) / 8; j++) {
                    to[(COLS0 / 8 + j) * 128] =
                        make_float4(d1[4 * j], d1[4 * j + 1], d1[4 * j + 2], d1[4 * j + 3]);
                }
                continue;
            }
            const int row = half * 64 + (warp & 3) * 16 + lane / 4, t = lane & 3;
            auto finish = [&](const auto &d, auto blocks, int col0, uint32_t slot) {
                VAE_UNROLL
                for (int j = 0; j < decltype(blocks)::value; j++) {
                    const float2 b = *reinterpret_cast<const float2 *>(bias + col0 + 8 * j + 2 * t);
                    VAE_UNROLL
                    for (int h = 0; h < 2; h++) {
                        const float v0 = d[4 * j + 2 * h], v1 = d[4 * j + 2 * h + 1];
                        const uint32_t to =
                            slot + (uint32_t)(j / 8 * 2 * CHUNK + (row + 8 * h) * 128 +
                                              ((j % 8 ^ (row & 7)) << 4) + 4 * t);
                        uint32_t w;
                        if (KIND == FORWARD) {
                            const float y0 = v0 + b.x, y1 = v1 + b.y;
                            w = bf16x2_of(y0 < g.least ? g.least : y0, y1 < g.least ? g.least : y1);
                        } else {
                            uint32_t y;
                            asm volatile("ld.shared.b32 %0, [%1];" : "=r"(y) : "r"(to) : "memory");
                            __nv_bfloat162 pair;
                            memcpy(&pair, &y, sizeof pair);
                            w = bf16x2_of(v0, v1) & __hgt2_mask(pair, __float2bfloat162_rn(0.0f));
                        }
                        asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(w) : "memory");
                    }
                }
            };
            for (int part = 0; part < 2; part++, at.next()) {
                bar_wait(full + 8 * at.slot, at.phase);
                const uint32_t slot = base + (uint32_t)(at.slot * SLOT);
                if (part == 0) {
                    finish(d0, number<COLS0 / 8>(), 0, slot);
                } else {
                    finish(d1, number<(COLS - COLS0) / 8>(), COLS0, slot);
                }
                tma_fence();
                __syncwarp();
                if (lane == 0) {
                    bar_arrive(stored + 8 * part);
                }
            }
        }
    }
    __syncwarp();
    __syncthreads();
    cluster_sync(); /* nothing of the other block may arrive here after this one is gone */
#else
    __trap();
#endif
}

/* Grid: a thread per float4 of the (M_TILES,2,50,128), then one per column sum. */
__global__ void __launch_bounds__(VAE_BLOCK)
    weight_finish_kernel(float *dw, size_t ld, float *db, const weight_parts g)
{
    constexpr int UNIT = 2 * (COLS / 8) * 128;
    const int i = (int)(blockIdx.x * VAE_BLOCK + threadIdx.x);
    if (i < M_TILES * UNIT) {
        const int tile = i / UNIT, place = i % UNIT, thread = place % 128;
        const int m = tile * 128 + place / (UNIT / 2) * 64 + thread / 32 * 16 + thread % 32 / 4;
        const int n = place / 128 % (COLS / 8) * 8 + 2 * (thread & 3);
        if (m < g.m && n < g.n) {
            put_weights(dw, ld, g, m, n,
                        sum_of(g.partial + (size_t)(tile * g.splits[0]) * UNIT + place,
                               tile < M_TILES - 1 ? g.splits[0] : g.splits[1], UNIT));
        }
        return;
    }
    const int c = i - M_TILES * UNIT, width = g.sums_of_b ? 64 : 128, tile = c / width;
    if (db != NULL && c < (g.sums_of_b ? g.n : g.m)) {
        float sum = 0;
        for (int u = 0; u < (tile < M_TILES - 1 ? g.splits[0] : g.splits[1]); u++) {
            sum += g.sums[(tile * g.splits[0] + u) * 128 + c % width];
        }
        db[c] = sum;
    }
}

/* ---- launchers ---- */

template <int KIND>
static cudaError_t launch_product(const CUtensorMap &a, const CUtensorMap &b, const CUtensorMap &y,
                                  const CUtensorMap &out, const product_work &g, size_t grid,
                                  int tail, cudaStream_t stream)
{
    constexpr int BYTES = tiles_of<KIND>::SLOTS * tiles_of<KIND>::SLOT + 1024;
    void (*const kernels[4])(CUtensorMap, CUtensorMap, CUtensorMap, CUtensorMap, product_work) = {
        product_kernel < KIND,   KIND == WEIGHT ? 2 : 1 >, product_kernel<KIND, 2>,
        product_kernel < KIND,   KIND == WEIGHT ? 2 : 3 >, product_kernel < KIND,
        KIND == WEIGHT ? 2 : 4 > };
    return launch(kernels[tail - 1], grid, BYTES, stream, a, b, y, out, g);
}

/* Of rows by columns: a block per tile, in turns where there are more than blocks. */
static size_t row_grid(size_t rows)
{
    const size_t tiles = ceil_div(ceil_div(rows, ROWS), CLUSTER) * CLUSTER;
    return least_of(tiles, BLOCKS);
}

extern "C" cudaError_t vae_hopper_forward_launch(vae_mat y, vae_mat x, const void *w, size_t ldw,
                                                 const float *b, size_t rows, size_t in, size_t out,
                                                 vae_activation act, cudaStream_t stream)
{
    const float least = act == VAE_ACT_RELU ? 0.0f : -INFINITY;
    const vae_mat none = {NULL, 0};
    if (in <= NARROW_K) {
        return vae_hopper_narrow_rows(y, x, w, ldw, b, none, rows, in, out, least, stream);
    }
    CUtensorMap map_x, map_w, map_y;
    TRY_CUDA(map_of(&map_x, x.data, in, rows, x.ld, ROWS));
    TRY_CUDA(map_of(&map_w, w, in, out, ldw, COLS / 2));
    TRY_CUDA(map_of(&map_y, y.data, out, rows, y.ld, ROWS));
    product_work g = {};
    g.rows = (int)rows;
    g.stages = (int)ceil_div(in, 64);
    g.cols = (int)out;
    g.least = least;
    g.bias = b;
    return launch_product<FORWARD>(map_x, map_w, map_y, map_y, g, row_grid(rows), tail_of(in),
                                   stream);
}

extern "C" cudaError_t vae_hopper_input_launch(vae_mat dx, vae_mat dy, const void *w, size_t ldw,
                                               vae_mat x, size_t rows, size_t in, size_t out,
                                               cudaStream_t stream)
{
    if (out <= NARROW_K) {
        return vae_hopper_narrow_rows(dx, dy, w, ldw, NULL, x, rows, out, in, 0.0f, stream);
    }
    CUtensorMap map_dy, map_w, map_x, map_dx;
    TRY_CUDA(map_of(&map_dy, dy.data, out, rows, dy.ld, ROWS));
    TRY_CUDA(map_of(&map_w, w, in, out, ldw, 64));
    TRY_CUDA(map_of(&map_x, x.data, in, rows, x.ld, ROWS));
    TRY_CUDA(map_of(&map_dx, dx.data, in, rows, dx.ld, ROWS));
    product_work g = {};
    g.rows = (int)rows;
    g.stages = (int)ceil_div(out, 64);
    g.cols = (int)in;
    return launch_product<INPUT>(map_dy, map_w, map_x, map_dx, g, row_grid(rows), tail_of(out),
                                 stream);
}

extern "C" cudaError_t vae_hopper_weight_launch(float *dw, size_t ldw, float *db, vae_mat dy,
                                                vae_mat x, void *partial, size_t rows, size_t in,
                                                size_t out, cudaStream_t stream)
{
    const bool sums_of_b = in > out;
    const size_t m = sums_of_b ? in : out, n = sums_of_b ? out : in, stages = ceil_div(rows, 32);
    const vae_mat a = sums_of_b ? x : dy, b = sums_of_b ? dy : x;
    if (in <= 64 || out <= 64) {
        return vae_hopper_narrow_weight(dw, ldw, db, a, b, partial, rows, m, n, sums_of_b, stream);
    }
    CUtensorMap map_a, map_b;
    TRY_CUDA(map_of(&map_a, a.data, m, rows, a.ld, 32));
    TRY_CUDA(map_of(&map_b, b.data, n, rows, b.ld, 32));
    product_work g = {};
    g.rows = (int)rows;
    g.stages = (int)stages;
    g.parts = parts_of(partial, (size_t)BLOCKS * 2 * (COLS / 8) * 128, m, n, sums_of_b);
    g.parts.splits[0] = (int)least_of(stages, SPLITS0);
    g.parts.splits[1] = (int)least_of(stages, SPLITS1);
    const size_t grid = (size_t)(M_TILES - 1) * (size_t)g.parts.splits[0] +
                        ceil_div((size_t)g.parts.splits[1], CLUSTER) * CLUSTER;
    TRY_CUDA(launch_product<WEIGHT>(map_a, map_b, map_a, map_a, g, grid, 2, stream));
    const size_t threads = (size_t)M_TILES * 2 * (COLS / 8) * 128 + (db != NULL ? m : 0);
    VAE_LAUNCH(weight_finish_kernel, vae_blocks(threads, (size_t)-1), VAE_BLOCK, 0, stream, dw, ldw,
               db, g.parts);
    return cudaGetLastError();
}
#else

/* w: row c of it starts at c * across, its elements are `along` apart. */
__global__ void __launch_bounds__(VAE_BLOCK)
    plain_rows_kernel(vae_mat y, vae_mat x, const vae_bf16 *w, size_t across, size_t along,
                      const float *b, vae_mat sign, float least, size_t rows, size_t k, size_t cols)
{
    const size_t r = grid_thread() / cols, c = grid_thread() % cols;
    float sum = 0;
    for (size_t j = 0; r < rows && j < k; j++) {
        sum += at(x, r, j) * elem<vae_bf16>::get(w + c * across + j * along);
    }
    if (r < rows) {
        sum = b != NULL ? sum + b[c] : sum;
        sum = sign.data != NULL ? sum * vae_drelu_y(at(sign, r, c)) : sum;
        put(y, r, c, sum < least ? least : sum);
    }
}

__global__ void __launch_bounds__(VAE_BLOCK)
    plain_weight_kernel(float *dw, size_t ldw, float *db, vae_mat dy, vae_mat x, size_t rows,
                        size_t in, size_t out)
{
    const size_t o = grid_thread() / (in + 1), c = grid_thread() % (in + 1);
    float sum = 0;
    for (size_t r = 0; o < out && r < rows; r++) {
        sum += at(dy, r, o) * (c < in ? at(x, r, c) : 1.0f);
    }
    if (o < out && c < in) {
        dw[o * ldw + c] = sum;
    } else if (o < out && db != NULL) {
        db[o] = sum;
    }
}

extern "C" cudaError_t vae_hopper_forward_launch(vae_mat y, vae_mat x, const void *w, size_t ldw,
                                                 const float *b, size_t rows, size_t in, size_t out,
                                                 vae_activation act, cudaStream_t stream)
{
    const vae_mat none = {NULL, 0};
    const size_t along = 1;
    const float least = act == VAE_ACT_RELU ? 0.0f : -INFINITY;
    VAE_LAUNCH(plain_rows_kernel, vae_blocks(rows * out, (size_t)-1), VAE_BLOCK, 0, stream, y, x,
               static_cast<const vae_bf16 *>(w), ldw, along, b, none, least, rows, in, out);
    return cudaGetLastError();
}

extern "C" cudaError_t vae_hopper_input_launch(vae_mat dx, vae_mat dy, const void *w, size_t ldw,
                                               vae_mat x, size_t rows, size_t in, size_t out,
                                               cudaStream_t stream)
{
    const float *no_bias = NULL;
    const float least = -INFINITY;
    const size_t across = 1;
    VAE_LAUNCH(plain_rows_kernel, vae_blocks(rows * in, (size_t)-1), VAE_BLOCK, 0, stream, dx, dy,
               static_cast<const vae_bf16 *>(w), across, ldw, no_bias, x, least, rows, out, in);
    return cudaGetLastError();
}

extern "C" cudaError_t vae_hopper_weight_launch(float *dw, size_t ldw, float *db, vae_mat dy,
                                                vae_mat x, void *partial, size_t rows, size_t in,
                                                size_t out, cudaStream_t stream)
{
    (void)partial;
    VAE_LAUNCH(plain_weight_kernel, vae_blocks((in + 1) * out, (size_t)-1), VAE_BLOCK, 0, stream,
               dw, ldw, db, dy, x, rows, in, out);
    return cudaGetLastError();
}
#endif

/* ---- which sizes ---- */

static bool near_400(size_t n)
{
    return n > 320 && n <= COLS && n % 8 == 0;
}

static bool near_784(size_t n)
{
    return n > (M_TILES - 1) * 128 && n <= (M_TILES - 1) * 128 + 64 && n % 8 == 0;
}

extern "C" int vae_hopper_built(void)
{
#if defined(VAE_SM90A) || !defined(__CUDACC__)
    return 1;
#else
    return 0;
#endif
}

extern "C" int vae_hopper_forward_fits(size_t in, size_t out, vae_activation act)
{
    return (in > 64 || in <= 48) && near_400(out) && (act == VAE_ACT_RELU || act == VAE_ACT_NONE);
}

extern "C" int vae_hopper_input_fits(size_t in, size_t out, vae_activation act)
{
    return out > 0 && near_400(in) && act == VAE_ACT_RELU;
}

extern "C" int vae_hopper_weight_fits(size_t in, size_t out)
{
    return (near_784(in) && near_400(out)) || (near_400(in) && near_784(out)) ||
           (in <= 64 && near_400(out)) || (near_400(in) && out <= 64);
}
