/*
 * Export: a folder written from the golden model holds the same values under the same names in the
 * published layout; nothing is left behind by a failure; checkpoints are found and read.
 */
#include "base/fault.h"
#include "base/file.h"
#include "base/num.h"
#include "base/stop.h"
#include "model/commands.h"
#include "model/hf_checkpoint.h"
#include "model/hf_folder.h"
#include "model/safetensors.h"
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

#define GOLDEN     "tests/golden/chatglm-tiny"
#define FROZEN     "transformer.layers.1.attention.rotary_emb.inv_freq"
#define EMBEDDING  "transformer.word_embeddings.weight"
#define LAYER_NORM "transformer.layers.2.input_layernorm.weight"
#define MARKER     "unfinished.export"
#define DENSE_BIAS "transformer.layers.2.attention.dense.bias"

static bool exists(const char *name) { return access(testing_path(name), F_OK) == 0; }

static void put(const char *name, const char *text)
{
    assert_ok(file_replace(testing_path(name), text, (int64_t)strlen(text)));
}

static struct glm_config golden_config(void)
{
    struct glm_config config;
    assert_ok(glm_config_read(&config, GOLDEN));
    return config;
}

static struct weight_source *golden_source(void)
{
    struct weight_source *source = NULL;
    assert_ok(hf_folder_open(&source, GOLDEN));
    return source;
}

static err_t export_golden(const char *dir, struct hf_export options)
{
    const struct glm_config config = golden_config();
    struct weight_source *source = golden_source();
    const err_t rc = hf_folder_write(testing_path(dir), &config, source, &options);
    weight_source_close(source);
    return rc;
}

/* Elements of `name`, as float64; the caller frees. */
static double *values_of(struct weight_source *s, const char *name, int64_t *count)
{
    const int64_t index = weight_source_find(s, name);
    assert_true(index >= 0);
    *count = weight_source_info(s, index).count;
    double *values = malloc((size_t)*count * sizeof *values);
    assert_non_null(values);
    assert_ok(weight_source_read_as(s, values, DTYPE_F64, index, 0, *count));
    return values;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t a = strlen(text), b = strlen(end);
    return a >= b && strcmp(text + a - b, end) == 0;
}

/* Every golden tensor is there with its shape, its dtype, and its values within `error` (relative).
 */
static void assert_same_model(const char *dir, dtype_t dtype, double error)
{
    struct weight_source *a = golden_source(), *b = NULL;
    assert_ok(hf_folder_open(&b, testing_path(dir)));
    assert_int_equal(weight_source_count(b), weight_source_count(a));
    for (int64_t i = 0; i < weight_source_count(a); i++) {
        const struct weight_info info = weight_source_info(a, i);
        int64_t count_a, count_b;
        double *x = values_of(a, info.name, &count_a), *y = values_of(b, info.name, &count_b);
        const struct weight_info written = weight_source_info(b, weight_source_find(b, info.name));
        const bool is_norm = strstr(info.name, "layernorm") != NULL;
        const bool is_buffer = ends_with(info.name, "inv_freq");
        assert_int_equal(written.dtype, is_norm ? DTYPE_F32 : is_buffer ? DTYPE_F16 : dtype);
        assert_int_equal(written.dims, info.dims);
        assert_memory_equal(written.dim, info.dim, sizeof info.dim);
        for (int64_t k = 0; k < count_a; k++) {
            const double bound = is_norm || is_buffer ? 0 : error * (x[k] < 0 ? -x[k] : x[k]);
            assert_true(x[k] - y[k] <= bound && y[k] - x[k] <= bound);
        }
        free(x);
        free(y);
    }
    weight_source_close(a);
    weight_source_close(b);
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
        assert_same_model(cases[i].dir, cases[i].dtype, cases[i].error);
        assert_int_equal(report.tensor_count, 43);
        assert_int_equal(report.file_count, 1);
        /* 1280*64 tied once; a layer is 192*65 + 64*65 + 256*65 + 64*257 + 4*64; the final norm */
        assert_int_equal(report.element_count,
                         1280 * 64 + 3 * (192 * 65 + 64 * 65 + 256 * 65 + 64 * 257 + 256) + 128);

        struct glm_config back, config = golden_config();
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
    assert_same_model("shards", DTYPE_F16, 0);
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
    assert_same_model("single", DTYPE_F16, 0);
}

static void test_untied(void **state)
{
    (void)state;
    struct glm_config config = golden_config(), back;
    struct weight_source *source = golden_source(), *written;
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
    put("tokenizer/ice_text.model", "pieces");
    put("tokenizer/modeling_chatglm.py", "code");
    put("tokenizer/README.md", "not copied");
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

    put("tokenizer/ice_text.model", "version https://git-lfs.github.com/spec/v1\noid\n");
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
    put("twice/stale", "from the first export");
    assert_ok(export_golden("twice/", options)); /* a slash behind changes nothing */
    assert_same_model("twice", DTYPE_F32, 0);
    assert_false(exists("twice/stale"));
    assert_false(exists("twice.tmp"));

    assert_ok(dir_create(testing_path("home")));
    put("home/thesis", "precious");
    assert_err(export_golden("home", options), ARG, "holds no config.json");
    assert_true(exists("home/thesis"));
    put("a-file", "x");
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
    put("mine.tmp/config.json", "precious");
    assert_err(export_golden("mine", options), ARG, "mine.tmp exists and is no unfinished export");
    assert_true(exists("mine.tmp/config.json"));
    assert_ok(export_golden("mine2", options));
    put("mine2.tmp", "a file");
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
    put("killed.tmp/half", "written");
    assert_ok(export_golden("killed", options));
    assert_same_model("killed", DTYPE_F16, 0);
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
    put("stopped/old", "there before");
    testing_signal(SIGTERM);
    assert_err(export_golden("stopped", options), INTERRUPTED, "nothing is left");
    stop_reset();
    assert_true(exists("stopped/old"));
    assert_false(exists("stopped.tmp"));
}

static void test_options(void **state)
{
    (void)state;
    struct glm_config config = golden_config();
    struct weight_source *source = golden_source();
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

    config = golden_config();
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
    const struct glm_config config = golden_config();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct changed c = { { &ops }, golden_source(), cases[i].name, 7, 0 };
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
    const struct glm_config config = golden_config();
    assert_ok(export_golden("faults", f32));
    int failures = 0;
    for (int n = 1;; n++) {
        struct weight_source *source = golden_source(), *written = NULL;
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
    assert_same_model("faults", DTYPE_F16, 0);
}

/* ---- checkpoints ---- */

/* Every parameter of the golden model under prefix + its name, in one file; returns its bytes. */
static int64_t write_parameters(const char *dir, const char *file, const char *prefix,
                                dtype_t dtype)
{
    struct weight_source *golden = golden_source();
    struct safetensors_entry entry[64];
    struct safetensors_writer w;
    char path[FILE_PATH_MAX], name[64][128];
    float *values = malloc(1280 * 64 * sizeof *values);
    int64_t count = 0, from[64];
    assert_non_null(values);
    for (int64_t i = 0; i < weight_source_count(golden); i++) {
        const struct weight_info info = weight_source_info(golden, i);
        if (ends_with(info.name, "inv_freq") || strcmp(info.name, "lm_head.weight") == 0) continue;
        snprintf(name[count], sizeof name[count], "%s%s", prefix, info.name);
        entry[count] = (struct safetensors_entry){ name[count], dtype, info.dims, { 0 } };
        memcpy(entry[count].dim, info.dim, sizeof info.dim);
        from[count++] = i;
    }
    snprintf(path, sizeof path, "%s/%s", testing_path(dir), file);
    assert_ok(safetensors_writer_open(&w, path, entry, count, NULL));
    const int64_t bytes = w.bytes;
    for (int64_t i = 0; i < count; i++) {
        const int64_t n = weight_source_info(golden, from[i]).count;
        assert_ok(weight_source_read_as(golden, values, dtype, from[i], 0, n));
        assert_ok(safetensors_writer_write(&w, i, values, n * dtype_bytes(dtype), 0));
    }
    assert_ok(safetensors_writer_commit(&w));
    safetensors_writer_close(&w);
    free(values);
    weight_source_close(golden);
    return bytes;
}

/* A master of the embedding that is twice the weight, and a state; returns the file's bytes. */
static int64_t write_double_master(const char *dir, const char *file)
{
    struct weight_source *golden = golden_source();
    struct safetensors_writer w;
    char path[FILE_PATH_MAX];
    float *values = malloc(1280 * 64 * sizeof *values);
    const struct safetensors_entry optim[] = { { "master." EMBEDDING, DTYPE_F32, 2, { 1280, 64 } },
                                               { "exp_avg." EMBEDDING, DTYPE_F32, 1, { 1 } } };
    assert_non_null(values);
    snprintf(path, sizeof path, "%s/%s", testing_path(dir), file);
    assert_ok(safetensors_writer_open(&w, path, optim, 2, NULL));
    const int64_t bytes = w.bytes;
    assert_ok(weight_source_read_as(golden, values, DTYPE_F32,
                                    weight_source_find(golden, EMBEDDING), 0, 1280 * 64));
    for (int64_t i = 0; i < 1280 * 64; i++) values[i] *= 2;
    assert_ok(safetensors_writer_write(&w, 0, values, 1280 * 64 * 4, 0));
    assert_ok(safetensors_writer_write(&w, 1, values, 4, 0));
    assert_ok(safetensors_writer_commit(&w));
    safetensors_writer_close(&w);
    free(values);
    weight_source_close(golden);
    return bytes;
}

/* state.json and, if wanted, the manifest of the two files. */
static void write_records(const char *dir, const int64_t bytes[2], bool with_manifest)
{
    const struct glm_config config = golden_config();
    char path[FILE_PATH_MAX];
    struct buf json = { 0 };
    assert_ok(glm_config_write(&json, &config, "float32"));
    json_t *root = json_pack("{s:s, s:s, s:i}", "model_config", json.data, "tokenizer_dir",
                             testing_path("tokens"), "step", 7);
    snprintf(path, sizeof path, "%s/state.json", testing_path(dir));
    assert_int_equal(json_dump_file(root, path, 0), 0);
    json_decref(root);
    buf_reset(&json);
    assert_ok(
        buf_printf(&json,
                   "{\"version\":1,\"files\":{\"model.0000.safetensors\":{\"bytes\":%lld},"
                   "\"optim.0000.safetensors\":{\"bytes\":%lld},\"state.json\":{\"bytes\":1}}}",
                   (long long)bytes[0], (long long)bytes[1]));
    snprintf(path, sizeof path, "%s/MANIFEST.json", testing_path(dir));
    if (with_manifest) assert_ok(file_replace(path, json.data, (int64_t)json.size));
    buf_clear(&json);
}

/* A checkpoint of the golden model in float32; the embedding has a master that is twice the weight.
 */
static void make_checkpoint(const char *dir, bool with_manifest)
{
    assert_ok(dir_create(testing_path(dir)));
    const int64_t bytes[] = {
        write_parameters(dir, "model.0000.safetensors", "", DTYPE_F32),
        write_double_master(dir, "optim.0000.safetensors"),
    };
    write_records(dir, bytes, with_manifest);
}

/* Trained in bf16 with a master: the exported folder has every bit of the master. */
static void test_masters_of_bf16(void **state)
{
    (void)state;
    const struct glm_config config = golden_config();
    const struct hf_export options = { .dtype = DTYPE_F16 };
    struct weight_source *s;
    int64_t count, rounded = 0;
    assert_ok(dir_create(testing_path("bf16")));
    const int64_t bytes[] = {
        write_parameters("bf16", "model.0000.safetensors", "", DTYPE_BF16),
        write_parameters("bf16", "optim.0000.safetensors", "master.", DTYPE_F32),
    };
    write_records("bf16", bytes, true);
    assert_ok(hf_checkpoint_open(&s, testing_path("bf16")));
    assert_int_equal(weight_source_count(s), 39);
    assert_int_equal(weight_source_matrix_dtype(s), DTYPE_F32);
    assert_ok(hf_folder_write(testing_path("from-bf16"), &config, s, &options));
    assert_same_model("from-bf16", DTYPE_F16, 0);

    /* It would not be so without: bf16 has fewer digits than the golden f16. */
    double *exact = values_of(s, EMBEDDING, &count);
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
    make_checkpoint("run/ckpt/step-00000900", true);
    make_checkpoint("run/ckpt/step-00001000", true);
    make_checkpoint("run/ckpt/step-00001100", false); /* killed before its manifest */
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
    struct glm_config config, golden = golden_config();
    struct weight_source *s, *g = golden_source();
    char tokenizer[FILE_PATH_MAX], text[128];
    make_checkpoint("one", true);
    assert_ok(hf_checkpoint_config(&config, tokenizer, testing_path("one")));
    assert_null(glm_config_difference(&config, &golden, text, sizeof text));
    assert_string_equal(tokenizer, testing_path("tokens"));
    assert_ok(hf_checkpoint_open(&s, testing_path("one")));
    assert_int_equal(weight_source_count(s), 39); /* no buffers, no second name, no states */
    int64_t count;
    double *plain = values_of(g, EMBEDDING, &count), *master = values_of(s, EMBEDDING, &count);
    for (int64_t i = 0; i < count; i++) assert_true(master[i] == 2 * plain[i]);
    free(plain);
    free(master);
    weight_source_close(s);
    weight_source_close(g);

    put("one/MANIFEST.json",
        "{\"version\":1,\"files\":{\"model.0000.safetensors\":{\"bytes\":12}}}");
    assert_err(hf_checkpoint_open(&s, testing_path("one")), FORMAT, "MANIFEST.json says 12");
    put("one/MANIFEST.json",
        "{\"version\":1,\"files\":{\"model.0001.safetensors\":{\"bytes\":12}}}");
    assert_err(hf_checkpoint_open(&s, testing_path("one")), NOTFOUND, "model.0001");
    put("one/MANIFEST.json", "{\"version\":1,\"files\":{}}");
    assert_err(hf_checkpoint_open(&s, testing_path("one")), FORMAT, "no weights");
    put("one/MANIFEST.json", "{\"version\":1}");
    assert_err(hf_checkpoint_open(&s, testing_path("one")), FORMAT, "files is nothing");
    put("one/MANIFEST.json", "{\"version\":2}");
    assert_err(hf_checkpoint_open(&s, testing_path("one")), UNSUPPORTED, "version 2");
    put("one/state.json", "{\"model_config\":{}}");
    assert_err(hf_checkpoint_config(&config, tokenizer, testing_path("one")), FORMAT,
               "model_config is an object");
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
    assert_same_model("by-command", DTYPE_F32, 0);
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
    make_checkpoint("trained/ckpt/step-00000001", true);
    assert_ok(dir_create(testing_path("tokens")));
    put("tokens/ice_text.model", "pieces");
    assert_ok(RUN("export", testing_path("trained"), testing_path("from-run")));
    assert_non_null(strstr(out, "43 tensors"));
    assert_true(exists("from-run/ice_text.model"));
    struct weight_source *s;
    int64_t row, count;
    assert_ok(hf_folder_open(&s, testing_path("from-run")));
    assert_ok(weight_source_compare(&row, s, weight_source_find(s, EMBEDDING),
                                    weight_source_find(s, "lm_head.weight")));
    assert_int_equal(row, -1); /* written twice from one */
    free(values_of(s, FROZEN, &count));
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
        cmocka_unit_test(test_find_checkpoint),
        cmocka_unit_test(test_open_checkpoint),
        cmocka_unit_test(test_masters_of_bf16),
        cmocka_unit_test(test_command),
        cmocka_unit_test(test_command_on_a_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
