/*
 * ref_ops.h - the reference operators: every operator of kernels/dev.h in float64, by the plainest
 * loop that follows its equation. The judge of every backend; never optimised.
 *
 *     struct dev dev;
 *     dev_init_host(&dev, &ops_ref, 1);
 *     TRY(op_linear_fwd(&dev, &(struct linear_fwd_args){ ... DTYPE_F64 tensors ... }));
 *
 * Tensors are DTYPE_F64, ids and positions DTYPE_I32; loss weights stay f32. Other float dtypes are
 * understood where the contract allows them beside T = F64 (gamma and beta, bias, arenas, casts).
 * Promises: one thread; no scratch (its queries are NULL); temporary rows come from malloc.
 * Sums that accumulate (names ending in _acc) add one row after the other to what is there, so
 * that splitting a batch by rows gives the same bits.
 */
#ifndef TESTS_REF_OPS_H
#define TESTS_REF_OPS_H

#include "kernels/dev.h"

extern const struct ops_table ops_ref;

/* The same for tensors of any float dtype: every operator's result is the float64 one rounded once,
 * at the places where the contract rounds. What a model in bf16 loses here, it must lose. */
extern const struct ops_table ops_ref_rounded;

/* Element i of contiguous data in any float dtype; ref_put rounds once, to nearest even. */
double ref_get(const struct tensor *t, int64_t i);
void ref_put(const struct tensor *t, int64_t i, double value);
/* The nearest value of a float dtype. */
double ref_rounded(dtype_t dtype, double value);

#endif
