/*
 * snapshot.h - checkpoints for which training waits only while its state is copied to host memory;
 * a thread writes the copy, syncs and publishes it.
 *
 *     TRY(snapshot_open(&snapshot, optim, true, ranks));
 *     for (each step) {
 *         ...
 *         TRY(snapshot_poll(snapshot));               // its failure, as soon as it is known
 *         if (due) TRY(snapshot_save(snapshot, root, &state, &keep));
 *     }
 *     TRY(snapshot_wait(snapshot));                   // before a stop, a rollback, and at the end
 *     snapshot_close(snapshot);
 *
 * Files, order of steps and promises are those of ckpt_save; what is newest is what was published
 * last. At most one save is under way: the next begins when it has ended. A failure is returned by
 * the first call after it, on all ranks; nothing of that save is left then.
 *
 * The copy takes as much page-locked host memory as the files of this rank's part (snapshot_bytes)
 * from the first save on. Where a machine has not as much for its ranks (host_room.h), all of them
 * save while training waits, and a warning says so.
 */
#ifndef TRAIN_SNAPSHOT_H
#define TRAIN_SNAPSHOT_H

#include "train/ckpt.h"

struct snapshot;

/* Yours; snapshot_close it. `optim` and `ranks` (NULL: one) are borrowed; `owned` is called by the
 * thread, too. Not `background`: all saves are ckpt_save. ERR_NOMEM. */
MUST_USE err_t snapshot_open(struct snapshot **out, struct optim *optim, bool background,
                             const struct ckpt_ranks *ranks);
/* Waits for what is under way on this rank, and discards what is not published by then. NULL
 * allowed. */
void snapshot_close(struct snapshot *s);

/* Errors of ckpt_save, of this save or of the last one; then nothing is saved. */
MUST_USE err_t snapshot_save(struct snapshot *s, const char *root, const struct ckpt_state *state,
                             const struct ckpt_keep *keep);
/* Without waiting, on all ranks at the same step: several ranks publish when they learn here that
 * all have written. An exchange of some bytes while a save is under way, else nothing. */
MUST_USE err_t snapshot_poll(struct snapshot *s);
/* Until what is under way is published. */
MUST_USE err_t snapshot_wait(struct snapshot *s);

struct snapshot_report {
    int64_t step;
    double seconds; /* from the call of snapshot_save until it was in place */
};
/* Whether a save was published since the last call, and which. */
bool snapshot_take_report(struct snapshot *s, struct snapshot_report *out);

/* Host memory of the copy, for `soulchat plan`: of one rank that keeps everything. */
MUST_USE err_t snapshot_bytes(int64_t *out, const struct glm_params *params,
                              const struct stored_formats *formats);

#endif
