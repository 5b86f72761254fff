/* What the files of the CPU backend share. */
#ifndef VAE_BACKEND_CPU_H
#define VAE_BACKEND_CPU_H

#include "backend.h"
#include "backend/cpu/kernels.h"
#include "base/pool.h"
#include "dataset/dataset.h"

enum {
    PARALLEL_FLOATS = 1 << 13, /* less work than this is not worth waking threads for */
    PART_FLOATS = 1 << 12,     /* what a thread takes at a time: some microseconds */
    SUM_BLOCK = 1 << 14,       /* floats of one partial sum of the gradient's norm */
    MOST_WEIGHTS = 64,         /* whose places among the parameters are known */
    COLUMN_BLOCK = 64,         /* columns that a task over columns takes, column_sums' most */
};

/* A weight among the parameters: floats first .. first+n-1. */
typedef struct {
    size_t first, n;
} vae_cpu_weight;

typedef struct {
    vae_backend base;
    const cpu_kernels *k;
    vae_cpu_level level;
    int threads;
    vae_error err;
    vae_plan *plan;
    size_t plan_room, plan_n, cursor;
    /* The flat buffers of parameters, gradients and moments, in blocks of SUM_BLOCK floats. */
    const float *params; /* bound; n_params of them */
    size_t n_params;
    double *partial; /* sums of blocks of the gradient */
    size_t *order;   /* those of params in the order of loops over them, if n_weights > 0 (ops.c) */
    size_t n_blocks; /* room of the two */
    vae_cpu_weight weight[MOST_WEIGHTS];
    size_t n_weights;
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

/* sums: (cols) out: column sums of m: (rows,cols). In ops.c. */
void vae_cpu_column_sums(cpu_backend *be, float *sums, vae_mat m, size_t rows, size_t cols);

/* The step's operations, as backend.h says: ops.c, classes.c. */
#define VAE_CPU_OP(op) vae_##op##_fn vae_cpu_##op;
VAE_STEP_OPS(VAE_CPU_OP)
#undef VAE_CPU_OP
/* In conv.c. */
vae_conv_bytes_fn vae_cpu_conv_bytes;

#endif
