#include "data/prepare_survey.h"

#include "base/num.h"
#include "base/progress.h"
#include "base/utf8.h"
#include "data/pool.h"
#include "data/prepare_batch.h"
#include "data/prepare_spool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Some dialogues of one source on their way to the spool. */
struct raw_dialogue {
    int64_t topic_off, turn_first, turn_count;
};
struct raw_turn {
    enum role role;
    int64_t text_off, size;
};
struct survey_batch {
    int64_t source;
    struct buf text; /* of turns and topics, each topic with a NUL */
    struct raw_dialogue *dialogues;
    struct raw_turn *turns;
    int64_t dialogue_count, dialogue_capacity, turn_count, turn_capacity;

    struct buf spooled; /* records of what is left */
    struct spool_row *rows;
    int64_t row_count, row_capacity;
    struct clean_found found;
    struct clean_dialogue clean; /* reused by the worker */
    struct dedup_work work;
    struct turn_text *text_turns; /* [CORPUS_TURNS_MAX] of one dialogue: as read, then as tidied */
};

struct survey_context {
    const struct prepare_options *options;
    const struct clean_rules *rules;
};

struct survey {
    const struct prepare_options *options;
    struct prepare_counts *counts;
    struct survey_context context;
    struct spool_writer spool;
    struct pool *pool;
    struct survey_batch *batches; /* [slot_count + 1]: one is being filled */
    int64_t slot_count, batch_next;
    struct progress progress;
    int64_t progress_bytes; /* of one of its units */
    int64_t bytes_before; /* of the sources read completely */
};

/* ---- a worker's part ---- */

/* Source and topic in one number; by name, so that the order of sources does not matter. */
static uint64_t stratum_of(const char *source, const char *topic)
{
    struct sha256 sum;
    uint8_t digest[SHA256_BYTES];
    uint64_t stratum;
    sha256_init(&sum);
    sha256_update(&sum, source, strlen(source) + 1);
    sha256_update(&sum, topic, strlen(topic));
    sha256_final(&sum, digest);
    memcpy(&stratum, digest, sizeof stratum);
    return stratum;
}

static err_t spool_dialogue(struct survey_batch *b, const struct survey_context *c,
                            const char *raw_topic)
{
    char topic[SHARD_TEXT_MAX];
    struct dedup_signature sign;
    const struct clean_dialogue *d = &b->clean;
    for (int64_t i = 0; i < d->turn_count; i++)
        b->text_turns[i] =
            (struct turn_text){ d->turns[i].role, d->turns[i].text, d->turns[i].size };
    TRY(dedup_sign(&sign, &b->work, b->text_turns, d->turn_count));
    prepare_topic(topic, raw_topic);
    struct spool_row *row = &b->rows[b->row_count++];
    *row = (struct spool_row){
        .text_off = (int64_t)b->spooled.size,
        .exact = sign.exact,
        .opening = sign.opening,
        .stratum = stratum_of(c->options->source[b->source].name, topic),
        .turn_count = (int32_t)d->turn_count,
        .chars = sign.chars,
        .source = (int32_t)b->source,
    };
    memcpy(row->band, sign.band, sizeof row->band);
    prepare_hash(row->hash, d);
    TRY(spool_encode(&b->spooled, d, topic));
    row->text_size = (int32_t)((int64_t)b->spooled.size - row->text_off);
    return ERR_OK;
}

static err_t survey_work(const void *context, void *batch)
{
    const struct survey_context *c = context;
    struct survey_batch *b = batch;
    for (int64_t i = 0; i < b->dialogue_count; i++) {
        const struct raw_dialogue *raw = &b->dialogues[i];
        for (int64_t k = 0; k < raw->turn_count; k++) {
            const struct raw_turn *t = &b->turns[raw->turn_first + k];
            b->text_turns[k] = (struct turn_text){ t->role, b->text.data + t->text_off, t->size };
        }
        const struct dialogue_text d = { .turns = b->text_turns, .turn_count = raw->turn_count };
        TRY(clean_load(&b->clean, &d));
        clean_apply(c->rules, &b->clean, &b->found);
        if (!b->clean.dropped) TRY(spool_dialogue(b, c, b->text.data + raw->topic_off));
    }
    return ERR_OK;
}

/* ---- the reader's part ---- */

static struct survey_batch *filling(struct survey *s)
{
    return &s->batches[s->batch_next % (s->slot_count + 1)];
}

static void reset_batch(struct survey_batch *b)
{
    buf_reset(&b->text);
    buf_reset(&b->spooled);
    b->dialogue_count = b->turn_count = b->row_count = 0;
    memset(b->found.count, 0, sizeof b->found.count);
    memset(b->found.example_count, 0, sizeof b->found.example_count);
}

static void clear_batch(struct survey_batch *b)
{
    buf_clear(&b->text);
    buf_clear(&b->spooled);
    clean_clear(&b->clean);
    dedup_work_clear(&b->work);
    free(b->dialogues);
    free(b->turns);
    free(b->rows);
    free(b->text_turns);
}

/* Wait for the oldest batch and spool it. */
static err_t take_batch(struct survey *s)
{
    void *item;
    TRY(pool_take(s->pool, &item));
    struct survey_batch *b = item;
    struct prepare_source_counts *source = &s->counts->source[b->source];
    TRY(spool_writer_append(&s->spool, b->rows, b->row_count, &b->spooled));
    clean_found_add(&s->counts->found, &b->found);
    for (int64_t i = 0; i < CLEAN_RULE_COUNT; i++) source->rule[i] += b->found.count[i];
    source->dropped += b->dialogue_count - b->row_count;
    s->counts->tidied += b->row_count;
    reset_batch(b);
    return ERR_OK;
}

static err_t hand_over(struct survey *s)
{
    struct survey_batch *b = filling(s);
    if (b->dialogue_count == 0) return ERR_OK;
    ARRAY_GROW(b->rows, b->row_capacity, b->dialogue_count);
    if (pool_in_flight(s->pool) == s->slot_count) TRY(take_batch(s));
    pool_put(s->pool, b);
    s->batch_next++;
    return ERR_OK;
}

static err_t take_dialogue(struct survey *s, const struct dialogue_text *d, int64_t source)
{
    struct survey_batch *b = filling(s);
    s->counts->read++;
    s->counts->source[source].dialogues++;
    ARRAY_GROW(b->dialogues, b->dialogue_capacity, b->dialogue_count + 1);
    ARRAY_GROW(b->turns, b->turn_capacity, b->turn_count + d->turn_count);
    b->source = source;
    b->dialogues[b->dialogue_count++] =
        (struct raw_dialogue){ (int64_t)b->text.size, b->turn_count, d->turn_count };
    TRY(buf_append(&b->text, d->topic, strlen(d->topic) + 1));
    for (int64_t i = 0; i < d->turn_count; i++) {
        const struct turn_text *t = &d->turns[i];
        b->turns[b->turn_count++] = (struct raw_turn){ t->role, (int64_t)b->text.size, t->size };
        TRY(buf_append(&b->text, t->text, (size_t)t->size));
    }
    return b->text.size >= BATCH_TEXT_BYTES ? hand_over(s) : ERR_OK;
}

static bool enough(const struct survey *s)
{
    return s->options->max_dialogues > 0 && s->counts->read == s->options->max_dialogues;
}

static void show_progress(struct survey *s, const struct corpus *c)
{
    int64_t done, total;
    corpus_position(c, &done, &total);
    progress_update(&s->progress, (s->bytes_before + done) / s->progress_bytes, "%lld dialogues",
                    (long long)s->counts->read);
}

static err_t read_source(struct survey *s, int64_t source)
{
    err_t rc = ERR_OK;
    const struct prepare_options *o = s->options;
    struct prepare_source_counts *counts = &s->counts->source[source];
    struct corpus *c = NULL;
    struct dialogue_text d;
    bool found = true;
    int64_t done;
    TRY(corpus_open(&c, o->source[source].path, o->form, o->on_bad_record));
    while (!enough(s)) {
        TRY_DONE(prepare_check_stop(o));
        TRY_DONE(corpus_next(c, &d, &found));
        if (!found) break;
        TRY_DONE(take_dialogue(s, &d, source));
        show_progress(s, c);
    }
    TRY_DONE(hand_over(s)); /* a batch has one source */
    corpus_position(c, &done, &counts->bytes);
    counts->text_bytes = corpus_text_bytes(c);
    counts->form = corpus_form(c);
    snprintf(counts->layout, sizeof counts->layout, "%s", corpus_layout_name(c));
    snprintf(counts->packing, sizeof counts->packing, "%s", corpus_packing_name(c));
    counts->bad_records = corpus_skipped(c);
    s->counts->bad_records += counts->bad_records;
    s->bytes_before += counts->bytes;
    if (!found && counts->dialogues == 0)
        RAISE_DONE(FORMAT, "%s: no dialogue in %lld bytes, %lld bad records",
                   o->source[source].path, (long long)counts->bytes,
                   (long long)counts->bad_records);
done:
    corpus_close(c);
    return rc;
}

/* ---- the whole ---- */

static err_t check_usable(const struct survey *s)
{
    err_t rc = ERR_OK;
    struct buf why = { 0 };
    if (s->counts->tidied > 0) return ERR_OK;
    for (int64_t i = 0; i < CLEAN_RULE_COUNT; i++)
        if (s->counts->found.count[i] > 0)
            TRY_DONE(buf_printf(&why, ", %s %lld", clean_rule_at(i)->name,
                                (long long)s->counts->found.count[i]));
    RAISE_DONE(FORMAT, "prepare: none of %lld dialogues can be used: bad records %lld%s",
               (long long)s->counts->read, (long long)s->counts->bad_records,
               why.data ? why.data : "");
done:
    buf_clear(&why);
    return rc;
}

static err_t open_survey(struct survey *s, const char *dir, int64_t threads)
{
    s->slot_count = 2 * threads + 1; /* workers stay busy while one batch is spooled */
    s->batches = calloc((size_t)s->slot_count + 1, sizeof *s->batches);
    if (s->batches == NULL) RAISE(NOMEM, "batches for %lld threads", (long long)threads);
    for (int64_t i = 0; i <= s->slot_count; i++) {
        struct survey_batch *b = &s->batches[i];
        b->text_turns = calloc(CORPUS_TURNS_MAX, sizeof *b->text_turns);
        if (b->text_turns == NULL)
            RAISE(NOMEM, "batches for %lld threads", (long long)threads);
    }
    TRY(spool_writer_open(&s->spool, dir));
    return pool_open(&s->pool, threads, s->slot_count, survey_work, &s->context);
}

static void close_survey(struct survey *s)
{
    pool_close(s->pool); /* first: workers use what follows */
    for (int64_t i = 0; s->batches != NULL && i <= s->slot_count; i++) clear_batch(&s->batches[i]);
    free(s->batches);
    spool_writer_close(&s->spool);
}

err_t prepare_survey(struct prepare_counts *counts, const struct prepare_options *o,
                     const struct clean_rules *rules, const char *dir, int64_t threads)
{
    err_t rc = ERR_OK;
    struct survey s = { .options = o, .counts = counts, .context = { o, rules } };
    int64_t bytes;
    TRY(prepare_source_bytes(&bytes, o));
    s.progress_bytes = bytes < 10000000 ? 1000 : 1000000;
    progress_begin(&s.progress, "read", s.progress_bytes == 1000 ? "kB" : "MB",
                   bytes / s.progress_bytes);
    TRY_DONE(open_survey(&s, dir, threads));
    for (int64_t i = 0; i < o->source_count && !enough(&s); i++) TRY_DONE(read_source(&s, i));
    while (pool_in_flight(s.pool) > 0) TRY_DONE(take_batch(&s));
    TRY_DONE(check_usable(&s));
    TRY_DONE(spool_writer_commit(&s.spool));
done:
    progress_end(&s.progress);
    close_survey(&s);
    return rc;
}
