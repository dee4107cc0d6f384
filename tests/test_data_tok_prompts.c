/*
 * What shards hold against the reference path, on whole corpora: for each reply that is trained,
 * the runs of its turns put together are the prompt that the SentencePiece library makes of the
 * whole text at once, and the reply's run is what it makes of the reply. Two answers may differ
 * only where two ways to cut a text have the same score but for rounding: each such place is added
 * up anew, exactly, and counted.
 *
 * SOULCHAT_TOK_CORPUS=FILE adds a corpus, SOULCHAT_TOK_MODEL=FOLDER says with which tokenizer.
 */
#include "testing.h"

#include "base/file.h"
#include "base/rng.h"
#include "data/chat.h"
#include "data/clean.h"
#include "data/tok_model.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SMALL "data/sample/model"

static const struct chat_template soulchat = { "用户", "心理咨询师", "：" };

struct comparison {
    struct tok *own, *library;
    struct tok_model model;
    double worst, best; /* scores of normal pieces */
    struct shard_info info;
    struct clean_rules *rules;
    struct clean_dialogue clean;
    struct clean_found found;
    struct shard_turn *rows; /* [CORPUS_TURNS_MAX] */
    struct i32_buf ids, joined, whole;
    struct buf text;
    int64_t dialogues, turns, prompts, replies, tokens, first_stored;
    int64_t other_prompts, other_replies; /* than the library's */
    int64_t places, exact;                /* where they differ; of those, scores that are equal */
    double worst_tie;                     /* difference of scores, in parts of what is allowed */
};

/* ---- scores of ways to cut a text ---- */

/* A way to cut a text, walked piece by piece. */
struct walk {
    const struct i32_buf *ids;
    int64_t at, bytes; /* pieces and bytes walked */
    double score;
};

/* As the search adds them: a character without a piece counts once for all its bytes. */
static double score_of(const struct comparison *c, int32_t id)
{
    const struct tok_model *m = &c->model;
    switch ((enum tok_piece_kind)m->kind[id]) {
    case TOK_PIECE_NORMAL:
        return m->score[id];
    case TOK_PIECE_USER_DEFINED:
        return (double)(m->name_offset[id + 1] - m->name_offset[id]) * c->best - 0.1;
    default:
        assert_int_equal(m->kind[id], TOK_PIECE_BYTE);
        return (m->byte_value[id] & 0xC0) == 0x80 ? 0 : c->worst - 10;
    }
}

static void step(struct walk *w, const struct comparison *c)
{
    assert_true(w->at < w->ids->count);
    const int32_t id = w->ids->data[w->at++];
    w->score += score_of(c, id);
    w->bytes += c->model.byte_value[id] >= 0
                    ? 1
                    : c->model.name_offset[id + 1] - c->model.name_offset[id];
}

/*
 * From where two ways part to where they meet: equal scores but for what float32 sums lose. Each
 * addition rounds by at most half of the sum's last place; the search compared two sums of as many
 * additions as there are pieces.
 */
static void meet_again(struct comparison *c, struct walk *a, struct walk *b)
{
    const struct walk from_a = *a, from_b = *b;
    step(a, c);
    while (a->bytes != b->bytes) step(a->bytes < b->bytes ? a : b, c);
    const int64_t additions = a->at - from_a.at + b->at - from_b.at;
    const double sum = fmax(fabs(a->score), fabs(b->score));
    const double allowed = (double)additions * 0.5 * (sum * 2 * FLT_EPSILON);
    const double apart = fabs((a->score - from_a.score) - (b->score - from_b.score));
    assert_true(apart <= allowed);
    c->places++;
    c->exact += apart <= 64 * DBL_EPSILON * sum;
    c->worst_tie = fmax(c->worst_tie, apart / allowed);
    b->score = a->score;
}

/* Whether two results are the same; where they are not, each place must be a tie. */
static bool same_but_ties(struct comparison *c, const struct i32_buf *got,
                          const struct i32_buf *expected)
{
    struct walk a = { .ids = got }, b = { .ids = expected };
    if (got->count == expected->count &&
        memcmp(got->data, expected->data, (size_t)got->count * sizeof *got->data) == 0)
        return true;
    while (a.at < got->count && b.at < expected->count) {
        if (got->data[a.at] == expected->data[b.at]) {
            step(&a, c);
            step(&b, c);
        } else {
            meet_again(c, &a, &b);
        }
    }
    assert_int_equal(got->count - a.at, expected->count - b.at);
    return false;
}

/* ---- prompts ---- */

static void put_line(struct buf *text, const struct clean_turn *t)
{
    assert_ok(buf_printf(text, "%s%s：", text->size > 0 ? "\n" : "",
                         t->role == ROLE_CLIENT ? soulchat.client_name : soulchat.counsellor_name));
    assert_ok(buf_append(text, t->text, (size_t)t->size));
}

/* Turns begin .. end-1 and the cue: from runs, and at once. */
static void compare_prompt(struct comparison *c, int64_t begin, int64_t end)
{
    i32_buf_reset(&c->joined);
    i32_buf_reset(&c->whole);
    buf_reset(&c->text);
    assert_ok(chat_append_first(&c->joined, c->ids.data, &c->rows[begin], &c->info.specials));
    for (int64_t i = begin + 1; i < end; i++)
        assert_ok(
            i32_buf_append(&c->joined, c->ids.data + c->rows[i].ctx_off, c->rows[i].ctx_len));
    assert_ok(i32_buf_append(&c->joined, c->info.cue, c->info.cue_len));
    for (int64_t i = begin; i < end; i++) put_line(&c->text, &c->clean.turns[i]);
    assert_ok(buf_printf(&c->text, "\n%s：", soulchat.counsellor_name));
    assert_ok(tok_encode(c->library, &c->whole, c->text.data, (int64_t)c->text.size, TOK_PLAIN));
    c->prompts++;
    c->tokens += c->joined.count;
    c->other_prompts += !same_but_ties(c, &c->joined, &c->whole);
}

static void compare_reply(struct comparison *c, int64_t turn)
{
    const struct clean_turn *t = &c->clean.turns[turn];
    i32_buf_reset(&c->joined);
    i32_buf_reset(&c->whole);
    assert_ok(i32_buf_append(&c->joined, c->ids.data + c->rows[turn].target_off,
                             c->rows[turn].target_len));
    assert_ok(tok_encode(c->library, &c->whole, t->text, t->size, TOK_PLAIN));
    c->replies++;
    c->tokens += c->joined.count;
    c->other_replies += !same_but_ties(c, &c->joined, &c->whole);
}

/* Every reply with all that stands before it, and with what a limit of length may leave of it. */
static void compare_dialogue(struct comparison *c)
{
    const struct clean_dialogue *d = &c->clean;
    i32_buf_reset(&c->ids);
    for (int64_t i = 0; i < d->turn_count; i++) {
        const struct turn_text turn = { d->turns[i].role, d->turns[i].text, d->turns[i].size };
        assert_ok(chat_turn_encode(&c->ids, &c->rows[i], c->own, &soulchat, &turn, i > 0));
        c->first_stored += (c->rows[i].flags & TURN_FIRST_STORED) != 0;
    }
    for (int64_t i = 1; i < d->turn_count; i++) {
        if (c->rows[i].target_off < 0) continue;
        const uint64_t draw = rng_u64(7, RNG_TEST, (uint64_t)c->prompts);
        compare_prompt(c, 0, i);
        if (i > 1) compare_prompt(c, 1 + (int64_t)(draw % (uint64_t)(i - 1)), i);
        compare_reply(c, i);
    }
    c->dialogues++;
    c->turns += d->turn_count;
}

static void open_comparison(struct comparison *c, const char *model)
{
    struct buf bytes = { 0 };
    const struct clean_spec spec = { .client_name = soulchat.client_name,
                                     .counsellor_name = soulchat.counsellor_name };
    *c = (struct comparison){ .worst = FLT_MAX, .best = FLT_MIN };
    assert_ok(tok_open(&c->own, model));
    if (tok_open_library(&c->library, model) == ERR_UNSUPPORTED)
        testing_skip_all("this build has no SentencePiece");
    assert_ok(file_read_all(&bytes, tok_path(c->own), TOK_MODEL_BYTES_MAX));
    assert_ok(tok_model_parse(&c->model, model, bytes.data, (int64_t)bytes.size));
    for (int64_t i = 0; i < c->model.piece_count; i++) {
        if (c->model.kind[i] != TOK_PIECE_NORMAL) continue;
        c->worst = fmin(c->worst, c->model.score[i]);
        c->best = fmax(c->best, c->model.score[i]);
    }
    assert_ok(chat_shard_info(&c->info, &soulchat, c->own));
    assert_ok(clean_rules_open(&c->rules, &spec));
    c->rows = calloc(CORPUS_TURNS_MAX, sizeof *c->rows);
    assert_non_null(c->rows);
    buf_clear(&bytes);
}

static void close_comparison(struct comparison *c)
{
    tok_close(c->own);
    tok_close(c->library);
    tok_model_clear(&c->model);
    clean_rules_close(c->rules);
    clean_clear(&c->clean);
    free(c->rows);
    i32_buf_clear(&c->ids);
    i32_buf_clear(&c->joined);
    i32_buf_clear(&c->whole);
    buf_clear(&c->text);
}

static void report(const struct comparison *c, const char *path)
{
    printf("%s: %lld dialogues, %lld turns (%lld with a first run of their own), %lld prompts and "
           "%lld replies of %lld tokens;\n"
           "other than the library's: %lld prompts, %lld replies, at %lld places, all of them "
           "ties: %lld equal, the others apart by at most %.3f of what rounding may do\n",
           path, (long long)c->dialogues, (long long)c->turns, (long long)c->first_stored,
           (long long)c->prompts, (long long)c->replies, (long long)c->tokens,
           (long long)c->other_prompts, (long long)c->other_replies, (long long)c->places,
           (long long)c->exact, c->worst_tie);
}

/* Dialogues as `prepare` tidies them. */
static void compare_corpus(const char *model, const char *path, int64_t dialogues)
{
    struct comparison c;
    struct corpus *corpus;
    struct dialogue_text d;
    bool found = true;
    open_comparison(&c, model);
    assert_ok(corpus_open(&corpus, path, CORPUS_AUTO, CORPUS_FAIL));
    while (c.dialogues < dialogues) {
        assert_ok(corpus_next(corpus, &d, &found));
        if (!found) break;
        assert_ok(clean_load(&c.clean, &d));
        clean_apply(c.rules, &c.clean, &c.found);
        if (!c.clean.dropped) compare_dialogue(&c);
    }
    report(&c, path);
    assert_true(c.replies > 0);
    assert_int_equal(c.other_replies, 0); /* both are encoded alone */
    corpus_close(corpus);
    close_comparison(&c);
}

static void test_sample(void **state)
{
    (void)state;
    compare_corpus(SMALL, "data/sample/corpus.json", INT64_MAX);
}

static void test_real_dialogues(void **state)
{
    (void)state;
    char model[FILE_PATH_MAX];
    if (testing_shared("assets/chatglm-6b") == NULL) skip();
    snprintf(model, sizeof model, "%s", testing_shared("assets/chatglm-6b"));
    if (testing_shared("corpora/smile/smilechat.jsonl.zst") == NULL) skip();
    compare_corpus(model, testing_shared("corpora/smile/smilechat.jsonl.zst"), 500);
}

static void test_given_corpus(void **state)
{
    (void)state;
    const char *corpus = getenv("SOULCHAT_TOK_CORPUS"), *model = getenv("SOULCHAT_TOK_MODEL");
    if (corpus == NULL) skip();
    compare_corpus(model != NULL ? model : SMALL, corpus, INT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sample),
        cmocka_unit_test(test_real_dialogues),
        cmocka_unit_test(test_given_corpus),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
