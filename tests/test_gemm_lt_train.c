/* The algorithms that a run has chosen go on with it: from the checkpoint, whatever became of the
 * file that programs share. With a stand-in for cuBLASLt (fake_cublaslt.cc). */
#include "train_runs.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

#define ON_EMU(...)                                                                                \
    SETTINGS("train.device", "emu", "train.precision", "bf16", "train.validate_every", "0",        \
             "batch.size", "1", __VA_ARGS__)

static void use_file(const char *path) { assert_int_equal(setenv("SOULCHAT_TUNE", path, 1), 0); }

static void test_resume_has_the_choices(void **state)
{
    (void)state;
    int64_t step;
    struct ckpt_state first, second;
    struct buf file = { 0 };
    use_file(testing_path("first.tune"));
    assert_ok(runs_train(&step, "run", false, ON_EMU("train.steps", "1")));
    assert_ok(ckpt_state_read(&first, testing_path("run/ckpt/step-00000001")));
    runs_read(&file, "first.tune");
    assert_true(first.tuning.size > 100);
    assert_int_equal(first.tuning.size, file.size);

    /* Lines hold times, which are never the same when measured again. */
    use_file(testing_path("second.tune"));
    assert_ok(runs_train(&step, "run", true, ON_EMU("train.steps", "2")));
    assert_ok(ckpt_state_read(&second, testing_path("run/ckpt/step-00000002")));
    for (char *save, *line = strtok_r(first.tuning.data, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save))
        if (strncmp(line, "crc32c", 6) != 0) assert_non_null(strstr(second.tuning.data, line));
    ckpt_state_clear(&first);
    ckpt_state_clear(&second);
    buf_clear(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resume_has_the_choices),
    };
    micro_corpus(RUNS_CORPUS, 10, 4);
    assert_ok(log_init("off"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
