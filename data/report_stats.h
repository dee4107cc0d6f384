/*
 * report_stats.h - what can be said about a prepared corpus by looking at its shards: how long
 * dialogues, samples and replies are, which topics there are, what the limits of a sample cut, and
 * how full packs are.
 *
 *     struct report_stats stats = { 0 };
 *     TRY_DONE(report_stats_read(&stats, "runs/corpus", &REPORT_LIMITS));
 *     report_stats_clear(&stats);
 */
#ifndef DATA_REPORT_STATS_H
#define DATA_REPORT_STATS_H

#include "base/cfg.h"
#include "base/err.h"
#include "data/length_stats.h"
#include "data/sample.h"
#include "data/shard.h"

#include <stdint.h>

#define HISTOGRAM_BINS    40
#define REPORT_TOPICS_MAX 50 /* the rest are summed */

/* Bin i counts values of first + i*width .. first + (i+1)*width - 1; the last one also whatever is
 * larger. All zero without values, but for a width of 1. */
struct histogram {
    struct length_stats stats;
    int64_t first, width, bin_count;
    int64_t bin[HISTOGRAM_BINS];
};

/* Of values[count], which are sorted on the way. Bins reach to the 99.5th percentile. */
void histogram_fill(struct histogram *out, int32_t *values, int64_t count);

struct report_topic {
    char name[SHARD_TEXT_MAX]; /* "" = none was given */
    int64_t dialogues, split[SPLIT_COUNT];
};

struct report_limits {
    struct sample_limits sample;
    int64_t pack_len; /* rows; at least max_input + max_target of `sample` */
};
/* The defaults of the settings `batch`; and what is set. A pack too short for the longest sample is
 * taken to be as long as that. */
extern const struct report_limits REPORT_LIMITS;
void report_limits_from_cfg(struct report_limits *out, const struct cfg *cfg);

struct report_stats {
    struct report_limits limits;
    struct histogram turns, samples, replies; /* turns of a dialogue; rows of a sample; trained */
    struct sample_counts cut[SPLIT_COUNT];
    struct report_topic *topic; /* [topic_count] most dialogues first, equal ones by name */
    int64_t topic_count;
    struct report_topic other; /* what the list has no room for */
    int64_t other_topics;
    int64_t pack_count; /* of the training split; 0 when it is empty */
    double pack_fill, pack_plan_s;
};

/* Errors: those of shards_open and sample_set_open; ERR_NOMEM. Clear it in any case. */
MUST_USE err_t report_stats_read(struct report_stats *out, const char *dir,
                                 const struct report_limits *limits);
void report_stats_clear(struct report_stats *s);

#endif
