#include "data/h5.h"
#include "data/h5z_zstd.h"
#include "data/shard_file.h"

#include <stdlib.h>
#include <string.h>

#define IMAGE_NAME      "shard being written"
#define IMAGE_INCREMENT (4 << 20)

/* Growing one-dimensional dataset: zstd, then a Fletcher-32 over each packed chunk. No times are
 * kept, so the same content gives the same bytes. */
static err_t column_create(struct shard_column_writer *w, hid_t file, enum shard_column column,
                           int zstd_level)
{
    err_t rc = ERR_OK;
    const struct shard_column_row *row = &shard_columns[column];
    const hsize_t none[1] = { 0 }, unlimited[1] = { H5S_UNLIMITED };
    const hsize_t chunk[1] = { (hsize_t)row->chunk_items };
    const unsigned values[2] = { (unsigned)zstd_level,
                                 (unsigned)(row->chunk_items * row->item_bytes) };
    hid_t space = -1, layout = -1;

    w->items = calloc((size_t)row->chunk_items, (size_t)row->item_bytes);
    if (w->items == NULL) RAISE_DONE(NOMEM, "a chunk of dataset %s", row->name);
    w->type = shard_column_type(column);
    H5_DONE(w->type, NOMEM, IMAGE_NAME, row->name);
    space = H5Screate_simple(1, none, unlimited);
    H5_DONE(space, NOMEM, IMAGE_NAME, row->name);
    layout = H5Pcreate(H5P_DATASET_CREATE);
    H5_DONE(layout, NOMEM, IMAGE_NAME, row->name);
    H5_DONE(H5Pset_obj_track_times(layout, 0), NOMEM, IMAGE_NAME, row->name);
    H5_DONE(H5Pset_chunk(layout, 1, chunk), NOMEM, IMAGE_NAME, row->name);
    H5_DONE(H5Pset_filter(layout, H5Z_ZSTD_ID, H5Z_FLAG_MANDATORY, 2, values), NOMEM, IMAGE_NAME,
            row->name);
    H5_DONE(H5Pset_fletcher32(layout), NOMEM, IMAGE_NAME, row->name);
    w->dataset = H5Dcreate2(file, row->name, w->type, space, H5P_DEFAULT, layout, H5P_DEFAULT);
    H5_DONE(w->dataset, NOMEM, IMAGE_NAME, row->name);
done:
    if (layout >= 0) H5Pclose(layout);
    if (space >= 0) H5Sclose(space);
    return rc;
}

static err_t column_flush(struct shard_column_writer *w, const char *name)
{
    err_t rc = ERR_OK;
    const hsize_t offset[1] = { (hsize_t)w->written }, count[1] = { (hsize_t)w->pending };
    const hsize_t extent[1] = { (hsize_t)(w->written + w->pending) };
    hid_t file_space = -1, memory_space = -1;
    if (w->pending == 0) return ERR_OK;

    H5_DONE(H5Dset_extent(w->dataset, extent), NOMEM, IMAGE_NAME, name);
    file_space = H5Dget_space(w->dataset);
    H5_DONE(file_space, NOMEM, IMAGE_NAME, name);
    memory_space = H5Screate_simple(1, count, NULL);
    H5_DONE(memory_space, NOMEM, IMAGE_NAME, name);
    H5_DONE(H5Sselect_hyperslab(file_space, H5S_SELECT_SET, offset, NULL, count, NULL), NOMEM,
            IMAGE_NAME, name);
    H5_DONE(H5Dwrite(w->dataset, w->type, memory_space, file_space, H5P_DEFAULT, w->items), NOMEM,
            IMAGE_NAME, name);
    w->written += w->pending;
    w->pending = 0;
done:
    if (memory_space >= 0) H5Sclose(memory_space);
    if (file_space >= 0) H5Sclose(file_space);
    return rc;
}

static err_t write_attributes(hid_t file, const struct shard_info *info)
{
    const int32_t version = SHARD_FORMAT_VERSION, vocab_size = info->vocab_size;
    const char *p = IMAGE_NAME;
    TRY(h5_write_text(file, p, "format", SHARD_FORMAT_NAME));
    TRY(h5_write_i32(file, p, "format_version", &version, 1));
    TRY(h5_write_text(file, p, "family", tok_family_name(info->family)));
    TRY(h5_write_text(file, p, "tokenizer_sha256", info->tokenizer_sha256));
    TRY(h5_write_i32(file, p, "vocab_size", &vocab_size, 1));
    TRY(h5_write_i32(file, p, "special_ids", &info->specials.unk, SHARD_SPECIAL_COUNT));
    TRY(h5_write_text(file, p, "client_name", info->client_name));
    TRY(h5_write_text(file, p, "counsellor_name", info->counsellor_name));
    TRY(h5_write_text(file, p, "separator", info->separator));
    TRY(h5_write_i32(file, p, "cue", info->cue, info->cue_len));
    TRY(h5_write_i32(file, p, "client_head", info->client_head, info->client_head_len));
    TRY(h5_write_text(file, p, "rules_sha256", info->rules_sha256));
    return h5_write_u64(file, p, "split_seed", info->split_seed);
}

err_t shard_file_create(struct shard_file_writer *f, const struct shard_info *info, int zstd_level)
{
    err_t rc = ERR_OK;
    hid_t access = -1, creation = -1;
    *f = (struct shard_file_writer){ .file = -1 };
    for (int i = 0; i < COLUMN_COUNT; i++) f->column[i].dataset = f->column[i].type = -1;
    TRY(h5_init());

    access = H5Pcreate(H5P_FILE_ACCESS);
    H5_DONE(access, NOMEM, IMAGE_NAME, "access");
    H5_DONE(H5Pset_fapl_core(access, IMAGE_INCREMENT, 0), NOMEM, IMAGE_NAME, "access");
    /* Superblock and object headers of the 1.8 series carry checksums. */
    H5_DONE(H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18), NOMEM, IMAGE_NAME,
            "access");
    creation = H5Pcreate(H5P_FILE_CREATE);
    H5_DONE(creation, NOMEM, IMAGE_NAME, "creation");
    H5_DONE(H5Pset_obj_track_times(creation, 0), NOMEM, IMAGE_NAME, "creation");
    f->file = H5Fcreate(IMAGE_NAME, H5F_ACC_TRUNC, creation, access);
    H5_DONE(f->file, NOMEM, IMAGE_NAME, "create");
    TRY_DONE(write_attributes(f->file, info));
    for (int i = 0; i < COLUMN_COUNT; i++)
        TRY_DONE(column_create(&f->column[i], f->file, (enum shard_column)i, zstd_level));
done:
    if (creation >= 0) H5Pclose(creation);
    if (access >= 0) H5Pclose(access);
    if (rc != ERR_OK) shard_file_discard(f);
    return rc;
}

err_t shard_file_append(struct shard_file_writer *f, enum shard_column column, const void *items,
                        int64_t count)
{
    const struct shard_column_row *row = &shard_columns[column];
    struct shard_column_writer *w = &f->column[column];
    const char *from = items;
    while (count > 0) {
        const int64_t room = row->chunk_items - w->pending;
        const int64_t n = count < room ? count : room;
        memcpy(w->items + w->pending * row->item_bytes, from, (size_t)(n * row->item_bytes));
        w->pending += n;
        from += n * row->item_bytes;
        count -= n;
        if (w->pending == row->chunk_items) TRY(column_flush(w, row->name));
    }
    return ERR_OK;
}

int64_t shard_file_count(const struct shard_file_writer *f, enum shard_column column)
{
    return f->column[column].written + f->column[column].pending;
}

static void columns_close(struct shard_file_writer *f)
{
    for (int i = 0; i < COLUMN_COUNT; i++) {
        struct shard_column_writer *w = &f->column[i];
        if (w->dataset >= 0) H5Dclose(w->dataset);
        if (w->type >= 0) H5Tclose(w->type);
        free(w->items);
        *w = (struct shard_column_writer){ .dataset = -1, .type = -1 };
    }
}

err_t shard_file_finish(struct buf *image, struct shard_file_writer *f)
{
    err_t rc = ERR_OK;
    const int32_t complete = 1;
    ssize_t size;
    void *memory;
    for (int i = 0; i < COLUMN_COUNT; i++)
        TRY_DONE(column_flush(&f->column[i], shard_columns[i].name));
    TRY_DONE(h5_write_i32(f->file, IMAGE_NAME, "complete", &complete, 1));
    columns_close(f);
    H5_DONE(H5Fflush(f->file, H5F_SCOPE_GLOBAL), NOMEM, IMAGE_NAME, "flush");
    /* H5Fget_file_image tells the size, but its copy is not to be had: HDF5 1.10 clears a byte of
     * the superblock there and leaves the checksum as it was. */
    size = H5Fget_file_image(f->file, NULL, 0);
    H5_DONE(size, NOMEM, IMAGE_NAME, "size");
    H5_DONE(H5Fget_vfd_handle(f->file, H5P_DEFAULT, &memory), NOMEM, IMAGE_NAME, "memory");
    TRY_DONE(buf_append(image, *(char **)memory, (size_t)size));
done:
    shard_file_discard(f);
    return rc;
}

void shard_file_discard(struct shard_file_writer *f)
{
    if (f->file < 0) return;
    columns_close(f);
    H5Fclose(f->file);
    f->file = -1;
}
