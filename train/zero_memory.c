/* How much memory a rank takes at each stage, and the lowest stage that fits. */
#include "train/zero_memory.h"

#include "base/check.h"
#include "train/exchange.h"
#include "train/lanes.h"
#include "train/zero.h"

#include <stdlib.h>

static struct glm_options options_of(const struct owner_table *table, const struct zero_need *need,
                                     int stage, int64_t rank)
{
    struct glm_options options = *need->options;
    options.weights_fetched = stage == 3;
    options.weight_extra = stage == 3 ? zero_fetch_extra(&table->owner, rank) : 0;
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

static dtype_t grad_dtype(const struct glm_options *o)
{
    return o->grad_dtype != DTYPE_F32 ? o->grad_dtype : dtype_accumulator(o->dtype);
}

static int64_t inbox_bytes(const struct owner_table *table, const struct zero_need *need,
                           int64_t foreign)
{
    return exchange_bytes(&(struct exchange_args){ .owner = &table->owner,
                                                   .lane_count = need->lane_count,
                                                   .dtype = grad_dtype(need->options) },
                          foreign);
}

/* ---- the rank that takes most ---- */

/* Bytes of the state of an element, nearly: which are coded differs from tensor to tensor. */
static int64_t state_bytes(const struct zero_need *need)
{
    const struct optim_format *f = need->state;
    if (f->place == OPTIM_ON_HOST) return 0;
    return (f->moments == OPTIM_MOMENTS_8BIT ? 2 : 8) + (f->master ? 4 : 0);
}

/* Ranks differ in their buffers of gradients, in the sums that come from others, and in what they
 * own. Who has most buffers may have the fewest sums to take in. Of equals, who owns most. */
static int64_t widest_rank(const struct owner_table *table, const struct zero_need *need, int stage,
                           int64_t size)
{
    const int64_t lanes = need->lane_count;
    const int64_t arena = table->layout.element_count * dtype_bytes(grad_dtype(need->options));
    const int64_t slots = inbox_bytes(table, need, 1);
    const int64_t owned =
        (stage >= 1 ? state_bytes(need) : 0) + (stage == 3 ? dtype_bytes(need->options->dtype) : 0);
    int64_t most = -1, most_summed = 0, widest = 0;
    for (int64_t r = 0; r < size; r++) {
        const struct lanes_node its = lanes_of_rank(lanes, r, size);
        const int64_t summed = summed_elements(&table->owner, r);
        const int64_t bytes = lanes_buffers(lanes, its.begin, its.end) * arena -
                              exchange_nodes(lanes, r, size) * slots + summed * owned;
        if (bytes < most || (bytes == most && summed <= most_summed)) continue;
        most = bytes;
        most_summed = summed;
        widest = r;
    }
    return widest;
}

/* ---- what a rank takes ---- */

static err_t add_state(struct zero_memory *m, const struct owner_table *s,
                       const struct zero_need *need, const struct owner *owner, int64_t rank)
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

static void add_gradients(struct zero_memory *m, const struct owner_table *s,
                          const struct zero_need *need, int64_t rank, int64_t size)
{
    const struct lanes_node lanes = lanes_of_rank(need->lane_count, rank, size);
    m->grad_buffers = lanes_buffers(need->lane_count, lanes.begin, lanes.end);
    m->grad_bytes = m->model.grad_bytes * m->grad_buffers;
    m->summed = summed_elements(&s->owner, rank);
    if (size > 1) {
        m->foreign = exchange_foreign(need->lane_count, rank, size);
        m->exchange_bytes = inbox_bytes(s, need, m->foreign);
    }
    m->bytes += m->grad_bytes + m->exchange_bytes;
}

static err_t add_up(struct zero_memory *m, const struct owner_table *s,
                    const struct zero_need *need, struct dev *dev, int stage, int64_t rank,
                    int64_t size)
{
    const struct glm_options options = options_of(s, need, stage, rank);
    *m = (struct zero_memory){ .rank = rank,
                               .parameters = s->params.element_count,
                               .elements = s->layout.element_count };
    TRY(glm_plan_create(&m->model, dev, need->config, &options));
    m->bytes = m->model.bytes;
    add_gradients(m, s, need, rank, size);
    return add_state(m, s, need, stage >= 1 ? &s->owner : NULL, rank);
}

err_t zero_memory(struct zero_memory *out, const struct zero_need *need, struct dev *dev, int stage,
                  int64_t rank, int64_t size)
{
    struct owner_table table;
    const int64_t multiple = glm_vocab_multiple(dev->info.capability);
    ASSERT(need->options->vocab_multiple == 0); /* the device's */
    err_t rc = owner_table_create(&table, need->config, multiple, size);
    if (size == 1) stage = 0;
    if (rc == ERR_OK && rank == ZERO_WIDEST) rank = widest_rank(&table, need, stage, size);
    if (rc == ERR_OK) rc = add_up(out, &table, need, dev, stage, rank, size);
    owner_table_clear(&table);
    return rc;
}

/* ---- the stage ---- */

err_t zero_lowest(int *stage, const struct zero_need *need, struct dev *dev, int64_t rank,
                  int64_t size, int64_t free_bytes)
{
    const double room = (double)free_bytes * (1.0 - ZERO_SPARE);
    struct zero_memory memory;
    *stage = 1;
    if (dev->info.capability == 0) return ERR_OK;
    for (*stage = 0; *stage < ZERO_STAGE_MAX; (*stage)++) {
        TRY(zero_memory(&memory, need, dev, *stage, rank, size));
        if ((double)memory.bytes <= room) break;
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
