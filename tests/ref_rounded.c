/* The reference operators on narrow tensors: widened to float64, computed, rounded once. */
#include "ref_impl.h"

#include "base/num.h"
#include "kernels/ops_attn.h"
#include "kernels/ops_embed.h"
#include "kernels/ops_linear.h"
#include "kernels/ops_loss.h"
#include "kernels/ops_norm.h"
#include "kernels/ops_optim.h"

#include <stddef.h>
#include <string.h>

#define FIELDS_MAX 10

/* A tensor of an args struct. Inputs are not written back: one may alias an output. */
struct field {
    size_t offset;
    bool is_output;
};

struct wide_field {
    struct tensor wide;
    const struct tensor *narrow; /* NULL: the operator was not given this one */
};

static void widen(struct wide_field *w, void *args, const struct field *fields, int64_t count)
{
    ASSERT(count <= FIELDS_MAX);
    for (int64_t f = 0; f < count; f++) {
        char *place = (char *)args + fields[f].offset;
        struct tensor *wide = &w[f].wide;
        memcpy(&w[f].narrow, place, sizeof w[f].narrow);
        if (w[f].narrow == NULL) continue;
        const int64_t elements = tensor_count(w[f].narrow);
        ASSERT(tensor_is_contiguous(w[f].narrow));
        *wide = *w[f].narrow;
        wide->dtype = DTYPE_F64;
        wide->data = ref_temp(elements);
        for (int64_t i = 0; i < elements; i++) ((double *)wide->data)[i] = ref_get(w[f].narrow, i);
        memcpy(place, &wide, sizeof wide);
    }
}

static void narrow(struct wide_field *w, const struct field *fields, int64_t count)
{
    for (int64_t f = 0; f < count; f++) {
        if (w[f].narrow == NULL) continue;
        const double *value = w[f].wide.data;
        const int64_t elements = fields[f].is_output ? tensor_count(w[f].narrow) : 0;
        for (int64_t i = 0; i < elements; i++) ref_put(w[f].narrow, i, value[i]);
        free(w[f].wide.data);
    }
}

#define OUT(op, name)                                                                              \
    {                                                                                              \
        offsetof(struct op##_args, name), true                                                     \
    }
#define IN(op, name)                                                                               \
    {                                                                                              \
        offsetof(struct op##_args, name), false                                                    \
    }

/* wide_OP: the reference operator with these tensors widened. */
#define WIDE(op, ...)                                                                              \
    static err_t wide_##op(struct dev *dev, const struct op##_args *args)                          \
    {                                                                                              \
        static const struct field fields[] = { __VA_ARGS__ };                                      \
        struct op##_args wide = *args;                                                             \
        struct wide_field w[FIELDS_MAX];                                                           \
        widen(w, &wide, fields, COUNT_OF(fields));                                                 \
        const err_t rc = ref_##op(dev, &wide);                                                     \
        narrow(w, fields, COUNT_OF(fields));                                                       \
        return rc;                                                                                 \
    }

WIDE(embed_fwd, OUT(embed_fwd, y), IN(embed_fwd, table))
WIDE(embed_bwd, OUT(embed_bwd, dtable_acc), IN(embed_bwd, dy))
WIDE(residual_norm_fwd, OUT(residual_norm_fwd, y), OUT(residual_norm_fwd, mean),
     OUT(residual_norm_fwd, rstd), IN(residual_norm_fwd, x), IN(residual_norm_fwd, gamma),
     IN(residual_norm_fwd, beta))
WIDE(residual_norm_bwd, OUT(residual_norm_bwd, dh), OUT(residual_norm_bwd, dgamma_acc),
     OUT(residual_norm_bwd, dbeta_acc), IN(residual_norm_bwd, dy), IN(residual_norm_bwd, dresidual),
     IN(residual_norm_bwd, h), IN(residual_norm_bwd, mean), IN(residual_norm_bwd, rstd),
     IN(residual_norm_bwd, gamma))
WIDE(linear_fwd, OUT(linear_fwd, y), IN(linear_fwd, x), IN(linear_fwd, w), IN(linear_fwd, bias))
WIDE(linear_bwd, OUT(linear_bwd, dx), OUT(linear_bwd, dw_acc), OUT(linear_bwd, db_acc),
     IN(linear_bwd, dy), IN(linear_bwd, x), IN(linear_bwd, w), IN(linear_bwd, x_pre))
WIDE(act_fwd, OUT(act_fwd, y), IN(act_fwd, pre))
WIDE(rotary, OUT(rotary, qkv), IN(rotary, cos), IN(rotary, sin))
WIDE(attn_fwd, OUT(attn_fwd, out), OUT(attn_fwd, lse), IN(attn_fwd, qkv))
WIDE(attn_bwd, OUT(attn_bwd, dqkv), IN(attn_bwd, dout), IN(attn_bwd, out), IN(attn_bwd, lse),
     IN(attn_bwd, qkv))
WIDE(kv_store, OUT(kv_store, k_cache), OUT(kv_store, v_cache), IN(kv_store, qkv))
WIDE(decode_attn, OUT(decode_attn, out), OUT(decode_attn, k_cache), OUT(decode_attn, v_cache),
     IN(decode_attn, qkv))
WIDE(linear_ce, OUT(linear_ce, nll), OUT(linear_ce, dx), OUT(linear_ce, dw_acc), IN(linear_ce, x),
     IN(linear_ce, w))

/* h is rounded before it is normalized: that is part of the contract. */
static err_t rounded_residual_norm_fwd(struct dev *dev, const struct residual_norm_fwd_args *a)
{
    struct residual_norm_fwd_args norm = *a;
    const int64_t count = tensor_count(a->x);
    if (a->h != NULL) {
        for (int64_t i = 0; i < count; i++) {
            const double residual = a->residual != NULL ? a->alpha * ref_get(a->residual, i) : 0.0;
            ref_put(a->h, i, residual + ref_get(a->x, i));
        }
        norm.x = a->h;
    }
    norm.h = NULL;
    norm.residual = NULL;
    return wide_residual_norm_fwd(dev, &norm);
}

/* Likewise what goes into the activation. */
static err_t rounded_linear_fwd(struct dev *dev, const struct linear_fwd_args *a)
{
    if (a->act == ACT_NONE) return wide_linear_fwd(dev, a);
    struct linear_fwd_args product = *a;
    struct tensor pre = *a->y;
    pre.dim[1] = pre.row_stride = a->w->dim[0];
    pre.data = ref_temp(tensor_count(&pre));
    product.y = a->pre != NULL ? a->pre : &pre;
    product.pre = NULL;
    product.act = ACT_NONE;
    err_t rc = wide_linear_fwd(dev, &product);
    if (rc == ERR_OK)
        rc =
            wide_act_fwd(dev, &(struct act_fwd_args){ .y = a->y, .pre = product.y, .act = a->act });
    free(pre.data);
    return rc;
}

const struct ops_table ops_ref_rounded = {
    .name = "ref16",
    .embed_fwd = wide_embed_fwd,
    .embed_bwd = wide_embed_bwd,
    .residual_norm_fwd = rounded_residual_norm_fwd,
    .residual_norm_bwd = wide_residual_norm_bwd,
    .linear_fwd = rounded_linear_fwd,
    .linear_bwd = wide_linear_bwd,
    .act_fwd = wide_act_fwd,
    .rotary = wide_rotary,
    .attn_fwd = wide_attn_fwd,
    .attn_bwd = wide_attn_bwd,
    .kv_store = wide_kv_store,
    .decode_attn = wide_decode_attn,
    .linear_ce = wide_linear_ce,
    .sumsq_chunks = ref_sumsq_chunks,
    .adamw_segments = ref_adamw_segments,
    .cast = ref_cast,
    .add = ref_add,
};
