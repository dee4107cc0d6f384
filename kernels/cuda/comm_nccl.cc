/*
 * GPUs of several processes, one each, exchanging memory through NCCL.
 *
 * The communicator is non-blocking: no call of NCCL waits for another rank, it answers "in
 * progress", and we ask again until our own deadline. So neither the caller nor the watchdog's
 * thread can hang in it, and an abort always gets its turn. One lock guards the library.
 *
 * Exchanges run on a stream of their own. An event orders each after what was queued for computing
 * at its begin, another orders what is queued after its end. A gather of equal, adjoining pieces,
 * as the slices of a padded arena are, goes through ncclAllGather, for which NCCL has rings,
 * switches and copy engines. All else goes through grouped sends and receives, gathers in two
 * levels: a group for each, which the stream's order keeps apart without anyone waiting. Every rank
 * must make the same calls: what is chosen by sizes is chosen by sizes that all ranks know.
 */
#include "kernels/cuda/comm_nccl.h"

#include "base/check.h"
#include "base/env.h"
#include "base/fault.h"
#include "base/progress.h"
#include "kernels/cuda/dev_cuda.h"
#include "kernels/cuda/nccl_api.h"

#include <atomic>
#include <dlfcn.h>
#include <mutex>
#include <new>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define SLOTS_MAX  64
#define POLL_S_MIN 20e-6
#define POLL_S_MAX 1e-3

struct slot {
    void *ready, *done; /* events: the data are there; the exchange is over */
    double begun_s;
    enum dev_exchange_kind kind;
    bool running; /* as far as `check` has seen */
};

struct dev_comm {
    struct gpu *gpu;
    struct nccl_api api;
    struct nccl_comm *nccl; /* NULL: aborted */
    int rank, size, machine_size;
    double timeout_s;
    void *stream;
    void *barrier; /* a byte of the device for each rank */
    int64_t slot_count;
    struct slot slots[SLOTS_MAX];
    std::mutex lock;
    std::atomic<bool> aborting;
};

STATIC_ASSERT(sizeof(struct nccl_id) == DEV_COMM_ID_BYTES, "an id of NCCL is what we hand round");

/* ---- the library ---- */

static err_t load_api(struct nccl_api *api)
{
    const char *path = env_get("SOULCHAT_NCCL");
    if (path == NULL) path = "libnccl.so.2";
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        RAISE(UNSUPPORTED,
              "NCCL, which several GPUs need, does not load: %.300s; install libnccl2, "
              "or name the file in SOULCHAT_NCCL",
              dlerror());
    int version = 0;
#define X(type, name, parameters)                                                                  \
    {                                                                                              \
        void *symbol = dlsym(library, #name);                                                      \
        memcpy(&api->name, &symbol, sizeof api->name);                                             \
    }
    NCCL_FUNCTIONS(X)
#undef X
    if (api->ncclGetVersion == NULL || api->ncclGetVersion(&version) != NCCL_SUCCESS ||
        version < NCCL_OLDEST)
        RAISE(UNSUPPORTED, "NCCL %d is too old; %d (2.18.1) or later is needed", version,
              NCCL_OLDEST);
#define X(type, name, parameters)                                                                  \
    if (api->name == NULL) RAISE(UNSUPPORTED, "NCCL %d has no %s", version, #name);
    NCCL_FUNCTIONS(X)
#undef X
    return ERR_OK;
}

static err_t raise_call(const struct nccl_api *api, struct nccl_comm *nccl, const char *call,
                        int result)
{
    const char *last = nccl != NULL ? api->ncclGetLastError(nccl) : NULL;
    RAISE(COMM, "%s: %.100s%s%.200s; NCCL_DEBUG=INFO says more", call,
          api->ncclGetErrorString(result), last != NULL && last[0] != '\0' ? ": " : "",
          last != NULL ? last : "");
}

static void nap(double *seconds)
{
    const struct timespec t = { 0, (long)(*seconds * 1e9) };
    nanosleep(&t, NULL);
    *seconds = *seconds * 2 < POLL_S_MAX ? *seconds * 2 : POLL_S_MAX;
}

/* The end of a call that may still be in progress, with the lock held. */
static err_t settle(struct dev_comm *c, int result, const char *call)
{
    const double deadline_s = time_now_s() + c->timeout_s;
    double nap_s = POLL_S_MIN;
    if (fault_point("nccl.call") != ERR_OK) RAISE(COMM, "%s: injected fault", call);
    while (result == NCCL_IN_PROGRESS) {
        if (c->aborting.load()) RAISE(COMM, "%s: aborted", call);
        if (time_now_s() > deadline_s)
            RAISE(COMM, "%s: still in progress after %g s", call, c->timeout_s);
        nap(&nap_s);
        const int asked = c->api.ncclCommGetAsyncError(c->nccl, &result);
        if (asked != NCCL_SUCCESS) result = asked;
    }
    if (result != NCCL_SUCCESS) return raise_call(&c->api, c->nccl, call, result);
    return ERR_OK;
}

/* ---- exchanges ---- */

/* Whether the pieces have one size, and lie one after the other. */
static bool adjoin(const struct dev_piece *pieces, int size)
{
    const char *base = (const char *)pieces[0].data;
    const int64_t bytes = pieces[0].bytes;
    for (int i = 0; i < size; i++)
        if (pieces[i].bytes != bytes || (const char *)pieces[i].data != base + i * bytes)
            return false;
    return bytes > 0;
}

/* Grouped calls answer as one, at the group's end; the first that fails is the last made. */
struct group {
    struct dev_comm *c;
    int result;
};

static struct group group_start(struct dev_comm *c) { return { c, c->api.ncclGroupStart() }; }

static bool group_has_failed(const struct group *g)
{
    return g->result != NCCL_SUCCESS && g->result != NCCL_IN_PROGRESS;
}

static void group_send(struct group *g, const struct dev_piece *piece, int to)
{
    struct dev_comm *c = g->c;
    if (piece->bytes > 0 && !group_has_failed(g))
        g->result =
            c->api.ncclSend(piece->data, (size_t)piece->bytes, NCCL_UINT8, to, c->nccl, c->stream);
}

static void group_recv(struct group *g, const struct dev_piece *piece, int from)
{
    struct dev_comm *c = g->c;
    if (piece->bytes > 0 && !group_has_failed(g))
        g->result = c->api.ncclRecv(piece->data, (size_t)piece->bytes, NCCL_UINT8, from, c->nccl,
                                    c->stream);
}

static err_t group_end(const struct group *g)
{
    const int ended = g->c->api.ncclGroupEnd(); /* also after a failure: it is the thread's */
    if (group_has_failed(g)) return settle(g->c, g->result, "ncclSend or ncclRecv");
    return settle(g->c, ended, "ncclGroupEnd");
}

/* Pieces that go from their owner to their end; of a gather, the first level. */
static err_t queue_pieces(struct dev_comm *c, const struct dev_exchange *x)
{
    const int near = c->machine_size;
    struct group g = group_start(c);
    for (int i = 0; i < c->size; i++) {
        const struct dev_piece *send = &x->send[i], *recv = &x->recv[i];
        if (i == c->rank && send->data == recv->data) continue;
        if (x->kind == DEV_ALLGATHERV && i / near != c->rank / near && i % near != c->rank % near)
            continue;
        group_send(&g, send, i);
        group_recv(&g, recv, i);
    }
    return group_end(&g);
}

/* The second level of a gather: what came from another machine to the ranks beside this one, and
 * the other way round. */
static err_t queue_passing_on(struct dev_comm *c, const struct dev_exchange *x)
{
    const int near = c->machine_size, first = c->rank - c->rank % near;
    struct group g = group_start(c);
    for (int machine = 0; machine < c->size; machine += near) {
        if (machine == first) continue;
        for (int i = 0; i < near; i++) {
            if (first + i == c->rank) continue;
            group_send(&g, &x->recv[machine + c->rank - first], first + i);
            group_recv(&g, &x->recv[machine + i], first + i);
        }
    }
    return group_end(&g);
}

static err_t queue_exchange(struct dev_comm *c, const struct dev_exchange *x)
{
    const struct nccl_api *api = &c->api;
    const struct dev_piece *own = &x->send[c->rank];
    if (x->kind == DEV_BARRIER)
        return settle(c,
                      api->ncclAllGather((char *)c->barrier + c->rank, c->barrier, 1, NCCL_UINT8,
                                         c->nccl, c->stream),
                      "ncclAllGather");
    if (x->kind == DEV_BCAST) {
        const struct dev_piece *data = c->rank == (int)x->root ? own : &x->recv[x->root];
        if (data->bytes == 0) return ERR_OK;
        return settle(c,
                      api->ncclBroadcast(data->data, data->data, (size_t)data->bytes, NCCL_UINT8,
                                         (int)x->root, c->nccl, c->stream),
                      "ncclBroadcast");
    }
    if (x->kind == DEV_ALLGATHERV && adjoin(x->recv, c->size))
        return settle(c,
                      api->ncclAllGather(own->data, x->recv[0].data, (size_t)own->bytes, NCCL_UINT8,
                                         c->nccl, c->stream),
                      "ncclAllGather");
    TRY(queue_pieces(c, x));
    if (x->kind != DEV_ALLGATHERV || c->machine_size == 1 || c->machine_size == c->size)
        return ERR_OK;
    return queue_passing_on(c, x);
}

static err_t nccl_begin(struct dev_comm *c, int64_t index, const struct dev_exchange *x)
{
    ASSERT(index >= 0 && index < c->slot_count);
    struct slot *slot = &c->slots[index];
    const std::lock_guard<std::mutex> guard(c->lock);
    if (c->nccl == NULL) RAISE(COMM, "aborted");
    TRY(gpu_event_record(c->gpu, slot->ready, DEV_COMPUTE));
    TRY(gpu_stream_wait(c->gpu, slot->ready, c->stream));
    TRY(queue_exchange(c, x));
    TRY(gpu_stream_record(c->gpu, slot->done, c->stream));
    slot->kind = x->kind;
    slot->begun_s = time_now_s();
    slot->running = true;
    return ERR_OK;
}

static err_t nccl_end(struct dev_comm *c, int64_t index)
{
    ASSERT(index >= 0 && index < c->slot_count);
    return gpu_event_wait(c->gpu, c->slots[index].done, DEV_COMPUTE);
}

/* ---- from any thread ---- */

static err_t check_slots(struct dev_comm *c)
{
    static const char *const names[] = { "alltoallv", "allgatherv", "bcast", "barrier" };
    const double now_s = time_now_s();
    for (int64_t i = 0; i < c->slot_count; i++) {
        struct slot *slot = &c->slots[i];
        bool done;
        if (!slot->running) continue;
        TRY(gpu_event_done(c->gpu, &done, slot->done));
        slot->running = !done;
        if (!done && now_s - slot->begun_s > c->timeout_s)
            RAISE(COMM, "%s has not ended for %g s", names[slot->kind], c->timeout_s);
    }
    return ERR_OK;
}

static err_t nccl_check(struct dev_comm *c)
{
    /* Whoever holds the lock has a deadline of its own. */
    const std::unique_lock<std::mutex> guard(c->lock, std::try_to_lock);
    if (!guard.owns_lock() || c->nccl == NULL) return ERR_OK;
    int result = NCCL_SUCCESS;
    const int asked = c->api.ncclCommGetAsyncError(c->nccl, &result);
    if (asked != NCCL_SUCCESS) result = asked;
    if (result != NCCL_SUCCESS && result != NCCL_IN_PROGRESS)
        return raise_call(&c->api, c->nccl, "NCCL", result);
    return check_slots(c);
}

static void nccl_abort(struct dev_comm *c)
{
    c->aborting.store(true); /* whoever waits with the lock lets go */
    const std::lock_guard<std::mutex> guard(c->lock);
    if (c->nccl != NULL) (void)c->api.ncclCommAbort(c->nccl);
    c->nccl = NULL;
}

/* ---- opening and closing ---- */

static err_t nccl_invite(uint8_t id[DEV_COMM_ID_BYTES])
{
    struct nccl_api api;
    struct nccl_id nccl_id;
    TRY(load_api(&api));
    const int result = api.ncclGetUniqueId(&nccl_id);
    if (result != NCCL_SUCCESS) return raise_call(&api, NULL, "ncclGetUniqueId", result);
    memcpy(id, &nccl_id, sizeof nccl_id);
    return ERR_OK;
}

static void nccl_close(struct dev_comm *c)
{
    if (c->nccl != NULL) {
        /* Finalising waits for the other ranks; where that fails there is nothing to be saved. */
        if (settle(c, c->api.ncclCommFinalize(c->nccl), "ncclCommFinalize") == ERR_OK)
            (void)c->api.ncclCommDestroy(c->nccl);
        else
            (void)c->api.ncclCommAbort(c->nccl);
    }
    for (int64_t i = 0; i < c->slot_count; i++) {
        if (c->slots[i].ready != NULL) gpu_event_destroy(c->gpu, c->slots[i].ready);
        if (c->slots[i].done != NULL) gpu_event_destroy(c->gpu, c->slots[i].done);
    }
    if (c->barrier != NULL) gpu_free(c->gpu, c->barrier);
    gpu_stream_destroy(c->gpu, c->stream);
    delete c;
}

static err_t open_parts(struct dev_comm *c, const struct dev_comm_args *args)
{
    struct nccl_id id;
    struct nccl_config config = {
        sizeof config,  NCCL_CONFIG_MAGIC, NCCL_OLDEST,    0 /* not blocking */, NCCL_UNDEFINED,
        NCCL_UNDEFINED, NCCL_UNDEFINED,    NULL /* any */, NCCL_UNDEFINED,
    };
    memcpy(&id, args->id, sizeof id);
    TRY(load_api(&c->api));
    TRY(gpu_stream_create(c->gpu, &c->stream));
    TRY(gpu_malloc(c->gpu, &c->barrier, args->size, "communicator nccl"));
    for (int64_t i = 0; i < c->slot_count; i++) {
        TRY(gpu_event_create(c->gpu, &c->slots[i].ready));
        TRY(gpu_event_create(c->gpu, &c->slots[i].done));
    }
    const int result = c->api.ncclCommInitRankConfig(&c->nccl, c->size, id, c->rank, &config);
    const err_t rc = settle(c, result, "ncclCommInitRankConfig");
    if (rc == ERR_OK || c->nccl == NULL) return rc;
    (void)c->api.ncclCommAbort(c->nccl);
    c->nccl = NULL;
    return rc;
}

static err_t nccl_open(struct dev *dev, struct dev_comm **out, const struct dev_comm_args *args)
{
    ASSERT(args->slot_count >= 1 && args->slot_count <= SLOTS_MAX);
    ASSERT(args->machine_size >= 1 && args->size % args->machine_size == 0);
    *out = NULL;
    struct dev_comm *c = new (std::nothrow) dev_comm();
    if (c == NULL) RAISE(NOMEM, "communicator nccl: no memory");
    c->gpu = gpu_of(dev);
    c->rank = (int)args->rank;
    c->size = (int)args->size;
    c->machine_size = (int)args->machine_size;
    c->timeout_s = args->timeout_s;
    c->slot_count = args->slot_count;
    const err_t rc = open_parts(c, args);
    if (rc != ERR_OK) {
        nccl_close(c);
        return rc;
    }
    *out = c;
    return ERR_OK;
}

const struct dev_comm_ops comm_nccl_ops = {
    .name = "nccl",
    .invite = nccl_invite,
    .open = nccl_open,
    .begin = nccl_begin,
    .end = nccl_end,
    .check = nccl_check,
    .abort = nccl_abort,
    .close = nccl_close,
};
