/*
 * prepare_work.h - the folder OUT.work, from which an interrupted preparation goes on. Internal to
 * prepare.
 *
 *     lock                 held by the run that is at work
 *     dialogues.text/rows  the spool (prepare_spool.h), whole
 *     plan.bin             the plan and the counters after the first pass
 *     journal.bin          finished shards and the counters behind the last of them
 *
 * Plan and journal begin with the recipe that they belong to and end with a sha256; each replaces
 * its predecessor at once. What does not fit the recipe, or is damaged, is as if it were not there.
 */
#ifndef DATA_PREPARE_WORK_H
#define DATA_PREPARE_WORK_H

#include "data/prepare.h"
#include "data/prepare_plan.h"

/*
 * The recipe of a preparation: sha256 over everything that its result depends on, which are the
 * program's version and all settings but those of speed and place, the tokenizer's bytes, the
 * cleaning rules, and the bytes of the sources, whose digests counts->source[].sha256 has.
 */
MUST_USE err_t prepare_recipe(struct prepare_counts *counts, const struct prepare_options *o,
                              const struct shard_info *info);

/* Fill counts->source[].sha256, and nothing else: another thread may count meanwhile. */
MUST_USE err_t prepare_hash_sources(struct prepare_counts *counts, const struct prepare_options *o);

/* ERR_IO when the file system of the output has less room than spool and shards will need. */
MUST_USE err_t prepare_check_disk(const struct prepare_options *o);

/* OUT and `suffix`, also where OUT ends with slashes: a path beside it and not inside. ERR_ARG: too
 * long. */
MUST_USE err_t prepare_path_beside(char path[FILE_PATH_MAX], const struct prepare_options *o,
                                   const char *suffix);

struct prepare_work {
    char dir[FILE_PATH_MAX];
    int lock;  /* file descriptor; -1 before it is held */
    bool keep; /* there is something to go on from */
    struct prepare_plan plan;
    struct shard_done *done; /* [done_count] as the journal has them */
    int64_t done_count;
};

/* Create or take over the folder. ERR_ARG: another run holds it, or something else is in it. Close
 * it in any case. */
MUST_USE err_t prepare_work_open(struct prepare_work *w, const struct prepare_options *o);
/* Whether somebody left a plan here, of whatever recipe. */
MUST_USE err_t prepare_work_has_plan(bool *has, const struct prepare_work *w);
/* Take plan and journal, if they are this recipe's: then *counts is as it was when they were
 * written, and w->plan.count > 0. */
MUST_USE err_t prepare_work_load(struct prepare_work *w, struct prepare_counts *counts);
/* The finished shards are not what the journal says: *counts and w are as after the plan. */
MUST_USE err_t prepare_work_drop_journal(struct prepare_work *w, struct prepare_counts *counts);
MUST_USE err_t prepare_work_save_plan(struct prepare_work *w, const struct prepare_counts *counts);
MUST_USE err_t prepare_work_save_journal(struct prepare_work *w,
                                         const struct prepare_counts *counts,
                                         const struct shard_done *done, int64_t done_count);
/* The folder goes, unless there is something to go on from and `resumable`. */
void prepare_work_close(struct prepare_work *w, bool resumable);

#endif
