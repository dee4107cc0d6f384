/*
 * cuDNN as one of the ways of attention. What it refuses, such as very long segments, our own
 * kernels on matrix units do: then all of that call, so that two calls on the same batch still have
 * the same bits.
 */
#include "base/check.h"
#include "base/env.h"
#include "base/log.h"
#include "kernels/cuda/attn.h"
#include "kernels/cuda/attn_cudnn.h"
#include "kernels/cuda/dev_cuda.h"

#include <string.h>

static bool takes(const struct dev *dev, const struct tensor *qkv, const struct qkv_layout *l)
{
    const int64_t D = l->head_dim;
    const struct qkv_layout interleaved = qkv_layout_interleaved(l->heads, D);
    return dev_cuda_of(dev)->cudnn != NULL && qkv->dtype == DTYPE_BF16 && (D == 64 || D == 128) &&
           memcmp(l, &interleaved, sizeof interleaved) == 0 && qkv->dim[1] == 3 * l->heads * D &&
           attn_mma.takes(dev, qkv, l);
}

static err_t fwd(struct dev *dev, const struct attn_fwd_args *a)
{
    const err_t rc = attn_cudnn_fwd(dev_cuda_of(dev)->cudnn, dev, a);
    return rc == ERR_UNSUPPORTED ? attn_mma.fwd(dev, a) : rc;
}

static err_t bwd(struct dev *dev, const struct attn_bwd_args *a)
{
    const err_t rc = attn_cudnn_bwd(dev_cuda_of(dev)->cudnn, dev, a);
    return rc == ERR_UNSUPPORTED ? attn_mma.bwd(dev, a) : rc;
}

static int64_t fwd_scratch(const struct dev *dev, const struct attn_fwd_args *a)
{
    return max_i64(attn_cudnn_fwd_scratch_bytes(dev_cuda_of(dev)->cudnn, a),
                   attn_mma.fwd_scratch(dev, a));
}

static int64_t bwd_scratch(const struct dev *dev, const struct attn_bwd_args *a)
{
    return max_i64(attn_cudnn_bwd_scratch_bytes(dev_cuda_of(dev)->cudnn, a),
                   attn_mma.bwd_scratch(dev, a));
}

static const struct attn_path attn_library = {
    .name = "cudnn",
    .wants = "cuDNN, bf16, head_dim 64 or 128, q, k and v interleaved by head",
    .takes = takes,
    .fwd = fwd,
    .bwd = bwd,
    .fwd_scratch = fwd_scratch,
    .bwd_scratch = bwd_scratch,
};

err_t attn_library_open(struct dev *dev)
{
    struct dev_cuda *cuda = dev_cuda_of(dev);
    struct attn_cudnn_options options = {};
    options.library = env_get("SOULCHAT_CUDNN");
    options.capability = dev->info.capability;
    const bool is_forced = cuda->attn_forced != NULL;
    if (is_forced && strcmp(cuda->attn_forced, attn_library.name) != 0) return ERR_OK;
    const err_t rc = attn_cudnn_open(&cuda->cudnn, &options);
    if (rc == ERR_OK) cuda->attn_library = &attn_library;
    if (rc == ERR_OK || is_forced || rc == ERR_NOMEM) return rc;
    if (rc != ERR_UNSUPPORTED)
        LOG_W("attention", "%s: attention runs on our own kernels", err_last()->text);
    else if (options.capability == 90 && !gpu_is_host()) /* a card that would be faster with it */
        LOG_I("attention", "%s", err_last()->text);
    return ERR_OK;
}

err_t attn_library_describe(struct buf *out)
{
    return attn_cudnn_describe_library(out, env_get("SOULCHAT_CUDNN"));
}

void attn_library_close(struct dev *dev)
{
    attn_cudnn_close(dev_cuda_of(dev)->cudnn);
    dev_cuda_of(dev)->cudnn = NULL;
}
