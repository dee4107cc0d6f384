/* Punctuation: the reference's vector, marks and their neighbours, every way to cut a text. */
#include "testing.h"

#include "base/check.h"
#include "eval/punct.h"

#include <stdio.h>
#include <string.h>

/* The text in pieces that end at each bit set in `cuts` (bit i: before byte i), as one string. */
static void convert(struct buf *out, const char *text, uint32_t cuts)
{
    struct punct p = { 0 };
    const int64_t size = (int64_t)strlen(text);
    int64_t begin = 0;
    buf_reset(out);
    for (int64_t i = 1; i <= size; i++) {
        if (i < size && !(cuts >> i & 1)) continue;
        assert_ok(punct_push(&p, out, text + begin, i - begin));
        begin = i;
    }
    assert_ok(punct_end(&p, out));
    assert_true(!p.after_chinese && p.held == 0);
}

static const struct {
    const char *in, *out;
} rows[] = {
    { "你好,世界!a,b", "你好，世界！a,b" }, /* the reference's code gives this */
    { "", "" },
    { ",", "," },
    { "?!", "?!" },
    { "好,", "好，" },
    { ",好", "，好" },
    { "a,好", "a，好" },
    { "好,a", "好，a" },
    { "a,,好", "a,，好" }, /* only the mark beside it */
    { "好,,a", "好，,a" },
    { "好!?好", "好！？好" },
    { "好!?:好", "好！?：好" },
    { "a: b", "a: b" },
    { "好 ,好", "好 ，好" },
    { "好 , 好", "好 , 好" }, /* blanks are no Chinese characters */
    { "我:你;他?", "我：你；他？" },
    { "3,000元", "3,000元" },
    { "好.(好)", "好.(好)" },  /* not among the marks */
    { "好，,好", "好，，好" }, /* a full-width mark is no Chinese character, its other side is */
    { "あ,あ", "あ,あ" },      /* U+3042: outside of the range */
    { "一,", "一，" },         /* U+4E00, the first */
    { "\xe9\xbf\xbf,", "\xe9\xbf\xbf，" }, /* U+9FFF, the last */
    { "\xe4\xb7\xbf,", "\xe4\xb7\xbf," },  /* U+4DFF */
    { "\xea\x80\x80,", "\xea\x80\x80," },  /* U+A000 */
    { "𠮷,𠮷", "𠮷,𠮷" },                  /* U+20BB7, as the reference */
};

static void test_rows(void **state)
{
    (void)state;
    struct buf out = { 0 };
    for (int64_t i = 0; i < COUNT_OF(rows); i++) {
        convert(&out, rows[i].in, 0);
        assert_string_equal(out.data == NULL ? "" : out.data, rows[i].out);
    }
    buf_clear(&out);
}

/* Bits where a character of the text begins. */
static uint32_t boundaries(const char *text)
{
    uint32_t bits = 0;
    for (int64_t i = 0; text[i] != '\0'; i++)
        if (((unsigned char)text[i] & 0xc0) != 0x80) bits |= 1u << i;
    return bits;
}

static void test_every_cut(void **state)
{
    (void)state;
    struct buf out = { 0 };
    for (int64_t i = 0; i < COUNT_OF(rows); i++) {
        const uint32_t all = boundaries(rows[i].in);
        for (uint32_t cuts = all;; cuts = (cuts - 1) & all) { /* every subset */
            convert(&out, rows[i].in, cuts);
            assert_string_equal(out.data == NULL ? "" : out.data, rows[i].out);
            if (cuts == 0) break;
        }
    }
    buf_clear(&out);
}

/* Nothing is held back but one mark that needs its next neighbour. */
static void test_held_back(void **state)
{
    (void)state;
    struct punct p = { 0 };
    struct buf out = { 0 };
    assert_ok(punct_push(&p, &out, "好,", 4));
    assert_string_equal(out.data, "好，");
    assert_ok(punct_push(&p, &out, "a,", 2));
    assert_string_equal(out.data, "好，a");
    assert_ok(punct_push(&p, &out, "", 0));
    assert_string_equal(out.data, "好，a");
    assert_ok(punct_push(&p, &out, ",", 1));
    assert_string_equal(out.data, "好，a,");
    assert_ok(punct_push(&p, &out, "好", 3));
    assert_string_equal(out.data, "好，a,，好");
    assert_ok(punct_end(&p, &out));
    assert_string_equal(out.data, "好，a,，好");
    buf_clear(&out);
}

static void test_stray_bytes(void **state)
{
    (void)state;
    static const char text[] = "\xe4\xb8,\xff,\0,\xe5";
    struct punct p = { 0 };
    struct buf out = { 0 };
    assert_ok(punct_push(&p, &out, text, sizeof text - 1));
    assert_ok(punct_end(&p, &out));
    assert_int_equal(out.size, sizeof text - 1);
    assert_memory_equal(out.data, text, out.size);
    buf_clear(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_held_back),
        cmocka_unit_test(test_stray_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
