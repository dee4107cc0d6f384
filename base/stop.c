#include "base/stop.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

/* Room for the registers of any CPU: AVX-512 and AMX take some 11 KiB. */
#define HANDLER_STACK_BYTES 65536

static volatile sig_atomic_t caught;
static char handler_stack[HANDLER_STACK_BYTES];

static void on_signal(int signal_number)
{
    if (caught != 0) _exit(130);
    caught = signal_number;
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
    action.sa_flags = SA_ONSTACK;
    sigaltstack(&stack, NULL);
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool stop_requested(void) { return caught != 0; }
int stop_signal(void) { return caught; }
void stop_request(int signal_number) { caught = signal_number; }
void stop_reset(void) { caught = 0; }
