/*
 * dev_comm.h - devices of several processes exchanging memory directly: what a backend offers to
 * train/comm.h, which is where the meaning of the exchanges is written down. Here is only what a
 * backend must do with them.
 *
 *     struct backend { ... const struct dev_comm_ops *comm; }      NULL: the backend has none
 *
 * Exchanges run in an order of their own, the order of `begin`, beside the compute queue.
 * All functions but `check` and `abort` are called by one thread.
 */
#ifndef KERNELS_DEV_COMM_H
#define KERNELS_DEV_COMM_H

#include "base/err.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct dev;
struct dev_comm;

#define DEV_COMM_ID_BYTES 128 /* of an id that all processes of one communicator share */

/* Memory of the device, or of the host for host devices. */
struct dev_piece {
    void *data; /* anything where bytes is 0 */
    int64_t bytes;
};

/*
 * Which call of train/comm.h it is: a backend may use a call of its own for it. Whatever it is,
 * piece send[i] goes to rank i and recv[i] is what comes from there.
 *
 * An allgatherv goes in two levels, so that a piece crosses to another machine once, not once for
 * each rank there: from its owner to the owner's machine and to the ranks of the owner's place on
 * the other machines; when it has come there, from them to the ranks beside them. It is passed on
 * from where it lies in `recv`. With one rank on each machine, or one machine, the first level is
 * all there is.
 */
enum dev_exchange_kind { DEV_ALLTOALLV, DEV_ALLGATHERV, DEV_BCAST, DEV_BARRIER };

struct dev_exchange {
    enum dev_exchange_kind kind;
    int64_t root;                 /* DEV_BCAST */
    const struct dev_piece *send; /* [size]; allgatherv, bcast: the same piece for every rank */
    const struct dev_piece *recv; /* [size]; one's own overlaps nothing, or is the very same */
};

struct dev_comm_args {
    uint8_t id[DEV_COMM_ID_BYTES];
    int64_t rank, size;
    int64_t machine_size; /* so many consecutive ranks share a machine; divides `size` */
    int64_t slot_count;   /* exchanges in flight at once */
    double timeout_s;
};

struct dev_comm_ops {
    const char *name; /* "nccl" */
    err_t (*invite)(uint8_t id[DEV_COMM_ID_BYTES]);
    /* Returns when all ranks have come. ERR_COMM: not within the time, or a failed call. */
    err_t (*open)(struct dev *dev, struct dev_comm **out, const struct dev_comm_args *args);
    /* Starts after what is in the compute queue now. The slot is free: not begun, or ended. */
    err_t (*begin)(struct dev_comm *comm, int64_t slot, const struct dev_exchange *exchange);
    /* What is queued for computing from now on starts after the slot's exchange. */
    err_t (*end)(struct dev_comm *comm, int64_t slot);
    /* From any thread: ERR_COMM when the library has met an error, or when an exchange has run for
     * longer than the time allowed. */
    err_t (*check)(struct dev_comm *comm);
    /* From any thread: stop everything in flight; only `close` may follow. */
    void (*abort)(struct dev_comm *comm);
    void (*close)(struct dev_comm *comm);
};

#ifdef __cplusplus
}
#endif
#endif
