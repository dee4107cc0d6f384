/*
 * env.h - every SOULCHAT_* environment variable, as one table; an unknown one is an error at start,
 * so a typo never goes unnoticed. Values are read once by the part that owns them.
 */
#ifndef BASE_ENV_H
#define BASE_ENV_H

#include "base/err.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct env_row {
    const char *name; /* "SOULCHAT_LOG" */
    const char *help; /* one line, with an example value */
};

/* ERR_USAGE names the variable that is not in the table and the nearest one that is. */
MUST_USE err_t env_check(void);
/* The value, or NULL when unset or empty; ASSERTs that `name` is in the table. */
const char *env_get(const char *name);
int64_t env_row_count(void);
const struct env_row *env_row_at(int64_t index);

#ifdef __cplusplus
}
#endif
#endif
