/*
 * prepare_plan.h - between the passes of prepare: which dialogues are duplicates, and which split
 * each of the others is in. Internal to prepare.
 *
 * Dialogues have a rank: the longer (in characters that count, data/dedup.h) first, then the
 * smaller content hash, then the source's name, then the topic. Of exact duplicates the best stays.
 * A near duplicate goes when a better one that stays is near it. All of that, and the splits,
 * depends on the set of dialogues and the names of their sources alone.
 */
#ifndef DATA_PREPARE_PLAN_H
#define DATA_PREPARE_PLAN_H

#include "data/prepare.h"
#include "data/prepare_spool.h"

/* What becomes of a dialogue: its split if it is written. */
enum prepare_fate {
    FATE_TRAIN = SPLIT_TRAIN,
    FATE_VALIDATION = SPLIT_VALIDATION,
    FATE_TEST = SPLIT_TEST,
    FATE_EXACT = SPLIT_COUNT, /* goes: equals a better one */
    FATE_NEAR,                /* goes: is near a better one that stays */
};

struct prepare_plan {
    uint8_t *fate; /* [count] enum prepare_fate, in the order of the spool */
    int64_t count;
};

/* Also fills what `counts` has about duplicates. Spills to folder `dir`. ERR_NOMEM, ERR_IO,
 * ERR_INTERRUPTED. Clear the plan in any case; zero it before. */
MUST_USE err_t prepare_plan_make(struct prepare_plan *out, struct prepare_counts *counts,
                                 const struct prepare_options *o, const struct spool *spool,
                                 const char *dir);
void prepare_plan_clear(struct prepare_plan *p);

#endif
