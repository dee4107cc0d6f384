/*
 * Generation: a reply is what repeated full forward passes give, with positions written out anew
 * from the reference's rules; it is the same alone, in a batch, and streamed; it ends where it
 * should; and what cannot be answered, or a tokenizer that is not the model's, is refused.
 */
#include "gen_fixture.h"
#include "glm_look.h"
#include "tok_fixture.h"

#include "base/check.h"
#include "base/file.h"
#include "base/num.h"
#include "base/utf8.h"
#include "data/chat.h"
#include "eval/gen.h"
#include "eval/gen_model.h"
#include "eval/question.h"
#include "eval/role_names.h"
#include "model/glm.h"
#include "model/model_source.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_MAX 96

static const struct turn_text talk[] = {
    { ROLE_CLIENT, "我最近总是失眠。", 24 },
    { ROLE_COUNSELLOR, "听起来很辛苦，可以多说一点吗？", 45 },
    { ROLE_CLIENT, "白天没有精神", 18 },
};

/* Run one conversation to its end. */
static const struct gen_reply *answer(struct gen *gen, int64_t slot, const struct turn_text *turns,
                                      int64_t count, uint64_t index)
{
    assert_ok(gen_begin(gen, slot, turns, count, index));
    while (gen_is_busy(gen, slot)) assert_ok(gen_step(gen));
    return gen_reply(gen, slot);
}

static struct gen *open_gen(struct cfg *cfg, int64_t slots)
{
    struct gen *gen;
    assert_ok(gen_open(&gen, cfg, slots));
    return gen;
}

/* ---- against full forward passes ---- */

struct sequence {
    int32_t ids[ROWS_MAX], pos[ROWS_MAX], block[ROWS_MAX];
    int64_t prompt, rows;
};

/* Tokens, [gMASK], <sop>; positions 0, 1, ... that stay at the index of [gMASK] from <sop> on,
 * where the second stream begins to count at 1. So the first new token has 2 there. */
static void lay_out(struct sequence *s, const struct tok *tok)
{
    const struct chat_template template = { "用户", "心理咨询师", "：" };
    struct i32_buf ids = { 0 };
    assert_ok(chat_prompt(&ids, tok, &template, talk, COUNT_OF(talk), 80, NULL, NULL));
    assert_ok(i32_buf_push(&ids, tok_specials(tok)->gmask));
    assert_ok(i32_buf_push(&ids, tok_specials(tok)->sop));
    memcpy(s->ids, ids.data, (size_t)ids.count * sizeof *s->ids);
    s->prompt = s->rows = ids.count;
    for (int64_t r = 0; r < ROWS_MAX; r++) {
        const int64_t gmask = ids.count - 2, sop = ids.count - 1;
        s->pos[r] = (int32_t)(r < sop ? r : gmask);
        s->block[r] = (int32_t)(r < sop ? 0 : r - sop + 1);
    }
    assert_int_equal(s->block[s->prompt], 2);
    i32_buf_clear(&ids);
}

/* The most probable next token, without a cache. */
static int32_t next_by_forward(struct glm *glm, const struct sequence *s, int64_t vocab)
{
    static double logits[GEN_VOCAB];
    const struct attn_segment segment = { 0, (int32_t)s->prompt - 1, (int32_t)s->rows };
    const struct glm_batch batch = { .rows = s->rows,
                                     .ids = s->ids,
                                     .pos = s->pos,
                                     .block = s->block,
                                     .segment_count = 1,
                                     .segments = &segment };
    int32_t best = 0;
    assert_ok(glm_eval_micro(glm, &batch, NULL));
    assert_ok(glm_look_logits(glm, logits, s->rows, s->rows - 1, 1));
    for (int32_t v = 1; v < vocab; v++)
        if (logits[v] > logits[best]) best = v;
    return best;
}

static void test_is_forward(void **state)
{
    (void)state;
    const char *dir = testing_path("forward");
    gen_model_write(dir, &(struct gen_weights){ .end = -50 });
    struct cfg *cfg = gen_cfg(dir);
    gen_set(cfg, "generate.greedy", "true");
    gen_set(cfg, "generate.max_new_tokens", "24");
    gen_set(cfg, "generate.full_width_punctuation", "false");
    struct gen *gen = open_gen(cfg, 2);
    const struct gen_reply *reply = answer(gen, 1, talk, COUNT_OF(talk), 0);
    assert_int_equal(reply->stop, GEN_STOP_LENGTH);
    assert_int_equal(reply->new_tokens, 24);

    struct model_source source;
    struct tok *tok;
    struct dev *dev;
    struct glm *glm;
    struct sequence s;
    struct buf text = { 0 };
    const struct glm_options options = {
        .dtype = DTYPE_F32, .rows_max = ROWS_MAX, .segments_max = 1, .targets_max = 1, .ranks = 1
    };
    assert_ok(model_source_open(&source, dir));
    assert_ok(tok_open(&tok, GEN_TOKENIZER));
    assert_ok(dev_open(&dev, "cpu", 2));
    assert_ok(glm_create(&glm, dev, &source.config, &options));
    assert_ok(glm_load(glm, source.weights));
    lay_out(&s, tok);
    assert_int_equal(reply->prompt_tokens, s.prompt);
    for (int64_t n = 0; n < 24; n++) {
        s.ids[s.rows] = next_by_forward(glm, &s, tok_vocab_size(tok));
        s.rows++;
    }
    assert_ok(tok_decode(tok, &text, s.ids + s.prompt, 24));
    assert_true(text.size > 24); /* there is something to compare */
    assert_string_equal(reply->text.data, text.data);

    buf_clear(&text);
    glm_close(glm);
    dev_close(dev);
    tok_close(tok);
    model_source_close(&source);
    gen_close(gen);
    cfg_close(cfg);
}

/* ---- alone, together, streamed ---- */

enum { CONVERSATIONS = 12, TOKENS = 40 };

static struct cfg *lively_cfg(void)
{
    const char *dir = testing_path("lively");
    gen_model_write(dir, &(struct gen_weights){ .end = 8 });
    struct cfg *cfg = gen_cfg(dir);
    gen_set(cfg, "generate.temperature", "1");
    gen_set(cfg, "generate.top_p", "0.99");
    gen_set(cfg, "generate.max_new_tokens", "40");
    return cfg;
}

static void test_batch(void **state)
{
    (void)state;
    struct cfg *cfg = lively_cfg();
    struct gen *alone = open_gen(cfg, 1), *batch = open_gen(cfg, 3);
    char *wanted[CONVERSATIONS];
    int64_t tokens[CONVERSATIONS], of_slot[3], begun = 0, ended = 0, lengths = 0;
    for (int64_t i = 0; i < CONVERSATIONS; i++) {
        const struct gen_reply *r = answer(alone, 0, talk, i % 2 ? 1 : 3, (uint64_t)i);
        wanted[i] = strdup(r->text.size > 0 ? r->text.data : "");
        tokens[i] = r->new_tokens;
        lengths |= 1ll << r->new_tokens;
    }
    assert_true(__builtin_popcountll((uint64_t)lengths) >= 5); /* they end at different times */

    while (ended < CONVERSATIONS) {
        for (int64_t slot = 0; slot < 3; slot++) {
            if (gen_is_busy(batch, slot) || begun == CONVERSATIONS) continue;
            assert_ok(gen_begin(batch, slot, talk, begun % 2 ? 1 : 3, (uint64_t)begun));
            of_slot[slot] = begun++;
        }
        bool busy[3];
        for (int64_t slot = 0; slot < 3; slot++) busy[slot] = gen_is_busy(batch, slot);
        assert_ok(gen_step(batch));
        for (int64_t slot = 0; slot < 3; slot++) {
            if (!busy[slot] || gen_is_busy(batch, slot)) continue;
            const struct gen_reply *r = gen_reply(batch, slot);
            assert_string_equal(r->text.size > 0 ? r->text.data : "", wanted[of_slot[slot]]);
            assert_int_equal(r->new_tokens, tokens[of_slot[slot]]);
            ended++;
        }
    }
    for (int64_t i = 0; i < CONVERSATIONS; i++) free(wanted[i]);
    assert_ok(gen_step(batch)); /* nothing is busy: nothing happens */
    gen_close(alone);
    gen_close(batch);
    cfg_close(cfg);
}

/* Text only grows, by whole characters, and what it grew to is the reply. */
static void test_streaming(void **state)
{
    (void)state;
    struct cfg *cfg = lively_cfg();
    struct gen *gen = open_gen(cfg, 1);
    int64_t grown = 0;
    for (uint64_t index = 0; index < 6; index++) {
        struct buf seen = { 0 };
        assert_ok(gen_begin(gen, 0, talk, 1, index));
        while (gen_is_busy(gen, 0)) {
            assert_ok(gen_step(gen));
            const struct buf *now = &gen_reply(gen, 0)->text;
            assert_true(now->size >= seen.size);
            assert_int_equal(utf8_valid_prefix(now->data, (int64_t)now->size), now->size);
            if (seen.size > 0) assert_memory_equal(now->data, seen.data, seen.size);
            grown += now->size > seen.size;
            assert_ok(buf_append(&seen, now->data + seen.size, now->size - seen.size));
        }
        buf_clear(&seen);
    }
    assert_true(grown > 20);
    gen_close(gen);
    cfg_close(cfg);
}

static void test_random_stream(void **state)
{
    (void)state;
    struct cfg *cfg = lively_cfg();
    gen_set(cfg, "generate.max_new_tokens", "20");
    struct gen *gen = open_gen(cfg, 2);
    char *first = strdup(answer(gen, 0, talk, 1, 5)->text.data);
    assert_string_equal(answer(gen, 1, talk, 1, 5)->text.data, first); /* whatever the slot */
    assert_string_not_equal(answer(gen, 0, talk, 1, 6)->text.data, first);
    gen_close(gen);
    gen_set(cfg, "generate.seed", "43");
    gen = open_gen(cfg, 1);
    assert_string_not_equal(answer(gen, 0, talk, 1, 5)->text.data, first);
    free(first);
    gen_close(gen);
    cfg_close(cfg);
}

/* ---- ends ---- */

static void test_ends(void **state)
{
    (void)state;
    const char *dir = testing_path("ends");
    gen_model_write(dir, &(struct gen_weights){ .end = 1e4 });
    struct cfg *cfg = gen_cfg(dir);
    struct gen *gen = open_gen(cfg, 1);
    const struct gen_reply *reply = answer(gen, 0, talk, 1, 0);
    assert_int_equal(reply->stop, GEN_STOP_END);
    assert_int_equal(reply->new_tokens, 0);
    assert_int_equal(reply->text.size, 0);
    gen_close(gen);

    gen_model_write(dir, &(struct gen_weights){ .end = -1e4 });
    gen = open_gen(cfg, 1); /* 512 by default, but this model has 160 positions */
    reply = answer(gen, 0, talk, 1, 0);
    assert_int_equal(reply->stop, GEN_STOP_LENGTH);
    assert_int_equal(reply->new_tokens, GEN_POSITIONS / 4);
    assert_string_equal(gen_stop_name(reply->stop), "length");

    assert_ok(gen_begin(gen, 0, talk, 1, 0));
    for (int i = 0; i < 3; i++) assert_ok(gen_step(gen));
    assert_ok(gen_stop(gen, 0));
    assert_false(gen_is_busy(gen, 0));
    assert_int_equal(gen_reply(gen, 0)->stop, GEN_STOP_REQUESTED);
    assert_int_equal(gen_reply(gen, 0)->new_tokens, 3);
    gen_close(gen);

    gen_set(cfg, "generate.max_new_tokens", "1");
    gen = open_gen(cfg, 1);
    assert_int_equal(answer(gen, 0, talk, 1, 0)->new_tokens, 1);
    gen_close(gen);
    gen_close(NULL);
    cfg_close(cfg);
}

/* A prompt that fills what it may, a reply that fills the rest of the model's positions. */
static void test_full(void **state)
{
    (void)state;
    const char *dir = testing_path("full");
    gen_model_write(dir, &(struct gen_weights){ .end = -1e4 });
    struct cfg *cfg = gen_cfg(dir);
    gen_set(cfg, "generate.max_new_tokens", "100");
    struct gen *gen = open_gen(cfg, 1);
    char *much = malloc(90001);
    for (int64_t i = 0; i < 90000; i += 9) memcpy(much + i, "失眠了", 9);
    struct turn_text turns[] = { { ROLE_CLIENT, much, 90000 },
                                 { ROLE_COUNSELLOR, "嗯", 3 },
                                 { ROLE_CLIENT, "谢谢", 6 } };
    const struct gen_reply *reply = answer(gen, 0, turns, 1, 0);
    assert_int_equal(reply->prompt_tokens, GEN_POSITIONS - 100);
    assert_int_equal(reply->new_tokens, 100);
    assert_true(reply->tokens_cut > 1000);
    assert_int_equal(reply->turns_dropped, 0);
    reply = answer(gen, 0, turns, 3, 0);
    assert_int_equal(reply->turns_dropped, 1);
    assert_int_equal(reply->tokens_cut, 0);
    turns[0].role = ROLE_COUNSELLOR;
    assert_err(gen_begin(gen, 0, turns, 1, 0), ARG, "turn of the client");
    assert_false(gen_is_busy(gen, 0));
    free(much);
    gen_close(gen);
    cfg_close(cfg);
}

static void test_not_finite(void **state)
{
    (void)state;
    const char *dir = testing_path("broken");
    gen_model_write(dir, &(struct gen_weights){ .broken = NAN });
    struct cfg *cfg = gen_cfg(dir);
    gen_set(cfg, "generate.max_new_tokens", "5");
    struct gen *gen = open_gen(cfg, 1);
    const struct gen_reply *reply = answer(gen, 0, talk, 1, 0); /* warns */
    assert_int_equal(reply->stop, GEN_STOP_LENGTH);
    assert_int_equal(reply->text.size, 0); /* spaces, and a reply begins with none */
    gen_close(gen);
    cfg_close(cfg);
}

/* ---- what is refused ---- */

static void assert_refused(struct cfg *cfg, err_t code, const char *part)
{
    struct gen *gen;
    testing_assert_code(gen_open(&gen, cfg, 1), code, part, "gen_open", __FILE__, __LINE__);
    assert_null(gen);
}

static void test_refused(void **state)
{
    (void)state;
    static const char other[] =
        "{\"model_type\":\"chatglm\",\"vocab_size\":%d,\"hidden_size\":8,\"num_layers\":1,"
        "\"num_attention_heads\":2,\"inner_hidden_size\":32,\"max_sequence_length\":160,"
        "\"layernorm_epsilon\":1e-05,\"mask_token_id\":1600,\"gmask_token_id\":1601,"
        "\"bos_token_id\":1604,\"eos_token_id\":%d,\"pad_token_id\":3}";
    char config[1000];
    const char *dir = testing_path("refused");
    gen_model_write(dir, &(struct gen_weights){ 0 });
    struct cfg *cfg = gen_cfg(dir);
    gen_set(cfg, "generate.max_new_tokens", "150");
    assert_refused(cfg, ERR_USAGE, "160 positions");
    gen_set(cfg, "generate.max_new_tokens", "20");
    gen_set(cfg, "generate.tokenizer", testing_path("nowhere"));
    assert_refused(cfg, ERR_NOTFOUND, "nowhere");
    gen_set(cfg, "generate.tokenizer", ""); /* then the model's own, which it lacks */
    assert_refused(cfg, ERR_NOTFOUND, "generate.tokenizer");
    gen_set(cfg, "generate.tokenizer", TOK_FIXTURE_CHATGLM2);
    if (tok_fixture_library()) assert_refused(cfg, ERR_FORMAT, "another family");
    gen_set(cfg, "generate.tokenizer", GEN_TOKENIZER);
    gen_set(cfg, "generate.model", testing_path("nowhere"));
    assert_refused(cfg, ERR_NOTFOUND, "nowhere");
    gen_set(cfg, "generate.model", "");
    assert_refused(cfg, ERR_USAGE, "generate.model is not set");

    gen_set(cfg, "generate.model", dir);
    snprintf(config, sizeof config, other, 1900, 1605);
    gen_model_write(dir, &(struct gen_weights){ .config = config });
    assert_refused(cfg, ERR_FORMAT, "only 1900");
    snprintf(config, sizeof config, other, 1984, 2);
    gen_model_write(dir, &(struct gen_weights){ .config = config });
    assert_refused(cfg, ERR_FORMAT, "eos_token_id is 1605");
    cfg_close(cfg);
}

/* auto is what the files hold, here f32; the others are rounded to. */
static void test_weights(void **state)
{
    (void)state;
    static const struct {
        const char *setting;
        dtype_t dtype;
    } rows[] = {
        { "auto", DTYPE_F32 }, { "f32", DTYPE_F32 }, { "f16", DTYPE_F16 }, { "bf16", DTYPE_BF16 }
    };
    const char *dir = testing_path("weights");
    gen_model_write(dir, &(struct gen_weights){ 0 });
    struct cfg *cfg = gen_cfg(dir);
    for (int64_t i = 0; i < COUNT_OF(rows); i++) {
        struct gen_model model;
        gen_set(cfg, "generate.weights", rows[i].setting);
        assert_ok(gen_model_open(&model, cfg, 1));
        assert_int_equal(glm_weight(model.glm, 0).dtype, rows[i].dtype);
        gen_model_close(&model);
    }
    cfg_close(cfg);
}

/* ---- questions ---- */

static void assert_turn(const struct turn_text *t, enum role role, const char *text)
{
    assert_int_equal(t->role, role);
    assert_int_equal(t->size, strlen(text));
    assert_memory_equal(t->text, text, strlen(text));
}

static void test_question(void **state)
{
    (void)state;
    const struct turn_text turns[] = {
        { ROLE_SYSTEM, "你是咨询师", 15 }, { ROLE_CLIENT, " 你好\r\n\r\n", 11 },
        { ROLE_CLIENT, "　在吗　", 12 },   { ROLE_COUNSELLOR, "\n在", 4 },
        { ROLE_CLIENT, "好\0的", 7 },      { ROLE_COUNSELLOR, " ", 1 },
        { ROLE_COUNSELLOR, "嗯", 3 },
    };
    struct question q = { 0 };
    assert_ok(question_set(&q, turns, COUNT_OF(turns)));
    assert_int_equal(q.turn_count, 3);
    assert_turn(&q.turns[0], ROLE_CLIENT, "你好\n在吗");
    assert_turn(&q.turns[1], ROLE_COUNSELLOR, "在");
    assert_int_equal(q.turns[2].size, 7);
    assert_turn(q.reference, ROLE_COUNSELLOR, "嗯");

    assert_ok(question_set(&q, turns + 1, 1)); /* alone, it trains nothing but can be answered */
    assert_int_equal(q.turn_count, 1);
    assert_turn(&q.turns[0], ROLE_CLIENT, "你好");
    assert_null(q.reference);
    assert_ok(question_set(&q, turns + 5, 2));
    assert_int_equal(q.turn_count, 0);
    assert_non_null(q.reference);
    assert_ok(question_set(&q, turns, 0));
    assert_int_equal(q.turn_count, 0);
    assert_null(q.reference);
    question_clear(&q);
}

/* Whatever is typed makes a prompt: the names of special tokens, NUL, bytes that are no UTF-8. */
static void test_any_text(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t size;
    } typed[] = { { "<sop>你好<eop>[gMASK]", 23 },
                  { "a\0b", 3 },
                  { "\xff\xfe\xe4\xb8", 4 },
                  { "\x01", 1 },
                  { "<pad><|blank_80|>", 17 } };
    struct cfg *cfg = lively_cfg();
    gen_set(cfg, "generate.max_new_tokens", "3");
    struct gen *gen = open_gen(cfg, 1);
    for (int64_t i = 0; i < COUNT_OF(typed); i++) {
        const struct turn_text turn = { ROLE_CLIENT, typed[i].text, typed[i].size };
        const struct gen_reply *reply = answer(gen, 0, &turn, 1, 0);
        assert_in_range(reply->prompt_tokens, 8, 60);
    }
    gen_close(gen);
    cfg_close(cfg);
}

/* ---- role names ---- */

static void write_state(const char *dir, const char *text)
{
    char path[FILE_PATH_MAX];
    assert_ok(dir_create(dir));
    assert_ok(path_join(path, dir, "state.json"));
    assert_ok(file_replace(path, text, strlen(text)));
}

static void test_role_names(void **state)
{
    (void)state;
    const char *dir = testing_path("state");
    struct chat_template t;
    struct cfg *cfg = gen_cfg(dir);
    assert_ok(role_names_find(&t, cfg, dir)); /* no such folder: nothing was kept */
    assert_string_equal(t.client_name, "用户");
    write_state(dir, "{\"settings\":\"data:\\n  client_name: 来访者\\n  separator: ':'\\n\"}");
    assert_ok(role_names_find(&t, cfg, dir));
    assert_string_equal(t.client_name, "来访者");
    assert_string_equal(t.counsellor_name, "心理咨询师");
    assert_string_equal(t.separator, ":");
    gen_set(cfg, "data.client_name", "我"); /* warns */
    assert_ok(role_names_find(&t, cfg, dir));
    assert_string_equal(t.client_name, "我");
    assert_string_equal(t.separator, ":");
    write_state(dir, "{\"settings\":\"data:\\n  unheard_of: 1\\n\"}"); /* warns */
    assert_ok(role_names_find(&t, cfg, dir));
    assert_string_equal(t.client_name, "我");
    assert_string_equal(t.separator, "：");
    write_state(dir, "{\"settings\":5}");
    assert_ok(role_names_find(&t, cfg, dir));
    gen_set(cfg, "data.separator", "");
    assert_err(role_names_find(&t, cfg, dir), USAGE, "data.separator is empty");
    cfg_close(cfg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_is_forward), cmocka_unit_test(test_batch),
        cmocka_unit_test(test_streaming),  cmocka_unit_test(test_random_stream),
        cmocka_unit_test(test_ends),       cmocka_unit_test(test_full),
        cmocka_unit_test(test_not_finite), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_question),   cmocka_unit_test(test_any_text),
        cmocka_unit_test(test_role_names), cmocka_unit_test(test_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
