/*
 * dedup_runs.h - pairs of 64-bit numbers in order, as many as the disk holds: what fits in memory
 * is sorted there, more is spilled as sorted runs and merged while reading.
 *
 *     struct runs *r;
 *     TRY(runs_open(&r, "out.work", RUNS_BYTES));
 *     TRY_DONE(runs_add(r, key, value)); ...
 *     TRY_DONE(runs_sort(r));
 *     while ((rc = runs_next(r, &item, &found)) == ERR_OK && found) ...
 *     runs_close(r);
 *
 * The order is by key, then by value: a function of the set alone, not of the order of adding.
 * Spill files have no name (they are unlinked as soon as they are open), so nothing is left behind.
 */
#ifndef DATA_DEDUP_RUNS_H
#define DATA_DEDUP_RUNS_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define RUNS_BYTES (64 << 20) /* of memory for items and for sorting them */

struct runs_item {
    uint64_t key, value;
};

struct runs;

/* `dir` exists; spill files go there. bytes >= 4096. ERR_NOMEM. */
MUST_USE err_t runs_open(struct runs **out, const char *dir, int64_t bytes);
/* ERR_NOMEM, ERR_IO. */
MUST_USE err_t runs_add(struct runs *r, uint64_t key, uint64_t value);
/* No more is added; reading begins at the smallest. */
MUST_USE err_t runs_sort(struct runs *r);
MUST_USE err_t runs_next(struct runs *r, struct runs_item *out, bool *found);
/* Read from the smallest again. */
MUST_USE err_t runs_rewind(struct runs *r);
int64_t runs_spilled(const struct runs *r); /* runs on disk; 0 = all in memory */
void runs_close(struct runs *r);            /* NULL allowed */

#endif
