#include "data/prepare_bench.h"

#include "base/file.h"
#include "base/log.h"
#include "base/num.h"
#include "base/progress.h"
#include "data/dedup.h"
#include "data/loader.h"
#include "data/pool.h"
#include "data/prepare_batch.h"
#include "data/report_stats.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

const char *const prepare_bench_names[BENCH_PREPARE_PARTS] = { "parse", "tokenize", "stream",
                                                               "clean", "sign",     "prepare",
                                                               "load" };

/* A turn's line as a later one of a prompt, "\n用户：text". The first line of a prompt and the
 * reply alone are ends of it. */
struct line {
    enum role role;
    bool target;
    int64_t off, head, size; /* bytes: where it begins; before the text; of the text */
};

struct some { /* dialogues that one worker does at a time */
    struct buf text;
    struct line *lines;
    int64_t line_count, line_capacity;
    struct batch_dialogue *dialogues;
    int64_t dialogue_count, dialogue_capacity;
    struct i32_buf ids;
    struct batch_turn *turns; /* [line_count] the runs, for writing */
    int64_t turn_capacity, token_count;
};

struct bench {
    const struct prepare_options *options;
    struct prepare_bench *out;
    struct tok *tok;
    struct clean_rules *rules;
    struct some *all; /* [all_count] the corpus in memory */
    int64_t all_count, all_capacity;
    char dir[FILE_PATH_MAX];
    bool created; /* the folder */
    double wall_begin_s, cpu_begin_s;
};

/* ---- time ---- */

static double cpu_now_s(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void begin(struct bench *b)
{
    b->wall_begin_s = time_now_s();
    b->cpu_begin_s = cpu_now_s();
}

static void end(struct bench *b, enum prepare_bench_part part)
{
    b->out->wall_s[part] = time_now_s() - b->wall_begin_s;
    b->out->cpu_s[part] = cpu_now_s() - b->cpu_begin_s;
}

/* ---- dialogues ---- */

static void reset_some(struct some *s)
{
    buf_reset(&s->text);
    i32_buf_reset(&s->ids);
    s->line_count = s->dialogue_count = 0;
}

static void clear_some(struct some *s)
{
    buf_clear(&s->text);
    i32_buf_clear(&s->ids);
    free(s->lines);
    free(s->dialogues);
    free(s->turns);
}

static err_t add_line(struct some *s, const struct chat_template *t, const struct turn_text *turn,
                      bool target)
{
    const char *name = turn->role == ROLE_CLIENT ? t->client_name : t->counsellor_name;
    GROW(s->lines, s->line_capacity, s->line_count + 1);
    struct line *l = &s->lines[s->line_count++];
    *l = (struct line){ turn->role, target, (int64_t)s->text.size, 0, turn->size };
    TRY(buf_printf(&s->text, "\n%s%s", name, t->separator));
    l->head = (int64_t)s->text.size - l->off;
    return buf_append(&s->text, turn->text, (size_t)turn->size);
}

/* Turns as they are in the source, but for those that no shard can hold. */
static err_t add_dialogue(struct some *s, const struct chat_template *t,
                          const struct dialogue_text *d, int64_t source)
{
    const int64_t first = s->line_count;
    for (int64_t i = 0; i < d->turn_count; i++)
        if (d->turns[i].role != ROLE_SYSTEM && d->turns[i].size > 0)
            TRY(add_line(s, t, &d->turns[i],
                         s->line_count > first && d->turns[i].role == ROLE_COUNSELLOR));
    if (s->line_count == first) return ERR_OK;
    GROW(s->dialogues, s->dialogue_capacity, s->dialogue_count + 1);
    struct batch_dialogue *to = &s->dialogues[s->dialogue_count++];
    *to = (struct batch_dialogue){ .turn_first = first,
                                   .turn_count = s->line_count - first,
                                   .source = source,
                                   .split = SPLIT_TRAIN };
    prepare_topic(to->topic, d->topic);
    return ERR_OK;
}

/* ---- what workers do ---- */

static err_t tokenize_some(const void *context, void *item)
{
    const struct bench *b = context;
    struct some *s = item;
    s->token_count = 0;
    for (int64_t i = 0; i < s->line_count; i++) {
        const struct line *l = &s->lines[i];
        const char *text = s->text.data + l->off;
        i32_buf_reset(&s->ids);
        TRY(tok_encode(b->tok, &s->ids, text, l->head + l->size, TOK_PLAIN));
        TRY(tok_encode(b->tok, &s->ids, text + 1, l->head + l->size - 1, TOK_PLAIN));
        if (l->target) TRY(tok_encode(b->tok, &s->ids, text + l->head, l->size, TOK_PLAIN));
        s->token_count += s->ids.count;
    }
    return ERR_OK;
}

static err_t encode_some(const void *context, void *item)
{
    const struct bench *b = context;
    struct some *s = item;
    GROW(s->turns, s->turn_capacity, s->line_count);
    for (int64_t i = 0; i < s->line_count; i++) {
        const struct line *l = &s->lines[i];
        const struct turn_text turn = { l->role, s->text.data + l->off + l->head, l->size };
        s->turns[i] = (struct batch_turn){ .role = l->role };
        TRY(chat_turn_encode(&s->ids, &s->turns[i].runs, b->tok, &b->options->template, &turn,
                             l->target));
    }
    return ERR_OK;
}

static err_t clean_some(const void *context, void *item)
{
    err_t rc = ERR_OK;
    const struct bench *b = context;
    const struct some *s = item;
    struct turn_text *turns = calloc((size_t)s->line_count + 1, sizeof *turns);
    struct clean_found *found = calloc(1, sizeof *found);
    struct clean_dialogue clean = { 0 };
    if (turns == NULL || found == NULL) RAISE_DONE(NOMEM, "the turns of a dialogue");
    for (int64_t i = 0; i < s->line_count; i++) {
        const struct line *l = &s->lines[i];
        turns[i] = (struct turn_text){ l->role, s->text.data + l->off + l->head, l->size };
    }
    for (int64_t i = 0; i < s->dialogue_count; i++) {
        const struct batch_dialogue *at = &s->dialogues[i];
        const struct dialogue_text d = { .turns = turns + at->turn_first,
                                         .turn_count = at->turn_count };
        TRY_DONE(clean_load(&clean, &d));
        clean_apply(b->rules, &clean, found);
    }
done:
    clean_clear(&clean);
    free(turns);
    free(found);
    return rc;
}

static err_t sign_some(const void *context, void *item)
{
    err_t rc = ERR_OK;
    const struct some *s = item;
    struct dedup_turn *turns = calloc((size_t)s->line_count + 1, sizeof *turns);
    struct dedup_work work = { 0 };
    struct dedup_signature sign;
    (void)context;
    if (turns == NULL) RAISE_DONE(NOMEM, "the turns of a dialogue");
    for (int64_t i = 0; i < s->line_count; i++) {
        const struct line *l = &s->lines[i];
        turns[i] = (struct dedup_turn){ l->role, s->text.data + l->off + l->head, l->size };
    }
    for (int64_t i = 0; i < s->dialogue_count; i++)
        TRY_DONE(dedup_sign(&sign, &work, turns + s->dialogues[i].turn_first,
                            s->dialogues[i].turn_count));
done:
    dedup_work_clear(&work);
    free(turns);
    return rc;
}

/* ---- parts in memory ---- */

/* `use` gets each dialogue; NULL: they are only read. */
static err_t read_sources(struct bench *b,
                          err_t (*use)(void *, const struct dialogue_text *, int64_t),
                          void *context)
{
    err_t rc = ERR_OK;
    const struct prepare_options *o = b->options;
    struct corpus *c = NULL;
    struct dialogue_text d;
    int64_t count = 0;
    b->out->text_bytes = 0;
    for (int64_t i = 0; i < o->source_count; i++) {
        bool found = true;
        TRY_DONE(corpus_open(&c, o->source[i].path, o->form, o->on_bad_record));
        while (o->max_dialogues == 0 || count < o->max_dialogues) {
            TRY_DONE(corpus_next(c, &d, &found));
            if (!found) break;
            count++;
            if (use != NULL) TRY_DONE(use(context, &d, i));
        }
        b->out->text_bytes += corpus_text_bytes(c);
        corpus_close(c);
        c = NULL;
    }
    b->out->dialogues = count;
done:
    corpus_close(c);
    return rc;
}

static err_t keep_dialogue(void *context, const struct dialogue_text *d, int64_t source)
{
    struct bench *b = context;
    if (b->all_count == 0 || b->all[b->all_count - 1].text.size >= BATCH_TEXT_BYTES) {
        GROW(b->all, b->all_capacity, b->all_count + 1);
        b->all[b->all_count++] = (struct some){ 0 };
    }
    return add_dialogue(&b->all[b->all_count - 1], &b->options->template, d, source);
}

static err_t work_on_all(struct bench *b, enum prepare_bench_part part, pool_work work)
{
    err_t rc = ERR_OK;
    struct pool *pool;
    void *item;
    const int64_t slots = 2 * b->out->threads + 1;
    begin(b);
    TRY(pool_open(&pool, b->out->threads, slots, work, b));
    for (int64_t i = 0; i < b->all_count; i++) {
        if (pool_in_flight(pool) == slots) TRY_DONE(pool_take(pool, &item));
        pool_put(pool, &b->all[i]);
    }
    while (pool_in_flight(pool) > 0) TRY_DONE(pool_take(pool, &item));
done:
    pool_close(pool);
    end(b, part);
    return rc;
}

static void count_strings(struct bench *b)
{
    struct prepare_bench *out = b->out;
    for (int64_t i = 0; i < b->all_count; i++) {
        const struct some *s = &b->all[i];
        out->tokens += s->token_count;
        out->turns += s->line_count;
        for (int64_t k = 0; k < s->line_count; k++) {
            const struct line *l = &s->lines[k];
            out->strings += 2 + l->target;
            out->string_bytes += 2 * (l->head + l->size) - 1 + l->target * l->size;
        }
    }
}

/* ---- parse, tokenize, write ---- */

struct stream {
    struct bench *bench;
    struct pool *pool;
    struct shard_writer *writer;
    struct some *slots; /* [slot_count + 1]: one is being filled */
    int64_t slot_count, next;
    struct turn_runs *runs; /* [CORPUS_TURNS_MAX] */
};

static err_t write_dialogue(struct stream *s, const struct some *from,
                            const struct batch_dialogue *d)
{
    const int32_t *ids = from->ids.data;
    for (int64_t i = 0; i < d->turn_count; i++) {
        const struct shard_turn *t = &from->turns[d->turn_first + i].runs;
        s->runs[i] = (struct turn_runs){
            .role = from->turns[d->turn_first + i].role,
            .ctx = ids + t->ctx_off,
            .ctx_len = t->ctx_len,
            .first = t->first_off >= 0 ? ids + t->first_off : NULL,
            .first_len = t->first_len,
            .target = t->target_off >= 0 ? ids + t->target_off : NULL,
            .target_len = t->target_len,
        };
    }
    return shard_writer_add(s->writer, s->runs, d->turn_count, d->split,
                            s->bench->options->source[d->source].name, d->topic, d->hash);
}

static err_t write_some(struct stream *s)
{
    void *item;
    TRY(pool_take(s->pool, &item));
    struct some *from = item;
    for (int64_t i = 0; i < from->dialogue_count; i++)
        TRY(write_dialogue(s, from, &from->dialogues[i]));
    reset_some(from);
    return ERR_OK;
}

static err_t hand_over(struct stream *s)
{
    struct some *filling = &s->slots[s->next % (s->slot_count + 1)];
    if (filling->dialogue_count == 0) return ERR_OK;
    if (pool_in_flight(s->pool) == s->slot_count) TRY(write_some(s));
    pool_put(s->pool, filling);
    s->next++;
    return ERR_OK;
}

static err_t stream_dialogue(void *context, const struct dialogue_text *d, int64_t source)
{
    struct stream *s = context;
    struct some *filling = &s->slots[s->next % (s->slot_count + 1)];
    TRY(add_dialogue(filling, &s->bench->options->template, d, source));
    return filling->text.size >= BATCH_TEXT_BYTES ? hand_over(s) : ERR_OK;
}

static err_t open_stream(struct stream *s, const char *dir)
{
    const struct bench *b = s->bench;
    struct shard_info info;
    s->slot_count = 2 * b->out->threads + 1;
    s->slots = calloc((size_t)s->slot_count + 1, sizeof *s->slots);
    s->runs = calloc(CORPUS_TURNS_MAX, sizeof *s->runs);
    if (s->slots == NULL || s->runs == NULL) RAISE(NOMEM, "batches of dialogues");
    TRY(chat_shard_info(&info, &b->options->template, b->tok));
    TRY(shard_writer_open(&s->writer, dir, &info, &b->options->shards));
    for (int64_t i = 0; i < b->options->source_count; i++)
        TRY(shard_writer_source(s->writer, b->options->source[i].name, "", ""));
    return pool_open(&s->pool, b->out->threads, s->slot_count, encode_some, b);
}

static err_t run_stream(struct bench *b)
{
    err_t rc = ERR_OK;
    char dir[FILE_PATH_MAX];
    struct stream s = { .bench = b };
    TRY(path_join(dir, b->dir, "stream"));
    begin(b);
    TRY_DONE(open_stream(&s, dir));
    TRY_DONE(read_sources(b, stream_dialogue, &s));
    TRY_DONE(hand_over(&s));
    while (pool_in_flight(s.pool) > 0) TRY_DONE(write_some(&s));
    TRY_DONE(shard_writer_commit(s.writer, NULL));
done:
    pool_close(s.pool);
    shard_writer_close(s.writer);
    for (int64_t i = 0; s.slots != NULL && i <= s.slot_count; i++) clear_some(&s.slots[i]);
    free(s.slots);
    free(s.runs);
    end(b, BENCH_STREAM);
    return rc;
}

/* ---- the whole, and what trains on it ---- */

static err_t run_prepare(struct bench *b, const char *dir)
{
    struct prepare_options o = *b->options;
    struct prepare_counts *counts = calloc(1, sizeof *counts);
    if (counts == NULL) RAISE(NOMEM, "the counters of a preparation");
    o.out = dir;
    o.resume = false;
    begin(b);
    const err_t rc = prepare_run(counts, &o);
    end(b, BENCH_PREPARE);
    free(counts);
    return rc;
}

static err_t take_all(struct bench *b, struct batcher *batcher)
{
    err_t rc = ERR_OK;
    struct loader *loader;
    const struct step_plan *plan;
    const struct loaded *got;
    const struct loader_spec spec = { .step_end = batcher_steps_per_epoch(batcher),
                                      .lane_end = 1,
                                      .ahead = 4 };
    TRY(loader_open(&loader, batcher, &spec));
    for (int64_t step = 0; step < spec.step_end; step++) {
        TRY_DONE(loader_plan(loader, &plan));
        b->out->load_rows += plan->rows;
        for (int64_t i = 0; i < plan->micro_count[0]; i++) {
            TRY_DONE(loader_take(loader, &got));
            loader_give_back(loader);
        }
    }
    b->out->load_waited_s = loader_waited_s(loader);
done:
    loader_close(loader);
    return rc;
}

static err_t run_loader(struct bench *b, const char *dir)
{
    err_t rc = ERR_OK;
    struct shards *shards = NULL;
    struct sample_set *set = NULL;
    struct batcher *batcher = NULL;
    const int64_t pack = REPORT_LIMITS.pack_len;
    const struct batch_spec spec = { .unit = BATCH_TOKENS,
                                     .size = 8 * pack,
                                     .lanes = 1,
                                     .micro_tokens = 8 * pack,
                                     .pack_len = pack,
                                     .seed = 42 };
    TRY_DONE(shards_open(&shards, dir, false));
    TRY_DONE(sample_set_open(&set, shards, SPLIT_TRAIN, &REPORT_LIMITS.sample));
    TRY_DONE(batcher_open(&batcher, set, &spec));
    begin(b);
    TRY_DONE(take_all(b, batcher));
    end(b, BENCH_LOAD);
done:
    batcher_close(batcher);
    sample_set_close(set);
    shards_close(shards);
    return rc;
}

static err_t open_bench(struct bench *b)
{
    const struct prepare_options *o = b->options;
    if (strlen(o->out) + sizeof ".bench" > sizeof b->dir)
        RAISE(ARG, "path is too long: %s", o->out);
    snprintf(b->dir, sizeof b->dir, "%.*s.bench", (int)strlen(o->out), o->out);
    if (dir_exists(b->dir)) RAISE(ARG, "%s exists; the benchmark would write there", b->dir);
    TRY(dir_create(b->dir));
    b->created = true;
    TRY(tok_open(&b->tok, o->tokenizer));
    return prepare_rules_open(&b->rules, o);
}

static err_t run_parts(struct bench *b)
{
    char dir[FILE_PATH_MAX];
    TRY(path_join(dir, b->dir, "whole"));
    begin(b);
    TRY(read_sources(b, NULL, NULL));
    end(b, BENCH_PARSE);
    TRY(read_sources(b, keep_dialogue, b));
    TRY(work_on_all(b, BENCH_TOKENIZE, tokenize_some));
    count_strings(b);
    TRY(work_on_all(b, BENCH_CLEAN, clean_some));
    TRY(work_on_all(b, BENCH_SIGN, sign_some));
    for (int64_t i = 0; i < b->all_count; i++) clear_some(&b->all[i]);
    b->all_count = 0;
    TRY(run_stream(b));
    TRY(run_prepare(b, dir));
    return run_loader(b, dir);
}

err_t prepare_bench_run(struct prepare_bench *out, const struct prepare_options *o)
{
    err_t rc = ERR_OK;
    struct bench b = { .options = o, .out = out };
    *out = (struct prepare_bench){ .threads = o->threads };
    if (out->threads == 0)
        out->threads = max_i64(1, min_i64(sysconf(_SC_NPROCESSORS_ONLN), PREPARE_THREADS_MAX));
    TRY_DONE(open_bench(&b));
    TRY_DONE(run_parts(&b));
done:
    for (int64_t i = 0; i < b.all_count; i++) clear_some(&b.all[i]);
    free(b.all);
    clean_rules_close(b.rules);
    tok_close(b.tok);
    if (b.created) {
        const struct err_record cause = *err_last(); /* cleaning up must not hide why */
        if (dir_remove(b.dir) != ERR_OK) LOG_W("bench", "left behind: %s", err_last()->text);
        err_adopt(&cause);
    }
    return rc;
}
