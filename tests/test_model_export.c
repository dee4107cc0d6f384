/*
 * Export: a folder written from the golden model holds the same values under the same names in the
 * published layout; nothing is left behind by a failure.
 */
#include "export_fixture.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/num.h"
#include "base/stop.h"
#include "model/commands.h"
#include "model/hf_folder.h"
#include "model/settings.h"
#include "testing.h"

#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FROZEN     "transformer.layers.1.attention.rotary_emb.inv_freq"
#define LAYER_NORM "transformer.layers.2.input_layernorm.weight"
#define MARKER     "unfinished.export"
#define DENSE_BIAS "transformer.layers.2.attention.dense.bias"

static bool exists(const char *name) { return access(testing_path(name), F_OK) == 0; }

static err_t export_golden(const char *dir, struct hf_export options)
{
    const struct glm_config config = export_config();
    struct weight_source *source = export_source();
    const err_t rc = hf_folder_write(testing_path(dir), &config, source, &options);
    weight_source_close(source);
    return rc;
}

/* ---- whole folders ---- */

static void test_each_dtype(void **state)
{
    (void)state;
    static const struct {
        dtype_t dtype;
        const char *dir, *torch_name;
        double error; /* the golden values are fp16: half an ulp of bf16, else exact */
    } cases[] = {
        { DTYPE_F16, "f16", "\"torch_dtype\": \"float16\"", 0 },
        { DTYPE_F32, "f32", "\"torch_dtype\": \"float32\"", 0 },
        { DTYPE_BF16, "bf16", "\"torch_dtype\": \"bfloat16\"", 0x1p-8 },
    };
    for (int i = 0; i < 3; i++) {
        struct hf_export_report report;
        char text[128], file[64];
        assert_ok(export_golden(cases[i].dir,
                                (struct hf_export){ .dtype = cases[i].dtype, .report = &report }));
        export_assert_same(cases[i].dir, cases[i].dtype, cases[i].error);
        assert_int_equal(report.tensor_count, 43);
        assert_int_equal(report.file_count, 1);
        /* 1280*64 tied once; a layer is 192*65 + 64*65 + 256*65 + 64*257 + 4*64; the final norm */
        assert_int_equal(report.element_count,
                         1280 * 64 + 3 * (192 * 65 + 64 * 65 + 256 * 65 + 64 * 257 + 256) + 128);

        struct glm_config back, config = export_config();
        assert_ok(glm_config_read(&back, testing_path(cases[i].dir)));
        assert_null(glm_config_difference(&config, &back, text, sizeof text));
        struct buf json = { 0 };
        snprintf(file, sizeof file, "%s/config.json", cases[i].dir);
        assert_ok(file_read_all(&json, testing_path(file), 1 << 20));
        assert_non_null(strstr(json.data, cases[i].torch_name));
        buf_clear(&json);
        snprintf(file, sizeof file, "%s.tmp", cases[i].dir);
        assert_false(exists(file));
    }
}

static void test_shards(void **state)
{
    (void)state;
    struct hf_export_report report;
    assert_ok(export_golden(
        "shards",
        (struct hf_export){ .dtype = DTYPE_F16, .shard_bytes_max = 100000, .report = &report }));
    export_assert_same("shards", DTYPE_F16, 0);
    assert_true(report.file_count > 2);

    json_error_t error;
    json_t *index = json_load_file(testing_path("shards/model.safetensors.index.json"), 0, &error);
    assert_non_null(index);
    const json_t *total = json_object_get(json_object_get(index, "metadata"), "total_size");
    assert_int_equal(json_integer_value(total), report.bytes);
    assert_int_equal(json_object_size(json_object_get(index, "weight_map")), 43);
    json_decref(index);

    int64_t file_bytes = 0;
    for (int64_t k = 1; k <= report.file_count; k++) {
        char name[80];
        struct stat st;
        snprintf(name, sizeof name, "shards/model-%05lld-of-%05lld.safetensors", (long long)k,
                 (long long)report.file_count);
        assert_int_equal(stat(testing_path(name), &st), 0);
        /* Only a tensor that is larger alone (both embeddings) makes a file larger. */
        assert_true(st.st_size < 100000 + 8192 || st.st_size - 1280 * 64 * 2 < 8192);
        file_bytes += st.st_size;
    }
    assert_true(file_bytes > report.bytes);

    /* Every tensor is larger than the limit alone: a file for each, and none that is empty. */
    assert_ok(export_golden(
        "single",
        (struct hf_export){ .dtype = DTYPE_F16, .shard_bytes_max = 1, .report = &report }));
    assert_int_equal(report.file_count, 43);
    export_assert_same("single", DTYPE_F16, 0);
}

static void test_untied(void **state)
{
    (void)state;
    struct glm_config config = export_config(), back;
    struct weight_source *source = export_source(), *written;
    config.tied = false;
    config.rotary = GLM_ROTARY_FP32_ANGLE;
    assert_ok(hf_folder_write(testing_path("untied"), &config, source,
                              &(struct hf_export){ .dtype = DTYPE_F16 }));
    assert_ok(glm_config_read(&back, testing_path("untied")));
    assert_false(back.tied);
    assert_int_equal(back.rotary, GLM_ROTARY_FP32_ANGLE);
    assert_ok(hf_folder_open(&written, testing_path("untied")));
    assert_int_equal(weight_source_count(written), 43);
    weight_source_close(written);
    weight_source_close(source);
}

static void test_companions(void **state)
{
    (void)state;
    assert_ok(dir_create(testing_path("tokenizer")));
    export_put("tokenizer/ice_text.model", "pieces");
    export_put("tokenizer/modeling_chatglm.py", "code");
    export_put("tokenizer/README.md", "not copied");
    const struct hf_export options = { .dtype = DTYPE_F16,
                                       .tokenizer_dir = testing_path("tokenizer") };
    assert_ok(export_golden("companions", options));
    struct buf text = { 0 };
    assert_ok(file_read_all(&text, testing_path("companions/ice_text.model"), 100));
    assert_string_equal(text.data, "pieces");
    buf_clear(&text);
    assert_true(exists("companions/modeling_chatglm.py"));
    assert_false(exists("companions/README.md"));
    assert_false(exists("companions/tokenizer.model"));

    export_put("tokenizer/ice_text.model", "version https://git-lfs.github.com/spec/v1\noid\n");
    assert_err(export_golden("pointer", options), FORMAT, "git lfs pull");
    assert_false(exists("pointer"));
    assert_false(exists("pointer.tmp"));
}

/* ---- what is refused ---- */

static void test_existing_folders(void **state)
{
    (void)state;
    struct hf_export options = { .dtype = DTYPE_F16 };
    assert_ok(export_golden("twice", options));
    assert_err(export_golden("twice", options), ARG, "export.replace: true");
    options.replace = true;
    options.dtype = DTYPE_F32;
    export_put("twice/stale", "from the first export");
    assert_ok(export_golden("twice/", options)); /* a slash behind changes nothing */
    export_assert_same("twice", DTYPE_F32, 0);
    assert_false(exists("twice/stale"));
    assert_false(exists("twice.tmp"));

    assert_ok(dir_create(testing_path("home")));
    export_put("home/thesis", "precious");
    assert_err(export_golden("home", options), ARG, "holds no config.json");
    assert_true(exists("home/thesis"));
    export_put("a-file", "x");
    assert_err(export_golden("a-file", options), ARG, "is a file");
    options.tokenizer_dir = testing_path("twice");
    assert_err(export_golden("twice", options), ARG, "its own export");
}

/* What is removed at the temporary name is what an export left there, and nothing else. */
static void test_temporary_name(void **state)
{
    (void)state;
    const struct hf_export options = { .dtype = DTYPE_F16, .replace = true };
    assert_ok(dir_create(testing_path("mine.tmp")));
    export_put("mine.tmp/config.json", "precious");
    assert_err(export_golden("mine", options), ARG, "mine.tmp exists and is no unfinished export");
    assert_true(exists("mine.tmp/config.json"));
    assert_ok(export_golden("mine2", options));
    export_put("mine2.tmp", "a file");
    assert_err(export_golden("mine2", options), ARG, "mine2.tmp exists");
    assert_true(exists("mine2.tmp"));

    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        fault_arm_signal("file.rename", 3, SIGKILL);
        _exit(export_golden("killed", options) == ERR_OK);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_true(exists("killed.tmp/config.json"));
    export_put("killed.tmp/half", "written");
    assert_ok(export_golden("killed", options));
    export_assert_same("killed", DTYPE_F16, 0);
    assert_false(exists("killed.tmp") || exists("killed/half") || exists("killed/" MARKER));
}

/* Asked to stop: as though it had never begun, and what was there stays. */
static void test_stopped(void **state)
{
    (void)state;
    const struct hf_export options = { .dtype = DTYPE_F16, .replace = true };
    testing_signal(SIGTERM);
    assert_err(export_golden("stopped", options), INTERRUPTED, "nothing is left");
    assert_false(exists("stopped"));
    assert_false(exists("stopped.tmp"));
    stop_reset();
    assert_ok(export_golden("stopped", options));
    export_put("stopped/old", "there before");
    testing_signal(SIGTERM);
    assert_err(export_golden("stopped", options), INTERRUPTED, "nothing is left");
    stop_reset();
    assert_true(exists("stopped/old"));
    assert_false(exists("stopped.tmp"));
}

static void test_options(void **state)
{
    (void)state;
    struct glm_config config = export_config();
    struct weight_source *source = export_source();
    struct hf_export options = { .dtype = DTYPE_F64 };
    assert_err(hf_folder_write(testing_path("options"), &config, source, &options), ARG,
               "export as f64");
    options.dtype = DTYPE_F16;
    config.residual_alpha = 2;
    assert_err(hf_folder_write(testing_path("options"), &config, source, &options), ARG,
               "residual_alpha is 2");
    assert_err(hf_folder_write("", &config, source, &options), ARG, "path of 0 bytes");
    options.any_alpha = true;
    assert_ok(hf_folder_write(testing_path("options"), &config, source, &options));
    assert_ok(glm_config_read(&config, testing_path("options")));
    assert_true(config.residual_alpha == 2);

    config = export_config();
    config.layer_count = 4;
    options.replace = true;
    assert_err(hf_folder_write(testing_path("options"), &config, source, &options), FORMAT,
               "transformer.layers.3.input_layernorm.weight: not in the files");
    config.layer_count = 3;
    config.ffn_size = 128;
    assert_err(hf_folder_write(testing_path("options"), &config, source, &options), FORMAT,
               "mlp.dense_h_to_4h.weight: shape [256, 64]; expected [128, 64]");
    weight_source_close(source);
}

/* The golden model with one element of one tensor changed. */
struct changed {
    struct weight_source source;
    struct weight_source *golden;
    const char *name;
    int64_t element;
    float value;
};

static int64_t changed_count(const struct weight_source *s)
{
    return weight_source_count(((const struct changed *)s)->golden);
}

static struct weight_info changed_info(const struct weight_source *s, int64_t index)
{
    struct weight_info info = weight_source_info(((const struct changed *)s)->golden, index);
    info.dtype = DTYPE_F32;
    return info;
}

static err_t changed_read(struct weight_source *s, void *out, int64_t index, int64_t first,
                          int64_t count)
{
    const struct changed *c = (const struct changed *)s;
    TRY(weight_source_read_as(c->golden, out, DTYPE_F32, index, first, count));
    if (strcmp(weight_source_info(c->golden, index).name, c->name) == 0 && c->element >= first &&
        c->element < first + count)
        memcpy((float *)out + (c->element - first), &c->value, sizeof c->value);
    return ERR_OK;
}

static void test_values_that_do_not_fit(void **state)
{
    (void)state;
    static const struct weight_source_ops ops = { changed_count, changed_info, NULL, changed_read,
                                                  NULL };
    static const struct {
        const char *name;
        uint32_t bits;
        dtype_t dtype;
        err_t code;
        const char *part;
    } cases[] = {
        { DENSE_BIAS, 0x7fc00000, DTYPE_F32, ERR_NUMERIC, "dense.bias: element 7 is nan" },
        { DENSE_BIAS, 0xff800000, DTYPE_F32, ERR_NUMERIC, "dense.bias: element 7 is -inf" },
        { LAYER_NORM, 0x7f800000, DTYPE_F16, ERR_NUMERIC, "element 7 is inf" },
        { DENSE_BIAS, 0x477ff000, DTYPE_F16, ERR_NUMERIC, "element 7 is 65520, beyond float16" },
        { DENSE_BIAS, 0x477fefff, DTYPE_F16, ERR_OK, "" }, /* rounds to 65504 */
        { LAYER_NORM, 0x477ff000, DTYPE_F16, ERR_OK, "" }, /* norms stay float32 */
        { DENSE_BIAS, 0x7f7fffff, DTYPE_BF16, ERR_NUMERIC, "beyond bfloat16" },
        { DENSE_BIAS, 0x7f7f7fff, DTYPE_BF16, ERR_OK, "" },
        { DENSE_BIAS, 0x7f7fffff, DTYPE_F32, ERR_OK, "" },
        { "lm_head.weight", 0x3f800000, DTYPE_F32, ERR_FORMAT, "tied and differ first in row 0" },
    };
    const struct glm_config config = export_config();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct changed c = { { &ops }, export_source(), cases[i].name, 7, 0 };
        memcpy(&c.value, &cases[i].bits, 4);
        const err_t rc = hf_folder_write(testing_path("value"), &config, &c.source,
                                         &(struct hf_export){ .dtype = cases[i].dtype });
        testing_assert_code(rc, cases[i].code, cases[i].part, cases[i].part, __FILE__, __LINE__);
        assert_int_equal(exists("value"), rc == ERR_OK);
        assert_false(exists("value.tmp"));
        assert_ok(dir_remove(testing_path("value")));
        weight_source_close(c.golden);
    }
}

/* Whichever step fails: the old folder is there and whole, or the new one is. */
static void test_failing_steps(void **state)
{
    (void)state;
    const struct hf_export f32 = { .dtype = DTYPE_F32, .replace = true, .shard_bytes_max = 400000 };
    const struct hf_export f16 = { .dtype = DTYPE_F16, .replace = true, .shard_bytes_max = 400000 };
    const struct glm_config config = export_config();
    assert_ok(export_golden("faults", f32));
    int failures = 0;
    for (int n = 1;; n++) {
        struct weight_source *source = export_source(), *written = NULL;
        fault_arm("", n);
        const err_t rc = hf_folder_write(testing_path("faults"), &config, source, &f16);
        fault_arm("", 0);
        weight_source_close(source);
        assert_ok(hf_folder_open(&written, testing_path("faults")));
        assert_int_equal(weight_source_count(written), 43);
        const dtype_t dtype =
            weight_source_info(written, weight_source_find(written, EMBEDDING)).dtype;
        weight_source_close(written);
        if (rc == ERR_OK) break;
        failures++;
        assert_true(dtype == DTYPE_F32 || dtype == DTYPE_F16);
        if (dtype == DTYPE_F16) { /* published, a later step failed: begin again from the old */
            assert_ok(dir_remove(testing_path("faults.tmp")));
            assert_ok(export_golden("faults", f32));
        }
        assert_false(exists("faults.tmp"));
    }
    assert_true(failures > 20);
    export_assert_same("faults", DTYPE_F16, 0);
}

/* ---- the command ---- */

static err_t run_command(char *out, size_t out_size, int argc, const char **argv)
{
    struct cfg *cfg = NULL;
    assert_ok(cfg_create(&cfg, &model_settings, 1));
    fflush(stdout);
    const int kept = dup(1);
    assert_true(kept >= 0 && freopen(testing_path("stdout"), "w", stdout) != NULL);
    const err_t rc = cmd_export(cfg, argc, (char **)(uintptr_t)argv);
    fflush(stdout);
    assert_true(dup2(kept, 1) == 1);
    close(kept);
    cfg_close(cfg);
    struct buf text = { 0 };
    if (file_read_all(&text, testing_path("stdout"), 1 << 20) == ERR_OK)
        snprintf(out, out_size, "%s", text.data ? text.data : "");
    buf_clear(&text);
    if (rc != ERR_OK) fprintf(stderr, "%s\n", err_last()->text);
    return rc;
}

#define RUN(...)                                                                                   \
    run_command(out, sizeof out, (int)(sizeof((const char *[]){ __VA_ARGS__ }) / sizeof(char *)),  \
                (const char *[]){ __VA_ARGS__, NULL })

static void test_command(void **state)
{
    (void)state;
    char out[4096];
    assert_ok(RUN("export", GOLDEN, testing_path("by-command"), "--export.dtype=f32", "--json"));
    export_assert_same("by-command", DTYPE_F32, 0);
    json_error_t error;
    json_t *summary = json_loads(out, 0, &error);
    assert_non_null(summary);
    assert_int_equal(json_integer_value(json_object_get(summary, "tensors")), 43);
    assert_string_equal(json_string_value(json_object_get(summary, "dtype")), "f32");
    json_decref(summary);

    assert_ok(RUN("export", "--help"));
    assert_non_null(strstr(out, "export.shard_bytes"));
    assert_int_equal(RUN("export", GOLDEN), ERR_USAGE);
    assert_int_equal(RUN("export", testing_path("absent"), testing_path("x")), ERR_NOTFOUND);
    assert_int_equal(RUN("export", GOLDEN, testing_path("x"), "--export.dtype=i8"), ERR_USAGE);
    assert_int_equal(RUN("export", GOLDEN, testing_path("x"), "--tokenizer", "/absent"),
                     ERR_NOTFOUND);
    assert_false(exists("x"));
}

static void test_command_on_a_run(void **state)
{
    (void)state;
    char out[4096];
    export_make_checkpoint("trained/ckpt/step-00000001", true);
    assert_ok(dir_create(testing_path("tokens")));
    export_put("tokens/ice_text.model", "pieces");
    assert_ok(RUN("export", testing_path("trained"), testing_path("from-run")));
    assert_non_null(strstr(out, "43 tensors"));
    assert_true(exists("from-run/ice_text.model"));
    struct weight_source *s;
    int64_t row, count;
    assert_ok(hf_folder_open(&s, testing_path("from-run")));
    assert_ok(weight_source_compare(&row, s, weight_source_find(s, EMBEDDING),
                                    weight_source_find(s, "lm_head.weight")));
    assert_int_equal(row, -1); /* written twice from one */
    free(export_values(s, FROZEN, &count));
    assert_int_equal(count, 4);
    weight_source_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_dtype),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_untied),
        cmocka_unit_test(test_companions),
        cmocka_unit_test(test_existing_folders),
        cmocka_unit_test(test_temporary_name),
        cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_values_that_do_not_fit),
        cmocka_unit_test(test_failing_steps),
        cmocka_unit_test(test_command),
        cmocka_unit_test(test_command_on_a_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
