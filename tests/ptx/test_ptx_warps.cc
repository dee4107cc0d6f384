/* What lanes do together: shuffles, matrices, copies, branches. */
#include "ptx/fixture.h"
#include "testing.h"

#include <cmath>
#include <cstring>
#include <vector>

struct alignas(16) place {
    uint32_t v[4];
};

static void run_ok(const std::string &lines, void *data, const ptx_launch_shape &shape = {})
{
    const std::string error = ptx_run(lines, data, shape);
    if (!error.empty()) fail_msg("%s", error.c_str());
}

/* ---- shuffles ---- */

struct shuffle_case {
    const char *mode;
    int b, c;
    int from[32]; /* by hand; negative: outside, and the lane's own */
};

static void test_shuffles(void **state)
{
    (void)state;
    shuffle_case cases[4] = { { "bfly", 5, 31, {} },
                              { "up", 3, 0, {} },
                              { "down", 4, 31, {} },
                              { "idx", 2, 24 << 8 | 31, {} } };
    for (int lane = 0; lane < 32; lane++) {
        cases[0].from[lane] = lane ^ 5;
        cases[1].from[lane] = lane < 3 ? -1 : lane - 3;
        cases[2].from[lane] = lane > 27 ? -1 : lane + 4;
        cases[3].from[lane] = lane / 8 * 8 + 2; /* segments of 8 lanes */
    }
    for (const shuffle_case &c : cases) {
        place out[32] = {};
        run_ok(std::string("add.s32 %r1, %r0, 100;\nshfl.sync.") + c.mode + ".b32 %r2|%p1, %r1, " +
                   std::to_string(c.b) + ", " + std::to_string(c.c) +
                   ", -1;\nselp.b32 %r3, 1, 0, %p1;\nst.global.v2.u32 [%l9], {%r2, %r3};",
               out);
        for (int lane = 0; lane < 32; lane++) {
            const bool inside = c.from[lane] >= 0;
            assert_int_equal(out[lane].v[0], 100 + (inside ? c.from[lane] : lane));
            assert_int_equal(out[lane].v[1], inside);
        }
    }
}

/* ---- matrices ---- */

static uint16_t bf16_of(int small)
{
    const float x = static_cast<float>(small);
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return static_cast<uint16_t>(bits >> 16);
}

/* Asymmetric, and exact: every element of the products depends on its row, its column and k. */
static int a_at(int row, int k) { return (3 * row + 5 * k) % 13 - 6; }
static int b_at(int k, int col) { return (7 * k + 2 * col) % 11 - 4; }
static int c_at(int row, int col) { return 8 * row - 3 * col; }

/* a [16 rows, 16 k] and b [8 columns, 16 k] from shared memory as one would: ldmatrix of a's four
 * quarters, of b the two halves of k, and with b stored by rows of k the transposed ones. */
static const char *const MULTIPLY =
    "and.b32 %r1, %r0, 15; shr.u32 %r2, %r0, 4; shl.b32 %r1, %r1, 5; shl.b32 %r2, %r2, 4;\n"
    "mov.u32 %r3, s; add.s32 %r3, %r3, %r1; add.s32 %r3, %r3, %r2;\n"
    "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r4, %r5, %r6, %r7}, [%r3];\n"
    "ld.global.v4.f32 {%r12, %r13, %r14, %r15}, [%l9+2048];\n"
    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%r12, %r13, %r14, %r15}, "
    "{%r4, %r5, %r6, %r7}, {%r8, %r9}, {%r12, %r13, %r14, %r15};\n"
    "st.global.v4.f32 [%l9+2048], {%r12, %r13, %r14, %r15};\n";

struct product {
    uint16_t tiles[1024]; /* a at 0; b at 256, [col, k] or [k, col] with rows of 16 elements */
    float c[32][4];
};

static void check_product(bool transposed)
{
    static product p;
    for (int i = 0; i < 256; i++) {
        p.tiles[i] = bf16_of(a_at(i / 16, i % 16));
        const int k = transposed ? i / 16 : i % 16, col = transposed ? i % 16 : i / 16;
        p.tiles[256 + i] = bf16_of(col < 8 ? b_at(k, col) : 99);
    }
    for (int lane = 0; lane < 32; lane++)
        for (int r = 0; r < 4; r++)
            p.c[lane][r] = static_cast<float>(c_at(lane / 4 + r / 2 * 8, lane % 4 * 2 + r % 2));
    std::string lines;
    for (int part = 0; part < 2; part++) { /* of 512 bytes, to shared memory */
        const std::string at = std::to_string(512 * part);
        lines += "ld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%l9+" + at +
                 "]; shl.b32 %r1, %r0, 4;\n"
                 "mov.u32 %r3, s; add.s32 %r3, %r3, %r1;\n"
                 "st.shared.v4.u32 [%r3+" +
                 at + "], {%r4, %r5, %r6, %r7};\n";
    }
    /* Of b, four matrices are read and two used: columns 0..7 by k 0..7 and k 8..15. */
    lines += "bar.sync 0;\nand.b32 %r1, %r0, 7; shr.u32 %r2, %r0, 3; and.b32 %r2, %r2, 1;\n";
    lines += transposed ? "shl.b32 %r1, %r1, 5; shl.b32 %r2, %r2, 8;\n"
                        : "shl.b32 %r1, %r1, 5; shl.b32 %r2, %r2, 4;\n";
    lines += "mov.u32 %r3, s; add.s32 %r3, %r3, %r1; add.s32 %r3, %r3, %r2;\n"
             "ldmatrix.sync.aligned.m8n8.x4." +
             std::string(transposed ? "trans." : "") +
             "shared.b16 {%r8, %r9, %r10, %r11}, [%r3+512];\n" + MULTIPLY;
    run_ok(lines, &p);
    for (int lane = 0; lane < 32; lane++)
        for (int r = 0; r < 4; r++) {
            const int row = lane / 4 + r / 2 * 8, col = lane % 4 * 2 + r % 2;
            int sum = c_at(row, col);
            for (int k = 0; k < 16; k++) sum += a_at(row, k) * b_at(k, col);
            if (p.c[lane][r] != static_cast<float>(sum))
                fail_msg("(%d, %d): %g, expected %d", row, col, static_cast<double>(p.c[lane][r]),
                         sum);
        }
}

static void test_products(void **state)
{
    (void)state;
    check_product(false);
    check_product(true);
}

/* ---- copies ---- */

/* Two groups: the first has arrived when one may be on its way, zeros fill what is not read. */
static void test_copies(void **state)
{
    (void)state;
    place x[2] = { { { 1, 2, 3, 4 } }, { { 5, 6, 7, 8 } } };
    run_ok("mov.u32 %r1, s; add.s32 %r2, %r1, 16; mov.u32 %r3, 4; add.s64 %l1, %l0, 16;\n"
           "cp.async.cg.shared.global [%r1], [%l0], 16, %r3; cp.async.commit_group;\n"
           "cp.async.ca.shared.global [%r2], [%l1], 8, 8; cp.async.commit_group;\n"
           "cp.async.wait_group 1; ld.shared.v4.u32 {%r4, %r5, %r6, %r7}, [%r1];\n"
           "cp.async.wait_group 0; ld.shared.v2.u32 {%r8, %r9}, [%r2];\n"
           "st.global.v4.u32 [%l0], {%r4, %r5, %r6, %r7};\n"
           "st.global.v4.u32 [%l0+16], {%r8, %r9, %r9, %r8};",
           x, { 1, 1 });
    const uint32_t expected[8] = { 1, 0, 0, 0, 5, 6, 6, 5 };
    assert_memory_equal(x, expected, sizeof expected);
}

/* ---- branches ---- */

/* Lanes go through a loop as often as their number says, by two ways, and meet after it. */
static void test_branches(void **state)
{
    (void)state;
    place out[64] = {};
    run_ok("mov.u32 %r1, 0; mov.u32 %r2, 0;\n"
           "L1: setp.ge.s32 %p1, %r1, %r0; @%p1 bra L4;\n"
           "and.b32 %r3, %r1, 1; setp.eq.s32 %p2, %r3, 0; @%p2 bra L2;\n"
           "add.s32 %r2, %r2, 100; bra.uni L3;\n"
           "L2: add.s32 %r2, %r2, 1;\n"
           "L3: add.s32 %r1, %r1, 1; bra L1;\n"
           "L4: shfl.sync.bfly.b32 %r4|%p3, %r2, 1, 31, -1;\n"
           "setp.gt.s32 %p4, %r0, 60; @!%p4 st.global.v2.u32 [%l9], {%r2, %r4};",
           out, { 1, 64 });
    for (int t = 0; t < 64; t++) {
        const auto sum = [](int n) { return (n + 1) / 2 + n / 2 * 100; };
        assert_int_equal(out[t].v[0], t > 60 ? 0 : sum(t));
        assert_int_equal(out[t].v[1], t > 60 ? 0 : sum(t ^ 1));
    }
}

/* Warps exchange through shared memory, and those that have ended are not waited for. */
static void test_barrier(void **state)
{
    (void)state;
    place out[96] = {};
    run_ok("setp.ge.u32 %p1, %r0, 64; @%p1 ret; shl.b32 %r1, %r0, 2; mov.u32 %r2, d;\n"
           "add.s32 %r2, %r2, %r1; st.shared.u32 [%r2], %r0; bar.sync 0;\n"
           "mov.u32 %r3, 63; sub.s32 %r3, %r3, %r0; shl.b32 %r3, %r3, 2; mov.u32 %r4, d;\n"
           "add.s32 %r4, %r4, %r3; ld.shared.u32 %r5, [%r4]; st.global.u32 [%l9], %r5;",
           out, { 1, 96, 256 });
    for (uint32_t t = 0; t < 96; t++) assert_int_equal(out[t].v[0], t < 64 ? 63 - t : 0);
}

static void test_module(void **state)
{
    (void)state;
    std::string error;
    const ptx::module_ptr m = ptx::load(
        ".version 8.0\n.global .align 4 .b8 numbers[8] = {1, 2, 3, 4, 255};\n"
        ".entry one(.param .u8 a, .param .align 8 .b8 b[12], .param .u64 .ptr .align 1 c)\n"
        ".maxntid 64, 2, 1\n{\n.reg .b32 %r<3>; .reg .b64 %l<3>; .shared .align 4 .b8 s[20];\n"
        "ld.param.u8 %r1, [a]; ld.global.u32 %r2, [numbers+4]; st.shared.u32 [s], %r1;\n"
        "add.s32 %r1, %r1, %r2; ld.param.u32 %r2, [b+8]; add.s32 %r1, %r1, %r2;\n"
        "ld.param.u64 %l1, [c]; mov.u32 %r2, %nctaid.y; add.s32 %r1, %r1, %r2;\n"
        "st.global.u32 [%l1], %r1; ret;\n}\n.entry two() { ret; }\n",
        &error);
    if (m == nullptr) fail_msg("%s", error.c_str());
    assert_int_equal(ptx::kernels(*m).size(), 2);
    assert_null(ptx::find(*m, "three"));
    const ptx::kernel *k = ptx::find(*m, "one");
    assert_int_equal(k->params.size(), 3);
    assert_int_equal(k->params[1].offset, 8);
    assert_int_equal(k->params[2].offset, 24);
    assert_int_equal(k->param_bytes, 32);
    assert_int_equal(k->shared_bytes, 32); /* up to where a dynamic array would begin */
    assert_int_equal(k->threads_max, 128);
    int64_t bytes = 0;
    assert_int_equal(static_cast<unsigned char *>(ptx::variable(*m, "numbers", &bytes))[4], 255);
    assert_int_equal(bytes, 8);

    uint32_t out = 0;
    unsigned char params[32] = { 7 };
    const uint32_t last = 1000;
    const uint32_t *const to = &out;
    memcpy(params + 16, &last, sizeof last);
    memcpy(params + 24, &to, sizeof to);
    ptx::launch call = { k, { 1, 3, 1 }, { 1, 1, 1 }, 0, params };
    call.same_bits = true;
    assert_string_equal(ptx::run(*m, call).c_str(), "");
    assert_int_equal(out, 7 + 255 + 1000 + 3);
    assert_int_equal(ptx::instructions(*m), 11 * 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shuffles), cmocka_unit_test(test_products),
        cmocka_unit_test(test_copies),   cmocka_unit_test(test_branches),
        cmocka_unit_test(test_barrier),  cmocka_unit_test(test_module),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
