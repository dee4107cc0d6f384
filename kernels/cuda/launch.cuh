/*
 * launch.cuh - the CUDA language as this backend uses it: included first by every .cu and .cuh.
 * With SOULCHAT_EMU the same sources compile as C++ and run on the host (kernels/emu/emu.h).
 *
 *     __global__ void scale(float *y, const float *x, float a, int64_t n) { ... }
 *
 *     TRY(gpu_launch(dev, "scale", scale, blocks, 256, 0, y, x, a, n));
 *
 * Rules that keep kernels runnable in both worlds:
 *   - shared memory through SHARED_ARRAY and DYNAMIC_SHARED, never __shared__;
 *   - warp operations by all lanes of a warp (WARP_ALL), never in divergent code;
 *   - inline PTX in num.cuh, mma.cuh and async_copy.cuh alone: there it has a C++ twin for the
 *     host;
 *   - 16-bit numbers through num.cuh; no float atomics anywhere;
 *   - kernels take plain values and pointers; one that uses more than 48 KiB of dynamic shared
 *     memory says so in its launch, and gpu_launch raises the limit.
 */
#ifndef KERNELS_CUDA_LAUNCH_CUH
#define KERNELS_CUDA_LAUNCH_CUH

#include "base/fault.h"
#include "kernels/cuda/gpu.h"

#define WARP_ALL 0xffffffffu

#ifdef SOULCHAT_EMU
#include "kernels/emu/emu.h"
#else
#include <cuda_runtime.h>

/* An array of `count` elements, shared by the block: undefined at first. */
#define SHARED_ARRAY(type, name, count) __shared__ type name[count]
/* The block's dynamic shared memory, 16-byte aligned. */
extern __shared__ __align__(16) unsigned char gpu_dynamic_shared[];
/* clang-format off */
#define DYNAMIC_SHARED(type, name)                                                              \
    type *const name = reinterpret_cast<type *>(gpu_dynamic_shared)
/* clang-format on */

/* Ready `kernel` for `shared_bytes` of dynamic shared memory; what the launch left behind. */
err_t gpu_shared_limit(const struct gpu *gpu, const char *name, const void *kernel,
                       int64_t shared_bytes);
err_t gpu_launched(const char *name, int status);

/* Queue a kernel in the compute queue. A grid of 0 blocks is nothing to do. ERR_CUDA names it;
 * ERR_UNSUPPORTED: the card has not so much shared memory for a block. */
template <class... Params, class... Args>
err_t gpu_launch(struct dev *dev, const char *name, void (*kernel)(Params...), dim3 grid,
                 dim3 block, int64_t shared_bytes, Args... args)
{
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return ERR_OK;
    TRY(gpu_shared_limit(gpu_of(dev), name, reinterpret_cast<const void *>(kernel), shared_bytes));
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
    config.stream = static_cast<cudaStream_t>(gpu_of(dev)->queue[DEV_COMPUTE]);
    return gpu_launched(name, cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...));
}
#endif

#endif
