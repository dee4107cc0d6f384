/*
 * json_in.h - strict reading of small JSON files: UTF-8 checked, duplicate keys refused, and every
 * complaint names the file, the key, what was found and what is wanted. Internal to model/.
 */
#ifndef MODEL_JSON_IN_H
#define MODEL_JSON_IN_H

#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Yours; json_decref it. The text must be one object. ERR_FORMAT with line and column. */
MUST_USE err_t json_in_parse(json_t **out, const char *text, int64_t size, const char *name);
/* json_loadb, duplicate keys refused; NULL: json_in_failure. */
json_t *json_in_load(json_error_t *error, const char *text, int64_t size);
/* What jansson says of the text that json_in_load read last on this thread: ERR_NOMEM, which speaks
 * of this machine alone, or ERR_FORMAT, "name: line: text". */
MUST_USE err_t json_in_failure(const json_error_t *error, const char *name);
/* A whole file; ERR_NOTFOUND, ERR_IO, ERR_FORMAT (also for a Git LFS pointer). */
MUST_USE err_t json_in_file(json_t **out, const char *path, int64_t bytes_max);

/* Values of an object by key. A missing key is ERR_FORMAT; so is another type or a value outside
 * min..max (inclusive). `name` is the file, for messages. */
MUST_USE err_t json_in_int(int64_t *out, const json_t *object, const char *key, int64_t min,
                           int64_t max, const char *name);
MUST_USE err_t json_in_real(double *out, const json_t *object, const char *key, const char *name);
/* The same for keys that may be absent or null: *out keeps its value then. */
MUST_USE err_t json_in_bool_maybe(bool *out, const json_t *object, const char *key,
                                  const char *name);
MUST_USE err_t json_in_real_maybe(double *out, const json_t *object, const char *key,
                                  const char *name);
/* "a string", "an integer", "null", "nothing" (NULL): for messages. */
const char *json_in_type(const json_t *value);

#endif
