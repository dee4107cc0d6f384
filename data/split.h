/*
 * split.h - which dialogues train, which validate and which test.
 *
 * The base is a number of each dialogue that depends on its content and the seed alone: its
 * *place*, the first 8 bytes (little-endian) of sha256(seed as 8 bytes, first 8 bytes of its
 * content hash). `hash`: place mod 10,000 decides; the lowest numbers are validation, the next ones
 * test. A dialogue's split then does not depend on what else is in the corpus. `stratified`:
 * dialogues of one source and topic are a stratum; in each, the ones with the lowest places (mod
 * 10,000 first) are validation, the next ones test, as many as the stratum's share. Shares are
 * rounded over the strata in a fixed order, so a stratum is off by less than one dialogue and so is
 * the whole. In both, near duplicates (and what they are near duplicates of, and so on) are a
 * cluster, which has one split: that of its best member, whose source and topic are the cluster's.
 * So are, if that is wanted, dialogues of one opening (data/dedup.h); the place then comes from the
 * opening's hash in place of the content's, for those that have an opening.
 * A cluster that does not fit into what its stratum has left for validation and test goes to
 * training.
 */
#ifndef DATA_SPLIT_H
#define DATA_SPLIT_H

#include "data/shard.h"

#include <stdint.h>

/* "train", "validation", "test". */
const char *split_name(enum split split);

uint64_t split_place(uint64_t seed, const uint8_t hash[8]);

/* Rule `hash`. */
enum split split_by_place(uint64_t place, int64_t validation_permyriad, int64_t test_permyriad);

/* What orders the clusters of a stratum: place mod 10,000, then as much of the place as fits. */
uint32_t split_order(uint64_t place);

/* The shares of strata that are gone through one after another. Zero it to begin. */
struct split_quota {
    int64_t seen;                         /* dialogues of the strata before and of this one */
    int64_t given_validation, given_test; /* by the strata before */
    int64_t left_validation, left_test;   /* of this one */
};
/* The next stratum has so many dialogues. */
void split_quota_stratum(struct split_quota *q, int64_t dialogues, int64_t validation_permyriad,
                         int64_t test_permyriad);
/* The split of its next cluster, in order of split_order. */
enum split split_quota_take(struct split_quota *q, int64_t dialogues);

#endif
