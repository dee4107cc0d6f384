/* Parse, tokenize, write, in one pass: a preparation that trusts its corpus. */
#include "data/prepare_bench_parts.h"

#include "base/file.h"
#include "data/pool.h"

#include <stdlib.h>

static err_t encode_some(const void *context, void *item)
{
    const struct bench *b = context;
    struct some *s = item;
    ARRAY_GROW(s->turns, s->turn_capacity, s->line_count);
    for (int64_t i = 0; i < s->line_count; i++) {
        const struct line *l = &s->lines[i];
        const struct turn_text turn = { l->role, s->text.data + l->off + l->head, l->size };
        s->turns[i] = (struct batch_turn){ .role = l->role };
        TRY(chat_turn_encode(&s->ids, &s->turns[i].runs, b->tok, &b->options->template, &turn,
                             l->target));
    }
    return ERR_OK;
}

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
    some_reset(from);
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
    TRY(some_add_dialogue(filling, &s->bench->options->template, d, source));
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

err_t bench_run_stream(struct bench *b)
{
    err_t rc = ERR_OK;
    char dir[FILE_PATH_MAX];
    struct stream s = { .bench = b };
    TRY(path_join(dir, b->dir, "stream"));
    bench_begin(b);
    TRY_DONE(open_stream(&s, dir));
    TRY_DONE(bench_read_sources(b, stream_dialogue, &s));
    TRY_DONE(hand_over(&s));
    while (pool_in_flight(s.pool) > 0) TRY_DONE(write_some(&s));
    TRY_DONE(shard_writer_commit(s.writer, NULL));
done:
    pool_close(s.pool);
    shard_writer_close(s.writer);
    for (int64_t i = 0; s.slots != NULL && i <= s.slot_count; i++) some_clear(&s.slots[i]);
    free(s.slots);
    free(s.runs);
    if (rc == ERR_OK) bench_end(b, BENCH_STREAM);
    return rc;
}
