/* stop.h: a signal is remembered, and its handler keeps off the stack of the work it interrupts. */
#include "testing.h"

#include "base/stop.h"

#include <signal.h>
#include <unistd.h>

static void test_signal(void **state)
{
    (void)state;
    static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
    stop_catch();
    stop_catch();
    for (int i = 0; i < 3; i++) {
        assert_false(stop_requested());
        assert_int_equal(stop_signal(), 0);
        raise(signals[i]);
        assert_true(stop_requested());
        assert_int_equal(stop_signal(), signals[i]);
        stop_reset();
    }
}

/* A save is asked for once a signal; the status of a batch job that is to go on is its own. */
static void test_save_and_again(void **state)
{
    (void)state;
    stop_catch();
    assert_false(stop_take_save());
    raise(SIGUSR1);
    assert_false(stop_requested());
    assert_true(stop_take_save());
    assert_false(stop_take_save());
    static const int orders[][3] = { { SIGUSR2, SIGUSR2, SIGTERM }, { SIGTERM, SIGUSR2, SIGTERM } };
    for (int i = 0; i < 2; i++) {
        assert_int_equal(stop_status(), STOP_STATUS_ASKED);
        for (int k = 0; k < 3; k++) raise(orders[i][k]);
        assert_int_equal(stop_signal(), SIGUSR2);
        assert_int_equal(stop_status(), STOP_STATUS_AGAIN);
        stop_reset();
    }
    raise(SIGALRM); /* stop_after */
    assert_int_equal(stop_signal(), SIGUSR2);
    stop_reset();
}

/* What comes too early for a handler is not lost, and ends nobody. */
static void test_hold(void **state)
{
    (void)state;
    stop_hold();
    raise(SIGTERM);
    assert_false(stop_requested());
    stop_catch();
    assert_true(stop_requested());
    assert_int_equal(stop_signal(), SIGTERM);
    stop_reset();
}

/* nohup's word stands; a log that nobody reads any more ends nothing. */
static void test_ignored(void **state)
{
    (void)state;
    signal(SIGHUP, SIG_IGN);
    stop_catch();
    raise(SIGHUP);
    raise(SIGPIPE);
    assert_false(stop_requested());
    signal(SIGHUP, SIG_DFL);
    stop_catch();
}

/* Who waits for a person's line learns of the signal. */
static void test_wait_readable(void **state)
{
    (void)state;
    int fds[2];
    stop_catch();
    assert_int_equal(pipe(fds), 0);
    alarm(1);
    assert_false(stop_wait_readable(fds[0]));
    assert_int_equal(stop_signal(), SIGUSR2);
    assert_false(stop_wait_readable(fds[0])); /* it came before */
    stop_reset();
    assert_int_equal(write(fds[1], "x", 1), 1);
    assert_true(stop_wait_readable(fds[0]));
    close(fds[1]);
    char byte;
    assert_int_equal(read(fds[0], &byte, 1), 1);
    assert_true(stop_wait_readable(fds[0])); /* the end */
    close(fds[0]);
    assert_true(stop_wait_readable(fds[0])); /* read(2) will say what is wrong */
}

static void test_own_stack(void **state)
{
    (void)state;
    stack_t stack;
    struct sigaction action;
    stop_catch();
    assert_int_equal(sigaltstack(NULL, &stack), 0);
    assert_int_equal(stack.ss_flags, 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(sigaction(i == 0 ? SIGINT : SIGTERM, NULL, &action), 0);
        assert_true((action.sa_flags & SA_ONSTACK) != 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signal),
        cmocka_unit_test(test_save_and_again),
        cmocka_unit_test(test_hold),
        cmocka_unit_test(test_ignored),
        cmocka_unit_test(test_wait_readable),
        cmocka_unit_test(test_own_stack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
