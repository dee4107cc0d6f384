/* The emulator itself: what it computes, and that it notices what a GPU would punish. */
#include "testing.h"

#include "base/file.h"
#include "kernels/cuda/num.cuh"
#include "kernels/cuda/reduce.cuh"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static struct dev no_device; /* gpu_launch of the emulator needs none */

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
        gpu_launch(&no_device, "write_ids", write_ids, dim3(2, 3, 4), dim3(5, 3, 2), 0, &out[0]));
    for (int block = 0; block < 24; block++)
        for (int thread = 0; thread < 30; thread++)
            assert_int_equal(out[block * 30 + thread], block * 1000 + thread);
    assert_ok(gpu_launch(&no_device, "write_ids", write_ids, dim3(0), dim3(5), 0, &out[0]));
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
    assert_ok(gpu_launch(&no_device, "sum_rows", sum_rows, dim3(2), dim3(THREADS), 0, &out[0],
                         &x[0], (int)COUNT));
    for (int i = 0; i < 2 * THREADS; i++) assert_true(out[i] == total + 1000.0f * largest);
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
    assert_ok(gpu_launch(&no_device, "shuffles", shuffles, dim3(1), dim3(32), 0, &out[0]));
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
    assert_ok(gpu_launch(&no_device, "early_exit", early_exit, dim3(1), dim3(64), 0, &out[0]));
    for (int i = 0; i < 64; i++) sum += out[i];
    assert_int_equal(sum, 40);
}

/* ---- what it makes visible ---- */

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
    assert_ok(gpu_launch(&no_device, "rotate", rotate, dim3(1), dim3(64), 0, &out[0], true));
    for (int i = 0; i < 64; i++) assert_true(out[i] == (float)((i + 1) % 64));
    assert_ok(gpu_launch(&no_device, "rotate", rotate, dim3(1), dim3(64), 0, &out[0], false));
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
        gpu_launch(&no_device, "read_unwritten", read_unwritten, dim3(3), dim3(1), 16, &out[0]));
    for (int i = 0; i < 6; i++) assert_true(out[i] != out[i]);
}

__global__ void take_turn(int *order, int *count) { order[(*count)++] = (int)blockIdx.x; }

static void test_blocks_are_shuffled(void **state)
{
    (void)state;
    int order[50], seen[50] = { 0 }, count = 0, at_home = 0;
    assert_ok(
        gpu_launch(&no_device, "take_turn", take_turn, dim3(50), dim3(1), 0, &order[0], &count));
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

struct refused {
    const char *name;
    void (*kernel)(int *);
    int value;
    const char *message;
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
        const err_t rc = gpu_launch(&no_device, r->name, r->kernel, dim3(2), dim3(64), 0, &value);
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
    assert_ok(gpu_launch(&no_device, "overrun", overrun, dim3(1), dim3(1), 0, &index));
}

static void test_launch_faults(void **state)
{
    (void)state;
    int out[30] = { 0 };
    fault_arm("gpu.launch", 1);
    const err_t rc = gpu_launch(&no_device, "write_ids", write_ids, dim3(1), dim3(5), 0, &out[0]);
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
        cmocka_unit_test(test_shuffles),
        cmocka_unit_test(test_early_exit),
        cmocka_unit_test(test_missing_barrier),
        cmocka_unit_test(test_shared_is_undefined),
        cmocka_unit_test(test_blocks_are_shuffled),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_launch_faults),
        cmocka_unit_test(test_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
