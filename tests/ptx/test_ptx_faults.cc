/* What is refused, and in which words. */
#include "ptx/fixture.h"
#include "testing.h"

#include <cstring>

struct alignas(16) memory {
    uint32_t v[1024];
};

struct refused {
    const char *lines, *part;
    uint32_t block = 64;
    uint32_t grid = 1;
};

#define OWN_WORD "shl.b32 %r1, %r0, 2; mov.u32 %r2, s; add.s32 %r2, %r2, %r1;"
#define PARTNER  "xor.b32 %r3, %r1, 4; mov.u32 %r4, s; add.s32 %r4, %r4, %r3;"

/* Each thread's place in global memory, its neighbour's, one's in another warp. */
#define PLACES                                                                                     \
    "mov.u32 %r1, %ctaid.x; mul.wide.u32 %l1, %r1, 1024; add.s64 %l7, %l9, %l1;"                   \
    "xor.b32 %r3, %r0, 1; mul.wide.u32 %l8, %r3, 16; add.s64 %l8, %l8, %l0;"                       \
    "add.s64 %l8, %l8, %l1; xor.b32 %r3, %r0, 32; mul.wide.u32 %l6, %r3, 16;"                      \
    "add.s64 %l6, %l6, %l0;"
/* Each block's. */
#define BLOCKS "mov.u32 %r1, %ctaid.x; mul.wide.u32 %l7, %r1, 16; add.s64 %l7, %l7, %l0;"

static const refused cases[] = {
    /* Races. Neighbours are of one warp, for which its own barrier is enough. */
    { OWN_WORD PARTNER "st.shared.u32 [%r2], %r0; ld.shared.u32 %r5, [%r4];",
      "with no barrier between" },
    { OWN_WORD PARTNER "st.shared.u32 [%r2], %r0; bar.sync 0; ld.shared.u32 %r5, [%r4];"
                       "st.shared.u32 [%r2], %r0;",
      "written, read by thread" },
    { OWN_WORD "and.b32 %r5, %r0, 1; st.shared.u32 [s], %r5;", "written, written by thread" },
    { OWN_WORD PARTNER "st.shared.u32 [%r2], %r0; bar.warp.sync -1; ld.shared.u32 %r5, [%r4+128];",
      "shared address", 128 },
    { "mov.u32 %r1, 1; mov.b32 {%h1, %h2}, %r1; shl.b32 %r1, %r0, 1; mov.u32 %r2, s;"
      "add.s32 %r2, %r2, %r1; st.shared.u16 [%r2], %h1; and.b32 %r2, %r2, -4;"
      "ld.shared.u32 %r3, [%r2];",
      "with no barrier between" },
    { "ld.shared.u32 %r1, [s+8];", "address 8 read before anything was written" },
    /* The same in global memory, between threads and between blocks. */
    { PLACES "st.global.u32 [%l7], %r0; ld.global.u32 %r5, [%l8];", "read, written by thread" },
    { PLACES "ld.global.u32 %r5, [%l8]; st.global.u32 [%l7], %r0;", "written, read by thread" },
    { "ld.global.u32 %r5, [%l0]; setp.eq.u32 %p1, %r0, 33; @%p1 st.global.u32 [%l0], %r0;",
      "with no barrier between" },
    { "st.global.u32 [%l0], %r0;", "written, written by thread" },
    { "setp.eq.u32 %p1, %r0, 5; mov.b32 {%h1, %h2}, %r0; @%p1 st.global.u16 [%l0+2], %h1;"
      "ld.global.u32 %r5, [%l0];",
      "with no barrier between" },
    { PLACES "st.global.u32 [%l7], %r0; bar.warp.sync -1; ld.global.u32 %r5, [%l6];",
      "with no barrier between" },
    { "mov.u32 %r1, %ctaid.x; st.global.u32 [%l0], %r1;", "written, written by block (", 1, 2 },
    { BLOCKS "st.global.u32 [%l7], %r1; ld.global.u32 %r5, [%l0];", "read, written by block (0", 1,
      2 },
    { BLOCKS "ld.global.u32 %r5, [%l0+16]; st.global.u32 [%l7], %r1;", "written, read by block (0",
      1, 2 },
    { "mov.u32 %r1, 7; st.global.u32 [%l0], %r1;", "the same bits written by block (", 1, 2 },
    /* Copies. */
    { "mov.u32 %r1, s; cp.async.cg.shared.global [%r1], [%l0], 16, 16; cp.async.commit_group;"
      "ld.global.u32 %r2, [%l0+12]; add.s32 %r2, %r2, 1; st.global.u32 [%l0+12], %r2;"
      "cp.async.wait_group 0;",
      "of a copy changed on its way", 1 },
    { "mov.u32 %r1, s; cp.async.cg.shared.global [%r1], [%l0], 16, 16; cp.async.commit_group;"
      "ld.shared.u32 %r2, [%r1]; cp.async.wait_group 0;",
      "read while a copy is on its way", 1 },
    { "mov.u32 %r1, s; cp.async.cg.shared.global [%r1], [%l0], 16, 16; cp.async.commit_group;"
      "cp.async.wait_group 1;",
      "copies that it never waited for", 1 },
    { "shl.b32 %r1, %r0, 4; mov.u32 %r2, s; add.s32 %r2, %r2, %r1;"
      "cp.async.cg.shared.global [%r2], [%l9], 16, 16; cp.async.commit_group;"
      "cp.async.wait_group 0; ld.shared.u32 %r3, [s+16];",
      "read, written by thread 1 with no barrier" },
    { "mov.u32 %r1, s+8; cp.async.cg.shared.global [%r1], [%l0], 16, 16;", "is no multiple of 16" },
    { "mov.u32 %r1, s; add.s64 %l1, %l0, 8; cp.async.cg.shared.global [%r1], [%l1], 16, 16;",
      "is misaligned" },
    /* Addresses. */
    { "ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%l0+8];", "is no multiple of 16" },
    { "ld.global.u32 %r1, [%l0+2];", "is no multiple of 4" },
    { "ld.global.u32 %r1, [%l0+4096];", "4 bytes at" },
    { "st.global.u16 [%l0+-2], %h1;", "outside the device's memory" },
    { "st.shared.u32 [s+4096], %r0;", "outside the block's 4096 bytes" },
    { "ld.param.u64 %l1, [data+8];", "offset 8 of the parameters" },
    { "mov.u32 %r1, s; add.s32 %r1, %r1, 8; bar.sync 0;"
      "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r4, %r5, %r6, %r7}, [%r1];",
      "row at 8 is misaligned" },
    /* Lanes that do not come. */
    { "setp.lt.u32 %p1, %r0, 16; @%p1 bra L1; bar.warp.sync -1; bra L2; L1: bar.warp.sync -1; L2:",
      "lanes wait for each other" },
    { "setp.lt.u32 %p1, %r0, 16; @%p1 ret; bar.warp.sync -1;", "a member has ended: 0xffff" },
    { "setp.lt.u32 %p1, %r0, 16; @%p1 bar.sync 0;", "pass by" },
    { "setp.lt.u32 %p1, %r0, 16; @%p1 bra L1; bar.warp.sync 65535; L1:", "is no member" },
    { "shfl.sync.bfly.b32 %r1|%p1, %r0, 1, 31, %r0;", "different members" },
    { "setp.lt.u32 %p1, %r0, 32; @%p1 bra L1; bar.sync 1; bra L2; L1: bar.sync 2; L2:",
      "another barrier" },
    { "setp.lt.u32 %p1, %r0, 16; @%p1 bra L1;"
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%r1, %r1, %r1, %r1}, "
      "{%r1, %r1, %r1, %r1}, {%r1, %r1}, {%r1, %r1, %r1, %r1}; L1: bar.sync 0;",
      "lanes wait for each other" },
    { "bar.sync 0; mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%r1, %r1, %r1, %r1}, "
      "{%r1, %r1, %r1, %r1}, {%r1, %r1}, {%r1, %r1, %r1, %r1};",
      "wants all 32 lanes, has 0xff", 40 },
    /* Launches. */
    { "", "129 threads in a block, at most 128", 129 },
    { "", "a grid outside", 1, 0 },
};

static ptx::range only_this(void *context, uint64_t address)
{
    (void)address;
    const uint64_t begin = reinterpret_cast<uint64_t>(context);
    return { begin, begin + sizeof(memory) };
}

static void test_refusals(void **state)
{
    (void)state;
    static memory x;
    for (const refused &c : cases)
        assert_ptx_refused(ptx_run(c.lines, &x, { c.grid, c.block, 0, only_this, &x }), c.part);
    assert_ptx_refused(ptx_run("st.shared.u32 [s], %r0;", &x, { 1, 1, 224 << 10 }),
                       "233472 bytes of shared memory");
}

/* The same, put right. */
static void test_barriers_suffice(void **state)
{
    (void)state;
    static memory x;
    const char *const right[] = {
        OWN_WORD PARTNER "st.shared.u32 [%r2], %r0; bar.warp.sync -1; ld.shared.u32 %r5, [%r4];"
                         "bar.warp.sync -1; st.shared.u32 [%r2], %r5;",
        OWN_WORD "st.shared.u32 [%r2], %r0; bar.sync 0; ld.shared.u32 %r5, [s+4];"
                 "ld.shared.u32 %r5, [%r2]; bar.sync 0; st.shared.u32 [%r2], %r5;",
        "mov.u32 %r1, 7; st.shared.u32 [s], %r1;", /* all the same value */
        PLACES "st.global.u32 [%l7], %r0; bar.warp.sync -1; ld.global.u32 %r5, [%l8];"
               "bar.warp.sync -1; st.global.u32 [%l7], %r5;",
        PLACES "st.global.u32 [%l7], %r0; bar.sync 0; ld.global.u32 %r5, [%l8]; bar.sync 0;"
               "st.global.u32 [%l8], %r5; ld.global.u32 %r5, [%l8];",
        "ld.global.u32 %r5, [%l0]; ld.global.u32 %r5, [%l0+2048];",
        "shl.b32 %r1, %r0, 4; mov.u32 %r2, s; add.s32 %r2, %r2, %r1;"
        "cp.async.cg.shared.global [%r2], [%l9], 16, 0; cp.async.commit_group;"
        "cp.async.wait_group 0; bar.sync 0; ld.shared.u32 %r3, [s+16];",
    };
    for (const char *lines : right)
        assert_string_equal(ptx_run(lines, &x, { 3, 64, 0, only_this, &x }).c_str(), "");
    /* Where blocks may write the same bits, that is all they may. */
    const std::string seven = "mov.u32 %r1, 7; st.global.u32 [%l0], %r1; bar.sync 0;";
    const ptx_launch_shape same = { 3, 64, 0, only_this, &x, true };
    assert_string_equal(ptx_run(seven + "ld.global.u32 %r5, [%l0];", &x, same).c_str(), "");
    assert_ptx_refused(ptx_run("mov.u32 %r1, %ctaid.x; setp.eq.u32 %p1, %r1, 1; @%p1 bra L1;" +
                                   seven + "L1: ld.global.u32 %r5, [%l0];",
                               &x, same),
                       "by block (");
    assert_ptx_refused(ptx_run("mov.u32 %r1, %ctaid.x; st.global.u32 [%l0], %r1;", &x,
                               { 2, 1, 0, only_this, &x, true }),
                       "written, written by block (");
}

/* Where it happened: the line of the PTX, and that of the source. */
static void test_places(void **state)
{
    (void)state;
    std::string text = ptx_text(".loc 1 77 3\nld.global.u32 %r1, [%l0+2];"), error;
    text = ".file 1 \"some/where/scale.cu\"\n" + text;
    const ptx::module_ptr m = ptx::load(text, &error);
    assert_non_null(m.get());
    static memory x;
    const void *data = &x;
    const ptx::launch call = { ptx::find(*m, "k"), { 1, 1, 1 }, { 2, 1, 1 }, 0, &data };
    assert_ptx_refused(ptx::run(*m, call),
                       "PTX k, block (0,0,0), thread 0, line 14 (scale.cu:77): ");
}

static void test_texts(void **state)
{
    (void)state;
    const struct {
        const char *lines, *part;
    } wrong[] = {
        { "add.s33 %r1, %r2, %r3;", "line 12: unknown instruction add.s33" },
        { "add.s32 %r1, %r2, %l3;", "operands that are not understood: add.s32" },
        { "add.s32 %r1, %r2;", "not understood" },
        { "mov.u32 %r1, nowhere;", "not understood" },
        { "bra L9;", "not understood" },
        { "L1: L1:", "label L1 twice" },
        { "@%r1 ret;", "the guard %r1 is no predicate" },
        { "mov.f32 %r1, 0d3FF0000000000000;", "not understood" },
        { ".local .b8 x[4];", "unknown directive .local" },
        { "/* ", "the text ends too early" },
    };
    std::string error;
    for (const auto &w : wrong) {
        assert_null(ptx::load(ptx_text(w.lines), &error).get());
        assert_ptx_refused(error, w.part);
    }
    for (const char *text : { ".func f() { ret; }", ".entry k(", ".entry k() { }", "}", "." }) {
        assert_null(ptx::load(text, &error).get());
        assert_true(error.compare(0, 9, "PTX line ") == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_barriers_suffice),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
