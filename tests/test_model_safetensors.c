/*
 * The safetensors format: what is written reads back; every rule of the format, broken on purpose;
 * and the abuse files of the format's own project, rebuilt.
 */
#include "base/buf.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/num.h"
#include "model/safetensors.h"
#include "testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- files built by hand ---- */

struct image {
    uint8_t *bytes;
    int64_t size;
};

/* `header_bytes` = 0: the text's own length. */
static struct image image_of(const char *header, uint64_t header_bytes, int64_t data_bytes)
{
    const size_t text = strlen(header);
    struct image image = { NULL, 8 + (int64_t)text + data_bytes };
    image.bytes = malloc((size_t)image.size);
    assert_non_null(image.bytes);
    if (header_bytes == 0) header_bytes = text;
    memcpy(image.bytes, &header_bytes, 8);
    memcpy(image.bytes + 8, header, text);
    for (int64_t i = 0; i < data_bytes; i++) image.bytes[8 + (int64_t)text + i] = (uint8_t)i;
    return image;
}

static err_t open_image(struct weight_source **out, struct image image)
{
    return safetensors_source_open_memory(out, image.bytes, image.size, "test.safetensors");
}

static void assert_refused(const char *header, uint64_t header_bytes, int64_t data_bytes,
                           err_t code, const char *part)
{
    struct weight_source *s = NULL;
    const struct image image = image_of(header, header_bytes, data_bytes);
    testing_assert_code(open_image(&s, image), code, part, header, __FILE__, __LINE__);
    free(image.bytes);
}

static void test_reads_every_form(void **state)
{
    (void)state;
    struct weight_source *s;
    /* Out of order, a scalar, empty tensors between, metadata, blanks behind. */
    const struct image image =
        image_of("{\"b\":{\"dtype\":\"BF16\",\"shape\":[1,2],\"data_offsets\":[4,8]},"
                 "\"__metadata__\":{\"format\":\"pt\",\"k\":\"\"},"
                 "\"empty\":{\"dtype\":\"F64\",\"shape\":[3,0,2],\"data_offsets\":[4,4]},"
                 "\"a\":{\"data_offsets\":[0,4],\"shape\":[],\"dtype\":\"F32\"},"
                 "\"fp4\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[8,10]},"
                 "\"\\u00e9\":{\"dtype\":\"U8\",\"shape\":[2,1,1,1],\"data_offsets\":[10,12]}}   ",
                 0, 12);
    assert_ok(open_image(&s, image));
    assert_int_equal(weight_source_count(s), 5);
    static const struct {
        const char *name;
        dtype_t dtype;
        int dims;
        int64_t count;
    } expected[] = {
        { "a", DTYPE_F32, 0, 1 },     { "empty", DTYPE_F64, 3, 0 },   { "b", DTYPE_BF16, 2, 2 },
        { "fp4", DTYPE_COUNT, 1, 4 }, { "\xc3\xa9", DTYPE_U8, 4, 2 },
    };
    for (int64_t i = 0; i < 5; i++) {
        const struct weight_info info = weight_source_info(s, i);
        assert_string_equal(info.name, expected[i].name);
        assert_int_equal(info.dtype, expected[i].dtype);
        assert_int_equal(info.dims, expected[i].dims);
        assert_int_equal(info.count, expected[i].count);
        assert_int_equal(weight_source_find(s, info.name), i);
    }
    uint8_t raw[4];
    assert_ok(weight_source_read(s, raw, 2, 1, 1));
    assert_int_equal(raw[0], 6);
    assert_int_equal(raw[1], 7);
    assert_ok(weight_source_read(s, raw, 1, 0, 0));
    assert_err(weight_source_read(s, raw, 3, 0, 1), DTYPE, "fp4");
    weight_source_close(s);
    free(image.bytes);
}

static void test_empty_file(void **state)
{
    (void)state;
    struct weight_source *s;
    const struct image image = image_of("{}", 0, 0);
    assert_ok(open_image(&s, image));
    assert_int_equal(weight_source_count(s), 0);
    assert_int_equal(weight_source_find(s, "a"), -1);
    weight_source_close(s);
    free(image.bytes);
}

/* ---- rules broken ---- */

static void test_header_rules(void **state)
{
    (void)state;
    struct weight_source *s;
    assert_err(safetensors_source_open_memory(&s, "\x02\0\0\0\0\0\0", 7, "short"), FORMAT,
               "7 bytes; a safetensors file has at least 8");
    assert_err(safetensors_source_open(&s, "/nonexistent"), NOTFOUND, "nonexistent");
    assert_refused("{}", 3, 0, ERR_FORMAT, "header of 3 bytes in a file of 10");
    assert_refused("{}", 1000, 0, ERR_FORMAT, "header of 1000 bytes in a file of 10");
    assert_refused("{}", 100000000, 0, ERR_FORMAT, "in a file of 10");
    assert_refused("{}", 100000001, 0, ERR_FORMAT, "at most 100000000");
    assert_refused("{}", UINT64_MAX, 0, ERR_FORMAT, "at most 100000000");
    assert_refused("{}", (uint64_t)1 << 63, 0, ERR_FORMAT, "at most 100000000");
    assert_refused(" {}", 0, 0, ERR_FORMAT, "does not begin with {");
    assert_refused("[]", 0, 0, ERR_FORMAT, "does not begin with {");
    assert_refused("{} x", 0, 0, ERR_FORMAT, "not JSON");
    assert_refused("{\"a\":1", 0, 0, ERR_FORMAT, "not JSON");
    assert_refused("{\"\xff\":1}", 0, 0, ERR_FORMAT, "unable to decode byte");
    const char *pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    assert_err(safetensors_source_open_memory(&s, pointer, (int64_t)strlen(pointer), "lfs"), FORMAT,
               "git lfs pull");
    const struct image none = { (uint8_t[8]){ 0 }, 8 };
    assert_err(open_image(&s, none), FORMAT, "does not begin with {");
}

#define A(fields) "{\"a\":{" fields "}}"
#define F32_1     "\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]"

static void test_entry_rules(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        int64_t data_bytes;
        err_t code;
        const char *part;
    } cases[] = {
        { A(F32_1 ",\"more\":1"), 4, ERR_FORMAT, "a has 4 keys" },
        { A("\"dtype\":\"F32\",\"shape\":[1]"), 4, ERR_FORMAT, "a has 2 keys" },
        { A("\"dtype\":\"F32\",\"shape\":[1],\"offsets\":[0,4]"), 4, ERR_FORMAT,
          "data_offsets is not" },
        { "{\"a\":[]}", 0, ERR_FORMAT, "a is an array" },
        { "{\"a\":{" F32_1 "},\"a\":{" F32_1 "}}", 4, ERR_FORMAT, "duplicate" },
        { A("\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]"), 4, ERR_FORMAT,
          "unknown dtype F33" },
        { A("\"dtype\":\"f32\",\"shape\":[1],\"data_offsets\":[0,4]"), 4, ERR_FORMAT,
          "unknown dtype f32" },
        { A("\"dtype\":32,\"shape\":[1],\"data_offsets\":[0,4]"), 4, ERR_FORMAT,
          "dtype is an integer" },
        { A("\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]"), 4, ERR_FORMAT,
          "shape is an integer" },
        { A("\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]"), 4, ERR_FORMAT, "shape[0]" },
        { A("\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]"), 4, ERR_FORMAT,
          "shape[0]" },
        { A("\"dtype\":\"F32\",\"shape\":[1,null],\"data_offsets\":[0,4]"), 4, ERR_FORMAT,
          "shape[1]" },
        { A("\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,4]"), 4, ERR_UNSUPPORTED,
          "a has 5 dimensions" },
        { A("\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]"), 4,
          ERR_FORMAT, "more than 2^63" },
        { A("\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,4]"), 4,
          ERR_FORMAT, "overflows" },
        { A("\"dtype\":\"F32\",\"shape\":[9223372036854775808],\"data_offsets\":[0,4]"), 4,
          ERR_FORMAT, "not JSON" },
        { A("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]"), 4, ERR_FORMAT,
          "take 64 bits, data_offsets hold 4 bytes" },
        { A("\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,4]"), 4, ERR_FORMAT,
          "take 0 bits" },
        { A("\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]"), 2, ERR_FORMAT,
          "take 12 bits" },
        { A("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]"), 4, ERR_FORMAT,
          "not an interval" },
        { A("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]"), 4, ERR_FORMAT,
          "not an interval" },
        { A("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]"), 4, ERR_FORMAT,
          "two integers" },
        { A("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,\"4\"]"), 4, ERR_FORMAT,
          "two integers" },
        { A("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[9223372036854775803,"
            "9223372036854775807]"),
          4, ERR_FORMAT, "hole" },
        { A(F32_1), 3, ERR_FORMAT, "cut short" },
        { A(F32_1), 5, ERR_FORMAT, "end at byte 4 of the data, the file has 5" },
        { "{}", 1, ERR_FORMAT, "end at byte 0 of the data, the file has 1" },
        { A("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]"), 8, ERR_FORMAT, "(hole)" },
        { "{\"a\":{" F32_1 "},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}", 12,
          ERR_FORMAT, "b begins at byte 8 of the data, the tensors before it end at 4 (hole)" },
        { "{\"a\":{" F32_1 "},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[3,7]}}", 7,
          ERR_FORMAT, "(overlap)" },
        { "{\"a\":{" F32_1 "},\"b\":{" F32_1 "}}", 4, ERR_FORMAT, "(overlap)" },
        { "{\"__metadata__\":[]}", 0, ERR_FORMAT, "__metadata__ is an array" },
        { "{\"__metadata__\":{\"a\":1}}", 0, ERR_FORMAT, "__metadata__.a is an integer" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_refused(cases[i].header, 0, cases[i].data_bytes, cases[i].code, cases[i].part);
}

/* Entries that all claim the same bytes would multiply memory: 100,000 of them are refused quickly.
 */
static void test_many_overlapping_entries(void **state)
{
    (void)state;
    struct buf header = { 0 };
    assert_ok(buf_puts(&header, "{"));
    for (int i = 0; i < 100000; i++)
        assert_ok(buf_printf(
            &header, "%s\"w%d\":{\"dtype\":\"U8\",\"shape\":[1024],\"data_offsets\":[0,1024]}",
            i ? "," : "", i));
    assert_ok(buf_puts(&header, "}"));
    assert_refused(header.data, 0, 1024, ERR_FORMAT, "(overlap)");
    buf_clear(&header);
}

static void test_deep_nesting(void **state)
{
    (void)state;
    struct buf header = { 0 };
    assert_ok(buf_puts(&header, "{\"a\":"));
    for (int i = 0; i < 200000; i++) assert_ok(buf_puts(&header, "["));
    assert_refused(header.data, 0, 0, ERR_FORMAT, "not JSON");
    buf_clear(&header);
}

/* An empty tensor may have dimensions whose product with each other overflows. */
static void test_empty_with_huge_dimensions(void **state)
{
    (void)state;
    struct weight_source *s = NULL;
    const struct image image = image_of(
        A("\"dtype\":\"F32\",\"shape\":[0,4294967296,4294967296],\"data_offsets\":[0,0]"), 0, 0);
    const err_t rc = open_image(&s, image);
    assert_true(rc == ERR_OK || rc == ERR_FORMAT);
    if (rc == ERR_OK) weight_source_close(s);
    free(image.bytes);
}

static void open_and_read(const uint8_t *bytes, int64_t size)
{
    struct weight_source *s = NULL;
    uint8_t *copy = malloc((size_t)size + !size); /* so that a sanitizer sees any step beyond it */
    assert_non_null(copy);
    memcpy(copy, bytes, (size_t)size);
    if (safetensors_source_open_memory(&s, copy, size, "damaged") == ERR_OK) {
        for (int64_t i = 0; i < weight_source_count(s); i++) {
            const struct weight_info info = weight_source_info(s, i);
            uint8_t out[8 * 16];
            if (info.dtype == DTYPE_COUNT) continue;
            const int64_t n = min_i64(info.count, 16);
            assert_ok(weight_source_read(s, out, i, info.count - n, n));
        }
        weight_source_close(s);
    }
    free(copy);
}

static void test_damage(void **state)
{
    (void)state;
    struct weight_source *s;
    const struct image image =
        image_of("{\"__metadata__\":{\"format\":\"pt\"},\"a\":{" F32_1 "},"
                 "\"b\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[4,16]}}  ",
                 0, 16);
    assert_ok(open_image(&s, image));
    weight_source_close(s);
    for (int64_t size = 0; size < image.size; size++) {
        open_and_read(image.bytes, size);
        assert_err(safetensors_source_open_memory(&s, image.bytes, size, "cut"), FORMAT, "cut");
    }
    for (int64_t i = 0; i < image.size; i++) {
        const uint8_t kept = image.bytes[i];
        for (int byte = 0; byte < 256; byte++) {
            image.bytes[i] = (uint8_t)byte;
            open_and_read(image.bytes, image.size);
        }
        image.bytes[i] = kept;
    }
    free(image.bytes);
}

/* ---- writing ---- */

static const char *test_path(void)
{
    static char path[FILE_PATH_MAX];
    snprintf(path, sizeof path, "%s/w.safetensors", testing_dir());
    return path;
}

static const struct safetensors_entry entries[] = {
    { "norm", DTYPE_F32, 1, { 3 } },
    { "scalar", DTYPE_F32, 0, { 0 } },
    { "matrix \"q\"\n", DTYPE_F16, 2, { 2, 3 } },
    { "empty", DTYPE_BF16, 2, { 0, 7 } },
    { "bytes", DTYPE_U8, 1, { 5 } },
};
static const char *const metadata[] = { "format", "pt", NULL };
#define ENTRY_COUNT 5

static const uint8_t pattern[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };

static err_t write_entries(void)
{
    err_t rc = ERR_OK;
    struct safetensors_writer w;
    TRY(safetensors_writer_open(&w, test_path(), entries, ENTRY_COUNT, metadata));
    TRY_DONE(safetensors_writer_write(&w, 4, pattern, 5, 0)); /* any order, any pieces */
    TRY_DONE(safetensors_writer_write(&w, 2, pattern + 4, 8, 4));
    TRY_DONE(safetensors_writer_write(&w, 2, pattern, 4, 0));
    TRY_DONE(safetensors_writer_write(&w, 0, pattern, 12, 0));
    TRY_DONE(safetensors_writer_write(&w, 1, pattern, 4, 0));
    TRY_DONE(safetensors_writer_write(&w, 3, NULL, 0, 0));
    TRY_DONE(safetensors_writer_commit(&w));
done:
    safetensors_writer_close(&w);
    return rc;
}

static void test_written_reads_back(void **state)
{
    (void)state;
    struct weight_source *s;
    assert_ok(write_entries());
    assert_ok(safetensors_source_open(&s, test_path()));
    assert_int_equal(weight_source_count(s), ENTRY_COUNT);
    for (int64_t i = 0; i < ENTRY_COUNT; i++) {
        uint8_t raw[12];
        const int64_t at = weight_source_find(s, entries[i].name);
        assert_true(at >= 0);
        const struct weight_info info = weight_source_info(s, at);
        assert_int_equal(info.dtype, entries[i].dtype);
        assert_int_equal(info.dims, entries[i].dims);
        assert_ok(weight_source_read(s, raw, at, 0, info.count));
        assert_memory_equal(raw, pattern, (size_t)(info.count * dtype_bytes(info.dtype)));
    }
    weight_source_close(s);

    struct buf file = { 0 };
    uint64_t header_bytes;
    assert_ok(file_read_all(&file, test_path(), 1 << 20));
    memcpy(&header_bytes, file.data, 8);
    assert_int_equal((header_bytes + 8) % 64, 0); /* the data are aligned */
    assert_memory_equal(file.data + 8, "{\"__metadata__\":{\"format\":\"pt\"},\"norm\":{", 40);
    assert_int_equal(file.size, 8 + header_bytes + 12 + 4 + 12 + 0 + 5);
    buf_clear(&file);
}

static void test_writer_refuses(void **state)
{
    (void)state;
    struct safetensors_writer w;
    static const struct {
        struct safetensors_entry entry[2];
        int64_t count;
        const char *part;
    } cases[] = {
        { { { "a", DTYPE_U8, 1, { 3 } }, { "b", DTYPE_F16, 1, { 1 } } },
          2,
          "put wider types first" },
        { { { "a", DTYPE_U8, 1, { 3 } }, { "a", DTYPE_U8, 1, { 1 } } },
          2,
          "two tensors are named a" },
        { { { "", DTYPE_U8, 1, { 3 } } }, 1, "cannot be named" },
        { { { "__metadata__", DTYPE_U8, 1, { 3 } } }, 1, "cannot be named" },
        { { { "\xff", DTYPE_U8, 1, { 3 } } }, 1, "UTF-8" },
        { { { "a", DTYPE_F32, 2, { INT64_MAX, 2 } } }, 1, "beyond 63 bits" },
        { { { "a", DTYPE_F32, 2, { -1, 2 } } }, 1, "negative" },
        { { { "a", DTYPE_U8, 1, { INT64_MAX } }, { "b", DTYPE_U8, 1, { 1 } } },
          2,
          "beyond 63 bits" },
        { { { "a", DTYPE_U8, 1, { INT64_MAX } } }, 1, "beyond 63 bits" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_err(safetensors_writer_open(&w, test_path(), cases[i].entry, cases[i].count, NULL),
                   ARG, cases[i].part);
        safetensors_writer_close(&w); /* allowed on a failed writer */
    }
}

static void test_incomplete_is_not_published(void **state)
{
    (void)state;
    struct safetensors_writer w;
    char path[FILE_PATH_MAX];
    snprintf(path, sizeof path, "%s/never.safetensors", testing_dir());
    assert_ok(safetensors_writer_open(&w, path, entries, ENTRY_COUNT, NULL));
    assert_ok(safetensors_writer_write(&w, 0, pattern, 12, 0));
    assert_err(safetensors_writer_commit(&w), ARG, "21 bytes of its tensors were not given");
    safetensors_writer_close(&w);
    assert_false(file_exists(path));
}

/* Whichever step fails, the old file is as it was, or (after the last rename) the new one is whole.
 */
static void test_failing_steps(void **state)
{
    (void)state;
    struct weight_source *s;
    int64_t old_bytes = 3;
    for (int n = 1;; n++) {
        assert_ok(file_replace(test_path(), "old", old_bytes));
        fault_arm("file.", n);
        const err_t rc = write_entries();
        const int hits = fault_hits();
        fault_arm("", 0);
        if (rc == ERR_OK) {
            assert_true(hits < n);
            assert_true(n > 8);
            return;
        }
        struct buf file = { 0 };
        assert_ok(file_read_all(&file, test_path(), 1 << 20));
        if ((int64_t)file.size != old_bytes) {
            assert_ok(safetensors_source_open(&s, test_path()));
            weight_source_close(s);
        }
        buf_clear(&file);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_every_form),
        cmocka_unit_test(test_empty_file),
        cmocka_unit_test(test_header_rules),
        cmocka_unit_test(test_entry_rules),
        cmocka_unit_test(test_many_overlapping_entries),
        cmocka_unit_test(test_deep_nesting),
        cmocka_unit_test(test_empty_with_huge_dimensions),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_written_reads_back),
        cmocka_unit_test(test_writer_refuses),
        cmocka_unit_test(test_incomplete_is_not_published),
        cmocka_unit_test(test_failing_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
