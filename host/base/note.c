/* Notes to whoever listens. */
#include "base/note.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/status.h"
#include "base/text.h"

void vae_note(const vae_notes *notes, const char *format, ...)
{
    char line[VAE_ERROR_TEXT];
    va_list args;
    if (notes != NULL && notes->tell != NULL) {
        va_start(args, format);
        vsnprintf(line, sizeof line, format, args);
        va_end(args);
        vae_escape(line, sizeof line);
        notes->tell(notes->ctx, line);
    }
}
