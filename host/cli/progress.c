/* Progress on stderr, and how long things take. */
#include "cli/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/cli.h"

const char *cli_duration(char text[32], double seconds)
{
    uint64_t s = seconds > 0 && seconds < 1e9 ? (uint64_t)(seconds + 0.5) : 0;
    if (s >= 3600) {
        snprintf(text, 32, "%" PRIu64 ":%02u:%02u", s / 3600, (unsigned)(s / 60 % 60),
                 (unsigned)(s % 60));
    } else {
        snprintf(text, 32, "%u:%02u", (unsigned)(s / 60), (unsigned)(s % 60));
    }
    return text;
}

static size_t terminal_width(void)
{
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
        return size.ws_col;
    }
    return 80;
}

bool cli_on_terminal(void)
{
    const char *term = getenv("TERM");
    return isatty(STDERR_FILENO) && term != NULL && strcmp(term, "dumb") != 0;
}

void cli_progress_open(cli_progress *progress, bool quiet)
{
    *progress = (cli_progress){.quiet = quiet};
    progress->began = progress->told = vae_clock();
    progress->terminal = cli_on_terminal();
}

void cli_progress_clear(cli_progress *progress)
{
    if (progress->drawn > 0) {
        fprintf(stderr, "\r%*s\r", (int)progress->drawn, "");
        fflush(stderr);
        progress->drawn = 0;
    }
}

static void draw_part(void *ctx, double fraction, size_t n)
{
    cli_progress *progress = ctx;
    const double now = vae_clock(), every = progress->terminal ? 0.2 : 60;
    if (progress->quiet || now - progress->told < every || fraction <= 0) {
        return;
    }
    char left[32], line[96];
    progress->told = now;
    int length = snprintf(line, sizeof line, "%s: example %.0f of %zu  %3.0f%%  %s left",
                          progress->what, fraction * (double)n, n, 100 * fraction,
                          cli_duration(left, (now - progress->began) * (1 - fraction) / fraction));
    if (!progress->terminal) {
        fprintf(stderr, "vae: %s\n", line);
        return;
    }
    int rest = progress->drawn > (size_t)length ? (int)progress->drawn - length : 0;
    fprintf(stderr, "\r%s%*s", line, rest, "");
    fflush(stderr);
    progress->drawn = (size_t)length;
}

vae_watch cli_watch(cli_progress *progress, const char *what)
{
    progress->what = what;
    return (vae_watch){.progress = draw_part, .ctx = progress};
}

/* Adds a part if it still fits into `width` columns. Parts come in order of importance. */
static void add_part(char *line, size_t width, const char *part)
{
    size_t used = strlen(line), more = strlen(part);
    if (used + more <= width) {
        memcpy(line + used, part, more + 1);
    }
}

static void make_bar(char *bar, double fraction)
{
    enum { CELLS = 20 };
    int full = (int)(fraction * CELLS);
    *bar++ = ' ';
    *bar++ = '[';
    char *tip = bar + full;
    for (int i = 0; i < CELLS; i++) {
        *bar++ = i < full ? '=' : ' ';
    }
    if (full < CELLS) {
        *tip = '>';
    }
    *bar++ = ']';
    *bar = '\0';
}

static void draw(void *ctx, const vae_progress *p)
{
    cli_progress *progress = ctx;
    if (progress->quiet || !progress->terminal) {
        return;
    }
    char line[256] = "", part[96], rate[32], left[32];
    /* the last column stays free: some terminals wrap there */
    size_t width = terminal_width() - 1;
    width = width < sizeof line - 1 ? width : sizeof line - 1;
    const double fraction = (double)p->position / (double)p->n;
    snprintf(part, sizeof part, "epoch %" PRIu64 "/%" PRIu64 " %3.0f%%", p->epoch, p->epochs,
             100 * fraction);
    add_part(line, width, part);
    if (p->bounded) {
        snprintf(part, sizeof part, "  bound %.2f", p->bound);
        add_part(line, width, part);
    }
    snprintf(part, sizeof part, "  elbo %.2f", p->elbo);
    add_part(line, width, part);
    snprintf(part, sizeof part, "  recon %.2f  kl %.2f", p->recon, p->kl);
    add_part(line, width, part);
    snprintf(part, sizeof part, "  %s left", cli_duration(left, p->seconds_left));
    add_part(line, width, part);
    snprintf(part, sizeof part, "  %s examples/s", vae_thousands(rate, p->examples_per_s));
    add_part(line, width, part);
    make_bar(part, fraction);
    add_part(line, width, part);
    size_t n = strlen(line);
    int rest = progress->drawn > n ? (int)(progress->drawn - n) : 0;
    fprintf(stderr, "\r%s%*s", line, rest, "");
    fflush(stderr);
    progress->drawn = n;
}

static void print_epoch(void *ctx, const vae_epoch_record *r)
{
    cli_progress *progress = ctx;
    char rate[32], left[32];
    if (progress->quiet) {
        return;
    }
    cli_progress_clear(progress);
    fprintf(stderr, "epoch %*" PRIu64 "/%" PRIu64, r->epochs > 99 ? 3 : 2, r->epoch, r->epochs);
    if (r->bounded) {
        fprintf(stderr, "  bound %.2f", -r->train.bound);
    }
    fprintf(stderr, "  elbo %.2f  recon %.2f  kl %.2f", r->train.elbo, r->train.recon, r->train.kl);
    if (r->validation.n > 0) { /* the bound is what it is judged by, be it the ELBO or another */
        fprintf(stderr, "  validation%s %.2f%s", r->bounded ? " bound" : "", -r->validation.bound,
                r->best ? "*" : "");
    }
    if (r->test.n > 0) {
        fprintf(stderr, "  test%s %.2f", r->bounded ? " bound" : "", -r->test.bound);
    }
    const vae_measurement *judged = r->test.classified > 0 ? &r->test : &r->validation;
    if (judged->classified > 0) {
        fprintf(stderr, "  error %.2f%%", 100 * judged->error);
    }
    fprintf(stderr, "  %s examples/s", vae_thousands(rate, r->examples_per_s));
    if (r->epoch < r->epochs) {
        fprintf(stderr, "  %s left", cli_duration(left, r->seconds_left));
    }
    fputc('\n', stderr);
}

static void print_note(void *ctx, const char *line)
{
    cli_progress *progress = ctx;
    if (!progress->quiet || strncmp(line, "warning: ", sizeof "warning: " - 1) == 0) {
        cli_progress_clear(progress);
        fprintf(stderr, "vae: %s\n", line);
    }
}

vae_train_events cli_progress_events(cli_progress *progress)
{
    return (vae_train_events){
        .ctx = progress, .progress = draw, .epoch = print_epoch, .note = print_note};
}
