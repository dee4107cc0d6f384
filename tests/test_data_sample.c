/* sample.h against the definition of a prompt written as concatenation, and at its limits. */
#include "testing.h"
#include "tok_fixture.h"

#include "batch_fixture.h"

#include "base/check.h"
#include "base/rng.h"
#include "data/batch.h"
#include "data/chat.h"
#include "data/corpus.h"

#include <stdlib.h>
#include <string.h>

#define CLIENT(ctx)                                                                                \
    {                                                                                              \
        .role = ROLE_CLIENT, .ctx_len = (ctx), .target_len = -1                                    \
    }
#define COUNSELLOR(ctx, target)                                                                    \
    {                                                                                              \
        .role = ROLE_COUNSELLOR, .ctx_len = (ctx), .target_len = (target)                          \
    }

static const struct sample_limits wide = { .max_input = 1536, .max_target = 512 };

static struct sample_set *open_set(struct shards *shards, enum split split,
                                   const struct sample_limits *limits)
{
    struct sample_set *set = NULL;
    assert_ok(sample_set_open(&set, shards, split, limits));
    return set;
}

static void test_by_hand(void **state)
{
    (void)state;
    const struct fixture_turn turns[] = { CLIENT(4), COUNSELLOR(5, 3), CLIENT(4),
                                          COUNSELLOR(4, 1) };
    const struct fixture_dialogue dialogue = { SPLIT_TRAIN, 4, turns };
    struct shards *shards = fixture_open("hand", TOK_CHATGLM, &dialogue, 1);
    struct sample_set *set = open_set(shards, SPLIT_TRAIN, &wide);
    assert_int_equal(sample_set_count(set), 2);

    int32_t ids[64], pos[64], block[64], ctx[4][8], target[8];
    struct seq seq;
    for (int64_t t = 0; t < 4; t++) fixture_ctx(ctx[t], &turns[t], 0, t);

    /* First reply: one line of four tokens and the cue, [gMASK] <sop>, three tokens, <eop>. */
    const struct sample *s = sample_set_at(set, 0);
    assert_true(s->turn == 1 && s->turn_first == 0 && s->prompt_len == 7 && s->reply_len == 3);
    assert_int_equal(s->len, 13);
    assert_int_equal(sample_target_count(set, 0), 5);
    assert_ok(sample_fill(set, 0, &seq, ids, pos, block));
    fixture_target(target, &turns[1], 0, 1);
    const int32_t first[] = { 5,   78,  12,        ctx[0][3], 4,         77, 12,
                              901, 904, target[0], target[1], target[2], 905 };
    assert_memory_equal(ids, first, sizeof first);
    assert_true(seq.len == 13 && seq.ctx == 8 && seq.target_first == 7 && seq.target_count == 5);

    /* Second reply: three lines. */
    assert_ok(sample_fill(set, 1, &seq, ids, pos, block));
    fixture_target(target, &turns[3], 0, 3);
    const int32_t second[] = {
        5,  78, 12,        ctx[0][3], 4,  77, 12,  ctx[1][3], ctx[1][4], 4,
        78, 12, ctx[2][3], 4,         77, 12, 901, 904,       target[0], 905
    };
    assert_memory_equal(ids, second, sizeof second);
    assert_int_equal(seq.len, 20);
    assert_int_equal(pos[19], 16);
    assert_int_equal(block[19], 3);

    const struct sample_counts *c = sample_set_counts(set);
    assert_true(c->samples == 2 && c->rows == 33 && c->trained_tokens == 8);
    assert_int_equal(sample_set_lens(set)[1], 20);
    assert_int_equal(sample_set_target_counts(set)[1], 3);
    sample_set_close(set);
    shards_close(shards);
}

/* Which turns become samples: counsellor's, with something before, with a reply; by split. */
static void test_which_turns(void **state)
{
    (void)state;
    const struct fixture_turn opens[] = { COUNSELLOR(5, 3), CLIENT(4), CLIENT(5), COUNSELLOR(6, 2),
                                          COUNSELLOR(4, -1) };
    const struct fixture_turn single[] = { CLIENT(9) };
    const struct fixture_turn pair[] = { CLIENT(4), COUNSELLOR(4, 1) };
    const struct fixture_dialogue dialogues[] = { { SPLIT_TRAIN, 5, opens },
                                                  { SPLIT_TEST, 1, single },
                                                  { SPLIT_TRAIN, 1, single },
                                                  { SPLIT_VALIDATION, 2, pair } };
    struct shards *shards = fixture_open("which", TOK_CHATGLM, dialogues, 4);
    struct sample_set *set = open_set(shards, SPLIT_TRAIN, &wide);
    assert_int_equal(sample_set_count(set), 1);
    assert_int_equal(sample_set_at(set, 0)->turn, 3);
    assert_int_equal(sample_set_at(set, 0)->turn_first, 0); /* a counsellor may open a prompt */
    sample_set_close(set);
    set = open_set(shards, SPLIT_VALIDATION, &wide);
    assert_int_equal(sample_set_count(set), 1);
    assert_int_equal(sample_set_at(set, 0)->dialogue, 3);
    sample_set_close(set);
    set = open_set(shards, SPLIT_TEST, &wide);
    assert_int_equal(sample_set_count(set), 0);
    sample_set_close(set);
    shards_close(shards);
}

/* ---- random corpora against the definition ---- */

enum { DIALOGUES = 60, TURNS = 12 };

static void random_dialogues(struct fixture_dialogue *dialogues,
                             struct fixture_turn (*turns)[TURNS], uint64_t seed)
{
    for (int64_t d = 0; d < DIALOGUES; d++) {
        const int64_t count = 1 + (int64_t)(rng_u64(seed, RNG_TEST, (uint64_t)d) % TURNS);
        for (int64_t t = 0; t < count; t++) {
            const uint64_t r = rng_u64(seed, RNG_TEST, (uint64_t)(1000 + d * TURNS + t));
            turns[d][t] = (struct fixture_turn){
                .role = t % 2 ? ROLE_COUNSELLOR : ROLE_CLIENT,
                .ctx_len = (int32_t)(4 + r % 30),
                /* Sometimes stored, a little longer or shorter than the rule would give. */
                .first_len = (r >> 8) % 3 == 0 ? (int32_t)(4 + (r >> 16) % 32) : 0,
                .target_len = t % 2 ? (int32_t)(1 + (r >> 32) % 24) : -1,
            };
        }
        dialogues[d] = (struct fixture_dialogue){ SPLIT_TRAIN, count, turns[d] };
    }
}

/* The prompt of `turn` beginning at `first`, by concatenation. */
static int64_t concatenate(int32_t *out, const struct fixture_dialogue *dialogue, int64_t d,
                           int64_t first, int64_t turn)
{
    static const int32_t cue[] = { 4, 77, 12 };
    int64_t n = fixture_first(out, &dialogue->turns[first], d, first);
    for (int64_t t = first + 1; t < turn; t++) n += fixture_ctx(out + n, &dialogue->turns[t], d, t);
    memcpy(out + n, cue, sizeof cue);
    return n + FIXTURE_CUE_LEN;
}

/* The definition: drop oldest turns, then the oldest tokens after the role name. */
static int64_t naive_prompt(int32_t *out, const struct fixture_dialogue *dialogue, int64_t d,
                            int64_t turn, int64_t prompt_max, struct sample_counts *counts)
{
    int64_t first = 0, n = concatenate(out, dialogue, d, 0, turn);
    while (n > prompt_max && first < turn - 1) n = concatenate(out, dialogue, d, ++first, turn);
    counts->prompts_cut_turns += first > 0;
    if (n <= prompt_max) return n;
    counts->prompts_cut_question++;
    const int64_t cut = n - prompt_max;
    memmove(out + FIXTURE_HEAD_LEN, out + FIXTURE_HEAD_LEN + cut,
            (size_t)(n - cut - FIXTURE_HEAD_LEN) * sizeof *out);
    return prompt_max;
}

static void check_corpus(struct shards *shards, const struct fixture_dialogue *dialogues,
                         enum tok_family family, const struct sample_limits *limits)
{
    const int64_t prompt_max = limits->max_input - (family == TOK_CHATGLM ? 1 : 2);
    const int64_t reply_max = limits->max_target - (family == TOK_CHATGLM ? 2 : 1);
    const struct tok_specials *specials = &shards_info(shards)->specials;
    struct sample_counts expected = { 0 };
    struct sample_set *set = open_set(shards, SPLIT_TRAIN, limits);
    int32_t prompt[512], reply[64], ids[2][512], pos[2][512], block[2][512];
    for (int64_t d = 0; d < DIALOGUES; d++) {
        for (int64_t t = 1; t < dialogues[d].turn_count; t += 2) {
            int64_t reply_len = fixture_target(reply, &dialogues[d].turns[t], d, t);
            bool with_end = true;
            if (reply_len > reply_max) {
                const bool drop = limits->over_long_target == TARGET_DROP;
                expected.targets_dropped += drop;
                expected.targets_cut += !drop;
                if (drop) continue;
                with_end = limits->over_long_target == TARGET_CUT_AS_REFERENCE;
                reply_len = reply_max;
            }
            const int64_t prompt_len =
                naive_prompt(prompt, &dialogues[d], d, t, prompt_max, &expected);
            struct seq a, b;
            seq_build(&a, ids[0], pos[0], block[0], family, specials, prompt, prompt_len, reply,
                      reply_len, with_end);
            const int64_t index = expected.samples++;
            expected.rows += a.len;
            expected.trained_tokens += a.target_count;
            assert_true(index < sample_set_count(set));
            assert_int_equal(sample_set_at(set, index)->dialogue, d);
            assert_int_equal(sample_set_at(set, index)->turn, t);
            assert_int_equal(sample_set_lens(set)[index], a.len);
            assert_int_equal(sample_target_count(set, index), a.target_count);
            assert_ok(sample_fill(set, index, &b, ids[1], pos[1], block[1]));
            assert_memory_equal(&a, &b, sizeof a);
            assert_memory_equal(ids[0], ids[1], (size_t)a.len * sizeof ids[0][0]);
            assert_memory_equal(pos[0], pos[1], (size_t)a.len * sizeof pos[0][0]);
            assert_memory_equal(block[0], block[1], (size_t)a.len * sizeof block[0][0]);
        }
    }
    assert_memory_equal(sample_set_counts(set), &expected, sizeof expected);
    sample_set_close(set);
}

static void test_like_naive(void **state)
{
    (void)state;
    static const struct sample_limits limits[] = {
        { 1536, 512, TARGET_DROP },    { 100, 20, TARGET_DROP },
        { 40, 10, TARGET_CUT_NO_END }, { 24, 10, TARGET_CUT_AS_REFERENCE },
        { 10, 4, TARGET_CUT_NO_END },  { 10, 3, TARGET_CUT_AS_REFERENCE },
    };
    struct fixture_dialogue dialogues[DIALOGUES];
    struct fixture_turn(*turns)[TURNS] = calloc(DIALOGUES, sizeof *turns);
    for (int family = 0; family < 2; family++) {
        random_dialogues(dialogues, turns, 11 + (uint64_t)family);
        struct shards *shards =
            fixture_open("random", (enum tok_family)family, dialogues, DIALOGUES);
        for (int64_t i = 0; i < COUNT_OF(limits); i++)
            check_corpus(shards, dialogues, (enum tok_family)family, &limits[i]);
        shards_close(shards);
    }
    free(turns);
}

/* ---- at the limits, and one beyond ---- */

static void test_limits(void **state)
{
    (void)state;
    /* 1532 tokens and the cue are a prompt of 1535: with [gMASK] 1536. */
    const struct fixture_turn at[] = { CLIENT(1532), COUNSELLOR(4, 510) };
    const struct fixture_turn over[] = { CLIENT(1533), COUNSELLOR(4, 511) };
    const struct fixture_turn history[] = { CLIENT(5), COUNSELLOR(4, 1), CLIENT(1526),
                                            COUNSELLOR(4, 1) };
    const struct fixture_dialogue dialogues[] = { { SPLIT_TRAIN, 2, at },
                                                  { SPLIT_TRAIN, 2, over },
                                                  { SPLIT_TRAIN, 4, history } };
    struct shards *shards = fixture_open("limits", TOK_CHATGLM, dialogues, 3);

    struct sample_set *set = open_set(shards, SPLIT_TRAIN, &wide);
    const struct sample_counts *c = sample_set_counts(set);
    assert_true(c->samples == 3 && c->targets_dropped == 1 && c->targets_cut == 0);
    assert_true(c->prompts_cut_question == 0 && c->prompts_cut_turns == 1);
    assert_int_equal(sample_set_at(set, 0)->len, 2048);
    assert_int_equal(sample_set_at(set, 0)->question_skip, 0);
    /* 5 + 4 + 1526 + 3 = 1538 is too long; without the first turn 1533 fit. */
    assert_int_equal(sample_set_at(set, 2)->turn_first, 1);
    assert_int_equal(sample_set_at(set, 2)->prompt_len, 1533);
    sample_set_close(set);

    struct sample_limits cut = wide;
    cut.over_long_target = TARGET_CUT_NO_END;
    set = open_set(shards, SPLIT_TRAIN, &cut);
    c = sample_set_counts(set);
    assert_true(c->samples == 4 && c->targets_cut == 1 && c->prompts_cut_question == 1);
    const struct sample *s = sample_set_at(set, 1);
    assert_true(s->question_skip == 1 && s->prompt_len == 1535 && s->reply_len == 510);
    assert_true(s->with_end == 0 && s->len == 2047);
    assert_int_equal(sample_target_count(set, 1), 511);
    assert_int_equal(sample_set_at(set, 0)->with_end, 1); /* exactly at the limit: not cut */
    sample_set_close(set);

    cut.over_long_target = TARGET_CUT_AS_REFERENCE;
    set = open_set(shards, SPLIT_TRAIN, &cut);
    s = sample_set_at(set, 1);
    assert_true(s->with_end == 1 && s->len == 2048 && s->reply_len == 510);
    assert_int_equal(sample_target_count(set, 1), 512);
    sample_set_close(set);
    shards_close(shards);
}

static void test_hostile_limits(void **state)
{
    (void)state;
    const struct fixture_turn turns[] = { CLIENT(4), COUNSELLOR(4, 1) };
    const struct fixture_turn counsellors[] = { COUNSELLOR(30, 1), COUNSELLOR(4, 1) };
    const struct fixture_dialogue dialogues[] = { { SPLIT_TRAIN, 2, turns },
                                                  { SPLIT_TEST, 2, counsellors } };
    struct shards *shards = fixture_open("hostile", TOK_CHATGLM, dialogues, 2);
    struct sample_set *set = NULL;
    struct sample_limits l = { .max_input = 7, .max_target = 512 };
    assert_err(sample_set_open(&set, shards, SPLIT_TRAIN, &l), USAGE,
               "max_input 7 leaves no room for a question; at least 8");
    l.max_input = -1;
    assert_err(sample_set_open(&set, shards, SPLIT_TRAIN, &l), USAGE, "max_input -1");
    l = (struct sample_limits){ .max_input = 8, .max_target = 2 };
    assert_err(sample_set_open(&set, shards, SPLIT_TRAIN, &l), USAGE,
               "max_target 2 leaves no room for a reply; at least 3");
    l.max_target = SAMPLE_LIMIT_MAX + 1;
    assert_err(sample_set_open(&set, shards, SPLIT_TRAIN, &l), USAGE, "at most 1048576");
    l.max_target = 3;
    assert_ok(sample_set_open(&set, shards, SPLIT_TRAIN, &l));
    sample_set_close(set);
    set = NULL;
    assert_err(sample_set_open(&set, shards, SPLIT_TEST, &l), FORMAT, "is not the client's");
    assert_null(set);
    sample_set_close(NULL);
    shards_close(shards);
}

/* ---- the same prompt as a conversation gives ---- */

enum { REAL_DIALOGUES = 40 };

/* Encode the turns as prepare does and add them to the corpus. */
static void add_encoded(struct shard_writer *w, const struct tok *tok,
                        const struct chat_template *t, const struct dialogue_text *d)
{
    struct i32_buf ids = { 0 };
    struct shard_turn row[64];
    struct turn_runs runs[64];
    const uint8_t hash[8] = { 0 };
    assert_true(d->turn_count <= 64);
    for (int64_t k = 0; k < d->turn_count; k++)
        assert_ok(chat_turn_encode(&ids, &row[k], tok, t, &d->turns[k],
                                   k > 0 && d->turns[k].role == ROLE_COUNSELLOR));
    for (int64_t k = 0; k < d->turn_count; k++) {
        const struct shard_turn *r = &row[k];
        runs[k] = (struct turn_runs){
            .role = (enum role)r->role,
            .ctx = ids.data + r->ctx_off,
            .ctx_len = r->ctx_len,
            .first = r->flags & TURN_FIRST_STORED ? ids.data + r->first_off : NULL,
            .first_len = r->first_len,
            .target = r->target_off >= 0 ? ids.data + r->target_off : NULL,
            .target_len = r->target_len,
        };
    }
    assert_ok(shard_writer_add(w, runs, d->turn_count, SPLIT_TRAIN, "sample", "", hash));
    i32_buf_clear(&ids);
}

/* Every sample of dialogue d: its rows are the chat prompt of the turns before, then the reply. */
static int64_t check_dialogue(struct sample_set *set, int64_t index, const struct tok *tok,
                              const struct chat_template *t, const struct dialogue_text *d,
                              int64_t prompt_max)
{
    static const int64_t rows_max = 4096;
    int32_t *ids = malloc((size_t)rows_max * sizeof *ids);
    struct i32_buf prompt = { 0 }, reply = { 0 };
    for (int64_t k = 1; k < d->turn_count; k++) {
        if (d->turns[k].role != ROLE_COUNSELLOR) continue;
        int64_t dropped = 0, cut = 0;
        struct seq seq;
        i32_buf_reset(&prompt);
        i32_buf_reset(&reply);
        assert_ok(chat_prompt(&prompt, tok, t, d->turns, k, prompt_max, &dropped, &cut));
        assert_ok(tok_encode(tok, &reply, d->turns[k].text, d->turns[k].size, TOK_PLAIN));
        const struct sample *s = sample_set_at(set, index);
        assert_true(s->turn == k && s->turn_first == dropped && s->question_skip == cut);
        assert_int_equal(s->prompt_len, prompt.count);
        assert_int_equal(s->reply_len, reply.count);
        assert_ok(sample_fill(set, index++, &seq, ids, NULL, NULL));
        const int64_t prompt_at = tok_family(tok) == TOK_CHATGLM ? 0 : 2;
        assert_memory_equal(ids + prompt_at, prompt.data, (size_t)prompt.count * sizeof *ids);
        assert_memory_equal(ids + prompt.count + 2, reply.data, (size_t)reply.count * sizeof *ids);
        assert_int_equal(ids[seq.len - 1],
                         seq.ctx > 0 ? tok_specials(tok)->eop : tok_specials(tok)->eos);
    }
    i32_buf_clear(&prompt);
    i32_buf_clear(&reply);
    free(ids);
    return index;
}

/* Walk the sample corpus: with a writer to encode it, else to compare `set` with chat_prompt. */
static void walk_corpus(struct shard_writer *w, struct sample_set *set, const struct tok *tok,
                        const struct chat_template *t, int64_t prompt_max)
{
    struct corpus *c = NULL;
    struct dialogue_text d;
    bool found = true;
    int64_t index = 0;
    assert_ok(corpus_open(&c, "data/sample/corpus.json", CORPUS_AUTO, CORPUS_FAIL));
    for (int64_t n = 0; n < REAL_DIALOGUES; n++) {
        assert_ok(corpus_next(c, &d, &found));
        assert_true(found);
        if (w != NULL) add_encoded(w, tok, t, &d);
        if (set != NULL) index = check_dialogue(set, index, tok, t, &d, prompt_max);
    }
    if (set != NULL) assert_int_equal(index, sample_set_count(set));
    corpus_close(c);
}

static void test_like_chat(void **state)
{
    (void)state;
    static const char *const models[] = { TOK_FIXTURE_CHATGLM, TOK_FIXTURE_CHATGLM2 };
    static const int64_t max_input[] = { 4096, 160, 26 };
    const struct chat_template t = { "用户", "心理咨询师", "：" };
    for (int m = 0; m < (tok_fixture_library() ? 2 : 1); m++) {
        struct tok *tok = NULL;
        struct shard_writer *w = NULL;
        struct shards *shards = NULL;
        struct shard_info info;
        memset(&info, 0, sizeof info);
        const struct shard_writer_spec spec = { .replace = true };
        assert_ok(tok_open(&tok, models[m]));
        assert_ok(chat_shard_info(&info, &t, tok));
        assert_ok(shard_writer_open(&w, testing_path("real"), &info, &spec));
        walk_corpus(w, NULL, tok, &t, 0);
        assert_ok(shard_writer_commit(w, "{}"));
        shard_writer_close(w);
        assert_ok(shards_open(&shards, testing_path("real"), true));
        for (int64_t i = 0; i < COUNT_OF(max_input); i++) {
            const struct sample_limits l = { .max_input = max_input[i], .max_target = 4096 };
            struct sample_set *set = open_set(shards, SPLIT_TRAIN, &l);
            const struct sample_counts *c = sample_set_counts(set);
            assert_true((c->prompts_cut_turns > 0) == (i > 0));
            if (i == 0) assert_int_equal(c->prompts_cut_question, 0);
            if (i == 2) assert_true(c->prompts_cut_question > 0);
            walk_corpus(NULL, set, tok, &t, max_input[i] - (info.family == TOK_CHATGLM ? 1 : 2));
            sample_set_close(set);
        }
        shards_close(shards);
        tok_close(tok);
    }
}

/* ---- batches of a set ---- */

static void test_batches_of_set(void **state)
{
    (void)state;
    struct fixture_dialogue dialogues[DIALOGUES];
    struct fixture_turn(*turns)[TURNS] = calloc(DIALOGUES, sizeof *turns);
    random_dialogues(dialogues, turns, 5);
    struct shards *shards = fixture_open("batches", TOK_CHATGLM, dialogues, DIALOGUES);
    struct sample_set *set = open_set(shards, SPLIT_TRAIN, &wide);
    const struct batch_spec spec = {
        .unit = BATCH_SAMPLES, .size = 8, .lanes = 2, .micro_tokens = 512, .seed = 1
    };
    struct batcher *b = NULL;
    struct step_plan plan;
    struct micro_batch m = { 0 }, one = { 0 };
    assert_ok(batcher_open(&b, set, &spec));
    assert_ok(batcher_plan(b, &plan, 3));
    assert_ok(batcher_fill(b, &m, 1, 0));
    for (int64_t k = 0; k < m.segment_count; k++) {
        const int32_t *s = m.segments + 3 * k;
        assert_ok(micro_batch_from_samples(&one, set, &m.samples[k], 1, LOSS_MEAN_TOKEN, true));
        assert_int_equal(one.segments[2], s[2]);
        assert_int_equal(one.segments[1], s[1]);
        assert_memory_equal(one.ids, m.ids + s[0], (size_t)s[2] * sizeof *one.ids);
        assert_memory_equal(one.pos, m.pos + s[0], (size_t)s[2] * sizeof *one.pos);
        assert_int_equal(one.target_rows[0], s[1] - 1);
        assert_int_equal(one.labels[0], 904); /* <sop> is the first thing a row is asked for */
        assert_int_equal(one.labels[one.target_count - 1], 905);
        assert_true(one.weights[0] == 1.0f);
    }
    for (int64_t r = one.segments[2]; r < one.rows; r++) assert_int_equal(one.ids[r], 3);
    const int64_t pair[] = { 4, 2 };
    assert_ok(micro_batch_from_samples(&one, set, pair, 2, LOSS_MEAN_SAMPLE, false));
    assert_true(one.samples[0] == 4 && one.samples[1] == 2 && one.stream[1] == 1);
    assert_true(one.weights[0] == (float)(1.0 / (2.0 * (double)sample_target_count(set, 4))));
    micro_batch_clear(&m);
    micro_batch_clear(&one);
    batcher_close(b);
    sample_set_close(set);
    shards_close(shards);
    free(turns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),        cmocka_unit_test(test_which_turns),
        cmocka_unit_test(test_like_naive),     cmocka_unit_test(test_limits),
        cmocka_unit_test(test_hostile_limits), cmocka_unit_test(test_batches_of_set),
        cmocka_unit_test(test_like_chat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
