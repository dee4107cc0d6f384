#include "batch_fixture.h"

#include "testing.h"

#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUN_MAX 2048

static const int32_t head[FIXTURE_HEAD_LEN] = { 5, 78, 12 };
static const int32_t cue[FIXTURE_CUE_LEN] = { 4, 77, 12 };

struct shard_info fixture_info(enum tok_family family)
{
    struct shard_info info;
    memset(&info, 0, sizeof info); /* compared byte by byte */
    info.family = family;
    info.vocab_size = FIXTURE_VOCAB;
    info.split_seed = 1;
    memset(info.tokenizer_sha256, 'a', SHA256_HEX_SIZE - 1);
    strcpy(info.client_name, "用户");
    strcpy(info.counsellor_name, "心理咨询师");
    strcpy(info.separator, "：");
    info.specials = (struct tok_specials){ .unk = 0,
                                           .pad = 3,
                                           .mask = 900,
                                           .gmask = 901,
                                           .smask = 902,
                                           .sop = 904,
                                           .eop = 905,
                                           .eos = 2,
                                           .newline = 4,
                                           .space = 5 };
    memcpy(info.cue, cue, sizeof cue);
    info.cue_len = FIXTURE_CUE_LEN;
    memcpy(info.client_head, head, sizeof head);
    info.client_head_len = FIXTURE_HEAD_LEN;
    return info;
}

static int32_t text_token(int64_t d, int64_t t, int64_t kind, int64_t k)
{
    return (int32_t)(100 + (d * 131 + t * 37 + kind * 211 + k * 7) % 800);
}

int32_t fixture_ctx(int32_t *out, const struct fixture_turn *turn, int64_t d, int64_t t)
{
    const int32_t role = turn->role == ROLE_CLIENT ? 78 : 77;
    const int32_t name[FIXTURE_HEAD_LEN] = { 4, role, 12 };
    ASSERT(turn->ctx_len >= FIXTURE_HEAD_LEN && turn->ctx_len <= RUN_MAX);
    memcpy(out, name, sizeof name);
    for (int32_t k = FIXTURE_HEAD_LEN; k < turn->ctx_len; k++) out[k] = text_token(d, t, 0, k);
    return turn->ctx_len;
}

int32_t fixture_first(int32_t *out, const struct fixture_turn *turn, int64_t d, int64_t t)
{
    if (turn->first_len == 0) {
        const int32_t len = fixture_ctx(out, turn, d, t);
        out[0] = 5;
        return len;
    }
    for (int32_t k = 0; k < turn->first_len; k++)
        out[k] = k < FIXTURE_HEAD_LEN ? head[k] : text_token(d, t, 1, k);
    return turn->first_len;
}

int32_t fixture_target(int32_t *out, const struct fixture_turn *turn, int64_t d, int64_t t)
{
    for (int32_t k = 0; k < turn->target_len; k++) out[k] = text_token(d, t, 2, k);
    return turn->target_len;
}

static void add_dialogue(struct shard_writer *w, const struct fixture_dialogue *dialogue, int64_t d)
{
    const size_t turns = (size_t)dialogue->turn_count;
    int32_t(*run)[3][RUN_MAX] = malloc((turns + 1) * sizeof *run);
    struct turn_runs *runs = calloc(turns + 1, sizeof *runs);
    const uint8_t hash[8] = { (uint8_t)d };
    for (int64_t t = 0; t < dialogue->turn_count; t++) {
        const struct fixture_turn *turn = &dialogue->turns[t];
        struct turn_runs *r = &runs[t];
        r->role = turn->role;
        r->ctx = run[t][0];
        r->ctx_len = fixture_ctx(run[t][0], turn, d, t);
        if (turn->first_len > 0) {
            r->first = run[t][1];
            r->first_len = fixture_first(run[t][1], turn, d, t);
        }
        if (turn->role == ROLE_COUNSELLOR && turn->target_len >= 0) {
            r->target = run[t][2];
            r->target_len = fixture_target(run[t][2], turn, d, t);
        }
    }
    assert_ok(shard_writer_add(w, runs, dialogue->turn_count, dialogue->split, "made up",
                               d % 2 ? "exam" : "", hash));
    free(runs);
    free(run);
}

struct shards *fixture_open(const char *name, enum tok_family family,
                            const struct fixture_dialogue *dialogues, int64_t count)
{
    struct shard_writer *w = NULL;
    struct shards *shards = NULL;
    const struct shard_info info = fixture_info(family);
    const struct shard_writer_spec spec = { .tokens_per_shard = 2000, .replace = true };
    assert_ok(shard_writer_open(&w, testing_path(name), &info, &spec));
    for (int64_t d = 0; d < count; d++) add_dialogue(w, &dialogues[d], d);
    assert_ok(shard_writer_commit(w, "{}"));
    shard_writer_close(w);
    assert_ok(shards_open(&shards, testing_path(name), true));
    return shards;
}
