/* A probe: bf16 matrix products for Hopper (wgmma, TMA) with the step's epilogues, checked against
 * plain kernels and timed beside cuBLASLt. It stands alone:
 *   nvcc -std=c++17 -O3 -Iinclude -gencode arch=compute_90a,code=sm_90a bench/probe_gemm.cu -ldl
 * Without --only N every test runs in a process of its own, 30 s at most. No wait is without end.
 *
 * Layouts in shared memory, all with the 128-byte swizzle: rows of 128 bytes, in which the 16-byte
 * piece p of row r lies at place p ^ (r % 8). TMA writes boxes of 64 bf16 (128 bytes) by some rows.
 *
 *   K-major (rows are m or n, 64 values of k in a row): groups of 8 rows are 1024 bytes apart, the
 *   descriptor's stride offset; its leading offset is not used. 16 of k further on: 32 bytes.
 *
 *   MN-major (rows are k, 64 values of m or n in a row): a box is a chunk of 64 of m or n by 64 of
 *   k, 8192 bytes. 8 of k further on: 1024 bytes, the stride offset; the next 64 of m or n: 8192
 *   bytes, the leading offset. 16 of k further on: 2048 bytes.
 */
#include <cublasLt.h>
#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <type_traits>
#include <vector>

typedef __nv_bfloat16 bf16;

/* ---- instructions ---- */

#define P10(t)                                                                                     \
    "%" t "0, %" t "1, %" t "2, %" t "3, %" t "4, %" t "5, %" t "6, %" t "7, %" t "8, %" t "9"
#define P90                                                                                        \
    P10("")                                                                                        \
    ", " P10("1") ", " P10("2") ", " P10("3") ", " P10("4") ", " P10("5") ", " P10("6") ", " P10(  \
        "7") ", " P10("8")
#define F4(i)  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define F16(i) F4(i), F4(i + 4), F4(i + 8), F4(i + 12)
#define F96    F16(0), F16(16), F16(32), F16(48), F16(64), F16(80)

/* d (64,N) += a (64,16) b (16,N); TA, TB: 1 = MN-major. scale 0: d is overwritten. */
template <int TA, int TB>
static __device__ __forceinline__ void mma(float (&d)[96], uint64_t a, uint64_t b, int scale)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %98, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {" P90
                 ", %90, %91, %92, %93, %94, %95}, %96, %97, p, 1, 1, %99, %100;\n}\n"
                 : F96
                 : "l"(a), "l"(b), "r"(scale), "n"(TA), "n"(TB));
}
template <int TA, int TB>
static __device__ __forceinline__ void mma(float (&d)[100], uint64_t a, uint64_t b, int scale)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %102, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n200k16.f32.bf16.bf16 {" P90
                 ", " P10("9") "}, %100, %101, p, 1, 1, %103, %104;\n}\n"
                 : F96, F4(96)
                 : "l"(a), "l"(b), "r"(scale), "n"(TA), "n"(TB));
}
template <int TA, int TB>
static __device__ __forceinline__ void mma(float (&d)[104], uint64_t a, uint64_t b, int scale)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %106, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n208k16.f32.bf16.bf16 {" P90
                 ", " P10("9") ", %100, %101, %102, %103}, %104, %105, p, 1, 1, %107, %108;\n}\n"
                 : F96, F4(96), F4(100)
                 : "l"(a), "l"(b), "r"(scale), "n"(TA), "n"(TB));
}

template <int TA, int TB>
static __device__ __forceinline__ void mma(float (&d)[32], uint64_t a, uint64_t b, int scale)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" P10("") ", " P10(
                     "1") ", " P10("2") ", %30, %31}, %32, %33, p, 1, 1, %35, %36;\n}\n"
                 : F16(0), F16(16)
                 : "l"(a), "l"(b), "r"(scale), "n"(TA), "n"(TB));
}

template <int N> static __device__ __forceinline__ void keep(float (&d)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++) {
        asm volatile("" : "+f"(d[i])::"memory");
    }
}
static __device__ __forceinline__ void mma_fence(void)
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
static __device__ __forceinline__ void mma_commit(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int LEFT> static __device__ __forceinline__ void mma_wait(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}
static __device__ __forceinline__ uint64_t descriptor(uint32_t at, uint32_t leading,
                                                      uint32_t stride)
{
    return (uint64_t)((at & 0x3FFFF) >> 4) | (uint64_t)(leading >> 4) << 16 |
           (uint64_t)(stride >> 4) << 32 | (uint64_t)1 << 62;
}

static __device__ __forceinline__ uint32_t shared_at(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}
static __device__ __forceinline__ void bar_init(uint32_t bar, uint32_t count)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}
static __device__ __forceinline__ void bar_expect(uint32_t bar, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes)
                 : "memory");
}
static __device__ __forceinline__ void bar_arrive(uint32_t bar)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
static __device__ __forceinline__ void bar_arrive_at(uint32_t bar, uint32_t rank)
{
    asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n}\n" ::"r"(bar),
                 "r"(rank)
                 : "memory");
}
static __device__ __forceinline__ void bar_arrive_times(uint32_t bar, uint32_t rank, uint32_t n)
{
    asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there], %2;\n}\n" ::"r"(bar),
                 "r"(rank), "r"(n)
                 : "memory");
}
static __device__ __forceinline__ void tma_store(const CUtensorMap *map, int x, int y,
                                                 uint32_t from)
{
    asm volatile(
        "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(map),
        "r"(x), "r"(y), "r"(from)
        : "memory");
}
/* until what was stored has been read */
static __device__ __forceinline__ void tma_store_wait(void)
{
    asm volatile("cp.async.bulk.commit_group;\ncp.async.bulk.wait_group.read 0;" ::: "memory");
}
static __device__ __forceinline__ bool bar_try(uint32_t bar, uint32_t parity)
{
    uint32_t done;
    asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                 "selp.b32 %0, 1, 0, p;\n}\n"
                 : "=r"(done)
                 : "r"(bar), "r"(parity)
                 : "memory");
    return done != 0;
}
/* A second at most, then never again: `dead` is the block's own, `err` tells the host. */
static __device__ __forceinline__ void
bar_wait_long(uint32_t bar, uint32_t parity, volatile uint32_t *dead, uint32_t *err, uint32_t who)
{
    const long long from = clock64();
    while (!bar_try(bar, parity)) {
        if (*dead != 0) {
            return;
        }
        if (clock64() - from > 1500000000ll) {
            *dead = 1;
            atomicMax(err, who);
            return;
        }
    }
}
static __device__ __forceinline__ void
bar_wait(uint32_t bar, uint32_t parity, volatile uint32_t *dead, uint32_t *err, uint32_t who)
{
    if (!bar_try(bar, parity)) {
        bar_wait_long(bar, parity, dead, err, who);
    }
}
static __device__ __forceinline__ void tma_load(uint32_t to, const CUtensorMap *map, int x, int y,
                                                uint32_t bar)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3}], [%4];" ::"r"(to),
                 "l"(map), "r"(x), "r"(y), "r"(bar)
                 : "memory");
}
static __device__ __forceinline__ void tma_load_both(uint32_t to, const CUtensorMap *map, int x,
                                                     int y, uint32_t bar)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
                 "l"(map), "r"(x), "r"(y), "r"(bar), "h"((uint16_t)3)
                 : "memory");
}
static __device__ __forceinline__ uint32_t cluster_rank(void)
{
    uint32_t rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
static __device__ __forceinline__ void cluster_sync(void)
{
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
}
template <int N> static __device__ __forceinline__ void more_registers(void)
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> static __device__ __forceinline__ void fewer_registers(void)
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

static __device__ __forceinline__ uint32_t pack2(float low, float high)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}
static __device__ __forceinline__ float low_of(uint32_t w)
{
    return __uint_as_float(w << 16);
}
static __device__ __forceinline__ float high_of(uint32_t w)
{
    return __uint_as_float(w & 0xFFFF0000u);
}

/* ---- products with 400 columns ----
 * A block makes 128 rows by 400 columns, each of its two consumer warpgroups 64 x 400 as
 * 64 x 192 and 64 x 208 (200 accumulators a thread). Clusters of two blocks share the tiles of b:
 * each loads half of them, into both. */
enum { FORWARD = 1, INPUT = 3, WEIGHT = 4 };
enum { ROWS = 128, COLS = 400, COLS0 = 192, SLOTS = 3, CHUNK = 8192, A_BYTES = 2 * CHUNK };

struct work {
    int rows;      /* of the batch */
    int stages;    /* of 64 along k */
    int splits[2]; /* WEIGHT: of the 6 whole tiles of 128 of m, of the last one */
    int sums_of_b; /* WEIGHT: column sums of b, not a */
    const float *bias;
    bf16 *out;
    size_t ld;
    float4 *partial; /* WEIGHT: (units, 2, 50, 128) */
    float *sums;     /* WEIGHT: (units, 128) */
    uint32_t *err;
};

template <int KIND> static __host__ __device__ constexpr int slot_bytes(void)
{
    return A_BYTES + (KIND == FORWARD ? COLS * 128 : 7 * CHUNK);
}

/* What a block does of WEIGHT. */
struct share {
    int tile, unit, from, to;
    bool shared; /* the cluster's blocks have the same range of k */
};
template <int CL> static __device__ __forceinline__ share share_of(const work &g, int rank)
{
    share s;
    int split, of;
    const int cluster = (int)blockIdx.x / CL, whole = 6 / CL * g.splits[0];
    if (cluster < whole) {
        s.tile = cluster % (6 / CL) * CL + rank;
        split = cluster / (6 / CL);
        of = g.splits[0];
        s.unit = s.tile * of + split;
        s.shared = true;
    } else {
        s.tile = 6;
        split = (cluster - whole) * CL + rank;
        of = g.splits[1];
        s.unit = 6 * g.splits[0] + split;
        s.shared = false;
    }
    s.from = (int)((int64_t)g.stages * split / of);
    s.to = (int)((int64_t)g.stages * (split + 1) / of);
    return s;
}

/* TAIL: steps of 16 in the last stage along k. DIAG, to see what limits: 1 no products, 2 no loads,
 * 3 nothing written. */
template <int KIND, int CL, int TAIL, int DIAG>
__global__ void __launch_bounds__(384, 1)
    product_kernel(const __grid_constant__ CUtensorMap map_a,
                   const __grid_constant__ CUtensorMap map_b,
                   const __grid_constant__ CUtensorMap map_y,
                   const __grid_constant__ CUtensorMap map_out, const work g)
{
    constexpr int TA = KIND == WEIGHT, TB = KIND != FORWARD;
    constexpr int SLOT = slot_bytes<KIND>(), SUMMERS = KIND == WEIGHT ? 2 : 0;
    extern __shared__ uint8_t raw[];
    __shared__ __align__(8) uint64_t bars[2 * SLOTS + 2];
    __shared__ __align__(8) float bias[COLS];
    __shared__ uint32_t dead_word;
    volatile uint32_t *dead = &dead_word;
    const uint32_t base = (shared_at(raw) + 1023) & ~1023u;
    const uint32_t full = shared_at(bars), empty = full + 8 * SLOTS, stored = empty + 8 * SLOTS;
    const int warp = __shfl_sync(0xFFFFFFFFu, (int)threadIdx.x / 32, 0), group = warp / 4;
    const int lane = (int)threadIdx.x % 32;
    const int rank = CL == 2 ? (int)cluster_rank() : 0;
    if (threadIdx.x == 0) {
        dead_word = 0;
        for (int s = 0; s < SLOTS; s++) {
            bar_init(full + 8 * s, 1);
            bar_init(empty + 8 * s, (8 + SUMMERS) * CL);
        }
        bar_init(stored, 8);
        bar_init(stored + 8, 8);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    for (int i = (int)threadIdx.x; KIND == FORWARD && i < COLS; i += (int)blockDim.x) {
        bias[i] = g.bias[i];
    }
    __syncthreads();
    if (CL == 2) {
        cluster_sync();
    }

    share own = {0, 0, 0, g.stages, true};
    int tiles = (g.rows + ROWS - 1) / ROWS, first = (int)blockIdx.x / CL * CL + rank;
    if (KIND == WEIGHT) {
        own = share_of<CL>(g, rank);
        first = own.tile;
        tiles = 1;
    }
    tiles = (tiles + CL - 1) / CL * CL; /* the blocks of a cluster go the same number of turns */
    const int turns = KIND == WEIGHT  ? 1
                      : first < tiles ? (tiles - first + (int)gridDim.x - 1) / (int)gridDim.x
                                      : 0;
    const bool shared = CL == 2 && own.shared;
    auto release = [&](int slot) {
        if (lane == 0) {
            if (CL == 2) {
                bar_arrive_at(empty + 8 * slot, (uint32_t)rank);
                bar_arrive_at(empty + 8 * slot, (uint32_t)(shared ? rank ^ 1 : rank));
            } else {
                bar_arrive(empty + 8 * slot);
            }
        }
    };
    int slot = 0;
    uint32_t phase = 0;
    auto next = [&]() {
        slot = slot + 1 == SLOTS ? 0 : slot + 1;
        phase ^= slot == 0;
    };

    if (group == 0) {
        fewer_registers<KIND == WEIGHT ? 40 : 24>();
        if (warp == 0 && lane == 0) {
            for (int turn = 0; turn < turns; turn++) {
                const int tile = first + turn * (int)gridDim.x;
                for (int k = own.from; k < own.to; k++, next()) {
                    bar_wait(empty + 8 * slot, phase ^ 1, dead, g.err, 1);
                    const uint32_t at = base + (uint32_t)(slot * SLOT), bar = full + 8 * slot;
                    if (DIAG == 2) {
                        bar_arrive(bar);
                        continue;
                    }
                    bar_expect(bar, SLOT);
                    if (KIND == WEIGHT) {
                        tma_load(at, &map_a, tile * 128, k * 64, bar);
                        tma_load(at + CHUNK, &map_a, tile * 128 + 64, k * 64, bar);
                    } else {
                        tma_load(at, &map_a, k * 64, tile * ROWS, bar);
                    }
                    constexpr int BOXES = KIND == FORWARD ? 2 : 7;
                    for (int i = 0; i < BOXES; i++) {
                        const uint32_t to =
                            at + A_BYTES + (uint32_t)(i * (KIND == FORWARD ? 200 * 128 : CHUNK));
                        const int x = KIND == FORWARD ? k * 64 : i * 64;
                        const int y = KIND == FORWARD ? i * 200 : k * 64;
                        if (!shared) {
                            tma_load(to, &map_b, x, y, bar);
                        } else if ((i & 1) == rank) {
                            tma_load_both(to, &map_b, x, y, bar);
                        }
                    }
                }
                /* two slots for the result; of INPUT, y comes in them and is replaced */
                for (int part = 0; KIND != WEIGHT && part < 2; part++, next()) {
                    bar_wait(empty + 8 * slot, phase ^ 1, dead, g.err, 2);
                    const uint32_t at = base + (uint32_t)(slot * SLOT), bar = full + 8 * slot;
                    if (DIAG == 2 || KIND == FORWARD) {
                        bar_arrive(bar);
                        continue;
                    }
                    bar_expect(bar, (uint32_t)(3 + part) * 2 * CHUNK);
                    for (int i = 0; i < 3 + part; i++) {
                        tma_load(at + (uint32_t)(i * 2 * CHUNK), &map_y, (3 * part + i) * 64,
                                 tile * ROWS, bar);
                    }
                }
            }
        } else if (KIND != WEIGHT && warp == 1 && lane == 0) {
            /* sends results off and gives their slots back */
            for (int turn = 0; turn < turns; turn++) {
                const int tile = first + turn * (int)gridDim.x;
                slot = (slot + g.stages) % SLOTS;
                for (int part = 0; part < 2; part++, next()) {
                    bar_wait(stored + 8 * part, (uint32_t)turn & 1, dead, g.err, 7);
                    const uint32_t at = base + (uint32_t)(slot * SLOT);
                    if (DIAG != 3) {
                        for (int i = 0; i < 3 + part; i++) {
                            tma_store(&map_out, (3 * part + i) * 64, tile * ROWS,
                                      at + (uint32_t)(i * 2 * CHUNK));
                        }
                        tma_store_wait();
                    }
                    bar_arrive_times(empty + 8 * slot, (uint32_t)rank, 8);
                    if (CL == 2) {
                        bar_arrive_times(empty + 8 * slot, (uint32_t)rank ^ 1, 8);
                    }
                }
            }
        } else if (KIND == WEIGHT && (warp == 1 || warp == 2)) {
            /* column sums of a chunk, from shared memory: two columns a lane */
            const bool mine = g.sums_of_b ? warp == 1 : true;
            const uint32_t chunk =
                (uint32_t)(g.sums_of_b ? A_BYTES + own.tile * CHUNK : (warp - 1) * CHUNK);
            float total0 = 0, total1 = 0;
            for (int k = own.from; k < own.to; k++, next()) {
                bar_wait(full + 8 * slot, phase, dead, g.err, 3);
                if (mine) {
                    const uint32_t at =
                        base + (uint32_t)(slot * SLOT) + chunk + (uint32_t)(lane & 3) * 4;
                    float sum0 = 0, sum1 = 0;
#pragma unroll 8
                    for (int r = 0; r < 64; r++) {
                        uint32_t w;
                        asm volatile(
                            "ld.shared.b32 %0, [%1];"
                            : "=r"(w)
                            : "r"(at + (uint32_t)(r * 128 + (((lane >> 2) ^ (r & 7)) << 4)))
                            : "memory");
                        sum0 += low_of(w);
                        sum1 += high_of(w);
                    }
                    total0 += sum0;
                    total1 += sum1;
                }
                __syncwarp();
                release(slot);
            }
            if (mine) {
                float *to = g.sums + own.unit * 128 + (g.sums_of_b ? 0 : (warp - 1) * 64);
                to[2 * lane] = total0;
                to[2 * lane + 1] = total1;
            }
        }
    } else {
        more_registers<KIND == WEIGHT ? 232 : 240>();
        const int half = group - 1;
        if (KIND == WEIGHT && own.tile == 6 && half == 1) {
            /* 64 columns that are not there */
            for (int k = own.from; k < own.to; k++, next()) {
                bar_wait(full + 8 * slot, phase, dead, g.err, 6);
                release(slot);
            }
        }
        const int my_turns = KIND == WEIGHT && own.tile == 6 && half == 1 ? 0 : turns;
        constexpr uint32_t A_LEAD = CHUNK, B_LEAD = KIND == FORWARD ? 16 : CHUNK;
        constexpr uint32_t A_STEP = TA ? 2048 >> 4 : 32 >> 4, B_STEP = TB ? 2048 >> 4 : 32 >> 4;
        constexpr uint32_t B_SECOND = (TB ? 3 * CHUNK : COLS0 * 128) >> 4;
        float d0[96], d1[104];
        for (int turn = 0; turn < my_turns; turn++) {
            int before = -1, scale = 0;
            auto stage = [&](auto steps) {
                bar_wait(full + 8 * slot, phase, dead, g.err, 4);
                const uint32_t at = base + (uint32_t)(slot * SLOT);
                const uint64_t a =
                    descriptor(at + (uint32_t)(half * CHUNK), TA ? A_LEAD : 16, 1024);
                const uint64_t b = descriptor(at + A_BYTES, B_LEAD, 1024);
                keep(d0);
                keep(d1);
                mma_fence();
#pragma unroll
                for (int i = 0; DIAG != 1 && i < decltype(steps)::value; i++) {
                    mma<TA, TB>(d0, a + i * A_STEP, b + i * B_STEP, i > 0 ? 1 : scale);
                    mma<TA, TB>(d1, a + i * A_STEP, b + i * B_STEP + B_SECOND, i > 0 ? 1 : scale);
                }
                mma_commit();
                scale = 1;
                mma_wait<1>();
                if (before >= 0) {
                    release(before);
                }
                before = slot;
                next();
            };
            for (int k = own.from; k + 1 < own.to; k++) {
                stage(std::integral_constant<int, 4>());
            }
            stage(std::integral_constant<int, TAIL>());
            mma_wait<0>();
            keep(d0);
            keep(d1);
            release(before);

            const int warp_row = (warp & 3) * 16 + lane / 4, t = lane & 3;
            if (KIND == WEIGHT) {
                if (DIAG == 3 && g.rows > 0) { /* always */
                    continue;
                }
                float4 *to =
                    g.partial + (size_t)((own.unit * 2 + half) * 50) * 128 + (warp & 3) * 32 + lane;
#pragma unroll
                for (int j = 0; j < 24; j++) {
                    to[j * 128] =
                        make_float4(d0[4 * j], d0[4 * j + 1], d0[4 * j + 2], d0[4 * j + 3]);
                }
#pragma unroll
                for (int j = 0; j < 26; j++) {
                    to[(24 + j) * 128] =
                        make_float4(d1[4 * j], d1[4 * j + 1], d1[4 * j + 2], d1[4 * j + 3]);
                }
                continue;
            }
            const int row = half * 64 + warp_row;
            auto finish = [&](auto &d, auto blocks, int col0, uint32_t at) {
#pragma unroll
                for (int j = 0; j < decltype(blocks)::value; j++) {
                    const float2 b = *reinterpret_cast<const float2 *>(bias + col0 + 8 * j + 2 * t);
#pragma unroll
                    for (int h = 0; h < 2; h++) {
                        const float *v = &d[4 * j + 2 * h];
                        const uint32_t word =
                            at + (uint32_t)(j / 8 * 2 * CHUNK + (row + 8 * h) * 128 +
                                            ((j % 8 ^ (row & 7)) << 4) + 4 * t);
                        uint32_t w;
                        if (KIND == FORWARD) {
                            const float v0 = v[0] + b.x, v1 = v[1] + b.y;
                            w = pack2(v0 < 0.0f ? 0.0f : v0, v1 < 0.0f ? 0.0f : v1);
                        } else {
                            uint32_t y;
                            asm volatile("ld.shared.b32 %0, [%1];"
                                         : "=r"(y)
                                         : "r"(word)
                                         : "memory");
                            __nv_bfloat162 yy;
                            memcpy(&yy, &y, sizeof yy);
                            w = pack2(v[0], v[1]) & __hgt2_mask(yy, __float2bfloat162_rn(0.0f));
                        }
                        asm volatile("st.shared.b32 [%0], %1;" ::"r"(word), "r"(w) : "memory");
                    }
                }
            };
            for (int part = 0; part < 2; part++, next()) {
                bar_wait(full + 8 * slot, phase, dead, g.err, 5);
                const uint32_t at = base + (uint32_t)(slot * SLOT);
                if (part == 0) {
                    finish(d0, std::integral_constant<int, 24>(), 0, at);
                } else {
                    finish(d1, std::integral_constant<int, 26>(), COLS0, at);
                }
                asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
                __syncwarp();
                if (lane == 0) {
                    bar_arrive(stored + 8 * part);
                }
            }
        }
    }
    __syncwarp();
    __syncthreads();
    if (CL == 2) {
        cluster_sync(); /* nothing of the other block may arrive here after this one is gone */
    }
}

/* dw: m by 400 (or transposed) from the partial sums, units in turn; then the column sums. Grid: a
 * thread per float4 of the 7 x 2 x 50 x 128, then a thread per column. */
__global__ void __launch_bounds__(256)
    weight_finish_kernel(float *dw, size_t ld, float *db, const float4 *__restrict__ partial,
                         const float *__restrict__ sums, int m_size, int splits0, int splits1,
                         int transposed, int sums_of_b)
{
    const int i = (int)(blockIdx.x * 256 + threadIdx.x), all = 7 * 2 * 50 * 128;
    if (i < all) {
        const int tile = i / (2 * 50 * 128), place = i % (2 * 50 * 128);
        const int n = tile < 6 ? splits0 : splits1;
        const int half = place / (50 * 128), j = place / 128 % 50, thread = place % 128;
        const int m = tile * 128 + half * 64 + thread / 32 * 16 + thread % 32 / 4;
        const int c = 8 * j + 2 * (thread & 3);
        if (m >= m_size && m + 8 >= m_size) {
            return;
        }
        const float4 *from = partial + (size_t)(tile * splits0) * (2 * 50 * 128) + place;
        float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 5
        for (int u = 0; u < n; u++) {
            const float4 v = from[(size_t)u * (2 * 50 * 128)];
            sum.x += v.x;
            sum.y += v.y;
            sum.z += v.z;
            sum.w += v.w;
        }
        if (transposed) {
            if (m < m_size) {
                dw[(size_t)c * ld + m] = sum.x;
                dw[(size_t)(c + 1) * ld + m] = sum.y;
            }
            if (m + 8 < m_size) {
                dw[(size_t)c * ld + m + 8] = sum.z;
                dw[(size_t)(c + 1) * ld + m + 8] = sum.w;
            }
        } else {
            if (m < m_size) {
                *reinterpret_cast<float2 *>(dw + (size_t)m * ld + c) = make_float2(sum.x, sum.y);
            }
            if (m + 8 < m_size) {
                *reinterpret_cast<float2 *>(dw + (size_t)(m + 8) * ld + c) =
                    make_float2(sum.z, sum.w);
            }
        }
        return;
    }
    const int c = i - all, width = sums_of_b ? 64 : 128;
    if (c < (sums_of_b ? COLS : m_size)) {
        const int tile = c / width, n = tile < 6 ? splits0 : splits1;
        float sum = 0;
        for (int u = 0; u < n; u++) {
            sum += sums[(tile * splits0 + u) * 128 + c % width];
        }
        db[c] = sum;
    }
}

/* ---- the loss behind the last layer ----
 * A block keeps 208 rows of the weights (k up to 448) in shared memory and sweeps tiles of 64 rows
 * of h; its two consumer warpgroups take turns: one multiplies while the other makes the loss.
 *
 * The rows of the weights lie there in another order, so that a thread's results are neighbours: of
 * each 32 columns, block j's 2 t + i is column 8 t + 2 j + i (of the last 16: 4 t + 2 j + i). */
enum {
    L_COLS = 208,
    L_CHUNKS = 7,
    L_SLOTS = 5,
    L_TAIL = 1,
    L_W_CHUNK = L_COLS * 128,
    L_W_BYTES = L_CHUNKS * L_W_CHUNK
};

static __device__ __forceinline__ int column_at(int place)
{
    const int j = place / 8 % 4, t = place / 2 % 4, i = place % 2;
    return place < 192 ? place / 32 * 32 + 8 * t + 2 * j + i : 192 + 4 * t + 2 * j + i;
}

struct loss_work {
    int rows, cols, tiles_n, chunks;
    const float *bias;
    const bf16 *w, *x;
    size_t ldw, ldx;
    int k; /* columns of w that exist, a multiple of 8 */
    bf16 *dlogits;
    size_t ldd;
    float *recon_part; /* (tiles_n, rows) */
    float scale;
    uint32_t *err;
};

static __device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
static __device__ __forceinline__ float reciprocal_fast(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* -log p of one Bernoulli value: the sum over a row of max(l,0) - x l goes into `linear`, and
 * log(1+e^-|l|) as a factor into `product`: 1 to 2 each, so 100 of them fit in a float. */
static __device__ __forceinline__ float bernoulli(float l, float x, float *linear, float *product)
{
    const float a = fabsf(l), e = exp2_fast(a * -1.44269504f), p = 1.0f + e;
    const float r = reciprocal_fast(p);
    const bool positive = l > 0.0f;
    *product *= p;
    *linear = fmaf(a, positive ? 1.0f - x : x, *linear);
    return (positive ? 1.0f : e) * r - x;
}

template <int WORDS>
static __device__ __forceinline__ void load_x(uint32_t (&w)[WORDS], const bf16 *p, bool real)
{
    if constexpr (WORDS == 4) {
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %5, 0;\nmov.b32 %0, 0;\nmov.b32 %1, 0;\n"
                     "mov.b32 %2, 0;\nmov.b32 %3, 0;\n"
                     "@p ld.global.nc.L1::no_allocate.v4.b32 {%0, %1, %2, %3}, [%4];\n}\n"
                     : "=r"(w[0]), "=r"(w[1]), "=r"(w[2]), "=r"(w[3])
                     : "l"(p), "r"((int)real));
    } else {
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %3, 0;\nmov.b32 %0, 0;\nmov.b32 %1, 0;\n"
                     "@p ld.global.nc.L1::no_allocate.v2.b32 {%0, %1}, [%2];\n}\n"
                     : "=r"(w[0]), "=r"(w[1])
                     : "l"(p), "r"((int)real));
    }
}

template <int DIAG>
__global__ void __launch_bounds__(384, 1)
    loss_kernel(const __grid_constant__ CUtensorMap map_h, const loss_work g)
{
    extern __shared__ uint8_t raw[];
    __shared__ __align__(8) uint64_t bars[2 * L_SLOTS + 2];
    __shared__ __align__(16) float bias[L_COLS];
    __shared__ uint32_t dead_word;
    volatile uint32_t *dead = &dead_word;
    const uint32_t base = (shared_at(raw) + 1023) & ~1023u, ring = base + L_W_BYTES;
    const uint32_t full = shared_at(bars), empty = full + 8 * L_SLOTS, turn = empty + 8 * L_SLOTS;
    const int warp = __shfl_sync(0xFFFFFFFFu, (int)threadIdx.x / 32, 0), group = warp / 4;
    const int lane = (int)threadIdx.x % 32;
    const int col0 = (int)blockIdx.x % g.tiles_n * L_COLS;
    const int first = (int)blockIdx.x / g.tiles_n, stride = (int)gridDim.x / g.tiles_n;
    const int tiles = (g.rows + 63) / 64;
    if (threadIdx.x == 0) {
        dead_word = 0;
        for (int s = 0; s < L_SLOTS; s++) {
            bar_init(full + 8 * s, 1);
            bar_init(empty + 8 * s, 4);
        }
        bar_init(turn, 4);
        bar_init(turn + 8, 4);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    /* columns that are not there: a logit of -1e30 against 0 adds nothing anywhere */
    for (int i = (int)threadIdx.x; i < L_COLS; i += (int)blockDim.x) {
        bias[i] = col0 + i < g.cols ? g.bias[col0 + i] : -1e30f;
    }
#pragma unroll 8
    for (int i = (int)threadIdx.x; i < L_COLS * L_CHUNKS * 8; i += 384) {
        const int place = i / (L_CHUNKS * 8), piece = i % (L_CHUNKS * 8);
        const int row = col0 + column_at(place);
        uint4 v = make_uint4(0, 0, 0, 0);
        if (row < g.cols && piece * 8 < g.k) {
            v = *reinterpret_cast<const uint4 *>(g.w + (size_t)row * g.ldw + piece * 8);
        }
        const uint32_t to = base + (uint32_t)(piece / 8 * L_W_CHUNK + place * 128 +
                                              ((piece % 8 ^ (place & 7)) << 4));
        asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v.x), "r"(v.y),
                     "r"(v.z), "r"(v.w)
                     : "memory");
    }
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
    if (group == 0) {
        fewer_registers<24>();
        if (warp == 0 && lane == 0) {
            int slot = 0;
            uint32_t phase = 0;
            for (int tile = first; tile < tiles; tile += stride) {
                for (int c = 0; c < g.chunks; c++) {
                    bar_wait(empty + 8 * slot, phase ^ 1, dead, g.err, 1);
                    if (DIAG == 2) {
                        bar_arrive(full + 8 * slot);
                    } else {
                        bar_expect(full + 8 * slot, CHUNK);
                        tma_load(ring + (uint32_t)(slot * CHUNK), &map_h, c * 64, tile * 64,
                                 full + 8 * slot);
                    }
                    slot = slot + 1 == L_SLOTS ? 0 : slot + 1;
                    phase ^= slot == 0;
                }
            }
        }
    } else {
        more_registers<240>();
        const int half = group - 1, t = lane & 3;
        float d[104];
        uint32_t step = (uint32_t)(half * g.chunks);
        uint32_t round = (uint32_t)half ^ 1;
        for (int tile = first + half * stride; tile < tiles;
             tile += 2 * stride, step += (uint32_t)g.chunks, round++) {
            const int row = tile * 64 + (warp & 3) * 16 + lane / 4;
            uint32_t xs[2][6][4], x_last[2][2];
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const bf16 *from = g.x + (size_t)(row + 8 * h) * g.ldx + col0;
                const bool there = DIAG != 2 && DIAG != 3 && row + 8 * h < g.rows;
#pragma unroll
                for (int p = 0; p < 6; p++) {
                    load_x<4>(xs[h][p], from + 32 * p + 8 * t,
                              there && col0 + 32 * p + 8 * t < g.cols);
                }
                load_x<2>(x_last[h], from + 192 + 4 * t, there && col0 + 192 + 4 * t < g.cols);
            }
            /* The other group has multiplied the tile before: all that the ring carried up to here
             * has come, so that a barrier's parity tells its phase. */
            bar_wait(turn + 8 * half, round & 1, dead, g.err, 8);
            int before = -1, scale = 0;
            auto stage = [&](int c, auto steps) {
                const int slot = (int)(step % L_SLOTS);
                bar_wait(full + 8 * slot, step / L_SLOTS & 1, dead, g.err, 3);
                const uint64_t a = descriptor(ring + (uint32_t)(slot * CHUNK), 16, 1024);
                const uint64_t b = descriptor(base + (uint32_t)(c * L_W_CHUNK), 16, 1024);
                keep(d);
                mma_fence();
#pragma unroll
                for (int i = 0; DIAG != 1 && i < decltype(steps)::value; i++) {
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
                stage(c, std::integral_constant<int, 4>());
            }
            stage(g.chunks - 1, std::integral_constant<int, L_TAIL>());
            mma_wait<0>();
            keep(d);
            if (lane == 0) {
                bar_arrive(empty + 8 * before);
                bar_arrive(turn + 8 * (half ^ 1));
            }
            if (DIAG == 3 && g.rows > 0) {
                continue;
            }
            float linear[2] = {0, 0}, product[2] = {1, 1};
            bf16 *to = g.dlogits + (size_t)row * g.ldd + col0;
#pragma unroll
            for (int p = 0; p < 7; p++) {
                const int n = p < 6 ? 4 : 2, col = 32 * p + 2 * n * t;
                float b[8];
#pragma unroll
                for (int q = 0; q < n / 2; q++) {
                    const float4 v = *reinterpret_cast<const float4 *>(bias + col + 4 * q);
                    b[4 * q] = v.x;
                    b[4 * q + 1] = v.y;
                    b[4 * q + 2] = v.z;
                    b[4 * q + 3] = v.w;
                }
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    uint32_t w[4];
#pragma unroll
                    for (int j = 0; j < n; j++) {
                        const float *v = &d[4 * (4 * p + j) + 2 * h];
                        const uint32_t x = p < 6 ? xs[h][p < 6 ? p : 0][j] : x_last[h][j & 1];
                        const float d0 =
                            bernoulli(v[0] + b[2 * j], low_of(x), &linear[h], &product[h]);
                        const float d1 =
                            bernoulli(v[1] + b[2 * j + 1], high_of(x), &linear[h], &product[h]);
                        w[j] = pack2(d0 * g.scale, d1 * g.scale);
                    }
                    if (DIAG != 4 && row + 8 * h < g.rows && col0 + col < g.cols) {
                        bf16 *at = to + (size_t)(8 * h) * g.ldd + col;
                        if (p < 6) {
                            *reinterpret_cast<uint4 *>(at) = make_uint4(w[0], w[1], w[2], w[3]);
                        } else {
                            *reinterpret_cast<uint2 *>(at) = make_uint2(w[0], w[1]);
                        }
                    }
                }
            }
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float loss = linear[h] + logf(product[h]);
                loss += __shfl_xor_sync(0xFFFFFFFFu, loss, 1);
                loss += __shfl_xor_sync(0xFFFFFFFFu, loss, 2);
                if (t == 0 && row + 8 * h < g.rows) {
                    g.recon_part[(size_t)((int)blockIdx.x % g.tiles_n) * g.rows + row + 8 * h] =
                        loss;
                }
            }
        }
    }
}

__global__ void __launch_bounds__(256)
    loss_finish_kernel(float *recon_row, const float *__restrict__ part, int rows, int n)
{
    const int r = (int)(blockIdx.x * 256 + threadIdx.x);
    float sum = 0;
    for (int i = 0; r < rows && i < n; i++) {
        sum += part[(size_t)i * rows + r];
    }
    if (r < rows) {
        recon_row[r] = sum;
    }
}

/* ---- weight gradients of a narrow side ----
 * out (m,n) = a' b over rows, m up to 448 and n up to 64, with the column sums of one of them. All of
 * it is in the registers of a block (four and three tiles of 64 x 64 in its two consumer
 * warpgroups), which takes a stretch of rows; partial sums of all blocks are added afterwards. */
enum { N_UNITS = 132, N_BLOCKS = 8, N_SLOT = 8 * CHUNK, N_SLOTS = 3 };

struct narrow_work {
    int stages, m_blocks; /* of 64 rows; of 64 columns of a */
    int n_blocks;         /* of 8 columns of b */
    int sums_of_b;
    float4 *partial; /* (units, 7, n_blocks, 128) */
    float *sums;     /* (units, 448) */
    uint32_t *err;
};

__global__ void __launch_bounds__(384, 1)
    narrow_kernel(const __grid_constant__ CUtensorMap map_a,
                  const __grid_constant__ CUtensorMap map_b, const narrow_work g)
{
    extern __shared__ uint8_t raw[];
    __shared__ __align__(8) uint64_t bars[2 * N_SLOTS];
    __shared__ uint32_t dead_word;
    volatile uint32_t *dead = &dead_word;
    const uint32_t base = (shared_at(raw) + 1023) & ~1023u;
    const uint32_t full = shared_at(bars), empty = full + 8 * N_SLOTS;
    const int warp = __shfl_sync(0xFFFFFFFFu, (int)threadIdx.x / 32, 0), group = warp / 4;
    const int lane = (int)threadIdx.x % 32, unit = (int)blockIdx.x, units = (int)gridDim.x;
    const int from = (int)((int64_t)g.stages * unit / units);
    const int to = (int)((int64_t)g.stages * (unit + 1) / units);
    if (threadIdx.x == 0) {
        dead_word = 0;
        for (int s = 0; s < N_SLOTS; s++) {
            bar_init(full + 8 * s, 1);
            bar_init(empty + 8 * s, 8 + 3);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    int slot = 0;
    uint32_t phase = 0;
    auto next = [&]() {
        slot = slot + 1 == N_SLOTS ? 0 : slot + 1;
        phase ^= slot == 0;
    };
    if (group == 0) {
        if (warp == 0 && lane == 0) {
            for (int k = from; k < to; k++, next()) {
                bar_wait(empty + 8 * slot, phase ^ 1, dead, g.err, 1);
                const uint32_t at = base + (uint32_t)(slot * N_SLOT), bar = full + 8 * slot;
                bar_expect(bar, (uint32_t)(g.m_blocks + 1) * CHUNK);
                for (int i = 0; i < g.m_blocks; i++) {
                    tma_load(at + (uint32_t)(i * CHUNK), &map_a, i * 64, k * 64, bar);
                }
                tma_load(at + 7 * CHUNK, &map_b, 0, k * 64, bar);
            }
        } else if (warp > 0) {
            /* column sums: warps 1 to 3 take chunks in turn */
            float total[3][2] = {{0, 0}, {0, 0}, {0, 0}};
            const int chunks = g.sums_of_b ? 1 : g.m_blocks;
            for (int k = from; k < to; k++, next()) {
                bar_wait(full + 8 * slot, phase, dead, g.err, 3);
#pragma unroll
                for (int i = 0; i < 3; i++) {
                    const int chunk = warp - 1 + 3 * i;
                    if (chunk < chunks) {
                        const uint32_t at = base + (uint32_t)(slot * N_SLOT) +
                                            (uint32_t)((g.sums_of_b ? 7 : chunk) * CHUNK) +
                                            (uint32_t)(lane & 3) * 4;
                        float sum0 = 0, sum1 = 0;
#pragma unroll 8
                        for (int r = 0; r < 64; r++) {
                            uint32_t w;
                            asm volatile(
                                "ld.shared.b32 %0, [%1];"
                                : "=r"(w)
                                : "r"(at + (uint32_t)(r * 128 + (((lane >> 2) ^ (r & 7)) << 4)))
                                : "memory");
                            sum0 += low_of(w);
                            sum1 += high_of(w);
                        }
                        total[i][0] += sum0;
                        total[i][1] += sum1;
                    }
                }
                __syncwarp();
                if (lane == 0) {
                    bar_arrive(empty + 8 * slot);
                }
            }
#pragma unroll
            for (int i = 0; i < 3; i++) {
                const int chunk = warp - 1 + 3 * i;
                if (chunk < chunks) {
                    float *sums = g.sums + unit * 448 + chunk * 64 + 2 * lane;
                    sums[0] = total[i][0];
                    sums[1] = total[i][1];
                }
            }
        }
    } else {
        const int half = group - 1;
        float d[4][32];
        int before = -1, scale = 0;
        for (int k = from; k < to; k++, next()) {
            bar_wait(full + 8 * slot, phase, dead, g.err, 4);
            const uint32_t at = base + (uint32_t)(slot * N_SLOT);
            const uint64_t a = descriptor(at + (uint32_t)(half * 4 * CHUNK), CHUNK, 1024);
            const uint64_t b = descriptor(at + 7 * CHUNK, CHUNK, 1024);
            keep(d[0]);
            keep(d[1]);
            keep(d[2]);
            keep(d[3]);
            mma_fence();
#pragma unroll
            for (int i = 0; i < 4; i++) {
#pragma unroll
                for (int m = 0; m < 4; m++) {
                    /* the last of the second warpgroup is b itself, and not used */
                    mma<1, 1>(d[m], a + (m * CHUNK + i * 2048) / 16, b + i * 2048 / 16,
                              i > 0 ? 1 : scale);
                }
            }
            mma_commit();
            scale = 1;
            mma_wait<1>();
            if (before >= 0 && lane == 0) {
                bar_arrive(empty + 8 * before);
            }
            before = slot;
        }
        mma_wait<0>();
        keep(d[0]);
        keep(d[1]);
        keep(d[2]);
        keep(d[3]);
#pragma unroll
        for (int m = 0; m < 4; m++) {
            if (half * 4 + m < g.m_blocks) {
                float4 *out = g.partial + (size_t)((unit * 7 + half * 4 + m) * g.n_blocks) * 128 +
                              (warp & 3) * 32 + lane;
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    if (j < g.n_blocks) {
                        out[j * 128] = make_float4(d[m][4 * j], d[m][4 * j + 1], d[m][4 * j + 2],
                                                   d[m][4 * j + 3]);
                    }
                }
            }
        }
    }
}

/* Grid: a block per 32 float4 of (m_blocks, n_blocks, 128), 8 warps that take units in turn; then
 * blocks of 32 column sums. */
__global__ void __launch_bounds__(256)
    narrow_finish_kernel(float *dw, size_t ld, float *db, const float4 *__restrict__ partial,
                         const float *__restrict__ sums, int units, int m_blocks, int n_blocks,
                         int m_size, int n_size, int n_sums, int transposed)
{
    __shared__ float4 part[8][32];
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    const int all = m_blocks * n_blocks * 4;
    float4 sum = make_float4(0, 0, 0, 0);
    if ((int)blockIdx.x < all) {
        const int i = (int)blockIdx.x * 32 + lane;
#pragma unroll 4
        for (int u = warp; u < units; u += 8) {
            const float4 v = partial[(size_t)u * (7 * n_blocks * 128) + i];
            sum.x += v.x;
            sum.y += v.y;
            sum.z += v.z;
            sum.w += v.w;
        }
        part[warp][lane] = sum;
        __syncthreads();
        if (warp > 0) {
            return;
        }
        for (int w = 1; w < 8; w++) {
            sum.x += part[w][lane].x;
            sum.y += part[w][lane].y;
            sum.z += part[w][lane].z;
            sum.w += part[w][lane].w;
        }
        const int thread = i % 128, j = i / 128 % n_blocks, block = i / 128 / n_blocks;
        const int m = block * 64 + thread / 32 * 16 + lane / 4, n = 8 * j + 2 * (lane & 3);
        const float v[4] = {sum.x, sum.y, sum.z, sum.w};
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int r = m + e / 2 * 8, c = n + e % 2;
            if (r < m_size && c < n_size) {
                dw[transposed ? (size_t)c * ld + r : (size_t)r * ld + c] = v[e];
            }
        }
        return;
    }
    const int c = ((int)blockIdx.x - all) * 32 + lane;
#pragma unroll 4
    for (int u = warp; c < n_sums && u < units; u += 8) {
        sum.x += sums[(size_t)u * 448 + c];
    }
    part[warp][lane].x = sum.x;
    __syncthreads();
    if (warp > 0) {
        return;
    }
    for (int w = 1; w < 8; w++) {
        sum.x += part[w][lane].x;
    }
    if (c < n_sums) {
        db[c] = sum.x;
    }
}

/* ---- a single warpgroup on data put where the layouts above say ---- */

template <int TA, int TB, int N2>
__global__ void __launch_bounds__(128) self_kernel(float *out, const bf16 *a, const bf16 *b,
                                                   uint32_t lead, uint32_t stride, int chunk0)
{
    /* a: (64 m, 64 k), b: (N, 64 k), plain; out: (64, N) */
    constexpr int N = 2 * N2;
    extern __shared__ uint8_t raw[];
    uint8_t *at = raw + ((1024 - (shared_at(raw) & 1023)) & 1023);
    uint8_t *at_b = at + CHUNK;
    for (int i = (int)threadIdx.x; i < 64 * 64; i += 128) {
        const int m = i / 64, k = i % 64, r = TA ? k : m, c = TA ? m : k;
        *(bf16 *)(at + r * 128 + ((c / 8 ^ (r & 7)) << 4) + c % 8 * 2) = a[i];
    }
    for (int i = (int)threadIdx.x; i < N * 64; i += 128) {
        const int n = i / 64, k = i % 64, r = TB ? k : n, c = TB ? n % 64 : k;
        *(bf16 *)(at_b + (TB ? (n / 64 + chunk0) * CHUNK : 0) + r * 128 + ((c / 8 ^ (r & 7)) << 4) +
                  c % 8 * 2) = b[i];
    }
    asm volatile("fence.proxy.async;" ::: "memory");
    __syncthreads();
    float d[N2];
    keep(d);
    mma_fence();
    for (int i = 0; i < 4; i++) {
        mma<TA, TB>(d, descriptor(shared_at(at) + (uint32_t)(i * (TA ? 2048 : 32)), lead, stride),
                    descriptor(shared_at(at_b) + (uint32_t)(chunk0 * CHUNK + i * (TB ? 2048 : 32)),
                               lead, stride),
                    i > 0);
    }
    mma_commit();
    mma_wait<0>();
    keep(d);
    const int lane = (int)threadIdx.x % 32, row = (int)threadIdx.x / 32 * 16 + lane / 4;
#pragma unroll
    for (int i = 0; i < N2; i++) {
        out[(row + 8 * (i / 2 % 2)) * N + i / 4 * 8 + 2 * (lane & 3) + i % 2] = d[i];
    }
}

/* ---- plain kernels to compare with ---- */

/* out: (n_rows,N) = rows of a times b' (or b); row i is row_of(i). */
static __host__ __device__ int row_of(int i, int n_rows, int rows)
{
    return n_rows < 2 ? 0 : (int)((int64_t)i * (rows - 1) / (n_rows - 1));
}
__global__ void rows_reference(double *out, const bf16 *a, size_t lda, const bf16 *b, size_t ldb,
                               int b_is_kn, int n_rows, int rows, int n, int k)
{
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= n_rows * n) {
        return;
    }
    const int r = row_of(i / n, n_rows, rows), c = i % n;
    double sum = 0;
    for (int j = 0; j < k; j++) {
        const double w =
            (double)__bfloat162float(b_is_kn ? b[(size_t)j * ldb + c] : b[(size_t)c * ldb + j]);
        sum += (double)__bfloat162float(a[(size_t)r * lda + j]) * w;
    }
    out[i] = sum;
}
__global__ void weight_reference(double *out, const bf16 *a, size_t lda, const bf16 *b, size_t ldb,
                                 int m, int n, int k)
{
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= m * n) {
        return;
    }
    const int r = i / n, c = i % n;
    double sum = 0;
#pragma unroll 8
    for (int j = 0; j < k; j++) {
        sum += (double)__bfloat162float(a[(size_t)j * lda + r]) *
               (double)__bfloat162float(b[(size_t)j * ldb + c]);
    }
    out[i] = sum;
}
__global__ void sums_reference(double *out, const bf16 *a, size_t lda, int n, int k)
{
    const int c = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    double sum = 0;
    for (int j = 0; c < n && j < k; j++) {
        sum += (double)__bfloat162float(a[(size_t)j * lda + c]);
    }
    if (c < n) {
        out[c] = sum;
    }
}
__global__ void differ(uint32_t *count, const uint32_t *a, const uint32_t *b, size_t n)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x) {
        if (a[i] != b[i]) {
            atomicAdd(count, 1u);
        }
    }
}
/* kind 0: uniform in [-s,s); 1: an image's values, most of them 0 or 1; 2: as after relu */
__global__ void fill(bf16 *p, size_t n, uint32_t seed, float s, int kind)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x) {
        uint32_t h = (uint32_t)i * 2654435761u ^ seed;
        h ^= h >> 16;
        h *= 0x85EBCA6Bu;
        h ^= h >> 13;
        h *= 0xC2B2AE35u;
        h ^= h >> 16;
        const float u = (float)(h >> 8) * 0x1p-24f;
        float v = s * (2 * u - 1);
        if (kind == 1) {
            v = u < 0.5f ? 0.0f : u < 0.8f ? 1.0f : u;
        } else if (kind == 2) {
            v = v < 0 ? 0 : v;
        }
        p[i] = __float2bfloat16(v);
    }
}

/* ---- host ---- */

#define OK(call)                                                                                   \
    do {                                                                                           \
        cudaError_t e_ = (call);                                                                   \
        if (e_ != cudaSuccess) {                                                                   \
            printf("  ERROR line %d: %s\n", __LINE__, cudaGetErrorString(e_));                     \
            fflush(stdout);                                                                        \
            exit(3);                                                                               \
        }                                                                                          \
    } while (0)

static cudaStream_t stream;
static uint32_t *err_word;
static bool any_failed;

template <typename T> static T *device(size_t n)
{
    T *p;
    OK(cudaMalloc(&p, n * sizeof(T) + 256));
    OK(cudaMemset(p, 0xFF, n * sizeof(T) + 256)); /* NaN */
    return p;
}
template <typename T> static std::vector<T> host(const T *p, size_t n)
{
    std::vector<T> v(n);
    OK(cudaMemcpy(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost));
    return v;
}
static bf16 *filled(size_t n, uint32_t seed, float s, int kind)
{
    bf16 *p = device<bf16>(n);
    fill<<<1024, 256, 0, stream>>>(p, n, seed, s, kind);
    OK(cudaGetLastError());
    return p;
}
static CUtensorMap map_of(const void *p, int inner, int outer, size_t ld, int box_inner,
                          int box_outer)
{
    static PFN_cuTensorMapEncodeTiled_v12000 encode;
    if (encode == NULL) {
        void *f = NULL;
        cudaDriverEntryPointQueryResult result;
        OK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000, cudaEnableDefault,
                                            &result));
        encode = (PFN_cuTensorMapEncodeTiled_v12000)f;
    }
    CUtensorMap map;
    const cuuint64_t size[2] = {(cuuint64_t)inner, (cuuint64_t)outer}, pitch[1] = {ld * 2};
    const cuuint32_t box[2] = {(cuuint32_t)box_inner, (cuuint32_t)box_outer}, one[2] = {1, 1};
    CUresult r = encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, (void *)p, size, pitch, box, one,
                        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (r != CUDA_SUCCESS) {
        printf("  ERROR cuTensorMapEncodeTiled: %d\n", (int)r);
        fflush(stdout);
        exit(3);
    }
    return map;
}

static int multiprocessors(void)
{
    int n = 0;
    OK(cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, 0));
    return n;
}

template <int KIND, int CL, int TAIL, int DIAG = 0>
static void launch_product(const CUtensorMap &a, const CUtensorMap &b, const CUtensorMap &y,
                           const CUtensorMap &out, const work &g, int grid)
{
    const int bytes = SLOTS * slot_bytes<KIND>() + 1024;
    static bool set;
    if (!set) {
        OK(cudaFuncSetAttribute(product_kernel<KIND, CL, TAIL, DIAG>,
                                cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
        set = true;
    }
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)grid);
    config.blockDim = dim3(384);
    config.dynamicSmemBytes = (size_t)bytes;
    config.stream = stream;
    cudaLaunchAttribute attr = {};
    attr.id = cudaLaunchAttributeClusterDimension;
    attr.val.clusterDim.x = CL;
    attr.val.clusterDim.y = attr.val.clusterDim.z = 1;
    config.attrs = &attr;
    config.numAttrs = 1;
    OK(cudaLaunchKernelEx(&config, product_kernel<KIND, CL, TAIL, DIAG>, a, b, y, out, g));
}

/* Microseconds of one run: the median of 7 medians-to-be of 10 in a row. */
template <typename F> static double time_us(F run)
{
    cudaEvent_t from, to;
    OK(cudaEventCreate(&from));
    OK(cudaEventCreate(&to));
    for (int i = 0; i < 3; i++) {
        run();
    }
    std::vector<double> us;
    for (int i = 0; i < 7; i++) {
        OK(cudaEventRecord(from, stream));
        for (int j = 0; j < 10; j++) {
            run();
        }
        OK(cudaEventRecord(to, stream));
        OK(cudaEventSynchronize(to));
        float ms;
        OK(cudaEventElapsedTime(&ms, from, to));
        us.push_back(ms * 100);
    }
    std::sort(us.begin(), us.end());
    return us[us.size() / 2];
}

static void report_time(const char *what, double us, double flops, double bytes)
{
    printf("  time %-44s %8.2f us  %6.1f TFLOP/s  %5.2f TB/s\n", what, us, flops / us * 1e-6,
           bytes / us * 1e-6);
    fflush(stdout);
}
static void verdict(const char *what, double error, double bound)
{
    const bool fine = error <= bound; /* NaN is not */
    any_failed |= !fine;
    printf("  %s %-44s error %.3e (bound %.0e)\n", fine ? "PASS" : "FAIL", what, error, bound);
    fflush(stdout);
}
static void waited(const char *what)
{
    OK(cudaStreamSynchronize(stream));
    const uint32_t e = host(err_word, 1)[0];
    if (e != 0) {
        printf("  FAIL %s: a wait of kind %u had no end\n", what, e);
        fflush(stdout);
        any_failed = true;
        OK(cudaMemset(err_word, 0, 4));
    }
}
static void same_bits(const char *what, const void *a, const void *b, size_t bytes)
{
    uint32_t *count = device<uint32_t>(1);
    OK(cudaMemset(count, 0, 4));
    differ<<<1024, 256, 0, stream>>>(count, (const uint32_t *)a, (const uint32_t *)b, bytes / 4);
    OK(cudaStreamSynchronize(stream));
    verdict(what, host(count, 1)[0], 0);
    OK(cudaFree(count));
}

/* cuBLASLt: D (m,n) column-major = op(A) op(B); its first choice, 32 MiB of workspace. */
struct blas {
    decltype(&cublasLtMatmul) matmul;
    cublasLtHandle_t handle;
    void *workspace;
    bool ready;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulAlgo_t algo;
    const void *pa, *pb;
    void *pd;
    void run()
    {
        const float one = 1, zero = 0;
        matmul(handle, desc, &one, pa, a, pb, b, &zero, pd, d, pd, d, &algo, workspace, 32u << 20,
               stream);
    }
};
static blas blas_of(int ta, int tb, int m, int n, int k, const void *pa, size_t lda, const void *pb,
                    size_t ldb, void *pd, size_t ldd, cudaDataType_t type_d)
{
    blas s = {};
    void *lib = dlopen("libcublasLt.so.13", RTLD_NOW);
    lib = lib ? lib : dlopen("/usr/local/cuda/lib64/libcublasLt.so.13", RTLD_NOW);
    lib = lib ? lib : dlopen("libcublasLt.so", RTLD_NOW);
    if (lib == NULL) {
        printf("  no cuBLASLt: %s\n", dlerror());
        return s;
    }
#define SYM(name) auto name##_ = (decltype(&name))dlsym(lib, #name)
    SYM(cublasLtCreate);
    SYM(cublasLtMatmulDescCreate);
    SYM(cublasLtMatmulDescSetAttribute);
    SYM(cublasLtMatrixLayoutCreate);
    SYM(cublasLtMatmulPreferenceCreate);
    SYM(cublasLtMatmulPreferenceSetAttribute);
    SYM(cublasLtMatmulAlgoGetHeuristic);
    SYM(cublasLtMatmul);
    s.matmul = cublasLtMatmul_;
    const size_t room = 32u << 20;
    cublasLtCreate_(&s.handle);
    OK(cudaMalloc(&s.workspace, room));
    cublasLtMatmulDescCreate_(&s.desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    const cublasOperation_t oa = ta ? CUBLAS_OP_T : CUBLAS_OP_N,
                            ob = tb ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasLtMatmulDescSetAttribute_(s.desc, CUBLASLT_MATMUL_DESC_TRANSA, &oa, sizeof oa);
    cublasLtMatmulDescSetAttribute_(s.desc, CUBLASLT_MATMUL_DESC_TRANSB, &ob, sizeof ob);
    cublasLtMatrixLayoutCreate_(&s.a, CUDA_R_16BF, ta ? k : m, ta ? m : k, (int64_t)lda);
    cublasLtMatrixLayoutCreate_(&s.b, CUDA_R_16BF, tb ? n : k, tb ? k : n, (int64_t)ldb);
    cublasLtMatrixLayoutCreate_(&s.d, type_d, m, n, (int64_t)ldd);
    cublasLtMatmulPreference_t pref;
    cublasLtMatmulPreferenceCreate_(&pref);
    cublasLtMatmulPreferenceSetAttribute_(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room,
                                          sizeof room);
    cublasLtMatmulHeuristicResult_t found;
    int n_found = 0;
    cublasLtMatmulAlgoGetHeuristic_(s.handle, s.desc, s.a, s.b, s.d, s.d, pref, 1, &found,
                                    &n_found);
    s.algo = found.algo;
    s.pa = pa;
    s.pb = pb;
    s.pd = pd;
    s.ready = n_found > 0;
    return s;
}

/* ---- tests ---- */

template <int TA, int TB, int N2> static void self_one(uint32_t lead, uint32_t stride, int chunk0)
{
    constexpr int N = 2 * N2;
    std::vector<bf16> a(64 * 64), b(N * 64);
    for (size_t i = 0; i < a.size(); i++) {
        a[i] = __float2bfloat16((float)((int)(i * 7 + i / 64 * 3) % 13 - 6));
    }
    for (size_t i = 0; i < b.size(); i++) {
        b[i] = __float2bfloat16((float)((int)(i * 5 + i / 64 * 11) % 17 - 8));
    }
    bf16 *da = device<bf16>(a.size()), *db = device<bf16>(b.size());
    float *out = device<float>(64 * N);
    OK(cudaMemcpy(da, a.data(), a.size() * 2, cudaMemcpyHostToDevice));
    OK(cudaMemcpy(db, b.data(), b.size() * 2, cudaMemcpyHostToDevice));
    const int bytes = 1024 + CHUNK + 8 * CHUNK;
    OK(cudaFuncSetAttribute(self_kernel<TA, TB, N2>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                            bytes));
    self_kernel<TA, TB, N2><<<1, 128, bytes, stream>>>(out, da, db, lead, stride, chunk0);
    OK(cudaGetLastError());
    OK(cudaStreamSynchronize(stream));
    std::vector<float> got = host(out, 64 * N);
    int wrong = 0, first = -1;
    for (int m = 0; m < 64; m++) {
        for (int n = 0; n < N; n++) {
            float want = 0;
            for (int k = 0; k < 64; k++) {
                want += __bfloat162float(a[m * 64 + k]) * __bfloat162float(b[n * 64 + k]);
            }
            if (got[m * N + n] != want) {
                first = first < 0 ? m * N + n : first;
                wrong++;
            }
        }
    }
    printf("  %s a %s b %s n%d leading %u stride %u from chunk %d: %d of %d wrong, first (%d,%d)\n",
           wrong ? "FAIL" : "PASS", TA ? "MN" : "K", TB ? "MN" : "K", N, lead, stride, chunk0,
           wrong, 64 * N, first / N, first % N);
    fflush(stdout);
}

static void test_self(void)
{
    printf("layouts\n");
    fflush(stdout);
    self_one<0, 0, 96>(16, 1024, 0);
    self_one<0, 0, 100>(16, 1024, 0);
    self_one<0, 0, 104>(16, 1024, 0);
    self_one<0, 1, 96>(CHUNK, 1024, 0);
    self_one<0, 1, 96>(1024, CHUNK, 0);
    self_one<0, 1, 104>(CHUNK, 1024, 0);
    self_one<0, 1, 104>(CHUNK, 1024, 3);
    self_one<0, 1, 100>(CHUNK, 1024, 0);
    self_one<1, 0, 96>(CHUNK, 1024, 0);
    self_one<1, 1, 96>(CHUNK, 1024, 0);
    self_one<1, 1, 96>(1024, CHUNK, 0);
    self_one<1, 1, 104>(CHUNK, 1024, 3);
}

static const int D = 784, H = 400;
static const int SAMPLE = 2048;

/* leading dimensions: multiples of 16, or of 64 where there are more */
static bool wide_rows;
static int pad(int n)
{
    return wide_rows && n > 64 ? (n + 63) / 64 * 64 : (n + 15) / 16 * 16;
}

template <int KIND, int CL, int D = 784> static void test_rows(int B, bool timed)
{
    const int LD = pad(D), LH = pad(H);
    printf("%s, k %d, clusters of %d, %d rows, rows by %d\n",
           KIND == FORWARD ? "forward" : "input gradient", D, CL, B, LD);
    fflush(stdout);
    const bool forward = KIND == FORWARD;
    constexpr int TAIL = D % 64 == 0 ? 4 : (D % 64 + 15) / 16;
    bf16 *a = filled((size_t)B * LD, 1, 0.01f, forward ? 1 : 0);
    bf16 *w = filled((size_t)LD * LH, 2, 0.05f, 0); /* forward: (400,D), input: (D,400) */
    bf16 *y = filled((size_t)B * LH, 3, 1.0f, 2);
    bf16 *out[2] = {device<bf16>((size_t)B * LH), device<bf16>((size_t)B * LH)};
    std::vector<float> bias(H);
    for (int i = 0; i < H; i++) {
        bias[i] = 0.01f * (float)(i % 37 - 18);
    }
    float *d_bias = device<float>(H);
    OK(cudaMemcpy(d_bias, bias.data(), H * 4, cudaMemcpyHostToDevice));
    const CUtensorMap ma = map_of(a, D, B, LD, 64, 128);
    const CUtensorMap mb = forward ? map_of(w, D, H, LD, 64, 200) : map_of(w, H, D, LH, 64, 64);
    const CUtensorMap my = map_of(y, H, B, LH, 64, 128);
    const CUtensorMap mo[2] = {map_of(out[0], H, B, LH, 64, 128),
                               map_of(out[1], H, B, LH, 64, 128)};
    work g = {};
    g.rows = B;
    g.stages = (D + 63) / 64;
    g.bias = d_bias;
    g.ld = H;
    g.err = err_word;
    const int tiles = ((B + ROWS - 1) / ROWS + CL - 1) / CL * CL;
    const int grid = std::min(tiles, multiprocessors() / CL * CL);
    for (int i = 0; i < 2; i++) {
        g.out = out[i];
        launch_product<KIND, CL, TAIL>(ma, mb, my, mo[g.out == out[1]], g, grid);
        waited("product");
    }
    const int n = std::min(B, SAMPLE);
    double *ref = device<double>((size_t)n * H);
    rows_reference<<<(n * H + 255) / 256, 256, 0, stream>>>(ref, a, LD, w, forward ? LD : LH,
                                                            !forward, n, B, H, D);
    OK(cudaGetLastError());
    OK(cudaStreamSynchronize(stream));
    std::vector<double> want = host(ref, (size_t)n * H);
    std::vector<bf16> got = host(out[0], (size_t)B * LH), ys = host(y, (size_t)B * LH);
    double square = 0, worst = 0;
    for (size_t i = 0; i < want.size(); i++) {
        const size_t r = (size_t)row_of((int)(i / H), n, B), c = i % H;
        if (forward) {
            want[i] = std::max(0.0, want[i] + bias[c]);
        } else {
            want[i] = __bfloat162float(ys[r * LH + c]) > 0 ? want[i] : 0;
        }
        square += want[i] * want[i];
    }
    const double rms = sqrt(square / (double)want.size());
    int at_r = -1, at_c = -1;
    for (size_t i = 0; i < want.size(); i++) {
        const size_t r = (size_t)row_of((int)(i / H), n, B), c = i % H;
        const double e =
            fabs((double)__bfloat162float(got[r * LH + c]) - want[i]) / (fabs(want[i]) + rms);
        if (!(e <= worst)) {
            worst = e;
            at_r = (int)r;
            at_c = (int)c;
        }
    }
    verdict("against plain sums", worst, 5e-3);
    if (worst > 5e-3 || worst != worst) {
        printf("    worst at row %d column %d\n", at_r, at_c);
    }
    same_bits("same bits again", out[0], out[1], (size_t)B * LH * 2);
    if (timed) {
        const double flops = 2.0 * B * D * H, bytes = 2.0 * B * (D + H * (forward ? 1 : 2));
        report_time(forward ? "own forward, bias, relu" : "own input gradient, relu'", time_us([&] {
                        launch_product<KIND, CL, TAIL>(ma, mb, my, mo[g.out == out[1]], g, grid);
                    }),
                    flops, bytes);
        if (CL == 2 && B > 8192) {
            report_time("  no products", time_us([&] {
                            launch_product<KIND, CL, TAIL, 1>(ma, mb, my, mo[g.out == out[1]], g,
                                                              grid);
                        }),
                        flops, bytes);
            report_time("  no loads", time_us([&] {
                            launch_product<KIND, CL, TAIL, 2>(ma, mb, my, mo[g.out == out[1]], g,
                                                              grid);
                        }),
                        flops, bytes);
            report_time("  nothing written", time_us([&] {
                            launch_product<KIND, CL, TAIL, 3>(ma, mb, my, mo[g.out == out[1]], g,
                                                              grid);
                        }),
                        flops, bytes);
        }
        waited("product");
        blas s = forward
                     ? blas_of(1, 0, H, B, (D + 7) / 8 * 8, w, LD, a, LD, out[1], LH, CUDA_R_16BF)
                     : blas_of(0, 0, H, B, D, w, LH, a, LD, out[1], LH, CUDA_R_16BF);
        if (s.ready) {
            report_time("cuBLASLt, nothing fused", time_us([&] { s.run(); }), flops, bytes);
            std::vector<bf16> theirs = host(out[1], (size_t)n);
            printf("    (cuBLASLt's first values %g %g)\n", (double)__bfloat162float(theirs[0]),
                   (double)__bfloat162float(theirs[1]));
        }
    }
    for (void *p : {(void *)a, (void *)w, (void *)y, (void *)out[0], (void *)out[1], (void *)ref}) {
        OK(cudaFree(p));
    }
}

static void test_loss(int B, bool timed)
{
    const int LD = pad(D), LH = pad(H);
    printf("forward and loss, %d rows, rows by %d\n", B, LD);
    fflush(stdout);
    bf16 *h = filled((size_t)B * LH, 1, 1.0f, 2);
    bf16 *w = filled((size_t)D * LH, 2, 0.2f, 0);
    bf16 *x = filled((size_t)B * LD, 3, 1.0f, 1);
    bf16 *dl[2] = {device<bf16>((size_t)B * LD), device<bf16>((size_t)B * LD)};
    float *recon[2] = {device<float>(B), device<float>(B)};
    float *part = device<float>((size_t)B * 4);
    std::vector<float> bias(D);
    for (int i = 0; i < D; i++) {
        bias[i] = 0.1f * (float)(i % 37 - 18);
    }
    float *d_bias = device<float>(D);
    OK(cudaMemcpy(d_bias, bias.data(), D * 4, cudaMemcpyHostToDevice));
    const CUtensorMap mh = map_of(h, H, B, LH, 64, 64);
    loss_work g = {};
    g.rows = B;
    g.cols = D;
    g.tiles_n = (D + L_COLS - 1) / L_COLS;
    g.chunks = (H + 63) / 64;
    g.bias = d_bias;
    g.w = w;
    g.ldw = LH;
    g.k = H;
    g.x = x;
    g.ldx = LD;
    g.ldd = LD;
    g.recon_part = part;
    g.scale = 1.0f / (float)B;
    g.err = err_word;
    const int bytes = 1024 + L_W_BYTES + L_SLOTS * CHUNK;
    for (auto kernel :
         {loss_kernel<0>, loss_kernel<1>, loss_kernel<2>, loss_kernel<3>, loss_kernel<4>}) {
        OK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    }
    const int grid = g.tiles_n * std::min((B + 63) / 64, multiprocessors() / g.tiles_n);
    auto run = [&](int i) {
        g.dlogits = dl[i];
        loss_kernel<0><<<grid, 384, bytes, stream>>>(mh, g);
        loss_finish_kernel<<<(B + 255) / 256, 256, 0, stream>>>(recon[i], part, B, g.tiles_n);
        OK(cudaGetLastError());
    };
    for (int i = 0; i < 2; i++) {
        run(i);
        waited("loss");
    }
    const int n = std::min(B, SAMPLE);
    double *ref = device<double>((size_t)n * D);
    rows_reference<<<(n * D + 255) / 256, 256, 0, stream>>>(ref, h, LH, w, LH, 0, n, B, D, H);
    OK(cudaGetLastError());
    OK(cudaStreamSynchronize(stream));
    std::vector<double> logits = host(ref, (size_t)n * D);
    std::vector<bf16> got = host(dl[0], (size_t)B * LD), xs = host(x, (size_t)B * LD);
    std::vector<float> row = host(recon[0], (size_t)B);
    double worst = 0, worst_row = 0;
    for (int i = 0; i < n; i++) {
        const size_t r = (size_t)row_of(i, n, B);
        double loss = 0;
        for (int c = 0; c < D; c++) {
            const double l = logits[(size_t)i * D + c] + bias[c];
            const double xv = (double)__bfloat162float(xs[r * LD + c]);
            loss += std::max(l, 0.0) - xv * l + log1p(exp(-fabs(l)));
            const double want = 1 / (1 + exp(-l)) - xv;
            const double e =
                fabs((double)__bfloat162float(got[r * LD + c]) * B - want) / (fabs(want) + 0.01);
            worst = e <= worst ? worst : e;
        }
        const double e = fabs(row[r] - loss) / loss;
        worst_row = e <= worst_row ? worst_row : e;
    }
    verdict("dlogits", worst, 5e-3);
    verdict("loss of a row", worst_row, 5e-6);
    same_bits("same bits again: dlogits", dl[0], dl[1], (size_t)B * LD * 2);
    same_bits("same bits again: loss", recon[0], recon[1], (size_t)B * 4);
    if (timed) {
        const double flops = 2.0 * B * D * H, moved = 2.0 * B * (H + 2 * D);
        report_time("own forward, bias, loss, dlogits", time_us([&] { run(0); }), flops, moved);
        if (B > 8192) {
            report_time("  no products",
                        time_us([&] { loss_kernel<1><<<grid, 384, bytes, stream>>>(mh, g); }),
                        flops, moved);
            report_time("  no loads",
                        time_us([&] { loss_kernel<2><<<grid, 384, bytes, stream>>>(mh, g); }),
                        flops, moved);
            report_time("  no loss",
                        time_us([&] { loss_kernel<3><<<grid, 384, bytes, stream>>>(mh, g); }),
                        flops, moved);
            report_time("  no stores",
                        time_us([&] { loss_kernel<4><<<grid, 384, bytes, stream>>>(mh, g); }),
                        flops, moved);
        }
        waited("loss");
        blas s = blas_of(1, 0, D, B, H, w, LH, h, LH, dl[1], LD, CUDA_R_16BF);
        if (s.ready) {
            report_time("cuBLASLt, nothing fused", time_us([&] { s.run(); }), flops, moved);
        }
    }
    for (void *p : {(void *)h, (void *)w, (void *)x, (void *)dl[0], (void *)dl[1], (void *)ref}) {
        OK(cudaFree(p));
    }
}

/* of_b: dW1 = (X' dH)' with the column sums of dH; else dW2 = dL' H with those of dL */
template <int CL> static void test_weight(int B, bool of_b, bool timed)
{
    const int LD = pad(D), LH = pad(H);
    printf("weight gradient %s, clusters of %d, %d rows, rows by %d\n",
           of_b ? "400 x 784" : "784 x 400", CL, B, LD);
    fflush(stdout);
    bf16 *a = filled((size_t)B * LD, 1, 0.01f, of_b ? 1 : 0);
    bf16 *b = filled((size_t)B * LH, 2, 0.02f, of_b ? 0 : 2);
    work g = {};
    g.rows = B;
    g.stages = (B + 63) / 64;
    g.splits[0] = 20;
    g.splits[1] = 12;
    g.sums_of_b = of_b;
    const int units = 6 * g.splits[0] + g.splits[1];
    g.partial = device<float4>((size_t)units * 2 * 50 * 128);
    g.sums = device<float>((size_t)units * 128);
    g.err = err_word;
    const size_t ld = of_b ? D : H;
    float *dw[2], *db[2];
    for (int i = 0; i < 2; i++) {
        dw[i] = device<float>((size_t)D * H);
        db[i] = device<float>(D);
    }
    const CUtensorMap ma = map_of(a, D, B, LD, 64, 64), mb = map_of(b, H, B, LH, 64, 64);
    auto run = [&](int i) {
        launch_product<WEIGHT, CL, 4>(ma, mb, mb, mb, g, units);
        weight_finish_kernel<<<7 * 2 * 50 / 2 + 4, 256, 0, stream>>>(
            dw[i], ld, db[i], g.partial, g.sums, D, g.splits[0], g.splits[1], of_b, of_b);
        OK(cudaGetLastError());
    };
    for (int i = 0; i < 2; i++) {
        run(i);
        waited("weight");
    }
    const int n_sums = of_b ? H : D;
    double *ref = device<double>((size_t)D * H), *ref_sums = device<double>(D);
    weight_reference<<<(D * H + 255) / 256, 256, 0, stream>>>(ref, a, LD, b, LH, D, H, B);
    sums_reference<<<(n_sums + 31) / 32, 32, 0, stream>>>(ref_sums, of_b ? b : a, of_b ? LH : LD,
                                                          n_sums, B);
    OK(cudaGetLastError());
    OK(cudaStreamSynchronize(stream));
    std::vector<double> want = host(ref, (size_t)D * H), want_sums = host(ref_sums, n_sums);
    std::vector<float> got = host(dw[0], (size_t)D * H), sums = host(db[0], n_sums);
    double square = 0, worst = 0, worst_sum = 0;
    for (double v : want) {
        square += v * v;
    }
    const double rms = sqrt(square / (double)want.size());
    for (size_t i = 0; i < want.size(); i++) {
        const size_t r = i / H, c = i % H;
        const double e = fabs((double)got[of_b ? c * D + r : i] - want[i]) / rms;
        worst = e <= worst ? worst : e;
    }
    double square_sum = 0;
    for (double v : want_sums) {
        square_sum += v * v;
    }
    const double rms_sum = sqrt(square_sum / n_sums);
    for (int i = 0; i < n_sums; i++) {
        const double e = fabs(sums[i] - want_sums[i]) / rms_sum;
        worst_sum = e <= worst_sum ? worst_sum : e;
    }
    verdict("against plain sums", worst, 2e-3);
    verdict("column sums", worst_sum, 1e-4);
    same_bits("same bits again: dw", dw[0], dw[1], (size_t)D * H * 4);
    same_bits("same bits again: db", db[0], db[1], (size_t)n_sums * 4);
    if (timed) {
        const double flops = 2.0 * B * D * H, moved = 2.0 * B * (H + D);
        report_time("own weight gradient, column sums", time_us([&] { run(0); }), flops, moved);
        report_time("  of that without the last stage",
                    time_us([&] { launch_product<WEIGHT, CL, 4>(ma, mb, mb, mb, g, units); }),
                    flops, moved);
        if (CL == 2 && B > 8192) {
            report_time("  no products", time_us([&] {
                            launch_product<WEIGHT, CL, 4, 1>(ma, mb, mb, mb, g, units);
                        }),
                        flops, moved);
            report_time("  no loads", time_us([&] {
                            launch_product<WEIGHT, CL, 4, 2>(ma, mb, mb, mb, g, units);
                        }),
                        flops, moved);
            report_time("  nothing written", time_us([&] {
                            launch_product<WEIGHT, CL, 4, 3>(ma, mb, mb, mb, g, units);
                        }),
                        flops, moved);
        }
        waited("weight");
        blas s = of_b ? blas_of(0, 1, D, H, B, a, LD, b, LH, dw[1], D, CUDA_R_32F)
                      : blas_of(0, 1, H, D, B, b, LH, a, LD, dw[1], H, CUDA_R_32F);
        if (s.ready) {
            report_time("cuBLASLt, nothing fused", time_us([&] { s.run(); }), flops, moved);
        }
    }
    for (void *p :
         {(void *)a, (void *)b, (void *)g.partial, (void *)dw[0], (void *)dw[1], (void *)ref}) {
        OK(cudaFree(p));
    }
}

/* a (B,400), b (B,n): of_b: (a' b)' with the column sums of b, as of a head; else those of a */
static void test_narrow(int B, int n, bool of_b, bool timed)
{
    printf("weight gradient %s, 400 and %d, %d rows\n", of_b ? "n x m" : "m x n", n, B);
    fflush(stdout);
    const int ldb = (n + 15) / 16 * 16;
    bf16 *a = filled((size_t)B * H, 1, 0.01f, of_b ? 2 : 0);
    bf16 *b = filled((size_t)B * ldb, 2, 0.02f, 0);
    narrow_work g = {};
    g.stages = (B + 63) / 64;
    g.m_blocks = 7;
    g.n_blocks = (n + 7) / 8;
    g.sums_of_b = of_b;
    g.partial = device<float4>((size_t)N_UNITS * 7 * g.n_blocks * 128);
    g.sums = device<float>((size_t)N_UNITS * 448);
    g.err = err_word;
    const int n_sums = of_b ? n : H, units = std::min((int)N_UNITS, g.stages);
    const size_t ld = of_b ? H : ldb;
    float *dw[2], *db[2];
    for (int i = 0; i < 2; i++) {
        dw[i] = device<float>((size_t)64 * H);
        db[i] = device<float>(448);
    }
    const CUtensorMap ma = map_of(a, H, B, H, 64, 64), mb = map_of(b, n, B, ldb, 64, 64);
    const int bytes = N_SLOTS * N_SLOT + 1024;
    OK(cudaFuncSetAttribute(narrow_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    auto run = [&](int i) {
        narrow_kernel<<<units, 384, bytes, stream>>>(ma, mb, g);
        narrow_finish_kernel<<<7 * g.n_blocks * 4 + (n_sums + 31) / 32, 256, 0, stream>>>(
            dw[i], ld, db[i], g.partial, g.sums, units, 7, g.n_blocks, H, n, n_sums, of_b);
        OK(cudaGetLastError());
    };
    for (int i = 0; i < 2; i++) {
        OK(cudaMemsetAsync(dw[i], 0, 64 * H * 4, stream));
        run(i);
        waited("narrow");
    }
    double *ref = device<double>((size_t)n * H), *ref_sums = device<double>(n_sums);
    weight_reference<<<(n * H + 255) / 256, 256, 0, stream>>>(ref, a, H, b, ldb, H, n, B);
    sums_reference<<<(n_sums + 31) / 32, 32, 0, stream>>>(ref_sums, of_b ? b : a, of_b ? ldb : H,
                                                          n_sums, B);
    OK(cudaGetLastError());
    OK(cudaStreamSynchronize(stream));
    std::vector<double> want = host(ref, (size_t)n * H), want_sums = host(ref_sums, n_sums);
    std::vector<float> got = host(dw[0], (size_t)64 * H), sums = host(db[0], n_sums);
    double square = 0, worst = 0, worst_sum = 0, square_sum = 0;
    for (double v : want) {
        square += v * v;
    }
    for (double v : want_sums) {
        square_sum += v * v;
    }
    const double rms = sqrt(square / (double)want.size()), rms_sum = sqrt(square_sum / n_sums);
    for (size_t i = 0; i < want.size(); i++) {
        const size_t r = i / n, c = i % n;
        const double e = fabs((double)got[of_b ? c * ld + r : r * ld + c] - want[i]) / rms;
        worst = e <= worst ? worst : e;
    }
    for (int i = 0; i < n_sums; i++) {
        const double e = fabs(sums[i] - want_sums[i]) / rms_sum;
        worst_sum = e <= worst_sum ? worst_sum : e;
    }
    verdict("against plain sums", worst, 2e-3);
    verdict("column sums", worst_sum, 1e-4);
    same_bits("same bits again: dw", dw[0], dw[1], (size_t)64 * H * 4);
    same_bits("same bits again: db", db[0], db[1], (size_t)n_sums * 4);
    if (timed) {
        const double flops = 2.0 * B * n * H, moved = 2.0 * B * (H + n);
        report_time("own narrow weight gradient, column sums", time_us([&] { run(0); }), flops,
                    moved);
        report_time("  of that without the last stage",
                    time_us([&] { narrow_kernel<<<units, 384, bytes, stream>>>(ma, mb, g); }),
                    flops, moved);
        waited("narrow");
        blas s = of_b ? blas_of(0, 1, H, n, B, a, H, b, ldb, dw[1], H, CUDA_R_32F)
                      : blas_of(0, 1, (n + 7) / 8 * 8, H, B, b, ldb, a, H, dw[1], ldb, CUDA_R_32F);
        if (s.ready) {
            report_time("cuBLASLt, nothing fused", time_us([&] { s.run(); }), flops, moved);
        }
    }
    for (void *p :
         {(void *)a, (void *)b, (void *)g.partial, (void *)dw[0], (void *)dw[1], (void *)ref}) {
        OK(cudaFree(p));
    }
}

enum { TESTS = 14 };

static void run_test(int which)
{
    OK(cudaSetDevice(0));
    OK(cudaStreamCreateWithFlags(&stream, cudaStreamDefault));
    err_word = device<uint32_t>(1);
    OK(cudaMemset(err_word, 0, 4));
    for (int i = 0; i < 4; i++) {
        const int B = i == 0 ? 8192 + 64 + 5 : i == 3 ? 8192 : 65536;
        const bool timed = i > 0;
        wide_rows = i == 2;
        switch (which) {
        case 0:
            if (i == 0) {
                test_self();
            }
            break;
        case 1:
            test_rows<FORWARD, 1>(B, timed);
            break;
        case 2:
            test_rows<FORWARD, 2>(B, timed);
            break;
        case 3:
            test_loss(B, timed);
            break;
        case 4:
            test_rows<INPUT, 1>(B, timed);
            break;
        case 5:
            test_rows<INPUT, 2>(B, timed);
            break;
        case 6:
            test_weight<1>(B, false, timed);
            break;
        case 7:
            test_weight<2>(B, false, timed);
            break;
        case 8:
            test_weight<1>(B, true, timed);
            break;
        case 9:
            test_weight<2>(B, true, timed);
            break;
        case 10:
            test_rows<INPUT, 1, 40>(B, timed);
            break;
        case 11:
            test_rows<FORWARD, 1, 20>(B, timed);
            break;
        case 12:
            test_narrow(B, 20, false, timed);
            break;
        case 13:
            test_narrow(B, 40, true, timed);
            break;
        default:
            break;
        }
    }
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--only") == 0) {
        run_test(atoi(argv[2]));
        return any_failed ? 1 : 0;
    }
    for (int i = 0; i < TESTS; i++) {
        char number[16];
        snprintf(number, sizeof number, "%d", i);
        printf("---- test %d\n", i);
        fflush(stdout);
        const pid_t child = fork();
        if (child == 0) {
            alarm(30);
            execl("/proc/self/exe", argv[0], "--only", number, (char *)NULL);
            _exit(127);
        }
        int status = 0;
        waitpid(child, &status, 0);
        printf("---- test %d: %s %d\n", i, WIFEXITED(status) ? "exit" : "killed by signal",
               WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
        fflush(stdout);
    }
    return 0;
}
