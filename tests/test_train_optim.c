/* optim.h: norm, clipping and AdamW against plain float64 formulas written here. */
#include "train_fixture.h"

#include "base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STEPS 3

struct rig {
    struct dev *dev;
    struct glm *glm;
    struct optim *optim;
    struct tensor grads;
};

static const struct optim_options options = {
    .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-6, .weight_decay = 0.1, .max_grad_norm = 1.0
};

static void rig_open(struct rig *r, const struct optim_options *o)
{
    const struct glm_config config = micro_config();
    const struct glm_options glm_options = { .dtype = DTYPE_F32,
                                             .train = true,
                                             .rows_max = 128,
                                             .segments_max = 1,
                                             .targets_max = 1,
                                             .ranks = 1 };
    void *data;
    assert_ok(dev_open(&r->dev, "cpu", 1));
    assert_ok(glm_create(&r->glm, r->dev, &config, &glm_options));
    assert_ok(glm_init(r->glm, 3));
    assert_ok(optim_create(&r->optim, r->glm, o));
    const int64_t count = glm_layout(r->glm)->element_count;
    assert_ok(dev_alloc(r->dev, &data, count * (int64_t)sizeof(float), "gradients"));
    r->grads = tensor_1d(data, DTYPE_F32, count, "gradients");
}

static void rig_close(struct rig *r)
{
    dev_free(r->dev, r->grads.data);
    optim_close(r->optim);
    glm_close(r->glm);
    assert_int_equal(r->dev->stats.alloc_bytes, 0);
    dev_close(r->dev);
}

/* Gradients of step `step`; the layout's padding gets 1e9, which must not be seen. */
static void set_grads(struct rig *r, int64_t step)
{
    const struct glm_params *params = glm_params(r->glm);
    float *g = r->grads.data;
    for (int64_t i = 0; i < tensor_count(&r->grads); i++) g[i] = 1e9f;
    for (int64_t i = 0; i < params->count; i++) {
        float *row = g + glm_layout(r->glm)->offset[i];
        const uint64_t stream = (uint64_t)RNG_TEST | (uint64_t)(100 * step + i) << 8;
        for (int64_t e = 0; e < params->row[i].count; e++)
            row[e] = (float)(1e-2 * rng_normal(9, stream, (uint64_t)e));
    }
}

static double plain_norm(const struct rig *r)
{
    int64_t count;
    double sum = 0.0, *g = micro_copy(r->glm, &r->grads, &count);
    for (int64_t i = 0; i < count; i++) sum += g[i] * g[i];
    free(g);
    return sqrt(sum);
}

/* Both sum float64 squares of the same numbers, in another order: n * 2^-53 at worst. */
static void test_norm(void **state)
{
    (void)state;
    struct rig r;
    double norm;
    rig_open(&r, &options);
    for (int64_t step = 0; step < STEPS; step++) {
        set_grads(&r, step);
        const double plain = plain_norm(&r);
        assert_ok(optim_grad_norm(r.optim, &norm, &r.grads));
        assert_true(fabs(norm - plain) <= 1e-11 * plain);
    }
    set_grads(&r, 0);
    ((float *)r.grads.data)[5] = NAN;
    assert_ok(optim_grad_norm(r.optim, &norm, &r.grads));
    assert_true(isnan(norm));
    rig_close(&r);
}

static void test_clipping(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &options);
    assert_true(optim_clip_scale(r.optim, 0.0) == 1.0);
    assert_true(optim_clip_scale(r.optim, 0.5) == 1.0);
    assert_true(optim_clip_scale(r.optim, 1.0) == 1.0 / (1.0 + 1e-6));
    assert_true(optim_clip_scale(r.optim, 4.0) == 1.0 / (4.0 + 1e-6));
    rig_close(&r);

    struct optim_options free_norm = options;
    free_norm.max_grad_norm = 0.0;
    rig_open(&r, &free_norm);
    assert_true(optim_clip_scale(r.optim, 1e30) == 1.0);
    rig_close(&r);
}

/* The formula of kernels/ops_optim.h, one number at a time. */
struct plain {
    int64_t count;
    double *w, *m, *v;
};

static void plain_step(struct plain *p, const struct glm *glm, const double *grads, double lr,
                       double scale, int64_t t)
{
    const struct glm_params *params = glm_params(glm);
    int64_t at = 0;
    for (int64_t i = 0; i < params->count; i++) {
        for (int64_t e = 0; e < params->row[i].count; e++, at++) {
            const double g = scale * grads[at];
            if (params->row[i].dims == 2) p->w[at] *= 1.0 - lr * options.weight_decay;
            p->m[at] = options.beta1 * p->m[at] + (1.0 - options.beta1) * g;
            p->v[at] = options.beta2 * p->v[at] + (1.0 - options.beta2) * g * g;
            const double m = p->m[at] / (1.0 - pow(options.beta1, (double)t));
            const double v = p->v[at] / (1.0 - pow(options.beta2, (double)t));
            p->w[at] -= lr * m / (sqrt(v) + options.eps);
        }
    }
}

/*
 * Each float32 step rounds the weight (decay, subtraction: 2 * 2^-24 |w|, here |w| < 1.2) and the
 * update, which is at most some 3 lr and takes some ten roundings: with lr = 0.01 that is
 * 2 * 1.2 * 6e-8 + 10 * 6e-8 * 0.03 = 1.7e-7 a step.
 */
static void test_three_steps(void **state)
{
    (void)state;
    struct rig r;
    struct plain p;
    double norm, worst = 0.0;
    const double lr[STEPS] = { 1e-2, 7e-3, 2e-3 };
    rig_open(&r, &options);
    struct tensor weights = glm_weights(r.glm);
    p.w = micro_copy(r.glm, &weights, &p.count);
    p.m = calloc((size_t)p.count, sizeof *p.m);
    p.v = calloc((size_t)p.count, sizeof *p.v);
    for (int64_t step = 0; step < STEPS; step++) {
        set_grads(&r, step);
        assert_ok(optim_grad_norm(r.optim, &norm, &r.grads));
        const double scale = optim_clip_scale(r.optim, norm);
        assert_true(scale < 1.0); /* clipping takes part */
        double *grads = micro_copy(r.glm, &r.grads, &p.count);
        plain_step(&p, r.glm, grads, lr[step], scale, step + 1);
        free(grads);
        assert_ok(optim_step(r.optim, &r.grads, lr[step], scale, step + 1));
    }
    double *got = micro_copy(r.glm, &weights, &p.count);
    for (int64_t i = 0; i < p.count; i++) worst = fmax(worst, fabs(got[i] - p.w[i]));
    if (worst > STEPS * 1.7e-7) fail_msg("largest difference %.3g", worst);

    int64_t count;
    double *got_m = micro_state(r.optim, OPTIM_EXP_AVG, &count);
    double *got_v = micro_state(r.optim, OPTIM_EXP_AVG_SQ, &count);
    assert_int_equal(count, p.count);
    for (int64_t i = 0; i < p.count; i++) {
        assert_true(fabs(got_m[i] - p.m[i]) <= 1e-8); /* some roundings of 1e-2 */
        assert_true(fabs(got_v[i] - p.v[i]) <= 1e-6 * p.v[i] + 1e-30);
    }
    double *all[] = { got, got_m, got_v, p.w, p.m, p.v };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
    rig_close(&r);
}

/* Without gradient a step is decay alone: matrices shrink by 1 - lr * decay, the rest stays. */
static void test_decay_on_matrices_only(void **state)
{
    (void)state;
    struct rig r;
    int64_t count, at = 0;
    rig_open(&r, &options);
    const struct tensor weights = glm_weights(r.glm);
    double *before = micro_copy(r.glm, &weights, &count);
    assert_ok(optim_step(r.optim, &r.grads, 0.5, 1.0, 1));
    double *after = micro_copy(r.glm, &weights, &count);
    const struct glm_params *params = glm_params(r.glm);
    for (int64_t i = 0; i < params->count; i++) {
        const bool is_matrix = params->row[i].dims == 2;
        assert_true(params->row[i].decay == is_matrix);
        for (int64_t e = 0; e < params->row[i].count; e++, at++) {
            const double want = is_matrix ? before[at] * (1.0 - 0.5 * 0.1) : before[at];
            assert_true(fabs(after[at] - want) <= 1.2e-7 * fabs(want));
        }
    }
    free(before);
    free(after);
    rig_close(&r);
}

/* Padding of the layout holds zeros, whatever the gradients there are. */
static void test_padding_stays(void **state)
{
    (void)state;
    struct rig r;
    rig_open(&r, &options);
    set_grads(&r, 0);
    assert_ok(optim_step(r.optim, &r.grads, 1e-2, 1.0, 1));
    const float *weights = glm_weights(r.glm).data;
    const struct glm_params *params = glm_params(r.glm);
    const struct glm_layout *layout = glm_layout(r.glm);
    bool *used = calloc((size_t)layout->element_count, sizeof *used);
    for (int64_t i = 0; i < params->count; i++)
        memset(used + layout->offset[i], 1, (size_t)params->row[i].count);
    int64_t padding = 0;
    for (int64_t e = 0; e < layout->element_count; e++) {
        if (used[e]) continue;
        assert_true(weights[e] == 0.0f);
        padding++;
    }
    assert_true(padding > 0);
    free(used);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norm),          cmocka_unit_test(test_clipping),
        cmocka_unit_test(test_three_steps),   cmocka_unit_test(test_decay_on_matrices_only),
        cmocka_unit_test(test_padding_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
