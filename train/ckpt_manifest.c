/* MANIFEST.json: what a checkpoint consists of, to the byte. */
#include "train/ckpt_impl.h"

#include "base/num.h"
#include "base/stop.h"
#include "model/json_in.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MANIFEST_BYTES_MAX (64 << 20)
#define READ_BYTES         (1 << 20)

void ckpt_manifest_clear(struct ckpt_manifest *m)
{
    for (int64_t i = 0; i < m->file_count; i++) free(m->file[i].crc32c);
    free(m->file);
    memset(m, 0, sizeof *m);
}

/* Such names need no escape in JSON and cannot lead out of the folder. */
static bool is_file_name(const char *name)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    const size_t length = strlen(name);
    return length > 0 && length < CKPT_NAME_MAX && name[0] != '.' &&
           strspn(name, allowed) == length;
}

/* ---- digests ---- */

err_t ckpt_meter_begin(struct ckpt_meter *meter, struct ckpt_file *file, int64_t bytes)
{
    const int64_t blocks = div_ceil(bytes, CKPT_BLOCK_BYTES);
    *meter = (struct ckpt_meter){ .file = file };
    file->bytes = file->block_count = 0;
    file->crc32c = calloc((size_t)blocks + 1, sizeof *file->crc32c);
    if (file->crc32c == NULL)
        RAISE(NOMEM, "%s: no memory for %lld sums", file->name, (long long)blocks);
    sha256_init(&meter->sha);
    return ERR_OK;
}

static void end_block(struct ckpt_meter *meter)
{
    meter->file->crc32c[meter->file->block_count++] = meter->crc;
    meter->crc = 0;
}

void ckpt_meter_add(struct ckpt_meter *meter, const void *bytes, int64_t size)
{
    const char *at = bytes;
    sha256_update(&meter->sha, bytes, (size_t)size);
    while (size > 0) {
        const int64_t room = CKPT_BLOCK_BYTES - meter->file->bytes % CKPT_BLOCK_BYTES;
        const int64_t piece = min_i64(size, room);
        meter->crc = crc32c(meter->crc, at, (size_t)piece);
        meter->file->bytes += piece;
        at += piece;
        size -= piece;
        if (piece == room) end_block(meter);
    }
}

void ckpt_meter_end(struct ckpt_meter *meter)
{
    uint8_t digest[SHA256_BYTES];
    if (meter->file->bytes % CKPT_BLOCK_BYTES != 0) end_block(meter);
    sha256_final(&meter->sha, digest);
    sha256_hex(meter->file->sha256, digest);
}

static err_t measure(struct ckpt_file *file, const char *dir, bool stops)
{
    err_t rc = ERR_OK;
    char path[FILE_PATH_MAX];
    struct file_reader reader = { .fd = -1 };
    struct ckpt_meter meter;
    char *piece = NULL;
    TRY_DONE(path_join(path, dir, file->name));
    TRY_DONE(file_reader_open(&reader, path));
    TRY_DONE(ckpt_meter_begin(&meter, file, reader.size));
    piece = malloc((size_t)min_i64(READ_BYTES, reader.size + 1));
    if (piece == NULL) RAISE_DONE(NOMEM, "%s: no memory to compute its digests", path);
    for (int64_t at = 0, size; at < reader.size; at += size) {
        if (stops && stop_requested())
            RAISE_DONE(INTERRUPTED, "stopped while %s was verified", dir);
        size = min_i64(READ_BYTES, reader.size - at);
        TRY_DONE(file_reader_pread(&reader, piece, size, at));
        ckpt_meter_add(&meter, piece, size);
    }
    ckpt_meter_end(&meter);
done:
    file_reader_close(&reader);
    free(piece);
    return rc;
}

/* Of what is being saved: a stop waits for it. */
err_t ckpt_file_measure(struct ckpt_file *file, const char *dir)
{
    return measure(file, dir, false);
}

err_t ckpt_manifest_add(struct ckpt_file **out, struct ckpt_manifest *m, const char *name,
                        const char *where)
{
    if (!is_file_name(name))
        RAISE(FORMAT, "%s: \"%.80s\" is no name of a checkpoint's file", where, name);
    struct ckpt_file *larger = realloc(m->file, (size_t)(m->file_count + 1) * sizeof *larger);
    if (larger == NULL) RAISE(NOMEM, "%s: no memory for its list of files", where);
    m->file = larger;
    *out = &m->file[m->file_count++];
    **out = (struct ckpt_file){ .bytes = 0 };
    memcpy((*out)->name, name, strlen(name) + 1);
    return ERR_OK;
}

err_t ckpt_manifest_measure(struct ckpt_manifest *m, const char *dir, const char *name)
{
    struct ckpt_file *file;
    TRY(ckpt_manifest_add(&file, m, name, dir));
    return ckpt_file_measure(file, dir);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct ckpt_file *)a)->name, ((const struct ckpt_file *)b)->name);
}

/* ---- the text ---- */

static err_t write_file(struct buf *out, const struct ckpt_file *f)
{
    TRY(buf_printf(out, "  \"%s\": {\"bytes\": %lld, \"sha256\": \"%s\", \"crc32c\": [", f->name,
                   (long long)f->bytes, f->sha256));
    for (int64_t i = 0; i < f->block_count; i++)
        TRY(buf_printf(out, "%s%lu", i == 0 ? "" : ", ", (unsigned long)f->crc32c[i]));
    return buf_puts(out, "]}");
}

err_t ckpt_manifest_write(struct buf *out, struct ckpt_manifest *m)
{
    if (m->file_count > 0) qsort(m->file, (size_t)m->file_count, sizeof *m->file, by_name);
    TRY(buf_printf(out, "{\n \"version\": %d,\n \"step\": %lld,\n \"files\": {\n", CKPT_VERSION,
                   (long long)m->step));
    for (int64_t i = 0; i < m->file_count; i++) {
        TRY(write_file(out, &m->file[i]));
        TRY(buf_puts(out, i + 1 < m->file_count ? ",\n" : "\n"));
    }
    return buf_puts(out, " }\n}\n");
}

static err_t parse_file(struct ckpt_file *f, json_t *entry, const char *name)
{
    json_int_t bytes;
    const char *sha256;
    json_t *crcs;
    json_error_t error;
    if (json_unpack_ex(entry, &error, 0, "{s:I, s:s, s:o !}", "bytes", &bytes, "sha256", &sha256,
                       "crc32c", &crcs) != 0) {
        char where[FILE_PATH_MAX + CKPT_NAME_MAX + 2];
        snprintf(where, sizeof where, "%s: %s", name, f->name);
        return json_in_failure(&error, where);
    }
    if (bytes < 0 || strspn(sha256, "0123456789abcdef") != SHA256_HEX_SIZE - 1 ||
        strlen(sha256) != SHA256_HEX_SIZE - 1)
        RAISE(FORMAT, "%s: %s: bytes %lld, sha256 \"%.80s\": not a size and a digest", name,
              f->name, (long long)bytes, sha256);
    f->bytes = bytes;
    memcpy(f->sha256, sha256, SHA256_HEX_SIZE);

    /* Without the rounding of div_ceil, which would overflow for a size such as 2^63 - 1. */
    const int64_t blocks = bytes / CKPT_BLOCK_BYTES + (bytes % CKPT_BLOCK_BYTES != 0);
    if (!json_is_array(crcs) || (int64_t)json_array_size(crcs) != blocks)
        RAISE(FORMAT, "%s: %s: crc32c is no list of %lld numbers", name, f->name,
              (long long)blocks);
    f->crc32c = calloc((size_t)blocks + 1, sizeof *f->crc32c);
    if (f->crc32c == NULL) RAISE(NOMEM, "%s: no memory for %lld sums", name, (long long)blocks);
    f->block_count = blocks;
    for (int64_t i = 0; i < blocks; i++) {
        const json_t *crc = json_array_get(crcs, (size_t)i);
        const json_int_t value = json_integer_value(crc); /* 0 for what is no integer */
        if (!json_is_integer(crc) || value < 0 || value > UINT32_MAX)
            RAISE(FORMAT, "%s: %s: crc32c[%lld] is no 32-bit number", name, f->name, (long long)i);
        f->crc32c[i] = (uint32_t)value;
    }
    return ERR_OK;
}

static err_t parse(struct ckpt_manifest *m, json_t *root, const char *name)
{
    const json_t *version = json_object_get(root, "version");
    json_int_t step;
    json_t *files, *entry;
    json_error_t error;
    const char *file_name;
    int ignored;
    if (!json_is_integer(version)) RAISE(FORMAT, "%s: version is missing or no integer", name);
    if (json_integer_value(version) != CKPT_VERSION)
        RAISE(UNSUPPORTED, "%s: version %lld; this program (%s) reads %d", name,
              (long long)json_integer_value(version), SOULCHAT_VERSION, CKPT_VERSION);
    if (json_unpack_ex(root, &error, 0, "{s:i, s:I, s:o !}", "version", &ignored, "step", &step,
                       "files", &files) != 0)
        return json_in_failure(&error, name);
    if (step < 0 || !json_is_object(files) || json_object_get(files, "state.json") == NULL)
        RAISE(FORMAT, "%s: step %lld, or files without state.json", name, (long long)step);
    m->step = step;
    json_object_foreach(files, file_name, entry)
    {
        struct ckpt_file *file;
        TRY(ckpt_manifest_add(&file, m, file_name, name));
        TRY(parse_file(file, entry, name));
    }
    qsort(m->file, (size_t)m->file_count, sizeof *m->file, by_name);
    return ERR_OK;
}

err_t ckpt_manifest_parse(struct ckpt_manifest *out, const char *text, int64_t size,
                          const char *name)
{
    json_error_t error;
    *out = (struct ckpt_manifest){ .step = 0 };
    json_t *root = json_in_load(&error, text, size);
    if (root == NULL) return json_in_failure(&error, name);
    const err_t rc = parse(out, root, name);
    json_decref(root);
    return rc;
}

/* ---- a folder against its manifest ---- */

static err_t compare(const struct ckpt_file *want, const struct ckpt_file *found, const char *dir)
{
    if (found->bytes != want->bytes)
        RAISE(FORMAT, "%s/%s: %lld bytes; the manifest says %lld", dir, want->name,
              (long long)found->bytes, (long long)want->bytes);
    for (int64_t i = 0; i < want->block_count; i++)
        if (found->crc32c[i] != want->crc32c[i])
            RAISE(CHECKSUM, "%s/%s: crc32c %08x from byte %lld on; the manifest says %08x", dir,
                  want->name, found->crc32c[i], (long long)(i * CKPT_BLOCK_BYTES), want->crc32c[i]);
    if (strcmp(found->sha256, want->sha256) != 0)
        RAISE(CHECKSUM, "%s/%s: sha256 %.16s...; the manifest says %.16s...", dir, want->name,
              found->sha256, want->sha256);
    return ERR_OK;
}

static err_t check_file(struct ckpt_file *want, const char *dir)
{
    struct ckpt_file found = { .bytes = 0 };
    memcpy(found.name, want->name, sizeof found.name);
    err_t rc = measure(&found, dir, true);
    if (rc == ERR_OK) rc = compare(want, &found, dir);
    free(found.crc32c);
    return rc;
}

static err_t check_step(const struct ckpt_manifest *m, const char *dir)
{
    struct ckpt_state state;
    const err_t rc = ckpt_state_read(&state, dir);
    const int64_t step = state.step;
    ckpt_state_clear(&state);
    TRY(rc);
    if (step != m->step)
        RAISE(FORMAT, "%s: step %lld; its manifest says %lld", dir, (long long)step,
              (long long)m->step);
    return ERR_OK;
}

err_t ckpt_manifest_read(struct ckpt_manifest *out, const char *dir)
{
    err_t rc = ERR_OK;
    char path[FILE_PATH_MAX];
    struct buf text = { 0 };
    *out = (struct ckpt_manifest){ .step = 0 };
    TRY_DONE(path_join(path, dir, CKPT_MANIFEST));
    TRY_DONE(file_read_all(&text, path, MANIFEST_BYTES_MAX));
    TRY_DONE(ckpt_manifest_parse(out, text.data, (int64_t)text.size, path));
done:
    buf_clear(&text);
    return rc;
}

static err_t check_size(struct ckpt_file *want, const char *dir)
{
    char path[FILE_PATH_MAX];
    struct file_reader reader;
    TRY(path_join(path, dir, want->name));
    TRY(file_reader_open(&reader, path));
    const int64_t bytes = reader.size;
    file_reader_close(&reader);
    if (bytes != want->bytes)
        RAISE(FORMAT, "%s: %lld bytes; the manifest says %lld", path, (long long)bytes,
              (long long)want->bytes);
    return ERR_OK;
}

static err_t check_folder(const char *dir, ckpt_file_work *check)
{
    err_t rc = ERR_OK;
    struct ckpt_manifest manifest;
    int64_t bytes = 0;
    TRY_DONE(ckpt_manifest_read(&manifest, dir));
    for (int64_t i = 0; i < manifest.file_count; i++) /* what it claims may be anything */
        bytes += min_i64(manifest.file[i].bytes, CKPT_BLOCK_BYTES);
    TRY_DONE(ckpt_each_file(&manifest, dir, bytes, check));
    TRY_DONE(check_step(&manifest, dir));
done:
    ckpt_manifest_clear(&manifest);
    return rc;
}

err_t ckpt_verify(const char *dir) { return check_folder(dir, check_file); }

err_t ckpt_verify_sizes(const char *dir) { return check_folder(dir, check_size); }
