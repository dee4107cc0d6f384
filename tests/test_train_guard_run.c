/* guard_run.h, record.h: runs with steps that go wrong on purpose, and what is written of a run. */
#include "train_runs.h"

#include "base/fault.h"
#include "base/log.h"
#include "base/stop.h"
#include "train/loop.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A start in which the n-th step from it has a loss that is not one. */
static err_t train_with(const char *fault, int n, const char *out, bool resume,
                        const char *const *settings)
{
    int64_t step;
    fault_arm(fault, n);
    const err_t rc = runs_train(&step, out, resume, settings);
    fault_arm("", 0);
    return rc;
}

static struct ckpt_state state_of(const char *run, int64_t step)
{
    struct ckpt_state s;
    char path[FILE_PATH_MAX];
    snprintf(path, sizeof path, "%s/ckpt/step-%08lld", run, (long long)step);
    assert_ok(ckpt_state_read(&s, testing_path(path)));
    return s;
}

static void check_state(const char *run, int64_t step, int64_t updates, int64_t rollbacks)
{
    struct ckpt_state s = state_of(run, step);
    assert_int_equal(s.updates, updates);
    assert_int_equal(s.samples, 4 * step);
    assert_int_equal(s.guard.rollbacks, rollbacks);
    assert_int_equal(s.guard.loss.count, updates);
    ckpt_state_clear(&s);
}

static bool has_text(const char *run, const char *text)
{
    struct buf all = { 0 };
    char path[FILE_PATH_MAX];
    snprintf(path, sizeof path, "%s/metrics.jsonl", run);
    runs_read(&all, path);
    const bool found = strstr(all.data, text) != NULL;
    buf_clear(&all);
    return found;
}

/* Seconds of steps first..last by their lines; of a repeated step the last line counts. */
static double seconds_of_steps(const char *run, int64_t first, int64_t last)
{
    struct buf all = { 0 };
    char path[FILE_PATH_MAX];
    double seconds[16] = { 0 }, sum = 0;
    snprintf(path, sizeof path, "%s/metrics.jsonl", run);
    runs_read(&all, path);
    for (const char *line = all.data; line != NULL; line = strstr(line + 1, "{\"step\":")) {
        const char *value = strstr(line, "\"seconds\":"), *end = strchr(line, '\n');
        const int64_t step = strtoll(line + strlen("{\"step\":"), NULL, 10);
        if (strncmp(strchr(line, ','), ",\"epoch\"", 8) != 0) continue;
        assert_true(value != NULL && value < end && step < 16);
        seconds[step] = strtod(value + strlen("\"seconds\":"), NULL);
    }
    for (int64_t i = first; i <= last; i++) sum += seconds[i];
    buf_clear(&all);
    return sum;
}

#define SKIPS "train.on_nonfinite", "skip", "train.keep_last", "9", "train.save_every", "1"
#define ROLLS "train.on_nonfinite", "rollback", "train.keep_last", "9", "train.save_every", "3"

/* A skipped step uses its samples, changes no weight and counts no update; a run interrupted right
 * after it goes on to the same bits. */
static void test_skip(void **state)
{
    (void)state;
    struct buf before = { 0 }, after = { 0 };
    assert_ok(train_with("guard.nan", 5, "skip", false, SETTINGS("train.steps", "8", SKIPS)));
    check_state("skip", 8, 7, 0);
    check_state("skip", 5, 4, 0);
    assert_true(has_text("skip", "{\"step\":5,\"event\":\"skip\",\"cause\":\"loss not finite\","
                                 "\"loss\":null"));
    runs_read(&before, "skip/ckpt/step-00000004/model.0000.safetensors");
    runs_read(&after, "skip/ckpt/step-00000005/model.0000.safetensors");
    assert_int_equal(before.size, after.size);
    assert_memory_equal(before.data, after.data, before.size);
    buf_clear(&before);
    buf_clear(&after);

    assert_ok(train_with("guard.nan", 5, "skip-2", false, SETTINGS("train.steps", "5", SKIPS)));
    assert_ok(train_with("", 0, "skip-2", true, SETTINGS("train.steps", "8", SKIPS)));
    runs_same_checkpoint("skip", "skip-2", 8);

    /* State in host memory: what was fetched for the update that was not made is still good. */
    assert_ok(train_with("guard.nan", 5, "skip-host", false,
                         SETTINGS("train.steps", "8", "train.moments_place", "host", SKIPS)));
    runs_same_checkpoint("skip", "skip-host", 8);
}

/* Back to step 3, step 4 again, step 5 passed over: the weights are those of the run that skipped
 * it. */
static void test_rollback(void **state)
{
    (void)state;
    assert_ok(train_with("guard.nan", 5, "roll", false, SETTINGS("train.steps", "8", ROLLS)));
    check_state("roll", 8, 7, 1);
    check_state("roll", 6, 5, 1);
    runs_same_checkpoint("skip", "roll", 8);
    struct ckpt_state s = state_of("roll", 8);
    assert_int_equal(s.guard.rollbacks, 1);
    assert_true(s.guard.range[0].first == 4 && s.guard.range[0].end == 5);
    ckpt_state_clear(&s);
    assert_true(has_text("roll", "{\"step\":5,\"event\":\"rollback\""));
    assert_true(has_text("roll", "\"restarts\":0,\"repeated_steps\":1}"));
    /* What was undone was of no use; what was saved before it stays. */
    const struct runs_curve useful = runs_curve("roll", "useful_seconds");
    assert_true(useful.count >= 2 && useful.step[0] == 3 && useful.step[1] == 6);
    assert_true(fabs(useful.value[0] - seconds_of_steps("roll", 1, 3)) < 1e-5);
    assert_true(fabs(useful.value[1] - seconds_of_steps("roll", 1, 6)) < 1e-5);

    assert_ok(train_with("guard.nan", 5, "roll-2", false, SETTINGS("train.steps", "6", ROLLS)));
    assert_ok(train_with("", 0, "roll-2", true, SETTINGS("train.steps", "8", ROLLS)));
    runs_same_checkpoint("roll", "roll-2", 8);

    /* Three steps up to the offending one, but none that is in the checkpoint. */
    assert_ok(train_with("guard.nan", 5, "roll-3", false,
                         SETTINGS("train.steps", "8", "train.rollback_skip", "3", ROLLS)));
    check_state("roll-3", 8, 6, 1);
    s = state_of("roll-3", 8);
    assert_true(s.guard.range[0].first == 3 && s.guard.range[0].end == 5);
    ckpt_state_clear(&s);
}

/* Where layers are updated before the loss is known, nothing else helps. */
static void test_rollback_of_released_gradients(void **state)
{
    (void)state;
    assert_ok(train_with("guard.nan", 5, "kept", false,
                         SETTINGS("train.steps", "8", "train.max_grad_norm", "0", ROLLS)));
    assert_ok(train_with("guard.nan", 5, "released", false,
                         SETTINGS("train.steps", "8", "train.max_grad_norm", "0", "train.update",
                                  "backward", "batch.micro_tokens", "2048", ROLLS)));
    check_state("released", 8, 7, 1);
    assert_err(
        train_with("", 0, "x", false,
                   SETTINGS("train.steps", "8", "train.max_grad_norm", "0", "train.update",
                            "backward", "batch.micro_tokens", "2048", "train.on_spike", "skip")),
        USAGE, "train.on_spike is skip");
}

/* A gradient that is NaN before any layer is updated is a step to roll back as well. */
static void test_rollback_before_any_update(void **state)
{
    (void)state;
    const char *const *settings =
        SETTINGS("train.steps", "8", "train.max_grad_norm", "0", "train.update", "backward",
                 "batch.micro_tokens", "2048", ROLLS);
    struct run run;
    assert_ok(train_with("", 0, "at-once", false,
                         SETTINGS("train.steps", "6", "train.max_grad_norm", "0", "train.update",
                                  "backward", "batch.micro_tokens", "2048", ROLLS)));
    struct cfg *cfg = runs_cfg("at-once", settings);
    assert_ok(micro_run_start(&run, cfg, true));
    const int64_t row = glm_params_find(glm_params(run.glm), GLM_FINAL_GAMMA, -1);
    ((float *)glm_weights(run.glm).data)[glm_layout(run.glm)->offset[row]] = NAN;
    assert_ok(loop_run(&run));
    run_close(&run);
    cfg_close(cfg);
    check_state("at-once", 8, 7, 1);
    assert_true(has_text("at-once", "{\"step\":7,\"event\":\"rollback\""));
    assert_ok(train_with("guard.nan", 7, "later", false, settings));
    runs_same_checkpoint("at-once", "later", 8);
}

static void test_what_ends_a_run(void **state)
{
    (void)state;
    assert_err(train_with("guard.nan", 2, "early", false, SETTINGS("train.steps", "8", ROLLS)),
               NUMERIC, "no checkpoint yet");
    assert_err(train_with("guard.nan", 5, "no-rolls", false,
                          SETTINGS("train.steps", "8", "train.rollbacks_max", "0", ROLLS)),
               NUMERIC, "as many rollbacks as train.rollbacks_max");
    assert_err(train_with("guard.nan", 5, "no-skips", false,
                          SETTINGS("train.steps", "8", "train.skips_max", "0", SKIPS)),
               NUMERIC, "as many skipped steps in a row as train.skips_max");
    assert_true(has_text("no-skips", "\"event\":\"guard_stop\",\"cause\":\"loss not finite\""));
    assert_err(train_with("guard.nan", 3, "stops", false, SETTINGS("train.steps", "8")), NUMERIC,
               "step 3: loss nan");
}

/* A spike after enough steps to tell, and what each setting does with it. */
static void test_spikes(void **state)
{
    (void)state;
    const char *const choices[] = { "ignore", "skip", "stop" };
    const char *const names[] = { "spike-ignored", "spike-skipped", "spike-stops" };
    for (int i = 0; i < 3; i++) {
        const err_t rc = train_with("guard.spike", 40, names[i], false,
                                    SETTINGS("train.steps", "42", "train.validate_every", "0",
                                             "train.lr", "1e-4", "train.on_spike", choices[i]));
        if (i == 2) {
            assert_int_equal(rc, ERR_NUMERIC);
            assert_non_null(strstr(err_last()->text, "step 40: "));
            assert_non_null(strstr(err_last()->text, "train.on_spike is stop"));
            continue;
        }
        assert_ok(rc);
        struct ckpt_state s = state_of(names[i], 42);
        assert_int_equal(s.updates, i == 0 ? 42 : 41);
        ckpt_state_clear(&s);
        assert_true(has_text(names[i], i == 0 ? "{\"step\":40,\"event\":\"spike\""
                                              : "{\"step\":40,\"event\":\"skip\""));
    }
}

/* SIGUSR1: a checkpoint between those that are due, and on. SIGUSR2: one, and out. */
static void test_signals(void **state)
{
    (void)state;
    int64_t step;
    const char *const settings[] = { "train.steps", "3", "train.keep_last", "9", NULL };
    testing_signal(SIGUSR1);
    assert_ok(runs_train(&step, "signals", false, settings));
    assert_true(runs_has_checkpoint("signals", 1) && runs_has_checkpoint("signals", 3));
    assert_false(runs_has_checkpoint("signals", 2) || stop_take_save());

    testing_signal(SIGUSR2);
    testing_signal(SIGTERM); /* not the second of two */
    assert_err(runs_train(&step, "signals", true, SETTINGS("train.steps", "9")), INTERRUPTED,
               "continue with --resume");
    assert_int_equal(stop_status(), STOP_STATUS_AGAIN);
    stop_reset();
    assert_int_equal(stop_status(), STOP_STATUS_ASKED);
    assert_true(has_text("signals", "\"event\":\"stop\",\"time\":"));
}

static void test_weights_that_are_not_finite_are_not_saved(void **state)
{
    (void)state;
    struct run run;
    struct cfg *cfg = runs_cfg("unsaved", SETTINGS("train.steps", "3", "train.save_every", "1"));
    assert_ok(micro_run_start(&run, cfg, false));
    run.state.step = 2;
    const int64_t row = glm_params_find(glm_params(run.glm), GLM_FC1_BIAS, 1);
    float *weight = (float *)glm_weights(run.glm).data + glm_layout(run.glm)->offset[row];
    weight[5] = INFINITY;
    testing_signal(SIGTERM);
    assert_err(loop_run(&run), NUMERIC, glm_params(run.glm)->row[row].name);
    stop_reset();
    assert_false(runs_has_checkpoint("unsaved", 2));
    run_close(&run);
    cfg_close(cfg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_skip),
        cmocka_unit_test(test_rollback),
        cmocka_unit_test(test_rollback_of_released_gradients),
        cmocka_unit_test(test_rollback_before_any_update),
        cmocka_unit_test(test_what_ends_a_run),
        cmocka_unit_test(test_spikes),
        cmocka_unit_test(test_signals),
        cmocka_unit_test(test_weights_that_are_not_finite_are_not_saved),
    };
    assert_ok(stop_catch());
    micro_corpus(RUNS_CORPUS, 10, 4);
    assert_ok(log_init("off"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
