#include "data/width.h"

#include "base/check.h"
#include "base/utf8.h"

#include <stdbool.h>

struct range {
    int32_t first, last;
};

static const struct range wide[] = {
    { 0x1100, 0x115f },   { 0x2e80, 0x303e },   { 0x3041, 0xa4cf },   { 0xa960, 0xa97f },
    { 0xac00, 0xd7a3 },   { 0xf900, 0xfaff },   { 0xfe10, 0xfe19 },   { 0xfe30, 0xfe6f },
    { 0xff00, 0xff60 },   { 0xffe0, 0xffe6 },   { 0x1f300, 0x1f64f }, { 0x1f680, 0x1f6ff },
    { 0x1f900, 0x1faff }, { 0x20000, 0x3fffd },
};
static const struct range empty[] = {
    { 0x0300, 0x036f }, { 0x200b, 0x200f }, { 0x20d0, 0x20ff },
    { 0xfe00, 0xfe0f }, { 0xfe20, 0xfe2f }, { 0xfeff, 0xfeff },
};

static bool in_ranges(const struct range *ranges, int64_t count, int32_t c)
{
    for (int64_t i = 0; i < count; i++)
        if (c >= ranges[i].first && c <= ranges[i].last) return true;
    return false;
}

static int64_t char_width(int32_t c)
{
    if (in_ranges(empty, COUNT_OF(empty), c)) return 0;
    return in_ranges(wide, COUNT_OF(wide), c) ? 2 : 1;
}

/* The next character's bytes and columns; what is not printable counts as "?". */
static int64_t next_char(int64_t *columns, bool *printable, const char *text, size_t size)
{
    int64_t bytes;
    const int32_t c = utf8_decode(&bytes, text, (int64_t)size);
    *printable = c >= 0x20 && !(c >= 0x7f && c < 0xa0);
    *columns = *printable ? char_width(c) : 1;
    return bytes;
}

int64_t text_width(const char *text, size_t size)
{
    int64_t width = 0;
    for (size_t at = 0; at < size;) {
        int64_t columns;
        bool printable;
        at += (size_t)next_char(&columns, &printable, text + at, size - at);
        width += columns;
    }
    return width;
}

err_t text_pad(struct buf *out, const char *text, size_t size, int64_t columns)
{
    ASSERT(columns >= 1);
    const bool cut = text_width(text, size) > columns;
    const int64_t room = cut ? columns - 1 : columns;
    int64_t used = 0;
    for (size_t at = 0; at < size;) {
        int64_t width;
        bool printable;
        const int64_t bytes = next_char(&width, &printable, text + at, size - at);
        if (used + width > room) break;
        TRY(buf_append(out, printable ? text + at : "?", printable ? (size_t)bytes : 1));
        used += width;
        at += (size_t)bytes;
    }
    if (cut) {
        TRY(buf_puts(out, "…"));
        used++;
    }
    for (; used < columns; used++) TRY(buf_puts(out, " "));
    return ERR_OK;
}
