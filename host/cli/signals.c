/* SIGINT, SIGTERM and SIGHUP: the first asks for a stop, the second ends the program. SIGBUS: a
 * mapped file that cannot be read ends it with words. */
#include "cli/signals.h"

#include <signal.h>
#include <unistd.h>

#include "base/map.h"

/* The only global: a handler can reach nothing else. */
static vae_stop_flag came;

static void handle(int number)
{
    if (came != 0) {
        /* the second one: at once; it is delivered when this handler returns */
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    came = number;
}

void vae_signals_install(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        struct sigaction old, action = {.sa_handler = handle, .sa_flags = SA_RESTART};
        sigemptyset(&action.sa_mask);
        if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) {
            sigaction(numbers[i], &action, NULL);
        }
    }
}

/* On the thread that reads, whose stack is good. */
static void tell_fault(int number, siginfo_t *info, void *context)
{
    (void)context;
    if (info->si_code > 0 && vae_map_blame(info->si_addr, STDERR_FILENO, "vae: ")) {
        _exit(VAE_ERR_IO);
    }
    signal(number, SIG_DFL);
    raise(number); /* once this returns */
}

void vae_signals_tell_faults(void)
{
    struct sigaction action = {.sa_sigaction = tell_fault, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}

const vae_stop_flag *vae_signals_flag(void)
{
    return &came;
}

void vae_signals_reraise(int number)
{
    if (number != 0) {
        signal(number, SIG_DFL);
        raise(number);
    }
}
