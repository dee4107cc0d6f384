/* Checkpoints are found and read, and exported with every bit of their masters. */
#include "export_fixture.h"

#include "base/file.h"
#include "base/num.h"
#include "model/hf_checkpoint.h"
#include "model/hf_folder.h"
#include "testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Trained in bf16 with a master: the exported folder has every bit of the master. */
static void test_masters_of_bf16(void **state)
{
    (void)state;
    const struct glm_config config = export_config();
    const struct hf_export options = { .dtype = DTYPE_F16 };
    struct weight_source *s;
    int64_t count, rounded = 0;
    assert_ok(dir_create(testing_path("bf16")));
    const int64_t bytes[] = {
        export_write_parameters("bf16", "model.0000.safetensors", "", DTYPE_BF16),
        export_write_parameters("bf16", "optim.0000.safetensors", "master.", DTYPE_F32),
    };
    export_write_records("bf16", bytes, true);
    assert_ok(hf_checkpoint_open(&s, testing_path("bf16")));
    assert_int_equal(weight_source_count(s), 39);
    assert_int_equal(weight_source_matrix_dtype(s), DTYPE_F32);
    assert_ok(hf_folder_write(testing_path("from-bf16"), &config, s, &options));
    export_assert_same("from-bf16", DTYPE_F16, 0);

    /* It would not be so without: bf16 has fewer digits than the golden f16. */
    double *exact = export_values(s, EMBEDDING, &count);
    for (int64_t i = 0; i < count; i++)
        rounded += (double)bf16_to_f32(f32_to_bf16((float)exact[i])) != exact[i];
    assert_true(rounded > count / 2);
    free(exact);
    weight_source_close(s);
}

static void test_find_checkpoint(void **state)
{
    (void)state;
    char dir[FILE_PATH_MAX];
    export_make_checkpoint("run/ckpt/step-00000900", true);
    export_make_checkpoint("run/ckpt/step-00001000", true);
    export_make_checkpoint("run/ckpt/step-00001100", false); /* killed before its manifest */
    assert_ok(dir_create(testing_path("run/ckpt/step-00001200.tmp")));
    assert_ok(dir_create(testing_path("run/ckpt/step-later")));
    assert_ok(hf_checkpoint_find(dir, testing_path("run")));
    assert_string_equal(dir, testing_path("run/ckpt/step-00001000"));
    assert_ok(hf_checkpoint_find(dir, testing_path("run/ckpt")));
    assert_string_equal(dir, testing_path("run/ckpt/step-00001000"));
    assert_ok(hf_checkpoint_find(dir, testing_path("run/ckpt/step-00000900")));
    assert_string_equal(dir, testing_path("run/ckpt/step-00000900"));
    assert_err(hf_checkpoint_find(dir, testing_path("run/ckpt/step-00001100")), FORMAT,
               "not finished");
    assert_err(hf_checkpoint_find(dir, GOLDEN), NOTFOUND, "no finished checkpoint");
    assert_err(hf_checkpoint_find(dir, testing_path("absent")), NOTFOUND, "no finished checkpoint");

    /* One that cannot be looked at is not passed over for an older one. */
    const char *looped = testing_path("run/ckpt/step-00001300");
    assert_int_equal(symlink(looped, looped), 0);
    assert_err(hf_checkpoint_find(dir, testing_path("run")), IO, "symbolic links");
    assert_int_equal(unlink(looped), 0);
}

static void test_open_checkpoint(void **state)
{
    (void)state;
    struct glm_config config, golden = export_config();
    struct weight_source *s, *g = export_source();
    char tokenizer[FILE_PATH_MAX], text[128];
    export_make_checkpoint("one", true);
    assert_ok(hf_checkpoint_config(&config, tokenizer, testing_path("one")));
    assert_null(glm_config_difference(&config, &golden, text, sizeof text));
    assert_string_equal(tokenizer, testing_path("tokens"));
    assert_ok(hf_checkpoint_open(&s, testing_path("one")));
    assert_int_equal(weight_source_count(s), 39); /* no buffers, no second name, no states */
    int64_t count;
    double *plain = export_values(g, EMBEDDING, &count),
           *master = export_values(s, EMBEDDING, &count);
    for (int64_t i = 0; i < count; i++) assert_true(master[i] == 2 * plain[i]);
    free(plain);
    free(master);
    weight_source_close(s);
    weight_source_close(g);

    export_put("one/MANIFEST.json",
               "{\"version\":1,\"files\":{\"model.0000.safetensors\":{\"bytes\":12}}}");
    assert_err(hf_checkpoint_open(&s, testing_path("one")), FORMAT, "MANIFEST.json says 12");
    export_put("one/MANIFEST.json",
               "{\"version\":1,\"files\":{\"model.0001.safetensors\":{\"bytes\":12}}}");
    assert_err(hf_checkpoint_open(&s, testing_path("one")), NOTFOUND, "model.0001");
    export_put("one/MANIFEST.json", "{\"version\":1,\"files\":{}}");
    assert_err(hf_checkpoint_open(&s, testing_path("one")), FORMAT, "no weights");
    export_put("one/MANIFEST.json", "{\"version\":1}");
    assert_err(hf_checkpoint_open(&s, testing_path("one")), FORMAT, "files is nothing");
    export_put("one/MANIFEST.json", "{\"version\":2}");
    assert_err(hf_checkpoint_open(&s, testing_path("one")), UNSUPPORTED, "version 2");
    export_put("one/state.json", "{\"model_config\":{}}");
    assert_err(hf_checkpoint_config(&config, tokenizer, testing_path("one")), FORMAT,
               "model_config is an object");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_masters_of_bf16),
        cmocka_unit_test(test_find_checkpoint),
        cmocka_unit_test(test_open_checkpoint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
