/* Hopper's product of the last layer, which goes into the Bernoulli loss at once. */
#include "hopper_tiles.h"

#ifdef __CUDACC__
/* A block keeps 208 rows of the weights in shared memory and sweeps tiles of 64 rows of h; its two
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
#else

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

extern "C" int vae_hopper_loss_fits(size_t rows, size_t in, size_t D, vae_recon recon)
{
    const size_t tiles = ceil_div(D, L_COLS);
    return recon.likelihood == VAE_BERNOULLI && D % 8 == 0 && in > 256 && in <= L_CHUNKS * 64 &&
           tiles <= 4 && D * 10 > tiles * L_COLS * 9 &&
           D % L_COLS % 32 == 0 && /* a tile ends with whole groups */
           rows * tiles * sizeof(float) <= VAE_HOPPER_SCRATCH;
}
