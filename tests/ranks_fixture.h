/*
 * ranks_fixture.h - a test body on several ranks, each a process of its own with a communicator.
 *
 *     static void body(struct comm *comm, void *arg) { ... assert_ok(comm_barrier(comm)); ... }
 *
 *     ranks_run("shm", 3, body, NULL);       // fails the test when a rank fails or does not end
 *
 * Ranks are forked: start no threads (OpenMP's included) in the test before. What a rank writes to
 * memory stays its own, except in memory of ranks_shared().
 */
#ifndef TESTS_RANKS_FIXTURE_H
#define TESTS_RANKS_FIXTURE_H

#include "testing.h"

#include "train/comm.h"

typedef void ranks_body(struct comm *comm, void *arg);

/* Each rank opens the device "cpu" with one thread and the communicator `kind`. */
void ranks_run(const char *kind, int64_t size, ranks_body *body, void *arg);

/* The same without a communicator: the body opens what it needs. Returns how each rank ended, as
 * the shell counts: 0, its status, or 128 + the signal. */
typedef void ranks_raw_body(int64_t rank, int64_t size, void *arg);
void ranks_fork(int status[], int64_t size, ranks_raw_body *body, void *arg);

/* Zeroed memory that ranks share with the test; lives as long as the process. */
void *ranks_shared(int64_t bytes);

#define RANKS_LIMIT_S 60 /* nothing here takes longer */

#endif
