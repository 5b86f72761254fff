/* Fuzz target: event files, of which a run that is taken up again keeps what came before. The first
 * byte of an input is the step, the second how many good records stand in front of the rest. */
#include <stdlib.h>
#include <string.h>

#include "format/tfevents.h"
#include "input.h"

/* Records of steps 100, 200 .. 100 n, the first being the one that names the format; made once. */
static const pb_buffer *good_records(size_t n)
{
    static pb_buffer made[4];
    pb_buffer *file = &made[n];
    if (file->n > 0) {
        return file;
    }
    *file = tf_first_record(1);
    for (size_t i = 1; i <= n; i++) {
        const double values[] = {(double)i, -1, 0.5};
        tf_event event = {0};
        tf_scalar(&event, "loss", (double)i);
        tf_histogram(&event, "z", values, 3);
        pb_buffer record = tf_record(&event, (double)i, i * 100);
        pb_append(file, record.bytes, record.n);
        fuzz_must(!record.failed);
        pb_free(&record);
    }
    fuzz_must(!file->failed);
    return file;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    const uint64_t step = data[0] * 50u;
    const size_t n_good = data[1] % 4;
    const pb_buffer *good = good_records(n_good);
    const size_t n = good->n + size - 2;
    uint8_t *file = malloc(n); /* of just that size: ASan sees what is behind it */
    fuzz_must(file != NULL);
    memcpy(file, good->bytes, good->n);
    memcpy(file + good->n, data + 2, size - 2);
    const size_t kept = tf_until(file, n, step);
    /* all good records up to the step stay, of what follows them no more than is there, and nothing
     * where a later one came */
    fuzz_must(kept <= n && tf_until(file, kept, step) == kept);
    fuzz_must(step / 100 < n_good ? kept < good->n : kept >= good->n);
    fuzz_must(tf_until(file, n, UINT64_MAX) >= kept);
    free(file);
    return 0;
}
