#include "data/prepare_batch.h"

#include "base/check.h"
#include "base/digest.h"
#include "base/num.h"
#include "data/utf8.h"

#include <stdlib.h>
#include <string.h>

static err_t grow(void **items, int64_t *capacity, int64_t wanted, size_t item_bytes)
{
    if (wanted <= *capacity) return ERR_OK;
    const int64_t larger = max_i64(wanted, 2 * *capacity);
    void *moved = realloc(*items, (size_t)larger * item_bytes);
    if (moved == NULL) RAISE(NOMEM, "a batch of %lld items", (long long)larger);
    *items = moved;
    *capacity = larger;
    return ERR_OK;
}

/* Topics are labels; one that is longer than the format takes is cut between characters. */
static void copy_topic(char out[SHARD_TEXT_MAX], const char *topic)
{
    const int64_t size = min_i64((int64_t)strlen(topic), SHARD_TEXT_MAX - 1);
    memset(out, 0, SHARD_TEXT_MAX);
    memcpy(out, topic, (size_t)utf8_valid_prefix(topic, size));
}

err_t prepare_batch_add(struct prepare_batch *b, const struct clean_dialogue *d, int64_t source,
                        const char *topic)
{
    void *items = b->dialogues;
    const err_t rc =
        grow(&items, &b->dialogue_capacity, b->dialogue_count + 1, sizeof *b->dialogues);
    b->dialogues = items;
    TRY(rc);
    items = b->turns;
    const err_t rc_turns =
        grow(&items, &b->turn_capacity, b->turn_count + d->turn_count, sizeof *b->turns);
    b->turns = items;
    TRY(rc_turns);

    struct batch_dialogue *row = &b->dialogues[b->dialogue_count++];
    *row = (struct batch_dialogue){ b->turn_count, d->turn_count, source, "", { 0 }, SPLIT_TRAIN };
    copy_topic(row->topic, topic);
    for (int64_t i = 0; i < d->turn_count; i++) {
        const struct clean_turn *t = &d->turns[i];
        struct batch_turn *turn = &b->turns[b->turn_count++];
        *turn = (struct batch_turn){ t->role, (int64_t)b->text.size, t->size, { 0 } };
        TRY(buf_append(&b->text, t->text, (size_t)t->size));
    }
    return ERR_OK;
}

static uint64_t load_u64(const uint8_t bytes[8])
{
    uint64_t value;
    memcpy(&value, bytes, sizeof value); /* little-endian machines only: base/check.h */
    return value;
}

/* sha256 over, for each turn: its role as one byte, its size as 8 bytes little-endian, its text. */
static void hash_dialogue(uint8_t hash[8], const struct prepare_batch *b,
                          const struct batch_dialogue *d)
{
    struct sha256 sum;
    uint8_t digest[SHA256_BYTES];
    sha256_init(&sum);
    for (int64_t i = 0; i < d->turn_count; i++) {
        const struct batch_turn *t = &b->turns[d->turn_first + i];
        const uint8_t role = (uint8_t)t->role;
        sha256_update(&sum, &role, 1);
        sha256_update(&sum, &t->size, sizeof t->size);
        sha256_update(&sum, b->text.data + t->text_off, (size_t)t->size);
    }
    sha256_final(&sum, digest);
    memcpy(hash, digest, 8);
}

enum split prepare_split(uint64_t seed, const uint8_t hash[8], int64_t validation_permyriad,
                         int64_t test_permyriad)
{
    struct sha256 sum;
    uint8_t digest[SHA256_BYTES];
    sha256_init(&sum);
    sha256_update(&sum, &seed, sizeof seed);
    sha256_update(&sum, hash, 8);
    sha256_final(&sum, digest);
    const int64_t place = (int64_t)(load_u64(digest) % 10000);
    if (place < validation_permyriad) return SPLIT_VALIDATION;
    return place < validation_permyriad + test_permyriad ? SPLIT_TEST : SPLIT_TRAIN;
}

static err_t tokenize(struct prepare_batch *b, const struct batch_context *c,
                      const struct batch_dialogue *d)
{
    for (int64_t i = 0; i < d->turn_count; i++) {
        struct batch_turn *t = &b->turns[d->turn_first + i];
        const struct turn_text text = { t->role, b->text.data + t->text_off, t->size };
        TRY(chat_turn_encode(&b->ids, &t->runs, c->tok, &c->options->template, &text, i > 0));
    }
    return ERR_OK;
}

err_t prepare_batch_work(const void *context, void *batch)
{
    const struct batch_context *c = context;
    struct prepare_batch *b = batch;
    const struct prepare_options *o = c->options;
    for (int64_t i = 0; i < b->dialogue_count; i++) {
        struct batch_dialogue *d = &b->dialogues[i];
        hash_dialogue(d->hash, b, d);
        d->split =
            prepare_split(o->split_seed, d->hash, o->validation_permyriad, o->test_permyriad);
        TRY(tokenize(b, c, d));
    }
    return ERR_OK;
}

void prepare_batch_reset(struct prepare_batch *b)
{
    buf_reset(&b->text);
    i32_buf_reset(&b->ids);
    b->turn_count = b->dialogue_count = 0;
}

void prepare_batch_clear(struct prepare_batch *b)
{
    buf_clear(&b->text);
    i32_buf_clear(&b->ids);
    free(b->turns);
    free(b->dialogues);
    *b = (struct prepare_batch){ 0 };
}
