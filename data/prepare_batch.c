#include "data/prepare_batch.h"

#include "base/check.h"
#include "base/digest.h"
#include "base/num.h"
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

/* ---- shared ---- */

void prepare_topic(char out[SHARD_TEXT_MAX], const char *topic)
{
    const int64_t size = min_i64((int64_t)strlen(topic), SHARD_TEXT_MAX - 1);
    memset(out, 0, SHARD_TEXT_MAX);
    memcpy(out, topic, (size_t)utf8_valid_prefix(topic, size));
}

void prepare_hash(uint8_t hash[8], const struct clean_dialogue *d)
{
    struct sha256 sum;
    uint8_t digest[SHA256_BYTES];
    sha256_init(&sum);
    for (int64_t i = 0; i < d->turn_count; i++) {
        const struct clean_turn *t = &d->turns[i];
        const uint8_t role = (uint8_t)t->role;
        sha256_update(&sum, &role, 1);
        sha256_update(&sum, &t->size, sizeof t->size);
        sha256_update(&sum, t->text, (size_t)t->size);
    }
    sha256_final(&sum, digest);
    memcpy(hash, digest, 8);
}

err_t prepare_check_stop(const struct prepare_options *o)
{
    if (o->stop != NULL && o->stop(o->stop_context))
        RAISE(INTERRUPTED, "prepare: stopped on request; %s is as it was", o->out);
    return ERR_OK;
}

err_t prepare_source_bytes(int64_t *total, const struct prepare_options *o)
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

/* ---- a batch ---- */

static err_t take_row(struct prepare_batch *b, const struct batch_context *c, int64_t index)
{
    const struct spool_row *row = &b->rows[index];
    const struct prepare_options *o = c->options;
    const char *topic, *record = b->text.data + (row->text_off - b->rows[0].text_off);
    int64_t topic_size;
    ARRAY_GROW(b->dialogues, b->dialogue_capacity, b->dialogue_count + 1);
    ARRAY_GROW(b->turns, b->turn_capacity, b->turn_count + row->turn_count);
    TRY(spool_decode(b->texts, b->text_flags, &topic, &topic_size, record, row->text_size,
                     row->turn_count));
    struct batch_dialogue *d = &b->dialogues[b->dialogue_count++];
    *d = (struct batch_dialogue){ .turn_first = b->turn_count,
                                  .turn_count = row->turn_count,
                                  .source = row->source,
                                  .split = (enum split)b->fate[index] };
    ASSERT(topic_size < SHARD_TEXT_MAX);
    memcpy(d->topic, topic, (size_t)topic_size);
    memcpy(d->hash, row->hash, sizeof d->hash);
    for (int64_t i = 0; i < row->turn_count; i++) {
        struct batch_turn *t = &b->turns[b->turn_count++];
        const bool trained = i > 0 && !(b->text_flags[i] & CLEAN_TURN_CONTEXT);
        *t = (struct batch_turn){ .role = b->texts[i].role };
        if (b->text_flags[i] & CLEAN_TURN_CRISIS) t->flags |= TURN_CRISIS;
        TRY(chat_turn_encode(&b->ids, &t->runs, c->tok, &o->template, &b->texts[i], trained));
    }
    return ERR_OK;
}

err_t prepare_batch_work(const void *context, void *batch)
{
    const struct batch_context *c = context;
    struct prepare_batch *b = batch;
    if (b->texts == NULL) b->texts = calloc(CORPUS_TURNS_MAX, sizeof *b->texts);
    if (b->text_flags == NULL) b->text_flags = calloc(CORPUS_TURNS_MAX, sizeof *b->text_flags);
    if (b->texts == NULL || b->text_flags == NULL) RAISE(NOMEM, "the turns of a dialogue");
    TRY(spool_text(c->spool, &b->text, b->rows, b->count));
    for (int64_t i = 0; i < b->count; i++)
        if (b->fate[i] < SPLIT_COUNT) TRY(take_row(b, c, i));
    return ERR_OK;
}

void prepare_batch_reset(struct prepare_batch *b)
{
    buf_reset(&b->text);
    i32_buf_reset(&b->ids);
    b->count = b->turn_count = b->dialogue_count = 0;
}

void prepare_batch_clear(struct prepare_batch *b)
{
    buf_clear(&b->text);
    i32_buf_clear(&b->ids);
    free(b->turns);
    free(b->dialogues);
    free(b->texts);
    free(b->text_flags);
}
