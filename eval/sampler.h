/*
 * sampler.h - from logits to the next token: pure functions of logits, history and a counter-based
 * random number.
 *
 * Order, as in the reference's generation: a row with any NaN or infinity is replaced (all scores 0, token
 * `fallback` 5e4: InvalidScoreLogitsProcessor of THUDM/chatglm-6b); repetition penalty (Keskar et al. 2019,
 * arXiv:1909.05858, section 4.1: a seen token's logit l becomes l/p if positive, else l*p); temperature; top-k; top-p
 * (Holtzman et al. 2020, arXiv:1904.09751: the smallest set of most probable tokens whose mass reaches p); draw.
 * Ties are broken by the lower token id, so results do not depend on a sort's whims.
 */
#ifndef EVAL_SAMPLER_H
#define EVAL_SAMPLER_H

#include "base/cfg.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct sampler {
    bool greedy;               /* argmax; temperature, top_k, top_p, seed unused */
    double temperature;        /* > 0 */
    int64_t top_k;             /* 0 = off */
    double top_p;              /* (0, 1]; 1 = off */
    double repetition_penalty; /* 1 = off */
    uint64_t seed;
    int32_t fallback;          /* token for rows that are not finite: the tokenizer's space piece */
};

/* From generate.greedy, .temperature, .top_k, .top_p, .repetition_penalty, .seed; fallback is the caller's. */
struct sampler sampler_from_cfg(const struct cfg *cfg, int32_t fallback);

/* Working memory for a vocabulary; reused from call to call. */
struct sampler_memory {
    float *prob;    /* [vocab] */
    int32_t *order; /* [vocab] */
    int64_t vocab_size;
};
MUST_USE err_t sampler_memory_init(struct sampler_memory *m, int64_t vocab_size);
void sampler_memory_clear(struct sampler_memory *m);

/*
 * Choose the next token. logits[vocab_valid] is changed in place. `history` are the ids so far (for the penalty).
 * `stream` names the sequence and `index` the place in it: same (seed, stream, index, logits), same token.
 */
int32_t sampler_choose(const struct sampler *s, struct sampler_memory *m, float *logits,
                       int64_t vocab_valid, const int32_t *history, int64_t history_count,
                       uint64_t stream, uint64_t index);

#endif
