/* Shares of rows, and what ranks say to each other: over threads of one process in place of MPI. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ranks/ranks.h"

enum { MOST = 5, ROOM = 1 << 16 };

/* What carries messages here: each rank puts its own, all wait, each takes what it wants. */
static struct {
    pthread_barrier_t barrier;
    char put[MOST][ROOM];
} wire;

static void exchange(const vae_ranks *ranks, const void *own, size_t bytes)
{
    assert_true(bytes <= ROOM);
    memcpy(wire.put[ranks->rank], own, bytes);
    pthread_barrier_wait(&wire.barrier);
}

static void taken(void)
{
    pthread_barrier_wait(&wire.barrier);
}

static vae_status sum_floats(const vae_ranks *ranks, float *v, size_t n, vae_error *err)
{
    (void)err;
    exchange(ranks, v, n * sizeof *v);
    for (size_t i = 0; i < n; i++) {
        v[i] = 0;
        for (size_t r = 0; r < ranks->n; r++) {
            v[i] += ((float *)(void *)wire.put[r])[i];
        }
    }
    taken();
    return VAE_OK;
}

static vae_status most(const vae_ranks *ranks, uint64_t *v, size_t n, vae_error *err)
{
    (void)err;
    exchange(ranks, v, n * sizeof *v);
    for (size_t r = 0; r < ranks->n; r++) {
        for (size_t i = 0; i < n; i++) {
            const uint64_t other = ((uint64_t *)(void *)wire.put[r])[i];
            v[i] = other > v[i] ? other : v[i];
        }
    }
    taken();
    return VAE_OK;
}

static vae_status broadcast(const vae_ranks *ranks, void *from, size_t bytes, size_t root,
                            vae_error *err)
{
    (void)err;
    exchange(ranks, from, bytes);
    memcpy(from, wire.put[root], bytes);
    taken();
    return VAE_OK;
}

static vae_status gather(const vae_ranks *ranks, void *all, const int *bytes, const int *at,
                         vae_error *err)
{
    (void)err;
    exchange(ranks, (char *)all + at[ranks->rank], (size_t)bytes[ranks->rank]);
    for (size_t r = 0; r < ranks->n; r++) {
        memcpy((char *)all + at[r], wire.put[r], (size_t)bytes[r]);
    }
    taken();
    return VAE_OK;
}

static const vae_rank_calls calls = {
    .sum_floats = sum_floats, .most = most, .broadcast = broadcast, .gather = gather};

typedef struct {
    vae_ranks ranks;
    int what;
    vae_status status;
    char text[VAE_ERROR_TEXT];
} one;

/* Runs `body` as n ranks. */
static void as_ranks(one *all, size_t n, int what, void *(*body)(void *))
{
    pthread_t thread[MOST];
    pthread_barrier_init(&wire.barrier, NULL, (unsigned)n);
    for (size_t r = 0; r < n; r++) {
        all[r] = (one){.ranks = {.n = n, .rank = r, .calls = &calls}, .what = what};
        snprintf(all[r].ranks.host, sizeof all[r].ranks.host, "host%zu", r);
        pthread_create(&thread[r], NULL, body, &all[r]);
    }
    for (size_t r = 0; r < n; r++) {
        pthread_join(thread[r], NULL);
    }
    pthread_barrier_destroy(&wire.barrier);
}

static void shares_are_all_rows_as_even_as_can_be(void **state)
{
    (void)state;
    for (size_t n = 1; n <= 9; n++) {
        const vae_ranks ranks = {.n = n};
        const size_t sizes[] = {0, 1, n - 1, n, n + 1, 1000, SIZE_MAX / 2};
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            size_t next = 0;
            for (size_t r = 0; r < n; r++) {
                const vae_share share = vae_ranks_share_of(&ranks, r, sizes[i]);
                assert_true(share.all == sizes[i] && share.first == next);
                assert_true(share.n == sizes[i] / n || share.n == vae_ranks_most(&ranks, sizes[i]));
                next += share.n;
            }
            assert_true(next == sizes[i]);
            assert_true(vae_ranks_most(&ranks, sizes[i]) ==
                        vae_ranks_share_of(&ranks, n - 1, sizes[i]).n);
        }
    }
    const vae_share whole = vae_ranks_share(NULL, 7);
    assert_true(whole.first == 0 && whole.n == 7 && vae_ranks_most(NULL, 7) == 7);
}

/* what: a bit for each rank that fails. */
static void *agree(void *ctx)
{
    one *me = ctx;
    vae_error err = {0};
    vae_status status = VAE_OK;
    if (me->what >> me->ranks.rank & 1) {
        status = vae_fail(&err, me->ranks.rank == 2 ? VAE_ERR_DATA : VAE_ERR_IO, "fault %zu",
                          me->ranks.rank);
    }
    me->status = vae_ranks_all_ok(&me->ranks, status, &err);
    memcpy(me->text, err.text, sizeof me->text);
    return NULL;
}

static void an_error_of_one_is_that_of_all(void **state)
{
    static const struct {
        int failing;
        vae_status status;
        const char *text;
    } cases[] = {{0, VAE_OK, ""},
                 {1, VAE_ERR_IO, "fault 0"},
                 {4, VAE_ERR_DATA, "rank 2 on host2: fault 2"},
                 {6, VAE_ERR_IO, "rank 1 on host1: fault 1"},
                 {7, VAE_ERR_IO, "fault 0"}};
    one all[MOST];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        as_ranks(all, 3, cases[i].failing, agree);
        for (size_t r = 0; r < 3; r++) {
            assert_int_equal(all[r].status, cases[i].status);
            assert_string_equal(all[r].text, cases[i].text);
        }
    }
    vae_error err = {0};
    assert_int_equal(vae_ranks_all_ok(NULL, VAE_ERR_IO, &err), VAE_ERR_IO);
}

/* what: the rank that differs. */
static void *compare(void *ctx)
{
    one *me = ctx;
    vae_error err = {0};
    float v[100] = {1};
    v[99] = (size_t)me->what == me->ranks.rank ? nextafterf(0, 1) : 0;
    me->status = vae_ranks_same(&me->ranks, v, sizeof v, "parameters", &err);
    memcpy(me->text, err.text, sizeof me->text);
    return NULL;
}

static void what_differs_in_a_bit_is_named(void **state)
{
    one all[MOST];
    (void)state;
    for (int different = 1; different <= 4; different++) {
        as_ranks(all, 4, different, compare);
        for (size_t r = 0; r < 4; r++) {
            char text[100];
            snprintf(text, sizeof text, "parameters: rank %d on host%d and rank 0 on host0 differ",
                     different, different);
            assert_int_equal(all[r].status, different < 4 ? VAE_ERR_RUNTIME : VAE_OK);
            assert_string_equal(all[r].text, different < 4 ? text : "");
        }
    }
    assert_int_equal(vae_ranks_same(NULL, all, 1, "", NULL), VAE_OK);
}

/* what: rows, of 3 floats. */
static void *put_together(void *ctx)
{
    one *me = ctx;
    float rows[3 * 40] = {0};
    vae_error err = {0};
    const vae_share share = vae_ranks_share(&me->ranks, (size_t)me->what);
    for (size_t i = 3 * share.first; i < 3 * (share.first + share.n); i++) {
        rows[i] = (float)i + 1;
    }
    me->status = vae_ranks_gather_rows(&me->ranks, rows, (size_t)me->what, 3 * sizeof *rows, &err);
    for (size_t i = 0; i < 3 * 40; i++) {
        const float expected = i < 3 * (size_t)me->what ? (float)i + 1 : 0;
        me->status = rows[i] == expected ? me->status : VAE_ERR_RUNTIME;
    }
    return NULL;
}

static void rows_come_together_in_order(void **state)
{
    one all[MOST];
    (void)state;
    for (int rows = 0; rows <= 40; rows += 3) {
        as_ranks(all, 5, rows, put_together);
        for (size_t r = 0; r < 5; r++) {
            assert_int_equal(all[r].status, VAE_OK);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_are_all_rows_as_even_as_can_be),
        cmocka_unit_test(an_error_of_one_is_that_of_all),
        cmocka_unit_test(what_differs_in_a_bit_is_named),
        cmocka_unit_test(rows_come_together_in_order),
    };
    return cmocka_run_group_tests_name("ranks", tests, NULL, NULL);
}
