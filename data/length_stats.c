#include "data/length_stats.h"

#include "base/num.h"

#include <stdlib.h>

static int by_value(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

int32_t length_percentile(const int32_t *values, int64_t count, int64_t permille)
{
    return values[div_ceil(count * permille, 1000) - 1];
}

void length_stats_fill(struct length_stats *out, int32_t *values, int64_t count)
{
    double sum = 0.0;
    *out = (struct length_stats){ .count = count };
    if (count == 0) return;
    qsort(values, (size_t)count, sizeof *values, by_value);
    for (int64_t i = 0; i < count; i++) sum += values[i];
    out->min = values[0];
    out->median = length_percentile(values, count, 500);
    out->p95 = length_percentile(values, count, 950);
    out->max = values[count - 1];
    out->mean = sum / (double)count;
}
