/*
 * batch_fixture.h - small prepared corpora whose tokens tell where they come from, and a naive way
 * to make samples of them.
 */
#ifndef TESTS_BATCH_FIXTURE_H
#define TESTS_BATCH_FIXTURE_H

#include "data/sample.h"
#include "data/shard.h"

#include <stdint.h>

/* Role-name pieces of the fixture: later lines begin 4 78 12, first lines 5 78 12, the cue is
 * 4 77 12. */
#define FIXTURE_HEAD_LEN 3
#define FIXTURE_CUE_LEN  3
#define FIXTURE_VOCAB    1000

/* A turn by its lengths; the tokens follow from its place. */
struct fixture_turn {
    enum role role;
    int32_t ctx_len;    /* at least FIXTURE_HEAD_LEN */
    int32_t first_len;  /* 0: the rule holds, nothing is stored */
    int32_t target_len; /* counsellor: the reply alone; -1: none */
};

struct fixture_dialogue {
    enum split split;
    int64_t turn_count;
    const struct fixture_turn *turns;
};

/* What its shards say of themselves; bytes between members are 0. */
struct shard_info fixture_info(enum tok_family family);

/* Write and open the corpus testing_path(name); the shards are the caller's. Fails the test. */
struct shards *fixture_open(const char *name, enum tok_family family,
                            const struct fixture_dialogue *dialogues, int64_t count);

/* Runs of a turn by definition; return the length. */
int32_t fixture_ctx(int32_t *out, const struct fixture_turn *turn, int64_t d, int64_t t);
int32_t fixture_first(int32_t *out, const struct fixture_turn *turn, int64_t d, int64_t t);
int32_t fixture_target(int32_t *out, const struct fixture_turn *turn, int64_t d, int64_t t);

#endif
