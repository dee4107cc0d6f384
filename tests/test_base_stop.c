/* stop.h: a signal is remembered, and keeps off the threads that work. */
#include "testing.h"

#include "base/stop.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_signal(void **state)
{
    (void)state;
    static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
    assert_ok(stop_catch());
    assert_ok(stop_catch());
    for (int i = 0; i < 3; i++) {
        assert_false(stop_requested());
        assert_int_equal(stop_signal(), 0);
        testing_signal(signals[i]);
        assert_true(stop_requested());
        assert_int_equal(stop_signal(), signals[i]);
        stop_reset();
    }
}

/* A save is asked for once a signal; the status of a batch job that is to go on is its own. */
static void test_save_and_again(void **state)
{
    (void)state;
    assert_ok(stop_catch());
    assert_false(stop_take_save());
    testing_signal(SIGUSR1);
    assert_false(stop_requested());
    assert_true(stop_take_save());
    assert_false(stop_take_save());
    static const int orders[][3] = { { SIGUSR2, SIGUSR2, SIGTERM }, { SIGTERM, SIGUSR2, SIGTERM } };
    for (int i = 0; i < 2; i++) {
        assert_int_equal(stop_status(), STOP_STATUS_ASKED);
        for (int k = 0; k < 3; k++) testing_signal(orders[i][k]);
        assert_int_equal(stop_signal(), SIGUSR2);
        assert_int_equal(stop_status(), STOP_STATUS_AGAIN);
        stop_reset();
    }
    testing_signal(SIGALRM); /* stop_after */
    assert_int_equal(stop_signal(), SIGUSR2);
    stop_reset();
}

/* In a process of its own, which has no thread for signals yet; returns its status. */
static int in_child(void (*body)(void))
{
    int how;
    fflush(NULL);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        stop_reset();
        body();
        _exit(stop_signal());
    }
    assert_int_equal(waitpid(pid, &how, 0), pid);
    return WIFEXITED(how) ? WEXITSTATUS(how) : -1;
}

static void hold_and_catch(void)
{
    stop_hold();
    kill(getpid(), SIGTERM);
    if (stop_requested() || stop_catch() != ERR_OK) _exit(0);
    for (int i = 0; i < 1000 && !stop_requested(); i++) usleep(10000);
}

/* What comes before anyone takes signals is not lost, and ends nobody. */
static void test_hold(void **state)
{
    (void)state;
    assert_int_equal(in_child(hold_and_catch), SIGTERM);
}

static void catch_what_is_not_ignored(void)
{
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    if (!stop_is_ignored(SIGHUP) || !stop_is_ignored(SIGINT)) _exit(1);
    if (stop_catch() != ERR_OK) _exit(1);
    kill(getpid(), SIGHUP);
    kill(getpid(), SIGINT);
    kill(getpid(), SIGINT);
    kill(getpid(), SIGPIPE);
    usleep(100000);
    if (stop_requested()) _exit(1);
    kill(getpid(), SIGUSR2);
    for (int i = 0; i < 1000 && !stop_requested(); i++) usleep(10000);
}

/* The word of nohup, and of a shell's &, stands; a log that nobody reads any more ends nothing. */
static void test_ignored(void **state)
{
    (void)state;
    assert_int_equal(in_child(catch_what_is_not_ignored), SIGUSR2);
}

static void stop_twice(void)
{
    signal(SIGINT, SIG_DFL);
    if (stop_catch() != ERR_OK) _exit(1);
    kill(getpid(), SIGINT);
    for (int i = 0; i < 1000 && !stop_requested(); i++) usleep(10000);
    kill(getpid(), SIGINT);
    sleep(10); /* work that asks no more */
    _exit(1);
}

static void test_second(void **state)
{
    (void)state;
    assert_int_equal(in_child(stop_twice), STOP_STATUS_ASKED);
}

/* Who waits for a person's line learns of the signal. */
static void test_wait_readable(void **state)
{
    (void)state;
    int fds[2];
    assert_ok(stop_catch());
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

/* Every thread but one blocks the signals: none is ever interrupted. */
static void *look_at_mask(void *arg)
{
    pthread_sigmask(SIG_SETMASK, NULL, arg);
    return NULL;
}

static void test_threads_are_left_alone(void **state)
{
    (void)state;
    static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGALRM };
    pthread_t thread;
    sigset_t here, there;
    assert_ok(stop_catch());
    look_at_mask(&here);
    assert_int_equal(pthread_create(&thread, NULL, look_at_mask, &there), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    for (int i = 0; i < 6; i++)
        assert_true(sigismember(&here, signals[i]) && sigismember(&there, signals[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signal),
        cmocka_unit_test(test_save_and_again),
        cmocka_unit_test(test_hold),
        cmocka_unit_test(test_ignored),
        cmocka_unit_test(test_wait_readable),
        cmocka_unit_test(test_second),
        cmocka_unit_test(test_threads_are_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
