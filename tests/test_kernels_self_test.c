/* self_test.h: a sound device passes; one wrong number, a NaN or a failing operator shows. */
#include "testing.h"

#include "base/check.h"
#include "kernels/ops_attn.h"
#include "kernels/ops_linear.h"
#include "kernels/self_test.h"

#include <math.h>
#include <string.h>

static const struct self_test_result *find(const struct self_test_result *r, int count,
                                           const char *op)
{
    for (int i = 0; i < count; i++)
        if (strcmp(r[i].op, op) == 0) return &r[i];
    fail_msg("no case of %s", op);
    return NULL;
}

/* The CPU backend, with one number of one result off by a thousandth. */
static err_t wrong_linear(struct dev *dev, const struct linear_fwd_args *args)
{
    TRY(ops_cpu.linear_fwd(dev, args));
    ((float *)args->y->data)[77] += 0.01f;
    return ERR_OK;
}

static err_t nan_attention(struct dev *dev, const struct attn_fwd_args *args)
{
    TRY(ops_cpu.attn_fwd(dev, args));
    ((float *)args->out->data)[0] = NAN;
    return ERR_OK;
}

static void test_finds_wrong_results(void **state)
{
    (void)state;
    struct self_test_result r[SELF_TESTS_MAX];
    struct ops_table table = ops_cpu;
    struct dev dev;
    int count;
    table.linear_fwd = wrong_linear;
    table.attn_fwd = nan_attention;
    dev_init_host(&dev, &table, 2);
    assert_ok(self_test_run(r, &count, &dev));
    for (int i = 0; i < count; i++)
        assert_int_equal(r[i].passed,
                         strcmp(r[i].op, "linear_fwd") != 0 && strcmp(r[i].op, "attn_fwd") != 0);
    assert_true(isinf(find(r, count, "attn_fwd")->error));
    assert_true(find(r, count, "linear_fwd")->error < 0.01);
    assert_int_equal(dev.stats.alloc_bytes, 0);

    table.linear_ce = NULL;
    assert_err(self_test_run(r, &count, &dev), UNSUPPORTED, "linear_ce");
    assert_int_equal(dev.stats.alloc_bytes, 0);
}

static void test_sound_device(void **state)
{
    (void)state;
    struct self_test_result r[SELF_TESTS_MAX];
    struct dev dev;
    int count;
    dev_init_host(&dev, &ops_cpu, 2);
    assert_true(strlen(dev.info.name) > 0 && dev.info.memory_bytes > 0);
    assert_ok(self_test_run(r, &count, &dev));
    assert_true(count >= 5);
    for (int i = 0; i < count; i++) assert_true(r[i].passed);
    assert_int_equal(dev.stats.alloc_bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sound_device),
        cmocka_unit_test(test_finds_wrong_results),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
