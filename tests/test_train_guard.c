/* guard.h: the decision alone. */
#include "testing.h"

#include "base/check.h"
#include "base/rng.h"
#include "train/guard.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct guard_rules rules = { .on_spike = GUARD_SKIP,
                                          .on_nonfinite = GUARD_ROLLBACK,
                                          .sigmas = 6,
                                          .skips_max = 3,
                                          .rollbacks_max = 2,
                                          .rollback_skip = 4 };

/* Near 2 and near 1, as a run's are; the same for the same i. */
static double loss_at(int64_t i) { return 2.0 + 0.1 * sin(1.7 * (double)i); }
static double norm_at(int64_t i) { return 1.0 + 0.2 * sin(2.3 * (double)i); }

static struct guard_decision decide(struct guard_state *s, double loss, double norm)
{
    struct guard_decision d;
    guard_decide(&d, s, &rules, loss, norm);
    return d;
}

static struct guard_state after(int64_t steps)
{
    struct guard_state s = { 0 };
    for (int64_t i = 0; i < steps; i++) {
        const struct guard_decision d = decide(&s, loss_at(i), norm_at(i));
        assert_int_equal(d.action, GUARD_APPLY);
        assert_int_equal(d.cause, GUARD_FINE);
    }
    return s;
}

/* By hand: 1 .. 33 has median 17 and MAD 8. */
static void test_limit(void **state)
{
    (void)state;
    struct guard_series s = { .count = 0 };
    for (int i = 0; i < 33; i++) s.value[s.count++] = (double)(i * 10 % 33 + 1);
    assert_true(fabs(guard_limit(&s, 6) - (17 + 6 * 1.4826 * 8)) < 1e-12);
    s.count = GUARD_WINDOW_MIN - 1;
    assert_true(isinf(guard_limit(&s, 6)));
    /* Values that do not differ: 1 % of them counts as the deviation. */
    for (s.count = 0; s.count < 40; s.count++) s.value[s.count] = 5;
    assert_true(fabs(guard_limit(&s, 6) - 5.3) < 1e-12);
}

static void test_spikes(void **state)
{
    (void)state;
    struct guard_state s = after(GUARD_WINDOW_MIN - 1);
    assert_int_equal(decide(&s, 50, 1).action, GUARD_APPLY); /* too early to tell */
    s = after(200);
    assert_int_equal(s.loss.count, GUARD_WINDOW);
    assert_true(s.loss.value[0] == loss_at(72) && s.loss.value[127] == loss_at(199));
    struct guard_decision d = decide(&s, 9, 1);
    assert_int_equal(d.action, GUARD_SKIP);
    assert_int_equal(d.cause, GUARD_LOSS_SPIKE);
    assert_true(d.limit > 2.1 && d.limit < 4);
    d = decide(&s, 2, 30);
    assert_int_equal(d.cause, GUARD_NORM_SPIKE);
    assert_int_equal(s.skips_in_row, 2);
    d = decide(&s, 1e-3, 1e-3); /* lower is no spike */
    assert_int_equal(d.action, GUARD_APPLY);
    assert_int_equal(s.skips_in_row, 0);
}

/* A NaN leaves no trace: the next outlier is still found, and the window is as it was. */
static void test_nan_leaves_no_trace(void **state)
{
    (void)state;
    const double bad[][2] = { { NAN, 1 },       { 2, NAN },     { INFINITY, 1 }, { 2, INFINITY },
                              { -INFINITY, 1 }, { -NAN, -NAN }, { 0, 1 },        { -0.0, 1 } };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        const struct guard_state before = after(150);
        struct guard_state s = before;
        const struct guard_decision d = decide(&s, bad[i][0], bad[i][1]);
        assert_int_equal(d.action, GUARD_ROLLBACK);
        assert_memory_equal(&s, &before, sizeof s);
        assert_int_equal(decide(&s, 9, 1).cause, GUARD_LOSS_SPIKE);
    }
}

/* A lasting change of level is an alarm for half a window and the rule from then on. */
static void test_new_level(void **state)
{
    (void)state;
    struct guard_state s = after(GUARD_WINDOW);
    struct guard_rules lax = rules;
    struct guard_decision d;
    lax.on_spike = GUARD_APPLY;
    int64_t alarms = 0;
    for (int64_t i = 0; i < 300; i++) {
        guard_decide(&d, &s, &lax, 5 + loss_at(i), norm_at(i));
        alarms += d.cause == GUARD_LOSS_SPIKE;
        if (i >= GUARD_WINDOW / 2) assert_int_equal(d.cause, GUARD_FINE);
    }
    assert_in_range(alarms, 40, GUARD_WINDOW / 2);
}

static void test_limits_of_count(void **state)
{
    (void)state;
    struct guard_state s = after(64);
    for (int i = 0; i < 3; i++) assert_int_equal(decide(&s, 9, 1).action, GUARD_SKIP);
    struct guard_decision d = decide(&s, 9, 1);
    assert_true(d.action == GUARD_STOP && d.limit_of_count);
    s = after(64);
    s.rollbacks = 2;
    d = decide(&s, NAN, 1);
    assert_true(d.action == GUARD_STOP && d.limit_of_count);
}

static void test_rollback_ranges(void **state)
{
    (void)state;
    struct guard_state before = after(10), s = { 0 };
    guard_note_rollback(&s, &before, &rules, 20, 15); /* 4 steps up to 20, and none before 15 */
    assert_int_equal(s.rollbacks, 1);
    for (int64_t i = 0; i < 30; i++) assert_true(guard_passes_over(&s, i) == (i >= 17 && i <= 20));
    before = s;
    memset(&s, 0, sizeof s); /* the checkpoint was older than the first rollback */
    guard_note_rollback(&s, &before, &rules, 22, 21);
    assert_int_equal(s.rollbacks, 2);
    for (int64_t i = 0; i < 30; i++) assert_true(guard_passes_over(&s, i) == (i >= 17 && i <= 22));
}

/* Through state.json and back, at any step, decisions stay what they were. */
static void test_state_is_whole(void **state)
{
    (void)state;
    struct guard_state s = { 0 };
    for (int64_t i = 0; i < 400; i++) {
        const double u = (double)(rng_permute(5, RNG_SHUFFLE, i, 400)) / 400.0;
        const double loss = u < 0.05 ? NAN : u < 0.1 ? 7 : loss_at(i) + u / 3;
        if (i == 200) guard_note_rollback(&s, &s, &rules, 199, 190);
        json_t *json = guard_state_to_json(&s);
        char *text = json_dumps(json, 0);
        json_decref(json);
        json = json_loads(text, 0, NULL);
        free(text);
        struct guard_state copy;
        assert_ok(guard_state_from_json(&copy, json, "state.json"));
        json_decref(json);
        const struct guard_decision a = decide(&s, loss, norm_at(i)),
                                    b = decide(&copy, loss, norm_at(i));
        assert_true(a.action == b.action && a.cause == b.cause && a.limit == b.limit);
        assert_int_equal(copy.loss.count, s.loss.count);
        assert_memory_equal(copy.loss.value, s.loss.value, (size_t)s.loss.count * sizeof(double));
        assert_int_equal(copy.rollbacks, s.rollbacks);
        if (s.rollbacks > 1) s.rollbacks = 1;
    }
}

static void test_hostile_state(void **state)
{
    (void)state;
    const struct {
        const char *text, *part;
    } cases[] = {
        { "[]", "guard" },
        { "{\"loss\":[]}", "guard" },
        { "{\"loss\":[1],\"grad_norm\":[\"x\"],\"skips_in_row\":0,\"rollbacks\":0,"
          "\"passed_over\":[]}",
          "no number" },
        { "{\"loss\":{},\"grad_norm\":[],\"skips_in_row\":0,\"rollbacks\":0,\"passed_over\":[]}",
          "no list" },
        { "{\"loss\":[],\"grad_norm\":[],\"skips_in_row\":-1,\"rollbacks\":0,\"passed_over\":[]}",
          "skips_in_row -1" },
        { "{\"loss\":[],\"grad_norm\":[],\"skips_in_row\":0,\"rollbacks\":65,\"passed_over\":[]}",
          "rollbacks 65" },
        { "{\"loss\":[],\"grad_norm\":[],\"skips_in_row\":0,\"rollbacks\":1,"
          "\"passed_over\":[[3,3]]}",
          "no range" },
        { "{\"loss\":[],\"grad_norm\":[],\"skips_in_row\":0,\"rollbacks\":1,\"passed_over\":[7]}",
          "no range" },
        { "{\"loss\":[],\"grad_norm\":[],\"skips_in_row\":0,\"rollbacks\":0,"
          "\"passed_over\":[[3,4]]}",
          "no list of 0 ranges" },
    };
    struct guard_state s;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        json_t *json = json_loads(cases[i].text, 0, NULL);
        assert_non_null(json);
        assert_err(guard_state_from_json(&s, json, "x.json"), FORMAT, cases[i].part);
        json_decref(json);
    }
    json_t *json = json_pack("{s:[], s:o, s:i, s:i, s:[]}", "loss", "grad_norm", json_array(),
                             "skips_in_row", 0, "rollbacks", 0, "passed_over");
    for (int i = 0; i <= GUARD_WINDOW; i++)
        json_array_append_new(json_object_get(json, "grad_norm"), json_real(1));
    assert_err(guard_state_from_json(&s, json, "x.json"), FORMAT, "at most 128");
    json_decref(json);
    assert_ok(guard_state_from_json(&s, NULL, "x.json"));
    assert_int_equal(s.loss.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_spikes),
        cmocka_unit_test(test_nan_leaves_no_trace),
        cmocka_unit_test(test_new_level),
        cmocka_unit_test(test_limits_of_count),
        cmocka_unit_test(test_rollback_ranges),
        cmocka_unit_test(test_state_is_whole),
        cmocka_unit_test(test_hostile_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
