/*
 * trace.h - time spans of the program, written as a Perfetto/Chrome JSON trace
 * (SOULCHAT_TRACE=file.json; open it at ui.perfetto.dev). Off costs one branch per span.
 * Spans of any thread may nest; each is written when it ends. The file is process state (see
 * base/err.h): open it before the first thread starts, close it after the last has ended.
 *
 *     struct trace_span span = trace_begin("attn_fwd");
 *     ...
 *     trace_end(&span);
 */
#ifndef BASE_TRACE_H
#define BASE_TRACE_H

#include "base/err.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct trace_span {
    const char *name; /* a literal without characters that JSON escapes; NULL when tracing is off */
    double time_begin_s;
};

/* Start tracing into `path`, which is replaced; NULL = stay off. ERR_IO. */
MUST_USE err_t trace_open(const char *path);
/* Write the closing bracket; the file loads in the viewer even without it. Nothing when off. */
void trace_close(void);
struct trace_span trace_begin(const char *name);
void trace_end(struct trace_span *span);

#ifdef __cplusplus
}
#endif
#endif
