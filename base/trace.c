#include "base/trace.h"

#include "base/log.h"
#include "base/progress.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* stdio locks the stream for each fprintf, so the lines of several threads do not mix. */
static struct {
    FILE *file; /* NULL = off */
    double time_zero_s;
} trace;

err_t trace_open(const char *path)
{
    if (path == NULL) return ERR_OK;
    trace_close();
    FILE *file = fopen(path, "we");
    if (file == NULL) RAISE(IO, "open %s: %s", path, strerror(errno));
    fputs("[\n", file);
    trace.file = file;
    trace.time_zero_s = time_now_s();
    return ERR_OK;
}

void trace_close(void)
{
    if (trace.file == NULL) return;
    /* An event without a comma ends the list; it also names the process in the viewer. */
    fprintf(trace.file, "{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":%d,\"args\":"
            "{\"name\":\"soulchat\"}}\n]\n", (int)getpid());
    const int failed = ferror(trace.file);
    if (fclose(trace.file) != 0 || failed) LOG_W("trace", "the trace file is not complete");
    trace.file = NULL;
}

static void write_span(long tid, const char *name, double begin_s, double end_s)
{
    fprintf(trace.file,
            "{\"name\":\"%s\",\"ph\":\"X\",\"ts\":%.3f,\"dur\":%.3f,\"pid\":%d,\"tid\":%ld},\n",
            name, (begin_s - trace.time_zero_s) * 1e6, (end_s - begin_s) * 1e6, (int)getpid(), tid);
}

struct trace_span trace_begin(const char *name)
{
    if (trace.file == NULL) return (struct trace_span){ NULL, 0 };
    return (struct trace_span){ name, time_now_s() };
}

void trace_end(struct trace_span *span)
{
    if (span->name == NULL || trace.file == NULL) return;
    write_span(gettid(), span->name, span->time_begin_s, time_now_s());
}

void trace_name_track(int track, const char *name)
{
    if (trace.file == NULL) return;
    fprintf(trace.file,
            "{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":%d,\"tid\":%d,"
            "\"args\":{\"name\":\"%s\"}},\n",
            (int)getpid(), track, name);
}

void trace_write(int track, const char *name, double begin_s, double end_s)
{
    if (trace.file != NULL) write_span(track, name, begin_s, end_s);
}
