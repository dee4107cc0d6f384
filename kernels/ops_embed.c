/* Argument checks for ops_embed.h, once for all backends. */
#include "kernels/ops_embed.h"

#include "kernels/ops_check.h"

OP_SCRATCH_BYTES(embed_fwd)
OP_SCRATCH_BYTES(embed_bwd)

err_t op_embed_fwd(struct dev *dev, const struct embed_fwd_args *a)
{
    TRY(check_dims(a->y, "y", 2));
    TRY(check_dims(a->table, "table", 2));
    TRY(check_float(a->y, "y"));
    const dtype_t T = a->y->dtype;
    const int64_t R = a->y->dim[0], C = a->y->dim[1], V = a->table->dim[0];

    TRY(check_2d(a->y, "y", T, R, C, ROWS_STRIDED));
    TRY(check_weight_dtype(a->table, "table", T));
    TRY(check_2d(a->table, "table", a->table->dtype, V, C, ROWS_DENSE));
    TRY(check_1d(a->ids, "ids", DTYPE_I32, R));
    if (R == 0) return ERR_OK;
    OP_DISPATCH(dev, embed_fwd, a);
}

err_t op_embed_bwd(struct dev *dev, const struct embed_bwd_args *a)
{
    TRY(check_dims(a->dtable_acc, "dtable_acc", 2));
    TRY(check_dims(a->dy, "dy", 2));
    TRY(check_float(a->dy, "dy"));
    const dtype_t T = a->dy->dtype, acc = a->dtable_acc->dtype;
    const int64_t R = a->dy->dim[0], C = a->dy->dim[1], V = a->dtable_acc->dim[0];

    TRY(check_dtype_either(a->dtable_acc, "dtable_acc", T, dtype_accumulator(T)));
    TRY(check_2d(a->dtable_acc, "dtable_acc", acc, V, C, ROWS_DENSE));
    TRY(check_2d(a->dy, "dy", T, R, C, ROWS_STRIDED));
    TRY(check_1d(a->ids, "ids", DTYPE_I32, R));
    TRY(check_1d(a->order, "order", DTYPE_I32, R));
    TRY(check_scratch(&a->scratch, op_embed_bwd_scratch_bytes(dev, a)));
    if (R == 0) return ERR_OK;
    OP_DISPATCH(dev, embed_bwd, a);
}
