/* The device, its memory, and errors: see README.md. */
#include "softgpu/late.h"
#include "softgpu/soft.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <sys/mman.h>
#include <unistd.h>

namespace soft
{

std::recursive_mutex lock;

void forbid(const char *call, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "softgpu: %s: ", call);
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    abort();
}

/* ---- errors ---- */

namespace
{

thread_local cudaError_t last = cudaSuccess;
thread_local bool has_device;
cudaError_t poisoned = cudaSuccess;

/* SOFTGPU_FAIL=12:700: the twelfth call from when the variable got this value. */
struct plan {
    std::string text;
    int64_t calls = 0, at = 0;
    cudaError_t code = cudaSuccess;
} planned;

/* Errors after which a context answers nothing else. */
bool is_sticky(cudaError_t code)
{
    return code == cudaErrorECCUncorrectable || (code >= 700 && code <= 720);
}

cudaError_t planned_failure()
{
    const char *text = getenv("SOFTGPU_FAIL");
    if (text == nullptr) text = "";
    if (planned.text != text) {
        planned = {};
        planned.text = text;
        const char *colon = strchr(text, ':');
        planned.at = atoll(text);
        planned.code = static_cast<cudaError_t>(colon == nullptr ? 0 : atoi(colon + 1));
        poisoned = cudaSuccess;
    }
    return planned.at > 0 && ++planned.calls == planned.at ? planned.code : cudaSuccess;
}

long number(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text == nullptr ? otherwise : atol(text);
}

} // namespace

void poison(cudaError_t code)
{
    if (poisoned == cudaSuccess) poisoned = code;
}

void require_device(const char *call)
{
    if (!has_device) forbid(call, "from a thread that never chose a GPU: it would get the first");
}

cudaError_t result(cudaError_t code)
{
    const cudaError_t failure = planned_failure();
    if (is_sticky(failure)) poison(failure);
    if (failure != cudaSuccess) code = failure;
    if (poisoned != cudaSuccess) code = poisoned;
    if (code != cudaSuccess) last = code;
    return code;
}

/* ---- the device ---- */

limits device()
{
    const int capability = static_cast<int>(number("SOFTGPU_CAPABILITY", 90));
    const long gigabytes = capability == 80 ? 80 : capability == 90 ? 141 : 180;
    return { capability, static_cast<size_t>(number("SOFTGPU_MEMORY", gigabytes * 1000000000)),
             (capability == 80 ? 163 : 227) << 10 };
}

namespace
{

int device_count() { return static_cast<int>(number("SOFTGPU_DEVICES", 1)); }

/* ---- memory ---- */

struct block {
    size_t bytes;
    bool on_device;
    char *mapped;
    size_t mapped_bytes;
};

std::map<uintptr_t, block> blocks;
size_t device_bytes;

const std::map<uintptr_t, block>::const_iterator block_of(const void *data)
{
    auto next = blocks.upper_bound(reinterpret_cast<uintptr_t>(data));
    return next == blocks.begin() ? blocks.end() : --next;
}

/* Its end is followed, up to the alignment, by a page that nobody may touch; nothing in it is
 * zero. */
void *take(size_t bytes, bool on_device)
{
    constexpr size_t align = 256, page = 4096;
    const size_t whole = (bytes + align - 1) / align * align;
    const size_t pages = (whole + page - 1) / page * page;
    void *mapped = mmap(nullptr, pages + page, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) return nullptr;
    mprotect(static_cast<char *>(mapped) + pages, page, PROT_NONE);
    char *data = static_cast<char *>(mapped) + pages - whole;
    memset(data, 0xa5, whole);
    blocks[reinterpret_cast<uintptr_t>(data)] = { bytes, on_device, static_cast<char *>(mapped),
                                                  pages + page };
    if (on_device) device_bytes += whole;
    return data;
}

cudaError_t give_back(const char *call, void *data, bool on_device)
{
    const auto found = blocks.find(reinterpret_cast<uintptr_t>(data));
    if (found == blocks.end() || found->second.on_device != on_device)
        forbid(call, "%p is no block of its own", data);
    if (on_device) device_bytes -= (found->second.bytes + 255) / 256 * 256;
    munmap(found->second.mapped, found->second.mapped_bytes);
    blocks.erase(found);
    return cudaSuccess;
}

} // namespace

void require_memory(const char *call, const void *data, size_t bytes)
{
    const auto found = block_of(data);
    if (found == blocks.end() ||
        reinterpret_cast<uintptr_t>(data) + bytes > found->first + found->second.bytes)
        forbid(call, "%zu bytes at %p are neither the device's nor page-locked", bytes, data);
}

bool device_block(uintptr_t address, uintptr_t *begin, uintptr_t *end)
{
    const std::lock_guard<std::recursive_mutex> held(lock);
    const auto found = block_of(reinterpret_cast<const void *>(address));
    if (found == blocks.end() || address >= found->first + found->second.bytes) return false;
    *begin = found->first;
    *end = found->first + found->second.bytes;
    return true;
}

} // namespace soft

using namespace soft;
using guard = std::lock_guard<std::recursive_mutex>;

extern "C" {

/* ---- versions, devices ---- */

cudaError_t cudaRuntimeGetVersion(int *version)
{
    const guard g(lock);
    *version = CUDART_VERSION;
    return result(cudaSuccess);
}

cudaError_t cudaDriverGetVersion(int *version)
{
    const guard g(lock);
    *version = CUDART_VERSION;
    return result(cudaSuccess);
}

cudaError_t cudaGetDeviceCount(int *count)
{
    const guard g(lock);
    *count = device_count();
    return result(*count > 0 ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int index)
{
    const guard g(lock);
    if (device_count() == 0) return result(cudaErrorNoDevice);
    if (index < 0 || index >= device_count()) return result(cudaErrorInvalidDevice);
    has_device = true;
    return result(cudaSuccess);
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int index)
{
    const guard g(lock);
    const limits d = device();
    if (index < 0 || index >= device_count()) return result(cudaErrorInvalidDevice);
    *p = {};
    snprintf(p->name, sizeof p->name, "pretended GPU");
    p->major = d.capability / 10;
    p->minor = d.capability % 10;
    p->totalGlobalMem = d.memory_bytes;
    p->multiProcessorCount = 132;
    p->sharedMemPerBlock = 48 << 10;
    p->sharedMemPerBlockOptin = static_cast<size_t>(d.shared_bytes_optin);
    p->maxThreadsPerBlock = 1024;
    p->warpSize = 32;
    return result(cudaSuccess);
}

/* ---- errors ---- */

cudaError_t cudaGetLastError(void)
{
    const cudaError_t code = last;
    if (poisoned == cudaSuccess) last = cudaSuccess;
    return code;
}

#define CODES(X)                                                                                   \
    X(cudaSuccess)                                                                                 \
    X(cudaErrorInvalidValue)                                                                       \
    X(cudaErrorMemoryAllocation)                                                                   \
    X(cudaErrorInvalidConfiguration)                                                               \
    X(cudaErrorNoDevice)                                                                           \
    X(cudaErrorInvalidDevice)                                                                      \
    X(cudaErrorECCUncorrectable)                                                                   \
    X(cudaErrorInvalidResourceHandle)                                                              \
    X(cudaErrorNotReady)                                                                           \
    X(cudaErrorIllegalAddress)                                                                     \
    X(cudaErrorLaunchOutOfResources)                                                               \
    X(cudaErrorLaunchFailure)

const char *cudaGetErrorName(cudaError_t code)
{
#define X(name)                                                                                    \
    if (code == name) return #name;
    CODES(X)
#undef X
    return "an error";
}

const char *cudaGetErrorString(cudaError_t code) { return cudaGetErrorName(code); }

/* ---- memory ---- */

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    const guard g(lock);
    require_device("cudaMemGetInfo");
    *total_bytes = device().memory_bytes;
    *free_bytes = *total_bytes - device_bytes;
    return result(cudaSuccess);
}

cudaError_t cudaMalloc(void **out, size_t bytes)
{
    const guard g(lock);
    require_device("cudaMalloc");
    if (bytes == 0) forbid("cudaMalloc", "0 bytes");
    const cudaError_t rc = result(cudaSuccess);
    if (rc != cudaSuccess) return rc;
    run_some();
    const bool fits = bytes <= device().memory_bytes - device_bytes;
    *out = fits ? take(bytes, true) : nullptr;
    return *out != nullptr ? cudaSuccess : last = cudaErrorMemoryAllocation;
}

cudaError_t cudaMallocHost(void **out, size_t bytes)
{
    const guard g(lock);
    require_device("cudaMallocHost");
    const cudaError_t rc = result(cudaSuccess);
    if (rc != cudaSuccess) return rc;
    *out = take(bytes, false);
    return *out != nullptr ? cudaSuccess : last = cudaErrorMemoryAllocation;
}

/* Waits for the device, as the card's does. */
cudaError_t cudaFree(void *data)
{
    const guard g(lock);
    require_device("cudaFree");
    if (data == nullptr) return result(cudaSuccess);
    run_all();
    (void)give_back("cudaFree", data, true);
    return result(cudaSuccess);
}

/* Whether this waits is written nowhere: nothing may be left to wait for. */
cudaError_t cudaFreeHost(void *data)
{
    const guard g(lock);
    require_device("cudaFreeHost");
    if (data == nullptr) return result(cudaSuccess);
    const auto found = block_of(data);
    if (found != blocks.end() && is_awaited(data, found->second.bytes))
        forbid("cudaFreeHost", "queued work still touches this memory");
    (void)give_back("cudaFreeHost", data, false);
    return result(cudaSuccess);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    const guard g(lock);
    require_device("cudaMemcpyAsync");
    const cudaError_t rc = result(cudaSuccess);
    if (rc != cudaSuccess) return rc;
    if (kind != cudaMemcpyDefault) forbid("cudaMemcpyAsync", "a direction is named");
    require_memory("cudaMemcpyAsync", to, bytes);
    require_memory("cudaMemcpyAsync", from, bytes);
    queue("cudaMemcpyAsync", stream,
          [=] {
              memmove(to, from, bytes);
              return cudaSuccess;
          },
          { to, bytes }, { from, bytes });
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *data, int value, size_t bytes, cudaStream_t stream)
{
    const guard g(lock);
    require_device("cudaMemsetAsync");
    const cudaError_t rc = result(cudaSuccess);
    if (rc != cudaSuccess) return rc;
    require_memory("cudaMemsetAsync", data, bytes);
    queue("cudaMemsetAsync", stream,
          [=] {
              memset(data, value, bytes);
              return cudaSuccess;
          },
          { data, bytes });
    return cudaSuccess;
}

/* ---- kernels that nvcc has compiled: there are none ---- */

cudaError_t cudaFuncSetAttribute(const void *, enum cudaFuncAttribute, int)
{
    forbid("cudaFuncSetAttribute", "no kernel is compiled for a card");
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *, const void *)
{
    forbid("cudaFuncGetAttributes", "no kernel is compiled for a card");
}

} // extern "C"
