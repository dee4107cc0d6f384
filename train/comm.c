#include "train/comm_impl.h"

#include "base/check.h"
#include "base/fault.h"
#include "base/num.h"
#include "base/trace.h"
#include "kernels/backend.h"
#include "kernels/dev.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STAGING_BYTES (INT64_C(1) << 20) /* of comm_gather_host, for all ranks */

static const struct collective {
    const char *name, *fault_site;
} collectives[] = {
    [DEV_ALLTOALLV] = { "alltoallv", "comm.alltoallv" },
    [DEV_ALLGATHERV] = { "allgatherv", "comm.allgatherv" },
    [DEV_BCAST] = { "bcast", "comm.bcast" },
    [DEV_BARRIER] = { "barrier", "comm.barrier" },
};

const char *comm_exchange_name(enum dev_exchange_kind kind)
{
    ASSERT((int)kind >= 0 && kind < COUNT_OF(collectives));
    return collectives[kind].name;
}

/* ---- failing ---- */

err_t comm_check_aborted(const struct comm *comm)
{
    if (atomic_load(&comm->aborted)) RAISE(COMM, "%s", comm->cause);
    return ERR_OK;
}

void comm_abort(struct comm *comm, const char *cause)
{
    if (atomic_exchange(&comm->aborting, 1) != 0) return;
    snprintf(comm->cause, sizeof comm->cause, "%s", cause);
    atomic_store(&comm->aborted, true);
    if (comm->ops->abort != NULL) comm->ops->abort(comm);
}

/* What the backend raised, with what it happened to in front; the communicator is over. */
static err_t fail(struct comm *comm, enum dev_exchange_kind kind)
{
    char text[ERR_TEXT_MAX];
    snprintf(text, sizeof text, "%s", err_last()->text);
    comm_abort(comm, text);
    RAISE(COMM, "%s at step %lld, rank %lld of %lld: %.400s", comm_exchange_name(kind),
          (long long)atomic_load(&comm->step), (long long)comm->rank, (long long)comm->size, text);
}

err_t comm_check_host_memory(const struct comm *comm)
{
    if (comm->dev->backend == NULL || comm->dev->backend->host_memory) return ERR_OK;
    RAISE(UNSUPPORTED, "communicator %s: it is for CPU ranks; %s exchanges memory over nccl",
          comm->ops->kind, comm->dev->info.name);
}

err_t comm_check(struct comm *comm)
{
    TRY(comm_check_aborted(comm));
    return comm->ops->check != NULL ? comm->ops->check(comm) : ERR_OK;
}

/* ---- opening ---- */

static err_t find_backend(const struct comm_ops **out, const char *kind)
{
    static const struct comm_ops *const compiled_in[] = { &comm_self, &comm_shm, &comm_nccl };
    for (int64_t i = 0; i < COUNT_OF(compiled_in); i++) {
        *out = compiled_in[i];
        if (strcmp(kind, (*out)->kind) == 0) return ERR_OK;
    }
    if (strcmp(kind, "mpi") == 0) return comm_load_mpi(out);
    RAISE(USAGE, "communicator \"%s\"; expected self, shm, mpi or nccl", kind);
}

err_t comm_invite(uint8_t blob[COMM_BLOB_BYTES], const char *kind, int64_t size, struct dev *dev)
{
    const struct comm_ops *ops;
    ASSERT(size >= 1 && size <= COMM_SIZE_MAX);
    memset(blob, 0, COMM_BLOB_BYTES);
    TRY(find_backend(&ops, kind));
    return ops->invite != NULL ? ops->invite(blob, size, dev) : ERR_OK;
}

/* Of it, what one rank gathers at once. */
static int64_t staging_part(const struct comm *comm)
{
    return max_i64(STAGING_BYTES / comm->size, 1024);
}

/* Everything a call would otherwise have to allocate. */
static err_t allocate(struct comm *comm)
{
    const int64_t size = comm->size;
    comm->pieces = calloc((size_t)(COMM_REQUESTS_MAX * 2 * size), sizeof *comm->pieces);
    comm->spans = calloc((size_t)size, sizeof *comm->spans);
    if (comm->pieces == NULL || comm->spans == NULL)
        RAISE(NOMEM, "communicator: tables for %lld ranks", (long long)size);
    for (int64_t i = 0; i < COMM_REQUESTS_MAX; i++) {
        comm->slots[i].send = comm->pieces + 2 * i * size;
        comm->slots[i].recv = comm->slots[i].send + size;
    }
    return dev_alloc(comm->dev, &comm->staging, size * staging_part(comm), "communicator staging");
}

static void release(struct comm *comm)
{
    dev_free(comm->dev, comm->staging);
    free(comm->spans);
    free(comm->pieces);
    free(comm);
}

err_t comm_open(struct comm **out, const struct comm_args *args)
{
    const struct comm_ops *ops;
    ASSERT(args->size >= 1 && args->size <= COMM_SIZE_MAX && args->dev != NULL);
    ASSERT(args->rank >= 0 && args->rank < args->size && args->timeout_s > 0);
    ASSERT(args->machine_size == 0 ||
           (args->machine_size > 0 && args->size % args->machine_size == 0));
    *out = NULL;
    TRY(find_backend(&ops, args->kind));
    struct comm *comm = calloc(1, sizeof *comm);
    if (comm == NULL) RAISE(NOMEM, "communicator: %zu bytes wanted", sizeof *comm);
    comm->ops = ops;
    comm->dev = args->dev;
    comm->rank = args->rank;
    comm->size = args->size;
    comm->machine_size = args->machine_size > 0 ? args->machine_size : args->size;
    comm->timeout_s = args->timeout_s;
    atomic_store(&comm->step, -1);
    atomic_store(&comm->waiting_seq, -1);
    atomic_store(&comm->phase, "start");
    atomic_store(&comm->waiting_for, "none");

    err_t rc = fault_point("comm.open");
    if (rc == ERR_OK) rc = allocate(comm);
    if (rc == ERR_OK) rc = ops->open(comm, args);
    if (rc != ERR_OK) {
        release(comm);
        return rc;
    }
    rc = comm_barrier(comm);
    if (rc != ERR_OK) {
        comm_close(comm);
        return rc;
    }
    *out = comm;
    return ERR_OK;
}

void comm_close(struct comm *comm)
{
    if (comm == NULL) return;
    comm->ops->close(comm);
    release(comm);
}

int64_t comm_rank(const struct comm *comm) { return comm->rank; }
int64_t comm_size(const struct comm *comm) { return comm->size; }
const char *comm_kind(const struct comm *comm) { return comm->ops->kind; }
struct comm_stats comm_stats(const struct comm *comm) { return comm->stats; }

/* ---- begin and end ---- */

/* The next slot, for the caller to fill and to hand to start(). */
static struct comm_request *take(struct comm *comm, enum dev_exchange_kind kind)
{
    const int64_t seq = atomic_load_explicit(&comm->next_seq, memory_order_relaxed);
    struct comm_request *request = &comm->slots[seq % COMM_REQUESTS_MAX];
    ASSERT(!request->in_use); /* COMM_REQUESTS_MAX begun since, and this one never ended */
    request->seq = seq;
    request->exchange = (struct dev_exchange){
        .kind = kind,
        .send = request->send,
        .recv = request->recv,
    };
    return request;
}

static err_t try_start(struct comm *comm, struct comm_request *request)
{
    TRY(comm_check_aborted(comm));
    TRY(fault_point(collectives[request->exchange.kind].fault_site));
    return comm->ops->begin(comm, request);
}

/* Pieces that go from their owner to their end. */
static void count_straight(struct comm_stats *stats, const struct comm *comm,
                           const struct comm_request *request)
{
    const int64_t machine = comm->rank / comm->machine_size;
    for (int64_t i = 0; i < comm->size; i++) {
        if (i == comm->rank) continue;
        stats->sent_bytes += request->send[i].bytes;
        if (i / comm->machine_size != machine) stats->far_bytes += request->send[i].bytes;
    }
}

/* What ranks of this one's place own, of which it is one, goes from here to the ranks beside it;
 * its own goes to the others of its place as well. NCCL's gather of equal pieces may take another
 * way, of the same bytes in all. */
static void count_two_levels(struct comm_stats *stats, const struct comm *comm,
                             const struct comm_request *request)
{
    const int64_t near = comm->machine_size, machines = comm->size / near;
    const int64_t far_bytes = request->recv[comm->rank].bytes * (machines - 1);
    for (int64_t i = comm->rank % near; i < comm->size; i += near)
        stats->sent_bytes += request->recv[i].bytes * (near - 1);
    stats->sent_bytes += far_bytes;
    stats->far_bytes += far_bytes;
}

static void count(struct comm *comm, const struct comm_request *request)
{
    struct comm_stats *stats = &comm->stats;
    for (int64_t i = 0; i < comm->size; i++) {
        ASSERT(request->send[i].bytes >= 0 && request->recv[i].bytes >= 0);
        if (i != comm->rank) stats->received_bytes += request->recv[i].bytes;
    }
    ASSERT(request->send[comm->rank].bytes == request->recv[comm->rank].bytes);
    if (request->exchange.kind == DEV_ALLGATHERV && comm->ops->two_levels)
        count_two_levels(stats, comm, request);
    else
        count_straight(stats, comm, request);
}

static err_t start(struct comm *comm, struct comm_request **out, struct comm_request *request)
{
    count(comm, request);
    *out = NULL;
    if (try_start(comm, request) != ERR_OK) return fail(comm, request->exchange.kind);
    request->in_use = true;
    atomic_store_explicit(&comm->next_seq, request->seq + 1, memory_order_relaxed);
    *out = request;
    return ERR_OK;
}

static struct dev_piece piece_at(const void *base, struct comm_span span)
{
    ASSERT(span.offset >= 0 && span.bytes >= 0);
    if (span.bytes == 0) return (struct dev_piece){ 0 };
    ASSERT(base != NULL);
    return (struct dev_piece){ (char *)base + span.offset, span.bytes };
}

err_t comm_alltoallv_begin(struct comm *comm, struct comm_request **out,
                           const struct comm_alltoallv_args *args)
{
    struct comm_request *request = take(comm, DEV_ALLTOALLV);
    for (int64_t i = 0; i < comm->size; i++) {
        request->send[i] = piece_at(args->send, args->send_spans[i]);
        request->recv[i] = piece_at(args->recv, args->recv_spans[i]);
    }
    return start(comm, out, request);
}

err_t comm_allgatherv_begin(struct comm *comm, struct comm_request **out,
                            const struct comm_allgatherv_args *args)
{
    struct comm_request *request = take(comm, DEV_ALLGATHERV);
    struct dev_piece mine = piece_at(args->data, args->spans[comm->rank]);
    if (args->send != NULL && mine.bytes > 0) mine.data = (void *)args->send;
    for (int64_t i = 0; i < comm->size; i++) {
        request->send[i] = mine;
        request->recv[i] = piece_at(args->data, args->spans[i]);
    }
    return start(comm, out, request);
}

err_t comm_bcast_begin(struct comm *comm, struct comm_request **out,
                       const struct comm_bcast_args *args)
{
    struct comm_request *request = take(comm, DEV_BCAST);
    const struct dev_piece data = piece_at(args->data, (struct comm_span){ 0, args->bytes });
    ASSERT(args->root >= 0 && args->root < comm->size);
    request->exchange.root = args->root;
    for (int64_t i = 0; i < comm->size; i++) {
        const struct dev_piece none = { 0 };
        request->send[i] = comm->rank == args->root ? data : none;
        request->recv[i] = i == args->root ? data : none;
    }
    return start(comm, out, request);
}

err_t comm_barrier_begin(struct comm *comm, struct comm_request **out)
{
    struct comm_request *request = take(comm, DEV_BARRIER);
    memset(request->send, 0, (size_t)(2 * comm->size) * sizeof *request->send);
    return start(comm, out, request);
}

static err_t try_end(struct comm *comm, struct comm_request *request)
{
    TRY(fault_point("comm.end"));
    return comm->ops->end(comm, request);
}

err_t comm_end(struct comm *comm, struct comm_request **request)
{
    struct comm_request *r = *request;
    if (r == NULL) return ERR_OK;
    ASSERT(r->in_use);
    *request = NULL;
    struct trace_span span = trace_begin(comm_exchange_name(r->exchange.kind));
    atomic_store(&comm->waiting_seq, r->seq);
    atomic_store(&comm->waiting_for, comm_exchange_name(r->exchange.kind));
    const err_t rc = try_end(comm, r);
    if (rc == ERR_OK) {
        atomic_store(&comm->waiting_for, "none");
        atomic_store(&comm->waiting_seq, -1);
    }
    trace_end(&span);
    r->in_use = false;
    return rc == ERR_OK ? ERR_OK : fail(comm, r->exchange.kind);
}

void comm_progress(struct comm *comm)
{
    if (comm->ops->progress != NULL && !atomic_load(&comm->aborted)) comm->ops->progress(comm);
}

err_t comm_alltoallv(struct comm *comm, const struct comm_alltoallv_args *args)
{
    struct comm_request *request;
    TRY(comm_alltoallv_begin(comm, &request, args));
    return comm_end(comm, &request);
}

err_t comm_allgatherv(struct comm *comm, const struct comm_allgatherv_args *args)
{
    struct comm_request *request;
    TRY(comm_allgatherv_begin(comm, &request, args));
    return comm_end(comm, &request);
}

err_t comm_bcast(struct comm *comm, const struct comm_bcast_args *args)
{
    struct comm_request *request;
    TRY(comm_bcast_begin(comm, &request, args));
    return comm_end(comm, &request);
}

err_t comm_barrier(struct comm *comm)
{
    struct comm_request *request;
    TRY(comm_barrier_begin(comm, &request));
    TRY(comm_end(comm, &request));
    return dev_sync(comm->dev);
}

/* ---- host data ---- */

/* Bytes [from, from + count) of everyone's part. */
static err_t gather_chunk(struct comm *comm, char *all, const char *mine, int64_t bytes,
                          int64_t from, int64_t count)
{
    char *staging = comm->staging;
    for (int64_t i = 0; i < comm->size; i++)
        comm->spans[i] = (struct comm_span){ i * count, count };
    TRY(dev_upload(comm->dev, staging + comm->rank * count, mine + from, count));
    TRY(comm_allgatherv(comm,
                        &(struct comm_allgatherv_args){ .data = staging, .spans = comm->spans }));
    if (count == bytes) return dev_download(comm->dev, all, staging, comm->size * count);
    for (int64_t i = 0; i < comm->size; i++)
        TRY(dev_download(comm->dev, all + i * bytes + from, staging + i * count, count));
    return ERR_OK;
}

err_t comm_gather_host(struct comm *comm, void *all, const void *mine, int64_t bytes)
{
    const int64_t part = staging_part(comm);
    ASSERT(bytes >= 0);
    for (int64_t from = 0; from < bytes; from += part)
        TRY(gather_chunk(comm, all, mine, bytes, from, min_i64(part, bytes - from)));
    return ERR_OK;
}

/* ---- activity ---- */

void comm_note(struct comm *comm, int64_t step, const char *phase)
{
    ASSERT(strlen(phase) < COMM_PHASE_MAX);
    atomic_store(&comm->step, step);
    atomic_store(&comm->phase, phase);
    fault_moment(phase);
}

void comm_activity(struct comm *comm, struct comm_activity *out)
{
    *out = (struct comm_activity){
        .step = atomic_load(&comm->step),
        .phase = atomic_load(&comm->phase),
        .collective = atomic_load(&comm->waiting_for),
        .collective_seq = atomic_load(&comm->waiting_seq),
    };
}
