/* ref_positions.h - the positions of ChatGLM-6B as its reference computes them, from the ids of a
 * whole sample: the judge of seq_build. */
#ifndef TESTS_REF_POSITIONS_H
#define TESTS_REF_POSITIONS_H

#include "base/err.h"
#include "data/tok.h"

#include <stdint.h>

/*
 * ctx and positions of ids that already contain their special tokens: ctx = index of the first
 * <sop>, the frozen position = index of the first [gMASK], or of the first [MASK] where there is
 * none. pos and block may be NULL. ERR_FORMAT, with *ctx untouched, when one of them is missing, as
 * the reference raises, or when the mask comes after <sop>, which no training or chat prompt has.
 */
MUST_USE err_t ref_positions(int64_t *ctx, int32_t *pos, int32_t *block, const int32_t *ids,
                             int64_t len, const struct tok_specials *specials);

#endif
