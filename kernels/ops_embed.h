/*
 * ops_embed.h - token embedding, forward and backward.
 * Letters: R rows (tokens of the micro-batch), C hidden width, V vocabulary rows of the table.
 */
#ifndef KERNELS_OPS_EMBED_H
#define KERNELS_OPS_EMBED_H

#include "kernels/dev.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * y[r,:] = table[ids[r],:]
 * Cost: 2*R*C elements moved; bandwidth bound.
 * An id outside 0..V-1 is a programmer's error, since batches are checked when built: ASSERT on the
 * host backends.
 */
struct embed_fwd_args {
    struct tensor *y;           /* [R, C]  T, strided */
    const struct tensor *table; /* [V, C]  T, or a weight format the backend widens (f16, bf16) */
    const struct tensor *ids;   /* [R]     i32 */
};
MUST_USE err_t op_embed_fwd(struct dev *dev, const struct embed_fwd_args *args);
int64_t op_embed_fwd_scratch_bytes(const struct dev *dev, const struct embed_fwd_args *args);

/*
 * dtable_acc[v,:] += sum over r with ids[r] = v of dy[r,:], added in the order given by `order`.
 * `order` is a permutation of the rows that sorts ids, equal ids by row: it makes the sum
 * deterministic without atomics, and the host has it from building the batch. A backend may add up
 * pieces of `order` whose bounds depend on R alone, then the pieces, in order.
 * Cost: 3*R*C elements moved.
 */
struct embed_bwd_args {
    struct tensor *dtable_acc;  /* [V, C]  T or dtype_accumulator(T) */
    const struct tensor *dy;    /* [R, C]  T, strided */
    const struct tensor *ids;   /* [R]     i32 */
    const struct tensor *order; /* [R]     i32 */
    struct scratch scratch;
};
MUST_USE err_t op_embed_bwd(struct dev *dev, const struct embed_bwd_args *args);
int64_t op_embed_bwd_scratch_bytes(const struct dev *dev, const struct embed_bwd_args *args);

#ifdef __cplusplus
}
#endif
#endif
