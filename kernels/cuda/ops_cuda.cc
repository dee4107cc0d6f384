/* The operator table of the CUDA backend. */
#include "kernels/cuda/ops_cuda.h"

extern const struct ops_table ops_cuda = {
    .name = "cuda",
    .embed_fwd = embed_fwd_cuda,
    .embed_bwd = embed_bwd_cuda,
    .embed_bwd_scratch = embed_bwd_scratch_cuda,
    .residual_norm_fwd = residual_norm_fwd_cuda,
    .residual_norm_bwd = residual_norm_bwd_cuda,
    .residual_norm_bwd_scratch = residual_norm_bwd_scratch_cuda,
    .linear_fwd = linear_fwd_cuda,
    .linear_fwd_scratch = linear_fwd_scratch_cuda,
    .linear_bwd = linear_bwd_cuda,
    .linear_bwd_scratch = linear_bwd_scratch_cuda,
    .act_fwd = act_fwd_cuda,
    .rotary = rotary_cuda,
    .attn_fwd = attn_fwd_cuda,
    .attn_fwd_scratch = attn_fwd_scratch_cuda,
    .attn_bwd = attn_bwd_cuda,
    .attn_bwd_scratch = attn_bwd_scratch_cuda,
    .kv_store = kv_store_cuda,
    .decode_attn = decode_attn_cuda,
    .decode_attn_scratch = decode_attn_scratch_cuda,
    .linear_ce = linear_ce_cuda,
    .linear_ce_scratch = linear_ce_scratch_cuda,
    .sumsq_chunks = sumsq_chunks_cuda,
    .adamw_segments = adamw_segments_cuda,
    .cast = cast_cuda,
    .add = add_cuda,
    .probe_gemm = probe_gemm_cuda,
};

err_t cuda_require_compute(const struct tensor *t)
{
    if (t->dtype != DTYPE_F32 && t->dtype != DTYPE_BF16)
        RAISE(UNSUPPORTED, "%s: %s; the cuda backend computes in f32 and bf16",
              t->name == NULL ? "unnamed" : t->name, dtype_name(t->dtype));
    return ERR_OK;
}
