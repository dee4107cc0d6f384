/* Runs on small devices: settings that save memory, memory that runs out, devices that fail. */
#include "train_runs.h"

#include "base/check.h"
#include "base/fault.h"
#include "base/log.h"
#include "train/loop.h"

#include <stdio.h>
#include <string.h>

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
    struct cfg *cfg = runs_cfg(out, small_devices[choice]);
    micro_set(cfg, "train.steps", steps);
    micro_set(cfg, "train.max_grad_norm", choice == 3 ? "0" : "0.5");
    return cfg;
}

static err_t train_small(int64_t choice, const char *out, const char *steps, bool resume)
{
    struct run run;
    struct cfg *cfg = small_cfg(choice, out, steps);
    err_t rc = micro_run_start(&run, cfg, resume);
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
        runs_same_checkpoint(whole, halves, 7);
    }
    /* Clipping by the norm before has to come out of the checkpoint: with it, step 4 is clipped. */
    const struct runs_curve clip = runs_curve("small-halves-2", "clip_scale");
    assert_int_equal(clip.count, 7);
    assert_true(clip.value[0] == 1.0 && clip.value[3] < 1.0);
}

/* Another format than the run's own is refused by name; another place is nobody's concern. */
static void test_resume_in_another_format(void **state)
{
    (void)state;
    int64_t step;
    assert_ok(
        runs_train(&step, "coded", false, SETTINGS("train.steps", "2", "train.moments", "8bit")));
    assert_err(runs_train(&step, "coded", true, SETTINGS("train.steps", "3")), USAGE,
               "train.moments is f32; the run in ");
    assert_ok(ckpt_verify(testing_path("coded/ckpt/step-00000002")));
    assert_ok(runs_train(
        &step, "coded", true,
        SETTINGS("train.steps", "4", "train.moments", "8bit", "train.moments_place", "host")));
    assert_ok(runs_train(&step, "coded-whole", false,
                         SETTINGS("train.steps", "4", "train.moments", "8bit")));
    runs_same_checkpoint("coded", "coded-whole", 4);
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
            for (bool failed = true; failed; n++) {
                struct cfg *cfg = small_cfg(i, out, "2");
                failed = runs_open_fails(cfg, sites[s], n, "bytes");
                assert_ok(ckpt_verify(testing_path(checkpoint)));
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
    const char *const settings[] = {
        "train.steps", "6", "train.save_every", "2", "train.validate_every", "3", NULL
    };
    int64_t step;
    assert_ok(runs_train(&step, "device-whole", false, settings));
    for (int64_t n = 1; n < 200; n += 13) {
        struct run run;
        struct cfg *cfg = runs_cfg("device", settings);
        assert_ok(dir_remove(testing_path("device")));
        assert_ok(micro_run_start(&run, cfg, false));
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
        assert_true(runs_has_checkpoint("device", 2) || runs_has_checkpoint("device", 4));
        assert_ok(runs_train(&step, "device", true, settings));
        runs_same_checkpoint("device", "device-whole", 6);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_devices_resume),
        cmocka_unit_test(test_resume_in_another_format),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_device_error),
    };
    micro_corpus(RUNS_CORPUS, 10, 4);
    assert_ok(log_init("off"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
