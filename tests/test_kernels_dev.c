/* Devices: opening, memory and its accounting, failures. */
#include "testing.h"

#include "base/fault.h"
#include "base/num.h"
#include "kernels/dev.h"
#include "kernels/ops_optim.h"

#include <string.h>

static void test_names(void **state)
{
    (void)state;
    struct dev *dev;
    const err_t rc = dev_open(&dev, "cuda:99", 1); /* no machine has that many */
    assert_true(rc == ERR_UNSUPPORTED || rc == ERR_CUDA);
    assert_null(dev);
    assert_err(dev_open(&dev, "cuda:x", 1), USAGE, "cuda:x");
    assert_err(dev_open(&dev, "cpu:1", 1), USAGE, "cpu:1");
    assert_err(dev_open(&dev, "gpu", 1), USAGE, "\"gpu\"");
    assert_err(dev_open(&dev, "cpu", -1), USAGE, "-1");
    assert_ok(dev_open(&dev, "cpu", 0));
    assert_true(dev->threads >= 1);
    assert_string_equal(dev->ops->name, "cpu");
    dev_close(dev);
    dev_close(NULL);
}

static void test_memory(void **state)
{
    (void)state;
    static const int64_t sizes[] = { 0, 1, 63, 4096, 5 << 20 };
    struct dev *dev;
    assert_ok(dev_open(&dev, "cpu", 3));
    unsigned char *data[COUNT_OF(sizes)];
    int64_t total = 0;
    for (int64_t i = 0; i < COUNT_OF(sizes); i++) {
        void *out;
        assert_ok(dev_alloc(dev, &out, sizes[i], "buffer"));
        assert_true((uintptr_t)out % 64 == 0);
        data[i] = out;
        for (int64_t b = 0; b < sizes[i]; b++) assert_int_equal(data[i][b], 0);
        memset(data[i], 0x5a, (size_t)sizes[i]);
        total += sizes[i];
        assert_int_equal(dev->stats.alloc_bytes, total);
        assert_int_equal(dev->stats.alloc_count, i + 1);
    }
    unsigned char there[63], back[63];
    for (int i = 0; i < 63; i++) there[i] = (unsigned char)i;
    assert_ok(dev_upload(dev, data[2], there, 63));
    assert_ok(dev_download(dev, back, data[2], 63));
    assert_memory_equal(there, back, 63);
    assert_ok(dev_zero(dev, data[4] + 1, sizes[4] - 2));
    assert_ok(dev_sync(dev));
    assert_int_equal(data[4][0], 0x5a);
    assert_int_equal(data[4][sizes[4] - 1], 0x5a);
    for (int64_t b = 1; b < sizes[4] - 1; b++) assert_int_equal(data[4][b], 0);
    for (int64_t i = 0; i < COUNT_OF(sizes); i++) dev_free(dev, data[i]);
    dev_free(dev, NULL);
    assert_int_equal(dev->stats.alloc_bytes, 0);
    void *again;
    assert_ok(dev_alloc(dev, &again, 4096, "less than before"));
    assert_int_equal(dev->stats.alloc_bytes_max, total);
    dev_free(dev, again);
    dev_close(dev);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct dev *dev;
    void *out = &dev;
    assert_ok(dev_open(&dev, "cpu", 1));
    assert_err(dev_alloc(dev, &out, INT64_MAX, "the moon"), NOMEM, "the moon");
    assert_null(out);
    fault_arm("dev.alloc", 1);
    assert_err(dev_alloc(dev, &out, 8, "weights"), NOMEM, "weights: 8 bytes wanted");
    fault_arm("dev.alloc", 0);
    assert_int_equal(dev->stats.alloc_count, 0);
    assert_int_equal(dev->stats.alloc_bytes_max, 0);
    dev_close(dev);
}

/* A table without an operator refuses it by name and writes nothing. */
static void test_missing_operator(void **state)
{
    (void)state;
    static const struct ops_table none = { .name = "none" };
    struct dev dev;
    dev_init_host(&dev, &none, 1);
    _Alignas(64) float y[16] = { 1 }, x[16] = { 2 };
    struct tensor y_t = tensor_1d(y, DTYPE_F32, 16, "y"), x_t = tensor_1d(x, DTYPE_F32, 16, "x");
    assert_err(op_add(&dev, &(struct add_args){ .y_acc = &y_t, .x = &x_t }), UNSUPPORTED, "add");
    assert_true(y[0] == 1.0f);
    assert_int_equal(op_add_scratch_bytes(&dev, &(struct add_args){ .y_acc = &y_t, .x = &x_t }), 0);
}

static void test_dtypes(void **state)
{
    (void)state;
    for (dtype_t d = 0; d < DTYPE_COUNT; d++) {
        assert_true(dtype_bytes(d) >= 1 && dtype_bytes(d) <= 8);
        assert_true(strlen(dtype_name(d)) >= 2);
        assert_int_equal(dtype_accumulator(d), d == DTYPE_F64 ? DTYPE_F64 : DTYPE_F32);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),     cmocka_unit_test(test_memory),
        cmocka_unit_test(test_no_memory), cmocka_unit_test(test_missing_operator),
        cmocka_unit_test(test_dtypes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
