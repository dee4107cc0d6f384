/*
 * What the CUDA backend says, and leaves behind, when the runtime refuses: every call failing once,
 * errors that stay, no memory, no GPU, the wrong one. Over the runtime of runtime.cc.
 */
#include "testing.h"
#include "use_device.h"

#include "base/check.h"
#include "base/log.h"
#include "kernels/dev.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The runtime's codes. */
enum { NO_MEMORY = 2, ECC = 214, ILLEGAL_ADDRESS = 700, UNKNOWN = 999 };

static void set(const char *name, const char *format, int64_t value)
{
    char text[32];
    snprintf(text, sizeof text, format, (long long)value);
    setenv(name, text, 1);
}

/* The n-th call from now on. */
static void plan_failure(int64_t n, int code)
{
    char text[48];
    unsetenv("SOFTGPU_FAIL");
    snprintf(text, sizeof text, "%lld:%d", (long long)n, code);
    setenv("SOFTGPU_FAIL", text, 1);
}

/* Nothing is left on the device, and it works. */
static void assert_clean(void)
{
    struct dev *dev;
    unsetenv("SOFTGPU_FAIL");
    assert_ok(dev_open(&dev, "cuda", 1));
    assert_int_equal(dev->info.memory_free_bytes, dev->info.memory_bytes);
    dev_close(dev);
    assert_ok(use_device("cuda"));
}

/* Calls whose failure nobody is told of are those that give back. */
static void fail_every_call(int code)
{
    int failures = 0, passed_in_a_row = 0;
    for (int64_t n = 1; passed_in_a_row < 40; n++) {
        plan_failure(n, code);
        const err_t rc = use_device("cuda");
        passed_in_a_row = rc == ERR_OK ? passed_in_a_row + 1 : 0;
        failures += rc != ERR_OK;
        if (rc != ERR_OK) {
            assert_true(rc == ERR_CUDA || (rc == ERR_NOMEM && code == NO_MEMORY));
            assert_non_null(strstr(err_last()->text, code == NO_MEMORY ? "" : "cuda"));
            assert_null(strchr(err_last()->text, '\n'));
        }
        assert_clean();
    }
    assert_true(failures >= 25);
}

static void test_every_call(void **state)
{
    (void)state;
    fail_every_call(UNKNOWN);
    fail_every_call(NO_MEMORY);
}

static void test_every_call_lasting(void **state)
{
    (void)state;
    fail_every_call(ILLEGAL_ADDRESS);
    fail_every_call(ECC);
}

/* Queued work fails: told where it is waited for, with what to do about it. */
static void test_told_at_the_end(void **state)
{
    struct dev *dev;
    (void)state;
    assert_ok(dev_open(&dev, "cuda", 1));
    plan_failure(1, ECC);
    assert_err(dev_sync(dev), CUDA, "cudaStreamSynchronize: ");
    assert_non_null(strstr(err_last()->text, "(cudaErrorECCUncorrectable); the GPU's memory has a "
                                             "hardware error"));
    assert_err(dev_sync(dev), CUDA, "cudaErrorECCUncorrectable"); /* and stays */
    dev_close(dev);
    assert_clean();
}

static void test_no_memory(void **state)
{
    enum { TOTAL = 64 << 20 };
    struct dev *dev;
    void *most, *more;
    (void)state;
    set("SOFTGPU_MEMORY", "%lld", TOTAL);
    assert_ok(dev_open(&dev, "cuda", 1));
    assert_ok(dev_alloc(dev, &most, TOTAL - 4096, "weights"));
    assert_err(dev_alloc(dev, &more, 4097, "moments"), NOMEM,
               "moments: 4097 bytes wanted on the GPU, 4096 of 67108864 free; soulchat plan");
    assert_ok(dev_alloc(dev, &more, 4096, "moments"));
    dev_free(dev, more);
    dev_free(dev, most);
    dev_close(dev);
    unsetenv("SOFTGPU_MEMORY");
}

static void test_other_machines(void **state)
{
    struct dev *dev;
    (void)state;
    assert_err(dev_open(&dev, "cuda:1", 1), CUDA, "nvidia-smi -L lists the devices");
    set("SOFTGPU_DEVICES", "%lld", 0);
    assert_err(dev_open(&dev, "cuda", 1), CUDA, "no NVIDIA GPU is visible here");
    set("SOFTGPU_DEVICES", "%lld", 2);
    assert_ok(dev_open(&dev, "cuda:1", 1));
    dev_close(dev);
    unsetenv("SOFTGPU_DEVICES");
    set("SOFTGPU_CAPABILITY", "%lld", 75);
    assert_err(dev_open(&dev, "cuda", 1), CUDA,
               "has compute capability 7.5; this backend needs 8.0 or later");
    set("SOFTGPU_CAPABILITY", "%lld", 100);
    assert_ok(dev_open(&dev, "cuda", 1));
    assert_int_equal(dev->info.capability, 100);
    dev_close(dev);
    unsetenv("SOFTGPU_CAPABILITY");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_call),      cmocka_unit_test(test_every_call_lasting),
        cmocka_unit_test(test_told_at_the_end), cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_other_machines),
    };
    assert_ok(log_init("off"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
