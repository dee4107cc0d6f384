/*
 * gemm.h without a product library: plain loops, each element one float32 sum in the order of k,
 * with the same rounding points as the library's. SOULCHAT_FUSE is heard, SOULCHAT_TUNE has nothing
 * to choose from.
 */
#include "kernels/cuda/gemm.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/fault.h"
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/dev_cuda.h"
#include "kernels/cuda/gemm_tune.h"
#include "kernels/cuda/num.cuh"
#include "kernels/cuda_sizes.h"

#include <cstring>
#include <new>
#include <vector>

struct gemm_lib {
    struct tune_settings settings;
};

int64_t gemm_workspace_bytes(const struct dev *dev)
{
    return dev->info.planned ? CUDA_GEMM_WORKSPACE_BYTES : 256;
}

int64_t gemm_piece_bytes(const struct dev *dev)
{
    return dev->info.planned ? CUDA_GEMM_PIECE_BYTES : 16 << 10;
}

static float load(const void *data, dtype_t dtype, int64_t i)
{
    return dtype == DTYPE_F32 ? static_cast<const float *>(data)[i]
                              : to_float(static_cast<const bf16 *>(data)[i]);
}

static void store(void *data, dtype_t dtype, int64_t i, float value)
{
    if (dtype == DTYPE_F32)
        static_cast<float *>(data)[i] = value;
    else
        static_cast<bf16 *>(data)[i] = to_bf16(value);
}

/* op(x)[rows, cols], dense and widened. */
static std::vector<float> widened(const void *data, dtype_t dtype, int64_t ld, bool is_transposed,
                                  int64_t rows, int64_t cols)
{
    std::vector<float> out(static_cast<size_t>(rows * cols));
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            out[static_cast<size_t>(r * cols + c)] =
                load(data, dtype, is_transposed ? c * ld + r : r * ld + c);
    return out;
}

static float finished(const struct gemm *g, int64_t row, int64_t col, float sum)
{
    if (g->accumulate) return load(g->d.data, g->out_dtype, row * g->d.ld + col) + sum;
    if (g->epilogue == GEMM_BIAS) return sum + load(g->bias, g->out_dtype, col);
    if (g->epilogue == GEMM_DGELU)
        return sum * act_gelu_slope<bf16>(load(g->pre.data, g->out_dtype, row * g->pre.ld + col));
    return sum;
}

err_t gemm_run(struct dev *dev, const struct gemm *g)
{
    char name[TUNE_KEY_MAX];
    tune_name(name, g);
    ASSERT(g->m > 0 && g->n > 0 && g->k > 0 && g->workspace.bytes >= gemm_workspace_bytes(dev));
    ASSERT((g->in_dtype == DTYPE_F32 && g->out_dtype == DTYPE_F32) || g->in_dtype == DTYPE_BF16);
    ASSERT(g->epilogue == GEMM_PLAIN || !g->accumulate);
    ASSERT(g->epilogue != GEMM_DGELU || (g->pre.ld % 8 == 0 && g->pre.data != g->d.data));
    if (fault_point("gemm.run") != ERR_OK) RAISE(CUDA, "product %s: %s", name, err_last()->text);

    const emu::device_at_work at_work;
    memset(g->workspace.data, 0xff, static_cast<size_t>(gemm_workspace_bytes(dev))); /* its own */
    const std::vector<float> a =
        widened(g->a.data, g->in_dtype, g->a.ld, g->a_transposed, g->m, g->k);
    const std::vector<float> b =
        widened(g->b.data, g->in_dtype, g->b.ld, g->b_transposed, g->k, g->n);
    std::vector<float> sum(static_cast<size_t>(g->n));
    for (int64_t row = 0; row < g->m; row++) {
        std::fill(sum.begin(), sum.end(), 0.0f);
        for (int64_t i = 0; i < g->k; i++) {
            const float factor = a[static_cast<size_t>(row * g->k + i)];
            const float *b_row = &b[static_cast<size_t>(i * g->n)];
            for (int64_t col = 0; col < g->n; col++)
                sum[static_cast<size_t>(col)] += factor * b_row[col];
        }
        for (int64_t col = 0; col < g->n; col++)
            store(g->d.data, g->out_dtype, row * g->d.ld + col,
                  finished(g, row, col, sum[static_cast<size_t>(col)]));
    }
    dev->stats.gemm_flop +=
        2.0 * static_cast<double>(g->m) * static_cast<double>(g->n) * static_cast<double>(g->k);
    return ERR_OK;
}

err_t gemm_lib_open(struct gemm_lib **out, struct dev *dev)
{
    (void)dev;
    *out = new (std::nothrow) gemm_lib();
    if (*out == nullptr) RAISE(NOMEM, "product library: %zu bytes wanted", sizeof **out);
    const err_t rc = tune_settings_read(&(*out)->settings);
    if (rc == ERR_OK) return ERR_OK;
    gemm_lib_close(*out, dev);
    *out = nullptr;
    return rc;
}

void gemm_lib_close(struct gemm_lib *lib, struct dev *dev)
{
    (void)dev;
    delete lib;
}

err_t gemm_lib_write_choices(struct buf *out, struct gemm_lib *lib)
{
    (void)out;
    (void)lib;
    return ERR_OK;
}

err_t gemm_lib_adopt_choices(struct gemm_lib *lib, const char *text, int64_t size)
{
    (void)lib;
    (void)text;
    (void)size;
    return ERR_OK;
}

bool gemm_fuses_dgelu(const struct gemm_lib *lib) { return lib->settings.fuse_dgelu; }

err_t gemm_describe(struct buf *out) { return buf_puts(out, "products: plain loops\n"); }
