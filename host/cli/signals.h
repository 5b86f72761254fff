/* SIGINT, SIGTERM and SIGHUP during training: the first asks for an orderly end, the second kills.
 * And SIGBUS. */
#ifndef VAE_SIGNALS_H
#define VAE_SIGNALS_H

#include "base/stop.h"

/* Installs the handlers, but not for a signal that is ignored (nohup). */
void vae_signals_install(void);

/* From now on, where a mapped file cannot be read (it was cut short, the disk fails), a line on
 * stderr names it and the program ends with VAE_ERR_IO, as if killed: temp files stay. Any other
 * SIGBUS does what it does by default. */
void vae_signals_tell_faults(void);

/* 0, or the signal that came. */
const vae_stop_flag *vae_signals_flag(void);

/* Dies of this signal, as the shell that started the program expects; returns if it is 0. */
void vae_signals_reraise(int number);

#endif
