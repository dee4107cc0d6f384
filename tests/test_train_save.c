/* train.save: runs whose checkpoints are written behind the steps have the same bytes in them as
 * runs that wait, whatever updates do to the state meanwhile; and what fails or stops there. */
#include "train_runs.h"

#include "base/check.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/stop.h"
#include "ckpt_fixture.h"
#include "train/host_room.h"
#include "train/loop.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEPS 9

/* A checkpoint of a run below testing_dir(); borrowed, good for two calls. */
static const char *step_dir(const char *run, int64_t step)
{
    static char dir[2][FILE_PATH_MAX];
    static int turn;
    char *out = dir[turn++ % 2];
    snprintf(out, FILE_PATH_MAX, "%s/ckpt/step-%08lld", run, (long long)step);
    return out;
}

static struct cfg *save_cfg(const char *out, const char *save, const char *const *settings)
{
    struct cfg *cfg = runs_cfg(out, settings);
    micro_set(cfg, "train.steps", "9");
    micro_set(cfg, "train.save_every", "1");
    micro_set(cfg, "train.keep_last", "20");
    micro_set(cfg, "train.validate_every", "4");
    micro_set(cfg, "train.save", save);
    return cfg;
}

static err_t train(const char *out, const char *save, const char *const *settings, bool resume)
{
    struct run run;
    struct cfg *cfg = save_cfg(out, save, settings);
    err_t rc = micro_run_start(&run, cfg, resume);
    if (rc == ERR_OK) rc = loop_run(&run);
    run_close(&run);
    cfg_close(cfg);
    return rc;
}

/* Every file of every step, manifest and state.json too: the digests of the checkpoints. */
static void test_same_bytes(void **state)
{
    (void)state;
    static const char *const kinds[][12] = {
        { NULL },
        { "train.moments_place", "host", NULL },
        { "train.moments", "8bit", "batch.lanes", "2", NULL },
        { "train.update", "backward", "train.max_grad_norm", "0", "batch.micro_tokens", "2048",
          NULL },
        { "batch.unit", "tokens", "batch.size", "256", "batch.pack_len", "128", NULL },
    };
    for (int64_t k = 0; k < COUNT_OF(kinds); k++) {
        char behind[32], waited[32];
        snprintf(behind, sizeof behind, "behind-%d", (int)k);
        snprintf(waited, sizeof waited, "waited-%d", (int)k);
        assert_ok(train(behind, "background", kinds[k], false));
        assert_ok(train(waited, "wait", kinds[k], false));
        for (int64_t step = 1; step <= STEPS; step++) {
            assert_ok(ckpt_verify(testing_path(step_dir(behind, step))));
            ckpt_assert_same(testing_path(step_dir(behind, step)),
                             testing_path(step_dir(waited, step)));
        }
    }
    const struct runs_curve saves = runs_curve("behind-0", "useful_seconds");
    assert_int_equal(saves.count, STEPS + 1); /* and the last line, on the whole run */
}

/* Which checkpoints stay is decided when they are in place, in the order of saving. */
static void test_keeping(void **state)
{
    (void)state;
    static const char *const saves[] = { "background", "wait" };
    struct buf best[2] = { { 0 }, { 0 } };
    for (int i = 0; i < 2; i++) {
        int64_t step;
        assert_ok(
            runs_train(&step, saves[i], false,
                       SETTINGS("train.steps", "9", "train.save_every", "1", "train.keep_last", "2",
                                "train.keep_best", "true", "train.validate_every", "2", "train.lr",
                                "3e-2", "train.save", saves[i])));
        char path[64];
        snprintf(path, sizeof path, "%s/ckpt/best.json", saves[i]);
        runs_read(&best[i], path);
        assert_true(runs_has_checkpoint(saves[i], 8) && runs_has_checkpoint(saves[i], 9));
        assert_false(runs_has_checkpoint(saves[i], 7) && runs_has_checkpoint(saves[i], 5));
    }
    assert_string_equal(best[0].data, best[1].data);
    for (int64_t step = 1; step <= 9; step++)
        assert_int_equal(runs_has_checkpoint("background", step),
                         runs_has_checkpoint("wait", step));
    buf_clear(&best[0]);
    buf_clear(&best[1]);
}

/* Where the copy finds no room, training waits, and all else is as it was. */
static void test_no_room_for_the_copy(void **state)
{
    (void)state;
    struct run run;
    struct cfg *cfg = save_cfg("no-room", "background", SETTINGS(NULL));
    assert_ok(micro_run_start(&run, cfg, false));
    fault_arm("dev.host_alloc", 1);
    assert_ok(loop_run(&run));
    fault_arm("", 0);
    run_close(&run);
    cfg_close(cfg);
    for (int64_t step = 1; step <= STEPS; step++)
        ckpt_assert_same(testing_path(step_dir("no-room", step)),
                         testing_path(step_dir("waited-0", step)));
}

/* One byte in sixteen stays free, to the byte. */
static void test_host_room(void **state)
{
    (void)state;
    assert_true(host_room_holds(1600, 1500));
    assert_false(host_room_holds(1600, 1501));
    assert_true(host_room_holds(1615, 1515)); /* the spare part is rounded down */
    assert_false(host_room_holds(1615, 1516));
    assert_true(host_room_holds(0, 0));
    assert_false(host_room_holds(0, 1));
    assert_true(host_room_holds(INT64_MAX, INT64_MAX / 16 * 15));
    assert_false(host_room_holds(INT64_MAX, INT64_MAX));

    assert_true(host_room() > 0);
    assert_ok(host_room_check(1, NULL, "a copy"));
    assert_err(host_room_check(INT64_MAX, NULL, "a copy"), NOMEM, "a copy: 9223372036");
}

/* The n-th write, sync or rename fails, behind training or not: the run ends with its line, what
 * was in place stays, and the run goes on from there to the same bits. */
static void test_failures(void **state)
{
    (void)state;
    static const char *const sites[] = { "file.", "ckpt.", "dir." };
    int failures = 0;
    for (int i = 0; i < 24; i++) {
        struct run run;
        int64_t newest;
        struct cfg *cfg = save_cfg("failing", "background", SETTINGS(NULL));
        assert_ok(dir_remove(testing_path("failing")));
        assert_ok(micro_run_start(&run, cfg, false));
        fault_arm(sites[i % 3], 1 + i / 3 * 5);
        const err_t rc = loop_run(&run);
        if (rc != ERR_OK) {
            failures++;
            assert_int_equal(rc, ERR_IO);
            assert_non_null(strstr(err_last()->text, "injected fault at "));
        }
        fault_arm("", 0);
        run_close(&run);
        cfg_close(cfg);
        assert_ok(ckpt_newest(&newest, testing_path("failing/ckpt"), NULL));
        for (int64_t step = 1; step <= STEPS; step++)
            if (runs_has_checkpoint("failing", step))
                ckpt_assert_same(testing_path(step_dir("failing", step)),
                                 testing_path(step_dir("waited-0", step)));
        assert_ok(train("failing", "background", SETTINGS(NULL), true));
        ckpt_assert_same(testing_path(step_dir("failing", STEPS)),
                         testing_path(step_dir("waited-0", STEPS)));
    }
    assert_true(failures > 8);
}

/* What was begun is in place when the loop is over, however it ends. */
static void test_ends(void **state)
{
    (void)state;
    struct run run;
    struct cfg *cfg = save_cfg("ends", "background", SETTINGS(NULL));
    assert_ok(micro_run_start(&run, cfg, false));
    fault_arm("guard.nan", 4); /* train.on_nonfinite is stop */
    assert_err(loop_run(&run), NUMERIC, "step 4: loss");
    fault_arm("", 0);
    assert_true(runs_has_checkpoint("ends", 3));
    testing_signal(SIGTERM);
    assert_err(loop_run(&run), INTERRUPTED, "continue with --resume");
    stop_reset();
    assert_true(run.step_saved == 3);
    run.total_steps = 5;
    assert_ok(loop_run(&run));
    assert_true(runs_has_checkpoint("ends", 5));
    ckpt_assert_same(testing_path(step_dir("ends", 3)), testing_path(step_dir("waited-0", 3)));

    /* A failed one is said when the run stops, too. */
    run.total_steps = 6;
    micro_set(cfg, "train.save_every", "0");
    fault_arm("ckpt.rename", 1);
    assert_err(loop_run(&run), IO, "injected fault at ckpt.rename");
    fault_arm("", 0);
    assert_false(runs_has_checkpoint("ends", 6));
    run_close(&run);
    cfg_close(cfg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_keeping),
        cmocka_unit_test(test_no_room_for_the_copy),
        cmocka_unit_test(test_host_room),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_ends),
    };
    assert_ok(stop_catch());
    micro_corpus(RUNS_CORPUS, 10, 4);
    assert_ok(log_init("off"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
