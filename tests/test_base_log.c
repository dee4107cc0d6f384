/* log.h: which lines appear, and what is in them. */
#include "testing.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/log.h"

#include <fcntl.h>
#include <pthread.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int stderr_before;

/* From here until captured() stderr goes to a file. */
static void capture(void)
{
    char path[FILE_PATH_MAX];
    assert_ok(path_join(path, testing_dir(), "stderr"));
    const int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    stderr_before = dup(2);
    assert_true(fd >= 0 && stderr_before >= 0 && dup2(fd, 2) == 2);
    close(fd);
}

static void captured(struct buf *out)
{
    char path[FILE_PATH_MAX];
    fflush(stderr);
    assert_int_equal(dup2(stderr_before, 2), 2);
    close(stderr_before);
    assert_ok(path_join(path, testing_dir(), "stderr"));
    buf_reset(out);
    assert_ok(file_read_all(out, path, 1 << 24));
}

static void assert_matches(const char *text, const char *pattern)
{
    regex_t regex;
    assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    if (regexec(&regex, text, 0, NULL, 0) != 0) fail_msg("\"%s\" does not match %s", text, pattern);
    regfree(&regex);
}

static void test_line(void **state)
{
    (void)state;
    struct buf b = { 0 };
    capture();
    LOG_I("ckpt", "saved step=%d", 1200);
    captured(&b);
    assert_matches(b.data, "^[0-9]{2}:[0-9]{2}:[0-9]{2} info  ckpt   saved step=1200\n$");

    capture();
    LOG_W("data", "line one\nline two\033[2J");
    captured(&b);
    assert_matches(b.data, "^[^\n]* warn  data   line one line two \\[2J\n$");

    char text[2 * LOG_LINE_MAX];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    capture();
    LOG_E("data", "%s", text);
    captured(&b);
    assert_int_equal(b.size, LOG_LINE_MAX);
    buf_clear(&b);
}

static void test_levels(void **state)
{
    (void)state;
    assert_ok(log_init("warn,ckpt:debug,data:off"));
    assert_true(log_enabled(LOG_WARN, "train"));
    assert_false(log_enabled(LOG_INFO, "train"));
    assert_true(log_enabled(LOG_DEBUG, "ckpt"));
    assert_false(log_enabled(LOG_ERROR, "data"));
    struct buf b = { 0 };
    capture();
    LOG_I("train", "hidden");
    LOG_E("data", "hidden");
    LOG_D("ckpt", "shown");
    captured(&b);
    assert_matches(b.data, "^[^\n]*shown\n$");
    buf_clear(&b);

    assert_err(log_init("loud"), USAGE, "\"loud\" has no level");
    assert_err(log_init("info,ckpt:"), USAGE, "\"ckpt:\" has no level");
    assert_err(log_init(""), USAGE, "has no level");
    assert_err(log_init("info,"), USAGE, "has no level");
    assert_err(log_init(":info"), USAGE, "1 to 15 letters");
    assert_err(log_init("a-very-long-name-:info"), USAGE, "1 to 15 letters");
    assert_true(log_enabled(LOG_DEBUG, "ckpt")); /* a wrong spec changes nothing */
    assert_ok(log_init(NULL));
    assert_false(log_enabled(LOG_DEBUG, "ckpt"));
}

/* A status line is cleared before a log line and drawn again after it. */
static void test_status(void **state)
{
    (void)state;
    struct buf b = { 0 };
    capture();
    log_status("working");
    LOG_I("a", "event");
    log_status(NULL);
    log_status(NULL);
    LOG_I("a", "after");
    captured(&b);
    assert_matches(b.data, "^\r\033\\[Kworking\r\033\\[K[^\r\n]*event\nworking\r\033\\[K"
                           "[^\r\n]*after\n$");
    buf_clear(&b);
}

static void *write_lines(void *letter)
{
    char text[201];
    memset(text, *(const char *)letter, 200);
    text[200] = '\0';
    for (int i = 0; i < 200; i++) LOG_I("thread", "%s", text);
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    struct buf b = { 0 };
    pthread_t threads[4];
    capture();
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_lines, (void *)&"abcd"[i]), 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    captured(&b);
    int lines = 0;
    for (char *line = strtok(b.data, "\n"); line != NULL; line = strtok(NULL, "\n"), lines++) {
        assert_int_equal(strlen(line), 222);
        const char first[] = { line[22], '\0' };
        assert_int_equal(strspn(line + 22, first), 200);
    }
    assert_int_equal(lines, 800);
    buf_clear(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_line),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_status),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
