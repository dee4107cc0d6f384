#include "data/corpus_json.h"

#include "base/check.h"
#include "base/num.h"
#include "data/corpus.h"

#include <stdio.h>
#include <string.h>

#define READ_BYTES (1 << 20)

/* ---- the window ---- */

/* Have `extra` more bytes after `from`, as far as the file goes; *have counts what is there. */
static err_t window_fill(struct json_records *r, int64_t from, int64_t extra, int64_t *have)
{
    const int64_t held = (int64_t)r->window.size;
    const int64_t file_left = r->file.size - (r->window_offset + held);
    const int64_t missing = from + extra - held;
    if (missing > 0 && file_left > 0) {
        const int64_t bytes = min_i64(max_i64(missing, READ_BYTES), file_left);
        TRY(buf_reserve(&r->window, (size_t)bytes));
        TRY(file_reader_pread(&r->file, r->window.data + held, bytes, r->window_offset + held));
        r->window.size += (size_t)bytes;
    }
    *have = (int64_t)r->window.size - from;
    return ERR_OK;
}

/* The byte at window position `at`, or -1 at the end of the file. */
static err_t window_byte(struct json_records *r, int64_t at, int *byte)
{
    int64_t have = (int64_t)r->window.size - at;
    if (have <= 0) TRY(window_fill(r, at, 1, &have));
    *byte = have > 0 ? (unsigned char)r->window.data[at] : -1;
    return ERR_OK;
}

/* Pass over `count` bytes of the window, counting lines. */
static void window_advance(struct json_records *r, int64_t count)
{
    const char *p = r->window.data + r->at;
    const char *end = p + count;
    while (p < end && (p = memchr(p, '\n', (size_t)(end - p))) != NULL) {
        r->line++;
        p++;
    }
    r->at += count;
}

/* Forget what was read, so that memory stays at one record and one read. Moving the rest down is
 * paid once for each READ_BYTES, not for each record. */
static void window_trim(struct json_records *r)
{
    if (r->at < READ_BYTES) return;
    memmove(r->window.data, r->window.data + r->at, r->window.size - (size_t)r->at);
    r->window.size -= (size_t)r->at;
    r->window_offset += r->at;
    r->at = 0;
}

static int64_t file_offset(const struct json_records *r, int64_t at)
{
    return r->window_offset + at;
}

static bool is_blank(int byte)
{
    return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

/* Advance to the next byte that is not blank; *byte = -1 at the end. */
static err_t skip_blanks(struct json_records *r, int *byte)
{
    for (;;) {
        TRY(window_byte(r, r->at, byte));
        if (!is_blank(*byte)) return ERR_OK;
        window_advance(r, 1);
    }
}

/* ---- where a record ends ---- */

/* How far a scan has come: a record may need several reads. */
struct scan {
    int64_t depth;
    bool in_string, escaped;
    bool newline_in_string; /* which JSON forbids: the string was never closed on its line */
};

/* Take one byte; true when it was the last of the value. */
static bool scan_byte(struct scan *s, char c)
{
    if (s->in_string) {
        s->newline_in_string |= c == '\n';
        if (s->escaped)
            s->escaped = false;
        else if (c == '\\')
            s->escaped = true;
        else if (c == '"')
            s->in_string = false;
        return !s->in_string && s->depth == 0;
    }
    if (c == '"') s->in_string = true;
    if (c == '{' || c == '[') s->depth++;
    if (c == '}' || c == ']') return --s->depth <= 0;
    return false;
}

/* The size of the value that begins at r->at: an object, array or string by its brackets, anything
 * else up to a comma, bracket or blank. *size = -1 when the file ends first. */
static err_t value_size(struct json_records *r, int64_t *size, bool *newline_in_string)
{
    struct scan s = { 0 };
    *size = -1;
    *newline_in_string = false;
    for (int64_t n = 0;; n++) {
        int byte;
        TRY(window_byte(r, r->at + n, &byte));
        if (byte < 0) return ERR_OK;
        const bool plain = s.depth == 0 && !s.in_string;
        if (plain && n > 0 && (byte == ',' || byte == ']' || byte == '}' || is_blank(byte))) {
            *size = n;
            return ERR_OK;
        }
        const bool last = scan_byte(&s, (char)byte);
        *newline_in_string = s.newline_in_string;
        if (last) {
            *size = n + 1;
            return ERR_OK;
        }
        if (n >= CORPUS_RECORD_BYTES_MAX)
            RAISE(FORMAT, "%s:%lld (byte %lld): a record of more than %d MiB", r->file.path,
                  (long long)r->line, (long long)file_offset(r, r->at),
                  CORPUS_RECORD_BYTES_MAX >> 20);
    }
}

/* The size of the line that begins at r->at, without its end. */
static err_t line_size(struct json_records *r, int64_t *size)
{
    for (int64_t n = 0;;) {
        int64_t have;
        TRY(window_fill(r, r->at + n, 1, &have));
        const char *p = r->window.data + r->at + n;
        const char *end = have > 0 ? memchr(p, '\n', (size_t)have) : NULL;
        if (end != NULL || have <= 0) {
            *size = n + (end != NULL ? (int64_t)(end - p) : 0);
            return ERR_OK;
        }
        n += have;
        if (n > CORPUS_RECORD_BYTES_MAX)
            RAISE(FORMAT, "%s:%lld (byte %lld): a line of more than %d MiB", r->file.path,
                  (long long)r->line, (long long)file_offset(r, r->at),
                  CORPUS_RECORD_BYTES_MAX >> 20);
    }
}

/* ---- layouts ---- */

static err_t fail_at(const struct json_records *r, int byte, const char *expected)
{
    char found[32] = "the end of the file";
    if (byte > ' ' && byte < 0x7f)
        snprintf(found, sizeof found, "'%c'", byte);
    else if (byte >= 0)
        snprintf(found, sizeof found, "byte 0x%02x", (unsigned)byte);
    RAISE(FORMAT, "%s:%lld (byte %lld): found %s, expected %s", r->file.path, (long long)r->line,
          (long long)file_offset(r, r->at), found, expected);
}

/* The first object decides: over several lines, or one a line (also when it is broken, because a
 * broken line can be passed over and a broken object cannot). */
static err_t detect_layout(struct json_records *r)
{
    int byte;
    TRY(skip_blanks(r, &byte));
    if (byte < 0) return ERR_OK;
    if (byte == '[') {
        window_advance(r, 1);
        r->layout = JSON_LAYOUT_ARRAY;
        return ERR_OK;
    }
    if (byte != '{') return fail_at(r, byte, "'[' or '{': an array of dialogues or one a line");

    int64_t line_bytes, object_bytes = -1;
    bool newline_in_string;
    TRY(line_size(r, &line_bytes));
    const err_t rc = value_size(r, &object_bytes, &newline_in_string);
    if (rc != ERR_OK && rc != ERR_FORMAT) return rc;
    const bool several_lines = object_bytes > line_bytes && !newline_in_string;
    r->layout = several_lines ? JSON_LAYOUT_OBJECTS : JSON_LAYOUT_LINES;
    return ERR_OK;
}

static void take(struct json_records *r, struct json_slice *out, bool *found, int64_t size)
{
    *out = (struct json_slice){ r->window.data + r->at, size, file_offset(r, r->at), r->line };
    *found = true;
    r->record_count++;
    window_advance(r, size);
}

/* Take the bracketed value that begins here. */
static err_t take_value(struct json_records *r, struct json_slice *out, bool *found)
{
    int64_t size;
    bool newline_in_string;
    TRY(value_size(r, &size, &newline_in_string));
    if (size < 0)
        RAISE(FORMAT, "%s:%lld (byte %lld): the file ends inside this record", r->file.path,
              (long long)r->line, (long long)file_offset(r, r->at));
    take(r, out, found, size);
    return ERR_OK;
}

static err_t next_in_array(struct json_records *r, struct json_slice *out, bool *found)
{
    int byte;
    TRY(skip_blanks(r, &byte));
    if (!r->ended && byte == ']') {
        r->ended = true;
        window_advance(r, 1);
        TRY(skip_blanks(r, &byte));
    }
    if (r->ended) return byte < 0 ? ERR_OK : fail_at(r, byte, "nothing after the array's ']'");

    if (r->record_count > 0) {
        if (byte != ',') return fail_at(r, byte, "',' or ']' after a record");
        window_advance(r, 1);
        TRY(skip_blanks(r, &byte));
    }
    if (byte < 0 || byte == ',' || byte == ']' || byte == '}') return fail_at(r, byte, "a record");
    return take_value(r, out, found);
}

static err_t next_line(struct json_records *r, struct json_slice *out, bool *found)
{
    int byte;
    int64_t size;
    TRY(skip_blanks(r, &byte));
    if (byte < 0) return ERR_OK;
    TRY(line_size(r, &size));
    take(r, out, found, size);
    return ERR_OK;
}

static err_t next_object(struct json_records *r, struct json_slice *out, bool *found)
{
    int byte;
    TRY(skip_blanks(r, &byte));
    if (byte < 0) return ERR_OK;
    if (byte != '{') return fail_at(r, byte, "'{' of the next record");
    return take_value(r, out, found);
}

/* ---- the public part ---- */

/* Files that people really have and that are not plain UTF-8 JSON. */
static const struct {
    const char *bytes;
    int64_t size;
    const char *what;
} foreign[] = {
    { "\x28\xb5\x2f\xfd", 4, "compressed with zstd; unpack it first: zstd -d FILE" },
    { "\x1f\x8b", 2, "compressed with gzip; unpack it first: gunzip -k FILE" },
    { "PK\x03\x04", 4, "a zip archive; unpack it first: unzip FILE" },
    { "\xff\xfe", 2, "UTF-16; convert it first: iconv -f UTF-16 -t UTF-8 FILE" },
    { "\xfe\xff", 2, "UTF-16; convert it first: iconv -f UTF-16 -t UTF-8 FILE" },
};

err_t json_records_open(struct json_records *r, const char *path)
{
    int64_t have;
    *r = (struct json_records){ .line = 1, .file = { .fd = -1 } };
    TRY(file_reader_open(&r->file, path));
    TRY(window_fill(r, 0, 4, &have));
    for (int64_t i = 0; i < COUNT_OF(foreign); i++)
        if (have >= foreign[i].size &&
            memcmp(r->window.data, foreign[i].bytes, (size_t)foreign[i].size) == 0)
            RAISE(FORMAT, "%s is %s", path, foreign[i].what);
    if (have >= 3 && memcmp(r->window.data, "\xef\xbb\xbf", 3) == 0) r->at = 3;
    return ERR_OK;
}

err_t json_records_next(struct json_records *r, struct json_slice *out, bool *found)
{
    *found = false;
    window_trim(r);
    if (r->layout == JSON_LAYOUT_UNKNOWN) TRY(detect_layout(r));
    switch (r->layout) {
    case JSON_LAYOUT_ARRAY:
        return next_in_array(r, out, found);
    case JSON_LAYOUT_LINES:
        return next_line(r, out, found);
    case JSON_LAYOUT_OBJECTS:
        return next_object(r, out, found);
    case JSON_LAYOUT_UNKNOWN:
        break; /* an empty file */
    }
    return ERR_OK;
}

void json_records_close(struct json_records *r)
{
    file_reader_close(&r->file);
    buf_clear(&r->window);
}
