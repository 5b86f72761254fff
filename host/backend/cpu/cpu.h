/* What the files of the CPU backend share. */
#ifndef VAE_BACKEND_CPU_H
#define VAE_BACKEND_CPU_H

#include "backend.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/matmul.h"
#include "base/pool.h"
#include "base/team_size.h"
#include "dataset/dataset.h"

enum {
    PARALLEL_FLOATS = 1 << 13, /* less work than this is not worth waking threads for */
    PART_FLOATS = 1 << 12,     /* what a thread takes at a time: some microseconds */
    SUM_BLOCK = 1 << 14,       /* floats of one partial sum of the gradient's norm */
    MOST_WEIGHTS = 64,         /* whose places among the parameters are known */
    COLUMN_BLOCK = 64,         /* columns that a task over columns takes, column_sums' most */
    ROW_PIECE = 1024, /* values of a row of bf16 that are floats at a time; a multiple of 8 */
};

/* A weight among the parameters: floats first .. first+n-1. */
typedef struct {
    size_t first, n;
} vae_cpu_weight;

/* The bf16 twin of n parameters from `base` on, where products read weights. */
typedef struct {
    const float *base;
    size_t n;
    uint16_t *twin;
} vae_cpu_shadow;

typedef struct {
    vae_backend base;
    bool bf16; /* the activation type is bf16, else float */
    const cpu_kernels *k;
    vae_cpu_level level;
    int most_threads; /* room for threads is for so many */
    int threads;      /* at present: fewer while they are faster */
    vae_team_size team[VAE_SLOTS];
    vae_error err;
    vae_plan *plan;
    size_t plan_room, plan_n, cursor;
    /* The flat buffers of parameters, gradients and moments, in blocks of SUM_BLOCK floats. */
    const float *params; /* bound; n_params of them */
    size_t n_params;
    double *partial; /* sums of blocks of the gradient */
    size_t *order;   /* those of params as loops go over them, if n_weights > 0 (optimizer.c) */
    size_t n_blocks; /* room of the two */
    vae_cpu_weight weight[MOST_WEIGHTS];
    size_t n_weights;
    vae_cpu_shadow *shadows; /* with bf16: one for every buffer that was bound */
    size_t n_shadows;
    void *room; /* of products: vae_cpu_matmul_room bytes, with bf16 vae_cpu_matmul_bf16_room */
} cpu_backend;

struct vae_data {
    const vae_dataset *set;
    uint32_t *index; /* NULL = all rows */
    size_t n;
    uint32_t half_bits;
    size_t fetch_ahead; /* entries of the plan whose rows are on their way from a disk; 0: none */
    uint64_t disk_seen; /* of vae_map_disk_was_read */
};

static inline cpu_backend *vae_cpu_self(vae_backend *be)
{
    return (cpu_backend *)be;
}

static inline const vae_plan *vae_cpu_now(const cpu_backend *be)
{
    return &be->plan[be->cursor];
}

/* fn over 0 .. n-1, each of which is some work on `floats` floats, on the backend's threads where
 * that pays. */
static inline void vae_cpu_parallel(const cpu_backend *be, size_t n, size_t floats, vae_part_fn *fn,
                                    void *ctx)
{
    const int threads = n * floats < PARALLEL_FLOATS ? 1 : be->threads;
    vae_parallel(threads, n, floats < PART_FLOATS ? PART_FLOATS / (floats + 1) : 1, fn, ctx);
}

/* ---- rows of matrices of either type ----
 *
 * Loops compute with floats: those of a float matrix where they lie, those of a bf16 one in a copy,
 * ROW_PIECE values at a time at most. A loop over pieces thus reads
 *   for (j = 0; j < n; j += some) {
 *       some = vae_cpu_piece(be, n - j);
 *       from = vae_cpu_read(be, room, a, r, j, some);
 *       to = vae_cpu_make(be, other_room, b, r, j);
 *       ...
 *       vae_cpu_put(be, b, r, j, to, some);
 * and is one over the whole row where matrices are of floats. */

static inline size_t vae_cpu_piece(const cpu_backend *be, size_t n)
{
    return be->bf16 && n > ROW_PIECE ? ROW_PIECE : n;
}

static inline uint16_t *vae_cpu_bf16(vae_mat m, size_t r, size_t c)
{
    return (uint16_t *)m.data + r * m.ld + c;
}

/* Asks for memory that is read soon, where the reads before it do not show the hardware that. */
static inline void vae_cpu_prefetch(const void *from, size_t bytes)
{
    enum { LINE = 64 };
    for (size_t i = 0; i < bytes; i += LINE) {
        __builtin_prefetch((const char *)from + i);
    }
}

/* n values of row r from column c on; room: n floats, used for bf16. */
static inline const float *vae_cpu_read(const cpu_backend *be, float *room, vae_mat m, size_t r,
                                        size_t c, size_t n)
{
    if (!be->bf16) {
        return (const float *)m.data + r * m.ld + c;
    }
    be->k->widen(room, vae_cpu_bf16(m, r, c), n);
    return room;
}

/* Where values from column c of row r on are to be made, and then be put there. */
static inline float *vae_cpu_make(const cpu_backend *be, float *room, vae_mat m, size_t r, size_t c)
{
    return be->bf16 ? room : (float *)m.data + r * m.ld + c;
}

static inline void vae_cpu_put(const cpu_backend *be, vae_mat m, size_t r, size_t c,
                               const float *made, size_t n)
{
    if (be->bf16) {
        be->k->narrow(vae_cpu_bf16(m, r, c), made, n);
    }
}

static inline float vae_cpu_get(const cpu_backend *be, vae_mat m, size_t r, size_t c)
{
    return be->bf16 ? vae_float_of_bits((int32_t)((uint32_t)*vae_cpu_bf16(m, r, c) << 16))
                    : ((const float *)m.data)[r * m.ld + c];
}

static inline float *vae_cpu_row(vae_mat m, size_t r)
{
    return (float *)m.data + r * m.ld;
}

/* Number, in the data set, of row r of the batch. */
static inline size_t vae_cpu_data_row(const vae_data *data, const vae_plan *plan, size_t r)
{
    const size_t i = (size_t)vae_plan_row(plan, data->n, data->half_bits, r);
    return data->index != NULL ? data->index[i] : i;
}

/* Brings rows first .. end-1 of a plan's entry from the disk. */
void vae_cpu_fetch(const vae_data *data, const vae_plan *plan, size_t first, size_t end);

static inline double vae_cpu_sum(const float *v, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)v[i];
    }
    return sum;
}

/* Of a product of bf16. */
static inline matmul_bf16 vae_cpu_operand(vae_mat m)
{
    return (matmul_bf16){m.data, m.ld};
}

/* How many of n weights are not 0. */
static inline size_t vae_cpu_count_live(const float *weight, size_t n)
{
    size_t live = 0;
    for (size_t i = 0; i < n; i++) {
        live += weight[i] != 0.0f;
    }
    return live;
}

/* Makes the bf16 twins of n parameters, and forgets those of parameters that are freed. In
 * shadow.c. */
void vae_cpu_shadow_params(cpu_backend *be, const float *params, size_t n);
void vae_cpu_forget_params(cpu_backend *be, const void *memory);
/* Where the bf16 twin of parameter w is, NULL if it has none; and what products read for a weight
 * with ldw, false, with the error in the backend, if there is none. */
uint16_t *vae_cpu_twin(const cpu_backend *be, const float *w);
bool vae_cpu_weights(cpu_backend *be, matmul_bf16 *twin, const float *w, size_t ldw);

/* sums: (cols) out: column sums of m: (rows,cols). In layers.c. */
void vae_cpu_column_sums(cpu_backend *be, float *sums, vae_mat m, size_t rows, size_t cols);
/* The same of up to COLUMN_BLOCK columns from (row, col) on, of rows `stride` rows apart, on the
 * calling thread. */
static inline void vae_cpu_some_sums(const cpu_backend *be, float *sums, vae_mat m, size_t row,
                                     size_t col, size_t stride, size_t rows, size_t cols)
{
    if (be->bf16) {
        be->k->column_sums_bf16(sums, vae_cpu_bf16(m, row, col), m.ld * stride, rows, cols);
    } else {
        be->k->column_sums(sums, (const float *)m.data + row * m.ld + col, m.ld * stride, rows,
                           cols);
    }
}

/* w: n floats of the parameters, the same at every step: where they lie is learnt when they are met
 * first, and loops over all parameters then go in an order that suits it. In optimizer.c. */
void vae_cpu_meet_weight(cpu_backend *be, const float *w, size_t n);

/* cols values of row r of m times factor. In layers.c. */
void vae_cpu_scale_row(const cpu_backend *be, vae_mat m, size_t r, float factor, size_t cols);

/* The step's operations, as backend.h says: in batch.c, layers.c, latent.c, loss.c, optimizer.c and
 * classes.c. */
#define VAE_CPU_OP(op) vae_##op##_fn vae_cpu_##op;
VAE_STEP_OPS(VAE_CPU_OP)
#undef VAE_CPU_OP
vae_drop_rows_fn vae_cpu_drop_rows;
/* In conv.c. */
vae_conv_bytes_fn vae_cpu_conv_bytes;

#endif
