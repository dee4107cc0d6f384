#include "data/shard.h"

#include "base/check.h"
#include "base/file.h"
#include "base/num.h"
#include "base/starved.h"
#include "data/shard_file.h"

#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREPARED_BYTES_MAX (64 << 20)
#define READ_BYTES         (1 << 20)

struct shards {
    struct shard_file *files;
    int64_t *first; /* [file_count + 1] dialogues before each file */
    int64_t file_count;
    char sha256[SHA256_HEX_SIZE];
};

/* One row of prepared.json's list of shards. */
struct listed {
    const char *sha256; /* borrowed from the parsed text */
    int64_t bytes, dialogues, turns, tokens;
};

/* ---- prepared.json ---- */

static bool is_sha256(const char *hex)
{
    return hex != NULL && strlen(hex) == SHA256_HEX_SIZE - 1 &&
           strspn(hex, "0123456789abcdef") == SHA256_HEX_SIZE - 1;
}

/* jansson without memory often says that the text is wrong, or leaves out a character. */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void note_allocations(void) { json_set_alloc_funcs(starved_malloc, free); }

static err_t load_prepared(json_t **root, const char *path)
{
    err_t rc = ERR_OK;
    struct buf text = { 0 };
    json_error_t e;
    const char *format;
    int version = 0;
    *root = NULL;
    pthread_once(&once, note_allocations);
    if (!file_exists(path) && !dir_exists(path))
        RAISE_DONE(NOTFOUND, "%s: no such file; expected a folder that soulchat prepare has "
                   "written", path);
    TRY_DONE(file_read_all(&text, path, PREPARED_BYTES_MAX));
    if (starved_begin((int64_t)text.size))
        *root = json_loadb(text.data ? text.data : "", text.size, JSON_REJECT_DUPLICATES, &e);
    if (starved_end()) RAISE_DONE(NOMEM, "%s: no memory to read it", path);
    if (*root == NULL) RAISE_DONE(FORMAT, "%s:%d: %s", path, e.line, e.text);
    if (json_unpack(*root, "{s:s, s:i}", "format", &format, "format_version", &version) != 0 ||
        strcmp(format, PREPARED_FORMAT_NAME) != 0)
        RAISE_DONE(FORMAT, "%s: expected format " PREPARED_FORMAT_NAME, path);
    if (version != SHARD_FORMAT_VERSION)
        RAISE_DONE(FORMAT, "%s: format version %d, this program reads %d", path, version,
                   SHARD_FORMAT_VERSION);
done:
    buf_clear(&text);
    if (rc != ERR_OK) {
        json_decref(*root);
        *root = NULL;
    }
    return rc;
}

static err_t read_listed(struct listed *out, const json_t *shards, int64_t index, const char *path)
{
    char expected[32];
    const char *file;
    json_int_t bytes, dialogues, turns, tokens;
    snprintf(expected, sizeof expected, SHARD_FILE_NAME, (long long)index);
    if (json_unpack((json_t *)(uintptr_t)json_array_get(shards, (size_t)index),
                    "{s:s, s:s, s:I, s:I, s:I, s:I}", "file", &file, "sha256", &out->sha256,
                    "bytes", &bytes, "dialogues", &dialogues, "turns", &turns, "tokens",
                    &tokens) != 0 ||
        strcmp(file, expected) != 0 || !is_sha256(out->sha256))
        RAISE(FORMAT,
              "%s: shards[%lld]: expected file %s with sha256, bytes, dialogues, turns and "
              "tokens",
              path, (long long)index, expected);
    out->bytes = bytes;
    out->dialogues = dialogues;
    out->turns = turns;
    out->tokens = tokens;
    return ERR_OK;
}

static void hex_to_digest(uint8_t digest[SHA256_BYTES], const char *hex)
{
    for (int i = 0; i < SHA256_BYTES; i++) {
        const char pair[3] = { hex[2 * i], hex[2 * i + 1], '\0' };
        digest[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
}

/* ---- one shard against its row ---- */

static err_t sha256_of_file(char hex[SHA256_HEX_SIZE], struct file_reader *r)
{
    struct sha256 sum;
    uint8_t digest[SHA256_BYTES];
    char *block = malloc(READ_BYTES);
    err_t rc = ERR_OK;
    if (block == NULL) RAISE(NOMEM, "a block of %d bytes", READ_BYTES);
    sha256_init(&sum);
    for (int64_t at = 0; at < r->size; at += READ_BYTES) {
        const int64_t size = r->size - at < READ_BYTES ? r->size - at : READ_BYTES;
        TRY_DONE(file_reader_pread(r, block, size, at));
        sha256_update(&sum, block, (size_t)size);
    }
    sha256_final(&sum, digest);
    sha256_hex(hex, digest);
done:
    free(block);
    return rc;
}

static err_t verify_file(const char *path, const struct listed *row, bool verify)
{
    err_t rc = ERR_OK;
    struct file_reader r;
    char hex[SHA256_HEX_SIZE];
    TRY(file_reader_open(&r, path));
    if (r.size != row->bytes)
        RAISE_DONE(CHECKSUM, "%s: %lld bytes, prepared.json says %lld; prepare the corpus again",
                   path, (long long)r.size, (long long)row->bytes);
    if (verify) {
        TRY_DONE(sha256_of_file(hex, &r));
        if (strcmp(hex, row->sha256) != 0)
            RAISE_DONE(CHECKSUM, "%s: sha256 %s, prepared.json says %s; prepare the corpus again",
                       path, hex, row->sha256);
    }
done:
    file_reader_close(&r);
    return rc;
}

static err_t open_shard(struct shards *s, const char *dir, const struct listed *row, bool verify)
{
    char name[32], path[FILE_PATH_MAX];
    struct shard_file *f = &s->files[s->file_count];
    snprintf(name, sizeof name, SHARD_FILE_NAME, (long long)s->file_count);
    TRY(path_join(path, dir, name));
    TRY(verify_file(path, row, verify));
    TRY(shard_file_open(f, path));
    s->file_count++; /* from here on it is closed with the others */
    if (f->dialogue_count != row->dialogues || f->turn_count != row->turns ||
        f->token_count != row->tokens)
        RAISE(FORMAT,
              "%s: %lld dialogues, %lld turns, %lld tokens; prepared.json says %lld, %lld, "
              "%lld",
              path, (long long)f->dialogue_count, (long long)f->turn_count,
              (long long)f->token_count, (long long)row->dialogues, (long long)row->turns,
              (long long)row->tokens);
    const char *part = shard_info_difference(&f->info, &s->files[0].info);
    if (part != NULL) RAISE(FORMAT, "%s: its %s differs from that of the first shard", path, part);
    s->first[s->file_count] = s->first[s->file_count - 1] + f->dialogue_count;
    return ERR_OK;
}

/* ---- the public part ---- */

static err_t open_all(struct shards *s, const char *dir, const json_t *root, const char *path,
                      bool verify)
{
    const json_t *list = json_object_get(root, "shards");
    const char *stated = json_string_value(json_object_get(root, "sha256"));
    const int64_t count = (int64_t)json_array_size(list);
    struct sha256 sum;
    uint8_t digest[SHA256_BYTES];
    if (count < 1 || count > SHARD_FILES_MAX)
        RAISE(FORMAT, "%s: %lld shards, expected 1 to %d", path, (long long)count, SHARD_FILES_MAX);
    s->files = calloc((size_t)count, sizeof *s->files);
    s->first = calloc((size_t)count + 1, sizeof *s->first);
    if (s->files == NULL || s->first == NULL) RAISE(NOMEM, "%lld shards", (long long)count);

    sha256_init(&sum);
    for (int64_t i = 0; i < count; i++) {
        struct listed row;
        TRY(read_listed(&row, list, i, path));
        hex_to_digest(digest, row.sha256);
        sha256_update(&sum, digest, sizeof digest);
        TRY(open_shard(s, dir, &row, verify));
    }
    const struct shard_column_row *row = s->files[0].tokens.row;
    const int64_t chunks = SHARD_CACHE_BYTES / (row->chunk_items * row->item_bytes);
    for (int64_t i = 0; i < count; i++)
        TRY(shard_chunks_keep(&s->files[i].tokens, max_i64(chunks / count, SHARD_CHUNK_SLOTS)));
    sha256_final(&sum, digest);
    sha256_hex(s->sha256, digest);
    if (stated == NULL || strcmp(stated, s->sha256) != 0)
        RAISE(CHECKSUM, "%s: sha256 %.64s, that of its shards is %s", path,
              stated ? stated : "missing", s->sha256);
    return ERR_OK;
}

err_t shards_open(struct shards **out, const char *dir, bool verify)
{
    err_t rc = ERR_OK;
    json_t *root = NULL;
    struct shards *s = NULL;
    char path[FILE_PATH_MAX];
    *out = NULL;
    TRY(path_join(path, dir, PREPARED_FILE_NAME));
    TRY_DONE(load_prepared(&root, path));
    s = calloc(1, sizeof *s);
    if (s == NULL) RAISE_DONE(NOMEM, "shards of %s", dir);
    TRY_DONE(open_all(s, dir, root, path, verify));
    *out = s;
done:
    json_decref(root);
    if (rc != ERR_OK) shards_close(s);
    if (rc == ERR_FORMAT && starved()) RAISE(NOMEM, "%s: no memory to read it", path);
    return rc;
}

void shards_close(struct shards *s)
{
    if (s == NULL) return;
    for (int64_t i = 0; i < s->file_count; i++) shard_file_close(&s->files[i]);
    free(s->files);
    free(s->first);
    free(s);
}

const char *shard_info_difference(const struct shard_info *a, const struct shard_info *b)
{
    const struct {
        const char *part;
        bool differs;
    } parts[] = {
        { "model family", a->family != b->family },
        { "tokenizer", strcmp(a->tokenizer_sha256, b->tokenizer_sha256) != 0 ||
                           a->vocab_size != b->vocab_size ||
                           memcmp(&a->specials, &b->specials, sizeof a->specials) != 0 },
        { "client's name", strcmp(a->client_name, b->client_name) != 0 },
        { "counsellor's name", strcmp(a->counsellor_name, b->counsellor_name) != 0 },
        { "separator", strcmp(a->separator, b->separator) != 0 },
        { "cue", a->cue_len != b->cue_len ||
                     memcmp(a->cue, b->cue, (size_t)a->cue_len * sizeof *a->cue) != 0 },
        { "client's line", a->client_head_len != b->client_head_len ||
                               memcmp(a->client_head, b->client_head,
                                      (size_t)a->client_head_len * sizeof *a->client_head) != 0 },
        { "set of cleaning rules", strcmp(a->rules_sha256, b->rules_sha256) != 0 },
        { "split seed", a->split_seed != b->split_seed },
    };
    for (int64_t i = 0; i < COUNT_OF(parts); i++)
        if (parts[i].differs) return parts[i].part;
    return NULL;
}

/* The file that holds a dialogue, and its index there. */
static const struct shard_file *locate(const struct shards *s, int64_t dialogue, int64_t *index)
{
    ASSERT(dialogue >= 0 && dialogue < s->first[s->file_count]);
    int64_t low = 0, high = s->file_count; /* first[low] <= dialogue < first[high] */
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (s->first[middle] <= dialogue)
            low = middle;
        else
            high = middle;
    }
    *index = dialogue - s->first[low];
    return &s->files[low];
}

const struct shard_info *shards_info(const struct shards *s) { return &s->files[0].info; }

int64_t shards_dialogue_count(const struct shards *s) { return s->first[s->file_count]; }

const struct shard_dialogue *shards_dialogue(const struct shards *s, int64_t dialogue)
{
    int64_t index;
    const struct shard_file *f = locate(s, dialogue, &index);
    return &f->dialogues[index];
}

const struct shard_turn *shards_turn(const struct shards *s, int64_t dialogue, int64_t turn)
{
    int64_t index;
    const struct shard_file *f = locate(s, dialogue, &index);
    const struct shard_dialogue *d = &f->dialogues[index];
    ASSERT(turn >= 0 && turn < d->turn_count);
    return &f->turns[d->turn_off + turn];
}

const char *shards_source(const struct shards *s, int64_t dialogue)
{
    int64_t index;
    const struct shard_file *f = locate(s, dialogue, &index);
    return f->sources[f->dialogues[index].source];
}

const char *shards_topic(const struct shards *s, int64_t dialogue)
{
    int64_t index;
    const struct shard_file *f = locate(s, dialogue, &index);
    return f->topics[f->dialogues[index].topic];
}

const char *shards_sha256(const struct shards *s) { return s->sha256; }

err_t shards_tokens(struct shards *s, int32_t *out, int64_t dialogue, int64_t offset, int64_t count)
{
    int64_t index;
    const struct shard_file *f = locate(s, dialogue, &index);
    return shard_file_tokens(&s->files[f - s->files], out, offset, count);
}
