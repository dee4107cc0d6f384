/*
 * PyTorch files, built here byte by byte: the archives that the format allows, and those that must
 * be refused without harm. The pickle inside is the subject of test_model_torch_pickle.c; the
 * golden files of the reference are read in test_model_hf_folder.c.
 */
#include "base/num.h"
#include "model/torch_zip.h"
#include "model/torch_zip_dir.h"
#include "testing.h"
#include "torch_zip_maker.h"

#include <stdio.h>
#include <string.h>

static void assert_values(struct weight_source *s, const char *name, const double *expected,
                          int64_t count)
{
    double got[64];
    const int64_t index = weight_source_find(s, name);
    assert_true(index >= 0);
    assert_int_equal(weight_source_info(s, index).count, count);
    assert_ok(weight_source_read_as(s, got, DTYPE_F64, index, 0, count));
    for (int64_t i = 0; i < count; i++) assert_true(got[i] == expected[i]);
    /* Any piece is that piece of the whole. */
    for (int64_t first = 0; first < count; first++)
        for (int64_t n = 0; n <= count - first; n++) {
            assert_ok(weight_source_read_as(s, got, DTYPE_F64, index, first, n));
            assert_memory_equal(got, expected + first, (size_t)n * sizeof *got);
        }
}

/* ---- what the format allows ---- */

static void test_views(void **state)
{
    (void)state;
    float data[12];
    for (int i = 0; i < 12; i++) data[i] = (float)i;
    const struct storage storage = { data, sizeof data };
    struct buf p = { 0 };
    begin(&p);
    text(&p, "plain");
    tensor(&p, (struct view){ "FloatStorage", "0", 12, 0, 2, { 3, 4 }, { 4, 1 } });
    text(&p, "transposed");
    tensor(&p, (struct view){ "FloatStorage", "0", 12, 0, 2, { 4, 3 }, { 1, 4 } });
    text(&p, "tail");
    tensor(&p, (struct view){ "FloatStorage", "0", 12, 5, 1, { 7 }, { 1 } });
    text(&p, "column");
    tensor(&p, (struct view){ "FloatStorage", "0", 12, 1, 1, { 3 }, { 4 } });
    text(&p, "cube");
    tensor(&p, (struct view){ "FloatStorage", "0", 12, 0, 3, { 2, 3, 2 }, { 1, 4, 2 } });
    text(&p, "expanded");
    tensor(&p, (struct view){ "FloatStorage", "0", 12, 11, 2, { 2, 3 }, { 0, 0 } });
    text(&p, "scalar");
    tensor(&p, (struct view){ "FloatStorage", "0", 12, 7, 0, { 0 }, { 0 } });
    text(&p, "empty");
    tensor(&p, (struct view){ "FloatStorage", "0", 12, 12, 2, { 0, 5 }, { 5, 1 } });
    text(&p, "one");
    tensor(&p, (struct view){ "FloatStorage", "0", 12, 2, 2, { 1, 2 }, { 999, 1 } });
    struct zip z;
    struct weight_source *s = open_pickle(&z, &p, &storage, 1);
    assert_int_equal(weight_source_count(s), 9);
    assert_string_equal(weight_source_info(s, 1).name, "transposed");
    assert_values(s, "plain", (double[]){ 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 }, 12);
    assert_values(s, "transposed", (double[]){ 0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11 }, 12);
    assert_values(s, "tail", (double[]){ 5, 6, 7, 8, 9, 10, 11 }, 7);
    assert_values(s, "column", (double[]){ 1, 5, 9 }, 3);
    assert_values(s, "cube", (double[]){ 0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11 }, 12);
    assert_values(s, "expanded", (double[]){ 11, 11, 11, 11, 11, 11 }, 6);
    assert_values(s, "scalar", (double[]){ 7 }, 1);
    assert_values(s, "empty", (double[]){ 0 }, 0);
    assert_values(s, "one", (double[]){ 2, 3 }, 2);
    weight_source_close(s);
    zip_clear(&z);
}

static void test_types(void **state)
{
    (void)state;
    static const struct {
        const char *type;
        dtype_t dtype;
        int bytes;
    } types[] = {
        { "HalfStorage", DTYPE_F16, 2 },   { "BFloat16Storage", DTYPE_BF16, 2 },
        { "FloatStorage", DTYPE_F32, 4 },  { "DoubleStorage", DTYPE_F64, 8 },
        { "LongStorage", DTYPE_I64, 8 },   { "IntStorage", DTYPE_I32, 4 },
        { "ByteStorage", DTYPE_U8, 1 },    { "ShortStorage", DTYPE_COUNT, 2 },
        { "CharStorage", DTYPE_COUNT, 1 }, { "BoolStorage", DTYPE_COUNT, 1 },
    };
    enum { COUNT = sizeof types / sizeof types[0] };
    static const uint8_t two_elements[] = { 0, 0x3c, 0x80, 0x3f, 0, 0, 0xf0, 0x3f,
                                            0, 0,    0,    0,    0, 0, 0x80, 0x3f };
    struct storage storages[COUNT];
    struct buf p = { 0 };
    begin(&p);
    for (int i = 0; i < COUNT; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        storages[i] = (struct storage){ two_elements, 2 * (size_t)types[i].bytes };
        text(&p, types[i].type);
        tensor(&p, (struct view){ types[i].type, key, 2, 0, 1, { 2 }, { 1 } });
    }
    struct zip z;
    struct weight_source *s = open_pickle(&z, &p, storages, COUNT);
    for (int i = 0; i < COUNT; i++) {
        uint8_t raw[16];
        double value;
        assert_int_equal(weight_source_info(s, i).dtype, types[i].dtype);
        if (types[i].dtype == DTYPE_COUNT) {
            assert_err(weight_source_read(s, raw, i, 0, 2), DTYPE, types[i].type);
            continue;
        }
        assert_ok(weight_source_read(s, raw, i, 0, 2));
        assert_memory_equal(raw, two_elements, 2 * (size_t)types[i].bytes);
        if (types[i].dtype >= DTYPE_I32)
            assert_err(weight_source_read_as(s, &value, DTYPE_F64, i, 0, 1), DTYPE, types[i].type);
    }
    assert_values(s, "HalfStorage", (double[]){ 1, f16_to_f32(0x3f80) }, 2);
    assert_values(s, "BFloat16Storage", (double[]){ bf16_to_f32(0x3c00), 1 }, 2);
    weight_source_close(s);
    zip_clear(&z);
}

static void test_pickle_forms(void **state)
{
    (void)state;
    const uint16_t data[2] = { 0x3c00, 0x4000 };
    const struct storage storage = { data, sizeof data };
    struct buf p = { 0 };
    RAW(&p, "\x80\x02"
            "ccollections\nOrderedDict\nq\x00)Rq\x01(");
    text(&p, "a");
    RAW(&p, "r\x70\x11\x01\x00"); /* LONG_BINPUT 70000 */
    tensor(&p, (struct view){ "HalfStorage", "0", 2, 0, 1, { 2 }, { 1 } });
    RAW(&p, "q\x05");
    text(&p, "same");
    RAW(&p, "h\x05");
    text(&p, "parameter");
    RAW(&p, "ctorch._utils\n_rebuild_parameter\n(h\x05\x88}tRr\x2c\x01\x00\x00");
    text(&p, "again");
    RAW(&p, "j\x2c\x01\x00\x00u");
    /* SETITEM, TUPLE1, LONG1, BININT2, NEWTRUE, NONE */
    text(&p, "last");
    RAW(&p, "ctorch._utils\n_rebuild_tensor_v2\n((");
    text(&p, "storage");
    RAW(&p, "ctorch\nHalfStorage\n");
    text(&p, "0");
    text(&p, "cpu");
    RAW(&p, "\x8a\x01\x02tQM\x01\x00K\x01\x85\x8a\x01\x01\x85\x88NtRs");
    /* _metadata as torch writes it, with what a subclass might add: a list, a float, a pair, a
     * triple. */
    RAW(&p, "}");
    text(&p, "_metadata");
    RAW(&p, "ccollections\nOrderedDict\n)R(");
    text(&p, "");
    RAW(&p, "}");
    text(&p, "version");
    RAW(&p, "](K\x01K\x02"
            "eG\x3f\xf0\x00\x00\x00\x00\x00\x00"
            "aK\x01K\x02\x86"
            "aK\x01K\x02K\x03\x87"
            "as");
    RAW(&p, "usb.");

    struct zip z;
    struct weight_source *s = NULL;
    archive(&z, &p, &storage, 1);
    assert_ok(open_zip(&s, &z));
    assert_int_equal(weight_source_count(s), 5);
    assert_values(s, "a", (double[]){ 1, 2 }, 2);
    assert_values(s, "same", (double[]){ 1, 2 }, 2);
    assert_values(s, "parameter", (double[]){ 1, 2 }, 2);
    assert_values(s, "again", (double[]){ 1, 2 }, 2);
    assert_values(s, "last", (double[]){ 2 }, 1);
    weight_source_close(s);
    zip_clear(&z);
    buf_clear(&p);
}

static void test_empty_dictionary(void **state)
{
    (void)state;
    struct buf p = { 0 };
    struct zip z;
    RAW(&p, "\x80\x02}(");
    struct weight_source *s = open_pickle(&z, &p, NULL, 0);
    assert_int_equal(weight_source_count(s), 0);
    weight_source_close(s);
    zip_clear(&z);
}

static void test_zip64_and_descriptors(void **state)
{
    (void)state;
    for (int form = 0; form < 4; form++) {
        const struct zip_options o = { .flags = 0x0808, .zip64 = form & 1, .no_local_sizes = true };
        struct buf p = { 0 };
        struct zip z = { 0 };
        struct weight_source *s = NULL;
        one_tensor(&p);
        zip_add_with(&z, "a/data.pkl", p.data, p.size, o);
        zip_add(&z, "a/byteorder", "little", 6);
        zip_add(&z, "a/.data/serialization_id", "0123", 4);
        zip_add_with(&z, "a/data/0", one_two, sizeof one_two, o);
        zip_end(&z, form & 2);
        assert_ok(open_zip(&s, &z));
        assert_values(s, "w", (double[]){ 1, 2 }, 2);
        weight_source_close(s);
        zip_clear(&z);
        buf_clear(&p);
    }
}

/* ---- what is refused: archives ---- */

static void test_bad_members(void **state)
{
    (void)state;
    static const struct {
        struct zip_options o;
        err_t code;
        const char *part;
    } cases[] = {
        { { .method = 8 }, ERR_FORMAT, "data.pkl is compressed (method 8)" },
        { { .flags = 1 }, ERR_FORMAT, "data.pkl is encrypted" },
        { { .crc_xor = 1 }, ERR_CHECKSUM, "data.pkl has CRC-32" },
        { { .local_name = "a/data.pkk" }, ERR_FORMAT, "another name" },
        { { .local_name = "a/data.pk" }, ERR_FORMAT, "another name" },
        { { .size_more = 1 << 20 }, ERR_FORMAT, "run into the directory" },
        { { .size_more = 30 }, ERR_FORMAT, "overlap" },
        { { .size_more = INT64_MAX, .zip64 = true }, ERR_FORMAT, "sizes" },
        { { .size_more = INT64_MAX - 4096, .zip64 = true }, ERR_FORMAT, "run into the directory" },
        { { .size_more = -1 }, ERR_CHECKSUM, "CRC-32" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf p = { 0 };
        struct zip z = { 0 };
        struct weight_source *s = NULL;
        one_tensor(&p);
        zip_add_with(&z, "a/data.pkl", p.data, p.size, cases[i].o);
        zip_add(&z, "a/data/0", one_two, sizeof one_two);
        zip_end(&z, false);
        testing_assert_code(open_zip(&s, &z), cases[i].code, cases[i].part, "case", __FILE__,
                            __LINE__);
        zip_clear(&z);
        buf_clear(&p);
    }
}

static void test_bad_archives(void **state)
{
    (void)state;
    struct buf p = { 0 };
    struct weight_source *s = NULL;
    one_tensor(&p);

    struct zip twice = { 0 };
    zip_add(&twice, "a/data.pkl", p.data, p.size);
    zip_add(&twice, "a/data/0", one_two, 4);
    zip_add(&twice, "a/data/0", one_two, 4);
    zip_end(&twice, false);
    assert_err(open_zip(&s, &twice), FORMAT, "a/data/0 is in the archive twice");
    zip_clear(&twice);

    struct zip two_pickles = { 0 };
    zip_add(&two_pickles, "a/data.pkl", p.data, p.size);
    zip_add(&two_pickles, "b/data.pkl", p.data, p.size);
    zip_end(&two_pickles, false);
    assert_err(open_zip(&s, &two_pickles), FORMAT, "both a/data.pkl and b/data.pkl");
    zip_clear(&two_pickles);

    struct zip none = { 0 };
    zip_add(&none, "a/readme", "x", 1);
    zip_end(&none, false);
    assert_err(open_zip(&s, &none), FORMAT, "no data.pkl");
    zip_clear(&none);

    struct zip empty = { 0 };
    zip_end(&empty, false);
    assert_err(open_zip(&s, &empty), FORMAT, "no data.pkl");
    zip_clear(&empty);

    struct zip missing = { 0 };
    zip_add(&missing, "a/data.pkl", p.data, p.size);
    zip_add(&missing, "b/data/0", one_two, 4);
    zip_end(&missing, false);
    assert_err(open_zip(&s, &missing), FORMAT, "w: no member a/data/0");
    zip_clear(&missing);

    struct zip big = { 0 };
    zip_add(&big, "a/data.pkl", p.data, p.size);
    zip_add(&big, "a/data/0", one_two, 4);
    zip_add(&big, "a/byteorder", "big", 3);
    zip_end(&big, false);
    assert_err(open_zip(&s, &big), FORMAT, "byteorder is big");
    zip_clear(&big);
    buf_clear(&p);
}

static void test_not_an_archive(void **state)
{
    (void)state;
    struct weight_source *s = NULL;
    static const char legacy[] = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    char tar[600] = { 0 };
    memcpy(tar + 257, "ustar", 5);
    assert_err(torch_zip_source_open_memory(&s, legacy, sizeof legacy - 1, "old.bin"), FORMAT,
               "the format of torch before 1.6");
    assert_err(torch_zip_source_open_memory(&s, tar, sizeof tar, "old.bin"), FORMAT, "torch.save(");
    assert_err(torch_zip_source_open_memory(&s, "", 0, "empty"), FORMAT, "no end of a zip");
    assert_err(torch_zip_source_open_memory(&s, tar, 100, "zeros"), FORMAT, "no end of a zip");
    assert_err(torch_zip_source_open(&s, "/nonexistent.bin"), NOTFOUND, "nonexistent");
}

/* The end records say where the directory is; every lie is found. */
static void test_bad_end_records(void **state)
{
    (void)state;
    static const struct {
        int at, bytes; /* from the end record's begin */
        uint64_t value;
        const char *part;
    } cases[] = {
        { 4, 2, 1, "several parts" },           { 8, 2, 9, "several parts" },
        { 8, 4, 0xfff0fff0, "65520 members" },  { 12, 4, 0xfffffff0, "at most" },
        { 12, 4, 4096, "runs into" },           { 16, 4, 0xfffffff0, "runs into" },
        { 16, 4, 1, "no zip directory entry" }, { 8, 4, 0x00040004, "members in a zip" },
        { 20, 2, 1, "no end of a zip" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf p = { 0 };
        struct zip z = { 0 };
        struct weight_source *s = NULL;
        one_tensor(&p);
        zip_add(&z, "a/data.pkl", p.data, p.size);
        zip_add(&z, "a/data/0", one_two, 4);
        zip_end(&z, false);
        for (int k = 0; k < cases[i].bytes; k++)
            z.file.data[z.file.size - 22 + (size_t)(cases[i].at + k)] =
                (char)(cases[i].value >> (8 * k));
        testing_assert_code(open_zip(&s, &z), ERR_FORMAT, cases[i].part, "case", __FILE__,
                            __LINE__);
        zip_clear(&z);
        buf_clear(&p);
    }
}

static void test_crc32(void **state)
{
    (void)state;
    assert_int_equal(zip_crc32("123456789", 9), 0xcbf43926);
    assert_int_equal(zip_crc32("", 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_pickle_forms),
        cmocka_unit_test(test_empty_dictionary),
        cmocka_unit_test(test_zip64_and_descriptors),
        cmocka_unit_test(test_bad_members),
        cmocka_unit_test(test_bad_archives),
        cmocka_unit_test(test_not_an_archive),
        cmocka_unit_test(test_bad_end_records),
        cmocka_unit_test(test_crc32),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
