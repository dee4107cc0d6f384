/*
 * length_stats.h - how long the things of a corpus are, for `inspect` and for the report of
 * `prepare`, which so say the same.
 */
#ifndef DATA_LENGTH_STATS_H
#define DATA_LENGTH_STATS_H

#include <stdint.h>

/* The percentiles are values that occur, by nearest rank; all is 0 where there are no values. */
struct length_stats {
    int64_t count, min, median, p95, max;
    double mean;
};

/* Of values[count], which are sorted on the way. */
void length_stats_fill(struct length_stats *out, int32_t *values, int64_t count);

/* The least of the sorted values[count], count > 0, that `permille` of 1,000 do not exceed. */
int32_t length_percentile(const int32_t *values, int64_t count, int64_t permille);

#endif
