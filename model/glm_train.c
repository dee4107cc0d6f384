/* Micro-batches with gradients: queued by begin, waited for by end. */
#include "model/glm.h"

#include "base/num.h"
#include "model/glm_impl.h"

#include <stdlib.h>
#include <string.h>

err_t glm_tickets_open(struct glm *glm)
{
    const struct glm_options *o = &glm->options;
    const int64_t nll_bytes = o->targets_max * dtype_bytes(dtype_accumulator(o->dtype));
    ASSERT(glm->plan.host_bytes == GLM_TICKETS * nll_bytes);
    for (int i = 0; i < GLM_TICKETS; i++) {
        struct glm_ticket *ticket = &glm->ticket[i];
        ticket->segments = calloc((size_t)o->segments_max, sizeof *ticket->segments);
        if (ticket->segments == NULL)
            RAISE(NOMEM, "micro-batch in flight: %lld segments", (long long)o->segments_max);
        TRY(dev_host_alloc(glm->dev, &ticket->nll, nll_bytes, "losses in flight"));
        TRY(dev_event_create(glm->dev, &ticket->done));
    }
    return ERR_OK;
}

void glm_tickets_close(struct glm *glm)
{
    const bool in_flight = glm->tickets_begun > glm->tickets_ended;
    const err_t rc = in_flight ? dev_sync(glm->dev) : ERR_OK;
    (void)rc; /* what has failed by now concerns nobody any more */
    for (int i = 0; i < GLM_TICKETS; i++) {
        dev_event_destroy(glm->dev, glm->ticket[i].done);
        dev_host_free(glm->dev, glm->ticket[i].nll);
        free(glm->ticket[i].segments);
    }
}

static err_t check_grads(const struct glm *glm, const struct glm_grads *grads)
{
    const struct tensor *arena = &grads->arena;
    const bool has_hooks = grads->unit_begin != NULL && grads->unit_done != NULL;
    if (arena->dtype != glm_grad_dtype(glm))
        RAISE(DTYPE, "gradients are %s; expected %s", dtype_name(arena->dtype),
              dtype_name(glm_grad_dtype(glm)));
    if (tensor_count(arena) != glm_grad_layout(glm)->element_count)
        RAISE(SHAPE, "gradients: %lld elements; the model's have %lld",
              (long long)tensor_count(arena), (long long)glm_grad_layout(glm)->element_count);
    if (glm->options.grad_keep == GLM_GRADS_RELEASED && !has_hooks)
        RAISE(ARG, "gradients that are released need unit_begin and unit_done to consume them");
    return ERR_OK;
}

/* Everything up to the losses on their way to the host. */
static err_t queue_micro(struct glm *glm, struct glm_ticket *ticket, const struct glm_batch *batch,
                         const struct glm_grads *grads)
{
    struct glm_batch b = *batch;
    struct glm_pass p = glm_pass_begin(glm, PASS_BATCH, batch->rows);
    p.grads = grads;
    memcpy(ticket->segments, batch->segments, (size_t)b.segment_count * sizeof *b.segments);
    b.segments = ticket->segments;
    TRY(glm_upload_batch(&p, &b, true));
    TRY(glm_forward(&p));
    TRY(glm_loss_backward(&p));
    TRY(dev_copy(glm->dev, DEV_COMPUTE, ticket->nll, p.nll.data,
                 tensor_count(&p.nll) * dtype_bytes(p.nll.dtype)));
    return dev_event_record(glm->dev, ticket->done, DEV_COMPUTE);
}

err_t glm_train_begin(struct glm *glm, int *ticket, const struct glm_batch *batch,
                      const struct glm_grads *grads)
{
    const int index = (int)(glm->tickets_begun % GLM_TICKETS);
    *ticket = -1;
    glm->rows_ready = 0;
    TRY(glm_check_batch(glm, batch, true));
    TRY(check_grads(glm, grads));
    if (glm->tickets_begun - glm->tickets_ended >= GLM_TICKETS)
        RAISE(ARG, "%d micro-batches are in flight; end one before the next begins", GLM_TICKETS);

    struct trace_span span = trace_begin("micro_begin");
    if (batch->target_count > 0) /* else nothing is trained, nothing added */
        TRY(queue_micro(glm, &glm->ticket[index], batch, grads));
    glm->ticket[index].target_count = batch->target_count;
    glm->tickets_begun++;
    *ticket = index;
    trace_end(&span);
    return ERR_OK;
}

err_t glm_train_end(struct glm *glm, int ticket, double *nll)
{
    const int oldest = (int)(glm->tickets_ended % GLM_TICKETS);
    const dtype_t dtype = dtype_accumulator(glm->options.dtype);
    if (glm->tickets_begun == glm->tickets_ended || ticket != oldest)
        RAISE(ARG, "ticket %d is not the oldest micro-batch in flight", ticket);

    struct trace_span span = trace_begin("micro_wait");
    const struct glm_ticket *t = &glm->ticket[ticket];
    glm->tickets_ended++; /* also when the device has failed: nothing more will come */
    if (t->target_count == 0) return ERR_OK;
    TRY(dev_event_sync(glm->dev, t->done));
    glm_widen(nll, t->nll, dtype, t->target_count);
    trace_end(&span);
    return ERR_OK;
}

err_t glm_train_micro(struct glm *glm, const struct glm_batch *batch, const struct glm_grads *grads,
                      double *nll)
{
    int ticket;
    if (glm->tickets_begun != glm->tickets_ended)
        RAISE(ARG, "%lld micro-batches are in flight; end them first",
              (long long)(glm->tickets_begun - glm->tickets_ended));
    TRY(glm_train_begin(glm, &ticket, batch, grads));
    return glm_train_end(glm, ticket, nll);
}
