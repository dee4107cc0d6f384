/* What connects the ranks of a run, opened in order and closed in reverse. */
#include "train/ranks.h"

#include "base/check.h"
#include "base/log.h"
#include "kernels/backend.h"
#include "kernels/dev.h"
#include "train/watchdog.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define JOIN_S   300.0
#define COMM_S   1800.0
#define BEATS    5 /* in the time of silence after which a rank is lost */
#define LET_GO_S 5 /* for the communicator of a rank that failed to end */

/* What rank 0 settles for all: an exchange that ranks queue differently would never end. */
struct terms {
    int64_t machine_size;
    uint8_t invitation[COMM_BLOB_BYTES];
};

STATIC_ASSERT(sizeof(struct terms) <= RENDEZVOUS_TERMS_MAX, "the terms fit into a welcome");

/* Rank 0's invitation, made before the meeting, since making it may take a while. That there is
 * none is told to all when they have come. */
struct invitation {
    const char *kind;
    uint8_t blob[COMM_BLOB_BYTES];
    err_t rc;
    struct err_record why;
};

static double or_default(double value, double otherwise) { return value > 0 ? value : otherwise; }

/* Which communicator: GPUs have their own; ranks whose memory is the host's, emulated GPUs too, go
 * by who started them. */
static const char *choose_kind(const struct ranks_args *args)
{
    const char *launcher = args->place->launcher;
    if (args->kind != NULL) return args->kind;
    if (args->place->size == 1) return "self";
    if (args->dev->backend != NULL && !args->dev->backend->host_memory) return "nccl";
    /* These do not bring MPI. */
    const bool alone = strcmp(launcher, "soulchat") == 0 || strcmp(launcher, "torchrun") == 0;
    return alone ? "shm" : "mpi";
}

/* Shared memory is one machine's. */
static err_t check_hosts(const struct rendezvous_seat seats[], int64_t size, const char *kind)
{
    for (int64_t i = 1; i < size && strcmp(kind, "shm") == 0; i++)
        if (strcmp(seats[i].host, seats[0].host) != 0)
            RAISE(USAGE,
                  "communicator shm: rank %lld is on %s and rank 0 on %s; start CPU ranks of "
                  "several machines with mpirun",
                  (long long)i, seats[i].host, seats[0].host);
    return ERR_OK;
}

/* Names alone would not do: containers on two machines may have the same. */
int64_t ranks_machine_size(const struct rendezvous_seat seats[], int64_t size)
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

static err_t settle(void *out, const struct rendezvous_seat seats[], int64_t size, void *arg)
{
    const struct invitation *invitation = arg;
    struct terms *terms = out;
    if (invitation->rc != ERR_OK) return err_adopt(&invitation->why);
    TRY(check_hosts(seats, size, invitation->kind));
    terms->machine_size = ranks_machine_size(seats, size);
    memcpy(terms->invitation, invitation->blob, sizeof terms->invitation);
    return ERR_OK;
}

static err_t meet(struct ranks *ranks, const struct ranks_args *args, struct comm_args *comm_args)
{
    const struct ranks_place *place = &ranks->place;
    const double beat_s = args->silence_s / BEATS;
    struct invitation invitation = { .kind = comm_args->kind };
    struct terms terms;
    if (place->rank == 0) {
        invitation.rc = comm_invite(invitation.blob, comm_args->kind, place->size, args->dev);
        invitation.why = *err_last();
    }
    TRY(rendezvous_join(&ranks->meeting, &(struct rendezvous_args){
                                             .rank = place->rank,
                                             .size = place->size,
                                             .local_rank = place->local_rank,
                                             .host = place->host,
                                             .port = place->port,
                                             .listen_fd = place->listen_fd,
                                             .job = place->job,
                                             .version = SOULCHAT_VERSION,
                                             .parts = args->parts,
                                             .part_count = args->part_count,
                                             .timeout_s = or_default(args->join_s, JOIN_S),
                                             .beat_s = beat_s,
                                             .silence_s = args->silence_s,
                                             .settle = settle,
                                             .settle_arg = &invitation,
                                             .terms = &terms,
                                             .term_bytes = (int64_t)sizeof terms,
                                         }));
    comm_args->machine_size = terms.machine_size;
    memcpy(comm_args->blob, terms.invitation, sizeof comm_args->blob);
    return watchdog_start(&ranks->watchdog, &(struct watchdog_args){
                                                .meeting = ranks->meeting,
                                                .beat_s = beat_s,
                                                .silence_s = args->silence_s,
                                                .finish_s = comm_args->timeout_s,
                                            });
}

static err_t open_all(struct ranks *ranks, const struct ranks_args *args)
{
    struct comm_args comm_args = {
        .kind = choose_kind(args),
        .rank = args->place->rank,
        .size = args->place->size,
        .dev = args->dev,
        .timeout_s = or_default(args->comm_s, COMM_S),
    };
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

static void *end_late(void *cause)
{
    nanosleep(&(struct timespec){ .tv_sec = LET_GO_S }, NULL);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    LOG_E("ranks", "%s; the communicator does not let go within %d s", (const char *)cause,
          LET_GO_S);
    _exit(1);
}

/* After a failure. Libraries have been seen to hang in that: a process that only waits to end would
 * keep its GPU, and the job. */
static void drop_comm(struct comm *comm, char *cause)
{
    pthread_t timer;
    if (comm == NULL) return;
    const bool is_timed = pthread_create(&timer, NULL, end_late, cause) == 0;
    comm_abort(comm, cause);
    comm_close(comm);
    if (!is_timed) return;
    pthread_cancel(timer);
    pthread_join(timer, NULL);
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
    err_t finished = ERR_OK;
    if (together) {
        comm_close(ranks->comm);
        finished = watchdog_finish(ranks->watchdog);
    } else {
        /* First: who fails says more than those do whom the abort makes fail. */
        watchdog_fail(ranks->watchdog, cause);
        drop_comm(ranks->comm, cause);
    }
    rendezvous_close(ranks->meeting);
    free(ranks);
    if (rc == ERR_OK) return finished;
    return err_adopt(&why);
}
