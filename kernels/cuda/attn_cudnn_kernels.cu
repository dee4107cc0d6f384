#include "kernels/cuda/attn_cudnn.h"

#include "base/check.h"
#include "base/fault.h"
#include "base/num.h"

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#define THREADS     256
#define BLOCKS_MAX  1024 /* of a sample; the rest by striding */
#define VECTOR      8    /* bf16 in 16 bytes */

/* Eight neighbours, moved as one. */
struct alignas(16) vector {
    __nv_bfloat162 pair[VECTOR / 2];
};

static __device__ struct vector add(struct vector a, struct vector b)
{
    for (int i = 0; i < VECTOR / 2; i++) {
        const float2 x = __bfloat1622float2(a.pair[i]), y = __bfloat1622float2(b.pair[i]);
        a.pair[i] = __floats2bfloat162_rn(x.x + y.x, x.y + y.y);
    }
    return a;
}

/* One sample a grid row; a thread moves vectors of the sample's rows of [dk | dv] in turn. Bound
 * by memory: 4*H*D bytes a row read there, 4*H*D read and written here. */
static __global__ void __launch_bounds__(THREADS) add_context_kernel(struct attn_cudnn_context a)
{
    const int64_t width = a.heads * a.head_dim;
    const int64_t row_vectors = 2 * width / VECTOR;
    const int64_t sample = blockIdx.y;
    const int64_t end = a.key_count[sample] * row_vectors;
    const bool alone = a.alone[sample] != 0;
    const int64_t step = (int64_t)gridDim.x * THREADS;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < end; i += step) {
        const int64_t row = i / row_vectors;
        const int64_t column = (i - row * row_vectors) * VECTOR;
        const bool is_v = column >= width;
        const int64_t in_width = is_v ? column - width : column;
        const int64_t head = in_width / a.head_dim;
        __nv_bfloat16 *to = (__nv_bfloat16 *)(is_v ? a.dv : a.dk) + a.at_kv[sample] +
                            row * a.row_stride + head * a.head_stride +
                            (in_width - head * a.head_dim);
        const __nv_bfloat16 *from =
            (const __nv_bfloat16 *)a.dkv + a.at_dkv[sample] + row * 2 * width + column;
        const struct vector x = *(const struct vector *)from;
        *(struct vector *)to = alone ? x : add(*(const struct vector *)to, x);
    }
}

err_t attn_cudnn_add_context(const struct attn_cudnn_context *args, void *stream)
{
    ASSERT(args->head_dim % VECTOR == 0 && args->row_stride % VECTOR == 0);
    ASSERT(args->count > 0 && args->count <= 65535);
    const int64_t vectors = args->keys_max * args->heads * args->head_dim * 2 / VECTOR;
    const dim3 grid((unsigned)min_i64(div_ceil(vectors, THREADS), BLOCKS_MAX),
                    (unsigned)args->count);
    TRY(fault_point("cuda.launch"));
    add_context_kernel<<<grid, THREADS, 0, (cudaStream_t)stream>>>(*args);
    const cudaError_t status = cudaGetLastError();
    if (status != cudaSuccess)
        RAISE(CUDA, "launch of the addition of prefix gradients: %s", cudaGetErrorString(status));
    return ERR_OK;
}
