#include "base/utf8.h"
#include "data/h5.h"
#include "data/shard_file.h"

#include "base/num.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How much larger a table may be than its file; a larger one is taken for a wrong size. */
#define TABLE_RATIO_MAX 1024

/* ---- tables ---- */

/* A whole column into memory; *items is the caller's also after failure. */
static err_t read_column(void **items, int64_t *count, const struct shard_file *f,
                         enum shard_column column)
{
    err_t rc = ERR_OK;
    const struct shard_column_row *row = &shard_columns[column];
    struct shard_chunks chunks;
    hsize_t file_bytes = 0;
    int64_t bytes;
    TRY(shard_chunks_open(&chunks, f->file, f->path, column));
    *count = chunks.count;
    H5_DONE(H5Fget_filesize(f->file, &file_bytes), FORMAT, f->path, row->name);
    if (!checked_mul(&bytes, *count, row->item_bytes) ||
        bytes / TABLE_RATIO_MAX > (int64_t)file_bytes)
        RAISE_DONE(FORMAT, "%s: %s: %lld rows in a file of %lld bytes", f->path, row->name,
                   (long long)*count, (long long)file_bytes);
    *items = malloc((size_t)max_i64(bytes, 1));
    if (*items == NULL) RAISE_DONE(NOMEM, "%lld rows of %s", (long long)*count, row->name);
    TRY_DONE(shard_chunks_read(&chunks, *items, 0, *count));
done:
    shard_chunks_close(&chunks);
    return rc;
}

static err_t read_names(char (**names)[SHARD_TEXT_MAX], int64_t *count, const struct shard_file *f,
                        enum shard_column column)
{
    const char *dataset = shard_columns[column].name;
    void *items = NULL;
    const err_t rc = read_column(&items, count, f, column);
    *names = items;
    TRY(rc);
    for (int64_t i = 0; i < *count; i++)
        if ((*names)[i][SHARD_TEXT_MAX - 1] != '\0' ||
            utf8_valid_prefix((*names)[i], SHARD_TEXT_MAX) != SHARD_TEXT_MAX)
            RAISE(FORMAT, "%s: %s[%lld] is not UTF-8 that ends with NUL", f->path, dataset,
                  (long long)i);
    return ERR_OK;
}

/* ---- rows ---- */

static bool run_is_inside(int64_t offset, int64_t len, int64_t token_count)
{
    return offset >= 0 && len >= 1 && offset <= token_count && len <= token_count - offset;
}

static bool no_run(int64_t offset, int64_t len) { return offset == -1 && len == 0; }

static bool turn_is_valid(const struct shard_turn *t, int64_t token_count)
{
    const bool first_stored = (t->flags & TURN_FIRST_STORED) != 0;
    const bool target_ok = no_run(t->target_off, t->target_len) ||
                           run_is_inside(t->target_off, t->target_len, token_count);
    const bool first_ok = first_stored ? run_is_inside(t->first_off, t->first_len, token_count)
                                       : no_run(t->first_off, t->first_len);
    return run_is_inside(t->ctx_off, t->ctx_len, token_count) && target_ok && first_ok &&
           t->role <= ROLE_SYSTEM && (t->flags & ~(TURN_FIRST_STORED | TURN_CRISIS)) == 0;
}

static err_t check_rows(const struct shard_file *f)
{
    int64_t turn_at = 0;
    for (int64_t i = 0; i < f->dialogue_count; i++) {
        const struct shard_dialogue *d = &f->dialogues[i];
        if (d->turn_off != turn_at || d->turn_count < 1 || d->turn_count > SHARD_TURN_COUNT_MAX ||
            d->turn_count > f->turn_count - turn_at)
            RAISE(FORMAT, "%s: dialogue[%lld]: turns %lld + %d, expected to begin at %lld of %lld",
                  f->path, (long long)i, (long long)d->turn_off, d->turn_count, (long long)turn_at,
                  (long long)f->turn_count);
        if (d->source >= f->source_count || d->topic >= f->topic_count || d->split >= SPLIT_COUNT ||
            (d->flags & ~DIALOGUE_CRISIS) != 0)
            RAISE(FORMAT,
                  "%s: dialogue[%lld]: source %u of %lld, topic %u of %lld, split %u, "
                  "flags %u",
                  f->path, (long long)i, d->source, (long long)f->source_count, d->topic,
                  (long long)f->topic_count, d->split, d->flags);
        turn_at += d->turn_count;
    }
    if (turn_at != f->turn_count)
        RAISE(FORMAT, "%s: %lld turns, of which %lld belong to dialogues", f->path,
              (long long)f->turn_count, (long long)turn_at);
    for (int64_t i = 0; i < f->turn_count; i++)
        if (!turn_is_valid(&f->turns[i], f->token_count))
            RAISE(FORMAT,
                  "%s: turn[%lld]: a run outside the %lld tokens, or an unknown role or "
                  "flag",
                  f->path, (long long)i, (long long)f->token_count);
    return ERR_OK;
}

/* ---- attributes ---- */

static bool ids_are_valid(const int32_t *ids, int64_t count, int32_t low, int32_t vocab_size)
{
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < low || ids[i] >= vocab_size) return false;
    return true;
}

static err_t read_family(enum tok_family *family, const struct shard_file *f)
{
    char name[32];
    TRY(h5_read_text(name, sizeof name, f->file, f->path, "family"));
    for (*family = TOK_CHATGLM; *family <= TOK_CHATGLM2; (*family)++)
        if (strcmp(name, tok_family_name(*family)) == 0) return ERR_OK;
    RAISE(FORMAT, "%s: family \"%s\" is not known", f->path, name);
}

static err_t check_version(const struct shard_file *f)
{
    char format[32];
    int32_t version, complete, count;
    TRY(h5_read_text(format, sizeof format, f->file, f->path, "format"));
    if (strcmp(format, SHARD_FORMAT_NAME) != 0)
        RAISE(FORMAT, "%s: format \"%s\", expected " SHARD_FORMAT_NAME, f->path, format);
    TRY(h5_read_i32(&version, &count, 1, f->file, f->path, "format_version"));
    if (version != SHARD_FORMAT_VERSION)
        RAISE(FORMAT, "%s: format version %d, this program reads %d", f->path, version,
              SHARD_FORMAT_VERSION);
    TRY(h5_read_i32(&complete, &count, 1, f->file, f->path, "complete"));
    if (complete != 1) RAISE(FORMAT, "%s: complete = %d, expected 1", f->path, complete);
    return ERR_OK;
}

static err_t read_info(struct shard_info *info, const struct shard_file *f)
{
    int32_t count;
    const hid_t file = f->file;
    const char *p = f->path;
    memset(info, 0, sizeof *info); /* whole structs are compared */
    TRY(read_family(&info->family, f));
    TRY(h5_read_text(info->tokenizer_sha256, SHA256_HEX_SIZE, file, p, "tokenizer_sha256"));
    TRY(h5_read_i32(&info->vocab_size, &count, 1, file, p, "vocab_size"));
    TRY(h5_read_i32(&info->specials.unk, &count, SHARD_SPECIAL_COUNT, file, p, "special_ids"));
    if (count != SHARD_SPECIAL_COUNT)
        RAISE(FORMAT, "%s: special_ids has %d values, expected %d", p, count, SHARD_SPECIAL_COUNT);
    TRY(h5_read_text(info->client_name, SHARD_NAME_MAX, file, p, "client_name"));
    TRY(h5_read_text(info->counsellor_name, SHARD_NAME_MAX, file, p, "counsellor_name"));
    TRY(h5_read_text(info->separator, SHARD_NAME_MAX, file, p, "separator"));
    TRY(h5_read_i32(info->cue, &info->cue_len, SHARD_CUE_MAX, file, p, "cue"));
    TRY(h5_read_i32(info->client_head, &info->client_head_len, SHARD_CUE_MAX, file, p,
                    "client_head"));
    TRY(h5_read_text(info->rules_sha256, SHA256_HEX_SIZE, file, p, "rules_sha256"));
    TRY(h5_read_u64(&info->split_seed, file, p, "split_seed"));
    if (info->vocab_size < 1) RAISE(FORMAT, "%s: vocab_size %d", p, info->vocab_size);
    if (!ids_are_valid(&info->specials.unk, SHARD_SPECIAL_COUNT, -1, info->vocab_size) ||
        !ids_are_valid(info->cue, info->cue_len, 0, info->vocab_size) ||
        !ids_are_valid(info->client_head, info->client_head_len, 0, info->vocab_size))
        RAISE(FORMAT, "%s: an id of special_ids, cue or client_head is outside 0..%d", p,
              info->vocab_size - 1);
    return ERR_OK;
}

/* ---- the file ---- */

static err_t load(struct shard_file *f)
{
    TRY(check_version(f));
    TRY(read_info(&f->info, f));
    TRY(shard_chunks_open(&f->tokens, f->file, f->path, COLUMN_TOKENS));
    f->token_count = f->tokens.count;
    void *rows = NULL;
    err_t rc = read_column(&rows, &f->turn_count, f, COLUMN_TURN);
    f->turns = rows;
    TRY(rc);
    rows = NULL;
    rc = read_column(&rows, &f->dialogue_count, f, COLUMN_DIALOGUE);
    f->dialogues = rows;
    TRY(rc);
    TRY(read_names(&f->sources, &f->source_count, f, COLUMN_SOURCE));
    TRY(read_names(&f->topics, &f->topic_count, f, COLUMN_TOPIC));
    return check_rows(f);
}

/*
 * The file must begin as ours do: signature, superblock version 2. HDF5 also reads older files,
 * whose structures have no checksums, with code that trusts more of what it reads; none of that is
 * reached.
 */
static err_t check_superblock(const char *path, const void *bytes, int64_t size)
{
    static const uint8_t expected[9] = { 0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n', 2 };
    if (size < (int64_t)sizeof expected || memcmp(bytes, expected, sizeof expected) != 0)
        RAISE(FORMAT, "%s: does not begin as a shard does (HDF5, superblock version 2)", path);
    return ERR_OK;
}

static err_t check_superblock_of_file(const char *path)
{
    uint8_t bytes[16];
    struct file_reader r;
    TRY(file_reader_open(&r, path));
    const int64_t size = min_i64(r.size, sizeof bytes);
    const err_t rc = file_reader_pread(&r, bytes, size, 0);
    file_reader_close(&r);
    TRY(rc);
    return check_superblock(path, bytes, size);
}

/* `image` NULL: open the file of that path. */
static err_t open_file(struct shard_file *f, const char *path, const void *image, int64_t size)
{
    err_t rc = ERR_OK;
    hid_t access = -1;
    *f = (struct shard_file){ .file = -1, .tokens.dataset = -1 };
    snprintf(f->path, sizeof f->path, "%s", path);
    TRY(h5_init());
    access = H5Pcreate(H5P_FILE_ACCESS);
    H5_DONE(access, NOMEM, path, "open");
    if (image != NULL) {
        H5_DONE(H5Pset_fapl_core(access, 1 << 16, 0), NOMEM, path, "open");
        /* HDF5 copies the bytes; its parameter is not const. */
        H5_DONE(H5Pset_file_image(access, (void *)(uintptr_t)image, (size_t)size), NOMEM, path,
                "open");
    }
    /* Published files never change, so locks would only fail where the file system has none. */
    H5_DONE(H5Pset_file_locking(access, 0, 1), NOMEM, path, "open");
    f->file = H5Fopen(path, H5F_ACC_RDONLY, access);
    H5_DONE(f->file, FORMAT, path, "open");
    TRY_DONE(load(f));
done:
    if (access >= 0) H5Pclose(access);
    if (rc != ERR_OK) shard_file_close(f);
    return rc;
}

err_t shard_file_open(struct shard_file *f, const char *path)
{
    TRY(check_superblock_of_file(path));
    return open_file(f, path, NULL, 0);
}

err_t shard_file_open_image(struct shard_file *f, const void *bytes, int64_t size, const char *name)
{
    ASSERT(bytes != NULL && size >= 0);
    TRY(check_superblock(name, bytes, size));
    return open_file(f, name, bytes, size);
}

err_t shard_file_tokens(struct shard_file *f, int32_t *out, int64_t offset, int64_t count)
{
    const int64_t all = f->tokens.count;
    if (offset < 0 || count < 0 || offset > all || count > all - offset)
        RAISE(FORMAT, "%s: tokens %lld + %lld of %lld", f->path, (long long)offset,
              (long long)count, (long long)all);
    TRY(shard_chunks_read(&f->tokens, out, offset, count));
    for (int64_t i = 0; i < count; i++)
        if (out[i] < 0 || out[i] >= f->info.vocab_size)
            RAISE(FORMAT, "%s: tokens[%lld] = %d, outside 0..%d", f->path, (long long)(offset + i),
                  out[i], f->info.vocab_size - 1);
    return ERR_OK;
}

void shard_file_close(struct shard_file *f)
{
    free(f->turns);
    free(f->dialogues);
    free(f->sources);
    free(f->topics);
    shard_chunks_close(&f->tokens);
    if (f->file >= 0) H5Fclose(f->file);
    *f = (struct shard_file){ .file = -1, .tokens.dataset = -1 };
}
