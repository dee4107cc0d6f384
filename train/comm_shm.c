/*
 * Ranks of one machine. A thread of its own moves bytes through the rings of comm_ring.h, so that
 * exchanges go on while the ranks compute.
 *
 * Between two ranks everything is one stream in each direction: for each exchange, in order, a
 * header and the piece's bytes. The header is checked, so ranks that call different collectives get
 * an error instead of each other's bytes.
 */
#include "train/comm_impl.h"

#include "base/check.h"
#include "base/num.h"
#include "base/progress.h"
#include "base/trace.h"
#include "train/comm_ring.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CHUNK_BYTES (INT64_C(256) << 10) /* the peer may start on so much */
#define NAP_S       0.2                  /* between looks at the deadline */
#define TRACK_LINK  2                    /* of a trace: exchanges, one after the other */

struct header {
    int64_t kind, seq, bytes;
};

/* One direction of one peer: which exchange it is at, and how far. */
struct stream {
    int64_t seq, done;
    bool header_done;
};

struct shm {
    struct comm *comm;
    struct ring_map map;
    int invited_fd; /* rank 0's own, which the others open; -1 */
    bool running;   /* the thread is to be joined; only the caller's thread looks */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;

    struct stream *sending, *receiving; /* [size], the thread's */
    int64_t own_seq;                    /* the thread's: own pieces copied so far */
    int64_t left[COMM_REQUESTS_MAX];    /* pieces to go; set before the request is published */
    double begun_s[COMM_REQUESTS_MAX];  /* likewise */
    double link_s;                      /* the thread's: the last exchange was done */

    _Atomic int64_t published; /* exchanges begun */
    _Atomic int64_t moved;     /* pieces of data so far, for the deadline */
    atomic_bool closing;
    /* under the lock */
    bool done[COMM_REQUESTS_MAX];
    bool gone; /* the thread touches no buffer any more */
    char cause[COMM_CAUSE_MAX];
};

/* ---- the thread ---- */

static struct comm_request *request_at(struct shm *shm, int64_t seq)
{
    return &shm->comm->slots[seq % COMM_REQUESTS_MAX];
}

/* An exchange takes the links from its begin, or from where the one before it left them. */
static void trace_exchange(struct shm *shm, int64_t slot)
{
    if (!trace_is_on()) return;
    const double now_s = time_now_s();
    trace_write(TRACK_LINK, comm_exchange_name(shm->comm->slots[slot].exchange.kind),
                fmax(shm->begun_s[slot], shm->link_s), now_s);
    shm->link_s = now_s;
}

static void piece_done(struct shm *shm, int64_t seq)
{
    const int64_t slot = seq % COMM_REQUESTS_MAX;
    atomic_fetch_add(&shm->moved, 1);
    if (--shm->left[slot] > 0) return;
    trace_exchange(shm, slot);
    pthread_mutex_lock(&shm->lock);
    shm->done[slot] = true;
    pthread_cond_broadcast(&shm->changed);
    pthread_mutex_unlock(&shm->lock);
}

/* One's own piece of the next exchange. */
static bool copy_own(struct shm *shm)
{
    if (shm->own_seq >= atomic_load(&shm->published)) return false;
    const struct comm_request *r = request_at(shm, shm->own_seq);
    const struct dev_piece *from = &r->send[shm->comm->rank], *to = &r->recv[shm->comm->rank];
    if (from->bytes > 0 && from->data != to->data)
        memcpy(to->data, from->data, (size_t)from->bytes);
    piece_done(shm, shm->own_seq++);
    return true;
}

static struct header header_of(const struct comm_request *r, const struct dev_piece *piece)
{
    return (struct header){ (int64_t)r->exchange.kind, r->seq, piece->bytes };
}

/* Moves what there is room for; false: nothing. */
static bool send_to(struct shm *shm, int64_t peer)
{
    const int64_t me = shm->comm->rank;
    struct stream *s = &shm->sending[peer];
    if (s->seq >= atomic_load(&shm->published)) return false;
    const struct comm_request *r = request_at(shm, s->seq);
    const struct dev_piece *piece = &r->send[peer];
    bool any = false;
    if (!s->header_done) {
        const struct header header = header_of(r, piece);
        if (ring_room(&shm->map, me, peer) < (int64_t)sizeof header) return false;
        ring_write(&shm->map, me, peer, &header, (int64_t)sizeof header);
        s->header_done = any = true;
    }
    const int64_t wanted = min_i64(piece->bytes - s->done, CHUNK_BYTES);
    if (wanted > 0) {
        const char *from = (const char *)piece->data + s->done;
        const int64_t n = ring_write(&shm->map, me, peer, from, wanted);
        s->done += n;
        any = any || n > 0;
    }
    if (!any) return false;
    atomic_fetch_add(&shm->moved, 1);
    bell_ring(&shm->map, peer);
    if (s->done < piece->bytes) return true;
    const int64_t seq = s->seq;
    *s = (struct stream){ .seq = seq + 1 };
    piece_done(shm, seq);
    return true;
}

/* The peer's header against what this rank does. */
static err_t check_header(const struct shm *shm, int64_t peer, const struct header *found,
                          const struct header *expected)
{
    if (found->kind < DEV_ALLTOALLV || found->kind > DEV_BARRIER)
        RAISE(COMM, "shared memory holds no header from rank %lld", (long long)peer);
    if (found->kind != expected->kind || found->seq != expected->seq)
        RAISE(COMM, "rank %lld is at %s %lld where rank %lld is at %s %lld", (long long)peer,
              comm_exchange_name((enum dev_exchange_kind)found->kind), (long long)found->seq,
              (long long)shm->comm->rank,
              comm_exchange_name((enum dev_exchange_kind)expected->kind), (long long)expected->seq);
    if (found->bytes != expected->bytes)
        RAISE(COMM, "rank %lld sends %lld bytes where rank %lld expects %lld", (long long)peer,
              (long long)found->bytes, (long long)shm->comm->rank, (long long)expected->bytes);
    return ERR_OK;
}

static err_t receive_from(struct shm *shm, int64_t peer, bool *any)
{
    const int64_t me = shm->comm->rank;
    struct stream *s = &shm->receiving[peer];
    if (s->seq >= atomic_load(&shm->published)) return ERR_OK;
    const struct comm_request *r = request_at(shm, s->seq);
    const struct dev_piece *piece = &r->recv[peer];
    if (!s->header_done) {
        const struct header expected = header_of(r, piece);
        struct header found;
        if (ring_filled(&shm->map, peer, me) < (int64_t)sizeof found) return ERR_OK;
        ring_read(&shm->map, peer, me, &found, (int64_t)sizeof found);
        TRY(check_header(shm, peer, &found, &expected));
        s->header_done = true;
    }
    const int64_t wanted = min_i64(piece->bytes - s->done, CHUNK_BYTES);
    if (wanted > 0) {
        char *to = (char *)piece->data + s->done;
        const int64_t n = ring_read(&shm->map, peer, me, to, wanted);
        if (n == 0) return ERR_OK;
        s->done += n;
        *any = true;
        atomic_fetch_add(&shm->moved, 1);
        bell_ring(&shm->map, peer);
    }
    if (s->done < piece->bytes) return ERR_OK;
    const int64_t seq = s->seq;
    *s = (struct stream){ .seq = seq + 1 };
    piece_done(shm, seq);
    *any = true;
    return ERR_OK;
}

static err_t move_some(struct shm *shm, bool *any)
{
    *any = copy_own(shm);
    for (int64_t i = 1; i < shm->comm->size; i++) {
        /* Everyone starts at the next rank: nobody is everyone's first. */
        const int64_t to = (shm->comm->rank + i) % shm->comm->size;
        const int64_t from = (shm->comm->rank - i + shm->comm->size) % shm->comm->size;
        if (send_to(shm, to)) *any = true;
        TRY(receive_from(shm, from, any));
    }
    return ERR_OK;
}

static err_t work(struct shm *shm)
{
    while (!atomic_load(&shm->closing)) {
        const uint32_t ticket = bell_ticket(&shm->map, shm->comm->rank);
        bool any;
        TRY(move_some(shm, &any));
        if (any) continue;
        TRY(ring_check(&shm->map)); /* after what had been sent before the rank gave up */
        if (!atomic_load(&shm->closing)) bell_sleep(&shm->map, shm->comm->rank, ticket, NAP_S);
    }
    RAISE(COMM, "closed");
}

static void *run(void *arg)
{
    struct shm *shm = arg;
    const err_t rc = work(shm);
    ASSERT(rc != ERR_OK);
    pthread_mutex_lock(&shm->lock);
    snprintf(shm->cause, sizeof shm->cause, "%.255s", err_last()->text);
    shm->gone = true;
    pthread_cond_broadcast(&shm->changed);
    pthread_mutex_unlock(&shm->lock);
    return NULL;
}

static void stop_thread(struct shm *shm)
{
    if (!shm->running) return;
    atomic_store(&shm->closing, true);
    bell_ring(&shm->map, shm->comm->rank);
    pthread_join(shm->thread, NULL);
    shm->running = false;
}

/* ---- the caller ---- */

static err_t shm_begin(struct comm *comm, struct comm_request *request)
{
    struct shm *shm = comm->state;
    const int64_t slot = request->seq % COMM_REQUESTS_MAX;
    pthread_mutex_lock(&shm->lock);
    shm->done[slot] = false;
    pthread_mutex_unlock(&shm->lock);
    shm->left[slot] = 2 * comm->size - 1;
    shm->begun_s[slot] = time_now_s();
    atomic_store(&shm->published, request->seq + 1);
    bell_ring(&shm->map, comm->rank);
    return ERR_OK;
}

static struct timespec after(double seconds)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    const int64_t ns = t.tv_nsec + (int64_t)(seconds * 1e9);
    return (struct timespec){ t.tv_sec + ns / 1000000000, ns % 1000000000 };
}

/* Waits with the lock held; whether the exchange was done before anything else happened. */
static bool wait_done(struct shm *shm, int64_t slot)
{
    int64_t moved = atomic_load(&shm->moved);
    double deadline_s = time_now_s() + shm->comm->timeout_s;
    const double nap_s = fmin(NAP_S, shm->comm->timeout_s / 4);
    while (!shm->done[slot] && !shm->gone && !atomic_load(&shm->comm->aborted)) {
        const struct timespec until = after(nap_s);
        pthread_cond_timedwait(&shm->changed, &shm->lock, &until);
        if (atomic_load(&shm->moved) != moved) {
            moved = atomic_load(&shm->moved);
            deadline_s = time_now_s() + shm->comm->timeout_s;
        } else if (time_now_s() > deadline_s) {
            break;
        }
    }
    return shm->done[slot];
}

/* The ranks whose part of exchange `seq` is missing. The thread has ended. */
static err_t raise_late(const struct shm *shm, int64_t seq)
{
    char names[64] = "";
    int64_t count = 0;
    for (int64_t i = 0; i < shm->comm->size; i++) {
        if (i == shm->comm->rank) continue;
        if (shm->receiving[i].seq > seq && shm->sending[i].seq > seq) continue;
        const size_t length = strlen(names);
        if (length < sizeof names - 16)
            snprintf(names + length, sizeof names - length, "%s%lld", count > 0 ? ", " : "",
                     (long long)i);
        count++;
    }
    RAISE(COMM, "rank%s %s: nothing moved for %g s", count == 1 ? "" : "s", names,
          shm->comm->timeout_s);
}

static err_t shm_end(struct comm *comm, struct comm_request *request)
{
    struct shm *shm = comm->state;
    pthread_mutex_lock(&shm->lock);
    const bool done = wait_done(shm, request->seq % COMM_REQUESTS_MAX);
    const bool gone = shm->gone;
    pthread_mutex_unlock(&shm->lock);
    if (done) return ERR_OK;
    stop_thread(shm); /* from here on nobody touches the buffers */
    TRY(comm_check_aborted(comm));
    if (gone) RAISE(COMM, "%s", shm->cause);
    return raise_late(shm, request->seq);
}

static err_t shm_check(struct comm *comm)
{
    const struct shm *shm = comm->state;
    return ring_check(&shm->map);
}

static void shm_abort(struct comm *comm)
{
    struct shm *shm = comm->state;
    ring_abort(&shm->map, comm->rank, comm->cause);
    pthread_mutex_lock(&shm->lock);
    pthread_cond_broadcast(&shm->changed);
    pthread_mutex_unlock(&shm->lock);
}

/* ---- opening ---- */

static err_t shm_invite(uint8_t blob[COMM_BLOB_BYTES], int64_t size, struct dev *dev)
{
    int fd;
    (void)dev;
    return ring_create(&fd, (char *)blob, COMM_BLOB_BYTES, size);
}

/* The descriptor that comm_invite made, when this is the process that made it. */
static int own_invitation(const char *path)
{
    int pid, fd;
    if (sscanf(path, "/proc/%d/fd/%d", &pid, &fd) != 2 || pid != (int)getpid()) return -1;
    return fd;
}

static void shm_close(struct comm *comm)
{
    struct shm *shm = comm->state;
    if (shm == NULL) return;
    stop_thread(shm);
    ring_close(&shm->map);
    if (shm->invited_fd >= 0) close(shm->invited_fd);
    pthread_cond_destroy(&shm->changed);
    pthread_mutex_destroy(&shm->lock);
    free(shm->sending);
    free(shm->receiving);
    free(shm);
    comm->state = NULL;
}

static err_t open_parts(struct shm *shm, const char *path)
{
    if (shm->comm->rank == 0) shm->invited_fd = own_invitation(path);
    TRY(ring_open(&shm->map, path, shm->comm->size));
    shm->sending = calloc((size_t)shm->comm->size, sizeof *shm->sending);
    shm->receiving = calloc((size_t)shm->comm->size, sizeof *shm->receiving);
    if (shm->sending == NULL || shm->receiving == NULL)
        RAISE(NOMEM, "communicator shm: tables for %lld ranks", (long long)shm->comm->size);
    trace_name_track(TRACK_LINK, "exchanges");
    const int code = pthread_create(&shm->thread, NULL, run, shm);
    if (code != 0) RAISE(NOMEM, "communicator shm: no thread: %s", strerror(code));
    shm->running = true;
    return ERR_OK;
}

static err_t shm_open_ranks(struct comm *comm, const struct comm_args *args)
{
    const char *path = (const char *)args->blob;
    pthread_condattr_t monotonic;
    TRY(comm_check_host_memory(comm));
    if (memchr(args->blob, '\0', COMM_BLOB_BYTES) == NULL || path[0] != '/')
        RAISE(ARG, "communicator shm: the invitation is not one");
    struct shm *shm = calloc(1, sizeof *shm);
    if (shm == NULL) RAISE(NOMEM, "communicator shm: %zu bytes wanted", sizeof *shm);
    comm->state = shm;
    shm->comm = comm;
    shm->invited_fd = -1;
    pthread_mutex_init(&shm->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&shm->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    const err_t rc = open_parts(shm, path);
    if (rc != ERR_OK) shm_close(comm);
    return rc;
}

const struct comm_ops comm_shm = {
    .kind = "shm",
    .invite = shm_invite,
    .open = shm_open_ranks,
    .begin = shm_begin,
    .end = shm_end,
    .check = shm_check,
    .abort = shm_abort,
    .close = shm_close,
};
