/* sgemm() of builds without oneDNN. */
#include "kernels/cpu/sgemm.h"

#include "base/num.h"

#include <omp.h>

#define STRIP_ROWS_UNIT 8

bool sgemm(const struct sgemm_args *g)
{
    const int64_t threads = omp_get_max_threads();
    if (threads == 1) return sgemm_own(g);
    const int64_t rows = align_up(div_ceil(g->m, threads), STRIP_ROWS_UNIT);
    bool failed = false;
#pragma omp parallel for schedule(static) reduction(|| : failed)
    for (int64_t row = 0; row < g->m; row += rows) {
        struct sgemm_args strip = *g;
        strip.m = min_i64(rows, g->m - row);
        strip.a += g->a_transposed ? row : row * g->lda;
        strip.c += row * g->ldc;
        failed = !sgemm_own(&strip) || failed;
    }
    return !failed;
}

const char *sgemm_name(void) { return "own"; }
