/*
 * ranks.h - the processes of one training run: who this one is, how they are started on one
 * machine, and everything that connects them.
 *
 *     TRY(ranks_find(&place));                                  // which rank am I, of how many
 *     if (wanted > 1 && place.size == 1 && place.launcher == NULL)
 *         return ranks_launch(&status, wanted, argv, 5);       // start them; they come here again
 *     TRY(ranks_join(&ranks, &(struct ranks_args){ .place = &place, .dev = dev, ... }));
 *     ... ranks->comm ...
 *     ranks_leave(ranks, rc);
 *
 * Ranks find out who they are from the variables of whoever started them:
 *
 *     soulchat train --ranks N   RANK WORLD_SIZE LOCAL_RANK MASTER_ADDR MASTER_PORT SOULCHAT_LAUNCH
 *     torchrun                   the same without the last, and TORCHELASTIC_RUN_ID
 *     mpirun                     OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK (or PMIX_RANK)
 *     srun                       SLURM_PROCID SLURM_NTASKS SLURM_LOCALID SLURM_STEP_NODELIST
 *
 * The innermost counts, in the order above. Two that contradict each other without one running
 * inside the other are an error, because nobody could say which is meant.
 *
 * Rank 0 listens at MASTER_ADDR:MASTER_PORT. Where those are not set: srun's first host and a port
 * made from the job's number; this machine, for mpirun on one. torchrun itself listens at its
 * MASTER_PORT, so ranks meet at the port after it. SOULCHAT_PORT overrides.
 */
#ifndef TRAIN_RANKS_H
#define TRAIN_RANKS_H

#include "base/err.h"
#include "train/comm.h"
#include "train/rendezvous.h"

#include <stdbool.h>
#include <stdint.h>

#define RANKS_STATUS_LOST                                                                          \
    75 /* how a process ends whose run lost a rank; EX_TEMPFAIL: try again                         \
        */

/* Which rank this is. */
struct ranks_place {
    int64_t rank, size, local_rank; /* local: among those of this machine; picks the GPU */
    const char *launcher;           /* "soulchat", "torchrun", "mpirun", "srun"; NULL: nobody */
    char host[256];                 /* where rank 0 listens; "" with one rank */
    int port;
    int listen_fd; /* rank 0 of ranks_launch: inherited, already listening; -1 */
    char job[256];
};

/* From the environment. ERR_USAGE: variables that are no numbers, contradict each other, or do not
 * say where rank 0 is. */
MUST_USE err_t ranks_find(struct ranks_place *out);

#define RANKS_DEVICE_MAX 32

/*
 * Where a rank computes: device "cuda" is the rank's own of its machine, "cuda:LOCAL_RANK";
 * "cuda:0" where srun or mpirun lets each rank see one GPU alone (CUDA_VISIBLE_DEVICES names one).
 * Any other device, and a single rank's, is as it was. Returns `out` or `device`.
 */
const char *ranks_device(char out[RANKS_DEVICE_MAX], const char *device,
                         const struct ranks_place *place);

/* The first name in a Slurm list: "gpu[007-009,12]-ib,x1" gives "gpu007-ib". ERR_USAGE. */
MUST_USE err_t ranks_first_host(char *out, int64_t out_size, const char *list);

/*
 * Run this program `size` times on this machine with the same arguments, each process with the
 * variables of its rank and, where there are enough, CPUs of its own; wait for all. SIGINT,
 * SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 are passed on to all, unless ignored; Ctrl-Z (SIGTSTP)
 * suspends all, until the launcher is continued. One line in the log for each rank that
 * fails; after the first, the others get RANKS_GRACE_S and are then killed, stopped ones too. As
 * long as only ranks that missed another have ended, they get RANKS_CAUSE_S, for the one whose
 * failure it was to end and say why. When the launcher itself is killed, so are they. A rank that
 * is stopped (SIGSTOP) for silence_s and a second, while the others have not missed it, ends all:
 * ranks that have not met yet would wait. *status: 0, or how the first that failed ended, its
 * status or 128 + the signal; RANKS_STATUS_LOST only when no rank ended in another way.
 *
 * The calling process has one thread; SIGCHLD gets its default action. argv[0] is looked up as
 * /proc/self/exe.
 */
#define RANKS_GRACE_S 3
#define RANKS_CAUSE_S 15
MUST_USE err_t ranks_launch(int *status, int64_t size, char *const *argv, double silence_s);

/* How many consecutive ranks share a machine where every machine has as many, counted from 0 on
 * each; 0: it is not so, or one machine has all. */
int64_t ranks_machine_size(const struct rendezvous_seat seats[], int64_t size);

struct dev;
struct watchdog;

struct ranks_args {
    const struct ranks_place *place;
    struct dev *dev;
    const char *kind;                    /* comm.h; NULL: by device and launcher */
    const struct rendezvous_part *parts; /* what must be the same on all ranks */
    int64_t part_count;
    double join_s,
        comm_s;       /* how long to wait for ranks to come, and in an exchange; 0: 300, 1800 */
    double silence_s; /* watchdog.h; 0: 5. Each tells that it lives five times in it */
};

struct ranks {
    struct ranks_place place;
    struct rendezvous *meeting; /* NULL with one rank, like the next */
    struct watchdog *watchdog;
    struct comm *comm;
};

/* Meets the others, starts the watchdog, opens the communicator. Yours; ranks_leave it. ERR_COMM:
 * rendezvous.h, comm.h; CPU ranks of several machines without MPI. */
MUST_USE err_t ranks_join(struct ranks **out, const struct ranks_args *args);
/*
 * With ERR_OK, or ERR_INTERRUPTED: this rank's work is done, as all ranks have decided together;
 * returns when everybody's is. With another code: the others are told the text of err_last(), and
 * end; a communicator that hangs in being aborted ends this process, with status 1. Returns `rc`,
 * its record untouched, or for ERR_OK what went wrong while waiting.
 */
MUST_USE err_t ranks_leave(struct ranks *ranks, err_t rc);

#endif
