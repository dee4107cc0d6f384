/*
 * role_names.h - whom the lines of a prompt are by. A model answers well only to the names that it
 * was trained with, so they come from the run where it is known, unless the user sets others.
 */
#ifndef EVAL_ROLE_NAMES_H
#define EVAL_ROLE_NAMES_H

#include "base/cfg.h"
#include "base/err.h"
#include "data/chat.h"

/*
 * data.client_name, data.counsellor_name, data.separator: each as the user set it; else as in the
 * settings that the checkpoint `dir` keeps in its state.json; else the default. A set one that
 * differs from the checkpoint's is warned about. A folder without state.json keeps no settings;
 * ones that cannot be read (another version wrote them) are passed over with a warning. Errors as
 * chat_template_from_cfg.
 */
MUST_USE err_t role_names_find(struct chat_template *out, const struct cfg *cfg, const char *dir);

#endif
