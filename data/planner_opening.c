#include "data/planner.h"

#include <string.h>

/* Of two or more dialogues, whether those are written or not. */
static void count_clusters(struct planner *p)
{
    uint8_t *counted = p->split; /* not in use yet */
    for (int64_t r = 0; r < p->rank_count; r++) {
        const uint32_t root = planner_find_root(p, (uint32_t)r);
        if (root == r || counted[root]) continue;
        p->counts->duplicates.clusters++;
        counted[root] = 1;
    }
    memset(counted, 0, (size_t)p->rank_count);
}

static err_t add_opening(struct planner *p, int64_t index, const struct spool_row *row,
                         void *context)
{
    (void)context;
    if (row->opening == 0 || p->plan->fate[index] >= SPLIT_COUNT) return ERR_OK;
    return runs_add(p->openings, row->opening, p->rank[index]);
}

err_t planner_find_openings(struct planner *p)
{
    struct runs_item item;
    uint64_t key = 0;
    uint32_t first = 0;
    int64_t members = 0;
    bool found;
    count_clusters(p);
    TRY(planner_each_row(p, add_opening, NULL));
    TRY(runs_sort(p->openings));
    for (;;) {
        TRY(runs_next(p->openings, &item, &found));
        if (!found) return ERR_OK;
        if (item.key != key) {
            key = item.key; /* no opening has 0 */
            first = (uint32_t)item.value;
            members = 1;
            continue;
        }
        p->counts->duplicates.same_opening += ++members == 2 ? 2 : 1;
        if (p->options->openings == OPENINGS_TOGETHER) planner_join(p, first, (uint32_t)item.value);
    }
}

err_t planner_check_openings(struct planner *p)
{
    return planner_count_leaked(&p->counts->duplicates.leaked_opening, p, p->openings, p->by_rank);
}
