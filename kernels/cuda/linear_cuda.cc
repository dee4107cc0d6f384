/*
 * Dense layers: matrix products (gemm.h) with the row by row work around them (linear_rows.h).
 *
 * Where something has to wait between a product and its result (g = dy w until act' is applied, a
 * swiglu layer's pre that nobody keeps), it waits in scratch, a piece of some thousand rows at a
 * time, so that scratch stops growing with the micro-batch.
 */
#include "kernels/ops_linear.h"

#include "kernels/cuda/dev_cuda.h"
#include "kernels/cuda/linear_rows.h"
#include "kernels/cuda/ops_cuda.h"

/* Matrices in scratch have rows of a multiple of 16 bytes, whatever their width. */
static int64_t scratch_ld(int64_t cols) { return align_up(cols, 8); }

/* Rows of `row_bytes` that are in scratch at a time; all R where nothing is. */
static int64_t piece_rows(const struct dev *dev, int64_t R, int64_t row_bytes)
{
    if (row_bytes == 0) return R;
    return min_i64(R, max_i64(128, gemm_piece_bytes(dev) / row_bytes / 128 * 128));
}

static struct scratch take_workspace(const struct dev *dev, struct scratch *left)
{
    const int64_t bytes = gemm_workspace_bytes(dev);
    return { cuda_scratch_take(left, bytes), bytes };
}

/* What cuda_scratch_take takes for `bytes`. */
static int64_t taken(int64_t bytes) { return align_up(bytes, 256); }

/* ---- forward ---- */

/* The product's own bias addition wants the output's dtype: an f32 bias of a bf16 layer is added to
 * an f32 product, and a 16-bit bias of an f32 layer is widened. */
static bool bias_is_apart(const struct linear_fwd_args *a)
{
    return a->bias != NULL && a->x->dtype == DTYPE_BF16 && a->bias->dtype == DTYPE_F32;
}

static bool bias_is_widened(const struct linear_fwd_args *a)
{
    return a->bias != NULL && a->x->dtype == DTYPE_F32 && a->bias->dtype != DTYPE_F32;
}

static bool pre_is_in_scratch(const struct linear_fwd_args *a)
{
    return a->act == ACT_SWIGLU && a->pre == NULL;
}

/* Scratch of linear_fwd, and what is done with it. */
struct fwd {
    const struct linear_fwd_args *a;
    struct scratch workspace;
    void *weights;       /* a widened piece of w */
    const void *bias;    /* in the dtype that the product adds, or that rows_add_bias reads */
    struct rows sum;     /* [piece, width] f32, where the bias is apart */
    struct rows pre;     /* [piece, width] T, where it is not kept */
    int64_t width, rows; /* columns of pre, rows at a time */
};

static int64_t fwd_row_bytes(const struct linear_fwd_args *a)
{
    const int64_t ld = scratch_ld(a->w->dim[0]);
    return (bias_is_apart(a) ? ld * (int64_t)sizeof(float) : 0) +
           (pre_is_in_scratch(a) ? ld * dtype_bytes(a->x->dtype) : 0);
}

int64_t linear_fwd_scratch_cuda(const struct dev *dev, const struct linear_fwd_args *a)
{
    const int64_t width = a->w->dim[0], row_bytes = fwd_row_bytes(a);
    int64_t bytes = taken(gemm_workspace_bytes(dev)) +
                    taken(weight_piece_bytes(dev, a->w, a->x->dtype)) +
                    taken(piece_rows(dev, a->x->dim[0], row_bytes) * row_bytes) + 256;
    if (bias_is_widened(a)) bytes += taken(width * (int64_t)sizeof(float));
    return bytes;
}

static err_t fwd_begin(struct fwd *f, struct dev *dev, const struct linear_fwd_args *a)
{
    struct scratch left = a->scratch;
    const dtype_t T = a->x->dtype;
    const int64_t width = a->w->dim[0], ld = scratch_ld(width);
    *f = { .a = a, .width = width, .rows = piece_rows(dev, a->x->dim[0], fwd_row_bytes(a)) };
    f->workspace = take_workspace(dev, &left);
    f->weights = cuda_scratch_take(&left, weight_piece_bytes(dev, a->w, T));
    if (bias_is_apart(a))
        f->sum = { cuda_scratch_take(&left, f->rows * ld * (int64_t)sizeof(float)), ld };
    if (pre_is_in_scratch(a))
        f->pre = { cuda_scratch_take(&left, f->rows * ld * dtype_bytes(T)), ld };
    f->bias = a->bias == NULL ? NULL : a->bias->data;
    if (!bias_is_widened(a)) return ERR_OK;
    float *bias = (float *)cuda_scratch_take(&left, width * (int64_t)sizeof(float));
    f->bias = bias;
    return widen(dev, bias, a->bias->data, a->bias->dtype, width);
}

/* d = x w^T, plus the bias unless it is apart, for rows first .. first+count-1 of x. */
static err_t fwd_product(struct dev *dev, const struct fwd *f, struct rows d, dtype_t out_dtype,
                         int64_t first, int64_t count)
{
    const struct linear_fwd_args *a = f->a;
    const dtype_t T = a->x->dtype;
    const bool adds_bias = a->bias != NULL && !bias_is_apart(a);
    const struct rows x = rows_of(a->x, first);
    const int64_t piece = weight_piece_rows(dev, a->w, T);
    for (int64_t n = 0; n < f->width; n += piece) {
        const int64_t cols = min_i64(piece, f->width - n), at = n * dtype_bytes(out_dtype);
        struct rows w;
        TRY(weight_piece(&w, dev, a->w, T, n, cols, f->weights));
        const struct gemm g = {
            .b_transposed = true,
            .m = count,
            .n = cols,
            .k = a->x->dim[1],
            .in_dtype = T,
            .out_dtype = out_dtype,
            .a = x,
            .b = w,
            .d = { (char *)d.data + at, d.ld },
            .epilogue = adds_bias ? GEMM_BIAS : GEMM_PLAIN,
            .bias = adds_bias ? (const char *)f->bias + at : NULL,
            .workspace = f->workspace,
        };
        TRY(gemm_run(dev, &g));
    }
    return ERR_OK;
}

/* pre is where the product goes: kept, y itself, or scratch. */
static err_t fwd_rows(struct dev *dev, const struct fwd *f, int64_t first, int64_t count)
{
    const struct linear_fwd_args *a = f->a;
    const dtype_t T = a->x->dtype;
    const struct rows y = rows_of(a->y, first);
    const struct rows pre = pre_is_in_scratch(a) ? f->pre
                            : a->pre != NULL     ? rows_of(a->pre, first)
                                                 : y;
    if (bias_is_apart(a)) {
        TRY(fwd_product(dev, f, f->sum, DTYPE_F32, first, count));
        TRY(rows_add_bias(dev, pre, f->sum, (const float *)f->bias, count, f->width));
    } else {
        TRY(fwd_product(dev, f, pre, T, first, count));
    }
    if (a->act == ACT_NONE) return ERR_OK;
    return rows_act(dev, a->act, T, y, pre, count, a->y->dim[1]);
}

err_t linear_fwd_cuda(struct dev *dev, const struct linear_fwd_args *a)
{
    TRY(cuda_require_compute(a->x));
    struct fwd f;
    TRY(fwd_begin(&f, dev, a));
    for (int64_t r = 0; r < a->x->dim[0]; r += f.rows)
        TRY(fwd_rows(dev, &f, r, min_i64(f.rows, a->x->dim[0] - r)));
    return ERR_OK;
}

/* ---- backward ---- */

/* g = dy w waits in scratch, also where dx could hold it, so that dx has the same bits whether or
 * not it lies in x_pre's memory. */
static int64_t bwd_row_bytes(const struct linear_bwd_args *a)
{
    return a->x_act == ACT_NONE ? 0 : scratch_ld(a->w->dim[1]) * dtype_bytes(a->dy->dtype);
}

static int64_t dx_bytes(const struct dev *dev, const struct linear_bwd_args *a)
{
    if (a->dx == NULL) return 0;
    const int64_t row_bytes = bwd_row_bytes(a);
    return taken(weight_piece_bytes(dev, a->w, a->dy->dtype)) +
           taken(piece_rows(dev, a->dy->dim[0], row_bytes) * row_bytes);
}

static int64_t db_bytes(const struct linear_bwd_args *a)
{
    return a->db_acc == NULL ? 0 : taken(rows_sum_bytes(a->dy->dim[0], a->dy->dim[1]));
}

int64_t linear_bwd_scratch_cuda(const struct dev *dev, const struct linear_bwd_args *a)
{
    /* The sums of db come first and are done with before dx begins. */
    return taken(gemm_workspace_bytes(dev)) + max_i64(dx_bytes(dev, a), db_bytes(a)) + 256;
}

/* Whether the product itself multiplies by gelu'. */
static bool is_fused(const struct dev *dev, const struct linear_bwd_args *a)
{
    return a->x_act == ACT_GELU_TANH && a->dy->dtype == DTYPE_BF16 &&
           a->x_pre->row_stride % 8 == 0 && gemm_fuses_dgelu(dev_cuda_of(dev)->gemm);
}

struct bwd {
    const struct linear_bwd_args *a;
    struct scratch workspace;
    void *weights; /* a widened piece of w */
    struct rows g; /* [piece, K] T: dy w, until the activation is undone */
    bool fused;
    int64_t rows; /* at a time */
};

/* d = dy w for rows first .. first+count-1, a sum over pieces of w where it is widened. */
static err_t bwd_product(struct dev *dev, const struct bwd *f, struct rows d, int64_t first,
                         int64_t count)
{
    const struct linear_bwd_args *a = f->a;
    const dtype_t T = a->dy->dtype;
    const int64_t N = a->dy->dim[1], piece = weight_piece_rows(dev, a->w, T);
    const struct rows dy = rows_of(a->dy, first);
    const struct rows pre = f->fused ? rows_of(a->x_pre, first) : (struct rows){};
    for (int64_t n = 0; n < N; n += piece) {
        const int64_t depth = min_i64(piece, N - n);
        struct rows w;
        TRY(weight_piece(&w, dev, a->w, T, n, depth, f->weights));
        const struct gemm g = {
            .m = count,
            .n = a->w->dim[1],
            .k = depth,
            .in_dtype = T,
            .out_dtype = T,
            .a = { (char *)dy.data + n * dtype_bytes(T), dy.ld },
            .b = w,
            .d = d,
            .accumulate = n > 0,
            .epilogue = f->fused ? GEMM_DGELU : GEMM_PLAIN,
            .pre = pre,
            .workspace = f->workspace,
        };
        TRY(gemm_run(dev, &g));
    }
    return ERR_OK;
}

static err_t bwd_rows(struct dev *dev, const struct bwd *f, int64_t first, int64_t count)
{
    const struct linear_bwd_args *a = f->a;
    const dtype_t T = a->dy->dtype;
    const int64_t K = a->w->dim[1];
    const struct rows dx = rows_of(a->dx, first);
    const bool is_direct = a->x_act == ACT_NONE || (f->fused && a->dx->data != a->x_pre->data);
    TRY(bwd_product(dev, f, is_direct ? dx : f->g, first, count));
    if (is_direct) return ERR_OK;
    if (f->fused) return rows_act(dev, ACT_NONE, T, dx, f->g, count, K);
    return rows_act_bwd(dev, a->x_act, T, dx, f->g, rows_of(a->x_pre, first), count, K);
}

static err_t input_gradient(struct dev *dev, const struct linear_bwd_args *a,
                            struct scratch workspace, struct scratch left)
{
    const int64_t R = a->dy->dim[0], row_bytes = bwd_row_bytes(a);
    struct bwd f = { .a = a, .workspace = workspace, .rows = piece_rows(dev, R, row_bytes) };
    f.weights = cuda_scratch_take(&left, weight_piece_bytes(dev, a->w, a->dy->dtype));
    f.g = { cuda_scratch_take(&left, f.rows * row_bytes), scratch_ld(a->w->dim[1]) };
    f.fused = is_fused(dev, a);
    for (int64_t r = 0; r < R; r += f.rows) TRY(bwd_rows(dev, &f, r, min_i64(f.rows, R - r)));
    return ERR_OK;
}

static err_t weight_gradient(struct dev *dev, const struct linear_bwd_args *a,
                             struct scratch workspace)
{
    const struct gemm g = {
        .a_transposed = true,
        .m = a->dy->dim[1],
        .n = a->x->dim[1],
        .k = a->dy->dim[0],
        .in_dtype = a->dy->dtype,
        .out_dtype = a->dw_acc->dtype,
        .a = rows_of(a->dy, 0),
        .b = rows_of(a->x, 0),
        .d = rows_of(a->dw_acc, 0),
        .accumulate = true,
        .workspace = workspace,
    };
    return gemm_run(dev, &g);
}

err_t linear_bwd_cuda(struct dev *dev, const struct linear_bwd_args *a)
{
    TRY(cuda_require_compute(a->dy));
    struct scratch left = a->scratch;
    const struct scratch workspace = take_workspace(dev, &left);
    if (a->db_acc != NULL)
        TRY(rows_sum(dev, a->db_acc, a->dy->dtype, rows_of(a->dy, 0), a->dy->dim[0], a->dy->dim[1],
                     (float *)left.data));
    if (a->dw_acc != NULL) TRY(weight_gradient(dev, a, workspace));
    if (a->dx != NULL) TRY(input_gradient(dev, a, workspace, left)); /* may write over x_pre */
    return ERR_OK;
}
