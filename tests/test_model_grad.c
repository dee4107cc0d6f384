/*
 * The backward pass of the whole network against the forward pass alone: central differences in
 * float64.
 *
 * With four points the truncation error is h^4/30 of the fifth derivative and rounding is about
 * eps*loss/h; at h = 1e-3 both are some 1e-12 of the largest gradients here, so 1e-9 of the largest
 * entry leaves room for curvature alone.
 */
#include "model_fixture.h"

#include "base/num.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define STEP      1e-3
#define TOLERANCE 1e-9
#define SAMPLES   6 /* elements tried in each tensor */

static const struct sample samples[] = { { 0, 4, 9 }, { 1, 1, 5 }, { 2, 7, 8 }, { 3, 3, 10 } };

static double loss_at(struct rig *rig, const struct batch *batch, double *w, double value)
{
    *w = value;
    return rig_eval(rig, &batch->glm);
}

static double difference(struct rig *rig, const struct batch *batch, double *w)
{
    const double x = *w;
    const double near = loss_at(rig, batch, w, x + STEP) - loss_at(rig, batch, w, x - STEP);
    const double far = loss_at(rig, batch, w, x + 2 * STEP) - loss_at(rig, batch, w, x - 2 * STEP);
    *w = x;
    return (8.0 * near - far) / (12.0 * STEP);
}

static void check_gradients(bool tied, enum glm_activations activations)
{
    const struct glm_config config = tiny_config(tied);
    struct glm_options options = tiny_options(40);
    struct rig rig;
    struct batch batch;
    options.activations = activations;
    rig_open(&rig, "ref", 1, &config, &options);
    rig_randomize(&rig, 1);
    batch_make(&batch, samples, COUNT_OF(samples), 5);
    rig_train(&rig, &batch.glm);

    const struct glm_params *p = glm_params(rig.glm);
    double *weights = glm_weights(rig.glm).data; /* the reference device is the host */
    const double *grads = rig.grads.data;
    for (int64_t i = 0; i < p->count; i++) {
        const int64_t offset = glm_layout(rig.glm)->offset[i], count = p->row[i].count;
        double largest = 0.0, error = 0.0;
        for (int64_t e = 0; e < count; e++) largest = fmax(largest, fabs(grads[offset + e]));
        assert_true(largest > 0.0);
        for (int64_t s = 0; s < SAMPLES; s++) {
            /* Spread over the tensor; rows of the embedding that occur and rows that do not. */
            const int64_t at = offset + (s * 2654435761 + i) % count;
            error = fmax(error, fabs(difference(&rig, &batch, &weights[at]) - grads[at]));
        }
        if (error > TOLERANCE * largest)
            print_message("%s: error %.3g of largest %.3g\n", p->row[i].name, error, largest);
        assert_true(error <= TOLERANCE * largest);
    }
    batch_clear(&batch);
    rig_close(&rig);
}

static void test_tied(void **state)
{
    (void)state;
    check_gradients(true, GLM_KEEP_ALL);
}

static void test_untied(void **state)
{
    (void)state;
    check_gradients(false, GLM_KEEP_ALL);
}

static void test_lean(void **state)
{
    (void)state;
    check_gradients(true, GLM_LEAN);
}

/* Gradients are added to what is there, and arena padding stays zero. */
static void test_accumulates(void **state)
{
    (void)state;
    const struct glm_config config = tiny_config(true);
    const struct glm_options options = tiny_options(40);
    struct rig rig;
    struct batch batch;
    rig_open(&rig, "ref", 1, &config, &options);
    rig_randomize(&rig, 1);
    batch_make(&batch, samples, COUNT_OF(samples), 0);
    rig_train(&rig, &batch.glm);
    double *once = rig_copy(&rig, &rig.grads);
    rig_train(&rig, &batch.glm);
    double *twice = rig_copy(&rig, &rig.grads);
    const int64_t count = tensor_count(&rig.grads);
    for (int64_t i = 0; i < count; i++) once[i] *= 2.0;
    assert_true(largest_error(twice, once, count) <= 1e-14);

    const struct glm_params *p = glm_params(rig.glm);
    const int64_t *offset = glm_layout(rig.glm)->offset;
    for (int64_t i = 0; i < p->count; i++) {
        const int64_t end = i + 1 < p->count ? offset[i + 1] : count;
        for (int64_t e = offset[i] + p->row[i].count; e < end; e++) assert_true(twice[e] == 0.0);
    }
    free(once);
    free(twice);
    batch_clear(&batch);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tied),
        cmocka_unit_test(test_untied),
        cmocka_unit_test(test_lean),
        cmocka_unit_test(test_accumulates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
