/* Prefix gradients that cuDNN could not add by itself. */
#include "kernels/cuda/attn_cudnn.h"
#include "kernels/cuda/num.cuh"

#define CONTEXT_THREADS    256
#define CONTEXT_BLOCKS_MAX 1024 /* of a sample; the rest by striding */

/* One sample a grid row; threads move packs of the sample's rows of [dk | dv] in turn. Bound by
 * memory: per row 4*H*D bytes read there, as many read here and as many written. */
static __global__ void __launch_bounds__(CONTEXT_THREADS)
    add_context_kernel(struct attn_cudnn_context a)
{
    const int W = pack_width<bf16>;
    const int64_t width = a.heads * a.head_dim, row_packs = 2 * width / W;
    const int64_t sample = blockIdx.y, end = a.key_count[sample] * row_packs;
    const bool alone = a.alone[sample] != 0;
    const int64_t step = (int64_t)gridDim.x * CONTEXT_THREADS;
    for (int64_t i = (int64_t)blockIdx.x * CONTEXT_THREADS + threadIdx.x; i < end; i += step) {
        const int64_t row = i / row_packs, column = (i - row * row_packs) * W;
        const bool is_v = column >= width;
        const int64_t in_width = is_v ? column - width : column, head = in_width / a.head_dim;
        bf16 *to = (bf16 *)(is_v ? a.dv : a.dk) + a.at_kv[sample] + row * a.row_stride +
                   head * a.head_stride + (in_width - head * a.head_dim);
        const bf16 *from = (const bf16 *)a.dkv + a.at_dkv[sample] + row * 2 * width + column;
        pack<bf16, W> sum = load_pack<W>(from);
        if (!alone) {
            const pack<bf16, W> old = load_pack<W>(to);
            for (int j = 0; j < W; j++) sum.v[j] = to_bf16(to_float(old.v[j]) + to_float(sum.v[j]));
        }
        store_pack(to, sum);
    }
}

err_t attn_cudnn_add_context(struct dev *dev, const struct attn_cudnn_context *args)
{
    ASSERT(args->head_dim % pack_width<bf16> == 0 && args->row_stride % pack_width<bf16> == 0);
    ASSERT(args->count > 0 && args->count <= 65535);
    const int64_t packs = args->keys_max * args->heads * args->head_dim * 2 / pack_width<bf16>;
    const int64_t blocks = min_i64(div_ceil(packs, CONTEXT_THREADS), CONTEXT_BLOCKS_MAX);
    return gpu_launch(dev, "attn_cudnn_add_context", add_context_kernel,
                      dim3((unsigned)blocks, (unsigned)args->count), dim3(CONTEXT_THREADS), 0,
                      *args);
}
