/* vae train --sweep. Each run is a process: what one does (a device that fails, memory that ends)
 * touches no other, and a run folder is as ever. */
#include "cli/sweep.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/pool.h"
#include "base/text.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "report/compare.h"

enum { MOST_AXES = 8, MOST_VALUES = 64, MOST_RUNS = 256, MOST_JOBS = 64, LOOK_MS = 50 };

/* An option and the values it is to have. */
typedef struct {
    char name[64];
    char *value[MOST_VALUES];
    size_t n;
    char *text; /* what the values lie in */
} axis;

typedef struct {
    char name[256]; /* of its folder: beta-1,latent-10 */
    char path[VAE_PATH];
    pid_t process; /* 0: not started, or over */
    int code;      /* exit code; 128 + signal; -1: none yet */
} sweep_run;

typedef struct {
    const cli_args *args;
    axis axes[MOST_AXES];
    size_t n_axes;
    sweep_run run[MOST_RUNS];
    size_t n_runs, jobs;
    char out[VAE_PATH];
    bool terminal;
    size_t drawn; /* lines of progress below the cursor */
    double told;  /* monotonic time of these */
} sweep;

bool cli_sweeps(const cli_args *args)
{
    return cli_given(args, "sweep");
}

/* ---- what is asked for ---- */

/* "beta=1,2,4"; values with commas in them stand between semicolons: "hidden=400;400,200". */
static vae_status read_axis(axis *a, const char *text, vae_error *err)
{
    const size_t n = strcspn(text, "=");
    const char *separator = strchr(text, ';') != NULL ? ";" : ",";
    vae_status status = VAE_OK;
    if (text[n] == '\0' || n == 0 || n >= sizeof a->name) {
        TRY(vae_fail(err, VAE_ERR_USAGE,
                     "--sweep: expected OPTION=VALUE,VALUE,..., as in beta=1,2,4; found '%s'",
                     text));
    }
    memcpy(a->name, text, n);
    a->text = strdup(text + n + 1);
    if (a->text == NULL) {
        TRY(vae_fail_memory(err, strlen(text), "--sweep"));
    }
    for (char *rest = a->text, *value; (value = strsep(&rest, separator)) != NULL;) {
        if (value[0] == '\0' || a->n == MOST_VALUES) {
            TRY(vae_fail(err, VAE_ERR_USAGE,
                         "--sweep %s: expected 1 to %d values, none of them empty; found '%s'",
                         a->name, MOST_VALUES, text + n + 1));
        }
        a->value[a->n++] = value;
    }
done:
    return status;
}

/* Options that a sweep gives each run itself, or that are no run's. */
static vae_status check_axis(const sweep *s, const axis *a, vae_error *err)
{
    static const char *const own[] = {"out", "stack-weights", "init-weights"};
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        if (strcmp(a->name, own[i]) == 0) {
            return vae_fail(err, VAE_ERR_USAGE, "--sweep %s: each run has its own", a->name);
        }
    }
    if (vae_config_find(a->name) != SIZE_MAX && cli_given(s->args, a->name)) {
        return vae_fail(err, VAE_ERR_USAGE, "--%s and --sweep %s: give one of them", a->name,
                        a->name);
    }
    for (const axis *b = s->axes; b < a; b++) {
        if (strcmp(a->name, b->name) == 0) {
            return vae_fail(err, VAE_ERR_USAGE, "--sweep %s: given twice", a->name);
        }
    }
    return VAE_OK;
}

static const char *value_of(const sweep *s, size_t run, size_t axis_number)
{
    for (size_t a = s->n_axes; a-- > axis_number + 1;) { /* the last changes fastest */
        run /= s->axes[a].n;
    }
    return s->axes[axis_number].value[run % s->axes[axis_number].n];
}

/* A value as part of a folder's name. */
static void add_name(char *name, size_t size, const char *option, const char *value)
{
    const size_t n = strlen(name);
    snprintf(name + n, size - n, "%s%s-%s", n > 0 ? "_" : "", option, value);
    for (char *c = name + n; *c != '\0'; c++) {
        *c = strchr("/ \t,;:", *c) != NULL ? '+' : *c;
    }
}

/* Are the run's options good ones? As far as can be said without its data. */
static vae_status check_run(const sweep *s, size_t run, vae_error *err)
{
    vae_config config;
    vae_option_set given;
    vae_status status = VAE_OK;
    vae_config_defaults(&config);
    TRY(cli_training_options(s->args, &config, &given, err));
    for (size_t a = 0; a < s->n_axes; a++) {
        TRY(vae_config_set(&config, s->axes[a].name, value_of(s, run, a), err));
        vae_option_add(&given, vae_config_find(s->axes[a].name));
    }
    if (!cli_given(s->args, "config") && config.init_from[0] == '\0') { /* these say more */
        TRY(vae_config_check(&config, &given, err));
    }
done:
    return status;
}

static vae_status make_runs(sweep *s, vae_error *err)
{
    vae_status status = VAE_OK;
    s->n_runs = 1;
    for (size_t a = 0; a < s->n_axes; a++) {
        s->n_runs *= s->axes[a].n;
        if (s->n_runs > MOST_RUNS) {
            TRY(vae_fail(err, VAE_ERR_USAGE, "--sweep: more than %d runs", MOST_RUNS));
        }
    }
    for (size_t i = 0; i < s->n_runs; i++) {
        sweep_run *r = &s->run[i];
        r->code = -1;
        TRY(check_run(s, i, err));
        for (size_t a = 0; a < s->n_axes; a++) {
            add_name(r->name, sizeof r->name, s->axes[a].name, value_of(s, i, a));
        }
        if (snprintf(r->path, sizeof r->path, "%s/%s", s->out, r->name) >= VAE_PATH) {
            TRY(vae_fail(err, VAE_ERR_USAGE, "--out: the name is longer than %d bytes", VAE_PATH));
        }
        for (size_t j = 0; j < i; j++) {
            if (strcmp(s->run[j].path, r->path) == 0) {
                TRY(vae_fail(err, VAE_ERR_USAGE, "--sweep: two runs would be in %s", r->path));
            }
        }
    }
done:
    return status;
}

static vae_status read_sweep(sweep *s, const cli_args *args, vae_error *err)
{
    size_t jobs;
    bool there;
    vae_status status = VAE_OK;
    const char *out = cli_value(args, "out");
    s->args = args;
    for (size_t at = 0; at < args->n_given; at++) {
        if (strcmp(args->options[args->given[at].option].name, "sweep") == 0) {
            if (s->n_axes == MOST_AXES) {
                TRY(vae_fail(err, VAE_ERR_USAGE, "--sweep: at most %d times", MOST_AXES));
            }
            axis *a = &s->axes[s->n_axes++];
            TRY(read_axis(a, args->given[at].value, err));
            TRY(check_axis(s, a, err));
        }
    }
    if (out == NULL || out[0] == '\0') {
        TRY(vae_fail(err, VAE_ERR_USAGE, "--sweep needs --out FOLDER, where its runs go"));
    }
    if (snprintf(s->out, sizeof s->out, "%s", out) >= VAE_PATH) {
        TRY(vae_fail(err, VAE_ERR_USAGE, "--out: the name is longer than %d bytes", VAE_PATH));
    }
    TRY(cli_size(args, "jobs", 1, 1, MOST_JOBS, &jobs, err));
    TRY(make_runs(s, err));
    s->jobs = jobs < s->n_runs ? jobs : s->n_runs;
    for (size_t i = 0; i < s->n_runs; i++) {
        TRY(vae_path_exists(&there, s->run[i].path, err));
        if (there && !cli_given(args, "resume") && !cli_given(args, "force")) {
            TRY(vae_fail(err, VAE_ERR_USAGE,
                         "%s: there already: --resume goes on with the sweep, --force replaces its "
                         "runs, or give another --out",
                         s->run[i].path));
        }
    }
done:
    return status;
}

/* ---- processes ---- */

/* The command line of a run: what was given, the values, a folder. */
static void exec_run(const sweep *s, size_t run)
{
    static char threads[32], words[2 * CLI_MAX_OPTIONS + 2 * MOST_AXES][2 * VAE_PATH];
    char *argv[2 * CLI_MAX_OPTIONS + 2 * MOST_AXES];
    const cli_args *args = s->args;
    size_t n = 0;
    argv[n++] = "vae";
    argv[n++] = "train";
    for (size_t i = 0; i < args->n_options; i++) {
        const cli_option *o = &args->options[i];
        static const char *const not_a_runs[] = {"sweep", "jobs", "out", "json", "quiet", "resume"};
        bool pass = args->value[i] != NULL;
        for (size_t k = 0; k < sizeof not_a_runs / sizeof not_a_runs[0]; k++) {
            pass = pass && strcmp(o->name, not_a_runs[k]) != 0;
        }
        if (pass) {
            snprintf(words[n], sizeof words[n], args->value[i][0] != '\0' ? "--%s=%s" : "--%s%s",
                     o->name, args->value[i]);
            argv[n] = words[n];
            n++;
        }
    }
    for (size_t a = 0; a < s->n_axes; a++) {
        snprintf(words[n], sizeof words[n], "--%s=%s", s->axes[a].name, value_of(s, run, a));
        argv[n] = words[n];
        n++;
    }
    if (!cli_given(args, "threads") && s->jobs > 1) { /* they share the machine */
        const size_t all = (size_t)vae_threads(0);
        snprintf(threads, sizeof threads, "--threads=%zu", all > s->jobs ? all / s->jobs : 1);
        argv[n++] = threads;
    }
    if (cli_given(args, "resume")) {
        argv[n++] = "--resume=auto";
    }
    snprintf(words[n], sizeof words[n], "--out=%s", s->run[run].path);
    argv[n] = words[n];
    n++;
    argv[n++] = "--quiet";
    argv[n] = NULL;
    execv("/proc/self/exe", argv);
    _exit(127);
}

/* ---- progress: a line for each that runs, drawn over and over on a terminal ---- */

static void clear_lines(sweep *s)
{
    if (s->drawn > 0) {
        fputs("\r\033[J", stderr);
        s->drawn = 0;
    }
}

/* How far a run is: from the last line of its metrics.jsonl. */
static void progress_of(const sweep_run *r, char text[96])
{
    enum { TAIL = 1024 };
    char path[VAE_PATH + 16], tail[TAIL + 1];
    struct stat st;
    text[0] = '\0';
    snprintf(path, sizeof path, "%s/metrics.jsonl", r->path);
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    const off_t from = fd >= 0 && fstat(fd, &st) == 0 && st.st_size > TAIL ? st.st_size - TAIL : 0;
    const ssize_t n = fd >= 0 ? vae_read_at(fd, tail, TAIL, (uint64_t)from) : -1;
    if (fd >= 0) {
        close(fd);
    }
    if (n < 2) {
        return;
    }
    tail[n - 1] = '\0'; /* its newline */
    const char *line = strrchr(tail, '\n');
    json_t *last = json_loads(line != NULL ? line + 1 : tail, 0, NULL);
    const char *split = json_string_value(json_object_get(last, "split"));
    if (split != NULL) {
        snprintf(text, 96, "epoch %lld  %.12s elbo %.2f",
                 (long long)json_integer_value(json_object_get(last, "epoch")), split,
                 json_number_value(json_object_get(last, "elbo")));
    }
    json_decref(last);
}

static void draw_lines(sweep *s)
{
    const double now = vae_clock();
    if (!s->terminal || now - s->told < 0.5) {
        return;
    }
    s->told = now;
    clear_lines(s);
    for (size_t i = 0; i < s->n_runs; i++) {
        char text[96];
        if (s->run[i].process > 0) {
            progress_of(&s->run[i], text);
            fprintf(stderr, "  %.50s  %s\n", s->run[i].name, text);
            s->drawn++;
        }
    }
    if (s->drawn > 0) {
        fprintf(stderr, "\033[%zuA", s->drawn);
    }
    fflush(stderr);
}

static vae_status start(sweep *s, size_t i, vae_error *err)
{
    sweep_run *r = &s->run[i];
    fflush(NULL);
    const pid_t process = fork();
    if (process < 0) {
        return vae_fail(err, VAE_ERR_RUNTIME, "%s: no process for it: %s", r->path,
                        strerror(errno));
    }
    if (process == 0) {
        exec_run(s, i);
    }
    r->process = process;
    clear_lines(s);
    cli_say(s->args, "%s: begins (%zu of %zu)", r->path, i + 1, s->n_runs);
    return VAE_OK;
}

/* Takes in what has ended. Returns how many still run. */
static size_t collect(sweep *s)
{
    size_t running = 0;
    for (size_t i = 0; i < s->n_runs; i++) {
        sweep_run *r = &s->run[i];
        int how;
        if (r->process > 0 && waitpid(r->process, &how, WNOHANG) == r->process) {
            r->process = 0;
            r->code = WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
            char text[96];
            progress_of(r, text);
            clear_lines(s);
            cli_say(s->args, "%s: %s%s%s", r->path, r->code == 0 ? "done" : "failed, see above",
                    text[0] != '\0' ? ": " : "", text);
        }
        running += r->process > 0;
    }
    return running;
}

static void end_all(const sweep *s, int with)
{
    for (size_t i = 0; i < s->n_runs; i++) {
        if (s->run[i].process > 0) {
            kill(s->run[i].process, with);
        }
    }
}

static vae_status run_all(sweep *s, vae_error *err)
{
    const vae_stop_flag *stop = vae_signals_flag();
    const struct timespec look = {.tv_nsec = LOOK_MS * 1000000L};
    size_t next = 0;
    bool told = false;
    vae_status status = VAE_OK;
    for (;;) {
        const size_t running = collect(s);
        const bool stopping = vae_stopping(stop);
        if (stopping && !told) { /* from a terminal they have heard it already: twice would kill */
            told = true;
            if (isatty(STDIN_FILENO) == 0 || tcgetpgrp(STDIN_FILENO) != getpgrp()) {
                end_all(s, SIGTERM);
            }
        }
        if (running == 0 && (next == s->n_runs || stopping || status != VAE_OK)) {
            break;
        }
        if (running < s->jobs && next < s->n_runs && !stopping && status == VAE_OK) {
            status = start(s, next++, err);
            continue;
        }
        draw_lines(s);
        nanosleep(&look, NULL);
    }
    clear_lines(s);
    if (status == VAE_OK && vae_stopping(stop)) {
        status = vae_fail(err, VAE_ERR_INTERRUPTED,
                          "interrupted; the same command with --resume goes on with the sweep");
    }
    return status;
}

/* ---- the end ---- */

static vae_status compare(const sweep *s, vae_error *err)
{
    const char *runs[MOST_RUNS];
    char page[VAE_PATH + 16];
    vae_comparison *c = NULL;
    size_t n = 0;
    vae_status status = VAE_OK;
    for (size_t i = 0; i < s->n_runs; i++) {
        if (s->run[i].code == 0) {
            runs[n++] = s->run[i].path;
        }
    }
    if (n == 0) {
        return VAE_OK;
    }
    TRY(vae_comparison_open(&c, runs, n, err));
    snprintf(page, sizeof page, "%s/compare.html", s->out);
    TRY(vae_comparison_write(c, page, err));
    if (s->args->json) {
        cli_print_json(vae_comparison_json(c), 9);
    } else if (!s->args->quiet) {
        vae_comparison_print(c, stdout);
    }
    cli_say(s->args, "%s: the runs side by side", page);
done:
    vae_comparison_close(c);
    return status;
}

/* The first failure is the sweep's. */
static vae_status judge(const sweep *s, vae_error *err)
{
    size_t failed = 0;
    const sweep_run *first = NULL;
    for (size_t i = 0; i < s->n_runs; i++) {
        if (s->run[i].code != 0) {
            first = first == NULL ? &s->run[i] : first;
            failed++;
        }
    }
    if (first == NULL) {
        return VAE_OK;
    }
    const bool known = first->code > 0 && first->code <= VAE_ERR_INTERRUPTED;
    return vae_fail(err, known ? (vae_status)first->code : VAE_ERR_RUNTIME,
                    "%s: ended with exit code %d; %zu of %zu runs failed", first->path, first->code,
                    failed, s->n_runs);
}

vae_status cli_sweep(const cli_args *args, vae_error *err)
{
    sweep *s = calloc(1, sizeof *s);
    vae_status status = VAE_OK;
    if (s == NULL) {
        return vae_fail_memory(err, sizeof *s, "the sweep");
    }
    TRY(read_sweep(s, args, err));
    s->terminal = !args->quiet && cli_on_terminal();
    vae_signals_install();
    TRY(run_all(s, err));
    TRY(compare(s, err));
    TRY(judge(s, err));
done:
    for (size_t a = 0; a < s->n_axes; a++) {
        free(s->axes[a].text);
    }
    free(s);
    return status;
}
