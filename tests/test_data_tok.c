/* The tokenizers, on the tiny models of this repository and goldens made by other code. */
#include "testing.h"
#include "tok_fixture.h"
#include "tok_golden.h"

#include "base/file.h"
#include "base/utf8.h"
#include "data/tok.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHATGLM  TOK_FIXTURE_CHATGLM
#define CHATGLM2 TOK_FIXTURE_CHATGLM2

static struct tok *open_tok(const char *path)
{
    struct tok *tok = NULL;
    assert_ok(tok_open(&tok, path));
    return tok;
}

static void test_golden(void **state)
{
    (void)state;
    struct tok *tok = open_tok(CHATGLM);
    assert_golden_file(tok, "tests/golden/tok_chatglm.jsonl", 211);
    tok_close(tok);
    if (!tok_fixture_library()) return;
    tok = open_tok(CHATGLM2);
    assert_golden_file(tok, "tests/golden/tok_chatglm2.jsonl", 211);
    tok_close(tok);
}

static void test_specials(void **state)
{
    (void)state;
    struct tok *tok = open_tok(CHATGLM);
    const struct tok_specials *s = tok_specials(tok);
    assert_int_equal(tok_family(tok), TOK_CHATGLM);
    assert_string_equal(tok_family_name(tok_family(tok)), "chatglm");
    assert_int_equal(tok_vocab_size(tok), 1944);
    const int32_t ids[] = { s->unk, s->pad, s->mask, s->gmask, s->smask,
                            s->sop, s->eop, s->eos,  s->newline, s->space };
    const int32_t expected[] = { 0, 3, 1600, 1601, 1602, 1604, 1605, 1605, 4, 5 };
    assert_memory_equal(ids, expected, sizeof ids);
    assert_string_equal(tok_path(tok), CHATGLM "/ice_text.model");
    assert_string_equal(tok_sha256(tok),
                        "1e5494e4036b080da1f096a0840b942e04d5e71b32ea5e1f8cd7f1d9eb0c0954");
    tok_close(tok);

    if (!tok_fixture_library()) return;
    tok = open_tok(CHATGLM2 "/tokenizer.model");
    s = tok_specials(tok);
    assert_int_equal(tok_family(tok), TOK_CHATGLM2);
    assert_int_equal(tok_vocab_size(tok), 1605);
    const int32_t ids2[] = { s->unk, s->pad, s->mask, s->gmask, s->smask,
                             s->sop, s->eop, s->eos,  s->newline };
    const int32_t expected2[] = { 0, 0, 1600, 1601, 1602, 1603, 1604, 2, 13 };
    assert_memory_equal(ids2, expected2, sizeof ids2);
    tok_close(tok);
    tok_close(NULL);
}

static void assert_piece(const struct tok *tok, int32_t id, const char *expected)
{
    struct buf name = { 0 };
    assert_ok(tok_piece(tok, &name, id));
    assert_string_equal(name.data, expected);
    buf_clear(&name);
}

static void test_pieces(void **state)
{
    (void)state;
    struct buf name = { 0 };
    struct tok *tok = open_tok(CHATGLM);
    assert_piece(tok, 5, "▁");
    assert_piece(tok, 1604, "<sop>");
    assert_piece(tok, 1943, "<0xFF>");
    assert_err(tok_piece(tok, &name, 1944), ARG, "0 to 1943");
    assert_err(tok_piece(tok, &name, -1), ARG, "id -1");
    tok_close(tok);
    if (!tok_fixture_library()) return;
    tok = open_tok(CHATGLM2);
    assert_piece(tok, 1603, "sop");
    assert_piece(tok, 13, "<0x0A>");
    tok_close(tok);
}

/* No id that marks a boundary comes out of what a person typed. */
static void test_typed_names_stay_text(void **state)
{
    (void)state;
    static const char TYPED[] = "<sop>[gMASK] [MASK]<eop></s><pad><unk><s>[sMASK]<ENC><dBLOCK>";
    struct tok *tok = open_tok(CHATGLM);
    struct i32_buf ids = { 0 };
    assert_ok(tok_encode(tok, &ids, TYPED, sizeof TYPED - 1, TOK_PLAIN));
    for (int64_t i = 0; i < ids.count; i++) {
        assert_true(ids.data[i] > 4);
        assert_false(ids.data[i] >= 1600 && ids.data[i] <= 1607);
    }
    struct buf back = { 0 };
    assert_ok(tok_decode(tok, &back, ids.data, ids.count));
    assert_string_equal(back.data, TYPED);
    buf_clear(&back);
    i32_buf_clear(&ids);
    tok_close(tok);
}

static void assert_same_ids(const struct tok *tok, const char *a, int64_t a_size, const char *b,
                            int64_t b_size)
{
    struct i32_buf ids_a = { 0 }, ids_b = { 0 };
    assert_ok(tok_encode(tok, &ids_a, a, a_size, TOK_PLAIN));
    assert_ok(tok_encode(tok, &ids_b, b, b_size, TOK_PLAIN));
    assert_int_equal(ids_a.count, ids_b.count);
    if (ids_a.count > 0)
        assert_memory_equal(ids_a.data, ids_b.data, (size_t)ids_a.count * sizeof(int32_t));
    i32_buf_clear(&ids_a);
    i32_buf_clear(&ids_b);
}

/* Broken bytes are encoded as the U+FFFD that stand for them. */
static void test_broken_utf8(void **state)
{
    (void)state;
    static const char BROKEN[] = "你\xE5\xA5 a\xED\xA0\x80z\xF0\x9F\x98";
    static const char REPAIRED[] = "你\uFFFD a\uFFFD\uFFFD\uFFFDz\uFFFD";
    static const char *const PATHS[] = { CHATGLM, CHATGLM2 };
    for (int i = 0; i < (tok_fixture_library() ? 2 : 1); i++) {
        struct tok *tok = open_tok(PATHS[i]);
        assert_same_ids(tok, BROKEN, sizeof BROKEN - 1, REPAIRED, sizeof REPAIRED - 1);
        tok_close(tok);
    }
}

static void assert_decodes(const struct tok *tok, const int32_t *ids, int64_t count,
                           const char *expected)
{
    struct buf text = { 0 };
    assert_ok(buf_puts(&text, "")); /* so that an empty result is a string too */
    assert_ok(tok_decode(tok, &text, ids, count));
    assert_string_equal(text.data, expected);
    buf_clear(&text);
    const struct i32_buf given = { .data = (int32_t *)(uintptr_t)ids, .count = count };
    assert_streams(tok, &given);
}

#define ASSERT_DECODES(tok, expected, ...)                                                         \
    assert_decodes(tok, (const int32_t[]){ __VA_ARGS__ },                                          \
                   sizeof((const int32_t[]){ __VA_ARGS__ }) / sizeof(int32_t), expected)

static void test_decode(void **state)
{
    (void)state;
    struct tok *tok = open_tok(CHATGLM);
    const int32_t byte = 1688;
    ASSERT_DECODES(tok, "你", byte + 0xE4, byte + 0xBD, byte + 0xA0);
    ASSERT_DECODES(tok, "\uFFFD\uFFFD,", byte + 0xE4, byte + 0xBD, 6);
    ASSERT_DECODES(tok, "\uFFFD\uFFFD", byte + 0xE4, byte + 0xBD);
    ASSERT_DECODES(tok, "\uFFFDA", byte + 0xE4, byte + 'A');
    ASSERT_DECODES(tok, "\uFFFD\uFFFD\uFFFD", byte + 0xED, byte + 0xA0, byte + 0x80);
    ASSERT_DECODES(tok, "你", byte + 0xE4, 1605, byte + 0xBD, 3, byte + 0xA0); /* dropped first */
    ASSERT_DECODES(tok, "\uFFFD\uFFFD\uFFFD", byte + 0xE4, 1601, byte + 0xBD, byte + 0xA0);
    ASSERT_DECODES(tok, "", 3, 3, 0, 1, 2, 1601, 1604, 1605, 1944, 1983);
    ASSERT_DECODES(tok, "", 5, 5);
    ASSERT_DECODES(tok, "我", 5, 5, 10);
    ASSERT_DECODES(tok, "我 ", 10, 5);
    ASSERT_DECODES(tok, "\n  \t", 5, 4, 1609, 1608);
    /* ordinary pieces, and bytes, that spell a marker */
    ASSERT_DECODES(tok, "\n", byte + '<', byte + 'n', byte + '>');
    ASSERT_DECODES(tok, "<n", byte + '<', byte + 'n');
    ASSERT_DECODES(tok, "<|blank_1|>", byte + '<', byte + '|', byte + 'b', byte + 'l', byte + 'a',
                   byte + 'n', byte + 'k', byte + '_', byte + '1', byte + '|', byte + '>');
    ASSERT_DECODES(tok, "            ", byte + '<', byte + '|', byte + 'b', byte + 'l', byte + 'a',
                   byte + 'n', byte + 'k', byte + '_', byte + '1', byte + '2', byte + '|',
                   byte + '>');
    struct buf text = { 0 };
    assert_err(tok_decode(tok, &text, (const int32_t[]){ 5, -1 }, 2), ARG, "id -1 at index 1");
    assert_err(tok_decode(tok, &text, (const int32_t[]){ 1944 + TOK_PADDING_IDS_MAX }, 1), ARG,
               "ids 0 to 1943");
    assert_ok(tok_decode(tok, &text, (const int32_t[]){ 1943 + TOK_PADDING_IDS_MAX }, 1));
    assert_int_equal(text.size, 0);
    tok_close(tok);

    if (!tok_fixture_library()) return;
    tok = open_tok(CHATGLM2);
    ASSERT_DECODES(tok, "", 487);
    ASSERT_DECODES(tok, " ", 487, 487);
    ASSERT_DECODES(tok, "\uFFFD\uFFFD\uFFFD", 3 + 0xE4, 1604, 3 + 0xBD, 3 + 0xA0);
    ASSERT_DECODES(tok, "<n>", 3 + '<', 3 + 'n', 3 + '>');
    tok_close(tok);
}

static void test_limits(void **state)
{
    (void)state;
    struct tok *tok = open_tok(CHATGLM);
    struct i32_buf ids = { 0 };
    assert_ok(i32_buf_push(&ids, 7));
    assert_err(tok_encode(tok, &ids, "", TOK_TEXT_BYTES_MAX + 1, TOK_PLAIN), ARG, "at most");
    assert_ok(tok_encode(tok, &ids, NULL, 0, TOK_PLAIN));
    assert_int_equal(ids.count, 1);

    const int64_t size = 1 << 20;
    char *line = malloc((size_t)size);
    assert_non_null(line);
    for (int64_t i = 0; i < size; i++) line[i] = "\xE4\xBD\xA0"[i % 3];
    assert_ok(tok_encode(tok, &ids, line, size, TOK_PLAIN));
    assert_true(ids.count > size / 12);
    memset(line, '\n', (size_t)size);
    i32_buf_reset(&ids);
    assert_ok(tok_encode(tok, &ids, line, size, TOK_PLAIN));
    assert_int_equal(ids.count, size + 1);
    assert_int_equal(ids.data[size], 4);
    free(line);
    i32_buf_clear(&ids);
    tok_close(tok);
}

static void *encode_many(void *arg)
{
    const struct tok *tok = arg;
    struct i32_buf ids = { 0 };
    err_t rc = ERR_OK;
    for (int i = 0; i < 500 && rc == ERR_OK; i++)
        rc = tok_encode(tok, &ids, "我最近 总是\n失眠", 23, TOK_PLAIN);
    int64_t sum = 0;
    for (int64_t i = 0; i < ids.count; i++) sum += ids.data[i];
    i32_buf_clear(&ids);
    return (void *)(intptr_t)(rc == ERR_OK ? sum : -1);
}

static void test_threads(void **state)
{
    (void)state;
    struct tok *tok = open_tok(CHATGLM);
    const void *expected = encode_many(tok);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, encode_many, tok), 0);
    for (int i = 0; i < 4; i++) {
        void *sum = NULL;
        assert_int_equal(pthread_join(threads[i], &sum), 0);
        assert_ptr_equal(sum, expected);
    }
    tok_close(tok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),      cmocka_unit_test(test_specials),
        cmocka_unit_test(test_pieces),      cmocka_unit_test(test_typed_names_stay_text),
        cmocka_unit_test(test_broken_utf8), cmocka_unit_test(test_decode),
        cmocka_unit_test(test_limits),      cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
