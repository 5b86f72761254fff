/* Products of bf16 for Hopper and many rows, with what the step does to their results in the same
 * kernel: bias and ReLU, the Bernoulli loss, ReLU's derivative, column sums. Tiles are made for
 * widths near 400 and 784; which sizes they serve, the functions ..._fits() say.
 *
 * All work alike: one thread of the first warpgroup asks for tiles (TMA) that go round a ring in
 * shared memory, two more warpgroups multiply (wgmma). `full` barriers tell that a slot's bytes are
 * there, `empty` ones that all have read it. Sums are in an order that depends on sizes only. */
#include "kernels.h"
#include "launch.h"
#include "vae_math.h"
#include "vector.h"

/* Sizes of tiles. A chunk is 64 columns by 64 rows of bf16; weights take half of one at a time, as
 * their ring is the better the more of the memory's latency it covers. */
enum {
    CHUNK = 8192,
    HALF = CHUNK / 2,
    ROWS = 128, /* of the batch, a block's tile */
    COLS = 400, /* of the result, at most; a warpgroup makes 64 by 192 and 64 by 208 */
    COLS0 = 192,
    M_TILES = 7,  /* weights: tiles of 128 of m, half of the last one */
    SPLITS0 = 20, /* ... stretches of rows for each whole one, and for that: 6 * 20 + 12 = 132 */
    SPLITS1 = 12,
    N_UNITS = 132, /* narrow weights: stretches of rows */
    N_CHUNKS = 7,  /* ... chunks of m at most */
    L_COLS = 208,  /* loss: columns of a block */
    L_CHUNKS = 7,  /* ... chunks of k at most */
    BLOCKS = 132,  /* multiprocessors of an H100 or H200 */
};

/* What a weight's partial sums are made of. */
typedef struct {
    int m, n;      /* of the result; a is (rows,m), b (rows,n) */
    int splits[2]; /* of the whole tiles, of the last one; narrow: [0] */
    int sums_of_b; /* column sums are wanted of b, and the result lies transposed, (n,m) */
    float4 *partial;
    float *sums; /* (units, 128), or 64 used of b; narrow: (units, 448) */
} weight_parts;

static inline size_t ceil_div(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

static inline size_t least_of(size_t a, size_t b)
{
    return a < b ? a : b;
}

#ifdef __CUDACC__
#include <cudaTypedefs.h>

#include "hopper.h"

/* Other targets get these kernels without a body: vae_hopper_built() and the device's compute
 * capability keep them from being launched. */
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDA_ARCH__)
#define ON_HOPPER
#define CLUSTERED __cluster_dims__(CLUSTER, 1, 1)
#else
#define CLUSTERED
#endif
#define HELPER [[maybe_unused]] static __device__ __forceinline__

HELPER float low_of(uint32_t w)
{
    return float_of(w << 16);
}
HELPER float high_of(uint32_t w)
{
    return float_of(w & 0xFFFF0000u);
}

/* Adds up the 32 rows of half a chunk: in a lane eight columns, from 8 * (lane % 8) on, of every
 * fourth row. And the whole, in the first eight lanes. */
HELPER void add_rows(float (&total)[8], uint32_t half_chunk, int lane)
{
#pragma unroll 4
    for (int i = 0; i < 8; i++) {
        const int r = 4 * i + lane / 8;
        vae_word4 v;
        asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v.w[0]), "=r"(v.w[1]), "=r"(v.w[2]), "=r"(v.w[3])
                     : "r"(half_chunk + (uint32_t)(r * 128 + ((lane % 8 ^ (r & 7)) << 4)))
                     : "memory");
        VAE_UNROLL
        for (int e = 0; e < 4; e++) {
            total[2 * e] += low_of(v.w[e]);
            total[2 * e + 1] += high_of(v.w[e]);
        }
    }
}
HELPER void put_sums(float *to, const float (&total)[8], int lane)
{
    VAE_UNROLL
    for (int e = 0; e < 8; e++) {
        float sum = total[e] + __shfl_xor_sync(0xFFFFFFFFu, total[e], 8);
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 16);
        if (lane < 8) {
            to[8 * lane + e] = sum;
        }
    }
}

/* A ring of SLOTS slots, as one thread goes round it. */
template <int SLOTS> struct ring {
    int slot = 0;
    uint32_t phase = 0;
    __device__ __forceinline__ void next()
    {
        slot = slot + 1 == SLOTS ? 0 : slot + 1;
        phase ^= slot == 0;
    }
};

template <int N> struct number {
    static constexpr int value = N;
};

/* ---- rows by up to 400 columns, and weights of 784 by 400 ----
 * Clusters of two blocks share the tiles of b: each loads half of them, into both. */
enum { FORWARD, INPUT, WEIGHT, CLUSTER = 2 };

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

/* The sum of n partial sums, `stride` apart. */
static __device__ __forceinline__ float4 sum_of(const float4 *__restrict__ from, int n,
                                                size_t stride)
{
    constexpr int AHEAD = 10; /* on their way at once */
    float4 sum = make_float4(0, 0, 0, 0);
    for (int first = 0; first < n; first += AHEAD) {
        float4 v[AHEAD];
        VAE_UNROLL
        for (int i = 0; i < AHEAD; i++) {
            v[i] = first + i < n ? from[(size_t)(first + i) * stride] : make_float4(0, 0, 0, 0);
        }
        VAE_UNROLL
        for (int i = 0; i < AHEAD; i++) {
            sum.x += v[i].x;
            sum.y += v[i].y;
            sum.z += v[i].z;
            sum.w += v[i].w;
        }
    }
    return sum;
}

/* Two rows, m and m + 8, of two columns from n on. */
static __device__ __forceinline__ void put_weights(float *dw, size_t ld, const weight_parts &g,
                                                   int m, int n, float4 v)
{
    const float values[4] = {v.x, v.y, v.z, v.w};
    VAE_UNROLL
    for (int i = 0; i < 4; i++) {
        const int r = m + i / 2 * 8, c = n + i % 2;
        if (r < g.m && c < g.n) {
            dw[g.sums_of_b ? (size_t)c * ld + r : (size_t)r * ld + c] = values[i];
        }
    }
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

/* ---- weights with a narrow side ----
 * m up to 448, n up to 64: all of it is in a block's registers (four and three tiles of 64 x 64 in
 * its two multiplying warpgroups), which takes a stretch of rows. */
enum { N_SLOTS = 6, N_SLOT = (N_CHUNKS + 1) * HALF };

__global__ void __launch_bounds__(384, 1)
    narrow_kernel(const __grid_constant__ CUtensorMap map_a,
                  const __grid_constant__ CUtensorMap map_b, const weight_parts g, int stages)
{
#ifdef ON_HOPPER
    extern __shared__ uint8_t raw[];
    __shared__ __align__(8) uint64_t bars[2 * N_SLOTS];
    const uint32_t base = (shared_at(raw) + 1023) & ~1023u;
    const uint32_t full = shared_at(bars), empty = full + 8 * N_SLOTS;
    const int warp = __shfl_sync(0xFFFFFFFFu, (int)threadIdx.x / 32, 0), group = warp / 4;
    const int lane = (int)threadIdx.x % 32, unit = (int)blockIdx.x, units = g.splits[0];
    const int from = (int)((int64_t)stages * unit / units);
    const int to = (int)((int64_t)stages * (unit + 1) / units);
    const int chunks = (g.m + 63) / 64;
    if (threadIdx.x == 0) {
        for (int s = 0; s < N_SLOTS; s++) {
            bar_init(full + 8 * s, 1);
            bar_init(empty + 8 * s, 8 + 3);
        }
        bar_init_done();
    }
    __syncthreads();
    ring<N_SLOTS> at;
    if (group == 0) {
        if (warp == 0 && lane == 0) {
            for (int k = from; k < to; k++, at.next()) {
                const uint32_t slot = base + (uint32_t)(at.slot * N_SLOT);
                const uint32_t bar = full + 8 * at.slot;
                bar_wait(empty + 8 * at.slot, at.phase ^ 1);
                bar_expect(bar, (uint32_t)(chunks + 1) * HALF);
                for (int i = 0; i < chunks; i++) {
                    tma_load(slot + (uint32_t)(i * HALF), &map_a, i * 64, k * 32, bar);
                }
                tma_load(slot + N_CHUNKS * HALF, &map_b, 0, k * 32, bar);
            }
        } else if (warp > 0) { /* column sums: warps 1 to 3 take chunks in turn */
            const int n = g.sums_of_b ? 1 : chunks, first = g.sums_of_b ? N_CHUNKS : 0;
            float total[3][8] = {};
            for (int k = from; k < to; k++, at.next()) {
                bar_wait(full + 8 * at.slot, at.phase);
                VAE_UNROLL
                for (int i = 0; i < 3; i++) {
                    const int chunk = warp - 1 + 3 * i;
                    if (chunk < n) {
                        add_rows(total[i],
                                 base + (uint32_t)(at.slot * N_SLOT + (first + chunk) * HALF),
                                 lane);
                    }
                }
                __syncwarp();
                if (lane == 0) {
                    bar_arrive(empty + 8 * at.slot);
                }
            }
            VAE_UNROLL
            for (int i = 0; i < 3; i++) {
                const int chunk = warp - 1 + 3 * i;
                if (chunk < n) {
                    put_sums(g.sums + unit * (N_CHUNKS * 64) + chunk * 64, total[i], lane);
                }
            }
        }
        return;
    }
    const int half = group - 1;
    float d[4][32];
    int before = -1;
    for (int k = from; k < to; k++, at.next()) {
        bar_wait(full + 8 * at.slot, at.phase);
        const uint32_t slot = base + (uint32_t)(at.slot * N_SLOT);
        const uint64_t a = descriptor(slot + (uint32_t)(half * 4 * HALF), HALF);
        const uint64_t b = descriptor(slot + N_CHUNKS * HALF, HALF);
        VAE_UNROLL
        for (int m = 0; m < 4; m++) {
            hold(d[m]);
        }
        mma_begin();
        VAE_UNROLL
        for (int i = 0; i < 2; i++) {
            VAE_UNROLL
            for (int m = 0; m < 4;
                 m++) { /* the last one of the second warpgroup is b, and unused */
                mma<1, 1>(d[m], a + (m * HALF + i * 2048) / 16, b + i * 2048 / 16,
                          i > 0 || k > from);
            }
        }
        mma_commit();
        mma_wait<1>();
        if (before >= 0 && lane == 0) {
            bar_arrive(empty + 8 * before);
        }
        before = at.slot;
    }
    mma_wait<0>();
    const int blocks = (g.n + 7) / 8;
    VAE_UNROLL
    for (int m = 0; m < 4; m++) {
        hold(d[m]);
        float4 *out = g.partial + (size_t)((unit * N_CHUNKS + half * 4 + m) * blocks) * 128 +
                      (warp & 3) * 32 + lane;
        VAE_UNROLL
        for (int j = 0; j < 8; j++) {
            if (half * 4 + m < chunks && j < blocks) {
                out[j * 128] =
                    make_float4(d[m][4 * j], d[m][4 * j + 1], d[m][4 * j + 2], d[m][4 * j + 3]);
            }
        }
    }
#else
    __trap();
#endif
}

/* Grid: a block per 32 float4 of (chunks,blocks,128), 8 warps that take units in turn; then a block
 * per 32 column sums. */
__global__ void __launch_bounds__(VAE_BLOCK)
    narrow_finish_kernel(float *dw, size_t ld, float *db, const weight_parts g)
{
    constexpr int WARPS = VAE_BLOCK / 32;
    __shared__ float4 part[WARPS][32];
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const int chunks = (g.m + 63) / 64, blocks = (g.n + 7) / 8, all = chunks * blocks * 4;
    const int i = (int)blockIdx.x * 32 + lane, c = i - all * 32;
    const int mine = (g.splits[0] - warp + WARPS - 1) / WARPS, n_sums = g.sums_of_b ? g.n : g.m;
    const size_t unit = (size_t)(N_CHUNKS * blocks) * 128, sums_unit = N_CHUNKS * 64;
    if ((int)blockIdx.x < all) {
        part[warp][lane] = sum_of(g.partial + warp * unit + i, mine, WARPS * unit);
    } else {
        float sum = 0;
        for (int u = 0; c < n_sums && u < mine; u++) {
            sum += g.sums[(size_t)(warp + u * WARPS) * sums_unit + c];
        }
        part[warp][lane] = make_float4(sum, 0, 0, 0);
    }
    __syncthreads();
    if (warp > 0) {
        return;
    }
    const float4 sum = sum_of(&part[0][lane], WARPS, 32);
    if ((int)blockIdx.x < all) {
        const int thread = i % 128, block = i / 128 % blocks, chunk = i / 128 / blocks;
        put_weights(dw, ld, g, chunk * 64 + thread / 32 * 16 + lane / 4, 8 * block + 2 * (lane & 3),
                    sum);
    } else if (db != NULL && c < n_sums) {
        db[c] = sum.x;
    }
}

/* ---- rows of up to 48 columns times weights ----
 * What takes time is writing the result, so it is left to many small warps: 32 rows each, and the
 * weights in shared memory. Their rows lie there in another order, so that a thread's results are
 * neighbours: of each 32 columns, block j's 2 t + i is column 8 t + 2 j + i. */
enum { F_ROWS = 32, F_STEPS = 3 };

/* A row of weights: STEPS times 16 bf16, and 4 words so that lanes meet in no bank. */
static __host__ __device__ constexpr uint32_t narrow_words(int steps)
{
    return 8 * (uint32_t)steps + 4;
}

/* d (16,8) += a (16,16) b (16,8) */
HELPER void small_mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* STEPS: of 16 of k. FORWARD: w is (cols,k); y = x w' + b, at least `least`. INPUT: w is (k,cols);
 * y = x w where sign is positive, else 0. Grid: a block per 8 warps' rows. */
template <int KIND, int STEPS>
__global__ void __launch_bounds__(VAE_BLOCK)
    narrow_rows_kernel(vae_bf16 *y, size_t ldy, const vae_bf16 *__restrict__ x, size_t ldx,
                       const vae_bf16 *__restrict__ w, size_t ldw, const float *__restrict__ b,
                       const vae_bf16 *__restrict__ sign, size_t ld_sign, uint32_t rows, uint32_t k,
                       uint32_t cols, float least)
{
#ifdef ON_HOPPER
    constexpr uint32_t WORDS = narrow_words(STEPS);
    extern __shared__ vae_word4 narrow_weights[];
    const uint32_t places = (cols + 31) / 32 * 32, lane = threadIdx.x % 32, g = lane / 4,
                   t = lane % 4;
    uint32_t *words = reinterpret_cast<uint32_t *>(narrow_weights);
    float *bias = reinterpret_cast<float *>(words + places * WORDS);
    const vae_word4 zeros = {{0, 0, 0, 0}};
    for (uint32_t i = threadIdx.x; KIND == FORWARD && i < places * 2 * STEPS; i += VAE_BLOCK) {
        const uint32_t place = i / (2 * STEPS), piece = i % (2 * STEPS);
        const uint32_t c = place / 32 * 32 + 8 * (place / 2 % 4) + 2 * (place / 8 % 4) + place % 2;
        const bool there = c < cols && 8 * piece < ldw;
        store16(words + place * WORDS + 4 * piece, there ? load16(w + c * ldw + 8 * piece) : zeros);
    }
#pragma unroll 5
    for (uint32_t i = threadIdx.x; KIND == INPUT && i < places * STEPS; i += VAE_BLOCK) {
        const uint32_t c = i % (places / 8) * 8, pair = i / (places / 8);
        const bool there = c < cols && 2 * pair < k;
        const vae_word4 low = there ? load16(w + 2 * pair * ldw + c) : zeros;
        const vae_word4 high =
            there && 2 * pair + 1 < k ? load16(w + (2 * pair + 1) * ldw + c) : zeros;
        VAE_UNROLL
        for (uint32_t e = 0; e < 8; e++) {
            const uint32_t place = c / 32 * 32 + 8 * (e / 2) + c / 8 % 4 * 2 + e % 2;
            words[place * WORDS + pair] =
                (low.w[e / 2] >> 16 * (e % 2) & 0xFFFFu) | high.w[e / 2] >> 16 * (e % 2) << 16;
        }
    }
    for (uint32_t i = threadIdx.x; i < places; i += VAE_BLOCK) {
        bias[i] = KIND == FORWARD && i < cols ? b[i] : 0.0f;
    }
    __syncthreads();
    const uint32_t row0 = (blockIdx.x * (VAE_BLOCK / 32) + threadIdx.x / 32) * F_ROWS + g;
    uint32_t a[2][STEPS][4];
    VAE_UNROLL
    for (int m = 0; m < 2; m++) {
        VAE_UNROLL
        for (int q = 0; q < 4 * STEPS; q++) { /* rows r and r + 8 of columns c, then of c + 8 */
            const uint32_t r = row0 + 16 * (uint32_t)m + 8 * (uint32_t)(q % 2);
            const uint32_t c = 16 * (uint32_t)(q / 4) + 8 * (uint32_t)(q / 2 % 2) + 2 * t;
            a[m][q / 4][q % 4] =
                r < rows ? reinterpret_cast<const vae_word1 *>(x + r * ldx + c)->w[0] : 0;
        }
    }
    vae_word4 next[4] = {}; /* signs of the next 32 columns, on their way */
    auto ask = [&](uint32_t col) {
        VAE_UNROLL
        for (int q = 0; KIND == INPUT && q < 4; q++) {
            const uint32_t r = row0 + 8 * (uint32_t)q;
            if (r < rows && col < cols) {
                next[q] = load16(sign + r * ld_sign + col);
            }
        }
    };
    ask(8 * t);
    for (uint32_t p = 0; p < places; p += 32) {
        const uint32_t col = p + 8 * t;
        const vae_word4 signs[4] = {next[0], next[1], next[2], next[3]};
        ask(col + 32);
        float d[2][4][4] = {};
        VAE_UNROLL
        for (int j = 0; j < 4; j++) {
            const uint32_t *from = words + (p + 8 * (uint32_t)j + g) * WORDS + t;
            VAE_UNROLL
            for (int i = 0; i < STEPS; i++) {
                VAE_UNROLL
                for (int m = 0; m < 2; m++) {
                    small_mma(d[m][j], a[m][i], from[8 * i], from[8 * i + 4]);
                }
            }
        }
        float add[8];
        elem<float>::get4(add, bias + col);
        elem<float>::get4(add + 4, bias + col + 4);
        VAE_UNROLL
        for (int q = 0; q < 4; q++) { /* rows 0, 8, 16, 24 of a thread */
            const uint32_t r = row0 + 8 * (uint32_t)q;
            float v[8], s[8];
            elem<vae_bf16>::unpack(s, signs[q]);
            VAE_UNROLL
            for (int e = 0; e < 8; e++) {
                v[e] = d[q / 2][e / 2][2 * (q % 2) + e % 2] + add[e];
                if (KIND == FORWARD) {
                    v[e] = v[e] < least ? least : v[e];
                } else {
                    v[e] *= vae_drelu_y(s[e]);
                }
            }
            if (r < rows && col < cols) {
                store16(y + r * ldy + col, elem<vae_bf16>::pack(v));
            }
        }
    }
#else
    __trap();
#endif
}

/* ---- the last layer and the Bernoulli loss ----
 * A block keeps 208 rows of the weights in shared memory and sweeps tiles of 64 rows of h; its two
 * multiplying warpgroups take turns: one multiplies while the other makes the loss.
 *
 * The weights' rows lie there in another order, so that a thread's results are neighbours: of each
 * 32 columns, block j's 2 t + i is column 8 t + 2 j + i (of the last 16: 4 t + 2 j + i). */
enum { L_SLOTS = 5, L_W_CHUNK = L_COLS * 128, L_W_BYTES = L_CHUNKS * L_W_CHUNK };

typedef struct {
    int rows, particles, cols, tiles_n, chunks, k; /* k: columns of w, a multiple of 8 */
    const float *bias;
    const vae_bf16 *w, *x;
    size_t ldw, ldx;
    vae_bf16 *dlogits;
    size_t ldd;
    float *part; /* (tiles_n,rows): the loss of each row's columns */
    float scale;
} loss_work;

HELPER int column_at(int place)
{
    const int j = place / 8 % 4, t = place / 2 % 4, i = place % 2;
    return place < 192 ? place / 32 * 32 + 8 * t + 2 * j + i : 192 + 4 * t + 2 * j + i;
}

/* vae_bernoulli() for a sum over columns: log(1+e^-|l|) goes into `product` as its factor, from 1
 * to 2, so that one logarithm does for up to 100 of them; the rest of the loss is added to
 * `linear`. */
HELPER float bernoulli(float l, float x, float *linear, float *product)
{
    const float a = fabsf(l);
    float e, r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(a * -1.44269504f));
    const float p = 1.0f + e;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(p));
    const bool positive = l > 0.0f;
    *product *= p;
    *linear = fmaf(a, positive ? 1.0f - x : x, *linear);
    return (positive ? 1.0f : e) * r - x;
}

/* Words of x, on their way while products are made; zeros where it ends. The rest of 256 bytes goes
 * to the L2 cache: blocks beside this one want it at about the same time. */
HELPER void load_words(uint32_t (&w)[4], const vae_bf16 *p, bool real)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %5, 0;\nmov.b32 %0, 0;\nmov.b32 %1, 0;\n"
                 "mov.b32 %2, 0;\nmov.b32 %3, 0;\n"
                 "@p ld.global.nc.L1::no_allocate.L2::256B.v4.b32 {%0, %1, %2, %3}, [%4];\n}\n"
                 : "=r"(w[0]), "=r"(w[1]), "=r"(w[2]), "=r"(w[3])
                 : "l"(p), "r"((int)real));
}
HELPER void load_words(uint32_t (&w)[2], const vae_bf16 *p, bool real)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %3, 0;\nmov.b32 %0, 0;\nmov.b32 %1, 0;\n"
                 "@p ld.global.nc.L1::no_allocate.L2::256B.v2.b32 {%0, %1}, [%2];\n}\n"
                 : "=r"(w[0]), "=r"(w[1])
                 : "l"(p), "r"((int)real));
}

/* The block's weights, in the order that column_at() says. */
HELPER void place_weights(uint32_t base, const loss_work &g, int col0)
{
#pragma unroll 8
    for (int i = (int)threadIdx.x; i < L_COLS * L_CHUNKS * 8; i += 384) {
        const int place = i / (L_CHUNKS * 8), piece = i % (L_CHUNKS * 8);
        const int row = col0 + column_at(place);
        vae_word4 v = {{0, 0, 0, 0}};
        if (row < g.cols && piece * 8 < g.k) {
            v = load16(g.w + (size_t)row * g.ldw + piece * 8);
        }
        const uint32_t to = base + (uint32_t)(piece / 8 * L_W_CHUNK + place * 128 +
                                              ((piece % 8 ^ (place & 7)) << 4));
        asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v.w[0]), "r"(v.w[1]),
                     "r"(v.w[2]), "r"(v.w[3])
                     : "memory");
    }
}

template <int TAIL>
__global__ void __launch_bounds__(384, 1)
    loss_kernel(const __grid_constant__ CUtensorMap map_h, const loss_work g)
{
#ifdef ON_HOPPER
    extern __shared__ uint8_t raw[];
    __shared__ __align__(8) uint64_t bars[2 * L_SLOTS + 2];
    __shared__ __align__(16) float bias[L_COLS];
    const uint32_t base = (shared_at(raw) + 1023) & ~1023u, slots = base + L_W_BYTES;
    const uint32_t full = shared_at(bars), empty = full + 8 * L_SLOTS, free = empty + 8 * L_SLOTS;
    const int warp = __shfl_sync(0xFFFFFFFFu, (int)threadIdx.x / 32, 0), group = warp / 4;
    const int lane = (int)threadIdx.x % 32;
    const int tile_n = (int)blockIdx.x % g.tiles_n, col0 = tile_n * L_COLS;
    const int first = (int)blockIdx.x / g.tiles_n, stride = (int)gridDim.x / g.tiles_n;
    const int tiles = (g.rows + 63) / 64;
    if (threadIdx.x == 0) {
        for (int s = 0; s < L_SLOTS; s++) {
            bar_init(full + 8 * s, 1);
            bar_init(empty + 8 * s, 4);
        }
        bar_init(free, 4);
        bar_init(free + 8, 4);
        bar_init_done();
    }
    /* columns that are not there: a logit of -1e30 against 0 adds nothing anywhere */
    for (int i = (int)threadIdx.x; i < L_COLS; i += (int)blockDim.x) {
        bias[i] = col0 + i < g.cols ? g.bias[col0 + i] : -1e30f;
    }
    place_weights(base, g, col0);
    tma_fence();
    __syncthreads();
    if (group == 0) {
        fewer_registers<24>();
        if (warp == 0 && lane == 0) {
            ring<L_SLOTS> at;
            for (int tile = first; tile < tiles; tile += stride) {
                for (int c = 0; c < g.chunks; c++, at.next()) {
                    bar_wait(empty + 8 * at.slot, at.phase ^ 1);
                    bar_expect(full + 8 * at.slot, CHUNK);
                    tma_load(slots + (uint32_t)(at.slot * CHUNK), &map_h, c * 64, tile * 64,
                             full + 8 * at.slot);
                }
            }
        }
        return;
    }
    more_registers<240>();
    const int half = group - 1, t = lane & 3;
    float d[L_COLS / 2];
    uint32_t step = (uint32_t)(half * g.chunks); /* of all that the ring carries */
    uint32_t turn = (uint32_t)half ^ 1;
    for (int tile = first + half * stride; tile < tiles;
         tile += 2 * stride, step += (uint32_t)g.chunks, turn++) {
        const int row = tile * 64 + (warp & 3) * 16 + lane / 4;
        uint32_t xs[2][6][4], x_last[2][2];
        VAE_UNROLL
        for (int h = 0; h < 2; h++) {
            const uint32_t r = (uint32_t)(row + 8 * h) / (uint32_t)g.particles;
            const vae_bf16 *from = g.x + (size_t)r * g.ldx + col0;
            const bool there = row + 8 * h < g.rows;
            VAE_UNROLL
            for (int p = 0; p < 6; p++) {
                load_words(xs[h][p], from + 32 * p + 8 * t,
                           there && col0 + 32 * p + 8 * t < g.cols);
            }
            load_words(x_last[h], from + 192 + 4 * t, there && col0 + 192 + 4 * t < g.cols);
        }
        /* The other warpgroup has multiplied the tile before: all that the ring carried up to here
         * has come, and a barrier's parity tells its phase. */
        bar_wait(free + 8 * half, turn & 1);
        int before = -1, scale = 0;
        auto stage = [&](int c, auto steps) {
            const int slot = (int)(step % L_SLOTS);
            bar_wait(full + 8 * slot, step / L_SLOTS & 1);
            const uint64_t a = descriptor(slots + (uint32_t)(slot * CHUNK), CHUNK);
            const uint64_t b = descriptor(base + (uint32_t)(c * L_W_CHUNK), CHUNK);
            hold(d);
            mma_begin();
            VAE_UNROLL
            for (int i = 0; i < decltype(steps)::value; i++) {
                mma<0, 0>(d, a + 2 * i, b + 2 * i, i > 0 ? 1 : scale);
            }
            mma_commit();
            scale = 1;
            mma_wait<1>();
            if (before >= 0 && lane == 0) {
                bar_arrive(empty + 8 * before);
            }
            before = slot;
            step++;
        };
#pragma unroll 1
        for (int c = 0; c + 1 < g.chunks; c++) {
            stage(c, number<4>());
        }
        stage(g.chunks - 1, number<TAIL>());
        mma_wait<0>();
        hold(d);
        if (lane == 0) {
            bar_arrive(empty + 8 * before);
            bar_arrive(free + 8 * (half ^ 1));
        }
        float linear[2] = {0, 0}, product[2] = {1, 1};
        VAE_UNROLL
        for (int p = 0; p < 7; p++) { /* 32 columns, at last 16 */
            const int n = p < 6 ? 4 : 2, col = 32 * p + 2 * n * t;
            float b[8];
            VAE_UNROLL
            for (int q = 0; q < n / 2; q++) {
                elem<float>::get4(b + 4 * q, bias + col + 4 * q);
            }
            VAE_UNROLL
            for (int h = 0; h < 2; h++) {
                uint32_t w[4];
                VAE_UNROLL
                for (int j = 0; j < n; j++) {
                    const float *v = &d[4 * (4 * p + j) + 2 * h];
                    const uint32_t x = p < 6 ? xs[h][p < 6 ? p : 0][j] : x_last[h][j & 1];
                    const float d0 = bernoulli(v[0] + b[2 * j], low_of(x), &linear[h], &product[h]);
                    const float d1 =
                        bernoulli(v[1] + b[2 * j + 1], high_of(x), &linear[h], &product[h]);
                    w[j] = bf16x2_of(d0 * g.scale, d1 * g.scale);
                }
                if (row + 8 * h < g.rows && col0 + col < g.cols) {
                    vae_bf16 *to = g.dlogits + (size_t)(row + 8 * h) * g.ldd + col0 + col;
                    if (p < 6) {
                        store16(to, vae_word4{{w[0], w[1], w[2], w[3]}});
                    } else {
                        *reinterpret_cast<vae_word2 *>(to) = vae_word2{{w[0], w[1]}};
                    }
                }
            }
        }
        VAE_UNROLL
        for (int h = 0; h < 2; h++) {
            const float loss = group_sum(linear[h] + vae_logf(product[h]), 4);
            if (t == 0 && row + 8 * h < g.rows) {
                g.part[(size_t)tile_n * (size_t)g.rows + (size_t)(row + 8 * h)] = loss;
            }
        }
    }
#else
    __trap();
#endif
}

__global__ void __launch_bounds__(VAE_BLOCK)
    loss_finish_kernel(float *recon_row, const float *__restrict__ part, int rows, int n)
{
    const int r = (int)grid_thread();
    float sum = 0;
    for (int i = 0; r < rows && i < n; i++) {
        sum += part[(size_t)i * (size_t)rows + r];
    }
    if (r < rows) {
        recon_row[r] = sum;
    }
}

/* ---- launchers ---- */

/* A matrix of bf16 as TMA sees it: boxes of 64 columns by `box` rows, zeros where it ends. */
static cudaError_t map_of(CUtensorMap *map, const void *data, size_t cols, size_t rows, size_t ld,
                          unsigned box)
{
    static PFN_cuTensorMapEncodeTiled_v12000 encode;
    if (encode == NULL) {
        void *f = NULL;
        cudaDriverEntryPointQueryResult found;
        cudaError_t status = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000,
                                                              cudaEnableDefault, &found);
        if (status != cudaSuccess || f == NULL) {
            return status != cudaSuccess ? status : cudaErrorSymbolNotFound;
        }
        encode = reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(f);
    }
    const cuuint64_t size[2] = {cols, rows}, pitch[1] = {ld * sizeof(vae_bf16)};
    const cuuint32_t boxes[2] = {64, box}, one[2] = {1, 1};
    const CUresult result =
        encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void *>(data), size, pitch,
               boxes, one, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

/* Launches a kernel of three warpgroups with so much dynamic shared memory. */
template <typename... PARAMS, typename... ARGS>
static cudaError_t launch(void (*kernel)(PARAMS...), size_t grid, int bytes, cudaStream_t stream,
                          const ARGS &...args)
{
    cudaError_t status =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (status == cudaSuccess) {
        kernel<<<(unsigned)grid, 384, (size_t)bytes, stream>>>(args...);
        status = cudaGetLastError();
    }
    return status;
}

/* Steps of 16 in the last 64 of k. */
static int tail_of(size_t k)
{
    return (int)ceil_div((k - 1) % 64 + 1, 16);
}

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

#define TRY_CUDA(call)                                                                             \
    do {                                                                                           \
        cudaError_t status_ = (call);                                                              \
        if (status_ != cudaSuccess) {                                                              \
            return status_;                                                                        \
        }                                                                                          \
    } while (0)

template <int KIND>
static cudaError_t launch_narrow(vae_mat y, vae_mat x, const void *w, size_t ldw, const float *b,
                                 vae_mat sign, size_t rows, size_t k, size_t cols, float least,
                                 cudaStream_t stream)
{
    const int steps = (int)ceil_div(k, 16);
    const size_t shared = ceil_div(cols, 32) * 32 * (narrow_words(steps) + 1) * sizeof(uint32_t);
    const size_t blocks = ceil_div(rows, F_ROWS * (VAE_BLOCK / 32));
    auto kernel = steps == 1   ? narrow_rows_kernel<KIND, 1>
                  : steps == 2 ? narrow_rows_kernel<KIND, 2>
                               : narrow_rows_kernel<KIND, F_STEPS>;
    kernel<<<(unsigned)blocks, VAE_BLOCK, shared, stream>>>(
        static_cast<vae_bf16 *>(y.data), y.ld, static_cast<const vae_bf16 *>(x.data), x.ld,
        static_cast<const vae_bf16 *>(w), ldw, b, static_cast<const vae_bf16 *>(sign.data), sign.ld,
        (uint32_t)rows, (uint32_t)k, (uint32_t)cols, least);
    return cudaGetLastError();
}

extern "C" cudaError_t vae_hopper_forward_launch(vae_mat y, vae_mat x, const void *w, size_t ldw,
                                                 const float *b, size_t rows, size_t in, size_t out,
                                                 vae_activation act, cudaStream_t stream)
{
    const float least = act == VAE_ACT_RELU ? 0.0f : -INFINITY;
    const vae_mat none = {NULL, 0};
    if (in <= 16 * F_STEPS) {
        return launch_narrow<FORWARD>(y, x, w, ldw, b, none, rows, in, out, least, stream);
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
    if (out <= 16 * F_STEPS) {
        return launch_narrow<INPUT>(dx, dy, w, ldw, NULL, x, rows, out, in, 0.0f, stream);
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

/* sums_of_b: a is the layer's x and b its dy, else the other way round. */
static weight_parts parts_of(void *partial, size_t float4s, size_t m, size_t n, bool sums_of_b)
{
    weight_parts g = {};
    g.m = (int)m;
    g.n = (int)n;
    g.sums_of_b = sums_of_b;
    g.partial = static_cast<float4 *>(partial);
    g.sums = reinterpret_cast<float *>(g.partial + float4s);
    return g;
}

extern "C" cudaError_t vae_hopper_weight_launch(float *dw, size_t ldw, float *db, vae_mat dy,
                                                vae_mat x, void *partial, size_t rows, size_t in,
                                                size_t out, cudaStream_t stream)
{
    const bool narrow = in <= 64 || out <= 64, sums_of_b = in > out;
    const size_t m = sums_of_b ? in : out, n = sums_of_b ? out : in, stages = ceil_div(rows, 32);
    const vae_mat a = sums_of_b ? x : dy, b = sums_of_b ? dy : x;
    CUtensorMap map_a, map_b;
    TRY_CUDA(map_of(&map_a, a.data, m, rows, a.ld, 32));
    TRY_CUDA(map_of(&map_b, b.data, n, rows, b.ld, 32));
    if (narrow) {
        const size_t units = least_of(stages, N_UNITS), blocks = ceil_div(n, 8);
        weight_parts g = parts_of(partial, units * N_CHUNKS * blocks * 128, m, n, sums_of_b);
        g.splits[0] = (int)units;
        TRY_CUDA(launch(narrow_kernel, units, N_SLOTS * N_SLOT + 1024, stream, map_a, map_b, g,
                        (int)stages));
        const size_t sums = db != NULL ? ceil_div(sums_of_b ? n : m, 32) : 0;
        VAE_LAUNCH(narrow_finish_kernel, (unsigned)(ceil_div(m, 64) * blocks * 4 + sums), VAE_BLOCK,
                   0, stream, dw, ldw, db, g);
        return cudaGetLastError();
    }
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

extern "C" cudaError_t vae_hopper_loss_launch(float *recon_row, vae_mat dlogits, vae_mat h,
                                              const void *w, size_t ldw, const float *b, vae_mat x,
                                              void *partial, size_t B, size_t K, size_t in,
                                              size_t D, float scale, cudaStream_t stream)
{
    const size_t rows = B * K, tiles_n = ceil_div(D, L_COLS), tiles = ceil_div(rows, 64);
    CUtensorMap map_h;
    TRY_CUDA(map_of(&map_h, h.data, in, rows, h.ld, 64));
    loss_work g = {};
    g.rows = (int)rows;
    g.particles = (int)K;
    g.cols = (int)D;
    g.tiles_n = (int)tiles_n;
    g.chunks = (int)ceil_div(in, 64);
    g.k = (int)ceil_div(in, 8) * 8;
    g.bias = b;
    g.w = static_cast<const vae_bf16 *>(w);
    g.ldw = ldw;
    g.x = static_cast<const vae_bf16 *>(x.data);
    g.ldx = x.ld;
    g.dlogits = static_cast<vae_bf16 *>(dlogits.data);
    g.ldd = dlogits.ld;
    g.part = static_cast<float *>(partial);
    g.scale = scale;
    void (*const kernels[4])(CUtensorMap, loss_work) = {loss_kernel<1>, loss_kernel<2>,
                                                        loss_kernel<3>, loss_kernel<4>};
    const size_t blocks = BLOCKS / tiles_n;
    TRY_CUDA(launch(kernels[tail_of(in) - 1], tiles_n * least_of(tiles, blocks),
                    1024 + L_W_BYTES + L_SLOTS * CHUNK, stream, map_h, g));
    VAE_LAUNCH(loss_finish_kernel, vae_blocks(rows, (size_t)-1), VAE_BLOCK, 0, stream, recon_row,
               g.part, (int)rows, (int)tiles_n);
    return cudaGetLastError();
}
#else /* the emulation: plain kernels in their places, one thread per result */

static __device__ __forceinline__ float at(vae_mat m, size_t r, size_t c)
{
    return elem<vae_bf16>::get(static_cast<const vae_bf16 *>(m.data) + r * m.ld + c);
}
static __device__ __forceinline__ void put(vae_mat m, size_t r, size_t c, float v)
{
    elem<vae_bf16>::put(static_cast<vae_bf16 *>(m.data) + r * m.ld + c, v);
}

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

__global__ void __launch_bounds__(VAE_BLOCK)
    plain_loss_kernel(float *recon_row, vae_mat dlogits, vae_mat h, const vae_bf16 *w, size_t ldw,
                      const float *b, vae_mat x, size_t rows, size_t K, size_t in, size_t D,
                      float scale)
{
    const size_t r = grid_thread();
    float loss = 0;
    for (size_t c = 0; r < rows && c < D; c++) {
        float l = b[c], dl;
        for (size_t j = 0; j < in; j++) {
            l += at(h, r, j) * elem<vae_bf16>::get(w + c * ldw + j);
        }
        loss += vae_bernoulli(l, at(x, r / K, c), &dl);
        put(dlogits, r, c, dl * scale);
    }
    if (r < rows) {
        recon_row[r] = loss;
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

extern "C" cudaError_t vae_hopper_loss_launch(float *recon_row, vae_mat dlogits, vae_mat h,
                                              const void *w, size_t ldw, const float *b, vae_mat x,
                                              void *partial, size_t B, size_t K, size_t in,
                                              size_t D, float scale, cudaStream_t stream)
{
    const size_t rows = B * K;
    (void)partial;
    VAE_LAUNCH(plain_loss_kernel, vae_blocks(rows, (size_t)-1), VAE_BLOCK, 0, stream, recon_row,
               dlogits, h, static_cast<const vae_bf16 *>(w), ldw, b, x, rows, K, in, D, scale);
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

extern "C" int vae_hopper_loss_fits(size_t rows, size_t in, size_t D, vae_recon recon)
{
    const size_t tiles = ceil_div(D, L_COLS);
    return recon.likelihood == VAE_BERNOULLI && D % 8 == 0 && in > 256 && in <= L_CHUNKS * 64 &&
           tiles <= 4 && D * 10 > tiles * L_COLS * 9 &&
           D % L_COLS % 32 == 0 && /* a tile ends with whole groups */
           rows * tiles * sizeof(float) <= VAE_HOPPER_SCRATCH;
}
