#include "data/prepare_work.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"
#include "data/dedup.h"
#include "data/prepare_batch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PLAN_FILE       "plan.bin"
#define JOURNAL_FILE    "journal.bin"
#define LOCK_FILE       "lock"
#define STATE_BYTES_MAX (INT64_C(8) << 30)

/* ---- recipe ---- */

static err_t hash_source(uint8_t sha256[SHA256_BYTES], const struct prepare_options *o,
                         int64_t index)
{
    err_t rc = ERR_OK;
    struct file_reader r = { 0 };
    struct sha256 sum;
    const int64_t piece = 1 << 20;
    char *block = malloc((size_t)piece);
    if (block == NULL) RAISE(NOMEM, "a block of a source");
    sha256_init(&sum);
    TRY_DONE(file_reader_open(&r, o->source[index].path));
    for (int64_t at = 0; at < r.size; at += piece) {
        const int64_t size = r.size - at < piece ? r.size - at : piece;
        if ((at & 0x3ffffff) == 0) TRY_DONE(prepare_check_stop(o));
        TRY_DONE(file_reader_pread(&r, block, size, at));
        sha256_update(&sum, block, (size_t)size);
    }
    sha256_final(&sum, sha256);
done:
    file_reader_close(&r);
    free(block);
    return rc;
}

static err_t put_settings(struct buf *text, const struct prepare_options *o,
                          const struct shard_info *info)
{
    TRY(buf_printf(text, "soulchat %s.%d, shards %d, near %d %d %d %d\n", SOULCHAT_VERSION,
                   PREPARE_REVISION, SHARD_FORMAT_VERSION, DEDUP_SHINGLE, DEDUP_BANDS,
                   DEDUP_BAND_BINS, DEDUP_OPENING));
    TRY(buf_printf(text, "tokenizer %s family %d\ntemplate %s|%s|%s\nrules %s\n",
                   info->tokenizer_sha256, info->family, info->client_name, info->counsellor_name,
                   info->separator, info->rules_sha256));
    TRY(buf_printf(text, "form %d bad %d max %lld\nduplicates %d near %.17g\n", o->form,
                   o->on_bad_record, (long long)o->max_dialogues, o->duplicates,
                   o->near_threshold));
    TRY(buf_printf(text, "split %d %d %llu %lld %lld\n", o->split_rule, o->openings,
                   (unsigned long long)o->split_seed, (long long)o->validation_permyriad,
                   (long long)o->test_permyriad));
    return buf_printf(text, "shard %lld level %d\nlicence %s\nattribution %s\n",
                      (long long)o->shards.tokens_per_shard, o->shards.zstd_level, o->licence,
                      o->attribution);
}

err_t prepare_hash_sources(struct prepare_counts *counts, const struct prepare_options *o)
{
    for (int64_t i = 0; i < o->source_count; i++) TRY(hash_source(counts->source[i].sha256, o, i));
    return ERR_OK;
}

err_t prepare_recipe(struct prepare_counts *counts, const struct prepare_options *o,
                     const struct shard_info *info)
{
    err_t rc = ERR_OK;
    struct buf text = { 0 };
    TRY_DONE(put_settings(&text, o, info));
    for (int64_t i = 0; i < o->source_count; i++) {
        char hex[SHA256_HEX_SIZE];
        sha256_hex(hex, counts->source[i].sha256);
        TRY_DONE(buf_printf(&text, "source %s %s\n", o->source[i].name, hex));
    }
    sha256_of(counts->recipe, text.data, text.size);
done:
    buf_clear(&text);
    return rc;
}

/* ---- disk ---- */

err_t prepare_check_disk(const struct prepare_options *o)
{
    int64_t bytes = 0, free_bytes;
    for (int64_t i = 0; i < o->source_count; i++) {
        struct file_reader file;
        const char *end = strrchr(o->source[i].path, '.');
        const bool packed = end != NULL && (strcmp(end, ".gz") == 0 || strcmp(end, ".zst") == 0);
        TRY(file_reader_open(&file, o->source[i].path));
        bytes += packed ? 6 * file.size : file.size; /* Chinese text packs to some 30 % */
        file_reader_close(&file);
    }
    /* The spool is smaller than the JSON that it is from, its rows and what is sorted take a tenth
     * of it, shards of SMILE take 0.4 of it. */
    const int64_t needed = bytes + bytes / 10 + bytes / 2;
    TRY(file_free_space(&free_bytes, o->out));
    if (free_bytes < needed)
        RAISE(IO, "%s: prepare needs some %.1f MB there for a while, %.1f MB are free", o->out,
              (double)needed / 1e6, (double)free_bytes / 1e6);
    return ERR_OK;
}

/* ---- the folder ---- */

static bool is_our_name(const char *name)
{
    static const char *const ours[] = { LOCK_FILE, PLAN_FILE, JOURNAL_FILE, "dialogues.text",
                                        "dialogues.rows" };
    if (strncmp(name, "spill.", 6) == 0) return true;
    for (int64_t i = 0; i < COUNT_OF(ours); i++) {
        const size_t size = strlen(ours[i]);
        if (strncmp(name, ours[i], size) == 0 &&
            (name[size] == '\0' || strcmp(name + size, ".tmp") == 0))
            return true;
    }
    return false;
}

err_t prepare_path_beside(char path[FILE_PATH_MAX], const struct prepare_options *o,
                          const char *suffix)
{
    size_t size = strlen(o->out);
    while (size > 1 && o->out[size - 1] == '/') size--;
    if (size + strlen(suffix) >= FILE_PATH_MAX) RAISE(ARG, "path is too long: %s", o->out);
    memcpy(path, o->out, size);
    strcpy(path + size, suffix);
    return ERR_OK;
}

err_t prepare_work_open(struct prepare_work *w, const struct prepare_options *o)
{
    char lock[FILE_PATH_MAX];
    *w = (struct prepare_work){ .lock = -1 };
    TRY(prepare_path_beside(w->dir, o, ".work"));
    TRY(dir_check_ours(w->dir, "folder of prepare's work", is_our_name));
    TRY(dir_create(w->dir));
    TRY(path_join(lock, w->dir, LOCK_FILE));
    TRY(file_lock(&w->lock, lock, false));
    if (w->lock < 0) RAISE(ARG, "another prepare is at work on %s (it holds %s)", o->out, lock);
    return ERR_OK;
}

void prepare_work_close(struct prepare_work *w, bool resumable)
{
    if (w->lock >= 0) {
        const struct err_record cause = *err_last(); /* cleaning up must not hide why */
        if (!(w->keep && resumable) && dir_remove(w->dir) != ERR_OK)
            LOG_W("prepare", "left behind: %s", err_last()->text);
        close(w->lock);
        err_adopt(&cause);
    }
    prepare_plan_clear(&w->plan);
    free(w->done);
    *w = (struct prepare_work){ .lock = -1 };
}

/* ---- plan and journal ---- */

/* The counters are kept as they lie in memory: only the same program, as the recipe and this size
 * tell, reads them again. */
struct state_head {
    char magic[16];
    uint8_t recipe[SHA256_BYTES];
    int64_t counts_bytes, item_count;
};

static err_t save_state(const struct prepare_work *w, const char *name,
                        const struct prepare_counts *counts, const void *items, int64_t item_count,
                        size_t item_bytes)
{
    err_t rc = ERR_OK;
    struct buf text = { 0 };
    char path[FILE_PATH_MAX];
    uint8_t digest[SHA256_BYTES];
    struct state_head head = { .counts_bytes = sizeof *counts, .item_count = item_count };
    snprintf(head.magic, sizeof head.magic, "%s", name);
    memcpy(head.recipe, counts->recipe, sizeof head.recipe);
    TRY_DONE(buf_append(&text, &head, sizeof head));
    TRY_DONE(buf_append(&text, counts, sizeof *counts));
    TRY_DONE(buf_append(&text, items, (size_t)item_count * item_bytes));
    sha256_of(digest, text.data, text.size);
    TRY_DONE(buf_append(&text, digest, sizeof digest));
    TRY_DONE(path_join(path, w->dir, name));
    TRY_DONE(file_replace(path, text.data, (int64_t)text.size));
done:
    buf_clear(&text);
    return rc;
}

/* *items is yours; NULL when there is no such file, or it is not whole, another recipe's, or of
 * another number of items than `wanted` (-1 = any). */
static err_t load_state(void **items, int64_t *item_count, struct prepare_counts *counts,
                        const struct prepare_work *w, const char *name, size_t item_bytes,
                        int64_t wanted)
{
    err_t rc = ERR_OK;
    struct buf text = { 0 };
    struct state_head head;
    char path[FILE_PATH_MAX];
    uint8_t digest[SHA256_BYTES];
    *items = NULL;
    TRY_DONE(path_join(path, w->dir, name));
    if (!file_exists(path)) goto done;
    TRY_DONE(file_read_all(&text, path, STATE_BYTES_MAX));
    const size_t fixed = sizeof head + sizeof *counts + sizeof digest;
    if (text.size < fixed) goto done;
    memcpy(&head, text.data, sizeof head);
    if (memcmp(head.recipe, counts->recipe, sizeof head.recipe) != 0 ||
        head.counts_bytes != (int64_t)sizeof *counts || head.item_count < 1 ||
        (wanted >= 0 && head.item_count != wanted) ||
        (size_t)head.item_count != (text.size - fixed) / item_bytes)
        goto done;
    sha256_of(digest, text.data, text.size - sizeof digest);
    if (memcmp(digest, text.data + text.size - sizeof digest, sizeof digest) != 0) goto done;
    *items = malloc((size_t)head.item_count * item_bytes);
    if (*items == NULL) RAISE_DONE(NOMEM, "%s", path);
    memcpy(*items, text.data + sizeof head + sizeof *counts, (size_t)head.item_count * item_bytes);
    memcpy(counts, text.data + sizeof head, sizeof *counts);
    *item_count = head.item_count;
done:
    buf_clear(&text);
    return rc;
}

err_t prepare_work_has_plan(bool *has, const struct prepare_work *w)
{
    char path[FILE_PATH_MAX];
    TRY(path_join(path, w->dir, PLAN_FILE));
    *has = file_exists(path);
    return ERR_OK;
}

err_t prepare_work_load(struct prepare_work *w, struct prepare_counts *counts)
{
    void *items;
    struct spool spool;
    const err_t rc = spool_open(&spool, w->dir);
    const int64_t rows = spool.count;
    spool_close(&spool);
    if (rc != ERR_OK) return ERR_OK; /* the first pass was not finished */
    TRY(load_state(&items, &w->plan.count, counts, w, PLAN_FILE, 1, rows));
    w->plan.fate = items;
    if (items == NULL) return ERR_OK;
    w->keep = true;
    TRY(load_state(&items, &w->done_count, counts, w, JOURNAL_FILE, sizeof *w->done, -1));
    w->done = items;
    return ERR_OK;
}

err_t prepare_work_drop_journal(struct prepare_work *w, struct prepare_counts *counts)
{
    char path[FILE_PATH_MAX];
    void *fate;
    TRY(path_join(path, w->dir, JOURNAL_FILE));
    if (unlink(path) != 0 && errno != ENOENT) RAISE(IO, "remove %s: %s", path, strerror(errno));
    free(w->done);
    w->done = NULL;
    w->done_count = 0;
    TRY(load_state(&fate, &w->plan.count, counts, w, PLAN_FILE, 1, w->plan.count));
    if (fate == NULL) RAISE(IO, "%s: the plan is gone", w->dir);
    free(fate); /* w has it */
    return ERR_OK;
}

err_t prepare_work_save_plan(struct prepare_work *w, const struct prepare_counts *counts)
{
    TRY(fault_point("prepare.plan"));
    TRY(save_state(w, PLAN_FILE, counts, w->plan.fate, w->plan.count, 1));
    w->keep = true;
    return ERR_OK;
}

err_t prepare_work_save_journal(struct prepare_work *w, const struct prepare_counts *counts,
                                const struct shard_done *done, int64_t done_count)
{
    TRY(fault_point("prepare.journal"));
    return save_state(w, JOURNAL_FILE, counts, done, done_count, sizeof *done);
}
