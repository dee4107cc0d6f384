/*
 * sampler.h - from logits to the next token: pure functions of logits, history and a counter-based
 * random number.
 *
 *     int32_t id = sampler_choose(&sampler, &memory, logits, vocab, ids, id_count, stream, index);
 *
 * Order, as in the reference's generation:
 *   1. a row with any NaN or infinity gives the token `fallback` (InvalidScoreLogitsProcessor of
 *      THUDM/chatglm-6b: all scores 0, that token's 5e4);
 *   2. repetition penalty p (Keskar et al. 2019, arXiv:1909.05858, section 4.1): the logit l of a
 *      token that occurred, in the prompt too, becomes l/p if positive, else l*p, once;
 *   3. temperature: logits are divided by it;
 *   4. top-k: the k most probable tokens are kept, and those that tie with the last of them;
 *   5. top-p (Holtzman et al. 2020, arXiv:1904.09751): of those, the smallest set of most probable
 *      tokens whose mass reaches p of theirs; at least one;
 *   6. a draw from what is left, in proportion.
 * Elsewhere ties are broken by the lower token id, so results do not depend on a sort's whims.
 * Probabilities are float32, their sums float64.
 */
#ifndef EVAL_SAMPLER_H
#define EVAL_SAMPLER_H

#include "base/cfg.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct sampler {
    bool greedy;               /* the most probable token; steps 3 to 6 are left out */
    double temperature;        /* > 0 */
    int64_t top_k;             /* 0 = off */
    double top_p;              /* (0, 1]; 1 = off */
    double repetition_penalty; /* > 0; 1 = off */
    uint64_t seed;
    int32_t fallback; /* token for rows that are not finite: the tokenizer's space piece */
};

/* From generate.greedy, .temperature, .top_k, .top_p, .repetition_penalty, .seed; fallback is the
 * caller's. */
struct sampler sampler_from_cfg(const struct cfg *cfg, int32_t fallback);

/* Working memory for a vocabulary; reused from call to call. */
struct sampler_memory {
    float *prob;    /* [vocab] */
    int32_t *order; /* [vocab] */
    int64_t vocab_size;
    int64_t invalid_rows; /* rows so far that were not finite */
};
MUST_USE err_t sampler_memory_init(struct sampler_memory *m, int64_t vocab_size);
void sampler_memory_clear(struct sampler_memory *m);

/*
 * Choose the next token. logits[vocab_valid] is changed in place; 0 < vocab_valid <= vocab_size.
 * `history` are the ids so far (for the penalty); ids outside of the vocabulary are passed over.
 * `stream` names the sequence and `index` the place in it: same (seed, stream, index, logits), same
 * token.
 */
int32_t sampler_choose(const struct sampler *s, struct sampler_memory *m, float *logits,
                       int64_t vocab_valid, const int32_t *history, int64_t history_count,
                       uint64_t stream, uint64_t index);

#endif
