/*
 * model_fixture.h - small models and batches for the tests of the network.
 *
 *     struct rig rig;
 *     rig_open(&rig, "ref", 1, &config, &options);
 *     rig_randomize(&rig, 1);
 *     batch_make(&batch, samples, COUNT_OF(samples), 0);
 *     assert_ok(glm_train_micro(rig.glm, &batch.glm, &rig.grads, nll));
 *     batch_clear(&batch);
 *     rig_close(&rig);
 *
 * Devices and what they compute in: "cpu" f32; "ref" f64; "ref16" bf16, by the reference operators;
 * "emu" f32 and "emu16" bf16, the CUDA backend's kernels on the host.
 * Whatever fails here fails the test.
 */
#ifndef TESTS_MODEL_FIXTURE_H
#define TESTS_MODEL_FIXTURE_H

#include "glm_look.h"
#include "testing.h"

#include "model/glm.h"

/* No two extents are equal, so that a swapped dimension does not fit. */
struct glm_config tiny_config(bool tied);
/* Room for `rows` rows, training, everything kept. dtype follows from the device's name. */
struct glm_options tiny_options(int64_t rows);

struct rig {
    struct dev *dev;
    struct dev storage; /* of a reference device */
    struct glm *glm;
    struct tensor grads; /* zeroed; with GLM_GRADS_RELEASED as small as that */
};

dtype_t rig_dtype(const char *device);
/* Whether this build has the device with all operators; if not, say so: the emulated one is a
 * library of its own. */
bool rig_has(const char *device);
void rig_open(struct rig *rig, const char *device, int threads, const struct glm_config *config,
              const struct glm_options *options);
void rig_close(struct rig *rig);
/* Every parameter gets values that matter: biases are not zero, norms not one. Rounded where it is
 * kept in 16 bits. */
void rig_randomize(struct rig *rig, uint64_t seed);
void rig_zero_grads(struct rig *rig);
/* A copy on the host as float64; free it. */
double *rig_copy(const struct rig *rig, const struct tensor *arena);
/* sum_i weights[i]*nll[i] of a batch, without and with gradients. */
double rig_eval(struct rig *rig, const struct glm_batch *batch);
double rig_train(struct rig *rig, const struct glm_batch *batch);

/* A sample: ctx rows of context, len rows in all; its tokens follow from `id` alone. */
struct sample {
    int64_t id, ctx, len;
};

struct batch {
    struct glm_batch glm;
    int32_t *ids, *pos, *block, *order, *target_rows, *labels;
    float *weights;
    struct attn_segment *segments;
};

/* Samples end to end, then `padding` rows that belong to none. Each target has a weight of its
 * own. */
void batch_make(struct batch *out, const struct sample *samples, int64_t count, int64_t padding);
void batch_clear(struct batch *b);
/* Sort `order` again after ids were changed. */
void batch_sort(struct batch *b);

/* Largest |a-b| over the largest |b|. */
double largest_error(const double *a, const double *b, int64_t count);

#endif
