/*
 * shard_file.h - one shard file. Internal to shard_write.c and shard_read.c.
 *
 * Writing builds the HDF5 file in memory and hands out its bytes, so that the disk sees one plain
 * file written by base/file.h: a full disk or a kill cannot leave HDF5 half-way. A shard of 16 Mi
 * tokens takes some 25 MB.
 */
#ifndef DATA_SHARD_FILE_H
#define DATA_SHARD_FILE_H

#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"
#include "data/shard.h"
#include "data/shard_chunk.h"
#include "data/shard_format.h"

#include <hdf5.h>
#include <stdint.h>

/* A dataset being written: full chunks go to HDF5, the rest waits in `items`. */
struct shard_column_writer {
    hid_t dataset, type;
    char *items;
    int64_t pending, written; /* items */
};

struct shard_file_writer {
    hid_t file; /* -1 when none is open */
    struct shard_column_writer column[COLUMN_COUNT];
};

MUST_USE err_t shard_file_create(struct shard_file_writer *f, const struct shard_info *info,
                                 int zstd_level);
/* Rows of one column; borrowed during the call. */
MUST_USE err_t shard_file_append(struct shard_file_writer *f, enum shard_column column,
                                 const void *items, int64_t count);
int64_t shard_file_count(const struct shard_file_writer *f, enum shard_column column);
/* Complete the file and append its bytes to *image; the writer is discarded either way. */
MUST_USE err_t shard_file_finish(struct buf *image, struct shard_file_writer *f);
/* Also for a struct that was never opened but has file = -1. */
void shard_file_discard(struct shard_file_writer *f);

/* A shard opened for reading. Everything but the tokens is in memory, and checked. */
struct shard_file {
    char path[FILE_PATH_MAX]; /* for messages */
    hid_t file;
    struct shard_chunks tokens;
    int64_t token_count, turn_count, dialogue_count, source_count, topic_count;
    struct shard_info info;
    struct shard_turn *turns;
    struct shard_dialogue *dialogues;
    char (*sources)[SHARD_TEXT_MAX];
    char (*topics)[SHARD_TEXT_MAX];
};

/* ERR_NOTFOUND, ERR_IO, ERR_FORMAT, ERR_NOMEM; nothing is open afterwards. */
MUST_USE err_t shard_file_open(struct shard_file *f, const char *path);
/* The same from the bytes of a file; they are copied. `name` is for messages. */
MUST_USE err_t shard_file_open_image(struct shard_file *f, const void *bytes, int64_t size,
                                     const char *name);
/* Tokens offset .. offset + count - 1, each checked to be in 0..vocab_size-1. ERR_FORMAT. */
MUST_USE err_t shard_file_tokens(struct shard_file *f, int32_t *out, int64_t offset, int64_t count);
void shard_file_close(struct shard_file *f);

#endif
