/*
 * pack.h - samples to packs of fixed length: best-fit decreasing, deterministic. Pure code on
 * lengths; a plan depends on the lengths and the capacity alone.
 *
 *     struct pack_plan plan = { 0 };
 *     TRY(pack_best_fit(&plan, len, count, 2048));
 *     for (int64_t k = plan.first[p]; k < plan.first[p + 1]; k++) use(plan.item[k]);
 *     pack_plan_clear(&plan);
 */
#ifndef DATA_PACK_H
#define DATA_PACK_H

#include "base/err.h"

#include <stdint.h>

#define PACK_CAPACITY_MAX (1 << 24) /* rows */
#define PACK_ITEMS_MAX    (1 << 30)

/* Packs in one flat list: pack p holds item[first[p]] .. item[first[p+1]-1]. */
struct pack_plan {
    int64_t pack_count, item_count;
    int64_t *first; /* [pack_count + 1] */
    int64_t *item;  /* [item_count] indices into `len`, ascending inside a pack */
    double fill;    /* sum of lengths / (pack_count * capacity); 0 without packs */
};

/*
 * Best-fit decreasing: items longest first (ties by index), each into the open pack with the least
 * room that still takes it (ties: the lowest pack). O(n log n + n * capacity/64); a million items
 * take about a second. ERR_ARG names the first item that is longer than capacity or < 1, and is
 * also given for a capacity or a count beyond the limits above; ERR_NOMEM. `out` is untouched by
 * failures. Yours; pack_plan_clear it.
 */
MUST_USE err_t pack_best_fit(struct pack_plan *out, const int32_t *len, int64_t count,
                             int64_t capacity);
void pack_plan_clear(struct pack_plan *plan);

#endif
