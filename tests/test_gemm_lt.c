/*
 * The cuBLASLt half of the product seam, run against a stand-in for the library: choices are made
 * once, kept in the file, found again, hashed; what accumulates survives being timed; each call
 * that fails is named. (That products are right is test_kernels_ops_linear's, run the same way.)
 */
#include "testing.h"

#include "base/digest.h"
#include "base/fault.h"
#include "base/file.h"
#include "kernels/ops_linear.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { R = 5, K = 8, N = 16, BYTES = 4096 };

/* dw_acc += dy^T x of ones: each call adds R to every element. */
struct layer {
    struct dev *dev;
    struct tensor dw, dy, x;
    struct scratch scratch;
    void *memory;
};

static void open_layer(struct layer *l)
{
    float ones[R * N];
    void *data;
    *l = (struct layer){ 0 };
    assert_ok(dev_open(&l->dev, "emu", 1));
    assert_ok(dev_alloc(l->dev, &l->memory, 3 * BYTES, "layer"));
    char *at = l->memory;
    for (int i = 0; i < R * N; i++) ones[i] = 1.0f;
    l->dw = tensor_2d(at, DTYPE_F32, N, K, "dw");
    l->dy = tensor_2d(at + BYTES, DTYPE_F32, R, N, "dy");
    l->x = tensor_2d(at + 2 * BYTES, DTYPE_F32, R, K, "x");
    assert_ok(dev_upload(l->dev, l->dy.data, ones, R * N * 4));
    assert_ok(dev_upload(l->dev, l->x.data, ones, R * K * 4));
    const struct linear_bwd_args args = { .dw_acc = &l->dw, .dy = &l->dy, .x = &l->x };
    l->scratch.bytes = op_linear_bwd_scratch_bytes(l->dev, &args);
    assert_ok(dev_alloc(l->dev, &data, l->scratch.bytes, "scratch"));
    l->scratch.data = data;
}

static err_t run(struct layer *l)
{
    return op_linear_bwd(l->dev,
                         &(struct linear_bwd_args){
                             .dw_acc = &l->dw, .dy = &l->dy, .x = &l->x, .scratch = l->scratch });
}

static void expect_calls(struct layer *l, int calls)
{
    float dw[N * K];
    assert_ok(dev_download(l->dev, dw, l->dw.data, sizeof dw));
    for (int i = 0; i < N * K; i++) assert_true(dw[i] == (float)(calls * R));
}

static void expect_choices(struct layer *l, const char *expected)
{
    struct buf text = { 0 };
    assert_ok(dev_tuning_write(&text, l->dev));
    assert_string_equal(text.size > 0 ? text.data : "", expected);
    buf_clear(&text);
}

static void close_layer(struct layer *l)
{
    dev_free(l->dev, l->scratch.data);
    dev_free(l->dev, l->memory);
    dev_close(l->dev);
}

static void use_file(char path[FILE_PATH_MAX], const char *name)
{
    assert_ok(path_join(path, testing_dir(), name));
    setenv("SOULCHAT_TUNE", path, 1);
}

static void test_choice(void **state)
{
    (void)state;
    struct layer l;
    struct buf first = { 0 }, second = { 0 };
    char path[FILE_PATH_MAX];
    use_file(path, "choice.tune");
    open_layer(&l);
    expect_choices(&l, "");
    assert_ok(run(&l));
    expect_calls(&l, 1); /* not once more for each time that was taken */
    assert_ok(file_read_all(&first, path, 1 << 20));
    expect_choices(&l, first.data);
    assert_non_null(strstr(first.data, "tn f32>f32 16x8x5 add a16,16,16; "));
    assert_non_null(strstr(first.data, "emulated GPU, cuBLASLt "));
    assert_ok(run(&l));
    expect_calls(&l, 2);
    close_layer(&l);

    open_layer(&l);
    assert_ok(run(&l));
    expect_calls(&l, 1);
    expect_choices(&l, first.data);
    assert_ok(file_read_all(&second, path, 1 << 20));
    assert_string_equal(first.data, second.data); /* nothing was timed again */
    close_layer(&l);
    buf_clear(&first);
    buf_clear(&second);
}

static void test_off(void **state)
{
    (void)state;
    struct layer l;
    setenv("SOULCHAT_TUNE", "off", 1);
    open_layer(&l);
    assert_ok(run(&l));
    expect_calls(&l, 1);
    expect_choices(&l, "");
    close_layer(&l);
}

/* A choice that this library cannot run (another driver, a hand in the file) is passed over. */
static void test_stale(void **state)
{
    (void)state;
    struct layer l;
    struct buf text = { 0 };
    char path[FILE_PATH_MAX];
    use_file(path, "stale.tune");
    open_layer(&l);
    assert_ok(run(&l));
    close_layer(&l);
    assert_ok(file_read_all(&text, path, 1 << 20));
    char *word = strstr(text.data, " 000000000000600d ");
    assert_non_null(word);
    word[13] = '7';
    uint32_t crc = crc32c(0, text.data, text.size - 16);
    snprintf(text.data + text.size - 16, 17, "crc32c %08x\n", crc);
    assert_ok(file_replace(path, text.data, (int64_t)text.size));
    open_layer(&l);
    assert_ok(run(&l));
    expect_calls(&l, 1);
    close_layer(&l);
    buf_clear(&text);
}

/* Choices that come as text, as from a checkpoint, are used without timing. */
static void test_adopted(void **state)
{
    (void)state;
    struct layer l;
    struct buf text = { 0 };
    char path[FILE_PATH_MAX];
    use_file(path, "adopted.tune");
    open_layer(&l);
    assert_ok(run(&l));
    assert_ok(dev_tuning_write(&text, l.dev));
    close_layer(&l);
    use_file(path, "adopted-anew.tune");
    open_layer(&l);
    assert_ok(dev_tuning_adopt(l.dev, text.data, (int64_t)text.size));
    assert_ok(run(&l));
    expect_calls(&l, 1);
    expect_choices(&l, text.data);
    assert_false(file_exists(path)); /* nothing was timed */
    assert_err(dev_tuning_adopt(l.dev, text.data, (int64_t)text.size - 1), FORMAT, "damaged");
    close_layer(&l);
    buf_clear(&text);
}

/* Every call of the library, failing in turn: opening, describing, proposing, timing, running. */
static void test_failures(void **state)
{
    (void)state;
    static const char *const sites[] = { "gemm.", "gpu.event", "gpu.copy", "gpu.sync" };
    setenv("SOULCHAT_TUNE", "off", 1);
    struct layer l;
    open_layer(&l);
    close_layer(&l);
    for (int64_t s = 0; s < COUNT_OF(sites); s++)
        for (int n = 1;; n++) {
            char path[FILE_PATH_MAX], name[32];
            snprintf(name, sizeof name, "%s%d.tune", sites[s], n);
            use_file(path, name);
            open_layer(&l);
            fault_arm(sites[s], n);
            const err_t rc = run(&l);
            const bool was_reached = fault_hits() >= n;
            fault_arm("", 0);
            assert_int_equal(rc, was_reached ? ERR_CUDA : ERR_OK);
            if (was_reached && s == 0)
                assert_non_null(strstr(err_last()->text, "tn f32>f32 16x8x5 add"));
            if (was_reached) assert_ok(run(&l)); /* nothing half made was kept */
            close_layer(&l);
            if (!was_reached) break;
        }
}

/* No host memory for what accumulates: the first proposal, and the sums are right. */
static void test_no_memory(void **state)
{
    (void)state;
    struct layer l;
    char path[FILE_PATH_MAX];
    use_file(path, "memory.tune");
    open_layer(&l);
    fault_arm("gpu.host_malloc", 1);
    assert_ok(run(&l));
    fault_arm("", 0);
    expect_calls(&l, 1);
    expect_choices(&l, "");
    assert_false(file_exists(path));
    close_layer(&l);
}

static void test_open_failures(void **state)
{
    (void)state;
    setenv("SOULCHAT_TUNE", "off", 1);
    for (int n = 1;; n++) {
        struct dev *dev;
        fault_arm("gemm.open", n);
        const err_t rc = dev_open(&dev, "emu", 1);
        const bool was_reached = fault_hits() >= n;
        fault_arm("", 0);
        assert_int_equal(rc, was_reached ? ERR_CUDA : ERR_OK);
        dev_close(dev);
        if (!was_reached) break;
    }
}

/* y = x + b for a bias anywhere: what the first one was aligned to is not what the next one is. */
static void test_bias_alignment(void **state)
{
    (void)state;
    char path[FILE_PATH_MAX];
    struct layer l;
    struct tensor y, b;
    float bias[N], eye[N * K] = { 0 }, out[R * N];
    void *data;
    use_file(path, "bias.tune");
    open_layer(&l);
    for (int i = 0; i < N; i++) bias[i] = (float)i;
    for (int i = 0; i < K; i++) eye[i * K + i] = 1.0f;
    assert_ok(dev_alloc(l.dev, &data, 2 * BYTES, "bias"));
    char *at = data;
    struct tensor w = tensor_2d(at + BYTES, DTYPE_F32, N, K, "w");
    assert_ok(dev_upload(l.dev, w.data, eye, sizeof eye));
    y = l.dy;
    for (int64_t offset = 0; offset <= 48; offset += 16) {
        b = tensor_1d(at + offset, DTYPE_F32, N, "b");
        struct linear_fwd_args args = { .y = &y, .x = &l.x, .w = &w, .bias = &b };
        assert_ok(dev_upload(l.dev, b.data, bias, sizeof bias));
        void *scratch;
        args.scratch.bytes = op_linear_fwd_scratch_bytes(l.dev, &args);
        assert_ok(dev_alloc(l.dev, &scratch, args.scratch.bytes, "scratch"));
        args.scratch.data = scratch;
        assert_ok(op_linear_fwd(l.dev, &args));
        assert_ok(dev_download(l.dev, out, y.data, sizeof out));
        for (int i = 0; i < R * N; i++)
            assert_true(out[i] == (float)(i % N) + (i % N < K ? 1.0f : 0.0f));
        dev_free(l.dev, scratch);
    }
    dev_free(l.dev, data);
    close_layer(&l);
}

/* An earlier minor version than the headers' will do, another major one will not. */
static void test_versions(void **state)
{
    struct dev *dev;
    (void)state;
    setenv("SOULCHAT_TUNE", "off", 1);
    setenv("FAKE_CUBLASLT", "minor", 1);
    assert_ok(dev_open(&dev, "emu", 1));
    dev_close(dev);
    setenv("FAKE_CUBLASLT", "major", 1);
    assert_err(dev_open(&dev, "emu", 1), CUDA, "is installed; this build needs a ");
    unsetenv("FAKE_CUBLASLT");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choice),        cmocka_unit_test(test_off),
        cmocka_unit_test(test_stale),         cmocka_unit_test(test_adopted),
        cmocka_unit_test(test_failures),      cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_open_failures), cmocka_unit_test(test_bias_alignment),
        cmocka_unit_test(test_versions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
