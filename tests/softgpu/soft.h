/*
 * soft.h - what the files of the pretended CUDA runtime share: streams whose work runs late, memory
 * that is accounted for, errors. README.md says what it is for. Private to tests/softgpu.
 *
 * One lock guards everything; work runs in the thread that forces it, with the lock held.
 */
#ifndef TESTS_SOFTGPU_SOFT_H
#define TESTS_SOFTGPU_SOFT_H

#include <cstdint>
#include <cuda_runtime.h>
#include <functional>
#include <mutex>

namespace soft
{

extern std::recursive_mutex lock;

/* A program that does what CUDA forbids, or leaves open, ends here with a line that says so. */
[[noreturn]] void forbid(const char *call, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- errors ---- */

/* What a call returns: a failure that was asked for (SOFTGPU_FAIL), one that queued work has left
 * behind, or `code`; remembered for cudaGetLastError. */
cudaError_t result(cudaError_t code);
/* A failure of queued work, which every later call returns. */
void poison(cudaError_t code);

/* ---- threads ---- */

/* A thread has chosen a device: one that has not works with the first, whichever the program's. */
void require_device(const char *call);

/* ---- memory ---- */

/* Part of a block that is neither the device's nor page-locked ends the program. */
void require_memory(const char *call, const void *data, size_t bytes);

/* ---- streams ---- */

/* Memory that queued work will touch. */
struct touched {
    const void *data;
    size_t bytes;
};

void queue(const char *call, cudaStream_t stream, std::function<cudaError_t()> work,
           touched first = {}, touched second = {});
/* Everything that is queued anywhere. */
void run_all();
/* Whether work that has not run will touch part of this. */
bool is_awaited(const void *data, size_t bytes);
/* Perhaps run something early, as SOFTGPU_SEED decides. */
void run_some();

/* ---- the device ---- */

struct limits {
    int capability; /* 90 */
    size_t memory_bytes;
    int shared_bytes_optin; /* of a block: static and dynamic */
};

limits device();

} // namespace soft

#endif
