/* Token embedding: copies of rows forward, sums over equal ids backward. */
#include "kernels/cpu/convert.h"
#include "kernels/cpu/ops_cpu.h"
#include "kernels/ops_embed.h"

err_t embed_fwd_cpu(struct dev *dev, const struct embed_fwd_args *a)
{
    TRY(cpu_require_f32(a->y));
    const int64_t R = a->y->dim[0], C = a->y->dim[1], V = a->table->dim[0];
    const int32_t *ids = i32_data(a->ids);

#pragma omp parallel for num_threads(dev->threads) schedule(static)
    for (int64_t r = 0; r < R; r++) {
        ASSERT(ids[r] >= 0 && ids[r] < V);
        widen_run(f32_row(a->y, r), a->table->data, a->table->dtype, ids[r] * C, C);
    }
    return ERR_OK;
}

#define SUM_COLS 256

/* acc[c] += sum over order[0..count-1] of dy, in that order; in double, because a frequent token
 * has thousands of rows. */
static void sum_run(float *acc, const struct tensor *dy, const int32_t *order, int64_t count)
{
    const int64_t C = dy->dim[1];
    for (int64_t c0 = 0; c0 < C; c0 += SUM_COLS) {
        const int64_t cols = min_i64(SUM_COLS, C - c0);
        double sum[SUM_COLS] = { 0 };
        for (int64_t i = 0; i < count; i++) {
            const float *row = f32_row(dy, order[i]) + c0;
            for (int64_t c = 0; c < cols; c++) sum[c] += (double)row[c];
        }
        for (int64_t c = 0; c < cols; c++) acc[c0 + c] = (float)((double)acc[c0 + c] + sum[c]);
    }
}

/* One piece per run of equal ids; the place where a run begins does the whole run. */
err_t embed_bwd_cpu(struct dev *dev, const struct embed_bwd_args *a)
{
    TRY(cpu_require_f32(a->dy));
    const int64_t R = a->dy->dim[0], V = a->dtable_acc->dim[0];
    const int32_t *ids = i32_data(a->ids), *order = i32_data(a->order);

#pragma omp parallel for num_threads(dev->threads) schedule(dynamic, 16)
    for (int64_t i = 0; i < R; i++) {
        ASSERT(order[i] >= 0 && order[i] < R);
        const int32_t id = ids[order[i]];
        ASSERT(id >= 0 && id < V);
        if (i > 0 && ids[order[i - 1]] == id) continue;
        int64_t count = 1;
        while (i + count < R && ids[order[i + count]] == id) count++;
        sum_run(f32_row(a->dtable_acc, id), a->dy, order + i, count);
    }
    return ERR_OK;
}
