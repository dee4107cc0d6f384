/* Whole runs on the emulated GPU, or on a real one (testing_gpu): whatever call of it fails, the
 * error is one line, the last checkpoint is intact, and the run goes on from there to the bits of
 * one undisturbed. */
#include "train_runs.h"

#include "base/check.h"
#include "base/fault.h"
#include "base/log.h"
#include "train/loop.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Large settings and small ones, in bf16. */
static const char *const *const settings[] = {
    SETTINGS("train.device", "emu", "train.precision", "bf16", "train.steps", "2", "batch.size",
             "2", "train.save_every", "1", "train.keep_last", "9", "train.validate_every", "2",
             "train.validate_samples", "2", "train.activations", "lean"),
    SETTINGS("train.device", "emu", "train.precision", "bf16", "train.steps", "2", "batch.size",
             "2", "train.save_every", "1", "train.keep_last", "9", "train.validate_every", "0",
             "train.moments", "8bit", "train.moments_place", "host", "train.update", "backward",
             "train.clip_norm_from", "previous", "batch.micro_tokens", "2048", "train.activations",
             "recompute"),
};

static bool is_of_the_device(err_t rc) { return rc == ERR_CUDA || rc == ERR_NOMEM; }

/* Train, the n-th device call of a kind failing; whether the run did without it, as it can without
 * the memory of a checkpoint's copy. */
static bool train_with_fault(int64_t choice, const char *out, const char *kind, int n)
{
    int64_t step;
    fault_arm(kind, n);
    const err_t rc = runs_train(&step, out, false, settings[choice]);
    fault_arm("", 0);
    if (rc == ERR_OK) return true;
    if (!is_of_the_device(rc)) fail_msg("%s%d: %s: %s", kind, n, err_name(rc), err_last()->text);
    assert_null(strchr(err_last()->text, '\n'));
    return false;
}

/* The device calls of a kind in a whole run. */
static int count_calls(int64_t choice, const char *out, const char *kind)
{
    int64_t step;
    fault_arm(kind, INT_MAX);
    assert_ok(runs_train(&step, out, false, settings[choice]));
    const int calls = fault_hits();
    fault_arm("", 0);
    return calls;
}

static void check_faults(int64_t choice)
{
    enum { PLACES = 14, KINDS = 2 };
    static const char *const kinds[KINDS] = { "gpu.", "gemm." };
    int calls[KINDS];
    int64_t step, resumed = 0, survived = 0;
    char whole[32], out[32], root[64];
    snprintf(whole, sizeof whole, "whole-%d", (int)choice);
    snprintf(out, sizeof out, "fault-%d", (int)choice);
    snprintf(root, sizeof root, "%s/ckpt", out);
    for (int k = 0; k < KINDS; k++) {
        assert_ok(dir_remove(testing_path(whole)));
        calls[k] = count_calls(choice, whole, kinds[k]);
        assert_true(calls[k] > 2 * PLACES);
    }
    for (int i = 0; i < PLACES; i++) {
        const int k = i % 4 == 3; /* the fewer are products */
        int64_t newest;
        assert_ok(dir_remove(testing_path(out)));
        survived += train_with_fault(choice, out, kinds[k], 1 + i * (calls[k] - 1) / PLACES);
        assert_ok(ckpt_newest(&newest, testing_path(root), NULL));
        if (newest < 0 && i > 0) continue; /* it would be the undisturbed run once more */
        assert_ok(runs_train(&step, out, true, settings[choice]));
        runs_same_checkpoint(whole, out, 2);
        resumed += newest >= 0;
    }
    assert_true(survived <= 1);
    assert_true(resumed > PLACES / 4); /* faults after the first checkpoint */
}

static void test_device_calls_that_fail(void **state)
{
    (void)state;
    for (int64_t i = 0; i < COUNT_OF(settings); i++) check_faults(i);
}

/* Device memory runs out at each allocation of a start. */
static void test_device_memory(void **state)
{
    (void)state;
    static const char *const sites[] = { "gpu.malloc", "gpu.host_malloc" };
    for (int64_t i = 0; i < COUNT_OF(settings); i++) {
        for (int64_t s = 0; s < COUNT_OF(sites); s++) {
            int n = 1;
            for (bool failed = true; failed; n++) {
                struct cfg *cfg = runs_cfg("memory", settings[i]);
                failed = runs_open_fails(cfg, sites[s], n,
                                         "soulchat plan prints what the settings need");
                cfg_close(cfg);
            }
            assert_true(n > 2);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_device_calls_that_fail),
        cmocka_unit_test(test_device_memory),
    };
    struct dev *dev;
    if (dev_open(&dev, testing_gpu(), 1) != ERR_OK) testing_skip_all(err_last()->text);
    dev_close(dev);
    micro_corpus(RUNS_CORPUS, 10, 4);
    assert_ok(log_init("off"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
