#include "kernels/cuda/attn_cudnn.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/num.h"
#include "kernels/cuda/cudnn_pack.h"
#include "kernels/cuda/cudnn_sdpa.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda_sizes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SCRATCH_ALIGN 256
/* From here on the ragged backward kernels of compute capability 9.0 no longer read workspace that
 * they have not written. */
#define VERSION_CLEAN 91800

/* One call of a plan. */
struct launch {
    struct cudnn_group group;
    const struct cudnn_sdpa_plan *plan;
    int64_t block; /* bytes into the blocks of the operator call */
};

struct attn_cudnn {
    struct cudnn_lib lib;
    struct cudnn_target target;
    struct cudnn_sdpa_cache cache;
    bool deterministic;
    int64_t score_bytes_max;
    /* Of the operator call being prepared; the memory is kept. */
    struct launch *launches;
    int64_t launch_count, launch_room;
    struct buf blocks;
};

err_t attn_cudnn_open(struct attn_cudnn **out, const struct attn_cudnn_options *options)
{
    *out = NULL;
    if (options->capability != 90)
        RAISE(UNSUPPORTED,
              "compute capability %d.%d; cuDNN's ragged attention is used on 9.0: attention runs "
              "on our own kernels",
              options->capability / 10, options->capability % 10);
    struct attn_cudnn *c = (struct attn_cudnn *)calloc(1, sizeof *c);
    if (c == NULL) RAISE(NOMEM, "cuDNN attention: %zu bytes wanted", sizeof *c);
    c->deterministic = !options->nondeterministic;
    c->score_bytes_max =
        options->score_bytes_max > 0 ? options->score_bytes_max : CUDNN_SCORE_BYTES_MAX;
    err_t rc = ERR_OK;
    TRY_DONE(cudnn_lib_open(&c->lib, options->library));
    TRY_DONE(cudnn_target_open(&c->target, &c->lib));
    *out = c;
done:
    if (rc != ERR_OK) attn_cudnn_close(c);
    return rc;
}

void attn_cudnn_close(struct attn_cudnn *c)
{
    if (c == NULL) return;
    cudnn_sdpa_cache_clear(&c->cache);
    cudnn_target_close(&c->target);
    cudnn_lib_close(&c->lib);
    buf_clear(&c->blocks);
    free(c->launches);
    free(c);
}

err_t attn_cudnn_describe_library(struct buf *out, const char *library)
{
    struct cudnn_lib lib;
    if (cudnn_lib_open(&lib, library) != ERR_OK) return buf_printf(out, "%s\n", err_last()->text);
    const int64_t version = lib.version;
    cudnn_lib_close(&lib);
    return buf_printf(out, "cuDNN %" PRId64 ".%" PRId64 ".%" PRId64 "\n", version / 10000,
                      version / 100 % 100, version % 100);
}

/* The parts of forward and backward arguments that decide what is launched. */
struct request {
    const struct tensor *qkv;
    const struct qkv_layout *layout;
    const struct attn_segment *segments;
    int64_t S;
    bool backward;
    struct cudnn_pack_limits limits;
};

static struct cudnn_pack_limits limits_of(const struct attn_cudnn *c, int64_t heads, bool backward)
{
    struct cudnn_pack_limits limits = { 0, heads, 0 };
    if (backward && c->deterministic) limits.score_bytes_max = c->score_bytes_max;
    return limits;
}

/* What no plan could do is said here, in terms of the operator's arguments. */
static err_t check_layout(const struct request *r)
{
    const struct qkv_layout *l = r->layout;
    const int64_t D = l->head_dim, W = r->qkv->dim[1];
    if (r->qkv->dtype != DTYPE_BF16)
        RAISE(UNSUPPORTED, "cuDNN attention of %s; it is used for bf16", dtype_name(r->qkv->dtype));
    if (D != 64 && D != 128)
        RAISE(UNSUPPORTED, "cuDNN attention of head_dim %" PRId64 "; it is used for 64 and 128", D);
    if (l->kv_heads != l->heads || W != 3 * l->heads * D)
        RAISE(UNSUPPORTED,
              "cuDNN attention of %" PRId64 " heads and %" PRId64 " kv_heads in rows of %" PRId64
              "; it is used for as many of both in rows of 3*H*D",
              l->heads, l->kv_heads, W);
    if (l->k_stride != l->q_stride || l->v_stride != l->q_stride ||
        (l->q_offset | l->k_offset | l->v_offset | l->q_stride) % 8 != 0)
        RAISE(UNSUPPORTED, "cuDNN attention wants one head stride of q, k, v and offsets of 8");
    return ERR_OK;
}

static err_t check_request(const struct request *r)
{
    TRY(check_layout(r));
    int64_t s = 0;
    if (!cudnn_pack_fits(&s, r->segments, r->S, &r->limits))
        RAISE(UNSUPPORTED,
              "segment %" PRId64 ": %d rows are more than cuDNN attention takes (%d, or %" PRId64
              " bytes of scores)",
              s, r->segments[s].len, CUDNN_PACK_LEN_MAX, r->limits.score_bytes_max);
    return ERR_OK;
}

static struct cudnn_sdpa_shape shape_of(const struct attn_cudnn *c, const struct request *r,
                                        const struct cudnn_group *group)
{
    const int64_t H = r->layout->heads, D = r->layout->head_dim;
    struct cudnn_sdpa_shape shape;
    memset(&shape, 0, sizeof shape); /* shapes are compared by their bytes */
    shape.batch = group->batch;
    shape.queries = group->queries;
    shape.keys = group->keys;
    shape.heads = H;
    shape.head_dim = D;
    shape.qkv_head_stride = r->layout->q_stride;
    shape.qkv_row_stride = r->qkv->dim[1];
    shape.diagonal = group->call == CUDNN_PACK_TARGET;
    shape.backward = r->backward;
    if (!r->backward) return shape;
    shape.deterministic = c->deterministic;
    shape.dkv_head_stride = shape.diagonal ? shape.qkv_head_stride : D;
    shape.dkv_row_stride = shape.diagonal ? shape.qkv_row_stride : 2 * H * D;
    return shape;
}

/* What is set aside for the workspace of any group of R rows. */
static int64_t workspace_bytes_max(int64_t R, const struct cudnn_pack_limits *limits)
{
    if (limits->score_bytes_max == 0) return CUDNN_WORKSPACE_BYTES;
    return CUDNN_WORKSPACE_BYTES + cudnn_pack_score_bytes_max(R, limits);
}

static err_t append_launch(struct attn_cudnn *c, const struct launch *launch)
{
    if (c->launch_count == c->launch_room) {
        const int64_t room = max_i64(16, 2 * c->launch_room);
        struct launch *grown = (struct launch *)realloc(c->launches, (size_t)room * sizeof *grown);
        if (grown == NULL) RAISE(NOMEM, "cuDNN attention: %" PRId64 " calls", room);
        c->launches = grown;
        c->launch_room = room;
    }
    c->launches[c->launch_count++] = *launch;
    return ERR_OK;
}

/* The plan of a group and its block of offsets, both before anything is written. */
static err_t prepare_group(struct attn_cudnn *c, const struct request *r,
                           const struct cudnn_group *group)
{
    const int64_t H = r->layout->heads, D = r->layout->head_dim;
    const struct cudnn_sdpa_shape shape = shape_of(c, r, group);
    struct launch launch = { *group, NULL, (int64_t)c->blocks.size };
    TRY(cudnn_sdpa_find(&launch.plan, &c->cache, &c->target, &shape));
    const int64_t workspace_max = workspace_bytes_max(r->qkv->dim[0], &r->limits);
    if (launch.plan->plan.workspace_bytes > workspace_max)
        RAISE(UNSUPPORTED,
              "cuDNN attention wants %" PRId64 " bytes of workspace; %" PRId64 " are set aside",
              launch.plan->plan.workspace_bytes, workspace_max);

    const struct cudnn_pack_rows rows = { shape.qkv_row_stride, H * D, H, shape.dkv_row_stride,
                                          !shape.diagonal };
    const struct cudnn_block block = cudnn_pack_block(group->batch);
    TRY(buf_reserve(&c->blocks, (size_t)block.bytes));
    cudnn_pack_fill(c->blocks.data + c->blocks.size, group, r->segments, &rows);
    c->blocks.size += (size_t)block.bytes;
    return append_launch(c, &launch);
}

/* TARGET comes first: the gradients of prefix keys are added to what it wrote. */
static err_t prepare(struct attn_cudnn *c, const struct request *r)
{
    static const enum cudnn_pack_call calls[] = { CUDNN_PACK_TARGET, CUDNN_PACK_CONTEXT };
    TRY(check_request(r));
    c->launch_count = 0;
    buf_reset(&c->blocks);
    for (int i = 0; i < 2; i++) {
        struct cudnn_pack_limits limits = r->limits;
        if (r->backward && calls[i] == CUDNN_PACK_CONTEXT) limits.rows_max = CUDNN_PACK_ROWS_MAX;
        struct cudnn_group group;
        for (int64_t s = 0; cudnn_pack_next(&group, &s, calls[i], r->segments, r->S, &limits);)
            TRY(prepare_group(c, r, &group));
    }
    return ERR_OK;
}

/* Scratch handed out from the front. */
struct carver {
    char *next, *end;
};

static void *carve(struct carver *carver, int64_t bytes)
{
    char *at = (char *)align_up((int64_t)(intptr_t)carver->next, SCRATCH_ALIGN);
    carver->next = at + bytes;
    ASSERT(carver->next <= carver->end);
    return at;
}

static err_t carve_begin(struct carver *carver, const struct scratch *scratch, int64_t wanted)
{
    if (scratch->bytes < wanted)
        RAISE(ARG, "scratch: %" PRId64 " bytes; expected at least %" PRId64, scratch->bytes,
              wanted);
    *carver = { (char *)scratch->data, (char *)scratch->data + scratch->bytes };
    return ERR_OK;
}

static int64_t carved(int64_t bytes) { return align_up(bytes, SCRATCH_ALIGN) + SCRATCH_ALIGN; }

static err_t upload_blocks(struct dev *dev, void *to_dev, const struct attn_cudnn *c)
{
    if (c->blocks.size == 0) return ERR_OK;
    return dev->memory->upload(dev, to_dev, c->blocks.data, (int64_t)c->blocks.size);
}

/* Rows of t that belong to no segment become 0. */
static err_t zero_padding(struct dev *dev, const struct tensor *t,
                          const struct attn_segment *segments, int64_t S)
{
    const int64_t row_bytes = t->dim[1] * dtype_bytes(t->dtype);
    int64_t row = 0, end = 0, s = 0;
    while (cudnn_pack_next_padding(&row, &end, &s, segments, S, t->dim[0]))
        TRY(dev->memory->zero(dev, (char *)t->data + row * row_bytes, (end - row) * row_bytes));
    return ERR_OK;
}

static void *column(const struct tensor *t, int64_t offset)
{
    return (char *)t->data + offset * dtype_bytes(t->dtype);
}

/* What launches of one operator call bind; those of the blocks change from launch to launch. */
struct binding {
    void *operands[CUDNN_SDPA_OPERANDS];
    char *blocks; /* on the device */
    void *workspace;
    char *dkv; /* backward: [dk | dv] of a CONTEXT group */
};

static void bind_qkv(struct binding *b, const struct tensor *qkv, const struct qkv_layout *layout,
                     const struct tensor *out, const struct tensor *lse)
{
    b->operands[CUDNN_SDPA_Q] = column(qkv, layout->q_offset);
    b->operands[CUDNN_SDPA_K] = column(qkv, layout->k_offset);
    b->operands[CUDNN_SDPA_V] = column(qkv, layout->v_offset);
    b->operands[CUDNN_SDPA_O] = out->data;
    b->operands[CUDNN_SDPA_LSE] = lse->data;
}

static void bind_block(struct binding *b, const struct launch *launch)
{
    const struct cudnn_block layout = cudnn_pack_block(launch->group.batch);
    char *block = b->blocks + launch->block;
    b->operands[CUDNN_SDPA_AT_Q] = block + layout.at_q;
    b->operands[CUDNN_SDPA_AT_KV] = block + layout.at_kv;
    b->operands[CUDNN_SDPA_AT_O] = block + layout.at_out;
    b->operands[CUDNN_SDPA_AT_LSE] = block + layout.at_lse;
    b->operands[CUDNN_SDPA_AT_DKV] = block + layout.at_dkv;
    b->operands[CUDNN_SDPA_QUERY_COUNT] = block + layout.query_count;
    b->operands[CUDNN_SDPA_KEY_COUNT] = block + layout.key_count;
}

static err_t run(const struct attn_cudnn *c, struct dev *dev, const struct launch *launch,
                 const struct binding *b, double scale)
{
    return cudnn_sdpa_run(launch->plan, &c->target, b->operands, (float)scale, b->workspace,
                          gpu_of(dev)->queue[DEV_COMPUTE]);
}

int64_t attn_cudnn_fwd_scratch_bytes(const struct attn_cudnn *c, const struct attn_fwd_args *args)
{
    (void)c;
    return carved(cudnn_pack_blocks_bytes_max(args->qkv->dim[0])) + carved(CUDNN_WORKSPACE_BYTES);
}

err_t attn_cudnn_fwd(struct attn_cudnn *c, struct dev *dev, const struct attn_fwd_args *args)
{
    const int64_t S = args->segments->dim[0];
    const struct request request = {
        args->qkv, &args->layout, args->segments_host,
        S,         false,         limits_of(c, args->layout.heads, false)
    };
    struct carver scratch;
    struct binding b = {};
    TRY(prepare(c, &request));
    TRY(carve_begin(&scratch, &args->scratch, attn_cudnn_fwd_scratch_bytes(c, args)));
    b.blocks = (char *)carve(&scratch, cudnn_pack_blocks_bytes_max(args->qkv->dim[0]));
    b.workspace = carve(&scratch, CUDNN_WORKSPACE_BYTES);
    bind_qkv(&b, args->qkv, &args->layout, args->out, args->lse);

    TRY(zero_padding(dev, args->out, args->segments_host, S));
    TRY(zero_padding(dev, args->lse, args->segments_host, S));
    TRY(upload_blocks(dev, b.blocks, c));
    for (int64_t i = 0; i < c->launch_count; i++) {
        bind_block(&b, &c->launches[i]);
        TRY(run(c, dev, &c->launches[i], &b, args->scale));
    }
    return ERR_OK;
}

/* Scratch of the backward pass, in bytes. */
struct bwd_scratch {
    int64_t blocks, softmax_sum, dq_sum, workspace, dkv;
};

static struct bwd_scratch bwd_scratch_of(const struct attn_cudnn *c,
                                         const struct attn_bwd_args *args)
{
    const int64_t R = args->qkv->dim[0], H = args->layout.heads, D = args->layout.head_dim;
    const struct cudnn_pack_limits limits = limits_of(c, H, true);
    struct bwd_scratch b;
    b.blocks = cudnn_pack_blocks_bytes_max(R);
    b.softmax_sum = R * H * (int64_t)sizeof(float);
    b.dq_sum = c->deterministic ? 0 : R * H * D * (int64_t)sizeof(float);
    b.workspace = workspace_bytes_max(R, &limits);
    b.dkv = min_i64(R, CUDNN_PACK_ROWS_MAX) * 2 * H * D * dtype_bytes(DTYPE_BF16);
    return b;
}

int64_t attn_cudnn_bwd_scratch_bytes(const struct attn_cudnn *c, const struct attn_bwd_args *args)
{
    const struct bwd_scratch b = bwd_scratch_of(c, args);
    return carved(b.blocks) + carved(b.softmax_sum) + carved(b.dq_sum) + carved(b.workspace) +
           carved(b.dkv);
}

/* dk and dv of one CONTEXT group, set aside in b->dkv, into dqkv. */
static err_t add_context(struct dev *dev, const struct attn_bwd_args *args,
                         const struct launch *launch, const struct binding *b)
{
    const struct cudnn_block layout = cudnn_pack_block(launch->group.batch);
    const char *block = b->blocks + launch->block;
    struct attn_cudnn_context context;
    context.dk = column(args->dqkv, args->layout.k_offset);
    context.dv = column(args->dqkv, args->layout.v_offset);
    context.dkv = b->dkv;
    context.heads = args->layout.heads;
    context.head_dim = args->layout.head_dim;
    context.row_stride = args->dqkv->dim[1];
    context.head_stride = args->layout.k_stride;
    context.at_kv = (const int64_t *)(block + layout.at_kv);
    context.at_dkv = (const int64_t *)(block + layout.at_dkv);
    context.key_count = (const int32_t *)(block + layout.key_count);
    context.alone = (const int32_t *)(block + layout.alone);
    context.count = launch->group.count;
    context.keys_max = launch->group.keys;
    return attn_cudnn_add_context(dev, &context);
}

/* One launch with its own dk and dv: in place for TARGET, set aside and added for CONTEXT. */
static err_t run_bwd(const struct attn_cudnn *c, struct dev *dev, const struct attn_bwd_args *args,
                     const struct launch *launch, struct binding *b)
{
    const bool in_place = launch->group.call == CUDNN_PACK_TARGET;
    const int64_t width = args->layout.heads * args->layout.head_dim;
    bind_block(b, launch);
    b->operands[CUDNN_SDPA_DK] = in_place ? column(args->dqkv, args->layout.k_offset) : b->dkv;
    b->operands[CUDNN_SDPA_DV] = in_place ? column(args->dqkv, args->layout.v_offset)
                                          : b->dkv + width * dtype_bytes(DTYPE_BF16);
    if (c->lib.version < VERSION_CLEAN)
        TRY(dev->memory->zero(dev, b->workspace, launch->plan->plan.workspace_bytes));
    TRY(run(c, dev, launch, b, args->scale));
    return in_place ? ERR_OK : add_context(dev, args, launch, b);
}

err_t attn_cudnn_bwd(struct attn_cudnn *c, struct dev *dev, const struct attn_bwd_args *args)
{
    const int64_t S = args->segments->dim[0];
    const struct request request = {
        args->qkv, &args->layout, args->segments_host,
        S,         true,          limits_of(c, args->layout.heads, true)
    };
    const struct bwd_scratch bytes = bwd_scratch_of(c, args);
    struct carver scratch;
    struct binding b = {};
    TRY(prepare(c, &request));
    TRY(carve_begin(&scratch, &args->scratch, attn_cudnn_bwd_scratch_bytes(c, args)));
    b.blocks = (char *)carve(&scratch, bytes.blocks);
    b.operands[CUDNN_SDPA_SOFTMAX_SUM] = carve(&scratch, bytes.softmax_sum);
    b.operands[CUDNN_SDPA_DQ_SUM] = carve(&scratch, bytes.dq_sum);
    b.workspace = carve(&scratch, bytes.workspace);
    b.dkv = (char *)carve(&scratch, bytes.dkv);
    bind_qkv(&b, args->qkv, &args->layout, args->out, args->lse);
    b.operands[CUDNN_SDPA_DOUT] = args->dout->data;
    b.operands[CUDNN_SDPA_DQ] = column(args->dqkv, args->layout.q_offset);

    TRY(zero_padding(dev, args->dqkv, args->segments_host, S));
    TRY(upload_blocks(dev, b.blocks, c));
    for (int64_t i = 0; i < c->launch_count; i++) TRY(run_bwd(c, dev, args, &c->launches[i], &b));
    return ERR_OK;
}
