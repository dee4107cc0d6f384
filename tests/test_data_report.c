/* The report of a preparation: numbers that can be counted by hand, texts that stay texts. */
#include "testing.h"

#include "base/check.h"
#include "base/file.h"
#include "data/commands.h"
#include "data/report_html.h"
#include "data/settings.h"
#include "data/settings_batch.h"
#include "data/svg.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void path_of(char path[FILE_PATH_MAX], const char *name)
{
    assert_ok(path_join(path, testing_dir(), name));
}

/* ---- texts ---- */

static void test_escaping(void **state)
{
    (void)state;
    static const struct {
        const char *text, *shown;
    } cases[] = {
        { "", "" },
        { "心理咨询师：好", "心理咨询师：好" },
        { "<script>alert('x')</script>", "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" },
        { "\"><img src=x onerror=y>", "&quot;&gt;&lt;img src=x onerror=y&gt;" },
        { "a&amp;b", "a&amp;amp;b" },
        { "a\x01"
          "b\x7f"
          "c\xc2\x85"
          "d",
          "a\xef\xbf\xbd"
          "b\xef\xbf\xbd"
          "c\xef\xbf\xbd"
          "d" },
        { "\xe2\x80\xae"
          "abc\xe2\x81\xa9\xe2\x80\x8f",
          "\xef\xbf\xbd"
          "abc\xef\xbf\xbd\xef\xbf\xbd" },
        { "\xe2\x80\x9c\n\t\xe2\x81\xa5", "\xe2\x80\x9c\n\t\xe2\x81\xa5" },
        { "\xe2", "\xe2" }, /* the end of a text is not read over */
        { "\xe2\x80", "\xe2\x80" },
        { "\xc2", "\xc2" },
    };
    for (int64_t i = 0; i < COUNT_OF(cases); i++) {
        struct buf out = { 0 };
        assert_ok(buf_puts(&out, ""));
        assert_ok(svg_text(&out, cases[i].text));
        assert_string_equal(out.data != NULL ? out.data : "", cases[i].shown);
        buf_clear(&out);
    }
}

static void test_numbers(void **state)
{
    (void)state;
    static const struct {
        int64_t number;
        const char *text;
    } cases[] = {
        { 0, "0" },
        { 999, "999" },
        { 1000, "1,000" },
        { -100, "-100" },
        { -1234567, "-1,234,567" },
        { 100000, "100,000" },
        { INT64_MAX, "9,223,372,036,854,775,807" },
        { INT64_MIN, "-9,223,372,036,854,775,808" },
    };
    for (int64_t i = 0; i < COUNT_OF(cases); i++) {
        char text[28];
        svg_number(text, cases[i].number);
        assert_string_equal(text, cases[i].text);
    }
}

static int64_t count_text(const char *in, const char *what)
{
    int64_t count = 0;
    for (; (in = strstr(in, what)) != NULL; in += strlen(what)) count++;
    return count;
}

static void test_chart(void **state)
{
    (void)state;
    const int64_t value[] = { 3, 0, 12 };
    struct buf out = { 0 };
    const struct svg_bars chart = {
        .value = value, .count = 3, .first = 10, .width = 5, .x_label = "a<b", .y_label = "n"
    };
    assert_ok(svg_bars(&out, &chart));
    assert_int_equal(count_text(out.data, "<rect"), 3);
    assert_non_null(strstr(out.data, "<title>10 to 14 a&lt;b: 3 n</title>"));
    assert_non_null(strstr(out.data, "<title>20 to 24 a&lt;b: 12 n</title>"));
    assert_null(strstr(out.data, "a<b"));
    assert_non_null(strstr(out.data, ">15</text>")); /* the scale goes up to a round number */
    assert_null(strstr(out.data, "nan"));
    buf_reset(&out);
    const int64_t zero[] = { 0 };
    const struct svg_bars flat = {
        .value = zero, .count = 1, .width = 1, .x_label = "", .y_label = ""
    };
    assert_ok(svg_bars(&out, &flat));
    assert_null(strstr(out.data, "nan"));
    buf_clear(&out);
}

/* ---- numbers ---- */

static void test_histogram(void **state)
{
    (void)state;
    struct histogram h;
    int32_t values[1000];
    histogram_fill(&h, values, 0);
    assert_int_equal(h.stats.count, 0);
    assert_int_equal(h.bin_count, 0);
    values[0] = 7;
    histogram_fill(&h, values, 1);
    assert_int_equal(h.first, 7);
    assert_int_equal(h.bin_count, 1);
    assert_int_equal(h.stats.median, 7);
    for (int32_t i = 0; i < 1000; i++) values[i] = 1000 - i; /* 1 .. 1000 */
    histogram_fill(&h, values, 1000);
    assert_int_equal(h.stats.min, 1);
    assert_int_equal(h.stats.max, 1000);
    assert_int_equal(h.stats.median, 500);
    assert_int_equal(h.stats.p95, 950);
    assert_float_equal(h.stats.mean, 500.5, 0);
    assert_int_equal(h.first, 0);
    assert_int_equal(h.width, 50);
    assert_int_equal(h.bin[0], 49);
    assert_int_equal(h.bin[1], 50);
    assert_int_equal(h.bin[20], 1);
    assert_int_equal(h.bin_count, 21);
    for (int32_t i = 0; i < 1000; i++) values[i] = i < 999 ? 5 : INT32_MAX;
    histogram_fill(&h, values, 1000);
    assert_int_equal(h.bin[0], 999);
    assert_int_equal(h.bin[HISTOGRAM_BINS - 1], 1); /* what is longer is in the last one */
    for (int32_t i = 0; i < 10; i++) values[i] = 1 + i;
    histogram_fill(&h, values, 10);
    assert_int_equal(h.stats.median, 5);
    assert_int_equal(h.stats.p95, 10); /* nine of ten are not 95 % */
}

/* ---- a whole preparation, as a person runs it ---- */

#define EVIL       "<script>alert(1)</script>\\\"'&\\u202e"
#define TURN(r, s) "{\"role\":\"" r "\",\"content\":\"" s "\"}"

/* `more` settings end with NULL. */
static void run_prepare(const char *source, const char *out, char *const *more)
{
    struct cfg *cfg;
    char set[3][FILE_PATH_MAX + 32];
    snprintf(set[0], sizeof set[0], "--data.source=%s", source);
    snprintf(set[1], sizeof set[1], "--data.dir=%s", out);
    snprintf(set[2], sizeof set[2], "--data.replace=true");
    char command[] = "prepare", model[] = "--data.tokenizer=data/sample/model";
    char none[] = "--data.test_permyriad=0", none2[] = "--data.validation_permyriad=0";
    char *argv[16] = { command, set[0], set[1], set[2], model, none, none2 };
    int argc = 7;
    for (; more != NULL && *more != NULL; more++) argv[argc++] = *more;
    const struct cfg_table tables[] = { data_settings, batch_settings };
    assert_ok(cfg_create(&cfg, tables, 2));
    assert_ok(cmd_prepare(cfg, argc, argv));
    cfg_close(cfg);
}

static char *read_text(const char *dir, const char *name)
{
    char path[FILE_PATH_MAX];
    struct buf text = { 0 };
    assert_ok(path_join(path, dir, name));
    assert_ok(file_read_all(&text, path, 1 << 24));
    assert_ok(buf_append(&text, "", 1));
    return text.data;
}

static json_int_t at(const json_t *root, const char *a, const char *b, const char *c)
{
    const json_t *v = json_object_get(json_object_get(json_object_get(root, a), b), c);
    assert_true(json_is_integer(v));
    return json_integer_value(v);
}

/* No element, attribute or address that a browser would act upon. */
static void check_inert(const char *html)
{
    static const char *const wanted[] = { "<script", "<img",    "<iframe", "<link",
                                          "<a ",     "@import", "url(",    "\xe2\x80\xae" };
    for (int64_t i = 0; i < COUNT_OF(wanted); i++) assert_null(strstr(html, wanted[i]));
    /* "http" occurs as the name of SVG and in the policy's header alone. */
    assert_int_equal(count_text(html, "http"), count_text(html, "xmlns=\"http://www.w3.org/") + 1);
}

static void test_hostile_corpus(void **state)
{
    (void)state;
    char source[FILE_PATH_MAX], out[FILE_PATH_MAX];
    path_of(source, "<img src=x onerror=alert(1)>.json");
    path_of(out, "hostile");
    /* clang-format off */
    const char *text =
        "[{\"topic\":\"" EVIL "\",\"messages\":[" TURN("user", "支持者：" EVIL "我想自杀") ","
            TURN("assistant", "好的" EVIL) "]},"
         "{\"topic\":\"" EVIL "\",\"messages\":[" TURN("user", "<b>你好</b>" EVIL "\\n\\n\\n二") ","
            TURN("assistant", "请说" EVIL) "," TURN("user", "嗯") "," TURN("assistant", "好") "]},"
         "{\"topic\":\"b\",\"messages\":[" TURN("user", "a") "," TURN("assistant", "c") "]}]";
    /* clang-format on */
    assert_ok(file_replace(source, text, (int64_t)strlen(text)));
    run_prepare(source, out, NULL);
    char *html = read_text(out, REPORT_HTML_NAME), *json = read_text(out, REPORT_JSON_NAME);
    check_inert(html);
    assert_non_null(strstr(html, "onerror=alert(1)&gt;.json"));
    assert_non_null(strstr(html, "alert(1)&lt;/script&gt;"));
    assert_non_null(strstr(html, "<svg"));

    json_t *root = json_loads(json, 0, NULL);
    assert_non_null(root);
    assert_true(at(root, "prepare", "written", "dialogues") >= 1);
    assert_int_equal(at(root, "lengths", "turns", "count"),
                     at(root, "prepare", "written", "dialogues"));
    assert_int_equal(at(root, "lengths", "samples", "count"),
                     at(root, "prepare", "written", "samples"));
    json_decref(root);
    free(html);
    free(json);
    run_prepare(source, out, NULL); /* a directory with a report is ours to replace */
}

static void test_sample_corpus(void **state)
{
    (void)state;
    char out[FILE_PATH_MAX];
    path_of(out, "sample");
    run_prepare("data/sample/corpus.json", out, NULL);
    char *html = read_text(out, REPORT_HTML_NAME), *json = read_text(out, REPORT_JSON_NAME);
    json_t *root = json_loads(json, 0, NULL);
    const json_t *source =
        json_array_get(json_object_get(json_object_get(root, "prepare"), "sources"), 0);
    int64_t dialogues = 0;
    size_t i;
    json_t *topic;
    check_inert(html);
    assert_int_equal(count_text(html, "<svg"), 3);
    assert_int_equal(count_text(html, "<table"), count_text(html, "</table>"));
    assert_string_equal(json_string_value(json_object_get(source, "layout")), "JSON array");
    assert_string_equal(json_string_value(json_object_get(source, "packing")), "plain");
    assert_int_equal(json_integer_value(json_object_get(source, "text_bytes")),
                     json_integer_value(json_object_get(source, "bytes")));
    json_array_foreach(json_object_get(json_object_get(root, "topics"), "list"), i, topic)
        dialogues += json_integer_value(json_object_get(topic, "dialogues"));
    assert_int_equal(dialogues, at(root, "prepare", "written", "dialogues"));
    json_decref(root);
    free(html);
    free(json);
}

/* 52 topics of 1, 2 or 3 dialogues, of two sources. */
static void write_topics(char sources[2 * FILE_PATH_MAX + 2])
{
    struct buf text[2] = { { 0 }, { 0 } };
    char path[2][FILE_PATH_MAX];
    for (int i = 0; i < 52; i++)
        for (int k = 0; k <= i % 3; k++)
            assert_ok(buf_printf(&text[k % 2],
                                 "{\"topic\":\"t%02d\",\"messages\":[" TURN("user", "%d %d")
                                 "," TURN("assistant", "c") "]}\n",
                                 i, i * 7919, k));
    for (int s = 0; s < 2; s++) {
        path_of(path[s], s ? "second.jsonl" : "first.jsonl");
        assert_ok(file_replace(path[s], text[s].data, (int64_t)text[s].size));
        buf_clear(&text[s]);
    }
    snprintf(sources, 2 * FILE_PATH_MAX + 2, "%s,%s", path[0], path[1]);
}

static void check_topic(const json_t *topic, const char *name, int64_t dialogues)
{
    assert_string_equal(json_string_value(json_object_get(topic, "name")), name);
    assert_int_equal(json_integer_value(json_object_get(topic, "dialogues")), dialogues);
    assert_int_equal(json_integer_value(json_object_get(topic, "train")), dialogues);
}

/* The most dialogues first, equal ones by name; what the list has no room for is summed. */
static void test_topics(void **state)
{
    (void)state;
    char out[FILE_PATH_MAX], sources[2 * FILE_PATH_MAX + 2], name[8];
    char keep[] = "--data.duplicates=keep";
    write_topics(sources);
    path_of(out, "topics");
    run_prepare(sources, out, (char *[]){ keep, NULL });
    char *html = read_text(out, REPORT_HTML_NAME), *json = read_text(out, REPORT_JSON_NAME);
    json_t *root = json_loads(json, 0, NULL);
    const json_t *topics = json_object_get(root, "topics"), *list = json_object_get(topics, "list");
    assert_int_equal(json_array_size(list), REPORT_TOPICS_MAX);
    for (int64_t i = 0; i < REPORT_TOPICS_MAX; i++) {
        const int64_t dialogues = i < 17 ? 3 : i < 34 ? 2 : 1; /* 17, 17 and 18 topics of each */
        const int64_t number = i < 17 ? 3 * i + 2 : i < 34 ? 3 * (i - 17) + 1 : 3 * (i - 34);
        snprintf(name, sizeof name, "t%02d", (int)number);
        check_topic(json_array_get(list, (size_t)i), name, dialogues);
    }
    check_topic(json_object_get(topics, "other"), "", 2);
    assert_int_equal(json_integer_value(json_object_get(topics, "other_topics")), 2);
    assert_non_null(strstr(html, "2 others"));
    assert_non_null(strstr(html, "<th class=\"n\"><bdi>second.jsonl</bdi></th>"));
    json_decref(root);
    free(html);
    free(json);
}

/* What training will cut is what its settings say, not the defaults. */
static void test_limits_of_training(void **state)
{
    (void)state;
    char out[FILE_PATH_MAX];
    char input[] = "--batch.max_input=100", target[] = "--batch.max_target=20";
    char cut[] = "--batch.over_long_target=cut_no_end", pack[] = "--batch.pack_len=256";
    path_of(out, "limits");
    run_prepare("data/sample/corpus.json", out, (char *[]){ input, target, cut, pack, NULL });
    char *json = read_text(out, REPORT_JSON_NAME);
    json_t *root = json_loads(json, 0, NULL);
    const json_t *limits = json_object_get(root, "limits");
    assert_int_equal(json_integer_value(json_object_get(limits, "max_input")), 100);
    assert_int_equal(json_integer_value(json_object_get(limits, "max_target")), 20);
    assert_string_equal(json_string_value(json_object_get(limits, "over_long_target")),
                        "cut_no_end");
    const json_t *train = json_object_get(json_object_get(limits, "splits"), "train");
    assert_true(json_integer_value(json_object_get(train, "replies_cut")) > 0);
    assert_int_equal(json_integer_value(json_object_get(train, "replies_left_out")), 0);
    assert_int_equal(at(root, "lengths", "replies", "max"), 20);
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(root, "packs"), "pack_len")), 256);
    json_decref(root);
    free(json);
}

static void test_not_a_report(void **state)
{
    (void)state;
    struct buf out = { 0 };
    assert_err(report_html(&out, "{"), FORMAT, "line 1");
    assert_ok(report_html(&out, "{}")); /* nothing to say, and no crash */
    assert_non_null(strstr(out.data, "</html>"));
    buf_clear(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_escaping),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_chart),
        cmocka_unit_test(test_histogram),
        cmocka_unit_test(test_hostile_corpus),
        cmocka_unit_test(test_sample_corpus),
        cmocka_unit_test(test_topics),
        cmocka_unit_test(test_limits_of_training),
        cmocka_unit_test(test_not_a_report),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
