/* Data sets for tests, in memory and in files. */
#include "dataset_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#if defined(__SANITIZE_ADDRESS__)
/* of libasan; gcc installs no header for it */
int __sanitizer_install_malloc_and_free_hooks(void (*)(const volatile void *, size_t),
                                              void (*)(const volatile void *));

enum { LARGE = 2 << 20 };

static size_t large_allocations;

static void on_malloc(const volatile void *p, size_t n)
{
    (void)p;
    large_allocations += n > LARGE;
}

static void on_free(const volatile void *p)
{
    (void)p;
}

void allocations_start(void)
{
    static int installed;
    if (!installed) {
        assert_true(__sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) > 0);
        installed = 1;
    }
    large_allocations = 0;
}

void assert_large_allocations(size_t n)
{
    assert_int_equal(large_allocations, n);
}
#else
void allocations_start(void)
{
}

void assert_large_allocations(size_t n)
{
    (void)n;
}
#endif

void assert_allocations_small(void)
{
    assert_large_allocations(0);
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *ftw)
{
    (void)info;
    (void)type;
    (void)ftw;
    return remove(path);
}

int scratch_setup(void **state)
{
    scratch *s = test_calloc(1, sizeof *s);
    const char *base = getenv("TMPDIR");
    snprintf(s->folder, sizeof s->folder, "%s/vae-test-XXXXXX", base != NULL ? base : "/tmp");
    *state = s;
    return mkdtemp(s->folder) != NULL ? 0 : -1;
}

int scratch_teardown(void **state)
{
    scratch *s = *state;
    int result = nftw(s->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    test_free(s);
    return result;
}

const char *scratch_path(scratch *s, const char *name)
{
    snprintf(s->path, sizeof s->path, "%s/%s", s->folder, name);
    return s->path;
}

const char *scratch_write(scratch *s, const char *name, const void *bytes, size_t n)
{
    scratch_path(s, name);
    for (char *slash = s->path + strlen(s->folder) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(s->path, 0777);
        *slash = '/';
    }
    remove(s->path); /* a new one: cutting the old one short is a millisecond's wait on ext4 */
    FILE *f = fopen(s->path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    return s->path;
}

blob blob_gzip(const blob *plain)
{
    blob b = {.n = 0};
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (uint8_t *)(uintptr_t)plain->bytes;
    z.avail_in = (uInt)plain->n;
    z.next_out = b.bytes;
    z.avail_out = sizeof b.bytes;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    b.n = z.total_out;
    deflateEnd(&z);
    return b;
}

bool dataset_has_test(const char *name)
{
    bool has;
    assert_int_equal(vae_dataset_has_test(&has, name, NULL), VAE_OK);
    return has;
}

vae_dataset *dataset_open_ok(const char *name, vae_split split, size_t limit)
{
    vae_error err = {0};
    vae_dataset *set;
    if (vae_dataset_open(&set, name, split, &(vae_data_options){.limit = limit}, &err) != VAE_OK) {
        fail_msg("%s", err.text);
    }
    return set;
}

void assert_set_refused(const char *name, vae_split split, vae_status status, const char *says)
{
    vae_error err = {0};
    vae_dataset *set = (vae_dataset *)&err;
    allocations_start();
    vae_status got = vae_dataset_open(&set, name, split, NULL, &err);
    assert_allocations_small();
    if (got == VAE_OK) {
        fail_msg("accepted: expected '%s'", says);
    }
    assert_null(set);
    if (got != status || err.status != status || strstr(err.text, says) == NULL) {
        fail_msg("expected status %d and '%s', got %d: %s", (int)status, says, (int)got, err.text);
    }
}

void assert_blob_refused(scratch *s, const blob *b, const char *says)
{
    assert_set_refused(scratch_write(s, "bad", b->bytes, b->n), VAE_SPLIT_TRAIN, VAE_ERR_DATA,
                       says);
}
