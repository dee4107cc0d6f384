/* The JSON parser: what RFC 8259 allows and nothing else, as a table that can be walked. */
#include "testing.h"

#include "data/jdoc.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void parse(struct jdoc *d, const char *text)
{
    int64_t at;
    const size_t size = strlen(text);
    char *exact = malloc(size + (size == 0)); /* so that a sanitizer sees a read past the end */
    memcpy(exact, text, size);
    assert_ok(jdoc_parse(d, exact, (int64_t)size, &at));
    free(exact); /* nothing is borrowed from the text */
    assert_int_equal(at, size);
}

static void expect_error_of(const char *text, int64_t size, int64_t at_expected, const char *part)
{
    struct jdoc d = { 0 };
    int64_t at = -1;
    char *exact = malloc((size_t)size + (size == 0));
    memcpy(exact, text, (size_t)size);
    testing_assert_code(jdoc_parse(&d, exact, size, &at), ERR_FORMAT, part, text, __FILE__,
                        __LINE__);
    assert_int_equal(at, at_expected);
    free(exact);
    jdoc_clear(&d);
}

static void expect_error(const char *text, int64_t at, const char *part)
{
    expect_error_of(text, (int64_t)strlen(text), at, part);
}

static void expect_text(const char *text, const char *expected, int64_t size)
{
    struct jdoc d = { 0 };
    parse(&d, text);
    const struct jdoc_node *s = jdoc_root(&d);
    assert_int_equal(s->type, JDOC_STRING);
    assert_int_equal(s->size, size);
    assert_memory_equal(s->text, expected, (size_t)size + 1);
    jdoc_clear(&d);
}

static void test_values(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum jdoc_type type;
        const char *name;
    } cases[] = {
        { "null", JDOC_NULL, "null" },
        { " true ", JDOC_TRUE, "true" },
        { "\r\n\tfalse", JDOC_FALSE, "false" },
        { "0", JDOC_NUMBER, "a number" },
        { "-0.50e+07", JDOC_NUMBER, "a number" },
        { "\"\"", JDOC_STRING, "a string" },
        { "[]", JDOC_ARRAY, "an array" },
        { "{}", JDOC_OBJECT, "an object" },
        { "[ ]", JDOC_ARRAY, "an array" },
        { "{ }", JDOC_OBJECT, "an object" },
    };
    struct jdoc d = { 0 };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        parse(&d, cases[i].text);
        assert_int_equal(jdoc_root(&d)->type, cases[i].type);
        assert_string_equal(jdoc_type_name(jdoc_root(&d)), cases[i].name);
        assert_int_equal(jdoc_root(&d)->span, 1);
    }
    parse(&d, "-12345678901234567890.5E-3");
    assert_string_equal(jdoc_root(&d)->text, "-12345678901234567890.5E-3");
    assert_string_equal(jdoc_type_name(NULL), "nothing");
    jdoc_clear(&d);
}

static void test_tree(void **state)
{
    (void)state;
    struct jdoc d = { 0 };
    parse(&d, "{\"a\":[1,[2,{\"x\":null}],\"s\"],\"\":{\"b\":true},\"a\\u0000b\":7}");
    const struct jdoc_node *root = jdoc_root(&d), *a = jdoc_get(root, "a");
    assert_int_equal(root->count, 3);
    assert_int_equal(a->at, 5);
    assert_int_equal(jdoc_get(root, "")->at, 31);
    assert_int_equal(a->count, 3);
    const struct jdoc_node *e = jdoc_first(a);
    assert_string_equal(e->text, "1");
    e = jdoc_next(a, e);
    assert_int_equal(e->type, JDOC_ARRAY);
    assert_int_equal(jdoc_get(jdoc_next(e, jdoc_first(e)), "x")->type, JDOC_NULL);
    e = jdoc_next(a, e);
    assert_string_equal(e->text, "s");
    assert_null(jdoc_next(a, e));
    assert_int_equal(jdoc_get(jdoc_get(root, ""), "b")->type, JDOC_TRUE);
    assert_null(jdoc_get(root, "b")); /* that of "a\0b" is all of its bytes */
    assert_null(jdoc_get(root, "x"));
    assert_null(jdoc_get(NULL, "x"));
    assert_null(jdoc_get(a, "x"));
    assert_null(jdoc_first(root));
    assert_null(jdoc_first(NULL));
    /* The memory is used again, for a smaller text and a larger one. */
    parse(&d, "[]");
    assert_null(jdoc_first(jdoc_root(&d)));
    parse(&d, "[\"0123456789\",\"0123456789\",\"0123456789\",\"0123456789\",\"0123456789\"]");
    assert_int_equal(jdoc_root(&d)->count, 5);
    jdoc_clear(&d);
}

static void test_strings(void **state)
{
    (void)state;
    expect_text("\"你好 é \xF0\x9F\x98\x80 \x7f\"", "你好 é \xF0\x9F\x98\x80 \x7f", 16);
    expect_text("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t", 8);
    expect_text("\"\\u0041\\u00e9\\u4F60\\uFFFF\"", "A\xC3\xA9\xE4\xBD\xA0\xEF\xBF\xBF", 9);
    expect_text("\"\\ud83d\\ude00\\uDBFF\\uDFFF\"", "\xF0\x9F\x98\x80\xF4\x8F\xBF\xBF", 8);
    expect_text("\"a\\u0000b\"", "a\0b", 3);
}

/* Every code point, escaped and not, except surrogates, which are refused. */
static void test_all_characters(void **state)
{
    (void)state;
    struct jdoc d = { 0 };
    char text[32];
    int64_t at;
    for (unsigned c = 0x80; c < 0x10000; c++) {
        snprintf(text, sizeof text, "\"\\u%04x\"", c);
        const err_t rc = jdoc_parse(&d, text, 8, &at);
        assert_int_equal(rc, c >= 0xd800 && c < 0xe000 ? ERR_FORMAT : ERR_OK);
        if (rc != ERR_OK) continue;
        const int64_t size = snprintf(text, sizeof text, "\"%s\"", jdoc_root(&d)->text);
        assert_ok(jdoc_parse(&d, text, size, &at));
        assert_int_equal(size, (c < 0x800 ? 2 : 3) + 2);
    }
    jdoc_clear(&d);
}

static void test_errors(void **state)
{
    (void)state;
    expect_error("", 0, "the text ends, expected a value");
    expect_error("  ", 2, "the text ends, expected a value");
    expect_error("nul", 0, "found 'n', expected a value");
    expect_error("NaN", 0, "found 'N', expected a value");
    expect_error("-Infinity", 1, "found 'I', expected a digit");
    expect_error("+1", 0, "found '+', expected a value");
    expect_error("01", 1, "found '1', expected nothing after the record");
    expect_error("1.", 2, "the text ends, expected a digit after the point");
    expect_error(".5", 0, "expected a value");
    expect_error("1e", 2, "a digit of the exponent");
    expect_error("1e+x", 3, "found 'x', expected a digit of the exponent");
    expect_error("[1 2]", 3, "found '2', expected ',' or ']'");
    expect_error("[1,]", 3, "found ']', expected a value");
    expect_error("[,1]", 1, "found ',', expected a value");
    expect_error("[1", 2, "the text ends, expected ',' or ']'");
    expect_error("[", 1, "the text ends, expected a value");
    expect_error("{", 1, "the text ends, expected a member's name");
    expect_error("{\"a\"", 4, "the text ends, expected ':'");
    expect_error("{\"a\":1,}", 7, "found '}', expected a member's name");
    expect_error("{\"a\":1 \"b\":2}", 7, "found '\"', expected ',' or '}'");
    expect_error("{a:1}", 1, "found 'a', expected a member's name in quotes");
    expect_error("[}", 1, "found '}', expected a value");
    expect_error("{\"a\":1]", 6, "found ']', expected ',' or '}'");
    expect_error("\"abc", 4, "the text ends, expected the end of a string");
    expect_error("\"a\nb\"", 2, "found byte 0x0a, expected no control character inside a string");
    expect_error_of("\"a\0b\"", 5, 2, "found byte 0x00");
    expect_error("\"\\x\"", 2, "found 'x', expected one of");
    expect_error("\"\\", 2, "the text ends, expected one of");
    expect_error("\"\\u12g4\"", 5, "found 'g', expected four hexadecimal digits");
    expect_error("\"\\ud800\"", 1, "\\ud800 is half of a surrogate pair");
    expect_error("\"\\udc00\\ud800\"", 1, "\\udc00 is half of a surrogate pair");
    expect_error("\"\\ud800\\u0041\"", 1, "\\ud800 is half of a surrogate pair");
    expect_error("\"\\ud800\\n\"", 1, "\\ud800 is half of a surrogate pair");
    expect_error("{\"a\":1,\"b\":2,\"\\u0061\":3}", 13, "member \"a\" twice in one object");
}

static void test_utf8(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "\x80",
        "\xbf",
        "\xc0\x80",
        "\xc1\xbf",
        "\xc3",
        "\xe0\x9f\x80",
        "\xe4\xbd",
        "\xe4\x41\x80",
        "\xed\xa0\x80",
        "\xed\xbf\xbf",
        "\xf0\x8f\x80\x80",
        "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80",
        "\xf0\x9f\x98",
        "\xfe",
        "\xff",
        "\xe4\xbd\xc0",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[32];
        const int n = snprintf(text, sizeof text, "\"你%s\"", bad[i]);
        expect_error_of(text, n, 4, "is not UTF-8");
        expect_error_of(text, n - 1, 4, "is not UTF-8");
    }
    expect_error("\xff", 0, "found byte 0xff, expected a value");
    expect_error_of("\"你\xe4\xbd", 6, 4, "ends inside a character");
    expect_error_of("\"你\xe4\xbd\"", 7, 4, "iconv");
}

static void test_limits(void **state)
{
    (void)state;
    struct jdoc d = { 0 };
    struct buf text = { 0 };
    int64_t at;
    for (int over = 0; over < 2; over++) {
        buf_reset(&text);
        for (int i = 0; i < JDOC_DEPTH_MAX + over; i++) assert_ok(buf_puts(&text, "["));
        for (int i = 0; i < JDOC_DEPTH_MAX + over; i++) assert_ok(buf_puts(&text, "]"));
        const err_t rc = jdoc_parse(&d, text.data, (int64_t)text.size, &at);
        assert_int_equal(rc, over ? ERR_FORMAT : ERR_OK);
        if (over) assert_int_equal(at, JDOC_DEPTH_MAX);
    }
    for (int over = 0; over < 2; over++) {
        buf_reset(&text);
        assert_ok(buf_puts(&text, "[0"));
        for (int i = 2; i < JDOC_NODES_MAX + over; i++) assert_ok(buf_puts(&text, ",0"));
        assert_ok(buf_puts(&text, "]"));
        const err_t rc = jdoc_parse(&d, text.data, (int64_t)text.size, &at);
        assert_int_equal(rc, over ? ERR_FORMAT : ERR_OK);
    }
    buf_clear(&text);
    jdoc_clear(&d);
}

static uint32_t draw(uint32_t *seed, uint32_t below)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (*seed >> 8) % below;
}

/* Change, take out or put in one byte. text[capacity] has room for one more. */
static int64_t mutate(char *text, int64_t size, uint32_t *seed)
{
    static const char bytes[] =
        "\"\\{}[],:019eE+-.truefalsn \n\tu\xe4\xbd\xa0\xed\xf0\x9f\x98\x80 dD8c";
    const int64_t at = draw(seed, (uint32_t)size);
    const char byte = bytes[draw(seed, sizeof bytes - 1)];
    const uint32_t how = draw(seed, 3);
    if (how == 0) memmove(text + at, text + at + 1, (size_t)(--size - at));
    if (how == 1) memmove(text + at + 1, text + at, (size_t)(size++ - at));
    if (how > 0) text[at] = byte;
    return size;
}

/* Texts with a few mistakes: taken or refused as jansson does, which is another hand's parser. It
 * refuses numbers beyond its types too. */
static void test_as_another_parser(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{\"a\":[1,-0.5e+3,true,false,null,\"x\\n\\u4f60\\ud83d\\ude00\"],\"b\":{}}",
        "[{\"role\":\"user\",\"content\":\"你好\xF0\x9F\x98\x80\"},{\"role\":\"x\"}]",
        "{\"a\":0,\"b\":{\"a\":[[],{}]},\"c\":\"\\\"\\\\\\/\\b\"}",
        "[0,10.25,-1E-2,\"\xC3\xA9\xED\x9F\xBF\\uffff\"]",
    };
    struct jdoc d = { 0 };
    uint32_t seed = 7;
    int64_t accepted = 0;
    for (int round = 0; round < 40000; round++) {
        char text[128];
        int64_t at;
        json_error_t e;
        int64_t size = (int64_t)strlen(texts[round % 4]);
        memcpy(text, texts[round % 4], (size_t)size);
        for (uint32_t i = draw(&seed, 4); i > 0; i--) size = mutate(text, size, &seed);
        const bool taken = jdoc_parse(&d, text, size, &at) == ERR_OK;
        json_t *other = json_loadb(text, (size_t)size,
                                   JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &e);
        if (taken != (other != NULL) && strstr(e.text, "too big") == NULL &&
            strstr(e.text, "overflow") == NULL)
            fail_msg("%.*s: %s, by jansson %s", (int)size, text, taken ? "taken" : "refused",
                     other != NULL ? "taken" : e.text);
        accepted += taken;
        json_decref(other);
    }
    assert_true(accepted > 10000 && accepted < 30000); /* or it would say little */
    jdoc_clear(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),  cmocka_unit_test(test_tree),
        cmocka_unit_test(test_strings), cmocka_unit_test(test_all_characters),
        cmocka_unit_test(test_errors),  cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_limits),  cmocka_unit_test(test_as_another_parser),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
