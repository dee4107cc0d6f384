/*
 * corpus_json.h - cuts a JSON file of any size into records, each small enough to parse at once.
 * Internal to corpus.c.
 *
 * Three layouts, told apart by the first bytes:
 *   array    [ {...}, {...} ]            streamed element by element
 *   lines    {...}\n{...}\n              one object a line; blank lines are passed over
 *   objects  {\n ... }\n{\n ... }\n      objects over several lines, one after another
 *
 * The file is read with pread through a window that grows to the longest record, so a file that is
 * cut short while we read is an error and not a crash. A byte order mark and CRLF are passed over.
 */
#ifndef DATA_CORPUS_JSON_H
#define DATA_CORPUS_JSON_H

#include "base/buf.h"
#include "base/err.h"
#include "base/file.h"

#include <stdbool.h>
#include <stdint.h>

enum json_layout { JSON_LAYOUT_UNKNOWN, JSON_LAYOUT_ARRAY, JSON_LAYOUT_LINES, JSON_LAYOUT_OBJECTS };

struct json_records {
    struct file_reader file;
    struct buf window; /* bytes window_offset .. window_offset + window.size of the file */
    int64_t window_offset;
    int64_t at;   /* next unread byte, counted in the window */
    int64_t line; /* of the next unread byte; the first is 1 */
    int64_t record_count;
    enum json_layout layout;
    bool ended; /* the array's closing bracket was seen */
};

struct json_slice {
    const char *text; /* borrowed until the next call */
    int64_t size;
    int64_t byte_offset, line; /* of its first byte in the file */
};

/* ERR_NOTFOUND, ERR_IO; ERR_FORMAT for compressed and UTF-16 files, saying how to convert them. */
MUST_USE err_t json_records_open(struct json_records *r, const char *path);

/*
 * The next record's text, brackets balanced but otherwise unchecked. *found = false at the end.
 * ERR_FORMAT, after which nothing more can be read: text between records, a comma too many, an
 * array or object without its end, a record above CORPUS_RECORD_BYTES_MAX.
 */
MUST_USE err_t json_records_next(struct json_records *r, struct json_slice *out, bool *found);
/* Also after json_records_open failed. */
void json_records_close(struct json_records *r);

#endif
