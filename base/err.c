#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local struct err_record last;

err_t err_raise(err_t code, const char *file, int line, const char *fmt, ...)
{
    /* Formatted beside the record first: an argument may be the old record's own text. */
    char text[ERR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);

    last.code = code;
    for (int i = 0; i < ERR_TEXT_MAX; i++) {
        last.text[i] = text[i] == '\n' ? ' ' : text[i]; /* messages are one line */
        if (text[i] == '\0') break;
    }
    last.frame_count = 1;
    last.frames[0] = (struct err_frame){ file, line, "" };
    return code;
}

err_t err_pass(err_t code, const char *file, int line, const char *expr)
{
    if (last.code != code)
        err_raise(code, file, line, "%s", err_name(code));
    else if (last.frame_count < ERR_FRAMES_MAX)
        last.frames[last.frame_count++] = (struct err_frame){ file, line, expr };
    return code;
}

const struct err_record *err_last(void) { return &last; }

err_t err_adopt(const struct err_record *rec)
{
    last = *rec;
    return last.code;
}

const char *err_name(err_t code)
{
    static const char *const names[ERR_COUNT] = {
#define X(name, text) "ERR_" #name,
        ERR_LIST(X)
#undef X
    };
    return (unsigned)code < ERR_COUNT ? names[code] : "ERR_?";
}
