/* fault.h: which point fails, and how a plan is read from the environment. */
#include "testing.h"

#include "base/fault.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_counting(void **state)
{
    (void)state;
    assert_ok(fault_point("a.x"));
    fault_arm("a.", 2);
    assert_ok(fault_point("a.x"));
    assert_ok(fault_point("b.x"));
    assert_err(fault_point("a.y"), IO, "injected fault at a.y");
    assert_ok(fault_point("a.y")); /* once only */
    assert_int_equal(fault_hits(), 3);
    fault_arm("", 1);
    assert_err(fault_point("anything"), IO, "injected");
    fault_arm("", 0);
    assert_ok(fault_point("anything"));
    assert_int_equal(fault_hits(), 0);
}

static int end_of(const char *spec)
{
    int how;
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (fault_init(spec) != ERR_OK) _exit(2);
        fault_moment("save");
        const err_t rc = fault_point("file.write");
        fault_moment("save");
        _exit(rc != ERR_OK ? 1 : 0);
    }
    assert_int_equal(waitpid(pid, &how, WUNTRACED), pid);
    if (!WIFSTOPPED(how)) return WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    return 128 + WSTOPSIG(how);
}

static void test_signals(void **state)
{
    (void)state;
    assert_int_equal(end_of("file.write:1:kill"), 128 + SIGKILL);
    assert_int_equal(end_of("file.write:1:stop"), 128 + SIGSTOP);
    assert_int_equal(end_of("save:2:kill"), 128 + SIGKILL);
    assert_int_equal(end_of("save:3:kill"), 0);
    assert_int_equal(end_of("save:1"), 0); /* a moment does not fail */
    assert_int_equal(end_of("file.write:1"), 1);
}

static void test_environment(void **state)
{
    (void)state;
    assert_ok(fault_init(NULL));
    assert_ok(fault_init("ckpt.write:2"));
    assert_ok(fault_point("ckpt.write"));
    assert_err(fault_point("ckpt.write"), IO, "injected");
    static const char *const wrong[] = { "", "ckpt", "ckpt:", "ckpt:0", "ckpt:-1", "ckpt:1x",
                                         "ckpt: 1", "ckpt:99999999999", "ckpt:1:", "ckpt:1:halt" };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_err(fault_init(wrong[i]), USAGE, "expected site:n");
    char spec[FAULT_SITE_MAX + 3]; /* a site of the most letters there may be, and one more */
    memset(spec, 'a', sizeof spec);
    memcpy(spec + FAULT_SITE_MAX - 1, ":1", 3);
    assert_ok(fault_init(spec));
    memcpy(spec + FAULT_SITE_MAX - 1, "a:1", 4);
    assert_err(fault_init(spec), USAGE, "expected site:n");
    fault_arm("", 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counting),
        cmocka_unit_test(test_signals),
        cmocka_unit_test(test_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
