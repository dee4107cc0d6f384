/*
 * self_test.h - do the operators of a device compute here what the CPU backend computes? A minute
 * of arithmetic before hours of training: a wrong library, a broken card or a bad build shows.
 *
 *     struct self_test_result results[SELF_TESTS_MAX];
 *     TRY(self_test_run(results, &count, dev));
 */
#ifndef KERNELS_SELF_TEST_H
#define KERNELS_SELF_TEST_H

#include "kernels/dev.h"

#include <stdbool.h>

#define SELF_TESTS_MAX 16

struct self_test_result {
    const char *op; /* "linear_fwd" */
    dtype_t dtype;
    double error; /* largest |device - cpu|, as a share of the largest |cpu|; inf where NaN */
    double accepted;
    bool passed;
};

/* Every case in every dtype the device computes in (the CPU: f32, compared with itself on one
 * thread). Errors are those of the device: an operator that fails to run. */
MUST_USE err_t self_test_run(struct self_test_result results[SELF_TESTS_MAX], int *count,
                             struct dev *dev);

#endif
