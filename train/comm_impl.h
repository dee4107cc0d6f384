/* comm_impl.h - what the communicator's backends share. Private to train/comm*.c and train/mpi. */
#ifndef TRAIN_COMM_IMPL_H
#define TRAIN_COMM_IMPL_H

#include "train/comm.h"

#include "kernels/dev_comm.h"

#include <stdatomic.h>
#include <stdbool.h>

#define COMM_CAUSE_MAX 256

/* One exchange; the slot of sequence number s is s mod COMM_REQUESTS_MAX. */
struct comm_request {
    struct dev_exchange exchange; /* send and recv point at the arrays that the slot owns */
    struct dev_piece *send, *recv;
    int64_t seq;
    bool in_use;
};

/* A backend. Errors it raises say the cause only; comm.c puts the rest in front. */
struct comm_ops {
    const char *kind;
    bool two_levels; /* of gathers, as kernels/dev_comm.h has them */
    /* NULL: rank 0 has nothing to tell */
    err_t (*invite)(uint8_t blob[COMM_BLOB_BYTES], int64_t size, struct dev *dev);
    /* Fills comm->state. comm_open makes the first exchange, a barrier. */
    err_t (*open)(struct comm *comm, const struct comm_args *args);
    err_t (*begin)(struct comm *comm, struct comm_request *request);
    err_t (*end)(struct comm *comm, struct comm_request *request);
    void (*progress)(struct comm *comm); /* NULL: needs none */
    err_t (*check)(struct comm *comm);   /* NULL: nothing to ask; any thread */
    void (*abort)(struct comm *comm);    /* NULL: `aborted` is all it needs; any thread */
    void (*close)(struct comm *comm);
};

struct comm {
    const struct comm_ops *ops;
    void *state;
    struct dev *dev;
    int64_t rank, size;
    int64_t machine_size; /* `size` where the caller knows of no machines */
    double timeout_s;

    struct comm_request slots[COMM_REQUESTS_MAX];
    struct dev_piece *pieces; /* of all slots */
    struct comm_span *spans;  /* [size], comm_gather_host's */
    void *staging;            /* its device memory */
    struct comm_stats stats;

    _Atomic int64_t step, next_seq, waiting_seq; /* waiting_seq -1: not waiting */
    _Atomic(const char *) phase;
    _Atomic(const char *) waiting_for;
    atomic_int aborting; /* whoever sets it first writes the cause */
    atomic_bool aborted; /* the cause is written */
    char cause[COMM_CAUSE_MAX];
};

extern const struct comm_ops comm_self, comm_shm, comm_nccl;

const char *comm_exchange_name(enum dev_exchange_kind kind); /* "alltoallv" */
/* ERR_UNSUPPORTED: the device's memory is not the host's, which is all this backend can reach. */
MUST_USE err_t comm_check_host_memory(const struct comm *comm);
/* The ops of libsoulchat_mpi.so, loaded on first use. ERR_UNSUPPORTED: not there. */
MUST_USE err_t comm_load_mpi(const struct comm_ops **out);

#endif
