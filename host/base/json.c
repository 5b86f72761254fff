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

/* jansson (2.14) gives a failed allocation now and then the code of a fault in the text: of one
 * that ends too early. In the program it then ends (cli/main.c); here, in the library, whose host
 * may use jansson too, a text that is refused is read once more. */
vae_status vae_json_read(json_t **out, const char *text, size_t n, size_t flags, json_error_t *why)
{
    json_error_t own = {.line = 0};
    why = why != NULL ? why : &own;
    for (int i = 0; i < 2; i++) {
        *out = json_loadb(text, n, flags, why);
        if (*out != NULL) {
            return VAE_OK;
        }
    }
    const enum json_error_code code = json_error_code(why);
    return code == json_error_out_of_memory || code == json_error_unknown || no_memory()
               ? VAE_ERR_RUNTIME
               : VAE_ERR_DATA;
}
