/* Keys and values of a prompt, copied into a cache. */
#include "kernels/cuda/elem.cuh"
#include "kernels/cuda/ops_cuda.h"
#include "kernels/ops_attn.h"

#define KV_THREADS 128
#define KV_PACKS   4 /* loads in flight */

template <class T> struct kv_params {
    T *k_cache, *v_cache; /* of the first row that is stored */
    const T *k, *v;       /* of the first row, group 0 */
    int64_t row_stride, k_stride, v_stride;
    int groups, head_dim;
};

/* A block copies one row: all packs of k, then all of v. */
template <class T, int W> __global__ void __launch_bounds__(KV_THREADS) kv_rows(kv_params<T> a)
{
    const int packs = a.head_dim / W, row_packs = a.groups * packs;
    const int64_t from_row = blockIdx.x * a.row_stride,
                  to_row = (int64_t)blockIdx.x * row_packs * W;
    for (int first = threadIdx.x; first < 2 * row_packs; first += KV_THREADS * KV_PACKS) {
        run<T, W> in[KV_PACKS];
#pragma unroll
        for (int n = 0; n < KV_PACKS; n++) {
            const int i = first + n * KV_THREADS, p = i % row_packs;
            const int64_t group = p / packs;
            if (i >= 2 * row_packs) continue;
            const T *from = i < row_packs ? a.k + group * a.k_stride : a.v + group * a.v_stride;
            in[n].load(from + from_row + p % packs * W);
        }
#pragma unroll
        for (int n = 0; n < KV_PACKS; n++) {
            const int i = first + n * KV_THREADS;
            if (i >= 2 * row_packs) continue;
            in[n].store((i < row_packs ? a.k_cache : a.v_cache) + to_row + i % row_packs * W);
        }
    }
}

template <class T> static err_t kv_store_of(struct dev *dev, const struct kv_store_args *a)
{
    const struct qkv_layout *l = &a->layout;
    const int64_t width = l->kv_heads * l->head_dim, stride = a->qkv->row_stride;
    const int64_t to = (a->slot * a->k_cache->dim[1] + a->position) * width;
    const T *from = (const T *)a->qkv->data + a->row_first * stride;
    const kv_params<T> params = {
        .k_cache = (T *)a->k_cache->data + to,
        .v_cache = (T *)a->v_cache->data + to,
        .k = from + l->k_offset,
        .v = from + l->v_offset,
        .row_stride = stride,
        .k_stride = l->k_stride,
        .v_stride = l->v_stride,
        .groups = (int)l->kv_heads,
        .head_dim = (int)l->head_dim,
    };
    constexpr int W = pack_width<T>;
    const bool packs = l->head_dim % W == 0 && stride % W == 0 && l->k_offset % W == 0 &&
                       l->k_stride % W == 0 && l->v_offset % W == 0 && l->v_stride % W == 0;
    return gpu_launch(dev, "kv_store", packs ? kv_rows<T, W> : kv_rows<T, 1>,
                      dim3((unsigned)a->row_count), dim3(KV_THREADS), 0, params);
}

err_t kv_store_cuda(struct dev *dev, const struct kv_store_args *a)
{
    TRY(cuda_require_compute(a->qkv));
    return a->qkv->dtype == DTYPE_F32 ? kv_store_of<float>(dev, a) : kv_store_of<bf16>(dev, a);
}
