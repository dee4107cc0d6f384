/*
 * comm.h - the ranks of one run exchanging buffers. There is no reduction: sums are made by us, in
 * an order of ours, so that they have the same bits on any number of ranks (lanes.h).
 *
 *     struct comm_request *request;
 *     TRY(comm_alltoallv_begin(comm, &request, &(struct comm_alltoallv_args){
 *         .recv = slices, .recv_spans = from, .send = bucket, .send_spans = to }));
 *     ... compute what needs neither buffer; comm_progress(comm) now and then ...
 *     TRY(comm_end(comm, &request));
 *
 * Every rank makes the same calls in the same order; begun ones may be ended in any order.
 *
 * Buffers are memory of the device that the communicator was opened with. An exchange starts after
 * what was queued for computing before its begin; what is queued after its end sees the result.
 * Between begin and end nobody writes to `send`, and nobody touches `recv`. On a host device the
 * host, too, sees the result after end; on others dev_sync or an event stands between.
 *
 * Backends: "self" one rank; "shm" processes of one machine, through shared memory; "mpi" host
 * ranks on any machines; "nccl" GPUs, over the backend's own (kernels/dev_comm.h).
 *
 * One thread calls; comm_note, comm_activity, comm_check and comm_abort are for any thread.
 *
 * Errors are ERR_COMM and name the collective, the step, this rank and the cause. After one, the
 * contents of buffers in flight are undefined, the buffers must live until comm_close, and every
 * later call fails the same way: one does not go on with fewer ranks, one leaves and resumes.
 */
#ifndef TRAIN_COMM_H
#define TRAIN_COMM_H

#include "base/err.h"

#include <stdint.h>

struct dev;
struct comm;
struct comm_request; /* the communicator's; no call allocates */

#define COMM_REQUESTS_MAX 64 /* begun and not ended */
#define COMM_SIZE_MAX     4096
#define COMM_BLOB_BYTES   256
#define COMM_PHASE_MAX    16 /* bytes of a phase's name with the NUL */

struct comm_args {
    const char *kind; /* "self", "shm", "mpi", "nccl" */
    int64_t rank, size;
    /* So many consecutive ranks share a machine, the same number on every one: divides `size`, and
     * is the same on all ranks. Gathers between GPUs then send a piece to every other machine once
     * (kernels/dev_comm.h). 0: unknown, as though all were on one. */
    int64_t machine_size;
    struct dev *dev; /* outlives the communicator */
    /* How long an exchange may wait without any progress; > 0. Liveness is another matter
     * (watchdog.h), so this may be generous: a rank may be minutes behind for good reasons. */
    double timeout_s;
    uint8_t blob[COMM_BLOB_BYTES]; /* what comm_invite gave rank 0, on every rank */
};

/* Rank 0, before anyone opens: what the others need to find it; hand it to all (rendezvous.h). What
 * it holds, a descriptor or a thread, is the communicator's; without one it ends with the process.
 */
MUST_USE err_t comm_invite(uint8_t blob[COMM_BLOB_BYTES], const char *kind, int64_t size,
                           struct dev *dev);
/* Returns when every rank has opened. Yours; comm_close it (NULL allowed). ERR_COMM: they did not
 * all come in time, or a call failed; ERR_UNSUPPORTED: no such library on this machine. */
MUST_USE err_t comm_open(struct comm **out, const struct comm_args *args);
void comm_close(struct comm *comm);

int64_t comm_rank(const struct comm *comm);
int64_t comm_size(const struct comm *comm);
const char *comm_kind(const struct comm *comm);

/* Part of a buffer, in bytes from its start. */
struct comm_span {
    int64_t offset, bytes;
};

/*
 * Piece send_spans[j] of rank i goes to recv_spans[i] of rank j, and both have the same size, 0
 * included. `recv` overlaps `send` nowhere, except that one's own piece may lie at the same place
 * in both, and is then left alone. The spans may be reused when the call returns.
 */
struct comm_alltoallv_args {
    void *recv;
    const struct comm_span *recv_spans; /* [size] */
    const void *send;
    const struct comm_span *send_spans; /* [size] */
};

/* Piece spans[i] of `data` on every rank becomes what rank i has: its `send`, spans[i].bytes long,
 * or, where `send` is NULL, what already lies at spans[i] of its own `data`. `spans` is the same
 * everywhere. */
struct comm_allgatherv_args {
    void *data;
    const struct comm_span *spans; /* [size] */
    const void *send;
};

/* `data` of every rank becomes that of rank `root`. */
struct comm_bcast_args {
    void *data;
    int64_t bytes, root;
};

MUST_USE err_t comm_alltoallv_begin(struct comm *comm, struct comm_request **out,
                                    const struct comm_alltoallv_args *args);
MUST_USE err_t comm_allgatherv_begin(struct comm *comm, struct comm_request **out,
                                     const struct comm_allgatherv_args *args);
MUST_USE err_t comm_bcast_begin(struct comm *comm, struct comm_request **out,
                                const struct comm_bcast_args *args);
MUST_USE err_t comm_barrier_begin(struct comm *comm, struct comm_request **out);
/* Ends the request and clears the pointer; NULL there does nothing. */
MUST_USE err_t comm_end(struct comm *comm, struct comm_request **request);
/* Let begun exchanges move on, for backends without a thread of their own (mpi): call it between
 * layers. Costs little. */
void comm_progress(struct comm *comm);

/* Begin and end in one. */
MUST_USE err_t comm_alltoallv(struct comm *comm, const struct comm_alltoallv_args *args);
MUST_USE err_t comm_allgatherv(struct comm *comm, const struct comm_allgatherv_args *args);
MUST_USE err_t comm_bcast(struct comm *comm, const struct comm_bcast_args *args);
/* Returns after every rank has called it; on a device of its own also after all its work. */
MUST_USE err_t comm_barrier(struct comm *comm);

/* `all` [size * bytes] of the host becomes every rank's `mine` [bytes], by rank: for losses, norms
 * and decisions. Waits; goes through the device's memory where that is not the host's. */
MUST_USE err_t comm_gather_host(struct comm *comm, void *all, const void *mine, int64_t bytes);

/* What this rank is at, for messages and heartbeats. `phase` is a literal: "forward"; a moment of
 * base/fault.h. */
void comm_note(struct comm *comm, int64_t step, const char *phase);

struct comm_activity {
    int64_t step;           /* -1 before the first comm_note */
    const char *phase;      /* "start" before it */
    const char *collective; /* what comm_end is waiting for; "none" */
    int64_t collective_seq; /* its number, counted from 0 over all collectives */
};
void comm_activity(struct comm *comm, struct comm_activity *out);

/* Whether the communicator still works, as far as it can be said without waiting. */
MUST_USE err_t comm_check(struct comm *comm);
/* Make every waiting and later call fail with this cause, and, where a backend can, the other
 * ranks' as well. The first cause stays. */
void comm_abort(struct comm *comm, const char *cause);
/* ERR_COMM with the cause when this rank has aborted the communicator, as a failed call does. */
MUST_USE err_t comm_check_aborted(const struct comm *comm);

struct comm_stats {
    int64_t sent_bytes;     /* to other ranks, passed on ones included */
    int64_t received_bytes; /* from them */
    int64_t far_bytes;      /* of those sent: to other machines */
};
struct comm_stats comm_stats(const struct comm *comm);

#endif
