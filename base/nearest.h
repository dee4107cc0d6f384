/*
 * nearest.h - "did you mean": the known word that is nearest to a wrong one.
 *
 *     struct nearest n = { .word = "train.stepz" };
 *     for (...) nearest_offer(&n, keys[i]);
 *     ... n.best ...
 *
 * Nearest is by edits (insert, delete, replace; Levenshtein 1966); of equals the first wins.
 * Only the first NEAREST_WORD_MAX bytes of a word count.
 */
#ifndef BASE_NEAREST_H
#define BASE_NEAREST_H

#ifdef __cplusplus
extern "C" {
#endif

#define NEAREST_WORD_MAX 64

struct nearest {
    const char *word; /* borrowed */
    const char *best; /* borrowed; NULL until something was offered */
    int distance;     /* edits between the two */
};

void nearest_offer(struct nearest *n, const char *candidate);

#ifdef __cplusplus
}
#endif
#endif
