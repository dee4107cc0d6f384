#include "data/window.h"

#include "base/check.h"
#include "base/num.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define READ_BYTES (1 << 20)

/* Files that people really have and that are not UTF-8 text. */
static const struct {
    const char *bytes;
    int64_t size;
    const char *what;
} foreign[] = {
    { "\x28\xb5\x2f\xfd", 4, "packed twice; unpack it once: zstd -d FILE" },
    { "\x1f\x8b", 2, "packed twice; unpack it once: gunzip -k FILE" },
    { "PK\x03\x04", 4, "a zip archive; unpack it first: unzip FILE" },
    { "\xfd"
      "7zXZ",
      5, "compressed with xz; unpack it first: xz -dk FILE" },
    { "BZh", 3, "compressed with bzip2; unpack it first: bunzip2 -k FILE" },
    { "7z\xbc\xaf", 4, "a 7z archive; unpack it first: 7z x FILE" },
    { "PAR1", 4, "a Parquet table; export it as JSON lines first" },
    { "ARROW1", 6, "an Arrow table; export it as JSON lines first" },
    { "\x89HDF", 4, "an HDF5 file; a corpus is JSON, CSV or text" },
    { "\xff\xfe\0", 4, "UTF-32; convert it first: iconv -f UTF-32 -t UTF-8 FILE" },
    { "\xff\xfe", 2, "UTF-16; convert it first: iconv -f UTF-16 -t UTF-8 FILE" },
    { "\xfe\xff", 2, "UTF-16; convert it first: iconv -f UTF-16 -t UTF-8 FILE" },
};

static err_t check_text(struct window *w)
{
    int64_t have;
    TRY(window_fill(w, 0, 8, &have));
    const char *p = w->bytes.data;
    for (int64_t i = 0; i < COUNT_OF(foreign); i++)
        if (have >= foreign[i].size && memcmp(p, foreign[i].bytes, (size_t)foreign[i].size) == 0)
            RAISE(FORMAT, "%s is %s", w->in.file.path, foreign[i].what);
    if (have >= 2 && (p[0] == '\0') != (p[1] == '\0'))
        RAISE(FORMAT, "%s is UTF-16 without a mark; convert it first: iconv -f UTF-16%s -t UTF-8",
              w->in.file.path, p[0] == '\0' ? "BE" : "LE");
    if (have >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0) w->at = 3;
    return ERR_OK;
}

static err_t begin(struct window *w, err_t opened)
{
    err_t rc = opened;
    if (rc == ERR_OK) rc = check_text(w);
    if (rc != ERR_OK) window_close(w);
    return rc;
}

err_t window_open(struct window *w, const char *path)
{
    *w = (struct window){ .line = 1 };
    return begin(w, input_open(&w->in, path));
}

err_t window_open_memory(struct window *w, const char *name, const void *bytes, int64_t size)
{
    *w = (struct window){ .line = 1 };
    return begin(w, input_open_memory(&w->in, name, bytes, size));
}

void window_close(struct window *w)
{
    input_close(&w->in);
    buf_clear(&w->bytes);
}

/* How much is read at once: of a small plain file no more than it has. */
static int64_t read_bytes(const struct window *w, int64_t missing)
{
    const int64_t wanted = max_i64(missing, READ_BYTES);
    if (w->in.codec != NULL) return wanted;
    return max_i64(min_i64(wanted, w->in.size - w->in.offset), 1);
}

err_t window_fill(struct window *w, int64_t from, int64_t extra, int64_t *have)
{
    const int64_t missing = from + extra - (int64_t)w->bytes.size;
    if (missing > 0 && !w->at_end) {
        const int64_t wanted = read_bytes(w, missing);
        int64_t got;
        TRY(buf_reserve(&w->bytes, (size_t)wanted));
        TRY(input_read(&w->in, w->bytes.data + w->bytes.size, wanted, &got));
        w->bytes.size += (size_t)got;
        w->at_end = got < wanted;
    }
    *have = (int64_t)w->bytes.size - from;
    return ERR_OK;
}

err_t window_byte(struct window *w, int64_t at, int *byte)
{
    int64_t have = (int64_t)w->bytes.size - at;
    if (have <= 0) TRY(window_fill(w, at, 1, &have));
    *byte = have > 0 ? (unsigned char)w->bytes.data[at] : -1;
    return ERR_OK;
}

void window_advance(struct window *w, int64_t count)
{
    if (count <= 0) return;
    const char *p = w->bytes.data + w->at;
    const char *end = p + count;
    while (p < end && (p = memchr(p, '\n', (size_t)(end - p))) != NULL) {
        w->line++;
        p++;
    }
    w->at += count;
}

/* Moving the rest down is paid once for each READ_BYTES, not for each record. */
void window_trim(struct window *w)
{
    if (w->at < READ_BYTES) return;
    memmove(w->bytes.data, w->bytes.data + w->at, w->bytes.size - (size_t)w->at);
    w->bytes.size -= (size_t)w->at;
    w->offset += w->at;
    w->at = 0;
}

err_t window_skip_blanks(struct window *w, int *byte)
{
    for (;;) {
        TRY(window_byte(w, w->at, byte));
        if (*byte != ' ' && *byte != '\t' && *byte != '\n' && *byte != '\r') return ERR_OK;
        w->line += *byte == '\n';
        w->at++;
        window_trim(w);
    }
}

err_t window_skip_line(struct window *w)
{
    for (;;) {
        int64_t have;
        window_trim(w);
        TRY(window_fill(w, w->at, 1, &have));
        if (have <= 0) return ERR_OK;
        const char *p = w->bytes.data + w->at;
        const char *end = memchr(p, '\n', (size_t)have);
        window_advance(w, end != NULL ? end - p + 1 : have);
        if (end != NULL) return ERR_OK;
    }
}

err_t window_line(struct window *w, int64_t from, int64_t size_max, int64_t *size, bool *whole)
{
    for (int64_t n = 0;;) {
        int64_t have;
        TRY(window_fill(w, from + n, 1, &have));
        const char *p = w->bytes.data + from + n;
        const char *end = have > 0 ? memchr(p, '\n', (size_t)have) : NULL;
        *size = n + (end != NULL ? (int64_t)(end - p) : max_i64(have, 0));
        *whole = *size <= size_max;
        if (!*whole) *size = size_max;
        if (end != NULL || have <= 0 || !*whole) return ERR_OK;
        n += have;
    }
}

int64_t window_offset(const struct window *w) { return w->offset + w->at; }

err_t window_raise(const struct window *w, int64_t line, int64_t byte_offset, const char *fmt, ...)
{
    char text[ERR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    RAISE(FORMAT, "%s:%lld (byte %lld): %s", w->in.file.path, (long long)line,
          (long long)byte_offset, text);
}

err_t window_raise_found(const struct window *w, int byte, const char *expected)
{
    char found[32] = "the end of the file";
    if (byte > ' ' && byte < 0x7f)
        snprintf(found, sizeof found, "'%c'", byte);
    else if (byte >= 0)
        snprintf(found, sizeof found, "byte 0x%02x", (unsigned)byte);
    return window_raise(w, w->line, window_offset(w), "found %s, expected %s", found, expected);
}
