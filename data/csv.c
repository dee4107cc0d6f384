#include "data/csv.h"

#include "base/num.h"
#include "base/utf8.h"
#include "data/corpus.h"

#include <string.h>

/* Keep bytes of a field; beyond the limit they are only passed over. */
static err_t keep(struct csv *c, const char *bytes, int64_t size)
{
    if ((int64_t)c->row.size + size > CORPUS_RECORD_BYTES_MAX) {
        c->row.size = CORPUS_RECORD_BYTES_MAX + 1; /* told by row_error */
        return ERR_OK;
    }
    return buf_append(&c->row, bytes, (size_t)size);
}

static err_t keep_and_pass(struct csv *c, struct window *w, int64_t size)
{
    TRY(keep(c, w->bytes.data + w->at, size));
    window_advance(w, size);
    window_trim(w);
    return ERR_OK;
}

/* "file:line (byte N)" of the mistake, and the window behind its line. */
static err_t fail_here(struct window *w, int byte, const char *expected)
{
    const int64_t line = w->line, byte_offset = window_offset(w);
    TRY(window_skip_line(w));
    w->resumable = true;
    if (byte == '"')
        return window_raise(w, line, byte_offset,
                            "a quote inside a field without quotes, expected %s", expected);
    return window_raise(w, line, byte_offset, "text after a closing quote, expected %s", expected);
}

/* The window stands behind the opening quote. */
static err_t read_quoted(struct csv *c, struct window *w)
{
    const int64_t line = w->line, byte_offset = window_offset(w) - 1;
    for (;;) {
        int64_t have;
        int byte;
        TRY(window_fill(w, w->at, 1, &have));
        if (have <= 0)
            return window_raise(w, line, byte_offset,
                                "the file ends inside the quotes that open "
                                "here");
        const char *p = w->bytes.data + w->at;
        const char *quote = memchr(p, '"', (size_t)have);
        TRY(keep_and_pass(c, w, quote != NULL ? quote - p : have));
        if (quote == NULL) continue;
        window_advance(w, 1);
        TRY(window_byte(w, w->at, &byte));
        if (byte != '"') return ERR_OK;
        TRY(keep_and_pass(c, w, 1)); /* doubled: a quote of the text */
    }
}

static err_t read_plain(struct csv *c, struct window *w)
{
    for (;;) {
        int64_t have, n = 0;
        TRY(window_fill(w, w->at, 1, &have));
        if (have <= 0) return ERR_OK;
        const char *p = w->bytes.data + w->at;
        while (n < have && p[n] != ',' && p[n] != '\n' && p[n] != '"') n++;
        const bool ended = n < have;
        const bool quote = ended && p[n] == '"';
        TRY(keep_and_pass(c, w, n));
        if (quote) return fail_here(w, '"', "quotes around the field and doubled inside it");
        if (ended) return ERR_OK;
    }
}

/* One field and what ends it; *last = true at the end of the row. */
static err_t read_field(struct csv *c, struct window *w, bool *last)
{
    int byte;
    const int64_t begin = (int64_t)c->row.size;
    TRY(window_byte(w, w->at, &byte));
    const bool quoted = byte == '"';
    if (quoted) {
        window_advance(w, 1);
        TRY(read_quoted(c, w));
        TRY(window_byte(w, w->at, &byte));
        if (byte == '\r') {
            window_advance(w, 1);
            TRY(window_byte(w, w->at, &byte));
            if (byte != '\n') return fail_here(w, byte, "a comma or the end of the row");
        }
    } else {
        TRY(read_plain(c, w));
        TRY(window_byte(w, w->at, &byte));
        const int64_t size = (int64_t)c->row.size;
        if (byte != ',' && size > begin && size <= CORPUS_RECORD_BYTES_MAX &&
            c->row.data[size - 1] == '\r')
            c->row.size--;
    }
    if (byte != ',' && byte != '\n' && byte >= 0)
        return fail_here(w, byte, "a comma or the end of the row");
    if (byte >= 0) window_advance(w, 1);
    *last = byte != ',';
    if (c->count < CSV_COLUMNS_MAX) {
        c->field[c->count] = begin;
        c->size[c->count] = (int64_t)c->row.size - begin;
    }
    c->count++;
    return keep(c, "", 1);
}

/* What is wrong with a row whose quotes are right. */
static err_t check_row(struct csv *c, struct window *w)
{
    w->resumable = true;
    if ((int64_t)c->row.size > CORPUS_RECORD_BYTES_MAX) {
        buf_reset(&c->row);
        return window_raise(w, c->line, c->byte_offset, "a row of more than %d MiB",
                            CORPUS_RECORD_BYTES_MAX >> 20);
    }
    if (c->count > CSV_COLUMNS_MAX)
        return window_raise(w, c->line, c->byte_offset, "%lld fields, at most %d are read",
                            (long long)c->count, CSV_COLUMNS_MAX);
    if (c->columns > 0 && c->count != c->columns)
        return window_raise(w, c->line, c->byte_offset,
                            "%lld fields, expected %lld as in the "
                            "first row",
                            (long long)c->count, (long long)c->columns);
    if (utf8_valid_prefix(c->row.data, (int64_t)c->row.size) != (int64_t)c->row.size)
        return window_raise(w, c->line, c->byte_offset,
                            "a row that is not UTF-8; if the file is in another encoding, convert "
                            "it first: iconv -f GB18030 -t UTF-8");
    w->resumable = false;
    c->columns = c->count;
    return ERR_OK;
}

err_t csv_next(struct csv *c, struct window *w, bool *found)
{
    int byte;
    bool last = false;
    *found = false;
    w->resumable = false;
    for (;;) { /* blank lines; a row of one blank field is no row of a corpus */
        window_trim(w);
        TRY(window_byte(w, w->at, &byte));
        if (byte != '\n' && byte != '\r') break;
        window_advance(w, 1);
    }
    if (byte < 0) return ERR_OK;
    buf_reset(&c->row);
    c->count = 0;
    c->line = w->line;
    c->byte_offset = window_offset(w);
    while (!last) TRY(read_field(c, w, &last));
    TRY(check_row(c, w));
    *found = true;
    return ERR_OK;
}

char *csv_field(struct csv *c, int64_t column) { return c->row.data + c->field[column]; }

int64_t csv_column(struct csv *c, const char *name)
{
    for (int64_t i = 0; i < c->count; i++)
        if (strcmp(csv_field(c, i), name) == 0) return i;
    return -1;
}

void csv_clear(struct csv *c) { buf_clear(&c->row); }
