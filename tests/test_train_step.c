/* step.h: a step's loss, gradients and update do not depend on how it is cut up, and are what a
 * sample-by-sample computation says. */
#include "train_fixture.h"

#include "lazy_dev.h"

#include "base/num.h"
#include "base/stop.h"
#include "train/step.h"
#include "train/validate.h"

#include <malloc.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CORPUS "step-corpus"

/* State after `steps` steps of 12 samples. */
struct outcome {
    double loss[4], norm[4];
    double *grads, *weights; /* grads: of the last step */
    int64_t count, micro_batches;
};

static void run_steps(struct outcome *out, const char *device, const char *micro_tokens,
                      const char *lanes, int64_t steps)
{
    struct run run;
    struct step_memory memory = { 0 };
    struct step_result result;
    struct cfg *cfg = micro_cfg(CORPUS, "unused");
    micro_set(cfg, "batch.size", "12");
    micro_set(cfg, "batch.micro_tokens", micro_tokens);
    micro_set(cfg, "batch.lanes", lanes);
    /* The update of a weight is lr * g / (|g| + eps): a difference d of its gradient moves it by
     * lr * d / eps at most. Such an eps keeps rounding errors of gradients small in weights. */
    micro_set(cfg, "train.adam_eps", "1e-3");
    micro_run_open(&run, cfg, device);
    out->micro_batches = 0;
    for (int64_t step = 0; step < steps; step++) {
        assert_ok(step_run(&run, &memory, &result, step));
        run.state.updates++;
        out->loss[step] = result.loss;
        out->norm[step] = result.grad_norm;
        for (int64_t lane = 0; lane < run.batch.lanes; lane++)
            out->micro_batches += result.plan.micro_count[lane];
    }
    const struct tensor weights = glm_weights(run.glm);
    out->grads = micro_copy(run.glm, &run.lanes.buffer[0], &out->count);
    out->weights = micro_copy(run.glm, &weights, &out->count);
    step_memory_clear(&memory);
    micro_run_close(&run);
    cfg_close(cfg);
}

static void outcome_clear(struct outcome *o)
{
    free(o->grads);
    free(o->weights);
}

static double largest_error(const double *a, const double *b, int64_t count)
{
    double error = 0.0, largest = 0.0;
    for (int64_t i = 0; i < count; i++) {
        error = fmax(error, fabs(a[i] - b[i]));
        largest = fmax(largest, fabs(b[i]));
    }
    return error / largest;
}

/* Micro-batches of at most 128 rows or all at once, 1 to 12 lanes: 12 cuts of the same samples. */
static void check_cuts(const char *device, double loss_bound, double bound)
{
    static const char *const rows[] = { "2048", "256", "128" }, *const lanes[] = { "1", "2", "5",
                                                                                   "12" };
    enum { STEPS = 3 };
    struct outcome want, got;
    run_steps(&want, device, rows[0], lanes[0], STEPS);
    assert_int_equal(want.micro_batches, STEPS);
    for (size_t i = 0; i < 3; i++) {
        for (size_t j = 0; j < 4; j++) {
            run_steps(&got, device, rows[i], lanes[j], STEPS);
            if (i + j > 0) assert_true(got.micro_batches > STEPS);
            for (int64_t s = 0; s < STEPS; s++)
                if (fabs(got.loss[s] - want.loss[s]) > loss_bound * want.loss[s])
                    fail_msg("%s rows, %s lanes, step %d: loss %.17g, not %.17g", rows[i], lanes[j],
                             (int)s, got.loss[s], want.loss[s]);
            const double grads = largest_error(got.grads, want.grads, got.count);
            const double weights = largest_error(got.weights, want.weights, got.count);
            if (grads > bound || weights > bound)
                fail_msg("%s rows, %s lanes: gradients %.2g, weights %.2g", rows[i], lanes[j],
                         grads, weights);
            outcome_clear(&got);
        }
    }
    outcome_clear(&want);
}

static void test_cuts_agree_in_float64(void **state)
{
    (void)state;
    check_cuts("ref", 1e-12, 1e-12);
}

static void test_cuts_agree_in_float32(void **state)
{
    (void)state;
    check_cuts("cpu", 1e-6, 1e-5);
}

/* The same cut has the same bits. */
static void test_repeatable(void **state)
{
    (void)state;
    struct outcome a, b;
    run_steps(&a, "cpu", "256", "3", 3);
    run_steps(&b, "cpu", "256", "3", 3);
    assert_memory_equal(a.loss, b.loss, 3 * sizeof a.loss[0]);
    assert_memory_equal(a.grads, b.grads, (size_t)a.count * sizeof *a.grads);
    assert_memory_equal(a.weights, b.weights, (size_t)a.count * sizeof *a.weights);
    outcome_clear(&a);
    outcome_clear(&b);
}

/* nll of one sample, alone in its micro-batch, and its trained tokens. */
static double sample_nll(struct run *run, int64_t sample, int64_t *targets)
{
    struct micro_batch alone = { 0 };
    double sum = 0.0;
    assert_ok(micro_batch_from_samples(&alone, run->train_set, &sample, 1, LOSS_MEAN_TOKEN, true));
    const struct glm_batch batch = glm_batch_from_micro(&alone);
    double *nll = calloc((size_t)alone.target_count, sizeof *nll);
    assert_ok(glm_eval_micro(run->glm, &batch, nll));
    for (int64_t i = 0; i < alone.target_count; i++) sum += nll[i];
    *targets = alone.target_count;
    free(nll);
    micro_batch_clear(&alone);
    return sum;
}

/* The loss of step `step` with the present weights; counts how often each sample is in it. A
 * batcher of its own, as the run's is the feed's. */
static double plain_loss(struct run *run, int64_t step, int64_t *uses)
{
    struct batcher *batcher;
    struct step_plan plan;
    struct micro_batch micro = { 0 };
    double sum = 0.0;
    int64_t tokens = 0, samples = 0;
    assert_ok(batcher_open(&batcher, run->train_set, &run->batch));
    assert_ok(batcher_plan(batcher, &plan, step));
    for (int64_t m = 0; m < plan.micro_count[0]; m++) {
        assert_ok(batcher_fill(batcher, &micro, 0, m));
        for (int64_t i = 0; i < micro.segment_count; i++) {
            int64_t targets;
            const double nll = sample_nll(run, micro.samples[i], &targets);
            sum += run->batch.loss_mean == LOSS_MEAN_TOKEN ? nll : nll / (double)targets;
            tokens += targets;
            samples++;
            uses[micro.samples[i]]++;
        }
    }
    micro_batch_clear(&micro);
    batcher_close(batcher);
    return sum / (double)(run->batch.loss_mean == LOSS_MEAN_TOKEN ? tokens : samples);
}

/* Steps run on over the ends of epochs; what they report is the plain computation's loss. Weights
 * of targets are float32: 2^-24 of each nll. */
static void check_losses(const char *loss_mean)
{
    struct run run;
    struct step_memory memory = { 0 };
    struct step_result result;
    struct cfg *cfg = micro_cfg(CORPUS, "unused");
    micro_set(cfg, "batch.size", "8");
    micro_set(cfg, "batch.loss_mean", loss_mean);
    micro_run_open(&run, cfg, "ref");
    const int64_t count = sample_set_count(run.train_set);
    int64_t *uses = calloc((size_t)count, sizeof *uses), consumed = 0;
    assert_true(count % 8 != 0);
    for (int64_t step = 0; consumed < 2 * count + 1; step++, consumed += 8) {
        feed_pause(&memory.feed);
        const double want = plain_loss(&run, step, uses);
        feed_resume(&memory.feed);
        assert_ok(step_run(&run, &memory, &result, step));
        run.state.updates++;
        assert_int_equal(result.plan.stream_first, consumed);
        assert_true(fabs(result.loss - want) <= 1.2e-7 * want);
    }
    for (int64_t i = 0; i < count; i++)
        assert_true(uses[i] == consumed / count || uses[i] == consumed / count + 1);
    free(uses);
    step_memory_clear(&memory);
    micro_run_close(&run);
    cfg_close(cfg);
}

static void test_loss_is_that_of_its_samples(void **state)
{
    (void)state;
    check_losses("token");
    check_losses("sample");
}

/* After the first steps neither device nor host memory grows. */
static void test_no_growth(void **state)
{
    (void)state;
    struct run run;
    struct step_memory memory = { 0 };
    struct step_result result;
    struct cfg *cfg = micro_cfg(CORPUS, "unused");
    micro_set(cfg, "batch.lanes", "2");
    micro_run_open(&run, cfg, "cpu");
    assert_ok(step_run(&run, &memory, &result, 0));
    const int64_t allocations = run.dev->stats.alloc_count;
    int64_t step = 1;
    while (step < 20) assert_ok(step_run(&run, &memory, &result, step++));
    const size_t bytes = mallinfo2().uordblks;
    while (step < 60) assert_ok(step_run(&run, &memory, &result, step++));
    assert_true(mallinfo2().uordblks <= bytes);
    assert_int_equal(run.dev->stats.alloc_count, allocations);
    step_memory_clear(&memory);
    micro_run_close(&run);
    cfg_close(cfg);
}

/* A step that cannot be applied changes nothing, and the next one is as if it had not been. */
static void test_given_up_steps(void **state)
{
    (void)state;
    struct run run;
    struct step_memory memory = { 0 };
    struct step_result result;
    int64_t count;
    struct cfg *cfg = micro_cfg(CORPUS, "unused");
    micro_set(cfg, "batch.lanes", "3");
    micro_run_open(&run, cfg, "cpu");
    const struct tensor weights = glm_weights(run.glm);
    double *before = micro_copy(run.glm, &weights, &count);

    testing_signal(SIGTERM);
    assert_err(step_run(&run, &memory, &result, 0), INTERRUPTED, "stopped");
    stop_reset();

    float *gamma =
        (float *)weights.data +
        glm_layout(run.glm)->offset[glm_params_find(glm_params(run.glm), GLM_FINAL_GAMMA, -1)];
    const float kept = gamma[3];
    gamma[3] = NAN;
    assert_err(step_run(&run, &memory, &result, 0), NUMERIC, "step 1: loss");
    gamma[3] = kept;
    double *after = micro_copy(run.glm, &weights, &count);
    double *exp_avg = micro_state(run.optim, OPTIM_EXP_AVG, &count);
    assert_memory_equal(before, after, (size_t)count * sizeof *before);
    for (int64_t i = 0; i < count; i++) assert_true(exp_avg[i] == 0.0);

    struct outcome want;
    run_steps(&want, "cpu", "256", "3", 1);
    cfg_close(cfg);
    step_memory_clear(&memory);
    micro_run_close(&run);

    cfg = micro_cfg(CORPUS, "unused");
    micro_set(cfg, "batch.size", "12");
    micro_set(cfg, "batch.lanes", "3");
    micro_run_open(&run, cfg, "cpu");
    testing_signal(SIGTERM);
    assert_err(step_run(&run, &memory, &result, 0), INTERRUPTED, "stopped");
    stop_reset();
    assert_ok(step_run(&run, &memory, &result, 0));
    assert_true(result.loss == want.loss[0] && result.grad_norm == want.norm[0]);
    outcome_clear(&want);
    double *all[] = { before, after, exp_avg };
    for (size_t i = 0; i < 3; i++) free(all[i]);
    step_memory_clear(&memory);
    micro_run_close(&run);
    cfg_close(cfg);
}

/* ---- other ways to compute the same ---- */

enum { TRACE_STEPS = 4 };

struct trace {
    double loss[TRACE_STEPS], norm[TRACE_STEPS], scale[TRACE_STEPS];
    double *weights, *exp_avg;
    int64_t count, state_count;
};

/* `settings`: key, value, ..., NULL. */
static void trace_steps(struct trace *out, const char *device, const char *const *settings)
{
    struct run run;
    struct step_memory memory = { 0 };
    struct step_result result;
    struct cfg *cfg = micro_cfg(CORPUS, "unused");
    for (; settings[0] != NULL; settings += 2) micro_set(cfg, settings[0], settings[1]);
    micro_run_open(&run, cfg, device);
    for (int64_t step = 0; step < TRACE_STEPS; step++) {
        assert_ok(step_run(&run, &memory, &result, step));
        run.state.updates++;
        if (run.formats.clip_by_previous) run.state.grad_norm = result.grad_norm;
        out->loss[step] = result.loss;
        out->norm[step] = result.grad_norm;
        out->scale[step] = result.clip_scale;
    }
    assert_ok(dev_sync(run.dev));
    const struct tensor weights = glm_weights(run.glm);
    const bool coded = run.formats.state.moments == OPTIM_MOMENTS_8BIT;
    out->weights = micro_copy(run.glm, &weights, &out->count);
    out->exp_avg =
        micro_state(run.optim, coded ? OPTIM_EXP_AVG_CODES : OPTIM_EXP_AVG, &out->state_count);
    step_memory_clear(&memory);
    micro_run_close(&run);
    cfg_close(cfg);
}

#define SETTINGS(...) ((const char *const[]){ __VA_ARGS__, NULL })

static bool same_trace(const struct trace *a, const struct trace *b)
{
    return a->count == b->count && a->state_count == b->state_count &&
           memcmp(a->loss, b->loss, sizeof a->loss) == 0 &&
           memcmp(a->norm, b->norm, sizeof a->norm) == 0 &&
           memcmp(a->scale, b->scale, sizeof a->scale) == 0 &&
           memcmp(a->weights, b->weights, (size_t)a->count * sizeof *a->weights) == 0 &&
           memcmp(a->exp_avg, b->exp_avg, (size_t)a->state_count * sizeof *a->exp_avg) == 0;
}

static void trace_clear(struct trace *t)
{
    free(t->weights);
    free(t->exp_avg);
}

/* Micro-batches in flight, state in host memory, queues that run late and out of order: the bits of
 * a device that does everything at once. */
static void test_late_queues(void **state)
{
    (void)state;
    static const char *const moments[] = { "f32", "8bit" };
    for (int m = 0; m < 2; m++) {
        struct trace want, got;
        trace_steps(&want, "cpu",
                    SETTINGS("batch.size", "12", "batch.lanes", "3", "batch.micro_tokens", "128",
                             "train.moments", moments[m]));
        for (int seed = 0; seed < 4; seed++) {
            char device[24];
            snprintf(device, sizeof device, "lazy:%d", seed);
            trace_steps(&got, device,
                        SETTINGS("batch.size", "12", "batch.lanes", "3", "batch.micro_tokens",
                                 "128", "train.moments", moments[m], "train.moments_place",
                                 "host"));
            if (!same_trace(&want, &got)) fail_msg("%s moments, seed %d", moments[m], seed);
            trace_clear(&got);
        }
        trace_clear(&want);
    }
}

/* Without clipping, it does not matter when a unit is updated. */
static void test_updates_in_the_backward_pass(void **state)
{
    (void)state;
    static const char *const places[] = { "device", "host" }, *const moments[] = { "f32", "8bit" };
    static const char *const devices[] = { "cpu", "lazy:0", "lazy:5" };
    for (int m = 0; m < 2; m++) {
        struct trace want, got;
        trace_steps(&want, "cpu",
                    SETTINGS("train.max_grad_norm", "0", "batch.micro_tokens", "2048",
                             "train.moments", moments[m]));
        for (int i = 0; i < 6; i++) {
            trace_steps(&got, devices[i / 2],
                        SETTINGS("train.max_grad_norm", "0", "batch.micro_tokens", "2048",
                                 "train.moments", moments[m], "train.update", "backward",
                                 "train.moments_place", places[i % 2], "train.activations",
                                 i % 2 == 0 ? "keep" : "recompute"));
            if (!same_trace(&want, &got))
                fail_msg("%s moments on %s, %s", moments[m], places[i % 2], devices[i / 2]);
            trace_clear(&got);
        }
        trace_clear(&want);
    }
}

/* The first step is not clipped, each other by the norm of the one before. */
static void test_clipping_by_the_norm_before(void **state)
{
    (void)state;
    struct trace own, before;
    trace_steps(&own, "cpu", SETTINGS("train.max_grad_norm", "0.25", "batch.micro_tokens", "2048"));
    trace_steps(&before, "cpu",
                SETTINGS("train.max_grad_norm", "0.25", "batch.micro_tokens", "2048",
                         "train.update", "backward", "train.clip_norm_from", "previous"));
    assert_true(own.norm[0] == before.norm[0] && own.loss[0] == before.loss[0]);
    assert_true(own.scale[0] == 0.25 / (own.norm[0] + 1e-6)); /* clipping takes part */
    assert_true(before.scale[0] == 1.0);
    for (int i = 1; i < TRACE_STEPS; i++)
        assert_true(before.scale[i] == fmin(1.0, 0.25 / (before.norm[i - 1] + 1e-6)));
    trace_clear(&own);
    trace_clear(&before);
}

/* A NaN is seen before the first unit is updated; a second micro-batch cannot be. */
static void test_released_steps_that_cannot_be(void **state)
{
    (void)state;
    struct run run;
    struct step_memory memory = { 0 };
    struct step_result result;
    int64_t count;
    struct cfg *cfg = micro_cfg(CORPUS, "unused");
    micro_set(cfg, "train.update", "backward");
    micro_set(cfg, "train.max_grad_norm", "0");
    micro_set(cfg, "batch.micro_tokens", "2048");
    micro_run_open(&run, cfg, "cpu");
    const struct tensor weights = glm_weights(run.glm);
    static const enum glm_role roles[] = { GLM_FINAL_GAMMA, GLM_EMBED, GLM_QKV_WEIGHT };
    for (int64_t i = 0; i < 3; i++) {
        const int64_t layer = roles[i] == GLM_QKV_WEIGHT ? 0 : -1;
        float *weight =
            (float *)weights.data +
            glm_layout(run.glm)->offset[glm_params_find(glm_params(run.glm), roles[i], layer)];
        const float kept = weight[3];
        double *before = micro_copy(run.glm, &weights, &count);
        weight[3] = NAN;
        assert_err(step_run(&run, &memory, &result, 0), NUMERIC, "step 1: loss or gradients");
        weight[3] = kept;
        double *after = micro_copy(run.glm, &weights, &count);
        assert_memory_equal(before, after, (size_t)count * sizeof *before);
        free(before);
        free(after);
    }
    assert_ok(step_run(&run, &memory, &result, 0)); /* and goes on */
    step_memory_clear(&memory);
    micro_run_close(&run);

    micro_set(cfg, "batch.micro_tokens", "128");
    micro_set(cfg, "batch.size", "12");
    micro_run_open(&run, cfg, "cpu");
    assert_err(step_run(&run, &memory, &result, 0), USAGE, "train.update is backward");
    step_memory_clear(&memory);
    micro_run_close(&run);
    cfg_close(cfg);
}

/* The device fails somewhere in a step: its error, and closing is safe. */
static void test_device_errors(void **state)
{
    (void)state;
    for (int64_t n = 1; n < 40; n += 3) {
        struct run run;
        struct step_memory memory = { 0 };
        struct step_result result;
        char device[24];
        err_t rc = ERR_OK;
        struct cfg *cfg = micro_cfg(CORPUS, "unused");
        micro_set(cfg, "train.moments_place", "host");
        micro_set(cfg, "batch.micro_tokens", "128");
        snprintf(device, sizeof device, "lazy:%d", (int)n);
        micro_run_open(&run, cfg, device);
        lazy_dev_fail(run.dev, n);
        for (int64_t step = 0; step < 20 && rc == ERR_OK; step++) {
            rc = step_run(&run, &memory, &result, step);
            run.state.updates++;
        }
        assert_err(rc, CUDA, "queued earlier failed");
        step_memory_clear(&memory);
        micro_run_close(&run);
        cfg_close(cfg);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts_agree_in_float64),
        cmocka_unit_test(test_cuts_agree_in_float32),
        cmocka_unit_test(test_repeatable),
        cmocka_unit_test(test_loss_is_that_of_its_samples),
        cmocka_unit_test(test_no_growth),
        cmocka_unit_test(test_given_up_steps),
        cmocka_unit_test(test_late_queues),
        cmocka_unit_test(test_updates_in_the_backward_pass),
        cmocka_unit_test(test_clipping_by_the_norm_before),
        cmocka_unit_test(test_released_steps_that_cannot_be),
        cmocka_unit_test(test_device_errors),
    };
    assert_ok(stop_catch());
    micro_corpus(CORPUS, 15, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
