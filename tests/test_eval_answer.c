/*
 * A file of conversations: the same lines in the same order however many are answered together,
 * wherever one goes on; what cannot be answered is passed over; a stop, a closed output.
 */
#include "gen_fixture.h"

#include "base/file.h"
#include "base/stop.h"
#include "eval/answer.h"
#include "eval/console.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONVERSATIONS 21 /* each third one cannot be answered */
#define REPLIES       14

static void write_corpus(const char *path)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < CONVERSATIONS; i++) {
        static const char *const last[] = {
            "{\"role\":\"user\",\"content\":\"第%d次 失眠\"}",
            ("{\"role\":\"user\",\"content\":\"第%d次\"},"
             "{\"role\":\"assistant\",\"content\":\" 嗯\"}"),
            "{\"role\":\"assistant\",\"content\":\"%d\"}",
        };
        fprintf(f, "{\"id\":\"c%d\",\"topic\":\"\",\"messages\":[", i);
        fprintf(f, last[i % 3], i);
        fprintf(f, "]}\n");
    }
    assert_int_equal(fclose(f), 0);
}

/* What answer_file writes to standard output, which is a file for so long. */
static err_t answer_into(struct buf *out, struct cfg *cfg, const char *corpus,
                         struct answer_options o)
{
    struct gen *gen;
    char path[FILE_PATH_MAX];
    assert_ok(path_join(path, testing_dir(), "out"));
    fflush(stdout);
    const int saved = dup(STDOUT_FILENO), fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_true(saved >= 0 && fd >= 0);
    assert_ok(gen_open(&gen, cfg, o.slots));
    dup2(fd, STDOUT_FILENO);
    const err_t rc = answer_file(gen, corpus, cfg, &o);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    close(fd);
    gen_close(gen);
    buf_reset(out);
    assert_ok(file_read_all(out, path, 1 << 20));
    return rc;
}

static struct cfg *open_cfg(void)
{
    const char *dir = testing_path("model");
    gen_model_write(dir, &(struct gen_weights){ .end = 8 });
    struct cfg *cfg = gen_cfg(dir);
    gen_set(cfg, "generate.max_new_tokens", "30");
    gen_set(cfg, "generate.temperature", "1");
    gen_set(cfg, "generate.top_p", "0.99");
    gen_set(cfg, "generate.top_k", "0"); /* the random model ends a reply by chance alone */
    return cfg;
}

static const char *line_at(const struct buf *text, int64_t index)
{
    const char *at = text->data;
    for (; index > 0; index--) at = strchr(at, '\n') + 1;
    return at;
}

static void assert_text(const json_t *line, const char *key, const char *wanted)
{
    const char *found = json_string_value(json_object_get(line, key));
    assert_non_null(found);
    assert_string_equal(found, wanted);
}

static void test_lines(void **state)
{
    (void)state;
    const char *corpus = testing_path("corpus.jsonl");
    struct cfg *cfg = open_cfg();
    struct buf out = { 0 };
    char id[16];
    int64_t ends = 0;
    write_corpus(corpus);
    assert_ok(answer_into(&out, cfg, corpus, (struct answer_options){ .slots = 3 }));
    for (int64_t i = 0; i < REPLIES; i++) {
        json_t *line = json_loads(line_at(&out, i), JSON_DISABLE_EOF_CHECK, NULL);
        assert_non_null(line);
        snprintf(id, sizeof id, "c%lld", (long long)(i / 2 * 3 + i % 2));
        assert_text(line, "id", id);
        if (i % 2) assert_text(line, "reference", "嗯");
        if (i % 2 == 0) assert_null(json_object_get(line, "reference"));
        assert_non_null(json_object_get(line, "reply"));
        ends += strcmp(json_string_value(json_object_get(line, "stop")), "end") == 0;
        json_decref(line);
    }
    assert_string_equal(line_at(&out, REPLIES), "");
    assert_in_range(ends, 3, REPLIES - 2); /* some end early, some do not: slots are refilled */
    buf_clear(&out);
    cfg_close(cfg);
}

static void test_same_lines(void **state)
{
    (void)state;
    const char *corpus = testing_path("corpus.jsonl");
    struct cfg *cfg = open_cfg();
    struct buf whole = { 0 }, part = { 0 };
    write_corpus(corpus);
    assert_ok(answer_into(&whole, cfg, corpus, (struct answer_options){ .slots = 1 }));
    for (int64_t slots = 2; slots <= 8; slots += 3) {
        assert_ok(answer_into(&part, cfg, corpus, (struct answer_options){ .slots = slots }));
        assert_string_equal(part.data, whole.data);
    }
    for (int64_t n = 0; n <= REPLIES; n += 5) { /* the first n, then the rest */
        struct buf rest = { 0 };
        buf_reset(&part);
        struct answer_options first = { .slots = 4, .limit = n }, then = { .slots = 2, .skip = n };
        if (n > 0) assert_ok(answer_into(&part, cfg, corpus, first));
        assert_ok(answer_into(&rest, cfg, corpus, then));
        assert_ok(buf_append(&part, rest.data, rest.size));
        assert_string_equal(part.data, whole.data);
        buf_clear(&rest);
    }
    assert_ok(answer_into(&part, cfg, corpus, (struct answer_options){ .slots = 2, .skip = 99 }));
    assert_int_equal(part.size, 0);
    buf_clear(&whole);
    buf_clear(&part);
    cfg_close(cfg);
}

static void test_bad_record(void **state)
{
    (void)state;
    static const char text[] =
        "{\"id\":1,\"messages\":[{\"role\":\"user\",\"content\":\"一\"}]}\n"
        "{\"id\":2,\"messages\":[{\"role\":\"nobody\",\"content\":\"二\"}]}\n"
        "{\"id\":3,\"messages\":[{\"role\":\"user\",\"content\":\"三\"}]}\n";
    const char *corpus = testing_path("bad.jsonl");
    struct cfg *cfg = open_cfg();
    struct buf out = { 0 };
    assert_ok(file_replace(corpus, text, sizeof text - 1));
    /* Before the first reply: nothing is written. */
    assert_err(answer_into(&out, cfg, corpus, (struct answer_options){ .slots = 1 }), FORMAT,
               "bad.jsonl:2");
    assert_int_equal(out.size, 0);
    gen_set(cfg, "data.on_bad_record", "skip");
    assert_ok(answer_into(&out, cfg, corpus, (struct answer_options){ .slots = 1 }));
    assert_non_null(strstr(line_at(&out, 1), "\"id\":\"3\""));
    assert_string_equal(line_at(&out, 2), "");
    const struct answer_options one = { .slots = 1 };
    assert_err(answer_into(&out, cfg, testing_path("nowhere"), one), NOTFOUND, "nowhere");
    buf_clear(&out);
    cfg_close(cfg);
}

static void test_stop(void **state)
{
    (void)state;
    const char *corpus = testing_path("corpus.jsonl");
    const struct answer_options o = { .slots = 2, .skip = 4 };
    struct cfg *cfg = open_cfg();
    struct gen *gen;
    write_corpus(corpus);
    assert_ok(gen_open(&gen, cfg, o.slots));
    testing_signal(SIGINT);
    assert_err(answer_file(gen, corpus, cfg, &o), INTERRUPTED, "--skip 4");
    gen_close(gen);
    assert_err(gen_open(&gen, cfg, o.slots), INTERRUPTED, "while the weights were loaded");
    stop_reset();
    cfg_close(cfg);
}

static void test_closed_output(void **state)
{
    (void)state;
    int ends[2];
    fflush(stdout);
    const int saved = dup(STDOUT_FILENO);
    assert_int_equal(pipe(ends), 0);
    dup2(ends[1], STDOUT_FILENO);
    close(ends[0]);
    close(ends[1]);
    console_open();
    const err_t rc = console_puts("nobody reads this");
    dup2(saved, STDOUT_FILENO);
    close(saved);
    assert_int_equal(rc, ERR_IO);
    assert_non_null(strstr(err_last()->text, "reader has closed it"));
}

/* Whose terminal is closed is asked to stop, whether SIGHUP has come yet or not. */
static void test_closed_terminal(void **state)
{
    (void)state;
    char byte;
    fflush(stdout);
    const int saved = dup(STDOUT_FILENO), master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0) skip();
    assert_int_equal(grantpt(master), 0);
    assert_int_equal(unlockpt(master), 0);
    const int terminal = open(ptsname(master), O_RDWR | O_NOCTTY);
    assert_true(terminal >= 0);
    assert_false(console_is_gone(terminal, EAGAIN));
    assert_int_equal(close(master), 0);
    dup2(terminal, STDOUT_FILENO);
    const err_t rc = console_puts("nobody sees this");
    dup2(saved, STDOUT_FILENO);
    close(saved);
    assert_int_equal(rc, ERR_INTERRUPTED);
    assert_non_null(strstr(err_last()->text, "terminal was closed"));
    if (read(terminal, &byte, 1) < 0) assert_true(console_is_gone(terminal, errno));
    close(terminal);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),         cmocka_unit_test(test_same_lines),
        cmocka_unit_test(test_bad_record),    cmocka_unit_test(test_stop),
        cmocka_unit_test(test_closed_output), cmocka_unit_test(test_closed_terminal),
    };
    assert_ok(stop_catch());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
