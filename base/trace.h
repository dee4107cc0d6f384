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

/* Spans of what is no thread of this program, such as the queues of a GPU: `track` is a small
 * positive number, shown under the name given once. Times as time_now_s() counts them. */
void trace_name_track(int track, const char *name);
void trace_write(int track, const char *name, double begin_s, double end_s);

#ifdef __cplusplus
}
#endif
#endif
