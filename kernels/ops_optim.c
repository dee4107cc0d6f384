/* Argument checks for ops_optim.h, once for all backends. */
#include "kernels/ops_optim.h"

#include "base/num.h"
#include "kernels/ops_check.h"

#include <inttypes.h>

OP_SCRATCH_BYTES(sumsq_chunks)
OP_SCRATCH_BYTES(adamw_segments)
OP_SCRATCH_BYTES(cast)
OP_SCRATCH_BYTES(add)

/* offset .. offset+count-1 lies inside an arena of n elements. */
static err_t check_range(const char *role, int64_t segment, int64_t offset, int64_t count,
                         int64_t n)
{
    if (offset < 0 || count < 0 || count > n || offset > n - count)
        RAISE(ARG,
              "segment %" PRId64 ": %s elements %" PRId64 " + %" PRId64
              "; expected them inside %" PRId64,
              segment, role, offset, count, n);
    return ERR_OK;
}

static err_t check_segment_list(const void *segments, int64_t count)
{
    if (count < 0) RAISE(ARG, "segment_count = %" PRId64 "; expected 0 or more", count);
    ASSERT(count == 0 || segments != NULL);
    return ERR_OK;
}

err_t op_sumsq_chunks(struct dev *dev, const struct sumsq_chunks_args *a)
{
    TRY(check_float(a->x, "x"));
    TRY(check_1d(a->x, "x", a->x->dtype, a->x->dim[0]));
    TRY(check_1d(a->out, "out", DTYPE_F64, a->out->dim[0]));
    TRY(check_segment_list(a->segments, a->segment_count));
    for (int64_t s = 0; s < a->segment_count; s++) {
        const struct sumsq_segment *seg = &a->segments[s];
        TRY(check_range("x", s, seg->offset, seg->count, a->x->dim[0]));
        TRY(check_range("out", s, seg->out_index, div_ceil(seg->count, SUMSQ_CHUNK),
                        a->out->dim[0]));
    }
    if (a->segment_count == 0) return ERR_OK;
    OP_DISPATCH(dev, sumsq_chunks, a);
}

static err_t check_adamw_scalars(const struct adamw_segments_args *a)
{
    TRY(check_finite(a->lr, "lr"));
    TRY(check_finite(a->weight_decay, "weight_decay"));
    TRY(check_finite(a->grad_scale, "grad_scale"));
    TRY(check_positive(a->eps, "eps"));
    if (a->lr < 0) RAISE(ARG, "lr = %g; expected 0 or more", a->lr);
    if (a->weight_decay < 0) RAISE(ARG, "weight_decay = %g; expected 0 or more", a->weight_decay);
    if (!(a->beta1 >= 0 && a->beta1 < 1)) RAISE(ARG, "beta1 = %g; expected [0, 1)", a->beta1);
    if (!(a->beta2 >= 0 && a->beta2 < 1)) RAISE(ARG, "beta2 = %g; expected [0, 1)", a->beta2);
    if (a->update < 1) RAISE(ARG, "update = %" PRId64 "; expected 1 or more", a->update);
    return ERR_OK;
}

/* What one kind of state lies in: NULL where the call has no such segment. */
struct adamw_arenas {
    int64_t full, blocks; /* elements of exp_avg, of the codes; -1: none */
};

static err_t check_codes(struct adamw_arenas *out, const struct adamw_segments_args *a)
{
    const struct tensor *codes = a->exp_avg_codes;
    if (codes == NULL) return ERR_OK;
    ASSERT(a->exp_avg_sq_codes != NULL);
    ASSERT(a->exp_avg_absmax != NULL && a->exp_avg_sq_absmax != NULL);
    TRY(check_1d(codes, "exp_avg_codes", DTYPE_U8, codes->dim[0]));
    TRY(check_1d(a->exp_avg_sq_codes, "exp_avg_sq_codes", DTYPE_U8, codes->dim[0]));
    const int64_t blocks = div_ceil(codes->dim[0], ADAMW_BLOCK);
    TRY(check_1d(a->exp_avg_absmax, "exp_avg_absmax", DTYPE_F32, blocks));
    TRY(check_1d(a->exp_avg_sq_absmax, "exp_avg_sq_absmax", DTYPE_F32, blocks));
    out->blocks = codes->dim[0];
    return ERR_OK;
}

static err_t check_adamw_arenas(struct adamw_arenas *out, const struct adamw_segments_args *a)
{
    TRY(check_float(a->weight, "weight"));
    const dtype_t T = a->weight->dtype, acc = dtype_accumulator(T);
    *out = (struct adamw_arenas){ -1, -1 };
    TRY(check_1d(a->weight, "weight", T, a->weight->dim[0]));
    TRY(check_dtype_either(a->grad, "grad", T, acc));
    TRY(check_1d(a->grad, "grad", a->grad->dtype, a->grad->dim[0]));
    if (a->exp_avg != NULL) {
        ASSERT(a->exp_avg_sq != NULL);
        out->full = a->exp_avg->dim[0];
        TRY(check_1d(a->exp_avg, "exp_avg", acc, out->full));
        TRY(check_1d(a->exp_avg_sq, "exp_avg_sq", acc, out->full));
        if (a->master != NULL) TRY(check_1d(a->master, "master", DTYPE_F32, out->full));
    }
    TRY(check_codes(out, a));
    if (a->rounding == ADAMW_ROUND_STOCHASTIC && (T != DTYPE_BF16 || a->master != NULL))
        RAISE(ARG, "rounding: stochastic; only bf16 weights without master are rounded so");
    return ERR_OK;
}

static err_t check_adamw_state(int64_t s, const struct adamw_arenas *arenas,
                               const struct adamw_segments_args *a)
{
    const struct adamw_segment *seg = &a->segments[s];
    if (seg->state == ADAMW_STATE_FULL) {
        ASSERT(arenas->full >= 0);
        return check_range("state", s, seg->state_offset, seg->count, arenas->full);
    }
    if (seg->state != ADAMW_STATE_BLOCK8)
        RAISE(ARG, "segment %" PRId64 ": state %d; expected FULL or BLOCK8", s, (int)seg->state);
    ASSERT(arenas->blocks >= 0);
    if (a->master != NULL)
        RAISE(ARG, "segment %" PRId64 ": 8-bit moments and a master; expected one of them", s);
    if (seg->state_offset % ADAMW_BLOCK != 0)
        RAISE(ARG, "segment %" PRId64 ": state_offset %" PRId64 "; expected a multiple of %d", s,
              seg->state_offset, ADAMW_BLOCK);
    return check_range("state", s, seg->state_offset, seg->count, arenas->blocks);
}

static err_t check_adamw_key(int64_t s, const struct adamw_segment *seg)
{
    if (seg->tensor >= ADAMW_TENSOR_MAX || seg->element < 0 || seg->element % 8 != 0)
        RAISE(ARG,
              "segment %" PRId64 ": tensor %lu, element %" PRId64
              "; expected tensors below %d, elements that are multiples of 8",
              s, (unsigned long)seg->tensor, seg->element, ADAMW_TENSOR_MAX);
    return ERR_OK;
}

err_t op_adamw_segments(struct dev *dev, const struct adamw_segments_args *a)
{
    struct adamw_arenas arenas;
    TRY(check_adamw_arenas(&arenas, a));
    TRY(check_adamw_scalars(a));
    TRY(check_segment_list(a->segments, a->segment_count));
    for (int64_t s = 0; s < a->segment_count; s++) {
        const struct adamw_segment *seg = &a->segments[s];
        TRY(check_range("weight", s, seg->weight_offset, seg->count, a->weight->dim[0]));
        TRY(check_range("grad", s, seg->grad_offset, seg->count, a->grad->dim[0]));
        TRY(check_adamw_state(s, &arenas, a));
        if (a->rounding == ADAMW_ROUND_STOCHASTIC) TRY(check_adamw_key(s, seg));
    }
    if (a->segment_count == 0) return ERR_OK;
    OP_DISPATCH(dev, adamw_segments, a);
}

err_t op_cast(struct dev *dev, const struct cast_args *a)
{
    TRY(check_float(a->x, "x"));
    TRY(check_float(a->y, "y"));
    TRY(check_flat(a->x, "x", tensor_count(a->x)));
    TRY(check_flat(a->y, "y", tensor_count(a->x)));
    if (tensor_count(a->x) == 0) return ERR_OK;
    OP_DISPATCH(dev, cast, a);
}

err_t op_add(struct dev *dev, const struct add_args *a)
{
    TRY(check_dtype_either(a->y_acc, "y_acc", DTYPE_F32, DTYPE_F64));
    TRY(check_dtype(a->x, "x", a->y_acc->dtype));
    TRY(check_flat(a->y_acc, "y_acc", tensor_count(a->y_acc)));
    TRY(check_flat(a->x, "x", tensor_count(a->y_acc)));
    if (tensor_count(a->y_acc) == 0) return ERR_OK;
    OP_DISPATCH(dev, add, a);
}
