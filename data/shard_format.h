/*
 * shard_format.h - what the writer and the reader of a shard must agree on. Internal to shard_*.c;
 * the format in words is docs/shard-format.md.
 */
#ifndef DATA_SHARD_FORMAT_H
#define DATA_SHARD_FORMAT_H

#include "base/check.h"
#include "data/shard.h"

#include <hdf5.h>
#include <stddef.h>

#define SHARD_FORMAT_NAME    "soulchat-shard"
#define PREPARED_FORMAT_NAME "soulchat-prepared"
#define PREPARED_FILE_NAME   "prepared.json"
#define SHARD_FILE_NAME      "shard-%05lld.h5"
#define SHARD_TOPICS_MAX     4096 /* in one file; a file with more topics is ended early */
#define SHARD_SOURCES_MAX    4096
#define SHARD_SPECIAL_COUNT  10
#define SHARD_FILES_MAX      100000
#define SHARD_TURN_COUNT_MAX CORPUS_TURNS_MAX
#define SHARD_DEFAULT_TOKENS (16 << 20)
#define SHARD_DEFAULT_LEVEL  3

/* Rows go to the file as they lie in memory; padding bytes are zero. */
STATIC_ASSERT(sizeof(struct shard_turn) == 40, "turn rows are 40 bytes");
STATIC_ASSERT(sizeof(struct shard_dialogue) == 32, "dialogue rows are 32 bytes");
STATIC_ASSERT(sizeof(struct tok_specials) == 4 * SHARD_SPECIAL_COUNT, "special ids are ten int32");

/* The datasets of a shard. */
enum shard_column {
    COLUMN_TOKENS,
    COLUMN_TURN,
    COLUMN_DIALOGUE,
    COLUMN_SOURCE,
    COLUMN_TOPIC,
    COLUMN_LICENCE,
    COLUMN_ATTRIBUTION,
    COLUMN_COUNT
};

struct shard_column_row {
    const char *name;
    int64_t item_bytes;
    int64_t chunk_items; /* some 256 KiB */
};
extern const struct shard_column_row shard_columns[COLUMN_COUNT];

/* The type of a column's items; H5Tclose it. Negative when HDF5 is out of memory. */
hid_t shard_column_type(enum shard_column column);

#endif
