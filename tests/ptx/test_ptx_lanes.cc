/* Instructions of one lane: bits in, bits out, worked out by hand. */
#include "ptx/fixture.h"
#include "testing.h"

#include <cinttypes>
#include <cmath>
#include <cstring>

struct lane_case {
    const char *name; /* an instruction; its shape as in operations.h, the result first */
    const char *shape;
    uint64_t in[3], out;
};

static uint64_t f(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static uint64_t d(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static const uint64_t NONE = 0x7fffffff; /* the canonical number that is none */
static const uint64_t INF = 0x7f800000, TINY = 1, LARGEST = 0x7f7fffff;

static std::string register_of(char letter, size_t index)
{
    const char *const name = letter == 'p'   ? "%p"
                             : letter == 'h' ? "%h"
                             : letter == 'w' ? "%r"
                                             : "%l";
    return name + std::to_string(index);
}

/* Operand k comes in register k, widened to 64 bits where it is set; the result goes to *data. */
static std::string lines_of(const lane_case &c)
{
    std::string lines, operands = register_of(c.shape[0], 1);
    for (size_t k = 1; k < strlen(c.shape); k++) {
        const std::string r = register_of(c.shape[k], k + 1);
        const std::string bits = std::to_string(static_cast<int64_t>(c.in[k - 1]));
        if (c.shape[k] == 'p')
            lines += "mov.pred " + r + ", " + bits + ";\n";
        else
            lines += std::string("mov.b") +
                     (c.shape[k] == 'h'   ? "16 "
                      : c.shape[k] == 'w' ? "32 "
                                          : "64 ") +
                     r + ", " + bits + ";\n";
        operands += ", " + r;
    }
    lines += std::string(c.name) + " " + operands + ";\n";
    switch (c.shape[0]) {
    case 'p':
        return lines + "selp.b64 %l1, 1, 0, %p1;\nst.global.u64 [%l0], %l1;\n";
    case 'h':
        return lines + "cvt.u32.u16 %r1, %h1;\ncvt.u64.u32 %l1, %r1;\nst.global.u64 [%l0], %l1;\n";
    case 'w':
        return lines + "cvt.u64.u32 %l1, %r1;\nst.global.u64 [%l0], %l1;\n";
    default:
        return lines + "st.global.u64 [%l0], %l1;\n";
    }
}

static void check(const lane_case &c)
{
    uint64_t out = 0x5555555555555555;
    const std::string error = ptx_run(lines_of(c), &out, { 1, 1 });
    if (!error.empty()) fail_msg("%s: %s", c.name, error.c_str());
    if (out != c.out)
        fail_msg("%s of %" PRIx64 " %" PRIx64 " %" PRIx64 ": %" PRIx64 ", expected %" PRIx64,
                 c.name, c.in[0], c.in[1], c.in[2], out, c.out);
}

static void test_integers(void **state)
{
    (void)state;
    const uint64_t low = 0x80000000, all = 0xffffffff;
    const lane_case cases[] = {
        { "add.s32", "www", { 0x7fffffff, 2 }, 0x80000001 },
        { "add.s64", "lll", { UINT64_MAX, 3 }, 2 },
        { "sub.s32", "www", { 1, 3 }, 0xfffffffe },
        { "sub.s64", "lll", { 1, 3 }, UINT64_MAX - 1 },
        { "mul.lo.s32", "www", { 0x10001, 0x10001 }, 0x20001 },
        { "mul.lo.s64", "lll", { UINT64_C(1) << 33, 5 }, UINT64_C(5) << 33 },
        { "mad.lo.s32", "wwww", { 3, 5, all }, 14 },
        { "mul.wide.s32", "lww", { 0xfffffffe, 3 }, static_cast<uint64_t>(-6) },
        { "mul.wide.u32", "lww", { 0xfffffffe, 3 }, UINT64_C(0x2fffffffa) },
        { "mul.wide.u16", "whh", { 0xffff, 0xffff }, 0xfffe0001 },
        { "div.s32", "www", { static_cast<uint32_t>(-7), 2 }, 0xfffffffd },
        { "div.u32", "www", { 0xfffffff9, 2 }, 0x7ffffffc },
        { "div.s64", "lll", { static_cast<uint64_t>(-7), 2 }, static_cast<uint64_t>(-3) },
        { "rem.s32", "www", { static_cast<uint32_t>(-7), 3 }, 0xffffffff },
        { "rem.u32", "www", { 7, 4 }, 3 },
        { "div.s32", "www", { low, all }, low },
        { "rem.s32", "www", { low, all }, 0 },
        { "neg.s32", "ww", { 5 }, 0xfffffffb },
        { "min.s32", "www", { low, 1 }, low },
        { "max.s32", "www", { low, 1 }, 1 },
        { "min.s64", "lll", { UINT64_MAX, 1 }, UINT64_MAX },
        { "max.s64", "lll", { UINT64_MAX, 1 }, 1 },
        { "and.b32", "www", { 0xff00ff00, 0x0ff00ff0 }, 0x0f000f00 },
        { "or.b32", "www", { 0xf0, 0x0f }, 0xff },
        { "xor.b32", "www", { 0xff, 0x0f }, 0xf0 },
        { "not.b32", "ww", { 0xff }, 0xffffff00 },
        { "not.b64", "ll", { 0xff }, ~UINT64_C(0xff) },
        { "shl.b32", "www", { 3, 31 }, low },
        { "shl.b32", "www", { 3, 32 }, 0 },
        { "shl.b64", "llw", { 3, 63 }, UINT64_C(1) << 63 },
        { "shr.s32", "www", { low, 4 }, 0xf8000000 },
        { "shr.s32", "www", { low, 99 }, all },
        { "shr.u32", "www", { low, 4 }, 0x08000000 },
        { "shr.u32", "www", { low, 32 }, 0 },
        { "shr.u16", "hhw", { 0x8000, 4 }, 0x0800 },
        { "shr.s64", "llw", { UINT64_C(1) << 63, 63 }, UINT64_MAX },
        { "prmt.b32", "wwww", { 0x33221100, 0x77665544, 0x7604 }, 0x77660044 },
        { "prmt.b32", "wwww", { 0x00008000, 0, 0x0009 }, 0x000000ff },
        { "selp.b32", "wwwp", { 1, 2, 1 }, 1 },
        { "selp.s32", "wwwp", { 1, 2, 0 }, 2 },
        { "setp.lt.s32", "pww", { all, 0 }, 1 },
        { "setp.lt.u32", "pww", { all, 0 }, 0 },
        { "setp.ge.s64", "pll", { UINT64_MAX, 0 }, 0 },
        { "setp.gt.u32", "pww", { all, 0 }, 1 },
        { "setp.le.s32", "pww", { 4, 4 }, 1 },
        { "setp.eq.s16", "phh", { 0xffff, 0xffff }, 1 },
        { "setp.ne.s32", "pww", { 4, 4 }, 0 },
        { "and.pred", "ppp", { 1, 0 }, 0 },
        { "or.pred", "ppp", { 1, 0 }, 1 },
        { "xor.pred", "ppp", { 1, 1 }, 0 },
        { "not.pred", "pp", { 0 }, 1 },
        { "cvt.s64.s32", "lw", { low }, UINT64_C(0xffffffff80000000) },
        { "cvt.s64.s32", "ll", { UINT64_C(0x5500000080000000) }, UINT64_C(0xffffffff80000000) },
        { "cvt.u64.u32", "lw", { low }, low },
        { "cvt.u32.u64", "wl", { UINT64_C(0x500000004) }, 4 },
        { "cvt.u16.u32", "hw", { 0x12345 }, 0x2345 },
        { "mov.u32", "ww", { 0xdeadbeef }, 0xdeadbeef },
    };
    for (const lane_case &c : cases) check(c);
}

static void test_floating(void **state)
{
    (void)state;
    const float e = 0x1p-24f;
    const lane_case cases[] = {
        { "add.f32", "www", { f(1), f(e) }, f(1) }, /* to even */
        { "add.f32", "www", { f(1 + 2 * e), f(e) }, f(1 + 4 * e) },
        { "add.f32", "www", { INF, f(-HUGE_VALF) }, NONE },
        { "add.f32", "www", { TINY, TINY }, 2 }, /* subnormal numbers stay */
        { "sub.f32", "www", { f(1), f(1) }, 0 },
        { "mul.f32", "www", { f(0x1p-75f), f(0x1p-74f) }, TINY },
        { "mul.f32", "www", { 0x7fc00123, f(1) }, NONE },
        { "fma.rn.f32", "wwww", { f(1 + 2 * e), f(1 - 2 * e), f(-1) }, f(-0x1p-46f) },
        { "fma.rm.f32", "wwww", { f(1), f(1), f(-0x1p-40f) }, f(1 - e) },
        { "fma.rm.f32", "wwww", { f(1), f(1), f(0x1p-24f + 0x1p-40f) }, f(1) },
        { "fma.rm.f32", "wwww", { f(1), f(1), f(-1) }, f(-0.0f) },
        { "fma.rm.f32", "wwww", { LARGEST, f(2), 0 }, LARGEST },
        { "fma.rm.f32", "wwww", { f(-0x1p-100f), f(0x1p-100f), 0 }, f(-0x1p-149f) },
        { "fma.rn.f64", "llll", { d(3), d(5), d(0.5) }, d(15.5) },
        { "add.f64", "lll", { d(1), d(0x1p-52) }, d(1 + 0x1p-52) },
        { "mul.f64", "lll", { d(3), d(-5) }, d(-15) },
        { "div.rn.f32", "www", { f(1), f(3) }, 0x3eaaaaab },
        { "div.approx.f32", "www", { f(1), f(0x1p127f) }, 0 },
        { "div.approx.f32", "www", { f(-6), f(3) }, f(-2) },
        { "rcp.rn.f32", "ww", { f(3) }, 0x3eaaaaab },
        { "sqrt.rn.f32", "ww", { f(2) }, 0x3fb504f3 },
        { "abs.f32", "ww", { f(-2) }, f(2) },
        { "neg.f32", "ww", { 0 }, 0x80000000 },
        { "max.f32", "www", { NONE, f(-3) }, f(-3) },
        { "max.f32", "www", { NONE, 0x7fc00000 }, NONE },
        { "max.f32", "www", { f(-0.0f), 0 }, 0 },
        { "ex2.approx.f32", "ww", { f(-130) }, f(0x1p-130f) },
        { "ex2.approx.ftz.f32", "ww", { f(-130) }, 0 },
        { "ex2.approx.ftz.f32", "ww", { f(0.5f) }, 0x3fb504f3 },
        { "ex2.approx.ftz.f32", "ww", { f(-HUGE_VALF) }, 0 },
        { "cvt.sat.f32.f32", "ww", { f(1.5f) }, f(1) },
        { "cvt.sat.f32.f32", "ww", { f(-1.5f) }, 0 },
        { "cvt.sat.f32.f32", "ww", { NONE }, 0 },
        { "cvt.sat.f32.f32", "ww", { f(0.3f) }, f(0.3f) },
        { "cvt.rn.f32.s32", "ww", { 0xffffffff }, f(-1) },
        { "cvt.rn.f32.u32", "ww", { 0xffffffff }, f(0x1p32f) },
        { "cvt.rn.f32.f64", "wl", { d(1 + 0x1.8p-24) }, f(1 + 0x1p-23f) },
        { "cvt.f64.f32", "lw", { f(-0.1f) }, d(-0.1f) },
        { "cvt.rn.bf16.f32", "hw", { 0x3f808000 }, 0x3f80 },
        { "cvt.rn.bf16.f32", "hw", { 0x3f818000 }, 0x3f82 },
        { "cvt.rn.bf16.f32", "hw", { LARGEST }, 0x7f80 },
        { "cvt.rn.bf16.f32", "hw", { 0xff800001 }, 0x7fff },
        { "cvt.rn.bf16x2.f32", "www", { f(1), f(-2) }, 0x3f80c000 },
        { "cvt.rn.f16.f32", "hw", { f(1 + 0x1p-11f) }, 0x3c00 },
        { "cvt.rn.f16.f32", "hw", { f(1 + 0x3p-11f) }, 0x3c02 },
        { "cvt.rn.f16.f32", "hw", { f(65519) }, 0x7bff },
        { "cvt.rn.f16.f32", "hw", { f(-65520) }, 0xfc00 },
        { "cvt.rn.f16.f32", "hw", { f(0x1p-24f) }, 1 },
        { "cvt.rn.f16.f32", "hw", { f(0x1p-25f) }, 0 },
        { "cvt.rn.f16.f32", "hw", { f(2047.5f) }, 0x6800 },
        { "cvt.f32.f16", "wh", { 0x8001 }, f(-0x1p-24f) },
        { "cvt.f32.f16", "wh", { 0x7bff }, f(65504) },
        { "cvt.f32.f16", "wh", { 0xfc00 }, f(-HUGE_VALF) },
        { "setp.lt.f32", "pww", { f(-1), f(1) }, 1 },
        { "setp.lt.f32", "pww", { NONE, f(1) }, 0 },
        { "setp.ltu.f32", "pww", { NONE, f(1) }, 1 },
        { "setp.geu.f64", "pll", { d(1), d(2) }, 0 },
        { "setp.ne.f32", "pww", { NONE, NONE }, 0 },
        { "setp.neu.f32", "pww", { NONE, NONE }, 1 },
        { "setp.gtu.f32", "pww", { f(1), f(2) }, 0 },
        { "setp.nan.f32", "pww", { f(1), NONE }, 1 },
        { "setp.eq.f32", "pww", { f(-0.0f), 0 }, 1 },
    };
    for (const lane_case &c : cases) check(c);
}

/* Instructions that the table has no shape for. */
static void test_packing(void **state)
{
    (void)state;
    uint64_t out = 0;
    assert_true(ptx_run("mov.b32 %r1, 0x11112222; mov.b32 {%h1, %h2}, %r1; mov.b32 %r2, {%h2, %h1};"
                        "mov.b64 %l1, {%r2, %r1}; mov.b64 {%r4, %r5}, %l1;"
                        "bfi.b32 %r6, %r5, %r4, 8, 4; mov.b64 %l2, {%r6, %r5};"
                        "st.global.wb.u64 [%l0], %l2;",
                        &out, { 1, 1 })
                    .empty());
    assert_true(out == UINT64_C(0x1111222222221211)); /* 2 put into 0x22221111, at bit 8 */
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_integers),
                                        cmocka_unit_test(test_floating),
                                        cmocka_unit_test(test_packing) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
