/*
 * torch_zip_maker.h - PyTorch files built byte by byte, right and wrong ones, for the tests of
 * their reader. Every step asserts; archives live in memory.
 */
#ifndef TESTS_TORCH_ZIP_MAKER_H
#define TESTS_TORCH_ZIP_MAKER_H

#include "base/buf.h"
#include "model/weights.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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

void zip_add_with(struct zip *z, const char *name, const void *bytes, size_t size,
                  struct zip_options o);
void zip_add(struct zip *z, const char *name, const void *bytes, size_t size);
/* Append the directory and its end; `zip64` writes the zip64 records and leaves ones in the old. */
void zip_end(struct zip *z, bool zip64);
void zip_clear(struct zip *z);

/* ---- a pickle writer ---- */

/* Bytes with NULs in them: the literal without its terminator. */
#define RAW(p, literal) assert_ok(buf_append((p), (literal), sizeof(literal) - 1))

void text(struct buf *p, const char *s);
struct view {
    const char *type, *key;
    int64_t storage_count, offset;
    int dims;
    int64_t dim[6], stride[6];
};

void tensor(struct buf *p, struct view v); /* as torch.save writes it */
void begin(struct buf *p);                 /* PROTO, an empty dictionary, MARK */
void end(struct buf *p);                   /* SETITEMS, STOP */

/* ---- both ---- */

/* An archive of one pickle and storages data/0, data/1, ... */
struct storage {
    const void *bytes;
    size_t size;
};

void archive(struct zip *z, const struct buf *pickle, const struct storage *storages,
             int64_t count);
err_t open_zip(struct weight_source **out, const struct zip *z);
/* An opened archive of this pickle, which is ended and cleared; the storages must outlive it. */
struct weight_source *open_pickle(struct zip *z, struct buf *pickle, const struct storage *storages,
                                  int64_t count);

/* A whole pickle: one tensor "w" = { 1, 2 } in half precision, whose storage is one_two. */
void one_tensor(struct buf *p);
extern const uint16_t one_two[2];

/* Open these bytes from a copy of exactly their size; if they open, everything declared can be
 * read. */
void open_and_read(const uint8_t *bytes, size_t size);

#endif
