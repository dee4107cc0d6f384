#include "export_fixture.h"

#include "base/buf.h"
#include "base/file.h"
#include "model/hf_folder.h"
#include "model/safetensors.h"
#include "testing.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void export_put(const char *name, const char *text)
{
    assert_ok(file_replace(testing_path(name), text, (int64_t)strlen(text)));
}

struct glm_config export_config(void)
{
    struct glm_config config;
    assert_ok(glm_config_read(&config, GOLDEN));
    return config;
}

struct weight_source *export_source(void)
{
    struct weight_source *source = NULL;
    assert_ok(hf_folder_open(&source, GOLDEN));
    return source;
}

/* Elements of `name`, as float64; the caller frees. */
double *export_values(struct weight_source *s, const char *name, int64_t *count)
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
void export_assert_same(const char *dir, dtype_t dtype, double error)
{
    struct weight_source *a = export_source(), *b = NULL;
    assert_ok(hf_folder_open(&b, testing_path(dir)));
    assert_int_equal(weight_source_count(b), weight_source_count(a));
    for (int64_t i = 0; i < weight_source_count(a); i++) {
        const struct weight_info info = weight_source_info(a, i);
        int64_t count_a, count_b;
        double *x = export_values(a, info.name, &count_a),
               *y = export_values(b, info.name, &count_b);
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

/* Every parameter of the golden model under prefix + its name, in one file; returns its bytes. */
int64_t export_write_parameters(const char *dir, const char *file, const char *prefix,
                                dtype_t dtype)
{
    struct weight_source *golden = export_source();
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
    struct weight_source *golden = export_source();
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
void export_write_records(const char *dir, const int64_t bytes[2], bool with_manifest)
{
    const struct glm_config config = export_config();
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
void export_make_checkpoint(const char *dir, bool with_manifest)
{
    assert_ok(dir_create(testing_path(dir)));
    const int64_t bytes[] = {
        export_write_parameters(dir, "model.0000.safetensors", "", DTYPE_F32),
        write_double_master(dir, "optim.0000.safetensors"),
    };
    export_write_records(dir, bytes, with_manifest);
}
