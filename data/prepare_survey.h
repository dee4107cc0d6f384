/*
 * prepare_survey.h - the first pass of prepare: read the sources, tidy and sign their dialogues,
 * and spool what is left. Internal to prepare.
 */
#ifndef DATA_PREPARE_SURVEY_H
#define DATA_PREPARE_SURVEY_H

#include "data/prepare.h"

/*
 * Into folder `dir` (prepare_spool.h). Fills what `counts` has about reading and cleaning.
 * ERR_FORMAT where nothing is left, ERR_INTERRUPTED, and what reading and writing raise.
 */
MUST_USE err_t prepare_survey(struct prepare_counts *counts, const struct prepare_options *o,
                              const struct clean_rules *rules, const char *dir, int64_t threads);

#endif
