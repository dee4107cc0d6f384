/*
 * Seconds of every part of a step. Letters: L layers, C hidden width, F feed-forward width, V
 * vocabulary, P = L (4 C^2 + 2 C F) elements of the layers' matrices, N all elements, b and g bytes
 * of an activation and of a gradient.
 */
#include "train/cost.h"

#include "base/check.h"
#include "base/num.h"

#include <math.h>

/* What kernels bound by memory reach of a large copy: our bar for them is 0.85, good ones show
 * 0.9. */
#define COPY_SHARE 0.9
/* Targets whose logits the output layer holds at once. */
#define HEAD_CHUNK 2048.0

/*
 * Elements read and written per row of one layer, in widths of C and F, beside what the products
 * themselves read and write.
 *   forward:  two norms with residual 4C each; rotary, q and k read and written, 4C; GELU's input,
 *             which is kept, F
 *   backward: two norms 4C each; rotary 4C; the second attention call's dk and dv folded in, 4C;
 *             column sums for the biases C + F + C + 3C; GELU's input again, F
 *   lean:     two norms from what they kept 2C each; GELU 2F
 */
static const struct traffic {
    double hidden, ffn;
} traffic_forward = { 12, 1 }, traffic_backward = { 21, 2 }, traffic_lean = { 4, 2 },
  traffic_ends = { 12, 0 }; /* embedding and final norm, both ways; once, not per layer */

/* The settings and the card as plain numbers. */
struct rates {
    double gemm, attn_fwd, attn_bwd, copy; /* per second; copy as kernels reach it */
    double b, g;                           /* bytes */
};

static struct rates rates_of(const struct cost_settings *s, const struct card *card)
{
    const struct card_rates *r = &card->rates;
    const bool half = s->dtype == DTYPE_BF16;
    const double gemm = half ? r->gemm_bf16 : r->gemm_f32;
    ASSERT(gemm > 0.0 && r->gemm_share > 0.0 && r->copy > 0.0);
    /* Attention in float32 is slower by what the products are slower by. */
    const double slower = half || r->gemm_bf16 == 0.0 ? 1.0 : r->gemm_f32 / r->gemm_bf16;
    return (struct rates){
        .gemm = gemm * r->gemm_share,
        .attn_fwd = r->attn_fwd * slower,
        .attn_bwd = r->attn_bwd * slower,
        .copy = r->copy * COPY_SHARE,
        .b = (double)dtype_bytes(s->dtype),
        .g = (double)dtype_bytes(s->grad_dtype),
    };
}

double cost_pairs(double context, double target)
{
    return context * context + context * target + target * (target + 1.0) / 2.0;
}

static double traffic_s(const struct traffic *t, const struct glm_config *c, double rows,
                        const struct rates *r)
{
    const double elements = t->hidden * (double)c->hidden_size + t->ffn * (double)c->ffn_size;
    return rows * elements * r->b / r->copy;
}

/* Products of the layers, `passes` of them over the rows: 1 forward, 2 backward. A micro-batch of
 * few rows waits for the weights instead. */
static double products_s(const struct cost_work *w, const struct cost_memory *m,
                         const struct rates *r, double passes)
{
    const double weight_bytes = m->zero.model.forward_flop_per_row / 2.0 * r->b;
    return passes * fmax(m->zero.model.forward_flop_per_row * w->rows_padded / r->gemm,
                         w->micro_batches * weight_bytes / r->copy);
}

/* The loss with both gradients: three products; logits written and read in three sweeps; and the
 * weight's gradient, read and written for every chunk of targets. */
static double head_s(const struct glm_config *c, const struct cost_work *w, const struct rates *r)
{
    const double V = (double)c->vocab_size, C = (double)c->hidden_size;
    const double chunks = fmax(w->micro_batches, w->targets / HEAD_CHUNK);
    return 6.0 * V * C * w->targets / r->gemm +
           (3.0 * V * w->targets * r->b + chunks * 2.0 * V * C * r->g) / r->copy;
}

static double recompute_s(const struct glm_config *c, const struct cost_settings *s,
                          const struct cost_work *w, const struct cost_memory *m,
                          const struct rates *r)
{
    const double L = (double)c->layer_count, C = (double)c->hidden_size;
    if (s->activations == GLM_KEEP_ALL) return 0.0;
    if (s->activations == GLM_LEAN) return L * traffic_s(&traffic_lean, c, w->rows_padded, r);
    return products_s(w, m, r, 1.0) + 4.0 * L * C * w->pairs / r->attn_fwd +
           L * traffic_s(&traffic_forward, c, w->rows_padded, r);
}

/* Zeroed once; read and written by each micro-batch; lanes folded two by two. Of what is summed
 * here, those of other ranks are added; and it is read for the norm. */
static double gradients_s(const struct cost_settings *s, const struct cost_work *w,
                          const struct cost_memory *m, const struct rates *r)
{
    const double lanes = (double)div_ceil(s->lanes, s->ranks);
    const double sweeps = 1.0 + 2.0 * w->micro_batches + 3.0 * (lanes - 1.0);
    const double sums = 3.0 * (double)m->zero.foreign * (double)m->zero.summed;
    const double norm = (double)(s->zero == 0 ? m->zero.elements : m->zero.summed);
    return (sweeps * (double)m->zero.elements + sums + norm) * r->g / r->copy;
}

/* Bytes that AdamW reads and writes per parameter: ops_optim.h counts the same. */
static double optimizer_bytes(const struct cost_settings *s, const struct cost_memory *m,
                              const struct rates *r)
{
    const double weight = s->master ? r->b : 2.0 * r->b; /* written only, or read too */
    return weight + r->g + 2.0 * (double)m->zero.state_bytes / (double)m->zero.owned;
}

/*
 * State on the host comes and goes at the same time, a slice while another one is updated. In
 * backward all of the backward pass hides them; after it, only the update itself.
 */
static double exposed_s(const struct cost_time *t, const struct cost_settings *s, double backward_s)
{
    const double hidden = t->seconds[COST_T_OPTIMIZER] + (s->update_in_backward ? backward_s : 0.0);
    return fmax(t->transfer_s - hidden, 0.0);
}

void cost_time(struct cost_time *out, const struct glm_config *c, const struct cost_settings *s,
               const struct cost_work *w, const struct cost_memory *m, const struct card *card)
{
    const struct rates r = rates_of(s, card);
    const double L = (double)c->layer_count, C = (double)c->hidden_size, V = (double)c->vocab_size;
    const double attn_bwd_s = 10.0 * L * C * w->pairs / r.attn_bwd; /* scores again: 5/2 of it */
    const double attn_fwd_s = 4.0 * L * C * w->pairs / r.attn_fwd;
    const double rows_fwd_s = L * traffic_s(&traffic_forward, c, w->rows_padded, &r);
    const double rows_bwd_s = L * traffic_s(&traffic_backward, c, w->rows_padded, &r);
    struct cost_time t = { .optimizer_bytes = optimizer_bytes(s, m, &r) };

    t.seconds[COST_T_PRODUCTS] = products_s(w, m, &r, 3.0);
    t.seconds[COST_T_ATTENTION] = attn_fwd_s + attn_bwd_s;
    t.seconds[COST_T_HEAD] = head_s(c, w, &r);
    t.seconds[COST_T_ROWS] =
        rows_fwd_s + rows_bwd_s + traffic_s(&traffic_ends, c, w->rows_padded, &r);
    t.seconds[COST_T_RECOMPUTE] = recompute_s(c, s, w, m, &r);
    t.forward_s = products_s(w, m, &r, 1.0) + attn_fwd_s + rows_fwd_s;
    t.backward_s =
        products_s(w, m, &r, 2.0) + attn_bwd_s + rows_bwd_s + t.seconds[COST_T_RECOMPUTE];
    t.seconds[COST_T_GRADIENTS] = gradients_s(s, w, m, &r);
    t.seconds[COST_T_OPTIMIZER] = t.optimizer_bytes * (double)m->zero.owned / r.copy;
    if (s->state_on_host) {
        /* A processor's host memory is its own. */
        t.transfer_s =
            (double)m->zero.state_bytes / (card->rates.pcie > 0.0 ? card->rates.pcie : r.copy);
        t.seconds[COST_T_TRANSFER] = exposed_s(&t, s, t.backward_s);
    }
    for (int i = 0; i < COST_PARTS; i++) t.step_s += t.seconds[i];
    t.tokens_per_s = w->rows / t.step_s;
    t.flop = 3.0 * m->zero.model.forward_flop_per_row * w->rows + 6.0 * V * C * w->targets +
             12.0 * L * C * w->pairs;
    t.flop_per_s = t.flop / t.step_s;
    *out = t;
}

static const struct {
    const char *name, *label;
} part_names[COST_PARTS] = {
    [COST_T_PRODUCTS] = { "products", "products of the layers" },
    [COST_T_ATTENTION] = { "attention", "attention" },
    [COST_T_HEAD] = { "head", "output layer and loss" },
    [COST_T_ROWS] = { "rows", "norms, rotary, GELU, biases" },
    [COST_T_RECOMPUTE] = { "recompute", "recomputed activations" },
    [COST_T_GRADIENTS] = { "gradients", "gradients: zero, add, norm" },
    [COST_T_OPTIMIZER] = { "optimizer", "AdamW" },
    [COST_T_TRANSFER] = { "transfer", "states from and to the host" },
    [COST_T_EXCHANGE] = { "exchange", "waiting for other ranks" },
};

const char *cost_part_name(enum cost_part part)
{
    ASSERT((int)part >= 0 && part < COST_PARTS);
    return part_names[part].name;
}

const char *cost_part_label(enum cost_part part)
{
    ASSERT((int)part >= 0 && part < COST_PARTS);
    return part_names[part].label;
}
