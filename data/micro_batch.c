/* One micro-batch in host memory: rows, segments, trained rows and their weights. */
#include "base/check.h"
#include "base/num.h"
#include "data/batch_source.h"
#include "data/sort.h"

#include <stdlib.h>
#include <string.h>

void micro_batch_clear(struct micro_batch *m)
{
    void *arrays[] = { m->ids,         m->pos,      m->block,   m->order,
                       m->scratch,     m->segments, m->samples, m->stream,
                       m->target_rows, m->labels,   m->weights, m->target_segment };
    for (int64_t i = 0; i < COUNT_OF(arrays); i++) free(arrays[i]);
    *m = (struct micro_batch){ 0 };
}

/* The contents are about to be overwritten, so a larger array replaces the old one uncopied. */
static void *replaced(void *old, int64_t count, size_t entry_bytes)
{
    free(old);
    return malloc((size_t)max_i64(count, 1) * entry_bytes);
}

static bool grow_rows(struct micro_batch *m, int64_t rows)
{
    if (rows <= m->row_capacity) return true;
    m->row_capacity = rows;
    m->ids = replaced(m->ids, rows, sizeof *m->ids);
    m->pos = replaced(m->pos, rows, sizeof *m->pos);
    m->block = replaced(m->block, rows, sizeof *m->block);
    m->order = replaced(m->order, rows, sizeof *m->order);
    m->scratch = replaced(m->scratch, rows, sizeof *m->scratch);
    return m->ids && m->pos && m->block && m->order && m->scratch;
}

static bool grow_segments(struct micro_batch *m, int64_t segments)
{
    if (segments <= m->segment_capacity) return true;
    m->segment_capacity = segments;
    m->segments = replaced(m->segments, 3 * segments, sizeof *m->segments);
    m->samples = replaced(m->samples, segments, sizeof *m->samples);
    m->stream = replaced(m->stream, segments, sizeof *m->stream);
    return m->segments && m->samples && m->stream;
}

static bool grow_targets(struct micro_batch *m, int64_t targets)
{
    if (targets <= m->target_capacity) return true;
    m->target_capacity = targets;
    m->target_rows = replaced(m->target_rows, targets, sizeof *m->target_rows);
    m->labels = replaced(m->labels, targets, sizeof *m->labels);
    m->weights = replaced(m->weights, targets, sizeof *m->weights);
    m->target_segment = replaced(m->target_segment, targets, sizeof *m->target_segment);
    return m->target_rows && m->labels && m->weights && m->target_segment;
}

err_t micro_batch_reserve(struct micro_batch *m, const struct batch_bounds *bounds)
{
    if (!grow_rows(m, bounds->rows) || !grow_segments(m, bounds->segments) ||
        !grow_targets(m, bounds->targets)) {
        micro_batch_clear(m);
        RAISE(NOMEM, "no memory for a micro-batch of %lld rows, %lld segments, %lld targets",
              (long long)bounds->rows, (long long)bounds->segments, (long long)bounds->targets);
    }
    return ERR_OK;
}

static int64_t place_at(const int32_t *place, int64_t k) { return place ? place[k] : k; }

static err_t measure(struct batch_bounds *out, const struct batch_source *source,
                     const int64_t *samples, const int32_t *place, int64_t count)
{
    int64_t rows = 0, targets = 0;
    for (int64_t k = 0; k < count; k++) {
        const int64_t index = samples[place_at(place, k)];
        ASSERT(index >= 0 && index < source->count);
        rows += source->len[index];
        targets += source->target_count[index];
        if (rows > BATCH_ROWS_MAX)
            RAISE(ARG, "a micro-batch of more than %d rows (%lld samples)", BATCH_ROWS_MAX,
                  (long long)count);
    }
    *out = (struct batch_bounds){ .rows = align_up(rows, BATCH_ROW_MULTIPLE),
                                  .segments = count,
                                  .targets = targets };
    return ERR_OK;
}

/* In double, rounded once: the same bits on every rank, whatever the cut into micro-batches. */
static float row_weight(const struct weight_rule *rule, int64_t sample_targets)
{
    if (rule->unit) return 1.0f;
    if (rule->mean == LOSS_MEAN_TOKEN) return (float)(1.0 / (double)rule->trained_tokens);
    return (float)(1.0 / ((double)rule->sample_count * (double)sample_targets));
}

static void append_targets(struct micro_batch *m, int32_t segment, const struct seq *seq,
                           const struct weight_rule *rule)
{
    const int32_t start = m->segments[3 * segment];
    const float weight = row_weight(rule, seq->target_count);
    for (int64_t k = 0; k < seq->target_count; k++) {
        const int32_t row = start + (int32_t)(seq->target_first + k);
        const int64_t t = m->target_count++;
        m->target_rows[t] = row;
        m->labels[t] = m->ids[row + 1]; /* of the same sample: its last row is never trained */
        m->weights[t] = weight;
        m->target_segment[t] = segment;
    }
}

static void pad_rows(struct micro_batch *m, int64_t first, int32_t pad)
{
    for (int64_t r = first; r < m->rows; r++) {
        m->ids[r] = pad;
        m->pos[r] = 0;
        m->block[r] = 0;
    }
}

err_t micro_batch_fill(struct micro_batch *out, const struct batch_source *source,
                       const int64_t *samples, const int32_t *place, int64_t count,
                       const struct weight_rule *rule, const struct batch_bounds *room)
{
    struct batch_bounds need;
    TRY(measure(&need, source, samples, place, count));
    if (room != NULL) {
        ASSERT(need.rows <= room->rows && need.segments <= room->segments);
        ASSERT(need.targets <= room->targets);
        TRY(micro_batch_reserve(out, room));
    } else {
        TRY(micro_batch_reserve(out, &need));
    }
    out->rows = need.rows;
    out->segment_count = count;
    out->target_count = 0;

    int64_t start = 0;
    for (int64_t k = 0; k < count; k++) {
        const int64_t index = samples[place_at(place, k)];
        struct seq seq;
        TRY(source->fill(source->self, index, &seq, out->ids + start, out->pos + start,
                         out->block + start));
        ASSERT(seq.len == source->len[index]);
        ASSERT(seq.target_count == source->target_count[index]);
        ASSERT(seq.target_first >= 0 && seq.target_first + seq.target_count < seq.len);

        int32_t *segment = out->segments + 3 * k;
        segment[0] = (int32_t)start;
        segment[1] = (int32_t)seq.ctx;
        segment[2] = (int32_t)seq.len;
        out->samples[k] = index;
        out->stream[k] = place_at(place, k);
        append_targets(out, (int32_t)k, &seq, rule);
        start += seq.len;
    }
    ASSERT(out->target_count == need.targets);

    pad_rows(out, start, source->pad);
    sort_stable_i32(out->order, out->scratch, out->ids, out->rows);
    return ERR_OK;
}
