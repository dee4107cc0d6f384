/* What inspect shows: numbers that can be checked by hand, JSON that parses, columns that line up.
 */
#include "testing.h"
#include "tok_fixture.h"

#include "batch_fixture.h"
#include "prepare_fixture.h"

#include "base/check.h"
#include "base/file.h"
#include "data/commands.h"
#include "data/inspect.h"
#include "data/inspect_json.h"
#include "data/settings_batch.h"
#include "data/width.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLIENT(ctx)                                                                                \
    {                                                                                              \
        .role = ROLE_CLIENT, .ctx_len = (ctx), .target_len = -1                                    \
    }
#define COUNSELLOR(ctx, target)                                                                    \
    {                                                                                              \
        .role = ROLE_COUNSELLOR, .ctx_len = (ctx), .target_len = (target)                          \
    }

/* Samples of train: 4 + 3 (cue) + 3 + 3 = 13 rows and 4 + 5 + 4 + 3 + 1 + 3 = 20; of test: 13. */
static const struct fixture_turn long_turns[] = { CLIENT(4), COUNSELLOR(5, 3), CLIENT(4),
                                                  COUNSELLOR(4, 1) };
static const struct fixture_turn short_turns[] = { CLIENT(5), COUNSELLOR(4, 2) };
static const struct fixture_dialogue dialogues[] = { { SPLIT_TRAIN, 4, long_turns },
                                                     { SPLIT_TEST, 2, short_turns } };

static struct shards *open_corpus(void)
{
    return fixture_open("corpus", TOK_CHATGLM, dialogues, COUNT_OF(dialogues));
}

static const struct sample_limits limits = { .max_input = 1536, .max_target = 512 };
static const struct batch_spec batch = {
    .unit = BATCH_SAMPLES, .size = 2, .lanes = 2, .micro_tokens = 128, .pack_len = 64, .seed = 1
};

/* ---- columns ---- */

static void assert_padded(const char *text, int64_t columns, const char *expected)
{
    struct buf out = { 0 };
    assert_ok(text_pad(&out, text, strlen(text), columns));
    assert_string_equal(out.data, expected);
    assert_int_equal(text_width(out.data, out.size), columns);
    buf_clear(&out);
}

static void test_width(void **state)
{
    (void)state;
    assert_int_equal(text_width("", 0), 0);
    assert_int_equal(text_width("abc", 3), 3);
    assert_int_equal(text_width("▁你好，a", strlen("▁你好，a")), 8);
    assert_int_equal(text_width("e\u0301", strlen("e\u0301")), 1);
    assert_int_equal(text_width("😀", strlen("😀")), 2);
    assert_padded("你好", 6, "你好  ");
    assert_padded("你好", 4, "你好");
    assert_padded("你好吗", 5, "你好…");
    assert_padded("你好吗", 4, "你… "); /* half a character is not shown */
    assert_padded("abc", 1, "…");
    assert_padded("\033[2J\n", 6, "?[2J? ");
    assert_padded("a\xff", 3, "a? ");
}

static void test_json_strings(void **state)
{
    (void)state;
    struct buf out = { 0 };
    assert_ok(json_put_string(&out, "a\"\\\n\xff你", 8));
    assert_string_equal(out.data, "\"a\\\"\\\\\\u000a\\ufffd你\"");
    json_t *value = json_loads(out.data, JSON_DECODE_ANY, NULL);
    assert_string_equal(json_string_value(value), "a\"\\\n\uFFFD你");
    json_decref(value);
    buf_clear(&out);
}

/* ---- the summary ---- */

static json_t *parse(const struct buf *text)
{
    json_error_t error;
    json_t *value = json_loads(text->data, 0, &error);
    if (value == NULL) print_error("%s\n%s\n", error.text, text->data);
    assert_non_null(value);
    return value;
}

static int64_t number(json_t *object, const char *a, const char *b, const char *c)
{
    json_t *value = json_object_get(json_object_get(object, a), b);
    if (c != NULL) value = json_object_get(value, c);
    assert_true(json_is_integer(value));
    return json_integer_value(value);
}

static void test_summary(void **state)
{
    (void)state;
    struct corpus_summary summary;
    struct shards *shards = open_corpus();
    struct buf out = { 0 };
    assert_ok(inspect_summarise(&summary, "corpus", shards, &limits, &batch, NULL));
    const struct split_summary *train = &summary.split[SPLIT_TRAIN];
    assert_true(train->dialogues == 1 && train->turns == 4 && train->tokens == 17);
    assert_true(train->samples.samples == 2 && train->samples.rows == 33);
    assert_true(train->sample.min == 13 && train->sample.max == 20 && train->sample.mean == 16.5);
    assert_true(train->sample.median == 13 && train->sample.p95 == 20);
    assert_true(train->prompt.min == 7 && train->prompt.max == 16 && train->reply.max == 3);
    assert_true(train->pack_count == 1 && train->pack_fill == 33.0 / 64);
    assert_true(train->steps_per_epoch == 1 && train->step_fill == 33.0 / 256);
    assert_true(summary.split[SPLIT_VALIDATION].sample.max == 0);
    assert_true(summary.split[SPLIT_TEST].samples.samples == 1);

    assert_ok(inspect_write_summary(&out, &summary, INSPECT_JSON));
    json_t *json = parse(&out);
    assert_int_equal(number(json, "train", "samples", NULL), 2);
    assert_int_equal(number(json, "train", "trained_tokens", NULL), 8);
    assert_int_equal(
        json_integer_value(json_object_get(
            json_object_get(json_object_get(json_object_get(json, "train"), "lengths"), "prompt"),
            "max")),
        16);
    assert_int_equal(number(json, "train", "packs", "count"), 1);
    assert_int_equal(number(json, "test", "dialogues", NULL), 1);
    assert_int_equal(number(json, "validation", "samples", NULL), 0);
    assert_string_equal(json_string_value(json_object_get(json, "family")), "chatglm");
    json_decref(json);

    buf_reset(&out);
    assert_ok(inspect_write_summary(&out, &summary, INSPECT_TEXT));
    assert_non_null(strstr(out.data, "\ndialogues                                1           0"
                                     "           1\n"));
    assert_non_null(strstr(out.data, "1 of 64 rows, 51.56 % full"));
    buf_clear(&out);
    shards_close(shards);
}

/* ---- rows and steps ---- */

static void test_rows(void **state)
{
    (void)state;
    struct shards *shards = open_corpus();
    struct sample_set *set = NULL;
    struct micro_batch m = { 0 };
    struct buf out = { 0 };
    const int64_t both[] = { 1, 0 };
    assert_ok(sample_set_open(&set, shards, SPLIT_TRAIN, &limits));
    assert_ok(micro_batch_from_samples(&m, set, both, 2, LOSS_MEAN_TOKEN, false));
    const struct inspect_rows rows = { .title = "two \"samples\"", .micro = &m, .set = set };

    assert_ok(inspect_write_rows(&out, &rows, INSPECT_JSON));
    json_t *json = parse(&out);
    assert_string_equal(json_string_value(json_object_get(json, "title")), "two \"samples\"");
    json_t *ids = json_object_get(json, "ids"), *labels = json_object_get(json, "labels");
    json_t *weights = json_object_get(json, "weights"), *segment = json_object_get(json, "segment");
    assert_int_equal(json_array_size(ids), 128);
    int64_t trained = 0;
    for (size_t r = 0; r < 128; r++) {
        const int64_t label = json_integer_value(json_array_get(labels, r));
        const double weight = json_number_value(json_array_get(weights, r));
        assert_int_equal(json_integer_value(json_array_get(ids, r)), m.ids[r]);
        assert_int_equal(json_integer_value(json_array_get(segment, r)), r < 20   ? 0
                                                                         : r < 33 ? 1
                                                                                  : -1);
        if (label != -100) assert_int_equal(label, m.ids[r + 1]);
        assert_true(label == -100 ? weight == 0 : (float)weight == 0.125f);
        trained += label != -100;
    }
    assert_int_equal(trained, 8);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(json, "segments"), 3)), 20);
    assert_null(json_object_get(json, "pieces"));
    json_decref(json);

    buf_reset(&out);
    assert_ok(inspect_write_rows(&out, &rows, INSPECT_TEXT));
    assert_null(strchr(out.data, '\033'));
    assert_non_null(strstr(out.data, "   0  sample 1: dialogue 0, turn 3, prompt from turn 0; "
                                     "16 + 1 tokens; made up\n"));
    assert_non_null(strstr(out.data, "\n   row  seg    pos  block      id"));
    assert_non_null(strstr(out.data, "\n    16    0     16      0     901       904   0.125\n"));
    assert_non_null(strstr(out.data, "\n    19    0     16      3     905\n"));
    assert_non_null(strstr(out.data, "\n   127    -      0      0       3\n"));

    buf_reset(&out);
    assert_ok(inspect_write_rows(&out, &rows, INSPECT_COLOUR));
    assert_non_null(strstr(out.data, "\033[32m    16    0     16"));
    assert_non_null(strstr(out.data, "\033[2m   127    -      0      0       3\033[0m\n"));
    buf_clear(&out);
    micro_batch_clear(&m);
    sample_set_close(set);
    shards_close(shards);
}

static void test_step(void **state)
{
    (void)state;
    struct shards *shards = open_corpus();
    struct sample_set *set = NULL;
    struct batcher *b = NULL;
    struct buf out = { 0 };
    assert_ok(sample_set_open(&set, shards, SPLIT_TRAIN, &limits));
    assert_ok(batcher_open(&b, set, &batch));
    assert_ok(inspect_write_step(&out, b, &batch, 3, INSPECT_JSON));
    json_t *json = parse(&out);
    json_t *micro = json_object_get(json, "micro");
    assert_int_equal(json_array_size(micro), 2);
    assert_int_equal(json_integer_value(json_object_get(json, "rows")), 33);
    assert_int_equal(json_integer_value(json_object_get(json, "stream_first")), 6);
    /* The longer sample goes first, and to lane 0. */
    assert_int_equal(json_integer_value(json_object_get(json_array_get(micro, 0), "rows")), 20);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(micro, 1), "lane")), 1);
    json_decref(json);
    buf_reset(&out);
    assert_ok(inspect_write_step(&out, b, &batch, 3, INSPECT_TEXT));
    assert_non_null(strstr(out.data, "\n     0      0         1        20       128         3\n"));
    buf_clear(&out);
    batcher_close(b);
    sample_set_close(set);
    shards_close(shards);
}

/* ---- the command ---- */

/* Run `inspect` with arguments; what it printed lands in *out. */
static err_t run(struct buf *out, const char *const *arguments)
{
    char command[] = "inspect";
    char *argv[24] = { command };
    int argc = 1;
    struct cfg *cfg = NULL;
    char path[512];
    assert_ok(cfg_create(&cfg, &batch_settings, 1));
    for (; arguments[argc - 1] != NULL; argc++) argv[argc] = (char *)(uintptr_t)arguments[argc - 1];

    snprintf(path, sizeof path, "%s/stdout", testing_dir());
    fflush(stdout);
    const int saved = dup(STDOUT_FILENO);
    const int file = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_true(saved >= 0 && file >= 0 && dup2(file, STDOUT_FILENO) >= 0);
    const err_t rc = cmd_inspect(cfg, argc, argv);
    fflush(stdout);
    assert_true(dup2(saved, STDOUT_FILENO) >= 0);
    close(saved);
    close(file);
    cfg_close(cfg);
    buf_reset(out);
    assert_ok(file_read_all(out, path, 1 << 20));
    return rc;
}
#define RUN(out, ...) run(out, (const char *const[]){ __VA_ARGS__, NULL })

static void test_command(void **state)
{
    (void)state;
    struct buf out = { 0 };
    shards_close(open_corpus());
    const char *dir = strdup(testing_path("corpus"));

    assert_ok(RUN(&out, dir, "--batch.size=2"));
    assert_non_null(strstr(out.data, "trained tokens"));
    assert_null(strchr(out.data, '\033')); /* not a terminal */
    assert_ok(RUN(&out, dir, "--json", "--batch.unit=tokens", "--batch.size=2048"));
    json_decref(parse(&out));
    assert_ok(RUN(&out, dir, "--sample", "1"));
    assert_non_null(strstr(out.data, "sample 1 of train: 128 rows, 1 segments, 3 trained"));
    assert_ok(RUN(&out, dir, "--sample", "0", "--split", "test"));
    assert_non_null(strstr(out.data, "made up, exam"));
    assert_ok(RUN(&out, dir, "--pack", "0", "--json"));
    json_decref(parse(&out));
    assert_ok(RUN(&out, dir, "--step", "5", "--batch.size=4", "--batch.lanes=2"));
    assert_non_null(strstr(out.data, "step 5: 4 samples"));
    assert_ok(RUN(&out, dir, "--step", "5", "--micro", "0"));
    assert_non_null(strstr(out.data, "step 5, lane 0, micro-batch 0 of train"));
    assert_ok(RUN(&out, "--help"));
    assert_non_null(strstr(out.data, "batch.pack_len"));

    assert_err(RUN(&out, "--json"), USAGE, "needs the directory");
    assert_err(RUN(&out, dir, "--sample", "2"), USAGE, "--sample 2: train has 2");
    assert_err(RUN(&out, dir, "--pack", "1"), USAGE, "--pack 1: train has 1");
    assert_err(RUN(&out, dir, "--sample", "-1"), USAGE, "expected a number from 0");
    assert_err(RUN(&out, dir, "--sample", "1x"), USAGE, "--sample 1x");
    assert_err(RUN(&out, dir, "--sample", "1", "--pack", "0"), USAGE, "exclude each other");
    assert_err(RUN(&out, dir, "--lane", "1"), USAGE, "need --step");
    assert_err(RUN(&out, dir, "--step", "0", "--lane", "1"), USAGE, "--lane 1: the step has 1");
    assert_err(RUN(&out, dir, "--step", "0", "--micro", "9"), USAGE, "--micro 9: the lane has");
    assert_err(RUN(&out, dir, "--split", "dev"), USAGE, "train, validation or test");
    assert_err(RUN(&out, dir, "--sample", "0", "--split", "validation"), USAGE, "validation has 0");
    assert_err(RUN(&out, dir, "--step", "0", "--split", "validation"), ARG, "no samples");
    assert_err(RUN(&out, dir, "--batch.unit=tokens"), USAGE, "batch.size 80 is no multiple");
    assert_err(RUN(&out, dir, "--batch.micro_tokens=200"), USAGE, "no multiple of 128");
    if (tok_fixture_library())
        assert_err(RUN(&out, dir, "--model", TOK_FIXTURE_CHATGLM2), USAGE, "is not the tokenizer");
    assert_err(RUN(&out, "/nowhere"), NOTFOUND, "/nowhere");
    assert_string_equal(out.data ? out.data : "", "");
    free((char *)(uintptr_t)dir);
    buf_clear(&out);
}

/* With the tokenizer, rows have their pieces, which joined are the sample as a person reads it. */
static void test_pieces(void **state)
{
    (void)state;
    static struct prepare_counts counts;
    const char *const few[] = { "data.max_dialogues=3", "data.validation_permyriad=0",
                                "data.test_permyriad=0", NULL };
    struct buf out = { 0 }, text = { 0 };
    const char *dir = strdup(testing_path("pieces"));
    assert_ok(prepare_with(&counts, SAMPLE_CORPUS, dir, few));
    assert_ok(RUN(&out, dir, "--sample", "0", "--model", SAMPLE_MODEL));
    assert_non_null(strstr(out.data, " [gMASK] "));
    assert_non_null(strstr(out.data, " <eop> ")); /* a label */
    assert_ok(RUN(&out, dir, "--sample", "0", "--model", SAMPLE_MODEL, "--json"));
    json_t *json = parse(&out);
    const json_t *pieces = json_object_get(json, "pieces");
    assert_int_equal(json_array_size(pieces),
                     json_integer_value(json_object_get(json, "rows")));
    for (size_t i = 0; i < json_array_size(pieces); i++)
        assert_ok(buf_puts(&text, json_string_value(json_array_get(pieces, i))));
    assert_non_null(strstr(text.data, "▁用户:"));
    assert_non_null(strstr(text.data, "<n>心理咨询师:[gMASK]<sop>"));
    assert_non_null(strstr(text.data, "<eop><pad><pad>"));
    json_decref(json);
    buf_clear(&text);
    buf_clear(&out);
    free((char *)(uintptr_t)dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_width),   cmocka_unit_test(test_json_strings),
        cmocka_unit_test(test_summary), cmocka_unit_test(test_rows),
        cmocka_unit_test(test_step),    cmocka_unit_test(test_command),
        cmocka_unit_test(test_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
