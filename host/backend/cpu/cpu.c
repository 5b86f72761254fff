/* The CPU backend: matrix products from matmul.c, everything else in kernels.c's loops, spread
 * over threads by rows. Work is cut at places that depend on sizes only and sums are put
 * together in fixed order, so the number of threads never shows in a result. */
#include "backend/cpu/cpu.h"
#include "base/text.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "backend/open.h"
#include "base/clock.h"
#include "base/float_control.h"
#include "base/machine.h"

/* ---- memory and running ---- */

static void cpu_close(vae_backend *base)
{
    cpu_backend *be = vae_cpu_self(base);
    for (size_t i = 0; i < be->n_shadows; i++) {
        free(be->shadows[i].twin);
    }
    free(be->shadows);
    free(be->room);
    free(be->plan);
    free(be->partial);
    free(be->order);
    free(be);
}

static void cpu_describe(const vae_backend *base, char *text, size_t size)
{
    const cpu_backend *be = (const cpu_backend *)base;
    char how[80] = "";
    if (be->bf16 && be->level < VAE_CPU_AVX512_BF16) {
        snprintf(how, sizeof how, ", bf16 by products of floats, as slow as fp32");
    } else if (be->bf16) {
        snprintf(how, sizeof how, ", bf16 by %s", vae_cpu_level_name(be->level));
    }
    snprintf(text, size, "cpu, %d thread%s, %s%s", be->threads, vae_s((size_t)be->threads),
             be->k->isa, how);
}

static size_t cpu_act_size(const vae_backend *be)
{
    return ((const cpu_backend *)be)->bf16 ? sizeof(uint16_t) : sizeof(float);
}

static bool cpu_bias_with_weight(const vae_backend *be, size_t rows)
{
    (void)be;
    (void)rows;
    return true; /* a pass of its own either way, and the product has just read dy */
}

static size_t cpu_aux_bytes(const vae_backend *be, vae_activation act, size_t rows, size_t cols)
{
    return vae_act_keeps_input(act) ? rows * vae_pad(cols) * cpu_act_size(be) : 0;
}

enum { HUGE_PAGE = 2 << 20, HUGE_FROM = 4 << 20 };

/* Large memory on huge pages: walks of page tables cost convolutions a tenth of their time, and
 * what is packed for products is written to a hundred pages by turns. NULL: there is none. */
static void *take_memory(size_t bytes)
{
    const size_t unit = bytes >= HUGE_FROM ? HUGE_PAGE : 256;
    const size_t whole = bytes > 0 ? (bytes + unit - 1) / unit * unit : unit;
    void *memory = whole < bytes ? NULL : aligned_alloc(unit, whole);
#ifdef MADV_HUGEPAGE
    if (memory != NULL && unit == HUGE_PAGE) {
        madvise(memory, whole, MADV_HUGEPAGE); /* advice: it may fail */
    }
#endif
    return memory;
}

static void *cpu_alloc(vae_backend *base, size_t bytes, const char *what)
{
    cpu_backend *be = vae_cpu_self(base);
    if (be->err.status != VAE_OK) {
        return NULL;
    }
    void *memory = take_memory(bytes);
    if (memory == NULL) {
        vae_fail_memory(&be->err, bytes, what);
        return NULL;
    }
    return memset(memory, 0, bytes);
}

static void cpu_free(vae_backend *base, void *memory)
{
    vae_cpu_forget_params(vae_cpu_self(base), memory);
    free(memory);
}

static size_t cpu_free_bytes(const vae_backend *be)
{
    (void)be; /* what is left an overcommitting kernel does not say: it kills who takes more */
    return vae_machine_memory();
}

static void cpu_copy(vae_backend *base, void *dst, const void *src, size_t bytes)
{
    if (vae_cpu_self(base)->err.status == VAE_OK) {
        memcpy(dst, src, bytes);
    }
}

static void cpu_upload_mat(vae_backend *base, vae_mat dst, const float *src, size_t rows,
                           size_t cols)
{
    const cpu_backend *be = vae_cpu_self(base);
    for (size_t r = 0; be->err.status == VAE_OK && r < rows; r++) {
        if (be->bf16) {
            be->k->narrow(vae_cpu_bf16(dst, r, 0), src + r * cols, cols);
        } else {
            memcpy(vae_cpu_row(dst, r), src + r * cols, cols * sizeof *src);
        }
    }
}

static void cpu_download_mat(vae_backend *base, float *dst, vae_mat src, size_t rows, size_t cols)
{
    const cpu_backend *be = vae_cpu_self(base);
    for (size_t r = 0; be->err.status == VAE_OK && r < rows; r++) {
        if (be->bf16) {
            be->k->widen(dst + r * cols, vae_cpu_bf16(src, r, 0), cols);
        } else {
            memcpy(dst + r * cols, vae_cpu_row(src, r), cols * sizeof *dst);
        }
    }
}

static void cpu_bind_params(vae_backend *base, float *params, size_t n)
{
    cpu_backend *be = vae_cpu_self(base);
    const size_t n_blocks = (n + SUM_BLOCK - 1) / SUM_BLOCK;
    if (be->err.status != VAE_OK) {
        return;
    }
    if (n_blocks > be->n_blocks) {
        free(be->partial);
        free(be->order);
        be->partial = malloc(n_blocks * sizeof *be->partial);
        be->order = malloc(n_blocks * sizeof *be->order);
        be->n_blocks = be->partial == NULL || be->order == NULL ? 0 : n_blocks;
    }
    if (be->n_blocks < n_blocks) {
        vae_fail_memory(&be->err, n_blocks * sizeof *be->partial, "partial sums");
        return;
    }
    if (params != be->params || n != be->n_params) {
        be->params = params;
        be->n_params = n;
        be->n_weights = 0; /* their order follows, weight by weight */
    }
    if (be->bf16) {
        vae_cpu_shadow_params(be, params, n);
    }
}

static vae_data *cpu_data_open(vae_backend *base, const vae_dataset *set, const uint32_t *index,
                               size_t n_index)
{
    cpu_backend *be = vae_cpu_self(base);
    vae_data *data = be->err.status == VAE_OK ? calloc(1, sizeof *data) : NULL;
    if (data == NULL) {
        vae_fail_memory(&be->err, sizeof *data, "a data set");
        return NULL;
    }
    data->set = set;
    data->n = index != NULL ? n_index : set->n;
    data->half_bits = vae_shuffle_bits(data->n);
    if (index != NULL) {
        data->index = malloc(n_index * sizeof *index);
        if (data->index == NULL) {
            vae_fail_memory(&be->err, n_index * sizeof *index, "the index of a data set");
            free(data);
            return NULL;
        }
        memcpy(data->index, index, n_index * sizeof *index);
    }
    return data;
}

static void cpu_data_close(vae_backend *be, vae_data *data)
{
    (void)be;
    if (data != NULL) {
        free(data->index);
        free(data);
    }
}

/* Rows that lie in a map are read from the disk where they are not in memory. Waiting for each
 * would leave disk and processors idle by turns: so the rows of some entries, FETCHED or more, are
 * always on their way. */
static void begin_fetching(cpu_backend *be, vae_data *data, size_t rows)
{
    enum { FETCHED = 1024 };
    const bool fetch = data->set->map != NULL && vae_map_disk_was_read(&data->disk_seen);
    data->fetch_ahead = fetch ? (FETCHED + rows - 1) / rows : 0;
    for (size_t i = 0; i < data->fetch_ahead && i < be->plan_n; i++) {
        vae_cpu_fetch(data, &be->plan[i], 0, rows);
    }
}

static void cpu_plan(vae_backend *base, const vae_plan *plan, size_t n, size_t rows, vae_data *data)
{
    cpu_backend *be = vae_cpu_self(base);
    if (data != NULL && be->err.status == VAE_OK) {
        vae_dataset_check_file(data->set, &be->err);
    }
    if (be->err.status == VAE_OK && n > be->plan_room) {
        vae_plan *more = realloc(be->plan, n * sizeof *more);
        if (more == NULL) {
            vae_fail_memory(&be->err, n * sizeof *more, "the plan");
            return;
        }
        be->plan = more;
        be->plan_room = n;
    }
    if (be->err.status == VAE_OK) {
        memcpy(be->plan, plan, n * sizeof *plan);
        be->plan_n = n;
        be->cursor = 0;
        if (data != NULL) {
            begin_fetching(be, data, rows);
        }
    }
}

/* Denormal numbers are zero while steps run, read or written, in every thread that takes part (a
 * pool's threads compute as their caller does) and at every instruction set level. Adam's moments
 * of a weight whose gradient stays zero decay into them within 800 steps, and so do gradients under
 * small importance weights; processors take some 150 cycles for each, which halved the speed of
 * real training. The calling program's control word is as before afterwards. */
static void cpu_run(vae_backend *base, int slot, size_t n, vae_step_fn *fn, void *ctx)
{
    const uint64_t before = vae_float_control();
    cpu_backend *be = vae_cpu_self(base);
    vae_team_size *team = &be->team[slot];
    vae_float_control_set(before | vae_flush_to_zero);
    for (size_t i = 0; i < n && be->err.status == VAE_OK; i++, be->cursor++) {
        const double begin = vae_clock();
        be->threads = vae_team_size_next(team);
        fn(ctx);
        vae_team_size_took(team, vae_clock() - begin);
    }
    be->threads = be->most_threads;
    vae_float_control_set(before);
}

static void cpu_forget(vae_backend *be, int slot)
{
    (void)be;
    (void)slot;
}

static vae_status cpu_sync(vae_backend *base, vae_error *err)
{
    cpu_backend *be = vae_cpu_self(base);
    vae_error first = be->err;
    be->err = (vae_error){0};
    return first.status == VAE_OK ? VAE_OK : vae_fail(err, first.status, "%s", first.text);
}

#define ENTRY(op) .op = vae_cpu_##op,
static const vae_backend_ops cpu_ops = {
    .name = "cpu",
    .close = cpu_close,
    .describe = cpu_describe,
    .act_size = cpu_act_size,
    .aux_bytes = cpu_aux_bytes,
    .conv_bytes = vae_cpu_conv_bytes,
    .bias_with_weight = cpu_bias_with_weight,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .free_bytes = cpu_free_bytes,
    .upload = cpu_copy,
    .download = cpu_copy,
    .upload_mat = cpu_upload_mat,
    .download_mat = cpu_download_mat,
    .bind_params = cpu_bind_params,
    .data_open = cpu_data_open,
    .data_close = cpu_data_close,
    .plan = cpu_plan,
    .run = cpu_run,
    .forget = cpu_forget,
    .sync = cpu_sync,
    .drop_rows = vae_cpu_drop_rows,
    VAE_STEP_OPS(ENTRY) /* as cpu.h says */
};
#undef ENTRY

vae_status vae_backend_cpu_open(vae_backend **out, const vae_backend_options *options,
                                vae_error *err)
{
    vae_status status = VAE_OK;
    vae_cpu_level level;
    *out = NULL;
    if (options->precision == VAE_TF32) {
        TRY(vae_fail(err, VAE_ERR_USAGE,
                     "tf32 is a precision of GPUs; the CPU has --precision fp32 and bf16"));
    }
    TRY(vae_cpu_level_choose(&level, err));
    cpu_backend *be = calloc(1, sizeof *be);
    if (be == NULL) {
        TRY(vae_fail_memory(err, sizeof *be, "the CPU backend"));
    }
    be->base.ops = &cpu_ops;
    be->base.ranks = options->ranks;
    be->level = level;
    be->k = vae_cpu_kernels(level);
    be->threads = be->most_threads = vae_threads(options->threads);
    for (int slot = 0; slot < VAE_SLOTS; slot++) {
        be->team[slot] = (vae_team_size){.most = be->threads, .fixed = !vae_threads_vary()};
    }
    be->bf16 = options->precision == VAE_BF16;
    const size_t bytes =
        be->bf16 ? vae_cpu_matmul_bf16_room(be->threads) : vae_cpu_matmul_room(be->threads);
    be->room = take_memory(bytes);
    if (be->room == NULL) {
        free(be);
        TRY(vae_fail_memory(err, bytes, "the CPU's products"));
    }
    *out = &be->base;
done:
    return status;
}
