#include "train/zero.h"

#include "base/check.h"
#include "base/num.h"

#include <stdlib.h>
#include <string.h>

err_t zero_check_lanes(int64_t lane_count, int64_t ranks)
{
    if (lane_count % ranks == 0) return ERR_OK;
    RAISE(USAGE,
          "batch.lanes is %lld and there are %lld ranks, which cannot share them evenly; use a "
          "number of ranks that divides %lld, or for a new run a batch.lanes that %lld divides",
          (long long)lane_count, (long long)ranks, (long long)lane_count, (long long)ranks);
}

static void owned(const void *context, int64_t row, int64_t *first, int64_t *count)
{
    const struct zero *z = context;
    owner_row(first, count, &z->owner, z->target.params, row, z->rank);
}

/* ---- life cycle ---- */

err_t zero_open(struct zero *z, struct comm *comm, int stage, int64_t lane_count)
{
    *z = (struct zero){ .size = 1, .lane_end = lane_count, .unit_next = -1 };
    ASSERT(stage >= 0 && stage <= ZERO_STAGE_MAX);
    if (comm == NULL || comm_size(comm) == 1) return ERR_OK;
    z->comm = comm;
    z->ckpt = (struct ckpt_ranks){ .comm = comm, .owned = owned, .context = z };
    z->stage = stage;
    z->rank = comm_rank(comm);
    z->size = comm_size(comm);
    TRY(zero_check_lanes(lane_count, z->size));
    z->lane_first = z->rank * (lane_count / z->size);
    z->lane_end = z->lane_first + lane_count / z->size;
    return ERR_OK;
}

err_t zero_attach(struct zero *z, struct glm *glm, struct lanes *lanes, int64_t lane_count)
{
    z->glm = glm;
    z->lanes = lanes;
    z->target = optim_target_of(glm);
    if (z->comm == NULL) return ERR_OK;
    TRY(owner_create(&z->owner, glm_params(glm), glm_layout(glm), z->size));
    if (z->stage >= 1) {
        z->target.owner = &z->owner;
        z->target.comm = z->comm;
    }
    return exchange_open(&z->exchange, &(struct exchange_args){ .dev = glm_dev(glm),
                                                                .comm = z->comm,
                                                                .owner = &z->owner,
                                                                .layout = glm_layout(glm),
                                                                .lane_count = lane_count,
                                                                .dtype = glm_grad_dtype(glm) });
}

void zero_close(struct zero *z)
{
    exchange_close(&z->exchange);
    owner_clear(&z->owner);
    free(z->gathered);
    memset(z, 0, sizeof *z);
}

/* ---- gradients ---- */

void zero_begin(struct zero *z, int64_t step)
{
    if (z->comm == NULL) return;
    z->unit_next = z->owner.unit_count - 1;
    comm_note(z->comm, step, "compute");
}

static void note(struct zero *z, const char *phase)
{
    struct comm_activity now;
    comm_activity(z->comm, &now);
    comm_note(z->comm, now.step, phase);
}

/* In the order of a backward pass: the same on every rank, whenever each unit is ready. */
static err_t send_next(struct zero *z)
{
    return exchange_unit(&z->exchange, z->lanes->buffer, z->unit_next--);
}

static err_t unit_done(void *context, int64_t unit)
{
    struct zero *z = context;
    ASSERT(unit == z->unit_next);
    comm_progress(z->comm);
    return send_next(z);
}

void zero_hooks(struct zero *z, struct glm_grads *grads)
{
    if (z->comm == NULL || z->stage < 2 || z->lane_end - z->lane_first > 1) return;
    grads->unit_done = unit_done;
    grads->context = z;
}

err_t zero_sum(struct zero *z, struct tensor *grads)
{
    if (z->comm == NULL) return lanes_sum(z->lanes, grads);
    note(z, "exchange");
    while (z->unit_next >= 0) TRY(send_next(z));
    TRY(exchange_finish(&z->exchange));
    *grads = z->lanes->buffer[0];
    lanes_reset(z->lanes);
    return z->stage == 0 ? exchange_spread(&z->exchange, grads) : ERR_OK;
}

err_t zero_spread_weights(struct zero *z)
{
    if (z->comm == NULL || z->stage == 0) return ERR_OK;
    note(z, "spread weights");
    return exchange_spread(&z->exchange, &z->target.weights);
}

/* ---- checkpoints ---- */

const struct ckpt_ranks *zero_ckpt(const struct zero *z) { return z->comm ? &z->ckpt : NULL; }

const struct ckpt_ranks *zero_ckpt_loading(const struct zero *z)
{
    return z->stage > 0 ? zero_ckpt(z) : NULL;
}

err_t zero_loaded(struct zero *z)
{
    (void)z;
    return ERR_OK;
}

/* ---- scalars ---- */

err_t zero_sum_losses(struct zero *z, double *values, int64_t count)
{
    if (z->comm == NULL) return ERR_OK;
    if (count > z->gathered_capacity) {
        free(z->gathered);
        z->gathered_capacity = 0;
        z->gathered = malloc((size_t)(count * z->size) * sizeof *z->gathered);
        if (z->gathered == NULL)
            RAISE(NOMEM, "losses of %lld samples on %lld ranks: no memory", (long long)count,
                  (long long)z->size);
        z->gathered_capacity = count;
    }
    TRY(comm_gather_host(z->comm, z->gathered, values, count * (int64_t)sizeof *values));
    for (int64_t i = 0; i < count; i++) {
        values[i] = 0.0;
        for (int64_t r = 0; r < z->size; r++) values[i] += z->gathered[r * count + i];
    }
    return ERR_OK;
}

err_t zero_any(struct zero *z, bool *flag)
{
    double value = *flag ? 1.0 : 0.0;
    if (z->comm == NULL) return ERR_OK;
    TRY(zero_sum_losses(z, &value, 1));
    *flag = value > 0.0;
    return ERR_OK;
}
