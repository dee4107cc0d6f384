/* cli.h: the grammar of a subcommand's line, and its --help. */
#include "testing.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/cli.h"
#include "base/cli_help.h"
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
    /* The section is what is wrong or missing. */
    assert_err(PARSE("--trian.steps=1"), USAGE, "the nearest is --train.steps");
    assert_err(PARSE("--train.beams=1"), USAGE, "the nearest is --eval.beams");
    assert_err(PARSE("--steps=1"), USAGE, "the nearest is --train.steps");
    assert_err(PARSE("--dri=1"), USAGE, "the nearest is --data.dir");
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
    assert_err(parse(cfg, &bare, (const char *const[]){ "train.stepz=5", NULL }), USAGE,
               "settings are written --section.key=value");
    /* Also where any word is taken: it would be a puzzling name of a file. */
    assert_err(PARSE("a", "train.steps=5"), USAGE,
               "\"train.steps=5\" is a setting without its dashes; write --train.steps=5");
    assert_ok(PARSE("./train.steps=5", "train.stepz=5"));
    assert_ok(PARSE("--", "train.steps=5"));
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

/* What --help prints to stdout, which is a file here. */
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

static const char help_text[] =
    "Usage: soulchat train [OPTION...] FILE...\n"
    "\n"
    "Train a model.\n"
    "\n"
    "Example:\n"
    "  soulchat train --json a b\n"
    "\n"
    "Options:\n"
    "  --json                        print a report as JSON\n"
    "  --out=FILE                    where the report goes\n"
    "  --config=FILE                 settings from this YAML file; the command line wins\n"
    "  -h, --help                    show this help\n"
    "\n"
    "Settings, as --section.key=value or in the file of --config:\n"
    "\n"
    "  --train.steps=INT             optimizer updates to run (steps) [an integer from 1 to "
    "1000000000;\n"
    "                                default 1000]\n"
    "  --train.mode=NAME             what is trained [one of full, prefix; default full]\n"
    "\n"
    "  --data.dir=TEXT               folder of shards [default shards]\n";

static void test_help(void **state)
{
    struct buf text = { 0 }, short_form = { 0 };
    show_help(&text, *state, "--help");
    assert_true(help_shown);
    assert_string_equal(text.data, help_text); /* eval.beams is accepted, not listed */
    show_help(&short_form, *state, "-h");
    assert_string_equal(short_form.data, help_text);
    buf_clear(&text);
    buf_clear(&short_form);
    struct cfg *cfg = *state;
    assert_ok(PARSE("--", "--help"));
    assert_false(help_shown);
    assert_string_equal(args.positional[0], "--help");
}

/* Whatever the width, lines keep to it, but for examples and for words that are longer. */
static void test_help_width(void **state)
{
    static const struct cfg_row wide_rows[] = {
        { "data.a_name_that_leaves_no_room", CFG_ENUM, "nine", 0, 0,
          "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen",
          "a long list, and 用户：心理咨询师 in between" },
        { "data.limit", CFG_INT, "7", 0, 9e15, NULL, "" },
        { "data.name", CFG_STRING, "", 0, 0, NULL, "a text" },
        { "train.far", CFG_FLOAT, "0.5", 0, 1, NULL, "not listed" },
    };
    static const struct cfg_table wide_table = { wide_rows, COUNT_OF(wide_rows) };
    struct cfg *cfg;
    (void)state;
    assert_ok(cfg_create(&cfg, &wide_table, 1));
    struct cli_spec wide = spec;
    wide.sections = "data";
    for (int64_t columns = 0; columns <= 120; columns++) {
        struct buf text = { 0 };
        const int64_t most = columns < CLI_HELP_COLUMNS_MIN   ? CLI_HELP_COLUMNS_MIN
                             : columns > CLI_HELP_COLUMNS_MAX ? CLI_HELP_COLUMNS_MAX
                                                              : columns;
        assert_ok(cli_help_format(&text, &wide, cfg, columns));
        assert_non_null(strstr(text.data, "9000000000000000"));
        assert_non_null(strstr(text.data, "empty]"));
        assert_null(strstr(text.data, "train.far"));
        assert_null(strstr(text.data, " \n"));
        for (char *line = strtok(text.data, "\n"); line != NULL; line = strtok(NULL, "\n"))
            if ((int64_t)strlen(line) > most && strchr(line + strspn(line, " "), ' ') != NULL &&
                strncmp(line, "Usage", 5) != 0 && strncmp(line, "Settings", 8) != 0)
                fail_msg("%lld columns: \"%s\"", (long long)columns, line);
        buf_clear(&text);
    }
    cfg_close(cfg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_forms, create, destroy),
        cmocka_unit_test_setup_teardown(test_wrong, create, destroy),
        cmocka_unit_test_setup_teardown(test_config, create, destroy),
        cmocka_unit_test_setup_teardown(test_help, create, destroy),
        cmocka_unit_test(test_help_width),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
