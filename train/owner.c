#include "train/owner.h"

#include "base/check.h"
#include "base/num.h"
#include "kernels/ops_optim.h"

#include <stdlib.h>
#include <string.h>

/* Where chunk `chunk` of the table, one of this unit's rows first .. end-1, begins in the unit. */
static int64_t place_of(const struct owner *o, const struct glm_layout *layout, int64_t unit,
                        int64_t first, int64_t end, int64_t chunk)
{
    int64_t row = first;
    if (chunk == o->row_chunk[first]) return 0;
    if (chunk == o->row_chunk[end])
        return layout->unit_offset[unit + 1] - layout->unit_offset[unit];
    while (o->row_chunk[row + 1] <= chunk) row++;
    return layout->offset[row] - layout->unit_offset[unit] +
           (chunk - o->row_chunk[row]) * SUMSQ_CHUNK;
}

static void deal_unit(struct owner *o, const struct glm_layout *layout, int64_t unit, int64_t first,
                      int64_t end)
{
    const int64_t begin = o->row_chunk[first], chunks = o->row_chunk[end] - begin;
    for (int64_t r = 0; r < o->size; r++) {
        struct owner_share *s = &o->share[unit * o->size + r];
        s->chunk_begin = begin + r * chunks / o->size;
        s->chunk_end = begin + (r + 1) * chunks / o->size;
        s->begin = place_of(o, layout, unit, first, end, s->chunk_begin);
        s->end = place_of(o, layout, unit, first, end, s->chunk_end);
    }
}

err_t owner_create(struct owner *out, const struct glm_params *params,
                   const struct glm_layout *layout, int64_t size)
{
    ASSERT(size >= 1);
    *out = (struct owner){ .size = size, .unit_count = params->unit_count };
    out->share = calloc((size_t)(params->unit_count * size), sizeof *out->share);
    out->row_chunk = calloc((size_t)params->count + 1, sizeof *out->row_chunk);
    if (out->share == NULL || out->row_chunk == NULL)
        RAISE(NOMEM, "no memory for what %lld ranks own", (long long)size);
    for (int64_t i = 0; i < params->count; i++)
        out->row_chunk[i + 1] = out->row_chunk[i] + div_ceil(params->row[i].count, SUMSQ_CHUNK);
    out->chunk_count = out->row_chunk[params->count];
    for (int64_t first = 0, end; first < params->count; first = end) {
        for (end = first; end < params->count; end++)
            if (params->row[end].unit != params->row[first].unit) break;
        deal_unit(out, layout, params->row[first].unit, first, end);
    }
    return ERR_OK;
}

void owner_clear(struct owner *o)
{
    free(o->share);
    free(o->row_chunk);
    memset(o, 0, sizeof *o);
}

err_t owner_table_create(struct owner_table *out, const struct glm_config *config,
                         int64_t vocab_multiple, int64_t size)
{
    memset(out, 0, sizeof *out);
    TRY(glm_params_create(&out->params, config));
    TRY(glm_layout_create(&out->layout, &out->params, 1, vocab_multiple));
    return owner_create(&out->owner, &out->params, &out->layout, size);
}

void owner_table_clear(struct owner_table *table)
{
    owner_clear(&table->owner);
    glm_layout_clear(&table->layout);
    glm_params_clear(&table->params);
}

const struct owner_share *owner_share(const struct owner *o, int64_t unit, int64_t rank)
{
    ASSERT(unit >= 0 && unit < o->unit_count);
    ASSERT(rank >= 0 && rank < o->size);
    return &o->share[unit * o->size + rank];
}

void owner_row(int64_t *first, int64_t *count, const struct owner *o,
               const struct glm_params *params, int64_t row, int64_t rank)
{
    const struct owner_share *s = owner_share(o, params->row[row].unit, rank);
    const int64_t begin = max_i64(s->chunk_begin, o->row_chunk[row]);
    const int64_t end = min_i64(s->chunk_end, o->row_chunk[row + 1]);
    *first = *count = 0;
    if (begin >= end) return;
    *first = (begin - o->row_chunk[row]) * SUMSQ_CHUNK;
    *count = min_i64((end - o->row_chunk[row]) * SUMSQ_CHUNK, params->row[row].count) - *first;
}

int64_t owner_span_max(const struct owner *o, int64_t unit)
{
    int64_t most = 0;
    for (int64_t r = 0; r < o->size; r++) {
        const struct owner_share *s = owner_share(o, unit, r);
        most = max_i64(most, s->end - s->begin);
    }
    return most;
}
