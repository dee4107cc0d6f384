/*
 * gemm.h - matrix products of the CUDA backend: the one place that meets a product library.
 * gemm_lt.cc implements it with cuBLASLt, kernels/emu/gemm_emu.cc with plain loops on the host.
 * Private to kernels/cuda and kernels/emu.
 *
 *     TRY(gemm_run(dev, &(struct gemm){ .b_transposed = true, .m = R, .n = N, .k = K,
 *             .in_dtype = DTYPE_BF16, .out_dtype = DTYPE_BF16, .a = { x, K }, .b = { w, K },
 *             .d = { y, N }, .epilogue = GEMM_BIAS, .bias = bias, .workspace = workspace }));
 *
 * All matrices are row-major, as everywhere in this project. Products and sums are in float32
 * (never TF32); the epilogue works on the float32 sum and d is rounded once. A product is queued in
 * the compute queue; it allocates nothing on the device, and nothing on the host once its shape
 * has been seen.
 *
 * Which algorithm: the library proposes some; the first call of a product times them on the data at
 * hand and keeps the quickest, in a file for the next run (gemm_tune.h). The choice is made for a
 * product's shape rounded up to a quarter of an octave, so that micro-batches of many lengths share
 * few choices, and does not depend on row strides beyond their alignment. Same choices, same card,
 * same library: same bits; checkpoints hold the choices (dev_tuning_write).
 *
 * Which epilogues, and which not:
 *   bias          added in float32 before the one rounding: what op_linear_fwd promises.
 *   gelu, forward never. The library would apply its own tanh to the unrounded sum, while act_fwd,
 *                 which recomputes activations that were not kept, sees the rounded one and has
 *                 this project's tanh: training with and without recomputation would differ. An own
 *                 kernel reads what the product has written: 16*F bytes per token and layer.
 *   gelu, backward (GEMM_DGELU) keeps every promise, since nothing recomputes it, and spares one
 *                 rounding; used where SOULCHAT_FUSE names it (gemm_fuses_dgelu). It cannot write
 *                 over the `pre` that it reads.
 *   bias gradient never: the library overwrites where operators accumulate, in the output's dtype.
 */
#ifndef KERNELS_CUDA_GEMM_H
#define KERNELS_CUDA_GEMM_H

#include "kernels/dev.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum gemm_epilogue {
    GEMM_PLAIN, /* d = s, s = op(a) op(b) */
    GEMM_BIAS,  /* d = s + bias */
    GEMM_DGELU  /* d = s * gelu_tanh'(pre) */
};

/* A row-major matrix somewhere on the device. */
struct rows {
    void *data;
    int64_t ld; /* elements from row to row */
};

struct gemm {
    bool a_transposed, b_transposed; /* stored [k, m], [n, k] */
    int64_t m, n, k;                 /* all > 0 */
    dtype_t in_dtype;                /* of a and b: F32 or BF16 */
    dtype_t out_dtype;               /* of d: F32, or BF16 where in_dtype is */
    struct rows a, b;                /* read only */
    struct rows d;                   /* [m, n] */
    bool accumulate;                 /* d += s; not with an epilogue */
    enum gemm_epilogue epilogue;
    const void *bias;         /* [n] of out_dtype */
    struct rows pre;          /* [m, n] of out_dtype, apart from d; ld a multiple of 8 */
    struct scratch workspace; /* gemm_workspace_bytes(dev), 16-byte aligned */
};

/* ERR_CUDA: the library's call and status, and the product: "nt bf16>bf16 16384x12288x4096 ...". */
MUST_USE err_t gemm_run(struct dev *dev, const struct gemm *g);

/* The same for every product: a library may use any part of it. */
int64_t gemm_workspace_bytes(const struct dev *dev);
/* Operators that keep a matrix in scratch cut it into pieces of about this size. Small in the
 * emulator, so that tests meet pieces. */
int64_t gemm_piece_bytes(const struct dev *dev);

struct gemm_lib;
/* dev->state is a struct dev_cuda whose gpu is open. Yours. ERR_CUDA: the library is of another
 * major version than the one this backend was built for; ERR_NOMEM. */
MUST_USE err_t gemm_lib_open(struct gemm_lib **out, struct dev *dev);
void gemm_lib_close(struct gemm_lib *lib, struct dev *dev); /* NULL allowed */
bool gemm_fuses_dgelu(const struct gemm_lib *lib);

struct buf;
/* dev_tuning_write and dev_tuning_adopt. */
MUST_USE err_t gemm_lib_write_choices(struct buf *out, struct gemm_lib *lib);
MUST_USE err_t gemm_lib_adopt_choices(struct gemm_lib *lib, const char *text, int64_t size);
/* The library and its version, a line: for `soulchat doctor`. */
MUST_USE err_t gemm_describe(struct buf *out);

#ifdef __cplusplus
}
#endif
#endif
