/* The rate of an undivided float32 product: the ceiling of the host backend. */
#include "base/check.h"
#include "kernels/cpu/ops_cpu.h"
#include "kernels/cpu/sgemm.h"

#include <omp.h>

#define RUNS_MAX 1000
#define RUNS_MIN 3

/* The median duration of n x n x n products over about `seconds`, after one that is not counted. */
static err_t median_product_s(double *out, const float *a, const float *b, float *c, int64_t n,
                              double seconds)
{
    const struct sgemm_args product = { .b_transposed = true,
                                        .m = n,
                                        .n = n,
                                        .k = n,
                                        .alpha = 1.0f,
                                        .a = a,
                                        .lda = n,
                                        .b = b,
                                        .ldb = n,
                                        .c = c,
                                        .ldc = n };
    double run_s[RUNS_MAX], begin = 0.0;
    int64_t runs = 0;
    for (int64_t i = -1; i < RUNS_MAX; i++) {
        const double start = omp_get_wtime();
        if (!sgemm(&product))
            RAISE(NOMEM, "product %lld x %lld: no memory", (long long)n, (long long)n);
        const double end = omp_get_wtime();
        if (i < 0)
            begin = end;
        else
            run_s[runs++] = end - start;
        if (runs >= RUNS_MIN && end - begin > seconds) break;
    }
    *out = median_f64(run_s, runs);
    return ERR_OK;
}

err_t probe_gemm_cpu(double *flop_per_s, struct dev *dev, int64_t n, double seconds)
{
    err_t rc = ERR_OK;
    void *memory = NULL;
    double run_s;
    TRY(dev_alloc(dev, &memory, 3 * n * n * (int64_t)sizeof(float), "probe"));
    float *a = memory, *b = a + n * n, *c = b + n * n;
    for (int64_t i = 0; i < 2 * n * n; i++) a[i] = (float)(i % 97) * 0.01f;
    omp_set_num_threads(dev->threads);
    TRY_DONE(median_product_s(&run_s, a, b, c, n, seconds));
    *flop_per_s = 2.0 * (double)n * (double)n * (double)n / run_s;
done:
    dev_free(dev, memory);
    return rc;
}
