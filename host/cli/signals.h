/* SIGINT, SIGTERM and SIGHUP during training: the first asks for an orderly end, the second kills.
 */
#ifndef VAE_SIGNALS_H
#define VAE_SIGNALS_H

#include "base/stop.h"

/* Installs the handlers, but not for a signal that is ignored (nohup). */
void vae_signals_install(void);

/* 0, or the signal that came. */
const vae_stop_flag *vae_signals_flag(void);

/* Dies of this signal, as the shell that started the program expects; returns if it is 0. */
void vae_signals_reraise(int number);

#endif
