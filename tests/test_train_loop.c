/* run.h, loop.h, resume.h: whole runs of a small model, in one process. */
#include "train_fixture.h"

#include "base/check.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/stop.h"
#include "train/loop.h"
#include "train/step.h"

#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CORPUS "loop-corpus"

/* ---- running ---- */

/* `settings`: key, value, ..., NULL. */
static struct cfg *cfg_with(const char *out, const char *const *settings)
{
    struct cfg *cfg = micro_cfg(CORPUS, out);
    for (; settings[0] != NULL; settings += 2) micro_set(cfg, settings[0], settings[1]);
    return cfg;
}

#define SETTINGS(...) ((const char *const[]){ __VA_ARGS__, NULL })

static err_t open_and_close(struct cfg *cfg, bool resume)
{
    struct run run;
    const err_t rc = run_open(&run, cfg, resume);
    run_close(&run);
    return rc;
}

/* A whole start, as the command does it. *step: where it ended. */
static err_t train(int64_t *step, const char *out, bool resume, const char *const *settings)
{
    struct run run;
    struct cfg *cfg = cfg_with(out, settings);
    err_t rc = run_open(&run, cfg, resume);
    if (rc == ERR_OK) rc = loop_run(&run);
    *step = run.state.step;
    run_close(&run);
    cfg_close(cfg);
    return rc;
}

/* ---- what a run left ---- */

static void read_text(struct buf *out, const char *path)
{
    buf_reset(out);
    assert_ok(file_read_all(out, micro_path(path), 1 << 26));
}

static void assert_same_checkpoint(const char *run_a, const char *run_b, int64_t step)
{
    static const char *const names[] = { "model.0000.safetensors", "optim.0000.safetensors" };
    struct buf a = { 0 }, b = { 0 };
    char path[FILE_PATH_MAX];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/ckpt/step-%08lld/%s", run_a, (long long)step, names[i]);
        read_text(&a, path);
        snprintf(path, sizeof path, "%s/ckpt/step-%08lld/%s", run_b, (long long)step, names[i]);
        read_text(&b, path);
        assert_int_equal(a.size, b.size);
        if (memcmp(a.data, b.data, a.size) != 0) fail_msg("%s: other bits", path);
    }
    buf_clear(&a);
    buf_clear(&b);
}

static bool has_checkpoint(const char *run, int64_t step)
{
    char path[FILE_PATH_MAX];
    snprintf(path, sizeof path, "%s/ckpt/step-%08lld/MANIFEST.json", run, (long long)step);
    return file_exists(micro_path(path));
}

/* Values of `key` in the run's metrics, in order, with their steps. */
struct curve {
    int64_t step[256];
    double value[256];
    int64_t count;
};

static struct curve curve_of(const char *run, const char *key)
{
    struct curve c = { .count = 0 };
    struct buf text = { 0 };
    char path[FILE_PATH_MAX];
    snprintf(path, sizeof path, "%s/metrics.jsonl", run);
    read_text(&text, path);
    for (char *save, *line = strtok_r(text.data, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        json_t *object = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
        assert_non_null(object);
        const json_t *value = json_object_get(object, key);
        if (value != NULL) {
            assert_true(c.count < 256);
            c.step[c.count] = json_integer_value(json_object_get(object, "step"));
            c.value[c.count++] = json_number_value(value);
        }
        json_decref(object);
    }
    buf_clear(&text);
    return c;
}

/* ---- learning ---- */

/* One batch, over and over: the model can learn it by heart. */
static void test_overfit(void **state)
{
    (void)state;
    int64_t step;
    micro_corpus("one-batch", 2, 0);
    const char *corpus = micro_path("one-batch");
    assert_ok(train(&step, "overfit", false,
                    SETTINGS("data.dir", corpus, "batch.size", "3", "train.steps", "150",
                             "train.lr", "1e-2", "train.warmup_steps", "10")));
    const struct curve loss = curve_of("overfit", "loss");
    assert_int_equal(loss.count, 150);
    assert_true(fabs(loss.value[0] - log(1000.0)) < 0.1);
    if (loss.value[149] > 0.05) fail_msg("loss %.3f after 150 steps", loss.value[149]);
    assert_int_equal(curve_of("overfit", "validation_loss").count, 0);
}

/* When things happen: validation before the first step, where due, and once at the end. */
static void test_validation_falls(void **state)
{
    (void)state;
    int64_t step;
    assert_ok(
        train(&step, "falls", false,
              SETTINGS("train.steps", "25", "train.validate_every", "10", "train.log_every", "5",
                       "train.save_every", "10", "train.keep_last", "9", "train.lr", "3e-3")));
    assert_int_equal(step, 25);
    const struct curve v = curve_of("falls", "validation_loss"), l = curve_of("falls", "loss");
    const int64_t validated[] = { 0, 10, 20, 25 }, logged[] = { 5, 10, 15, 20, 25 };
    assert_int_equal(v.count, 4);
    assert_memory_equal(v.step, validated, sizeof validated);
    assert_int_equal(l.count, 5);
    assert_memory_equal(l.step, logged, sizeof logged);
    assert_true(fabs(v.value[0] - log(1000.0)) < 0.1);
    assert_true(v.value[1] < v.value[0] - 0.2 && v.value[2] < v.value[1]);
    assert_true(has_checkpoint("falls", 10) && has_checkpoint("falls", 20) &&
                has_checkpoint("falls", 25));
    assert_false(has_checkpoint("falls", 0) || has_checkpoint("falls", 5));
}

/* Validation samples are longer here than any of training, and a step may hold but one. */
static void test_longer_validation_samples(void **state)
{
    (void)state;
    int64_t step;
    micro_corpus("short", 1, 5);
    const char *corpus = micro_path("short");
    assert_ok(train(&step, "longer", false,
                    SETTINGS("data.dir", corpus, "batch.size", "1", "train.steps", "1")));
    assert_int_equal(curve_of("longer", "validation_loss").count, 2);
}

/* ---- interruption and resume ---- */

static void test_resume_has_the_same_bits(void **state)
{
    (void)state;
    int64_t step;
    assert_ok(train(&step, "whole", false, SETTINGS("train.steps", "7", "batch.lanes", "3")));
    assert_ok(train(&step, "halves", false, SETTINGS("train.steps", "3", "batch.lanes", "3")));
    assert_ok(train(&step, "halves", true, SETTINGS("train.steps", "7", "batch.lanes", "3")));
    assert_int_equal(step, 7);
    assert_same_checkpoint("whole", "halves", 7);

    struct ckpt_state s;
    assert_ok(ckpt_state_read(&s, micro_path("halves/ckpt/step-00000007")));
    assert_int_equal(s.updates, 7);
    assert_int_equal(s.samples, 28);
    assert_int_equal(s.stream_index, 28);
    assert_int_equal(s.lanes, 3);
    ckpt_state_clear(&s);
}

/* SIGTERM to this process in a quarter of a second, through the program's own handler. */
static void signal_soon(timer_t timer)
{
    const struct itimerspec soon = { .it_value = { .tv_nsec = 250000000 } };
    stop_catch();
    assert_int_equal(timer_settime(timer, 0, &soon, NULL), 0);
}

/* A signal at some moment: what was done is saved, and going on from there changes no bit. */
static void test_stop_at_any_moment(void **state)
{
    (void)state;
    const char *const settings[] = {
        "train.steps", "1000000", "train.save_every", "50", "train.validate_every", "5", NULL
    };
    struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGTERM };
    timer_t timer;
    int64_t stopped = 0, step;
    char steps[32];
    assert_int_equal(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    for (int start = 0; start < 2; start++) {
        signal_soon(timer);
        assert_err(train(&step, "stopped", true, settings), INTERRUPTED, "continue with --resume");
        stop_reset();
        assert_true(step >= stopped);
        if (step > 0) assert_true(has_checkpoint("stopped", step));
        stopped = step;
    }
    timer_delete(timer);
    snprintf(steps, sizeof steps, "%lld", (long long)stopped + 2);
    assert_ok(train(&step, "stopped", true, SETTINGS("train.steps", steps)));
    assert_ok(train(&step, "unstopped", true, SETTINGS("train.steps", steps)));
    assert_same_checkpoint("stopped", "unstopped", stopped + 2);
}

/* A stop right after a checkpoint does not write it again; a stop before anything writes nothing.
 */
static void test_saved_once(void **state)
{
    (void)state;
    struct run run;
    struct cfg *cfg = cfg_with("once", SETTINGS("train.steps", "4"));
    assert_ok(run_open(&run, cfg, false));
    stop_request(SIGTERM);
    assert_err(loop_run(&run), INTERRUPTED, "stopped after step 0 of 4");
    assert_false(has_checkpoint("once", 0));
    stop_reset();
    assert_ok(loop_run(&run));
    assert_int_equal(run.step_saved, 4);

    assert_int_equal(unlink(micro_path("once/ckpt/step-00000004/MANIFEST.json")), 0);
    run.total_steps = 5;
    stop_request(SIGINT);
    assert_err(loop_run(&run), INTERRUPTED, "stopped after step 4 of 5");
    stop_reset();
    assert_false(has_checkpoint("once", 4)); /* still without a manifest: not written again */
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
    assert_ok(train(&step, "finished", false, SETTINGS("train.steps", "2")));
    read_text(&before, "finished/metrics.jsonl");
    struct cfg *cfg = cfg_with("finished", SETTINGS("train.steps", "2", "train.lr", "5e-4"));
    assert_ok(run_open(&run, cfg, true));
    assert_true(run_is_done(&run));
    assert_int_equal(run.state.step, 2);
    run_close(&run);
    read_text(&after, "finished/metrics.jsonl");
    assert_string_equal(before.data, after.data);
    read_text(&after, "finished/settings.yaml");
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
    assert_ok(train(&step, "damaged", false, settings));
    assert_ok(train(&step, "intact", false, settings));
    assert_int_equal(truncate(micro_path("damaged/ckpt/step-00000004/optim.0000.safetensors"), 99),
                     0);
    assert_ok(train(&step, "damaged", true, settings));
    assert_int_equal(step, 4);
    assert_same_checkpoint("damaged", "intact", 4);
    for (int i = 2; i <= 4; i += 2) {
        char path[FILE_PATH_MAX];
        snprintf(path, sizeof path, "damaged/ckpt/step-%08d/state.json", i);
        assert_int_equal(unlink(micro_path(path)), 0);
    }
    assert_err(train(&step, "damaged", true, settings), FORMAT, "none of its 2 checkpoints");
}

/* ---- settings ---- */

static void assert_resume(const char *key, const char *value, err_t code, const char *part)
{
    struct cfg *cfg = cfg_with("settings", SETTINGS("train.steps", "2", key, value));
    testing_assert_code(open_and_close(cfg, true), code, part, key, __FILE__, __LINE__);
    cfg_close(cfg);
}

static void test_settings_of_a_resume(void **state)
{
    (void)state;
    int64_t step;
    assert_ok(train(&step, "settings", false, SETTINGS("train.steps", "2")));
    assert_err(train(&step, "settings", false, SETTINGS("train.steps", "2")), USAGE,
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
    assert_resume("data.dir", micro_path("other-corpus"), ERR_USAGE, "another corpus");
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
    strcpy(no_samples, micro_path("no-samples"));
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
        { "train.out", "", ERR_USAGE, "train.out is empty; expected" },
        { "data.dir", "", ERR_USAGE, "data.dir is empty; expected" },
        { "model.dir", "", ERR_USAGE, "model.dir is empty; expected" },
        { "model.dir", "nowhere", ERR_NOTFOUND, "nowhere/config.json" },
        { "data.dir", no_samples, ERR_USAGE, "no training samples within" },
        { "train.update", "backward", ERR_USAGE, "train.max_grad_norm is 1" },
        { "train.precision", "bf16", ERR_USAGE, "train.device is cpu" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        testing_assert_code(train(&step, "cannot", false, SETTINGS(cases[i].key, cases[i].value)),
                            cases[i].code, cases[i].part, cases[i].value, __FILE__, __LINE__);
        assert_false(dir_exists(micro_path("cannot")));
    }
}

/* A step that is more than one micro-batch is found before anything is made. */
static void test_steps_that_must_be_one(void **state)
{
    (void)state;
    int64_t step;
    assert_err(train(&step, "one-micro", false,
                     SETTINGS("train.update", "backward", "train.max_grad_norm", "0", "batch.size",
                              "16", "batch.micro_tokens", "512")),
               USAGE, "micro-batches of batch.micro_tokens = 512");
    assert_err(train(&step, "one-micro", false,
                     SETTINGS("train.update", "backward", "train.max_grad_norm", "0", "batch.unit",
                              "tokens", "batch.size", "512", "batch.pack_len", "128",
                              "batch.micro_tokens", "256", "train.steps", "1")),
               USAGE, "step 1 has 2 micro-batches");
    assert_false(dir_exists(micro_path("one-micro")));
}

static int64_t steps_for(const char *const *settings)
{
    struct run run;
    struct cfg *cfg = cfg_with("epochs", settings);
    assert_ok(run_open(&run, cfg, false));
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
    struct cfg *cfg = cfg_with("epochs", SETTINGS("batch.size", "4"));
    assert_ok(run_open(&run, cfg, false));
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
    struct cfg *cfg = cfg_with("nan", SETTINGS("train.steps", "3", "train.validate_every", "3"));
    assert_ok(run_open(&run, cfg, false));
    assert_ok(loop_run(&run));
    run.total_steps = 6;
    *some_weight(&run) = NAN;
    assert_err(loop_run(&run), NUMERIC, "step 4: loss");
    assert_true(has_checkpoint("nan", 3));
    assert_ok(ckpt_verify(micro_path("nan/ckpt/step-00000003")));
    run_close(&run);
    cfg_close(cfg);

    /* Before a checkpoint of such weights could push out a good one. */
    cfg = cfg_with("nan-base", SETTINGS("train.steps", "3", "train.validate_every", "3"));
    assert_ok(run_open(&run, cfg, false));
    *some_weight(&run) = INFINITY;
    assert_err(loop_run(&run), NUMERIC, "step 0: validation loss");
    run_close(&run);
    cfg_close(cfg);
    const struct curve v = curve_of("nan-base", "validation_loss");
    assert_int_equal(v.count, 1);
}

/* A line that cannot be written costs a line; a checkpoint that cannot be written ends the run. */
static void test_records_that_cannot_be_written(void **state)
{
    (void)state;
    struct run run;
    int64_t step;
    struct cfg *cfg = cfg_with("lines", SETTINGS("train.steps", "4", "train.validate_every", "0"));
    assert_ok(run_open(&run, cfg, false));
    fault_arm("metrics.write", 2);
    assert_ok(loop_run(&run));
    fault_arm("", 0);
    run_close(&run);
    const struct curve loss = curve_of("lines", "loss");
    const int64_t logged[] = { 1, 3, 4 };
    assert_int_equal(loss.count, 3);
    assert_memory_equal(loss.step, logged, sizeof logged);
    cfg_close(cfg);

    cfg = cfg_with("lines", SETTINGS("train.steps", "6", "train.save_every", "1"));
    assert_ok(run_open(&run, cfg, true));
    fault_arm("ckpt.rename", 1);
    assert_err(loop_run(&run), IO, "injected fault at ckpt.rename");
    fault_arm("", 0);
    run_close(&run);
    cfg_close(cfg);
    assert_ok(ckpt_verify(micro_path("lines/ckpt/step-00000004")));
    assert_false(dir_exists(micro_path("lines/ckpt/step-00000005.tmp")));
    assert_ok(train(&step, "lines", true, SETTINGS("train.steps", "6")));
    assert_int_equal(step, 6);
}

static void test_one_program_at_a_time(void **state)
{
    (void)state;
    struct run run;
    struct cfg *cfg = cfg_with("locked", SETTINGS("train.steps", "1"));
    assert_ok(run_open(&run, cfg, false));
    assert_err(open_and_close(cfg, true), IO, "another program trains in this folder");
    run_close(&run);
    assert_ok(open_and_close(cfg, true));
    cfg_close(cfg);
}

/* Every fallible step of opening fails once; nothing leaks, and the next start succeeds. */
static void test_opening_fails_at_every_step(void **state)
{
    (void)state;
    int64_t step;
    assert_ok(train(&step, "opening", false, SETTINGS("train.steps", "1")));
    struct cfg *cfg = cfg_with("opening", SETTINGS("train.steps", "2"));
    int failures = 0;
    for (int n = 1; n < 10000; n++) {
        fault_arm("", n);
        const err_t rc = open_and_close(cfg, true);
        const bool done = fault_hits() < n;
        fault_arm("", 0);
        if (done) assert_ok(rc);
        if (done) break;
        failures += rc != ERR_OK;
        assert_ok(ckpt_verify(micro_path("opening/ckpt/step-00000001")));
    }
    assert_true(failures > 10);
    cfg_close(cfg);
}

/* Formats and places, each as it could be chosen on a small device. */
static const char *const *const small_devices[] = {
    SETTINGS("train.moments", "8bit", "train.activations", "recompute"),
    SETTINGS("train.moments_place", "host", "train.moments", "8bit"),
    SETTINGS("train.update", "backward", "train.clip_norm_from", "previous", "batch.size", "4",
             "batch.micro_tokens", "2048"),
    SETTINGS("train.update", "backward", "train.max_grad_norm", "0", "train.moments_place", "host",
             "batch.micro_tokens", "2048"),
};

static struct cfg *small_cfg(int64_t choice, const char *out, const char *steps)
{
    struct cfg *cfg = cfg_with(out, small_devices[choice]);
    micro_set(cfg, "train.steps", steps);
    micro_set(cfg, "train.max_grad_norm", choice == 3 ? "0" : "0.5");
    return cfg;
}

static err_t train_small(int64_t choice, const char *out, const char *steps, bool resume)
{
    struct run run;
    struct cfg *cfg = small_cfg(choice, out, steps);
    err_t rc = run_open(&run, cfg, resume);
    if (rc == ERR_OK) rc = loop_run(&run);
    run_close(&run);
    cfg_close(cfg);
    return rc;
}

static void test_small_devices_resume(void **state)
{
    (void)state;
    for (int64_t i = 0; i < COUNT_OF(small_devices); i++) {
        char whole[32], halves[32];
        snprintf(whole, sizeof whole, "small-whole-%d", (int)i);
        snprintf(halves, sizeof halves, "small-halves-%d", (int)i);
        assert_ok(train_small(i, whole, "7", false));
        assert_ok(train_small(i, halves, "3", false));
        assert_ok(train_small(i, halves, "7", true));
        assert_same_checkpoint(whole, halves, 7);
    }
    /* Clipping by the norm before has to come out of the checkpoint: with it, step 4 is clipped. */
    const struct curve clip = curve_of("small-halves-2", "clip_scale");
    assert_int_equal(clip.count, 7);
    assert_true(clip.value[0] == 1.0 && clip.value[3] < 1.0);
}

/* Another format than the run's own is refused by name; another place is nobody's concern. */
static void test_resume_in_another_format(void **state)
{
    (void)state;
    int64_t step;
    assert_ok(train(&step, "coded", false, SETTINGS("train.steps", "2", "train.moments", "8bit")));
    assert_err(train(&step, "coded", true, SETTINGS("train.steps", "3")), USAGE,
               "train.moments is f32; the run in ");
    assert_ok(ckpt_verify(micro_path("coded/ckpt/step-00000002")));
    assert_ok(train(&step, "coded", true,
                    SETTINGS("train.steps", "4", "train.moments", "8bit", "train.moments_place",
                             "host")));
    assert_ok(train(&step, "coded-whole", false,
                    SETTINGS("train.steps", "4", "train.moments", "8bit")));
    assert_same_checkpoint("coded", "coded-whole", 4);
}

/* Memory runs out at each allocation of a start in turn, fresh or resumed: one clear error, nothing
 * is leaked (dev_close and the sanitizer look), and the checkpoint is as it was. */
static void test_out_of_memory(void **state)
{
    (void)state;
    static const char *const sites[] = { "dev.alloc", "dev.host_alloc" };
    for (int64_t i = 0; i < COUNT_OF(small_devices); i++) {
        char out[32], checkpoint[64];
        snprintf(out, sizeof out, "memory-%d", (int)i);
        snprintf(checkpoint, sizeof checkpoint, "%s/ckpt/step-00000001", out);
        assert_ok(train_small(i, out, "1", false));
        for (int64_t s = 0; s < COUNT_OF(sites); s++) {
            int n = 1;
            for (bool done = false; !done; n++) {
                struct cfg *cfg = small_cfg(i, out, "2");
                fault_arm(sites[s], n);
                const err_t rc = open_and_close(cfg, true);
                done = fault_hits() < n;
                fault_arm("", 0);
                if (done) assert_ok(rc);
                else assert_err(rc, NOMEM, "bytes");
                assert_ok(ckpt_verify(micro_path(checkpoint)));
                cfg_close(cfg);
            }
            assert_true(n > 2);
        }
        assert_ok(train_small(i, out, "2", true));
    }
}

/* A host whose compute queue fails from the n-th download or copy on, as a device does whose
 * kernels fail. */
static struct {
    const struct dev_memory *memory;
    int64_t left;
} failing;

static err_t fail_when_due(void)
{
    if (failing.left > 0 && --failing.left > 0) return ERR_OK;
    failing.left = 0;
    RAISE(CUDA, "an illegal address was encountered");
}

static err_t failing_download(struct dev *dev, void *to, const void *from, int64_t bytes)
{
    TRY(fail_when_due());
    return failing.memory->download(dev, to, from, bytes);
}

static err_t failing_sync(struct dev *dev)
{
    TRY(fail_when_due());
    return failing.memory->sync(dev);
}

static void test_device_error(void **state)
{
    (void)state;
    const char *const settings[] = { "train.steps", "6", "train.save_every", "2",
                                     "train.validate_every", "3", NULL };
    int64_t step;
    assert_ok(train(&step, "device-whole", false, settings));
    for (int64_t n = 1; n < 200; n += 13) {
        struct run run;
        struct cfg *cfg = cfg_with("device", settings);
        assert_ok(dir_remove(micro_path("device")));
        assert_ok(run_open(&run, cfg, false));
        run.total_steps = 2;
        assert_ok(loop_run(&run));
        run.total_steps = 6;
        struct dev_memory memory = *run.dev->memory;
        failing.memory = run.dev->memory;
        failing.left = n;
        memory.download = failing_download;
        memory.sync = failing_sync;
        run.dev->memory = &memory;
        assert_err(loop_run(&run), CUDA, "an illegal address");
        run.dev->memory = failing.memory;
        run_close(&run);
        cfg_close(cfg);
        assert_true(has_checkpoint("device", 2) || has_checkpoint("device", 4));
        assert_ok(train(&step, "device", true, settings));
        assert_same_checkpoint("device", "device-whole", 6);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_overfit),
        cmocka_unit_test(test_validation_falls),
        cmocka_unit_test(test_longer_validation_samples),
        cmocka_unit_test(test_resume_has_the_same_bits),
        cmocka_unit_test(test_stop_at_any_moment),
        cmocka_unit_test(test_saved_once),
        cmocka_unit_test(test_resume_of_a_finished_run),
        cmocka_unit_test(test_resume_over_damage),
        cmocka_unit_test(test_settings_of_a_resume),
        cmocka_unit_test(test_settings_that_cannot_be),
        cmocka_unit_test(test_steps_that_must_be_one),
        cmocka_unit_test(test_epochs),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_records_that_cannot_be_written),
        cmocka_unit_test(test_one_program_at_a_time),
        cmocka_unit_test(test_opening_fails_at_every_step),
        cmocka_unit_test(test_small_devices_resume),
        cmocka_unit_test(test_resume_in_another_format),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_device_error),
    };
    micro_corpus(CORPUS, 10, 4);
    assert_ok(log_init("off"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
