/*
 * dedup.h - how alike two dialogues are: signatures to find candidates, sets of shingles to judge
 * them.
 *
 * Both look at the dialogue's *stream*: its characters without white space and punctuation, Latin
 * letters in lower case and full-width forms folded, with a mark where a turn begins. Two dialogues
 * with the same stream are exact duplicates. Near duplicates have sets of 5-character shingles
 * whose Jaccard similarity |A and B| / |A or B| reaches a threshold.
 *
 * Five characters of Chinese are two or three words: unrelated dialogues about the same trouble
 * share 0 to 3 % of such shingles, a copy with a changed sentence 80 % and more. Candidates come
 * from one-permutation MinHash (Li, Owen, Zhang 2012) with 120 bins, empty bins filled by optimal
 * densification (Shrivastava 2017): one hash of each shingle instead of 120. The bins make 20 bands
 * of 6; two dialogues are compared if one band agrees, which for similarity s happens with
 * probability 1-(1-s^6)^20:
 *
 *     s      0.1      0.3     0.5    0.7    0.8     0.9
 *     P      0.00002  0.014   0.27   0.92   0.998   1.0000
 *
 * so that almost nothing at the threshold of 0.8 is missed and unrelated pairs cost nothing. Every
 * candidate is then compared exactly.
 *
 * Corpora that were made from questions of a forum have several dialogues of one question, which
 * begin alike and then differ. They are no duplicates, but one of them gives the other away: their
 * *opening*, the first 16 characters of the client's first turn of so many, tells them.
 */
#ifndef DATA_DEDUP_H
#define DATA_DEDUP_H

#include "base/buf.h"
#include "base/err.h"
#include "data/corpus.h"

#include <stdint.h>

#define DEDUP_SHINGLE   5 /* characters */
#define DEDUP_BANDS     20
#define DEDUP_BAND_BINS 6
#define DEDUP_BINS      (DEDUP_BANDS * DEDUP_BAND_BINS)
#define DEDUP_OPENING   16        /* characters */
#define DEDUP_CHARS_MAX (1 << 20) /* longer streams have no signature: only exact duplicates */

struct dedup_signature {
    uint64_t exact;   /* of the stream; equal streams have equal values */
    uint64_t opening; /* of the opening; 0: there is none */
    int32_t chars;    /* of the stream, without the marks; at most INT32_MAX */
    uint32_t band[DEDUP_BANDS];
};

/* Working memory, reused; zero it to begin, dedup_work_clear it. One thread at a time. */
struct dedup_work {
    uint32_t *stream; /* [stream_capacity] characters */
    int64_t stream_count, stream_capacity;
};
void dedup_work_clear(struct dedup_work *w);

/* ERR_NOMEM. */
MUST_USE err_t dedup_sign(struct dedup_signature *out, struct dedup_work *w,
                          const struct turn_text *turns, int64_t turn_count);

/* The set of a dialogue's shingles, as sorted 64-bit hashes. Zero it to begin. */
struct shingle_set {
    uint64_t *hash;
    int64_t count, capacity;
};
MUST_USE err_t shingle_set_fill(struct shingle_set *out, struct dedup_work *w,
                                const struct turn_text *turns, int64_t turn_count);
void shingle_set_clear(struct shingle_set *s);
/* 0 to 1; two empty sets are alike. */
double shingle_set_jaccard(const struct shingle_set *a, const struct shingle_set *b);

#endif
