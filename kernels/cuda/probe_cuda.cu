/* The rate of the library's own bf16 product, by the path that training takes: the ceiling of the
 * CUDA backend. */
#include "base/num.h"
#include "kernels/cuda/dev_cuda.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/num.cuh"
#include "kernels/cuda/ops_cuda.h"

#define THREADS      256
#define RUNS_MAX     1000
#define RUNS_MIN     3
#define RUN_LAUNCHES 5 /* products between two looks at the clock, so that gaps do not count */

/* Numbers in [-1, 1) with random bits: how many bits flip decides how much power a product takes,
 * and so how fast the card may clock; zeros would run faster than any training does. */
__global__ void __launch_bounds__(THREADS) fill_random(bf16 *out, int64_t count)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    uint32_t x = (uint32_t)i * 2654435769u + (uint32_t)(i >> 32);
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    x ^= x >> 16;
    if (i < count) out[i] = to_bf16((float)x * 0x1p-31f - 1.0f);
}

struct probe {
    struct gemm product;
    void *begin, *end;
};

static err_t run_s(double *out, struct dev *dev, const struct probe *p)
{
    float ms = 0.0f;
    TRY(gpu_event_record(gpu_of(dev), p->begin, DEV_COMPUTE));
    for (int i = 0; i < RUN_LAUNCHES; i++) TRY(gemm_run(dev, &p->product));
    TRY(gpu_event_record(gpu_of(dev), p->end, DEV_COMPUTE));
    TRY(gpu_event_sync(gpu_of(dev), p->end));
    TRY(gpu_event_ms(gpu_of(dev), &ms, p->begin, p->end));
    *out = (double)ms * 1e-3 / RUN_LAUNCHES;
    return ERR_OK;
}

/* The median of runs over about `seconds`, after one that is not counted. */
static err_t median_s(double *out, struct dev *dev, const struct probe *p, double seconds)
{
    double run[RUNS_MAX], total = 0.0;
    int64_t runs = 0;
    TRY(run_s(&run[0], dev, p));
    while (runs < RUNS_MAX && (runs < RUNS_MIN || total < seconds)) {
        TRY(run_s(&run[runs], dev, p));
        total += run[runs++] * RUN_LAUNCHES;
    }
    *out = median_f64(run, runs);
    return ERR_OK;
}

/* [n,n] x [n,n]^T in bf16, the shape of a forward product. */
static err_t prepare(struct probe *p, struct dev *dev, void *memory, int64_t n)
{
    const int64_t bytes = gemm_workspace_bytes(dev);
    char *const at = (char *)memory;
    bf16 *const a = (bf16 *)(at + bytes);
    p->product = { .b_transposed = true,
                   .m = n,
                   .n = n,
                   .k = n,
                   .in_dtype = DTYPE_BF16,
                   .out_dtype = DTYPE_BF16,
                   .a = { a, n },
                   .b = { a + n * n, n },
                   .d = { a + 2 * n * n, n },
                   .workspace = { memory, bytes } };
    TRY(gpu_event_create(gpu_of(dev), &p->begin));
    TRY(gpu_event_create(gpu_of(dev), &p->end));
    return gpu_launch(dev, "fill_random", fill_random, dim3((unsigned)div_ceil(2 * n * n, THREADS)),
                      dim3(THREADS), 0, a, 2 * n * n);
}

err_t probe_gemm_cuda(double *flop_per_s, struct dev *dev, int64_t n, double seconds)
{
    err_t rc = ERR_OK;
    void *memory = NULL;
    struct probe p = {};
    double product_s;
    const int64_t bytes = gemm_workspace_bytes(dev) + 3 * n * n * (int64_t)sizeof(bf16);
    TRY(dev_alloc(dev, &memory, bytes, "probe"));
    TRY_DONE(prepare(&p, dev, memory, n));
    TRY_DONE(median_s(&product_s, dev, &p, seconds));
    *flop_per_s = 2.0 * (double)n * (double)n * (double)n / product_s;
done:
    if (p.begin != NULL) gpu_event_destroy(gpu_of(dev), p.begin);
    if (p.end != NULL) gpu_event_destroy(gpu_of(dev), p.end);
    dev_free(dev, memory);
    return rc;
}
