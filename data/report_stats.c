#include "data/report_stats.h"

#include "base/num.h"
#include "base/progress.h"
#include "data/pack.h"
#include "data/settings_batch.h"

#include <stdlib.h>
#include <string.h>

const struct report_limits REPORT_LIMITS = {
    .sample = { .max_input = 1536, .max_target = 512, .over_long_target = TARGET_DROP },
    .pack_len = 2048,
};

void report_limits_from_cfg(struct report_limits *out, const struct cfg *cfg)
{
    sample_limits_from_cfg(&out->sample, cfg);
    out->pack_len =
        max_i64(cfg_int(cfg, "batch.pack_len"), out->sample.max_input + out->sample.max_target);
}

/* ---- histograms ---- */

/* The smallest of 1, 2, 5, 10, 20, 50, ... that is at least `least`. */
static int64_t round_width(int64_t least)
{
    int64_t width = 1;
    for (int64_t k = 0; width < least; k++) width = k % 3 == 1 ? width / 2 * 5 : width * 2;
    return width;
}

void histogram_fill(struct histogram *out, int32_t *values, int64_t count)
{
    *out = (struct histogram){ .width = 1 };
    length_stats_fill(&out->stats, values, count);
    if (count == 0) return;
    const int64_t min = out->stats.min, reach = length_percentile(values, count, 995);
    out->width = round_width(div_ceil(reach - min + 1, HISTOGRAM_BINS - 1));
    out->first = min / out->width * out->width;
    for (int64_t i = 0; i < count; i++) {
        const int64_t bin = min_i64((values[i] - out->first) / out->width, HISTOGRAM_BINS - 1);
        out->bin[bin]++;
        out->bin_count = max_i64(out->bin_count, bin + 1);
    }
}

static err_t allocate(int32_t **out, int64_t count)
{
    *out = malloc((size_t)max_i64(count, 1) * sizeof **out);
    if (*out == NULL) RAISE(NOMEM, "the report's %lld lengths", (long long)count);
    return ERR_OK;
}

static err_t read_turns(struct report_stats *s, const struct shards *shards)
{
    int32_t *turns;
    const int64_t count = shards_dialogue_count(shards);
    TRY(allocate(&turns, count));
    for (int64_t d = 0; d < count; d++) turns[d] = shards_dialogue(shards, d)->turn_count;
    histogram_fill(&s->turns, turns, count);
    free(turns);
    return ERR_OK;
}

/* ---- topics ---- */

/* A topic's text lies once in each shard: dialogues are counted by where it lies, then by what it
 * says. */
struct topic_ref {
    const char *name;
    int64_t split[SPLIT_COUNT];
};

static int by_place(const void *a, const void *b)
{
    const uintptr_t x = (uintptr_t)((const struct topic_ref *)a)->name;
    const uintptr_t y = (uintptr_t)((const struct topic_ref *)b)->name;
    return (x > y) - (x < y);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct topic_ref *)a)->name, ((const struct topic_ref *)b)->name);
}

static int64_t ref_count(const struct topic_ref *r)
{
    int64_t sum = 0;
    for (int i = 0; i < SPLIT_COUNT; i++) sum += r->split[i];
    return sum;
}

static int by_count(const void *a, const void *b)
{
    const int64_t x = ref_count(a), y = ref_count(b);
    return x != y ? (x < y) - (x > y) : by_name(a, b);
}

/* Neighbours that `order` calls equal become one; returns how many are left. */
static int64_t merge_refs(struct topic_ref *refs, int64_t count,
                          int (*order)(const void *, const void *))
{
    int64_t kept = 0;
    qsort(refs, (size_t)count, sizeof *refs, order);
    for (int64_t i = 0; i < count; i++) {
        if (kept == 0 || order(&refs[kept - 1], &refs[i]) != 0) {
            refs[kept++] = refs[i];
            continue;
        }
        for (int k = 0; k < SPLIT_COUNT; k++) refs[kept - 1].split[k] += refs[i].split[k];
    }
    return kept;
}

static void add_topic(struct report_topic *t, const struct topic_ref *ref)
{
    for (int k = 0; k < SPLIT_COUNT; k++) t->split[k] += ref->split[k];
    t->dialogues += ref_count(ref);
}

static err_t list_topics(struct report_stats *s, struct topic_ref *refs, int64_t count)
{
    qsort(refs, (size_t)count, sizeof *refs, by_count);
    s->topic_count = min_i64(count, REPORT_TOPICS_MAX);
    s->other_topics = count - s->topic_count;
    s->topic = calloc((size_t)max_i64(s->topic_count, 1), sizeof *s->topic);
    if (s->topic == NULL) RAISE(NOMEM, "the report's topics");
    for (int64_t i = 0; i < count; i++) {
        struct report_topic *t = i < s->topic_count ? &s->topic[i] : &s->other;
        if (t != &s->other) memcpy(t->name, refs[i].name, strlen(refs[i].name) + 1);
        add_topic(t, &refs[i]);
    }
    return ERR_OK;
}

static err_t read_topics(struct report_stats *s, const struct shards *shards)
{
    int64_t count = shards_dialogue_count(shards);
    struct topic_ref *refs = calloc((size_t)max_i64(count, 1), sizeof *refs);
    if (refs == NULL) RAISE(NOMEM, "the report's topics");
    for (int64_t d = 0; d < count; d++) {
        refs[d].name = shards_topic(shards, d);
        refs[d].split[shards_dialogue(shards, d)->split] = 1;
    }
    count = merge_refs(refs, count, by_place);
    count = merge_refs(refs, count, by_name);
    const err_t rc = list_topics(s, refs, count);
    free(refs);
    return rc;
}

/* ---- samples ---- */

static err_t plan_packs(struct report_stats *s, const struct sample_set *set)
{
    struct pack_plan plan = { 0 };
    const double begin_s = time_now_s();
    TRY(pack_best_fit(&plan, sample_set_lens(set), sample_set_count(set), s->limits.pack_len));
    s->pack_plan_s = time_now_s() - begin_s;
    s->pack_count = plan.pack_count;
    s->pack_fill = plan.fill;
    pack_plan_clear(&plan);
    return ERR_OK;
}

static err_t read_lengths(struct report_stats *s, const struct sample_set *set)
{
    int32_t *copy;
    const int64_t count = sample_set_count(set);
    const size_t bytes = (size_t)count * sizeof *copy;
    TRY(allocate(&copy, count));
    if (count > 0) memcpy(copy, sample_set_lens(set), bytes);
    histogram_fill(&s->samples, copy, count);
    if (count > 0) memcpy(copy, sample_set_target_counts(set), bytes);
    histogram_fill(&s->replies, copy, count);
    free(copy);
    return ERR_OK;
}

static err_t read_split(struct report_stats *s, struct shards *shards, enum split split)
{
    struct sample_set *set;
    err_t rc = ERR_OK;
    TRY(sample_set_open(&set, shards, split, &s->limits.sample));
    s->cut[split] = *sample_set_counts(set);
    if (split == SPLIT_TRAIN) rc = read_lengths(s, set);
    if (split == SPLIT_TRAIN && rc == ERR_OK) rc = plan_packs(s, set);
    sample_set_close(set);
    return rc;
}

err_t report_stats_read(struct report_stats *out, const char *dir,
                        const struct report_limits *limits)
{
    err_t rc = ERR_OK;
    struct shards *shards = NULL;
    *out = (struct report_stats){ .limits = *limits };
    TRY(shards_open(&shards, dir, false)); /* prepare has just read them back */
    TRY_DONE(read_turns(out, shards));
    TRY_DONE(read_topics(out, shards));
    for (int i = 0; i < SPLIT_COUNT; i++) TRY_DONE(read_split(out, shards, (enum split)i));
done:
    shards_close(shards);
    return rc;
}

void report_stats_clear(struct report_stats *s)
{
    free(s->topic);
    *s = (struct report_stats){ 0 };
}
