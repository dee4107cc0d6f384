/* utf8.h against every code point and against cases of Unicode 15, section 3.9. */
#include "testing.h"

#include "base/check.h"
#include "base/utf8.h"

#include <stdbool.h>
#include <string.h>

static int64_t put(char *out, uint32_t point)
{
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    const int64_t length = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    for (int64_t i = length - 1; i > 0; i--, point >>= 6) out[i] = (char)(0x80 | (point & 0x3F));
    out[0] = (char)((0xF00 >> length) | point);
    return length;
}

static void test_every_code_point(void **state)
{
    (void)state;
    for (uint32_t point = 0; point <= 0x1FFFFF; point++) {
        char text[16] = "........";
        int64_t length;
        const int64_t size = put(text, point);
        const int32_t got = utf8_decode(&length, text, size);
        const int valid = point <= 0x10FFFF && (point < 0xD800 || point > 0xDFFF);
        assert_int_equal(got, valid ? (int32_t)point : -1);
        if (valid) assert_int_equal(length, size);
        assert_int_equal(utf8_valid_prefix(text, 8) == 8, valid);
        if (size > 1) assert_int_equal(utf8_decode(&length, text, size - 1), -1);
    }
}

static void assert_repaired(const char *broken, int64_t size, const char *expected)
{
    struct buf out = { 0 };
    assert_ok(utf8_append_repaired(&out, broken, size));
    assert_string_equal(out.data, expected);
    buf_clear(&out);
}

#define R "\xEF\xBF\xBD"

static void test_repair(void **state)
{
    (void)state;
    static const struct { const char *broken, *expected; } CASES[] = {
        { "plain 文字 \xF0\x9F\x91\x8B", "plain 文字 \xF0\x9F\x91\x8B" },
        { "\x80", R },
        { "\xC0\xAF", R R },
        { "\xE0\x9F\xBF", R R R },
        { "\xED\xA0\x80", R R R },
        { "\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", R R R R R "A" R R "B" },
        { "\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", R R R R "A" },
        { "\xC2\xC2\xA9", R "\xC2\xA9" },
        { "\xF0\x9F\x98", R },
        { "12345678\xE4\xBD", "12345678" R },
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++)
        assert_repaired(CASES[i].broken, (int64_t)strlen(CASES[i].broken), CASES[i].expected);
}

/* The code points for which Python's str.isspace() says yes. */
static void test_white_space(void **state)
{
    (void)state;
    static const uint32_t spaces[] = {
        0x9,    0xa,    0xb,    0xc,    0xd,    0x1c,   0x1d,   0x1e,   0x1f,   0x20,
        0x85,   0xa0,   0x1680, 0x2000, 0x2001, 0x2002, 0x2003, 0x2004, 0x2005, 0x2006,
        0x2007, 0x2008, 0x2009, 0x200a, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000,
    };
    int64_t next = 0;
    for (uint32_t point = 0; point <= 0x10FFFF; point++) {
        char text[8];
        if (point >= 0xD800 && point <= 0xDFFF) continue;
        const int64_t size = put(text, point);
        const bool is_space = next < COUNT_OF(spaces) && spaces[next] == point;
        next += is_space;
        assert_int_equal(utf8_leading_space(text, size), is_space ? size : 0);
        assert_int_equal(utf8_trailing_space(text, size), is_space ? size : 0);
    }
    assert_int_equal(next, COUNT_OF(spaces));
    static const char mixed[] = "\xE3\x80\x80 \n好 \xC2\xA0" "a\xE2\x80\xA8\t";
    assert_int_equal(utf8_leading_space(mixed, (int64_t)strlen(mixed)), 5);
    assert_int_equal(utf8_trailing_space(mixed, (int64_t)strlen(mixed)), 4);
    assert_int_equal(utf8_leading_space(mixed, 0), 0);
    assert_int_equal(utf8_trailing_space(mixed, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_code_point),
        cmocka_unit_test(test_repair),
        cmocka_unit_test(test_white_space),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
