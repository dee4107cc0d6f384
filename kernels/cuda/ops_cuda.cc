/* The operator table of the CUDA backend. */
#include "kernels/cuda/ops_cuda.h"

extern const struct ops_table ops_cuda = {
    .name = "cuda",
    .residual_norm_fwd = residual_norm_fwd_cuda,
};

err_t cuda_require_compute(const struct tensor *t)
{
    if (t->dtype != DTYPE_F32 && t->dtype != DTYPE_BF16)
        RAISE(UNSUPPORTED, "%s: %s; the cuda backend computes in f32 and bf16",
              t->name == NULL ? "unnamed" : t->name, dtype_name(t->dtype));
    return ERR_OK;
}
