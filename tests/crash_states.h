/*
 * crash_states.h - what a disk may hold after power was lost during a recorded save.
 *
 *     crash_open(&crash, before, trace);         // a folder as it was, durable, and crash_shim.h's
 *     for (seed = 0; seed < 5000; seed++) {
 *         done = crash_state(&crash, root, seed); // writes one such state to the folder `root`
 *         ... what the program makes of it ...
 *     }
 *     crash_close(&crash);
 *
 * The model: power is lost after some number of calls. Of these, what an fsync followed is there:
 * data and size of a file after its own, entries of a folder (creations, renames, removals) after
 * the folder's. Of the others any subset is, in any order; a write is there in whole, or up to a
 * multiple of 512 bytes, or in any of its 512-byte sectors, and the file may be longer than what of
 * it has come (zeros). A rename or exchange is there or not, as one. A file of which an entry is
 * there, but not the call that created it, is that file.
 */
#ifndef TESTS_CRASH_STATES_H
#define TESTS_CRASH_STATES_H

#include "crash_shim.h"

/* How a program that is not careful would have written: for testing the test. */
enum crash_carelessness {
    CRASH_AS_RECORDED,
    CRASH_NO_FILE_SYNC,   /* of files */
    CRASH_NO_FOLDER_SYNC, /* of folders */
};

struct crash_inode {
    bool is_folder;
    char *bytes; /* as it was before, durable */
    int64_t size, size_max;
};

/* A change to at most two entries of folders, or to a file. */
struct crash_change {
    enum shim_kind kind;
    const struct shim_call *call;
    int64_t inode;                  /* file or folder synced, written, truncated */
    int64_t folder[2], to_inode[2]; /* entries: to_inode -1 = gone */
    char name[2][64];
    int64_t entry_count;
    int64_t sync_index; /* the change after which it is durable; INT64_MAX: never */
};

struct crash_entry {
    int64_t folder, inode;
    char name[64];
};

struct crash {
    struct crash_inode *inode;
    int64_t inode_count;
    struct crash_entry *entry; /* of the state before */
    int64_t entry_count;
    struct crash_change *change;
    int64_t change_count;
};

void crash_open(struct crash *c, const char *before, const struct shim_trace *trace,
                enum crash_carelessness care);
void crash_close(struct crash *c);
/* Write one state to `root`, which must not be there. Returns how many changes were made before the
 * power was lost. */
int64_t crash_state(const struct crash *c, const char *root, uint64_t seed);
/* The first change from which on the last rename or exchange of the trace onto `path` is durable.
 */
int64_t crash_durable_from(const struct crash *c, const char *path);

#endif
