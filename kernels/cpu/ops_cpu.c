/* The operator table of the float32 host backend. */
#include "kernels/cpu/ops_cpu.h"

const struct ops_table ops_cpu = {
    .name = "cpu",
#define X(op) .op = op##_cpu,
    OPS_LIST(X)
#undef X
    .residual_norm_bwd_scratch = residual_norm_bwd_scratch_cpu,
    .linear_fwd_scratch = linear_fwd_scratch_cpu,
    .linear_bwd_scratch = linear_bwd_scratch_cpu,
    .attn_fwd_scratch = attn_fwd_scratch_cpu,
    .attn_bwd_scratch = attn_bwd_scratch_cpu,
    .decode_attn_scratch = decode_attn_scratch_cpu,
    .linear_ce_scratch = linear_ce_scratch_cpu,
    .probe_gemm = probe_gemm_cpu,
};

err_t cpu_require_f32(const struct tensor *t)
{
    if (t->dtype != DTYPE_F32)
        RAISE(UNSUPPORTED, "%s: %s; the cpu backend computes in f32",
              t->name == NULL ? "unnamed" : t->name, dtype_name(t->dtype));
    return ERR_OK;
}

#define FOLD_COLS 256

void cpu_fold_blocks(struct dev *dev, float *out_acc, const double *partial, int64_t blocks,
                     int64_t stride, int64_t cols)
{
    const int64_t pieces = div_ceil(cols, FOLD_COLS);
#pragma omp parallel for num_threads(dev->threads) schedule(static) if (pieces > 1)
    for (int64_t p = 0; p < pieces; p++) {
        const int64_t c0 = p * FOLD_COLS, count = min_i64(FOLD_COLS, cols - c0);
        double sum[FOLD_COLS] = { 0 };
        for (int64_t b = 0; b < blocks; b++) {
            const double *row = partial + b * stride + c0;
            for (int64_t c = 0; c < count; c++) sum[c] += row[c];
        }
        for (int64_t c = 0; c < count; c++) out_acc[c0 + c] = (float)(out_acc[c0 + c] + sum[c]);
    }
}
