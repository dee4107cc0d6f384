/* run.h, loop.h, resume.h: whole runs of a small model, in one process. */
#include "train_runs.h"

#include "base/check.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/stop.h"
#include "train/guard_run.h"
#include "train/loop.h"
#include "train/resume.h"
#include "train/snapshot.h"
#include "train/step.h"

#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- learning ---- */

/* One batch, over and over: the model can learn it by heart. */
static void test_overfit(void **state)
{
    (void)state;
    int64_t step;
    micro_corpus("one-batch", 2, 0);
    const char *corpus = testing_path("one-batch");
    assert_ok(runs_train(&step, "overfit", false,
                         SETTINGS("data.dir", corpus, "batch.size", "3", "train.steps", "150",
                                  "train.lr", "1e-2", "train.warmup_steps", "10")));
    const struct runs_curve loss = runs_curve("overfit", "loss");
    assert_int_equal(loss.count, 150);
    assert_true(fabs(loss.value[0] - log(1000.0)) < 0.1);
    if (loss.value[149] > 0.05) fail_msg("loss %.3f after 150 steps", loss.value[149]);
    assert_int_equal(runs_curve("overfit", "validation_loss").count, 0);
}

/* When things happen: validation before the first step, where due, and once at the end. */
static void test_validation_falls(void **state)
{
    (void)state;
    int64_t step;
    assert_ok(runs_train(&step, "falls", false,
                         SETTINGS("train.steps", "25", "train.validate_every", "10",
                                  "train.log_every", "5", "train.save_every", "10",
                                  "train.keep_last", "9", "train.lr", "3e-3")));
    assert_int_equal(step, 25);
    const struct runs_curve v = runs_curve("falls", "validation_loss"),
                            l = runs_curve("falls", "loss");
    const int64_t validated[] = { 0, 10, 20, 25 }, logged[] = { 5, 10, 15, 20, 25 };
    assert_int_equal(v.count, 4);
    assert_memory_equal(v.step, validated, sizeof validated);
    assert_int_equal(l.count, 5);
    assert_memory_equal(l.step, logged, sizeof logged);
    assert_true(fabs(v.value[0] - log(1000.0)) < 0.1);
    assert_true(v.value[1] < v.value[0] - 0.2 && v.value[2] < v.value[1]);
    assert_true(runs_has_checkpoint("falls", 10) && runs_has_checkpoint("falls", 20) &&
                runs_has_checkpoint("falls", 25));
    assert_false(runs_has_checkpoint("falls", 0) || runs_has_checkpoint("falls", 5));
}

/* Validation samples are longer here than any of training, and a step may hold but one. */
static void test_longer_validation_samples(void **state)
{
    (void)state;
    int64_t step;
    micro_corpus("short", 1, 5);
    const char *corpus = testing_path("short");
    assert_ok(runs_train(&step, "longer", false,
                         SETTINGS("data.dir", corpus, "batch.size", "1", "train.steps", "1")));
    assert_int_equal(runs_curve("longer", "validation_loss").count, 2);
}

/* ---- interruption and resume ---- */

static void test_resume_has_the_same_bits(void **state)
{
    (void)state;
    int64_t step;
    assert_ok(runs_train(&step, "whole", false, SETTINGS("train.steps", "7", "batch.lanes", "3")));
    assert_ok(runs_train(&step, "halves", false, SETTINGS("train.steps", "3", "batch.lanes", "3")));
    assert_ok(runs_train(&step, "halves", true, SETTINGS("train.steps", "7", "batch.lanes", "3")));
    assert_int_equal(step, 7);
    runs_same_checkpoint("whole", "halves", 7);

    struct ckpt_state s;
    assert_ok(ckpt_state_read(&s, testing_path("halves/ckpt/step-00000007")));
    assert_int_equal(s.updates, 7);
    assert_int_equal(s.samples, 28);
    assert_int_equal(s.stream_index, 28);
    assert_int_equal(s.lanes, 3);
    ckpt_state_clear(&s);
}

/* Another version of the program, with the same formats, is a warning. */
static void test_resume_of_another_version(void **state)
{
    (void)state;
    int64_t step;
    struct run run;
    struct cfg *cfg = runs_cfg("older", SETTINGS("train.steps", "3", "batch.lanes", "3"));
    assert_ok(micro_run_start(&run, cfg, false));
    strcpy(run.state.program, "0.0.1");
    assert_ok(loop_run(&run));
    run_close(&run);
    cfg_close(cfg);
    assert_ok(runs_train(&step, "older", true, SETTINGS("train.steps", "7", "batch.lanes", "3")));
    runs_same_checkpoint("whole", "older", 7);
}

/* SIGTERM to this process in a quarter of a second. */
static void signal_soon(timer_t timer)
{
    const struct itimerspec soon = { .it_value = { .tv_nsec = 250000000 } };
    assert_int_equal(timer_settime(timer, 0, &soon, NULL), 0);
}

/* A signal at some moment: what was done is saved, going on from there changes no bit, and no
 * validation is left out. */
static void test_stop_at_any_moment(void **state)
{
    (void)state;
    const char *const settings[] = {
        "train.steps", "1000000", "train.save_every", "50", "train.validate_every", "1", NULL
    };
    struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGTERM };
    timer_t timer;
    int64_t stopped = 0, step;
    char steps[32];
    assert_int_equal(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    for (int start = 0; start < 2; start++) {
        signal_soon(timer);
        assert_err(runs_train(&step, "stopped", true, settings), INTERRUPTED,
                   "continue with --resume");
        stop_reset();
        assert_true(step >= stopped);
        if (step > 0) assert_true(runs_has_checkpoint("stopped", step));
        stopped = step;
    }
    timer_delete(timer);
    snprintf(steps, sizeof steps, "%lld", (long long)stopped + 2);
    assert_ok(runs_train(&step, "stopped", true, SETTINGS("train.steps", steps)));
    assert_ok(runs_train(&step, "unstopped", true, SETTINGS("train.steps", steps)));
    runs_same_checkpoint("stopped", "unstopped", stopped + 2);
    const struct runs_curve v = runs_curve("stopped", "validation_loss");
    int64_t next = 0;
    for (int64_t i = 0; i < v.count; i++) next += v.step[i] == next;
    assert_int_equal(next, stopped + 1);
}

/* A stop right after a checkpoint does not write it again; a stop before anything writes nothing.
 */
static void test_saved_once(void **state)
{
    (void)state;
    struct run run;
    struct cfg *cfg = runs_cfg("once", SETTINGS("train.steps", "4"));
    assert_ok(micro_run_start(&run, cfg, false));
    testing_signal(SIGTERM);
    assert_err(loop_run(&run), INTERRUPTED, "stopped after step 0 of 4");
    assert_false(runs_has_checkpoint("once", 0));
    stop_reset();
    assert_ok(loop_run(&run));
    assert_int_equal(run.step_saved, 4);

    assert_int_equal(unlink(testing_path("once/ckpt/step-00000004/MANIFEST.json")), 0);
    run.total_steps = 5;
    testing_signal(SIGINT);
    assert_err(loop_run(&run), INTERRUPTED, "stopped after step 4 of 5");
    stop_reset();
    assert_false(runs_has_checkpoint("once", 4)); /* still without a manifest: not written again */
    run_close(&run);
    cfg_close(cfg);
}

/* A finished run is left as it is. */
static void test_resume_of_a_finished_run(void **state)
{
    (void)state;
    struct run run;
    int64_t step;
    struct buf before = { 0 }, after = { 0 };
    assert_ok(runs_train(&step, "finished", false, SETTINGS("train.steps", "2")));
    runs_read(&before, "finished/metrics.jsonl");
    struct cfg *cfg = runs_cfg("finished", SETTINGS("train.steps", "2", "train.lr", "5e-4"));
    assert_ok(micro_run_start(&run, cfg, true));
    assert_true(run_is_done(&run));
    assert_int_equal(run.state.step, 2);
    run_close(&run);
    runs_read(&after, "finished/metrics.jsonl");
    assert_string_equal(before.data, after.data);
    runs_read(&after, "finished/settings.yaml");
    assert_non_null(strstr(after.data, "lr: 1e-3"));
    buf_clear(&before);
    buf_clear(&after);
    cfg_close(cfg);
}

static void test_resume_over_damage(void **state)
{
    (void)state;
    int64_t step;
    const char *const settings[] = { "train.steps", "4", "train.save_every", "2", NULL };
    assert_ok(runs_train(&step, "damaged", false, settings));
    assert_ok(runs_train(&step, "intact", false, settings));
    assert_int_equal(
        truncate(testing_path("damaged/ckpt/step-00000004/optim.0000.safetensors"), 99), 0);
    assert_ok(runs_train(&step, "damaged", true, settings));
    assert_int_equal(step, 4);
    runs_same_checkpoint("damaged", "intact", 4);
    for (int i = 2; i <= 4; i += 2) {
        char path[FILE_PATH_MAX];
        snprintf(path, sizeof path, "damaged/ckpt/step-%08d/state.json", i);
        assert_int_equal(unlink(testing_path(path)), 0);
    }
    assert_err(runs_train(&step, "damaged", true, settings), FORMAT, "none of its 2 checkpoints");
}

/* ---- settings ---- */

static void assert_resume(const char *key, const char *value, err_t code, const char *part)
{
    struct cfg *cfg = runs_cfg("settings", SETTINGS("train.steps", "2", key, value));
    testing_assert_code(runs_open(cfg, true), code, part, key, __FILE__, __LINE__);
    cfg_close(cfg);
}

static void test_settings_of_a_resume(void **state)
{
    (void)state;
    int64_t step;
    assert_ok(runs_train(&step, "settings", false, SETTINGS("train.steps", "2")));
    assert_err(runs_train(&step, "settings", false, SETTINGS("train.steps", "2")), USAGE,
               "continue with --resume");
    assert_resume("batch.seed", "7", ERR_USAGE, "batch.seed is 7");
    assert_resume("batch.size", "5", ERR_USAGE, "batch.size is 5");
    assert_resume("model.init_seed", "2", ERR_USAGE, "model.init_seed is 2");
    assert_resume("batch.micro_tokens", "2_56", ERR_OK,
                  ""); /* the same number, written otherwise */
    assert_resume("train.lr", "0.5", ERR_OK, "");
    assert_resume("train.steps", "9", ERR_OK, "");

    struct glm_config config = micro_config();
    assert_resume("model.dir", micro_model("moved", &config), ERR_OK, "");
    config.ffn_size = 128;
    assert_resume("model.dir", micro_model("wider", &config), ERR_USAGE,
                  "inner_hidden_size 64 against 128");
    micro_corpus("other-corpus", 9, 2);
    assert_resume("data.dir", testing_path("other-corpus"), ERR_USAGE, "another corpus");
}

/* What is wrong is said before a folder is made for it. */
static void test_settings_that_cannot_be(void **state)
{
    (void)state;
    int64_t step;
    struct glm_config config = micro_config();
    char other_ids[FILE_PATH_MAX], few_rows[FILE_PATH_MAX], no_samples[FILE_PATH_MAX];
    config.eos_id = 906;
    strcpy(other_ids, micro_model("other-ids", &config));
    config = micro_config();
    config.vocab_size = 999;
    strcpy(few_rows, micro_model("few-rows", &config));
    micro_corpus("no-samples", 0, 2);
    strcpy(no_samples, testing_path("no-samples"));
    const struct {
        const char *key, *value;
        err_t code;
        const char *part;
    } cases[] = {
        { "train.epochs", "0", ERR_USAGE, "both 0" },
        { "train.warmup_steps", "1000", ERR_USAGE, "train.warmup_steps is 1000" },
        { "train.lr_min", "1", ERR_USAGE, "train.lr_min is 1" },
        { "batch.max_input", "200", ERR_USAGE, "the model has 256 positions" },
        { "batch.lanes", "5", ERR_USAGE, "lanes" },
        { "model.dir", other_ids, ERR_USAGE, "<eop> (eos_token_id) is 905 in the corpus and 906" },
        { "model.dir", few_rows, ERR_USAGE, "the model of" },
        { "train.out", "", ERR_USAGE, "train.out is not set; give it" },
        { "data.dir", "", ERR_USAGE, "data.dir is not set; give it" },
        { "model.dir", "", ERR_USAGE, "model.dir is not set; give it" },
        { "model.dir", "nowhere", ERR_NOTFOUND, "nowhere/config.json" },
        { "data.dir", no_samples, ERR_USAGE, "no training samples within" },
        { "train.update", "backward", ERR_USAGE, "train.max_grad_norm is 1" },
        { "train.precision", "bf16", ERR_USAGE, "train.device is cpu" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        testing_assert_code(
            runs_train(&step, "cannot", false, SETTINGS(cases[i].key, cases[i].value)),
            cases[i].code, cases[i].part, cases[i].value, __FILE__, __LINE__);
        assert_false(dir_exists(testing_path("cannot")));
    }
    assert_err(runs_train(&step, "cannot", false,
                          SETTINGS("train.keep_best", "true", "train.validate_every", "0")),
               USAGE, "train.keep_best is true and train.validate_every is 0");
}

/* A step that is more than one micro-batch is found before anything is made. */
static void test_steps_that_must_be_one(void **state)
{
    (void)state;
    int64_t step;
    assert_err(runs_train(&step, "one-micro", false,
                          SETTINGS("train.update", "backward", "train.max_grad_norm", "0",
                                   "batch.size", "16", "batch.micro_tokens", "512")),
               USAGE, "micro-batches of batch.micro_tokens = 512");
    assert_err(runs_train(&step, "one-micro", false,
                          SETTINGS("train.update", "backward", "train.max_grad_norm", "0",
                                   "batch.unit", "tokens", "batch.size", "512", "batch.pack_len",
                                   "128", "batch.micro_tokens", "256", "train.steps", "1")),
               USAGE, "step 1 has 2 micro-batches");
    assert_false(dir_exists(testing_path("one-micro")));
}

static int64_t steps_for(const char *const *settings)
{
    struct run run;
    struct cfg *cfg = runs_cfg("epochs", settings);
    assert_ok(micro_run_start(&run, cfg, false));
    const int64_t steps = run.total_steps;
    run_close(&run);
    cfg_close(cfg);
    return steps;
}

/* 19 samples, 4 a step: epochs run into each other, so two of them are 38 samples, 10 steps. */
static void test_epochs(void **state)
{
    (void)state;
    struct run run;
    struct cfg *cfg = runs_cfg("epochs", SETTINGS("batch.size", "4"));
    assert_ok(micro_run_start(&run, cfg, false));
    assert_int_equal(sample_set_count(run.train_set), 19);
    run_close(&run);
    cfg_close(cfg);
    assert_int_equal(steps_for(SETTINGS("train.epochs", "1")), 5);
    assert_int_equal(steps_for(SETTINGS("train.epochs", "2")), 10);
    assert_int_equal(steps_for(SETTINGS("train.epochs", "4")), 19);
    assert_int_equal(steps_for(SETTINGS("train.epochs", "0.001")), 1);
    assert_int_equal(steps_for(SETTINGS("train.epochs", "3", "train.steps", "2")), 2);
    /* Packs of 128 rows: every epoch ends with a step of its own. */
    const int64_t epoch = steps_for(SETTINGS("batch.unit", "tokens", "batch.size", "128",
                                             "batch.pack_len", "128", "train.epochs", "1"));
    assert_true(epoch > 3);
    assert_int_equal(steps_for(SETTINGS("batch.unit", "tokens", "batch.size", "128",
                                        "batch.pack_len", "128", "train.epochs", "3")),
                     3 * epoch);
}

/* 2.2 * 45 is above 99 in float64; that does not make a step more. */
static void test_epochs_with_a_tenth(void **state)
{
    (void)state;
    static const struct {
        const char *epochs;
        int64_t steps;
    } cases[] = { { "1", 45 }, { "2.2", 99 }, { "2.201", 100 } };
    micro_corpus("tenths", 40, 4);
    for (int64_t i = 0; i < COUNT_OF(cases); i++) {
        struct run run;
        struct cfg *cfg = micro_cfg("tenths", "epochs");
        micro_set(cfg, "batch.unit", "tokens");
        micro_set(cfg, "batch.size", "64");
        micro_set(cfg, "batch.pack_len", "64");
        micro_set(cfg, "train.epochs", cases[i].epochs);
        assert_ok(micro_run_start(&run, cfg, false));
        assert_int_equal(run.total_steps, cases[i].steps);
        run_close(&run);
        cfg_close(cfg);
    }
}

/* ---- what goes wrong on the way ---- */

static float *some_weight(struct run *run)
{
    return (float *)glm_weights(run->glm).data +
           glm_layout(run->glm)->offset[glm_params_find(glm_params(run->glm), GLM_FINAL_GAMMA, -1)];
}

static void test_not_finite(void **state)
{
    (void)state;
    struct run run;
    struct cfg *cfg = runs_cfg("nan", SETTINGS("train.steps", "3", "train.validate_every", "3"));
    assert_ok(micro_run_start(&run, cfg, false));
    assert_ok(loop_run(&run));
    run.total_steps = 6;
    *some_weight(&run) = NAN;
    assert_err(loop_run(&run), NUMERIC, "step 4: loss");
    assert_true(runs_has_checkpoint("nan", 3));
    assert_ok(ckpt_verify(testing_path("nan/ckpt/step-00000003")));
    run_close(&run);
    cfg_close(cfg);

    /* Before a checkpoint of such weights could push out a good one. */
    cfg = runs_cfg("nan-base", SETTINGS("train.steps", "3", "train.validate_every", "3"));
    assert_ok(micro_run_start(&run, cfg, false));
    *some_weight(&run) = INFINITY;
    assert_err(loop_run(&run), NUMERIC, "step 0: validation loss");
    run_close(&run);
    cfg_close(cfg);
    const struct runs_curve v = runs_curve("nan-base", "validation_loss");
    assert_int_equal(v.count, 1);
}

/* A line that cannot be written costs a line; a checkpoint that cannot be written ends the run. */
static void test_records_that_cannot_be_written(void **state)
{
    (void)state;
    struct run run;
    int64_t step;
    struct cfg *cfg = runs_cfg("lines", SETTINGS("train.steps", "4", "train.validate_every", "0"));
    assert_ok(micro_run_start(&run, cfg, false));
    fault_arm("metrics.write", 2);
    assert_ok(loop_run(&run));
    fault_arm("", 0);
    run_close(&run);
    const struct runs_curve loss = runs_curve("lines", "loss");
    const int64_t logged[] = { 1, 3, 4 };
    assert_int_equal(loss.count, 3);
    assert_memory_equal(loss.step, logged, sizeof logged);
    cfg_close(cfg);

    /* Lines are durable before the checkpoint is that they lead to; where they cannot be made so,
     * training goes on. */
    for (int n = 1; n <= 3; n += 2) {
        char out[32];
        snprintf(out, sizeof out, "durable-%d", n);
        fault_arm("metrics.sync", n);
        assert_ok(
            runs_train(&step, out, false, SETTINGS("train.steps", "4", "train.save_every", "2")));
        assert_int_equal(fault_hits(), 2);
        fault_arm("", 0);
    }

    cfg = runs_cfg("lines", SETTINGS("train.steps", "6", "train.save_every", "1"));
    assert_ok(micro_run_start(&run, cfg, true));
    fault_arm("ckpt.rename", 1);
    assert_err(loop_run(&run), IO, "injected fault at ckpt.rename");
    fault_arm("", 0);
    run_close(&run);
    cfg_close(cfg);
    assert_ok(ckpt_verify(testing_path("lines/ckpt/step-00000004")));
    assert_false(dir_exists(testing_path("lines/ckpt/step-00000005.tmp")));
    assert_ok(runs_train(&step, "lines", true, SETTINGS("train.steps", "6")));
    assert_int_equal(step, 6);
}

/* Asked to stop while it goes back to an older checkpoint: what is half loaded is not to be saved,
 * and the step is that of the checkpoint. */
static void test_stopped_while_going_back(void **state)
{
    (void)state;
    int64_t step;
    struct run run;
    assert_ok(
        runs_train(&step, "back", false,
                   SETTINGS("train.steps", "4", "train.save_every", "2", "train.keep_last", "9")));
    struct cfg *cfg = runs_cfg("back", SETTINGS("train.steps", "6"));
    assert_ok(micro_run_start(&run, cfg, true));
    assert_int_equal(run.state.step, 4);
    testing_signal(SIGTERM);
    assert_err(resume_again(&run, 2), INTERRUPTED, "was loaded");
    assert_int_equal(run.state.step, 2);
    assert_err(loop_run(&run), INTERRUPTED, "stopped after step 2 of 6");
    stop_reset();
    run_close(&run);
    cfg_close(cfg);
    assert_ok(ckpt_verify(testing_path("back/ckpt/step-00000002")));
    assert_ok(runs_train(&step, "back", true, SETTINGS("train.steps", "6")));
    assert_int_equal(step, 6);
}

/* Nor is what a step left behind that is about to be undone. */
static void test_stopped_before_going_back(void **state)
{
    (void)state;
    int64_t step;
    struct run run;
    assert_ok(runs_train(&step, "before", false, SETTINGS("train.steps", "4")));
    struct cfg *cfg = runs_cfg("before", SETTINGS("train.steps", "6"));
    assert_ok(micro_run_start(&run, cfg, true));
    run.state.step = 5;
    testing_signal(SIGTERM);
    assert_err(guard_roll_back(&run, 5), INTERRUPTED, "was verified");
    assert_err(loop_run(&run), INTERRUPTED, "continue with --resume");
    stop_reset();
    run_close(&run);
    cfg_close(cfg);
    assert_false(runs_has_checkpoint("before", 5));
}

static const char *const validated[] = {
    "train.steps", "4", "train.save_every", "2", "train.validate_every", "2", "train.keep_best",
    "true",        NULL
};

/* As a stop in its validation leaves a step. Another stop, before that was made up for, changes
 * nothing. */
static void leave_validation_due(int64_t step)
{
    struct run run;
    struct cfg *cfg = runs_cfg("cut", validated);
    assert_ok(micro_run_start(&run, cfg, true));
    assert_int_equal(run.state.step, step);
    run.state.validation_due = true;
    assert_ok(run_save(&run));
    assert_ok(snapshot_wait(run.snapshot));
    testing_signal(SIGTERM);
    assert_err(loop_run(&run), INTERRUPTED, "continue with --resume");
    stop_reset();
    run_close(&run);
    cfg_close(cfg);
}

static void assert_same_text(const char *name_a, const char *name_b)
{
    struct buf a = { 0 }, b = { 0 };
    runs_read(&a, name_a);
    runs_read(&b, name_b);
    assert_string_equal(a.data, b.data);
    buf_clear(&a);
    buf_clear(&b);
}

/* In the middle of a run, and at its end: all is as though the stop had never come. */
static void test_validation_cut_short(void **state)
{
    (void)state;
    int64_t step;
    assert_ok(runs_train(&step, "uncut", false, validated));
    assert_ok(runs_train(&step, "cut", false, SETTINGS("train.steps", "2")));
    leave_validation_due(2);
    assert_ok(runs_train(&step, "cut", true, validated));
    leave_validation_due(4);
    assert_false(file_exists(testing_path("cut/ckpt/best.json")));
    assert_ok(runs_train(&step, "cut", true, validated));
    for (step = 2; step <= 4; step += 2) runs_same_checkpoint("cut", "uncut", step);
    assert_same_text("cut/ckpt/step-00000004/state.json", "uncut/ckpt/step-00000004/state.json");
    assert_same_text("cut/ckpt/step-00000002/state.json", "uncut/ckpt/step-00000002/state.json");
    assert_same_text("cut/ckpt/best.json", "uncut/ckpt/best.json");
    const struct runs_curve v = runs_curve("cut", "validation_loss");
    const int64_t steps[] = { 0, 2, 2, 4, 4 };
    assert_int_equal(v.count, COUNT_OF(steps));
    assert_memory_equal(v.step, steps, sizeof steps);
}

static void test_one_program_at_a_time(void **state)
{
    (void)state;
    struct run run;
    struct cfg *cfg = runs_cfg("locked", SETTINGS("train.steps", "1"));
    assert_ok(micro_run_start(&run, cfg, false));
    assert_err(runs_open(cfg, true), IO, "another program trains in this folder");
    run_close(&run);
    assert_ok(runs_open(cfg, true));
    cfg_close(cfg);
}

/* Every fallible step of opening fails once; nothing leaks, and the next start succeeds. */
static void test_opening_fails_at_every_step(void **state)
{
    (void)state;
    int64_t step;
    assert_ok(runs_train(&step, "opening", false, SETTINGS("train.steps", "1")));
    struct cfg *cfg = runs_cfg("opening", SETTINGS("train.steps", "2"));
    int failures = 0;
    for (int n = 1; n < 10000; n++) {
        fault_arm("", n);
        const err_t rc = runs_open(cfg, true);
        const bool done = fault_hits() < n;
        fault_arm("", 0);
        if (done) assert_ok(rc);
        if (done) break;
        failures += rc != ERR_OK;
        assert_ok(ckpt_verify(testing_path("opening/ckpt/step-00000001")));
    }
    assert_true(failures > 10);
    cfg_close(cfg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_overfit),
        cmocka_unit_test(test_validation_falls),
        cmocka_unit_test(test_longer_validation_samples),
        cmocka_unit_test(test_resume_has_the_same_bits),
        cmocka_unit_test(test_resume_of_another_version),
        cmocka_unit_test(test_stop_at_any_moment),
        cmocka_unit_test(test_saved_once),
        cmocka_unit_test(test_resume_of_a_finished_run),
        cmocka_unit_test(test_resume_over_damage),
        cmocka_unit_test(test_settings_of_a_resume),
        cmocka_unit_test(test_settings_that_cannot_be),
        cmocka_unit_test(test_steps_that_must_be_one),
        cmocka_unit_test(test_epochs),
        cmocka_unit_test(test_epochs_with_a_tenth),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_records_that_cannot_be_written),
        cmocka_unit_test(test_stopped_while_going_back),
        cmocka_unit_test(test_stopped_before_going_back),
        cmocka_unit_test(test_validation_cut_short),
        cmocka_unit_test(test_one_program_at_a_time),
        cmocka_unit_test(test_opening_fails_at_every_step),
    };
    assert_ok(stop_catch());
    micro_corpus(RUNS_CORPUS, 10, 4);
    assert_ok(log_init("off"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
