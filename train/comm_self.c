/* One rank: what it sends to itself. */
#include "train/comm_impl.h"

#include "base/check.h"
#include "kernels/dev.h"

static err_t self_open(struct comm *comm, const struct comm_args *args)
{
    (void)comm;
    if (args->size != 1)
        RAISE(ARG, "communicator self: %lld ranks; it is for one", (long long)args->size);
    return ERR_OK;
}

static err_t self_begin(struct comm *comm, struct comm_request *request)
{
    const struct dev_piece *from = &request->send[0], *to = &request->recv[0];
    if (from->bytes == 0 || from->data == to->data) return ERR_OK;
    return dev_copy(comm->dev, DEV_COMPUTE, to->data, from->data, from->bytes);
}

static err_t self_end(struct comm *comm, struct comm_request *request)
{
    (void)request;
    return comm_check_aborted(comm);
}

static void self_close(struct comm *comm) { (void)comm; }

const struct comm_ops comm_self = {
    .kind = "self",
    .open = self_open,
    .begin = self_begin,
    .end = self_end,
    .close = self_close,
};
