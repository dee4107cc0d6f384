/* goodput.h, supervise.h: what a run's record says of its time, and when to start again. */
#include "testing.h"

#include "base/file.h"
#include "train/goodput.h"
#include "train/supervise.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *path(void)
{
    static char out[FILE_PATH_MAX];
    snprintf(out, sizeof out, "%s/metrics.jsonl", testing_dir());
    return out;
}

static struct goodput open_after(const char *text, int64_t step)
{
    struct goodput g;
    assert_ok(file_replace(path(), text, (int64_t)strlen(text)));
    assert_ok(goodput_open(&g, path(), step));
    return g;
}

#define STEP(k) "{\"step\":" #k ",\"loss\":null,\"lr\":1,\"grad_norm\":1,\"seconds\":2}\n"
#define START   "{\"step\":0,\"event\":\"start\",\"time\":1000.000}\n"

/* Killed after step 5, resumed at 4, killed after 6 between the checkpoint and its line, resumed at
 * 6, stopped at 7 for an hour. */
static void test_a_life(void **state)
{
    (void)state;
    const char *text = START "{\"step\":0,\"validation_loss\":9}\n" STEP(1) STEP(2) STEP(3) STEP(
        4) "{\"step\":4,\"event\":\"save\",\"time\":1009.000,\"seconds\":1,\"useful_seconds\":7.5}"
           "\n" STEP(5) "{\"step\":6,\"loss\":2.\n"
                        "{\"step\":4,\"event\":\"resume\",\"time\":1020.000}\n" STEP(5)
                            STEP(6) "{\"step\":6,\"event\":\"resume\",\"time\":1030.000}\n" STEP(
                                7) "{\"step\":7,\"event\":\"stop\",\"time\":1033.000}\n";
    struct goodput g = open_after(text, 7);
    assert_int_equal(g.restarts, 3);
    assert_int_equal(g.repeated, 1);
    assert_true(fabs(g.useful_s - (7.5 + 3 * 2)) < 1e-9);
    assert_true(fabs(g.before_s - 33) < 1e-6); /* the time since the stop does not count */
    g = open_after(text, 4);                   /* the newer ones were damaged */
    assert_int_equal(g.repeated, 4);
    assert_true(fabs(g.useful_s - 7.5) < 1e-9);
    const struct goodput_report r = goodput_now(&g);
    assert_true(r.wall_s >= 33 && r.wall_s < 100 && r.share > 0 && r.share <= 7.5 / 33);
}

/* Back from step 4 to 2 in one start; the steps done twice are as many after the next one. */
static void test_rollback(void **state)
{
    (void)state;
    const char *text = START STEP(1) STEP(2) STEP(3)
        STEP(4) "{\"step\":5,\"event\":\"rollback\",\"cause\":\"x\"}\n" STEP(3) STEP(4) STEP(5);
    const struct goodput g = open_after(text, 5);
    assert_int_equal(g.repeated, 2);
    assert_true(fabs(g.useful_s - 5 * 2) < 1e-9);
}

static void test_hostile_lines(void **state)
{
    (void)state;
    struct goodput g;
    assert_ok(goodput_open(&g, "/nonexistent/metrics.jsonl", 5));
    assert_true(g.before_s == 0 && g.restarts == 0);
    assert_int_equal(open_after("", 3).restarts, 0);
    assert_int_equal(open_after("{\"step\":3,\"event\":\"resume\"}\n" STEP(4), 4).restarts, 0);
    g = open_after("[]\n\n{}\n\"x\"\n{\"step\":\"x\",\"lr\":1}\n{\"step\":-5,\"lr\":1}\n"
                   "{\"step\":900000000000,\"lr\":1,\"seconds\":1}\n" START STEP(1) "{\"step\":2",
                   1);
    assert_int_equal(g.restarts, 1);
    assert_true(fabs(g.useful_s - 2) < 1e-9);
    assert_err(goodput_open(&g, testing_dir(), 1), IO, "");
}

static void test_ends(void **state)
{
    (void)state;
    static const int final[] = { 0, 2, 79, 127, 130 }, again[] = { 1, 75, 134, 137, 139, 143 };
    for (int i = 0; i < 5; i++) assert_false(supervise_is_crash(final[i]));
    for (int i = 0; i < 6; i++) assert_true(supervise_is_crash(again[i]));
    static const double pauses[] = { 0, 0, 1, 2, 4, 8, 16, 32, 60, 60 };
    for (int i = 0; i < 10; i++) assert_true(supervise_pause_s(i) == pauses[i]);
    assert_true(supervise_pause_s(1000000) == 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_life),
        cmocka_unit_test(test_rollback),
        cmocka_unit_test(test_hostile_lines),
        cmocka_unit_test(test_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
