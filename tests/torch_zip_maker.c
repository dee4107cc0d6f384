#include "torch_zip_maker.h"

#include "base/num.h"
#include "model/torch_zip.h"
#include "model/torch_zip_dir.h"
#include "testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- a zip writer ---- */

static void put_int(struct buf *b, uint64_t value, int bytes)
{
    uint8_t out[8];
    for (int i = 0; i < bytes; i++) out[i] = (uint8_t)(value >> (8 * i));
    assert_ok(buf_append(b, out, (size_t)bytes));
}

void zip_add_with(struct zip *z, const char *name, const void *bytes, size_t size,
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

void zip_add(struct zip *z, const char *name, const void *bytes, size_t size)
{
    zip_add_with(z, name, bytes, size, (struct zip_options){ 0 });
}

/* Append the directory and its end; `zip64` writes the zip64 records and leaves ones in the old. */
void zip_end(struct zip *z, bool zip64)
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

void zip_clear(struct zip *z)
{
    buf_clear(&z->file);
    buf_clear(&z->central);
}

/* ---- a pickle writer ---- */

void text(struct buf *p, const char *s)
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

void tensor(struct buf *p, struct view v)
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

void begin(struct buf *p) { assert_ok(buf_puts(p, "\x80\x02}(")); }
void end(struct buf *p) { assert_ok(buf_puts(p, "u.")); }

void archive(struct zip *z, const struct buf *pickle, const struct storage *storages, int64_t count)
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

err_t open_zip(struct weight_source **out, const struct zip *z)
{
    return torch_zip_source_open_memory(out, z->file.data, (int64_t)z->file.size, "test.bin");
}

struct weight_source *open_pickle(struct zip *z, struct buf *pickle, const struct storage *storages,
                                  int64_t count)
{
    struct weight_source *source = NULL;
    end(pickle);
    archive(z, pickle, storages, count);
    buf_clear(pickle);
    assert_ok(open_zip(&source, z));
    return source;
}

/* One tensor "w" = { 1, 2 } in half precision. */
void one_tensor(struct buf *p)
{
    begin(p);
    text(p, "w");
    tensor(p, (struct view){ "HalfStorage", "0", 2, 0, 1, { 2 }, { 1 } });
    end(p);
}

const uint16_t one_two[2] = { 0x3c00, 0x4000 };

/* If it opens all the same, everything that it claims can be read. */
void open_and_read(const uint8_t *bytes, size_t size)
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
