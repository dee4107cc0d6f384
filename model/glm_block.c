/* One layer, forward and backward in mirrored order. The mathematics is in README.md. */
#include "model/glm_block.h"

#include "kernels/ops_attn.h"
#include "kernels/ops_linear.h"
#include "kernels/ops_norm.h"
#include "model/glm_cache.h"

#include <math.h>

STATIC_ASSERT(GLM_QKV_BIAS == GLM_QKV_WEIGHT + 1 && GLM_DENSE_BIAS == GLM_DENSE_WEIGHT + 1 &&
                  GLM_FC1_BIAS == GLM_FC1_WEIGHT + 1 && GLM_FC2_BIAS == GLM_FC2_WEIGHT + 1,
              "linear() finds a weight's bias in the next role");

/* A norm with its input h = alpha*residual + x and its output y. */
struct norm {
    struct tensor gamma, beta, dgamma, dbeta;
    struct tensor h, y, mean, rstd;
};

/* Everything one layer touches. Views are cheap to make, so they are made where they are used. */
struct layer {
    struct tensor w[GLM_ROLE_COUNT], dw[GLM_ROLE_COUNT]; /* parameters and their gradients */
    struct norm norm1, norm2; /* a = norm1.y, h1 = norm2.h, m = norm2.y */
    struct tensor qkv, attn, lse, u, g, f;
    struct tensor dh, dy, dqkv;
    struct qkv_layout heads;
    double scale; /* of attention scores */
};

/* ---- views ---- */

static void role_views(struct tensor w[GLM_ROLE_COUNT], struct tensor dw[GLM_ROLE_COUNT],
                       const struct glm_pass *p, int64_t l)
{
    glm_weights_by_role(w, p->glm, l);
    if (p->grads != NULL) glm_grads_by_role(dw, p->glm, &p->grads->arena, l);
}

static struct norm norm1_view(const struct glm_pass *p, int64_t l)
{
    const struct glm *glm = p->glm;
    const bool is_final = l == glm->config.layer_count;
    const enum glm_role gamma = is_final ? GLM_FINAL_GAMMA : GLM_LN1_GAMMA;
    const enum glm_role beta = is_final ? GLM_FINAL_BETA : GLM_LN1_BETA;
    struct tensor w[GLM_ROLE_COUNT], dw[GLM_ROLE_COUNT] = { 0 };
    role_views(w, dw, p, l);
    return (struct norm){
        .gamma = w[gamma],
        .beta = w[beta],
        .dgamma = dw[gamma],
        .dbeta = dw[beta],
        .h = glm_view(glm, GLM_B_HIDDEN, l, p->rows),
        .y = glm_view(glm, GLM_B_A, l, p->rows),
        .mean = glm_view(glm, GLM_B_MEAN1, l, p->rows),
        .rstd = glm_view(glm, GLM_B_RSTD1, l, p->rows),
    };
}

static struct norm norm2_view(const struct glm_pass *p, const struct layer *b, int64_t l)
{
    const struct glm *glm = p->glm;
    return (struct norm){
        .gamma = b->w[GLM_LN2_GAMMA],
        .beta = b->w[GLM_LN2_BETA],
        .dgamma = b->dw[GLM_LN2_GAMMA],
        .dbeta = b->dw[GLM_LN2_BETA],
        .h = glm_view(glm, GLM_B_H1, l, p->rows),
        .y = glm_view(glm, GLM_B_M, l, p->rows),
        .mean = glm_view(glm, GLM_B_MEAN2, l, p->rows),
        .rstd = glm_view(glm, GLM_B_RSTD2, l, p->rows),
    };
}

static void layer_view(struct layer *b, const struct glm_pass *p, int64_t l)
{
    const struct glm *glm = p->glm;
    const int64_t R = p->rows, D = glm->config.hidden_size / glm->config.head_count;
    *b = (struct layer){
        .qkv = glm_view(glm, GLM_B_QKV, l, R),
        .attn = glm_view(glm, GLM_B_ATTN, l, R),
        .lse = glm_view(glm, GLM_B_LSE, l, R),
        .u = glm_view(glm, GLM_B_U, l, R),
        .g = glm_view(glm, GLM_B_G, l, R),
        .f = glm_view(glm, GLM_B_HIDDEN, l + 1, R),
        .dh = glm_view(glm, GLM_B_DH, 0, R),
        .dy = glm_view(glm, GLM_B_DY, 0, R),
        .dqkv = glm_view(glm, GLM_B_DQKV, 0, R),
        .heads = qkv_layout_interleaved(glm->config.head_count, D),
        .scale = 1.0 / sqrt((double)D),
    };
    role_views(b->w, b->dw, p, l);
    b->norm1 = norm1_view(p, l);
    b->norm2 = norm2_view(p, b, l);
}

/* ---- norms ---- */

/* y = LN(h); with a residual, h = alpha*residual + h first. */
static err_t norm_fwd(struct glm_pass *p, struct norm *n, const struct tensor *residual)
{
    const struct glm_config *c = &p->glm->config;
    return RUN(p, residual_norm_fwd, .kind = NORM_LAYER, .y = &n->y,
               .h = residual != NULL ? &n->h : NULL, .mean = &n->mean, .rstd = &n->rstd, .x = &n->h,
               .residual = residual, .gamma = &n->gamma, .beta = &n->beta,
               .alpha = c->residual_alpha, .eps = c->norm_eps);
}

/* dh = LN'(dy + alpha*dresidual), the gradient of h. */
static err_t norm_bwd(struct glm_pass *p, struct norm *n, struct tensor *dh,
                      const struct tensor *dy, const struct tensor *dresidual)
{
    return RUN(p, residual_norm_bwd, .kind = NORM_LAYER, .residual_from = RESIDUAL_FROM_OUTPUT,
               .dh = dh, .dgamma_acc = &n->dgamma, .dbeta_acc = &n->dbeta, .dy = dy,
               .dresidual = dresidual, .h = &n->h, .mean = &n->mean, .rstd = &n->rstd,
               .gamma = &n->gamma, .alpha = p->glm->config.residual_alpha, .scratch = p->scratch);
}

err_t glm_norm_fwd(struct glm_pass *p, int64_t l)
{
    struct norm n = norm1_view(p, l);
    if (l == 0) return norm_fwd(p, &n, NULL); /* the embedding has no residual */
    const struct tensor m = glm_view(p->glm, GLM_B_M, l - 1, p->rows);
    return norm_fwd(p, &n, &m);
}

err_t glm_norm_bwd(struct glm_pass *p, int64_t l)
{
    struct norm n = norm1_view(p, l);
    struct tensor dh = glm_view(p->glm, GLM_B_DH, 0, p->rows);
    const struct tensor dy = glm_view(p->glm, GLM_B_DY, 0, p->rows);
    const bool is_final = l == p->glm->config.layer_count; /* nothing branches off its output */
    return norm_bwd(p, &n, &dh, &dy, is_final ? NULL : &dh);
}

/* Lean activations hold no norm outputs; h and the parameters give back the same bits. */
static err_t norm_again(struct glm_pass *p, struct norm *n)
{
    return p->glm->options.activations == GLM_LEAN ? norm_fwd(p, n, NULL) : ERR_OK;
}

static err_t gelu_again(struct glm_pass *p, struct layer *b)
{
    if (p->glm->options.activations != GLM_LEAN) return ERR_OK;
    return RUN(p, act_fwd, .y = &b->g, .pre = &b->u, .act = ACT_GELU_TANH);
}

/* ---- attention ---- */

static err_t rotate(struct glm_pass *p, const struct layer *b, struct tensor *qkv, bool inverse)
{
    return RUN(p, rotary, .kind = ROTARY_TWO_STREAM, .qkv = qkv, .layout = b->heads, .pos = &p->pos,
               .block = &p->block, .cos = &p->cos, .sin = &p->sin, .inverse = inverse);
}

/* attn = softmax(q k^T) v over the keys of the pass: the segments' own, or those of the cache. */
static err_t attend(struct glm_pass *p, struct layer *b, int64_t l)
{
    struct tensor k_cache, v_cache;
    if (p->kind != PASS_BATCH) glm_cache_tensors(&k_cache, &v_cache, p->cache, l);

    if (p->kind == PASS_DECODE)
        return RUN(p, decode_attn, .out = &b->attn, .k_cache = &k_cache, .v_cache = &v_cache,
                   .qkv = &b->qkv, .layout = b->heads, .slots = &p->slots, .lens = &p->lens,
                   .scale = b->scale, .scratch = p->scratch);
    if (p->kind == PASS_PREFILL)
        TRY(RUN(p, kv_store, .k_cache = &k_cache, .v_cache = &v_cache, .qkv = &b->qkv,
                .layout = b->heads, .row_first = 0, .row_count = p->rows, .slot = p->slot,
                .position = 0));
    return RUN(p, attn_fwd, .out = &b->attn, .lse = &b->lse, .qkv = &b->qkv, .layout = b->heads,
               .segments = &p->segments, .segments_host = p->segments_host, .scale = b->scale,
               .scratch = p->scratch);
}

static err_t attend_bwd(struct glm_pass *p, struct layer *b)
{
    return RUN(p, attn_bwd, .dqkv = &b->dqkv, .dout = &b->dy, .out = &b->attn, .lse = &b->lse,
               .qkv = &b->qkv, .layout = b->heads, .segments = &p->segments,
               .segments_host = p->segments_host, .scale = b->scale, .scratch = p->scratch);
}

/* ---- the layer ---- */

/* y = act(x w^T + bias) with the weight and bias of a role pair. */
static err_t linear(struct glm_pass *p, struct layer *b, enum glm_role weight, struct tensor *y,
                    const struct tensor *x)
{
    return RUN(p, linear_fwd, .y = y, .x = x, .w = &b->w[weight], .bias = &b->w[weight + 1],
               .scratch = p->scratch);
}

/* dx from dy, and the weight's and the bias's gradients from dy and x. */
static err_t linear_bwd(struct glm_pass *p, struct layer *b, enum glm_role weight,
                        struct tensor *dx, const struct tensor *dy, const struct tensor *x)
{
    return RUN(p, linear_bwd, .dx = dx, .dw_acc = &b->dw[weight], .db_acc = &b->dw[weight + 1],
               .dy = dy, .x = x, .w = &b->w[weight], .scratch = p->scratch);
}

/* All of the layer that its backward pass reads: from a to g. */
static err_t block_fwd_to_g(struct glm_pass *p, struct layer *b, int64_t l)
{
    const struct tensor *a = &b->norm1.y, *m = &b->norm2.y;
    struct tensor *o = &b->norm2.h; /* the norm turns it into h1 in place */

    TRY(linear(p, b, GLM_QKV_WEIGHT, &b->qkv, a));
    TRY(rotate(p, b, &b->qkv, false));
    TRY(attend(p, b, l));
    TRY(linear(p, b, GLM_DENSE_WEIGHT, o, &b->attn));
    TRY(norm_fwd(p, &b->norm2, a));
    return RUN(p, linear_fwd, .y = &b->g, .pre = p->glm->options.train ? &b->u : NULL, .x = m,
               .w = &b->w[GLM_FC1_WEIGHT], .bias = &b->w[GLM_FC1_BIAS], .act = ACT_GELU_TANH,
               .scratch = p->scratch);
}

err_t glm_block_fwd(struct glm_pass *p, int64_t l)
{
    struct layer b;
    layer_view(&b, p, l);
    TRY(block_fwd_to_g(p, &b, l));
    return linear(p, &b, GLM_FC2_WEIGHT, &b.f, &b.g);
}

err_t glm_block_again(struct glm_pass *p, int64_t l)
{
    struct layer b;
    layer_view(&b, p, l);
    TRY(norm_fwd(p, &b.norm1, NULL)); /* hidden_l is kept: its residual is in it */
    return block_fwd_to_g(p, &b, l);
}

/* Read it from the bottom of glm_block_fwd to its top. */
err_t glm_block_bwd(struct glm_pass *p, int64_t l)
{
    struct layer b;
    layer_view(&b, p, l);
    const struct tensor *a = &b.norm1.y, *m = &b.norm2.y;
    struct tensor *du = &b.u; /* in place of u */

    TRY(gelu_again(p, &b));
    TRY(RUN(p, linear_bwd, .dx = du, .dw_acc = &b.dw[GLM_FC2_WEIGHT], .db_acc = &b.dw[GLM_FC2_BIAS],
            .dy = &b.dh, .x = &b.g, .w = &b.w[GLM_FC2_WEIGHT], .x_act = ACT_GELU_TANH,
            .x_pre = &b.u, .scratch = p->scratch));
    TRY(norm_again(p, &b.norm2));
    TRY(linear_bwd(p, &b, GLM_FC1_WEIGHT, &b.dy, du, m));
    TRY(norm_bwd(p, &b.norm2, &b.dh, &b.dy, &b.dh));
    TRY(linear_bwd(p, &b, GLM_DENSE_WEIGHT, &b.dy, &b.dh, &b.attn));
    TRY(attend_bwd(p, &b));
    TRY(rotate(p, &b, &b.dqkv, true));
    TRY(norm_again(p, &b.norm1));
    return linear_bwd(p, &b, GLM_QKV_WEIGHT, &b.dy, &b.dqkv, a);
}
