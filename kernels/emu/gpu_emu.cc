/*
 * gpu.h without a GPU: device memory is the host's, every queue runs its work at once. What this
 * cannot show is order between queues.
 */
#include "base/buf.h"
#include "base/check.h"
#include "base/fault.h"
#include "kernels/cuda/gpu.h"
#include "kernels/emu/guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

bool gpu_is_host(void) { return true; }

err_t gpu_open(struct gpu *out, struct dev_info *info, int index)
{
    if (index != 0) RAISE(CUDA, "device emu:%d: there is one emulated device, 0", index);
    *out = {};
    out->multiprocessors = 4;
    out->shared_bytes_max = 227 << 10;
    *info = {};
    snprintf(info->name, sizeof info->name, "emulated GPU");
    info->memory_bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    info->memory_free_bytes = (int64_t)sysconf(_SC_AVPHYS_PAGES) * sysconf(_SC_PAGESIZE);
    info->capability = 90;
    info->multiprocessors = out->multiprocessors;
    return ERR_OK;
}

void gpu_close(struct gpu *gpu) { (void)gpu; }

static void *host_alloc(size_t bytes)
{
    const size_t total = (bytes + 255) / 256 * 256;
    return total < bytes ? NULL : aligned_alloc(256, total);
}

static err_t take_memory(void **out, void *(*take)(size_t), int64_t bytes, const char *site,
                         const char *what)
{
    *out = NULL;
    if (fault_point(site) == ERR_OK) *out = take((size_t)bytes);
    if (*out == NULL) RAISE(NOMEM, "%s: %lld bytes wanted", what, (long long)bytes);
    return ERR_OK;
}

err_t gpu_malloc(struct gpu *gpu, void **out, int64_t bytes, const char *what)
{
    (void)gpu;
    return take_memory(out, emu::device_alloc, bytes, "gpu.malloc", what);
}

void gpu_free(struct gpu *gpu, void *data)
{
    (void)gpu;
    emu::device_free(data);
}

err_t gpu_host_malloc(struct gpu *gpu, void **out, int64_t bytes, const char *what)
{
    (void)gpu;
    return take_memory(out, host_alloc, bytes, "gpu.host_malloc", what);
}

void gpu_host_free(struct gpu *gpu, void *data)
{
    (void)gpu;
    free(data);
}

/* Any call that can fail on a card, failing on request. */
static err_t may_fail(const char *site, const char *call)
{
    if (fault_point(site) != ERR_OK) RAISE(CUDA, "%s: %s", call, err_last()->text);
    return ERR_OK;
}

err_t gpu_copy(struct gpu *gpu, enum dev_queue queue, void *to, const void *from, int64_t bytes)
{
    (void)gpu;
    (void)queue;
    TRY(may_fail("gpu.copy", "copy"));
    const emu::device_at_work at_work;
    memcpy(to, from, (size_t)bytes);
    return ERR_OK;
}

err_t gpu_zero(struct gpu *gpu, enum dev_queue queue, void *data, int64_t bytes)
{
    (void)gpu;
    (void)queue;
    TRY(may_fail("gpu.zero", "fill"));
    const emu::device_at_work at_work;
    memset(data, 0, (size_t)bytes);
    return ERR_OK;
}

err_t gpu_queue_sync(struct gpu *gpu, enum dev_queue queue)
{
    (void)gpu;
    (void)queue;
    return may_fail("gpu.sync", "synchronize");
}

/* An event is the time it was recorded. */
err_t gpu_event_create(struct gpu *gpu, void **out)
{
    (void)gpu;
    TRY(may_fail("gpu.event", "event"));
    *out = calloc(1, sizeof(struct timespec));
    if (*out == NULL) RAISE(NOMEM, "event: %zu bytes wanted", sizeof(struct timespec));
    return ERR_OK;
}

void gpu_event_destroy(struct gpu *gpu, void *event)
{
    (void)gpu;
    free(event);
}

err_t gpu_event_record(struct gpu *gpu, void *event, enum dev_queue queue)
{
    (void)gpu;
    (void)queue;
    clock_gettime(CLOCK_MONOTONIC, (struct timespec *)event);
    return ERR_OK;
}

err_t gpu_event_wait(struct gpu *gpu, void *event, enum dev_queue queue)
{
    (void)gpu;
    (void)event;
    (void)queue;
    return ERR_OK;
}

err_t gpu_event_sync(struct gpu *gpu, void *event)
{
    (void)gpu;
    (void)event;
    return may_fail("gpu.sync", "synchronize");
}

err_t gpu_event_done(struct gpu *gpu, bool *done, void *event)
{
    (void)gpu;
    (void)event;
    *done = true;
    return may_fail("gpu.event", "event");
}

err_t gpu_stream_create(struct gpu *gpu, void **out)
{
    *out = gpu; /* the queues are no more than a name here */
    return may_fail("gpu.stream", "stream");
}

void gpu_stream_destroy(struct gpu *gpu, void *stream)
{
    (void)gpu;
    (void)stream;
}

err_t gpu_stream_record(struct gpu *gpu, void *event, void *stream)
{
    (void)stream;
    return gpu_event_record(gpu, event, DEV_COMPUTE);
}

err_t gpu_stream_wait(struct gpu *gpu, void *event, void *stream)
{
    (void)stream;
    return gpu_event_wait(gpu, event, DEV_COMPUTE);
}

err_t gpu_event_ms(struct gpu *gpu, float *ms, void *begin, void *end)
{
    (void)gpu;
    const struct timespec *a = (const struct timespec *)begin, *b = (const struct timespec *)end;
    if (a->tv_sec == 0 || b->tv_sec == 0) /* as the runtime says it */
        RAISE(CUDA, "cudaEventElapsedTime: an event that was never recorded");
    *ms = (float)((double)(b->tv_sec - a->tv_sec) * 1e3 + (double)(b->tv_nsec - a->tv_nsec) * 1e-6);
    return ERR_OK;
}

void gpu_range_begin(const char *name) { (void)name; }
void gpu_range_end(void) {}

err_t gpu_describe(struct buf *out)
{
    return buf_puts(out, "emulated GPU: the CUDA backend's own kernels on the host, for tests\n");
}
