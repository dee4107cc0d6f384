/*
 * sgemm.h - the float32 product that the host backend is built on: oneDNN's, or our own where the
 * program is built without it. Private to kernels/cpu/, its tests and its benchmarks.
 *
 *     omp_set_num_threads(1);
 *     ok = sgemm(&(struct sgemm_args){ .m = m, .n = n, .k = k, .alpha = 1, .a = a, .lda = k,
 *                                      .b = b, .ldb = n, .c = c, .ldc = n });
 */
#ifndef KERNELS_CPU_SGEMM_H
#define KERNELS_CPU_SGEMM_H

#include <stdbool.h>
#include <stdint.h>

/* Row-major c[m,n] = alpha * op(a) op(b) + beta * c; c is not read when beta is 0. */
struct sgemm_args {
    bool a_transposed, b_transposed; /* stored [k, m], [n, k] */
    int64_t m, n, k;
    float alpha;
    const float *a;
    int64_t lda; /* floats from stored row to stored row */
    const float *b;
    int64_t ldb;
    float beta;
    float *c;
    int64_t ldc;
};

/* On as many threads as OpenMP would start here. Returns false for want of memory. */
bool sgemm(const struct sgemm_args *args);
/* "oneDNN" or "own": which of the two sgemm() is. */
const char *sgemm_name(void);

/*
 * Our own, on the calling thread, in every build. An element is a sum over k in an order that
 * depends on k alone, so its bits depend neither on m and n nor on where it lies.
 */
bool sgemm_own(const struct sgemm_args *args);

#endif
