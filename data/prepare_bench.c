#include "data/prepare_bench.h"

#include "base/log.h"
#include "base/num.h"
#include "base/progress.h"
#include "data/dedup.h"
#include "data/pool.h"
#include "data/prepare_bench_parts.h"
#include "data/prepare_work.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

const char *const prepare_bench_names[BENCH_PREPARE_PARTS] = {
    "parse", "tokenize", "library", "stream", "clean", "sign", "prepare", "first", "random", "load"
};

/* ---- time ---- */

static double cpu_now_s(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

void bench_begin(struct bench *b)
{
    b->wall_begin_s = time_now_s();
    b->cpu_begin_s = cpu_now_s();
}

void bench_end(struct bench *b, enum prepare_bench_part part)
{
    b->out->wall_s[part] = time_now_s() - b->wall_begin_s;
    b->out->cpu_s[part] = cpu_now_s() - b->cpu_begin_s;
}

/* ---- dialogues ---- */

void some_reset(struct some *s)
{
    buf_reset(&s->text);
    i32_buf_reset(&s->ids);
    s->line_count = s->dialogue_count = 0;
}

void some_clear(struct some *s)
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
    ARRAY_GROW(s->lines, s->line_capacity, s->line_count + 1);
    struct line *l = &s->lines[s->line_count++];
    *l = (struct line){
        .role = turn->role, .target = target, .off = (int64_t)s->text.size, .size = turn->size
    };
    TRY(buf_printf(&s->text, "\n%s%s", name, t->separator));
    l->head = (int64_t)s->text.size - l->off;
    return buf_append(&s->text, turn->text, (size_t)turn->size);
}

/* Turns as they are in the source, but for those that no shard can hold. */
err_t some_add_dialogue(struct some *s, const struct chat_template *t,
                        const struct dialogue_text *d, int64_t source)
{
    const int64_t first = s->line_count;
    for (int64_t i = 0; i < d->turn_count; i++)
        if (d->turns[i].role != ROLE_SYSTEM && d->turns[i].size > 0)
            TRY(add_line(s, t, &d->turns[i],
                         s->line_count > first && d->turns[i].role == ROLE_COUNSELLOR));
    if (s->line_count == first) return ERR_OK;
    ARRAY_GROW(s->dialogues, s->dialogue_capacity, s->dialogue_count + 1);
    struct batch_dialogue *to = &s->dialogues[s->dialogue_count++];
    *to = (struct batch_dialogue){ .turn_first = first,
                                   .turn_count = s->line_count - first,
                                   .source = source,
                                   .split = SPLIT_TRAIN };
    prepare_topic(to->topic, d->topic);
    return ERR_OK;
}

/* ---- what workers do ---- */

/* The three runs of a line by themselves, and a hash of their ids (FNV-1a, by id). */
static err_t tokenize_line(struct some *s, uint64_t *hash, const struct line *l,
                           const struct tok *tok)
{
    const char *text = s->text.data + l->off;
    i32_buf_reset(&s->ids);
    TRY(tok_encode(tok, &s->ids, text, l->head + l->size, TOK_PLAIN));
    TRY(tok_encode(tok, &s->ids, text + 1, l->head + l->size - 1, TOK_PLAIN));
    if (l->target) TRY(tok_encode(tok, &s->ids, text + l->head, l->size, TOK_PLAIN));
    *hash = UINT64_C(0xcbf29ce484222325);
    for (int64_t i = 0; i < s->ids.count; i++)
        *hash = (*hash ^ (uint32_t)s->ids.data[i]) * UINT64_C(0x100000001b3);
    return ERR_OK;
}

static err_t tokenize_some(const void *context, void *item)
{
    const struct bench *b = context;
    struct some *s = item;
    s->token_count = 0;
    for (int64_t i = 0; i < s->line_count; i++) {
        TRY(tokenize_line(s, &s->lines[i].ids_hash, &s->lines[i], b->tok));
        s->token_count += s->ids.count;
    }
    return ERR_OK;
}

static err_t library_some(const void *context, void *item)
{
    const struct bench *b = context;
    struct some *s = item;
    uint64_t hash;
    s->other_count = 0;
    for (int64_t i = 0; i < s->line_count; i++) {
        TRY(tokenize_line(s, &hash, &s->lines[i], b->library));
        s->other_count += hash != s->lines[i].ids_hash;
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
    struct turn_text *turns = calloc((size_t)s->line_count + 1, sizeof *turns);
    struct dedup_work work = { 0 };
    struct dedup_signature sign;
    (void)context;
    if (turns == NULL) RAISE_DONE(NOMEM, "the turns of a dialogue");
    for (int64_t i = 0; i < s->line_count; i++) {
        const struct line *l = &s->lines[i];
        turns[i] = (struct turn_text){ l->role, s->text.data + l->off + l->head, l->size };
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
err_t bench_read_sources(struct bench *b,
                         err_t (*use)(void *, const struct dialogue_text *, int64_t), void *context)
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
            TRY_DONE(prepare_check_stop(o));
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
        ARRAY_GROW(b->all, b->all_capacity, b->all_count + 1);
        b->all[b->all_count++] = (struct some){ 0 };
    }
    return some_add_dialogue(&b->all[b->all_count - 1], &b->options->template, d, source);
}

static err_t work_on_all(struct bench *b, enum prepare_bench_part part, pool_work work)
{
    err_t rc = ERR_OK;
    struct pool *pool;
    void *item;
    const int64_t slots = 2 * b->out->threads + 1;
    bench_begin(b);
    TRY(pool_open(&pool, b->out->threads, slots, work, b));
    for (int64_t i = 0; i < b->all_count; i++) {
        TRY_DONE(prepare_check_stop(b->options));
        if (pool_in_flight(pool) == slots) TRY_DONE(pool_take(pool, &item));
        pool_put(pool, &b->all[i]);
    }
    while (pool_in_flight(pool) > 0) TRY_DONE(pool_take(pool, &item));
done:
    pool_close(pool);
    if (rc == ERR_OK) bench_end(b, part);
    return rc;
}

static void count_strings(struct bench *b)
{
    struct prepare_bench *out = b->out;
    for (int64_t i = 0; i < b->all_count; i++) {
        const struct some *s = &b->all[i];
        out->tokens += s->token_count;
        out->other_lines += s->other_count;
        out->turns += s->line_count;
        for (int64_t k = 0; k < s->line_count; k++) {
            const struct line *l = &s->lines[k];
            out->strings += 2 + l->target;
            out->string_bytes += 2 * (l->head + l->size) - 1 + l->target * l->size;
        }
    }
}

/* ---- the whole ---- */

static err_t run_prepare(struct bench *b, const char *dir)
{
    struct prepare_options o = *b->options;
    struct prepare_counts *counts = calloc(1, sizeof *counts);
    if (counts == NULL) RAISE(NOMEM, "the counters of a preparation");
    o.out = dir;
    o.resume = false;
    bench_begin(b);
    const err_t rc = prepare_run(counts, &o);
    if (rc == ERR_OK) bench_end(b, BENCH_PREPARE);
    free(counts);
    return rc;
}

/* Where our own encoder does the work, the library is there to be compared with. */
static err_t open_library(struct bench *b)
{
    if (tok_family(b->tok) != TOK_CHATGLM) return ERR_OK;
    const err_t rc = tok_open_library(&b->library, b->options->tokenizer);
    return rc == ERR_UNSUPPORTED ? ERR_OK : rc;
}

static err_t open_bench(struct bench *b)
{
    const struct prepare_options *o = b->options;
    TRY(prepare_path_beside(b->dir, o, ".bench"));
    if (dir_exists(b->dir)) RAISE(ARG, "%s exists; the benchmark would write there", b->dir);
    TRY(dir_create(b->dir));
    b->created = true;
    TRY(tok_open(&b->tok, o->tokenizer));
    TRY(open_library(b));
    return prepare_rules_open(&b->rules, o);
}

static err_t run_parts(struct bench *b)
{
    char dir[FILE_PATH_MAX];
    TRY(path_join(dir, b->dir, "whole"));
    bench_begin(b);
    TRY(bench_read_sources(b, NULL, NULL));
    bench_end(b, BENCH_PARSE);
    TRY(bench_read_sources(b, keep_dialogue, b));
    TRY(work_on_all(b, BENCH_TOKENIZE, tokenize_some));
    if (b->library != NULL) TRY(work_on_all(b, BENCH_LIBRARY, library_some));
    count_strings(b);
    TRY(work_on_all(b, BENCH_CLEAN, clean_some));
    TRY(work_on_all(b, BENCH_SIGN, sign_some));
    for (int64_t i = 0; i < b->all_count; i++) some_clear(&b->all[i]);
    b->all_count = 0;
    TRY(bench_run_stream(b));
    TRY(run_prepare(b, dir));
    return bench_run_load(b, dir);
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
    for (int64_t i = 0; i < b.all_count; i++) some_clear(&b.all[i]);
    free(b.all);
    clean_rules_close(b.rules);
    tok_close(b.tok);
    tok_close(b.library);
    if (b.created) {
        const struct err_record cause = *err_last(); /* cleaning up must not hide why */
        if (dir_remove(b.dir) != ERR_OK) LOG_W("bench", "left behind: %s", err_last()->text);
        err_adopt(&cause);
    }
    return rc;
}
