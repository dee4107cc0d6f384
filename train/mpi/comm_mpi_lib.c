/*
 * Host ranks over MPI: libsoulchat_mpi.so. MPI is used by the main thread alone, with calls that do
 * not wait: comm_end asks again and again until its deadline, so that a lost rank is an error here
 * and not a hang there. Between begin and end MPI moves bytes when it is called: comm_progress.
 */
#include "train/comm_impl.h"

#include "base/check.h"
#include "base/num.h"
#include "base/progress.h"

#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PART_BYTES (INT64_C(1) << 30) /* of one message: MPI counts in int */
#define TAGS       32768              /* what every MPI allows */
#define EAGER_ASKS 200                /* without a pause between them */
#define PAUSE_NS   50000

/* One message, or one part of one. Receives come first. */
struct part {
    int64_t peer, bytes;
    bool is_receive;
};

struct slot {
    MPI_Request *requests; /* [capacity], like the next two */
    MPI_Status *statuses;
    struct part *parts;
    int count, capacity;
    bool done;
};

struct mpi {
    struct slot slots[COMM_REQUESTS_MAX];
};

static err_t check_call(int code, const char *call)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    if (code == MPI_SUCCESS) return ERR_OK;
    MPI_Error_string(code, text, &length);
    RAISE(COMM, "%s: %.300s", call, text);
}

/* ---- one exchange ---- */

static int64_t part_count(const struct comm *comm, const struct dev_piece *pieces)
{
    int64_t count = 0;
    for (int64_t i = 0; i < comm->size; i++)
        if (i != comm->rank) count += (pieces[i].bytes + PART_BYTES - 1) / PART_BYTES;
    return count;
}

/* Room for an exchange; none is taken once the largest has come by. */
static err_t reserve(struct slot *slot, int64_t count)
{
    if (count <= slot->capacity) return ERR_OK;
    MPI_Request *requests = realloc(slot->requests, (size_t)count * sizeof *requests);
    if (requests != NULL) slot->requests = requests;
    MPI_Status *statuses = realloc(slot->statuses, (size_t)count * sizeof *statuses);
    if (statuses != NULL) slot->statuses = statuses;
    struct part *parts = realloc(slot->parts, (size_t)count * sizeof *parts);
    if (parts != NULL) slot->parts = parts;
    if (requests == NULL || statuses == NULL || parts == NULL)
        RAISE(NOMEM, "%lld messages: no memory", (long long)count);
    slot->capacity = (int)count;
    return ERR_OK;
}

/* Ranks that call different collectives never match: their exchange meets its deadline. */
static int tag_of(const struct comm_request *r)
{
    return (int)((r->seq * 4 + (int64_t)r->exchange.kind) % TAGS);
}

static err_t post(const struct comm *comm, struct slot *slot, const struct comm_request *r,
                  bool is_receive)
{
    const int tag = tag_of(r);
    for (int64_t step = 1; step < comm->size; step++) {
        const int64_t peer = (comm->rank + step) % comm->size;
        const struct dev_piece *piece = is_receive ? &r->recv[peer] : &r->send[peer];
        for (int64_t at = 0; at < piece->bytes; at += PART_BYTES) {
            const int64_t bytes = min_i64(PART_BYTES, piece->bytes - at);
            char *data = (char *)piece->data + at;
            MPI_Request *request = &slot->requests[slot->count];
            const int code = is_receive ? MPI_Irecv(data, (int)bytes, MPI_BYTE, (int)peer, tag,
                                                    MPI_COMM_WORLD, request)
                                        : MPI_Isend(data, (int)bytes, MPI_BYTE, (int)peer, tag,
                                                    MPI_COMM_WORLD, request);
            TRY(check_call(code, is_receive ? "MPI_Irecv" : "MPI_Isend"));
            slot->parts[slot->count++] = (struct part){ peer, bytes, is_receive };
        }
    }
    return ERR_OK;
}

static err_t mpi_begin(struct comm *comm, struct comm_request *r)
{
    struct mpi *mpi = comm->state;
    struct slot *slot = &mpi->slots[r->seq % COMM_REQUESTS_MAX];
    slot->count = 0;
    slot->done = false;
    if (r->exchange.kind == DEV_BARRIER) {
        TRY(reserve(slot, 1));
        slot->parts[slot->count++] = (struct part){ .peer = -1 };
        return check_call(MPI_Ibarrier(MPI_COMM_WORLD, &slot->requests[0]), "MPI_Ibarrier");
    }
    TRY(reserve(slot, part_count(comm, r->recv) + part_count(comm, r->send)));
    TRY(post(comm, slot, r, true));
    TRY(post(comm, slot, r, false));
    const struct dev_piece *from = &r->send[comm->rank], *to = &r->recv[comm->rank];
    if (from->bytes > 0 && from->data != to->data)
        memcpy(to->data, from->data, (size_t)from->bytes);
    return ERR_OK;
}

/* What came is what was expected. */
static err_t check_parts(const struct slot *slot)
{
    for (int i = 0; i < slot->count; i++) {
        const struct part *part = &slot->parts[i];
        int bytes = 0;
        if (!part->is_receive) continue;
        TRY(check_call(MPI_Get_count(&slot->statuses[i], MPI_BYTE, &bytes), "MPI_Get_count"));
        if (bytes != part->bytes)
            RAISE(COMM, "rank %lld sends %d bytes where %lld are expected", (long long)part->peer,
                  bytes, (long long)part->bytes);
    }
    return ERR_OK;
}

/* The message that failed among those of a call that reports in the statuses. */
static err_t raise_part(const struct slot *slot)
{
    for (int i = 0; i < slot->count; i++) {
        const int code = slot->statuses[i].MPI_ERROR;
        if (code == MPI_SUCCESS || code == MPI_ERR_PENDING) continue;
        char text[MPI_MAX_ERROR_STRING] = "";
        int length = 0;
        MPI_Error_string(code, text, &length);
        RAISE(COMM, "rank %lld: %.300s", (long long)slot->parts[i].peer, text);
    }
    RAISE(COMM, "MPI_Testall fails and does not say why");
}

static err_t ask(struct slot *slot)
{
    int done = 0;
    if (slot->done) return ERR_OK;
    for (int i = 0; i < slot->count; i++) slot->statuses[i].MPI_ERROR = MPI_SUCCESS;
    const int code = MPI_Testall(slot->count, slot->requests, &done, slot->statuses);
    if (code == MPI_ERR_IN_STATUS) return raise_part(slot);
    TRY(check_call(code, "MPI_Testall"));
    slot->done = done != 0;
    return slot->done ? check_parts(slot) : ERR_OK;
}

/* Who is late, as far as MPI lets us see. */
static err_t raise_late(const struct comm *comm, const struct slot *slot)
{
    char names[64] = "";
    int64_t named = -1;
    for (int i = 0; i < slot->count; i++) {
        const struct part *part = &slot->parts[i];
        const size_t length = strlen(names);
        int done = 0;
        if (MPI_Request_get_status(slot->requests[i], &done, MPI_STATUS_IGNORE) != MPI_SUCCESS ||
            done || part->peer < 0 || part->peer == named || length > sizeof names - 16)
            continue;
        snprintf(names + length, sizeof names - length, "%s%lld", length > 0 ? ", " : " by rank ",
                 (long long)part->peer);
        named = part->peer;
    }
    RAISE(COMM, "not answered within %g s%s", comm->timeout_s, names);
}

static err_t mpi_end(struct comm *comm, struct comm_request *r)
{
    struct mpi *mpi = comm->state;
    struct slot *slot = &mpi->slots[r->seq % COMM_REQUESTS_MAX];
    const double deadline_s = time_now_s() + comm->timeout_s;
    for (int64_t asked = 0;; asked++) {
        TRY(ask(slot));
        if (slot->done) return ERR_OK;
        TRY(comm_check_aborted(comm));
        if (time_now_s() > deadline_s) return raise_late(comm, slot);
        if (asked < EAGER_ASKS)
            sched_yield();
        else
            nanosleep(&(struct timespec){ .tv_nsec = PAUSE_NS }, NULL);
    }
}

static void mpi_progress(struct comm *comm)
{
    struct mpi *mpi = comm->state;
    for (int64_t i = 0; i < COMM_REQUESTS_MAX; i++)
        if (comm->slots[i].in_use && ask(&mpi->slots[i]) != ERR_OK) {
            comm_abort(comm, err_last()->text); /* what begin and end say from now on */
            return;
        }
}

/* ---- opening ---- */

static err_t start_mpi(const struct comm *comm)
{
    int initialized = 0, finalized = 0, provided = 0, rank = -1, size = 0;
    MPI_Finalized(&finalized);
    if (finalized) RAISE(COMM, "communicator mpi: MPI starts once in a process, and has ended");
    MPI_Initialized(&initialized);
    if (!initialized)
        TRY(check_call(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided),
                       "MPI_Init_thread"));
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (rank != comm->rank || size != comm->size)
        RAISE(COMM,
              "communicator mpi: this is rank %lld of %lld, but %d of %d for MPI; start all "
              "ranks with one mpirun or srun --mpi=pmix",
              (long long)comm->rank, (long long)comm->size, rank, size);
    return ERR_OK;
}

static err_t mpi_open(struct comm *comm, const struct comm_args *args)
{
    (void)args;
    TRY(comm_check_host_memory(comm));
    TRY(start_mpi(comm));
    struct mpi *mpi = calloc(1, sizeof *mpi);
    if (mpi == NULL) RAISE(NOMEM, "communicator mpi: no memory");
    comm->state = mpi;
    return ERR_OK;
}

static void mpi_close(struct comm *comm)
{
    struct mpi *mpi = comm->state;
    /* After a failure others do not come to the end, and MPI would wait for them. */
    if (!atomic_load(&comm->aborted)) MPI_Finalize();
    for (int64_t i = 0; i < COMM_REQUESTS_MAX; i++) {
        free(mpi->slots[i].requests);
        free(mpi->slots[i].statuses);
        free(mpi->slots[i].parts);
    }
    free(mpi);
}

const struct comm_ops *soulchat_mpi(void);

const struct comm_ops *soulchat_mpi(void)
{
    static const struct comm_ops ops = {
        .kind = "mpi",
        .open = mpi_open,
        .begin = mpi_begin,
        .end = mpi_end,
        .progress = mpi_progress,
        .close = mpi_close,
    };
    return &ops;
}
