/* Prepare that is killed, stopped or fails at any moment: the output is whole or absent, and the
 * same command then writes what an undisturbed run writes. And what the result does not depend on:
 * the order of the sources and the number of threads. */
#include "prepare_fixture.h"
#include "testing.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/fault.h"
#include "base/file.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SMALL_SHARDS "data.tokens_per_shard=10000" /* several of the sample corpus */

static void path_of(char path[FILE_PATH_MAX], const char *name)
{
    assert_ok(path_join(path, testing_dir(), name));
}

struct stop_at {
    int64_t left;
    int signal; /* 0: ask to stop; else the process kills itself with it */
};

static bool stop_now(void *context)
{
    struct stop_at *s = context;
    if (s->left-- != 0) return false;
    if (s->signal != 0) kill(getpid(), s->signal);
    return true;
}

static err_t prepare(struct prepare_counts *counts, const char *source, const char *out,
                     const char *const *settings, struct stop_at *stop)
{
    struct cfg *cfg = prepare_cfg(source, out, settings);
    struct prepare_options o;
    assert_ok(prepare_options_from_cfg(&o, cfg));
    if (stop != NULL) {
        o.stop = stop_now;
        o.stop_context = stop;
    }
    const err_t rc = prepare_run(counts, &o);
    const struct err_record kept = *err_last();
    prepare_options_clear(&o);
    cfg_close(cfg);
    if (rc != ERR_OK) err_adopt(&kept);
    return rc;
}

/* prepared.json names every shard by its sha256, and has all counters. */
static void read_result(struct buf *text, const char *out)
{
    char path[FILE_PATH_MAX];
    struct shards *s;
    assert_ok(shards_open(&s, out, true));
    shards_close(s);
    assert_ok(path_join(path, out, "prepared.json"));
    buf_reset(text);
    assert_ok(file_read_all(text, path, 1 << 20));
}

static bool is_there(const char *out, const char *suffix)
{
    char path[FILE_PATH_MAX + 8];
    snprintf(path, sizeof path, "%s%s", out, suffix);
    return dir_exists(path);
}

/* The result of an undisturbed run. */
static void undisturbed(struct buf *expected)
{
    char out[FILE_PATH_MAX];
    static struct prepare_counts c;
    const char *const settings[] = { SMALL_SHARDS, NULL };
    path_of(out, "undisturbed");
    assert_ok(prepare(&c, SAMPLE_CORPUS, out, settings, NULL));
    read_result(expected, out);
    assert_true(!is_there(out, ".tmp") && !is_there(out, ".work"));
    assert_non_null(strstr(expected->data, "shard-00003.h5")); /* enough of them */
    assert_ok(dir_remove(out));
}

static void check_same(const char *out, const struct buf *expected)
{
    struct buf got = { 0 };
    read_result(&got, out);
    assert_string_equal(got.data, expected->data);
    assert_true(!is_there(out, ".tmp") && !is_there(out, ".work"));
    assert_ok(dir_remove(out));
    buf_clear(&got);
}

static void test_killed(void **state)
{
    (void)state;
    char out[FILE_PATH_MAX];
    struct buf expected = { 0 };
    static struct prepare_counts c;
    const char *const settings[] = { SMALL_SHARDS, "data.threads=2", NULL };
    bool resumed = false;
    undisturbed(&expected);
    path_of(out, "killed");
    for (int64_t at = 0;; at += 83) {
        int status;
        const pid_t child = fork();
        if (child == 0) {
            struct stop_at stop = { at, SIGKILL };
            _exit((int)prepare(&c, SAMPLE_CORPUS, out, settings, &stop));
        }
        assert_true(child > 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WIFEXITED(status)) { /* it ended before it asked so often */
            assert_int_equal(WEXITSTATUS(status), ERR_OK);
            check_same(out, &expected);
            break;
        }
        assert_false(is_there(out, ""));
        resumed |= is_there(out, ".tmp/") && is_there(out, ".work");
        assert_ok(prepare(&c, SAMPLE_CORPUS, out, settings, NULL));
        check_same(out, &expected);
    }
    assert_true(resumed);
    buf_clear(&expected);
}

/* Killed again and again, a little further each time. */
static void test_killed_often(void **state)
{
    (void)state;
    char out[FILE_PATH_MAX];
    struct buf expected = { 0 };
    static struct prepare_counts c;
    const char *const settings[] = { SMALL_SHARDS, "data.threads=1", NULL };
    int status = 0, kills = 0;
    undisturbed(&expected);
    path_of(out, "often");
    do {
        const pid_t child = fork();
        if (child == 0) {
            struct stop_at stop = { kills ? 90 : 400, SIGKILL };
            _exit((int)prepare(&c, SAMPLE_CORPUS, out, settings, &stop));
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        kills += WIFSIGNALED(status);
        assert_true(kills < 100);
    } while (WIFSIGNALED(status));
    assert_int_equal(WEXITSTATUS(status), ERR_OK);
    assert_true(kills > 1);
    check_same(out, &expected);
    buf_clear(&expected);
}

/* Every step that can fail fails once; the next run is as if nothing had been. */
static void test_faults(void **state)
{
    (void)state;
    char out[FILE_PATH_MAX];
    struct buf expected = { 0 };
    static struct prepare_counts c;
    const char *const settings[] = { "data.tokens_per_shard=1000", "data.max_dialogues=6",
                                     "data.threads=1", NULL };
    fault_arm("", 0);
    path_of(out, "fault");
    assert_ok(prepare(&c, SAMPLE_CORPUS, out, settings, NULL));
    read_result(&expected, out);
    assert_ok(dir_remove(out));
    for (int n = 1;; n++) {
        fault_arm("", n);
        const err_t rc = prepare(&c, SAMPLE_CORPUS, out, settings, NULL);
        const int hits = fault_hits();
        fault_arm("", 0);
        if (hits < n) {
            assert_int_equal(rc, ERR_OK);
            break;
        }
        /* Published is published: what fails after the rename does not undo it. */
        if (!is_there(out, "")) assert_ok(prepare(&c, SAMPLE_CORPUS, out, settings, NULL));
        struct buf got = { 0 };
        read_result(&got, out);
        assert_string_equal(got.data, expected.data);
        buf_clear(&got);
        assert_ok(dir_remove(out));
    }
    buf_clear(&expected);
}

/* Stop in the second pass, so that there is something to go on from. */
static void stop_half_way(const char *source, const char *out, const char *const *settings)
{
    static struct prepare_counts c;
    struct stop_at stop = { 450, 0 };
    assert_err(prepare(&c, source, out, settings, &stop), INTERRUPTED, "as it was");
    assert_true(is_there(out, ".work") && is_there(out, ".tmp") && !is_there(out, ""));
}

static void test_not_resumed(void **state)
{
    (void)state;
    char out[FILE_PATH_MAX], work[FILE_PATH_MAX + 32], source[FILE_PATH_MAX];
    struct buf expected = { 0 }, corpus = { 0 };
    static struct prepare_counts c;
    const char *const settings[] = { SMALL_SHARDS, "data.threads=1", NULL };
    const char *const other[] = { SMALL_SHARDS, "data.threads=1", "data.rules=crisis=drop", NULL };
    const char *const changed[][2] = { { "plan.bin", "" },
                                       { "journal.bin", "" },
                                       { "dialogues.rows", "" } };
    undisturbed(&expected);
    path_of(out, "changed");

    /* Another setting, and then the first again: neither goes on from the other's work. */
    stop_half_way(SAMPLE_CORPUS, out, settings);
    assert_ok(prepare(&c, SAMPLE_CORPUS, out, other, NULL));
    assert_true(c.found.count[CLEAN_CRISIS] > 0 || c.read > 0);
    assert_ok(dir_remove(out));
    stop_half_way(SAMPLE_CORPUS, out, other);
    assert_ok(prepare(&c, SAMPLE_CORPUS, out, settings, NULL));
    check_same(out, &expected);

    /* A source that was changed. */
    path_of(source, "corpus.json");
    assert_ok(file_read_all(&corpus, SAMPLE_CORPUS, 8 << 20));
    assert_ok(file_replace(source, corpus.data, (int64_t)corpus.size));
    stop_half_way(source, out, settings);
    assert_ok(buf_puts(&corpus, "\n"));
    assert_ok(file_replace(source, corpus.data, (int64_t)corpus.size));
    assert_ok(prepare(&c, source, out, settings, NULL));
    assert_int_equal(c.source[0].bytes, (int64_t)corpus.size);
    assert_ok(dir_remove(out));

    /* Damaged work, and a finished shard that is not as it was. */
    for (int64_t i = 0; i < COUNT_OF(changed); i++) {
        stop_half_way(SAMPLE_CORPUS, out, settings);
        snprintf(work, sizeof work, "%s.work/%s", out, changed[i][0]);
        assert_ok(file_replace(work, "x", 1));
        assert_ok(prepare(&c, SAMPLE_CORPUS, out, settings, NULL));
        check_same(out, &expected);
    }
    stop_half_way(SAMPLE_CORPUS, out, settings);
    snprintf(work, sizeof work, "%s.tmp/shard-00001.h5", out);
    assert_ok(file_replace(work, "x", 1));
    assert_ok(prepare(&c, SAMPLE_CORPUS, out, settings, NULL));
    check_same(out, &expected);

    /* Not asked to go on. */
    const char *const anew[] = { SMALL_SHARDS, "data.resume=false", NULL };
    stop_half_way(SAMPLE_CORPUS, out, settings);
    assert_ok(prepare(&c, SAMPLE_CORPUS, out, anew, NULL));
    check_same(out, &expected);
    buf_clear(&expected);
    buf_clear(&corpus);
}

static void test_foreign_work(void **state)
{
    (void)state;
    char out[FILE_PATH_MAX], path[FILE_PATH_MAX];
    static struct prepare_counts c;
    path_of(out, "foreign");
    path_of(path, "foreign.work");
    assert_ok(dir_create(path));
    path_of(path, "foreign.work/thesis.txt");
    assert_ok(file_replace(path, "x", 1));
    assert_err(prepare(&c, SAMPLE_CORPUS, out, NULL, NULL), ARG, "holds thesis.txt");
    assert_true(file_exists(path));
}

/* ---- the same set ---- */

struct member {
    uint8_t hash[8];
    uint8_t split, flags;
};

static int compare_members(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct member));
}

static int64_t read_members(struct member **out, const char *dir)
{
    struct shards *s;
    assert_ok(shards_open(&s, dir, true));
    const int64_t count = shards_dialogue_count(s);
    *out = calloc((size_t)count, sizeof **out);
    for (int64_t d = 0; d < count; d++) {
        const struct shard_dialogue *row = shards_dialogue(s, d);
        memcpy((*out)[d].hash, row->hash, 8);
        (*out)[d].split = row->split;
        (*out)[d].flags = row->flags;
    }
    qsort(*out, (size_t)count, sizeof **out, compare_members);
    shards_close(s);
    return count;
}

/* Records `from` to the end, every `step`-th, of the sample corpus as JSON lines, every third with
 * a changed last sentence. */
static void write_part(const char *name, int64_t from, int64_t step, bool backwards)
{
    char path[FILE_PATH_MAX];
    struct buf text = { 0 };
    struct corpus *c;
    struct dialogue_text d;
    bool found = true;
    char *lines[400];
    int64_t count = 0;
    assert_ok(corpus_open(&c, SAMPLE_CORPUS, CORPUS_AUTO, CORPUS_FAIL));
    for (int64_t i = 0;; i++) {
        assert_ok(corpus_next(c, &d, &found));
        if (!found) break;
        if (i < from || (i - from) % step != 0) continue;
        struct buf line = { 0 };
        assert_ok(buf_printf(&line, "{\"topic\":\"%s\",\"messages\":[", d.topic));
        for (int64_t t = 0; t < d.turn_count; t++) {
            assert_ok(buf_printf(&line, "%s{\"role\":\"%s\",\"content\":\"", t ? "," : "",
                                 d.turns[t].role == ROLE_CLIENT ? "user" : "assistant"));
            for (int64_t k = 0; k < d.turns[t].size; k++) {
                const char ch = d.turns[t].text[k];
                if (ch == '"' || ch == '\\') assert_ok(buf_puts(&line, "\\"));
                assert_ok(ch == '\n' ? buf_puts(&line, "\\n") : buf_append(&line, &ch, 1));
            }
            assert_ok(buf_puts(&line, i % 3 == 0 && t == d.turn_count - 1 && from > 0 ? "再见吧\"}"
                                                                                      : "\"}"));
        }
        assert_ok(buf_puts(&line, "]}\n"));
        lines[count++] = line.data;
    }
    corpus_close(c);
    for (int64_t i = 0; i < count; i++)
        assert_ok(buf_puts(&text, lines[backwards ? count - 1 - i : i]));
    for (int64_t i = 0; i < count; i++) free(lines[i]);
    path_of(path, name);
    assert_ok(file_replace(path, text.data, (int64_t)text.size));
    buf_clear(&text);
}

static void test_file_order(void **state)
{
    (void)state;
    char dir[FILE_PATH_MAX], source[2 * FILE_PATH_MAX + 2], a[FILE_PATH_MAX], b[FILE_PATH_MAX],
        out[FILE_PATH_MAX];
    const char *const duplicates[] = { "data.duplicates=drop_near", "data.duplicates=drop_exact",
                                       "data.duplicates=keep" };
    static struct prepare_counts c;
    struct member *expected = NULL, *got;
    path_of(dir, "forth");
    assert_ok(dir_create(dir));
    path_of(dir, "back");
    assert_ok(dir_create(dir));
    /* Overlapping parts: exact and near duplicates within and across sources. */
    write_part("forth/a.jsonl", 0, 1, false);
    write_part("forth/b.jsonl", 1, 2, false);
    write_part("back/a.jsonl", 0, 1, true);
    write_part("back/b.jsonl", 1, 2, true);
    path_of(out, "order");
    for (int64_t k = 0; k < COUNT_OF(duplicates); k++) {
        const char *const settings[] = { duplicates[k], "data.validation_permyriad=1000",
                                         "data.test_permyriad=1000", NULL };
        int64_t count = 0, dialogues = 0;
        for (int order = 0; order < 4; order++) {
            path_of(a, order & 1 ? "back/a.jsonl" : "forth/a.jsonl");
            path_of(b, order & 1 ? "back/b.jsonl" : "forth/b.jsonl");
            snprintf(source, sizeof source, "%s,%s", order & 2 ? a : b, order & 2 ? b : a);
            assert_ok(prepare(&c, source, out, settings, NULL));
            assert_int_equal(c.duplicates.leaked_exact, 0);
            assert_int_equal(c.duplicates.leaked_near, 0);
            assert_int_equal(c.duplicates.leaked_opening, 0);
            count = read_members(&got, out);
            assert_ok(dir_remove(out));
            if (order == 0) {
                free(expected);
                expected = got;
                dialogues = count;
                /* 130 of 260 come twice, a third of those changed. */
                assert_true(c.duplicates.exact >= 80 && c.duplicates.near >= 40);
                continue;
            }
            assert_int_equal(count, dialogues);
            assert_memory_equal(got, expected, (size_t)count * sizeof *got);
            free(got);
        }
        assert_int_equal(dialogues, 260 + 130 - (k < 2 ? c.duplicates.exact : 0) -
                                        (k < 1 ? c.duplicates.near : 0));
        /* What is one text, or nearly, has one split: equal hashes lie together. */
        for (int64_t i = 1; i < dialogues; i++)
            if (memcmp(expected[i].hash, expected[i - 1].hash, 8) == 0)
                assert_int_equal(expected[i].split, expected[i - 1].split);
    }
    free(expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed),       cmocka_unit_test(test_killed_often),
        cmocka_unit_test(test_faults),       cmocka_unit_test(test_not_resumed),
        cmocka_unit_test(test_foreign_work), cmocka_unit_test(test_file_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
