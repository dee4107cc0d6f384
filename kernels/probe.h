/*
 * probe.h - what this machine can do at best, measured now: the ceilings that benchmarks print
 * beside their figures.
 */
#ifndef KERNELS_PROBE_H
#define KERNELS_PROBE_H

#include "kernels/dev.h"

/*
 * FLOP per second of one large product [n,n] x [n,n]^T by the device's own library with all of its
 * threads, in the dtype that it trains in: float32 on the host (dnnl_sgemm), bf16 with float32 sums
 * on a GPU, on random numbers: the median of runs that take `seconds` together, at least three.
 * ERR_UNSUPPORTED: the backend has no probe; ERR_NOMEM.
 */
MUST_USE err_t probe_gemm(double *flop_per_s, struct dev *dev, int64_t n, double seconds);

#endif
