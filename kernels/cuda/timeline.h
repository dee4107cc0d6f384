/*
 * timeline.h - when queued work ran on the device: a pair of events around each span, read back
 * when the queue has been waited for, and written to the trace (base/trace.h) on a track of its
 * own. Only while tracing; a span whose events fail is left out of the trace, nothing more.
 */
#ifndef KERNELS_CUDA_TIMELINE_H
#define KERNELS_CUDA_TIMELINE_H

#include "kernels/cuda/gpu.h"

#define TIMELINE_SPANS 4096
#define TIMELINE_DEPTH 8

struct timeline_span {
    const char *name;
    void *begin, *end; /* events */
    bool is_open;
    double begin_s; /* of one that was open at the last flush; else 0 */
};

/* Zeroed at first. */
struct timeline {
    struct timeline_span *span; /* [TIMELINE_SPANS]; NULL before the first */
    int64_t count;              /* spans begun since the last flush, or open then */
    int64_t open[TIMELINE_DEPTH];
    int depth; /* spans begun and not ended; those beyond TIMELINE_DEPTH are left out */
    void *zero;
    double zero_s; /* the host's time of event `zero` */
};

void timeline_begin(struct timeline *t, struct gpu *gpu, const char *name);
void timeline_end(struct timeline *t, struct gpu *gpu);
/* Write what has ended; the compute queue has been waited for. */
void timeline_flush(struct timeline *t, struct gpu *gpu);
void timeline_close(struct timeline *t, struct gpu *gpu);

#endif
