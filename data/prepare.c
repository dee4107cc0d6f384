#include "data/prepare.h"

#include "base/file.h"
#include "base/log.h"
#include "base/num.h"
#include "base/progress.h"
#include "data/pool.h"
#include "data/prepare_batch.h"
#include "data/prepare_survey.h"
#include "data/prepare_work.h"

#include <stdatomic.h>
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
    o->rules = cfg_str(cfg, "data.rules");
    o->long_turn = cfg_int(cfg, "data.long_turn");
    o->duplicates = (enum prepare_duplicates)cfg_enum(cfg, "data.duplicates");
    o->near_threshold = cfg_float(cfg, "data.near_threshold");
    o->split_rule = (enum prepare_split_rule)cfg_enum(cfg, "data.split");
    o->openings = (enum prepare_openings)cfg_enum(cfg, "data.openings");
    o->resume = cfg_bool(cfg, "data.resume");
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
    struct clean_rules *rules;
    struct shard_info info;
    struct prepare_work work;
    struct spool spool;
    struct batch_context context;
    struct shard_writer *writer;
    struct pool *pool;
    struct prepare_batch *batches; /* [slot_count + 1]: one is being filled */
    int64_t threads, slot_count, batch_next;
    struct turn_runs *runs; /* [CORPUS_TURNS_MAX] */
    int64_t journaled;      /* shards that the journal has */
    struct pool *hasher;    /* of the sources, while they are read */
    struct prepare_options hasher_options;
    atomic_bool hasher_stops;
    bool hashed; /* counts have the sources' digests and the recipe */
    struct progress progress;
};

err_t prepare_rules_open(struct clean_rules **out, const struct prepare_options *o)
{
    const struct clean_spec spec = {
        .actions = o->rules,
        .long_turn = o->long_turn,
        .client_name = o->template.client_name,
        .counsellor_name = o->template.counsellor_name,
    };
    return clean_rules_open(out, &spec);
}

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
        .flags = t->flags,
        .ctx = ids + row->ctx_off,
        .ctx_len = row->ctx_len,
        .first = row->first_off >= 0 ? ids + row->first_off : NULL,
        .first_len = row->first_len,
        .target = row->target_off >= 0 ? ids + row->target_off : NULL,
        .target_len = row->target_len,
    };
}

static void count_dialogue(struct prepare_counts *c, const struct turn_runs *turns,
                           const struct batch_dialogue *d)
{
    int64_t samples = 0;
    bool crisis = false;
    for (int64_t i = 0; i < d->turn_count; i++) {
        const struct turn_runs *t = &turns[i];
        samples += t->target != NULL;
        crisis |= (t->flags & TURN_CRISIS) != 0;
        c->first_stored += t->first != NULL;
        c->prompt_line_tokens += t->ctx_len;
        c->target_tokens += t->target_len;
        c->tokens += t->ctx_len + t->first_len + t->target_len;
    }
    c->dialogues++;
    c->turns += d->turn_count;
    c->samples += samples;
    c->crisis_dialogues += crisis;
    c->split[d->split].dialogues++;
    c->split[d->split].samples += samples;
    c->source[d->source].written++;
    c->source[d->source].samples += samples;
}

static err_t write_dialogue(struct run *r, const struct prepare_batch *b,
                            const struct batch_dialogue *d)
{
    int64_t done_count;
    const struct shard_done *done;
    for (int64_t i = 0; i < d->turn_count; i++)
        r->runs[i] = turn_runs_of(b, &b->turns[d->turn_first + i]);
    TRY(shard_writer_add(r->writer, r->runs, d->turn_count, d->split,
                         r->options->source[d->source].name, d->topic, d->hash));
    /* A shard ends before the dialogue that begins the next: the counters are still without it. */
    done = shard_writer_done(r->writer, &done_count);
    if (done_count > r->journaled) {
        TRY(prepare_work_save_journal(&r->work, r->counts, done, done_count));
        r->journaled = done_count;
    }
    count_dialogue(r->counts, r->runs, d);
    return ERR_OK;
}

/* Wait for the oldest batch and write it. */
static err_t write_batch(struct run *r)
{
    void *item;
    TRY(pool_take(r->pool, &item));
    struct prepare_batch *b = item;
    for (int64_t i = 0; i < b->dialogue_count; i++) {
        TRY(prepare_check_stop(r->options));
        TRY(write_dialogue(r, b, &b->dialogues[i]));
    }
    prepare_batch_reset(b);
    progress_update(&r->progress, r->counts->dialogues, "%lld samples",
                    (long long)r->counts->samples);
    return ERR_OK;
}

/* The next rows up to BATCH_TEXT_BYTES of text. */
static err_t fill_batch(struct run *r, struct prepare_batch *b, int64_t first)
{
    int64_t bytes = 0;
    const int64_t count = min_i64(PREPARE_BATCH_ROWS, r->spool.count - first);
    TRY(spool_rows(&r->spool, b->rows, first, count));
    memcpy(b->fate, r->work.plan.fate + first, (size_t)count);
    for (b->first = first, b->count = 0; b->count < count && bytes < BATCH_TEXT_BYTES; b->count++)
        bytes += b->rows[b->count].text_size;
    return ERR_OK;
}

/* The row behind `written` dialogues that are written. */
static int64_t row_after(const struct prepare_plan *plan, int64_t written)
{
    int64_t row = 0;
    for (; written > 0; row++) written -= plan->fate[row] < SPLIT_COUNT;
    return row;
}

/* The second pass: from the first dialogue that no finished shard has. */
static err_t write_all(struct run *r)
{
    err_t rc = ERR_OK;
    const int64_t going =
        r->counts->tidied -
        r->counts->duplicates.exact * (r->options->duplicates != DUPLICATES_KEEP) -
        r->counts->duplicates.near * (r->options->duplicates == DUPLICATES_DROP_NEAR);
    progress_begin(&r->progress, "prepare", "dialogues", going);
    for (int64_t row = row_after(&r->work.plan, r->counts->dialogues); row < r->spool.count;) {
        struct prepare_batch *b = filling(r);
        TRY_DONE(fill_batch(r, b, row));
        row += b->count;
        if (pool_in_flight(r->pool) == r->slot_count) TRY_DONE(write_batch(r));
        pool_put(r->pool, b);
        r->batch_next++;
    }
    while (pool_in_flight(r->pool) > 0) TRY_DONE(write_batch(r));
done:
    progress_end(&r->progress);
    return rc;
}

static err_t commit(struct run *r)
{
    err_t rc = ERR_OK;
    struct buf report = { 0 };
    TRY_DONE(prepare_report_json(&report, r->counts, r->options));
    TRY_DONE(shard_writer_commit(r->writer, report.data));
    r->work.keep = false;
done:
    buf_clear(&report);
    return rc;
}

/* What an earlier run left, if it had the same recipe. */
static err_t take_up_work(struct run *r)
{
    bool has_plan;
    TRY(prepare_work_has_plan(&has_plan, &r->work));
    if (!has_plan) return ERR_OK;
    TRY(prepare_hash_sources(r->counts, r->options));
    TRY(prepare_recipe(r->counts, r->options, &r->info));
    r->hashed = true;
    return prepare_work_load(&r->work, r->counts);
}

/* The sources' digests take a core for a while: another thread makes them meanwhile. */
static bool hasher_is_stopped(void *stops) { return atomic_load((atomic_bool *)stops); }

static err_t hash_sources(const void *context, void *item)
{
    const struct run *r = context;
    return prepare_hash_sources(item, &r->hasher_options);
}

static err_t begin_hashing(struct run *r)
{
    r->hasher_options = *r->options;
    r->hasher_options.stop = hasher_is_stopped;
    r->hasher_options.stop_context = &r->hasher_stops;
    TRY(pool_open(&r->hasher, 1, 1, hash_sources, r));
    pool_put(r->hasher, r->counts);
    return ERR_OK;
}

static err_t end_hashing(struct run *r)
{
    void *counts;
    TRY(pool_take(r->hasher, &counts));
    r->hashed = true;
    return prepare_recipe(r->counts, r->options, &r->info);
}

static err_t open_run(struct run *r)
{
    const struct prepare_options *o = r->options;
    r->threads = o->threads
                     ? o->threads
                     : max_i64(1, min_i64(sysconf(_SC_NPROCESSORS_ONLN), PREPARE_THREADS_MAX));
    TRY(tok_open(&r->tok, o->tokenizer));
    TRY(prepare_rules_open(&r->rules, o));
    TRY(chat_shard_info(&r->info, &o->template, r->tok));
    clean_rules_sha256(r->info.rules_sha256, r->rules);
    r->info.split_seed = o->split_seed;
    TRY(prepare_work_open(&r->work, o));
    return o->resume ? take_up_work(r) : ERR_OK;
}

/* The writer goes on behind the finished shards of an earlier run, where they are as they were. */
static err_t open_writer(struct run *r)
{
    const struct prepare_options *o = r->options;
    struct shard_writer_spec spec = o->shards;
    spec.keep = o->resume;
    spec.done = r->work.done;
    spec.done_count = r->work.done_count;
    err_t rc = shard_writer_open(&r->writer, o->out, &r->info, &spec);
    if (spec.done_count > 0 && (rc == ERR_CHECKSUM || rc == ERR_NOTFOUND || rc == ERR_FORMAT)) {
        LOG_W("prepare", "%s; writing all shards again", err_last()->text);
        TRY(prepare_work_drop_journal(&r->work, r->counts));
        spec.done_count = 0;
        rc = shard_writer_open(&r->writer, o->out, &r->info, &spec);
    }
    TRY(rc);
    r->journaled = spec.done_count;
    for (int64_t i = 0; i < o->source_count; i++)
        TRY(shard_writer_source(r->writer, o->source[i].name, o->licence, o->attribution));
    return ERR_OK;
}

/* Read, tidy and judge all dialogues, unless an earlier run did. */
static err_t first_pass(struct run *r)
{
    const bool made = r->work.plan.count > 0;
    if (made) {
        LOG_I("prepare", "going on from %s: %lld dialogues are in finished shards", r->work.dir,
              (long long)r->counts->dialogues);
        return spool_open(&r->spool, r->work.dir);
    }
    TRY(prepare_check_disk(r->options));
    if (!r->hashed) TRY(begin_hashing(r));
    TRY(prepare_survey(r->counts, r->options, r->rules, r->work.dir, r->threads));
    if (!r->hashed) TRY(end_hashing(r));
    TRY(spool_open(&r->spool, r->work.dir));
    TRY(prepare_plan_make(&r->work.plan, r->counts, r->options, &r->spool, r->work.dir));
    return prepare_work_save_plan(&r->work, r->counts);
}

static err_t second_pass(struct run *r)
{
    r->slot_count = 2 * r->threads + 1; /* workers stay busy while one batch is written */
    r->batches = calloc((size_t)r->slot_count + 1, sizeof *r->batches);
    r->runs = calloc(CORPUS_TURNS_MAX, sizeof *r->runs);
    if (r->batches == NULL || r->runs == NULL)
        RAISE(NOMEM, "batches for %lld threads", (long long)r->threads);
    r->context = (struct batch_context){ r->tok, r->options, &r->spool };
    TRY(pool_open(&r->pool, r->threads, r->slot_count, prepare_batch_work, &r->context));
    return write_all(r);
}

static void close_run(struct run *r)
{
    atomic_store(&r->hasher_stops, true);
    pool_close(r->hasher); /* first: workers use what follows */
    pool_close(r->pool);
    for (int64_t i = 0; r->batches != NULL && i <= r->slot_count; i++)
        prepare_batch_clear(&r->batches[i]);
    free(r->batches);
    free(r->runs);
    spool_close(&r->spool);
    shard_writer_close(r->writer);
    prepare_work_close(&r->work, r->options->resume);
    clean_rules_close(r->rules);
    tok_close(r->tok);
}

err_t prepare_run(struct prepare_counts *counts, const struct prepare_options *o)
{
    err_t rc = ERR_OK;
    struct run r = { .options = o, .counts = counts, .work = { .lock = -1 } };
    const double begin_s = time_now_s();
    memset(counts, 0, sizeof *counts); /* padding too: counters go to files as they lie */
    TRY_DONE(open_run(&r));
    TRY_DONE(open_writer(&r));
    TRY_DONE(first_pass(&r));
    TRY_DONE(second_pass(&r));
    TRY_DONE(commit(&r));
    counts->seconds = time_now_s() - begin_s;
done:
    close_run(&r);
    return rc;
}
