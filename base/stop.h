/*
 * stop.h - Ctrl-C and SIGTERM as a question that long work asks between pieces.
 *
 *     stop_catch();
 *     while (...) { if (stop_requested()) RAISE(INTERRUPTED, "stopped at step %lld", step); ... }
 *
 * The first signal sets a flag; a second one ends the process at once with status 130, for people
 * who mean it.
 * The flag is process state, as signals are.
 */
#ifndef BASE_STOP_H
#define BASE_STOP_H

#include <stdbool.h>

/* Handle SIGINT and SIGTERM from now on. Called by the main thread; idempotent. */
void stop_catch(void);
bool stop_requested(void);
int stop_signal(void);       /* the signal that came, 0 if none */
void stop_request(int signal); /* as if the signal had come: for tests */
void stop_reset(void);

#endif
