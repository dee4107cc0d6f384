#include "data/planner.h"

#include "base/num.h"
#include "data/prepare_batch.h"
#include "data/split.h"

#include <stdlib.h>
#include <string.h>

/* ---- splits ---- */

static err_t count_member(struct planner *p, int64_t index, const struct spool_row *row,
                          void *context)
{
    (void)row;
    (void)context;
    if (p->plan->fate[index] < SPLIT_COUNT) p->size[planner_find_root(p, p->rank[index])]++;
    return ERR_OK;
}

static err_t add_cluster(struct planner *p, int64_t index, const struct spool_row *row, void *runs)
{
    if (p->plan->fate[index] >= SPLIT_COUNT || p->parent[p->rank[index]] != p->rank[index])
        return ERR_OK;
    /* By the opening, so that a dialogue's split does not depend on which others begin alike. */
    const bool by_opening = p->options->openings == OPENINGS_TOGETHER && row->opening != 0;
    const uint8_t *key = by_opening ? (const uint8_t *)&row->opening : row->hash;
    const uint64_t place = split_place(p->options->split_seed, key);
    p->split[p->rank[index]] = (uint8_t)split_by_place(place, p->options->validation_permyriad,
                                                       p->options->test_permyriad);
    /* Half of the stratum's number names it well enough: two that share it share their quota. */
    return runs_add(runs, row->stratum >> 32 << 32 | split_order(place), p->rank[index]);
}

/* Dialogues of each stratum, in order; *strata is yours, also after a failure. */
static err_t count_strata(struct planner *p, struct runs *runs, int64_t **strata)
{
    int64_t count = 0, capacity = 0;
    struct runs_item item;
    uint64_t key = 0;
    bool found;
    for (;;) {
        TRY(runs_next(runs, &item, &found));
        if (!found) return runs_rewind(runs);
        if (count == 0 || item.key >> 32 != key >> 32) {
            ARRAY_GROW(*strata, capacity, count + 1);
            (*strata)[count++] = 0;
        }
        key = item.key;
        (*strata)[count - 1] += p->size[item.value];
    }
}

static err_t split_strata(struct planner *p, struct runs *runs)
{
    err_t rc = ERR_OK;
    struct split_quota quota = { 0 };
    struct runs_item item;
    int64_t *strata = NULL, stratum = 0;
    uint64_t key = 0;
    bool found = true;
    TRY_DONE(count_strata(p, runs, &strata));
    for (;;) {
        TRY_DONE(runs_next(runs, &item, &found));
        if (!found) break;
        if (stratum == 0 || item.key >> 32 != key >> 32)
            split_quota_stratum(&quota, strata[stratum++], p->options->validation_permyriad,
                                p->options->test_permyriad);
        key = item.key;
        p->split[item.value] = (uint8_t)split_quota_take(&quota, p->size[item.value]);
    }
done:
    free(strata);
    return rc;
}

err_t planner_make_splits(struct planner *p)
{
    err_t rc = ERR_OK;
    struct runs *runs;
    TRY(runs_open(&runs, p->dir, RUNS_BYTES));
    TRY_DONE(planner_each_row(p, count_member, NULL));
    TRY_DONE(planner_each_row(p, add_cluster, runs));
    TRY_DONE(runs_sort(runs));
    if (p->options->split_rule == SPLIT_STRATIFIED) TRY_DONE(split_strata(p, runs));
    for (int64_t r = 0; r < p->rank_count; r++) {
        uint8_t *fate = &p->plan->fate[p->by_rank[r]];
        const uint32_t root = planner_find_root(p, (uint32_t)r);
        if (*fate < SPLIT_COUNT) *fate = p->split[root];
    }
done:
    runs_close(runs);
    return rc;
}

/* ---- the check of the result ---- */

static bool is_held_out(uint8_t fate) { return fate == FATE_VALIDATION || fate == FATE_TEST; }

err_t planner_count_leaked(int64_t *leaked, struct planner *p, struct runs *groups,
                           const uint32_t *index)
{
    struct runs_item item;
    uint64_t key = 0;
    int64_t held_out = 0, train = 0;
    bool found = true;
    TRY(runs_rewind(groups));
    while (found) {
        TRY(runs_next(groups, &item, &found));
        if (!found || item.key != key) {
            *leaked += train > 0 ? held_out : 0;
            held_out = train = 0;
        }
        if (!found) break;
        key = item.key;
        const uint8_t fate = p->plan->fate[index != NULL ? index[item.value] : item.value];
        held_out += is_held_out(fate);
        train += fate == FATE_TRAIN;
    }
    return ERR_OK;
}

err_t planner_check_exact(struct planner *p)
{
    return planner_count_leaked(&p->counts->duplicates.leaked_exact, p, p->exact, NULL);
}

/* Pairs that were alike when compared, one in training and one outside of it. */
err_t planner_check_alike(struct planner *p)
{
    struct prepare_duplicate_counts *d = &p->counts->duplicates;
    const uint64_t near = (uint64_t)(p->options->near_threshold * 1e9);
    uint8_t *leaked = p->split; /* done with: 1 = alike, 2 = near */
    struct runs_item item;
    bool found;
    memset(leaked, 0, (size_t)p->rank_count);
    TRY(runs_sort(p->alike));
    for (;;) {
        TRY(runs_next(p->alike, &item, &found));
        if (!found) break;
        const uint32_t ranks[2] = { (uint32_t)(item.key >> 32), (uint32_t)item.key };
        for (int i = 0; i < 2; i++)
            if (is_held_out(p->plan->fate[p->by_rank[ranks[i]]]) &&
                p->plan->fate[p->by_rank[ranks[!i]]] == FATE_TRAIN)
                leaked[ranks[i]] = (uint8_t)(item.value >= near ? 2 : max_i64(1, leaked[ranks[i]]));
    }
    for (int64_t r = 0; r < p->rank_count; r++) {
        d->held_out += is_held_out(p->plan->fate[p->by_rank[r]]);
        d->leaked_near += leaked[r] == 2;
        d->leaked_alike += leaked[r] > 0;
    }
    return ERR_OK;
}
