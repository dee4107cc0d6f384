/* cli.h: the grammar of a subcommand's line, and its --help. */
#include "testing.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/cli.h"
#include "base/file.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct cfg_row rows[] = {
    { "train.steps", CFG_INT, "1000", 1, 1e9, NULL, "optimizer updates to run (steps)" },
    { "train.mode", CFG_ENUM, "full", 0, 0, "full|prefix", "what is trained" },
    { "data.dir", CFG_STRING, "shards", 0, 0, NULL, "folder of shards" },
    { "eval.beams", CFG_INT, "1", 1, 8, NULL, "beams" },
};
static const struct cfg_table table = { rows, COUNT_OF(rows) };

static const struct cli_option options[] = {
    { "json", NULL, "print a report as JSON" },
    { "out", "FILE", "where the report goes" },
    { 0 },
};
static const struct cli_spec spec = {
    .command = "train", .purpose = "Train a model.", .example = "  soulchat train --json a b",
    .positional = "FILE...", .positional_max = 2, .options = options, .sections = "train|data",
};

static struct cli_args args;
static bool help_shown;

/* The words up to the first NULL; the settings go to `cfg`. */
static err_t parse(struct cfg *cfg, const struct cli_spec *s, const char *const *words)
{
    char *argv[16] = { (char *)"train" };
    int argc = 1;
    for (; *words != NULL; words++) argv[argc++] = (char *)*words;
    return cli_parse(&args, &help_shown, s, cfg, argc, argv);
}
#define PARSE(...) parse(cfg, &spec, (const char *const[]){ __VA_ARGS__, NULL })

static int create(void **state) { return cfg_create((struct cfg **)state, &table, 1) != ERR_OK; }

static int destroy(void **state)
{
    cfg_close(*state);
    return 0;
}

static void test_forms(void **state)
{
    struct cfg *cfg = *state;
    assert_ok(parse(cfg, &spec, (const char *const[]){ NULL }));
    assert_int_equal(args.positional_count, 0);
    assert_null(cli_option(&args, &spec, "json"));

    assert_ok(PARSE("a", "--json", "--train.steps=5", "--out", "--x", "b", "--data.dir=x=y"));
    assert_int_equal(args.positional_count, 2);
    assert_string_equal(args.positional[0], "a");
    assert_string_equal(args.positional[1], "b");
    assert_string_equal(cli_option(&args, &spec, "json"), "1");
    assert_string_equal(cli_option(&args, &spec, "out"), "--x");
    assert_true(cfg_int(cfg, "train.steps") == 5);
    assert_string_equal(cfg_str(cfg, "data.dir"), "x=y");
    assert_false(help_shown);

    assert_ok(PARSE("--eval.beams", "2", "--out=", "--", "--json", "-"));
    assert_true(cfg_int(cfg, "eval.beams") == 2);
    assert_string_equal(cli_option(&args, &spec, "out"), "");
    assert_string_equal(args.positional[0], "--json");
    assert_string_equal(args.positional[1], "-");
    assert_ok(PARSE("--train.steps=6", "--train.steps=7", "--out=1", "--out=2", "-"));
    assert_true(cfg_int(cfg, "train.steps") == 7);
    assert_string_equal(cli_option(&args, &spec, "out"), "2");
}

static void test_wrong(void **state)
{
    struct cfg *cfg = *state;
    assert_err(PARSE("--train.stepz=1"), USAGE,
               "train: there is no option --train.stepz; the nearest is --train.steps");
    assert_err(PARSE("--train.step=1"), USAGE, "no option --train.step;"); /* no abbreviations */
    assert_err(PARSE("--jsn"), USAGE, "the nearest is --json");
    assert_err(PARSE("--confg=x"), USAGE, "the nearest is --config");
    assert_err(PARSE("--hlep"), USAGE, "the nearest is --help");
    assert_err(PARSE("--=x"), USAGE, "there is no option --;");
    assert_err(PARSE("-j"), USAGE, "options begin with two dashes");
    assert_err(PARSE("-5"), USAGE, "options begin with two dashes");
    assert_err(PARSE("--json=yes"), USAGE, "--json takes no value, found \"yes\"");
    assert_err(PARSE("--out"), USAGE, "--out needs a value");
    assert_err(PARSE("--train.steps"), USAGE, "--train.steps needs a value");
    assert_err(PARSE("--train.steps="), USAGE, "command line: train.steps is \"\"");
    assert_err(PARSE("--train.steps=none"), USAGE, "command line: train.steps is \"none\"");
    assert_err(PARSE("a", "b", "c"), USAGE, "\"c\" is one too many; at most 2 (FILE...)");
    struct cli_spec bare = spec;
    bare.options = NULL;
    bare.positional_max = 0;
    assert_err(parse(cfg, &bare, (const char *const[]){ "train.steps=5", NULL }), USAGE,
               "settings are written --section.key=value");
    assert_err(parse(cfg, &bare, (const char *const[]){ "--json", NULL }), USAGE,
               "no option --json");
}

static void test_config(void **state)
{
    struct cfg *cfg = *state;
    char first[FILE_PATH_MAX], second[FILE_PATH_MAX];
    assert_ok(path_join(first, testing_dir(), "first.yaml"));
    assert_ok(path_join(second, testing_dir(), "second.yaml"));
    assert_ok(file_replace(first, "train:\n  steps: 5\n  mode: prefix\n", 33));
    assert_ok(file_replace(second, "train:\n  steps: 6\n", 18));
    assert_ok(PARSE("--train.steps=7", "--config", first)); /* the command line wins */
    assert_true(cfg_int(cfg, "train.steps") == 7);
    assert_true(cfg_enum(cfg, "train.mode") == 1);
    char option[FILE_PATH_MAX + 16];
    snprintf(option, sizeof option, "--config=%s", first);
    assert_ok(PARSE(option, "--config", second));
    assert_true(cfg_int(cfg, "train.steps") == 6);
    assert_err(PARSE("--config=/no/such/file"), NOTFOUND, "/no/such/file");
    /* A typo is found before any file is read. */
    assert_err(PARSE("--config=/no/such/file", "--typo"), USAGE, "no option --typo");
}

/* What --help prints to stdout. */
static void show_help(struct buf *out, struct cfg *cfg, const char *word)
{
    char path[FILE_PATH_MAX];
    assert_ok(path_join(path, testing_dir(), "stdout"));
    fflush(stdout);
    const int before = dup(1), fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_true(before >= 0 && fd >= 0 && dup2(fd, 1) == 1);
    const err_t rc = PARSE("--nonsense", word);
    fflush(stdout);
    dup2(before, 1);
    close(before);
    close(fd);
    assert_ok(rc);
    assert_ok(file_read_all(out, path, 1 << 20));
}

/* Help is wrapped to the terminal's width: compare its words. */
static void join_lines(char *text)
{
    char *to = text;
    for (const char *from = text; *from != '\0'; from++) {
        const bool is_space = *from == ' ' || *from == '\n';
        if (!is_space) *to++ = *from;
        if (is_space && to != text && to[-1] != ' ') *to++ = ' ';
    }
    *to = '\0';
}

static void test_help(void **state)
{
    struct buf text = { 0 }, short_form = { 0 };
    show_help(&text, *state, "--help");
    assert_true(help_shown);
    join_lines(text.data);
    static const char *const parts[] = {
        "Usage: soulchat train [OPTION...] FILE... ", " Train a model. ", "--json ",
        "print a report as JSON", "--out=FILE", "--config=FILE", "--help", "--train.steps=INT",
        "optimizer updates to run (steps); default \"1000\", an integer from 1 to 1000000000",
        "--train.mode=full|prefix", "--data.dir=TEXT", "Example: soulchat train --json a b",
    };
    for (int64_t i = 0; i < COUNT_OF(parts); i++)
        if (strstr(text.data, parts[i]) == NULL) fail_msg("no \"%s\" in:\n%s", parts[i], text.data);
    assert_null(strstr(text.data, "eval.beams")); /* accepted, not listed */
    show_help(&short_form, *state, "-h");
    join_lines(short_form.data);
    assert_string_equal(short_form.data, text.data);
    buf_clear(&text);
    buf_clear(&short_form);
    struct cfg *cfg = *state;
    assert_ok(PARSE("--", "--help"));
    assert_false(help_shown);
    assert_string_equal(args.positional[0], "--help");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_forms, create, destroy),
        cmocka_unit_test_setup_teardown(test_wrong, create, destroy),
        cmocka_unit_test_setup_teardown(test_config, create, destroy),
        cmocka_unit_test_setup_teardown(test_help, create, destroy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
