/* The table of parameters, its layouts, initial values, and the rotary tables. */
#include "testing.h"

#include "base/num.h"
#include "model/glm_params.h"
#include "model/glm_rotary.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct glm_config small(bool tied)
{
    return (struct glm_config){
        .family = GLM_CHATGLM,
        .vocab_size = 1280,
        .hidden_size = 64,
        .layer_count = 3,
        .head_count = 4,
        .kv_head_count = 4,
        .ffn_size = 256,
        .position_max = 256,
        .norm_eps = 1e-5,
        .residual_alpha = sqrt(56.0),
        .tied = tied,
    };
}

/* The counts that the published model is known by. */
static void test_published_counts(void **state)
{
    (void)state;
    struct glm_params p;
    struct glm_config c = glm_chatglm_6b;
    assert_ok(glm_params_create(&p, &c));
    assert_true(p.element_count == 6173286400);
    assert_int_equal(p.count, 28 * 12 + 3);
    glm_params_clear(&p);

    c.tied = false;
    assert_ok(glm_params_create(&p, &c));
    assert_true(p.element_count == 6707929088);
    glm_params_clear(&p);

    c.tied = true;
    c.vocab_size = 150528;
    assert_ok(glm_params_create(&p, &c));
    assert_true(p.element_count == 6255206400);
    glm_params_clear(&p);
}

static void test_rows(void **state)
{
    (void)state;
    struct glm_params p;
    const struct glm_config c = small(true);
    assert_ok(glm_params_create(&p, &c));
    assert_int_equal(p.unit_count, 5);
    assert_string_equal(p.row[0].name, "transformer.word_embeddings.weight");
    assert_string_equal(p.row[0].name_tied, "lm_head.weight");

    const int64_t i = glm_params_find(&p, GLM_FC1_WEIGHT, 2);
    assert_string_equal(p.row[i].name, "transformer.layers.2.mlp.dense_h_to_4h.weight");
    assert_int_equal(p.row[i].dim[0], 256);
    assert_int_equal(p.row[i].dim[1], 64);
    assert_int_equal(p.row[i].unit, 3);

    for (int64_t r = 0; r < p.count; r++) {
        const struct glm_param *row = &p.row[r];
        assert_int_equal(glm_params_find(&p, row->role, row->layer), r);
        assert_int_equal(glm_params_find_name(&p, row->name), r);
        assert_true(row->decay == (row->dims == 2));
        assert_true(row->count == row->dim[0] * (row->dims == 2 ? row->dim[1] : 1));
        assert_true(r == 0 || row->unit >= p.row[r - 1].unit);
    }
    assert_int_equal(glm_params_find_name(&p, "lm_head.weight"), 0);
    assert_int_equal(glm_params_find_name(&p, "lm_head.bias"), -1);
    assert_int_equal(glm_params_find_name(&p, ""), -1);
    assert_int_equal(glm_params_find(&p, GLM_HEAD, -1), -1);
    assert_int_equal(glm_params_find(&p, GLM_QKV_BIAS, 3), -1);
    assert_int_equal(glm_params_find(&p, GLM_QKV_BIAS, -1), -1);
    glm_params_clear(&p);
}

static void test_untied_head(void **state)
{
    (void)state;
    struct glm_params p;
    const struct glm_config c = small(false);
    assert_ok(glm_params_create(&p, &c));
    const int64_t head = glm_params_find(&p, GLM_HEAD, -1);
    assert_int_equal(head, p.count - 1);
    assert_string_equal(p.row[head].name, "lm_head.weight");
    assert_string_equal(p.row[0].name_tied, "");
    assert_int_equal(p.row[head].unit, p.unit_count - 1);
    glm_params_clear(&p);
}

static void test_layout(void **state)
{
    (void)state;
    struct glm_params p;
    const struct glm_config c = small(false);
    assert_ok(glm_params_create(&p, &c));
    for (int64_t ranks = 1; ranks <= 12; ranks++) {
        struct glm_layout l;
        const int64_t step = ranks * GLM_UNIT_STEP;
        assert_ok(glm_layout_create(&l, &p, ranks, 0));
        for (int64_t i = 0; i < p.count; i++) {
            const int64_t unit = p.row[i].unit;
            assert_true(l.offset[i] % 32 == 0);
            assert_true(l.offset[i] >= l.unit_offset[unit]);
            assert_true(l.offset[i] + p.row[i].count <= l.unit_offset[unit + 1]);
            if (i > 0) assert_true(l.offset[i] >= l.offset[i - 1] + p.row[i - 1].count);
        }
        for (int64_t u = 0; u <= p.unit_count; u++) assert_true(l.unit_offset[u] % step == 0);
        assert_true(l.element_count == l.unit_offset[p.unit_count]);
        assert_true(l.element_count < p.element_count + p.count * 32 + p.unit_count * step);

        char base[1];
        const struct tensor t = glm_param_tensor(&p, &l, 3, base, DTYPE_F32);
        assert_ptr_equal(t.data, base + 4 * l.offset[3]);
        assert_string_equal(t.name, p.row[3].name);
        glm_layout_clear(&l);
    }
    struct glm_layout l;
    assert_err(glm_layout_create(&l, &p, 0, 0), ARG, "at least one rank");
    assert_err(glm_layout_create(&l, &p, INT64_MAX, 0), ARG, "at least one rank");
    assert_err(glm_layout_create(&l, &p, 1, -1), ARG, "multiples of -1");
    assert_err(glm_layout_create(&l, &p, 1, INT64_MAX), ARG, "overflows at");
    glm_params_clear(&p);
}

/* Padding rows move what follows them and nothing else. */
static void test_vocabulary_padding(void **state)
{
    (void)state;
    struct glm_params p;
    struct glm_layout plain, padded;
    struct glm_config c = small(true);
    c.tied = false;
    c.vocab_size = 1280;
    assert_ok(glm_params_create(&p, &c));
    assert_ok(glm_layout_create(&plain, &p, 1, 0));
    assert_ok(glm_layout_create(&padded, &p, 1, 1344));
    const int64_t extra = 64 * c.hidden_size;
    const int64_t head = glm_params_find(&p, GLM_HEAD, -1);
    assert_true(padded.unit_offset[1] >= (1280 + 64) * c.hidden_size);
    assert_true(padded.element_count - padded.offset[head] >= p.row[head].count + extra);
    assert_true(padded.unit_offset[1] >= plain.unit_offset[1]);
    for (int64_t i = 1; i < head; i++)
        assert_true(padded.offset[i] - padded.unit_offset[1] ==
                    plain.offset[i] - plain.unit_offset[1]);
    glm_layout_clear(&plain);
    glm_layout_clear(&padded);
    glm_params_clear(&p);
}

/* One dtype: the layout in bytes. Two: every row aligned, none over the next. */
static void test_storage(void **state)
{
    (void)state;
    struct glm_params p;
    struct glm_layout l;
    struct glm_storage s;
    const struct glm_config c = small(false);
    assert_ok(glm_params_create(&p, &c));
    assert_ok(glm_layout_create(&l, &p, 3, 0));
    assert_ok(glm_storage_create(&s, &p, &l, DTYPE_F64, DTYPE_F64));
    for (int64_t i = 0; i < p.count; i++) assert_true(s.offset[i] == 8 * l.offset[i]);
    assert_true(s.bytes == 8 * l.element_count);
    glm_storage_clear(&s);

    assert_ok(glm_storage_create(&s, &p, &l, DTYPE_BF16, DTYPE_F32));
    char base[1];
    for (int64_t i = 0; i < p.count; i++) {
        const struct tensor t = glm_storage_tensor(&p, &s, i, base);
        const int64_t end = i + 1 < p.count ? s.offset[i + 1] : s.bytes;
        assert_int_equal(t.dtype, p.row[i].dims == 2 ? DTYPE_BF16 : DTYPE_F32);
        assert_true(tensor_count(&t) == p.row[i].count);
        assert_ptr_equal(t.data, base + s.offset[i]);
        assert_true(s.offset[i] % 64 == 0);
        assert_true(s.offset[i] + p.row[i].count * dtype_bytes(t.dtype) <= end);
    }
    assert_null(glm_storage_tensor(&p, &s, 0, NULL).data);
    glm_storage_clear(&s);

    l.element_count = INT64_MAX;
    assert_err(glm_storage_create(&s, &p, &l, DTYPE_F16, DTYPE_F32), ARG, "bytes of the weights");
    assert_err(glm_storage_create(&s, &p, &l, DTYPE_F16, DTYPE_F16), ARG, "lm_head.weight");
    assert_null(s.offset);
    glm_layout_clear(&l);
    glm_params_clear(&p);
}

static void test_refused(void **state)
{
    (void)state;
    struct glm_params p;
    struct glm_config c = small(true);
    c.family = GLM_CHATGLM2;
    assert_err(glm_params_create(&p, &c), UNSUPPORTED, "ChatGLM2-6B");
    c = small(true);
    c.layer_count = 0;
    assert_err(glm_params_create(&p, &c), ARG, "layers 0");
    c = small(true);
    c.head_count = c.kv_head_count = 5;
    assert_err(glm_params_create(&p, &c), ARG, "multiple of 4");
    c = small(true);
    c.kv_head_count = 2;
    assert_err(glm_params_create(&p, &c), ARG, "key/value heads");
    c = small(true);
    c.hidden_size = INT32_MAX - 3;
    c.head_count = c.kv_head_count = 1;
    c.ffn_size = c.vocab_size = INT32_MAX;
    assert_err(glm_params_create(&p, &c), ARG, "overflow");
    assert_null(p.row);
}

struct moments {
    double mean, std;
};

static struct moments moments_of(const float *x, int64_t count)
{
    double sum = 0.0, squares = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum += (double)x[i];
        squares += (double)x[i] * (double)x[i];
    }
    const double mean = sum / (double)count;
    return (struct moments){ mean, sqrt(squares / (double)count - mean * mean) };
}

static float *init_of(const struct glm_params *p, const struct glm_config *c, enum glm_role role,
                      int64_t layer, uint64_t seed)
{
    const int64_t i = glm_params_find(p, role, layer);
    float *out = malloc((size_t)p->row[i].count * sizeof *out);
    glm_param_init(out, p, c, i, seed, 0, p->row[i].count);
    return out;
}

/* Deviations within five standard errors of what the table promises. */
static void check_std(const float *x, int64_t count, double std)
{
    const struct moments m = moments_of(x, count);
    const double n = sqrt((double)count);
    assert_true(fabs(m.mean) <= 5.0 * std / n);
    assert_true(fabs(m.std - std) <= 5.0 * std / (n * sqrt(2.0)));
}

static void test_initial_values(void **state)
{
    (void)state;
    struct glm_params p;
    const struct glm_config c = small(false);
    const double branch = 0.02 / sqrt(56.0);
    const int64_t C = 64, D = 16;
    assert_ok(glm_params_create(&p, &c));

    float *x = init_of(&p, &c, GLM_EMBED, -1, 5);
    check_std(x, 1280 * C, 0.02);
    free(x);
    x = init_of(&p, &c, GLM_HEAD, -1, 5);
    check_std(x, 1280 * C, 1.0 / 64);
    free(x);
    x = init_of(&p, &c, GLM_FC1_WEIGHT, 1, 5);
    check_std(x, 256 * C, branch);
    free(x);
    x = init_of(&p, &c, GLM_QKV_WEIGHT, 1, 5);
    for (int64_t h = 0; h < 4; h++) {
        check_std(x + h * 3 * D * C, 2 * D * C, 0.02);     /* q and k of head h */
        check_std(x + (h * 3 + 2) * D * C, D * C, branch); /* v of head h */
    }
    free(x);
    x = init_of(&p, &c, GLM_LN2_GAMMA, 0, 5);
    for (int64_t i = 0; i < C; i++) assert_true(x[i] == 1.0f);
    free(x);
    x = init_of(&p, &c, GLM_QKV_BIAS, 0, 5);
    for (int64_t i = 0; i < 3 * C; i++) assert_true(x[i] == 0.0f);
    free(x);
    glm_params_clear(&p);
}

/* A value depends on seed, name and element; not on how the row is cut, nor on other layers or the
 * tie. */
static void test_initial_values_are_pure(void **state)
{
    (void)state;
    struct glm_params p, q;
    const struct glm_config tied = small(true);
    struct glm_config deep = small(false);
    deep.layer_count = 5;
    assert_ok(glm_params_create(&p, &tied));
    assert_ok(glm_params_create(&q, &deep));
    const int64_t count = 256 * 64;
    float *whole = init_of(&p, &tied, GLM_FC2_WEIGHT, 2, 9);
    float *other = init_of(&q, &deep, GLM_FC2_WEIGHT, 2, 9);
    assert_memory_equal(whole, other, (size_t)count * 4);
    free(other);

    float part[100];
    glm_param_init(part, &p, &tied, glm_params_find(&p, GLM_FC2_WEIGHT, 2), 9, 777, 100);
    assert_memory_equal(part, whole + 777, sizeof part);

    float *seed = init_of(&p, &tied, GLM_FC2_WEIGHT, 2, 10);
    float *layer = init_of(&p, &tied, GLM_FC2_WEIGHT, 1, 9);
    for (int64_t i = 0; i < 100; i++) assert_true(whole[i] != seed[i] && whole[i] != layer[i]);
    free(seed);
    free(layer);
    free(whole);
    glm_params_clear(&p);
    glm_params_clear(&q);
}

/* inv_freq of the published model, as the reference prints it. */
static void test_rotary_frequencies(void **state)
{
    (void)state;
    static const double inv_freq[] = { 1.0,
                                       0.75,
                                       0.5625,
                                       0.421630859375,
                                       0.316162109375,
                                       0.2371826171875,
                                       0.1778564453125,
                                       0.13330078125 };
    float cosine[2 * 32], sine[2 * 32];
    glm_rotary_table(cosine, sine, GLM_ROTARY_FP32_ANGLE, 2, 128);
    for (int64_t j = 0; j < COUNT_OF(inv_freq); j++) {
        assert_true(cosine[j] == 1.0f && sine[j] == 0.0f);
        assert_true(fabs((double)sine[32 + j] - sin(inv_freq[j])) < 1e-7);
        assert_true(fabs((double)cosine[32 + j] - cos(inv_freq[j])) < 1e-7);
    }
    assert_true(fabs((double)sine[32 + 31] - sin(0.00013339519500732422)) < 1e-11);
}

/* How far fp16 angles stray from exact ones by position; measured on the reference. */
static void test_rotary_fp16(void **state)
{
    (void)state;
    static const struct {
        int64_t pos;
        double error;
    } rows[] = { { 63, 0.010 }, { 255, 0.10 }, { 1000, 0.16 }, { 2047, 0.32 } };
    const int64_t P = 2048, Q = 32;
    float *table = malloc((size_t)(4 * P * Q) * sizeof *table);
    float *c16 = table, *s16 = table + P * Q, *c32 = s16 + P * Q, *s32 = c32 + P * Q;
    glm_rotary_table(c16, s16, GLM_ROTARY_FP16_ANGLE, P, 4 * Q);
    glm_rotary_table(c32, s32, GLM_ROTARY_FP32_ANGLE, P, 4 * Q);
    for (int64_t i = 0; i < P * Q; i++) {
        assert_true(c16[i] == f16_to_f32(f32_to_f16(c16[i])));
        assert_true(s16[i] == f16_to_f32(f32_to_f16(s16[i])));
    }
    /* The published figures compare with exact frequencies as well, hence "about". */
    for (int64_t k = 0; k < COUNT_OF(rows); k++) {
        double error = 0.0;
        for (int64_t j = 0; j < Q; j++) {
            const int64_t i = rows[k].pos * Q + j;
            const double exact = (double)rows[k].pos * pow(10000.0, -(double)j / (double)Q);
            const double turn =
                remainder(atan2((double)s16[i], (double)c16[i]) - exact, 2 * acos(-1.0));
            error = fmax(error, fabs(turn));
        }
        assert_true(error < 1.2 * rows[k].error && error > 0.8 * rows[k].error);
    }
    free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_counts),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_untied_head),
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_vocabulary_padding),
        cmocka_unit_test(test_storage),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_initial_values),
        cmocka_unit_test(test_initial_values_are_pure),
        cmocka_unit_test(test_rotary_frequencies),
        cmocka_unit_test(test_rotary_fp16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
