/* cmd_tokenize as a process: its options, its standard streams, and a reader that goes away. */
#include "testing.h"

#include "base/file.h"
#include "data/commands.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The command in a child with these standard streams; its error code, or -1 for a signal. */
static int run(int in, int out, const char *const *words)
{
    fflush(NULL);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        char *argv[8] = { (char *)(uintptr_t) "tokenize" };
        int argc = 1;
        for (; *words != NULL; words++) argv[argc++] = (char *)(uintptr_t)*words;
        struct cfg *cfg = NULL;
        if (dup2(in, 0) != 0 || dup2(out, 1) != 1 || cfg_create(&cfg, NULL, 0) != ERR_OK) _exit(99);
        const err_t rc = cmd_tokenize(cfg, argc, argv);
        cfg_close(cfg);
        _exit((int)rc);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
#define RUN(in, out, ...) run(in, out, (const char *const[]){ __VA_ARGS__, NULL })

static int open_input(const char *text)
{
    char path[FILE_PATH_MAX];
    assert_ok(path_join(path, testing_dir(), "input"));
    assert_ok(file_replace(path, text, (int64_t)strlen(text)));
    const int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    return fd;
}

static void test_answers(void **state)
{
    (void)state;
    char path[FILE_PATH_MAX];
    struct buf text = { 0 };
    assert_ok(path_join(path, testing_dir(), "output"));
    const int in = open_input("\"我\"\n"), out = open(path, O_RDWR | O_CREAT, 0600);
    assert_int_equal(RUN(in, out, "--model", "data/sample/model", "--pieces"), ERR_OK);
    assert_ok(file_read_all(&text, path, 1000));
    assert_string_equal(text.data, "{\"ids\":[5,10],\"pieces\":[\"▁\",\"我\"]}\n");
    buf_clear(&text);
    close(in);
    close(out);
}

static void test_wrong_usage(void **state)
{
    (void)state;
    const int in = open_input("\"我\"\n"), out = open("/dev/null", O_WRONLY);
    assert_int_equal(RUN(in, out, "--pieces"), ERR_USAGE);
    assert_int_equal(RUN(in, out, "--model=data/sample/model", "--decode", "--special"), ERR_USAGE);
    assert_int_equal(RUN(in, out, "--model=data/sample/model", "--bogus"), ERR_USAGE);
    assert_int_equal(RUN(in, out, "--model=nowhere"), ERR_NOTFOUND);
    assert_int_equal(RUN(in, out, "--help"), ERR_OK);
    close(in);
    close(out);
}

static void test_reader_gone(void **state)
{
    (void)state;
    int ends[2];
    const int in = open_input("\"我\"\n\"我\"\n");
    assert_int_equal(pipe(ends), 0);
    close(ends[0]);
    assert_int_equal(RUN(in, ends[1], "--model=data/sample/model"), ERR_IO);
    close(ends[1]);
    close(in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_wrong_usage),
        cmocka_unit_test(test_reader_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
