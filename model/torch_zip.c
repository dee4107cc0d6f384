#include "model/torch_zip.h"

#include "base/check.h"
#include "base/num.h"
#include "model/torch_zip_dir.h"
#include "model/torch_zip_pickle.h"
#include "model/weight_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Files of torch before 1.6 are either a bare pickle of this number or a tar archive. */
static const uint8_t legacy_magic[] = { 0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c,
                                        0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19 };
#define TAR_MAGIC_AT 257

static err_t refuse_legacy(struct weight_file *f)
{
    uint8_t head[TAR_MAGIC_AT + 5] = { 0 };
    TRY(weight_file_read(f, head, 0, min_i64(f->size, (int64_t)sizeof head)));
    if (memcmp(head, legacy_magic, sizeof legacy_magic) == 0 ||
        memcmp(head + TAR_MAGIC_AT, "ustar", 5) == 0)
        RAISE(FORMAT,
              "%s has the format of torch before 1.6; convert it with a newer torch: "
              "torch.save(torch.load(path, map_location='cpu'), path)",
              f->name);
    return ERR_OK;
}

/* The members, and the folder inside the archive that data.pkl is in, with its slash. */
struct archive {
    struct zip_dir dir;
    char prefix[WEIGHT_NAME_MAX];
    int64_t prefix_bytes;
};

/* Member prefix + folder + rest, or NULL. */
static const struct zip_member *find(struct archive *a, const char *folder, const char *rest)
{
    char name[2 * WEIGHT_NAME_MAX + 8];
    snprintf(name, sizeof name, "%s%s%s", a->prefix, folder, rest);
    return zip_dir_find(&a->dir, name);
}

static err_t find_pickle(const struct zip_member **out, struct archive *a, const char *file)
{
    static const char tail[] = "/data.pkl";
    const int64_t tail_bytes = (int64_t)sizeof tail - 1;
    *out = NULL;
    for (int64_t i = 0; i < a->dir.count; i++) {
        const struct zip_member *m = &a->dir.member[i];
        const int64_t bytes = (int64_t)strlen(m->name);
        if (bytes <= tail_bytes || strcmp(m->name + bytes - tail_bytes, tail) != 0) continue;
        if (*out) RAISE(FORMAT, "%s: both %s and %s", file, (*out)->name, m->name);
        *out = m;
        a->prefix_bytes = bytes - tail_bytes + 1;
        memcpy(a->prefix, m->name, (size_t)a->prefix_bytes);
    }
    if (!*out) RAISE(FORMAT, "%s: no data.pkl in this zip archive; not a file of torch.save", file);
    if ((*out)->size > TORCH_PICKLE_BYTES_MAX)
        RAISE(FORMAT, "%s: data.pkl of %lld bytes, at most %d", file, (long long)(*out)->size,
              TORCH_PICKLE_BYTES_MAX);
    return ERR_OK;
}

static err_t check_byte_order(struct archive *a, struct weight_file *f)
{
    char order[6] = { 0 };
    const struct zip_member *m = find(a, "", "byteorder");
    if (!m) return ERR_OK; /* torch before 2.1 wrote none, always from little-endian machines */
    TRY(weight_file_read(f, order, m->begin, min_i64(m->size, (int64_t)sizeof order)));
    if (m->size != 6 || memcmp(order, "little", 6) != 0)
        RAISE(FORMAT, "%s: byteorder is %.6s; only little-endian files are read", f->name, order);
    return ERR_OK;
}

static err_t read_pickle(struct torch_pickle *out, struct archive *a, struct weight_file *f)
{
    err_t rc = ERR_OK;
    const struct zip_member *m;
    TRY(find_pickle(&m, a, f->name));
    uint8_t *bytes = malloc((size_t)m->size + 1);
    if (!bytes) RAISE(NOMEM, "%s: data.pkl of %lld bytes", f->name, (long long)m->size);
    TRY_DONE(weight_file_read(f, bytes, m->begin, m->size));
    const uint32_t crc = zip_crc32(bytes, (size_t)m->size);
    if (crc != m->crc)
        RAISE_DONE(CHECKSUM, "%s: data.pkl has CRC-32 %08x, the zip directory says %08x", f->name,
                   crc, m->crc);
    TRY_DONE(check_byte_order(a, f));
    TRY_DONE(torch_pickle_read(out, bytes, m->size, f->name));
done:
    free(bytes);
    return rc;
}

static err_t add_tensor(struct weight_file *f, struct archive *a, const char *name,
                        const struct torch_tensor *t)
{
    const struct zip_member *m = find(a, "data/", t->key);
    if (!m) RAISE(FORMAT, "%s: %s: no member %sdata/%s", f->name, name, a->prefix, t->key);
    int64_t bytes;
    if (!checked_mul(&bytes, t->storage_count, t->element_bytes) || bytes != m->size)
        RAISE(FORMAT, "%s: %s: storage %s has %lld bytes; %lld elements of %lld bytes are wanted",
              f->name, name, t->key, (long long)m->size, (long long)t->storage_count,
              (long long)t->element_bytes);
    struct weight_row row = {
        .dtype = t->dtype,
        .dims = t->dims,
        .begin = m->begin + t->offset * t->element_bytes,
    };
    memcpy(row.dim, t->dim, sizeof row.dim);
    memcpy(row.stride, t->stride, sizeof row.stride);
    TRY(weight_file_text(f, &row.name, name, (int64_t)strlen(name)));
    TRY(weight_file_add(f, &row, t->storage_count - t->offset));
    return ERR_OK;
}

static err_t parse(struct weight_file *f)
{
    err_t rc = ERR_OK;
    struct archive archive = { 0 };
    struct torch_pickle pickle = { 0 };
    TRY(refuse_legacy(f));
    TRY(zip_dir_read(&archive.dir, f));
    TRY_DONE(read_pickle(&pickle, &archive, f));
    for (int64_t i = 0; i < pickle.count; i++)
        TRY_DONE(add_tensor(f, &archive, pickle.name[i], pickle.tensor[i]));
    TRY_DONE(weight_file_finish(f));
done:
    torch_pickle_clear(&pickle);
    zip_dir_clear(&archive.dir);
    return rc;
}

err_t torch_zip_source_open(struct weight_source **out, const char *path)
{
    return weight_file_open(out, path, parse);
}

err_t torch_zip_source_open_memory(struct weight_source **out, const void *bytes, int64_t size,
                                   const char *name)
{
    return weight_file_open_memory(out, bytes, size, name, parse);
}
