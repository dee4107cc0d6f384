#include "kernels/cuda/cudnn_pack.h"

#include "base/num.h"

#include <string.h>

#define LEN_BUCKET_MIN   256
#define BATCH_BUCKET_MIN 4
#define BLOCK_ALIGN      64
/* Offset arrays and count arrays of a block. */
#define OFFSET_ARRAYS 5
#define COUNT_ARRAYS  3

int64_t cudnn_pack_len_bucket(int64_t len)
{
    int64_t bucket = LEN_BUCKET_MIN;
    while (bucket < len) bucket *= 2;
    return bucket <= CUDNN_PACK_LEN_MAX ? bucket : 0;
}

static int64_t score_bytes(const struct cudnn_pack_limits *limits, int64_t queries, int64_t keys)
{
    return 2 * limits->heads * queries * keys;
}

int64_t cudnn_pack_batch_max(const struct cudnn_pack_limits *limits, int64_t queries, int64_t keys)
{
    if (limits->score_bytes_max == 0) return CUDNN_PACK_BATCH_MAX;
    return min_i64(CUDNN_PACK_BATCH_MAX,
                   limits->score_bytes_max / score_bytes(limits, queries, keys));
}

int64_t cudnn_pack_batch_bucket(int64_t count, int64_t batch_max)
{
    int64_t bucket = BATCH_BUCKET_MIN;
    while (bucket < count) bucket *= 4;
    return min_i64(bucket, batch_max);
}

/* Lengths of a segment's part in a call; queries 0: it has none. */
struct part {
    int64_t queries, keys;
};

static struct part part_of(enum cudnn_pack_call call, struct attn_segment segment)
{
    if (call == CUDNN_PACK_CONTEXT) return { segment.ctx, segment.ctx };
    return { segment.len - segment.ctx, segment.len };
}

static bool part_fits(struct part part, const struct cudnn_pack_limits *limits)
{
    if (part.queries == 0) return true;
    const int64_t queries = cudnn_pack_len_bucket(part.queries);
    const int64_t keys = cudnn_pack_len_bucket(part.keys);
    return queries > 0 && keys > 0 && cudnn_pack_batch_max(limits, queries, keys) > 0;
}

bool cudnn_pack_fits(int64_t *longest, const struct attn_segment *segments, int64_t S,
                     const struct cudnn_pack_limits *limits)
{
    int64_t s = 0;
    while (s < S && part_fits(part_of(CUDNN_PACK_CONTEXT, segments[s]), limits) &&
           part_fits(part_of(CUDNN_PACK_TARGET, segments[s]), limits))
        s++;
    if (longest != NULL) *longest = s;
    return s == S;
}

/* Take the part into the group if one plan can still hold all. */
static bool grow(struct cudnn_group *group, struct part part,
                 const struct cudnn_pack_limits *limits)
{
    const int64_t queries = max_i64(group->queries, cudnn_pack_len_bucket(part.queries));
    const int64_t keys = max_i64(group->keys, cudnn_pack_len_bucket(part.keys));
    const int64_t batch_max = cudnn_pack_batch_max(limits, queries, keys);
    const int64_t rows = group->rows + part.queries;
    if (group->count > 0 && group->count + 1 > batch_max) return false;
    if (group->count > 0 && limits->rows_max > 0 && rows > limits->rows_max) return false;
    group->queries = queries;
    group->keys = keys;
    group->rows = rows;
    group->count++;
    group->batch = cudnn_pack_batch_bucket(group->count, batch_max);
    return true;
}

bool cudnn_pack_next(struct cudnn_group *group, int64_t *s, enum cudnn_pack_call call,
                     const struct attn_segment *segments, int64_t S,
                     const struct cudnn_pack_limits *limits)
{
    memset(group, 0, sizeof *group);
    group->call = call;
    group->segment_first = *s;
    for (; *s < S; (*s)++) {
        const struct part part = part_of(call, segments[*s]);
        if (part.queries > 0 && !grow(group, part, limits)) break;
    }
    group->segment_end = *s;
    return group->count > 0;
}

struct cudnn_block cudnn_pack_block(int64_t batch)
{
    const int64_t offsets = align_up((batch + 1) * (int64_t)sizeof(int64_t), BLOCK_ALIGN);
    const int64_t counts = align_up(batch * (int64_t)sizeof(int32_t), BLOCK_ALIGN);
    struct cudnn_block b;
    b.at_q = 0;
    b.at_kv = b.at_q + offsets;
    b.at_out = b.at_kv + offsets;
    b.at_lse = b.at_out + offsets;
    b.at_dkv = b.at_lse + offsets;
    b.query_count = b.at_dkv + offsets;
    b.key_count = b.query_count + counts;
    b.alone = b.key_count + counts;
    b.bytes = b.alone + counts;
    return b;
}

/* The arrays of a block in host memory. */
struct arrays {
    int64_t *at_q, *at_kv, *at_out, *at_lse, *at_dkv;
    int32_t *query_count, *key_count, *alone;
};

static struct arrays arrays_of(char *bytes, struct cudnn_block b)
{
    return { (int64_t *)(bytes + b.at_q),      (int64_t *)(bytes + b.at_kv),
             (int64_t *)(bytes + b.at_out),    (int64_t *)(bytes + b.at_lse),
             (int64_t *)(bytes + b.at_dkv),    (int32_t *)(bytes + b.query_count),
             (int32_t *)(bytes + b.key_count), (int32_t *)(bytes + b.alone) };
}

/* Entry i of the offsets: queries from row q, keys from row kv, dk and dv from row dkv. */
static void put_offsets(struct arrays a, int64_t i, int64_t q, int64_t kv, int64_t dkv,
                        const struct cudnn_pack_rows *rows)
{
    a.at_q[i] = q * rows->qkv;
    a.at_kv[i] = kv * rows->qkv;
    a.at_out[i] = q * rows->out;
    a.at_lse[i] = q * rows->lse;
    a.at_dkv[i] = (rows->dkv_compact ? dkv : kv) * rows->dkv;
}

void cudnn_pack_fill(void *block, const struct cudnn_group *group,
                     const struct attn_segment *segments, const struct cudnn_pack_rows *rows)
{
    const struct cudnn_block layout = cudnn_pack_block(group->batch);
    const struct arrays a = arrays_of((char *)block, layout);
    memset(block, 0, (size_t)layout.bytes);
    int64_t i = 0, q = 0, kv = 0, dkv = 0; /* behind the samples so far */
    for (int64_t s = group->segment_first; s < group->segment_end; s++) {
        const struct attn_segment segment = segments[s];
        const struct part part = part_of(group->call, segment);
        if (part.queries == 0) continue;
        kv = segment.start;
        q = group->call == CUDNN_PACK_CONTEXT ? kv : kv + segment.ctx;
        put_offsets(a, i, q, kv, dkv, rows);
        a.query_count[i] = (int32_t)part.queries;
        a.key_count[i] = (int32_t)part.keys;
        a.alone[i] = segment.ctx == segment.len;
        i++;
        q += part.queries;
        kv += part.keys;
        dkv += part.keys;
    }
    for (; i <= group->batch; i++) put_offsets(a, i, q, kv, dkv, rows);
}

/* Prefix rows and target rows are apart, so a micro-batch has at most R samples in all; a group
 * has at most BATCH_BUCKET_MIN times as many places as samples. */
int64_t cudnn_pack_blocks_bytes_max(int64_t R)
{
    constexpr int64_t offset = sizeof(int64_t), length = sizeof(int32_t);
    constexpr int64_t place = OFFSET_ARRAYS * offset + COUNT_ARRAYS * length;
    constexpr int64_t group = OFFSET_ARRAYS * (offset + BLOCK_ALIGN) + COUNT_ARRAYS * BLOCK_ALIGN;
    STATIC_ASSERT(BATCH_BUCKET_MIN * place + group == CUDNN_BLOCK_BYTES_PER_ROW, "plans know it");
    return R * CUDNN_BLOCK_BYTES_PER_ROW;
}

int64_t cudnn_pack_score_bytes_max(int64_t R, const struct cudnn_pack_limits *limits)
{
    const int64_t bucket = cudnn_pack_len_bucket(min_i64(R, CUDNN_PACK_LEN_MAX));
    const int64_t batch =
        cudnn_pack_batch_bucket(min_i64(R, CUDNN_PACK_BATCH_MAX), CUDNN_PACK_BATCH_MAX);
    const int64_t bytes = batch * score_bytes(limits, bucket, bucket);
    return limits->score_bytes_max == 0 ? bytes : min_i64(bytes, limits->score_bytes_max);
}

bool cudnn_pack_next_padding(int64_t *row, int64_t *end, int64_t *s,
                             const struct attn_segment *segments, int64_t S, int64_t R)
{
    for (*row = *end; *row < R; *row = *end) {
        *end = *s < S ? segments[*s].start : R;
        const bool is_empty = *end == *row;
        if (!is_empty) return true;
        *end = (int64_t)segments[*s].start + segments[*s].len;
        (*s)++;
    }
    return false;
}
