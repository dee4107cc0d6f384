/* inspect_json.h - the few JSON values that inspect writes, straight into a buffer. */
#ifndef DATA_INSPECT_JSON_H
#define DATA_INSPECT_JSON_H

#include "base/buf.h"
#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

/* Append a string with its quotes; what is not UTF-8 becomes U+FFFD. */
MUST_USE err_t json_put_string(struct buf *out, const char *text, size_t size);
/* Append `"name":` and the string; or the array [v[0], v[stride], v[2*stride], ...]. No commas. */
MUST_USE err_t json_put_member(struct buf *out, const char *name, const char *text);
MUST_USE err_t json_put_i32s(struct buf *out, const char *name, const int32_t *values,
                             int64_t count);
MUST_USE err_t json_put_i64s(struct buf *out, const char *name, const int64_t *values,
                             int64_t count);

#endif
