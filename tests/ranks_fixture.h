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

#include <sys/types.h>

typedef void ranks_body(struct comm *comm, void *arg);

/* Each rank opens the device "cpu" with one thread and the communicator `kind`. */
void ranks_run(const char *kind, int64_t size, ranks_body *body, void *arg);

/* The same without a communicator: the body opens what it needs. Returns how each rank ended, as
 * the shell counts: 0, its status, or 128 + the signal. A stopped rank is killed when all others
 * have ended. */
typedef void ranks_raw_body(int64_t rank, int64_t size, void *arg);
void ranks_fork(int status[], int64_t size, ranks_raw_body *body, void *arg);
/* Between forking and waiting, the test's own part: `during` gets the ranks' pids. */
typedef void ranks_during(const pid_t pids[], int64_t size, void *arg);
void ranks_fork_during(int status[], int64_t size, ranks_raw_body *body, void *arg,
                       ranks_during *during);

/* The body once for each number below `count`, as its rank, at most `at_once` at a time; the test
 * fails when one does not end with 0. For what mostly waits. */
void ranks_pool(int64_t count, int64_t at_once, ranks_raw_body *body, void *arg);

/* Zeroed memory that ranks share with the test; lives as long as the process. */
void *ranks_shared(int64_t bytes);

#define RANKS_LIMIT_S 60 /* nothing here takes longer */
#define RANKS_ENDED_S 10 /* after one has ended or stopped, the others; then killed: 137 */

#endif
