/* Hopper's own instructions (sm_90a): products of a warpgroup (wgmma), copies of boxes (TMA) and
 * the barriers that count their bytes. Only for code that is compiled for sm_90a.
 *
 * Layouts in shared memory, all with the 128-byte swizzle: rows of 128 bytes, in which the 16-byte
 * piece p of row r lies at place p ^ (r % 8). TMA writes boxes of 64 bf16 (128 bytes) by some rows.
 *
 *   K-major (a row is 64 of k, for one m or n): groups of 8 rows are 1024 bytes apart, which is the
 *   descriptor's stride; its leading offset is not used. 16 of k further on: 32 bytes.
 *
 *   MN-major (a row is 64 of m or n, for one k): a box is a chunk of 64 of m or n by 64 of k, 8192
 *   bytes. 8 of k further on: 1024 bytes, the stride; next 64 of m or n: 8192 bytes, the leading
 *   offset. 16 of k further on: 2048 bytes.
 *
 * (PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions" and "Tensor copy".) */
#ifndef VAE_HOPPER_H
#define VAE_HOPPER_H

#include <cuda.h>

#include "vector.h"

/* Lists of asm operands: numbers of ten registers, and the registers themselves. */
#define TEN(t)                                                                                     \
    "%" t "0, %" t "1, %" t "2, %" t "3, %" t "4, %" t "5, %" t "6, %" t "7, %" t "8, %" t "9"
#define NINETY                                                                                     \
    TEN("")                                                                                        \
    ", " TEN("1") ", " TEN("2") ", " TEN("3") ", " TEN("4") ", " TEN("5") ", " TEN("6") ", " TEN(  \
        "7") ", " TEN("8")
#define FOUR(i)    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SIXTEEN(i) FOUR(i), FOUR(i + 4), FOUR(i + 8), FOUR(i + 12)
#define NINETY_SIX SIXTEEN(0), SIXTEEN(16), SIXTEEN(32), SIXTEEN(48), SIXTEEN(64), SIXTEEN(80)

/* d (64,N) += a (64,16) b (16,N); TA, TB: 1 = MN-major. scale 0: d is overwritten. In lane l of
 * warp w, d[4j + 2h + i] is row 16 w + l/4 + 8 h, column 8 j + 2 (l % 4) + i. */
template <int TA, int TB>
static __device__ __forceinline__ void mma(float (&d)[32], uint64_t a, uint64_t b, int scale)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" TEN("") ", " TEN(
                     "1") ", " TEN("2") ", %30, %31}, %32, %33, p, 1, 1, %35, %36;\n}\n"
                 : SIXTEEN(0), SIXTEEN(16)
                 : "l"(a), "l"(b), "r"(scale), "n"(TA), "n"(TB));
}
template <int TA, int TB>
static __device__ __forceinline__ void mma(float (&d)[96], uint64_t a, uint64_t b, int scale)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %98, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {" NINETY
                 ", %90, %91, %92, %93, %94, %95}, %96, %97, p, 1, 1, %99, %100;\n}\n"
                 : NINETY_SIX
                 : "l"(a), "l"(b), "r"(scale), "n"(TA), "n"(TB));
}
template <int TA, int TB>
static __device__ __forceinline__ void mma(float (&d)[100], uint64_t a, uint64_t b, int scale)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %102, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n200k16.f32.bf16.bf16 {" NINETY
                 ", " TEN("9") "}, %100, %101, p, 1, 1, %103, %104;\n}\n"
                 : NINETY_SIX, FOUR(96)
                 : "l"(a), "l"(b), "r"(scale), "n"(TA), "n"(TB));
}
template <int TA, int TB>
static __device__ __forceinline__ void mma(float (&d)[104], uint64_t a, uint64_t b, int scale)
{
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %106, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n208k16.f32.bf16.bf16 {" NINETY
                 ", " TEN("9") ", %100, %101, %102, %103}, %104, %105, p, 1, 1, %107, %108;\n}\n"
                 : NINETY_SIX, FOUR(96), FOUR(100)
                 : "l"(a), "l"(b), "r"(scale), "n"(TA), "n"(TB));
}
#undef TEN
#undef NINETY
#undef FOUR
#undef SIXTEEN
#undef NINETY_SIX

/* The compiler may not move d's registers across this: products under way write them. */
template <int N> static __device__ __forceinline__ void hold(float (&d)[N])
{
    VAE_UNROLL
    for (int i = 0; i < N; i++) {
        asm volatile("" : "+f"(d[i])::"memory");
    }
}
static __device__ __forceinline__ void mma_begin(void)
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
static __device__ __forceinline__ void mma_commit(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/* Until at most LEFT of the committed groups are under way. */
template <int LEFT> static __device__ __forceinline__ void mma_wait(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}
static __device__ __forceinline__ uint64_t descriptor(uint32_t at, uint32_t leading)
{
    return (uint64_t)((at & 0x3FFFF) >> 4) | (uint64_t)(leading >> 4) << 16 |
           (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

static __device__ __forceinline__ uint32_t shared_at(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* ---- barriers in shared memory: a phase ends with `count` arrivals and all expected bytes ---- */

static __device__ __forceinline__ void bar_init(uint32_t bar, uint32_t count)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}
/* After the inits: TMA and the other block of a cluster see them. */
static __device__ __forceinline__ void bar_init_done(void)
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
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
/* n arrivals at the same barrier of block `rank` of the cluster. Without .release.cluster, which
 * would wait for everything that the thread ever wrote: what these barriers tell is that slots have
 * been read. */
static __device__ __forceinline__ void bar_arrive_at(uint32_t bar, int rank, uint32_t n)
{
    asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there], %2;\n}\n" ::"r"(bar),
                 "r"(rank), "r"(n)
                 : "memory");
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
/* A mistake is an error after some seconds, not a device that hangs. */
static __device__ __forceinline__ void bar_wait(uint32_t bar, uint32_t parity)
{
    const long long from = clock64();
    while (!bar_try(bar, parity)) {
        if (clock64() - from > 20000000000ll) {
            __trap();
        }
    }
}

/* ---- TMA ---- */

static __device__ __forceinline__ void tma_load(uint32_t to, const CUtensorMap *map, int x, int y,
                                                uint32_t bar)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3}], [%4];" ::"r"(to),
                 "l"(map), "r"(x), "r"(y), "r"(bar)
                 : "memory");
}
/* To the same place in both blocks of a cluster, and their barriers. */
static __device__ __forceinline__ void tma_load_both(uint32_t to, const CUtensorMap *map, int x,
                                                     int y, uint32_t bar)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
                 "l"(map), "r"(x), "r"(y), "r"(bar), "h"((uint16_t)3)
                 : "memory");
}
/* What was written to shared memory before is seen by a tma_store after. */
static __device__ __forceinline__ void tma_fence(void)
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
static __device__ __forceinline__ void tma_store(const CUtensorMap *map, int x, int y,
                                                 uint32_t from)
{
    asm volatile(
        "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(map),
        "r"(x), "r"(y), "r"(from)
        : "memory");
}
/* Until the thread's stores have read what they store. */
static __device__ __forceinline__ void tma_store_wait(void)
{
    asm volatile("cp.async.bulk.commit_group;\ncp.async.bulk.wait_group.read 0;" ::: "memory");
}
static __device__ __forceinline__ int cluster_rank(void)
{
    uint32_t rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return (int)rank;
}
static __device__ __forceinline__ void cluster_sync(void)
{
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;"
                 :
                 :
                 : "memory");
}

/* A warpgroup's registers per thread, from here on. */
template <int N> static __device__ __forceinline__ void more_registers(void)
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> static __device__ __forceinline__ void fewer_registers(void)
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

#endif
