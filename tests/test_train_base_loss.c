/* base_loss.h: given weights in float32 beside bf16, on the emulated GPU. */
#include "train_runs.h"

#include "base/fault.h"
#include "base/log.h"
#include "data/settings_batch.h"
#include "model/hf_checkpoint.h"
#include "model/hf_folder.h"
#include "ranks_fixture.h"
#include "train/base_loss.h"
#include "train/validate.h"

#include <limits.h>
#include <math.h>

#define GIVEN "given" /* a model folder with weights in float16 */

/* The folder, from a run of a few steps: weights away from their initial values. */
static void make_folder(void)
{
    struct weight_source *source;
    int64_t step;
    const struct glm_config config = micro_config();
    assert_ok(
        runs_train(&step, "first", false,
                   SETTINGS("train.steps", "5", "train.validate_every", "0", "train.lr", "1e-2")));
    assert_ok(hf_checkpoint_open(&source, testing_path("first/ckpt/step-00000005")));
    assert_ok(hf_folder_write(testing_path(GIVEN), &config, source,
                              &(struct hf_export){ .dtype = DTYPE_F16 }));
    weight_source_close(source);
}

#define ON_EMU(...)                                                                                \
    SETTINGS("model.dir", testing_path(GIVEN), "train.device", "emu", "train.precision", "bf16",   \
             "train.steps", "1", __VA_ARGS__)

/* The float32 loss is that of a run in float32, and bf16's is another. */
static void test_is_the_loss_in_float32(void **state)
{
    (void)state;
    int64_t step;
    assert_ok(runs_train(&step, "bf16", false, ON_EMU("model.init", "weights")));
    assert_ok(runs_train(
        &step, "f32", false,
        SETTINGS("model.dir", testing_path(GIVEN), "model.init", "weights", "train.steps", "1")));
    const struct runs_curve measured = runs_curve("bf16", "validation_loss_f32");
    const double f32 = runs_curve("f32", "validation_loss").value[0];
    const double bf16 = runs_curve("bf16", "validation_loss").value[0];
    assert_int_equal(measured.count, 1);
    assert_int_equal(measured.step[0], 0);
    /* The bar of losses between two orders of float32 sums. */
    if (!(fabs(measured.value[0] - f32) <= 1e-6 * f32))
        fail_msg("%.9g; in float32 on the CPU %.9g", measured.value[0], f32);
    assert_true(fabs(bf16 - f32) > 1e-5);
    assert_int_equal(runs_curve("f32", "validation_loss_f32").count, 0);

    assert_ok(runs_train(&step, "bf16", true, ON_EMU("model.init", "weights", "train.steps", "2")));
    assert_int_equal(runs_curve("bf16", "validation_loss_f32").count, 1);
}

static void test_left_out(void **state)
{
    (void)state;
    int64_t step;
    assert_ok(runs_train(&step, "random", false, ON_EMU("model.init", "random")));
    assert_ok(runs_train(&step, "silent", false,
                         ON_EMU("model.init", "weights", "train.validate_every", "0")));
    assert_int_equal(runs_curve("random", "validation_loss_f32").count, 0);
    assert_int_equal(runs_curve("silent", "validation_loss_f32").count, 0);
}

/* Without room for it, training is none the worse. */
static void test_memory_is_short(void **state)
{
    (void)state;
    int64_t step;
    fault_arm("gpu.malloc", 2);
    assert_ok(runs_train(&step, "short", false, ON_EMU("model.init", "weights")));
    assert_true(fault_hits() >= 2);
    fault_arm("", 0);
    assert_int_equal(runs_curve("short", "validation_loss_f32").count, 0);
    assert_int_equal(runs_curve("short", "validation_loss").count, 2);
    runs_same_checkpoint("short", "bf16", 1);
}

/* Rank 1 has no room for it, then all have. */
static void body_ranks(struct comm *comm, void *arg)
{
    struct cfg *cfg = arg;
    const struct glm_config config = micro_config();
    struct sample_limits limits;
    struct run run;
    double loss;
    sample_limits_from_cfg(&limits, cfg);
    micro_run_open_ranked(&run, cfg, "emu", &config, comm);
    run.state.model = config;
    assert_ok(sample_set_open(&run.validation_set, run.shards, SPLIT_VALIDATION, &limits));
    validate_bounds(&run.bounds, run.validation_set);
    fault_arm("gpu.malloc", comm_rank(comm) == 1 ? 1 : INT_MAX);
    assert_ok(base_loss_measure(&loss, &run));
    assert_true(isnan(loss));
    fault_arm("", 0);
    assert_ok(base_loss_measure(&loss, &run));
    assert_true(isfinite(loss));
    micro_run_close(&run);
}

/* Where one rank has no room, all do without, and none waits for it. */
static void test_ranks(void **state)
{
    (void)state;
    struct cfg *cfg =
        runs_cfg("unused", ON_EMU("model.init", "weights", "batch.lanes", "2", "train.zero", "0"));
    ranks_run("shm", 2, body_ranks, cfg);
    cfg_close(cfg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks), /* before any threads */
        cmocka_unit_test(test_is_the_loss_in_float32),
        cmocka_unit_test(test_left_out),
        cmocka_unit_test(test_memory_is_short),
    };
    struct dev *dev;
    if (dev_open(&dev, "emu", 1) != ERR_OK) testing_skip_all(err_last()->text);
    dev_close(dev);
    micro_corpus(RUNS_CORPUS, 10, 4);
    assert_ok(log_init("off"));
    make_folder();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
