/*
 * planner.h - what the steps of making a plan share: duplicates, ranks, clusters, splits. Internal
 * to prepare_plan.c and planner_*.c.
 */
#ifndef DATA_PLANNER_H
#define DATA_PLANNER_H

#include "data/dedup_runs.h"
#include "data/prepare_plan.h"

#include <stdint.h>

#define PLANNER_ROWS  4096 /* of the spool, read at once */
#define PLANNER_ALIKE 0.5  /* similarity from which held-out dialogues are reported */

/* A dialogue's shingles, kept while it is compared with several others. */
struct compared {
    struct shingle_set set;
    struct buf text;
    struct spool_row row;
};

/* Everything between the passes. Ranks number the dialogues that are not exact duplicates, or,
 * where those are kept, all of them: 0 is the best. */
struct planner {
    const struct prepare_options *options;
    struct prepare_counts *counts;
    const struct spool *spool;
    const char *dir;
    struct prepare_plan *plan;
    uint32_t *by_rank, *rank; /* [rank_count] index of a rank; [count] rank of an index */
    uint32_t *parent;         /* [rank_count] of the clusters' forest; a root is its best member */
    uint32_t *size;           /* [rank_count] written members, of a root */
    uint8_t *split;           /* [rank_count] enum split of a root */
    uint8_t *equals;          /* [count] 1: equals a better one (and is kept) */
    int64_t rank_count;
    struct runs *exact, *alike, *openings;
    struct compared a, b;
    struct dedup_work work;
    struct turn_text *turns; /* [CORPUS_TURNS_MAX] */
    struct spool_row *rows; /* [PLANNER_ROWS] */
};

/* Call `use` for every row in order. */
MUST_USE err_t planner_each_row(struct planner *p,
                                err_t (*use)(struct planner *p, int64_t index,
                                             const struct spool_row *row, void *context),
                                void *context);
/* < 0: the dialogue of row a is better than that of row b. */
int planner_compare_rows(const struct planner *p, const struct spool_row *a,
                         const struct spool_row *b);

/* Clusters of ranks: the best member of one, and one of two. */
uint32_t planner_find_root(struct planner *p, uint32_t r);
void planner_join(struct planner *p, uint32_t a, uint32_t b);

/* ---- the steps, in this order ---- */

/* planner_exact.c: mark all of a group of equal dialogues but the best; number what is left; where
 * all stay, let a group be a cluster. */
MUST_USE err_t planner_find_exact(struct planner *p);
MUST_USE err_t planner_make_ranks(struct planner *p);
MUST_USE err_t planner_join_exact(struct planner *p);
/* planner_near.c: find near duplicates, drop or join them. */
MUST_USE err_t planner_find_near(struct planner *p);
/* planner_opening.c: count the clusters so far; then let dialogues of one opening be clusters too;
 * count held-out ones whose opening is in training. */
MUST_USE err_t planner_find_openings(struct planner *p);
MUST_USE err_t planner_check_openings(struct planner *p);
/* planner_split.c: choose the clusters' splits; count what of the held-out ones is in training. */
MUST_USE err_t planner_make_splits(struct planner *p);
MUST_USE err_t planner_check_exact(struct planner *p);
/* Add to *leaked the held-out dialogues of every group (equal keys) that has one in training, too.
 * `index`: of the dialogue by the item's value; NULL: the value itself. */
MUST_USE err_t planner_count_leaked(int64_t *leaked, struct planner *p, struct runs *groups,
                                    const uint32_t *index);
MUST_USE err_t planner_check_alike(struct planner *p);

#endif
