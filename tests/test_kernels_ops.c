/* Every backend has every operator; the reference's rounding of numbers. */
#include "ops_harness.h"

#include "base/num.h"

#include <math.h>

/* ref_put rounds once: against num.h where both go from f32, and on the values where going through
 * f32 would round twice. */
static void test_rounding(void **state)
{
    (void)state;
    uint16_t h = 0;
    const struct tensor bf16 = tensor_1d(&h, DTYPE_BF16, 1, "bf16");
    const struct tensor f16 = tensor_1d(&h, DTYPE_F16, 1, "f16");
    for (uint32_t bits = 0; bits < 0xff800000u; bits += 65521u) {
        const float f = bits_to_f32(bits);
        if (isnan(f)) continue;
        ref_put(&bf16, 0, (double)f);
        assert_int_equal(h, f32_to_bf16(f));
        ref_put(&f16, 0, (double)f);
        assert_int_equal(h, f32_to_f16(f));
    }
    ref_put(&bf16, 0, 1.0 + 0x1p-8 + 0x1p-40); /* just above a tie that would go down */
    assert_int_equal(h, f32_to_bf16(1.0f + 0x1p-7f));
    ref_put(&bf16, 0, -1.0 - 0x1p-8 + 0x1p-40);
    assert_int_equal(h, f32_to_bf16(-1.0f));
    ref_put(&f16, 0, 1.0 + 0x1p-11 + 0x1p-40);
    assert_int_equal(h, f32_to_f16(1.0f + 0x1p-10f));
    ref_put(&f16, 0, 65519.999999999);
    assert_int_equal(h, 0x7bff);
    ref_put(&f16, 0, 65520.0);
    assert_int_equal(h, 0x7c00);
    ref_put(&bf16, 0, 1e300);
    assert_int_equal(h, 0x7f80);
}

static void test_table_complete(void **state)
{
    const struct ops_env *env = *state;
    int missing = 0;
#define X(op)                                                                                   \
    if (env->dev->ops->op == NULL) {                                                            \
        fprintf(stderr, "%s has no operator " #op "\n", env->dev->ops->name);                   \
        missing++;                                                                              \
    }
    OPS_LIST(X)
#undef X
    assert_int_equal(missing, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rounding),
        cmocka_unit_test(test_table_complete),
    };
    return ops_main("operator table", tests, COUNT_OF(tests));
}
