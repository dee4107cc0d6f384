/*
 * libfake_nccl.so: the functions of NCCL that kernels/cuda/comm_nccl.cc calls, over shared memory
 * of processes on one machine, for devices whose memory is the host's. Calls answer "in progress",
 * and bytes move when the caller asks how far they are, so that a caller that does not ask hangs. A
 * call before the one before it has ended is refused, as by the real one.
 *
 * FAKE_NCCL_LOG=file    append a line per call: "AllGather", "Send 16 to 2"
 * FAKE_NCCL=error:N     the N-th question meets an error of another rank
 * FAKE_NCCL=stuck:N     from the N-th question on nothing moves any more
 * FAKE_NCCL=old         an old version
 * FAKE_NCCL=grip        aborting never returns
 */
#include "kernels/cuda/nccl_api.h"
#include "train/comm_ring.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INVALID_ARGUMENT 4 /* also for a communicator that is still busy */
#define INVALID_USAGE    5

#define OPS_MAX   64
#define RANKS_MAX 6 /* that the memory is for, whatever their number */

#define X(type, name, parameters) type name parameters;
NCCL_FUNCTIONS(X)
#undef X

struct op {
    char *data;
    size_t count, done;
    int peer;
    bool is_send;
};

struct nccl_comm {
    struct ring_map map;
    int rank, size;
    struct op ops[OPS_MAX];
    int op_count;
    bool failed;
    bool in_progress; /* a call has not been asked about to its end */
};

/* A group belongs to the thread that opened it. */
static __thread struct nccl_comm *group_comm;
static __thread bool group_is_open;
static __thread int questions;

static void note_line(const char *line, int length)
{
    const char *path = getenv("FAKE_NCCL_LOG");
    if (path == NULL) return;
    const int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (write(fd, line, (size_t)length) != length) abort();
    close(fd);
}

static void note(const char *name)
{
    char line[64];
    note_line(line, snprintf(line, sizeof line, "%s\n", name));
}

static void note_piece(const char *name, size_t bytes, const char *way, int peer)
{
    char line[64];
    note_line(line, snprintf(line, sizeof line, "%s %zu %s %d\n", name, bytes, way, peer));
}

static int plan_of(const char *what)
{
    const char *plan = getenv("FAKE_NCCL");
    const size_t length = strlen(what);
    if (plan == NULL || strncmp(plan, what, length) != 0) return 0;
    return plan[length] == ':' ? atoi(plan + length + 1) : 1;
}

int ncclGetVersion(int *version)
{
    *version = plan_of("old") ? 21700 : 22809;
    return NCCL_SUCCESS;
}

int ncclGetUniqueId(struct nccl_id *id)
{
    int fd;
    note("GetUniqueId");
    memset(id, 0, sizeof *id);
    const err_t rc = ring_create(&fd, id->internal, sizeof id->internal, RANKS_MAX);
    return rc == ERR_OK ? NCCL_SUCCESS : 2;
}

int ncclCommInitRankConfig(struct nccl_comm **comm, int size, struct nccl_id id, int rank,
                           struct nccl_config *config)
{
    note("CommInitRankConfig");
    if (config->size != sizeof *config || config->magic != NCCL_CONFIG_MAGIC ||
        config->blocking != 0)
        return INVALID_ARGUMENT;
    *comm = calloc(1, sizeof **comm);
    (*comm)->in_progress = true;
    (*comm)->rank = rank;
    (*comm)->size = size;
    return ring_open(&(*comm)->map, id.internal, RANKS_MAX) == ERR_OK ? NCCL_IN_PROGRESS : 2;
}

/* As much as there is room for, in order for each peer and direction; whether all is done. */
static bool move(struct nccl_comm *c)
{
    bool all = true;
    for (int i = 0; i < c->op_count; i++) {
        struct op *op = &c->ops[i];
        bool is_next = true;
        for (int k = 0; k < i; k++)
            if (c->ops[k].peer == op->peer && c->ops[k].is_send == op->is_send &&
                c->ops[k].done < c->ops[k].count)
                is_next = false;
        const int64_t left = (int64_t)(op->count - op->done);
        if (is_next && left > 0)
            op->done +=
                (size_t)(op->is_send
                             ? ring_write(&c->map, c->rank, op->peer, op->data + op->done, left)
                             : ring_read(&c->map, op->peer, c->rank, op->data + op->done, left));
        all = all && op->done == op->count;
    }
    if (all) c->op_count = 0;
    return all;
}

int ncclCommGetAsyncError(struct nccl_comm *c, int *error)
{
    questions++;
    if (plan_of("error") != 0 && questions >= plan_of("error")) c->failed = true;
    if (c->failed)
        *error = NCCL_REMOTE_ERROR;
    else if (plan_of("stuck") != 0 && questions >= plan_of("stuck"))
        *error = NCCL_IN_PROGRESS;
    else
        *error = move(c) ? NCCL_SUCCESS : NCCL_IN_PROGRESS;
    if (*error == NCCL_SUCCESS) c->in_progress = false;
    return NCCL_SUCCESS;
}

int ncclGroupStart(void)
{
    note("GroupStart");
    if (group_is_open) return INVALID_USAGE;
    group_is_open = true;
    group_comm = NULL;
    return NCCL_SUCCESS;
}

int ncclGroupEnd(void)
{
    note("GroupEnd");
    if (!group_is_open) return INVALID_USAGE;
    group_is_open = false;
    return group_comm != NULL && group_comm->op_count > 0 ? NCCL_IN_PROGRESS : NCCL_SUCCESS;
}

/* A call on the communicator; one of a group goes with those before it. */
static bool may_begin(struct nccl_comm *c)
{
    if (c->in_progress && !(group_is_open && group_comm == c)) return false;
    c->in_progress = true;
    group_comm = group_is_open ? c : NULL;
    return true;
}

static int add(struct nccl_comm *c, void *data, size_t count, int peer, bool is_send)
{
    if (c->op_count == OPS_MAX) return 3;
    c->ops[c->op_count++] = (struct op){ data, count, 0, peer, is_send };
    return NCCL_IN_PROGRESS;
}

int ncclSend(const void *data, size_t count, int type, int peer, struct nccl_comm *c, void *stream)
{
    note_piece("Send", count, "to", peer);
    (void)stream;
    if (type != NCCL_UINT8 || !may_begin(c)) return INVALID_ARGUMENT;
    return add(c, (void *)data, count, peer, true);
}

int ncclRecv(void *data, size_t count, int type, int peer, struct nccl_comm *c, void *stream)
{
    note_piece("Recv", count, "from", peer);
    (void)stream;
    if (type != NCCL_UINT8 || !may_begin(c)) return INVALID_ARGUMENT;
    return add(c, data, count, peer, false);
}

int ncclBroadcast(const void *send, void *recv, size_t count, int type, int root,
                  struct nccl_comm *c, void *stream)
{
    note("Broadcast");
    (void)stream;
    if (type != NCCL_UINT8 || !may_begin(c)) return INVALID_ARGUMENT;
    for (int i = 0; i < c->size && c->rank == root; i++)
        if (i != root) add(c, (void *)send, count, i, true);
    if (c->rank != root) add(c, recv, count, root, false);
    return NCCL_IN_PROGRESS;
}

int ncclAllGather(const void *send, void *recv, size_t count, int type, struct nccl_comm *c,
                  void *stream)
{
    note("AllGather");
    (void)stream;
    if (type != NCCL_UINT8 || !may_begin(c)) return INVALID_ARGUMENT;
    for (int i = 0; i < c->size; i++) {
        add(c, (void *)send, count, i, true);
        add(c, (char *)recv + (size_t)i * count, count, i, false);
    }
    return NCCL_IN_PROGRESS;
}

int ncclCommFinalize(struct nccl_comm *c)
{
    note("CommFinalize");
    return may_begin(c) ? NCCL_IN_PROGRESS : INVALID_ARGUMENT;
}

int ncclCommDestroy(struct nccl_comm *c)
{
    note("CommDestroy");
    if (c->in_progress) return INVALID_ARGUMENT;
    ring_close(&c->map);
    free(c);
    return NCCL_SUCCESS;
}

int ncclCommAbort(struct nccl_comm *c)
{
    note("CommAbort");
    while (plan_of("grip")) pause();
    ring_close(&c->map);
    free(c);
    return NCCL_SUCCESS;
}

const char *ncclGetErrorString(int result)
{
    return result == NCCL_REMOTE_ERROR ? "remote process exited" : "some error";
}

const char *ncclGetLastError(struct nccl_comm *c)
{
    (void)c;
    return "what was fake about it";
}
