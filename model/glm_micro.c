/* One micro-batch: checked on the host, uploaded, run. */
#include "model/glm.h"

#include "base/num.h"
#include "model/glm_impl.h"

#include <string.h>

/* ---- checks: what reaches the device is right, so that operators need not look ---- */

static err_t check_range(const char *what, const int32_t *values, int64_t count, int64_t end)
{
    for (int64_t i = 0; i < count; i++)
        if (values[i] < 0 || values[i] >= end)
            RAISE(ARG, "%s of row %lld is %d; expected 0 .. %lld", what, (long long)i, values[i],
                  (long long)end - 1);
    return ERR_OK;
}

err_t glm_check_rows(const struct glm *glm, int64_t rows, const int32_t *ids, const int32_t *pos,
                     const int32_t *block)
{
    const int64_t positions = glm->plan.buffer[GLM_B_COS].rows;
    if (rows < 1 || rows > glm->options.rows_max)
        RAISE(ARG, "%lld rows; this model has room for 1 .. %lld", (long long)rows,
              (long long)glm->options.rows_max);
    TRY(check_range("token id", ids, rows, glm->config.vocab_size));
    TRY(check_range("position", pos, rows, positions));
    return check_range("block position", block, rows, positions);
}

static err_t check_segments(const struct glm_batch *b, int64_t segments_max)
{
    int64_t end = 0;
    if (b->segment_count < 1 || b->segment_count > segments_max)
        RAISE(ARG, "%lld segments; this model has room for 1 .. %lld", (long long)b->segment_count,
              (long long)segments_max);
    for (int64_t s = 0; s < b->segment_count; s++) {
        const struct attn_segment g = b->segments[s];
        if (g.start < end || g.len < 1 || g.ctx < 0 || g.ctx > g.len || g.start > b->rows - g.len)
            RAISE(ARG,
                  "segment %lld: start %d, ctx %d, len %d; expected rows %lld .. %lld, "
                  "0 <= ctx <= len",
                  (long long)s, g.start, g.ctx, g.len, (long long)end, (long long)b->rows - 1);
        end = (int64_t)g.start + g.len;
    }
    return ERR_OK;
}

/* Target rows increase strictly and lie inside segments: padding is never trained. */
static err_t check_targets(const struct glm_batch *b, const struct glm *glm)
{
    int64_t s = 0, last = -1;
    if (b->target_count < 0 || b->target_count > glm->options.targets_max)
        RAISE(ARG, "%lld targets; this model has room for 0 .. %lld", (long long)b->target_count,
              (long long)glm->options.targets_max);
    for (int64_t i = 0; i < b->target_count; i++) {
        const int64_t row = b->target_rows[i];
        if (row <= last || row >= b->rows)
            RAISE(ARG, "target %lld is row %lld; expected rows that increase, below %lld",
                  (long long)i, (long long)row, (long long)b->rows);
        last = row;
        while (s < b->segment_count && row >= (int64_t)b->segments[s].start + b->segments[s].len)
            s++;
        if (s == b->segment_count || row < b->segments[s].start)
            RAISE(ARG, "target %lld is row %lld, which is in no segment", (long long)i,
                  (long long)row);
    }
    return check_range("label", b->labels, b->target_count, glm->config.vocab_size);
}

/* (id, row) pairs that increase strictly are a permutation that sorts. */
static err_t check_order(const struct glm_batch *b)
{
    ASSERT(b->order != NULL);
    TRY(check_range("order", b->order, b->rows, b->rows));
    for (int64_t i = 1; i < b->rows; i++) {
        const int32_t r0 = b->order[i - 1], r1 = b->order[i];
        if (b->ids[r0] > b->ids[r1] || (b->ids[r0] == b->ids[r1] && r0 >= r1))
            RAISE(ARG, "order does not sort the ids: rows %d, %d at place %lld", r0, r1,
                  (long long)i);
    }
    return ERR_OK;
}

err_t glm_check_batch(const struct glm *glm, const struct glm_batch *b, bool backward)
{
    TRY(glm_check_rows(glm, b->rows, b->ids, b->pos, b->block));
    TRY(check_segments(b, glm->options.segments_max));
    TRY(check_targets(b, glm));
    if (!backward) return ERR_OK;
    if (!glm->options.train) RAISE(ARG, "this model was created without room for training");
    ASSERT(b->weights != NULL || b->target_count == 0);
    return check_order(b);
}

/* ---- a pass over the batch ---- */

/* With a ticket nothing here waits: dev_upload has few places to put what the device has not taken
 * yet, the ticket's image has one for everything. */
static err_t upload(struct glm_pass *p, struct tensor *out, enum glm_buffer_id id, int64_t rows,
                    const void *from)
{
    struct glm *glm = p->glm;
    *out = glm_view(glm, id, 0, rows);
    if (from == NULL || rows == 0) return ERR_OK;
    const int64_t bytes = tensor_count(out) * dtype_bytes(out->dtype);
    if (p->ticket == NULL) return dev_upload(glm->dev, out->data, from, bytes);
    char *image = p->ticket->image + glm->plan.buffer[id].offset;
    memcpy(image, from, (size_t)bytes);
    return dev_copy(glm->dev, DEV_COMPUTE, out->data, image, bytes);
}

err_t glm_upload_rows(struct glm_pass *p, const int32_t *ids, const int32_t *pos,
                      const int32_t *block)
{
    TRY(upload(p, &p->ids, GLM_B_IDS, p->rows, ids));
    TRY(upload(p, &p->pos, GLM_B_POS, p->rows, pos));
    return upload(p, &p->block, GLM_B_BLOCK, p->rows, block);
}

err_t glm_upload_segments(struct glm_pass *p, const struct attn_segment *segments, int64_t count)
{
    const struct glm_buffer *b = &p->glm->plan.buffer[GLM_B_SEGMENTS];
    TRY(upload(p, &p->segments, GLM_B_SEGMENTS, count, segments));
    p->segments_host = p->ticket == NULL ? segments : (void *)(p->ticket->image + b->offset);
    return ERR_OK;
}

err_t glm_upload_batch(struct glm_pass *p, const struct glm_batch *b, bool backward)
{
    TRY(glm_upload_rows(p, b->ids, b->pos, b->block));
    TRY(glm_upload_segments(p, b->segments, b->segment_count));
    TRY(upload(p, &p->target_rows, GLM_B_TARGET_ROWS, b->target_count, b->target_rows));
    TRY(upload(p, &p->labels, GLM_B_LABELS, b->target_count, b->labels));
    TRY(upload(p, &p->weights, GLM_B_LOSS_WEIGHTS, b->target_count, b->weights));
    p->nll = glm_view(p->glm, GLM_B_NLL, 0, b->target_count);
    return upload(p, &p->order, GLM_B_ORDER, b->rows, backward ? b->order : NULL);
}

void glm_widen(double *out, const void *values, dtype_t dtype, int64_t count)
{
    const float *f32 = values;
    const uint16_t *bf16 = values;
    if (dtype == DTYPE_F64) {
        memcpy(out, values, (size_t)count * sizeof *out);
    } else if (dtype == DTYPE_F32) {
        for (int64_t i = 0; i < count; i++) out[i] = (double)f32[i];
    } else {
        ASSERT(dtype == DTYPE_BF16);
        for (int64_t i = 0; i < count; i++) out[i] = (double)bf16_to_f32(bf16[i]);
    }
}

static err_t fetch_losses(struct glm *glm, double *nll, const struct tensor *t)
{
    const int64_t count = tensor_count(t);
    TRY(dev_download(glm->dev, glm->losses, t->data, count * dtype_bytes(t->dtype)));
    glm_widen(nll, glm->losses, t->dtype, count);
    return ERR_OK;
}

err_t glm_eval_micro(struct glm *glm, const struct glm_batch *batch, double *nll)
{
    TRY(glm_check_batch(glm, batch, false));
    struct glm_pass p = glm_pass_begin(glm, PASS_BATCH, batch->rows);
    TRY(glm_upload_batch(&p, batch, false));
    TRY(glm_forward(&p));
    if (batch->target_count > 0) {
        TRY(glm_loss(&p));
        TRY(fetch_losses(glm, nll, &p.nll));
    }
    return dev_sync(glm->dev);
}
