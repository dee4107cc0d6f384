#include "lazy_dev.h"

#include "testing.h"

#include "base/check.h"
#include "base/rng.h"
#include "kernels/ops_attn.h"
#include "kernels/ops_embed.h"
#include "kernels/ops_linear.h"
#include "kernels/ops_loss.h"
#include "kernels/ops_norm.h"
#include "kernels/ops_optim.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCKS_MAX = 256, TENSORS = 9 };

/* A deferred update: everything that its arguments point to. */
struct call {
    struct adamw_segments_args args;
    struct tensor tensor[TENSORS];
    struct adamw_segment *segments;
};

enum kind { COPY, UPDATE, WAIT };

struct entry {
    enum kind kind;
    void *to;
    const void *from;
    int64_t bytes;
    struct call *call;
    enum dev_queue other; /* WAIT: until this many entries of that queue are done */
    int64_t position;
    bool fails;
    int64_t queued_at; /* on the clock */
};

struct queue {
    struct entry *entry;
    int64_t count, done, capacity;
};

struct dev_event {
    bool recorded;
    enum dev_queue queue;
    int64_t position;
};

struct block {
    char *data;
    int64_t bytes;
    bool on_host;
};

struct lazy {
    struct ops_table table;
    struct queue queue[DEV_QUEUES];
    struct block block[BLOCKS_MAX];
    uint64_t seed, draws;
    int64_t clock, late;
    bool deaf[DEV_QUEUES];
    int64_t fail_in;   /* queued operations until the one that fails; 0: none does */
    struct dev memory; /* plain host memory, which blocks are taken from */
};

static struct lazy *lazy_of(struct dev *dev) { return dev->state; }

/* ---- running what is queued ---- */

static err_t run_to(struct dev *dev, enum dev_queue queue, int64_t position);

static void free_call(struct call *c)
{
    if (c != NULL) free(c->segments);
    free(c);
}

static err_t run_entry(struct dev *dev, struct entry *e)
{
    struct lazy *l = lazy_of(dev);
    err_t rc = ERR_OK;
    if (e->kind == WAIT) return run_to(dev, e->other, e->position);
    if (l->clock > e->queued_at) l->late++;
    if (e->kind == COPY && !e->fails) memmove(e->to, e->from, (size_t)e->bytes);
    if (e->kind == UPDATE && !e->fails) rc = ops_cpu.adamw_segments(dev, &e->call->args);
    free_call(e->call);
    if (e->fails) RAISE(CUDA, "an operation queued earlier failed");
    return rc;
}

static err_t run_to(struct dev *dev, enum dev_queue which, int64_t position)
{
    struct queue *q = &lazy_of(dev)->queue[which];
    while (q->done < position) {
        struct entry e = q->entry[q->done];
        q->done++;
        TRY(run_entry(dev, &e));
    }
    return ERR_OK;
}

static err_t run_all(struct dev *dev, enum dev_queue which)
{
    return run_to(dev, which, lazy_of(dev)->queue[which].count);
}

/* Perhaps do something early: the next entry of some queue, and what it waits for. */
static err_t run_some(struct dev *dev)
{
    struct lazy *l = lazy_of(dev);
    if (l->seed == 0) return ERR_OK;
    for (int i = 0; i < 2; i++) {
        const uint64_t bits = rng_u64(l->seed, RNG_TEST, l->draws++);
        const enum dev_queue which = (enum dev_queue)(bits % DEV_QUEUES);
        const struct queue *q = &l->queue[which];
        if ((bits >> 8) % 3 == 0 && q->done < q->count) TRY(run_to(dev, which, q->done + 1));
    }
    return ERR_OK;
}

static err_t enqueue(struct dev *dev, enum dev_queue which, struct entry e)
{
    struct lazy *l = lazy_of(dev);
    struct queue *q = &l->queue[which];
    if (q->count == q->capacity) {
        q->capacity = 2 * q->capacity + 64;
        q->entry = realloc(q->entry, (size_t)q->capacity * sizeof *q->entry);
        ASSERT(q->entry != NULL);
    }
    e.fails = e.kind != WAIT && l->fail_in > 0 && --l->fail_in == 0;
    e.queued_at = ++l->clock;
    q->entry[q->count++] = e;
    return run_some(dev);
}

/* ---- operators ---- */

static err_t lazy_update(struct dev *dev, const struct adamw_segments_args *a)
{
    struct call *c = calloc(1, sizeof *c);
    ASSERT(c != NULL);
    c->args = *a;
    struct tensor **place[] = { &c->args.weight,         &c->args.master,
                                &c->args.exp_avg,        &c->args.exp_avg_sq,
                                &c->args.exp_avg_codes,  &c->args.exp_avg_sq_codes,
                                &c->args.exp_avg_absmax, &c->args.exp_avg_sq_absmax };
    for (int64_t i = 0; i < COUNT_OF(place); i++) {
        if (*place[i] == NULL) continue;
        c->tensor[i] = **place[i];
        *place[i] = &c->tensor[i];
    }
    c->tensor[COUNT_OF(place)] = *a->grad;
    c->args.grad = &c->tensor[COUNT_OF(place)];
    const size_t bytes = (size_t)a->segment_count * sizeof *c->segments;
    c->segments = malloc(bytes + 1);
    ASSERT(c->segments != NULL);
    memcpy(c->segments, a->segments, bytes);
    c->args.segments = c->segments;
    return enqueue(dev, DEV_COMPUTE, (struct entry){ .kind = UPDATE, .call = c });
}

#define X(op)                                                                                      \
    static err_t at_once_##op(struct dev *dev, const struct op##_args *args)                       \
    {                                                                                              \
        TRY(run_all(dev, DEV_COMPUTE));                                                            \
        return ops_cpu.op(dev, args);                                                              \
    }
OPS_LIST(X)
#undef X

/* ---- memory ---- */

static const struct block *block_of(const struct lazy *l, const void *data, int64_t bytes)
{
    for (int i = 0; i < BLOCKS_MAX; i++) {
        const struct block *b = &l->block[i];
        const char *at = data;
        if (b->data != NULL && at >= b->data && at + bytes <= b->data + b->bytes) return b;
    }
    return NULL;
}

static void remember(struct lazy *l, void *data, int64_t bytes, bool on_host)
{
    int i = 0;
    while (i < BLOCKS_MAX && l->block[i].data != NULL) i++;
    ASSERT(i < BLOCKS_MAX);
    l->block[i] = (struct block){ data, bytes, on_host };
}

static bool touches(const struct entry *e, const struct block *b)
{
    const char *to = e->to, *from = e->from;
    if (e->kind == WAIT) return false;
    if (e->kind == UPDATE) return true; /* of any memory: nothing is freed under an update */
    return (to >= b->data && to < b->data + b->bytes) ||
           (from >= b->data && from < b->data + b->bytes);
}

static void forget(struct lazy *l, const void *data)
{
    for (int i = 0; i < BLOCKS_MAX; i++) {
        if (l->block[i].data != data) continue;
        for (int q = 0; q < DEV_QUEUES; q++)
            for (int64_t e = l->queue[q].done; e < l->queue[q].count; e++)
                if (touches(&l->queue[q].entry[e], &l->block[i]))
                    fail_msg("memory is freed under queued work");
        l->block[i].data = NULL;
        return;
    }
    fail_msg("memory of another device is freed");
}

static err_t lazy_alloc(struct dev *dev, void **out, int64_t bytes, const char *what)
{
    struct lazy *l = lazy_of(dev);
    TRY(dev_alloc(&l->memory, out, bytes, what));
    remember(l, *out, bytes, false);
    dev->stats = l->memory.stats;
    return ERR_OK;
}

static void lazy_free(struct dev *dev, void *data)
{
    forget(lazy_of(dev), data);
    dev_free(&lazy_of(dev)->memory, data);
    dev->stats = lazy_of(dev)->memory.stats;
}

static err_t lazy_host_alloc(struct dev *dev, void **out, int64_t bytes, const char *what)
{
    TRY(dev_host_alloc(&lazy_of(dev)->memory, out, bytes, what));
    remember(lazy_of(dev), *out, bytes, true);
    return ERR_OK;
}

static void lazy_host_free(struct dev *dev, void *data)
{
    forget(lazy_of(dev), data);
    dev_host_free(&lazy_of(dev)->memory, data);
}

static err_t lazy_transfer(struct dev *dev, void *to, const void *from, int64_t bytes)
{
    TRY(run_all(dev, DEV_COMPUTE));
    if (bytes > 0) memcpy(to, from, (size_t)bytes);
    return ERR_OK;
}

static err_t lazy_copy(struct dev *dev, enum dev_queue queue, void *to, const void *from,
                       int64_t bytes)
{
    const struct block *a = block_of(lazy_of(dev), to, bytes);
    const struct block *b = block_of(lazy_of(dev), from, bytes);
    if (a == NULL || b == NULL) fail_msg("a copy touches memory that was not allocated for it");
    if (a->on_host && b->on_host) fail_msg("a copy from host to host");
    return enqueue(dev, queue,
                   (struct entry){ .kind = COPY, .to = to, .from = from, .bytes = bytes });
}

static err_t lazy_zero(struct dev *dev, void *data, int64_t bytes)
{
    TRY(run_all(dev, DEV_COMPUTE));
    memset(data, 0, (size_t)bytes);
    return ERR_OK;
}

static err_t lazy_sync(struct dev *dev)
{
    for (int q = 0; q < DEV_QUEUES; q++) TRY(run_all(dev, (enum dev_queue)q));
    return ERR_OK;
}

static err_t lazy_event_create(struct dev *dev, struct dev_event **out)
{
    (void)dev;
    *out = calloc(1, sizeof **out);
    ASSERT(*out != NULL);
    return ERR_OK;
}

static void lazy_event_destroy(struct dev *dev, struct dev_event *event)
{
    (void)dev;
    free(event);
}

static err_t lazy_event_record(struct dev *dev, struct dev_event *event, enum dev_queue queue)
{
    *event = (struct dev_event){ true, queue, lazy_of(dev)->queue[queue].count };
    return ERR_OK;
}

static err_t lazy_event_wait(struct dev *dev, struct dev_event *event, enum dev_queue queue)
{
    if (!event->recorded || lazy_of(dev)->deaf[queue]) return ERR_OK;
    return enqueue(
        dev, queue,
        (struct entry){ .kind = WAIT, .other = event->queue, .position = event->position });
}

static err_t lazy_event_sync(struct dev *dev, struct dev_event *event)
{
    return event->recorded ? run_to(dev, event->queue, event->position) : ERR_OK;
}

static const struct dev_memory lazy_memory = {
    .alloc = lazy_alloc,
    .free = lazy_free,
    .host_alloc = lazy_host_alloc,
    .host_free = lazy_host_free,
    .upload = lazy_transfer,
    .download = lazy_transfer,
    .copy = lazy_copy,
    .zero = lazy_zero,
    .sync = lazy_sync,
    .event_create = lazy_event_create,
    .event_destroy = lazy_event_destroy,
    .event_record = lazy_event_record,
    .event_wait = lazy_event_wait,
    .event_sync = lazy_event_sync,
};

/* ---- life cycle ---- */

struct dev *lazy_dev_open(uint64_t seed)
{
    struct dev *dev = calloc(1, sizeof *dev);
    struct lazy *l = calloc(1, sizeof *l);
    assert_true(dev != NULL && l != NULL);
    l->seed = seed;
    l->table = ops_cpu;
    l->table.name = "lazy";
#define X(op) l->table.op = at_once_##op;
    OPS_LIST(X)
#undef X
    l->table.adamw_segments = lazy_update;
    dev_init_host(&l->memory, &ops_cpu, 1);
    dev_init_host(dev, &l->table, 1);
    dev->memory = &lazy_memory;
    dev->state = l;
    return dev;
}

void lazy_dev_close(struct dev *dev)
{
    struct lazy *l = lazy_of(dev);
    assert_int_equal(l->memory.stats.alloc_bytes, 0);
    for (int i = 0; i < BLOCKS_MAX; i++) assert_null(l->block[i].data);
    for (int q = 0; q < DEV_QUEUES; q++) {
        for (int64_t e = l->queue[q].done; e < l->queue[q].count; e++)
            free_call(l->queue[q].entry[e].call);
        free(l->queue[q].entry);
    }
    free(l);
    free(dev);
}

bool lazy_dev_is(const struct dev *dev) { return dev->memory == &lazy_memory; }

int64_t lazy_dev_late(const struct dev *dev) { return ((const struct lazy *)dev->state)->late; }

void lazy_dev_deafen(struct dev *dev, enum dev_queue queue) { lazy_of(dev)->deaf[queue] = true; }

void lazy_dev_fail(struct dev *dev, int64_t n) { lazy_of(dev)->fail_in = n; }
