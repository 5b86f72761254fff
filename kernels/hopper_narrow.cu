/* Hopper's products with a narrow side: rows of up to 48 columns, and weights up to 64 wide. */
#include "hopper_tiles.h"

#ifdef __CUDACC__
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
enum { F_ROWS = 32, F_STEPS = NARROW_K / 16 };

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

/* ---- launchers ---- */

template <int KIND>
static cudaError_t launch_rows(vae_mat y, vae_mat x, const void *w, size_t ldw, const float *b,
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

cudaError_t vae_hopper_narrow_weight(float *dw, size_t ldw, float *db, vae_mat a, vae_mat b,
                                     void *partial, size_t rows, size_t m, size_t n, bool sums_of_b,
                                     cudaStream_t stream)
{
    const size_t stages = ceil_div(rows, 32), units = least_of(stages, N_UNITS);
    const size_t blocks = ceil_div(n, 8), sums = db != NULL ? ceil_div(sums_of_b ? n : m, 32) : 0;
    CUtensorMap map_a, map_b;
    TRY_CUDA(map_of(&map_a, a.data, m, rows, a.ld, 32));
    TRY_CUDA(map_of(&map_b, b.data, n, rows, b.ld, 32));
    weight_parts g = parts_of(partial, units * N_CHUNKS * blocks * 128, m, n, sums_of_b);
    g.splits[0] = (int)units;
    TRY_CUDA(launch(narrow_kernel, units, N_SLOTS * N_SLOT + 1024, stream, map_a, map_b, g,
                    (int)stages));
    VAE_LAUNCH(narrow_finish_kernel, (unsigned)(ceil_div(m, 64) * blocks * 4 + sums), VAE_BLOCK, 0,
               stream, dw, ldw, db, g);
    return cudaGetLastError();
}

cudaError_t vae_hopper_narrow_rows(vae_mat y, vae_mat x, const void *w, size_t ldw, const float *b,
                                   vae_mat sign, size_t rows, size_t k, size_t cols, float least,
                                   cudaStream_t stream)
{
    return sign.data == NULL
               ? launch_rows<FORWARD>(y, x, w, ldw, b, sign, rows, k, cols, least, stream)
               : launch_rows<INPUT>(y, x, w, ldw, b, sign, rows, k, cols, least, stream);
}
#endif
