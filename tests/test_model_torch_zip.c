/*
 * PyTorch files, built here byte by byte: what the format allows, and what must be refused without
 * harm. The golden files of the reference are read in test_model_hf_folder.c.
 */
#include "base/buf.h"
#include "base/num.h"
#include "model/torch_zip.h"
#include "model/torch_zip_dir.h"
#include "testing.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- a zip writer ---- */

struct zip {
    struct buf file, central;
    int64_t count;
};

struct zip_options {
    uint16_t method, flags;
    bool zip64;          /* sizes and place in the directory's zip64 field */
    bool no_local_sizes; /* as with a data descriptor, which then follows */
    uint32_t crc_xor;    /* damage the stored CRC */
    int64_t size_more;   /* damage the stored size */
    const char *local_name;
};

static void put_int(struct buf *b, uint64_t value, int bytes)
{
    uint8_t out[8];
    for (int i = 0; i < bytes; i++) out[i] = (uint8_t)(value >> (8 * i));
    assert_ok(buf_append(b, out, (size_t)bytes));
}

static void zip_add_with(struct zip *z, const char *name, const void *bytes, size_t size,
                         struct zip_options o)
{
    const uint64_t at = z->file.size, stored = size + (uint64_t)o.size_more;
    const char *local_name = o.local_name ? o.local_name : name;
    const uint32_t crc = zip_crc32(bytes, size) ^ o.crc_xor;
    const size_t header_bytes = 30 + strlen(local_name) + 4;
    const size_t pad = (64 - (at + header_bytes) % 64) % 64; /* torch aligns data to 64 bytes */

    put_int(&z->file, 0x04034b50, 4);
    put_int(&z->file, 0, 2);
    put_int(&z->file, o.flags, 2);
    put_int(&z->file, o.method, 2);
    put_int(&z->file, 0, 4);
    put_int(&z->file, o.no_local_sizes ? 0 : crc, 4);
    put_int(&z->file, o.no_local_sizes ? 0 : stored, 4);
    put_int(&z->file, o.no_local_sizes ? 0 : stored, 4);
    put_int(&z->file, strlen(local_name), 2);
    put_int(&z->file, 4 + pad, 2);
    assert_ok(buf_puts(&z->file, local_name));
    put_int(&z->file, 0x4246, 2);
    put_int(&z->file, pad, 2);
    for (size_t i = 0; i < pad; i++) assert_ok(buf_puts(&z->file, "Z"));
    assert_ok(buf_append(&z->file, bytes, size));
    if (o.no_local_sizes) {
        put_int(&z->file, 0x08074b50, 4);
        put_int(&z->file, crc, 4);
        put_int(&z->file, stored, 4);
        put_int(&z->file, stored, 4);
    }

    put_int(&z->central, 0x02014b50, 4);
    put_int(&z->central, 0, 4);
    put_int(&z->central, o.flags, 2);
    put_int(&z->central, o.method, 2);
    put_int(&z->central, 0, 4);
    put_int(&z->central, crc, 4);
    put_int(&z->central, o.zip64 ? UINT32_MAX : stored, 4);
    put_int(&z->central, o.zip64 ? UINT32_MAX : stored, 4);
    put_int(&z->central, strlen(name), 2);
    put_int(&z->central, o.zip64 ? 4 + 5 + 28 : 0, 2);
    put_int(&z->central, 0, 8);
    put_int(&z->central, 0, 2);
    put_int(&z->central, o.zip64 ? UINT32_MAX : at, 4);
    assert_ok(buf_puts(&z->central, name));
    if (o.zip64) {
        put_int(&z->central, 0x7777, 2); /* an unknown field before it */
        put_int(&z->central, 1, 2);
        put_int(&z->central, 0, 1);
        put_int(&z->central, 1, 2);
        put_int(&z->central, 28, 2);
        put_int(&z->central, stored, 8);
        put_int(&z->central, stored, 8);
        put_int(&z->central, at, 8);
        put_int(&z->central, 0, 4);
    }
    z->count++;
}

static void zip_add(struct zip *z, const char *name, const void *bytes, size_t size)
{
    zip_add_with(z, name, bytes, size, (struct zip_options){ 0 });
}

/* Append the directory and its end; `zip64` writes the zip64 records and leaves ones in the old. */
static void zip_end(struct zip *z, bool zip64)
{
    const uint64_t at = z->file.size, bytes = z->central.size;
    assert_ok(buf_append(&z->file, z->central.data ? z->central.data : "", bytes));
    if (zip64) {
        const uint64_t end64 = z->file.size;
        put_int(&z->file, 0x06064b50, 4);
        put_int(&z->file, 44, 8);
        put_int(&z->file, 0, 4);
        put_int(&z->file, 0, 8);
        put_int(&z->file, (uint64_t)z->count, 8);
        put_int(&z->file, (uint64_t)z->count, 8);
        put_int(&z->file, bytes, 8);
        put_int(&z->file, at, 8);
        put_int(&z->file, 0x07064b50, 4);
        put_int(&z->file, 0, 4);
        put_int(&z->file, end64, 8);
        put_int(&z->file, 1, 4);
    }
    put_int(&z->file, 0x06054b50, 4);
    put_int(&z->file, 0, 4);
    put_int(&z->file, zip64 ? UINT16_MAX : (uint64_t)z->count, 2);
    put_int(&z->file, zip64 ? UINT16_MAX : (uint64_t)z->count, 2);
    put_int(&z->file, zip64 ? UINT32_MAX : bytes, 4);
    put_int(&z->file, zip64 ? UINT32_MAX : at, 4);
    put_int(&z->file, 0, 2);
}

static void zip_clear(struct zip *z)
{
    buf_clear(&z->file);
    buf_clear(&z->central);
}

/* ---- a pickle writer ---- */

static void text(struct buf *p, const char *s)
{
    assert_ok(buf_puts(p, "X"));
    put_int(p, strlen(s), 4);
    assert_ok(buf_puts(p, s));
}

static void integer(struct buf *p, int64_t value)
{
    if (value >= 0 && value < 256) {
        assert_ok(buf_puts(p, "K"));
        put_int(p, (uint64_t)value, 1);
    } else if (value >= INT32_MIN && value <= INT32_MAX) {
        assert_ok(buf_puts(p, "J"));
        put_int(p, (uint64_t)value, 4);
    } else {
        assert_ok(buf_puts(p, "\x8a\x08"));
        put_int(p, (uint64_t)value, 8);
    }
}

static void integers(struct buf *p, int dims, const int64_t *values)
{
    assert_ok(buf_puts(p, "("));
    for (int i = 0; i < dims; i++) integer(p, values[i]);
    assert_ok(buf_puts(p, "t"));
}

struct view {
    const char *type, *key;
    int64_t storage_count, offset;
    int dims;
    int64_t dim[6], stride[6];
};

static void tensor(struct buf *p, struct view v)
{
    assert_ok(buf_puts(p, "ctorch._utils\n_rebuild_tensor_v2\n(("));
    text(p, "storage");
    assert_ok(buf_printf(p, "ctorch\n%s\n", v.type));
    text(p, v.key);
    text(p, "cuda:0");
    integer(p, v.storage_count);
    assert_ok(buf_puts(p, "tQ"));
    integer(p, v.offset);
    integers(p, v.dims, v.dim);
    integers(p, v.dims, v.stride);
    assert_ok(buf_puts(p, "\x89"
                          "ccollections\nOrderedDict\n)RtR"));
}

static void begin(struct buf *p) { assert_ok(buf_puts(p, "\x80\x02}(")); }
static void end(struct buf *p) { assert_ok(buf_puts(p, "u.")); }

/* An archive of one pickle and storages data/0, data/1, ... */
struct storage {
    const void *bytes;
    size_t size;
};

static void archive(struct zip *z, const struct buf *pickle, const struct storage *storages,
                    int64_t count)
{
    *z = (struct zip){ 0 };
    zip_add(z, "archive/data.pkl", pickle->data, pickle->size);
    for (int64_t i = 0; i < count; i++) {
        char name[64];
        snprintf(name, sizeof name, "archive/data/%lld", (long long)i);
        zip_add(z, name, storages[i].bytes, storages[i].size);
    }
    zip_add(z, "archive/version", "3\n", 2);
    zip_end(z, false);
}

static err_t open_zip(struct weight_source **out, const struct zip *z)
{
    return torch_zip_source_open_memory(out, z->file.data, (int64_t)z->file.size, "test.bin");
}

/* An opened archive of this pickle; the storages must outlive it. */
static struct weight_source *open_pickle(struct zip *z, struct buf *pickle,
                                         const struct storage *storages, int64_t count)
{
    struct weight_source *source = NULL;
    end(pickle);
    archive(z, pickle, storages, count);
    buf_clear(pickle);
    assert_ok(open_zip(&source, z));
    return source;
}

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

/* Bytes with NULs in them: the literal without its terminator. */
#define RAW(p, literal) assert_ok(buf_append((p), (literal), sizeof(literal) - 1))

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

/* One tensor "w" = { 1, 2 } in half precision. */
static void one_tensor(struct buf *p)
{
    begin(p);
    text(p, "w");
    tensor(p, (struct view){ "HalfStorage", "0", 2, 0, 1, { 2 }, { 1 } });
    end(p);
}

static const uint16_t one_two[2] = { 0x3c00, 0x4000 };

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

/* ---- what is refused: pickles ---- */

#define STORAGE(type, key, count)                                                                  \
    "((X\x07\0\0\0storagectorch\n" type "\nX\x01\0\0\0" key "X\x03\0\0\0cpu" count "tQ"
#define REBUILD "ctorch._utils\n_rebuild_tensor_v2\n"
#define HEAD    "\x80\x02}(X\x01\0\0\0w"

static void test_bad_pickles(void **state)
{
    (void)state;
#define CASE(literal, code, part)                                                                  \
    {                                                                                              \
        literal, sizeof(literal) - 1, ERR_##code, part                                             \
    }
    static const struct {
        const char *bytes;
        size_t size;
        err_t code;
        const char *part;
    } cases[] = {
        CASE("\x80\x02"
             "cposix\nsystem\nX\x02\0\0\0id\x85R.",
             FORMAT, "byte 2 (opcode 0x63): global posix.system is not one"),
        CASE("\x80\x02"
             "c__builtin__\neval\n.",
             FORMAT, "global __builtin__.eval"),
        CASE("\x80\x02"
             "ctorch\n_utils._rebuild_tensor_v2\n.",
             FORMAT, "is not one"),
        CASE("\x80\x02"
             "ctorch._utils\n_rebuild_tensor\n.",
             FORMAT, "is not one"),
        CASE("\x80\x02"
             "ccollections",
             FORMAT, "without an end"),
        CASE("\x80\x02i", FORMAT, "this opcode is not one"),
        CASE("\x80\x02"
             "0",
             FORMAT, "opcode 0x30"),
        CASE("\x80\x02\x93", FORMAT, "this opcode is not one"),
        CASE("\x80\x04\x95", FORMAT, "pickle protocol 4"),
        CASE("\x80\x02\x80\x02}.", FORMAT, "once, at the start"),
        CASE("}.", FORMAT, "begins with its protocol"),
        CASE("\x80\x02", FORMAT, "1 bytes wanted, 0 left"),
        CASE("\x80\x02.", FORMAT, "the stack is empty"),
        CASE("\x80\x02}}.", FORMAT, "1 values are left over"),
        CASE("\x80\x02}.x", FORMAT, "1 bytes after the end"),
        CASE("\x80\x02K\x01.", FORMAT, "a dictionary of tensors"),
        CASE("\x80\x02(.", FORMAT, "a dictionary of tensors"),
        CASE("\x80\x02}u.", FORMAT, "no mark"),
        CASE("\x80\x02}(Nu.", FORMAT, "1 values are not pairs"),
        CASE("\x80\x02}(NNu.", FORMAT, "key 0 is not a text"),
        CASE("\x80\x02}(X\x01\0\0\0aNu.", FORMAT, "a is not a tensor"),
        CASE("\x80\x02}(X\x02\0\0\0a\0Nu.", FORMAT, "key 0 is not a text"),
        CASE("\x80\x02}(s.", FORMAT, "a mark where a value"),
        CASE("\x80\x02Ns.", FORMAT, "the stack is empty"),
        CASE("\x80\x02\x85.", FORMAT, "the stack is empty"),
        CASE("\x80\x02N\x87.", FORMAT, "the stack is empty"),
        CASE("\x80\x02}NNb.", FORMAT, "a dictionary of attributes"),
        CASE("\x80\x02N}b.", FORMAT, "the dictionary that has them"),
        CASE("\x80\x02}Na.", FORMAT, "a list is wanted"),
        CASE("\x80\x02](}(eu.", FORMAT, "a list is wanted"),
        CASE("\x80\x02h\x05.", FORMAT, "memo entry 5 was never set"),
        CASE("\x80\x02j\xff\xff\xff\xff.", FORMAT, "memo entry 4294967295 was never set"),
        CASE("\x80\x02Nr\0\0\x10\0.", FORMAT, "memo entry 1048576, at most 1048575"),
        CASE("\x80\x02q\0.", FORMAT, "the stack is empty"),
        CASE("\x80\x02X\xff\xff\xff\x7fxx", FORMAT, "2147483647 bytes wanted"),
        CASE("\x80\x02X\xff\xff\xff\xffxx", FORMAT, "4294967295 bytes wanted"),
        CASE("\x80\x02\x8a\x09"
             "012345678.",
             FORMAT, "an integer of 9 bytes"),
        CASE("\x80\x02NR.", FORMAT, "a tuple of arguments"),
        CASE("\x80\x02N)R.", FORMAT, "a function is wanted"),
        CASE("\x80\x02"
             "ctorch\nHalfStorage\n)R.",
             FORMAT, "a storage class is not called"),
        CASE("\x80\x02"
             "ccollections\nOrderedDict\nN\x85R.",
             FORMAT, "OrderedDict with arguments"),
        CASE("\x80\x02" REBUILD ")R.", FORMAT, "a tensor is (storage"),
        CASE("\x80\x02"
             "ctorch._utils\n_rebuild_parameter\nNNN\x87R.",
             FORMAT, "a parameter is"),
        CASE("\x80\x02)Q.", FORMAT, "a storage is ("),
        CASE("\x80\x02NQ.", FORMAT, "the tuple of a storage"),
        CASE(HEAD REBUILD "((X\x07\0\0\0storageccollections\nOrderedDict\nX\x01\0\0\0"
                          "0X\x03\0\0\0cpuK\x02tQ.",
             FORMAT, "a storage is ("),
        CASE(HEAD REBUILD STORAGE("HalfStorage", "0", "J\xff\xff\xff\xff") ".", FORMAT,
             "a storage is ("),
        CASE(HEAD REBUILD STORAGE("HalfStorage", "\0", "K\x02") ".", FORMAT, "with a NUL"),
        CASE(HEAD REBUILD STORAGE("HalfStorage", "0", "K\x02") "K\x03K\x02\x85K\x01\x85\x89NtRu.",
             FORMAT, "begins at element 3 of a storage of 2"),
        CASE(HEAD REBUILD STORAGE("HalfStorage", "0",
                                  "K\x02") "J\xff\xff\xff\xffK\x02\x85K\x01\x85\x89NtRu.",
             FORMAT, "begins at element -1"),
        CASE(HEAD REBUILD STORAGE("HalfStorage", "0", "K\x02") "K\0K\x02\x85)\x89NtRu.", FORMAT,
             "1 dimensions with 0 strides"),
        CASE(HEAD REBUILD STORAGE("HalfStorage", "0", "K\x02") "K\0N\x85N\x85\x89NtRu.", FORMAT,
             "are integers"),
        CASE(HEAD REBUILD STORAGE("HalfStorage", "0",
                                  "K\x02") "K\0(K\1K\1K\1K\1K\1t(K\1K\1K\1K\1K\1t\x89NtRu.",
             UNSUPPORTED, "5 dimensions, at most 4"),
        /* Below: the pickle is well formed; the archive's one storage has 2 elements. */
        CASE(HEAD REBUILD STORAGE("HalfStorage", "0", "K\x02") "K\1K\x02\x85K\x01\x85\x89NtRu.",
             FORMAT, "reaches over 2 elements, but 1 are stored"),
        CASE(HEAD REBUILD STORAGE("HalfStorage", "0", "K\x02") "K\0K\x02\x85K\x02\x85\x89NtRu.",
             FORMAT, "reaches over 3 elements, but 2 are stored"),
        CASE(HEAD REBUILD STORAGE("HalfStorage", "0",
                                  "K\x02") "K\0J\xfe\xff\xff\xff\x85K\x01\x85\x89NtRu.",
             FORMAT, "negative or beyond"),
        CASE(HEAD REBUILD STORAGE("HalfStorage", "0",
                                  "K\x02") "K\0K\x02\x85J\xff\xff\xff\xff\x85\x89NtRu.",
             FORMAT, "negative or beyond"),
        CASE(
            HEAD REBUILD STORAGE(
                "HalfStorage", "0",
                "K\x02") "K\0\x8a\x08\0\0\0\0\0\0\0\x40\x85\x8a\x08\0\0\0\0\0\0\0\x40\x85\x89NtRu.",
            FORMAT, "negative or beyond"),
        CASE(HEAD REBUILD STORAGE(
                 "HalfStorage", "0",
                 "K\x02") "K\0\x8a\x08\0\0\0\0\0\0\0\x40K\x04\x86K\0K\0\x86\x89NtRu.",
             FORMAT, "negative or beyond"),
        CASE(HEAD REBUILD STORAGE("HalfStorage", "0", "K\x03") "K\0K\x02\x85K\x01\x85\x89NtRu.",
             FORMAT, "storage 0 has 4 bytes; 3 elements of 2 bytes are wanted"),
        CASE(HEAD REBUILD STORAGE("FloatStorage", "0", "K\x02") "K\0K\x02\x85K\x01\x85\x89NtRu.",
             FORMAT, "storage 0 has 4 bytes; 2 elements of 4 bytes"),
        CASE(HEAD REBUILD STORAGE(
                 "DoubleStorage", "0",
                 "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f") "K\0K\x02\x85K\x01\x85\x89NtRu.",
             FORMAT, "storage 0 has 4 bytes"),
        CASE(HEAD REBUILD STORAGE("HalfStorage", "7", "K\x02") "K\0K\x02\x85K\x01\x85\x89NtRu.",
             FORMAT, "no member archive/data/7"),
        CASE("\x80\x02}(X\x01\0\0\0wq\0" REBUILD STORAGE(
                 "HalfStorage", "0", "K\x02") "K\0K\x02\x85K\x01\x85\x89NtRq\1h\0h\1u.",
             FORMAT, "tensor w appears twice"),
    };
    const struct storage storage = { one_two, sizeof one_two };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf p = { 0 };
        struct zip z;
        struct weight_source *s = NULL;
        assert_ok(buf_append(&p, cases[i].bytes, cases[i].size));
        archive(&z, &p, &storage, 1);
        testing_assert_code(open_zip(&s, &z), cases[i].code, cases[i].part, cases[i].part, __FILE__,
                            __LINE__);
        zip_clear(&z);
        buf_clear(&p);
    }
}

/* A dictionary that holds itself, tuples nested beyond any recursion: no walk follows them. */
static void test_recursion(void **state)
{
    (void)state;
    struct buf p = { 0 };
    struct zip z;
    struct weight_source *s = NULL;
    RAW(&p, "\x80\x02}q\0(X\x01\0\0\0ah\0u.");
    archive(&z, &p, NULL, 0);
    assert_err(open_zip(&s, &z), FORMAT, "a is not a tensor");
    zip_clear(&z);
    buf_clear(&p);

    RAW(&p, "\x80\x02}(X\x01\0\0\0aN");
    for (int i = 0; i < 1000000; i++) RAW(&p, "\x85");
    RAW(&p, "u.");
    archive(&z, &p, NULL, 0);
    assert_err(open_zip(&s, &z), FORMAT, "a is not a tensor");
    zip_clear(&z);
    buf_clear(&p);
}

static void test_limits(void **state)
{
    (void)state;
    struct zip z;
    struct weight_source *s = NULL;

    /* The stack: exactly full is fine (and then not a dictionary), one more is not. */
    for (int more = 0; more < 2; more++) {
        struct buf p = { 0 };
        RAW(&p, "\x80\x02");
        for (int i = 0; i < TORCH_STACK_MAX + more; i++) RAW(&p, "N");
        RAW(&p, ".");
        archive(&z, &p, NULL, 0);
        assert_err(open_zip(&s, &z), FORMAT,
                   more ? "more than 1048576 values on the stack" : "a dictionary of tensors");
        zip_clear(&z);
        buf_clear(&p);
    }

    /* The last memo entry can be used. */
    struct buf p = { 0 };
    RAW(&p, "\x80\x02}r\xff\xff\x0f\x00j\xff\xff\x0f\x00.");
    archive(&z, &p, NULL, 0);
    assert_err(open_zip(&s, &z), FORMAT, "1 values are left over");
    zip_clear(&z);
    buf_clear(&p);

    /* A pickle of the size limit is looked at; a larger one is not. */
    char *zeros = calloc(1, TORCH_PICKLE_BYTES_MAX + 1);
    assert_non_null(zeros);
    for (int more = 0; more < 2; more++) {
        z = (struct zip){ 0 };
        zip_add(&z, "a/data.pkl", zeros, (size_t)TORCH_PICKLE_BYTES_MAX + (size_t)more);
        zip_end(&z, false);
        assert_err(open_zip(&s, &z), FORMAT,
                   more ? "at most 67108864" : "begins with its protocol");
        zip_clear(&z);
    }
    free(zeros);
}

/* ---- damage ---- */

/* If it opens all the same, everything that it claims can be read. */
static void open_and_read(const uint8_t *bytes, size_t size)
{
    struct weight_source *s = NULL;
    /* A copy of exactly this size, so that a sanitizer sees any step beyond it. */
    uint8_t *copy = malloc(size + !size);
    assert_non_null(copy);
    memcpy(copy, bytes, size);
    if (torch_zip_source_open_memory(&s, copy, (int64_t)size, "damaged") == ERR_OK) {
        for (int64_t i = 0; i < weight_source_count(s); i++) {
            const struct weight_info info = weight_source_info(s, i);
            uint8_t out[8 * 64];
            if (info.dtype == DTYPE_COUNT) continue;
            const int64_t n = min_i64(info.count, 64);
            assert_ok(weight_source_read(s, out, i, info.count - n, n));
        }
        weight_source_close(s);
    }
    free(copy);
}

static void test_damage(void **state)
{
    (void)state;
    float data[12] = { 0 };
    const struct storage storage = { data, sizeof data };
    struct buf p = { 0 };
    begin(&p);
    text(&p, "plain");
    tensor(&p, (struct view){ "FloatStorage", "0", 12, 0, 2, { 3, 4 }, { 4, 1 } });
    text(&p, "transposed");
    tensor(&p, (struct view){ "FloatStorage", "0", 12, 0, 2, { 4, 3 }, { 1, 4 } });
    struct zip z;
    weight_source_close(open_pickle(&z, &p, &storage, 1));

    uint8_t *bytes = (uint8_t *)z.file.data;
    struct weight_source *s;
    for (size_t size = 0; size < z.file.size; size++) {
        open_and_read(bytes, size);
        assert_err(torch_zip_source_open_memory(&s, bytes, (int64_t)size, "cut"), FORMAT, "cut");
    }
    static const uint8_t flips[] = { 0xff, 0x01, 0x80, 0x20 };
    for (size_t i = 0; i < z.file.size; i++)
        for (size_t k = 0; k < sizeof flips; k++) {
            bytes[i] ^= flips[k];
            open_and_read(bytes, z.file.size);
            bytes[i] ^= flips[k];
        }
    zip_clear(&z);
}

/* The same for the pickle alone, with its CRC made right again so that the machine sees it. */
static void test_damaged_pickle(void **state)
{
    (void)state;
    const struct storage storage = { one_two, sizeof one_two };
    struct buf p = { 0 };
    one_tensor(&p);
    for (size_t i = 0; i < p.size; i++)
        for (int byte = 0; byte < 256; byte++) {
            const char kept = p.data[i];
            struct zip z;
            p.data[i] = (char)byte;
            archive(&z, &p, &storage, 1);
            open_and_read((const uint8_t *)z.file.data, z.file.size);
            zip_clear(&z);
            p.data[i] = kept;
        }
    buf_clear(&p);
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
        cmocka_unit_test(test_bad_pickles),
        cmocka_unit_test(test_recursion),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_damaged_pickle),
        cmocka_unit_test(test_crc32),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
