#include "data/shard_chunk.h"

#include "base/check.h"
#include "base/num.h"
#include "data/h5.h"
#include "data/h5z_zstd.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#define CHECKSUM_BYTES 4

/* ---- what a dataset must be ---- */

/* The pipeline must be ours, exactly: zstd with the size of a chunk, then the checksum. */
static err_t check_layout(hid_t dataset, const char *path, const struct shard_column_row *row)
{
    err_t rc = ERR_OK;
    hsize_t chunk[1] = { 0 };
    unsigned values[2] = { 0 }, flags, config;
    size_t value_count = 2;
    const hid_t layout = H5Dget_create_plist(dataset);
    H5_DONE(layout, FORMAT, path, row->name);
    if (H5Pget_layout(layout) != H5D_CHUNKED || H5Pget_chunk(layout, 1, chunk) != 1 ||
        (int64_t)chunk[0] != row->chunk_items)
        RAISE_DONE(FORMAT, "%s: %s: expected chunks of %lld items", path, row->name,
                   (long long)row->chunk_items);
    if (H5Pget_nfilters(layout) != 2 ||
        H5Pget_filter2(layout, 0, &flags, &value_count, values, 0, NULL, &config) != H5Z_ZSTD_ID ||
        value_count != 2 || (int64_t)values[1] != row->chunk_items * row->item_bytes ||
        H5Pget_filter2(layout, 1, &flags, &(size_t){ 0 }, NULL, 0, NULL, &config) !=
            H5Z_FILTER_FLETCHER32)
        RAISE_DONE(FORMAT, "%s: %s: expected the filters zstd and fletcher32", path, row->name);
done:
    if (layout >= 0) H5Pclose(layout);
    return rc;
}

static err_t check_shape(int64_t *count, hid_t dataset, const char *path, enum shard_column column)
{
    err_t rc = ERR_OK;
    const struct shard_column_row *row = &shard_columns[column];
    hsize_t extent[1] = { 0 };
    hid_t type = -1, space = -1;
    const hid_t expected = shard_column_type(column);
    H5_DONE(expected, NOMEM, path, row->name);
    type = H5Dget_type(dataset);
    H5_DONE(type, FORMAT, path, row->name);
    if (H5Tequal(type, expected) <= 0)
        RAISE_DONE(FORMAT, "%s: %s: the type of its items is not that of format version %d", path,
                   row->name, SHARD_FORMAT_VERSION);
    space = H5Dget_space(dataset);
    H5_DONE(space, FORMAT, path, row->name);
    if (H5Sget_simple_extent_ndims(space) != 1 ||
        H5Sget_simple_extent_dims(space, extent, NULL) != 1 || extent[0] > INT64_MAX / 4096)
        RAISE_DONE(FORMAT, "%s: %s: expected one dimension", path, row->name);
    *count = (int64_t)extent[0];
    TRY_DONE(check_layout(dataset, path, row));
done:
    if (space >= 0) H5Sclose(space);
    if (type >= 0) H5Tclose(type);
    if (expected >= 0) H5Tclose(expected);
    return rc;
}

/* ---- opening ---- */

static int64_t chunk_bytes(const struct shard_column_row *row)
{
    return row->chunk_items * row->item_bytes;
}

static int64_t packed_bytes_max(const struct shard_column_row *row)
{
    return (int64_t)ZSTD_compressBound((size_t)chunk_bytes(row)) + CHECKSUM_BYTES;
}

err_t shard_chunks_open(struct shard_chunks *c, hid_t file, const char *path,
                        enum shard_column column)
{
    err_t rc = ERR_OK;
    *c = (struct shard_chunks){ .path = path, .row = &shard_columns[column], .dataset = -1 };
    c->dataset = H5Dopen2(file, c->row->name, H5P_DEFAULT);
    H5_DONE(c->dataset, FORMAT, path, c->row->name);
    TRY_DONE(check_shape(&c->count, c->dataset, path, column));
    TRY_DONE(shard_chunks_keep(c, SHARD_CHUNK_SLOTS));
done:
    if (rc != ERR_OK) shard_chunks_close(c);
    return rc;
}

static void drop_slots(struct shard_chunks *c)
{
    for (int64_t i = 0; i < c->slot_count; i++) free(c->slots[i].items);
    free(c->slots);
    c->slots = NULL;
    c->slot_count = 0;
}

err_t shard_chunks_keep(struct shard_chunks *c, int64_t slot_count)
{
    const int64_t count = min_i64(slot_count, div_ceil(c->count, c->row->chunk_items));
    drop_slots(c);
    c->slots = malloc((size_t)max_i64(count, 1) * sizeof *c->slots);
    if (c->slots == NULL) RAISE(NOMEM, "%lld chunks of %s", (long long)count, c->row->name);
    c->slot_count = max_i64(count, 1);
    for (int64_t i = 0; i < c->slot_count; i++)
        c->slots[i] = (struct shard_chunk_slot){ .chunk = -1 };
    return ERR_OK;
}

void shard_chunks_close(struct shard_chunks *c)
{
    drop_slots(c);
    if (c->dataset >= 0) H5Dclose(c->dataset);
    *c = (struct shard_chunks){ .dataset = -1 };
}

/* ---- reading ---- */

uint32_t shard_fletcher32(const void *bytes, int64_t size)
{
    const uint8_t *p = bytes;
    uint64_t sum = 0, sum_of_sums = 0; /* at most 2^21 words of a chunk: below 2^37 and 2^58 */
    ASSERT(size <= 4 << 20);
    for (int64_t i = 0; i + 1 < size; i += 2) {
        sum += (uint64_t)p[i] << 8 | p[i + 1];
        sum_of_sums += sum;
    }
    if (size % 2) {
        sum += (uint64_t)p[size - 1] << 8;
        sum_of_sums += sum;
    }
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    while (sum_of_sums >> 16) sum_of_sums = (sum_of_sums & 0xffff) + (sum_of_sums >> 16);
    return (uint32_t)(sum_of_sums << 16 | sum);
}

/* The chunk's bytes as they are in the file; *packed is the caller's to free, also after failure.
 */
static err_t fetch(char **packed, int64_t *packed_bytes, const struct shard_chunks *c,
                   int64_t chunk)
{
    err_t rc = ERR_OK;
    const hsize_t first[1] = { (hsize_t)(chunk * c->row->chunk_items) };
    hsize_t bytes = 0;
    uint32_t filters_left_out = 0;
    H5_DONE(H5Dget_chunk_storage_size(c->dataset, first, &bytes), FORMAT, c->path, c->row->name);
    if (bytes <= CHECKSUM_BYTES || bytes > (hsize_t)packed_bytes_max(c->row))
        RAISE_DONE(FORMAT, "%s: %s: chunk %lld has %llu bytes, expected %d to %lld", c->path,
                   c->row->name, (long long)chunk, (unsigned long long)bytes, CHECKSUM_BYTES + 1,
                   (long long)packed_bytes_max(c->row));
    *packed = malloc((size_t)bytes);
    if (*packed == NULL) RAISE_DONE(NOMEM, "a chunk of dataset %s", c->row->name);
    H5_DONE(H5Dread_chunk(c->dataset, H5P_DEFAULT, first, &filters_left_out, *packed), FORMAT,
            c->path, c->row->name);
    if (filters_left_out != 0)
        RAISE_DONE(FORMAT, "%s: %s: chunk %lld was written without its filters", c->path,
                   c->row->name, (long long)chunk);
    *packed_bytes = (int64_t)bytes;
done:
    return rc;
}

/* Check a packed chunk and unpack it to exactly the size of a chunk. */
static err_t unpack(char *items, const struct shard_chunks *c, int64_t chunk, const char *packed,
                    int64_t packed_bytes)
{
    const int64_t bytes = chunk_bytes(c->row), size = packed_bytes - CHECKSUM_BYTES;
    uint32_t stored;
    memcpy(&stored, packed + size, sizeof stored);
    if (stored != shard_fletcher32(packed, size))
        RAISE(FORMAT, "%s: %s: chunk %lld: wrong checksum", c->path, c->row->name,
              (long long)chunk);
    const size_t unpacked = ZSTD_decompress(items, (size_t)bytes, packed, (size_t)size);
    if (ZSTD_isError(unpacked) || (int64_t)unpacked != bytes)
        RAISE(FORMAT, "%s: %s: chunk %lld does not unpack to %lld bytes", c->path, c->row->name,
              (long long)chunk, (long long)bytes);
    return ERR_OK;
}

/* The chunk's items, from its slot or from the file. */
static err_t chunk_items(const char **items, struct shard_chunks *c, int64_t chunk)
{
    err_t rc = ERR_OK;
    struct shard_chunk_slot *slot = &c->slots[chunk % c->slot_count];
    char *packed = NULL;
    int64_t packed_bytes = 0;
    if (slot->chunk == chunk) goto done;

    slot->chunk = -1;
    if (slot->items == NULL) slot->items = malloc((size_t)chunk_bytes(c->row));
    if (slot->items == NULL) RAISE_DONE(NOMEM, "a chunk of dataset %s", c->row->name);
    TRY_DONE(fetch(&packed, &packed_bytes, c, chunk));
    TRY_DONE(unpack(slot->items, c, chunk, packed, packed_bytes));
    slot->chunk = chunk;
done:
    free(packed);
    *items = slot->items;
    return rc;
}

err_t shard_chunks_read(struct shard_chunks *c, void *items, int64_t offset, int64_t count)
{
    char *out = items;
    ASSERT(offset >= 0 && count >= 0 && count <= c->count - offset);
    while (count > 0) {
        const char *chunk;
        const int64_t skip = offset % c->row->chunk_items;
        const int64_t n = min_i64(count, c->row->chunk_items - skip);
        TRY(chunk_items(&chunk, c, offset / c->row->chunk_items));
        memcpy(out, chunk + skip * c->row->item_bytes, (size_t)(n * c->row->item_bytes));
        out += n * c->row->item_bytes;
        offset += n;
        count -= n;
    }
    return ERR_OK;
}
