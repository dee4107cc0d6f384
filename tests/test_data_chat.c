/* The template: token runs put together are the tokens of the whole prompt, for stored corpora and
 * for chat. */
#include "testing.h"
#include "tok_fixture.h"

#include "base/check.h"
#include "base/num.h"
#include "data/chat.h"
#include "data/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct cfg *make_cfg(void)
{
    struct cfg *cfg;
    assert_ok(cfg_create(&cfg, &data_settings, 1));
    return cfg;
}

static const struct chat_template soulchat = { "用户", "心理咨询师", "：" };

/* Where tokenizers are: our own two small ones, and the real ones where they are shared. */
static const char *model_path(int which)
{
    switch (which) {
    case 0:
        return "data/sample/model";
    case 1:
        return tok_fixture_library() ? TOK_FIXTURE_CHATGLM2 "/tokenizer.model" : NULL;
    case 2:
        return testing_shared("assets/chatglm-6b");
    default:
        return tok_fixture_library() ? testing_shared("assets/chatglm2-6b") : NULL;
    }
}
enum { MODEL_COUNT = 4, MODEL_REAL_CHATGLM = 2 };

static void test_template_settings(void **state)
{
    (void)state;
    struct chat_template t;
    struct cfg *cfg = make_cfg();
    assert_ok(chat_template_from_cfg(&t, cfg));
    assert_string_equal(t.client_name, "用户");
    assert_string_equal(t.counsellor_name, "心理咨询师");
    assert_string_equal(t.separator, "：");
    const struct {
        const char *key, *value, *part;
    } wrong[] = {
        { "data.client_name", "", "data.client_name is empty" },
        { "data.separator", "", "data.separator is empty" },
        { "data.counsellor_name", "a\nb", "line end" },
        { "data.client_name", "心理咨询师", "both" },
        { "data.client_name", "0123456789012345678901234567890123456789012345678901234567890123",
          "64 bytes" },
    };
    for (int64_t i = 0; i < COUNT_OF(wrong); i++) {
        struct cfg *bad = make_cfg();
        assert_ok(cfg_set(bad, wrong[i].key, wrong[i].value, "test"));
        assert_err(chat_template_from_cfg(&t, bad), USAGE, wrong[i].part);
        cfg_close(bad);
    }
    cfg_close(cfg);
}

/* The text of a prompt, written as a person would. */
static void prompt_text(struct buf *out, const struct chat_template *t,
                        const struct turn_text *turns, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        assert_ok(buf_printf(out, "%s%s%s", i ? "\n" : "",
                             turns[i].role == ROLE_CLIENT ? t->client_name : t->counsellor_name,
                             t->separator));
        assert_ok(buf_append(out, turns[i].text, (size_t)turns[i].size));
    }
    assert_ok(buf_printf(out, "\n%s%s", t->counsellor_name, t->separator));
}

static void encode_prompt(struct i32_buf *out, const struct tok *tok, const struct chat_template *t,
                          const struct turn_text *turns, int64_t count)
{
    struct buf text = { 0 };
    prompt_text(&text, t, turns, count);
    assert_ok(tok_encode(tok, out, text.data, (int64_t)text.size, TOK_PLAIN));
    buf_clear(&text);
}

/* first(begin) ctx(begin+1) ... ctx(end-1) cue */
static void join_runs(struct i32_buf *out, const struct i32_buf *ids, const struct shard_turn *rows,
                      int64_t begin, int64_t end, const struct shard_info *info)
{
    assert_ok(chat_append_first(out, ids->data, &rows[begin], &info->specials));
    for (int64_t i = begin + 1; i < end; i++)
        assert_ok(i32_buf_append(out, ids->data + rows[i].ctx_off, rows[i].ctx_len));
    assert_ok(i32_buf_append(out, info->cue, info->cue_len));
}

static bool same_ids(const struct i32_buf *a, const struct i32_buf *b)
{
    return a->count == b->count &&
           memcmp(a->data, b->data, (size_t)a->count * sizeof *a->data) == 0;
}

#define TURN(r, s)                                                                                 \
    {                                                                                              \
        ROLE_##r, s, sizeof(s) - 1                                                                 \
    }
static const struct turn_text sample_turns[] = {
    TURN(CLIENT, "我最近总是睡不着，怎么办？"),
    TURN(COUNSELLOR, "听起来你很累。\n能多说一点吗？"),
    TURN(CLIENT, "工作压力大 a b  c\t<sop> [gMASK]"),
    TURN(COUNSELLOR, "我明白了，谢谢你愿意告诉我。"),
    TURN(CLIENT, "嗯"),
};
enum { SAMPLE_TURNS = 5 };

static void check_runs(const struct tok *tok, const struct chat_template *t)
{
    struct shard_info info;
    struct shard_turn rows[SAMPLE_TURNS];
    struct i32_buf ids = { 0 }, joined = { 0 }, whole = { 0 }, target = { 0 };
    assert_ok(chat_shard_info(&info, t, tok));
    assert_int_equal(info.cue[0], info.specials.newline);
    for (int i = 0; i < SAMPLE_TURNS; i++) {
        assert_ok(chat_turn_encode(&ids, &rows[i], tok, t, &sample_turns[i], i > 0));
        assert_int_equal(rows[i].role, sample_turns[i].role);
        assert_int_equal(rows[i].target_off >= 0, sample_turns[i].role == ROLE_COUNSELLOR);
        i32_buf_reset(&target);
        assert_ok(tok_encode(tok, &target, sample_turns[i].text, sample_turns[i].size, TOK_PLAIN));
        if (rows[i].target_off < 0) continue;
        assert_int_equal(rows[i].target_len, target.count);
        assert_memory_equal(ids.data + rows[i].target_off, target.data, (size_t)target.count * 4);
    }
    for (int begin = 0; begin < SAMPLE_TURNS; begin++) {
        for (int end = begin + 1; end <= SAMPLE_TURNS; end++) {
            i32_buf_reset(&joined);
            i32_buf_reset(&whole);
            join_runs(&joined, &ids, rows, begin, end, &info);
            encode_prompt(&whole, tok, t, sample_turns + begin, end - begin);
            assert_true(same_ids(&joined, &whole));
        }
    }
    i32_buf_clear(&ids);
    i32_buf_clear(&joined);
    i32_buf_clear(&whole);
    i32_buf_clear(&target);
}

/* Templates for which the rule of the first line holds, and for which it does not. */
static void test_runs_are_the_prompt(void **state)
{
    (void)state;
    const struct chat_template templates[] = { soulchat,
                                               { "问", "答", "：" },
                                               { "user", "assistant", ": " },
                                               { "Client", "Counsellor", ":" } };
    for (int m = 0; m < MODEL_COUNT; m++) {
        struct tok *tok;
        const char *path = model_path(m);
        if (path == NULL) continue;
        assert_ok(tok_open(&tok, path));
        for (int64_t i = 0; i < COUNT_OF(templates); i++) check_runs(tok, &templates[i]);
        tok_close(tok);
    }
}

/* The published template on the real tokenizer: the rule holds, so nothing extra is stored; for
 * "答：" it does not. */
static void test_first_rule(void **state)
{
    (void)state;
    struct tok *tok;
    struct i32_buf ids = { 0 };
    struct shard_turn row;
    const struct chat_template other = { "问", "答", "：" };
    const char *path = model_path(MODEL_REAL_CHATGLM);
    if (path == NULL) return;
    assert_ok(tok_open(&tok, path));
    for (int i = 0; i < SAMPLE_TURNS; i++) {
        assert_ok(chat_turn_encode(&ids, &row, tok, &soulchat, &sample_turns[i], false));
        assert_int_equal(row.flags, 0);
    }
    assert_ok(chat_turn_encode(&ids, &row, tok, &other, &sample_turns[1], false));
    assert_int_equal(row.flags, TURN_FIRST_STORED);
    i32_buf_clear(&ids);
    tok_close(tok);
}

static void test_chat_prompt(void **state)
{
    (void)state;
    for (int m = 0; m < 2 && model_path(m) != NULL; m++) {
        struct tok *tok;
        struct shard_info info;
        struct i32_buf got = { 0 }, whole = { 0 };
        int64_t dropped, cut;
        assert_ok(tok_open(&tok, model_path(m)));
        assert_ok(chat_shard_info(&info, &soulchat, tok));
        /* Room for everything, then for exactly the newest n turns, and for one token less. */
        for (int n = SAMPLE_TURNS; n >= 1; n--) {
            i32_buf_reset(&whole);
            encode_prompt(&whole, tok, &soulchat, sample_turns + SAMPLE_TURNS - n, n);
            i32_buf_reset(&got);
            assert_ok(chat_prompt(&got, tok, &soulchat, sample_turns, SAMPLE_TURNS, whole.count,
                                  &dropped, &cut));
            assert_true(same_ids(&got, &whole));
            assert_int_equal(dropped, SAMPLE_TURNS - n);
            assert_int_equal(cut, 0);
            if (n == 1) break;
            i32_buf_reset(&got);
            assert_ok(chat_prompt(&got, tok, &soulchat, sample_turns, SAMPLE_TURNS, whole.count - 1,
                                  &dropped, NULL));
            assert_int_equal(dropped, SAMPLE_TURNS - n + 1);
        }
        /* A question too long alone: role name, its newest tokens, cue; one fewer for each token of
         * room less. */
        const struct turn_text *question = &sample_turns[2];
        i32_buf_reset(&whole);
        encode_prompt(&whole, tok, &soulchat, question, 1);
        const int64_t least = info.client_head_len + 1 + info.cue_len;
        for (int64_t room = whole.count - 1; room >= least; room--) {
            i32_buf_reset(&got);
            assert_ok(chat_prompt(&got, tok, &soulchat, sample_turns, 3, room, &dropped, &cut));
            assert_int_equal(got.count, room);
            assert_int_equal(cut, whole.count - room);
            assert_int_equal(dropped, 2);
            assert_memory_equal(got.data, info.client_head, (size_t)info.client_head_len * 4);
            const int64_t tail = room - info.client_head_len;
            assert_memory_equal(got.data + info.client_head_len, whole.data + whole.count - tail,
                                (size_t)tail * 4);
        }
        assert_err(chat_prompt(&got, tok, &soulchat, sample_turns, 3, least - 1, NULL, NULL), ARG,
                   "no room");
        assert_err(chat_prompt(&got, tok, &soulchat, sample_turns, 2, 100, NULL, NULL), ARG,
                   "ends with a turn of the client");
        assert_err(chat_prompt(&got, tok, &soulchat, sample_turns, 0, 100, NULL, NULL), ARG, "");
        i32_buf_clear(&got);
        i32_buf_clear(&whole);
        tok_close(tok);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_template_settings), cmocka_unit_test(test_runs_are_the_prompt),
        cmocka_unit_test(test_first_rule),        cmocka_unit_test(test_chat_prompt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
