/*
 * gemv.h - products with few rows, as in generation: bound by reading the weights once.
 * Private to kernels/cpu/gemm.c.
 */
#ifndef KERNELS_CPU_GEMV_H
#define KERNELS_CPU_GEMV_H

#include "kernels/tensor.h"

#include <stdint.h>

#define GEMV_ROWS_MAX 8

/*
 * c[i, j] = sum_k a[i, k] * b[j, k] for rows i < rows <= GEMV_ROWS_MAX, columns col .. col+cols-1, or
 * c += with `accumulate`. b is f32, f16 or bf16; strides in elements. A row's bits do not depend on
 * the other rows or on how many there are.
 */
void gemv_columns(float *c, int64_t ldc, const float *a, int64_t lda, int64_t rows, const void *b,
                  dtype_t b_dtype, int64_t ldb, int64_t col, int64_t cols, int64_t k,
                  bool accumulate);

#endif
