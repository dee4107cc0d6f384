/* The emulator itself: what it computes, and that it notices what a GPU would punish. */
#include "testing.h"

#include "base/file.h"
#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/reduce.cuh"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define SHARED_MAX (227 << 10)

/* Of a device, what the emulator's gpu_launch looks at. */
static struct gpu card = { .shared_bytes_max = SHARED_MAX };
static struct dev emulated = { .state = &card };

/* ---- what it computes ---- */

__global__ void write_ids(int *out)
{
    const dim3 t = threadIdx, b = blockIdx, n = blockDim, g = gridDim;
    const unsigned thread = t.x + n.x * (t.y + n.y * t.z);
    const unsigned block = b.x + g.x * (b.y + g.y * b.z);
    out[block * n.x * n.y * n.z + thread] += (int)(block * 1000 + thread);
}

static void test_ids(void **state)
{
    (void)state;
    int out[24 * 30] = { 0 };
    assert_ok(
        gpu_launch(&emulated, "write_ids", write_ids, dim3(2, 3, 4), dim3(5, 3, 2), 0, &out[0]));
    for (int block = 0; block < 24; block++)
        for (int thread = 0; thread < 30; thread++)
            assert_int_equal(out[block * 30 + thread], block * 1000 + thread);
    assert_ok(gpu_launch(&emulated, "write_ids", write_ids, dim3(0), dim3(5), 0, &out[0]));
}

__global__ void sum_rows(float *out, const float *x, int count)
{
    SHARED_ARRAY(float, shared, 8);
    float sum = 0.0f;
    for (int i = (int)threadIdx.x; i < count; i += (int)blockDim.x) sum += x[i];
    const float total = block_sum(sum, shared);
    const float largest = block_max(sum, shared);
    out[blockIdx.x * blockDim.x + threadIdx.x] = total + 1000.0f * largest;
}

static void test_reductions(void **state)
{
    (void)state;
    enum { COUNT = 1000, THREADS = 256 };
    float x[COUNT], out[2 * THREADS];
    for (int i = 0; i < COUNT; i++) x[i] = (float)(i % 7);
    float total = 0.0f, largest = 0.0f;
    for (int t = 0; t < THREADS; t++) {
        float sum = 0.0f;
        for (int i = t; i < COUNT; i += THREADS) sum += x[i];
        total += sum; /* small integers: exact in any order */
        largest = sum > largest ? sum : largest;
    }
    assert_ok(gpu_launch(&emulated, "sum_rows", sum_rows, dim3(2), dim3(THREADS), 0, &out[0], &x[0],
                         (int)COUNT));
    for (int i = 0; i < 2 * THREADS; i++) assert_true(out[i] == total + 1000.0f * largest);
}

/* A block may have all of the shared memory, and no byte more: the refusal is before the launch. */
static void test_shared_limit(void **state)
{
    (void)state;
    int out = 0;
    assert_ok(gpu_launch(&emulated, "all", write_ids, dim3(1), dim3(1), SHARED_MAX, &out));
    out = -1;
    assert_err(gpu_launch(&emulated, "more", write_ids, dim3(1), dim3(1), SHARED_MAX + 1, &out),
               UNSUPPORTED,
               "kernel more: a block wants 232449 bytes of shared memory; this GPU has 232448");
    assert_int_equal(out, -1);
}

__global__ void shuffles(int *out)
{
    const int lane = (int)threadIdx.x;
    out[lane] = __shfl_sync(WARP_ALL, lane, 5) + 100 * __shfl_xor_sync(WARP_ALL, lane, 3) +
                10000 * __shfl_down_sync(WARP_ALL, lane, 4) +
                1000000 * __shfl_up_sync(WARP_ALL, lane, 1);
}

static void test_shuffles(void **state)
{
    (void)state;
    int out[32];
    assert_ok(gpu_launch(&emulated, "shuffles", shuffles, dim3(1), dim3(32), 0, &out[0]));
    for (int lane = 0; lane < 32; lane++)
        assert_int_equal(out[lane], 5 + 100 * (lane ^ 3) +
                                        10000 * (lane + 4 < 32 ? lane + 4 : lane) +
                                        1000000 * (lane > 0 ? lane - 1 : 0));
}

__global__ void early_exit(int *out)
{
    if (threadIdx.x >= 40) return; /* those who have left are not waited for */
    __syncthreads();
    out[threadIdx.x] = 1;
}

static void test_early_exit(void **state)
{
    (void)state;
    int out[64] = { 0 }, sum = 0;
    assert_ok(gpu_launch(&emulated, "early_exit", early_exit, dim3(1), dim3(64), 0, &out[0]));
    for (int i = 0; i < 64; i++) sum += out[i];
    assert_int_equal(sum, 40);
}

/* y[16, 16] = a b^T + a c with tiles a, b, c of 16 rows of 64: c's first 16 elements of a row. */
__global__ void products(float *y, const bf16 *a, const bf16 *b, const bf16 *c)
{
    SHARED_ARRAY(bf16, tiles, 3 * 16 * 64);
    const int lane = (int)threadIdx.x;
    const bf16 *const from[3] = { a, b, c };
    for (int i = lane; i < 3 * 128; i += 32)
        async_copy<16>(tiles + i / 128 * 1024 + tile_at<64>(i % 128 / 8, i % 8),
                       from[i / 128] + i % 128 * 8, true);
    async_commit();
    async_wait<0>();
    __syncthreads();
    float left[4] = { 0 }, right[4] = { 0 };
    uint32_t x[4], z[4];
    for (int k = 0; k < 4; k++) {
        load_a<64>(x, tiles, 0, k);
        load_b<64>(z, tiles + 1024, 0, k);
        mma_16x16x16(left, right, x, z);
    }
    load_a<64>(x, tiles, 0, 0); /* of a the first 16 columns */
    load_b_rows<64>(z, tiles + 2048, 0, 0);
    mma_16x16x16(left, right, x, z);
    for (int i = 0; i < 4; i++) {
        const int row = lane / 4 + i / 2 * 8, col = lane % 4 * 2 + i % 2;
        y[16 * row + col] = left[i];
        y[16 * row + col + 8] = right[i];
    }
}

static void test_products(void **state)
{
    (void)state;
    float y[256];
    bf16 tile[3][16 * 64];
    for (int t = 0; t < 3; t++) /* small integers: exact */
        for (int i = 0; i < 16 * 64; i++) tile[t][i] = to_bf16((float)((i * (7 + t) + t) % 11 - 5));
    assert_ok(gpu_launch(&emulated, "products", products, dim3(1), dim3(32), 0, &y[0], &tile[0][0],
                         &tile[1][0], &tile[2][0]));
    for (int row = 0; row < 16; row++)
        for (int col = 0; col < 16; col++) {
            float sum = 0.0f;
            for (int k = 0; k < 64; k++)
                sum += to_float(tile[0][64 * row + k]) * to_float(tile[1][64 * col + k]);
            for (int k = 0; k < 16; k++)
                sum += to_float(tile[0][64 * row + k]) * to_float(tile[2][64 * k + col]);
            assert_true(y[16 * row + col] == sum);
        }
    assert_int_equal(round_pair(1.0f, -2.0f), 0xc0003f80u);
}

/* As the instructions err, not as the host's functions do. */
static void test_approximations(void **state)
{
    (void)state;
    float above = 0.0f;
    for (float x = -8.0f; x < 8.0f; x += 0x1p-6f) {
        const float y = exp2_fast(x), q = __fdividef(1.0f, 9.0f + x), exact = 1.0f / (9.0f + x);
        assert_true(y >= exp2f(x) && y <= nextafterf(exp2f(x), INFINITY));
        assert_true(q >= exact && q <= nextafterf(exact, INFINITY));
        above += y > exp2f(x);
    }
    assert_true(above > 100.0f);
    assert_true(exp2_fast(0.0f) == 1.0f && exp2_fast(-INFINITY) == 0.0f && exp2_fast(-127.0f) == 0);
    assert_true(exp2_fast(NAN) != exp2_fast(NAN) && exp2_fast(200.0f) == INFINITY);
    assert_true(__fdividef(1.0f, 0x1p127f) == 0.0f && __fdividef(1.0f, INFINITY) == 0.0f);
    assert_true(emu::toward_zero(1.0 + 0x1.8p-24) == 1.0f);
    assert_true(emu::toward_zero(-1.0 - 0x1.8p-24) == -1.0f);
    assert_true(emu::toward_zero(0x1p-40) == 0x1p-40f && emu::toward_zero(0.0) == 0.0f);
}

/* ---- what it makes visible ---- */

/* Two groups of copies, of which the second is nothing but zeros: what is there before any wait,
 * after the wait for the first, and after all. */
__global__ void copies(float *out, const float *x)
{
    SHARED_ARRAY(float, shared, 8);
    for (int i = 0; i < 8; i++) shared[i] = 1.0f;
    async_copy<16>(shared, x, true);
    async_commit();
    async_copy<8>(shared + 4, x, false);
    async_commit();
    for (int i = 0; i < 8; i++) out[i] = shared[i];
    async_wait<1>();
    for (int i = 0; i < 8; i++) out[8 + i] = shared[i];
    async_wait<0>();
    for (int i = 0; i < 8; i++) out[16 + i] = shared[i];
}

static void test_late_copies(void **state)
{
    (void)state;
    alignas(16) const float x[4] = { 5, 6, 7, 8 };
    const float unknown = NAN, expected[24] = {
        unknown, unknown, unknown, unknown, unknown, unknown, 1, 1, /* before */
        5,       6,       7,       8,       unknown, unknown, 1, 1, /* after the first */
        5,       6,       7,       8,       0,       0,       1, 1, /* after all */
    };
    float out[24];
    assert_ok(gpu_launch(&emulated, "copies", copies, dim3(1), dim3(1), 0, &out[0], &x[0]));
    for (int i = 0; i < 24; i++)
        assert_true(out[i] == expected[i] || (out[i] != out[i] && expected[i] != expected[i]));
}

__global__ void rotate(float *out, bool synchronize)
{
    SHARED_ARRAY(float, shared, 64);
    shared[threadIdx.x] = (float)threadIdx.x;
    if (synchronize) __syncthreads();
    out[threadIdx.x] = shared[(threadIdx.x + 1) % 64];
}

static void test_missing_barrier(void **state)
{
    (void)state;
    float out[64];
    int wrong = 0;
    assert_ok(gpu_launch(&emulated, "rotate", rotate, dim3(1), dim3(64), 0, &out[0], true));
    for (int i = 0; i < 64; i++) assert_true(out[i] == (float)((i + 1) % 64));
    assert_ok(gpu_launch(&emulated, "rotate", rotate, dim3(1), dim3(64), 0, &out[0], false));
    for (int i = 0; i < 64; i++) wrong += out[i] != (float)((i + 1) % 64);
    assert_true(wrong > 10); /* each neighbour has run first with probability one half */
}

__global__ void read_unwritten(float *out)
{
    SHARED_ARRAY(float, own, 1);
    DYNAMIC_SHARED(float, dynamic);
    out[2 * blockIdx.x] = own[0];
    out[2 * blockIdx.x + 1] = dynamic[3];
    own[0] = dynamic[3] = 1.0f; /* does not survive into the next block */
}

static void test_shared_is_undefined(void **state)
{
    (void)state;
    float out[6];
    assert_ok(
        gpu_launch(&emulated, "read_unwritten", read_unwritten, dim3(3), dim3(1), 16, &out[0]));
    for (int i = 0; i < 6; i++) assert_true(out[i] != out[i]);
}

__global__ void take_turn(int *order, int *count) { order[(*count)++] = (int)blockIdx.x; }

static void test_blocks_are_shuffled(void **state)
{
    (void)state;
    int order[50], seen[50] = { 0 }, count = 0, at_home = 0;
    assert_ok(
        gpu_launch(&emulated, "take_turn", take_turn, dim3(50), dim3(1), 0, &order[0], &count));
    assert_int_equal(count, 50);
    for (int i = 0; i < 50; i++) {
        seen[order[i]]++;
        at_home += order[i] == i;
    }
    for (int i = 0; i < 50; i++) assert_int_equal(seen[i], 1);
    assert_true(at_home < 10);
}

/* ---- what it refuses ---- */

__global__ void half_a_barrier(int *unused)
{
    (void)unused;
    if (threadIdx.x == 40) (void)__shfl_sync(WARP_ALL, 1, 0); /* its warp is not there */
    __syncthreads();
}

__global__ void two_operations(int *unused)
{
    (void)unused;
    if (threadIdx.x < 16)
        (void)__shfl_sync(WARP_ALL, 1, 0);
    else
        __syncwarp();
}

__global__ void greedy(int *unused)
{
    SHARED_ARRAY(char, large, 300 << 10);
    large[0] = (char)unused[0];
}

__global__ void overrun(int *index)
{
    SHARED_ARRAY(int, small, 8);
    small[*index] = 1;
    *index = small[0];
}

__global__ void forgotten(int *unused)
{
    SHARED_ARRAY(int, shared, 4);
    (void)unused;
    async_copy<16>(shared, nullptr, false);
    async_commit();
    async_wait<1>();
}

__global__ void askew(int *unused)
{
    SHARED_ARRAY(int, shared, 8);
    (void)unused;
    async_copy<16>(shared + 1, nullptr, false);
}

__global__ void outside(int *address)
{
    uint32_t a[4];
    load_matrices(a, reinterpret_cast<const bf16 *>(reinterpret_cast<uintptr_t>(address) & ~15ull));
}

__global__ void few_lanes(int *unused)
{
    SHARED_ARRAY(bf16, shared, 64);
    uint32_t a[4];
    (void)unused;
    if (threadIdx.x >= 40) return;
    load_matrices(a, shared + threadIdx.x % 8 * 8);
}

__global__ void left_out(int *unused)
{
    (void)unused;
    (void)__shfl_sync(0x0000ffffu, 1, 0);
}

__global__ void meet(int *unused)
{
    (void)unused;
    __syncwarp();
}

/* Rows of 128 bytes without a swizzle: all in the same banks. */
__global__ void one_bank(int *unused)
{
    SHARED_ARRAY(bf16, shared, 16 * 64);
    uint32_t a[4];
    (void)unused;
    load_matrices(a, shared + threadIdx.x % 16 * 64);
}

__global__ void nothing(int *unused) { (void)unused; }

struct refused {
    const char *name;
    void (*kernel)(int *);
    int value;
    const char *message;
    dim3 grid = dim3(2), block = dim3(64);
};

/* Run it in a child, which must abort; its message is in `text`. */
static void run_refused(const struct refused *r, char *text, size_t text_bytes)
{
    int pipe_fd[2], status;
    assert_int_equal(pipe(pipe_fd), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        dup2(pipe_fd[1], STDERR_FILENO);
        int value = r->value;
        const err_t rc = gpu_launch(&emulated, r->name, r->kernel, r->grid, r->block, 0, &value);
        _exit(rc == ERR_OK ? 0 : 1);
    }
    close(pipe_fd[1]);
    size_t size = 0;
    for (ssize_t n = 1; n > 0; size += (size_t)n)
        n = read(pipe_fd[0], text + size, text_bytes - 1 - size);
    text[size < text_bytes ? size : text_bytes - 1] = '\0';
    close(pipe_fd[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(!WIFEXITED(status) || WEXITSTATUS(status) != 0);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct refused cases[] = {
        { "half_a_barrier", half_a_barrier, 0, "never reach" },
        { "two_operations", two_operations, 0, "different operations" },
        { "greedy", greedy, 0, "more shared memory than a block may have" },
        { "forgotten", forgotten, 0, "copies that it never waited for" },
        { "askew", askew, 0, "misaligned or outside shared memory" },
        { "outside", outside, 0, "misaligned or outside shared memory" },
        { "few_lanes", few_lanes, 0, "never reach" },
        { "left_out", left_out, 0, "leaves lanes out" },
        { "meet", meet, 0, "fewer than 32 lanes", dim3(1), dim3(40) },
        { "one_bank", one_bank, 0, "the same banks" },
        { "nothing", nothing, 0, "block size", dim3(1), dim3(1025) },
        { "nothing", nothing, 0, "block size", dim3(1), dim3(1, 1, 65) },
        { "nothing", nothing, 0, "block size", dim3(1), dim3(1u << 16, 1u << 16) },
        { "nothing", nothing, 0, "65535 blocks", dim3(1, 65536) },
        { "nothing", nothing, 0, "65535 blocks", dim3(1, 1, 65536) },
        { "nothing", nothing, 0, "2147483647", dim3(1u << 31) },
#if defined(__SANITIZE_ADDRESS__)
        { "overrun", overrun, 8, "AddressSanitizer" },
        { "overrun", overrun, -1, "AddressSanitizer" },
#endif
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        static char text[1 << 16];
        run_refused(&cases[i], text, sizeof text);
        if (strstr(text, cases[i].message) == NULL) fail_msg("%s: %s", cases[i].name, text);
        if (strncmp(cases[i].message, "Address", 7) != 0)
            assert_non_null(strstr(text, cases[i].name));
    }
    int index = 7;
    assert_ok(gpu_launch(&emulated, "overrun", overrun, dim3(1), dim3(1), 0, &index));
}

static void test_launch_faults(void **state)
{
    (void)state;
    int out[30] = { 0 };
    fault_arm("gpu.launch", 1);
    const err_t rc = gpu_launch(&emulated, "write_ids", write_ids, dim3(1), dim3(5), 0, &out[0]);
    fault_arm("", 0);
    assert_err(rc, CUDA, "kernel write_ids");
    assert_int_equal(out[4], 0);
}

/* ---- 16-bit numbers ---- */

static void test_numbers(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0x10000u; bits++) {
        const bf16 b = { (uint16_t)bits };
        const f16 h = { (uint16_t)bits };
        const float fb = to_float(b), fh = to_float(h);
        if (fb == fb) assert_int_equal(from_float<bf16>(fb).bits, bits);
        if (fh == fh) assert_int_equal(from_float<f16>(fh).bits, bits);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_reductions),
        cmocka_unit_test(test_shared_limit),
        cmocka_unit_test(test_shuffles),
        cmocka_unit_test(test_early_exit),
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_approximations),
        cmocka_unit_test(test_late_copies),
        cmocka_unit_test(test_missing_barrier),
        cmocka_unit_test(test_shared_is_undefined),
        cmocka_unit_test(test_blocks_are_shuffled),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_launch_faults),
        cmocka_unit_test(test_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
