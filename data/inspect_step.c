/* One step: the micro-batches of every lane, without their rows. */
#include "data/inspect.h"

static err_t write_head(struct buf *out, const struct step_plan *plan, bool json)
{
    if (json) {
        TRY(buf_printf(out,
                       "{\"step\":%lld,\"epoch\":%.9g,\"stream_first\":%lld,\"samples\":%lld,"
                       "\"rows\":%lld,\"rows_padded\":%lld,\"trained_tokens\":%lld,\"micro\":[",
                       (long long)plan->step, plan->epoch, (long long)plan->stream_first,
                       (long long)plan->sample_count, (long long)plan->rows,
                       (long long)plan->rows_padded, (long long)plan->trained_tokens));
        return ERR_OK;
    }
    TRY(buf_printf(out,
                   "step %lld: %lld samples, %lld trained tokens, %lld rows, %.2f %% full; "
                   "data used after it: %.4f epochs\n\n%6s %6s %9s %9s %9s %9s\n",
                   (long long)plan->step, (long long)plan->sample_count,
                   (long long)plan->trained_tokens, (long long)plan->rows,
                   100 * (double)plan->rows / (double)plan->rows_padded, plan->epoch, "lane",
                   "micro", "samples", "rows", "padded", "trained"));
    return ERR_OK;
}

static err_t write_micro(struct buf *out, const struct micro_batch *m, int64_t lane, int64_t micro,
                         bool json)
{
    int64_t used = 0;
    for (int64_t k = 0; k < m->segment_count; k++) used += m->segments[3 * k + 2];
    if (json)
        TRY(buf_printf(out,
                       "%s{\"lane\":%lld,\"micro\":%lld,\"samples\":%lld,\"rows\":%lld,"
                       "\"rows_padded\":%lld,\"trained_tokens\":%lld}",
                       out->data[out->size - 1] == '[' ? "" : ",", (long long)lane,
                       (long long)micro, (long long)m->segment_count, (long long)used,
                       (long long)m->rows, (long long)m->target_count));
    else
        TRY(buf_printf(out, "%6lld %6lld %9lld %9lld %9lld %9lld\n", (long long)lane,
                       (long long)micro, (long long)m->segment_count, (long long)used,
                       (long long)m->rows, (long long)m->target_count));
    return ERR_OK;
}

err_t inspect_write_step(struct buf *out, struct batcher *b, const struct batch_spec *spec,
                         int64_t step, enum inspect_form form)
{
    err_t rc = ERR_OK;
    const bool json = form == INSPECT_JSON;
    struct step_plan plan;
    struct micro_batch m = { 0 };
    TRY_DONE(batcher_plan(b, &plan, step));
    TRY_DONE(write_head(out, &plan, json));
    for (int64_t lane = 0; lane < spec->lanes; lane++) {
        for (int64_t micro = 0; micro < plan.micro_count[lane]; micro++) {
            TRY_DONE(batcher_fill(b, &m, lane, micro));
            TRY_DONE(write_micro(out, &m, lane, micro, json));
        }
    }
    if (json) TRY_DONE(buf_puts(out, "]}\n"));

done:
    micro_batch_clear(&m);
    return rc;
}
