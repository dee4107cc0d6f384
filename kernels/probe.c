#include "kernels/probe.h"

#include "base/check.h"

#include <stddef.h>

err_t probe_gemm(double *flop_per_s, struct dev *dev, int64_t n, double seconds)
{
    ASSERT(n > 0 && seconds > 0);
    if (dev->ops->probe_gemm == NULL) RAISE(UNSUPPORTED, "%s: no product to probe", dev->ops->name);
    return dev->ops->probe_gemm(flop_per_s, dev, n, seconds);
}
