#include "kernels/cuda/timeline.h"

#include "base/progress.h"
#include "base/trace.h"

#include <stdlib.h>
#include <string.h>

#define TRACK_COMPUTE 1

/* Elapsed times are floats: they are counted from a recent moment. */
static err_t set_zero(struct timeline *t, struct gpu *gpu)
{
    TRY(gpu_event_record(gpu, t->zero, DEV_COMPUTE));
    TRY(gpu_event_sync(gpu, t->zero));
    t->zero_s = time_now_s();
    return ERR_OK;
}

static err_t open_timeline(struct timeline *t, struct gpu *gpu)
{
    t->span = (struct timeline_span *)calloc(TIMELINE_SPANS, sizeof *t->span);
    if (t->span == NULL) RAISE(NOMEM, "timeline: no memory for %d spans", TIMELINE_SPANS);
    TRY(gpu_event_create(gpu, &t->zero));
    for (int64_t i = 0; i < TIMELINE_SPANS; i++) {
        TRY(gpu_event_create(gpu, &t->span[i].begin));
        TRY(gpu_event_create(gpu, &t->span[i].end));
    }
    trace_name_track(TRACK_COMPUTE, "GPU compute");
    return set_zero(t, gpu);
}

void timeline_close(struct timeline *t, struct gpu *gpu)
{
    for (int64_t i = 0; t->span != NULL && i < TIMELINE_SPANS; i++) {
        if (t->span[i].begin != NULL) gpu_event_destroy(gpu, t->span[i].begin);
        if (t->span[i].end != NULL) gpu_event_destroy(gpu, t->span[i].end);
    }
    if (t->zero != NULL) gpu_event_destroy(gpu, t->zero);
    free(t->span);
    memset(t, 0, sizeof *t);
}

/* The host's time of an event that has happened. */
static err_t time_of(double *time_s, const struct timeline *t, struct gpu *gpu, void *event)
{
    float ms;
    TRY(gpu_event_ms(gpu, &ms, t->zero, event));
    *time_s = t->zero_s + ms * 1e-3;
    return ERR_OK;
}

/* An open span only learns when it began, since times are counted from a new moment after this. */
static err_t settle_span(struct timeline *t, struct gpu *gpu, struct timeline_span *s)
{
    double end_s;
    if (s->begin_s == 0.0) TRY(time_of(&s->begin_s, t, gpu, s->begin));
    if (s->is_open) return ERR_OK;
    TRY(time_of(&end_s, t, gpu, s->end));
    trace_write(TRACK_COMPUTE, s->name, s->begin_s, end_s);
    return ERR_OK;
}

void timeline_flush(struct timeline *t, struct gpu *gpu)
{
    int64_t kept = 0;
    int level = 0;
    for (int64_t i = 0; i < t->count; i++) {
        (void)!settle_span(t, gpu, &t->span[i]);
        if (!t->span[i].is_open) continue;
        const struct timeline_span moved = t->span[i]; /* its events go with it */
        t->span[i] = t->span[kept];
        t->span[kept] = moved;
        while (level < t->depth && t->open[level] != i) level++;
        if (level < t->depth) t->open[level] = kept;
        kept++;
    }
    t->count = kept;
    if (t->span != NULL) (void)!set_zero(t, gpu);
}

/* The span's index, or -1 when it is left out. */
static int64_t begin_span(struct timeline *t, struct gpu *gpu, const char *name)
{
    if (t->span == NULL && open_timeline(t, gpu) != ERR_OK) return -1;
    if (t->count == TIMELINE_SPANS && gpu_queue_sync(gpu, DEV_COMPUTE) == ERR_OK)
        timeline_flush(t, gpu);
    if (t->count == TIMELINE_SPANS || t->depth >= TIMELINE_DEPTH) return -1;
    struct timeline_span *s = &t->span[t->count];
    if (gpu_event_record(gpu, s->begin, DEV_COMPUTE) != ERR_OK) return -1;
    s->name = name;
    s->is_open = true;
    s->begin_s = 0.0;
    return t->count++;
}

void timeline_begin(struct timeline *t, struct gpu *gpu, const char *name)
{
    gpu_range_begin(name);
    const int64_t index = begin_span(t, gpu, name);
    if (t->depth < TIMELINE_DEPTH) t->open[t->depth] = index;
    t->depth++;
}

void timeline_end(struct timeline *t, struct gpu *gpu)
{
    gpu_range_end();
    t->depth--;
    const int64_t index = t->depth < TIMELINE_DEPTH ? t->open[t->depth] : -1;
    if (index < 0) return;
    t->span[index].is_open = false;
    (void)!gpu_event_record(gpu, t->span[index].end, DEV_COMPUTE);
}
