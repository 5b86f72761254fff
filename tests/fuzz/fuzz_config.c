/* Fuzz target: options as JSON, which --config, config.json, checkpoints and weights' metadata
 * hold. */
#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    vae_config config, before, again;
    vae_error err = {0}, none = {0}, why = {0};
    char *text = fuzz_text(data, size);
    memset(&config, 0, sizeof config);
    vae_config_defaults(&config);
    before = again = config;
    if (fuzz_judge(vae_config_from_json(&config, text, "fuzz", &err), &err)) {
        /* what was read is written and read back to the same */
        char *first = vae_config_to_json(&config);
        fuzz_must(first != NULL);
        fuzz_must(fuzz_judge(vae_config_from_json(&again, first, "again", &none), &none));
        fuzz_must(vae_config_difference(&config, &again, NULL) == SIZE_MAX);
        free(first);
        fuzz_judge(vae_config_check(&config, NULL, &why), &why);
    } else {
        fuzz_must(memcmp(&config, &before, sizeof config) == 0); /* all or nothing */
    }
    free(text);
    return 0;
}
