/*
 * Scratch of the CUDA backend's operators by formula, for machines without its library. Each is an
 * upper bound for what the kernels ask for; the largest of them is what a model allocates, and for
 * ChatGLM-6B that is the output layer's.
 */
#include "train/plan_dev.h"

#include "base/check.h"
#include "base/num.h"
#include "kernels/cuda_sizes.h"
#include "kernels/ops_linear.h"
#include "kernels/ops_loss.h"
#include "kernels/ops_norm.h"

#include <stdbool.h>
#include <string.h>

#define NORM_BLOCKS_MAX 264 /* that leave partial sums */
#define SUM_BLOCK_ROWS  128 /* rows of a partial column sum */
#define ALIGN_SPARE     (4 * 256)

/* Logits of a chunk of targets in float32, and the chunk's rows of x, later of dx. */
static int64_t linear_ce_bytes(const struct dev *dev, const struct linear_ce_args *a)
{
    (void)dev;
    const int64_t logits = align_up(a->vocab_valid, 16) * (int64_t)sizeof(float);
    const int64_t x = a->x->dim[1] * dtype_bytes(a->x->dtype);
    const int64_t targets = cuda_logits_targets(a->rows->dim[0], logits, CUDA_GEMM_PIECE_BYTES);
    return CUDA_GEMM_WORKSPACE_BYTES + targets * (logits + x) + ALIGN_SPARE;
}

/* Partial sums of dgamma and dbeta, float32. */
static int64_t residual_norm_bwd_bytes(const struct dev *dev,
                                       const struct residual_norm_bwd_args *a)
{
    (void)dev;
    const int64_t blocks = min_i64(a->h->dim[0], NORM_BLOCKS_MAX);
    return blocks * 2 * a->h->dim[1] * (int64_t)sizeof(float);
}

static int64_t linear_fwd_bytes(const struct dev *dev, const struct linear_fwd_args *a)
{
    (void)dev;
    (void)a; /* in one dtype, with pre kept: nothing waits */
    return CUDA_GEMM_WORKSPACE_BYTES + ALIGN_SPARE;
}

/* Partial column sums of dy for the bias, float32; then a piece of dy w, until the activation is
 * undone. */
static int64_t linear_bwd_bytes(const struct dev *dev, const struct linear_bwd_args *a)
{
    (void)dev;
    const int64_t row = align_up(a->w->dim[1], 8) * dtype_bytes(a->dy->dtype), R = a->dy->dim[0];
    const int64_t sums = div_ceil(R, SUM_BLOCK_ROWS) * a->dy->dim[1] * (int64_t)sizeof(float);
    const int64_t piece =
        a->x_act == ACT_NONE ? 0 : min_i64(R * row, max_i64(128 * row, CUDA_GEMM_PIECE_BYTES));
    return CUDA_GEMM_WORKSPACE_BYTES + max_i64(sums, piece) + ALIGN_SPARE;
}

static const struct ops_table ops_planned = {
    .name = "cuda",
    .linear_ce_scratch = linear_ce_bytes,
    .residual_norm_bwd_scratch = residual_norm_bwd_bytes,
    .linear_fwd_scratch = linear_fwd_bytes,
    .linear_bwd_scratch = linear_bwd_bytes,
};

STATIC_ASSERT(CARD_NAME_MAX == sizeof((struct dev_info *)NULL)->name, "the same names");

static void describe(struct dev *dev, const struct card *card)
{
    memset(&dev->info, 0, sizeof dev->info);
    memcpy(dev->info.name, card->gpu, sizeof dev->info.name);
    dev->info.memory_bytes = dev->info.memory_free_bytes = card->memory_bytes;
    dev->info.capability = card->capability;
    dev->info.multiprocessors = card->multiprocessors;
    dev->info.planned = true;
}

void plan_dev_formulas(struct plan_dev *out, const struct card *card)
{
    memset(out, 0, sizeof *out);
    dev_init_host(&out->own, &ops_planned, 1);
    describe(&out->own, card);
    out->dev = &out->own;
    out->source = "formulas";
}

/* A backend that lacks an operator would answer 0 for it. */
static bool has_all(const struct ops_table *ops)
{
    bool all = true;
#define X(op) all = all && ops->op != NULL;
    OPS_LIST(X)
#undef X
    return all;
}

err_t plan_dev_open(struct plan_dev *out, const struct card *card, int threads)
{
    memset(out, 0, sizeof *out);
    if (card->capability == 0) {
        out->source = "the processor's operators";
        return dev_open(&out->dev, "cpu", threads);
    }
    const err_t rc = dev_open(&out->dev, "emu", threads);
    if (rc == ERR_OK && has_all(out->dev->ops)) {
        describe(out->dev, card);
        out->source = "the CUDA backend, run on the host";
        return ERR_OK;
    }
    dev_close(out->dev);
    plan_dev_formulas(out, card);
    return ERR_OK;
}

void plan_dev_close(struct plan_dev *p)
{
    if (p->dev != &p->own) dev_close(p->dev);
    memset(p, 0, sizeof *p);
}
