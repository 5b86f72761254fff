/* Cases about kernels: planted bugs, and what right kernels may count on. */
#include "test_simt.h"

#include <type_traits>

enum { BLOCK = 256 };

static float index_value(size_t i)
{
    return (float)i;
}
static float one(size_t)
{
    return 1.0f;
}

static __device__ float warp_sum(float v)
{
    for (int o = 16; o > 0; o >>= 1) {
        v += __shfl_xor_sync(0xFFFFFFFFu, v, o);
    }
    return v;
}

static __device__ float block_sum(float v)
{
    __shared__ float part[32];
    v = warp_sum(v);
    if (threadIdx.x % 32 == 0) {
        part[threadIdx.x / 32] = v;
    }
    __syncthreads();
    v = threadIdx.x % 32 < blockDim.x / 32 ? part[threadIdx.x % 32] : 0.0f;
    return warp_sum(v);
}

__global__ void sum_kernel(float *out, const float *in, int n)
{
    float v = 0;
    for (int i = (int)(blockIdx.x * blockDim.x + threadIdx.x); i < n;
         i += (int)(gridDim.x * blockDim.x)) {
        v += in[i];
    }
    v = block_sum(v);
    if (threadIdx.x == 0) {
        out[blockIdx.x] = v;
    }
}

CASE(sum_in_every_order, nullptr, ALWAYS)
{
    const int n = 10007;
    float *in = device_floats(n, index_value), *out = device_floats(8), first[8], got[8];
    for (int order = SIMT_FORWARD; order <= SIMT_SHUFFLED; order++) {
        for (unsigned seed = 1; seed <= 3; seed++) {
            simt_set_order((simt_order)order, seed);
            SIMT_LAUNCH(sum_kernel, 8, BLOCK, 0, nullptr, out, in, n);
            LAUNCH_OK();
            read_back(got, out, 8);
            if (order == SIMT_FORWARD) {
                memcpy(first, got, sizeof first);
            }
            CHECK(memcmp(first, got, sizeof first) == 0);
        }
    }
    double sum = 0;
    for (int i = 0; i < 8; i++) {
        sum += (double)got[i];
    }
    CHECK(fabs(sum / (0.5 * n * (n - 1)) - 1) < 1e-6);
    CHECK(simt_count("sum_kernel") == 9 && simt_count("cudaMalloc") == 2);
}

/* ---- barriers ---- */

template <bool BARRIER> __global__ void rotate_kernel(float *out, const float *in)
{
    SIMT_DYNAMIC_SHARED(float, s);
    s[threadIdx.x] = in[threadIdx.x];
    if (BARRIER) {
        __syncthreads();
    }
    out[threadIdx.x] = s[(threadIdx.x + BLOCK - 1) % BLOCK];
}

static int wrong_after_rotation(bool barrier, simt_order order)
{
    float *in = device_floats(BLOCK, index_value), *out = device_floats(BLOCK), got[BLOCK];
    simt_set_order(order, 5);
    if (barrier) {
        SIMT_LAUNCH(rotate_kernel<true>, 1, BLOCK, BLOCK * sizeof(float), nullptr, out, in);
    } else {
        SIMT_LAUNCH(rotate_kernel<false>, 1, BLOCK, BLOCK * sizeof(float), nullptr, out, in);
    }
    LAUNCH_OK();
    read_back(got, out, BLOCK);
    int wrong = 0;
    for (int i = 0; i < BLOCK; i++) {
        wrong += !(got[i] == (float)((i + BLOCK - 1) % BLOCK));
    }
    return wrong;
}

CASE(barrier_present, nullptr, ALWAYS)
{
    CHECK(wrong_after_rotation(true, SIMT_FORWARD) == 0);
    CHECK(wrong_after_rotation(true, SIMT_REVERSE) == 0);
    CHECK(wrong_after_rotation(true, SIMT_SHUFFLED) == 0);
}
CASE(barrier_missing_gives_wrong_numbers, nullptr, !WITH_TSAN)
{
    CHECK(wrong_after_rotation(false, SIMT_FORWARD) > 0);
    CHECK(wrong_after_rotation(false, SIMT_REVERSE) > 100);
    CHECK(wrong_after_rotation(false, SIMT_SHUFFLED) > 50);
}
CASE(barrier_missing_is_a_race, "data race", WITH_TSAN)
{
    wrong_after_rotation(false, SIMT_FORWARD);
}

__global__ void divergent_kernel(float *out)
{
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    out[threadIdx.x] = 1;
}
CASE(barrier_divergent, "divergent barrier: threads wait at different ones", ALWAYS)
{
    SIMT_LAUNCH(divergent_kernel, 1, 64, 0, nullptr, device_floats(64));
    OK(cudaDeviceSynchronize());
}

__global__ void exit_before_barrier_kernel(float *out, int n)
{
    if ((int)threadIdx.x >= n) {
        return;
    }
    __syncthreads();
    out[threadIdx.x] = 1;
}
CASE(barrier_after_exit, "divergent barrier: some threads", ALWAYS)
{
    SIMT_LAUNCH(exit_before_barrier_kernel, 1, 64, 0, nullptr, device_floats(64), 50);
    OK(cudaDeviceSynchronize());
}
CASE(barrier_after_exit_reversed, "divergent barrier: some threads", ALWAYS)
{
    simt_set_order(SIMT_REVERSE, 1);
    SIMT_LAUNCH(exit_before_barrier_kernel, 1, 64, 0, nullptr, device_floats(64), 50);
    OK(cudaDeviceSynchronize());
}

/* ---- warps ---- */

__global__ void early_return_kernel(float *out, const float *in, int n)
{
    if ((int)threadIdx.x >= n) {
        return;
    }
    *out = warp_sum(in[threadIdx.x]);
}
CASE(shuffle_after_early_return, "exited", ALWAYS)
{
    SIMT_LAUNCH(early_return_kernel, 1, 32, 0, nullptr, device_floats(1), device_floats(32, one),
                20);
    OK(cudaDeviceSynchronize());
}
CASE(shuffle_in_a_partial_warp, "lanes that do not exist", ALWAYS)
{
    SIMT_LAUNCH(early_return_kernel, 1, 20, 0, nullptr, device_floats(1), device_floats(32, one),
                20);
    OK(cudaDeviceSynchronize());
}

__global__ void half_mask_kernel(float *out, unsigned mask)
{
    if (threadIdx.x < 16) {
        out[threadIdx.x] = __shfl_xor_sync(mask, 1.0f, 16);
    }
}
CASE(shuffle_from_outside_the_mask, "not in its mask", ALWAYS)
{
    SIMT_LAUNCH(half_mask_kernel, 1, 32, 0, nullptr, device_floats(32), 0xFFFFu);
    OK(cudaDeviceSynchronize());
}
CASE(shuffle_by_half_a_warp, "has exited", ALWAYS)
{
    simt_set_order(SIMT_FORWARD, 1);
    SIMT_LAUNCH(half_mask_kernel, 1, 32, 0, nullptr, device_floats(32), 0xFFFFFFFFu);
    OK(cudaDeviceSynchronize());
}

__global__ void crossed_kernel(int *out)
{
    if (threadIdx.x % 2) {
        out[threadIdx.x] = __any_sync(0xFFFFFFFFu, 1);
    } else {
        out[threadIdx.x] = __all_sync(0xFFFFFFFFu, 1);
    }
}
CASE(warp_operations_crossed, "deadlock", ALWAYS)
{
    SIMT_LAUNCH(crossed_kernel, 1, 32, 0, nullptr, (int *)device_floats(32));
    OK(cudaDeviceSynchronize());
}

__global__ void warp_kernel(int *wrong)
{
    const unsigned all = 0xFFFFFFFFu;
    const int lane =
        (int)((threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x) % 32;
    const int v = lane * 3;
    int bad = 0;
    bad += __shfl_sync(all, v, 5) != 15;
    bad += __shfl_sync(all, v, 1, 8) != (lane / 8 * 8 + 1) * 3;
    bad += __shfl_up_sync(all, v, 2) != (lane < 2 ? lane : lane - 2) * 3;
    bad += __shfl_down_sync(all, v, 3, 16) != (lane % 16 + 3 < 16 ? lane + 3 : lane) * 3;
    bad += __shfl_xor_sync(all, (double)v, 1) != (double)((lane ^ 1) * 3);
    bad += __ballot_sync(all, lane % 2) != 0xAAAAAAAAu;
    bad += !__any_sync(all, lane == 7) || __any_sync(all, 0);
    bad += !__all_sync(all, 1) || __all_sync(all, lane != 7);
    bad += __reduce_add_sync(all, lane) != 496 || __reduce_max_sync(all, -lane) != 0;
    bad += __reduce_min_sync(all, (unsigned)lane + 4u) != 4u;
    bad += __match_any_sync(all, lane / 4) != 0xFu << (lane / 4 * 4);
    bad += __syncthreads_count(lane < 4) != 8 || __syncthreads_or(0) || !__syncthreads_and(1);
    const unsigned half = lane < 16 ? 0xFFFFu : 0xFFFF0000u;
    bad += __shfl_xor_sync(half, lane, 1) != (lane ^ 1);
    atomicAdd(wrong, bad);
}
CASE(warp_operations, nullptr, ALWAYS)
{
    int *dev = (int *)device_floats(1), wrong = -1;
    for (int order = SIMT_FORWARD; order <= SIMT_SHUFFLED; order++) {
        simt_set_order((simt_order)order, 3);
        OK(cudaMemset(dev, 0, sizeof *dev));
        SIMT_LAUNCH(warp_kernel, 3, dim3(16, 2, 2), 0, nullptr, dev);
        SIMT_LAUNCH(warp_kernel, 3, 64, 0, nullptr, dev);
        LAUNCH_OK();
        read_back((float *)(void *)&wrong, (float *)(void *)dev, 1);
        CHECK(wrong == 0);
    }
}

template <bool SYNC> __global__ void lane_message_kernel(float *out)
{
    __shared__ float box[32];
    box[threadIdx.x] = (float)threadIdx.x;
    if (SYNC) {
        __syncwarp();
    } else {
        __shfl_xor_sync(0xFFFFFFFFu, 0, 1); /* meets the others, but orders no memory */
    }
    out[threadIdx.x] = box[threadIdx.x ^ 1];
}
CASE(syncwarp_present, nullptr, ALWAYS)
{
    SIMT_LAUNCH(lane_message_kernel<true>, 1, 32, 0, nullptr, device_floats(32));
    OK(cudaDeviceSynchronize());
}
CASE(syncwarp_missing, "data race", WITH_TSAN)
{
    SIMT_LAUNCH(lane_message_kernel<false>, 1, 32, 0, nullptr, device_floats(32));
    OK(cudaDeviceSynchronize());
}

/* ---- blocks ---- */

__global__ void neighbour_kernel(float *y)
{
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i + 1] = y[i] + 1.0f;
}
CASE(race_between_blocks, "data race", WITH_TSAN)
{
    SIMT_LAUNCH(neighbour_kernel, 2, 1, 0, nullptr, device_floats(BLOCK + 1, one));
    OK(cudaDeviceSynchronize());
}

template <bool FENCE> __global__ void last_block_kernel(float *out, float *part, unsigned *ticket)
{
    __shared__ bool last;
    if (threadIdx.x == 0) {
        part[blockIdx.x] = (float)blockIdx.x;
        if (FENCE) {
            __threadfence();
        }
        last = atomicAdd(ticket, 1u) == gridDim.x - 1;
        if (FENCE) {
            __threadfence();
        }
    }
    __syncthreads();
    if (last && threadIdx.x == 0) {
        float sum = 0;
        for (unsigned i = 0; i < gridDim.x; i++) {
            sum += part[i];
        }
        *out = sum;
        *ticket = 0;
    }
}
CASE(last_block_with_fence, nullptr, ALWAYS)
{
    float *out = device_floats(1), got;
    unsigned *ticket = (unsigned *)device_floats(1);
    OK(cudaMemset(ticket, 0, sizeof *ticket));
    for (int i = 0; i < 3; i++) {
        SIMT_LAUNCH(last_block_kernel<true>, 10, 64, 0, nullptr, out, device_floats(10), ticket);
        read_back(&got, out, 1);
        CHECK(got == 45.0f);
    }
}
CASE(last_block_without_fence, "data race", WITH_TSAN)
{
    unsigned *ticket = (unsigned *)device_floats(1);
    OK(cudaMemset(ticket, 0, sizeof *ticket));
    SIMT_LAUNCH(last_block_kernel<false>, 10, 64, 0, nullptr, device_floats(1), device_floats(10),
                ticket);
    OK(cudaDeviceSynchronize());
}

/* ---- cooperative grids ---- */

enum { RESIDENT = 4, ROUNDS = 5 };

/* Every block adds what its neighbour had, ROUNDS times, through y and through shared memory that
 * lives from barrier to barrier. */
__global__ void neighbours_kernel(float *y, float *sums, bool barrier)
{
    __shared__ float fixed[64];
    SIMT_DYNAMIC_SHARED(float, dynamic);
    const unsigned b = blockIdx.x, t = threadIdx.x;
    fixed[t] = dynamic[t] = 0;
    for (int round = 0; round < ROUNDS; round++) {
        y[((unsigned)round % 2 * gridDim.x + b) * 64 + t] = (float)(b * 64 + t) * (float)round;
        if (barrier) {
            simt_grid_sync();
        }
        const unsigned from = (b + 1) % gridDim.x;
        const float got = y[((unsigned)round % 2 * gridDim.x + from) * 64 + t];
        fixed[t] += got;
        dynamic[t] -= got;
    }
    __syncthreads();
    sums[b * 64 + t] = fixed[63 - t] - dynamic[63 - t];
}

static int wrong_neighbours(bool barrier, simt_order order)
{
    float *y = device_floats(2 * RESIDENT * 64), *sums = device_floats(RESIDENT * 64);
    float got[RESIDENT * 64];
    simt_set_order(order, 5);
    SIMT_LAUNCH_COOPERATIVE(neighbours_kernel, RESIDENT, 64, 256, nullptr, y, sums, barrier);
    LAUNCH_OK();
    read_back(got, sums, RESIDENT * 64);
    int wrong = 0;
    for (int i = 0; i < RESIDENT * 64; i++) {
        const int from = (i / 64 + 1) % RESIDENT * 64 + 63 - i % 64;
        wrong += !(got[i] == (float)(2 * from * (ROUNDS * (ROUNDS - 1) / 2)));
    }
    return wrong;
}
CASE(grid_barrier_present, nullptr, ALWAYS)
{
    for (int order = SIMT_FORWARD; order <= SIMT_SHUFFLED; order++) {
        CHECK(wrong_neighbours(true, (simt_order)order) == 0);
        CHECK(wrong_after_rotation(true, (simt_order)order) == 0); /* ordinary launches go on */
    }
}
CASE(grid_barrier_missing_gives_wrong_numbers, nullptr, !WITH_TSAN)
{
    CHECK(wrong_neighbours(false, SIMT_FORWARD) > 100);
    CHECK(wrong_neighbours(false, SIMT_REVERSE) > 0);
    CHECK(wrong_neighbours(false, SIMT_SHUFFLED) > 0);
}
CASE(grid_barrier_missing_is_a_race, "data race", WITH_TSAN)
{
    wrong_neighbours(false, SIMT_FORWARD);
}

/* Block `writer` writes between the second barrier and the third, the others read there. */
__global__ void between_barriers_kernel(float *y, unsigned writer)
{
    float v = 0;
    for (int round = 0; round < 4; round++) {
        simt_grid_sync();
        if (round == 1 && blockIdx.x == writer) {
            y[threadIdx.x] = 1;
        } else if (round == 1) {
            v = y[threadIdx.x];
        }
    }
    y[(1 + blockIdx.x) * 32 + threadIdx.x] = v;
}
CASE(race_between_grid_barriers, "data race", WITH_TSAN)
{
    SIMT_LAUNCH_COOPERATIVE(between_barriers_kernel, 3, 32, 0, nullptr, device_floats(128, one), 0);
    OK(cudaDeviceSynchronize());
}
CASE(race_between_grid_barriers_by_the_last_block, "data race", WITH_TSAN)
{
    SIMT_LAUNCH_COOPERATIVE(between_barriers_kernel, 3, 32, 0, nullptr, device_floats(128, one), 2);
    OK(cudaDeviceSynchronize());
}

__global__ void stray_kernel(unsigned block, unsigned thread)
{
    if (blockIdx.x == block && (thread > 64 || threadIdx.x == thread)) {
        return;
    }
    simt_grid_sync();
}
CASE(grid_barrier_a_block_does_not_come_to, "the grid's barrier: other blocks have ended", ALWAYS)
{
    SIMT_LAUNCH_COOPERATIVE(stray_kernel, 3, 64, 0, nullptr, 0, 100);
    OK(cudaDeviceSynchronize());
}
CASE(grid_barrier_the_last_block_does_not_come_to, "the grid's barrier: a block ends", ALWAYS)
{
    SIMT_LAUNCH_COOPERATIVE(stray_kernel, 3, 64, 0, nullptr, 2, 100);
    OK(cudaDeviceSynchronize());
}
CASE(grid_barrier_a_thread_does_not_come_to, "the grid's barrier: ", ALWAYS)
{
    SIMT_LAUNCH_COOPERATIVE(stray_kernel, 3, 64, 0, nullptr, 1, 63);
    OK(cudaDeviceSynchronize());
}
CASE(grid_barrier_without_a_cooperative_launch, "not cooperative", ALWAYS)
{
    SIMT_LAUNCH(stray_kernel, 1, 64, 0, nullptr, 1, 1);
    OK(cudaDeviceSynchronize());
}

__global__ void half_at_the_grid_kernel(float *y)
{
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        simt_grid_sync();
    }
    y[threadIdx.x] = 1;
}
CASE(grid_barrier_and_blocks_barrier, "the grid's barrier", ALWAYS)
{
    SIMT_LAUNCH_COOPERATIVE(half_at_the_grid_kernel, 2, 64, 0, nullptr, device_floats(64));
    OK(cudaDeviceSynchronize());
}
CASE(cooperative_grid_too_large, nullptr, ALWAYS)
{
    int blocks = 0, multiprocessors = 0;
    OK(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0));
    OK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, stray_kernel, 1024, 0));
    SIMT_LAUNCH_COOPERATIVE(stray_kernel, blocks * multiprocessors, 1024, 0, nullptr, 99, 0);
    LAUNCH_OK();
    SIMT_LAUNCH_COOPERATIVE(stray_kernel, blocks * multiprocessors + 1, 1024, 0, nullptr, 99, 0);
    IS(cudaGetLastError(), cudaErrorCooperativeLaunchTooLarge);
    OK(cudaFuncSetAttribute(stray_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 200 << 10));
    OK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, stray_kernel, 64, 200 << 10));
    CHECK(blocks == 1); /* shared memory has room for one */
    SIMT_LAUNCH_COOPERATIVE(stray_kernel, multiprocessors + 1, 64, 200 << 10, nullptr, 99, 0);
    IS(cudaGetLastError(), cudaErrorCooperativeLaunchTooLarge);
    OK(cudaDeviceSynchronize());
}

/* ---- matrix products of a warp ---- */

/* d (16,8) += a (16,K) b (K,8), the fragments filled as PTX's tables say. */
__global__ void mma_kernel(float *d, const float *a, const float *b, bool bf16, bool all)
{
    const unsigned lane = threadIdx.x, g = lane / 4, t = lane % 4, K = bf16 ? 16 : 8;
    uint32_t wa[4], wb[2];
    float c[4];
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row = g + i % 2 * 8, k = (bf16 ? 2 * t : t) + i / 2 * (K / 2);
        const float *p = a + row * K + k, *q = b + k * 8 + g;
        wa[i] = __float_as_uint(p[0]);
        wb[i / 2] = __float_as_uint(q[0]);
        if (bf16) {
            wa[i] = wa[i] >> 16 | (__float_as_uint(p[1]) & 0xFFFF0000u);
            wb[i / 2] = wb[i / 2] >> 16 | (__float_as_uint(q[8]) & 0xFFFF0000u);
        }
        c[i] = d[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
    }
    if (!all && lane == 7) {
        return;
    }
    simt_mma(bf16 ? SIMT_OP_MMA_BF16 : SIMT_OP_MMA_TF32, c, wa, wb);
    for (unsigned i = 0; i < 4; i++) {
        d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = c[i];
    }
}
static float scattered(size_t i)
{
    return (float)((i * 2654435761u >> 8) % 2001) / 1000.0f - 1.0f;
}
static float kept(float v, bool bf16)
{
    return __uint_as_float(__float_as_uint(v) & (bf16 ? 0xFFFF0000u : 0xFFFFE000u));
}
CASE(mma_of_both_types, nullptr, ALWAYS)
{
    for (int bf16 = 0; bf16 < 2; bf16++) {
        const unsigned K = bf16 ? 16 : 8;
        float *d = device_floats(128, index_value), got[128];
        simt_set_order(bf16 ? SIMT_REVERSE : SIMT_SHUFFLED, 4);
        SIMT_LAUNCH(mma_kernel, 1, 32, 0, nullptr, d, device_floats(256, scattered),
                    device_floats(128, scattered), bf16 != 0, true);
        read_back(got, d, 128);
        for (unsigned i = 0; i < 128; i++) {
            double want = i;
            for (unsigned k = 0; k < K; k++) {
                want += (double)kept(scattered(i / 8 * K + k), bf16) *
                        (double)kept(scattered(k * 8 + i % 8), bf16);
            }
            CHECK(fabs((double)got[i] - want) < 1e-4);
        }
    }
}
CASE(mma_without_a_lane, "exited", ALWAYS)
{
    SIMT_LAUNCH(mma_kernel, 1, 32, 0, nullptr, device_floats(128, one), device_floats(256, one),
                device_floats(128, one), false, false);
    OK(cudaDeviceSynchronize());
}

/* ---- memory ---- */

__global__ void fill_kernel(float *y, int n)
{
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i <= n) { /* one too many */
        y[i] = 0;
    }
}
CASE(off_by_one, "heap-buffer-overflow", WITH_ASAN)
{
    SIMT_LAUNCH(fill_kernel, 2, BLOCK, 0, nullptr, device_floats(300), 300);
    OK(cudaDeviceSynchronize());
}
CASE(off_by_one_by_guards, "out-of-bounds write", !WITH_ASAN)
{
    SIMT_LAUNCH(fill_kernel, 2, BLOCK, 0, nullptr, device_floats(300), 300);
    OK(cudaDeviceSynchronize());
}

__global__ void shared_kernel(float *out, int at)
{
    __shared__ float s[32];
    s[threadIdx.x] = 1;
    out[threadIdx.x] = s[at];
}
CASE(shared_out_of_bounds, "out of bounds", WITH_ASAN)
{
    SIMT_LAUNCH(shared_kernel, 1, 1, 0, nullptr, device_floats(32), 32);
    OK(cudaDeviceSynchronize());
}
CASE(shared_dynamic_out_of_bounds, "use-after-poison", WITH_ASAN)
{
    SIMT_LAUNCH(rotate_kernel<true>, 1, BLOCK, (BLOCK - 8) * sizeof(float), nullptr,
                device_floats(BLOCK), device_floats(BLOCK));
    OK(cudaDeviceSynchronize());
}
CASE(shared_not_set, nullptr, !WITH_TSAN)
{
    float *out = device_floats(1), got = 0;
    for (int i = 0; i < 2; i++) { /* also where the block before has set it */
        SIMT_LAUNCH(shared_kernel, 2, 1, 0, nullptr, out, i == 0 ? 0 : 3);
        read_back(&got, out, 1);
        CHECK(i == 0 ? got == 1.0f : isnan(got));
    }
}
CASE(device_memory_not_set, nullptr, ALWAYS)
{
    float got = 0;
    read_back(&got, device_floats(1), 1);
    CHECK(isnan(got));
}

__global__ void vector_kernel(float *out, const float *in, int at)
{
    const float4 v = *(const float4 *)(in + at);
    *out = v.x + v.y + v.z + v.w;
}
__global__ void ldg_kernel(float *out, const float *in, int at)
{
    const float4 v = __ldg((const float4 *)(in + at));
    *out = v.x + v.w;
}
CASE(vector_load_aligned, nullptr, ALWAYS)
{
    float *out = device_floats(1), got;
    SIMT_LAUNCH(vector_kernel, 1, 1, 0, nullptr, out, device_floats(16, one), 4);
    SIMT_LAUNCH(ldg_kernel, 1, 1, 0, nullptr, out, device_floats(16, one), 4);
    read_back(&got, out, 1);
    CHECK(got == 2.0f);
}
#ifdef __clang__
enum {
    CHECKS_STRUCTS = 0
}; /* clang's UBSan does not look at copies of whole structs, gcc's does */
#else
enum { CHECKS_STRUCTS = WITH_ASAN };
#endif
CASE(vector_load_misaligned, "misaligned", CHECKS_STRUCTS)
{
    SIMT_LAUNCH(vector_kernel, 1, 1, 0, nullptr, device_floats(1), device_floats(16, one), 1);
    OK(cudaDeviceSynchronize());
}
CASE(vector_ldg_misaligned, "misaligned vector access", ALWAYS)
{
    SIMT_LAUNCH(ldg_kernel, 1, 1, 0, nullptr, device_floats(1), device_floats(16, one), 2);
    OK(cudaDeviceSynchronize());
}

struct arguments {
    int n, rows;
    float *y;
};
__global__ void struct_kernel(arguments a)
{
    a.y[0] = (float)(a.n + a.rows);
}
CASE(struct_argument, nullptr, ALWAYS)
{
    float got, *y = device_floats(1);
    SIMT_LAUNCH(struct_kernel, 1, 1, 0, nullptr, arguments{784, 24000, y});
    read_back(&got, y, 1);
    CHECK(got == 24784.0f);
}
CASE(host_pointer_in_a_struct, "host (or freed) pointer", ALWAYS)
{
    float *y = (float *)malloc(64);
    SIMT_LAUNCH(struct_kernel, 1, 1, 0, nullptr, arguments{784, 24000, y});
    OK(cudaDeviceSynchronize());
}
CASE(host_pointer_to_kernel, "host (or freed) pointer", ALWAYS)
{
    float y[4];
    SIMT_LAUNCH(fill_kernel, 1, 1, 0, nullptr, y, 2);
    OK(cudaDeviceSynchronize());
}
CASE(pinned_pointer_to_kernel, "pinned host pointer", ALWAYS)
{
    SIMT_LAUNCH(fill_kernel, 1, 1, 0, nullptr, pinned_floats(4), 2);
    OK(cudaDeviceSynchronize());
}
CASE(freed_pointer_to_kernel, "host (or freed) pointer", ALWAYS)
{
    float *y = device_floats(4);
    OK(cudaFree(y));
    SIMT_LAUNCH(fill_kernel, 1, 1, 0, nullptr, y, 2);
    OK(cudaDeviceSynchronize());
}

/* ---- limits ---- */

CASE(launch_limits, nullptr, ALWAYS)
{
    float *y = device_floats(2048);
    SIMT_LAUNCH(fill_kernel, 1, 1025, 0, nullptr, y, 1);
    IS(cudaGetLastError(), cudaErrorInvalidConfiguration);
    SIMT_LAUNCH(fill_kernel, 0, 1, 0, nullptr, y, 1);
    IS(cudaPeekAtLastError(), cudaErrorInvalidConfiguration);
    IS(cudaGetLastError(), cudaErrorInvalidConfiguration);
    IS(cudaGetLastError(), cudaSuccess);
    SIMT_LAUNCH(fill_kernel, dim3(1, 65536), 1, 0, nullptr, y, 1);
    IS(cudaGetLastError(), cudaErrorInvalidConfiguration);
    SIMT_LAUNCH(fill_kernel, 1, 1, 48 * 1024 + 1, nullptr, y, 1);
    IS(cudaGetLastError(), cudaErrorInvalidValue);
    OK(cudaFuncSetAttribute(fill_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 227 * 1024));
    SIMT_LAUNCH(fill_kernel, 1, 1, 227 * 1024, nullptr, y, 1);
    LAUNCH_OK();
    IS(cudaFuncSetAttribute(fill_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 228 * 1024),
       cudaErrorInvalidValue);
    OK(cudaDeviceSynchronize());
}

template <typename T, typename = void> struct has_atomic_add : std::false_type {
};
template <typename T>
struct has_atomic_add<T, std::void_t<decltype(atomicAdd((T *)nullptr, T()))>> : std::true_type {
};
static_assert(has_atomic_add<int>::value && has_atomic_add<unsigned long long>::value, "");
static_assert(!has_atomic_add<float>::value && !has_atomic_add<double>::value, "no float atomics");

CASE(bf16_rounds_to_nearest_even, nullptr, ALWAYS)
{
    CHECK(__bfloat16_as_ushort(__float2bfloat16_rn(1.0f)) == 0x3F80);
    CHECK(__bfloat16_as_ushort(__float2bfloat16_rn(__uint_as_float(0x3F808000u))) == 0x3F80);
    CHECK(__bfloat16_as_ushort(__float2bfloat16_rn(__uint_as_float(0x3F818000u))) == 0x3F82);
    CHECK(__bfloat16_as_ushort(__float2bfloat16_rn(__uint_as_float(0x3F808001u))) == 0x3F81);
    CHECK(__bfloat16_as_ushort(__float2bfloat16_rn(NAN)) == 0x7FFF);
    CHECK(isinf(__bfloat162float(__float2bfloat16_rn(3.4e38f))));
    CHECK(isnan(__bfloat162float(__ushort_as_bfloat16(0xFFFF))));
}
