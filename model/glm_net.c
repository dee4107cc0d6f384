/* The whole network as a sequence of operators: embedding, layers, head; and how much scratch they
 * ask for. */
#include "kernels/ops_embed.h"
#include "kernels/ops_linear.h"
#include "kernels/ops_loss.h"
#include "model/glm_block.h"
#include "model/glm_impl.h"

struct tensor glm_view(const struct glm *glm, enum glm_buffer_id id, int64_t copy, int64_t rows)
{
    const struct glm_buffer *b = &glm->plan.buffer[id];
    const char *base = glm->memory[b->klass];
    void *data = NULL;
    ASSERT(rows >= 0 && rows <= b->rows);
    if (base != NULL && b->copies > 0) {
        const int64_t index = b->copies == 1 ? 0 : copy;
        ASSERT(index >= 0 && index < b->copies);
        data = (void *)(base + b->offset + index * b->bytes);
    }
    if (b->cols == 0) return tensor_1d(data, b->dtype, rows, b->name);
    return tensor_2d(data, b->dtype, rows, b->cols, b->name);
}

void glm_weights_by_role(struct tensor out[GLM_ROLE_COUNT], const struct glm *glm, int64_t layer)
{
    for (int role = 0; role < GLM_ROLE_COUNT; role++) {
        const int64_t i = glm_params_find(&glm->params, (enum glm_role)role, layer);
        out[role] = i < 0 ? (struct tensor){ 0 } : glm_weight(glm, i);
    }
    if (glm->config.tied) out[GLM_HEAD] = out[GLM_EMBED];
}

void glm_grads_by_role(struct tensor out[GLM_ROLE_COUNT], const struct glm *glm,
                       const struct tensor *grads, int64_t layer)
{
    const struct glm_layout *layout = glm_grad_layout(glm);
    for (int role = 0; role < GLM_ROLE_COUNT; role++) {
        const int64_t i = glm_params_find(&glm->params, (enum glm_role)role, layer);
        out[role] = i < 0 ? (struct tensor){ 0 }
                          : glm_param_tensor(&glm->params, layout, i, grads->data, grads->dtype);
    }
    if (glm->config.tied) out[GLM_HEAD] = out[GLM_EMBED];
}

struct glm_pass glm_pass_begin(struct glm *glm, enum glm_pass_kind kind, int64_t rows)
{
    const struct glm_plan *plan = &glm->plan;
    const struct glm_buffer *scratch = &plan->buffer[GLM_B_SCRATCH];
    return (struct glm_pass){
        .glm = glm,
        .dev = glm->dev,
        .kind = kind,
        .scratch = { glm->memory[GLM_BUF_SCRATCH], scratch->bytes },
        .rows = rows,
        .ids = glm_view(glm, GLM_B_IDS, 0, rows),
        .pos = glm_view(glm, GLM_B_POS, 0, rows),
        .block = glm_view(glm, GLM_B_BLOCK, 0, rows),
        .cos = glm_view(glm, GLM_B_COS, 0, plan->buffer[GLM_B_COS].rows),
        .sin = glm_view(glm, GLM_B_SIN, 0, plan->buffer[GLM_B_SIN].rows),
    };
}

/* The layer index of what lies outside the layers. */
static int64_t end_of(const struct glm_pass *p) { return p->glm->config.layer_count; }

static struct tensor weight_of(const struct glm_pass *p, enum glm_role role)
{
    struct tensor w[GLM_ROLE_COUNT];
    glm_weights_by_role(w, p->glm, end_of(p));
    return w[role];
}

static struct tensor grad_of(const struct glm_pass *p, enum glm_role role)
{
    struct tensor dw[GLM_ROLE_COUNT];
    glm_grads_by_role(dw, p->glm, &p->grads->arena, end_of(p));
    return dw[role];
}

/* ---- spans of the step's timeline ---- */

typedef err_t (*part_fn)(struct glm_pass *p, int64_t l);

/* Part `l` of the network under a name; a pass that measures queues nothing and leaves no span. */
static err_t spanned(struct glm_pass *p, const char *name, part_fn part, int64_t l)
{
    if (p->measure) return part(p, l);
    struct trace_span span = dev_span_begin(p->dev, name);
    const err_t rc = part(p, l);
    dev_span_end(p->dev, &span);
    return rc;
}

/* ---- weights that come by turns ---- */

/* Layer l is read from now on, and layer `next` (-1: none) is soon. */
static err_t want(struct glm_pass *p, int64_t l, int64_t next)
{
    const struct glm_fetch *fetch = &p->glm->fetch;
    if (!p->glm->options.weights_fetched || p->measure) return ERR_OK;
    return fetch->want(fetch->context, 1 + l, next < 0 ? -1 : 1 + next);
}

/* ---- forward ---- */

static err_t embedding_fwd(struct glm_pass *p, int64_t l)
{
    const struct tensor table = weight_of(p, GLM_EMBED);
    struct tensor x = glm_view(p->glm, GLM_B_HIDDEN, l, p->rows);
    TRY(RUN(p, embed_fwd, .y = &x, .table = &table, .ids = &p->ids));
    TRY(want(p, l, -1));
    return glm_norm_fwd(p, l);
}

static err_t layer_fwd(struct glm_pass *p, int64_t l)
{
    const bool last = l + 1 == end_of(p);
    TRY(want(p, l, last ? -1 : l + 1));
    TRY(glm_block_fwd(p, l));
    if (!last) TRY(want(p, l + 1, -1));
    return glm_norm_fwd(p, l + 1);
}

static err_t forward(struct glm_pass *p, int64_t layers)
{
    TRY(spanned(p, "embedding", embedding_fwd, 0));
    for (int64_t l = 0; l < layers; l++) TRY(spanned(p, "layer", layer_fwd, l));
    return ERR_OK;
}

err_t glm_forward(struct glm_pass *p) { return spanned(p, "forward", forward, end_of(p)); }

/* The output layer with its loss; dx and dhead NULL for the forward pass alone. The zero rows that
 * follow the vocabulary go along: kernels want whole tiles, and vocab_valid keeps them out. */
static err_t head_loss(struct glm_pass *p, struct tensor *dx, struct tensor *dhead)
{
    const struct tensor x = glm_view(p->glm, GLM_B_A, end_of(p), p->rows);
    struct tensor head = weight_of(p, GLM_HEAD);
    head.dim[0] = p->glm->vocab_rows;
    if (dhead != NULL) dhead->dim[0] = p->glm->vocab_rows;
    return RUN(p, linear_ce, .nll = &p->nll, .dx = dx, .dw_acc = dhead, .x = &x, .w = &head,
               .rows = &p->target_rows, .labels = &p->labels, .weights = &p->weights,
               .vocab_valid = p->glm->config.vocab_size, .scratch = p->scratch);
}

static err_t head_fwd(struct glm_pass *p, int64_t l)
{
    (void)l;
    return head_loss(p, NULL, NULL);
}

err_t glm_loss(struct glm_pass *p) { return spanned(p, "head", head_fwd, end_of(p)); }

/* ---- backward, unit by unit ---- */

static err_t unit_begin(struct glm_pass *p, int64_t unit)
{
    const struct glm_grads *grads = p->grads;
    return grads->unit_begin != NULL ? grads->unit_begin(grads->context, unit) : ERR_OK;
}

static err_t unit_done(struct glm_pass *p, int64_t unit)
{
    const struct glm_grads *grads = p->grads;
    return grads->unit_done != NULL ? grads->unit_done(grads->context, unit) : ERR_OK;
}

/* The head with its loss, and the final norm. The head's gradient belongs to the final unit, or,
 * tied, to the embedding's, which then stays open until the embedding has its turn. */
static err_t head_bwd(struct glm_pass *p, int64_t l)
{
    const bool tied = p->glm->config.tied;
    const int64_t unit = p->glm->params.unit_count - 1;
    struct tensor dhead = grad_of(p, GLM_HEAD);
    struct tensor dx = glm_view(p->glm, GLM_B_DY, 0, p->rows);
    TRY(unit_begin(p, tied ? 0 : unit));
    TRY(head_loss(p, &dx, &dhead));
    if (tied) TRY(unit_begin(p, unit));
    TRY(glm_norm_bwd(p, l));
    return unit_done(p, unit);
}

/* What is computed again comes before unit_begin, which may have to wait for the gradient's
 * place. */
static err_t layer_bwd(struct glm_pass *p, int64_t l)
{
    const int64_t unit = 1 + l;
    TRY(want(p, l, l - 1));
    if (p->glm->options.activations == GLM_RECOMPUTE)
        TRY(spanned(p, "layer_again", glm_block_again, l));
    TRY(unit_begin(p, unit));
    TRY(glm_block_bwd(p, l));
    TRY(glm_norm_bwd(p, l));
    return unit_done(p, unit);
}

static err_t embedding_bwd(struct glm_pass *p, int64_t l)
{
    (void)l;
    const struct tensor dh = glm_view(p->glm, GLM_B_DH, 0, p->rows);
    struct tensor dtable = grad_of(p, GLM_EMBED);
    if (!p->glm->config.tied) TRY(unit_begin(p, 0));
    TRY(RUN(p, embed_bwd, .dtable_acc = &dtable, .dy = &dh, .ids = &p->ids, .order = &p->order,
            .scratch = p->scratch));
    return unit_done(p, 0);
}

static err_t backward(struct glm_pass *p, int64_t layers)
{
    TRY(spanned(p, "head", head_bwd, layers));
    for (int64_t l = layers - 1; l >= 0; l--) TRY(spanned(p, "layer_bwd", layer_bwd, l));
    return spanned(p, "embedding_bwd", embedding_bwd, 0);
}

err_t glm_loss_backward(struct glm_pass *p) { return spanned(p, "backward", backward, end_of(p)); }

err_t glm_head(struct glm_pass *p, struct tensor *logits, int64_t first, int64_t count)
{
    const struct tensor head = weight_of(p, GLM_HEAD);
    struct tensor x = glm_view(p->glm, GLM_B_A, end_of(p), p->rows);
    ASSERT(first >= 0 && count >= 0 && first <= x.dim[0] - count);
    if (x.data != NULL) x.data = (char *)x.data + first * x.row_stride * dtype_bytes(x.dtype);
    x.dim[0] = count;
    return RUN(p, linear_fwd, .y = logits, .x = &x, .w = &head, .scratch = p->scratch);
}

err_t glm_measure_scratch(int64_t *bytes, struct glm *sketch)
{
    const struct glm_options *o = &sketch->options;
    /* One segment of all rows, each of which sees all: nothing asks for more. */
    const struct attn_segment whole = { 0, (int32_t)o->rows_max, (int32_t)o->rows_max };
    const struct glm_grads grads = { .arena.dtype = glm_grad_dtype(sketch) };
    struct tensor logits = glm_view(sketch, GLM_B_LOGITS, 0, 1);
    struct glm_pass p = glm_pass_begin(sketch, PASS_BATCH, o->rows_max);
    p.measure = true;
    p.scratch = (struct scratch){ 0 };
    p.segments = glm_view(sketch, GLM_B_SEGMENTS, 0, 1);
    p.segments_host = &whole;
    p.target_rows = glm_view(sketch, GLM_B_TARGET_ROWS, 0, o->targets_max);
    p.labels = glm_view(sketch, GLM_B_LABELS, 0, o->targets_max);
    p.weights = glm_view(sketch, GLM_B_LOSS_WEIGHTS, 0, o->targets_max);
    p.nll = glm_view(sketch, GLM_B_NLL, 0, o->targets_max);
    p.order = glm_view(sketch, GLM_B_ORDER, 0, o->rows_max);
    p.grads = &grads;

    TRY(glm_forward(&p));
    TRY(glm_loss(&p));
    if (o->train) TRY(glm_loss_backward(&p));
    TRY(glm_head(&p, &logits, 0, 1));
    *bytes = p.scratch.bytes;
    return ERR_OK;
}
