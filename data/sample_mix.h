/*
 * sample_mix.h - how often the samples of each source are trained on in an epoch.
 *
 *     batch.source_weights: dialogues.jsonl=1, general.json=0.25, rare.jsonl=3
 *
 * A weight is a number of times, not a factor of the loss: a source of weight 3 is seen three times
 * an epoch, of 0.25 by a quarter of its samples (the same ones every epoch, chosen by their
 * content, so that an epoch keeps its length and a larger weight keeps what a smaller one had).
 * Weights of the loss instead would spend the same time on samples that then count for little, and
 * put few samples' gradients far above the others'. A mix of given parts follows from the sources'
 * samples, which the report of prepare lists: a source of 300,000 and one of 50,000 are one to one
 * with "small.json=6".
 */
#ifndef DATA_SAMPLE_MIX_H
#define DATA_SAMPLE_MIX_H

#include "base/err.h"
#include "data/shard.h"

#include <stdint.h>

#define SAMPLE_MIX_SOURCES_MAX 256
#define SAMPLE_MIX_WEIGHT_MAX  1000.0

struct sample_mix {
    struct {
        char name[SHARD_TEXT_MAX];
        double weight;
    } source[SAMPLE_MIX_SOURCES_MAX];
    int64_t source_count;
};

/* `text` as above; "" = every source once. ERR_USAGE: not name=weight, a weight that is not within
 * 0 and SAMPLE_MIX_WEIGHT_MAX, a name twice, one that no dialogue of the corpus has, or nothing but zeros. */
MUST_USE err_t sample_mix_parse(struct sample_mix *out, const char *text,
                                const struct shards *shards);

/* Times that the reply of this turn is in an epoch. */
int64_t sample_mix_times(const struct sample_mix *mix, const struct shards *shards,
                         int64_t dialogue, int64_t turn);

#endif
