/* attn_cudnn.h where cuDNN is not: the emulator, and CUDA builds without its headers. */
#include "kernels/cuda/attn_cudnn.h"

#include "base/buf.h"
#include "base/check.h"

err_t attn_cudnn_open(struct attn_cudnn **out, const struct attn_cudnn_options *options)
{
    (void)options;
    *out = nullptr;
    RAISE(UNSUPPORTED, "this backend was built without cuDNN: attention runs on our own kernels");
}

void attn_cudnn_close(struct attn_cudnn *c) { ASSERT(c == nullptr); }

err_t attn_cudnn_describe_library(struct buf *out, const char *library)
{
    (void)library;
    return buf_puts(out, "built without cuDNN: attention runs on our own kernels\n");
}

err_t attn_cudnn_fwd(struct attn_cudnn *c, struct dev *dev, const struct attn_fwd_args *args)
{
    (void)c;
    (void)args;
    RAISE(UNSUPPORTED, "the %s backend was built without cuDNN", dev->ops->name);
}

err_t attn_cudnn_bwd(struct attn_cudnn *c, struct dev *dev, const struct attn_bwd_args *args)
{
    (void)c;
    (void)args;
    RAISE(UNSUPPORTED, "the %s backend was built without cuDNN", dev->ops->name);
}

int64_t attn_cudnn_fwd_scratch_bytes(const struct attn_cudnn *c, const struct attn_fwd_args *args)
{
    (void)c;
    (void)args;
    return 0;
}

int64_t attn_cudnn_bwd_scratch_bytes(const struct attn_cudnn *c, const struct attn_bwd_args *args)
{
    (void)c;
    (void)args;
    return 0;
}
