/* How many threads a step is worth: on machines that are made up, by a clock of theirs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/team_size.h"

/* Seconds that a step takes with n threads, `at` seconds after the beginning. */
typedef double machine_fn(double at, int n);

typedef struct {
    vae_team_size team;
    machine_fn *step;
    double at, noise; /* a step takes up to this part more or less */
    uint64_t rng;
} course;

static double uniform(uint64_t *rng)
{
    *rng = *rng * 6364136223846793005u + 1442695040888963407u;
    return (double)(*rng >> 40) / (double)(1 << 24);
}

/* Goes on for so many seconds. Returns how many the steps would have taken at the best number. */
static double go_on(course *c, double seconds)
{
    const double end = c->at + seconds;
    double least = 0;
    while (c->at < end) {
        double best = c->step(c->at, 1);
        for (int n = 2; n <= c->team.most; n++) {
            const double took = c->step(c->at, n);
            best = took < best ? took : best;
        }
        const int n = vae_team_size_next(&c->team);
        assert_in_range(n, 1, c->team.most);
        const double took = c->step(c->at, n) * (1 + c->noise * (2 * uniform(&c->rng) - 1));
        vae_team_size_took(&c->team, took);
        c->at += took;
        least += best;
    }
    return least / seconds;
}

static course begin(machine_fn *step, int most, double noise)
{
    return (course){.team = {.most = most}, .step = step, .noise = noise, .rng = 7};
}

static int settled(const course *c)
{
    return c->team.most - c->team.fewer;
}

static double scales(double at, int n)
{
    (void)at;
    return 0.02 / n;
}

static double takes_long(double at, int n)
{
    (void)at;
    return 6.0 / n;
}

/* Another process from 10 s to 30 s, for which threads that share loops wait. */
static double is_busy_for_a_while(double at, int n)
{
    const bool busy = at >= 10 && at < 30;
    return n == 1 ? 1e-3 : busy ? 1.3e-3 : 0.6e-3;
}

/* What does not scale, and what each thread costs: best with ten. */
static double has_an_optimum(double at, int n)
{
    (void)at;
    return 1e-3 + 10e-3 / n + 0.1e-3 * n;
}

static double does_not_care(double at, int n)
{
    (void)at;
    (void)n;
    return 3e-3;
}

static void all_threads_stay_where_they_pay(void **state)
{
    (void)state;
    const double noises[] = {0, 0.1, 0.3};
    for (int most = 1; most <= 64; most = most == 1 ? 2 : 4 * most) {
        for (size_t i = 0; i < sizeof noises / sizeof noises[0]; i++) {
            course c = begin(scales, most, noises[i]);
            assert_true(go_on(&c, 10) > 0.95);
            assert_true(go_on(&c, 100) > 0.98);
            assert_int_equal(settled(&c), most);
        }
    }
}

static void trials_of_long_steps_are_rare(void **state)
{
    (void)state;
    course c = begin(takes_long, 2, 0);
    assert_true(go_on(&c, 59) > 0.98); /* none yet */
    assert_true(go_on(&c, 3000) > 0.98);
}

static void fewer_threads_run_while_others_want_their_processors(void **state)
{
    (void)state;
    course c = begin(is_busy_for_a_while, 2, 0.1);
    assert_true(go_on(&c, 10) > 0.97);
    assert_int_equal(settled(&c), 2);
    (void)go_on(&c, 1);
    assert_int_equal(settled(&c), 1);
    assert_true(go_on(&c, 19) > 0.97);
    assert_int_equal(settled(&c), 1);
    (void)go_on(&c, 2);
    assert_int_equal(settled(&c), 2);
    assert_true(go_on(&c, 20) > 0.97);
}

static void the_best_number_is_found_among_many(void **state)
{
    (void)state;
    course c = begin(has_an_optimum, 64, 0.02);
    (void)go_on(&c, 20);
    assert_in_range(settled(&c), 7, 16);
    assert_true(go_on(&c, 100) > 0.9);
}

static void a_number_that_makes_no_difference_stays(void **state)
{
    (void)state;
    course c = begin(does_not_care, 8, 0.01);
    (void)go_on(&c, 100);
    assert_int_equal(settled(&c), 8);
}

static void a_fixed_number_stays(void **state)
{
    (void)state;
    course c = begin(has_an_optimum, 64, 0);
    c.team.fixed = true;
    for (int i = 0; i < 100; i++) {
        (void)go_on(&c, 0.5);
        assert_int_equal(vae_team_size_next(&c.team), 64);
        assert_int_equal(c.team.steps, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_threads_stay_where_they_pay),
        cmocka_unit_test(trials_of_long_steps_are_rare),
        cmocka_unit_test(fewer_threads_run_while_others_want_their_processors),
        cmocka_unit_test(the_best_number_is_found_among_many),
        cmocka_unit_test(a_number_that_makes_no_difference_stays),
        cmocka_unit_test(a_fixed_number_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
