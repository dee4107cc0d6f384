/* cudnn_pack.h: exact groups, offsets and lengths, against values worked out by hand. */
#include "testing.h"

#include "kernels/cuda/cudnn_pack.h"

#include "base/check.h"

#include <stdlib.h>
#include <string.h>

static const struct cudnn_pack_limits unlimited = { 0, 2, 0 };

static void test_buckets(void **state)
{
    (void)state;
    static const int64_t lens[][2] = {
        { 1, 256 },     { 63, 256 },    { 64, 256 },    { 65, 256 },    { 127, 256 },
        { 128, 256 },   { 129, 256 },   { 192, 256 },   { 256, 256 },   { 257, 512 },
        { 512, 512 },   { 513, 1024 },  { 704, 1024 },  { 1024, 1024 }, { 1025, 2048 },
        { 2048, 2048 }, { 2049, 4096 }, { 4096, 4096 }, { 4097, 0 },    { 16384, 0 },
    };
    for (int64_t i = 0; i < COUNT_OF(lens); i++)
        assert_int_equal(cudnn_pack_len_bucket(lens[i][0]), lens[i][1]);

    assert_int_equal(cudnn_pack_batch_bucket(1, 64), 4);
    assert_int_equal(cudnn_pack_batch_bucket(4, 64), 4);
    assert_int_equal(cudnn_pack_batch_bucket(5, 64), 16);
    assert_int_equal(cudnn_pack_batch_bucket(17, 64), 64);
    assert_int_equal(cudnn_pack_batch_bucket(64, 64), 64);
    assert_int_equal(cudnn_pack_batch_bucket(1, 2), 2);

    /* 2 * 32 heads * 2048 * 2048 = 256 MiB a sample. */
    const struct cudnn_pack_limits limits = { (int64_t)512 << 20, 32, 0 };
    assert_int_equal(cudnn_pack_batch_max(&limits, 2048, 2048), 2);
    assert_int_equal(cudnn_pack_batch_max(&limits, 512, 2048), 8);
    assert_int_equal(cudnn_pack_batch_max(&limits, 256, 256), 64);
    assert_int_equal(cudnn_pack_batch_max(&limits, 4096, 4096), 0);
    assert_int_equal(cudnn_pack_batch_max(&unlimited, 4096, 4096), 64);
}

/* Lengths at and around the tiles of the engines, prefixes of 0, of a part and of all; rows 3..4,
 * and those behind the last segment, are padding. */
static const struct attn_segment mixed[] = {
    { 0, 1, 1 },       { 1, 0, 2 },       { 5, 62, 63 },   { 68, 64, 64 },    { 132, 1, 65 },
    { 197, 127, 127 }, { 324, 100, 128 }, { 452, 0, 129 }, { 581, 128, 192 }, { 773, 703, 704 },
};
#define MIXED_S 10

static void test_groups(void **state)
{
    (void)state;
    struct cudnn_group g;
    int64_t s = 0;
    assert_true(cudnn_pack_fits(&s, mixed, MIXED_S, &unlimited));
    assert_int_equal(s, MIXED_S);

    s = 0;
    assert_true(cudnn_pack_next(&g, &s, CUDNN_PACK_CONTEXT, mixed, MIXED_S, &unlimited));
    assert_int_equal(s, MIXED_S);
    assert_int_equal(g.count, 8);
    assert_int_equal(g.rows, 1 + 62 + 64 + 1 + 127 + 100 + 128 + 703);
    assert_int_equal(g.batch, 16);
    assert_int_equal(g.queries, 1024);
    assert_int_equal(g.keys, 1024);
    assert_false(cudnn_pack_next(&g, &s, CUDNN_PACK_CONTEXT, mixed, MIXED_S, &unlimited));

    s = 0;
    assert_true(cudnn_pack_next(&g, &s, CUDNN_PACK_TARGET, mixed, MIXED_S, &unlimited));
    assert_int_equal(g.count, 7);
    assert_int_equal(g.rows, 2 + 1 + 64 + 28 + 129 + 64 + 1);
    assert_int_equal(g.batch, 16);
    assert_int_equal(g.queries, 256);
    assert_int_equal(g.keys, 1024);
    assert_false(cudnn_pack_next(&g, &s, CUDNN_PACK_TARGET, mixed, MIXED_S, &unlimited));
}

static void check_offsets(const void *block, int64_t at, const int64_t *rows, int64_t row_stride,
                          int64_t count, int64_t batch)
{
    const int64_t *offsets = (const int64_t *)((const char *)block + at);
    for (int64_t i = 0; i <= batch; i++)
        assert_int_equal(offsets[i], rows[i < count ? i : count] * row_stride);
}

static void check_counts(const void *block, int64_t at, const int32_t *values, int64_t count,
                         int64_t batch)
{
    const int32_t *counts = (const int32_t *)((const char *)block + at);
    for (int64_t i = 0; i < batch; i++) assert_int_equal(counts[i], i < count ? values[i] : 0);
}

/* The arrays of a group, by where its rows begin and how many there are. */
struct test_arrays {
    const int64_t *q, *kv, *dkv; /* [count + 1] rows */
    const int32_t *queries, *keys, *alone;
    int64_t count;
};

static void check_arrays(enum cudnn_pack_call call, const struct cudnn_pack_rows *rows,
                         const struct test_arrays *t)
{
    struct cudnn_group g;
    int64_t s = 0;
    assert_true(cudnn_pack_next(&g, &s, call, mixed, MIXED_S, &unlimited));
    const struct cudnn_block b = cudnn_pack_block(g.batch);
    void *block = malloc((size_t)b.bytes);
    assert_non_null(block);
    cudnn_pack_fill(block, &g, mixed, rows);
    check_offsets(block, b.at_q, t->q, rows->qkv, t->count, g.batch);
    check_offsets(block, b.at_kv, t->kv, rows->qkv, t->count, g.batch);
    check_offsets(block, b.at_out, t->q, rows->out, t->count, g.batch);
    check_offsets(block, b.at_lse, t->q, rows->lse, t->count, g.batch);
    check_offsets(block, b.at_dkv, t->dkv, rows->dkv, t->count, g.batch);
    check_counts(block, b.query_count, t->queries, t->count, g.batch);
    check_counts(block, b.key_count, t->keys, t->count, g.batch);
    check_counts(block, b.alone, t->alone, t->count, g.batch);
    free(block);
}

static void test_context_arrays(void **state)
{
    (void)state;
    static const int64_t starts[] = { 0, 5, 68, 132, 197, 324, 581, 773, 773 + 703 };
    static const int64_t compact[] = { 0, 1, 63, 127, 128, 255, 355, 483, 1186 };
    static const int32_t lens[] = { 1, 62, 64, 1, 127, 100, 128, 703 };
    static const int32_t alone[] = { 1, 0, 1, 0, 1, 0, 0, 0 };
    const struct cudnn_pack_rows rows = { 96, 32, 2, 64, true };
    check_arrays(CUDNN_PACK_CONTEXT, &rows,
                 &(struct test_arrays){ .q = starts,
                                        .kv = starts,
                                        .dkv = compact,
                                        .queries = lens,
                                        .keys = lens,
                                        .alone = alone,
                                        .count = 8 });
}

static void test_target_arrays(void **state)
{
    (void)state;
    static const int64_t q[] = { 1, 5 + 62, 132 + 1, 324 + 100, 452, 581 + 128, 773 + 703, 1477 };
    static const int64_t kv[] = { 1, 5, 132, 324, 452, 581, 773, 1477 };
    static const int32_t queries[] = { 2, 1, 64, 28, 129, 64, 1 };
    static const int32_t keys[] = { 2, 63, 65, 128, 129, 192, 704 };
    static const int32_t alone[] = { 0, 0, 0, 0, 0, 0, 0 };
    const struct cudnn_pack_rows rows = { 96, 32, 2, 96, false };
    check_arrays(CUDNN_PACK_TARGET, &rows,
                 &(struct test_arrays){ .q = q,
                                        .kv = kv,
                                        .dkv = kv,
                                        .queries = queries,
                                        .keys = keys,
                                        .alone = alone,
                                        .count = 7 });
}

/* The workspace decides where a group ends: two samples of up to 2048 rows with 32 heads. */
static void test_groups_split(void **state)
{
    (void)state;
    static const struct attn_segment segments[] = {
        { 0, 100, 200 },     { 200, 100, 200 }, { 400, 100, 200 },
        { 600, 1500, 2048 }, { 2648, 0, 2000 }, { 4648, 1200, 1201 },
    };
    const struct cudnn_pack_limits limits = { (int64_t)512 << 20, 32, 0 };
    static const int64_t ends[] = { 3, 6 }, counts[] = { 3, 2 }, batches[] = { 4, 2 };
    struct cudnn_group g;
    int64_t s = 0;
    for (int i = 0; i < 2; i++) {
        assert_true(cudnn_pack_next(&g, &s, CUDNN_PACK_CONTEXT, segments, 6, &limits));
        assert_int_equal(g.segment_end, ends[i]);
        assert_int_equal(g.count, counts[i]);
        assert_int_equal(g.batch, batches[i]);
    }
    assert_false(cudnn_pack_next(&g, &s, CUDNN_PACK_CONTEXT, segments, 6, &limits));

    /* TARGET: queries 100, 100, 100, 548 | 2000, 1: eight samples of 1024 queries would not fit. */
    static const int64_t target_ends[] = { 4, 6 };
    s = 0;
    for (int i = 0; i < 2; i++) {
        assert_true(cudnn_pack_next(&g, &s, CUDNN_PACK_TARGET, segments, 6, &limits));
        assert_int_equal(g.segment_end, target_ends[i]);
        assert_true(2 * 32 * g.batch * g.queries * g.keys <= limits.score_bytes_max);
    }
    assert_false(cudnn_pack_next(&g, &s, CUDNN_PACK_TARGET, segments, 6, &limits));

    const struct cudnn_pack_limits rows = { 0, 32, 2700 };
    s = 0;
    assert_true(cudnn_pack_next(&g, &s, CUDNN_PACK_CONTEXT, segments, 6, &rows));
    assert_int_equal(g.rows, 1800);
    assert_int_equal(g.segment_end, 5); /* the fifth has no prefix: skipped */
}

static void test_too_long(void **state)
{
    (void)state;
    static const struct attn_segment segments[] = { { 0, 5, 10 }, { 10, 0, 4097 } };
    static const struct attn_segment prefix[] = { { 0, 4096, 4096 } };
    const struct cudnn_pack_limits limits = { (int64_t)512 << 20, 32, 0 };
    int64_t longest = 7;
    assert_false(cudnn_pack_fits(&longest, segments, 2, &unlimited));
    assert_int_equal(longest, 1);
    assert_true(cudnn_pack_fits(NULL, prefix, 1, &unlimited));
    assert_false(cudnn_pack_fits(&longest, prefix, 1, &limits));
    assert_int_equal(longest, 0);
}

static void test_padding(void **state)
{
    (void)state;
    static const struct attn_segment segments[] = { { 2, 1, 3 }, { 5, 0, 1 }, { 9, 1, 1 } };
    static const int64_t expected[][2] = { { 0, 2 }, { 6, 9 }, { 10, 16 } };
    int64_t row = 0, end = 0, s = 0, i = 0;
    for (; cudnn_pack_next_padding(&row, &end, &s, segments, 3, 16); i++) {
        assert_true(i < 3);
        assert_int_equal(row, expected[i][0]);
        assert_int_equal(end, expected[i][1]);
    }
    assert_int_equal(i, 3);

    end = s = 0;
    assert_false(cudnn_pack_next_padding(&row, &end, &s,
                                         (const struct attn_segment[]){ { 0, 1, 4 } }, 1, 4));
    end = s = 0;
    assert_true(cudnn_pack_next_padding(&row, &end, &s, NULL, 0, 4));
    assert_int_equal(end - row, 4);
}

static int64_t blocks_bytes(const struct attn_segment *segments, int64_t S,
                            const struct cudnn_pack_limits *limits)
{
    int64_t bytes = 0;
    struct cudnn_group g;
    for (int call = CUDNN_PACK_CONTEXT; call <= CUDNN_PACK_TARGET; call++)
        for (int64_t s = 0;
             cudnn_pack_next(&g, &s, (enum cudnn_pack_call)call, segments, S, limits);)
            bytes += cudnn_pack_block(g.batch).bytes;
    return bytes;
}

/* The bounds grow with R and hold for the cuts that need most: all samples of one row, or a prefix
 * and a target of one row each. */
static void test_bounds(void **state)
{
    (void)state;
    enum { R_MAX = 700 };
    const struct cudnn_pack_limits limits = { (int64_t)512 << 20, 32, 1 };
    static struct attn_segment ones[R_MAX], twos[R_MAX / 2];
    for (int i = 0; i < R_MAX; i++) ones[i] = (struct attn_segment){ i, i % 2, 1 };
    for (int i = 0; i < R_MAX / 2; i++) twos[i] = (struct attn_segment){ 2 * i, 1, 2 };
    for (int64_t R = 1; R <= R_MAX; R++) {
        const int64_t bound = cudnn_pack_blocks_bytes_max(R);
        assert_true(blocks_bytes(ones, R, &limits) <= bound);
        assert_true(blocks_bytes(twos, R / 2, &limits) <= bound);
        assert_true(bound > cudnn_pack_blocks_bytes_max(R - 1));
        assert_true(cudnn_pack_score_bytes_max(R, &limits) >=
                    cudnn_pack_score_bytes_max(R - 1, &limits));
    }
    assert_int_equal(cudnn_pack_score_bytes_max(1, &limits), 4 * 2 * 32 * 256 * 256);
    assert_int_equal(cudnn_pack_score_bytes_max(16384, &limits), (int64_t)512 << 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buckets),        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_context_arrays), cmocka_unit_test(test_target_arrays),
        cmocka_unit_test(test_groups_split),   cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_padding),        cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
