/* What the tests of training share: a made-up data set, a tiny model, sessions that are
 * interrupted, and comparisons of two runs. */
#ifndef VAE_TEST_TRAINER_FIXTURE_H
#define VAE_TEST_TRAINER_FIXTURE_H

#include "dataset_fixture.h"
#include "train/run.h"

enum { ROWS = 200, HEIGHT = 3, WIDTH = 4, D = HEIGHT * WIDTH };

/* Rows of bytes with some structure, labels 0..9; `seed` stands for the content in its SHA-256. */
void run_make_set(vae_dataset *set, size_t n, size_t height, size_t width, uint64_t seed);
void run_free_set(vae_dataset *set);

/* 8 hidden units, 3 latents, batches of 16, 4 epochs, dynamic binarization. */
void run_small_config(vae_config *c, const char *out);
void run_set_option(vae_config *c, const char *name, const char *value);

/* A run that is told to stop after so many progress calls; 0 = never. */
typedef struct {
    vae_stop_flag stop;
    size_t after, calls, epochs;
    char notes[4096];
} session;

vae_status run_train(const vae_config *c, const vae_dataset *set, const vae_dataset *test,
                     bool resume, session *s, vae_train_result *result, vae_error *err);
/* The same, where it must succeed. */
void run_ok(const vae_config *c, const vae_dataset *set, const vae_dataset *test, bool resume,
            vae_train_result *result);

/* The newest checkpoint of a run; free it. */
vae_checkpoint *run_checkpoint(const char *run);
/* Parameters, moments and counters of two runs are the same to the last bit. */
void assert_same_end(const char *run_a, const char *run_b);
/* metrics.jsonl without what depends on the clock; malloc'ed. */
char *run_metrics_of(const char *run);
void assert_same_metrics(const char *run_a, const char *run_b);

/* Path of a folder in the scratch folder; the last four stay valid. */
const char *run_folder_in(scratch *s, const char *name);

#endif
