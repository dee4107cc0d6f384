/* Corpora that are not JSON: tables of comma-separated values, and dialogues written down. */
#include "testing.h"

#include "corpus_fixture.h"

#include <string.h>

static void expect(const char *text, const char *expected)
{
    struct corpus_rendered got = { 0 };
    assert_ok(corpus_render(&got, text, (int64_t)strlen(text), CORPUS_AUTO, CORPUS_FAIL));
    assert_string_equal(got.text.data, expected);
    buf_clear(&got.text);
}

/* FAIL says `part`; SKIP gives the rest and counts. */
static void expect_bad(const char *text, const char *part, const char *rest, int64_t skipped)
{
    struct corpus_rendered got = { 0 };
    const int64_t size = (int64_t)strlen(text);
    assert_err(corpus_render(&got, text, size, CORPUS_AUTO, CORPUS_FAIL), FORMAT, part);
    assert_ok(corpus_render(&got, text, size, CORPUS_AUTO, CORPUS_SKIP));
    assert_string_equal(got.text.data, rest);
    assert_int_equal(got.skipped, skipped);
    buf_clear(&got.text);
}

/* What neither FAIL nor SKIP can pass over. */
static void expect_end(const char *text, const char *part)
{
    struct corpus_rendered got = { 0 };
    const int64_t size = (int64_t)strlen(text);
    assert_err(corpus_render(&got, text, size, CORPUS_AUTO, CORPUS_FAIL), FORMAT, part);
    assert_err(corpus_render(&got, text, size, CORPUS_AUTO, CORPUS_SKIP), FORMAT, part);
    buf_clear(&got.text);
}

static void test_csv_fields(void **state)
{
    (void)state;
    expect("input,target\na,b\n", "line 2/: C=a K=b; ");
    expect("target,x,input\r\nb,,a\r\n", "line 2/: C=a K=b; ");
    expect("\xef\xbb\xbf\"input\",\"target\"\n\"a\",\"b\"", "line 2/: C=a K=b; ");
    expect("input,target\n\n\"a,\"\"\n\"\"\",\"\"\n\r\nc,d",
           "line 3/: C=a,\"\n\" K=; line 6/: C=c K=d; ");
    expect("id,topic,input,target\n7,家庭,a,b\n", "7/家庭: C=a K=b; ");
    expect("input,target\n", "");
    expect("input,target", "");
    expect("input,target\n,\n", "line 2/: K=; ");
    expect("input,target\n\"a\rb\",c\rd\n", "line 2/: C=a\rb K=c\rd; ");
}

static void test_csv_roles(void **state)
{
    (void)state;
    expect("input,target\n病人：a\\n医生：b\\n病人：c\\n医生：,d\n", "line 2/: C=a K=b C=c K=d; ");
    expect("input,target\n\"病人：a\n医生：b\n\n病人:c\",d\n", "line 2/: C=a K=b\n C=c K=d; ");
    /* Only at the beginning of a line, and only names that are known. */
    expect("input,target\n我问医生：好吗\\n他说：不,d\n",
           "line 2/: C=我问医生：好吗\\n他说：不 K=d; ");
    /* The cue for the reply is no turn; an empty turn before another is one. */
    expect("input,target\n病人：\\n医生：,d\n", "line 2/: C= K=d; ");
    expect("input,target\n医生：,d\n", "line 2/: K= K=d; ");
}

#define HEAD "input,target\n"
#define GOOD "c,d\n"
#define REST "C=c K=d; "

static void test_csv_broken(void **state)
{
    (void)state;
    expect_bad(HEAD "\"a\"b,c\n" GOOD, "corpus.json:2 (byte 16): text after a closing quote",
               "line 3/: " REST, 1);
    expect_bad(HEAD "a\"b,c\n" GOOD,
               "corpus.json:2 (byte 14): a quote inside a field without quotes", "line 3/: " REST,
               1);
    expect_bad(HEAD "\"a\n\nb\" ,c\n" GOOD, "corpus.json:4 (byte 19): text after a closing quote",
               "line 5/: " REST, 1);
    expect_bad(HEAD "\"a\"\rb,c\n" GOOD, "text after a closing quote", "line 3/: " REST, 1);
    expect_bad(HEAD "a\n" GOOD, "corpus.json:2 (byte 13): 1 fields, expected 2", "line 3/: " REST,
               1);
    expect_bad(HEAD "a,b,c\n" GOOD "x\n", "3 fields, expected 2", "line 3/: " REST, 2);
    expect_bad(HEAD "\xb2\xa1,b\n" GOOD, "corpus.json:2 (byte 13): a row that is not UTF-8",
               "line 3/: " REST, 1);
    expect_bad(HEAD "\"\xb2\",b\n" GOOD, "iconv -f GB18030", "line 3/: " REST, 1);
    /* A quote left open takes in everything up to the next one. */
    expect_bad(HEAD "\"a,b\n" GOOD "\"x\",y\n" GOOD, "text after a closing quote", "line 5/: " REST,
               1);
    expect_end(HEAD GOOD "\"a,b\n" GOOD,
               "corpus.json:3 (byte 17): the file ends inside the quotes");
    expect_end(HEAD "a,\"", "corpus.json:2 (byte 15): the file ends inside the quotes");
    expect_end("\"input\",\"target", "expected '[' or '{' (JSON)");
    expect_end("question,answer\na,b\n", "found \"question,answer\", expected");
}

/* A table of more columns than we read. */
static void test_csv_wide(void **state)
{
    (void)state;
    struct buf text = { 0 };
    for (int wide = 0; wide < 2; wide++) {
        struct corpus_rendered got = { 0 };
        buf_reset(&text);
        assert_ok(buf_puts(&text, "input,target"));
        for (int i = 2; i < 64 + wide; i++) assert_ok(buf_puts(&text, ",x"));
        const err_t rc =
            corpus_render(&got, text.data, (int64_t)text.size, CORPUS_BIANQUE, CORPUS_FAIL);
        if (wide)
            testing_assert_code(rc, ERR_FORMAT, "65 fields, at most 64", "", __FILE__, __LINE__);
        else
            assert_ok(rc);
        buf_clear(&got.text);
    }
    buf_clear(&text);
}

static void test_blocks(void **state)
{
    (void)state;
    expect("来访者：a\n心理咨询师：b\n", "line 1/: C=a K=b; ");
    expect("\n\n求助者:a\n\n\n支持者：b\n\nc\n\n\n", "line 3/: C=a K=b\n\nc; ");
    expect("\xef\xbb\xbf用户：a\n助手：b", "line 1/: C=a K=b; ");
    expect("User: a\nAssistant: b\n", "line 1/: C= a K= b; ");
    expect("==> a.txt <==\n病人：a\n\n==> dir/b <==\n患者：b\n", "a/: C=a; b/: C=b; ");
    expect("---\n---\n病人：a\n===\n\n***\n病人：b\n--\n-=-\n",
           "line 3/: C=a; line 7/: C=b\n--\n-=-; ");
    expect("来访者：我的咨询师：他说\n好的：是\n", "line 1/: C=我的咨询师：他说\n好的：是; ");
    expect("==> empty.txt <==\n\n==> b.txt <==\n病人：\n", "b/: C=; ");
}

static void test_blocks_broken(void **state)
{
    (void)state;
    expect_bad("---\n前言\n病人：x\n---\n病人：a\n",
               "corpus.json:2 (byte 4): found \"前言\", expected a role's name and a colon",
               "line 5/: C=a; ", 1);
    expect_bad("病人：x\n\xb2\xa1\n==> n.txt <==\n病人：a\n",
               "corpus.json:2 (byte 11): a line that is not UTF-8", "n/: C=a; ", 1);
    expect_bad("病人：a\n---\n病人：x\xff", "corpus.json:3 (byte 15): a line that is not UTF-8",
               "line 1/: C=a; ", 1);
}

static void test_blocks_too_many_turns(void **state)
{
    (void)state;
    struct buf text = { 0 };
    for (int i = 0; i <= CORPUS_TURNS_MAX; i++) assert_ok(buf_puts(&text, "病人：x\n"));
    assert_ok(buf_puts(&text, "---\n病人：a\n"));
    expect_bad(text.data, "corpus.json:4097 (byte 45056): more than 4096 turns",
               "line 4099/: C=a; ", 1);
    buf_clear(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_csv_fields),
        cmocka_unit_test(test_csv_roles),
        cmocka_unit_test(test_csv_broken),
        cmocka_unit_test(test_csv_wide),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_blocks_broken),
        cmocka_unit_test(test_blocks_too_many_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
