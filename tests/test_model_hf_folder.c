/*
 * A Hugging Face folder as a source: the published layout read as PyTorch reads it, and every way
 * in which an index and its files can disagree.
 */
#include "base/file.h"
#include "base/num.h"
#include "model/hf_folder.h"
#include "model/safetensors.h"
#include "testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define GOLDEN "tests/golden/chatglm-tiny"

/* Sums in float64 printed by PyTorch; sums of fp16 values are exact there and here. */
static const struct {
    const char *name;
    int64_t rows, cols;
    double sum;
} expected[] = {
    { "transformer.word_embeddings.weight", 1280, 64, -48.71719300746918 },
    { "transformer.layers.0.input_layernorm.weight", 64, 0, 63.83251953125 },
    { "transformer.layers.0.attention.rotary_emb.inv_freq", 4, 0, 1.110978126525879 },
    { "transformer.layers.0.attention.query_key_value.weight", 192, 64, -15.695803344249725 },
    { "transformer.layers.1.mlp.dense_4h_to_h.weight", 64, 256, -4.042207896709442 },
    { "transformer.layers.2.mlp.dense_h_to_4h.bias", 256, 0, 0.20212793350219727 },
    { "transformer.final_layernorm.bias", 64, 0, 0.11462545394897461 },
    { "lm_head.weight", 1280, 64, -48.71719300746918 },
};

static void test_golden_folder(void **state)
{
    (void)state;
    struct weight_source *source;
    assert_ok(hf_folder_open(&source, GOLDEN));
    assert_int_equal(weight_source_count(source), 3 * 13 + 4);
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        const int64_t index = weight_source_find(source, expected[i].name);
        assert_true(index >= 0);
        const struct weight_info info = weight_source_info(source, index);
        assert_string_equal(info.name, expected[i].name);
        assert_int_equal(info.dtype, DTYPE_F16);
        assert_int_equal(info.dims, expected[i].cols ? 2 : 1);
        assert_int_equal(info.dim[0], expected[i].rows);
        if (expected[i].cols) assert_int_equal(info.dim[1], expected[i].cols);
        double *values = malloc((size_t)info.count * sizeof *values), sum = 0;
        assert_ok(weight_source_read_as(source, values, DTYPE_F64, index, 0, info.count));
        for (int64_t k = 0; k < info.count; k++) sum += values[k];
        assert_true(sum == expected[i].sum);
        free(values);
    }
    assert_int_equal(weight_source_find(source, "transformer.layers.3.mlp.dense_h_to_4h.bias"), -1);
    assert_int_equal(weight_source_find(source, ""), -1);

    /* Tied: both names hold the same bytes. */
    int64_t row = 0;
    assert_ok(weight_source_compare(
        &row, source, weight_source_find(source, "transformer.word_embeddings.weight"),
        weight_source_find(source, "lm_head.weight")));
    assert_int_equal(row, -1);
    weight_source_close(source);
}

/* ---- folders made here ---- */

/* file "": the folder itself. */
static const char *path_of(const char *folder, const char *file)
{
    char name[FILE_PATH_MAX];
    assert_ok(path_join(name, folder, file));
    return testing_path(file[0] != '\0' ? name : folder);
}

static void put(const char *folder, const char *file, const char *text)
{
    assert_ok(dir_create(path_of(folder, "")));
    assert_ok(file_replace(path_of(folder, file), text, (int64_t)strlen(text)));
}

/* A safetensors file of f32 vectors of two elements: value, value + 1. */
static void put_weights(const char *folder, const char *file, const char *const *names, float value)
{
    struct safetensors_entry entries[4];
    int64_t count = 0;
    for (; names[count]; count++)
        entries[count] = (struct safetensors_entry){ names[count], DTYPE_F32, 1, { 2 } };
    struct safetensors_writer w;
    assert_ok(dir_create(path_of(folder, "")));
    assert_ok(safetensors_writer_open(&w, path_of(folder, file), entries, count, NULL));
    for (int64_t i = 0; i < count; i++) {
        const float data[2] = { value, value + 1 };
        assert_ok(safetensors_writer_write(&w, i, data, sizeof data, 0));
    }
    assert_ok(safetensors_writer_commit(&w));
    safetensors_writer_close(&w);
}

static void put_pair(const char *folder, const char *index)
{
    put_weights(folder, "model-1.safetensors", (const char *const[]){ "a", "b", NULL }, 1);
    put_weights(folder, "model-2.safetensors", (const char *const[]){ "c", NULL }, 5);
    put(folder, "model.safetensors.index.json", index);
}

static void test_sharded_safetensors(void **state)
{
    (void)state;
    struct weight_source *source;
    /* The hub's total_size is stale; ours here is plain wrong and does not matter. */
    put_pair("good",
             "{\"metadata\":{\"total_size\":7},\"weight_map\":{\"c\":\"model-2.safetensors\","
             "\"a\":\"model-1.safetensors\",\"b\":\"model-1.safetensors\"}}");
    assert_ok(hf_folder_open(&source, path_of("good", "")));
    assert_int_equal(weight_source_count(source), 3);
    float values[2];
    assert_ok(
        weight_source_read_as(source, values, DTYPE_F32, weight_source_find(source, "c"), 0, 2));
    assert_true(values[0] == 5 && values[1] == 6);
    assert_ok(
        weight_source_read_as(source, values, DTYPE_F32, weight_source_find(source, "b"), 1, 1));
    assert_true(values[0] == 2);
    weight_source_close(source);
}

static void test_order_of_places(void **state)
{
    (void)state;
    struct weight_source *source;
    put_weights("places", "model.safetensors", (const char *const[]){ "single", NULL }, 1);
    put("places", "pytorch_model.bin", "never looked at");
    assert_ok(hf_folder_open(&source, path_of("places", "")));
    assert_int_equal(weight_source_find(source, "single"), 0);
    weight_source_close(source);

    put("empty", "config.json", "{}");
    assert_err(hf_folder_open(&source, path_of("empty", "")), NOTFOUND, "no weights");
    assert_err(hf_folder_open(&source, path_of("absent", "")), NOTFOUND, "no such folder");
    assert_err(hf_folder_open(&source, path_of("empty", "config.json")), NOTFOUND,
               "no such folder");
}

static void test_index_that_disagrees(void **state)
{
    (void)state;
    static const struct {
        const char *index;
        err_t code;
        const char *part;
    } cases[] = {
        { "{\"weight_map\":{\"d\":\"model-1.safetensors\"}}", ERR_FORMAT,
          "tensor d is not in model-1" },
        { "{\"weight_map\":{\"a\":\"model-2.safetensors\",\"b\":\"model-1.safetensors\"}}",
          ERR_FORMAT, "tensor a is said to be in model-2.safetensors and is in model-1" },
        { "{\"weight_map\":{\"a\":\"model-3.safetensors\"}}", ERR_NOTFOUND,
          "names model-3.safetensors, which is not there" },
        { "{\"weight_map\":{\"a\":\"../good/model-1.safetensors\"}}", ERR_FORMAT, "same folder" },
        { "{\"weight_map\":{\"a\":\"/etc/passwd\"}}", ERR_FORMAT, "same folder" },
        { "{\"weight_map\":{\"a\":\"..\"}}", ERR_FORMAT, "same folder" },
        { "{\"weight_map\":{\"a\":\"\"}}", ERR_FORMAT, "same folder" },
        { "{\"weight_map\":{\"a\":1}}", ERR_FORMAT, "a is an integer" },
        { "{\"weight_map\":[]}", ERR_FORMAT, "weight_map is an array" },
        { "{}", ERR_FORMAT, "weight_map is nothing" },
        { "[]", ERR_FORMAT, "an object is wanted" },
        { "{\"weight_map\":{\"a\":\"x\",\"a\":\"y\"}}", ERR_FORMAT, "duplicate" },
        { "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n", ERR_FORMAT,
          "git lfs pull" },
        { "", ERR_FORMAT, "not JSON" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct weight_source *source;
        put_pair("bad", cases[i].index);
        const err_t rc = hf_folder_open(&source, path_of("bad", ""));
        testing_assert_code(rc, cases[i].code, cases[i].part, cases[i].index, __FILE__, __LINE__);
    }
}

static void test_tensor_in_two_files(void **state)
{
    (void)state;
    struct weight_source *source;
    put_weights("twice", "x.safetensors", (const char *const[]){ "a", NULL }, 1);
    put_weights("twice", "y.safetensors", (const char *const[]){ "a", "b", NULL }, 1);
    put("twice", "model.safetensors.index.json",
        "{\"weight_map\":{\"a\":\"x.safetensors\",\"b\":\"y.safetensors\"}}");
    assert_err(hf_folder_open(&source, path_of("twice", "")), FORMAT,
               "tensor a is both in x.safetensors and in y.safetensors");
}

static void test_lfs_pointer(void **state)
{
    (void)state;
    struct weight_source *source;
    put("lfs", "pytorch_model.bin",
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1740651802\n");
    assert_err(hf_folder_open(&source, path_of("lfs", "")), FORMAT, "git lfs pull");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_folder),       cmocka_unit_test(test_sharded_safetensors),
        cmocka_unit_test(test_order_of_places),     cmocka_unit_test(test_index_that_disagrees),
        cmocka_unit_test(test_tensor_in_two_files), cmocka_unit_test(test_lfs_pointer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
