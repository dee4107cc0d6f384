/*
 * shard_chunk.h - the chunks of one dataset, fetched raw and unpacked here. Internal to
 * shard_file_read.c.
 *
 * HDF5 finds a chunk and hands out its bytes; checksum and zstd are ours, because HDF5 1.10
 * believes what the index says about a chunk ("not packed", in a bit that no checksum covers) and
 * then reads past its end. It is also the faster way.
 */
#ifndef DATA_SHARD_CHUNK_H
#define DATA_SHARD_CHUNK_H

#include "base/err.h"
#include "data/shard_format.h"

#include <hdf5.h>
#include <stdint.h>

#define SHARD_CHUNK_SLOTS 16 /* unpacked chunks kept of a dataset unless it is asked for more */

/* An unpacked chunk; `chunk` -1: empty. */
struct shard_chunk_slot {
    int64_t chunk;
    char *items;
};

struct shard_chunks {
    const char *path; /* for messages; borrowed */
    const struct shard_column_row *row;
    hid_t dataset;                  /* -1 when not open */
    int64_t count;                  /* items */
    struct shard_chunk_slot *slots; /* [slot_count] chunk n lies in slot n % slot_count */
    int64_t slot_count;
};

/* Open a dataset of `file` and check its type, layout and filters. ERR_FORMAT, ERR_NOMEM. */
MUST_USE err_t shard_chunks_open(struct shard_chunks *c, hid_t file, const char *path,
                                 enum shard_column column);
/* Keep so many unpacked chunks from here on, but no more than there are. ERR_NOMEM. */
MUST_USE err_t shard_chunks_keep(struct shard_chunks *c, int64_t slot_count);
/* Copy items offset .. offset + count - 1, which lie inside the dataset. ERR_FORMAT: a chunk is
 * missing or damaged. */
MUST_USE err_t shard_chunks_read(struct shard_chunks *c, void *items, int64_t offset,
                                 int64_t count);
/* Safe on a struct whose `dataset` is -1. */
void shard_chunks_close(struct shard_chunks *c);

/* Fletcher-32 as HDF5 stores it after each chunk: 16-bit words, high byte first; an odd last byte
 * is a high byte. */
uint32_t shard_fletcher32(const void *bytes, int64_t size);

#endif
