#include "train/optim_stage.h"

#include "base/check.h"
#include "base/num.h"

#include <stdlib.h>
#include <string.h>

err_t optim_stage_open(struct optim_stage *s, struct dev *dev, const struct optim_plan *plan,
                       char *host)
{
    *s = (struct optim_stage){ .dev = dev, .plan = plan, .host = host };
    s->last_out = malloc((size_t)plan->slice_count * sizeof *s->last_out);
    if (s->last_out == NULL)
        RAISE(NOMEM, "optimizer: no memory for %lld slices", (long long)plan->slice_count);
    for (int64_t i = 0; i < plan->slice_count; i++) s->last_out[i] = -1;
    for (int b = 0; b < OPTIM_STAGE_BUFFERS; b++) {
        void *data;
        TRY(dev_alloc(dev, &data, plan->staging_bytes, "staging of optimizer state"));
        s->buffer[b] = data;
        TRY(dev_event_create(dev, &s->in[b]));
        TRY(dev_event_create(dev, &s->used[b]));
        TRY(dev_event_create(dev, &s->out[b]));
    }
    return ERR_OK;
}

void optim_stage_close(struct optim_stage *s)
{
    if (s->dev == NULL) return;
    const err_t rc = s->turn_in > 0 ? dev_sync(s->dev) : ERR_OK;
    (void)rc; /* what has failed by now concerns nobody any more */
    for (int b = 0; b < OPTIM_STAGE_BUFFERS; b++) {
        dev_free(s->dev, s->buffer[b]);
        dev_event_destroy(s->dev, s->in[b]);
        dev_event_destroy(s->dev, s->used[b]);
        dev_event_destroy(s->dev, s->out[b]);
    }
    free(s->last_out);
    memset(s, 0, sizeof *s);
}

static err_t begin_in(struct optim_stage *s, int64_t slice)
{
    const struct optim_slice *what = &s->plan->slice[slice];
    const int64_t turn = s->turn_in, b = turn % OPTIM_STAGE_BUFFERS;
    ASSERT(turn - s->turn_out < OPTIM_STAGE_BUFFERS);
    TRY(dev_event_wait(s->dev, s->out[b], DEV_IN));
    if (turn > 0 && s->last_out[slice] == turn - 1)
        TRY(dev_event_wait(s->dev, s->out[1 - b], DEV_IN));
    TRY(dev_copy(s->dev, DEV_IN, s->buffer[b], s->host + what->offset, what->bytes));
    s->turn_in++;
    return dev_event_record(s->dev, s->in[b], DEV_IN);
}

err_t optim_stage_prefetch(struct optim_stage *s)
{
    const int64_t count = min_i64(OPTIM_STAGE_BUFFERS, s->plan->slice_count);
    for (; s->prefetched < count; s->prefetched++) TRY(begin_in(s, s->prefetched));
    return ERR_OK;
}

err_t optim_stage_in(struct optim_stage *s, char **base, int64_t slice)
{
    const int64_t b = s->turn_out % OPTIM_STAGE_BUFFERS;
    if (s->turn_in == s->turn_out)
        TRY(begin_in(s, slice));
    else
        ASSERT(slice < s->prefetched);
    *base = s->buffer[b];
    return dev_event_wait(s->dev, s->in[b], DEV_COMPUTE);
}

err_t optim_stage_out(struct optim_stage *s, int64_t slice)
{
    const struct optim_slice *what = &s->plan->slice[slice];
    const int64_t b = s->turn_out % OPTIM_STAGE_BUFFERS;
    TRY(dev_event_record(s->dev, s->used[b], DEV_COMPUTE));
    TRY(dev_event_wait(s->dev, s->used[b], DEV_OUT));
    TRY(dev_copy(s->dev, DEV_OUT, s->host + what->offset, s->buffer[b], what->bytes));
    TRY(dev_event_record(s->dev, s->out[b], DEV_OUT));
    s->last_out[slice] = s->turn_out++;
    if (s->turn_in == s->turn_out) s->prefetched = 0;
    return ERR_OK;
}

err_t optim_stage_empty(struct optim_stage *s)
{
    TRY(dev_sync(s->dev));
    s->turn_in = s->turn_out;
    s->prefetched = 0;
    return ERR_OK;
}
