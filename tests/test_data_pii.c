/* What counts as personal data, and what looks like it and is none. */
#include "testing.h"

#include "base/check.h"
#include "data/pii.h"

#include <stdio.h>
#include <string.h>

#define SPANS 8

/* The text with every place replaced by its mask. */
static const char *masked(const char *text)
{
    static char out[1024];
    struct pii_span spans[SPANS];
    int64_t at = 0, from = 0, used = 0;
    const int64_t size = (int64_t)strlen(text);
    while (at < size) {
        const int64_t count = pii_find(spans, SPANS, &at, text, size);
        for (int64_t i = 0; i < count; i++) {
            const struct pii_span *s = &spans[i];
            assert_true(s->begin >= from && s->end > s->begin && s->end <= size);
            used +=
                snprintf(out + used, sizeof out - (size_t)used, "%.*s%s", (int)(s->begin - from),
                         text + from, pii_mask(s->kind, s->end - s->begin));
            from = s->end;
        }
    }
    snprintf(out + used, sizeof out - (size_t)used, "%s", text + from);
    return out;
}

static void test_found(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        { "我的手机13812345678，打给我", "我的手机[电话]，打给我" },
        { "电话138-1234-5678", "电话[电话]" },
        { "+86 138 1234 5678", "+[电话]" },
        { "座机010-82951234。", "座机[电话]。" },
        { "0755 1234567", "[电话]" },
        /* Made up: the check digit is 2 for 11010519491231002 and these weights. */
        { "身份证11010519491231002X。", "身份证[证件号]。" },
        { "440524188001010014", "440524188001010014" }, /* born before 1900 */
        { "写信到a_b.c@example.com.cn吧", "写信到[邮箱]吧" },
        { "x@y.cn", "***" },
        { "123456@qq.com", "[邮箱]" },
        { "看https://example.com/a?b=1。", "看[网址]。" },
        { "看www.example.org/x, 好吗", "看[网址], 好吗" },
        { "在bilibili.com看", "在[网址]看" },
        { "我的QQ是：12345678", "我的QQ是：[QQ]" },
        { "qq群号 12345", "qq群号 [QQ]" },
        { "扣扣123456789", "扣扣[QQ]" },
        { "加我微信号：xdxl33。", "加我微信号：***。" },
        { "微信是abc_12345", "微信是[微信]" },
        { "v信：987654321", "v信：[微信]" },
        { "我住在北京市海淀区中关村大街27号院3号楼502室，", "我住在[地址]，" },
        { "来幸福小区12栋3单元", "来[地址]" },
    };
    for (int64_t i = 0; i < COUNT_OF(cases); i++)
        assert_string_equal(masked(cases[i][0]), cases[i][1]);
}

static void test_left_alone(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "",
        "1",
        "我今年29岁，2020年6月9日开始，一共花了138123元",
        "订单号1381234567890",                      /* too long for a mobile */
        "12345678901234567",                        /* 17 digits */
        "110105194912310021",                       /* wrong check digit */
        "110105194913310020",                       /* no such month */
        "全国24小时自杀干预公益热线：400-161-9995", /* to be known */
        "心理援助热线010-82951332",                 /* to be known */
        "请拨打120或12320",
        "我用QQ和微信聊天，QQ等级是100",
        "我的微信好友有5000个",
        "微信公众号wechat",
        "这条路3号",
        "知道3号要考试",
        "a@b",
        "@某人",
        "e.g. i.e. v1.2.3",
        "http协议",
        "T﹏T OK PUA ABC123",
    };
    for (int64_t i = 0; i < COUNT_OF(cases); i++) assert_string_equal(masked(cases[i]), cases[i]);
}

/* More places than one call takes, and every prefix of a text that has them all. */
static void test_resumes(void **state)
{
    (void)state;
    char text[600] = "";
    struct pii_span spans[3];
    int64_t at = 0, found = 0;
    for (int i = 0; i < 20; i++) strcat(text, "13812345678，");
    const int64_t size = (int64_t)strlen(text);
    while (at < size) found += pii_find(spans, 3, &at, text, size);
    assert_int_equal(found, 20);
    const char *all = "QQ12345 a@b.cc www.a.cn 11010519491231002X 微信abcdefg 人民路1号";
    for (int64_t n = 0; n <= (int64_t)strlen(all); n++)
        for (at = 0; at < n;) {
            const int64_t count = pii_find(spans, 3, &at, all, n);
            assert_true(count <= 3 && at <= n);
            for (int64_t i = 0; i < count; i++) assert_true(spans[i].end <= n);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_found),
        cmocka_unit_test(test_left_alone),
        cmocka_unit_test(test_resumes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
