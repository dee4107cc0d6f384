#include "train/bench_batch.h"

#include "base/check.h"
#include "base/num.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    int32_t prompt, reply;
} lengths[] = { { 120, 30 }, { 210, 48 }, { 264, 52 }, { 330, 60 }, { 450, 75 }, { 195, 47 } };

struct arrays {
    int32_t *ids, *pos, *block, *order, *target_rows, *labels;
    struct attn_segment *segments;
    float *weights;
    int64_t segment_count, target_count;
};

static void fill_segment(struct arrays *a, int64_t start, int64_t ctx, int64_t len)
{
    a->segments[a->segment_count++] =
        (struct attn_segment){ (int32_t)start, (int32_t)ctx, (int32_t)len };
    for (int64_t i = 0; i < len; i++) {
        a->pos[start + i] = (int32_t)min_i64(i, ctx - 1);
        a->block[start + i] = (int32_t)max_i64(0, i - ctx + 1);
        if (i < ctx - 1 || i == len - 1) continue;
        a->target_rows[a->target_count] = (int32_t)(start + i);
        a->labels[a->target_count++] = a->ids[start + i + 1];
    }
}

static void fill(struct arrays *a, int64_t rows, int64_t vocab)
{
    for (int64_t r = 0; r < rows; r++) a->ids[r] = (int32_t)((r * 7919 + 13) % (vocab - 8));
    for (int64_t start = 0, i = 0; start < rows; i++) {
        const int64_t prompt = lengths[i % COUNT_OF(lengths)].prompt;
        const int64_t whole = prompt + lengths[i % COUNT_OF(lengths)].reply + 3;
        const int64_t len = min_i64(whole, rows - start);
        fill_segment(a, start, min_i64(prompt + 1, len), len);
        start += len;
    }
    for (int64_t i = 0; i < a->target_count; i++) a->weights[i] = 1.0f / (float)a->target_count;
}

/* Rows sorted by id, equal ids by row: ids are few enough to count. */
static err_t sort_rows(int32_t *order, const int32_t *ids, int64_t rows, int64_t vocab)
{
    int64_t *first = calloc((size_t)vocab + 1, sizeof *first);
    if (first == NULL) RAISE(NOMEM, "benchmark: no memory for %lld counters", (long long)vocab);
    for (int64_t r = 0; r < rows; r++) first[ids[r] + 1]++;
    for (int64_t v = 0; v < vocab; v++) first[v + 1] += first[v];
    for (int64_t r = 0; r < rows; r++) order[first[ids[r]]++] = (int32_t)r;
    free(first);
    return ERR_OK;
}

err_t bench_batch_create(struct glm_batch *out, int64_t rows, int64_t vocab)
{
    struct arrays a = { 0 };
    int32_t **ints[] = { &a.ids, &a.pos, &a.block, &a.order, &a.target_rows, &a.labels };
    bool ok = true;
    for (int64_t i = 0; i < COUNT_OF(ints); i++)
        ok = (*ints[i] = calloc((size_t)rows, sizeof(int32_t))) != NULL && ok;
    a.segments = calloc((size_t)rows, sizeof *a.segments);
    a.weights = calloc((size_t)rows, sizeof *a.weights);
    ok = ok && a.segments != NULL && a.weights != NULL;
    if (ok) fill(&a, rows, vocab);
    *out = (struct glm_batch){
        .rows = rows,
        .ids = a.ids,
        .pos = a.pos,
        .block = a.block,
        .order = a.order,
        .segment_count = a.segment_count,
        .segments = a.segments,
        .target_count = a.target_count,
        .target_rows = a.target_rows,
        .labels = a.labels,
        .weights = a.weights,
    };
    const err_t rc = ok ? sort_rows(a.order, a.ids, rows, vocab)
                        : err_raise(ERR_NOMEM, __FILE__, __LINE__,
                                    "benchmark: no memory for %lld rows", (long long)rows);
    if (rc != ERR_OK) bench_batch_clear(out);
    return rc;
}

void bench_batch_clear(struct glm_batch *b)
{
    const void *const arrays[] = { b->ids,      b->pos,         b->block,  b->order,
                                   b->segments, b->target_rows, b->labels, b->weights };
    for (int64_t i = 0; i < COUNT_OF(arrays); i++) free((void *)(uintptr_t)arrays[i]);
    memset(b, 0, sizeof *b);
}
