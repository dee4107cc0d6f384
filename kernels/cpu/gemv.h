/*
 * gemv.h - products with few rows, as in generation: bound by reading the weights once.
 * Private to kernels/cpu/gemm.c.
 */
#ifndef KERNELS_CPU_GEMV_H
#define KERNELS_CPU_GEMV_H

#include "kernels/tensor.h"

#include <stdint.h>

#define GEMV_ROWS_MAX 8
#define GEMV_COLS_MAX 32

/* The factors of a product c[rows, cols] = a b^T; strides in elements of the matrix. */
struct gemv_args {
    float *c;
    int64_t ldc;
    const float *a;
    int64_t lda, rows; /* 1 .. GEMV_ROWS_MAX     */
    const void *b;     /* f32, f16 or bf16       */
    dtype_t b_dtype;
    int64_t ldb, k;
};

/* Columns col .. col+cols-1 of c, at most GEMV_COLS_MAX. A row's bits do not depend on the other
 * rows or on how many there are. */
void gemv_columns(const struct gemv_args *args, int64_t col, int64_t cols);

#endif
