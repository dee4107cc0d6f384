#include "data/sort.h"

#include "base/check.h"

#include <string.h>

#define DIGIT_BITS 11
#define DIGITS     (1 << DIGIT_BITS)
#define PASSES     3

STATIC_ASSERT(PASSES *DIGIT_BITS >= 31, "all non-negative int32 keys are covered");

static int64_t digit_of(int32_t key, int pass)
{
    return ((uint32_t)key >> (pass * DIGIT_BITS)) & (DIGITS - 1);
}

void sort_stable_i32(int32_t *order, int32_t *scratch, const int32_t *key, int64_t count)
{
    ASSERT(count >= 0 && count <= INT32_MAX);
    for (int64_t i = 0; i < count; i++) {
        ASSERT_SLOW(key[i] >= 0);
        order[i] = (int32_t)i;
    }
    for (int pass = 0; pass < PASSES; pass++) {
        int32_t start[DIGITS + 1] = { 0 };
        for (int64_t i = 0; i < count; i++) start[digit_of(key[i], pass) + 1]++;
        if (count == 0 || start[digit_of(key[0], pass) + 1] == count) continue;
        for (int64_t d = 0; d < DIGITS; d++) start[d + 1] += start[d];
        memcpy(scratch, order, (size_t)count * sizeof *order);
        for (int64_t k = 0; k < count; k++)
            order[start[digit_of(key[scratch[k]], pass)]++] = scratch[k];
    }
}
