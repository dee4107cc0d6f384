/*
 * pack.h - samples to packs of fixed length: best-fit decreasing, deterministic. Pure code on lengths.
 */
#ifndef DATA_PACK_H
#define DATA_PACK_H

#include "base/err.h"

#include <stdint.h>

/* Packs in one flat list: pack p holds item[first[p]] .. item[first[p+1]-1]. */
struct pack_plan {
    int64_t pack_count, item_count;
    int64_t *first; /* [pack_count + 1] */
    int64_t *item;  /* [item_count] indices into `len`, ascending inside a pack */
    double fill;    /* sum of lengths / (pack_count * capacity) */
};

/*
 * Best-fit decreasing: items longest first (ties by index), each into the open pack with the least room that still takes it
 * (ties: the lowest pack). O(n log n + n * capacity/64); plans a million items in seconds.
 * ERR_ARG names the first item that is longer than capacity or < 1. Yours; pack_plan_clear it.
 */
MUST_USE err_t pack_best_fit(struct pack_plan *out, const int32_t *len, int64_t count,
                             int64_t capacity);
void pack_plan_clear(struct pack_plan *plan);

#endif
