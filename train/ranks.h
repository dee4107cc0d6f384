/*
 * ranks.h - the processes of one training run: who this one is, how they are started on one
 * machine, and everything that connects them.
 *
 *     TRY(ranks_find(&place));                                  // which rank am I, of how many
 *     if (wanted > 1 && place.size == 1 && place.launcher == NULL)
 *         return ranks_launch(&status, wanted, argv);           // start them; they come here again
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

#define RANKS_STATUS_LOST 75 /* how a process ends whose run lost a rank; EX_TEMPFAIL: try again   \
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

/* The first name in a Slurm list: "gpu[007-009,12]-ib,x1" gives "gpu007-ib". ERR_USAGE. */
MUST_USE err_t ranks_first_host(char *out, int64_t out_size, const char *list);

/*
 * Run this program `size` times on this machine with the same arguments, each process with the
 * variables of its rank and, where there are enough, CPUs of its own; wait for all. SIGINT,
 * SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 are passed on to all. One line in the log for each rank that
 * fails; after the first, the others get RANKS_GRACE_S and are then killed, stopped ones too. When
 * the launcher itself is killed, so are they. *status: 0, or how the first that failed ended: its
 * status, or 128 + the signal.
 *
 * The calling process has one thread. argv[0] is looked up as /proc/self/exe.
 */
#define RANKS_GRACE_S 3
MUST_USE err_t ranks_launch(int *status, int64_t size, char *const *argv);

#endif
