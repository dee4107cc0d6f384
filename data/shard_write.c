#include "data/shard.h"

#include "base/digest.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"
#include "base/utf8.h"
#include "data/shard_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A list of names, each stored once. */
struct names {
    char (*name)[SHARD_TEXT_MAX];
    int64_t count, capacity;
};

/* A source and what may be said about it; kept for the whole directory. */
struct source {
    char name[SHARD_TEXT_MAX], licence[SHARD_TEXT_MAX], attribution[SHARD_TEXT_MAX];
};

struct shard_writer {
    char dir[FILE_PATH_MAX], dir_tmp[FILE_PATH_MAX];
    struct shard_info info;
    struct shard_writer_spec spec;
    struct shard_file_writer file;
    struct names file_sources, file_topics; /* of the open file */
    struct source *sources;
    int64_t source_count, source_capacity;
    struct shard_done *done; /* [done_count] finished files */
    int64_t done_count, done_capacity;
    bool tmp_is_ours;
};

/* ---- names ---- */

static err_t check_text(const char *text, const char *what)
{
    const size_t size = strlen(text);
    if (size >= SHARD_TEXT_MAX)
        RAISE(ARG, "%s of %zu bytes, at most %d: %.40s...", what, size, SHARD_TEXT_MAX - 1, text);
    if (utf8_valid_prefix(text, (int64_t)size) != (int64_t)size)
        RAISE(ARG, "%s is not UTF-8", what);
    return ERR_OK;
}

static int64_t names_find(const struct names *names, const char *name)
{
    for (int64_t i = 0; i < names->count; i++)
        if (strcmp(names->name[i], name) == 0) return i;
    return -1;
}

static err_t names_add(struct names *names, const char *name, int64_t *index)
{
    *index = names_find(names, name);
    if (*index >= 0) return ERR_OK;
    ARRAY_GROW(names->name, names->capacity, names->count + 1);
    memset(names->name[names->count], 0, SHARD_TEXT_MAX);
    memcpy(names->name[names->count], name, strlen(name));
    *index = names->count++;
    return ERR_OK;
}

err_t shard_writer_source(struct shard_writer *w, const char *source, const char *licence,
                          const char *attribution)
{
    TRY(check_text(source, "source"));
    TRY(check_text(licence, "licence"));
    TRY(check_text(attribution, "attribution"));
    ARRAY_GROW(w->sources, w->source_capacity, w->source_count + 1);
    struct source *s = &w->sources[w->source_count++];
    memset(s, 0, sizeof *s);
    strcpy(s->name, source);
    strcpy(s->licence, licence);
    strcpy(s->attribution, attribution);
    return ERR_OK;
}

static const struct source *find_source(const struct shard_writer *w, const char *name)
{
    for (int64_t i = w->source_count - 1; i >= 0; i--)
        if (strcmp(w->sources[i].name, name) == 0) return &w->sources[i];
    return NULL;
}

/* ---- directories that are ours to remove ---- */

static bool is_our_file(const char *name)
{
    int64_t index;
    int used = 0;
    char part[16];
    if (strncmp(name, PREPARED_FILE_NAME, strlen(PREPARED_FILE_NAME)) == 0) return true;
    if (strncmp(name, "report.json", 11) == 0 || strncmp(name, "report.html", 11) == 0) return true;
    return sscanf(name, "shard-%5" SCNd64 "%15[.h5tmp]%n", &index, part, &used) == 2 &&
           name[used] == '\0';
}

/* Remove a prepared or half-written directory; one with anything else in it is left alone. */
static err_t remove_our_dir(const char *path)
{
    TRY(dir_check_ours(path, "prepared corpus", is_our_file));
    return dir_remove(path);
}

/* ---- files ---- */

static err_t begin_file(struct shard_writer *w)
{
    w->file_sources.count = w->file_topics.count = 0;
    TRY(fault_point("shard.create"));
    return shard_file_create(&w->file, &w->info, w->spec.zstd_level);
}

static err_t write_names(struct shard_writer *w)
{
    static const char none[SHARD_TEXT_MAX];
    const struct names *sources = &w->file_sources, *topics = &w->file_topics;
    TRY(shard_file_append(&w->file, COLUMN_SOURCE, sources->name, sources->count));
    TRY(shard_file_append(&w->file, COLUMN_TOPIC, topics->name, topics->count));
    for (int64_t i = 0; i < sources->count; i++) {
        const struct source *s = find_source(w, sources->name[i]);
        TRY(shard_file_append(&w->file, COLUMN_LICENCE, s ? s->licence : none, 1));
        TRY(shard_file_append(&w->file, COLUMN_ATTRIBUTION, s ? s->attribution : none, 1));
    }
    return ERR_OK;
}

static err_t add_done(struct shard_writer *w, const struct shard_done *done)
{
    ARRAY_GROW(w->done, w->done_capacity, w->done_count + 1);
    w->done[w->done_count++] = *done;
    return ERR_OK;
}

/* Path of finished file `index` in the temporary directory. */
static err_t shard_path(char path[FILE_PATH_MAX], const struct shard_writer *w, int64_t index)
{
    char name[32];
    snprintf(name, sizeof name, SHARD_FILE_NAME, (long long)index);
    return path_join(path, w->dir_tmp, name);
}

/* Publish the open file inside the temporary directory and note its digest. */
static err_t end_file(struct shard_writer *w)
{
    err_t rc = ERR_OK;
    struct buf image = { 0 };
    char path[FILE_PATH_MAX];
    struct shard_done done = { .dialogues = shard_file_count(&w->file, COLUMN_DIALOGUE),
                               .turns = shard_file_count(&w->file, COLUMN_TURN),
                               .tokens = shard_file_count(&w->file, COLUMN_TOKENS) };
    TRY_DONE(write_names(w));
    TRY_DONE(shard_file_finish(&image, &w->file));
    TRY_DONE(shard_path(path, w, w->done_count));
    TRY_DONE(file_replace(path, image.data, (int64_t)image.size));
    done.bytes = (int64_t)image.size;
    sha256_of(done.sha256, image.data, image.size);
    TRY_DONE(add_done(w, &done));
done:
    buf_clear(&image);
    return rc;
}

const struct shard_done *shard_writer_done(const struct shard_writer *w, int64_t *count)
{
    *count = w->done_count;
    return w->done;
}

/* The files that an earlier writer finished, as they were. */
static err_t adopt_done(struct shard_writer *w)
{
    err_t rc = ERR_OK;
    struct buf bytes = { 0 };
    char path[FILE_PATH_MAX];
    uint8_t digest[SHA256_BYTES];
    for (int64_t i = 0; i < w->spec.done_count; i++) {
        const struct shard_done *done = &w->spec.done[i];
        TRY_DONE(shard_path(path, w, i));
        buf_reset(&bytes);
        TRY_DONE(file_read_all(&bytes, path, done->bytes));
        sha256_of(digest, bytes.data, bytes.size);
        if ((int64_t)bytes.size != done->bytes || memcmp(digest, done->sha256, SHA256_BYTES) != 0)
            RAISE_DONE(CHECKSUM, "%s is not as it was finished", path);
        TRY_DONE(add_done(w, done));
    }
done:
    buf_clear(&bytes);
    return rc;
}

/* ---- the public part ---- */

static err_t open_dirs(struct shard_writer *w, const char *dir)
{
    char prepared[FILE_PATH_MAX];
    size_t size = strlen(dir);
    while (size > 1 && dir[size - 1] == '/') size--; /* "out/" would put the .tmp inside */
    if (size == 0) RAISE(ARG, "the output directory has no name");
    if (size + sizeof ".tmp" > sizeof w->dir)
        RAISE(ARG, "path of %zu bytes is too long: %s", size, dir);
    snprintf(w->dir, sizeof w->dir, "%.*s", (int)size, dir);
    snprintf(w->dir_tmp, sizeof w->dir_tmp, "%.*s.tmp", (int)size, dir);

    if (file_exists(w->dir) || dir_exists(w->dir)) {
        TRY(path_join(prepared, w->dir, PREPARED_FILE_NAME));
        if (!w->spec.replace)
            RAISE(ARG, "%s exists; choose another data.dir, or set data.replace: true", w->dir);
        if (!file_exists(prepared))
            RAISE(ARG, "%s exists and is no prepared corpus; not replacing it", w->dir);
    }
    if (w->spec.done_count == 0) TRY(remove_our_dir(w->dir_tmp));
    TRY(adopt_done(w));
    w->tmp_is_ours = true;
    return dir_create(w->dir_tmp);
}

err_t shard_writer_open(struct shard_writer **out, const char *dir, const struct shard_info *info,
                        const struct shard_writer_spec *spec)
{
    err_t rc = ERR_OK;
    *out = NULL;
    ASSERT(info->cue_len >= 1 && info->cue_len <= SHARD_CUE_MAX);
    ASSERT(info->client_head_len >= 1 && info->client_head_len <= SHARD_CUE_MAX);
    ASSERT(spec->tokens_per_shard >= 0 && spec->tokens_per_shard <= SHARD_TOKENS_MAX);
    ASSERT(spec->zstd_level >= 0 && spec->zstd_level <= 19);
    struct shard_writer *w = calloc(1, sizeof *w);
    if (w == NULL) RAISE(NOMEM, "a shard writer");
    w->file.file = -1;
    w->info = *info;
    w->spec = *spec;
    if (w->spec.tokens_per_shard == 0) w->spec.tokens_per_shard = SHARD_DEFAULT_TOKENS;
    if (w->spec.zstd_level == 0) w->spec.zstd_level = SHARD_DEFAULT_LEVEL;
    TRY_DONE(open_dirs(w, dir));
    *out = w;
done:
    if (rc != ERR_OK) shard_writer_close(w);
    return rc;
}

/* A file ends before the dialogue that would take it over its limit. */
static bool file_is_full(const struct shard_writer *w, int64_t dialogue_tokens, const char *source,
                         const char *topic)
{
    const int64_t tokens = shard_file_count(&w->file, COLUMN_TOKENS);
    const bool names_full =
        (w->file_topics.count == SHARD_TOPICS_MAX && names_find(&w->file_topics, topic) < 0) ||
        (w->file_sources.count == SHARD_SOURCES_MAX && names_find(&w->file_sources, source) < 0);
    return tokens > 0 && (tokens + dialogue_tokens > w->spec.tokens_per_shard || names_full);
}

static int64_t turn_tokens(const struct turn_runs *t)
{
    return (int64_t)t->ctx_len + (t->first ? t->first_len : 0) + (t->target ? t->target_len : 0);
}

/* Reserve a run's place; -1 for none. */
static int64_t place(int64_t *at, const int32_t *run, int32_t len)
{
    const int64_t offset = *at;
    if (run == NULL) return -1;
    *at += len;
    return offset;
}

/* Runs of one kind lie together, so the middle of a prompt, ctx(j+1) .. ctx(k-1), is one read. */
static err_t append_turns(struct shard_writer *w, const struct turn_runs *turns, int64_t count)
{
    int64_t ctx_at = shard_file_count(&w->file, COLUMN_TOKENS), first_at = ctx_at, target_at;
    for (int64_t i = 0; i < count; i++) first_at += turns[i].ctx_len;
    target_at = first_at;
    for (int64_t i = 0; i < count; i++) target_at += turns[i].first ? turns[i].first_len : 0;

    for (int64_t i = 0; i < count; i++) {
        const struct turn_runs *t = &turns[i];
        struct shard_turn row;
        memset(&row, 0, sizeof row); /* padding too: it goes to the file */
        row.ctx_off = place(&ctx_at, t->ctx, t->ctx_len);
        row.first_off = place(&first_at, t->first, t->first_len);
        row.target_off = place(&target_at, t->target, t->target_len);
        row.ctx_len = t->ctx_len;
        row.first_len = t->first ? t->first_len : 0;
        row.target_len = t->target ? t->target_len : 0;
        row.role = (uint8_t)t->role;
        row.flags = t->flags | (t->first ? TURN_FIRST_STORED : 0);
        TRY(shard_file_append(&w->file, COLUMN_TURN, &row, 1));
    }
    for (int64_t i = 0; i < count; i++)
        TRY(shard_file_append(&w->file, COLUMN_TOKENS, turns[i].ctx, turns[i].ctx_len));
    for (int64_t i = 0; i < count; i++)
        if (turns[i].first)
            TRY(shard_file_append(&w->file, COLUMN_TOKENS, turns[i].first, turns[i].first_len));
    for (int64_t i = 0; i < count; i++)
        if (turns[i].target)
            TRY(shard_file_append(&w->file, COLUMN_TOKENS, turns[i].target, turns[i].target_len));
    return ERR_OK;
}

err_t shard_writer_add(struct shard_writer *w, const struct turn_runs *turns, int64_t turn_count,
                       enum split split, const char *source, const char *topic,
                       const uint8_t hash[8])
{
    struct shard_dialogue row;
    int64_t tokens = 0, source_index, topic_index;
    ASSERT(turn_count >= 1 && (unsigned)split < SPLIT_COUNT);
    uint8_t flags = 0;
    for (int64_t i = 0; i < turn_count; i++) {
        ASSERT(turns[i].ctx != NULL && turns[i].ctx_len >= 1);
        tokens += turn_tokens(&turns[i]);
        if (turns[i].flags & TURN_CRISIS) flags |= DIALOGUE_CRISIS;
    }
    TRY(check_text(source, "source"));
    TRY(check_text(topic, "topic"));
    if (turn_count > SHARD_TURN_COUNT_MAX || tokens > SHARD_TOKENS_MAX)
        RAISE(ARG, "a dialogue of %lld turns and %lld tokens, at most %d and %d",
              (long long)turn_count, (long long)tokens, SHARD_TURN_COUNT_MAX, SHARD_TOKENS_MAX);

    if (w->file.file >= 0 && file_is_full(w, tokens, source, topic)) TRY(end_file(w));
    if (w->file.file < 0) TRY(begin_file(w));
    TRY(names_add(&w->file_sources, source, &source_index));
    TRY(names_add(&w->file_topics, topic, &topic_index));

    memset(&row, 0, sizeof row); /* padding too: it goes to the file */
    row.turn_off = shard_file_count(&w->file, COLUMN_TURN);
    row.turn_count = (int32_t)turn_count;
    row.source = (uint16_t)source_index;
    row.topic = (uint16_t)topic_index;
    row.split = (uint8_t)split;
    row.flags = flags;
    memcpy(row.hash, hash, sizeof row.hash);
    TRY(append_turns(w, turns, turn_count));
    return shard_file_append(&w->file, COLUMN_DIALOGUE, &row, 1);
}

/* Rows of prepared.json; sums over all shards go to *sum, with the corpus' digest. */
static err_t shard_rows(json_t **out, struct shard_done *sum, const struct shard_writer *w)
{
    struct sha256 corpus;
    sha256_init(&corpus);
    *out = json_array();
    *sum = (struct shard_done){ 0 };
    for (int64_t i = 0; i < w->done_count; i++) {
        const struct shard_done *d = &w->done[i];
        char name[32], hex[SHA256_HEX_SIZE];
        snprintf(name, sizeof name, SHARD_FILE_NAME, (long long)i);
        sha256_hex(hex, d->sha256);
        sha256_update(&corpus, d->sha256, sizeof d->sha256);
        json_t *row =
            json_pack("{s:s, s:I, s:s, s:I, s:I, s:I}", "file", name, "bytes", (json_int_t)d->bytes,
                      "sha256", hex, "dialogues", (json_int_t)d->dialogues, "turns",
                      (json_int_t)d->turns, "tokens", (json_int_t)d->tokens);
        if (json_array_append_new(*out, row) != 0) RAISE(NOMEM, "the list of shards");
        sum->dialogues += d->dialogues;
        sum->turns += d->turns;
        sum->tokens += d->tokens;
    }
    sha256_final(&corpus, sum->sha256);
    return ERR_OK;
}

static err_t write_prepared(struct shard_writer *w, const char *report_json)
{
    err_t rc = ERR_OK;
    char path[FILE_PATH_MAX], hex[SHA256_HEX_SIZE], *text = NULL;
    json_t *report = NULL, *root = NULL, *shards = NULL;
    struct shard_done sum;
    TRY_DONE(shard_rows(&shards, &sum, w));
    sha256_hex(hex, sum.sha256);
    report = report_json ? json_loads(report_json, JSON_REJECT_DUPLICATES, NULL) : json_object();
    ASSERT(report != NULL && json_is_object(report));
    root = json_pack("{s:s, s:i, s:s, s:I, s:I, s:I, s:O, s:O}", "format", PREPARED_FORMAT_NAME,
                     "format_version", SHARD_FORMAT_VERSION, "sha256", hex, "dialogues",
                     (json_int_t)sum.dialogues, "turns", (json_int_t)sum.turns, "tokens",
                     (json_int_t)sum.tokens, "shards", shards, "prepare", report);
    if (root == NULL) RAISE_DONE(NOMEM, "prepared.json");
    text = json_dumps(root, JSON_INDENT(2));
    if (text == NULL) RAISE_DONE(NOMEM, "prepared.json");
    TRY_DONE(path_join(path, w->dir_tmp, PREPARED_FILE_NAME));
    TRY_DONE(file_replace(path, text, (int64_t)strlen(text)));
done:
    free(text);
    json_decref(root);
    json_decref(report);
    json_decref(shards);
    return rc;
}

/* The temporary directory takes the place of the final one; an old corpus changes places with it,
 * so that at every moment one of the two is there, and is removed afterwards. */
static err_t publish(struct shard_writer *w)
{
    char parent[FILE_PATH_MAX];
    const char *slash = strrchr(w->dir, '/');
    const bool replace = dir_exists(w->dir);
    snprintf(parent, sizeof parent, "%.*s", slash ? (int)(slash - w->dir) : 1,
             slash ? w->dir : ".");
    if (slash == w->dir) strcpy(parent, "/");

    TRY(fault_point("shard.rename"));
    if (!replace && rename(w->dir_tmp, w->dir) != 0)
        RAISE(IO, "rename %s to %s: %s", w->dir_tmp, w->dir, strerror(errno));
    if (replace && renameat2(AT_FDCWD, w->dir_tmp, AT_FDCWD, w->dir, RENAME_EXCHANGE) != 0)
        RAISE(IO, "exchange %s and %s: %s; where the file system cannot do that, remove %s first",
              w->dir_tmp, w->dir, strerror(errno), w->dir);
    w->tmp_is_ours = false;
    TRY(dir_sync(parent));
    if (replace && remove_our_dir(w->dir_tmp) != ERR_OK)
        LOG_W("shard", "the replaced corpus is still there: %s", err_last()->text);
    return ERR_OK;
}

err_t shard_writer_commit(struct shard_writer *w, const char *report_json)
{
    struct shards *written;
    if (w->file.file >= 0) TRY(end_file(w));
    if (w->done_count == 0) RAISE(ARG, "%s: no dialogue to write", w->dir);
    TRY(write_prepared(w, report_json));
    /* Read back what will be published: digests, ranges and formats. */
    TRY(shards_open(&written, w->dir_tmp, true));
    shards_close(written);
    return publish(w);
}

void shard_writer_close(struct shard_writer *w)
{
    if (w == NULL) return;
    const struct err_record cause = *err_last(); /* cleaning up must not hide why */
    shard_file_discard(&w->file);
    const bool keep = w->spec.keep && w->done_count > 0;
    if (w->tmp_is_ours && !keep && dir_remove(w->dir_tmp) != ERR_OK)
        LOG_W("shard", "left behind: %s", err_last()->text);
    err_adopt(&cause);
    free(w->file_sources.name);
    free(w->file_topics.name);
    free(w->sources);
    free(w->done);
    free(w);
}
