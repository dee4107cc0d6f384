#include "data/prepare.h"

#include "base/file.h"
#include "base/num.h"
#include "base/progress.h"
#include "data/pool.h"
#include "data/prepare_batch.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- options ---- */

static err_t require(const char **out, const struct cfg *cfg, const char *key)
{
    *out = cfg_str(cfg, key);
    if ((*out)[0] == '\0')
        RAISE(USAGE, "prepare: %s is not set; give it in --config FILE or as --%s=...", key, key);
    return ERR_OK;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static err_t split_sources(struct prepare_options *o, const char *text)
{
    o->source_text = strdup(text);
    if (o->source_text == NULL) RAISE(NOMEM, "the list of sources");
    for (char *rest = o->source_text, *path; (path = strsep(&rest, ",")) != NULL;) {
        path += strspn(path, " ");
        if (path[0] == '\0')
            RAISE(USAGE, "data.source has an empty name between its commas: %s", text);
        if (o->source_count == PREPARE_SOURCES_MAX)
            RAISE(USAGE, "data.source names more than %d files", PREPARE_SOURCES_MAX);
        o->source[o->source_count++] = (struct prepare_source){ path, base_name(path) };
    }
    for (int64_t i = 0; i < o->source_count; i++)
        for (int64_t k = 0; k < i; k++) {
            if (strcmp(o->source[i].path, o->source[k].path) == 0)
                RAISE(USAGE, "data.source names %s twice", o->source[i].path);
            if (strcmp(base_name(o->source[i].path), base_name(o->source[k].path)) == 0) {
                o->source[i].name = o->source[i].path;
                o->source[k].name = o->source[k].path;
            }
        }
    for (int64_t i = 0; i < o->source_count; i++)
        if (strlen(o->source[i].name) >= SHARD_TEXT_MAX)
            RAISE(USAGE, "data.source: a name of more than %d bytes: %.60s...", SHARD_TEXT_MAX - 1,
                  o->source[i].name);
    return ERR_OK;
}

static err_t read_options(struct prepare_options *o, const struct cfg *cfg)
{
    const char *source;
    TRY(require(&source, cfg, "data.source"));
    TRY(require(&o->tokenizer, cfg, "data.tokenizer"));
    TRY(require(&o->out, cfg, "data.dir"));
    TRY(split_sources(o, source));
    TRY(chat_template_from_cfg(&o->template, cfg));
    o->form = (enum corpus_form)cfg_enum(cfg, "data.form");
    o->on_bad_record = (enum corpus_on_bad_record)cfg_enum(cfg, "data.on_bad_record");
    o->licence = cfg_str(cfg, "data.licence");
    o->attribution = cfg_str(cfg, "data.attribution");
    o->shards.tokens_per_shard = cfg_int(cfg, "data.tokens_per_shard");
    o->shards.zstd_level = (int)cfg_int(cfg, "data.zstd_level");
    o->shards.replace = cfg_bool(cfg, "data.replace");
    o->split_seed = (uint64_t)cfg_int(cfg, "data.split_seed");
    o->validation_permyriad = cfg_int(cfg, "data.validation_permyriad");
    o->test_permyriad = cfg_int(cfg, "data.test_permyriad");
    o->max_dialogues = cfg_int(cfg, "data.max_dialogues");
    o->threads = cfg_int(cfg, "data.threads");
    if (strlen(o->licence) >= SHARD_TEXT_MAX || strlen(o->attribution) >= SHARD_TEXT_MAX)
        RAISE(USAGE, "data.licence and data.attribution have at most %d bytes each",
              SHARD_TEXT_MAX - 1);
    if (o->validation_permyriad + o->test_permyriad > 10000)
        RAISE(USAGE, "data.validation_permyriad + data.test_permyriad is %lld, at most 10000",
              (long long)(o->validation_permyriad + o->test_permyriad));
    return ERR_OK;
}

err_t prepare_options_from_cfg(struct prepare_options *out, const struct cfg *cfg)
{
    *out = (struct prepare_options){ 0 };
    const err_t rc = read_options(out, cfg);
    if (rc != ERR_OK) prepare_options_clear(out);
    return rc;
}

void prepare_options_clear(struct prepare_options *o)
{
    free(o->source_text);
    *o = (struct prepare_options){ 0 };
}

/* ---- the work ---- */

/* Everything that lives as long as one run. */
struct run {
    const struct prepare_options *options;
    struct prepare_counts *counts;
    struct tok *tok;
    struct batch_context context;
    struct shard_writer *writer;
    struct pool *pool;
    struct prepare_batch *batches; /* [slot_count + 1]: one is being filled */
    int64_t slot_count, batch_next;
    struct clean_dialogue dialogue;
    struct turn_runs *runs; /* [CORPUS_TURNS_MAX] */
    struct progress progress;
    int64_t bytes_before; /* of the sources read completely */
    int64_t accepted;     /* dialogues on their way or written */
};

static struct prepare_batch *filling(struct run *r)
{
    return &r->batches[r->batch_next % (r->slot_count + 1)];
}

static struct turn_runs turn_runs_of(const struct prepare_batch *b, const struct batch_turn *t)
{
    const struct shard_turn *row = &t->runs;
    const int32_t *ids = b->ids.data;
    return (struct turn_runs){
        .role = t->role,
        .ctx = ids + row->ctx_off,
        .ctx_len = row->ctx_len,
        .first = row->first_off >= 0 ? ids + row->first_off : NULL,
        .first_len = row->first_len,
        .target = row->target_off >= 0 ? ids + row->target_off : NULL,
        .target_len = row->target_len,
    };
}

static err_t write_dialogue(struct run *r, const struct prepare_batch *b,
                            const struct batch_dialogue *d)
{
    struct prepare_counts *c = r->counts;
    int64_t samples = 0;
    for (int64_t i = 0; i < d->turn_count; i++) {
        r->runs[i] = turn_runs_of(b, &b->turns[d->turn_first + i]);
        const struct turn_runs *t = &r->runs[i];
        samples += t->target != NULL;
        c->first_stored += t->first != NULL;
        c->prompt_line_tokens += t->ctx_len;
        c->target_tokens += t->target_len;
        c->tokens += t->ctx_len + t->first_len + t->target_len;
    }
    TRY(shard_writer_add(r->writer, r->runs, d->turn_count, d->split,
                         r->options->source[d->source].name, d->topic, d->hash));
    c->dialogues++;
    c->turns += d->turn_count;
    c->samples += samples;
    c->split[d->split].dialogues++;
    c->split[d->split].samples += samples;
    return ERR_OK;
}

/* Wait for the oldest batch and write it. */
static err_t write_batch(struct run *r)
{
    void *item;
    TRY(pool_take(r->pool, &item));
    struct prepare_batch *b = item;
    for (int64_t i = 0; i < b->dialogue_count; i++) TRY(write_dialogue(r, b, &b->dialogues[i]));
    prepare_batch_reset(b);
    return ERR_OK;
}

static err_t hand_over(struct run *r)
{
    if (filling(r)->dialogue_count == 0) return ERR_OK;
    if (pool_in_flight(r->pool) == r->slot_count) TRY(write_batch(r));
    pool_put(r->pool, filling(r));
    r->batch_next++;
    return ERR_OK;
}

static err_t check_stop(const struct run *r)
{
    if (r->options->stop != NULL && r->options->stop(r->options->stop_context))
        RAISE(INTERRUPTED, "prepare: stopped on request; nothing was written");
    return ERR_OK;
}

static bool enough(const struct run *r)
{
    return r->options->max_dialogues > 0 && r->accepted == r->options->max_dialogues;
}

static err_t take_dialogue(struct run *r, const struct dialogue_text *d, int64_t source)
{
    r->counts->read++;
    r->counts->source[source].dialogues++;
    TRY(clean_load(&r->dialogue, d));
    clean_apply(&r->dialogue, r->counts->rule);
    if (r->dialogue.dropped) return ERR_OK;
    r->accepted++;
    TRY(prepare_batch_add(filling(r), &r->dialogue, source, d->topic));
    return filling(r)->text.size >= BATCH_TEXT_BYTES ? hand_over(r) : ERR_OK;
}

static void show_progress(struct run *r, const struct corpus *c)
{
    int64_t done, total;
    corpus_position(c, &done, &total);
    progress_update(&r->progress, (r->bytes_before + done) >> 20, "%lld dialogues, %lld written",
                    (long long)r->counts->read, (long long)r->counts->dialogues);
}

static err_t read_source(struct run *r, int64_t source)
{
    err_t rc = ERR_OK;
    const struct prepare_options *o = r->options;
    struct prepare_source_counts *counts = &r->counts->source[source];
    struct corpus *c = NULL;
    struct dialogue_text d;
    bool found = true;
    int64_t done;
    TRY(corpus_open(&c, o->source[source].path, o->form, o->on_bad_record));
    while (!enough(r)) {
        TRY_DONE(check_stop(r));
        TRY_DONE(corpus_next(c, &d, &found));
        if (!found) break;
        TRY_DONE(take_dialogue(r, &d, source));
        show_progress(r, c);
    }
    corpus_position(c, &done, &counts->bytes);
    counts->form = corpus_form(c);
    counts->bad_records = corpus_skipped(c);
    r->counts->bad_records += counts->bad_records;
    r->bytes_before += counts->bytes;
    if (!found && counts->dialogues == 0)
        RAISE_DONE(FORMAT, "%s: no dialogue in %lld bytes, %lld bad records",
                   o->source[source].path, (long long)counts->bytes,
                   (long long)counts->bad_records);
done:
    corpus_close(c);
    return rc;
}

static err_t check_usable(const struct run *r)
{
    err_t rc = ERR_OK;
    struct buf why = { 0 };
    if (r->accepted > 0) return ERR_OK;
    for (int64_t i = 0; i < clean_rule_count(); i++)
        if (r->counts->rule[i] > 0)
            TRY_DONE(buf_printf(&why, ", %s %lld", clean_rule_at(i)->name,
                                (long long)r->counts->rule[i]));
    RAISE_DONE(FORMAT, "prepare: none of %lld dialogues can be used: bad records %lld%s",
               (long long)r->counts->read, (long long)r->counts->bad_records,
               why.data ? why.data : "");
done:
    buf_clear(&why);
    return rc;
}

static err_t commit(struct run *r)
{
    err_t rc = ERR_OK;
    struct buf report = { 0 };
    TRY_DONE(prepare_report_json(&report, r->counts, r->options));
    TRY_DONE(shard_writer_commit(r->writer, report.data));
done:
    buf_clear(&report);
    return rc;
}

static err_t open_run(struct run *r)
{
    const struct prepare_options *o = r->options;
    struct shard_info info;
    const int64_t threads =
        o->threads ? o->threads
                   : max_i64(1, min_i64(sysconf(_SC_NPROCESSORS_ONLN), PREPARE_THREADS_MAX));
    TRY(tok_open(&r->tok, o->tokenizer));
    TRY(chat_shard_info(&info, &o->template, r->tok));
    clean_rules_sha256(info.rules_sha256);
    info.split_seed = o->split_seed;
    TRY(shard_writer_open(&r->writer, o->out, &info, &o->shards));
    for (int64_t i = 0; i < o->source_count; i++)
        TRY(shard_writer_source(r->writer, o->source[i].name, o->licence, o->attribution));

    r->slot_count = 2 * threads + 1; /* workers stay busy while one batch is written */
    r->batches = calloc((size_t)r->slot_count + 1, sizeof *r->batches);
    r->runs = calloc(CORPUS_TURNS_MAX, sizeof *r->runs);
    if (r->batches == NULL || r->runs == NULL)
        RAISE(NOMEM, "batches for %lld threads", (long long)threads);
    r->context = (struct batch_context){ r->tok, o };
    return pool_open(&r->pool, threads, r->slot_count, prepare_batch_work, &r->context);
}

static void close_run(struct run *r)
{
    pool_close(r->pool); /* first: workers use what follows */
    for (int64_t i = 0; r->batches != NULL && i <= r->slot_count; i++)
        prepare_batch_clear(&r->batches[i]);
    free(r->batches);
    free(r->runs);
    clean_clear(&r->dialogue);
    shard_writer_close(r->writer);
    tok_close(r->tok);
}

static err_t total_bytes(int64_t *total, const struct prepare_options *o)
{
    *total = 0;
    for (int64_t i = 0; i < o->source_count; i++) {
        struct file_reader file;
        TRY(file_reader_open(&file, o->source[i].path));
        *total += file.size;
        file_reader_close(&file);
    }
    return ERR_OK;
}

/* Read, tokenize and write everything, with a progress line. */
static err_t process(struct run *r)
{
    err_t rc = ERR_OK;
    const struct prepare_options *o = r->options;
    int64_t bytes;
    TRY(total_bytes(&bytes, o));
    progress_begin(&r->progress, "prepare", "MiB", bytes >> 20);
    for (int64_t i = 0; i < o->source_count && !enough(r); i++) TRY_DONE(read_source(r, i));
    TRY_DONE(check_usable(r));
    TRY_DONE(hand_over(r));
    while (pool_in_flight(r->pool) > 0) {
        TRY_DONE(check_stop(r));
        TRY_DONE(write_batch(r));
    }
done:
    progress_end(&r->progress);
    return rc;
}

err_t prepare_run(struct prepare_counts *counts, const struct prepare_options *o)
{
    err_t rc = ERR_OK;
    struct run r = { .options = o, .counts = counts };
    const double begin_s = time_now_s();
    *counts = (struct prepare_counts){ 0 };
    TRY_DONE(open_run(&r));
    TRY_DONE(process(&r));
    TRY_DONE(commit(&r));
    counts->seconds = time_now_s() - begin_s;
done:
    close_run(&r);
    return rc;
}
