/* metrics.h: lines that are whole, also after a crash and on a full disk. */
#include "testing.h"

#include "base/buf.h"
#include "base/fault.h"
#include "base/file.h"
#include "train/goodput.h"
#include "train/guard.h"
#include "train/metrics.h"

#include <float.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

static const char *metrics_path(void)
{
    static char path[FILE_PATH_MAX];
    assert_ok(path_join(path, testing_dir(), "metrics.jsonl"));
    return path;
}

static void put(const char *text)
{
    assert_ok(file_replace(metrics_path(), text, (int64_t)strlen(text)));
}

static void assert_text(const char *expected)
{
    struct buf text = { 0 };
    assert_ok(file_read_all(&text, metrics_path(), 1 << 20));
    assert_string_equal(text.data, expected);
    buf_clear(&text);
}

static void test_lines(void **state)
{
    (void)state;
    struct metrics m;
    const struct metrics_step step = { .step = 12,
                                       .epoch = 0.25,
                                       .loss = 2.5,
                                       .lr = 5e-5,
                                       .grad_norm = 1.0 / 3.0,
                                       .clip_scale = 1,
                                       .seconds = 0.5,
                                       .waited_s = 0.001,
                                       .samples = 80,
                                       .stream_first = 880,
                                       .tokens = 15872,
                                       .tokens_padded = 16000,
                                       .trained_tokens = 9000 };
    put("");
    assert_ok(metrics_open(&m, metrics_path()));
    assert_ok(metrics_validation(&m, 0, 7.5, 100));
    assert_ok(metrics_weight_change(&m, 8, 0.25, 3));
    assert_ok(metrics_step(&m, &step));
    assert_ok(metrics_clock(&m, 12, "stop", 0));
    metrics_close(&m);
    assert_int_equal(m.fd, -1);
    assert_text("{\"step\":0,\"validation_loss\":7.5,\"validation_tokens\":100}\n"
                "{\"step\":8,\"weight_change\":0.25,\"since_step\":3}\n"
                "{\"step\":12,\"epoch\":0.25,\"loss\":2.5,\"lr\":5e-05,\"grad_norm\":0.333333333,"
                "\"clip_scale\":1,\"samples\":80,\"stream_first\":880,\"tokens\":15872,"
                "\"tokens_padded\":16000,\"trained_tokens\":9000,\"seconds\":0.5,\"waited_"
                "seconds\":0.001}\n"
                "{\"step\":12,\"event\":\"stop\",\"time\":0.000}\n");
}

/* Events, and what the guard did; the clock is kept to the millisecond. */
static void test_events(void **state)
{
    (void)state;
    struct metrics m;
    const struct guard_decision skip = { .action = GUARD_SKIP,
                                         .cause = GUARD_NORM_SPIKE,
                                         .limit = 3.5 };
    const struct guard_decision stop = { .action = GUARD_STOP, .cause = GUARD_LOSS_NOT_FINITE };
    const struct goodput_report report = {
        .wall_s = 8,
        .useful_s = 6,
        .share = 0.75,
        .restarts = 2,
        .repeated = 3,
        .here = { .saves = 2, .paused_s = 0.25, .waited_s = 0.125 },
    };
    put("");
    assert_ok(metrics_open(&m, metrics_path()));
    assert_ok(metrics_clock(&m, 0, "start", 1767225600.25));
    assert_ok(metrics_guard(&m, 7, &skip, 2.5, 40));
    assert_ok(metrics_guard(&m, 8, &stop, NAN, INFINITY));
    assert_ok(metrics_save(&m, 9, 1767225601, 0.5, 6));
    assert_ok(metrics_published(&m, 9, 1767225602.5, 1.75));
    assert_ok(metrics_goodput(&m, 9, &report));
    metrics_close(&m);
    assert_text("{\"step\":0,\"event\":\"start\",\"time\":1767225600.250}\n"
                "{\"step\":7,\"event\":\"skip\",\"cause\":\"spike of the gradient norm\","
                "\"loss\":2.5,\"grad_norm\":40,\"limit\":3.5}\n"
                "{\"step\":8,\"event\":\"guard_stop\",\"cause\":\"loss not finite\","
                "\"loss\":null,\"grad_norm\":null,\"limit\":0}\n"
                "{\"step\":9,\"event\":\"save\",\"time\":1767225601.000,\"seconds\":0.500000,"
                "\"useful_seconds\":6.000000}\n"
                "{\"step\":9,\"event\":\"published\",\"time\":1767225602.500,"
                "\"seconds\":1.750000}\n"
                "{\"step\":9,\"event\":\"end\",\"goodput\":0.750000,"
                "\"useful_seconds\":6.000000,\"wall_seconds\":8.000000,"
                "\"save_seconds\":0.250000,\"waited_seconds\":0.125000,\"restarts\":2,"
                "\"repeated_steps\":3}\n");
}

/* JSON has neither NaN nor infinity, and no number may make a line too long. */
static void test_extremes(void **state)
{
    (void)state;
    struct metrics m;
    const struct metrics_step step = { .step = INT64_MAX,
                                       .epoch = -DBL_MAX,
                                       .loss = NAN,
                                       .lr = INFINITY,
                                       .grad_norm = -INFINITY,
                                       .clip_scale = -1e-300,
                                       .seconds = DBL_MAX,
                                       .waited_s = DBL_MAX,
                                       .samples = INT64_MIN,
                                       .stream_first = INT64_MIN,
                                       .tokens = INT64_MIN,
                                       .tokens_padded = INT64_MIN,
                                       .trained_tokens = INT64_MIN };
    put("");
    assert_ok(metrics_open(&m, metrics_path()));
    assert_ok(metrics_validation(&m, 1, NAN, 0));
    assert_ok(metrics_step(&m, &step));
    metrics_close(&m);
    struct buf text = { 0 };
    assert_ok(file_read_all(&text, metrics_path(), 1 << 20));
    assert_non_null(strstr(text.data, "{\"step\":1,\"validation_loss\":null,"));
    assert_non_null(strstr(text.data, "\"loss\":null,\"lr\":null,\"grad_norm\":null,"));
    assert_null(strstr(text.data, "nan"));
    assert_null(strstr(text.data, "inf"));
    buf_clear(&text);
}

/* A program that was killed inside a line. */
static void test_cut_line(void **state)
{
    (void)state;
    struct metrics m;
    put("{\"step\":1}\n{\"step\":2,\"lo");
    assert_ok(metrics_open(&m, metrics_path()));
    assert_ok(metrics_clock(&m, 1, "resume", 0));
    assert_ok(metrics_clock(&m, 2, "stop", 0));
    metrics_close(&m);
    assert_text("{\"step\":1}\n{\"step\":2,\"lo\n{\"step\":1,\"event\":\"resume\",\"time\":0.000}\n"
                "{\"step\":2,\"event\":\"stop\",\"time\":0.000}\n");
}

/* The size limit of a process stands for a full disk: the first write is cut, the next one fails.
 */
static void test_full_disk(void **state)
{
    (void)state;
    struct metrics m;
    struct rlimit before, tight;
    put("");
    assert_ok(metrics_open(&m, metrics_path()));
    assert_ok(metrics_clock(&m, 1, "a", 0));
    getrlimit(RLIMIT_FSIZE, &before);
    tight = before;
    tight.rlim_cur = 43; /* 36 bytes are there */
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &tight);
    const err_t rc = metrics_clock(&m, 2, "b", 0);
    const err_t again = metrics_clock(&m, 3, "c", 0);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_err(rc, IO, "");
    assert_err(again, IO, "metrics.jsonl");
    assert_ok(metrics_clock(&m, 4, "d", 0));
    metrics_close(&m);
    assert_text("{\"step\":1,\"event\":\"a\",\"time\":0.000}\n{\"step\"\n{\"step\":4,\"event\":"
                "\"d\",\"time\":0.000}\n");
}

static void test_errors(void **state)
{
    (void)state;
    struct metrics m;
    assert_err(metrics_open(&m, testing_dir()), IO, "open");
    assert_int_equal(m.fd, -1);
    metrics_close(&m);
    put("");
    assert_ok(metrics_open(&m, metrics_path()));
    fault_arm("metrics.write", 1);
    assert_err(metrics_clock(&m, 1, "a", 0), IO, "injected fault");
    fault_arm("", 0);
    assert_ok(metrics_clock(&m, 2, "b", 0));
    metrics_close(&m);
    assert_text("{\"step\":2,\"event\":\"b\",\"time\":0.000}\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events),    cmocka_unit_test(test_lines),
        cmocka_unit_test(test_extremes),  cmocka_unit_test(test_cut_line),
        cmocka_unit_test(test_full_disk), cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
