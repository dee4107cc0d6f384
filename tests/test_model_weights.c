/* Conversion while reading, and comparison, over a source made here. */
#include "base/num.h"
#include "model/weights.h"
#include "testing.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Element i of tensor t, as the type says; large enough to span several blocks of the reader. */
#define COUNT 70001

struct fake {
    struct weight_source source;
    struct weight_info info[8];
    int64_t count;
    int64_t changed; /* this element of tensor 1 differs from tensor 0 */
    int64_t largest_read;
};

static int64_t fake_count(const struct weight_source *s) { return ((const struct fake *)s)->count; }

static struct weight_info fake_info(const struct weight_source *s, int64_t index)
{
    return ((const struct fake *)s)->info[index];
}

static uint16_t pattern(int64_t i) { return (uint16_t)(i * 40503u); }

static err_t fake_read(struct weight_source *s, void *out, int64_t index, int64_t first,
                       int64_t count)
{
    struct fake *f = (struct fake *)s;
    f->largest_read = max_i64(f->largest_read, count);
    for (int64_t i = 0; i < count; i++) {
        uint16_t half = pattern(first + i);
        if (index == 1 && first + i == f->changed) half ^= 1;
        const float f32 = f16_to_f32(half);
        const double f64 = (double)f32 + 1e-13;
        switch (f->info[index].dtype) {
        case DTYPE_F32:
            memcpy((char *)out + 4 * i, &f32, 4);
            break;
        case DTYPE_F64:
            memcpy((char *)out + 8 * i, &f64, 8);
            break;
        default:
            memcpy((char *)out + 2 * i, &half, 2);
            break;
        }
    }
    return ERR_OK;
}

static void fake_close(struct weight_source *s) { ((struct fake *)s)->count = -1; }

/* No find: the names are then looked through. */
static const struct weight_source_ops fake_ops = { fake_count, fake_info, NULL, fake_read,
                                                   fake_close };

static struct fake fake_of(dtype_t a, dtype_t b)
{
    return (struct fake){
        .source = { &fake_ops },
        .count = 4,
        .changed = -1,
        .info = { { "a", a, 2, { COUNT, 1, 1, 1 }, COUNT },
                  { "b", b, 2, { COUNT, 1, 1, 1 }, COUNT },
                  { "int", DTYPE_I32, 1, { 3, 1, 1, 1 }, 3 },
                  { "odd", DTYPE_COUNT, 1, { 3, 1, 1, 1 }, 3 } },
    };
}

static void test_find(void **state)
{
    (void)state;
    struct fake f = fake_of(DTYPE_F16, DTYPE_F16);
    assert_int_equal(weight_source_find(&f.source, "int"), 2);
    assert_int_equal(weight_source_find(&f.source, "in"), -1);
    weight_source_close(&f.source);
    assert_int_equal(f.count, -1);
    weight_source_close(NULL);
}

static void test_every_conversion(void **state)
{
    (void)state;
    static const dtype_t types[] = { DTYPE_F16, DTYPE_BF16, DTYPE_F32, DTYPE_F64 };
    float *f32 = malloc(COUNT * sizeof *f32);
    double *f64 = malloc(COUNT * sizeof *f64);
    assert_true(f32 && f64);
    for (int t = 0; t < 4; t++) {
        struct fake f = fake_of(types[t], types[t]);
        assert_ok(weight_source_read_as(&f.source, f32, DTYPE_F32, 0, 0, COUNT));
        assert_ok(weight_source_read_as(&f.source, f64, DTYPE_F64, 0, 0, COUNT));
        for (int64_t i = 0; i < COUNT; i++) {
            const float narrow =
                types[t] == DTYPE_BF16 ? bf16_to_f32(pattern(i)) : f16_to_f32(pattern(i));
            const double wide = types[t] == DTYPE_F64 ? (double)narrow + 1e-13 : (double)narrow;
            if (isnan(narrow)) {
                assert_true(isnan(f32[i]) && isnan(f64[i]));
                continue;
            }
            assert_true(f32[i] == (float)wide);
            assert_true(f64[i] == wide);
        }
        /* A piece is that piece of the whole. */
        float piece[3];
        assert_ok(weight_source_read_as(&f.source, piece, DTYPE_F32, 0, 40000, 3));
        assert_memory_equal(piece, f32 + 40000, sizeof piece);
    }
    free(f32);
    free(f64);
}

/* Element i of a tensor made of halves, in f32. */
static float stored(dtype_t dtype, int64_t i)
{
    const float half = f16_to_f32(pattern(i));
    return dtype == DTYPE_F64 ? (float)((double)half + 1e-13) : half;
}

/* To 16 bits: what is stored so comes bit by bit, everything else is rounded. */
static void test_to_16_bits(void **state)
{
    (void)state;
    static const dtype_t types[] = { DTYPE_F16, DTYPE_BF16, DTYPE_F32, DTYPE_F64 };
    uint16_t *out = malloc(COUNT * sizeof *out);
    assert_non_null(out);
    for (int t = 0; t < 2; t++) {
        struct fake same = fake_of(types[t], types[t]);
        assert_ok(weight_source_read_as(&same.source, out, types[t], 0, 0, COUNT));
        for (int64_t i = 0; i < COUNT; i++) assert_int_equal(out[i], pattern(i));
    }
    for (int t = 0; t < 4; t++) {
        struct fake f = fake_of(types[t], types[t]);
        if (types[t] == DTYPE_BF16) continue; /* most of its numbers are beyond f16 */
        assert_ok(weight_source_read_as(&f.source, out, DTYPE_BF16, 0, 0, COUNT));
        for (int64_t i = 0; i < COUNT; i++)
            assert_int_equal(out[i], f32_to_bf16(stored(types[t], i)));
        assert_ok(weight_source_read_as(&f.source, out, DTYPE_F16, 0, 7, COUNT - 7));
        for (int64_t i = 7; i < COUNT; i++)
            assert_int_equal(out[i - 7],
                             types[t] == DTYPE_F16 ? pattern(i) : f32_to_f16(stored(types[t], i)));
    }
    free(out);
}

static void test_beyond_16_bits(void **state)
{
    (void)state;
    struct fake f = fake_of(DTYPE_BF16, DTYPE_BF16);
    uint16_t *out = malloc(COUNT * sizeof *out);
    int64_t first = 50000;
    char part[64];
    assert_non_null(out);
    while (!(isfinite(bf16_to_f32(pattern(first))) && fabsf(bf16_to_f32(pattern(first))) >= 65520))
        first++;
    snprintf(part, sizeof part, "a: element %lld is ", (long long)first);
    assert_err(weight_source_read_as(&f.source, out, DTYPE_F16, 0, 50000, COUNT - 50000), NUMERIC,
               part);
    free(out);

    const float values[] = { INFINITY, NAN, -65519.0f, 65520.0f, -1e6f, 0x1.ffp127f, 1.0f };
    uint16_t half[7];
    assert_int_equal(weight_round(half, DTYPE_F16, values, 7), 3);
    assert_int_equal(half[0], 0x7c00);
    assert_int_equal(half[2], 0xfbff);
    assert_int_equal(half[6], 0x3c00);
    assert_int_equal(weight_round(half, DTYPE_F16, values, 3), -1);
    assert_int_equal(weight_round(half, DTYPE_BF16, values, 7), 5);
    assert_int_equal(weight_round(half, DTYPE_BF16, values, 5), -1);
}

static void test_matrix_dtype(void **state)
{
    (void)state;
    static const struct {
        dtype_t a, b, expected;
    } rows[] = { { DTYPE_F16, DTYPE_F16, DTYPE_F16 },  { DTYPE_BF16, DTYPE_BF16, DTYPE_BF16 },
                 { DTYPE_F16, DTYPE_BF16, DTYPE_F32 }, { DTYPE_F32, DTYPE_F16, DTYPE_F32 },
                 { DTYPE_F64, DTYPE_F64, DTYPE_F32 },  { DTYPE_COUNT, DTYPE_COUNT, DTYPE_F32 } };
    for (int64_t i = 0; i < COUNT_OF(rows); i++) {
        struct fake f = fake_of(rows[i].a, rows[i].b);
        assert_int_equal(weight_source_matrix_dtype(&f.source), rows[i].expected);
        f.info[1].dims = 1; /* vectors have no say */
        f.info[1].dtype = DTYPE_F64;
        const dtype_t alone =
            rows[i].a == DTYPE_BF16 || rows[i].a == DTYPE_F16 ? rows[i].a : DTYPE_F32;
        assert_int_equal(weight_source_matrix_dtype(&f.source), alone);
        f.count = 0;
        assert_int_equal(weight_source_matrix_dtype(&f.source), DTYPE_F32);
    }
}

static void test_types_that_do_not_convert(void **state)
{
    (void)state;
    struct fake f = fake_of(DTYPE_F16, DTYPE_F16);
    double out[3];
    assert_err(weight_source_read_as(&f.source, out, DTYPE_F64, 2, 0, 3), DTYPE, "int is i32");
    assert_err(weight_source_read_as(&f.source, out, DTYPE_F32, 3, 0, 3), DTYPE, "odd is stored");
    assert_err(weight_source_read_as(&f.source, out, DTYPE_F16, 2, 0, 3), DTYPE, "int is i32");
    assert_err(weight_source_read_as(&f.source, out, DTYPE_BF16, 3, 0, 3), DTYPE, "odd is stored");
    assert_err(weight_source_read(&f.source, out, 3, 0, 3), DTYPE, "odd is stored");
}

static void test_compare(void **state)
{
    (void)state;
    int64_t row;
    struct fake same =
        fake_of(DTYPE_F16, DTYPE_F16); /* the pattern holds NaNs; bytes are compared */
    assert_ok(weight_source_compare(&row, &same.source, 0, 1));
    assert_int_equal(row, -1);
    static const int64_t places[] = { 0, 1, 32767, 32768, COUNT - 1 };
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        same.changed = places[i];
        assert_ok(weight_source_compare(&row, &same.source, 0, 1));
        assert_int_equal(row, places[i]);
    }

    /* The row is that of the first dimension. */
    same.changed = 70000;
    same.info[0].dim[0] = same.info[1].dim[0] = 7;
    same.info[0].dim[1] = same.info[1].dim[1] = 10000;
    same.info[0].count = same.info[1].count = 70000;
    assert_ok(weight_source_compare(&row, &same.source, 0, 1));
    assert_int_equal(row, -1);
    same.changed = 69999;
    assert_ok(weight_source_compare(&row, &same.source, 0, 1));
    assert_int_equal(row, 6);
    same.info[1].dim[0] = 14;
    same.info[1].dim[1] = 5000;
    assert_err(weight_source_compare(&row, &same.source, 0, 1), SHAPE,
               "a is [7, 10000], b is [14, 5000]");
}

/* Of different types: by value, up to the first NaN of the pattern, which equals nothing. */
static void test_compare_by_value(void **state)
{
    (void)state;
    int64_t row, first_nan = 0;
    struct fake mixed = fake_of(DTYPE_F16, DTYPE_F32);
    while (!isnan(f16_to_f32(pattern(first_nan)))) first_nan++;
    assert_ok(weight_source_compare(&row, &mixed.source, 0, 1));
    assert_int_equal(row, first_nan);
    mixed.info[0].count = mixed.info[1].count = first_nan;
    mixed.info[0].dim[0] = mixed.info[1].dim[0] = first_nan;
    assert_ok(weight_source_compare(&row, &mixed.source, 0, 1));
    assert_int_equal(row, -1);
    mixed.changed = first_nan - 1;
    assert_ok(weight_source_compare(&row, &mixed.source, 0, 1));
    assert_int_equal(row, first_nan - 1);
}

static void test_shape_text(void **state)
{
    (void)state;
    char text[WEIGHT_SHAPE_TEXT_MAX];
    const int64_t max[4] = { INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX };
    assert_string_equal(weight_shape_text(text, 0, max), "[]");
    assert_string_equal(weight_shape_text(text, 2, (const int64_t[]){ 4096, 128 }), "[4096, 128]");
    assert_int_equal(strlen(weight_shape_text(text, 4, max)), 4 * 19 + 3 * 2 + 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find),         cmocka_unit_test(test_every_conversion),
        cmocka_unit_test(test_to_16_bits),   cmocka_unit_test(test_beyond_16_bits),
        cmocka_unit_test(test_matrix_dtype), cmocka_unit_test(test_types_that_do_not_convert),
        cmocka_unit_test(test_compare),      cmocka_unit_test(test_compare_by_value),
        cmocka_unit_test(test_shape_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
