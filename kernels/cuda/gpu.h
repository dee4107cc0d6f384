/*
 * gpu.h - the one place where the CUDA backend meets the CUDA runtime: memory, queues, events,
 * copies, launches. Everything else in kernels/cuda calls these and nothing of the runtime, so that
 * tests can make any call fail (base/fault.h, sites "gpu.*") and so that the same sources run on
 * the host: gpu_cuda.cc implements this file with the CUDA runtime, kernels/emu/gpu_emu.cc
 * without.
 *
 * Sizes in bytes. Errors: ERR_NOMEM where memory is wanted; ERR_CUDA otherwise, with the call, the
 * runtime's text, and what to do where that is known. Failures of queued work appear at a later
 * call, gpu_queue_sync at the latest. After an ERR_CUDA the device is not usable any more.
 */
#ifndef KERNELS_CUDA_GPU_H
#define KERNELS_CUDA_GPU_H

#include "kernels/dev.h"

#include <stdbool.h>
#include <stdint.h>

/* One opened device: dev->state. What the libraries on top keep is theirs (dev_cuda.h). */
struct gpu {
    int index;
    int multiprocessors;
    int64_t shared_bytes_max; /* shared memory that one block may ask for */
    void *queue[DEV_QUEUES];  /* cudaStream_t */
};

/* Whether there is no card: memory is the host's, and work is done when it is queued. */
bool gpu_is_host(void);
MUST_USE err_t gpu_open(struct gpu *out, struct dev_info *info, int index);
void gpu_close(struct gpu *gpu);
MUST_USE err_t gpu_malloc(struct gpu *gpu, void **out, int64_t bytes, const char *what);
void gpu_free(struct gpu *gpu, void *data);
MUST_USE err_t gpu_host_malloc(struct gpu *gpu, void **out, int64_t bytes, const char *what);
void gpu_host_free(struct gpu *gpu, void *data);
/* Queue a copy; each side is device memory or gpu_host_malloc's. */
MUST_USE err_t gpu_copy(struct gpu *gpu, enum dev_queue queue, void *to, const void *from,
                        int64_t bytes);
MUST_USE err_t gpu_zero(struct gpu *gpu, enum dev_queue queue, void *data, int64_t bytes);
/* One more queue, beside those of dev.h, for work that a library queues itself; NULL-safe. */
MUST_USE err_t gpu_stream_create(struct gpu *gpu, void **out);
void gpu_stream_destroy(struct gpu *gpu, void *stream);
MUST_USE err_t gpu_stream_record(struct gpu *gpu, void *event, void *stream);
MUST_USE err_t gpu_stream_wait(struct gpu *gpu, void *event, void *stream);
MUST_USE err_t gpu_queue_sync(struct gpu *gpu, enum dev_queue queue);
MUST_USE err_t gpu_event_create(struct gpu *gpu, void **out);
void gpu_event_destroy(struct gpu *gpu, void *event);
MUST_USE err_t gpu_event_record(struct gpu *gpu, void *event, enum dev_queue queue);
MUST_USE err_t gpu_event_wait(struct gpu *gpu, void *event, enum dev_queue queue);
MUST_USE err_t gpu_event_sync(struct gpu *gpu, void *event);
/* Without waiting. */
MUST_USE err_t gpu_event_done(struct gpu *gpu, bool *done, void *event);
/* Milliseconds between two events that have happened. */
MUST_USE err_t gpu_event_ms(struct gpu *gpu, float *ms, void *begin, void *end);

/* A range of the host's thread in the profiler's view (NVTX); nested. */
void gpu_range_begin(const char *name);
void gpu_range_end(void);

struct buf;
/* Driver, runtime and devices, a line each. */
MUST_USE err_t gpu_describe(struct buf *out);

static inline struct gpu *gpu_of(const struct dev *dev) { return (struct gpu *)dev->state; }

/* ERR_UNSUPPORTED, before anything is queued, where a block of `kernel` wants more shared memory
 * than the card has for one. */
MUST_USE static inline err_t gpu_shared_require(const struct gpu *gpu, const char *kernel,
                                                int64_t bytes)
{
    if (bytes <= gpu->shared_bytes_max) return ERR_OK;
    RAISE(UNSUPPORTED, "kernel %s: a block wants %lld bytes of shared memory; this GPU has %lld",
          kernel, (long long)bytes, (long long)gpu->shared_bytes_max);
}

#endif
