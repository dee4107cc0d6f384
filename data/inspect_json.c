#include "data/inspect_json.h"

#include "base/utf8.h"

#include <string.h>

static err_t put_char(struct buf *out, const char *text, int64_t bytes, int32_t c)
{
    if (c < 0) {
        TRY(buf_puts(out, "\\ufffd"));
    } else if (c == '"' || c == '\\') {
        TRY(buf_printf(out, "\\%c", c));
    } else if (c < 0x20 || c == 0x7f) {
        TRY(buf_printf(out, "\\u%04x", (unsigned)c));
    } else {
        TRY(buf_append(out, text, (size_t)bytes));
    }
    return ERR_OK;
}

err_t json_put_string(struct buf *out, const char *text, size_t size)
{
    TRY(buf_puts(out, "\""));
    for (size_t at = 0; at < size;) {
        int64_t bytes;
        const int32_t c = utf8_decode(&bytes, text + at, (int64_t)(size - at));
        TRY(put_char(out, text + at, bytes, c));
        at += (size_t)bytes;
    }
    TRY(buf_puts(out, "\""));
    return ERR_OK;
}

err_t json_put_member(struct buf *out, const char *name, const char *text)
{
    TRY(buf_printf(out, "\"%s\":", name));
    TRY(json_put_string(out, text, strlen(text)));
    return ERR_OK;
}

err_t json_put_i32s(struct buf *out, const char *name, const int32_t *values, int64_t count)
{
    TRY(buf_printf(out, "\"%s\":[", name));
    for (int64_t i = 0; i < count; i++) TRY(buf_printf(out, i > 0 ? ",%d" : "%d", values[i]));
    TRY(buf_puts(out, "]"));
    return ERR_OK;
}

err_t json_put_i64s(struct buf *out, const char *name, const int64_t *values, int64_t count)
{
    TRY(buf_printf(out, "\"%s\":[", name));
    for (int64_t i = 0; i < count; i++)
        TRY(buf_printf(out, i > 0 ? ",%lld" : "%lld", (long long)values[i]));
    TRY(buf_puts(out, "]"));
    return ERR_OK;
}
