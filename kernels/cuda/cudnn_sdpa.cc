#include "kernels/cuda/cudnn_sdpa.h"

#include "base/check.h"
#include "base/log.h"

#include <math.h>
#include <string.h>

/* A graph under construction: its shape, and the tensors that several operations share. */
struct sdpa {
    struct cudnn_graph *graph;
    const struct cudnn_sdpa_shape *shape;
    struct cudnn_shape scores, rows; /* [B,H,queries,keys], [B,H,queries,1] */
    struct cudnn_tensor operand[CUDNN_SDPA_OPERANDS];
};

static err_t add(struct sdpa *s, enum cudnn_sdpa_operand operand, const char *name,
                 enum cudnn_tensor_kind kind, cudnnDataType_t dtype, struct cudnn_shape shape,
                 enum cudnn_sdpa_operand at)
{
    struct cudnn_tensor_spec spec = { name, kind, operand, dtype, shape, NULL };
    if (at != 0) spec.ragged = &s->operand[at];
    return cudnn_graph_tensor(&s->operand[operand], s->graph, &spec);
}

/* Rows of a packed array: [B, H, count, D]. The stride of the batch is not used where offsets say
 * where a sample begins; it is that of samples of full length. */
static struct cudnn_shape packed(const struct cudnn_sdpa_shape *p, int64_t count,
                                 int64_t head_stride, int64_t row_stride, int64_t width)
{
    return { { p->batch, p->heads, count, width },
             { count * row_stride, head_stride, row_stride, 1 } };
}

static err_t add_offsets(struct sdpa *s)
{
    static const struct {
        enum cudnn_sdpa_operand operand;
        const char *name;
    } offsets[] = {
        { CUDNN_SDPA_AT_Q, "q offsets" },     { CUDNN_SDPA_AT_KV, "kv offsets" },
        { CUDNN_SDPA_AT_O, "out offsets" },   { CUDNN_SDPA_AT_LSE, "lse offsets" },
        { CUDNN_SDPA_AT_DKV, "dkv offsets" },
    };
    const int64_t B = s->shape->batch;
    for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
        if (offsets[i].operand == CUDNN_SDPA_AT_DKV && !s->shape->backward) continue;
        TRY(add(s, offsets[i].operand, offsets[i].name, CUDNN_TENSOR_MEMORY, CUDNN_DATA_INT64,
                cudnn_shape_dense(B + 1, 1, 1, 1), (enum cudnn_sdpa_operand)0));
    }
    return ERR_OK;
}

static err_t add_scalars(struct sdpa *s)
{
    const struct cudnn_shape counts = cudnn_shape_dense(s->shape->batch, 1, 1, 1);
    const struct cudnn_shape one = cudnn_shape_dense(1, 1, 1, 1);
    const enum cudnn_sdpa_operand none = (enum cudnn_sdpa_operand)0;
    TRY(add(s, CUDNN_SDPA_QUERY_COUNT, "query counts", CUDNN_TENSOR_MEMORY, CUDNN_DATA_INT32,
            counts, none));
    TRY(add(s, CUDNN_SDPA_KEY_COUNT, "key counts", CUDNN_TENSOR_MEMORY, CUDNN_DATA_INT32, counts,
            none));
    TRY(add(s, CUDNN_SDPA_SCALE, "scale", CUDNN_TENSOR_VALUE, CUDNN_DATA_FLOAT, one, none));
    TRY(add(s, CUDNN_SDPA_MASKED, "masked", CUDNN_TENSOR_VALUE, CUDNN_DATA_FLOAT, one, none));
    if (s->shape->backward)
        TRY(add(s, CUDNN_SDPA_ONE, "one", CUDNN_TENSOR_VALUE, CUDNN_DATA_FLOAT, one, none));
    return ERR_OK;
}

/* Tensors in memory. The engines want k transposed, and in the backward pass v too. */
static err_t add_operands(struct sdpa *s)
{
    const struct cudnn_sdpa_shape *p = s->shape;
    const cudnnDataType_t T = CUDNN_DATA_BFLOAT16;
    const enum cudnn_tensor_kind memory = CUDNN_TENSOR_MEMORY;
    const int64_t H = p->heads, D = p->head_dim;
    const struct cudnn_shape q = packed(p, p->queries, p->qkv_head_stride, p->qkv_row_stride, D);
    const struct cudnn_shape kv = packed(p, p->keys, p->qkv_head_stride, p->qkv_row_stride, D);
    const struct cudnn_shape o = packed(p, p->queries, D, H * D, D);
    const struct cudnn_shape lse = packed(p, p->queries, 1, H, 1);
    const struct cudnn_shape kv_t = cudnn_shape_transposed(kv);

    TRY(add_offsets(s));
    TRY(add_scalars(s));
    TRY(add(s, CUDNN_SDPA_Q, "q", memory, T, q, CUDNN_SDPA_AT_Q));
    TRY(add(s, CUDNN_SDPA_K, "k", memory, T, kv_t, CUDNN_SDPA_AT_KV));
    TRY(add(s, CUDNN_SDPA_V, "v", memory, T, p->backward ? kv_t : kv, CUDNN_SDPA_AT_KV));
    TRY(add(s, CUDNN_SDPA_O, "out", memory, T, o, CUDNN_SDPA_AT_O));
    TRY(add(s, CUDNN_SDPA_LSE, "lse", memory, CUDNN_DATA_FLOAT, lse, CUDNN_SDPA_AT_LSE));
    if (!p->backward) return ERR_OK;

    const struct cudnn_shape dkv = packed(p, p->keys, p->dkv_head_stride, p->dkv_row_stride, D);
    TRY(add(s, CUDNN_SDPA_DOUT, "dout", memory, T, o, CUDNN_SDPA_AT_O));
    TRY(add(s, CUDNN_SDPA_DQ, "dq", memory, T, q, CUDNN_SDPA_AT_Q));
    TRY(add(s, CUDNN_SDPA_DK, "dk", memory, T, dkv, CUDNN_SDPA_AT_DKV));
    TRY(add(s, CUDNN_SDPA_DV, "dv", memory, T, dkv, CUDNN_SDPA_AT_DKV));
    TRY(add(s, CUDNN_SDPA_SOFTMAX_SUM, "softmax sum", memory, CUDNN_DATA_FLOAT, lse,
            CUDNN_SDPA_AT_LSE));
    if (!p->deterministic)
        TRY(add(s, CUDNN_SDPA_DQ_SUM, "dq sum", memory, CUDNN_DATA_FLOAT, o, CUDNN_SDPA_AT_O));
    return ERR_OK;
}

static err_t add_virtual(struct cudnn_tensor *out, struct sdpa *s, const char *name,
                         cudnnDataType_t dtype, struct cudnn_shape shape)
{
    const struct cudnn_tensor_spec spec = { name, CUDNN_TENSOR_VIRTUAL, 0, dtype, shape, NULL };
    return cudnn_graph_tensor(out, s->graph, &spec);
}

/* A virtual tensor out = mode(x, b, t), of the shape of x. */
static err_t pointwise(struct cudnn_tensor *out, struct sdpa *s, const char *name,
                       cudnnPointwiseMode_t mode, cudnnDataType_t dtype,
                       const struct cudnn_tensor *x, const struct cudnn_tensor *b,
                       const struct cudnn_tensor *t)
{
    struct cudnn_tensor y;
    TRY(add_virtual(&y, s, name, dtype, x->shape));
    const struct cudnn_pointwise op = { name, mode, dtype, 0, x, b, t, &y };
    TRY(cudnn_graph_pointwise(s->graph, &op));
    *out = y;
    return ERR_OK;
}

static err_t compute(struct cudnn_tensor *out, struct sdpa *s, const char *name,
                     cudnnPointwiseMode_t mode, const struct cudnn_tensor *x,
                     const struct cudnn_tensor *b)
{
    return pointwise(out, s, name, mode, CUDNN_DATA_FLOAT, x, b, NULL);
}

/* Row (axis 2) or column (axis 3) numbers of the scores; `math` as the engines expect it. */
static err_t index_scores(struct cudnn_tensor *out, struct sdpa *s, const char *name,
                          const struct cudnn_tensor *scores, int64_t axis, cudnnDataType_t math)
{
    TRY(add_virtual(out, s, name, CUDNN_DATA_INT32, scores->shape));
    const struct cudnn_pointwise op = {
        name, CUDNN_POINTWISE_GEN_INDEX, math, axis, scores, NULL, NULL, out
    };
    return cudnn_graph_pointwise(s->graph, &op);
}

/* scores = row < queries and column < keys ? scores : masked */
static err_t mask_padding(struct cudnn_tensor *scores, struct sdpa *s)
{
    struct cudnn_tensor row, column;
    TRY(index_scores(&row, s, "padding row", scores, 2, CUDNN_DATA_INT32));
    TRY(index_scores(&column, s, "padding column", scores, 3, CUDNN_DATA_INT32));
    TRY(pointwise(&row, s, "padding row kept", CUDNN_POINTWISE_CMP_LT, CUDNN_DATA_BOOLEAN, &row,
                  &s->operand[CUDNN_SDPA_QUERY_COUNT], NULL));
    TRY(pointwise(&column, s, "padding column kept", CUDNN_POINTWISE_CMP_LT, CUDNN_DATA_BOOLEAN,
                  &column, &s->operand[CUDNN_SDPA_KEY_COUNT], NULL));
    TRY(pointwise(&row, s, "padding kept", CUDNN_POINTWISE_LOGICAL_AND, CUDNN_DATA_BOOLEAN, &row,
                  &column, NULL));
    return pointwise(scores, s, "padding mask", CUDNN_POINTWISE_BINARY_SELECT, CUDNN_DATA_FLOAT,
                     scores, &s->operand[CUDNN_SDPA_MASKED], &row);
}

/* scores = row + keys - queries >= column ? scores : masked */
static err_t mask_diagonal(struct cudnn_tensor *scores, struct sdpa *s)
{
    struct cudnn_tensor row, column;
    TRY(index_scores(&row, s, "diagonal row", scores, 2, CUDNN_DATA_FLOAT));
    TRY(index_scores(&column, s, "diagonal column", scores, 3, CUDNN_DATA_FLOAT));
    TRY(pointwise(&row, s, "diagonal plus keys", CUDNN_POINTWISE_ADD, CUDNN_DATA_INT32, &row,
                  &s->operand[CUDNN_SDPA_KEY_COUNT], NULL));
    TRY(pointwise(&row, s, "diagonal minus queries", CUDNN_POINTWISE_SUB, CUDNN_DATA_INT32, &row,
                  &s->operand[CUDNN_SDPA_QUERY_COUNT], NULL));
    TRY(pointwise(&row, s, "diagonal kept", CUDNN_POINTWISE_CMP_GE, CUDNN_DATA_BOOLEAN, &row,
                  &column, NULL));
    return pointwise(scores, s, "diagonal mask", CUDNN_POINTWISE_BINARY_SELECT, CUDNN_DATA_FLOAT,
                     scores, &s->operand[CUDNN_SDPA_MASKED], &row);
}

/* c[queries, ..] = a b over the head's width, c virtual [B,H,queries,keys]. */
static err_t multiply_rows(struct cudnn_tensor *c, struct sdpa *s, const char *name,
                           const struct cudnn_tensor *a, const struct cudnn_tensor *b)
{
    TRY(add_virtual(c, s, name, CUDNN_DATA_FLOAT, s->scores));
    struct cudnn_matmul op = {};
    op.name = name;
    op.a = a;
    op.b = b;
    op.c = c;
    op.m = &s->operand[CUDNN_SDPA_QUERY_COUNT];
    op.n = &s->operand[CUDNN_SDPA_KEY_COUNT];
    op.zero_padding = !s->shape->backward;
    return cudnn_graph_matmul(s->graph, &op);
}

/* c[rows, D] = a b, summed over the `over` of a sample. */
static err_t multiply_out(struct sdpa *s, const char *name, const struct cudnn_tensor *c,
                          const struct cudnn_tensor *a, const struct cudnn_tensor *b,
                          enum cudnn_sdpa_operand rows, enum cudnn_sdpa_operand over)
{
    struct cudnn_matmul op = {};
    op.name = name;
    op.a = a;
    op.b = b;
    op.c = c;
    op.m = &s->operand[rows];
    op.k = &s->operand[over];
    return cudnn_graph_matmul(s->graph, &op);
}

/* p = exp(scores - max) / sum;  lse = max + log(sum) */
static err_t softmax(struct cudnn_tensor *p, struct sdpa *s, const struct cudnn_tensor *scores)
{
    struct cudnn_tensor max, sum, log_sum, e;
    TRY(add_virtual(&max, s, "max", CUDNN_DATA_FLOAT, s->rows));
    TRY(cudnn_graph_reduce(s->graph, "max", CUDNN_REDUCE_TENSOR_MAX, &max, scores));
    TRY(compute(&e, s, "scores minus max", CUDNN_POINTWISE_SUB, scores, &max));
    TRY(compute(&e, s, "exp", CUDNN_POINTWISE_EXP, &e, NULL));
    TRY(add_virtual(&sum, s, "sum", CUDNN_DATA_FLOAT, s->rows));
    TRY(cudnn_graph_reduce(s->graph, "sum", CUDNN_REDUCE_TENSOR_ADD, &sum, &e));
    TRY(compute(&log_sum, s, "log sum", CUDNN_POINTWISE_LOG, &sum, NULL));
    const struct cudnn_pointwise lse = {
        "lse", CUDNN_POINTWISE_ADD,        CUDNN_DATA_FLOAT, 0, &max, &log_sum,
        NULL,  &s->operand[CUDNN_SDPA_LSE]
    };
    TRY(cudnn_graph_pointwise(s->graph, &lse));

    /* Rounded to bf16 for the product with v. */
    TRY(add_virtual(p, s, "p", CUDNN_DATA_BFLOAT16, s->scores));
    const struct cudnn_pointwise divide = {
        "p", CUDNN_POINTWISE_DIV, CUDNN_DATA_FLOAT, 0, &e, &sum, NULL, p
    };
    return cudnn_graph_pointwise(s->graph, &divide);
}

static err_t describe_forward(struct sdpa *s)
{
    struct cudnn_tensor scores, p;
    const struct cudnn_tensor *x = s->operand;
    TRY(multiply_rows(&scores, s, "q k", &x[CUDNN_SDPA_Q], &x[CUDNN_SDPA_K]));
    TRY(compute(&scores, s, "scaled", CUDNN_POINTWISE_MUL, &scores, &x[CUDNN_SDPA_SCALE]));
    TRY(mask_padding(&scores, s));
    if (s->shape->diagonal) TRY(mask_diagonal(&scores, s));
    TRY(softmax(&p, s, &scores));
    return multiply_out(s, "p v", &x[CUDNN_SDPA_O], &p, &x[CUDNN_SDPA_V], CUDNN_SDPA_QUERY_COUNT,
                        CUDNN_SDPA_KEY_COUNT);
}

/* softmax_sum = sum over the head's width of dout * out. The factor of one is the form the engines
 * look for: others have dropout there. */
static err_t sum_dout_out(struct sdpa *s)
{
    const struct cudnn_sdpa_shape *p = s->shape;
    const int64_t B = p->batch, H = p->heads, Q = p->queries, D = p->head_dim;
    struct cudnn_tensor product, sum;
    const struct cudnn_shape shape = { { B, H, Q, D }, { H * Q * D, Q * D, H * D, 1 } };
    TRY(add_virtual(&product, s, "dout out", CUDNN_DATA_FLOAT, shape));
    const struct cudnn_pointwise multiply = { "dout out",
                                              CUDNN_POINTWISE_MUL,
                                              CUDNN_DATA_FLOAT,
                                              0,
                                              &s->operand[CUDNN_SDPA_DOUT],
                                              &s->operand[CUDNN_SDPA_O],
                                              NULL,
                                              &product };
    TRY(cudnn_graph_pointwise(s->graph, &multiply));
    TRY(add_virtual(&sum, s, "sum dout out", CUDNN_DATA_FLOAT, s->rows));
    TRY(cudnn_graph_reduce(s->graph, "sum dout out", CUDNN_REDUCE_TENSOR_ADD, &sum, &product));
    const struct cudnn_pointwise store = { "softmax sum",
                                           CUDNN_POINTWISE_MUL,
                                           CUDNN_DATA_FLOAT,
                                           0,
                                           &sum,
                                           &s->operand[CUDNN_SDPA_ONE],
                                           NULL,
                                           &s->operand[CUDNN_SDPA_SOFTMAX_SUM] };
    return cudnn_graph_pointwise(s->graph, &store);
}

/* c[keys, D] = transposed(a) b */
static err_t multiply_transposed(struct sdpa *s, const char *name, const struct cudnn_tensor *c,
                                 const struct cudnn_tensor *a, const struct cudnn_tensor *b)
{
    struct cudnn_tensor at;
    TRY(add_virtual(&at, s, name, CUDNN_DATA_BFLOAT16, cudnn_shape_transposed(s->scores)));
    TRY(cudnn_graph_reshape(s->graph, name, &at, a));
    return multiply_out(s, name, c, &at, b, CUDNN_SDPA_KEY_COUNT, CUDNN_SDPA_QUERY_COUNT);
}

/* dq = ds k: into dq at once, or by way of an f32 sum that several blocks add to. */
static err_t multiply_dq(struct sdpa *s, const struct cudnn_tensor *ds)
{
    const struct cudnn_tensor *x = s->operand;
    struct cudnn_tensor k;
    const struct cudnn_tensor_spec spec = { "k again",
                                            CUDNN_TENSOR_VIRTUAL,
                                            0,
                                            CUDNN_DATA_FLOAT,
                                            cudnn_shape_transposed(x[CUDNN_SDPA_K].shape),
                                            &x[CUDNN_SDPA_AT_KV] };
    TRY(cudnn_graph_tensor(&k, s->graph, &spec));
    TRY(cudnn_graph_reshape(s->graph, "k again", &k, &x[CUDNN_SDPA_K]));
    const enum cudnn_sdpa_operand to = s->shape->deterministic ? CUDNN_SDPA_DQ : CUDNN_SDPA_DQ_SUM;
    TRY(multiply_out(s, "dq", &x[to], ds, &k, CUDNN_SDPA_QUERY_COUNT, CUDNN_SDPA_KEY_COUNT));
    if (s->shape->deterministic) return ERR_OK;
    const struct cudnn_pointwise round = {
        "dq rounded", CUDNN_POINTWISE_IDENTITY, CUDNN_DATA_FLOAT, 0, &x[CUDNN_SDPA_DQ_SUM], NULL,
        NULL,         &x[CUDNN_SDPA_DQ]
    };
    return cudnn_graph_pointwise(s->graph, &round);
}

static err_t describe_backward(struct sdpa *s)
{
    struct cudnn_tensor p, ds;
    const struct cudnn_tensor *x = s->operand;
    TRY(sum_dout_out(s));

    TRY(multiply_rows(&p, s, "q k", &x[CUDNN_SDPA_Q], &x[CUDNN_SDPA_K]));
    TRY(compute(&p, s, "scaled", CUDNN_POINTWISE_MUL, &p, &x[CUDNN_SDPA_SCALE]));
    TRY(mask_padding(&p, s));
    TRY(compute(&p, s, "minus lse", CUDNN_POINTWISE_SUB, &p, &x[CUDNN_SDPA_LSE]));
    if (s->shape->diagonal) TRY(mask_diagonal(&p, s));
    TRY(compute(&p, s, "p", CUDNN_POINTWISE_EXP, &p, NULL));
    TRY(multiply_transposed(s, "dv", &x[CUDNN_SDPA_DV], &p, &x[CUDNN_SDPA_DOUT]));

    TRY(multiply_rows(&ds, s, "dout v", &x[CUDNN_SDPA_DOUT], &x[CUDNN_SDPA_V]));
    TRY(compute(&ds, s, "minus sum", CUDNN_POINTWISE_SUB, &ds, &x[CUDNN_SDPA_SOFTMAX_SUM]));
    TRY(compute(&ds, s, "ds", CUDNN_POINTWISE_MUL, &ds, &p));
    TRY(compute(&ds, s, "scaled ds", CUDNN_POINTWISE_MUL, &ds, &x[CUDNN_SDPA_SCALE]));
    TRY(multiply_transposed(s, "dk", &x[CUDNN_SDPA_DK], &ds, &x[CUDNN_SDPA_Q]));
    return multiply_dq(s, &ds);
}

err_t cudnn_sdpa_build(struct cudnn_sdpa_plan *out, const struct cudnn_target *target,
                       const struct cudnn_sdpa_shape *shape)
{
    memset(out, 0, sizeof *out);
    out->shape = *shape;
    const int64_t B = shape->batch, H = shape->heads, Q = shape->queries, K = shape->keys;
    TRY(cudnn_graph_create(&out->graph, target));
    struct sdpa s = {
        out->graph, shape, cudnn_shape_dense(B, H, Q, K), cudnn_shape_dense(B, H, Q, 1), {}
    };
    TRY(add_operands(&s));
    if (shape->backward) {
        TRY(describe_backward(&s));
        return cudnn_graph_plan(&out->plan, out->graph, "attention backward");
    }
    TRY(describe_forward(&s));
    return cudnn_graph_plan(&out->plan, out->graph, "attention forward");
}

void cudnn_sdpa_clear(struct cudnn_sdpa_plan *plan)
{
    cudnn_graph_destroy(plan->graph);
    memset(plan, 0, sizeof *plan);
}

static bool uses_operand(const struct cudnn_sdpa_shape *shape, int operand)
{
    switch (operand) {
    case CUDNN_SDPA_DOUT:
    case CUDNN_SDPA_DQ:
    case CUDNN_SDPA_DK:
    case CUDNN_SDPA_DV:
    case CUDNN_SDPA_AT_DKV:
    case CUDNN_SDPA_SOFTMAX_SUM:
    case CUDNN_SDPA_ONE:
        return shape->backward;
    case CUDNN_SDPA_DQ_SUM:
        return shape->backward && !shape->deterministic;
    default:
        return true;
    }
}

err_t cudnn_sdpa_run(const struct cudnn_sdpa_plan *plan, const struct cudnn_target *target,
                     void *const operands[CUDNN_SDPA_OPERANDS], float scale, void *workspace,
                     void *stream)
{
    float one = 1.0f, masked = -INFINITY;
    struct cudnn_binding bindings[CUDNN_SDPA_OPERANDS];
    int64_t count = 0;
    for (int i = CUDNN_SDPA_Q; i < CUDNN_SDPA_OPERANDS; i++) {
        if (!uses_operand(&plan->shape, i)) continue;
        void *data = operands[i];
        if (i == CUDNN_SDPA_SCALE) data = &scale;
        if (i == CUDNN_SDPA_MASKED) data = &masked;
        if (i == CUDNN_SDPA_ONE) data = &one;
        ASSERT(data != NULL);
        bindings[count++] = { i, data };
    }
    return cudnn_plan_run(&plan->plan, target, bindings, count, workspace, stream);
}

static err_t refuse(const struct cudnn_sdpa_shape *s)
{
    RAISE(UNSUPPORTED,
          "cuDNN has no attention %s for batches of %lld times %lld queries and %lld keys",
          s->backward ? "backward" : "forward", (long long)s->batch, (long long)s->queries,
          (long long)s->keys);
}

/* A new entry of the cache, also for a shape that cuDNN refuses: asking takes a second. */
static err_t build_entry(struct cudnn_sdpa_plan *plan, const struct cudnn_target *target,
                         const struct cudnn_sdpa_shape *shape)
{
    const err_t rc = cudnn_sdpa_build(plan, target, shape);
    if (rc == ERR_OK) return ERR_OK;
    cudnn_sdpa_clear(plan);
    if (rc != ERR_UNSUPPORTED && rc != ERR_CUDA) return rc;
    LOG_W("attention", "%s: batches of this shape run on our own kernels", err_last()->text);
    plan->shape = *shape;
    plan->is_refused = true;
    return ERR_OK;
}

err_t cudnn_sdpa_find(const struct cudnn_sdpa_plan **out, struct cudnn_sdpa_cache *cache,
                      const struct cudnn_target *target, const struct cudnn_sdpa_shape *shape)
{
    for (int64_t i = 0; i < cache->count; i++) {
        *out = &cache->plans[i];
        if (memcmp(&cache->plans[i].shape, shape, sizeof *shape) == 0)
            return cache->plans[i].is_refused ? refuse(shape) : ERR_OK;
    }
    if (cache->count == CUDNN_SDPA_PLANS_MAX)
        RAISE(UNSUPPORTED, "attention has more than %d shapes of batches", CUDNN_SDPA_PLANS_MAX);
    struct cudnn_sdpa_plan *plan = &cache->plans[cache->count];
    TRY(build_entry(plan, target, shape));
    cache->count++;
    *out = plan;
    return plan->is_refused ? refuse(shape) : ERR_OK;
}

void cudnn_sdpa_cache_clear(struct cudnn_sdpa_cache *cache)
{
    while (cache->count > 0) cudnn_sdpa_clear(&cache->plans[--cache->count]);
}
