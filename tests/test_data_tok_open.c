/* Files that are not what they should be: each gives one clear error, whatever is wrong with it. */
#include "testing.h"
#include "tok_fixture.h"

#include "base/file.h"
#include "data/tok.h"
#include "data/tok_model.h"
#include "data/tok_spm.h"

#include <stdio.h>
#include <string.h>

#define CHATGLM_FILE  "data/sample/model/ice_text.model"
#define CHATGLM2_FILE "tests/golden/chatglm2/tokenizer.model"

static const char *write_file(const char *name, const void *bytes, size_t size)
{
    static char path[FILE_PATH_MAX];
    assert_ok(path_join(path, testing_dir(), name));
    assert_ok(file_replace(path, bytes, (int64_t)size));
    return path;
}

static void test_not_a_model(void **state)
{
    (void)state;
    static const char POINTER[] = "version https://git-lfs.github.com/spec/v1\n"
                                  "oid sha256:5e974d9a69c242ce\nsize 2706249\n";
    static const char RANKED[] = "IQ== 0\nIg== 1\n";
    static const char HTML[] = "<!DOCTYPE html><html></html>";
    struct tok *tok = NULL;
    const char *dir = testing_dir();
    assert_err(tok_open(&tok, "no/such/folder"), NOTFOUND, "no/such/folder");
    assert_null(tok);
    assert_err(tok_open(&tok, dir), NOTFOUND, "neither ice_text.model nor tokenizer.model");
    assert_err(tok_open(&tok, write_file("pointer", POINTER, sizeof POINTER - 1)), FORMAT,
               "Git LFS pointer");
    assert_err(tok_open(&tok, write_file("ranked", RANKED, sizeof RANKED - 1)), UNSUPPORTED,
               "GLM-4");
    assert_err(tok_open(&tok, write_file("html", HTML, sizeof HTML - 1)), FORMAT, "html: ");
    assert_err(tok_open(&tok, write_file("empty", "", 0)), FORMAT, "empty");
    assert_err(tok_open(&tok, write_file("zeros", "\0\0\0\0", 4)), FORMAT, "field 0");
    assert_null(tok);
}

static void test_foreign_folder(void **state)
{
    (void)state;
    static const char LLAMA[] = "{\"model_type\": \"llama\"}";
    struct buf bytes = { 0 };
    struct tok *tok = NULL;
    assert_ok(file_read_all(&bytes, CHATGLM_FILE, TOK_MODEL_BYTES_MAX));
    write_file("ice_text.model", bytes.data, bytes.size);
    assert_ok(tok_open(&tok, testing_dir()));
    tok_close(tok);
    write_file("config.json", LLAMA, sizeof LLAMA - 1);
    assert_err(tok_open(&tok, testing_dir()), UNSUPPORTED, "llama");
    write_file("config.json", "{", 1);
    assert_err(tok_open(&tok, testing_dir()), FORMAT, "config.json:1");
    buf_clear(&bytes);
}

/* As tok_open, without the file; what the library is given must never abort or read outside. */
static err_t open_bytes(const struct buf *bytes)
{
    struct tok_model model;
    struct tok_spm *spm = NULL;
    struct i32_buf ids = { 0 };
    static const char TEXT[] = "我 最近①Ａﬁe\xCC\x81 　总是失眠<n>a b\xF0\x9F\x91\x8B\x00x";
    err_t rc = tok_model_parse(&model, "test", bytes->data, (int64_t)bytes->size);
    if (rc == ERR_OK) rc = tok_spm_open(&spm, "test", bytes->data, (int64_t)bytes->size);
    if (rc == ERR_OK) rc = tok_spm_encode(spm, &ids, TEXT, sizeof TEXT - 1);
    i32_buf_clear(&ids);
    tok_spm_close(spm);
    tok_model_clear(&model);
    return rc;
}

/* Every cut is noticed: pieces, training settings and normalisation must all be there. */
static void test_truncated(void **state)
{
    (void)state;
    if (!tok_fixture_library()) skip();
    static const struct { const char *path; size_t dense, step; } CASES[] = {
        { CHATGLM2_FILE, SIZE_MAX, 1 },
        { CHATGLM_FILE, 2000, 499 },
    };
    for (int i = 0; i < 2; i++) {
        struct buf bytes = { 0 };
        assert_ok(file_read_all(&bytes, CASES[i].path, TOK_MODEL_BYTES_MAX));
        assert_ok(open_bytes(&bytes));
        const size_t whole = bytes.size;
        for (size_t size = 1; size < whole; size += size < CASES[i].dense ? 1 : CASES[i].step) {
            bytes.size = size;
            assert_err(open_bytes(&bytes), FORMAT, "test");
        }
        bytes.size = whole - 1;
        assert_err(open_bytes(&bytes), FORMAT, "test");
        buf_clear(&bytes);
    }
}

/* A flipped byte is an error or a slightly other tokenizer, never a crash (sanitizers look on). */
static void test_flipped(void **state)
{
    (void)state;
    if (!tok_fixture_library()) skip();
    static const char *const PATHS[] = { CHATGLM2_FILE, CHATGLM_FILE };
    static const size_t STEPS[] = { 53, 1021 };
    for (int i = 0; i < 2; i++) {
        struct buf bytes = { 0 };
        int opened = 0, refused = 0;
        assert_ok(file_read_all(&bytes, PATHS[i], TOK_MODEL_BYTES_MAX));
        for (size_t at = 0; at < bytes.size; at += STEPS[i]) {
            const char original = bytes.data[at];
            bytes.data[at] = (char)(original ^ (1 << at % 8));
            if (open_bytes(&bytes) == ERR_OK) opened++;
            else refused++;
            bytes.data[at] = original;
        }
        assert_true(opened > 0 && refused > 0);
        buf_clear(&bytes);
    }
}

/* Replace the first `from` in a copy of the file by `to` of the same length, and open that. */
static err_t open_changed(const char *path, const char *from, const char *to, size_t size)
{
    struct buf bytes = { 0 };
    struct tok *tok = NULL;
    assert_ok(file_read_all(&bytes, path, TOK_MODEL_BYTES_MAX));
    char *at = memmem(bytes.data, bytes.size, from, size);
    assert_non_null(at);
    memcpy(at, to, size);
    const err_t rc = tok_open(&tok, write_file("changed", bytes.data, bytes.size));
    tok_close(tok);
    buf_clear(&bytes);
    return rc;
}

static void test_wrong_pieces(void **state)
{
    (void)state;
    assert_ok(open_changed(CHATGLM_FILE, "<dBLOCK>", "<dBLOCX>", 8)); /* nobody needs it */
    assert_err(open_changed(CHATGLM_FILE, "<sop>", "<sxp>", 5), FORMAT, "no piece \"<sop>\"");
    assert_err(open_changed(CHATGLM_FILE, "<|blank_77|>", "<|blank_00|>", 12), FORMAT,
               "<|blank_77|>");
    assert_err(open_changed(CHATGLM_FILE, "[gMASK]", "[gMXSK]", 7), UNSUPPORTED, "April 2023");
    assert_err(open_changed(CHATGLM2_FILE, "<0x7F>", "<0x7E>", 6), FORMAT, "byte piece");
    assert_err(open_changed(CHATGLM2_FILE, "</s>", "</x>", 4), FORMAT, "no piece \"</s>\"");
    assert_err(open_changed(CHATGLM2_FILE, "你", "\xE4\xBD\0", 3), FORMAT, "not text");
    if (tok_fixture_library())
        assert_err(open_changed(CHATGLM2_FILE, "\n\3你", "\n\3我", 5), FORMAT, "already defined");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_not_a_model), cmocka_unit_test(test_foreign_folder),
        cmocka_unit_test(test_truncated),   cmocka_unit_test(test_flipped),
        cmocka_unit_test(test_wrong_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
