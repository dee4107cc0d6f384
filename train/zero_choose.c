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

static struct glm_options options_of(const struct sketch *s, const struct zero_need *need,
                                     int stage, int64_t rank)
{
    struct glm_options options = *need->options;
    options.weights_fetched = stage == 3;
    options.weight_extra = stage == 3 ? zero_fetch_extra(&s->owner, rank) : 0;
    return options;
}

static int64_t summed_elements(const struct owner *owner, int64_t rank)
{
    int64_t elements = 0;
    for (int64_t unit = 0; unit < owner->unit_count; unit++) {
        const struct owner_share *s = owner_share(owner, unit, rank);
        elements += s->end - s->begin;
    }
    return elements;
}

static err_t add_state(struct zero_memory *m, const struct sketch *s, const struct zero_need *need,
                       const struct owner *owner, int64_t rank)
{
    struct optim_plan plan;
    const err_t rc = optim_plan_create(&plan, &s->params, need->state, owner, rank);
    if (rc == ERR_OK) {
        m->state_bytes = plan.state_bytes;
        m->master_bytes = plan.part_bytes[OPTIM_MASTER];
        m->staging_bytes = 2 * plan.staging_bytes;
        m->sums_bytes = plan.chunk_count * (int64_t)sizeof(double);
        m->optim_host_bytes = plan.bytes[OPTIM_ON_HOST];
        m->bytes += plan.bytes[OPTIM_ON_DEVICE];
        for (int64_t i = 0; i < plan.row_count; i++) m->owned += plan.owned[i].count;
    }
    optim_plan_clear(&plan);
    return rc;
}

static void add_gradients(struct zero_memory *m, const struct sketch *s,
                          const struct zero_need *need, int64_t rank, int64_t size)
{
    const struct glm_options *options = need->options;
    const struct lanes_node lanes = lanes_of_rank(need->lane_count, rank, size);
    const struct exchange_args exchange = {
        .owner = &s->owner,
        .lane_count = need->lane_count,
        .dtype = options->grad_dtype != DTYPE_F32 ? options->grad_dtype
                                                  : dtype_accumulator(options->dtype),
    };
    m->grad_buffers = lanes_buffers(need->lane_count, lanes.begin, lanes.end);
    m->grad_bytes = m->model.grad_bytes * m->grad_buffers;
    m->summed = summed_elements(&s->owner, rank);
    if (size > 1) {
        m->exchange_bytes = exchange_bytes(&exchange, rank, size);
        m->foreign = exchange_foreign(need->lane_count, rank, size);
    }
    m->bytes += m->grad_bytes + m->exchange_bytes;
}

static err_t add_up(struct zero_memory *m, const struct sketch *s, const struct zero_need *need,
                    struct dev *dev, int stage, int64_t rank, int64_t size)
{
    const struct glm_options options = options_of(s, need, stage, rank);
    *m = (struct zero_memory){ .parameters = s->params.element_count,
                               .elements = s->layout.element_count };
    TRY(glm_plan_create(&m->model, dev, need->config, &options));
    m->bytes = m->model.bytes;
    add_gradients(m, s, need, rank, size);
    return add_state(m, s, need, stage >= 1 ? &s->owner : NULL, rank);
}

err_t zero_memory(struct zero_memory *out, const struct zero_need *need, struct dev *dev, int stage,
                  int64_t rank, int64_t size)
{
    struct sketch sketch = { .owner = { 0 } };
    err_t rc = sketch_open(&sketch, need, dev, size);
    if (rc == ERR_OK) rc = add_up(out, &sketch, need, dev, size > 1 ? stage : 0, rank, size);
    sketch_close(&sketch);
    return rc;
}

err_t zero_bytes(int64_t *bytes, const struct zero_need *need, struct dev *dev, int stage,
                 int64_t rank, int64_t size)
{
    struct zero_memory memory;
    TRY(zero_memory(&memory, need, dev, stage, rank, size));
    *bytes = memory.bytes;
    return ERR_OK;
}

err_t zero_widest_rank(int64_t *rank, const struct zero_need *need, const struct dev *dev,
                       int64_t size)
{
    struct sketch sketch = { .owner = { 0 } };
    int64_t most_buffers = 0, most_summed = 0;
    const err_t rc = sketch_open(&sketch, need, dev, size);
    *rank = 0;
    for (int64_t r = 0; r < size && rc == ERR_OK; r++) {
        const struct lanes_node lanes = lanes_of_rank(need->lane_count, r, size);
        const int64_t buffers = lanes_buffers(need->lane_count, lanes.begin, lanes.end);
        const int64_t summed = summed_elements(&sketch.owner, r);
        if (buffers < most_buffers || (buffers == most_buffers && summed <= most_summed)) continue;
        most_buffers = buffers;
        most_summed = summed;
        *rank = r;
    }
    sketch_close(&sketch);
    return rc;
}

err_t zero_lowest(int *stage, const struct zero_need *need, struct dev *dev, int64_t rank,
                  int64_t size, int64_t free_bytes)
{
    const double room = (double)free_bytes * (1.0 - ZERO_SPARE);
    int64_t bytes;
    *stage = 1;
    if (dev->info.capability == 0) return ERR_OK;
    for (*stage = 0; *stage < ZERO_STAGE_MAX; (*stage)++) {
        TRY(zero_bytes(&bytes, need, dev, *stage, rank, size));
        if ((double)bytes <= room) break;
    }
    return ERR_OK;
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
    TRY(zero_lowest(stage, need, dev, comm_rank(comm), comm_size(comm),
                    dev->info.memory_free_bytes));
    return dev->info.capability == 0 ? ERR_OK : agree(stage, comm);
}
