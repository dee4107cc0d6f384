#include "base/stop.h"

#include "base/check.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

/* Room for the registers of any CPU: AVX-512 and AMX take some 11 KiB. */
#define HANDLER_STACK_BYTES 65536
#define POLL_MS             200

static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGALRM };

static volatile sig_atomic_t caught, save_wanted;
static char handler_stack[HANDLER_STACK_BYTES];

static void on_signal(int signal_number)
{
    if (signal_number == SIGUSR1) {
        save_wanted = 1;
        return;
    }
    if (signal_number == SIGUSR2 || signal_number == SIGALRM)
        caught = SIGUSR2; /* also where SIGTERM was sent later and delivered first */
    else if (caught == 0)
        caught = signal_number;
    else if (caught != SIGUSR2)
        _exit(STOP_STATUS_ASKED);
}

static bool is_ignored(int signal_number)
{
    struct sigaction action;
    return sigaction(signal_number, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

static void set_blocked(int how)
{
    sigset_t set;
    sigemptyset(&set);
    for (int64_t i = 0; i < COUNT_OF(signals); i++) sigaddset(&set, signals[i]);
    sigprocmask(how, &set, NULL);
}

/*
 * The handler has a stack of its own. oneDNN's AVX-512 products (2.6.3) keep values below the stack
 * pointer, farther down than the 128 bytes that signals spare; a handler on the thread's own stack
 * overwrites them, and the product then writes wherever they point. A signal to the process goes to
 * its main thread, which is who calls this.
 */
void stop_catch(void)
{
    const stack_t stack = { .ss_sp = handler_stack, .ss_size = sizeof handler_stack };
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_ONSTACK | SA_RESTART;
    sigaltstack(&stack, NULL);
    sigemptyset(&action.sa_mask);
    for (int64_t i = 0; i < COUNT_OF(signals); i++)
        if (signals[i] != SIGHUP || !is_ignored(SIGHUP)) sigaction(signals[i], &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    set_blocked(SIG_UNBLOCK);
}

void stop_hold(void) { set_blocked(SIG_BLOCK); }

/* poll(2) is never restarted. Its timeout is for the signal that comes just before it. */
bool stop_wait_readable(int fd)
{
    struct pollfd wanted = { .fd = fd, .events = POLLIN };
    while (!stop_requested()) {
        const int count = poll(&wanted, 1, POLL_MS);
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

bool stop_requested(void) { return caught != 0; }
int stop_signal(void) { return caught; }
int stop_status(void) { return caught == SIGUSR2 ? STOP_STATUS_AGAIN : STOP_STATUS_ASKED; }

/* A signal between the two lines is lost in the one that is being answered. */
bool stop_take_save(void)
{
    const bool wanted = save_wanted != 0;
    save_wanted = 0;
    return wanted;
}

void stop_reset(void)
{
    caught = 0;
    save_wanted = 0;
}
