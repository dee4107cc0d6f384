#include "model/torch_zip_dir.h"

#include "base/num.h"

#include <stdlib.h>
#include <string.h>

#define LOCAL_BYTES    30
#define CENTRAL_BYTES  46
#define END_BYTES      22
#define LOCATOR_BYTES  20
#define END64_BYTES    56
#define COMMENT_MAX    65535
#define LOCAL_MAGIC    0x04034b50u
#define CENTRAL_MAGIC  0x02014b50u
#define END_MAGIC      0x06054b50u
#define LOCATOR_MAGIC  0x07064b50u
#define END64_MAGIC    0x06064b50u
#define EXTRA_ZIP64    0x0001u
#define FLAG_ENCRYPTED 0x0001u
#define NONE16         0xffffu
#define NONE32         0xffffffffu

static uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

static uint32_t get32(const uint8_t *p) { return get16(p) | (uint32_t)get16(p + 2) << 16; }

static uint64_t get64(const uint8_t *p) { return get32(p) | (uint64_t)get32(p + 4) << 32; }

uint32_t zip_crc32(const void *bytes, size_t size)
{
    /* Four bits a step: the pickle is small, and 16 entries can be checked by eye. */
    static const uint32_t table[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
        0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
        0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    const uint8_t *p = bytes;
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < size; i++) {
        crc = table[(crc ^ p[i]) & 15] ^ crc >> 4;
        crc = table[(crc ^ p[i] >> 4) & 15] ^ crc >> 4;
    }
    return ~crc;
}

/* ---- the end records: where the directory is ---- */

struct directory {
    int64_t begin, bytes, count;
    int64_t end_record; /* byte of the first record after the directory */
};

static err_t find_end(int64_t *at, uint8_t end[END_BYTES], struct weight_file *f)
{
    err_t rc = ERR_OK;
    const int64_t tail = min_i64(f->size, END_BYTES + COMMENT_MAX);
    uint8_t *bytes = malloc((size_t)tail + 1);
    if (!bytes) RAISE(NOMEM, "%s: %lld bytes", f->name, (long long)tail);
    TRY_DONE(weight_file_read(f, bytes, f->size - tail, tail));
    for (int64_t i = tail - END_BYTES; i >= 0; i--) {
        if (get32(bytes + i) != END_MAGIC) continue;
        if (i + END_BYTES + get16(bytes + i + 20) != tail) continue; /* bytes of a comment */
        memcpy(end, bytes + i, END_BYTES);
        *at = f->size - tail + i;
        goto done;
    }
    RAISE_DONE(FORMAT,
               "%s: no end of a zip directory in its last %lld bytes; is it cut short, or "
               "not a file of torch.save?",
               f->name, (long long)tail);
done:
    free(bytes);
    return rc;
}

/* The zip64 end record, where the locator before the end record points to one. */
static err_t read_end64(struct directory *dir, bool *found, struct weight_file *f, int64_t end_at)
{
    uint8_t locator[LOCATOR_BYTES], end64[END64_BYTES];
    *found = false;
    if (end_at < LOCATOR_BYTES) return ERR_OK;
    TRY(weight_file_read(f, locator, end_at - LOCATOR_BYTES, LOCATOR_BYTES));
    if (get32(locator) != LOCATOR_MAGIC) return ERR_OK;

    const uint64_t at = get64(locator + 8);
    if (get32(locator + 4) != 0 || get32(locator + 16) > 1)
        RAISE(FORMAT, "%s: a zip archive in several parts", f->name);
    if (end_at < LOCATOR_BYTES + END64_BYTES ||
        at > (uint64_t)(end_at - LOCATOR_BYTES - END64_BYTES))
        RAISE(FORMAT, "%s: its zip64 record is said to be at %llu, in a file of %lld bytes",
              f->name, (unsigned long long)at, (long long)f->size);
    TRY(weight_file_read(f, end64, (int64_t)at, END64_BYTES));
    if (get32(end64) != END64_MAGIC || get32(end64 + 16) != 0 || get32(end64 + 20) != 0 ||
        get64(end64 + 24) != get64(end64 + 32))
        RAISE(FORMAT, "%s: no zip64 end record at %llu", f->name, (unsigned long long)at);
    if (get64(end64 + 32) > INT32_MAX || get64(end64 + 40) > INT64_MAX ||
        get64(end64 + 48) > INT64_MAX)
        RAISE(FORMAT, "%s: its zip64 record holds impossible sizes", f->name);
    *dir = (struct directory){ .begin = (int64_t)get64(end64 + 48),
                               .bytes = (int64_t)get64(end64 + 40),
                               .count = (int64_t)get64(end64 + 32),
                               .end_record = (int64_t)at };
    *found = true;
    return ERR_OK;
}

static err_t locate(struct directory *dir, struct weight_file *f)
{
    uint8_t end[END_BYTES] = { 0 };
    int64_t end_at = 0;
    bool is_zip64 = false;
    TRY(find_end(&end_at, end, f));
    TRY(read_end64(dir, &is_zip64, f, end_at));
    if (!is_zip64) {
        if (get16(end + 4) != 0 || get16(end + 6) != 0 || get16(end + 8) != get16(end + 10))
            RAISE(FORMAT, "%s: a zip archive in several parts", f->name);
        *dir = (struct directory){ .begin = get32(end + 16),
                                   .bytes = get32(end + 12),
                                   .count = get16(end + 10),
                                   .end_record = end_at };
    }
    if (dir->bytes > ZIP_DIRECTORY_BYTES_MAX)
        RAISE(FORMAT, "%s: a zip directory of %lld bytes, at most %d", f->name,
              (long long)dir->bytes, ZIP_DIRECTORY_BYTES_MAX);
    if (dir->begin > dir->end_record || dir->bytes > dir->end_record - dir->begin)
        RAISE(FORMAT, "%s: its zip directory, %lld bytes at %lld, runs into the end record at %lld",
              f->name, (long long)dir->bytes, (long long)dir->begin, (long long)dir->end_record);
    if (dir->count > dir->bytes / CENTRAL_BYTES)
        RAISE(FORMAT, "%s: %lld members in a zip directory of %lld bytes", f->name,
              (long long)dir->count, (long long)dir->bytes);
    return ERR_OK;
}

/* ---- one member ---- */

/* Fields of a central entry that are all ones live in the zip64 extra field, in this order. */
struct sizes {
    uint64_t size, stored, header;
};

static err_t read_extra(struct sizes *s, const uint8_t *extra, int64_t bytes, const char *file,
                        const char *member)
{
    uint64_t *const wide[] = { s->size == NONE32 ? &s->size : NULL,
                               s->stored == NONE32 ? &s->stored : NULL,
                               s->header == NONE32 ? &s->header : NULL };
    for (int64_t at = 0; at + 4 <= bytes;) {
        const uint32_t id = get16(extra + at), size = get16(extra + at + 2);
        if (size > bytes - at - 4)
            RAISE(FORMAT, "%s: %s: an extra field leaves its directory entry", file, member);
        const uint8_t *p = extra + at + 4, *end = p + size;
        at += 4 + size;
        if (id != EXTRA_ZIP64) continue;
        for (int i = 0; i < 3; i++) {
            if (!wide[i]) continue;
            if (end - p < 8) RAISE(FORMAT, "%s: %s: its zip64 field is too short", file, member);
            *wide[i] = get64(p);
            p += 8;
        }
        return ERR_OK;
    }
    return ERR_OK;
}

/* Where the data begins stands in the local header alone: after its name and extra field. */
static err_t read_local(struct zip_member *m, struct weight_file *f, int64_t limit)
{
    uint8_t local[LOCAL_BYTES];
    char name[WEIGHT_NAME_MAX];
    if (m->header > limit - LOCAL_BYTES)
        RAISE(FORMAT, "%s: %s: its header is said to be at %lld, the directory begins at %lld",
              f->name, m->name, (long long)m->header, (long long)limit);
    TRY(weight_file_read(f, local, m->header, LOCAL_BYTES));
    if (get32(local) != LOCAL_MAGIC)
        RAISE(FORMAT, "%s: %s: no member header at %lld", f->name, m->name, (long long)m->header);
    const int64_t name_bytes = get16(local + 26), extra_bytes = get16(local + 28);
    m->begin = m->header + LOCAL_BYTES + name_bytes + extra_bytes;
    if (m->begin > limit || m->size > limit - m->begin)
        RAISE(FORMAT, "%s: %s: %lld bytes at %lld run into the directory at %lld", f->name, m->name,
              (long long)m->size, (long long)m->begin, (long long)limit);
    if (name_bytes != (int64_t)strlen(m->name))
        RAISE(FORMAT, "%s: %s: another name in its own header", f->name, m->name);
    TRY(weight_file_read(f, name, m->header + LOCAL_BYTES, name_bytes));
    if (memcmp(name, m->name, (size_t)name_bytes) != 0)
        RAISE(FORMAT, "%s: %s: another name in its own header", f->name, m->name);
    return ERR_OK;
}

/* The entry at *at of the central directory; *at moves behind it. */
static err_t read_member(struct zip_member *m, struct weight_file *f, const uint8_t *bytes,
                         int64_t *at, const struct directory *dir)
{
    const uint8_t *p = bytes + *at;
    if (dir->bytes - *at < CENTRAL_BYTES || get32(p) != CENTRAL_MAGIC)
        RAISE(FORMAT, "%s: no zip directory entry at %lld", f->name, (long long)(dir->begin + *at));
    const int64_t name_bytes = get16(p + 28), extra_bytes = get16(p + 30);
    const int64_t entry_bytes = CENTRAL_BYTES + name_bytes + extra_bytes + get16(p + 32);
    if (entry_bytes > dir->bytes - *at)
        RAISE(FORMAT, "%s: the zip directory entry at %lld leaves the directory", f->name,
              (long long)(dir->begin + *at));
    TRY(weight_file_text(f, &m->name, (const char *)p + CENTRAL_BYTES, name_bytes));
    if (get16(p + 8) & FLAG_ENCRYPTED) RAISE(FORMAT, "%s: %s is encrypted", f->name, m->name);
    if (get16(p + 10) != 0)
        RAISE(FORMAT, "%s: %s is compressed (method %d); torch.save stores without compression",
              f->name, m->name, get16(p + 10));

    struct sizes s = { get32(p + 24), get32(p + 20), get32(p + 42) };
    TRY(read_extra(&s, p + CENTRAL_BYTES + name_bytes, extra_bytes, f->name, m->name));
    if (s.size != s.stored || s.size > INT64_MAX || s.header > INT64_MAX)
        RAISE(FORMAT, "%s: %s: sizes %llu and %llu of an uncompressed member", f->name, m->name,
              (unsigned long long)s.size, (unsigned long long)s.stored);
    m->size = (int64_t)s.size;
    m->header = (int64_t)s.header;
    m->crc = get32(p + 16);
    TRY(read_local(m, f, dir->begin));
    *at += entry_bytes;
    return ERR_OK;
}

/* ---- the whole ---- */

static int compare_headers(const void *a, const void *b)
{
    const struct zip_member *x = a, *y = b;
    return x->header < y->header ? -1 : x->header > y->header;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct zip_member *)a)->name, ((const struct zip_member *)b)->name);
}

static err_t check_members(struct zip_dir *dir, const char *file)
{
    struct zip_member *m = dir->member;
    qsort(m, (size_t)dir->count, sizeof *m, compare_headers);
    for (int64_t i = 1; i < dir->count; i++)
        if (m[i].header < m[i - 1].begin + m[i - 1].size)
            RAISE(FORMAT, "%s: %s and %s overlap", file, m[i - 1].name, m[i].name);
    qsort(m, (size_t)dir->count, sizeof *m, compare_names);
    for (int64_t i = 1; i < dir->count; i++)
        if (strcmp(m[i - 1].name, m[i].name) == 0)
            RAISE(FORMAT, "%s: %s is in the archive twice", file, m[i].name);
    return ERR_OK;
}

err_t zip_dir_read(struct zip_dir *out, struct weight_file *f)
{
    err_t rc = ERR_OK;
    struct directory dir = { 0 };
    uint8_t *bytes = NULL;
    int64_t at = 0;
    *out = (struct zip_dir){ 0 };
    TRY(locate(&dir, f));
    bytes = malloc((size_t)dir.bytes + 1);
    out->member = malloc((size_t)(dir.count + 1) * sizeof *out->member);
    if (!bytes || !out->member)
        RAISE_DONE(NOMEM, "%s: a zip directory of %lld bytes", f->name, (long long)dir.bytes);
    TRY_DONE(weight_file_read(f, bytes, dir.begin, dir.bytes));
    for (; out->count < dir.count; out->count++)
        TRY_DONE(read_member(&out->member[out->count], f, bytes, &at, &dir));
    TRY_DONE(check_members(out, f->name));
done:
    free(bytes);
    if (rc != ERR_OK) zip_dir_clear(out);
    return rc;
}

void zip_dir_clear(struct zip_dir *dir)
{
    free(dir->member);
    *dir = (struct zip_dir){ 0 };
}

const struct zip_member *zip_dir_find(const struct zip_dir *dir, const char *name)
{
    if (dir->count == 0) return NULL;
    const struct zip_member key = { .name = name };
    return bsearch(&key, dir->member, (size_t)dir->count, sizeof key, compare_names);
}
