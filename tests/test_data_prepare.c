/* prepare as a person runs it: counts, splits, the same bytes whatever the threads, and nothing
 * left after a failure. */
#include "testing.h"

#include "prepare_fixture.h"

#include "base/check.h"
#include "base/digest.h"
#include "base/fault.h"
#include "base/file.h"
#include "data/commands.h"
#include "data/prepare.h"
#include "data/settings.h"
#include "data/settings_batch.h"
#include "data/split.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void path_of(char path[FILE_PATH_MAX], const char *name)
{
    assert_ok(path_join(path, testing_dir(), name));
}

static void write_text(const char *path, const char *text)
{
    assert_ok(file_replace(path, text, (int64_t)strlen(text)));
}

#define USER(s) "{\"role\":\"user\",\"content\":\"" s "\"}"
#define HELP(s) "{\"role\":\"assistant\",\"content\":\"" s "\"}"
#define RULE(s) "{\"role\":\"system\",\"content\":\"" s "\"}"

static int64_t count_of(const struct prepare_counts *c, const char *rule)
{
    for (int64_t i = 0; i < CLEAN_RULE_COUNT; i++)
        if (strcmp(clean_rule_at(i)->name, rule) == 0) return c->found.count[i];
    fail_msg("no rule %s", rule);
    return -1;
}

static void test_every_rule_counts(void **state)
{
    (void)state;
    char source[FILE_PATH_MAX], out[FILE_PATH_MAX];
    struct prepare_counts c;
    struct shards *s;
    path_of(source, "rules.json");
    path_of(out, "rules");
    /* clang-format off */
    write_text(source,
               "[{\"messages\":[]},"
               "{\"messages\":[" USER("a") "]},"
               "{\"messages\":[" HELP("a") "]},"
               "{\"messages\":[" RULE("x") "," USER("a") "," HELP("b") "]},"
               "{\"messages\":[" USER(" \\u3000a\\r\\nb\\n\\n\\nc \\u00a0") "," HELP("b") "]},"
               "{\"messages\":[" USER("a") "," USER("\\n") "," USER("b") "," HELP("c") "," HELP("d")
                               "," USER("e") "]},"
               "{\"messages\":[" HELP("a") "," USER("b") "," HELP("c") "]}]");
    /* clang-format on */
    assert_ok(prepare_with(&c, source, out, NULL));
    assert_int_equal(c.read, 7);
    assert_int_equal(count_of(&c, "system_turn"), 1);
    assert_int_equal(count_of(&c, "line_end"), 1);
    assert_int_equal(count_of(&c, "newlines"), 1);
    assert_int_equal(count_of(&c, "strip"), 2); /* the blank turn too */
    assert_int_equal(count_of(&c, "empty_turn"), 1);
    assert_int_equal(count_of(&c, "merge"), 2);
    assert_int_equal(count_of(&c, "no_turn"), 1);
    assert_int_equal(count_of(&c, "no_reply"), 2);
    assert_int_equal(count_of(&c, "counsellor_first"), 1);
    assert_int_equal(count_of(&c, "client_last"), 1);
    assert_int_equal(c.dialogues, 4);
    assert_int_equal(c.turns, 2 + 2 + 3 + 3);
    assert_int_equal(c.samples, 4);
    assert_ok(shards_open(&s, out, true));
    assert_int_equal(shards_dialogue_count(s), 4);
    assert_int_equal(shards_turn(s, 3, 0)->target_off, -1); /* a reply to nothing is context only */
    assert_true(shards_turn(s, 3, 2)->target_len > 0);
    assert_string_equal(shards_source(s, 0), "rules.json");
    shards_close(s);
}

/* What is stored is the cleaned text: merged with a newline, stripped. */
static void test_stored_text(void **state)
{
    (void)state;
    char source[FILE_PATH_MAX], out[FILE_PATH_MAX];
    struct prepare_counts c;
    struct shards *s;
    struct tok *tok;
    struct i32_buf ids = { 0 };
    int32_t got[200];
    path_of(source, "text.json");
    path_of(out, "text");
    write_text(source, "{\"topic\":\"情绪\",\"messages\":[" USER(" 我很难过 \\r\\n\\r\\n") "," USER(
                           "怎么办") "," HELP("\\u3000听起来很不容易。 ") "]}");
    assert_ok(prepare_with(&c, source, out, NULL));
    assert_ok(tok_open(&tok, SAMPLE_MODEL));
    assert_ok(shards_open(&s, out, true));
    assert_string_equal(shards_topic(s, 0), "情绪");
    const char *line = "\n用户：我很难过\n怎么办", *reply = "听起来很不容易。";
    assert_ok(tok_encode(tok, &ids, line, (int64_t)strlen(line), TOK_PLAIN));
    const struct shard_turn *t = shards_turn(s, 0, 0);
    assert_int_equal(t->ctx_len, ids.count - 1);
    assert_ok(shards_tokens(s, got, 0, t->ctx_off, t->ctx_len));
    assert_memory_equal(got, ids.data + 1, (size_t)t->ctx_len * 4);
    i32_buf_reset(&ids);
    assert_ok(tok_encode(tok, &ids, reply, (int64_t)strlen(reply), TOK_PLAIN));
    t = shards_turn(s, 0, 1);
    assert_int_equal(t->target_len, ids.count);
    assert_ok(shards_tokens(s, got, 0, t->target_off, t->target_len));
    assert_memory_equal(got, ids.data, (size_t)t->target_len * 4);
    i32_buf_clear(&ids);
    shards_close(s);
    tok_close(tok);
}

static void corpus_sha256(char hex[SHA256_HEX_SIZE], const char *dir)
{
    struct shards *s;
    assert_ok(shards_open(&s, dir, true));
    strcpy(hex, shards_sha256(s));
    shards_close(s);
}

static void test_same_for_any_threads(void **state)
{
    (void)state;
    const char *const threads[] = { "data.threads=1", "data.threads=2", "data.threads=3",
                                    "data.threads=16", "data.threads=0" };
    char expected[SHA256_HEX_SIZE], got[SHA256_HEX_SIZE], out[FILE_PATH_MAX], big[FILE_PATH_MAX];
    struct buf text = { 0 }, many = { 0 };
    struct prepare_counts c;
    /* The sample corpus several times over, so that there are some batches. */
    assert_ok(file_read_all(&text, SAMPLE_CORPUS, 8 << 20));
    const char *begin = strchr(text.data, '{'), *end = strrchr(text.data, '}') + 1;
    for (int i = 0; i < 8; i++) {
        assert_ok(buf_puts(&many, i ? "," : "["));
        assert_ok(buf_append(&many, begin, (size_t)(end - begin)));
    }
    assert_ok(buf_puts(&many, "]"));
    path_of(big, "many.json");
    assert_ok(file_replace(big, many.data, (int64_t)many.size));
    for (int64_t i = 0; i < COUNT_OF(threads); i++) {
        const char *const settings[] = { threads[i], "data.tokens_per_shard=100000",
                                         "data.duplicates=keep", NULL };
        char name[32];
        snprintf(name, sizeof name, "threads-%d", (int)i);
        path_of(out, name);
        assert_ok(prepare_with(&c, big, out, settings));
        assert_int_equal(c.dialogues, 8 * 260);
        corpus_sha256(i ? got : expected, out);
        if (i) assert_string_equal(got, expected);
    }
    buf_clear(&text);
    buf_clear(&many);
}

static void test_splits(void **state)
{
    (void)state;
    struct prepare_counts c;
    struct shards *s;
    char out[FILE_PATH_MAX];
    const char *const settings[] = { "data.validation_permyriad=2000",
                                     "data.test_permyriad=3000",
                                     "data.split_seed=7",
                                     "data.split=hash",
                                     "data.openings=apart",
                                     NULL };
    int64_t counted[SPLIT_COUNT] = { 0 };
    path_of(out, "splits");
    assert_ok(prepare_with(&c, SAMPLE_CORPUS, out, settings));
    assert_ok(shards_open(&s, out, true));
    for (int64_t d = 0; d < shards_dialogue_count(s); d++) {
        const struct shard_dialogue *row = shards_dialogue(s, d);
        assert_int_equal(row->split, split_by_place(split_place(7, row->hash), 2000, 3000));
        counted[row->split]++;
    }
    for (int i = 0; i < SPLIT_COUNT; i++) assert_int_equal(counted[i], c.split[i].dialogues);
    shards_close(s);
    /* 10,000 hashes: shares within five standard deviations of what was asked for. */
    int64_t drawn[SPLIT_COUNT] = { 0 };
    for (uint64_t i = 0; i < 10000; i++) {
        uint8_t hash[8];
        memcpy(hash, &i, sizeof hash);
        drawn[split_by_place(split_place(42, hash), 100, 300)]++;
    }
    assert_in_range(drawn[SPLIT_VALIDATION], 100 - 50, 100 + 50);
    assert_in_range(drawn[SPLIT_TEST], 300 - 85, 300 + 85);
    /* sha256(struct.pack("<Q", 42) + bytes(8)), its first 8 bytes little-endian, mod 10000, in
     * Python: 510 */
    const uint8_t zero[8] = { 0 };
    assert_int_equal(split_by_place(split_place(42, zero), 511, 0), SPLIT_VALIDATION);
    assert_int_equal(split_by_place(split_place(42, zero), 510, 1), SPLIT_TEST);
    assert_int_equal(split_by_place(split_place(42, zero), 510, 0), SPLIT_TRAIN);
}

/* What the rules say about turns reaches the shards: no target for one kept as context, flags. */
static void test_turn_flags(void **state)
{
    (void)state;
    char source[FILE_PATH_MAX], out[FILE_PATH_MAX];
    struct prepare_counts c;
    struct shards *s;
    path_of(source, "flags.json");
    path_of(out, "flags");
    write_text(source,
               "[{\"messages\":[" USER("我想自杀") "," HELP("作为一个AI，我不懂") "," USER(
                   "唉") "," HELP("我在") "]},{\"messages\":[" USER("你好") "," HELP("好") "]}]");
    assert_ok(prepare_with(&c, source, out, NULL));
    assert_int_equal(c.samples, 2);
    assert_int_equal(c.crisis_dialogues, 1);
    assert_ok(shards_open(&s, out, true));
    assert_int_equal(shards_dialogue(s, 0)->flags, DIALOGUE_CRISIS);
    assert_int_equal(shards_dialogue(s, 1)->flags, 0);
    assert_int_equal(shards_turn(s, 0, 0)->flags & TURN_CRISIS, TURN_CRISIS);
    assert_int_equal(shards_turn(s, 0, 2)->flags & TURN_CRISIS, 0);
    assert_int_equal(shards_turn(s, 0, 1)->target_off, -1);
    assert_true(shards_turn(s, 0, 1)->ctx_len > 0);
    assert_true(shards_turn(s, 0, 3)->target_off >= 0);
    shards_close(s);
}

/* Every topic has its share of validation and test, to one dialogue. */
static void test_stratified(void **state)
{
    (void)state;
    char source[FILE_PATH_MAX], out[FILE_PATH_MAX];
    struct prepare_counts c;
    struct shards *s;
    struct buf text = { 0 };
    const char *const settings[] = { "data.validation_permyriad=1000", "data.test_permyriad=2000",
                                     NULL };
    enum { TOPICS = 9 };
    int64_t all[TOPICS] = { 0 }, got[TOPICS][SPLIT_COUNT] = { 0 };
    for (int i = 0; i < 600; i++)
        assert_ok(buf_printf(
            &text, "{\"topic\":\"t%d\",\"messages\":[" USER("%d%d%d") "," HELP("b") "]}\n",
            i % 5 == 0 ? 0 : i % TOPICS, i * 7919, i * i + 12345, i * 104729));
    path_of(source, "strata.jsonl");
    path_of(out, "strata");
    write_text(source, text.data);
    buf_clear(&text);
    assert_ok(prepare_with(&c, source, out, settings));
    assert_ok(shards_open(&s, out, true));
    for (int64_t d = 0; d < shards_dialogue_count(s); d++) {
        const int topic = shards_topic(s, d)[1] - '0';
        all[topic]++;
        got[topic][shards_dialogue(s, d)->split]++;
    }
    shards_close(s);
    for (int t = 0; t < TOPICS; t++) {
        assert_true(all[t] > 30);
        assert_in_range(10 * got[t][SPLIT_VALIDATION] + 10, all[t], all[t] + 20);
        assert_in_range(10 * got[t][SPLIT_TEST] + 10, 2 * all[t], 2 * all[t] + 20);
    }
    assert_int_equal(c.split[SPLIT_VALIDATION].dialogues, (c.dialogues + 5) / 10);
    assert_int_equal(c.split[SPLIT_TEST].dialogues, (2 * c.dialogues + 5) / 10);
}

/* 300 dialogues of 100 questions, which begin alike and go on differently. */
static void write_openings(const char *path)
{
    struct buf text = { 0 };
    for (int i = 0; i < 300; i++) {
        const int question = i / 3 * 7919 + 100000;
        assert_ok(buf_printf(&text,
                             "{\"messages\":[" USER("你好") "," HELP("请讲") "," USER(
                                 "%d，我的问题：%d号事情怎么办？%d") "," HELP("%d") "]}\n",
                             question, question, i * i + 12345, i * 104729));
    }
    write_text(path, text.data);
    buf_clear(&text);
}

/* How many held-out dialogues have their opening in training too; questions keep their turn 2. */
static int64_t openings_in_both(const char *out, const struct prepare_counts *c)
{
    struct shards *s;
    int64_t both = 0;
    assert_ok(shards_open(&s, out, true));
    const int64_t n = shards_dialogue_count(s);
    assert_int_equal(n, c->dialogues);
    int32_t(*ids)[12] = calloc((size_t)n, sizeof *ids);
    for (int64_t d = 0; d < n; d++)
        assert_ok(shards_tokens(s, ids[d], d, shards_turn(s, d, 2)->ctx_off, 12));
    for (int64_t a = 0; a < n; a++) {
        bool leaks = false;
        if (shards_dialogue(s, a)->split == SPLIT_TRAIN) continue;
        for (int64_t b = 0; b < n && !leaks; b++)
            leaks = shards_dialogue(s, b)->split == SPLIT_TRAIN &&
                    memcmp(ids[a], ids[b], sizeof *ids) == 0;
        both += leaks;
    }
    free(ids);
    shards_close(s);
    return both;
}

static void test_openings(void **state)
{
    (void)state;
    char source[FILE_PATH_MAX], out[FILE_PATH_MAX];
    struct prepare_counts c;
    path_of(source, "openings.jsonl");
    write_openings(source);
    for (int64_t i = 0; i < 4; i++) {
        const bool together = i < 2;
        const char *const settings[] = { "data.validation_permyriad=1000",
                                         "data.test_permyriad=1000",
                                         together ? "data.openings=together"
                                                  : "data.openings=apart",
                                         i % 2 ? "data.split=hash" : "data.split=stratified",
                                         "data.replace=true",
                                         NULL };
        path_of(out, "openings");
        assert_ok(prepare_with(&c, source, out, settings));
        assert_int_equal(c.dialogues, 300);
        assert_int_equal(c.duplicates.near, 0);
        assert_int_equal(c.duplicates.clusters, 0);
        assert_int_equal(c.duplicates.same_opening, 300);
        assert_int_equal(c.duplicates.leaked_opening, openings_in_both(out, &c));
        assert_int_equal(c.duplicates.leaked_opening > 0, !together);
        assert_in_range(c.split[SPLIT_TEST].dialogues, 10, 60);
        if (together) assert_int_equal(c.split[SPLIT_TEST].dialogues % 3, 0);
    }
}

static void test_settings(void **state)
{
    (void)state;
    struct prepare_counts c;
    char out[FILE_PATH_MAX], a[FILE_PATH_MAX], b[FILE_PATH_MAX], both[2 * FILE_PATH_MAX + 4];
    path_of(out, "settings");
    const char *const missing[] = { "data.tokenizer=", NULL };
    const char *const shares[] = { "data.validation_permyriad=6000", "data.test_permyriad=5000",
                                   NULL };
    const char *const some[] = { "data.max_dialogues=5", "data.licence=CC0",
                                 "data.validation_permyriad=4000", "data.test_permyriad=6000",
                                 NULL };
    assert_err(prepare_with(&c, SAMPLE_CORPUS, out, missing), USAGE, "data.tokenizer is not set");
    assert_err(prepare_with(&c, "", out, NULL), USAGE, "data.source is not set");
    assert_err(prepare_with(&c, SAMPLE_CORPUS, "", NULL), USAGE, "data.dir is not set");
    assert_err(prepare_with(&c, SAMPLE_CORPUS, out, shares), USAGE, "11000");
    assert_err(prepare_with(&c, "a.json,,b.json", out, NULL), USAGE, "empty name");
    assert_err(prepare_with(&c, "a.json,a.json", out, NULL), USAGE, "twice");
    assert_err(prepare_with(&c, "/nonexistent.json", out, NULL), NOTFOUND, "nonexistent");
    assert_ok(prepare_with(&c, SAMPLE_CORPUS, out, some));
    assert_int_equal(c.dialogues, 5);
    assert_int_equal(c.split[SPLIT_TRAIN].dialogues, 0);
    assert_err(prepare_with(&c, SAMPLE_CORPUS, out, some), ARG, "exists");

    /* Two sources; files of one name are told apart by their paths. */
    path_of(a, "one");
    assert_ok(dir_create(a));
    path_of(a, "one/x.json");
    path_of(b, "x.json");
    write_text(a, "[{\"messages\":[" USER("a") "," HELP("b") "]}]");
    write_text(b, "{\"dialogue\":[" USER("a") "," HELP("c") "]}\n{}\n");
    snprintf(both, sizeof both, "%s, %s", a, b);
    path_of(out, "two-sources");
    assert_err(prepare_with(&c, both, out, NULL), FORMAT, "x.json:2 (byte ");
    const char *const skip[] = { "data.on_bad_record=skip", NULL };
    assert_ok(prepare_with(&c, both, out, skip));
    assert_int_equal(c.source[0].form, CORPUS_OPENAI);
    assert_int_equal(c.source[1].form, CORPUS_SMILE);
    assert_int_equal(c.bad_records, 1);
    struct shards *s;
    assert_ok(shards_open(&s, out, true));
    assert_string_equal(shards_source(s, 0), a);
    assert_string_equal(shards_source(s, 1), b);
    shards_close(s);
}

static void check_nothing_left(const char *name)
{
    static const char *const suffixes[] = { "", ".tmp", ".work" };
    char path[FILE_PATH_MAX], with[FILE_PATH_MAX + 8];
    path_of(path, name);
    for (int64_t i = 0; i < COUNT_OF(suffixes); i++) {
        snprintf(with, sizeof with, "%s%s", path, suffixes[i]);
        assert_false(dir_exists(with));
    }
}

static void test_nothing_usable(void **state)
{
    (void)state;
    char source[FILE_PATH_MAX], out[FILE_PATH_MAX];
    struct prepare_counts c;
    path_of(source, "useless.json");
    path_of(out, "useless");
    write_text(source, "");
    assert_err(prepare_with(&c, source, out, NULL), FORMAT, "no dialogue in 0 bytes");
    write_text(source, "[]");
    assert_err(prepare_with(&c, source, out, NULL), FORMAT, "no dialogue");
    write_text(source, "[{\"messages\":[" USER("a") "]},{\"messages\":[]}]");
    assert_err(prepare_with(&c, source, out, NULL), FORMAT,
               "none of 2 dialogues can be used: bad "
               "records 0, no_turn 1, no_reply 1");
    write_text(source, "[{\"messages\":[" USER("a") "," HELP("b") "]},{\"messages\":[");
    assert_err(prepare_with(&c, source, out, NULL), FORMAT, "ends inside");
    check_nothing_left("useless");
}

static void test_faults(void **state)
{
    (void)state;
    char out[FILE_PATH_MAX];
    struct prepare_counts c;
    const char *const some[] = { "data.max_dialogues=3", "data.replace=true", "data.resume=false",
                                 NULL };
    path_of(out, "faults");
    fault_arm("", 0);
    for (int n = 1; n < 1000; n++) {
        fault_arm("file.write", n);
        const err_t rc = prepare_with(&c, SAMPLE_CORPUS, out, some);
        const int hits = fault_hits();
        fault_arm("", 0);
        if (rc != ERR_OK) check_nothing_left("faults");
        if (hits < n) {
            assert_int_equal(rc, ERR_OK);
            break;
        }
        assert_int_equal(rc, ERR_IO);
    }
}

/* Stop after so many questions. */
static bool stop_at(void *context)
{
    int64_t *left = context;
    return (*left)-- == 0;
}

static void test_stopped(void **state)
{
    (void)state;
    char out[FILE_PATH_MAX];
    struct prepare_counts c;
    struct prepare_options o;
    path_of(out, "stopped");
    for (int64_t questions = 0; questions < 262; questions += 29) {
        int64_t left = questions;
        const char *const once[] = { "data.resume=false", NULL };
        struct cfg *cfg = prepare_cfg(SAMPLE_CORPUS, out, once);
        assert_ok(prepare_options_from_cfg(&o, cfg));
        o.stop = stop_at;
        o.stop_context = &left;
        assert_err(prepare_run(&c, &o), INTERRUPTED, "is as it was");
        check_nothing_left("stopped");
        prepare_options_clear(&o);
        cfg_close(cfg);
    }
}

/* Run the command in a child as the program would; returns its err_t. `signal_after_us` < 0: let it
 * end. */
static int run_command(const char *source, const char *out, int64_t signal_after_us)
{
    int status;
    const pid_t child = fork();
    if (child == 0) {
        signal(SIGINT, SIG_DFL);
        char *argv[] = { (char[]){ "prepare" }, (char[]){ "--json" }, NULL };
        struct cfg *cfg = prepare_cfg(source, out, NULL);
        if (freopen("/dev/null", "w", stdout) == NULL) _exit(99);
        _exit((int)cmd_prepare(cfg, 2, argv));
    }
    assert_true(child > 0);
    if (signal_after_us >= 0) {
        usleep((useconds_t)signal_after_us);
        kill(child, SIGINT);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status)) return -WTERMSIG(status);
    return WEXITSTATUS(status);
}

/* Ctrl-C at any moment: the command reports it, was killed before it began, or was already done;
 * never half a corpus. */
static void test_interrupt(void **state)
{
    (void)state;
    char out[FILE_PATH_MAX], tmp[FILE_PATH_MAX + 8], sha256[SHA256_HEX_SIZE];
    path_of(out, "interrupted");
    for (int64_t us = 0; us < 60000; us += 5000) {
        const int rc = run_command(SAMPLE_CORPUS, out, us);
        assert_true(rc == ERR_OK || rc == ERR_INTERRUPTED || rc == -SIGINT);
        snprintf(tmp, sizeof tmp, "%s.tmp", out);
        assert_false(dir_exists(tmp));
        if (rc == ERR_INTERRUPTED || !dir_exists(out)) {
            assert_int_not_equal(rc, ERR_OK);
            assert_false(dir_exists(out)); /* the work folder may be there, to go on from */
            continue;
        }
        corpus_sha256(sha256,
                      out); /* whole, also when the signal came while the report was printed */
        assert_ok(dir_remove(out));
    }
    assert_int_equal(run_command(SAMPLE_CORPUS, out, -1), ERR_OK);
}

static void test_report(void **state)
{
    (void)state;
    char out[FILE_PATH_MAX];
    struct prepare_counts c;
    struct prepare_options o;
    struct buf text = { 0 };
    path_of(out, "report");
    struct cfg *cfg = prepare_cfg(SAMPLE_CORPUS, out, NULL);
    assert_ok(prepare_options_from_cfg(&o, cfg));
    assert_ok(prepare_run(&c, &o));
    assert_ok(prepare_report_table(&text, &c, &o));
    assert_non_null(strstr(text.data, "260  dialogues (soulchat"));
    /* The sample is clean; a rule that has found something is there with its count. */
    for (int64_t i = 0; i < CLEAN_RULE_COUNT; i++)
        assert_null(strstr(text.data, clean_rule_at(i)->help));
    for (int64_t i = 0; i < CLEAN_RULE_COUNT; i++) {
        char line[256];
        c.found.count[i] = 7 + i;
        buf_reset(&text);
        assert_ok(prepare_report_table(&text, &c, &o));
        snprintf(line, sizeof line, "  %-18s %12lld  %.100s", clean_rule_at(i)->name,
                 (long long)(7 + i), clean_rule_at(i)->help);
        assert_non_null(strstr(text.data, line));
    }
    assert_non_null(strstr(text.data, "  0 of "));
    buf_reset(&text);
    assert_ok(prepare_report_json(&text, &c, &o));
    assert_non_null(strstr(text.data, "\"read\": 260"));
    assert_non_null(strstr(text.data, "\"no_reply\": 0")); /* of the source */
    buf_clear(&text);
    prepare_options_clear(&o);
    cfg_close(cfg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_rule_counts),
        cmocka_unit_test(test_stored_text),
        cmocka_unit_test(test_same_for_any_threads),
        cmocka_unit_test(test_splits),
        cmocka_unit_test(test_turn_flags),
        cmocka_unit_test(test_stratified),
        cmocka_unit_test(test_openings),
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_nothing_usable),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_interrupt),
        cmocka_unit_test(test_report),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
