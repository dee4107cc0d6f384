#include "data/split.h"

#include "base/check.h"
#include "base/digest.h"

#include <string.h>

const char *split_name(enum split split)
{
    static const char *const names[SPLIT_COUNT] = {
        [SPLIT_TRAIN] = "train", [SPLIT_VALIDATION] = "validation", [SPLIT_TEST] = "test"
    };
    ASSERT((unsigned)split < SPLIT_COUNT);
    return names[split];
}

uint64_t split_place(uint64_t seed, const uint8_t hash[8])
{
    struct sha256 sum;
    uint8_t digest[SHA256_BYTES];
    uint64_t place;
    sha256_init(&sum);
    sha256_update(&sum, &seed, sizeof seed);
    sha256_update(&sum, hash, 8);
    sha256_final(&sum, digest);
    memcpy(&place, digest, sizeof place); /* little-endian machines only: base/check.h */
    return place;
}

enum split split_by_place(uint64_t place, int64_t validation_permyriad, int64_t test_permyriad)
{
    const int64_t number = (int64_t)(place % 10000);
    if (number < validation_permyriad) return SPLIT_VALIDATION;
    return number < validation_permyriad + test_permyriad ? SPLIT_TEST : SPLIT_TRAIN;
}

uint32_t split_order(uint64_t place)
{
    return (uint32_t)(place % 10000) << 18 | (uint32_t)(place >> 46);
}

void split_quota_stratum(struct split_quota *q, int64_t dialogues, int64_t validation_permyriad,
                         int64_t test_permyriad)
{
    q->seen += dialogues;
    /* Rounded halves up: the share of all strata so far, less what those before were given. */
    const int64_t validation = (q->seen * validation_permyriad + 5000) / 10000;
    const int64_t test = (q->seen * test_permyriad + 5000) / 10000;
    q->left_validation = validation - q->given_validation;
    q->left_test = test - q->given_test;
    q->given_validation = validation;
    q->given_test = test;
}

enum split split_quota_take(struct split_quota *q, int64_t dialogues)
{
    if (dialogues <= q->left_validation) {
        q->left_validation -= dialogues;
        return SPLIT_VALIDATION;
    }
    if (dialogues <= q->left_test) {
        q->left_test -= dialogues;
        return SPLIT_TEST;
    }
    return SPLIT_TRAIN;
}
