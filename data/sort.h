/*
 * sort.h - a stable sort of small integer keys: radix by 11 bits, least significant first. The
 * result is a pure function of the keys, on any machine, and nothing is allocated.
 */
#ifndef DATA_SORT_H
#define DATA_SORT_H

#include <stdint.h>

/*
 * order[count] becomes the permutation that sorts key ascending; equal keys stay in order of their
 * index. Keys are >= 0; scratch[count]; order, scratch and key do not overlap. O(count) for up to
 * three passes; digits that all keys share are skipped.
 */
void sort_stable_i32(int32_t *order, int32_t *scratch, const int32_t *key, int64_t count);

#endif
