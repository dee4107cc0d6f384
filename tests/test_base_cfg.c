/* cfg.h: what is accepted, and that everything else is one clear line. */
#include "testing.h"

#include "base/cfg.h"
#include "base/check.h"
#include "base/fault.h"
#include "base/file.h"

#include <stdlib.h>
#include <string.h>

static const struct cfg_row train_rows[] = {
    { "train.steps", CFG_INT, "1000", 1, 1e9, NULL, "optimizer updates to run (steps)" },
    { "train.lr", CFG_FLOAT, "5e-5", 0, 1, NULL, "learning rate" },
    { "train.resume", CFG_BOOL, "false", 0, 0, NULL, "continue from the last checkpoint" },
    { "train.step_unit", CFG_ENUM, "samples", 0, 0, "samples|tokens", "what a step counts" },
    { "train.micro", CFG_INT, "auto", -1, 4096, NULL, "samples at once (samples)" },
    { "train.any", CFG_INT, "0", 0, 0, NULL, "any integer" },
};
static const struct cfg_row data_rows[] = {
    { "data.dir", CFG_STRING, "", 0, 0, NULL, "folder of shards" },
    { "train.note", CFG_STRING, "a note", 0, 0, NULL, "of another table, the same section" },
};
static const struct cfg_table tables[] = {
    { train_rows, COUNT_OF(train_rows) },
    { data_rows, COUNT_OF(data_rows) },
};

static struct cfg *create(void)
{
    struct cfg *cfg = NULL;
    assert_ok(cfg_create(&cfg, tables, COUNT_OF(tables)));
    return cfg;
}

static err_t parse(struct cfg *cfg, const char *text)
{
    return cfg_parse_yaml(cfg, text, (int64_t)strlen(text), "t.yaml");
}

static void test_defaults(void **state)
{
    (void)state;
    struct cfg *cfg = create();
    assert_true(cfg_int(cfg, "train.steps") == 1000);
    assert_true(cfg_float(cfg, "train.lr") == 5e-5);
    assert_false(cfg_bool(cfg, "train.resume"));
    assert_string_equal(cfg_str(cfg, "train.step_unit"), "samples");
    assert_true(cfg_enum(cfg, "train.step_unit") == 0);
    assert_true(cfg_int(cfg, "train.micro") == -1);
    assert_string_equal(cfg_str(cfg, "data.dir"), "");
    assert_false(cfg_is_set(cfg, "train.steps"));
    assert_true(cfg_row_count(cfg) == 8);
    assert_string_equal(cfg_row_at(cfg, 7)->key, "train.note");
    cfg_close(cfg);
    cfg_close(NULL);
}

static void test_yaml(void **state)
{
    (void)state;
    struct cfg *cfg = create();
    assert_ok(parse(cfg, "# a comment\n"
                         "train:\n"
                         "  steps: 16_384   # digits in groups\n"
                         "  lr: 1\n"
                         "  resume: true\n"
                         "  step_unit: tokens\n"
                         "  micro: 8\n"
                         "data: { dir: \"a \\\"b\\\" \\u5fc3\" }\n"));
    assert_true(cfg_int(cfg, "train.steps") == 16384);
    assert_true(cfg_float(cfg, "train.lr") == 1.0);
    assert_true(cfg_bool(cfg, "train.resume"));
    assert_true(cfg_enum(cfg, "train.step_unit") == 1);
    assert_string_equal(cfg_str(cfg, "data.dir"), "a \"b\" \xe5\xbf\x83");
    assert_true(cfg_is_set(cfg, "train.steps"));
    assert_false(cfg_is_set(cfg, "train.any"));

    /* A later text and the command line win. */
    assert_ok(parse(cfg, "train:\n  steps: 5\n"));
    assert_true(cfg_int(cfg, "train.steps") == 5);
    assert_ok(cfg_set(cfg, "train.steps", "6", "command line"));
    assert_ok(cfg_set(cfg, "train.steps", "7", "command line"));
    assert_true(cfg_int(cfg, "train.steps") == 7);
    assert_true(cfg_bool(cfg, "train.resume"));
    cfg_close(cfg);
}

static void test_nothing_given(void **state)
{
    (void)state;
    static const char *const texts[] = { "", "\n\n", "# comment", "---\n", "---\n...\n", "{}",
                                         "train:\n", "train:\n  # steps: 1\ndata: {}\n" };
    struct cfg *cfg = create();
    for (int64_t i = 0; i < COUNT_OF(texts); i++) assert_ok(parse(cfg, texts[i]));
    assert_true(cfg_int(cfg, "train.steps") == 1000);
    assert_ok(cfg_parse_yaml(cfg, NULL, 0, "t.yaml"));
    cfg_close(cfg);
}

/* text, the code's message: where it is, and what is wrong. */
static void test_wrong_yaml(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        { "train:\n  stepz: 1\n",
          "t.yaml:2:3: there is no setting train.stepz; the nearest is train.steps" },
        { "trian:\n  steps: 1\n", "t.yaml:1:1: there is no section trian; the nearest is train" },
        { "train.steps: 1\n",
          "t.yaml:1:1: train.steps is no section; expected \"train:\" and below it, indented, "
          "\"steps: ...\"" },
        { "steps: 1\n", "t.yaml:1:1: steps is no section; expected \"train:\"" },
        { "train:\n  steps: 1\n  steps: 1\n", "t.yaml:3:3: train.steps is given a second time" },
        { "train:\n  steps: 1\ntrain:\n  lr: 1\n", "t.yaml:3:1: a section that was given before" },
        { "train:\n  steps: many\n",
          "t.yaml:2:10: train.steps is \"many\"; expected an integer from 1 to 1000000000" },
        { "train:\n  steps:\n", "train.steps is \"\"; expected an integer" },
        { "train:\n  steps: 0\n", "train.steps is \"0\"" },
        { "train:\n  steps: 1000000001\n", "train.steps is \"1000000001\"" },
        { "train:\n  steps: 1.5\n", "train.steps is \"1.5\"" },
        { "train:\n  lr: 2\n", "train.lr is \"2\"; expected a number from 0 to 1" },
        { "train:\n  lr: nan\n", "train.lr is \"nan\"" },
        { "train:\n  resume: yes\n", "train.resume is \"yes\"; expected true or false" },
        { "train:\n  step_unit: token\n",
          "train.step_unit is \"token\"; expected one of samples, tokens" },
        { "train:\n  steps: { a: 1 }\n", "t.yaml:2:10: a third level" },
        { "train:\n  nothing: { a: 1 }\n", "t.yaml:2:3: there is no setting train.nothing" },
        { "train:\n  steps: [1]\n", "t.yaml:2:10: a list" },
        { "- train\n", "t.yaml:1:1: a list" },
        { "train: 5\n", "t.yaml:1:8: a value where key: value lines" },
        { "train: ''\n", "t.yaml:1:8: a value where key: value lines" },
        { "text\n", "t.yaml:1:1: a text" },
        { "train: { { a: b }: 1 }\n", "a mapping where the name of a setting" },
        { "{ { a: b }: 1 }\n", "a mapping where the name of a section" },
        { "train:\n  steps: &a 1\n", "t.yaml:2:10: an anchor" },
        { "train: &a\n  steps: 1\n", "an anchor" },
        { "train:\n  steps: *a\n", "t.yaml:2:10: an alias" },
        { "train:\n  steps: !!int 1\n", "a tag" },
        { "---\ntrain:\n---\ndata:\n", "t.yaml:3:1: a second document" },
        { "train:\n  steps: \"1\n", "t.yaml:" },
        { "train:\n\tsteps: 1\n", "t.yaml:2:1: a tab; YAML is indented with spaces" },
        { "train:\n  steps: @1\n", "t.yaml:2:10: found character" },
        { "train: {\n", "t.yaml:" },
        { "data:\n  dir: \"a\\0b\"\n", "t.yaml:2:8: a NUL byte" },
        { "data:\n  dir: \xff\xfe\n", "at byte 13" },
    };
    for (int64_t i = 0; i < COUNT_OF(rows); i++) {
        struct cfg *cfg = create();
        assert_err(parse(cfg, rows[i][0]), USAGE, rows[i][1]);
        cfg_close(cfg);
    }
    struct cfg *cfg = create();
    assert_err(cfg_parse_yaml(cfg, "train:\n  \0steps: 1\n", 19, "t.yaml"), USAGE, "at byte 9");
    cfg_close(cfg);
}

static void test_integers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t value;
    } right[] = { { "0", 0 }, { "-0", 0 }, { "+7", 7 }, { "007", 7 }, { "1_0_0", 100 },
                  { "9223372036854775807", INT64_MAX }, { "-9223372036854775808", INT64_MIN } };
    static const char *const wrong[] = { "", "-", "+", "_1", "1_", "1__0", " 1", "1 ", "0x10",
                                         "1e3", "9223372036854775808", "-9223372036854775809",
                                         "auto", "--1", "1-" };
    struct cfg *cfg = create();
    for (int64_t i = 0; i < COUNT_OF(right); i++) {
        assert_ok(cfg_set(cfg, "train.any", right[i].text, "here"));
        assert_true(cfg_int(cfg, "train.any") == right[i].value);
    }
    for (int64_t i = 0; i < COUNT_OF(wrong); i++)
        assert_err(cfg_set(cfg, "train.any", wrong[i], "here"), USAGE, "expected an integer");
    assert_true(cfg_int(cfg, "train.any") == INT64_MIN); /* the last right one */
    assert_ok(cfg_set(cfg, "train.micro", "auto", "here"));
    assert_err(cfg_set(cfg, "train.micro", "-2", "here"), USAGE, "from -1 to 4096 or auto");
    assert_err(cfg_set(cfg, "train.lr", " 1", "here"), USAGE, "here: train.lr is \" 1\"");
    assert_err(cfg_set(cfg, "train.lr", "1x", "here"), USAGE, "expected a number");
    assert_err(cfg_set(cfg, "train.lr", "1e999", "here"), USAGE, "expected a number");
    assert_err(cfg_set(cfg, "data.dir", "\xc3\x28", "here"), USAGE, "expected UTF-8 text");
    assert_err(cfg_set(cfg, "", "1", "here"), USAGE, "there is no setting");
    cfg_close(cfg);
}

/* The longest value there may be, one more, and a file beyond the limit. */
static void test_large(void **state)
{
    (void)state;
    struct cfg *cfg = create();
    struct buf text = { 0 };
    char *value = malloc(CFG_VALUE_MAX + 1);
    assert_non_null(value);
    memset(value, 'v', CFG_VALUE_MAX + 1);
    value[CFG_VALUE_MAX - 1] = '\0';
    assert_ok(buf_printf(&text, "data:\n  dir: \"%s\"\n", value));
    assert_ok(parse(cfg, text.data));
    assert_string_equal(cfg_str(cfg, "data.dir"), value);
    value[CFG_VALUE_MAX - 1] = 'v';
    value[CFG_VALUE_MAX] = '\0';
    buf_reset(&text);
    assert_ok(buf_printf(&text, "data:\n  dir: \"%s\"\n", value));
    assert_err(parse(cfg, text.data), USAGE,
               "vvv\"...; expected UTF-8 text of at most 65535 bytes");

    while (text.size <= CFG_FILE_BYTES_MAX) assert_ok(buf_append(&text, value, CFG_VALUE_MAX));
    assert_err(parse(cfg, text.data), FORMAT, "at most 1048576 are read");
    memset(text.data, '[', CFG_FILE_BYTES_MAX); /* a million levels */
    text.data[CFG_FILE_BYTES_MAX] = '\0';
    assert_err(parse(cfg, text.data), USAGE, "t.yaml:1:1: a list");
    free(value);
    buf_clear(&text);
    cfg_close(cfg);
}

static void test_file(void **state)
{
    (void)state;
    struct cfg *cfg = create();
    char path[FILE_PATH_MAX];
    assert_ok(path_join(path, testing_dir(), "t.yaml"));
    assert_err(cfg_load_yaml(cfg, path), NOTFOUND, "no such file");
    assert_ok(file_replace(path, "train:\n  steps: 12\n", 19));
    assert_ok(cfg_load_yaml(cfg, path));
    assert_true(cfg_int(cfg, "train.steps") == 12);
    assert_err(cfg_load_yaml(cfg, testing_dir()), IO, "a directory");
    cfg_close(cfg);
}

/* dump -> parse gives the same settings, whatever the strings hold. */
static void test_round_trip(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "", "plain", "-", "- a", "a: b", "#x", " lead", "trail ", "\"q\"", "it's", "back\\slash",
        "two\nlines\n", "tab\there", "\x01\x1f\x7f", "\xe5\xbf\x83\xe7\x90\x86",
        "\xc2\x85\xc2\x80\xe2\x80\xa8\xef\xbb\xbf\xef\xbf\xbe", "\xf0\x9f\x99\x82",
        "null", "~", "true", "1_0",
        "*a", "&a", "!t", "%d", "@x", "`x", "{a}", "[a]", "?", "|", ">", "...", "---", "a,b",
    };
    for (int64_t i = 0; i < COUNT_OF(texts); i++) {
        for (int comments = 0; comments < 2; comments++) {
            struct cfg *a = create(), *b = create();
            struct buf dump = { 0 }, again = { 0 };
            assert_ok(cfg_set(a, "data.dir", texts[i], "here"));
            assert_ok(cfg_set(a, "train.note", texts[i], "here"));
            assert_ok(cfg_set(a, "train.steps", "77", "here"));
            assert_ok(cfg_dump_yaml(a, &dump, comments));
            assert_ok(parse(b, dump.data));
            assert_string_equal(cfg_str(b, "data.dir"), texts[i]);
            assert_string_equal(cfg_str(b, "train.note"), texts[i]);
            assert_true(cfg_int(b, "train.steps") == 77);
            assert_ok(cfg_dump_yaml(b, &again, comments));
            assert_string_equal(again.data, dump.data);
            buf_clear(&dump);
            buf_clear(&again);
            cfg_close(a);
            cfg_close(b);
        }
    }
}

static bool is_wanted(const char *key)
{
    return strcmp(key, "train.lr") == 0 || strcmp(key, "train.note") == 0;
}

/* Chosen settings alone; a section of which none is wanted is left out. */
static void test_dump_of(void **state)
{
    (void)state;
    struct cfg *cfg = create();
    struct buf dump = { 0 };
    assert_ok(cfg_dump_yaml_part(cfg, &dump, is_wanted));
    assert_string_equal(dump.data, "train:\n  lr: 5e-5\n  note: \"a note\"\n");
    buf_clear(&dump);
    cfg_close(cfg);
}

static void test_dump_form(void **state)
{
    (void)state;
    struct cfg *cfg = create();
    struct buf dump = { 0 };
    assert_ok(cfg_dump_yaml(cfg, &dump, false));
    assert_string_equal(dump.data, "train:\n  steps: 1000\n  lr: 5e-5\n  resume: false\n"
                                   "  step_unit: samples\n  micro: auto\n  any: 0\n"
                                   "  note: \"a note\"\ndata:\n  dir: \"\"\n");
    buf_reset(&dump);
    assert_ok(cfg_dump_yaml(cfg, &dump, true));
    assert_non_null(strstr(dump.data, "  # optimizer updates to run (steps): an integer from 1 to "
                                      "1000000000\n  steps: 1000\n"));
    buf_clear(&dump);

    /* Memory that runs out anywhere is reported. */
    for (int n = 1;; n++) {
        fault_arm("", n);
        const err_t rc = cfg_dump_yaml(cfg, &dump, true);
        fault_arm("", 0);
        buf_clear(&dump);
        if (rc == ERR_OK) break;
        assert_int_equal(rc, ERR_NOMEM);
    }
    cfg_close(cfg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),   cmocka_unit_test(test_yaml),
        cmocka_unit_test(test_nothing_given), cmocka_unit_test(test_wrong_yaml),
        cmocka_unit_test(test_integers),   cmocka_unit_test(test_large),
        cmocka_unit_test(test_file),       cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_dump_of), cmocka_unit_test(test_dump_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
