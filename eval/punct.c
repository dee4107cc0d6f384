#include "eval/punct.h"

#include "base/check.h"
#include "base/utf8.h"

#include <string.h>

static const struct {
    char half;
    const char *full;
} marks[] = { { ',', "，" }, { '!', "！" }, { ':', "：" }, { ';', "；" }, { '?', "？" } };

/* The full-width form of a character that is one of the marks, or NULL. */
static const char *full_width(int32_t c)
{
    for (int64_t i = 0; i < COUNT_OF(marks); i++)
        if (c == marks[i].half) return marks[i].full;
    return NULL;
}

static bool is_chinese(int32_t c) { return c >= 0x4e00 && c <= 0x9fff; }

/* What is held back goes out: its next neighbour is known. */
static err_t release(struct punct *p, struct buf *out, bool before_chinese)
{
    if (p->held == 0) return ERR_OK;
    if (before_chinese)
        TRY(buf_puts(out, full_width(p->held)));
    else
        TRY(buf_append(out, &p->held, 1));
    p->held = 0;
    return ERR_OK;
}

err_t punct_push(struct punct *p, struct buf *out, const char *text, int64_t size)
{
    while (size > 0) {
        int64_t length;
        const int32_t c = utf8_decode(&length, text, size); /* -1 is no mark and not Chinese */
        const char *full = full_width(c);
        TRY(release(p, out, is_chinese(c)));
        if (full != NULL && !p->after_chinese)
            p->held = *text;
        else if (full != NULL)
            TRY(buf_puts(out, full));
        else
            TRY(buf_append(out, text, (size_t)length));
        p->after_chinese = is_chinese(c);
        text += length;
        size -= length;
    }
    return ERR_OK;
}

err_t punct_end(struct punct *p, struct buf *out)
{
    TRY(release(p, out, false));
    *p = (struct punct){ 0 };
    return ERR_OK;
}
