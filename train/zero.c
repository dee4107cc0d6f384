#include "train/zero.h"

#include "base/check.h"
#include "base/num.h"

#include <stdlib.h>
#include <string.h>

err_t zero_check_lanes(int64_t lane_count, int64_t ranks)
{
    if (lane_count >= ranks) return ERR_OK;
    RAISE(USAGE,
          "batch.lanes is %lld and there are %lld ranks: some would have nothing to compute; use "
          "at most %lld ranks, or for a new run batch.lanes: %lld",
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
    *z = (struct zero){
        .size = 1, .lane_count = lane_count, .lane_end = lane_count, .unit_next = -1
    };
    ASSERT(stage >= 0 && stage <= ZERO_STAGE_MAX);
    if (comm == NULL || comm_size(comm) == 1) return ERR_OK;
    z->comm = comm;
    z->ckpt = (struct ckpt_ranks){ .comm = comm, .owned = owned, .context = z };
    z->stage = stage;
    z->rank = comm_rank(comm);
    z->size = comm_size(comm);
    TRY(zero_check_lanes(lane_count, z->size));
    const struct lanes_node mine = lanes_of_rank(lane_count, z->rank, z->size);
    z->lane_first = mine.begin;
    z->lane_end = mine.end;
    return ERR_OK;
}

err_t zero_share_model(struct zero *z, struct glm_options *options, const struct dev *dev,
                       const struct glm_config *config)
{
    struct owner_table table;
    if (z->comm == NULL) return ERR_OK;
    ASSERT(options->vocab_multiple == 0); /* the device's */
    const err_t rc =
        owner_table_create(&table, config, glm_vocab_multiple(dev->info.capability), z->size);
    if (rc == ERR_OK) {
        z->owner = table.owner;
        table.owner = (struct owner){ 0 };
    }
    owner_table_clear(&table);
    if (rc == ERR_OK && z->stage == 3) {
        options->weights_fetched = true;
        options->weight_extra = zero_fetch_extra(&z->owner, z->rank);
    }
    return rc;
}

err_t zero_attach(struct zero *z, struct glm *glm, struct lanes *lanes)
{
    z->glm = glm;
    z->lanes = lanes;
    z->target = optim_target_of(glm);
    if (z->comm == NULL) return ERR_OK;
    if (z->stage >= 1) {
        z->target.owner = &z->owner;
        z->target.comm = z->comm;
    }
    TRY(exchange_open(&z->exchange, &(struct exchange_args){ .dev = glm_dev(glm),
                                                             .comm = z->comm,
                                                             .owner = &z->owner,
                                                             .layout = glm_layout(glm),
                                                             .lane_count = z->lane_count,
                                                             .dtype = glm_grad_dtype(glm) }));
    if (z->stage < 3) return ERR_OK;
    TRY(zero_fetch_open(&z->fetch, glm, &z->exchange));
    z->target.layout = &z->fetch.home;
    z->target.scattered = true;
    return ERR_OK;
}

void zero_close(struct zero *z)
{
    zero_fetch_close(&z->fetch);
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

void zero_note(struct zero *z, const char *phase)
{
    struct comm_activity now;
    if (z->comm == NULL) return;
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
    /* What one rank sends in its backward pass all must send there. */
    if (z->comm == NULL || z->stage < 2 || z->lane_count > z->size) return;
    grads->unit_done = unit_done;
    grads->context = z;
}

static int64_t passes(const struct zero *z, const int64_t *micro_count, int64_t rank)
{
    const struct lanes_node its = lanes_of_rank(z->lane_count, rank, z->size);
    int64_t count = 0;
    for (int64_t lane = its.begin; lane < its.end; lane++) count += micro_count[lane];
    return count;
}

/* With scattered weights every rank takes part in every fetch. Who has fewer passes than others is
 * idle first, so that all send their gradients in the same, last pass. */
err_t zero_idle(struct zero *z, const int64_t *micro_count)
{
    if (z->stage < 3) return ERR_OK;
    const int64_t mine = passes(z, micro_count, z->rank);
    int64_t most = 0;
    for (int64_t r = 0; r < z->size; r++) most = max_i64(most, passes(z, micro_count, r));
    for (int64_t i = mine; i < most; i++) {
        struct glm_grads hooks = { 0 };
        if (mine == 0 && i == most - 1) zero_hooks(z, &hooks);
        TRY(zero_fetch_idle(&z->fetch, true, &hooks));
    }
    return ERR_OK;
}

err_t zero_idle_forward(struct zero *z)
{
    return z->stage == 3 ? zero_fetch_idle(&z->fetch, false, NULL) : ERR_OK;
}

err_t zero_sum(struct zero *z, struct tensor *grads)
{
    if (z->comm == NULL) return lanes_sum(z->lanes, grads);
    zero_note(z, "exchange");
    while (z->unit_next >= 0) TRY(send_next(z));
    TRY(exchange_finish(&z->exchange));
    *grads = z->lanes->buffer[0];
    lanes_reset(z->lanes);
    return z->stage == 0 ? exchange_spread(&z->exchange, grads) : ERR_OK;
}

err_t zero_spread_weights(struct zero *z)
{
    if (z->comm == NULL || z->stage == 0) return ERR_OK;
    zero_note(z, "spread weights");
    if (z->stage == 3) return zero_fetch_renew(&z->fetch);
    return exchange_spread(&z->exchange, &z->target.weights);
}

/* ---- checkpoints ---- */

const struct ckpt_ranks *zero_ckpt(const struct zero *z) { return z->comm ? &z->ckpt : NULL; }

const struct ckpt_ranks *zero_ckpt_loading(const struct zero *z)
{
    return z->stage > 0 ? zero_ckpt(z) : NULL;
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
