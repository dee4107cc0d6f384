/* num.h against the plainest possible arithmetic, exhaustively for the 16-bit types. */
#include "testing.h"

#include "base/num.h"

#include <math.h>

static void test_f16_round_trip(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000u; h++) {
        const float f = f16_to_f32((uint16_t)h);
        const int exponent = (int)((h >> 10) & 31u);
        const double mantissa = (double)(h & 1023u);
        const double magnitude = exponent == 0 ? mantissa * 0x1p-24
                                               : ldexp(1024.0 + mantissa, exponent - 25);
        if (exponent == 31) {
            assert_true(mantissa == 0 ? isinf(f) : isnan(f));
        } else {
            assert_true((double)f == ((h & 0x8000u) ? -magnitude : magnitude));
        }
        if (!isnan(f)) assert_int_equal(f32_to_f16(f), h);
    }
}

/* Between two neighbours the nearer one wins, and the even one at the middle. */
static void test_f16_rounding(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7c00u; h++) {
        const double low = (double)f16_to_f32((uint16_t)h);
        const double high = h == 0x7bffu ? 65536.0 : (double)f16_to_f32((uint16_t)(h + 1));
        const float middle = (float)((low + high) / 2);
        const uint32_t even = (h & 1u) ? h + 1 : h;
        assert_int_equal(f32_to_f16(middle), even);
        assert_int_equal(f32_to_f16(nextafterf(middle, 0.0f)), h);
        assert_int_equal(f32_to_f16(nextafterf(middle, INFINITY)), h + 1);
        assert_int_equal(f32_to_f16(-middle), even | 0x8000u);
    }
    assert_int_equal(f32_to_f16(1e30f), 0x7c00u);
    assert_true(isnan(f16_to_f32(f32_to_f16(NAN))));
}

static void test_bf16(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000u; h++) {
        const float f = bf16_to_f32((uint16_t)h);
        if (!isnan(f)) assert_int_equal(f32_to_bf16(f), h);
    }
    assert_int_equal(f32_to_bf16(bits_to_f32(0x3f808000u)), 0x3f80u); /* tie to even: down */
    assert_int_equal(f32_to_bf16(bits_to_f32(0x3f818000u)), 0x3f82u); /* tie to even: up */
    assert_true(isnan(bf16_to_f32(f32_to_bf16(NAN))));
}

static void test_checked(void **state)
{
    (void)state;
    int64_t out = 7;
    assert_true(checked_mul(&out, 1 << 30, 1 << 30));
    assert_true(out == (int64_t)1 << 60);
    assert_false(checked_mul(&out, (int64_t)1 << 32, (int64_t)1 << 32));
    assert_false(checked_mul(&out, -1, 1));
    assert_false(checked_add(&out, INT64_MAX, 1));
    assert_true(out == (int64_t)1 << 60);
    assert_true(align_up(129, 128) == 256 && align_up(128, 128) == 128 && align_up(0, 128) == 0);
}

static void test_median(void **state)
{
    (void)state;
    double odd[] = { 9, -1, 4 }, even[] = { 8, 1, 4, 2 }, one[] = { -3 };
    assert_true(median_f64(odd, 3) == 4 && odd[0] == -1 && odd[2] == 9);
    assert_true(median_f64(even, 4) == 3);
    assert_true(median_f64(one, 1) == -3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f16_round_trip), cmocka_unit_test(test_f16_rounding),
        cmocka_unit_test(test_bf16),           cmocka_unit_test(test_checked),
        cmocka_unit_test(test_median),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
