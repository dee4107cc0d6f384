/* What connects the ranks of a run, opened in order and closed in reverse. */
#include "train/ranks.h"

#include "base/check.h"
#include "base/log.h"
#include "kernels/backend.h"
#include "kernels/dev.h"
#include "train/watchdog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JOIN_S 300.0
#define COMM_S 1800.0
#define BEATS  5 /* in the time of silence after which a rank is lost */

STATIC_ASSERT(COMM_BLOB_BYTES <= RENDEZVOUS_GATHER_MAX, "an invitation fits into a gather");
STATIC_ASSERT(sizeof(struct ranks_seat) <= RENDEZVOUS_GATHER_MAX, "a seat fits into a gather");

static double or_default(double value, double otherwise) { return value > 0 ? value : otherwise; }

/* Which communicator: GPUs have their own; ranks whose memory is the host's, emulated GPUs too, go
 * by who started them. */
static err_t choose_kind(const char **out, const struct ranks_args *args)
{
    const char *launcher = args->place->launcher;
    *out = args->kind;
    if (args->kind != NULL) return ERR_OK;
    if (args->place->size == 1)
        *out = "self";
    else if (args->dev->backend != NULL && !args->dev->backend->host_memory)
        *out = "nccl";
    else if (strcmp(launcher, "soulchat") == 0 || strcmp(launcher, "torchrun") == 0)
        *out = "shm"; /* neither brings MPI */
    else
        *out = "mpi";
    return ERR_OK;
}

/* Shared memory is one machine's. */
static err_t check_hosts(const struct ranks *ranks, const char *kind)
{
    const char *first = rendezvous_host(ranks->meeting, 0);
    for (int64_t i = 1; i < ranks->place.size && strcmp(kind, "shm") == 0; i++)
        if (strcmp(rendezvous_host(ranks->meeting, i), first) != 0)
            RAISE(USAGE,
                  "communicator shm: rank %lld is on %s and rank 0 on %s; start CPU ranks of "
                  "several machines with mpirun",
                  (long long)i, rendezvous_host(ranks->meeting, i), first);
    return ERR_OK;
}

/* Names alone would not do: containers on two machines may have the same. */
int64_t ranks_machine_size(const struct ranks_seat seats[], int64_t size)
{
    int64_t near = 1;
    while (near < size && strcmp(seats[near].host, seats[0].host) == 0) near++;
    if (near == size || size % near != 0) return 0;
    for (int64_t i = 0; i < size; i++) {
        if (seats[i].local_rank != i % near) return 0;
        if (strcmp(seats[i].host, seats[i - i % near].host) != 0) return 0;
    }
    for (int64_t i = near; i < size; i += near)
        if (strcmp(seats[i].host, seats[i - near].host) == 0) return 0;
    return near;
}

/* All ranks judge the same bytes: an exchange that they queue differently would never end. */
static err_t find_machines(const struct ranks *ranks, int64_t *machine_size, double timeout_s)
{
    const int64_t size = ranks->place.size;
    struct ranks_seat mine = { .local_rank = ranks->place.local_rank };
    struct ranks_seat *all = calloc((size_t)size, sizeof *all);
    if (all == NULL) RAISE(NOMEM, "ranks: no memory");
    snprintf(mine.host, sizeof mine.host, "%s", rendezvous_host(ranks->meeting, ranks->place.rank));
    const err_t rc = rendezvous_gather(ranks->meeting, all, &mine, (int64_t)sizeof mine, timeout_s);
    for (int64_t i = 0; i < size; i++) all[i].host[sizeof all[i].host - 1] = '\0';
    if (rc == ERR_OK) *machine_size = ranks_machine_size(all, size);
    free(all);
    return rc;
}

/* Rank 0's invitation, on every rank. */
static err_t share_invitation(const struct ranks *ranks, struct comm_args *comm_args,
                              double timeout_s)
{
    uint8_t *all = calloc((size_t)ranks->place.size, COMM_BLOB_BYTES);
    err_t rc = ERR_OK;
    if (all == NULL) RAISE(NOMEM, "communicator: no memory");
    if (ranks->place.rank == 0)
        TRY_DONE(comm_invite(comm_args->blob, comm_args->kind, comm_args->size, comm_args->dev));
    TRY_DONE(rendezvous_gather(ranks->meeting, all, comm_args->blob, COMM_BLOB_BYTES, timeout_s));
    memcpy(comm_args->blob, all, COMM_BLOB_BYTES);
done:
    free(all);
    return rc;
}

static err_t meet(struct ranks *ranks, const struct ranks_args *args, struct comm_args *comm_args)
{
    const double join_s = or_default(args->join_s, JOIN_S);
    TRY(rendezvous_join(&ranks->meeting, &(struct rendezvous_args){
                                             .rank = ranks->place.rank,
                                             .size = ranks->place.size,
                                             .host = ranks->place.host,
                                             .port = ranks->place.port,
                                             .listen_fd = ranks->place.listen_fd,
                                             .job = ranks->place.job,
                                             .version = SOULCHAT_VERSION,
                                             .parts = args->parts,
                                             .part_count = args->part_count,
                                             .timeout_s = join_s,
                                         }));
    TRY(check_hosts(ranks, comm_args->kind));
    TRY(find_machines(ranks, &comm_args->machine_size, join_s));
    TRY(share_invitation(ranks, comm_args, join_s));
    return watchdog_start(&ranks->watchdog, &(struct watchdog_args){
                                                .meeting = ranks->meeting,
                                                .beat_s = args->silence_s / BEATS,
                                                .silence_s = args->silence_s,
                                                .finish_s = comm_args->timeout_s,
                                            });
}

static err_t open_all(struct ranks *ranks, const struct ranks_args *args)
{
    struct comm_args comm_args = {
        .rank = args->place->rank,
        .size = args->place->size,
        .dev = args->dev,
        .timeout_s = or_default(args->comm_s, COMM_S),
    };
    TRY(choose_kind(&comm_args.kind, args));
    if (args->place->size > 1)
        TRY(meet(ranks, args, &comm_args));
    else
        TRY(comm_invite(comm_args.blob, comm_args.kind, 1, args->dev));
    TRY(comm_open(&ranks->comm, &comm_args));
    if (ranks->watchdog != NULL) watchdog_watch(ranks->watchdog, ranks->comm);
    LOG_D("ranks", "rank %lld of %lld, local %lld, by %s over %s; machines of %lld",
          (long long)ranks->place.rank, (long long)ranks->place.size,
          (long long)ranks->place.local_rank,
          ranks->place.launcher != NULL ? ranks->place.launcher : "nobody", comm_args.kind,
          (long long)comm_args.machine_size);
    return ERR_OK;
}

err_t ranks_join(struct ranks **out, const struct ranks_args *args)
{
    *out = NULL;
    struct ranks *ranks = calloc(1, sizeof *ranks);
    if (ranks == NULL) RAISE(NOMEM, "ranks: no memory");
    ranks->place = *args->place;
    const err_t rc = open_all(ranks, args);
    if (rc != ERR_OK) return ranks_leave(ranks, rc);
    *out = ranks;
    return ERR_OK;
}

err_t ranks_leave(struct ranks *ranks, err_t rc)
{
    if (ranks == NULL) return rc;
    const struct err_record why = *err_last(); /* of rc, when that is an error */
    const bool together = rc == ERR_OK || rc == ERR_INTERRUPTED;
    char cause[ERR_TEXT_MAX];
    snprintf(cause, sizeof cause, "%s%.480s", rc == ERR_NOMEM ? "out of memory: " : "", why.text);
    if (rc == ERR_COMM) watchdog_settle(ranks->watchdog);
    if (ranks->watchdog != NULL) watchdog_watch(ranks->watchdog, NULL);
    /* The watchdog first: who fails then says more than those do whom the abort makes fail. */
    if (!together && ranks->watchdog == NULL && ranks->meeting != NULL)
        rendezvous_fail(ranks->meeting, cause);
    if (!together) watchdog_fail(ranks->watchdog, cause);
    if (!together && ranks->comm != NULL) comm_abort(ranks->comm, cause);
    comm_close(ranks->comm);
    const err_t finished = together ? watchdog_finish(ranks->watchdog) : ERR_OK;
    rendezvous_close(ranks->meeting);
    free(ranks);
    if (rc == ERR_OK) return finished;
    return err_adopt(&why);
}
