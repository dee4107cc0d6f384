#include "eval/sampler.h"

#include "base/check.h"
#include "base/num.h"
#include "base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct sampler sampler_from_cfg(const struct cfg *cfg, int32_t fallback)
{
    return (struct sampler){
        .greedy = cfg_bool(cfg, "generate.greedy"),
        .temperature = cfg_float(cfg, "generate.temperature"),
        .top_k = cfg_int(cfg, "generate.top_k"),
        .top_p = cfg_float(cfg, "generate.top_p"),
        .repetition_penalty = cfg_float(cfg, "generate.repetition_penalty"),
        .seed = (uint64_t)cfg_int(cfg, "generate.seed"),
        .fallback = fallback,
    };
}

err_t sampler_memory_init(struct sampler_memory *m, int64_t vocab_size)
{
    *m = (struct sampler_memory){ .prob = malloc((size_t)vocab_size * sizeof *m->prob),
                                  .order = malloc((size_t)vocab_size * sizeof *m->order),
                                  .vocab_size = vocab_size };
    if (m->prob != NULL && m->order != NULL) return ERR_OK;
    sampler_memory_clear(m);
    RAISE(NOMEM, "sampler: no memory for a vocabulary of %lld", (long long)vocab_size);
}

void sampler_memory_clear(struct sampler_memory *m)
{
    free(m->prob);
    free(m->order);
    memset(m, 0, sizeof *m);
}

static bool all_finite(const float *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(x[i])) return false;
    return true;
}

/* Each token that occurred is penalised once, however often it occurred. */
static void penalise(float *logits, int64_t vocab, const int32_t *history, int64_t count,
                     double penalty, int32_t *seen_flags)
{
    if (penalty == 1.0) return;
    memset(seen_flags, 0, (size_t)vocab * sizeof *seen_flags);
    for (int64_t i = 0; i < count; i++) {
        const int32_t id = history[i];
        if (id < 0 || id >= vocab || seen_flags[id]) continue;
        seen_flags[id] = 1;
        logits[id] = (float)(logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty);
    }
}

static int32_t argmax(const float *x, int64_t count)
{
    int64_t best = 0;
    for (int64_t i = 1; i < count; i++)
        if (x[i] > x[best]) best = i;
    return (int32_t)best;
}

/* Greater probability first, ties by lower id: a heap order over order[]. */
static bool before(const float *prob, int32_t a, int32_t b)
{
    return prob[a] > prob[b] || (prob[a] == prob[b] && a < b);
}

static void sift_down(int32_t *heap, int64_t count, int64_t at, const float *prob)
{
    for (;;) {
        int64_t first = at;
        for (int64_t child = 2 * at + 1; child <= 2 * at + 2 && child < count; child++)
            if (before(prob, heap[child], heap[first])) first = child;
        if (first == at) return;
        const int32_t moved = heap[at];
        heap[at] = heap[first];
        heap[first] = moved;
        at = first;
    }
}

/* prob = softmax(logits / temperature), unnormalised: the greatest is 1. Returns the sum. */
static double exponentials(float *prob, const float *logits, int64_t count, double temperature)
{
    const float max = logits[argmax(logits, count)];
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        prob[i] = (float)exp(((double)logits[i] - (double)max) / temperature);
        sum += (double)prob[i];
    }
    return sum;
}

/* Nothing is left out: tokens in the order of their ids, no heap. */
static int32_t draw_from_all(const float *prob, int64_t count, double sum, double uniform)
{
    double left = uniform * sum;
    int64_t last = 0;
    for (int64_t i = 0; i < count; i++) {
        if (prob[i] == 0.0f) continue;
        last = i;
        left -= (double)prob[i];
        if (left < 0.0) break;
    }
    return (int32_t)last; /* by rounding it may be the last possible one */
}

/* Move the most probable token left in the heap behind it, to order[*heap]; returns its
 * probability. */
static double take(int32_t *order, int64_t *heap, const float *prob)
{
    const int32_t id = order[0];
    order[0] = order[--*heap];
    order[*heap] = id;
    sift_down(order, *heap, 0, prob);
    return (double)prob[id];
}

/* Take the k most probable tokens, and those that are as probable as the last of them; returns
 * their mass. */
static double take_top(int32_t *order, int64_t *heap, const float *prob, int64_t k)
{
    const int64_t vocab = *heap;
    double last = 0.0, sum = 0.0;
    while (*heap > 0 && (vocab - *heap < k || (last > 0.0 && (double)prob[order[0]] == last)))
        sum += last = take(order, heap, prob);
    return sum;
}

/*
 * Draw among the most probable tokens, taken one by one until their mass reaches top_p: the
 * vocabulary is never sorted whole. Taken tokens stand at the end of order[], the first one last.
 */
static int32_t draw_from_top(const struct sampler *s, struct sampler_memory *m, int64_t vocab,
                             int64_t k, double sum, double uniform)
{
    int32_t *order = m->order;
    int64_t heap = vocab, kept = 0;
    double mass = 0.0;

    for (int64_t i = 0; i < vocab; i++) order[i] = (int32_t)i;
    for (int64_t i = vocab / 2; i-- > 0;) sift_down(order, vocab, i, m->prob);
    if (k < vocab) { /* top-p acts on the mass of what top-k left */
        sum = take_top(order, &heap, m->prob, k);
        k = vocab - heap;
    }
    while (kept < k && (kept == 0 || mass < s->top_p * sum)) {
        const bool taken = vocab - heap > kept;
        mass += taken ? (double)m->prob[order[vocab - 1 - kept]] : take(order, &heap, m->prob);
        kept++;
    }
    while (m->prob[order[vocab - kept]] == 0.0f) kept--; /* k beyond what is possible at all */

    double left = uniform * mass;
    for (int64_t n = 0; n < kept; n++) {
        const int32_t id = order[vocab - 1 - n];
        left -= (double)m->prob[id];
        if (left < 0.0) return id;
    }
    return order[vocab - kept]; /* rounding: the last one kept */
}

int32_t sampler_choose(const struct sampler *s, struct sampler_memory *m, float *logits,
                       int64_t vocab_valid, const int32_t *history, int64_t history_count,
                       uint64_t stream, uint64_t index)
{
    ASSERT(vocab_valid > 0 && vocab_valid <= m->vocab_size);
    if (!all_finite(logits, vocab_valid)) {
        m->invalid_rows++;
        return s->fallback;
    }
    penalise(logits, vocab_valid, history, history_count, s->repetition_penalty, m->order);
    if (s->greedy) return argmax(logits, vocab_valid);

    const double sum = exponentials(m->prob, logits, vocab_valid, s->temperature);
    const double uniform = rng_uniform(s->seed, RNG_SAMPLING | stream << 8, index);
    const int64_t k = s->top_k > 0 ? min_i64(s->top_k, vocab_valid) : vocab_valid;
    if (k == vocab_valid && s->top_p >= 1.0)
        return draw_from_all(m->prob, vocab_valid, sum, uniform);
    return draw_from_top(s, m, vocab_valid, k, sum, uniform);
}
