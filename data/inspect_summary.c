/* Counts and lengths of a prepared corpus, and how full packs and steps are. */
#include "base/check.h"
#include "base/num.h"
#include "data/inspect.h"
#include "data/inspect_json.h"
#include "data/pack.h"
#include "data/split.h"

#include <stddef.h>
#include <stdlib.h>

/* ---- gathering ---- */

static err_t summarise_lengths(struct split_summary *out, const struct sample_set *set)
{
    const int64_t count = sample_set_count(set);
    int32_t *work = malloc((size_t)max_i64(count, 1) * sizeof *work);
    if (!work) RAISE(NOMEM, "no memory for the lengths of %lld samples", (long long)count);
    for (int64_t i = 0; i < count; i++) work[i] = sample_set_at(set, i)->len;
    length_stats_fill(&out->sample, work, count);
    for (int64_t i = 0; i < count; i++) work[i] = sample_set_at(set, i)->prompt_len;
    length_stats_fill(&out->prompt, work, count);
    for (int64_t i = 0; i < count; i++) work[i] = sample_set_at(set, i)->reply_len;
    length_stats_fill(&out->reply, work, count);
    free(work);
    return ERR_OK;
}

/* Packs of pack_len; none when a sample is longer than that. */
static err_t summarise_packs(struct split_summary *out, const struct sample_set *set,
                             int64_t pack_len)
{
    struct pack_plan plan = { 0 };
    out->pack_len = pack_len;
    if (out->sample.max > pack_len || out->sample.max == 0) return ERR_OK;
    TRY(pack_best_fit(&plan, sample_set_lens(set), sample_set_count(set), pack_len));
    out->pack_count = plan.pack_count;
    out->pack_fill = plan.fill;
    pack_plan_clear(&plan);
    return ERR_OK;
}

/* The steps of one epoch, planned and not filled. */
static err_t summarise_steps(struct split_summary *out, struct sample_set *set,
                             const struct batch_spec *spec)
{
    err_t rc = ERR_OK;
    struct batcher *b = NULL;
    int64_t rows = 0, padded = 0;
    if (sample_set_count(set) == 0) return ERR_OK;
    TRY_DONE(batcher_open(&b, set, spec));
    out->steps_per_epoch = batcher_steps_per_epoch(b);
    for (int64_t step = 0; step < out->steps_per_epoch; step++) {
        struct step_plan plan;
        TRY_DONE(batcher_plan(b, &plan, step));
        rows += plan.rows;
        padded += plan.rows_padded;
    }
    out->step_fill = (double)rows / (double)padded;

done:
    batcher_close(b);
    return rc;
}

static err_t summarise_split(struct split_summary *out, struct shards *shards, enum split split,
                             const struct sample_limits *limits, const struct batch_spec *spec,
                             const struct sample_mix *mix)
{
    err_t rc = ERR_OK;
    struct sample_set *set = NULL;
    for (int64_t d = 0; d < shards_dialogue_count(shards); d++) {
        const struct shard_dialogue *dialogue = shards_dialogue(shards, d);
        if (dialogue->split != split) continue;
        out->dialogues++;
        out->turns += dialogue->turn_count;
        for (int64_t t = 0; t < dialogue->turn_count; t++)
            out->tokens += shards_turn(shards, d, t)->ctx_len;
    }
    TRY_DONE(sample_set_open_mixed(&set, shards, split, limits, mix));
    out->samples = *sample_set_counts(set);
    TRY_DONE(summarise_lengths(out, set));
    TRY_DONE(summarise_packs(out, set, spec->pack_len));
    /* Only training data are cut into steps. */
    if (split == SPLIT_TRAIN) TRY_DONE(summarise_steps(out, set, spec));

done:
    sample_set_close(set);
    return rc;
}

err_t inspect_summarise(struct corpus_summary *out, const char *dir, struct shards *shards,
                        const struct sample_limits *limits, const struct batch_spec *spec,
                        const struct sample_mix *mix)
{
    *out = (struct corpus_summary){ .dir = dir, .shards = shards, .spec = *spec };
    for (int split = 0; split < SPLIT_COUNT; split++)
        TRY(summarise_split(&out->split[split], shards, (enum split)split, limits, spec,
                            split == SPLIT_TRAIN ? mix : NULL));
    return ERR_OK;
}

/* ---- writing: one table of counts serves both forms ---- */

static const struct {
    const char *key, *label;
    size_t offset; /* of an int64_t in struct split_summary */
} count_rows[] = {
#define ROW(key, label, member)                                                                    \
    {                                                                                              \
        key, label, offsetof(struct split_summary, member)                                         \
    }
    ROW("dialogues", "dialogues", dialogues),
    ROW("turns", "turns", turns),
    ROW("tokens", "tokens of all turns", tokens),
    ROW("samples", "samples", samples.samples),
    ROW("rows", "rows of all samples", samples.rows),
    ROW("trained_tokens", "trained tokens", samples.trained_tokens),
    ROW("prompts_cut_turns", "prompts without oldest turns", samples.prompts_cut_turns),
    ROW("prompts_cut_question", "questions cut", samples.prompts_cut_question),
    ROW("targets_dropped", "replies left out (too long)", samples.targets_dropped),
    ROW("targets_cut", "replies cut", samples.targets_cut),
#undef ROW
};

static const struct {
    const char *key, *label;
    size_t offset; /* of a struct length_stats in struct split_summary */
} length_rows[] = {
    { "sample", "sample (rows)", offsetof(struct split_summary, sample) },
    { "prompt", "prompt (tokens)", offsetof(struct split_summary, prompt) },
    { "reply", "reply (tokens)", offsetof(struct split_summary, reply) },
};

static int64_t count_at(const struct split_summary *s, int64_t row)
{
    return *(const int64_t *)(const void *)((const char *)s + count_rows[row].offset);
}

static const struct length_stats *lengths_at(const struct split_summary *s, int64_t row)
{
    return (const struct length_stats *)(const void *)((const char *)s + length_rows[row].offset);
}

static err_t write_text(struct buf *out, const struct corpus_summary *c)
{
    const struct shard_info *info = shards_info(c->shards);
    TRY(buf_printf(out, "corpus     %s\nsha256     %s\ntokenizer  %s, %d ids, sha256 %s\n", c->dir,
                   shards_sha256(c->shards), tok_family_name(info->family), info->vocab_size,
                   info->tokenizer_sha256));
    TRY(buf_printf(out, "template   %s%s... %s%s...\n\n", info->client_name, info->separator,
                   info->counsellor_name, info->separator));

    TRY(buf_printf(out, "%-30s", ""));
    for (int s = 0; s < SPLIT_COUNT; s++) TRY(buf_printf(out, "%12s", split_name((enum split)s)));
    for (int64_t r = 0; r < COUNT_OF(count_rows); r++) {
        TRY(buf_printf(out, "\n%-30s", count_rows[r].label));
        for (int s = 0; s < SPLIT_COUNT; s++)
            TRY(buf_printf(out, "%12lld", (long long)count_at(&c->split[s], r)));
    }

    TRY(buf_printf(out, "\n\n%-12s%-18s%8s%10s%8s%8s%8s\n", "lengths", "", "min", "mean", "p50",
                   "p95", "max"));
    for (int s = 0; s < SPLIT_COUNT; s++) {
        if (c->split[s].samples.samples == 0) continue;
        for (int64_t r = 0; r < COUNT_OF(length_rows); r++) {
            const struct length_stats *l = lengths_at(&c->split[s], r);
            TRY(buf_printf(out, "%-12s%-18s%8lld%10.1f%8lld%8lld%8lld\n", split_name((enum split)s),
                           length_rows[r].label, (long long)l->min, l->mean, (long long)l->median,
                           (long long)l->p95, (long long)l->max));
        }
    }

    const struct split_summary *train = &c->split[SPLIT_TRAIN];
    const bool tokens = c->spec.unit == BATCH_TOKENS;
    if (train->pack_count > 0)
        TRY(buf_printf(out, "\npacks      %lld of %lld rows, %.2f %% full\n",
                       (long long)train->pack_count, (long long)train->pack_len,
                       100 * train->pack_fill));
    if (train->steps_per_epoch > 0)
        TRY(buf_printf(out,
                       "steps      %lld an epoch, of %lld %s; micro-batches of at most %lld rows, "
                       "%.2f %% full\n",
                       (long long)train->steps_per_epoch, (long long)c->spec.size,
                       tokens ? "rows in packs" : "samples", (long long)c->spec.micro_tokens,
                       100 * train->step_fill));
    return ERR_OK;
}

static err_t write_split_json(struct buf *out, const struct split_summary *s)
{
    TRY(buf_puts(out, "{"));
    for (int64_t r = 0; r < COUNT_OF(count_rows); r++)
        TRY(buf_printf(out, "\"%s\":%lld,", count_rows[r].key, (long long)count_at(s, r)));
    TRY(buf_puts(out, "\"lengths\":{"));
    for (int64_t r = 0; r < COUNT_OF(length_rows); r++) {
        const struct length_stats *l = lengths_at(s, r);
        TRY(buf_printf(out,
                       "%s\"%s\":{\"min\":%lld,\"mean\":%.3f,\"p50\":%lld,\"p95\":%lld,"
                       "\"max\":%lld}",
                       r > 0 ? "," : "", length_rows[r].key, (long long)l->min, l->mean,
                       (long long)l->median, (long long)l->p95, (long long)l->max));
    }
    TRY(buf_printf(out, "},\"packs\":{\"length\":%lld,\"count\":%lld,\"fill\":%.6f}",
                   (long long)s->pack_len, (long long)s->pack_count, s->pack_fill));
    TRY(buf_printf(out, ",\"steps\":{\"per_epoch\":%lld,\"fill\":%.6f}}",
                   (long long)s->steps_per_epoch, s->step_fill));
    return ERR_OK;
}

static err_t write_json(struct buf *out, const struct corpus_summary *c)
{
    const struct shard_info *info = shards_info(c->shards);
    const struct {
        const char *key, *text;
    } members[] = {
        { "directory", c->dir },
        { "sha256", shards_sha256(c->shards) },
        { "family", tok_family_name(info->family) },
        { "tokenizer_sha256", info->tokenizer_sha256 },
        { "client_name", info->client_name },
        { "counsellor_name", info->counsellor_name },
        { "separator", info->separator },
    };
    TRY(buf_puts(out, "{"));
    for (int64_t i = 0; i < COUNT_OF(members); i++) {
        TRY(json_put_member(out, members[i].key, members[i].text));
        TRY(buf_puts(out, ","));
    }
    TRY(buf_printf(out, "\"vocab_size\":%d", info->vocab_size));
    for (int s = 0; s < SPLIT_COUNT; s++) {
        TRY(buf_printf(out, ",\"%s\":", split_name((enum split)s)));
        TRY(write_split_json(out, &c->split[s]));
    }
    TRY(buf_puts(out, "}\n"));
    return ERR_OK;
}

err_t inspect_write_summary(struct buf *out, const struct corpus_summary *summary,
                            enum inspect_form form)
{
    TRY(form == INSPECT_JSON ? write_json(out, summary) : write_text(out, summary));
    return ERR_OK;
}
