/* seq.h against layouts worked out by hand, and against the rules written as plain loops. */
#include "golden.h"
#include "ref_positions.h"
#include "testing.h"

#include "data/seq.h"

#include <string.h>

static const struct tok_specials glm = { .unk = 0,
                                         .pad = 3,
                                         .mask = 130000,
                                         .gmask = 130001,
                                         .smask = 130002,
                                         .sop = 130004,
                                         .eop = 130005,
                                         .eos = 130005,
                                         .newline = 4,
                                         .space = 5 };
static const struct tok_specials glm2 = { .unk = 0,
                                          .pad = 0,
                                          .mask = 64789,
                                          .gmask = 64790,
                                          .smask = 64791,
                                          .sop = 64792,
                                          .eop = 64793,
                                          .eos = 2,
                                          .newline = 13,
                                          .space = 30910 };

static const int32_t hello[] = { 5, 74874 };
static const int32_t answer[] = { 5, 80842, 35 };

#define assert_i32(got, ...)                                                                       \
    do {                                                                                           \
        const int32_t expected_[] = { __VA_ARGS__ };                                               \
        assert_memory_equal(got, expected_, sizeof expected_);                                     \
    } while (0)

/* The published worked example: prompt 你好, answer 您好! */
static void test_worked_example(void **state)
{
    (void)state;
    int32_t ids[10], pos[10], block[10];
    struct seq s;
    assert_int_equal(seq_len(TOK_CHATGLM, 2, 3, true), 8);
    seq_build(&s, ids, pos, block, TOK_CHATGLM, &glm, hello, 2, answer, 3, true);
    assert_int_equal(s.len, 8);
    assert_int_equal(s.ctx, 3);
    assert_int_equal(s.target_first, 2);
    assert_int_equal(s.target_count, 5); /* <sop>, three tokens, <eop> */
    assert_i32(ids, 5, 74874, 130001, 130004, 5, 80842, 35, 130005);
    assert_i32(pos, 0, 1, 2, 2, 2, 2, 2, 2);
    assert_i32(block, 0, 0, 0, 1, 2, 3, 4, 5);
    assert_int_equal(ids[s.target_first + 1], glm.sop);
    assert_int_equal(ids[s.target_first + s.target_count], glm.eop);

    /* Padded on the right the reference goes on counting. */
    ids[8] = ids[9] = glm.pad;
    int64_t ctx = -1;
    assert_ok(ref_positions(&ctx, pos, block, ids, 10, &glm));
    assert_int_equal(ctx, 3);
    assert_i32(pos, 0, 1, 2, 2, 2, 2, 2, 2, 2, 2);
    assert_i32(block, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7);
}

static void test_without_end(void **state)
{
    (void)state;
    int32_t ids[8], pos[8], block[8];
    struct seq s;
    seq_build(&s, ids, pos, block, TOK_CHATGLM, &glm, hello, 2, answer, 3, false);
    assert_int_equal(s.len, 7);
    assert_int_equal(s.target_count, 4); /* <sop> and three tokens */
    assert_i32(ids, 5, 74874, 130001, 130004, 5, 80842, 35);

    seq_build(&s, ids, pos, block, TOK_CHATGLM, &glm, hello, 2, NULL, 0, false);
    assert_int_equal(s.len, 4);
    assert_i32(ids, 5, 74874, 130001, 130004);
    assert_i32(pos, 0, 1, 2, 2);
    assert_i32(block, 0, 0, 0, 1);

    /* The shortest of all: nothing said, nothing answered. */
    seq_build(&s, ids, pos, block, TOK_CHATGLM, &glm, NULL, 0, NULL, 0, true);
    assert_int_equal(s.len, 3);
    assert_int_equal(s.ctx, 1);
    assert_int_equal(s.target_first, 0);
    assert_int_equal(s.target_count, 2);
    assert_i32(pos, 0, 0, 0);
    assert_i32(block, 0, 1, 2);
}

static void test_chatglm2(void **state)
{
    (void)state;
    int32_t ids[8], pos[8], block[8];
    struct seq s;
    seq_build(&s, ids, pos, block, TOK_CHATGLM2, &glm2, hello, 2, answer, 3, true);
    assert_int_equal(s.len, 8);
    assert_int_equal(s.ctx, 0);
    assert_i32(ids, 64790, 64792, 5, 74874, 5, 80842, 35, 2);
    assert_i32(pos, 0, 1, 2, 3, 4, 5, 6, 7);
    assert_i32(block, 0, 0, 0, 0, 0, 0, 0, 0);
    assert_int_equal(s.target_first,
                     3); /* the prompt's last token is asked for the reply's first */
    assert_int_equal(s.target_count, 4); /* three tokens and the end */

    seq_build(&s, ids, NULL, NULL, TOK_CHATGLM2, &glm2, hello, 2, NULL, 0, false);
    assert_int_equal(s.len, 4);
    assert_int_equal(s.target_count, 0);
}

/* ref_positions of what seq_build wrote gives what seq_build gave. */
static void test_both_ways_agree(void **state)
{
    (void)state;
    int32_t prompt[20], reply[20], ids[64], pos[64], block[64], pos2[64], block2[64];
    for (int32_t i = 0; i < 20; i++) prompt[i] = 100 + i;
    for (int32_t i = 0; i < 20; i++) reply[i] = 200 + i;
    for (int64_t p = 0; p <= 20; p++) {
        for (int64_t t = 0; t <= 20; t++) {
            struct seq s;
            int64_t ctx = -1;
            seq_build(&s, ids, pos, block, TOK_CHATGLM, &glm, prompt, p, reply, t, t % 3 != 0);
            assert_int_equal(s.len, seq_len(TOK_CHATGLM, p, t, t % 3 != 0));
            assert_ok(ref_positions(&ctx, pos2, block2, ids, s.len, &glm));
            assert_int_equal(ctx, s.ctx);
            assert_memory_equal(pos, pos2, (size_t)s.len * sizeof *pos);
            assert_memory_equal(block, block2, (size_t)s.len * sizeof *block);
            assert_int_equal(s.target_first + s.target_count, s.len - 1);
        }
    }
}

static void test_mask_priority(void **state)
{
    (void)state;
    int32_t pos[8], block[8];
    int64_t ctx;

    const int32_t mask_inside[] = { 10, 130000, 11, 130004, 12, 13 };
    assert_ok(ref_positions(&ctx, pos, block, mask_inside, 6, &glm));
    assert_int_equal(ctx, 3);
    assert_i32(pos, 0, 1, 2, 1, 1, 1);
    assert_i32(block, 0, 0, 0, 1, 2, 3);

    /* Both: [gMASK] wins although [MASK] stands first. */
    const int32_t both[] = { 130000, 10, 130001, 130004, 12, 13 };
    assert_ok(ref_positions(&ctx, pos, block, both, 6, &glm));
    assert_i32(pos, 0, 1, 2, 2, 2, 2);

    /* The first of several counts, for masks and for <sop>. */
    const int32_t twice[] = { 10, 130001, 130001, 130004, 12, 130004 };
    assert_ok(ref_positions(&ctx, pos, NULL, twice, 6, &glm));
    assert_int_equal(ctx, 3);
    assert_i32(pos, 0, 1, 2, 1, 1, 1);
}

static void test_hostile_ids(void **state)
{
    (void)state;
    int32_t pos[8], block[8];
    int64_t ctx = 77;
    const int32_t no_sop[] = { 10, 130001, 11 };
    assert_err(ref_positions(&ctx, pos, block, no_sop, 3, &glm), FORMAT, "without <sop>");
    const int32_t no_mask[] = { 10, 11, 130004 };
    assert_err(ref_positions(&ctx, pos, block, no_mask, 3, &glm), FORMAT, "without [gMASK]");
    const int32_t after[] = { 10, 130004, 130001 };
    assert_err(ref_positions(&ctx, pos, block, after, 3, &glm), FORMAT, "row 2 comes after");
    assert_err(ref_positions(&ctx, pos, block, after, 0, &glm), FORMAT, "0 ids");
    assert_int_equal(ctx, 77);
}

/* ---- batches that the reference was run on ---- */

enum { GOLDEN_ROWS = 4, GOLDEN_LEN = 65 };

static void read_golden(int32_t *out, struct golden *golden, const char *name, int dims)
{
    struct golden_array a;
    assert_ok(golden_read(&a, golden, name, dims));
    assert_int_equal(a.count, dims == 2 ? GOLDEN_ROWS * GOLDEN_LEN : GOLDEN_ROWS);
    for (int64_t i = 0; i < a.count; i++) out[i] = (int32_t)a.value[i];
    golden_array_clear(&a);
}

/* Taken apart and built again, a golden sample is what it was, and its labels are those trained. */
static void check_golden(const int32_t *ids, const int32_t *labels, int64_t len,
                         const struct tok_specials *specials)
{
    int32_t built[GOLDEN_LEN], pos[GOLDEN_LEN], pos2[GOLDEN_LEN];
    struct seq s;
    int64_t ctx = 0;
    while (labels[ctx] == -100) ctx++;
    seq_build(&s, built, pos, NULL, TOK_CHATGLM, specials, ids, ctx - 1, ids + ctx + 1,
              len - ctx - 2, true);
    assert_int_equal(s.len, len);
    assert_int_equal(s.ctx, ctx);
    assert_memory_equal(built, ids, (size_t)len * sizeof *ids);
    for (int64_t r = 0; r + 1 < len; r++) {
        const bool trained = r >= s.target_first && r < s.target_first + s.target_count;
        assert_int_equal(labels[r + 1], trained ? built[r + 1] : -100);
    }
    assert_ok(ref_positions(&ctx, pos2, NULL, ids, len, specials));
    assert_int_equal(ctx, s.ctx);
    assert_memory_equal(pos, pos2, (size_t)len * sizeof *pos);
}

static void test_golden(void **state)
{
    (void)state;
    struct golden *golden;
    const struct tok_specials tiny = { .mask = 1272, .gmask = 1273, .sop = 1276, .eop = 1277 };
    int32_t ids[GOLDEN_ROWS][GOLDEN_LEN], labels[GOLDEN_ROWS][GOLDEN_LEN], lengths[GOLDEN_ROWS];
    assert_ok(golden_open(&golden, "tests/golden/chatglm-tiny"));
    read_golden(ids[0], golden, "batch/input_ids", 2);
    read_golden(labels[0], golden, "batch/labels", 2);
    read_golden(lengths, golden, "batch/lengths", 1);
    golden_close(golden);
    for (int64_t i = 0; i < GOLDEN_ROWS; i++) check_golden(ids[i], labels[i], lengths[i], &tiny);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worked_example), cmocka_unit_test(test_without_end),
        cmocka_unit_test(test_chatglm2),       cmocka_unit_test(test_both_ways_agree),
        cmocka_unit_test(test_mask_priority),  cmocka_unit_test(test_hostile_ids),
        cmocka_unit_test(test_golden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
