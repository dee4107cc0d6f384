/* Corpora: every form and layout, and everything that can be wrong with a file. */
#include "testing.h"

#include "base/file.h"
#include "corpus_fixture.h"
#include "data/corpus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *file_with(const char *text, int64_t size)
{
    static char path[FILE_PATH_MAX];
    assert_ok(path_join(path, testing_dir(), "corpus.json"));
    assert_ok(file_replace(path, text, size));
    return path;
}

static void expect(const char *text, const char *expected)
{
    struct corpus_rendered got = { 0 };
    assert_ok(corpus_render(&got, text, (int64_t)strlen(text), CORPUS_AUTO, CORPUS_FAIL));
    assert_string_equal(got.text.data, expected);
    buf_clear(&got.text);
}

static void expect_error_of(const char *text, int64_t size, const char *part)
{
    struct corpus_rendered got = { 0 };
    testing_assert_code(corpus_render(&got, text, size, CORPUS_AUTO, CORPUS_FAIL), ERR_FORMAT, part,
                        text, __FILE__, __LINE__);
    buf_clear(&got.text);
}

static void expect_error(const char *text, const char *part)
{
    expect_error_of(text, (int64_t)strlen(text), part);
}

static void expect_skip(const char *text, const char *expected, int64_t skipped_expected)
{
    struct corpus_rendered got = { 0 };
    assert_ok(corpus_render(&got, text, (int64_t)strlen(text), CORPUS_AUTO, CORPUS_SKIP));
    assert_string_equal(got.text.data, expected);
    assert_int_equal(got.skipped, skipped_expected);
    buf_clear(&got.text);
}

/* Every form: detected, and the same when it is named. */
static void test_forms(void **state)
{
    (void)state;
    for (int64_t i = 0; i < corpus_sample_count; i++) {
        const struct corpus_sample *s = &corpus_samples[i];
        struct corpus_rendered got = { 0 };
        for (int named = 0; named < 2; named++) {
            assert_ok(corpus_render(&got, s->text, (int64_t)strlen(s->text),
                                    named ? s->form : CORPUS_AUTO, CORPUS_FAIL));
            assert_string_equal(got.text.data, s->rendered);
            assert_int_equal(got.form, s->form);
        }
        buf_clear(&got.text);
    }
    expect("[{\"messages\":[]},{\"messages\":[],\"topic\":\"t\"}]", "record 1/:; record 2/t:; ");
    expect("{\"instruction\":\"i\",\"output\":\"o\",\"input\":null,\"history\":null}",
           "line 1/: C=i K=o; ");
    expect("{\"id\":12345678901234567890123,\"dialogue\":[{\"role\":\"来访者\",\"content\":\"\"}]}",
           "12345678901234567890123/: C=; ");
}

/* The layout is told, and what a file is packed with makes no difference. */
static void test_packed(void **state)
{
    (void)state;
    for (int64_t i = 0; i < corpus_sample_count; i++) {
        const struct corpus_sample *s = &corpus_samples[i];
        const int64_t size = (int64_t)strlen(s->text);
        for (int p = 0; p < 3; p++) {
            static const char *const names[] = { "plain", "gzip", "zstd" };
            struct buf packed = { 0 };
            struct corpus *c;
            struct dialogue_text d;
            bool found = true;
            int64_t done, total;
            if (p == 0) assert_ok(buf_puts(&packed, s->text));
            if (p > 0) (p == 1 ? pack_gzip : pack_zstd)(&packed, s->text, size / 2);
            if (p > 0)
                (p == 1 ? pack_gzip : pack_zstd)(&packed, s->text + size / 2, size - size / 2);
            assert_ok(corpus_open(&c, file_with(packed.data, (int64_t)packed.size), CORPUS_AUTO,
                                  CORPUS_FAIL));
            assert_string_equal(corpus_packing_name(c), names[p]);
            assert_string_equal(corpus_layout_name(c), "none");
            while (found) assert_ok(corpus_next(c, &d, &found));
            assert_string_equal(corpus_layout_name(c), s->layout);
            corpus_position(c, &done, &total);
            assert_true(done == total && total == (int64_t)packed.size);
            assert_int_equal(corpus_text_bytes(c), size);
            corpus_close(c);
            struct corpus_rendered got = { 0 };
            assert_ok(
                corpus_render(&got, packed.data, (int64_t)packed.size, CORPUS_AUTO, CORPUS_FAIL));
            assert_string_equal(got.text.data, s->rendered);
            buf_clear(&got.text);
            buf_clear(&packed);
        }
    }
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
    expect_error("[1]", "a record that is a number and not an object");
    expect_error("hello", "found \"hello\", expected '[' or '{' (JSON), a row of names with the "
                          "columns input and target (CSV), or a role's name and a colon");
    expect_error("\x01x\n", "corpus.json:1 (byte 0): found \"?x\"");
    expect_error("\n\n\xb2\xa1", "corpus.json:3 (byte 2): found \"\"");
    expect_error(SMILE_RECORD "\n{\"dialogue\":[}\n", "corpus.json:2 (byte ");
    expect_error(SMILE_RECORD ",\n", "corpus.json:1 (byte ");
    expect_error("[\n{\"dialogue\":[],\n\"dialogue\":[]}]", "corpus.json:3");
    expect_error("{\"a\":1,\"b\":2}",
                 "corpus.json:1 (byte 0): a record with \"a\", \"b\"; expected \"messages\" and "
                 "\"topic\" (soulchat), \"dialogue\" (smile), \"conversations\" (sharegpt), ");
    expect_error("[{}]", "a record without members");
    expect_error("{\"messages\":1}", "\"messages\" is a number, expected an array");
    expect_error("{\"messages\":[1]}", "messages[0] is a number, expected an object");
    expect_error("{\"messages\":[{\"content\":\"\"}]}", "\"role\" is nothing, expected a string");
    expect_error("{\"messages\":[{\"role\":\"doctor\",\"content\":\"\"}]}",
                 "role \"doctor\", expected user, client");
    expect_error("{\"messages\":[{\"role\":\"user\",\"content\":null}]}",
                 "\"content\" of messages[0] is null");
    expect_error("{\"instruction\":\"x\"}", "\"output\" is nothing");
    expect_error("{\"instruction\":\"x\",\"output\":\"y\",\"history\":[[\"a\"]]}", "history[0]");
    expect_error("{\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}",
                 "(byte 39): byte 0xff is not UTF-8; if");
    expect_error("{\"messages\":[{\"role\":\"user\",\"content\":\"\xed\xa0\x80\"}]}",
                 "(byte 39): byte 0xed is not UTF-8");
    expect_error("{\"messages\":[{\"role\":\"user\",\"content\":\"\\ud800\"}]}",
                 "\\ud800 is half of a surrogate pair");
    expect_error("\x28\xb5\x2f\xfd....", "zstd stream broken near byte");
    expect_error("\x1f\x8b......", "gzip stream broken near byte");
    expect_error_of("\xff\xfe[\0", 4, "UTF-16; convert it first: iconv -f UTF-16");
    expect_error_of("[\0{\0", 4, "iconv -f UTF-16LE");
    expect_error_of("\0[\0{", 4, "iconv -f UTF-16BE");
    expect_error_of("\xff\xfe\0\0[\0\0\0", 8, "UTF-32");
    expect_error("PK\x03\x04...", "unzip");
    expect_error("\xfd"
                 "7zXZ",
                 "xz -dk");
    expect_error("BZh91AY", "bunzip2");
    expect_error("PAR1....", "Parquet");
}

static void test_nul_is_text(void **state)
{
    (void)state;
    struct corpus_rendered got = { 0 };
    const char *text = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\\u0000b\"}]}";
    assert_ok(corpus_render(&got, text, (int64_t)strlen(text), CORPUS_AUTO, CORPUS_FAIL));
    assert_memory_equal(got.text.data, "line 1/: C=a\0b; ", 16);
    buf_clear(&got.text);
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
    struct corpus_rendered got = { 0 };
    const char *cut = "[" SMILE_RECORD ",{\"dialogue\":[";
    assert_err(corpus_render(&got, cut, (int64_t)strlen(cut), CORPUS_AUTO, CORPUS_SKIP), FORMAT,
               "ends inside");
    buf_clear(&got.text);
}

static void test_named_form(void **state)
{
    (void)state;
    struct corpus_rendered got = { 0 };
    const char *both = "{\"messages\":[],\"dialogue\":[{\"role\":\"user\",\"content\":\"x\"}]}";
    assert_ok(corpus_render(&got, both, (int64_t)strlen(both), CORPUS_SMILE, CORPUS_FAIL));
    assert_string_equal(got.text.data, "line 1/: C=x; ");
    assert_err(
        corpus_render(&got, SMILE_RECORD, sizeof SMILE_RECORD - 1, CORPUS_SOULCHAT, CORPUS_FAIL),
        FORMAT, "\"messages\" is nothing");
    assert_err(corpus_render(&got, "a,b\n", 4, CORPUS_BIANQUE, CORPUS_FAIL), FORMAT,
               "a first row without the columns input and target");
    assert_err(corpus_render(&got, "hello", 5, CORPUS_SMILE, CORPUS_FAIL), FORMAT,
               "found 'h', expected '[' or '{'");
    assert_err(corpus_render(&got, "hello", 5, CORPUS_CPSYCOUN, CORPUS_FAIL), FORMAT,
               "found \"hello\", expected a role's name and a colon");
    buf_clear(&got.text);
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
            struct corpus_rendered got = { 0 };
            assert_ok(corpus_render(&got, file.data, (int64_t)file.size, CORPUS_AUTO, CORPUS_FAIL));
            buf_clear(&got.text);
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

/* The collections that people have, whole and packed as they are: what was counted in them by other
 * means. */
static void test_real_files(void **state)
{
    (void)state;
    static const struct {
        const char *path, *topic;
        int64_t dialogues, turns;
        enum corpus_form form;
    } files[] = {
        { "soulchat_schema/soulchatcorpus_card_sample.json", "成长", 1, 12, CORPUS_SOULCHAT },
        { "soulchat_schema/smilechat_as_soulchat_2000.json.zst", "未明确", 2000, 22957,
          CORPUS_SOULCHAT },
        { "cpsycoun/cpsycoune.jsonl", NULL, 45, 592, CORPUS_SMILE },
        { "cpsycoun/cpsycound.jsonl.zst", "", 3084, 49780, CORPUS_SMILE },
        { "emollm/data.json.zst", "", 1596, 10144 + 1596, CORPUS_EMOLLM },
        { "emollm/aiwei.json.zst", "", 1600, 8434 + 1600, CORPUS_EMOLLM },
        { "emollm/self_cognition_EmoLLM.json", "", 85, 170, CORPUS_ALPACA },
        { "emollm/processed__ruozhiba_format_emo.jsonl", "", 240, 720, CORPUS_EMOLLM },
    };
    if (testing_shared("corpora/README.md") == NULL) {
        printf("no shared corpora: not read\n");
        return;
    }
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char path[256];
        struct corpus *c;
        struct dialogue_text d;
        bool found = true;
        int64_t dialogues = 0, turns = 0;
        snprintf(path, sizeof path, "corpora/%s", files[i].path);
        assert_ok(corpus_open(&c, testing_shared(path), CORPUS_AUTO, CORPUS_FAIL));
        for (;;) {
            assert_ok(corpus_next(c, &d, &found));
            if (!found) break;
            if (files[i].topic != NULL) assert_string_equal(d.topic, files[i].topic);
            dialogues++;
            turns += d.turn_count;
        }
        assert_int_equal(dialogues, files[i].dialogues);
        assert_int_equal(turns, files[i].turns);
        assert_int_equal(corpus_form(c), files[i].form);
        corpus_close(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),          cmocka_unit_test(test_packed),
        cmocka_unit_test(test_layouts),        cmocka_unit_test(test_wrong),
        cmocka_unit_test(test_nul_is_text),    cmocka_unit_test(test_skip),
        cmocka_unit_test(test_named_form),     cmocka_unit_test(test_long_records),
        cmocka_unit_test(test_too_many_turns), cmocka_unit_test(test_truncated_while_reading),
        cmocka_unit_test(test_real_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
