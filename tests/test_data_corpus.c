/* Corpora: every form and layout, and everything that can be wrong with a file. */
#include "testing.h"

#include "base/file.h"
#include "data/corpus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SOULCHAT_RECORD                                                                            \
    "{\"id\":0,\"topic\":\"成长\",\"messages\":[{\"role\":\"user\",\"content\":\"你好\"},"     \
    "{\"role\":\"assistant\",\"content\":\"您好\"}]}"
#define SMILE_RECORD                                                                               \
    "{\"dialogue\":[{\"role\":\"client\",\"content\":\"a\"},"                                      \
    "{\"role\":\"counselor\",\"content\":\"b\"}]}"

static const char *file_with(const char *text, int64_t size)
{
    static char path[FILE_PATH_MAX];
    assert_ok(path_join(path, testing_dir(), "corpus.json"));
    assert_ok(file_replace(path, text, size));
    return path;
}

/* The whole corpus as text: "id/topic: C=.. K=.. S=..;" a dialogue. What is expected fits on a
 * line. */
static err_t render(struct buf *out, const char *text, int64_t size, enum corpus_form form,
                    enum corpus_on_bad_record on_bad, int64_t *skipped)
{
    err_t rc = ERR_OK;
    struct corpus *c = NULL;
    struct dialogue_text d;
    bool found;
    buf_reset(out);
    TRY_DONE(buf_puts(out, ""));
    TRY_DONE(corpus_open(&c, file_with(text, size), form, on_bad));
    for (;;) {
        TRY_DONE(corpus_next(c, &d, &found));
        if (!found) break;
        TRY_DONE(buf_printf(out, "%s/%s:", d.id, d.topic));
        for (int64_t i = 0; i < d.turn_count; i++) {
            TRY_DONE(buf_printf(out, " %c=", "CKS"[d.turns[i].role]));
            TRY_DONE(buf_append(out, d.turns[i].text, (size_t)d.turns[i].size));
        }
        TRY_DONE(buf_puts(out, "; "));
    }
done:
    if (skipped) *skipped = c ? corpus_skipped(c) : 0;
    corpus_close(c);
    return rc;
}

static void expect(const char *text, const char *expected)
{
    struct buf got = { 0 };
    assert_ok(render(&got, text, (int64_t)strlen(text), CORPUS_AUTO, CORPUS_FAIL, NULL));
    assert_string_equal(got.data, expected);
    buf_clear(&got);
}

static void expect_error_of(const char *text, int64_t size, const char *part)
{
    struct buf got = { 0 };
    testing_assert_code(render(&got, text, size, CORPUS_AUTO, CORPUS_FAIL, NULL), ERR_FORMAT, part,
                        text, __FILE__, __LINE__);
    buf_clear(&got);
}

static void expect_error(const char *text, const char *part)
{
    expect_error_of(text, (int64_t)strlen(text), part);
}

static void expect_skip(const char *text, const char *expected, int64_t skipped_expected)
{
    struct buf got = { 0 };
    int64_t skipped;
    assert_ok(render(&got, text, (int64_t)strlen(text), CORPUS_AUTO, CORPUS_SKIP, &skipped));
    assert_string_equal(got.data, expected);
    assert_int_equal(skipped, skipped_expected);
    buf_clear(&got);
}

static void test_forms(void **state)
{
    (void)state;
    expect("[" SOULCHAT_RECORD "]", "0/成长: C=你好 K=您好; ");
    expect(SOULCHAT_RECORD "\n", "0/成长: C=你好 K=您好; ");
    expect(SMILE_RECORD "\n" SMILE_RECORD, "line 1/: C=a K=b; line 2/: C=a K=b; ");
    expect("[" SMILE_RECORD "," SMILE_RECORD "]", "record 1/: C=a K=b; record 2/: C=a K=b; ");
    expect(
        "[{\"id\":\"x\",\"system\":\"s\",\"conversations\":[{\"from\":\"human\",\"value\":\"q\"},"
        "{\"from\":\"gpt\",\"value\":\"a\"},{\"from\":\"system\",\"value\":\"t\"}]}]",
        "x/: S=s C=q K=a S=t; ");
    expect("{\"instruction\":\"i\",\"input\":\"n\",\"output\":\"o\",\"history\":[[\"q\",\"a\"]]}",
           "line 1/: C=q K=a C=i C=n K=o; ");
    expect("{\"instruction\":\"i\",\"output\":\"o\",\"input\":null,\"history\":null}",
           "line 1/: C=i K=o; ");
    expect("[{\"messages\":[]}]", "record 1/:; ");
}

static void test_layouts(void **state)
{
    (void)state;
    expect("", "");
    expect(" \n ", "");
    expect("[]", "");
    expect(" [ ] \n", "");
    expect("\xef\xbb\xbf[" SMILE_RECORD "]", "record 1/: C=a K=b; ");
    expect("\xef\xbb\xbf" SMILE_RECORD "\r\n\r\n" SMILE_RECORD "\r\n",
           "line 1/: C=a K=b; line 3/: C=a K=b; ");
    expect("{\n \"id\": 7,\n \"messages\": []\n}\n{\n \"id\": 8,\n \"messages\": []\n}\n",
           "7/:; 8/:; ");
    expect("[\r\n" SMILE_RECORD "\r\n,\r\n" SMILE_RECORD "]\r\n",
           "record 1/: C=a K=b; record 2/: C=a K=b; ");
    /* Brackets, quotes and escapes inside strings are text. */
    expect("[{\"id\":\"]}\\\"\\\\\",\"messages\":[{\"role\":\"user\",\"content\":\"[{\\\"\"}]}]",
           "]}\"\\/: C=[{\"; ");
}

static void test_wrong(void **state)
{
    (void)state;
    expect_error("[" SMILE_RECORD ",]", "found ']', expected a record");
    expect_error("[" SMILE_RECORD ",", "found the end of the file, expected a record");
    expect_error("[" SMILE_RECORD, "expected ',' or ']'");
    expect_error("[" SMILE_RECORD " " SMILE_RECORD "]", "found '{', expected ',' or ']'");
    expect_error("[" SMILE_RECORD "] x", "found 'x', expected nothing after");
    expect_error("[{\"messages\":[", "ends inside this record");
    expect_error("[[]]", "not an object");
    expect_error("[1]", "near '1'");
    expect_error("hello", "found 'h', expected '[' or '{'");
    expect_error("\x01", "found byte 0x01");
    expect_error(SMILE_RECORD "\n{\"dialogue\":[}\n", "corpus.json:2 (byte ");
    expect_error(SMILE_RECORD ",\n", "corpus.json:1 (byte ");
    expect_error("[\n{\"dialogue\":[],\n\"dialogue\":[]}]", "corpus.json:3");
    expect_error("{\"a\":1}", "none of the members");
    expect_error("{\"messages\":1}", "\"messages\" is a number, expected an array");
    expect_error("{\"messages\":[1]}", "messages[0] is a number, expected an object");
    expect_error("{\"messages\":[{\"content\":\"\"}]}", "\"role\" is nothing, expected a string");
    expect_error("{\"messages\":[{\"role\":\"doctor\",\"content\":\"\"}]}",
                 "role \"doctor\", expected user, client");
    expect_error("{\"messages\":[{\"role\":\"user\",\"content\":null}]}",
                 "\"content\" of messages[0] is null");
    expect_error("{\"instruction\":\"x\"}", "\"output\" is nothing");
    expect_error("{\"instruction\":\"x\",\"output\":\"y\",\"history\":[[\"a\"]]}", "history[0]");
    expect_error("{\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}", "decode byte 0xff");
    expect_error("{\"messages\":[{\"role\":\"user\",\"content\":\"\xed\xa0\x80\"}]}",
                 "decode byte 0xed");
    expect_error("{\"messages\":[{\"role\":\"user\",\"content\":\"\\ud800\"}]}", "invalid Unicode");
    expect_error("\x28\xb5\x2f\xfd....", "zstd -d");
    expect_error("\x1f\x8b......", "gunzip");
    expect_error_of("\xff\xfe[\0", 4, "iconv");
}

static void test_nul_is_text(void **state)
{
    (void)state;
    struct buf got = { 0 };
    const char *text = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\\u0000b\"}]}";
    assert_ok(render(&got, text, (int64_t)strlen(text), CORPUS_AUTO, CORPUS_FAIL, NULL));
    assert_memory_equal(got.data, "line 1/: C=a\0b; ", 16);
    buf_clear(&got);
}

static void test_skip(void **state)
{
    (void)state;
    expect_skip(SMILE_RECORD "\n{\"dialogue\":[{\nnonsense\n" SMILE_RECORD "\n",
                "line 1/: C=a K=b; line 4/: C=a K=b; ", 2);
    expect_skip("{\"dialogue\":[\n" SMILE_RECORD "\n", "line 2/: C=a K=b; ", 1);
    expect_skip("{\"dialogue\":\"x\n" SMILE_RECORD "\n", "line 2/: C=a K=b; ", 1);
    expect_skip("[{\"x\":1},{\"dialogue\":[1]}," SMILE_RECORD ",7,\"s\"]", "record 3/: C=a K=b; ",
                4);
    expect_skip("[{\"dialogue\":\"\xff\"}," SMILE_RECORD "]", "record 2/: C=a K=b; ", 1);
    /* What cannot be resynchronised fails all the same. */
    struct buf got = { 0 };
    const char *cut = "[" SMILE_RECORD ",{\"dialogue\":[";
    assert_err(render(&got, cut, (int64_t)strlen(cut), CORPUS_AUTO, CORPUS_SKIP, NULL), FORMAT,
               "ends inside");
    buf_clear(&got);
}

static void test_named_form(void **state)
{
    (void)state;
    struct buf got = { 0 };
    const char *both = "{\"messages\":[],\"dialogue\":[{\"role\":\"user\",\"content\":\"x\"}]}";
    assert_ok(render(&got, both, (int64_t)strlen(both), CORPUS_SMILE, CORPUS_FAIL, NULL));
    assert_string_equal(got.data, "line 1/: C=x; ");
    assert_err(
        render(&got, SMILE_RECORD, sizeof SMILE_RECORD - 1, CORPUS_SOULCHAT, CORPUS_FAIL, NULL),
        FORMAT, "\"messages\" is nothing");
    buf_clear(&got);
    struct corpus *c;
    assert_err(corpus_open(&c, "/nonexistent/x.json", CORPUS_AUTO, CORPUS_FAIL), NOTFOUND,
               "x.json");
    assert_null(c);
}

/* Records across the borders of reads: every text of up to 3 MiB comes back whole, whatever lies
 * before it. */
static void test_long_records(void **state)
{
    (void)state;
    struct buf file = { 0 };
    struct corpus *c;
    struct dialogue_text d;
    bool found;
    enum { RECORDS = 40 };
    for (int array = 0; array < 2; array++) {
        buf_reset(&file);
        assert_ok(buf_puts(&file, array ? "[" : ""));
        for (int r = 0; r < RECORDS; r++) {
            assert_ok(
                buf_printf(&file, "{\"id\":%d,\"messages\":[{\"role\":\"user\",\"content\":\"", r));
            const int64_t size = r == 20 ? 3 << 20 : 1000 * r * r % 300007;
            assert_ok(buf_reserve(&file, (size_t)size));
            memset(file.data + file.size, 'a' + r % 26, (size_t)size);
            file.size += (size_t)size;
            assert_ok(buf_printf(&file, "\"}]}%s",
                                 r + 1 == RECORDS ? (array ? "]" : "") : (array ? "," : "\n")));
        }
        assert_ok(
            corpus_open(&c, file_with(file.data, (int64_t)file.size), CORPUS_AUTO, CORPUS_FAIL));
        for (int r = 0; r < RECORDS; r++) {
            const int64_t size = r == 20 ? 3 << 20 : 1000 * r * r % 300007;
            assert_ok(corpus_next(c, &d, &found));
            assert_true(found && atoi(d.id) == r && d.turns[0].size == size);
            for (int64_t i = 0; i < size; i++) assert_true(d.turns[0].text[i] == 'a' + r % 26);
        }
        assert_ok(corpus_next(c, &d, &found));
        assert_false(found);
        int64_t done, total;
        corpus_position(c, &done, &total);
        assert_true(done == total && total == (int64_t)file.size);
        corpus_close(c);
    }
    buf_clear(&file);
}

static void test_too_many_turns(void **state)
{
    (void)state;
    struct buf file = { 0 };
    for (int extra = 0; extra < 2; extra++) {
        buf_reset(&file);
        assert_ok(buf_puts(&file, "{\"messages\":["));
        for (int i = 0; i < CORPUS_TURNS_MAX + extra; i++)
            assert_ok(buf_printf(&file, "%s{\"role\":\"user\",\"content\":\"\"}", i ? "," : ""));
        assert_ok(buf_puts(&file, "]}"));
        if (extra) {
            expect_error_of(file.data, (int64_t)file.size, "more than 4096 turns");
        } else {
            struct buf got = { 0 };
            assert_ok(render(&got, file.data, (int64_t)file.size, CORPUS_AUTO, CORPUS_FAIL, NULL));
            buf_clear(&got);
        }
    }
    buf_clear(&file);
}

/* The file shrinks while it is read: an error, not a crash and not silence. */
static void test_truncated_while_reading(void **state)
{
    (void)state;
    struct buf file = { 0 };
    struct corpus *c;
    struct dialogue_text d;
    bool found;
    err_t rc = ERR_OK;
    for (int i = 0; i < 40000; i++) assert_ok(buf_puts(&file, SMILE_RECORD "\n"));
    const char *path = file_with(file.data, (int64_t)file.size);
    assert_true(file.size > 2 << 20);
    assert_ok(corpus_open(&c, path, CORPUS_AUTO, CORPUS_SKIP));
    assert_ok(corpus_next(c, &d, &found));
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fclose(f);
    for (found = true; rc == ERR_OK && found;) rc = corpus_next(c, &d, &found);
    assert_int_equal(rc, ERR_FORMAT);
    corpus_close(c);
    buf_clear(&file);
}

/* The collections that people have, whole: counts as published with them. */
static void test_real_files(void **state)
{
    (void)state;
    struct corpus *c;
    struct dialogue_text d;
    bool found;
    const char *path = testing_shared("corpora/soulchat_schema/soulchatcorpus_card_sample.json");
    if (path == NULL) {
        printf("no shared corpora: not read\n");
        return;
    }
    assert_ok(corpus_open(&c, path, CORPUS_AUTO, CORPUS_FAIL));
    assert_ok(corpus_next(c, &d, &found));
    assert_true(found);
    assert_int_equal(d.turn_count, 12);
    assert_string_equal(d.topic, "成长");
    assert_int_equal(corpus_form(c), CORPUS_SOULCHAT);
    assert_ok(corpus_next(c, &d, &found));
    assert_false(found);
    corpus_close(c);

    int64_t dialogues = 0, turns = 0;
    assert_ok(corpus_open(&c, testing_shared("corpora/cpsycoun/cpsycoune.jsonl"), CORPUS_AUTO,
                          CORPUS_FAIL));
    for (;;) {
        assert_ok(corpus_next(c, &d, &found));
        if (!found) break;
        dialogues++;
        turns += d.turn_count;
    }
    assert_int_equal(dialogues, 45);
    assert_int_equal(turns, 592);
    corpus_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_wrong),
        cmocka_unit_test(test_nul_is_text),
        cmocka_unit_test(test_skip),
        cmocka_unit_test(test_named_form),
        cmocka_unit_test(test_long_records),
        cmocka_unit_test(test_too_many_turns),
        cmocka_unit_test(test_truncated_while_reading),
        cmocka_unit_test(test_real_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
