/* gpu.h by the CUDA runtime, which is linked statically. */
#include "base/buf.h"
#include "base/check.h"
#include "base/fault.h"
#include "kernels/cuda/gpu.h"

#include <cuda_runtime.h>
#include <nvtx3/nvToolsExt.h>
#include <stdio.h>
#include <string.h>

/* The oldest architecture with bf16 matrix units and asynchronous copies. */
#define CAPABILITY_MIN 80

/* What to do about the failures that people meet. */
static const struct advice {
    cudaError_t code;
    const char *text;
} advice[] = {
    { cudaErrorNoDevice, "; no NVIDIA GPU is visible here (nvidia-smi, CUDA_VISIBLE_DEVICES)" },
    { cudaErrorInsufficientDriver, "; the NVIDIA driver is missing or older than this build's CUDA "
                                   "needs: update the driver" },
    { cudaErrorInvalidDevice,
      "; nvidia-smi -L lists the devices, CUDA_VISIBLE_DEVICES hides some" },
    { cudaErrorNoKernelImageForDevice, "; this build has no code for this GPU: build with "
                                       "-DSOULCHAT_CUDA_ARCHS naming its compute capability" },
    { cudaErrorDevicesUnavailable, "; another program holds the GPU exclusively" },
    { cudaErrorMemoryAllocation,
      "; the GPU's memory is full, by this program or by another one (nvidia-smi)" },
    { cudaErrorSystemNotReady, "; the links between this machine's GPUs are not set up: start "
                               "nvidia-fabricmanager, of the driver's version" },
    { cudaErrorSystemDriverMismatch,
      "; the driver was updated since this machine started: restart it" },
    { cudaErrorStubLibrary, "; a toolkit's stub of libcuda.so.1 was found before the driver's own: "
                            "take its folder off LD_LIBRARY_PATH" },
    { cudaErrorECCUncorrectable, "; the GPU's memory has a hardware error: nvidia-smi -q -d ECC; "
                                 "reset or replace it, then go on with --resume" },
    { cudaErrorIllegalAddress, "; a kernel read or wrote outside its memory: please report it, "
                               "with the output of compute-sanitizer" },
    { cudaErrorLaunchTimeout, "; the GPU also drives a display that limits run times" },
};

static const char *advice_on(cudaError_t code)
{
    for (const struct advice &a : advice)
        if (a.code == code) return a.text;
    return "";
}

/* One line for a failed call of the runtime. */
static err_t check(cudaError_t code, const char *site, const char *call)
{
    const bool injected = code == cudaSuccess && fault_point(site) != ERR_OK;
    if (code == cudaSuccess && !injected) return ERR_OK;
    if (injected) RAISE(CUDA, "%s: injected fault", call);
    (void)cudaGetLastError(); /* where the error is not sticky, the next call starts clean */
    RAISE(CUDA, "%s: %s (%s)%s", call, cudaGetErrorString(code), cudaGetErrorName(code),
          advice_on(code));
}

/* ---- opening ---- */

static err_t check_device(const cudaDeviceProp *p, int index)
{
    if (p->major * 10 + p->minor < CAPABILITY_MIN)
        RAISE(CUDA,
              "device cuda:%d, %s, has compute capability %d.%d; this backend needs %d.%d or later",
              index, p->name, p->major, p->minor, CAPABILITY_MIN / 10, CAPABILITY_MIN % 10);
    return ERR_OK;
}

static err_t describe_device(struct dev_info *info, struct gpu *gpu, int index)
{
    cudaDeviceProp p;
    size_t free_bytes, total_bytes;
    TRY(check(cudaGetDeviceProperties(&p, index), "gpu.open", "cudaGetDeviceProperties"));
    TRY(check_device(&p, index));
    TRY(check(cudaMemGetInfo(&free_bytes, &total_bytes), "gpu.open", "cudaMemGetInfo"));
    *info = {};
    snprintf(info->name, sizeof info->name, "%.*s", (int)sizeof info->name - 1, p.name);
    info->memory_bytes = (int64_t)total_bytes;
    info->memory_free_bytes = (int64_t)free_bytes;
    info->capability = p.major * 10 + p.minor;
    info->multiprocessors = p.multiProcessorCount;
    gpu->multiprocessors = p.multiProcessorCount;
    gpu->shared_bytes_max = (int64_t)p.sharedMemPerBlockOptin;
    return ERR_OK;
}

static err_t make_queues(struct gpu *gpu)
{
    for (int q = 0; q < DEV_QUEUES; q++) {
        cudaStream_t stream;
        TRY(check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "gpu.open",
                  "cudaStreamCreate"));
        gpu->queue[q] = stream;
    }
    return ERR_OK;
}

bool gpu_is_host(void) { return false; }

err_t gpu_open(struct gpu *out, struct dev_info *info, int index)
{
    *out = {};
    out->index = index;
    TRY(check(cudaSetDevice(index), "gpu.open", "cudaSetDevice"));
    TRY(describe_device(info, out, index));
    const err_t rc = make_queues(out);
    if (rc != ERR_OK) gpu_close(out);
    return rc;
}

void gpu_close(struct gpu *gpu)
{
    for (int q = 0; q < DEV_QUEUES; q++)
        if (gpu->queue[q] != NULL) (void)cudaStreamDestroy((cudaStream_t)gpu->queue[q]);
    *gpu = {};
}

/* ---- memory ---- */

err_t gpu_malloc(struct gpu *gpu, void **out, int64_t bytes, const char *what)
{
    (void)gpu;
    *out = NULL;
    const cudaError_t code = fault_point("gpu.malloc") == ERR_OK ? cudaMalloc(out, (size_t)bytes)
                                                                 : cudaErrorMemoryAllocation;
    if (code == cudaErrorMemoryAllocation) {
        size_t free_bytes = 0, total_bytes = 0;
        (void)cudaGetLastError();
        (void)cudaMemGetInfo(&free_bytes, &total_bytes);
        RAISE(NOMEM,
              "%s: %lld bytes wanted on the GPU, %zu of %zu free; soulchat plan shows what would "
              "fit",
              what, (long long)bytes, free_bytes, total_bytes);
    }
    return code == cudaSuccess ? ERR_OK : check(code, "gpu.malloc", "cudaMalloc");
}

void gpu_free(struct gpu *gpu, void *data)
{
    (void)gpu;
    (void)cudaFree(data);
}

err_t gpu_host_malloc(struct gpu *gpu, void **out, int64_t bytes, const char *what)
{
    (void)gpu;
    *out = NULL;
    const cudaError_t code = fault_point("gpu.host_malloc") == ERR_OK
                                 ? cudaMallocHost(out, (size_t)bytes)
                                 : cudaErrorMemoryAllocation;
    if (code == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        RAISE(NOMEM, "%s: %lld bytes of page-locked host memory wanted", what, (long long)bytes);
    }
    return code == cudaSuccess ? ERR_OK : check(code, "gpu.host_malloc", "cudaMallocHost");
}

/* cudaFree waits for copies that are still queued; that cudaFreeHost does is written nowhere. */
void gpu_host_free(struct gpu *gpu, void *data)
{
    (void)gpu;
    (void)cudaDeviceSynchronize();
    (void)cudaFreeHost(data);
}

/* ---- queues ---- */

static cudaStream_t stream_of(const struct gpu *gpu, enum dev_queue queue)
{
    return (cudaStream_t)gpu->queue[queue];
}

err_t gpu_copy(struct gpu *gpu, enum dev_queue queue, void *to, const void *from, int64_t bytes)
{
    return check(cudaMemcpyAsync(to, from, (size_t)bytes, cudaMemcpyDefault, stream_of(gpu, queue)),
                 "gpu.copy", "cudaMemcpyAsync");
}

err_t gpu_zero(struct gpu *gpu, enum dev_queue queue, void *data, int64_t bytes)
{
    return check(cudaMemsetAsync(data, 0, (size_t)bytes, stream_of(gpu, queue)), "gpu.zero",
                 "cudaMemsetAsync");
}

err_t gpu_queue_sync(struct gpu *gpu, enum dev_queue queue)
{
    return check(cudaStreamSynchronize(stream_of(gpu, queue)), "gpu.sync", "cudaStreamSynchronize");
}

err_t gpu_stream_create(struct gpu *gpu, void **out)
{
    (void)gpu;
    cudaStream_t stream = NULL;
    *out = NULL;
    TRY(check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "gpu.stream",
              "cudaStreamCreate"));
    *out = stream;
    return ERR_OK;
}

void gpu_stream_destroy(struct gpu *gpu, void *stream)
{
    (void)gpu;
    if (stream != NULL) (void)cudaStreamDestroy((cudaStream_t)stream);
}

err_t gpu_stream_record(struct gpu *gpu, void *event, void *stream)
{
    (void)gpu;
    return check(cudaEventRecord((cudaEvent_t)event, (cudaStream_t)stream), "gpu.event",
                 "cudaEventRecord");
}

err_t gpu_stream_wait(struct gpu *gpu, void *event, void *stream)
{
    (void)gpu;
    return check(cudaStreamWaitEvent((cudaStream_t)stream, (cudaEvent_t)event, 0), "gpu.event",
                 "cudaStreamWaitEvent");
}

err_t gpu_event_create(struct gpu *gpu, void **out)
{
    (void)gpu;
    cudaEvent_t event = NULL;
    TRY(check(cudaEventCreate(&event), "gpu.event", "cudaEventCreate"));
    *out = event;
    return ERR_OK;
}

void gpu_event_destroy(struct gpu *gpu, void *event)
{
    (void)gpu;
    (void)cudaEventDestroy((cudaEvent_t)event);
}

err_t gpu_event_record(struct gpu *gpu, void *event, enum dev_queue queue)
{
    return check(cudaEventRecord((cudaEvent_t)event, stream_of(gpu, queue)), "gpu.event",
                 "cudaEventRecord");
}

err_t gpu_event_wait(struct gpu *gpu, void *event, enum dev_queue queue)
{
    return check(cudaStreamWaitEvent(stream_of(gpu, queue), (cudaEvent_t)event, 0), "gpu.event",
                 "cudaStreamWaitEvent");
}

err_t gpu_event_sync(struct gpu *gpu, void *event)
{
    (void)gpu;
    return check(cudaEventSynchronize((cudaEvent_t)event), "gpu.sync", "cudaEventSynchronize");
}

err_t gpu_event_done(struct gpu *gpu, bool *done, void *event)
{
    /* Asked by threads that never opened the device: without this they would get another one. */
    TRY(check(cudaSetDevice(gpu->index), "gpu.event", "cudaSetDevice"));
    const cudaError_t code = cudaEventQuery((cudaEvent_t)event);
    *done = code == cudaSuccess;
    if (code == cudaErrorNotReady) return ERR_OK;
    return check(code, "gpu.event", "cudaEventQuery");
}

err_t gpu_event_ms(struct gpu *gpu, float *ms, void *begin, void *end)
{
    (void)gpu;
    return check(cudaEventElapsedTime(ms, (cudaEvent_t)begin, (cudaEvent_t)end), "gpu.event",
                 "cudaEventElapsedTime");
}

/* ---- launches ---- */

/* Without this a block has 48 KiB, of which the kernel's static arrays take their part first. What
 * they take is asked for only after a refusal, to spare every launch a call. */
err_t gpu_shared_limit(const struct gpu *gpu, const char *name, const void *kernel,
                       int64_t shared_bytes)
{
    if (shared_bytes == 0) return ERR_OK;
    TRY(gpu_shared_require(gpu, name, shared_bytes));
    const cudaError_t code = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes);
    cudaFuncAttributes own = {};
    if (code == cudaErrorInvalidValue && cudaFuncGetAttributes(&own, kernel) == cudaSuccess) {
        (void)cudaGetLastError(); /* the refusal leaves the device usable */
        TRY(gpu_shared_require(gpu, name, (int64_t)own.sharedSizeBytes + shared_bytes));
    }
    return check(code, "gpu.launch", name);
}

err_t gpu_launched(const char *name, int status)
{
    return check((cudaError_t)status, "gpu.launch", name);
}

void gpu_range_begin(const char *name) { nvtxRangePushA(name); }
void gpu_range_end(void) { nvtxRangePop(); }

/* ---- description ---- */

err_t gpu_describe(struct buf *out)
{
    int driver = 0, runtime = 0, count = 0;
    (void)cudaRuntimeGetVersion(&runtime);
    (void)cudaDriverGetVersion(&driver);
    TRY(buf_printf(out, "CUDA runtime %d.%d, ", runtime / 1000, runtime % 1000 / 10));
    TRY(driver == 0 ? buf_puts(out, "no driver\n")
                    : buf_printf(out, "driver supports %d.%d\n", driver / 1000,
                                 driver % 1000 / 10));
    const cudaError_t code = cudaGetDeviceCount(&count);
    if (code != cudaSuccess) {
        (void)cudaGetLastError();
        return buf_printf(out, "no device: %s%s\n", cudaGetErrorString(code), advice_on(code));
    }
    for (int i = 0; i < count; i++) {
        cudaDeviceProp p;
        TRY(check(cudaGetDeviceProperties(&p, i), "gpu.open", "cudaGetDeviceProperties"));
        TRY(buf_printf(out, "cuda:%d  %s, compute capability %d.%d, %.1f GB, %d multiprocessors\n",
                       i, p.name, p.major, p.minor, (double)p.totalGlobalMem / 1e9,
                       p.multiProcessorCount));
    }
    return ERR_OK;
}
