/* Batches of a sample set: the source that training uses. */
#include "base/check.h"
#include "data/batch_source.h"
#include "data/sample.h"

static err_t fill_from_set(void *self, int64_t index, struct seq *seq, int32_t *ids, int32_t *pos,
                           int32_t *block)
{
    return sample_fill(self, index, seq, ids, pos, block);
}

static struct batch_source source_of_set(struct sample_set *set)
{
    return (struct batch_source){
        .self = set,
        .count = sample_set_count(set),
        .len = sample_set_lens(set),
        .target_count = sample_set_target_counts(set),
        .pad = shards_info(sample_set_shards(set))->specials.pad,
        .fill = fill_from_set,
    };
}

err_t batcher_open(struct batcher **out, struct sample_set *set, const struct batch_spec *spec)
{
    const struct batch_source source = source_of_set(set);
    TRY(batcher_open_source(out, &source, spec));
    return ERR_OK;
}

err_t micro_batch_from_samples(struct micro_batch *out, struct sample_set *set,
                               const int64_t *samples, int64_t count, enum loss_mean mean,
                               bool unit_weights)
{
    const struct batch_source source = source_of_set(set);
    struct weight_rule rule = { .mean = mean, .unit = unit_weights, .sample_count = count };
    for (int64_t k = 0; k < count; k++) {
        ASSERT(samples[k] >= 0 && samples[k] < source.count);
        rule.trained_tokens += source.target_count[samples[k]];
    }
    TRY(micro_batch_fill(out, &source, samples, NULL, count, &rule, NULL));
    return ERR_OK;
}
