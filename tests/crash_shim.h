/*
 * crash_shim.h - the system calls that change files, and allocations, between the program and the
 * system: recorded, or made to fail. The linker puts it there (--wrap, ckpt_tests.cmake); the
 * program knows nothing of it.
 *
 *     shim_record(root);
 *     ... the program writes below root ...
 *     shim_record(NULL);
 *     trace = shim_recorded();                 // until something else is recorded
 *
 *     shim_fail(&(struct shim_failure){ .calls = 3, .error = ENOSPC });  // the third one
 *     ... what the program does about it ...
 *     shim_fail(NULL);
 *
 * Process state of the test; one thread, but for allocations.
 */
#ifndef TESTS_CRASH_SHIM_H
#define TESTS_CRASH_SHIM_H

#include <stdbool.h>
#include <stdint.h>

#define SHIM_PATH_MAX 192

enum shim_kind {
    SHIM_CREATE, /* of a file, or emptying it */
    SHIM_WRITE,
    SHIM_TRUNCATE,
    SHIM_SYNC, /* of a file or a folder */
    SHIM_RENAME,
    SHIM_EXCHANGE,
    SHIM_REMOVE, /* of a file or an empty folder */
    SHIM_MKDIR,
};

struct shim_call {
    enum shim_kind kind;
    char path[SHIM_PATH_MAX], to[SHIM_PATH_MAX]; /* from root on; root itself is "" */
    int64_t offset, size;
    char *bytes; /* written */
};

struct shim_trace {
    struct shim_call *call;
    int64_t count;
};

void shim_record(const char *root); /* NULL: stop */
const struct shim_trace *shim_recorded(void);

struct shim_failure {
    int64_t calls; /* which changing call fails, from 1 */
    int error;     /* errno of it */
    bool onwards;  /* and all after it, too: a full disk */
    bool shorten;  /* instead: every write moves a part of its bytes, at least one */
};
void shim_fail(const struct shim_failure *failure);
/* Changing calls since shim_fail. */
int64_t shim_calls(void);

/* What statvfs says is free; -1: the truth. */
void shim_free_space(int64_t bytes);

/* The n-th allocation from now fails; 0: none. */
void shim_fail_allocation(int64_t n);
int64_t shim_allocations(void); /* since then */
int64_t shim_live(void);        /* allocated and not freed, of those of the program */

#endif
