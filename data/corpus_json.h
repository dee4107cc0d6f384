/*
 * corpus_json.h - cuts a JSON file of any size into records, each small enough to parse at once.
 * Internal to corpus.c.
 *
 * Three layouts, told apart by the first bytes:
 *   array    [ {...}, {...} ]            streamed element by element
 *   lines    {...}\n{...}\n              one object a line; blank lines are passed over
 *   objects  {\n ... }\n{\n ... }\n      objects over several lines, one after another
 */
#ifndef DATA_CORPUS_JSON_H
#define DATA_CORPUS_JSON_H

#include "base/err.h"
#include "data/window.h"

#include <stdbool.h>
#include <stdint.h>

enum json_layout { JSON_LAYOUT_UNKNOWN, JSON_LAYOUT_ARRAY, JSON_LAYOUT_LINES, JSON_LAYOUT_OBJECTS };

/* A zeroed struct stands at the beginning. */
struct json_records {
    enum json_layout layout;
    int64_t count; /* of records, also of those that were too long */
    bool ended;    /* the array's closing bracket was seen */
};

/*
 * The next record's text, brackets balanced but otherwise unchecked. *found = false at the end.
 * ERR_FORMAT: text between records, a comma too many, an array or object without its end; and,
 * with w->resumable, a record above CORPUS_RECORD_BYTES_MAX, which was passed over.
 */
MUST_USE err_t json_records_next(struct json_records *r, struct window *w, struct window_slice *out,
                                 bool *found);

#endif
