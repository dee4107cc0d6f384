/* Our own encoder against the SentencePiece library: the same ids for any text. */
#include "testing.h"

#include "base/check.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "data/corpus.h"
#include "data/tok.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SMALL "data/sample/model"

static void assert_same(const struct tok *own, const struct tok *library, const char *text,
                        int64_t size)
{
    struct i32_buf a = { 0 }, b = { 0 };
    assert_ok(tok_encode(own, &a, text, size, TOK_PLAIN));
    assert_ok(tok_encode(library, &b, text, size, TOK_PLAIN));
    const bool same =
        a.count == b.count && (a.count == 0 || memcmp(a.data, b.data, (size_t)a.count * 4) == 0);
    if (!same) fprintf(stderr, "other ids for \"%.*s\"\n", (int)size, text);
    assert_true(same);
    i32_buf_clear(&a);
    i32_buf_clear(&b);
}

/* Every end of a text in one call and alone. */
static void assert_same_from(const struct tok *tok, const char *text, int64_t size,
                             const int64_t *from, int64_t from_count)
{
    struct i32_buf ids = { 0 }, alone = { 0 };
    int64_t ends[TOK_FROM_MAX], begin = 0;
    assert_ok(tok_encode_from(tok, &ids, ends, text, size, from, from_count));
    for (int64_t i = 0; i < from_count; i++) {
        i32_buf_reset(&alone);
        assert_ok(tok_encode(tok, &alone, text + from[i], size - from[i], TOK_PLAIN));
        assert_int_equal(ends[i] - begin, alone.count);
        if (alone.count > 0)
            assert_memory_equal(ids.data + begin, alone.data, (size_t)alone.count * 4);
        begin = ends[i];
    }
    assert_int_equal(ids.count, begin);
    i32_buf_clear(&ids);
    i32_buf_clear(&alone);
}

/* What normalisation, spaces, names of pieces and characters without a piece can be made of. */
static const char *const PARTS[] = { "我",
                                     "最近",
                                     "是不是",
                                     "失眠",
                                     "，",
                                     "。",
                                     "！",
                                     "：",
                                     "用户",
                                     "心理咨询师",
                                     "\n",
                                     "\n\n",
                                     "\t",
                                     " ",
                                     "  ",
                                     "   ",
                                     "a",
                                     "e",
                                     "\xCC\x81",
                                     "\xCC\xA7",
                                     "ｱ",
                                     "ﾞ",
                                     "カ",
                                     "\xE3\x82\x99",
                                     "\xEF\xB7\xBA",
                                     "①",
                                     "㎏",
                                     "ﬁ",
                                     "\xE3\x80\x80",
                                     "\xC2\xA0",
                                     "\xE2\x96\x81",
                                     "\xEF\xBF\xBD",
                                     "\x01",
                                     "\x7F",
                                     "\xE2\x80\x8B",
                                     "<n>",
                                     "<|tab|>",
                                     "<|blank_2|>",
                                     "<|blank_80|>",
                                     "<|blank",
                                     "<",
                                     "<sop>",
                                     "[gMASK]",
                                     "<0x41>",
                                     "😀",
                                     "\xF0\xA0\x80\x80",
                                     "👨\xE2\x80\x8D👩",
                                     "\xE1\x84\x80\xE1\x85\xA1",
                                     "각",
                                     "the",
                                     " The ",
                                     "12",
                                     "\xF0\x90\x8D\x88",
                                     "\xFF",
                                     "\xE6\x88",
                                     "\xED\xA0\x80",
                                     "\xCE\x90",
                                     "ΐ",
                                     "Å",
                                     "\xE2\x84\xAB",
                                     "……",
                                     "——",
                                     "https://",
                                     "::" };

struct dice {
    uint64_t next;
};

static int64_t roll(struct dice *d, int64_t below)
{
    return (int64_t)(rng_u64(7, RNG_TEST, d->next++) % (uint64_t)below);
}

static int64_t random_text(char *out, int64_t size_max, struct dice *d)
{
    int64_t size = 0;
    for (int64_t left = 1 + roll(d, 24); left > 0; left--) {
        const char *part = PARTS[roll(d, COUNT_OF(PARTS))];
        const int64_t bytes = (int64_t)strlen(part);
        if (size + bytes + 1 > size_max) break;
        memcpy(out + size, part, (size_t)bytes);
        size += bytes;
        if (roll(d, 50) == 0) out[size++] = '\0';
    }
    return size;
}

static void assert_random_texts(const char *model, int64_t rounds)
{
    struct tok *own, *library;
    struct dice dice = { 0 };
    char text[512];
    assert_ok(tok_open(&own, model));
    if (tok_open_library(&library, model) == ERR_UNSUPPORTED) testing_skip_all("no SentencePiece");
    for (int64_t i = 0; i < rounds; i++) {
        const int64_t size = random_text(text, sizeof text, &dice);
        int64_t from[TOK_FROM_MAX];
        assert_same(own, library, text, size);
        for (int k = 0; k < TOK_FROM_MAX; k++) from[k] = roll(&dice, size + 1);
        assert_same_from(own, text, size, from, 1 + i % TOK_FROM_MAX);
    }
    tok_close(own);
    tok_close(library);
}

static void test_random_texts(void **state)
{
    (void)state;
    assert_random_texts(SMALL, 20000);
}

static void test_random_texts_published(void **state)
{
    (void)state;
    const char *model = testing_shared("assets/chatglm-6b");
    if (model == NULL) skip();
    assert_random_texts(model, 20000);
}

static void test_ends_of_foreign_family(void **state)
{
    (void)state;
    struct tok *tok;
    assert_ok(tok_open(&tok, "tests/golden/chatglm2"));
    assert_same_from(tok, "\n用户：你好", 16, (int64_t[]){ 0, 1, 10 }, 3);
    tok_close(tok);
}

/* Every code point, between others: what the normalisation makes of it, and whether it has a
 * piece. */
static void assert_all_characters(const char *model)
{
    struct tok *own, *library;
    assert_ok(tok_open(&own, model));
    if (tok_open_library(&library, model) == ERR_UNSUPPORTED) testing_skip_all("no SentencePiece");
    for (int32_t point = 0; point <= 0x10FFFF; point += point < 0x30000 ? 1 : 97) {
        char text[16] = "我";
        if (point >= 0xD800 && point < 0xE000) continue;
        const int64_t size = 3 + utf8_put(text + 3, point);
        memcpy(text + size, "a\xCC\x81", 3);
        assert_same(own, library, text, size + 3);
        assert_same(own, library, text + 3, size - 3);
    }
    tok_close(own);
    tok_close(library);
}

static void test_all_characters(void **state)
{
    (void)state;
    const char *model = testing_shared("assets/chatglm-6b");
    assert_all_characters(model ? model : SMALL);
}

/* Whole turns of a corpus, as they are and with what leads to them in a prompt. */
static void assert_corpus(const char *model, const char *path, int64_t dialogues)
{
    struct tok *own, *library;
    struct corpus *corpus;
    struct dialogue_text d;
    struct buf line = { 0 };
    bool found = true;
    assert_ok(tok_open(&own, model));
    if (tok_open_library(&library, model) == ERR_UNSUPPORTED) testing_skip_all("no SentencePiece");
    assert_ok(corpus_open(&corpus, path, CORPUS_AUTO, CORPUS_FAIL));
    for (int64_t n = 0; n < dialogues; n++) {
        assert_ok(corpus_next(corpus, &d, &found));
        if (!found) break;
        for (int64_t i = 0; i < d.turn_count; i++) {
            buf_reset(&line);
            assert_ok(buf_puts(&line, "\n用户："));
            const int64_t from[] = { 0, 1, (int64_t)line.size };
            assert_ok(buf_append(&line, d.turns[i].text, (size_t)d.turns[i].size));
            for (int k = 0; k < 3; k++)
                assert_same(own, library, line.data + from[k], (int64_t)line.size - from[k]);
            assert_same_from(own, line.data, (int64_t)line.size, from, 3);
        }
    }
    corpus_close(corpus);
    buf_clear(&line);
    tok_close(own);
    tok_close(library);
}

static void test_corpus(void **state)
{
    (void)state;
    char model[4096];
    const char *other = getenv("SOULCHAT_TOK_CORPUS"); /* a whole one takes minutes */
    const char *named = getenv("SOULCHAT_TOK_MODEL");
    assert_corpus(SMALL, "data/sample/corpus.json", INT64_MAX);
    if (other != NULL && named != NULL) assert_corpus(named, other, INT64_MAX);
    if (testing_shared("assets/chatglm-6b") == NULL) return;
    snprintf(model, sizeof model, "%s", testing_shared("assets/chatglm-6b"));
    assert_corpus(model, "data/sample/corpus.json", INT64_MAX);
    assert_corpus(model, testing_shared("corpora/cpsycoun/cpsycound.jsonl.zst"), 300);
    if (other != NULL && named == NULL) assert_corpus(model, other, INT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_texts),
        cmocka_unit_test(test_random_texts_published),
        cmocka_unit_test(test_ends_of_foreign_family),
        cmocka_unit_test(test_all_characters),
        cmocka_unit_test(test_corpus),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
