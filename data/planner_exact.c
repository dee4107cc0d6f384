#include "data/planner.h"

#include "data/prepare_batch.h"

#include <stdlib.h>
#include <string.h>

/* ---- exact duplicates ---- */

static err_t add_exact(struct planner *p, int64_t index, const struct spool_row *row, void *context)
{
    (void)context;
    return runs_add(p->exact, row->exact, (uint64_t)index);
}

/* Walk over the groups of equal streams; all of a group but the best are marked. */
err_t planner_find_exact(struct planner *p)
{
    struct runs_item item;
    struct spool_row best = { 0 }, row;
    uint64_t key = 0;
    int64_t best_index = -1;
    bool found;
    TRY(planner_each_row(p, add_exact, NULL));
    TRY(runs_sort(p->exact));
    for (;;) {
        TRY(runs_next(p->exact, &item, &found));
        if (!found) return ERR_OK;
        const int64_t index = (int64_t)item.value;
        if (best_index < 0 || item.key != key) {
            key = item.key;
            best_index = index;
            best.text_size = 0; /* not read yet: most groups have one member */
            continue;
        }
        if (best.text_size == 0) TRY(spool_rows(p->spool, &best, best_index, 1));
        TRY(spool_rows(p->spool, &row, index, 1));
        const bool better = planner_compare_rows(p, &row, &best) < 0;
        p->equals[better ? best_index : index] = 1;
        p->counts->duplicates.exact++;
        if (better) {
            best = row;
            best_index = index;
        }
    }
}

/* ---- ranks ---- */

static uint32_t big_endian_u32(const uint8_t *b)
{
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static err_t add_rank(struct planner *p, int64_t index, const struct spool_row *row, void *runs)
{
    if (p->options->duplicates != DUPLICATES_KEEP && p->equals[index]) {
        p->plan->fate[index] = FATE_EXACT;
        p->counts->source[row->source].exact++;
        return ERR_OK;
    }
    const uint32_t shorter = UINT32_MAX - (uint32_t)row->chars;
    return runs_add(runs, (uint64_t)shorter << 32 | big_endian_u32(row->hash), (uint64_t)index);
}

/* The key of the sort has half of the hash: put the last one right among those with its key. */
static err_t settle_rank(struct planner *p, int64_t first)
{
    struct spool_row row, before;
    int64_t at = p->rank_count - 1;
    TRY(spool_rows(p->spool, &row, p->by_rank[at], 1));
    for (; at > first; at--) {
        TRY(spool_rows(p->spool, &before, p->by_rank[at - 1], 1));
        if (planner_compare_rows(p, &row, &before) >= 0) break;
        const uint32_t index = p->by_rank[at];
        p->by_rank[at] = p->by_rank[at - 1];
        p->by_rank[at - 1] = index;
    }
    return ERR_OK;
}

err_t planner_make_ranks(struct planner *p)
{
    err_t rc = ERR_OK;
    struct runs *runs;
    struct runs_item item;
    bool found = true;
    uint64_t key = 0;
    int64_t first = 0;
    TRY(runs_open(&runs, p->dir, RUNS_BYTES));
    TRY_DONE(planner_each_row(p, add_rank, runs));
    TRY_DONE(runs_sort(runs));
    for (;;) {
        TRY_DONE(runs_next(runs, &item, &found));
        if (!found) break;
        if (p->rank_count == 0 || item.key != key) first = p->rank_count;
        key = item.key;
        p->by_rank[p->rank_count++] = (uint32_t)item.value;
        if (p->rank_count - 1 > first) TRY_DONE(settle_rank(p, first));
    }
    for (int64_t r = 0; r < p->rank_count; r++) {
        p->rank[p->by_rank[r]] = (uint32_t)r;
        p->parent[r] = (uint32_t)r;
    }
    p->counts->duplicates.spilled_runs += runs_spilled(runs);
done:
    runs_close(runs);
    return rc;
}

/* Where exact duplicates stay, they join the best of them. */
err_t planner_join_exact(struct planner *p)
{
    struct runs_item item;
    uint64_t key = 0, first = 0;
    bool found, any = false;
    TRY(runs_rewind(p->exact));
    for (;;) {
        TRY(runs_next(p->exact, &item, &found));
        if (!found) return ERR_OK;
        if (any && item.key == key) planner_join(p, p->rank[first], p->rank[item.value]);
        if (!any || item.key != key) first = item.value;
        key = item.key;
        any = true;
    }
}
