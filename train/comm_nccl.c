/* Ranks whose devices exchange memory by themselves: train/comm.h over kernels/dev_comm.h. */
#include "train/comm_impl.h"

#include "base/check.h"
#include "kernels/backend.h"
#include "kernels/dev.h"
#include "kernels/dev_comm.h"

#include <string.h>

STATIC_ASSERT(DEV_COMM_ID_BYTES <= COMM_BLOB_BYTES, "the id fits into an invitation");

static err_t find_ops(const struct dev_comm_ops **out, const struct dev *dev)
{
    *out = dev->backend != NULL ? dev->backend->comm : NULL;
    if (*out == NULL)
        RAISE(UNSUPPORTED, "communicator nccl: device %s has none of its own; GPUs do",
              dev->ops->name);
    return ERR_OK;
}

static const struct dev_comm_ops *ops_of(const struct comm *comm)
{
    return comm->dev->backend->comm;
}

static err_t nccl_invite(uint8_t blob[COMM_BLOB_BYTES], int64_t size, struct dev *dev)
{
    const struct dev_comm_ops *ops;
    (void)size;
    TRY(find_ops(&ops, dev));
    return ops->invite(blob);
}

static err_t nccl_open(struct comm *comm, const struct comm_args *args)
{
    const struct dev_comm_ops *ops;
    struct dev_comm *dev_comm;
    struct dev_comm_args dev_args = {
        .rank = args->rank,
        .size = args->size,
        .machine_size = comm->machine_size,
        .slot_count = COMM_REQUESTS_MAX,
        .timeout_s = args->timeout_s,
    };
    TRY(find_ops(&ops, comm->dev));
    memcpy(dev_args.id, args->blob, sizeof dev_args.id);
    TRY(ops->open(comm->dev, &dev_comm, &dev_args));
    comm->state = dev_comm;
    return ERR_OK;
}

static int64_t slot_of(const struct comm_request *r) { return r->seq % COMM_REQUESTS_MAX; }

static err_t nccl_begin(struct comm *comm, struct comm_request *request)
{
    return ops_of(comm)->begin(comm->state, slot_of(request), &request->exchange);
}

static err_t nccl_end(struct comm *comm, struct comm_request *request)
{
    TRY(comm_check_aborted(comm));
    return ops_of(comm)->end(comm->state, slot_of(request));
}

static err_t nccl_check(struct comm *comm) { return ops_of(comm)->check(comm->state); }
static void nccl_abort(struct comm *comm) { ops_of(comm)->abort(comm->state); }
static void nccl_close(struct comm *comm) { ops_of(comm)->close(comm->state); }

const struct comm_ops comm_nccl = {
    .kind = "nccl",
    .two_levels = true,
    .invite = nccl_invite,
    .open = nccl_open,
    .begin = nccl_begin,
    .end = nccl_end,
    .check = nccl_check,
    .abort = nccl_abort,
    .close = nccl_close,
};
