/* Micro-batches with gradients: queued by begin, waited for by end. */
#include "model/glm.h"

#include "base/trace.h"
#include "model/glm_impl.h"

err_t glm_tickets_open(struct glm *glm)
{
    const int64_t image_bytes = glm->plan.class_bytes[GLM_BUF_BATCH];
    ASSERT(glm->plan.host_bytes == GLM_TICKETS * image_bytes);
    for (int i = 0; i < GLM_TICKETS; i++) {
        struct glm_ticket *ticket = &glm->ticket[i];
        void *image;
        TRY(dev_host_alloc(glm->dev, &image, image_bytes, "micro-batch in flight"));
        ticket->image = image;
        TRY(dev_event_create(glm->dev, &ticket->done));
    }
    return ERR_OK;
}

/* Failures of the device concern nobody at this point. */
static void wait_for_all(struct glm *glm)
{
    const err_t rc = dev_sync(glm->dev);
    (void)rc;
}

void glm_tickets_close(struct glm *glm)
{
    if (glm->tickets_begun > glm->tickets_ended) wait_for_all(glm);
    for (int i = 0; i < GLM_TICKETS; i++) {
        dev_event_destroy(glm->dev, glm->ticket[i].done);
        dev_host_free(glm->dev, glm->ticket[i].image);
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

/* The losses' place in a ticket's image. */
static void *losses(const struct glm *glm, const struct glm_ticket *ticket)
{
    return ticket->image + glm->plan.buffer[GLM_B_NLL].offset;
}

/* Everything up to the losses on their way to the host. */
static err_t queue_micro(struct glm *glm, struct glm_ticket *ticket, const struct glm_batch *batch,
                         const struct glm_grads *grads)
{
    struct glm_pass p = glm_pass_begin(glm, PASS_BATCH, batch->rows);
    p.grads = grads;
    p.ticket = ticket;
    TRY(glm_upload_batch(&p, batch, true));
    TRY(glm_forward(&p));
    TRY(glm_loss_backward(&p));
    TRY(dev_copy(glm->dev, DEV_COMPUTE, losses(glm, ticket), p.nll.data,
                 tensor_count(&p.nll) * dtype_bytes(p.nll.dtype)));
    return dev_event_record(glm->dev, ticket->done, DEV_COMPUTE);
}

/* The same under a span; after a failure nothing is left on its way from or to the image. */
static err_t run_micro(struct glm *glm, struct glm_ticket *ticket, const struct glm_batch *batch,
                       const struct glm_grads *grads)
{
    struct trace_span span = dev_span_begin(glm->dev, "micro_batch");
    const err_t rc = queue_micro(glm, ticket, batch, grads);
    dev_span_end(glm->dev, &span);
    if (rc == ERR_OK) return ERR_OK;
    const struct err_record first = *err_last();
    wait_for_all(glm);
    return err_adopt(&first);
}

err_t glm_train_begin(struct glm *glm, int *ticket, const struct glm_batch *batch,
                      const struct glm_grads *grads)
{
    const int index = (int)(glm->tickets_begun % GLM_TICKETS);
    *ticket = -1;
    TRY(glm_check_batch(glm, batch, true));
    TRY(check_grads(glm, grads));
    if (glm->tickets_begun - glm->tickets_ended >= GLM_TICKETS)
        RAISE(ARG, "%d micro-batches are in flight; end one before the next begins", GLM_TICKETS);

    glm->ticket[index].target_count = batch->target_count;
    if (batch->target_count > 0) /* else nothing is trained, nothing added */
        TRY(run_micro(glm, &glm->ticket[index], batch, grads));
    glm->tickets_begun++;
    *ticket = index;
    return ERR_OK;
}

err_t glm_train_end(struct glm *glm, int ticket, double *nll)
{
    const int oldest = (int)(glm->tickets_ended % GLM_TICKETS);
    const dtype_t dtype = dtype_accumulator(glm->options.dtype);
    if (glm->tickets_begun == glm->tickets_ended || ticket != oldest)
        RAISE(ARG, "ticket %d is not the oldest micro-batch in flight", ticket);

    const struct glm_ticket *t = &glm->ticket[ticket];
    glm->tickets_ended++; /* also when the device has failed: nothing more will come */
    if (t->target_count == 0) return ERR_OK;
    struct trace_span span = trace_begin("wait_for_losses"); /* of the host: the device is busy */
    const err_t rc = dev_event_sync(glm->dev, t->done);
    trace_end(&span);
    TRY(rc);
    glm_widen(nll, losses(glm, t), dtype, t->target_count);
    return ERR_OK;
}
