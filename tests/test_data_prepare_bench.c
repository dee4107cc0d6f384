/* The benchmark of a preparation: it counts what it works on, and leaves nothing behind. */
#include "testing.h"

#include "base/cfg.h"
#include "base/file.h"
#include "data/prepare_bench.h"
#include "data/settings.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static struct cfg *make_cfg(const char *source, const char *out)
{
    struct cfg *cfg;
    assert_ok(cfg_create(&cfg, &data_settings, 1));
    assert_ok(cfg_set(cfg, "data.source", source, "test"));
    assert_ok(cfg_set(cfg, "data.tokenizer", "data/sample/model", "test"));
    assert_ok(cfg_set(cfg, "data.dir", out, "test"));
    assert_ok(cfg_set(cfg, "data.threads", "2", "test"));
    return cfg;
}

static err_t bench(struct prepare_bench *b, const char *source, const char *out)
{
    struct prepare_options o;
    struct cfg *cfg = make_cfg(source, out);
    assert_ok(prepare_options_from_cfg(&o, cfg));
    const err_t rc = prepare_bench_run(b, &o);
    prepare_options_clear(&o);
    cfg_close(cfg);
    return rc;
}

static void test_sample(void **state)
{
    (void)state;
    struct prepare_bench b;
    struct prepare_counts c;
    struct prepare_options o;
    char out[FILE_PATH_MAX], work[FILE_PATH_MAX];
    assert_ok(path_join(out, testing_dir(), "a/")); /* it works beside OUT, and not inside */
    assert_ok(path_join(work, testing_dir(), "a.bench"));
    assert_ok(bench(&b, "data/sample/corpus.json", out));
    assert_int_equal(b.threads, 2);
    for (int i = 0; i < BENCH_PREPARE_PARTS; i++) {
        assert_true(b.wall_s[i] > 0.0 || i == BENCH_LIBRARY);
        assert_true(b.cpu_s[i] >= 0.0);
    }
    assert_int_equal(b.other_lines, 0);
    assert_false(dir_exists(work));
    assert_false(dir_exists(out));

    struct buf text = { 0 };
    assert_ok(prepare_bench_table(&text, &b));
    assert_non_null(strstr(text.data, "cleaning, duplicates, splits add to these"));
    buf_reset(&text);
    assert_ok(prepare_bench_json(&text, &b));
    json_t *root = json_loads(text.data, 0, NULL);
    assert_int_equal(json_object_size(json_object_get(root, "parts")), BENCH_PREPARE_PARTS);
    json_decref(root);
    buf_clear(&text);

    struct cfg *cfg = make_cfg("data/sample/corpus.json", out);
    assert_ok(prepare_options_from_cfg(&o, cfg));
    assert_ok(prepare_run(&c, &o));
    assert_int_equal(b.dialogues, c.read);
    assert_int_equal(b.text_bytes, c.source[0].text_bytes);
    assert_true(b.turns >= c.turns);
    assert_true(b.strings > 2 * b.turns && b.strings < 3 * b.turns);
    assert_true(b.tokens > 2 * c.prompt_line_tokens); /* a line is made twice: later and first */
    assert_true(b.load_rows > c.target_tokens);
    prepare_options_clear(&o);
    cfg_close(cfg);
}

static bool stops_later(void *left) { return --*(int64_t *)left < 0; }

/* Asked to stop, wherever that is: what is done has its figures, and nothing is left behind. */
static void test_stopped(void **state)
{
    (void)state;
    struct prepare_bench b;
    struct prepare_options o;
    struct buf text = { 0 };
    char out[FILE_PATH_MAX], work[FILE_PATH_MAX];
    int stops = 0, stops_with_parts = 0;
    err_t rc = ERR_INTERRUPTED;
    assert_ok(path_join(out, testing_dir(), "s"));
    assert_ok(path_join(work, testing_dir(), "s.bench"));
    struct cfg *cfg = make_cfg("data/sample/corpus.json", out);
    for (int64_t after = 0; rc == ERR_INTERRUPTED; after = 2 * after + 7) {
        int64_t left = after;
        assert_ok(prepare_options_from_cfg(&o, cfg));
        o.stop = stops_later;
        o.stop_context = &left;
        rc = prepare_bench_run(&b, &o);
        prepare_options_clear(&o);
        assert_false(dir_exists(work));
        if (rc != ERR_INTERRUPTED) break;
        assert_true(b.wall_s[BENCH_LOAD] == 0.0);
        stops++;
        stops_with_parts += b.wall_s[BENCH_TOKENIZE] > 0.0;
        buf_reset(&text);
        assert_ok(prepare_bench_table(&text, &b));
        assert_null(strstr(text.data, "nan"));
        assert_null(strstr(text.data, "\nload "));
    }
    assert_ok(rc);
    assert_true(stops > stops_with_parts && stops_with_parts > 0);
    buf_clear(&text);
    cfg_close(cfg);
}

static void test_refused(void **state)
{
    (void)state;
    struct prepare_bench b;
    char out[FILE_PATH_MAX], work[FILE_PATH_MAX], kept[FILE_PATH_MAX];
    assert_ok(path_join(out, testing_dir(), "b"));
    assert_ok(path_join(work, testing_dir(), "b.bench"));
    assert_ok(path_join(kept, work, "mine"));
    assert_err(bench(&b, "/nonexistent.json", out), NOTFOUND, "nonexistent");
    assert_false(dir_exists(work));
    assert_ok(dir_create(work));
    assert_ok(file_replace(kept, "x", 1));
    assert_err(bench(&b, "data/sample/corpus.json", out), ARG, "b.bench exists");
    assert_true(file_exists(kept));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sample),
        cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
