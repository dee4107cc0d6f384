/* progress.h: what is shown, on a terminal and elsewhere. */
#include "testing.h"

#include "base/log.h"
#include "base/progress.h"

#include <fcntl.h>
#include <math.h>
#include <pty.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void assert_time(double seconds, const char *expected)
{
    char text[24];
    time_format(text, seconds);
    assert_string_equal(text, expected);
}

static void test_time(void **state)
{
    (void)state;
    assert_time(0, "0s");
    assert_time(46.6, "47s");
    assert_time(59.6, "1:00");
    assert_time(785, "13:05");
    assert_time(3599.6, "1:00:00");
    assert_time(2 * 3600 + 13 * 60 + 5, "2:13:05");
    assert_time(3 * 86400 + 2 * 3600 + 11 * 60 + 9, "3d 02:11:09");
    assert_time(-1, "?");
    assert_time(NAN, "?");
    assert_time(INFINITY, "?");
    assert_time(1e300, "?");
    assert_true(time_now_s() <= time_now_s());
}

static void assert_line(int64_t done, int64_t total, double elapsed, const char *expected)
{
    char line[PROGRESS_LINE_MAX];
    const struct progress p = { .what = "w", .unit = "lines", .done = done, .total = total };
    progress_format(line, &p, elapsed);
    assert_string_equal(line, expected);
}

static void test_format(void **state)
{
    (void)state;
    assert_line(450, 1000, 10, " 45% 450/1000 lines 45/s eta 12s");
    assert_line(999, 1000, 10, " 99% 999/1000 lines 100/s eta 0s");
    assert_line(1000, 1000, 10, "100% 1000/1000 lines 100/s eta 0s");
    assert_line(0, 1000, 10, "  0% 0/1000 lines 0.00/s eta ?");
    assert_line(0, 1000, 0, "  0% 0/1000 lines 0.00/s eta ?");
    assert_line(1, 10000, 10, "  0% 1/10000 lines 0.10/s eta 1d 03:46:30");
    assert_line(12345, 0, 10, "12345 lines 1.2k/s 10s");
    assert_line(12345678, 0, 1, "12345678 lines 12M/s 1s");
    assert_line(1100, 1000, 11, "110% 1100/1000 lines 100/s eta 0s");
}

/* What an earlier start did counts towards the percentage and not towards the rate. */
static void test_resume(void **state)
{
    (void)state;
    char line[PROGRESS_LINE_MAX];
    struct progress p = { .what = "w", .unit = "steps", .total = 1000 };
    progress_resume(&p, 600);
    progress_format(line, &p, 10);
    assert_string_equal(line, " 60% 600/1000 steps 0.00/s eta ?");
    p.done = 700;
    progress_format(line, &p, 10);
    assert_string_equal(line, " 70% 700/1000 steps 10/s eta 30s");
}

/* Everything that one run of progress writes to a terminal of 40 columns, or to a pipe. */
static void record(char *out, size_t size, bool on_terminal, const char *term)
{
    const struct winsize window = { .ws_row = 24, .ws_col = 40 };
    int ends[2];
    const int made = on_terminal ? openpty(&ends[0], &ends[1], NULL, NULL, &window) : pipe(ends);
    assert_int_equal(made, 0);
    const int before = dup(2);
    dup2(ends[1], 2);
    setenv("TERM", term, 1);
    struct progress p;
    progress_begin(&p, "prepare", "dialogues", 200);
    progress_update(&p, 1, "kept=%d, and more than fits into the width", 1);
    progress_update(&p, 2, NULL); /* too soon to be drawn */
    LOG_I("other", "event");
    progress_end(&p);
    dup2(before, 2);
    close(before);
    close(ends[1]);
    ssize_t n;
    size_t done = 0; /* up to the end, which a terminal reports as an error */
    while ((n = read(ends[0], out + done, size - 1 - done)) > 0) done += (size_t)n;
    out[done] = '\0';
    close(ends[0]);
}

/* Some containers have no pseudo-terminals. */
static bool has_terminals(void)
{
    int ends[2];
    if (openpty(&ends[0], &ends[1], NULL, NULL, NULL) != 0) return false;
    close(ends[0]);
    close(ends[1]);
    return true;
}

static void test_terminal(void **state)
{
    (void)state;
    if (!has_terminals()) {
        print_message("no pseudo-terminal can be opened here\n");
        skip();
    }
    char text[4096];
    record(text, sizeof text, true, "xterm");
    const char *line = strstr(text, "\r\033[Kprepare   0% 1/200 dialogues ");
    assert_ptr_equal(line, text);
    const size_t shown = strcspn(text + 4, "\r");
    assert_int_equal(shown, 39); /* cut one short of the width, so that it does not wrap */
    assert_non_null(strstr(text, "event\r\nprepare   0%")); /* drawn again below the log line */
    assert_non_null(strstr(text, "info  prepare 2 dialogues in 0s"));
    assert_null(strstr(text, "2/200"));

    record(text, sizeof text, true, "dumb");
    assert_null(strstr(text, "\033"));
    record(text, sizeof text, false, "xterm");
    assert_null(strstr(text, "\033"));
    assert_null(strstr(text, "/200"));
    assert_non_null(strstr(text, "info  prepare 2 dialogues in 0s"));

    assert_ok(log_init("warn"));
    record(text, sizeof text, false, "xterm");
    assert_string_equal(text, "");
    assert_ok(log_init(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_time),
        cmocka_unit_test(test_format),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
