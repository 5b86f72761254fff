/* SIGINT, SIGTERM and SIGHUP: the first asks for a stop, the second ends the program. */
#include "cli/signals.h"

#include <signal.h>

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
