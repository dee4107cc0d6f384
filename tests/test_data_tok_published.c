/* The published tokenizers against goldens of the reference. Needs the shared material. */
#include "testing.h"
#include "tok_fixture.h"
#include "tok_golden.h"

#include "base/file.h"
#include "data/tok.h"
#include "data/tok_model.h"

#include <string.h>

static struct tok *open_published(const char *relative)
{
    struct tok *tok = NULL;
    assert_ok(tok_open(&tok, testing_shared(relative)));
    return tok;
}

static void test_chatglm(void **state)
{
    (void)state;
    struct tok *tok = open_published("assets/chatglm-6b");
    const struct tok_specials expected = { .unk = 0, .pad = 3, .mask = 130000, .gmask = 130001,
                                           .smask = 130002, .sop = 130004, .eop = 130005,
                                           .eos = 130005, .newline = 4, .space = 5 };
    assert_memory_equal(tok_specials(tok), &expected, sizeof expected);
    assert_int_equal(tok_vocab_size(tok), 130344);
    assert_string_equal(tok_sha256(tok),
                        "5e974d9a69c242ce014c88c2b26089270f6198f3c0b700a887666cd3e816f17e");
    assert_golden_file(tok, testing_shared("golden/tokenizer/chatglm.jsonl"), 65);
    tok_close(tok);
}

static void test_chatglm2(void **state)
{
    (void)state;
    if (!tok_fixture_library()) skip();
    struct tok *tok = open_published("assets/chatglm2-6b");
    const struct tok_specials expected = { .unk = 0, .pad = 0, .mask = 64789, .gmask = 64790,
                                           .smask = 64791, .sop = 64792, .eop = 64793, .eos = 2,
                                           .newline = 13, .space = 30910 };
    assert_memory_equal(tok_specials(tok), &expected, sizeof expected);
    assert_int_equal(tok_vocab_size(tok), 64794);
    assert_golden_file(tok, testing_shared("golden/tokenizer/chatglm2.jsonl"), 65);
    tok_close(tok);
}

/* Cut at 500 places each, and just before the end. */
static void test_truncated(void **state)
{
    (void)state;
    static const char *const FILES[] = { "assets/chatglm-6b/ice_text.model",
                                         "assets/chatglm2-6b/tokenizer.model" };
    for (int i = 0; i < 2; i++) {
        struct buf bytes = { 0 };
        assert_ok(file_read_all(&bytes, testing_shared(FILES[i]), TOK_MODEL_BYTES_MAX));
        for (size_t cut = 1; cut <= 500; cut++) {
            const size_t size = cut == 500 ? bytes.size - 1 : bytes.size / 500 * cut;
            struct tok_model model;
            assert_err(tok_model_parse(&model, "cut", bytes.data, (int64_t)size), FORMAT, "cut");
            tok_model_clear(&model);
        }
        buf_clear(&bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chatglm),
        cmocka_unit_test(test_chatglm2),
        cmocka_unit_test(test_truncated),
    };
    if (testing_shared("assets/chatglm-6b/ice_text.model") == NULL)
        testing_skip_all("the published tokenizers are not here (SOULCHAT_SHARED)");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
