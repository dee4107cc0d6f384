/*
 * Dense layers. Bias and activation are applied to each tile of the product by the thread that
 * computed it, while the tile is in its cache.
 */
#include "kernels/ops_linear.h"

#include "kernels/cpu/act.h"
#include "kernels/cpu/convert.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/ops_cpu.h"

#include <string.h>

/* Forward: what happens to a tile of pre = x w^T. */
struct fwd_finish {
    const float *bias;      /* NULL: none */
    const struct tensor *y; /* where act(pre) goes; NULL: nothing to apply */
    enum act_kind act;
};

static void finish_fwd(const void *context, float *tile, int64_t ld, int64_t row, int64_t rows,
                       int64_t col, int64_t cols)
{
    const struct fwd_finish *f = context;
    if (f->bias != NULL) {
        const float *bias = f->bias + col;
        for (int64_t r = 0; r < rows; r++) {
            float *t = tile + r * ld;
#pragma omp simd
            for (int64_t c = 0; c < cols; c++) t[c] += bias[c];
        }
    }
    if (f->y != NULL)
        act_apply(f->act, f32_row(f->y, row) + col, f->y->row_stride, tile, ld, 0, rows, cols);
}

/* The product goes to pre where it is kept, into y where act works in place or is none, and to
 * scratch for swiglu, which needs two columns of it for one of y. */
static bool product_in_scratch(const struct linear_fwd_args *a)
{
    return a->act == ACT_SWIGLU && a->pre == NULL;
}

static int64_t bias_bytes(const struct linear_fwd_args *a)
{
    if (a->bias == NULL || a->bias->dtype == DTYPE_F32) return 0;
    return align_up(a->bias->dim[0] * (int64_t)sizeof(float), 64);
}

static int64_t product_bytes(const struct linear_fwd_args *a)
{
    if (!product_in_scratch(a)) return 0;
    return align_up(a->x->dim[0] * a->w->dim[0] * (int64_t)sizeof(float), 64);
}

/* The product of the forward pass, without its scratch and finish. */
static struct gemm_args fwd_product(const struct linear_fwd_args *a, float *c, int64_t ldc)
{
    return (struct gemm_args){
        .b_transposed = true,
        .m = a->x->dim[0],
        .n = a->w->dim[0],
        .k = a->x->dim[1],
        .a = a->x->data,
        .lda = a->x->row_stride,
        .b = a->w->data,
        .b_dtype = a->w->dtype,
        .ldb = a->w->row_stride,
        .c = c,
        .ldc = ldc,
    };
}

int64_t linear_fwd_scratch_cpu(const struct dev *dev, const struct linear_fwd_args *a)
{
    const struct gemm_args g = fwd_product(a, NULL, 0);
    return bias_bytes(a) + product_bytes(a) + gemm_scratch_bytes(dev, &g);
}

err_t linear_fwd_cpu(struct dev *dev, const struct linear_fwd_args *a)
{
    TRY(cpu_require_f32(a->x));
    struct scratch left = a->scratch;
    const int64_t R = a->x->dim[0], N = a->y->dim[1];
    struct tensor pre = *a->y;
    if (a->pre != NULL) pre = *a->pre;
    if (product_in_scratch(a))
        pre = tensor_2d(scratch_take(&left, product_bytes(a)), DTYPE_F32, R, 2 * N, "pre");

    struct fwd_finish finish = { .act = a->act };
    if (a->bias != NULL) finish.bias = a->bias->data;
    if (bias_bytes(a) > 0) {
        float *bias = scratch_take(&left, bias_bytes(a));
        widen_run(bias, a->bias->data, a->bias->dtype, 0, a->bias->dim[0]);
        finish.bias = bias;
    }
    if (a->act == ACT_GELU_TANH) finish.y = a->y;

    struct gemm_args g = fwd_product(a, pre.data, pre.row_stride);
    g.finish = finish_fwd;
    g.finish_context = &finish;
    g.scratch = left;
    TRY(gemm_f32(dev, &g));
    if (a->act != ACT_SWIGLU) return ERR_OK;

#pragma omp parallel for num_threads(dev->threads) schedule(static)
    for (int64_t r = 0; r < R; r++)
        act_apply(ACT_SWIGLU, f32_row(a->y, r), N, f32_row(&pre, r), 2 * N, N, 1, N);
    return ERR_OK;
}

/* Backward: a tile of dy w becomes a block of dx. */
struct bwd_finish {
    const struct tensor *dx, *x_pre;
    int64_t K;
    enum act_kind x_act;
};

static void finish_bwd(const void *context, float *tile, int64_t ld, int64_t row, int64_t rows,
                       int64_t col, int64_t cols)
{
    const struct bwd_finish *f = context;
    act_chain(f->x_act, f32_row(f->dx, row) + col, f->dx->row_stride, tile, ld,
              f32_row(f->x_pre, row) + col, f->x_pre->row_stride, f->K, rows, cols);
}

/* dy w, straight into dx unless an activation has to be undone on the way. */
static struct gemm_args dx_product(const struct linear_bwd_args *a)
{
    return (struct gemm_args){
        .m = a->dy->dim[0],
        .n = a->w->dim[1],
        .k = a->dy->dim[1],
        .a = a->dy->data,
        .lda = a->dy->row_stride,
        .b = a->w->data,
        .b_dtype = a->w->dtype,
        .ldb = a->w->row_stride,
        .c = a->dx->data,
        .ldc = a->dx->row_stride,
        .tiles_in_scratch = a->x_act != ACT_NONE,
    };
}

static int64_t db_bytes(const struct linear_bwd_args *a)
{
    if (a->db_acc == NULL) return 0;
    return align_up(sum_block_bound(a->dy->dim[0]) * a->dy->dim[1] * (int64_t)sizeof(double), 64);
}

int64_t linear_bwd_scratch_cpu(const struct dev *dev, const struct linear_bwd_args *a)
{
    int64_t dx_bytes = 0;
    if (a->dx != NULL) {
        const struct gemm_args g = dx_product(a);
        dx_bytes = gemm_scratch_bytes(dev, &g);
    }
    return max_i64(dx_bytes, db_bytes(a)); /* one after the other */
}

static void sum_rows(struct dev *dev, const struct linear_bwd_args *a)
{
    const int64_t R = a->dy->dim[0], N = a->dy->dim[1];
    const int64_t block_rows = sum_block_rows(R), blocks = sum_block_count(R);
    double *partial = a->scratch.data; /* [blocks, N] */

#pragma omp parallel for num_threads(dev->threads) schedule(static)
    for (int64_t block = 0; block < blocks; block++) {
        double *sum = partial + block * N;
        memset(sum, 0, (size_t)N * sizeof *sum);
        const int64_t end = min_i64(R, (block + 1) * block_rows);
        for (int64_t r = block * block_rows; r < end; r++) {
            const float *dy = f32_row(a->dy, r);
#pragma omp simd
            for (int64_t c = 0; c < N; c++) sum[c] += (double)dy[c];
        }
    }
    cpu_fold_blocks(dev, a->db_acc->data, partial, blocks, N, N);
}

err_t linear_bwd_cpu(struct dev *dev, const struct linear_bwd_args *a)
{
    TRY(cpu_require_f32(a->dy));
    if (a->db_acc != NULL) sum_rows(dev, a);
    if (a->dw_acc != NULL)
        TRY(gemm_f32(dev, &(struct gemm_args){
                              .a_transposed = true,
                              .m = a->dy->dim[1],
                              .n = a->x->dim[1],
                              .k = a->dy->dim[0],
                              .a = a->dy->data,
                              .lda = a->dy->row_stride,
                              .b = a->x->data,
                              .b_dtype = DTYPE_F32,
                              .ldb = a->x->row_stride,
                              .c = a->dw_acc->data,
                              .ldc = a->dw_acc->row_stride,
                              .accumulate = true,
                          }));
    if (a->dx != NULL) {
        const struct bwd_finish finish = { a->dx, a->x_pre, a->w->dim[1], a->x_act };
        struct gemm_args g = dx_product(a);
        g.finish = a->x_act == ACT_NONE ? NULL : finish_bwd;
        g.finish_context = &finish;
        g.scratch = a->scratch;
        TRY(gemm_f32(dev, &g));
    }
    return ERR_OK;
}
