#include "data/corpus_json.h"

#include "base/num.h"
#include "data/corpus.h"

#include <string.h>

/* ---- where a record ends ---- */

/* How far a scan has come: a record may need several reads. */
struct scan {
    int64_t depth;
    bool in_string, escaped;
    bool newline_in_string; /* which JSON forbids: the string was never closed on its line */
    bool ended;
};

static const char *find(const char *p, char c, const char *end)
{
    const char *at = memchr(p, c, (size_t)(end - p));
    return at != NULL ? at : end;
}

/* In a string, to behind its closing quote or to the end of what is there. Strings are most of a
 * corpus, and memchr looks at many bytes at once. A quote once found is kept: many backslashes
 * before a distant quote must not search for it again and again. */
static const char *pass_string(struct scan *s, const char *p, const char *end)
{
    if (s->escaped) p++;
    s->escaped = false;
    const char *quote = find(p, '"', end);
    for (;;) {
        const char *escape = find(p, '\\', quote);
        if (!s->newline_in_string) s->newline_in_string = find(p, '\n', escape) < escape;
        if (escape == quote) {
            s->in_string = quote == end;
            return s->in_string ? end : quote + 1;
        }
        s->escaped = escape + 1 == end;
        if (s->escaped) return end;
        p = escape + 2;
        if (quote < p) quote = find(p, '"', end);
    }
}

/* Go on with the scan; returns how many of the bytes belong to the value. */
static int64_t scan_bytes(struct scan *s, const char *begin, int64_t size)
{
    const char *p = begin, *end = begin + size;
    while (p < end && !s->ended) {
        if (s->in_string) {
            p = pass_string(s, p, end);
            s->ended = !s->in_string && s->depth == 0;
            continue;
        }
        const char c = *p;
        const bool bare = s->depth == 0; /* a number or word, which ends before something else */
        if (bare &&
            (c == ',' || c == ']' || c == '}' || c == ' ' || c == '\t' || c == '\n' || c == '\r')) {
            s->ended = true;
            break;
        }
        p++;
        if (c == '"') s->in_string = true;
        if (c == '{' || c == '[') s->depth++;
        if (c == '}' || c == ']') s->ended = --s->depth == 0;
    }
    return p - begin;
}

/*
 * The size of the value that begins here: an object, array or string by its brackets, anything else
 * up to a comma, bracket or blank. *size = -1 when the file ends first. With `pass`, the value may
 * be of any size: what lies in the window of it is passed over again and again.
 */
static err_t scan_value(struct window *w, struct scan *s, int64_t *size, bool pass)
{
    for (int64_t n = 0;;) {
        int64_t have;
        TRY(window_fill(w, w->at + n, 1, &have));
        const int64_t used = scan_bytes(s, w->bytes.data + w->at + n, max_i64(have, 0));
        n += used;
        *size = s->ended ? n : -1;
        if (pass) {
            window_advance(w, n);
            window_trim(w);
            n = 0;
        }
        if (s->ended || have <= 0) return ERR_OK;
        if (n > CORPUS_RECORD_BYTES_MAX) return ERR_OK;
    }
}

/* ---- layouts ---- */

/* The first object decides: over several lines, or one a line (also when it is broken, because a
 * broken line can be passed over and a broken object cannot). */
static err_t detect_layout(struct json_records *r, struct window *w)
{
    int byte;
    TRY(window_skip_blanks(w, &byte));
    if (byte < 0) return ERR_OK;
    if (byte == '[') {
        window_advance(w, 1);
        r->layout = JSON_LAYOUT_ARRAY;
        return ERR_OK;
    }
    if (byte != '{')
        return window_raise_found(w, byte, "'[' or '{': an array of dialogues or one a line");

    int64_t line_bytes, object_bytes;
    bool whole;
    struct scan s = { 0 };
    TRY(window_line(w, w->at, CORPUS_RECORD_BYTES_MAX, &line_bytes, &whole));
    TRY(scan_value(w, &s, &object_bytes, false));
    const bool longer = object_bytes > line_bytes || (object_bytes < 0 && !w->at_end);
    const bool several_lines = whole && longer && !s.newline_in_string;
    r->layout = several_lines ? JSON_LAYOUT_OBJECTS : JSON_LAYOUT_LINES;
    return ERR_OK;
}

static void take(struct json_records *r, struct window *w, struct window_slice *out, bool *found,
                 int64_t size)
{
    *out = (struct window_slice){ w->bytes.data + w->at, size, window_offset(w), w->line };
    *found = true;
    r->count++;
    window_advance(w, size);
}

static err_t raise_too_long(struct json_records *r, struct window *w,
                            const struct window_slice *where, bool resumable)
{
    r->count++;
    w->resumable = resumable;
    return window_raise(w, where->line, where->byte_offset, "a record of more than %d MiB",
                        CORPUS_RECORD_BYTES_MAX >> 20);
}

/* Take the bracketed value that begins here. */
static err_t take_value(struct json_records *r, struct window *w, struct window_slice *out,
                        bool *found)
{
    int64_t size;
    struct scan s = { 0 };
    const struct window_slice where = { NULL, 0, window_offset(w), w->line };
    TRY(scan_value(w, &s, &size, false));
    if (size < 0 && w->at_end)
        return window_raise(w, where.line, where.byte_offset, "the file ends inside this record");
    if (size >= 0 && size <= CORPUS_RECORD_BYTES_MAX) {
        take(r, w, out, found, size);
        return ERR_OK;
    }
    s = (struct scan){ 0 };
    TRY(scan_value(w, &s, &size, true));
    return raise_too_long(r, w, &where, s.ended);
}

static err_t next_in_array(struct json_records *r, struct window *w, struct window_slice *out,
                           bool *found)
{
    int byte;
    TRY(window_skip_blanks(w, &byte));
    if (!r->ended && byte == ']') {
        r->ended = true;
        window_advance(w, 1);
        TRY(window_skip_blanks(w, &byte));
    }
    if (r->ended)
        return byte < 0 ? ERR_OK : window_raise_found(w, byte, "nothing after the array's ']'");

    if (r->count > 0) {
        if (byte != ',') return window_raise_found(w, byte, "',' or ']' after a record");
        window_advance(w, 1);
        TRY(window_skip_blanks(w, &byte));
    }
    if (byte < 0 || byte == ',' || byte == ']' || byte == '}')
        return window_raise_found(w, byte, "a record");
    return take_value(r, w, out, found);
}

static err_t next_line(struct json_records *r, struct window *w, struct window_slice *out,
                       bool *found)
{
    int byte;
    int64_t size;
    bool whole;
    TRY(window_skip_blanks(w, &byte));
    if (byte < 0) return ERR_OK;
    const struct window_slice where = { NULL, 0, window_offset(w), w->line };
    TRY(window_line(w, w->at, CORPUS_RECORD_BYTES_MAX, &size, &whole));
    if (whole) {
        take(r, w, out, found, size);
        return ERR_OK;
    }
    TRY(window_skip_line(w));
    return raise_too_long(r, w, &where, true);
}

static err_t next_object(struct json_records *r, struct window *w, struct window_slice *out,
                         bool *found)
{
    int byte;
    TRY(window_skip_blanks(w, &byte));
    if (byte < 0) return ERR_OK;
    if (byte != '{') return window_raise_found(w, byte, "'{' of the next record");
    return take_value(r, w, out, found);
}

err_t json_records_next(struct json_records *r, struct window *w, struct window_slice *out,
                        bool *found)
{
    *found = false;
    w->resumable = false;
    window_trim(w);
    if (r->layout == JSON_LAYOUT_UNKNOWN) TRY(detect_layout(r, w));
    switch (r->layout) {
    case JSON_LAYOUT_ARRAY:
        return next_in_array(r, w, out, found);
    case JSON_LAYOUT_LINES:
        return next_line(r, w, out, found);
    case JSON_LAYOUT_OBJECTS:
        return next_object(r, w, out, found);
    case JSON_LAYOUT_UNKNOWN:
        break; /* an empty file */
    }
    return ERR_OK;
}
