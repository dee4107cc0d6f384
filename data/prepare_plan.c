#include "data/prepare_plan.h"

#include "base/num.h"
#include "data/planner.h"
#include "data/prepare_batch.h"

#include <stdlib.h>
#include <string.h>

/* ---- clusters ---- */

uint32_t planner_find_root(struct planner *p, uint32_t r)
{
    while (p->parent[r] != r) r = p->parent[r] = p->parent[p->parent[r]];
    return r;
}

void planner_join(struct planner *p, uint32_t a, uint32_t b)
{
    const uint32_t x = planner_find_root(p, a), y = planner_find_root(p, b);
    p->parent[x > y ? x : y] = x > y ? y : x;
}

/* ---- rows ---- */

err_t planner_each_row(struct planner *p,
                       err_t (*use)(struct planner *p, int64_t index, const struct spool_row *row,
                                    void *context),
                       void *context)
{
    for (int64_t first = 0; first < p->spool->count; first += PLANNER_ROWS) {
        const int64_t count = min_i64(PLANNER_ROWS, p->spool->count - first);
        TRY(prepare_check_stop(p->options));
        TRY(spool_rows(p->spool, p->rows, first, count));
        for (int64_t i = 0; i < count; i++) TRY(use(p, first + i, &p->rows[i], context));
    }
    return ERR_OK;
}

int planner_compare_rows(const struct planner *p, const struct spool_row *a,
                         const struct spool_row *b)
{
    const int by_hash = memcmp(a->hash, b->hash, sizeof a->hash);
    if (a->chars != b->chars) return a->chars > b->chars ? -1 : 1;
    if (by_hash != 0) return by_hash;
    const int by_name =
        strcmp(p->options->source[a->source].name, p->options->source[b->source].name);
    if (by_name != 0) return by_name;
    return (a->stratum > b->stratum) - (a->stratum < b->stratum);
}

/* ---- the whole ---- */

static err_t open_planner(struct planner *p)
{
    const size_t count = (size_t)p->spool->count;
    if (p->spool->count >= UINT32_MAX)
        RAISE(UNSUPPORTED, "%lld dialogues in one run; at most 2^32 - 2",
              (long long)p->spool->count);
    p->plan->count = p->spool->count;
    p->plan->fate = calloc(count, 1);
    p->by_rank = malloc(count * sizeof *p->by_rank);
    p->rank = malloc(count * sizeof *p->rank);
    p->parent = malloc(count * sizeof *p->parent);
    p->size = calloc(count, sizeof *p->size);
    p->split = calloc(count, 1);
    p->equals = calloc(count, 1);
    p->turns = calloc(CORPUS_TURNS_MAX, sizeof *p->turns);
    p->rows = calloc(PLANNER_ROWS, sizeof *p->rows);
    if (!p->plan->fate || !p->by_rank || !p->rank || !p->parent || !p->size || !p->split ||
        !p->equals || !p->turns || !p->rows)
        RAISE(NOMEM, "a plan of %lld dialogues", (long long)p->spool->count);
    TRY(runs_open(&p->exact, p->dir, RUNS_BYTES));
    TRY(runs_open(&p->alike, p->dir, RUNS_BYTES));
    return runs_open(&p->openings, p->dir, RUNS_BYTES);
}

static void close_planner(struct planner *p)
{
    free(p->by_rank);
    free(p->rank);
    free(p->parent);
    free(p->size);
    free(p->split);
    free(p->equals);
    free(p->turns);
    free(p->rows);
    runs_close(p->exact);
    runs_close(p->alike);
    runs_close(p->openings);
    shingle_set_clear(&p->a.set);
    shingle_set_clear(&p->b.set);
    buf_clear(&p->a.text);
    buf_clear(&p->b.text);
    dedup_work_clear(&p->work);
}

err_t prepare_plan_make(struct prepare_plan *out, struct prepare_counts *counts,
                        const struct prepare_options *o, const struct spool *spool, const char *dir)
{
    err_t rc = ERR_OK;
    struct planner p = { .options = o, .counts = counts, .spool = spool, .dir = dir, .plan = out };
    TRY_DONE(open_planner(&p));
    TRY_DONE(planner_find_exact(&p));
    TRY_DONE(planner_make_ranks(&p));
    if (o->duplicates == DUPLICATES_KEEP) TRY_DONE(planner_join_exact(&p));
    TRY_DONE(planner_find_near(&p));
    TRY_DONE(planner_find_openings(&p));
    TRY_DONE(planner_make_splits(&p));
    TRY_DONE(planner_check_exact(&p));
    TRY_DONE(planner_check_alike(&p));
    TRY_DONE(planner_check_openings(&p));
    counts->duplicates.spilled_runs +=
        runs_spilled(p.exact) + runs_spilled(p.alike) + runs_spilled(p.openings);
done:
    close_planner(&p);
    return rc;
}

void prepare_plan_clear(struct prepare_plan *p)
{
    free(p->fate);
    *p = (struct prepare_plan){ 0 };
}
