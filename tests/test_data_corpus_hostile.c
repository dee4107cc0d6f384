/* Files that somebody broke, or made to break us: an error that says where, or a counted record;
 * never a dialogue that was not there, and no more memory or time than the file is worth. */
#include "testing.h"

#include "base/file.h"
#include "corpus_fixture.h"
#include "data/jdoc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Sanitizers hold on to freed memory, so that what they use says nothing. */
#if defined(__SANITIZE_ADDRESS__) || defined(SOULCHAT_SLOW_CHECKS)
#define MEMORY_KIB_MAX INT64_MAX
#else
#define MEMORY_KIB_MAX ((int64_t)128 << 10)
#endif

static void put(struct buf *b, const char *text) { assert_ok(buf_puts(b, text)); }

/* Every message begins with the file; in a text it goes on with line and byte. */
static void check_message(const char *layout)
{
    const char *text = err_last()->text;
    long long line, byte;
    assert_true(strncmp(text, "corpus.json", 11) == 0);
    if (layout != NULL && sscanf(text, "corpus.json:%lld (byte %lld): ", &line, &byte) != 2)
        fail_msg("%s: no place in: %s", layout, text);
}

/* Cut after each byte: the dialogues that come out are the first of those in the whole file. In an
 * array each cut is an error; between lines it cannot be seen; in text the last turn is shorter. */
static void test_truncated(void **state)
{
    (void)state;
    for (int64_t i = 0; i < corpus_sample_count; i++) {
        const struct corpus_sample *s = &corpus_samples[i];
        const int64_t size = (int64_t)strlen(s->text);
        const bool array = strcmp(s->layout, "JSON array") == 0;
        const bool json = strncmp(s->layout, "JSON", 4) == 0;
        struct corpus_rendered got = { 0 };
        for (int64_t cut = 0; cut < size; cut++)
            for (int on_bad = CORPUS_FAIL; on_bad <= CORPUS_SKIP; on_bad++) {
                char *exact = malloc((size_t)cut + (cut == 0)); /* a read past the end is seen */
                memcpy(exact, s->text, (size_t)cut);
                const err_t rc =
                    corpus_render(&got, exact, cut, s->form, (enum corpus_on_bad_record)on_bad);
                free(exact);
                assert_true(rc == ERR_OK || rc == ERR_FORMAT);
                if (rc == ERR_FORMAT) check_message(s->layout);
                if (array && cut > 0) assert_int_equal(rc, ERR_FORMAT);
                if (json) assert_memory_equal(got.text.data, s->rendered, got.text.size);
            }
        buf_clear(&got.text);
    }
}

/* The same, packed: a stream without its end is an error wherever it was cut. */
static void test_truncated_packed(void **state)
{
    (void)state;
    for (int64_t i = 0; i < corpus_sample_count; i++) {
        const struct corpus_sample *s = &corpus_samples[i];
        for (int p = 0; p < 2; p++) {
            struct buf packed = { 0 };
            struct corpus_rendered got = { 0 };
            (p == 0 ? pack_gzip : pack_zstd)(&packed, s->text, (int64_t)strlen(s->text));
            for (int64_t cut = 1; cut < (int64_t)packed.size; cut++) {
                assert_err(corpus_render(&got, packed.data, cut, CORPUS_AUTO, CORPUS_SKIP), FORMAT,
                           "corpus.json");
                assert_memory_equal(got.text.data, s->rendered, got.text.size);
            }
            buf_clear(&got.text);
            buf_clear(&packed);
        }
    }
}

/* Every byte changed to each of some that mean something: never a crash, and an error has a place.
 */
static void test_any_byte_wrong(void **state)
{
    (void)state;
    static const char wrong[] = "\0\"\\{}[],:\n\r \xff\xe4\x80-x";
    for (int64_t i = 0; i < corpus_sample_count; i++) {
        const struct corpus_sample *s = &corpus_samples[i];
        const int64_t size = (int64_t)strlen(s->text);
        struct corpus_rendered got = { 0 };
        char *text = malloc((size_t)size);
        memcpy(text, s->text, (size_t)size);
        for (int64_t at = 0; at < size; at++) {
            for (size_t k = 0; k < sizeof wrong - 1; k++) {
                text[at] = wrong[k];
                const err_t rc =
                    corpus_render(&got, text, size, CORPUS_AUTO, k % 2 ? CORPUS_SKIP : CORPUS_FAIL);
                assert_true(rc == ERR_OK || rc == ERR_FORMAT);
                if (rc == ERR_FORMAT) check_message(NULL);
            }
            text[at] = s->text[at];
        }
        free(text);
        buf_clear(&got.text);
    }
}

static void expect_fail_and_skip(const char *bad_record, const char *part)
{
    struct buf text = { 0 };
    struct corpus_rendered got = { 0 };
    put(&text, "[" SMILE_RECORD ",\n");
    put(&text, bad_record);
    put(&text, "," SMILE_RECORD "]");
    assert_err(corpus_render(&got, text.data, (int64_t)text.size, CORPUS_AUTO, CORPUS_FAIL), FORMAT,
               part);
    assert_non_null(strstr(err_last()->text, "corpus.json:2 (byte "));
    assert_ok(corpus_render(&got, text.data, (int64_t)text.size, CORPUS_AUTO, CORPUS_SKIP));
    assert_int_equal(got.skipped, 1);
    assert_string_equal(got.text.data, "record 1/: C=a K=b; record 3/: C=a K=b; ");
    buf_clear(&got.text);
    buf_clear(&text);
}

static void test_records(void **state)
{
    (void)state;
    expect_fail_and_skip("{\"dialogue\":NaN}", "found 'N', expected a value");
    expect_fail_and_skip("{\"dialogue\":-Infinity}", "found 'I', expected a digit");
    expect_fail_and_skip("{\"dialogue\":[],\"dialogue\":[]}", "member \"dialogue\" twice");
    expect_fail_and_skip("{\"dialogue\":[{\"role\":\"user\",\"content\":\"\",\"role\":\"user\"}]}",
                         "member \"role\" twice");
    expect_fail_and_skip("{\"dialogue\":{}}", "\"dialogue\" is an object, expected an array");
    expect_fail_and_skip("{\"dialogue\":[null]}", "dialogue[0] is null, expected an object");
    expect_fail_and_skip("{\"dialogue\":[{\"role\":1,\"content\":\"\"}]}", "\"role\" is a number");
    expect_fail_and_skip("{\"dialogue\":[{\"role\":\"user\",\"content\":true}]}",
                         "\"content\" of dialogue[0] is true");
    expect_fail_and_skip("{\"dialogue\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]}",
                         "has type \"image\", expected text");
    expect_fail_and_skip("{\"dialogue\":[{\"role\":\"user\",\"content\":[7]}]}",
                         "has type \"\", expected text");
    expect_fail_and_skip("{\"messages\":[]}", "\"dialogue\" is nothing");
    expect_fail_and_skip("{\"conversations\":[]}",
                         "the record looks like sharegpt, and is read as smile (data.form)");
    expect_fail_and_skip("\"text\"", "a record that is a string");
    expect_fail_and_skip("01", "found '1', expected nothing after the record");
    expect_fail_and_skip("{\"dialogue\":[],}", "found '}', expected a member's name");
    expect_fail_and_skip("{'dialogue':[]}", "found ''', expected a member's name in quotes");
}

/* Deeper than anything sane: no stack is used up, and the next record is found. */
static void test_deep(void **state)
{
    (void)state;
    for (int objects = 0; objects < 2; objects++) {
        struct buf record = { 0 };
        put(&record, "{\"dialogue\":");
        for (int i = 0; i < 200000; i++) put(&record, objects ? "{\"a\":" : "[");
        put(&record, "1");
        for (int i = 0; i < 200000; i++) put(&record, objects ? "}" : "]");
        put(&record, "}");
        expect_fail_and_skip(record.data, "nested more than 256 deep");
        buf_clear(&record);
    }
}

/* An object of very many members, all different or one twice: sorted and not compared in pairs. */
static void test_many_members(void **state)
{
    (void)state;
    struct buf record = { 0 };
    put(&record, "{\"dialogue\":[]");
    for (int i = 0; i < 300000; i++) assert_ok(buf_printf(&record, ",\"%d\":0", i));
    struct corpus_rendered got = { 0 };
    put(&record, "}");
    assert_ok(corpus_render(&got, record.data, (int64_t)record.size, CORPUS_AUTO, CORPUS_FAIL));
    assert_int_equal(got.dialogues, 1);
    record.size--;
    put(&record, ",\"299999\":0}");
    expect_fail_and_skip(record.data, "member \"299999\" twice");
    record.size = 0;
    put(&record, "{\"dialogue\":[0");
    for (int i = 0; i < JDOC_NODES_MAX; i++) put(&record, ",0");
    put(&record, "]}");
    expect_fail_and_skip(record.data, "more than 1048576 values");
    buf_clear(&got.text);
    buf_clear(&record);
}

/* Millions of escapes before a quote, and the same cut by the end of what was read: linear time. */
static void test_escapes(void **state)
{
    (void)state;
    enum { ESCAPES = 4 << 20 };
    struct buf text = { 0 };
    struct corpus_rendered got = { 0 };
    put(&text, "[{\"dialogue\":[{\"role\":\"user\",\"content\":\"");
    assert_ok(buf_reserve(&text, 2 * ESCAPES));
    for (int i = 0; i < 2 * ESCAPES; i++) text.data[text.size + (size_t)i] = '\\';
    text.size += 2 * ESCAPES;
    put(&text, "\"}]}]");
    assert_ok(corpus_render(&got, text.data, (int64_t)text.size, CORPUS_AUTO, CORPUS_FAIL));
    assert_int_equal(got.dialogues, 1);
    assert_int_equal(got.text.size, ESCAPES + (int64_t)strlen("record 1/: C=; "));
    buf_clear(&got.text);
    buf_clear(&text);
}

static int64_t peak_kib(void)
{
    char line[128];
    int64_t kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, "VmHWM:", 6) == 0) kib = strtoll(line + 6, NULL, 10);
    fclose(f);
    return kib;
}

#define LONG_BYTES 100000000

/* A file of these texts with LONG_BYTES of NUL between, which take no room on the disk. */
static const char *write_long(const char *before, const char *begin, const char *end)
{
    static char path[FILE_PATH_MAX];
    struct file_writer w;
    assert_ok(path_join(path, testing_dir(), "long"));
    assert_ok(file_writer_open(&w, path));
    assert_ok(file_writer_append(&w, before, (int64_t)strlen(before)));
    assert_ok(file_writer_append(&w, begin, (int64_t)strlen(begin)));
    assert_ok(file_writer_pwrite(&w, end, (int64_t)strlen(end), w.offset + LONG_BYTES));
    assert_ok(file_writer_commit(&w));
    return path;
}

/* 100 MB in one record, in every layout: an error, or passed over within the memory of one record
 * that is allowed. */
static void test_too_long(void **state)
{
    (void)state;
    static const struct {
        const char *before, *begin, *end, *part;
    } files[] = {
        { "[" SMILE_RECORD ",", "{\"dialogue\":\"", "\"}," SMILE_RECORD "]", "more than 32 MiB" },
        { SMILE_RECORD "\n", "{\"dialogue\":\"", "\"}\n" SMILE_RECORD "\n", "more than 32 MiB" },
        { "{\n\"dialogue\":[]}", "{\"dialogue\":\"", "\"}\n{\"dialogue\":[]}", "more than 32 MiB" },
        { "input,target\na,b\n", "a,\"", "\"\nc,d\n", "a row of more than 32 MiB" },
        { "病人：a\n---\n", "病人：", "\n---\n病人：b\n", "a dialogue of more than 32 MiB" },
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct corpus *c;
        struct dialogue_text d;
        bool found;
        const char *path = write_long(files[i].before, files[i].begin, files[i].end);
        assert_ok(corpus_open(&c, path, CORPUS_AUTO, CORPUS_FAIL));
        assert_ok(corpus_next(c, &d, &found));
        assert_true(found);
        assert_err(corpus_next(c, &d, &found), FORMAT, files[i].part);
        corpus_close(c);
        assert_ok(corpus_open(&c, path, CORPUS_AUTO, CORPUS_SKIP));
        for (int k = 0; k < 2; k++) {
            assert_ok(corpus_next(c, &d, &found));
            assert_true(found);
        }
        assert_ok(corpus_next(c, &d, &found));
        assert_false(found);
        assert_int_equal(corpus_skipped(c), 1);
        corpus_close(c);
    }
    /* The window grows by doubling, to at most twice a record and a read: far below the file. */
    assert_true(peak_kib() < MEMORY_KIB_MAX);
}

/* A hundred megabytes in one record that never ends. */
static void test_never_ends(void **state)
{
    (void)state;
    static const struct {
        const char *begin, *part;
    } files[] = {
        { "[{\"dialogue\":\"", "a record of more than 32 MiB" },
        { "[[[[", "a record of more than 32 MiB" },
        { "input,target\na,\"", "the file ends inside the quotes" },
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct corpus *c;
        struct dialogue_text d;
        bool found;
        const char *path = write_long("", files[i].begin, " ");
        assert_ok(corpus_open(&c, path, CORPUS_AUTO, CORPUS_SKIP));
        assert_err(corpus_next(c, &d, &found), FORMAT, files[i].part);
        corpus_close(c);
    }
}

/* Packed blanks, more than any corpus: refused early. */
static void test_bomb(void **state)
{
    (void)state;
    enum { PIECE = 8 << 20, PIECES = 16 };
    char *blanks = malloc(PIECE);
    assert_non_null(blanks);
    for (int p = 0; p < 4; p++) {
        struct buf packed = { 0 };
        struct corpus_rendered got = { 0 };
        memset(blanks, p < 2 ? ' ' : 'x', PIECE);
        blanks[0] = '[';
        blanks[1] = p < 2 ? ' ' : '"';
        for (int i = 0; i < PIECES; i++) {
            (p % 2 ? pack_zstd : pack_gzip)(&packed, blanks, PIECE);
            blanks[0] = blanks[1] = blanks[2];
        }
        assert_err(corpus_render(&got, packed.data, (int64_t)packed.size, CORPUS_AUTO, CORPUS_SKIP),
                   FORMAT, "more than 200 times as many");
        buf_clear(&packed);
        buf_clear(&got.text);
    }
    free(blanks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_truncated),      cmocka_unit_test(test_truncated_packed),
        cmocka_unit_test(test_any_byte_wrong), cmocka_unit_test(test_records),
        cmocka_unit_test(test_escapes),        cmocka_unit_test(test_deep),
        cmocka_unit_test(test_many_members),   cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_never_ends),     cmocka_unit_test(test_bomb),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
