#include "base/stop.h"

#include "base/check.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define LOOK_MS 100

static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGALRM };

static _Atomic int caught, save_wanted;
static pid_t catcher; /* the process that has the thread: a forked child has none */

static void note(int signal_number)
{
    if (stop_is_ignored(signal_number)) return;
    if (signal_number == SIGUSR1)
        atomic_store(&save_wanted, 1);
    else if (signal_number == SIGUSR2 || signal_number == SIGALRM)
        atomic_store(&caught, SIGUSR2); /* also where SIGTERM was sent later and taken first */
    else if (atomic_load(&caught) == 0)
        atomic_store(&caught, signal_number);
    else if (atomic_load(&caught) != SIGUSR2)
        _exit(STOP_STATUS_ASKED);
}

static sigset_t all_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    for (int64_t i = 0; i < COUNT_OF(signals); i++) sigaddset(&set, signals[i]);
    return set;
}

static void *take_signals(void *arg)
{
    const sigset_t set = all_signals();
    int signal_number;
    (void)arg;
    for (;;)
        if (sigwait(&set, &signal_number) == 0) note(signal_number);
    return NULL;
}

bool stop_is_ignored(int signal_number)
{
    struct sigaction action;
    if (signal_number != SIGINT && signal_number != SIGHUP && signal_number != SIGTSTP)
        return false;
    return sigaction(signal_number, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

/* Not SIGSTOP: SIGTSTP stops nobody whose shell has gone. */
void stop_suspend(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTSTP);
    raise(SIGTSTP);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

void stop_hold(void)
{
    const sigset_t set = all_signals();
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/*
 * No handler, but a thread that waits for signals which all others block: oneDNN's AVX-512 products
 * (2.6.3) keep values below the stack pointer, farther down than the 128 bytes that a signal
 * spares. A handler on the stack of a thread that multiplies overwrites them, and the product then
 * writes wherever they point. A second signal goes to any thread that does not block it, so a stack
 * for handlers of the main thread is not enough.
 */
err_t stop_catch(void)
{
    pthread_t thread;
    sigset_t before;
    if (catcher == getpid()) return ERR_OK;
    signal(SIGPIPE, SIG_IGN);
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    stop_hold(); /* here, and in every thread that is started from here on */
    const int code = pthread_create(&thread, NULL, take_signals, NULL);
    if (code != 0) {
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        RAISE(NOMEM, "signals: no thread: %s", strerror(code));
    }
    pthread_detach(thread);
    catcher = getpid();
    return ERR_OK;
}

bool stop_wait_readable(int fd)
{
    struct pollfd wanted = { .fd = fd, .events = POLLIN };
    while (!stop_requested()) {
        const int count = poll(&wanted, 1, LOOK_MS);
        if (count > 0 || (count < 0 && errno != EINTR)) return true;
    }
    return false;
}

/* alarm(2) counts in unsigned int; a century will do. */
void stop_after(int64_t seconds)
{
    const int64_t most = INT64_C(3155760000);
    alarm((unsigned)(seconds < most ? seconds : most));
}

bool stop_requested(void) { return stop_signal() != 0; }
int stop_signal(void) { return atomic_load(&caught); }
int stop_status(void) { return stop_signal() == SIGUSR2 ? STOP_STATUS_AGAIN : STOP_STATUS_ASKED; }
bool stop_take_save(void) { return atomic_exchange(&save_wanted, 0) != 0; }

void stop_reset(void)
{
    atomic_store(&caught, 0);
    atomic_store(&save_wanted, 0);
}
