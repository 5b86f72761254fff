/* What jansson tells of a text that it could not read. */
#ifndef VAE_JSON_H
#define VAE_JSON_H

#include <jansson.h>
#include <stdbool.h>

/* Had it no memory? It gives every fault of the text a code, and a failed allocation one of two, or
 * (up to 2.14) the code of a fault near by: the program ends where jansson has no memory
 * (cli/main.c), the library, whose host may use jansson too, goes by this. */
static inline bool vae_json_starved(const json_error_t *why)
{
    const enum json_error_code code = json_error_code(why);
    return code == json_error_out_of_memory || code == json_error_unknown;
}

#endif
