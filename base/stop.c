#include "base/stop.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t caught;

static void on_signal(int signal_number)
{
    if (caught != 0) _exit(130);
    caught = signal_number;
}

void stop_catch(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool stop_requested(void) { return caught != 0; }
int stop_signal(void) { return caught; }
void stop_request(int signal_number) { caught = signal_number; }
void stop_reset(void) { caught = 0; }
