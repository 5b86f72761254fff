/* The aggregate posterior: N*N*Z terms in parallel over rows, added up in order. */
#include <math.h>
#include <stdlib.h>

#include "base/pool.h"
#include "eval/eval.h"

static const double log_2pi = 1.83787706640934548356;

typedef struct {
    size_t n, z;
    const float *mu, *draw;
    double *precision; /* (N,Z) exp(-logvar) */
    double *top;       /* (N,Z) log density of q(z_j|x) at its mean */
    double *joint;     /* (N) log q(z_i) */
    double *own;       /* (N) log q(z_i|x_i) */
    double *product;   /* (N) sum_j log q_j(z_ij) */
} aggregate;

static double log_density(const aggregate *a, size_t m, size_t j, double z)
{
    const size_t at = m * a->z + j;
    double away = z - (double)a->mu[at];
    return a->top[at] - 0.5 * away * away * a->precision[at];
}

/* Row i against all N posteriors. A first pass finds the largest terms, a second adds up those that
 * count beside them: most posteriors are far away, and exp is what costs. */
static void one_row(aggregate *a, size_t i, double *most, double *sum)
{
    const double negligible = -45; /* exp: 3e-20, times any N */
    const float *z = a->draw + i * a->z;
    double joint_most = -INFINITY, joint_sum = 0;
    for (size_t j = 0; j < a->z; j++) {
        most[j] = -INFINITY;
        sum[j] = 0;
    }
    for (size_t m = 0; m < a->n; m++) {
        double joint = 0;
        for (size_t j = 0; j < a->z; j++) {
            double term = log_density(a, m, j, (double)z[j]);
            most[j] = term > most[j] ? term : most[j];
            joint += term;
        }
        joint_most = joint > joint_most ? joint : joint_most;
        a->own[i] = m == i ? joint : a->own[i];
    }
    for (size_t m = 0; m < a->n; m++) {
        double joint = 0;
        for (size_t j = 0; j < a->z; j++) {
            double term = log_density(a, m, j, (double)z[j]);
            sum[j] += term - most[j] > negligible ? exp(term - most[j]) : 0;
            joint += term;
        }
        joint_sum += joint - joint_most > negligible ? exp(joint - joint_most) : 0;
    }
    /* the largest term has added 1 */
    // cppcheck-suppress invalidFunctionArg
    a->joint[i] = joint_most + log(joint_sum) - log((double)a->n);
    a->product[i] = 0;
    for (size_t j = 0; j < a->z; j++) {
        a->product[i] += most[j] + log(sum[j]) - log((double)a->n);
    }
}

typedef struct {
    aggregate *a;
    double *room; /* (threads,2Z) */
} row_job;

static void some_rows(void *ctx, int thread, size_t first, size_t end)
{
    const row_job *job = ctx;
    double *room = job->room + (size_t)thread * 2 * job->a->z;
    for (size_t i = first; i < end; i++) {
        one_row(job->a, i, room, room + job->a->z);
    }
}

static bool all_rows(aggregate *a)
{
    const int threads = vae_threads(0);
    row_job job = {a, malloc((size_t)threads * 2 * a->z * sizeof *job.room)};
    if (job.room == NULL) {
        return false;
    }
    vae_parallel(threads, a->n, 1, some_rows, &job);
    free(job.room);
    return true;
}

/* Mean and its standard error of x - y. */
static void mean_difference(const double *x, const double *y, size_t n, double *mean, double *se)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        sum += x[i] - y[i];
    }
    *mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) {
        double away = x[i] - y[i] - *mean;
        squares += away * away;
    }
    *se = n > 1 ? sqrt(squares / (double)n / (double)(n - 1)) : 0;
}

vae_status vae_eval_aggregate(vae_evaluation *out, const float *mu, const float *logvar,
                              const float *z, size_t n, size_t n_latents, double kl, vae_error *err)
{
    const size_t doubles = 2 * n * n_latents + 3 * n;
    aggregate a = {.n = n, .z = n_latents, .mu = mu, .draw = z};
    vae_status status = VAE_OK;
    double *room = malloc(doubles * sizeof *room);
    if (room == NULL) {
        TRY(vae_fail_memory(err, doubles * sizeof *room, "the aggregate posterior"));
    }
    a.precision = room;
    a.top = a.precision + n * n_latents;
    a.joint = a.top + n * n_latents;
    a.own = a.joint + n;
    a.product = a.own + n;
    for (size_t i = 0; i < n * n_latents; i++) {
        a.precision[i] = exp(-(double)logvar[i]);
        a.top[i] = -0.5 * (log_2pi + (double)logvar[i]);
    }
    if (!all_rows(&a)) {
        TRY(vae_fail_memory(err, 2 * n_latents * sizeof *room, "the aggregate posterior"));
    }
    mean_difference(a.own, a.joint, n, &out->mi, &out->mi_se);
    mean_difference(a.joint, a.product, n, &out->tc, &out->tc_se);
    out->aggregate = n;
    out->mi_bound = log((double)n);
    out->marginal_kl = kl - out->mi;
    out->dimwise_kl = out->marginal_kl - out->tc;
done:
    free(room);
    return status;
}
