#include "train/bench_comm.h"

#include "base/check.h"
#include "base/num.h"
#include "base/progress.h"
#include "base/stop.h"
#include "kernels/ops_optim.h"
#include "train/bench_step.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RING_DEPTH 2 /* units on their way, as pieces in exchange.h */

const char *bench_comm_part_name(enum bench_comm_part part)
{
    static const char *const names[BENCH_COMM_PARTS] = { "move", "tree", "ring", "gather", "add" };
    ASSERT((int)part >= 0 && part < BENCH_COMM_PARTS);
    return names[part];
}

/* ---- life cycle ---- */

static err_t open_arena(struct tensor *out, struct bench_comm *b)
{
    void *data;
    const int64_t elements = b->layout.element_count;
    TRY(dev_alloc(b->dev, &data, elements * (int64_t)sizeof(float), "gradients"));
    *out = tensor_1d(data, DTYPE_F32, elements, "gradients");
    return dev_zero(b->dev, data, elements * (int64_t)sizeof(float));
}

static err_t open_buffers(struct bench_comm *b)
{
    const int64_t size = comm_size(b->ranks->comm);
    int64_t most = 0;
    b->send = calloc((size_t)size, sizeof *b->send);
    b->recv = calloc((size_t)size, sizeof *b->recv);
    b->seconds = calloc((size_t)(BENCH_COMM_PARTS * b->rounds), sizeof *b->seconds);
    if (b->send == NULL || b->recv == NULL || b->seconds == NULL)
        RAISE(NOMEM, "benchmark: no memory for %lld ranks", (long long)size);
    for (int64_t u = 0; u < b->owner.unit_count; u++)
        most = max_i64(most, owner_span_max(&b->owner, u));
    for (int i = 0; i < RING_DEPTH; i++)
        TRY(dev_alloc(b->dev, &b->scratch[i], most * (int64_t)sizeof(float), "slices"));
    TRY(open_arena(&b->grads, b));
    return open_arena(&b->other, b);
}

err_t bench_comm_open(struct bench_comm *b, const struct cfg *cfg)
{
    struct glm_config config;
    struct ranks_place place;
    char own[RANKS_DEVICE_MAX];
    *b = (struct bench_comm){ .rounds = cfg_int(cfg, "bench.steps") };
    TRY(ranks_find(&place));
    if (place.size == 1)
        RAISE(USAGE, "bench comm measures between ranks: start it as several, with "
                     "scripts/launch/node.sh --nproc 2 -- soulchat bench comm, or mpirun");
    TRY(bench_config_from_cfg(&config, cfg));
    TRY(dev_open(&b->dev, ranks_device(own, cfg_str(cfg, "train.device"), &place),
                 (int)cfg_int(cfg, "train.threads")));
    TRY(ranks_join(&b->ranks, &(struct ranks_args){ .place = &place, .dev = b->dev }));
    TRY(glm_params_create(&b->params, &config));
    TRY(glm_layout_create(&b->layout, &b->params, 1, glm_vocab_multiple(b->dev->info.capability)));
    TRY(owner_create(&b->owner, &b->params, &b->layout, place.size));
    TRY(exchange_open(&b->exchange, &(struct exchange_args){ .dev = b->dev,
                                                             .comm = b->ranks->comm,
                                                             .owner = &b->owner,
                                                             .layout = &b->layout,
                                                             .lane_count = place.size,
                                                             .dtype = DTYPE_F32 }));
    return open_buffers(b);
}

err_t bench_comm_close(struct bench_comm *b, err_t rc)
{
    struct ranks *ranks = b->ranks;
    b->ranks = NULL;
    rc = ranks_leave(ranks, rc); /* nothing is under way in what is freed now */
    if (b->dev == NULL) return rc;
    exchange_close(&b->exchange);
    owner_clear(&b->owner);
    glm_layout_clear(&b->layout);
    glm_params_clear(&b->params);
    void *const buffers[] = { b->grads.data, b->other.data, b->scratch[0], b->scratch[1] };
    for (int64_t i = 0; i < COUNT_OF(buffers); i++)
        if (buffers[i] != NULL) dev_free(b->dev, buffers[i]);
    free(b->send);
    free(b->recv);
    free(b->seconds);
    dev_close(b->dev);
    return rc;
}

/* ---- the parts ---- */

/* The span that `rank` owns of a unit, in the arena. */
static struct comm_span span_of(const struct bench_comm *b, int64_t unit, int64_t rank)
{
    const struct owner_share *s = owner_share(&b->owner, unit, rank);
    return (struct comm_span){
        (b->layout.unit_offset[unit] + s->begin) * (int64_t)sizeof(float),
        (s->end - s->begin) * (int64_t)sizeof(float),
    };
}

/* What comes goes into the other arena, which is long enough for a unit; nobody reads it. */
static err_t move(struct bench_comm *b)
{
    struct comm *comm = b->ranks->comm;
    struct comm_request *request[RING_DEPTH] = { NULL };
    const int64_t size = comm_size(comm), me = comm_rank(comm);
    for (int64_t unit = 0; unit < b->owner.unit_count; unit++) {
        struct comm_request **r = &request[unit % RING_DEPTH];
        const struct comm_span mine = span_of(b, unit, me);
        TRY(comm_end(comm, r));
        for (int64_t i = 0; i < size; i++) {
            b->send[i] = i == me ? (struct comm_span){ 0 } : span_of(b, unit, i);
            const int64_t at = (i - (i > me)) * mine.bytes;
            b->recv[i] = i == me ? (struct comm_span){ 0 } : (struct comm_span){ at, mine.bytes };
        }
        TRY(comm_alltoallv_begin(comm, r,
                                 &(struct comm_alltoallv_args){ .recv = b->other.data,
                                                                .recv_spans = b->recv,
                                                                .send = b->grads.data,
                                                                .send_spans = b->send }));
    }
    for (int i = 0; i < RING_DEPTH; i++) TRY(comm_end(comm, &request[i]));
    return ERR_OK;
}

static err_t tree(struct bench_comm *b)
{
    for (int64_t unit = b->owner.unit_count - 1; unit >= 0; unit--)
        TRY(exchange_unit(&b->exchange, &b->grads, unit));
    return exchange_finish(&b->exchange);
}

/* Step `step` of a unit's ring: a slice to the next rank, the one before it from the previous. */
static err_t ring_begin(struct bench_comm *b, struct comm_request **request, int64_t unit,
                        int64_t step, void *inbox)
{
    struct comm *comm = b->ranks->comm;
    const int64_t size = comm_size(comm), me = comm_rank(comm);
    const int64_t next = (me + 1) % size, previous = (me + size - 1) % size;
    memset(b->send, 0, (size_t)size * sizeof *b->send);
    memset(b->recv, 0, (size_t)size * sizeof *b->recv);
    b->send[next] = span_of(b, unit, (me + 2 * size - 1 - step) % size);
    b->recv[previous].bytes = span_of(b, unit, (me + 2 * size - 2 - step) % size).bytes;
    return comm_alltoallv_begin(
        comm, request,
        &(struct comm_alltoallv_args){
            .recv = inbox, .recv_spans = b->recv, .send = b->grads.data, .send_spans = b->send });
}

static err_t ring_end(struct bench_comm *b, struct comm_request **request, int64_t unit,
                      int64_t step, void *inbox)
{
    struct comm *comm = b->ranks->comm;
    const int64_t size = comm_size(comm);
    const struct comm_span span = span_of(b, unit, (comm_rank(comm) + 2 * size - 2 - step) % size);
    const int64_t count = span.bytes / (int64_t)sizeof(float);
    struct tensor sum =
        tensor_1d((char *)b->grads.data + span.offset, DTYPE_F32, count, "gradients");
    const struct tensor came = tensor_1d(inbox, DTYPE_F32, count, "slice");
    TRY(comm_end(comm, request));
    if (count == 0) return ERR_OK;
    return op_add(b->dev, &(struct add_args){ .y_acc = &sum, .x = &came });
}

/* Two units at a time: while the slice of one is added, the other's is on its way. */
static err_t ring(struct bench_comm *b)
{
    const int64_t units = b->owner.unit_count, size = comm_size(b->ranks->comm);
    for (int64_t first = 0; first < units; first += RING_DEPTH) {
        const int64_t count = min_i64(RING_DEPTH, units - first);
        struct comm_request *request[RING_DEPTH] = { NULL };
        for (int64_t i = 0; i < count; i++)
            TRY(ring_begin(b, &request[i], first + i, 0, b->scratch[i]));
        for (int64_t step = 0; step < size - 1; step++)
            for (int64_t i = 0; i < count; i++) {
                TRY(ring_end(b, &request[i], first + i, step, b->scratch[i]));
                if (step < size - 2)
                    TRY(ring_begin(b, &request[i], first + i, step + 1, b->scratch[i]));
            }
    }
    return ERR_OK;
}

static err_t gather(struct bench_comm *b) { return exchange_spread(&b->exchange, &b->grads); }

static err_t add(struct bench_comm *b)
{
    return op_add(b->dev, &(struct add_args){ .y_acc = &b->grads, .x = &b->other });
}

static err_t (*const parts[BENCH_COMM_PARTS])(struct bench_comm *) = {
    [BENCH_COMM_MOVE] = move,     [BENCH_COMM_TREE] = tree, [BENCH_COMM_RING] = ring,
    [BENCH_COMM_GATHER] = gather, [BENCH_COMM_ADD] = add,
};

/* ---- measuring ---- */

/* Together from begin to end. */
static err_t time_part(struct bench_comm *b, double *seconds, enum bench_comm_part part)
{
    struct comm *comm = b->ranks->comm;
    double all[COMM_SIZE_MAX];
    TRY(comm_barrier(comm));
    const double begin_s = time_now_s();
    TRY(parts[part](b));
    TRY(dev_sync(b->dev));
    const double mine_s = time_now_s() - begin_s;
    TRY(comm_gather_host(comm, all, &mine_s, sizeof mine_s));
    *seconds = 0.0;
    for (int64_t i = 0; i < comm_size(comm); i++)
        if (all[i] > *seconds) *seconds = all[i];
    return ERR_OK;
}

static err_t any_stops(bool *out, struct comm *comm)
{
    char all[COMM_SIZE_MAX];
    const char mine = stop_requested();
    TRY(comm_gather_host(comm, all, &mine, sizeof mine));
    *out = memchr(all, true, (size_t)comm_size(comm)) != NULL;
    return ERR_OK;
}

/* Of one part over another, round by round; `into` is overwritten. */
static double median_ratio(double *into, const double *a, const double *b, int64_t count)
{
    for (int64_t i = 0; i < count; i++) into[i] = a[i] / b[i];
    return median_f64(into, count);
}

static double *row(const struct bench_comm *b, enum bench_comm_part part)
{
    return b->seconds + part * b->rounds;
}

static err_t summarise(const struct bench_comm *b, struct bench_comm_result *r)
{
    double *ratios = malloc((size_t)r->rounds * sizeof *ratios);
    if (ratios == NULL) RAISE(NOMEM, "benchmark: %lld rounds", (long long)r->rounds);
    r->tree_over_ring =
        median_ratio(ratios, row(b, BENCH_COMM_TREE), row(b, BENCH_COMM_RING), r->rounds);
    r->tree_over_move =
        median_ratio(ratios, row(b, BENCH_COMM_TREE), row(b, BENCH_COMM_MOVE), r->rounds);
    free(ratios);
    for (int part = 0; part < BENCH_COMM_PARTS; part++)
        r->seconds[part] = median_f64(row(b, (enum bench_comm_part)part), r->rounds);
    r->bytes_per_s = (double)r->sent_bytes / r->seconds[BENCH_COMM_MOVE];
    return ERR_OK;
}

err_t bench_comm_measure(struct bench_comm *b, struct bench_comm_result *r)
{
    const struct comm *comm = b->ranks->comm;
    *r = (struct bench_comm_result){ .elements = b->layout.element_count };
    for (int part = 0; part < BENCH_COMM_PARTS; part++) {
        const int64_t before = comm_stats(comm).sent_bytes;
        TRY(parts[part](b));
        if (part == BENCH_COMM_MOVE) r->sent_bytes = comm_stats(comm).sent_bytes - before;
    }
    for (; r->rounds < b->rounds; r->rounds++) {
        bool stop;
        TRY(any_stops(&stop, b->ranks->comm));
        if (stop) break;
        for (int part = 0; part < BENCH_COMM_PARTS; part++)
            TRY(time_part(b, &row(b, (enum bench_comm_part)part)[r->rounds],
                          (enum bench_comm_part)part));
    }
    if (r->rounds == 0) RAISE(INTERRUPTED, "stopped before a round was measured");
    return summarise(b, r);
}
