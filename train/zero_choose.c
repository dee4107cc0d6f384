/* How much memory a rank takes at each stage, and the lowest stage that fits. */
#include "train/zero.h"

#include "base/check.h"
#include "model/glm_plan.h"

#include <stdlib.h>

/* A rank's table, and what it owns of it. */
struct sketch {
    struct glm_params params;
    struct glm_layout layout;
    struct owner owner;
};

static err_t sketch_open(struct sketch *s, const struct zero_need *need, const struct dev *dev,
                         int64_t size)
{
    const int64_t wanted = need->options->vocab_multiple;
    const int64_t multiple = wanted ? wanted : glm_vocab_multiple(dev->info.capability);
    TRY(glm_params_create(&s->params, need->config));
    TRY(glm_layout_create(&s->layout, &s->params, need->options->ranks, multiple));
    return owner_create(&s->owner, &s->params, &s->layout, size);
}

static void sketch_close(struct sketch *s)
{
    owner_clear(&s->owner);
    glm_layout_clear(&s->layout);
    glm_params_clear(&s->params);
}

static err_t add_up(int64_t *bytes, const struct sketch *s, const struct zero_need *need,
                    struct dev *dev, int stage, int64_t rank, int64_t size)
{
    struct glm_plan model;
    struct optim_plan state;
    struct glm_options options = *need->options;
    const struct lanes_node lanes = lanes_of_rank(need->lane_count, rank, size);
    options.weights_fetched = stage == 3;
    options.weight_extra = stage == 3 ? zero_fetch_extra(&s->owner, rank) : 0;
    TRY(glm_plan_create(&model, dev, need->config, &options));
    const err_t rc = optim_plan_create_owned(&state, &s->params, need->state,
                                             stage >= 1 ? &s->owner : NULL, rank);
    const int64_t optim_bytes = state.bytes[OPTIM_ON_DEVICE];
    optim_plan_clear(&state);
    TRY(rc);
    const struct exchange_args exchange = {
        .owner = &s->owner,
        .lane_count = need->lane_count,
        .dtype =
            options.grad_dtype != DTYPE_F32 ? options.grad_dtype : dtype_accumulator(options.dtype),
    };
    *bytes = model.bytes + optim_bytes +
             model.grad_bytes * lanes_buffers(need->lane_count, lanes.begin, lanes.end);
    if (size > 1) *bytes += exchange_bytes(&exchange, rank, size);
    return ERR_OK;
}

err_t zero_bytes(int64_t *bytes, const struct zero_need *need, struct dev *dev, int stage,
                 int64_t rank, int64_t size)
{
    struct sketch sketch = { .owner = { 0 } };
    err_t rc = sketch_open(&sketch, need, dev, size);
    if (rc == ERR_OK) rc = add_up(bytes, &sketch, need, dev, stage, rank, size);
    sketch_close(&sketch);
    return rc;
}

/* The same on every rank: that of the one with the least room. */
static err_t agree(int *stage, struct comm *comm)
{
    const int64_t size = comm_size(comm);
    const int64_t mine = *stage;
    int64_t *all = malloc((size_t)size * sizeof *all);
    if (all == NULL) RAISE(NOMEM, "%lld ranks: no memory", (long long)size);
    const err_t rc = comm_gather_host(comm, all, &mine, sizeof mine);
    for (int64_t i = 0; i < size && rc == ERR_OK; i++)
        if (all[i] > *stage) *stage = (int)all[i];
    free(all);
    return rc;
}

err_t zero_choose(int *stage, const struct zero_need *need, struct dev *dev, struct comm *comm)
{
    const double room = (double)dev->info.memory_free_bytes * (1.0 - ZERO_SPARE);
    const int64_t rank = comm_rank(comm), size = comm_size(comm);
    int64_t bytes;
    *stage = 1;
    if (dev->info.capability == 0) return ERR_OK;
    for (*stage = 0; *stage < ZERO_STAGE_MAX; (*stage)++) {
        TRY(zero_bytes(&bytes, need, dev, *stage, rank, size));
        if ((double)bytes <= room) break;
    }
    return agree(stage, comm);
}
