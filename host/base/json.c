/* JSON from a text, by jansson. */
#include "base/json.h"

#include <stdbool.h>
#include <stdlib.h>

/* Is there none even for a little? */
static bool no_memory(void)
{
    void *little = malloc(4096);
    free(little);
    return little == NULL;
}

/* jansson (2.14) does not look at every allocation: where one fails it may take the text to end
 * there, or leave out a byte of it ("nne" for "none") and say nothing. In the program it then ends
 * (cli/main.c); here, in the library, whose host may use jansson too, a text is read twice.
 * Readings that differ tell that there was no memory. */
vae_status vae_json_read(json_t **out, const char *text, size_t n, size_t flags, json_error_t *why)
{
    json_error_t own = {.line = 0};
    why = why != NULL ? why : &own;
    json_t *one = json_loadb(text, n, flags, why), *two = json_loadb(text, n, flags, why);
    vae_status status = VAE_OK;
    *out = NULL;
    if (one == NULL && two == NULL) {
        const enum json_error_code code = json_error_code(why);
        const bool starved =
            code == json_error_out_of_memory || code == json_error_unknown || no_memory();
        status = starved ? VAE_ERR_RUNTIME : VAE_ERR_DATA;
    } else if (one == NULL || two == NULL || !json_equal(one, two)) {
        status = VAE_ERR_RUNTIME;
    } else {
        *out = json_incref(one);
    }
    json_decref(one);
    json_decref(two);
    return status;
}
