/* Lines for the person in front: warnings, and what something long is doing. Whoever calls says
 * where they go; what is below commands prints nothing itself. */
#ifndef VAE_NOTE_H
#define VAE_NOTE_H

/* line: lower case, no newline; good during the call. One that begins with "warning: " is for
 * those, too, who asked not to be told anything. NULL: nobody listens. */
typedef struct {
    void (*tell)(void *ctx, const char *line);
    void *ctx;
} vae_notes;

/* notes may be NULL. Longer than VAE_ERROR_TEXT is cut. */
void vae_note(const vae_notes *notes, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
