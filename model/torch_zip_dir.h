/*
 * torch_zip_dir.h - the members of a zip archive that torch.save wrote: their names, places, sizes.
 *
 * Only the central directory (and its zip64 part) is trusted for sizes: torch writes data
 * descriptors, so the sizes in local headers may be 0. Refused: compressed or encrypted members,
 * archives in several parts, members that overlap each other or leave the file, names given twice.
 * Format: PKWARE APPNOTE 6.3.10, sections 4.3 to 4.5. Internal to model/.
 */
#ifndef MODEL_TORCH_ZIP_DIR_H
#define MODEL_TORCH_ZIP_DIR_H

#include "base/err.h"
#include "model/weight_file.h"

#include <stddef.h>
#include <stdint.h>

#define ZIP_DIRECTORY_BYTES_MAX (256 << 20)

struct zip_member {
    const char *name; /* in the file's arena */
    int64_t header;   /* byte of its local header */
    int64_t begin;    /* byte of its first data byte */
    int64_t size;     /* bytes of data */
    uint32_t crc;     /* CRC-32 of the data, as the directory says */
};

struct zip_dir {
    struct zip_member *member; /* sorted by name */
    int64_t count;
};

/* Yours; zip_dir_clear it. ERR_FORMAT names the file, the member, and what is wrong. */
MUST_USE err_t zip_dir_read(struct zip_dir *out, struct weight_file *f);
void zip_dir_clear(struct zip_dir *dir);
/* The member of that name, or NULL. Borrowed. */
const struct zip_member *zip_dir_find(const struct zip_dir *dir, const char *name);

/* CRC-32 as zip uses it (polynomial 0xedb88320, reflected). zip_crc32("123456789", 9) ==
 * 0xcbf43926. */
uint32_t zip_crc32(const void *bytes, size_t size);

#endif
