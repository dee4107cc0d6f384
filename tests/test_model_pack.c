/*
 * Samples in one micro-batch do not know of each other: packed equals unpacked, however a batch is
 * split, and the number of threads changes nothing.
 *
 * Bars: the reference backend adds rows one after the other, so float64 results agree to some 1e-15
 * and 1e-12 is asked; float32 sums of about a hundred rows reorder, 1e-6 for the loss and 1e-5 of
 * the largest gradient.
 */
#include "model_fixture.h"

#include "base/digest.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct sample samples[] = {
    { 0, 4, 9 },   { 1, 1, 5 }, { 2, 7, 8 },  { 3, 3, 17 },
    { 4, 11, 13 }, { 5, 1, 2 }, { 6, 6, 20 }, { 7, 2, 6 },
};
#define SAMPLES COUNT_OF(samples)

static const char *const devices[] = { "cpu", "ref", "ref16", "emu", "emu16" };

struct result {
    double loss;
    double *grads; /* [count] */
};

/* Train on the eight samples, `group` to a micro-batch. */
static struct result train(struct rig *rig, int64_t group, int64_t padding)
{
    struct result r = { 0 };
    rig_zero_grads(rig);
    for (int64_t s = 0; s < SAMPLES; s += group) {
        struct batch batch;
        batch_make(&batch, samples + s, group, padding);
        r.loss += rig_train(rig, &batch.glm);
        batch_clear(&batch);
    }
    r.grads = rig_copy(rig, &rig->grads);
    return r;
}

static void open_rig(struct rig *rig, const char *device, int threads)
{
    const struct glm_config config = tiny_config(true);
    const struct glm_options options = tiny_options(128);
    rig_open(rig, device, threads, &config, &options);
    rig_randomize(rig, 3);
}

static void check_splits(const char *device, double loss_bar, double grad_bar)
{
    struct rig rig;
    open_rig(&rig, device, 2);
    const struct result whole = train(&rig, 8, 0);
    for (int64_t group = 1; group <= 4; group *= 2) {
        const struct result split = train(&rig, group, 0);
        const int64_t count = tensor_count(&rig.grads);
        assert_true(fabs(split.loss - whole.loss) <= loss_bar * fabs(whole.loss));
        assert_true(largest_error(split.grads, whole.grads, count) <= grad_bar);
        free(split.grads);
    }
    free(whole.grads);
    rig_close(&rig);
}

static void test_splits_f64(void **state)
{
    (void)state;
    check_splits("ref", 1e-12, 1e-12);
}

static void test_splits_f32(void **state)
{
    (void)state;
    check_splits("cpu", 1e-6, 1e-5);
    if (rig_has("emu")) check_splits("emu", 1e-6, 1e-5);
}

/* Rows of no segment add exactly zero: in the reference's order of sums, not one bit changes. */
static void test_padding(void **state)
{
    (void)state;
    struct rig rig;
    open_rig(&rig, "ref", 1);
    const struct result bare = train(&rig, 8, 0), padded = train(&rig, 8, 37);
    const int64_t count = tensor_count(&rig.grads);
    assert_true(bare.loss == padded.loss);
    for (int64_t i = 0; i < count; i++) assert_true(bare.grads[i] == padded.grads[i]);
    free(bare.grads);
    free(padded.grads);
    rig_close(&rig);
}

/* What padding rows hold reaches no gradient and no loss. */
static void check_padding_content(const char *device)
{
    struct rig rig;
    struct batch batch;
    open_rig(&rig, device, 2);
    batch_make(&batch, samples, SAMPLES, 48);
    const double loss = rig_train(&rig, &batch.glm);
    double *grads = rig_copy(&rig, &rig.grads);
    for (int64_t r = batch.glm.rows - 48; r < batch.glm.rows; r++) {
        batch.ids[r] = (int32_t)(r % 50);
        batch.pos[r] = batch.block[r] = (int32_t)(r % 60);
    }
    batch_sort(&batch);
    rig_zero_grads(&rig);
    assert_true(rig_train(&rig, &batch.glm) == loss);
    double *again = rig_copy(&rig, &rig.grads);
    for (int64_t i = 0; i < tensor_count(&rig.grads); i++) assert_true(grads[i] == again[i]);
    free(grads);
    free(again);
    batch_clear(&batch);
    rig_close(&rig);
}

static void test_padding_content(void **state)
{
    (void)state;
    for (int64_t d = 0; d < COUNT_OF(devices); d++)
        if (rig_has(devices[d])) check_padding_content(devices[d]);
}

static double *logits_of(struct rig *rig, const struct batch *batch)
{
    const int64_t rows = batch->glm.rows, V = glm_config(rig->glm)->vocab_size;
    double *out = malloc((size_t)(rows * V) * sizeof *out);
    rig_eval(rig, &batch->glm);
    assert_ok(glm_look_logits(rig->glm, out, rows, 0, rows));
    return out;
}

/* Other tokens in one segment leave every bit of the others' logits, and change its own. */
static void check_isolation(const char *device)
{
    struct rig rig;
    struct batch batch;
    open_rig(&rig, device, 2);
    const int64_t V = glm_config(rig.glm)->vocab_size;
    batch_make(&batch, samples, SAMPLES, 3);
    double *before = logits_of(&rig, &batch);
    for (int64_t s = 0; s < SAMPLES; s++) {
        const struct attn_segment g = batch.segments[s];
        int32_t kept[32];
        memcpy(kept, batch.ids + g.start, (size_t)g.len * 4);
        for (int64_t i = 0; i < g.len; i++) batch.ids[g.start + i] = (kept[i] + 1) % 50;
        double *after = logits_of(&rig, &batch);
        for (int64_t r = 0; r < batch.glm.rows; r++) {
            const bool is_inside = r >= g.start && r < g.start + g.len;
            const size_t bytes = (size_t)V * sizeof(double);
            assert_true((memcmp(before + r * V, after + r * V, bytes) != 0) == is_inside);
        }
        memcpy(batch.ids + g.start, kept, (size_t)g.len * 4);
        free(after);
    }
    free(before);
    batch_clear(&batch);
    rig_close(&rig);
}

static void test_isolation(void **state)
{
    (void)state;
    for (int64_t d = 0; d < COUNT_OF(devices); d++)
        if (rig_has(devices[d])) check_isolation(devices[d]);
}

/* A training step is the same bits with 1, 2, 3 and 4 threads; sizes above the tiles that threads
 * share. */
static void test_threads(void **state)
{
    (void)state;
    static const struct sample long_samples[] = { { 0, 60, 200 }, { 1, 1, 90 }, { 2, 150, 158 } };
    struct glm_config config = tiny_config(true);
    char hex[SHA256_HEX_SIZE], first[SHA256_HEX_SIZE] = "";
    config.vocab_size = 1500;
    config.hidden_size = 160;
    config.head_count = config.kv_head_count = 5;
    config.ffn_size = 640;
    config.position_max = 256;
    for (int threads = 1; threads <= 4; threads++) {
        const struct glm_options options = tiny_options(512);
        struct rig rig;
        struct batch batch;
        uint8_t digest[SHA256_BYTES];
        rig_open(&rig, "cpu", threads, &config, &options);
        rig_randomize(&rig, 4);
        batch_make(&batch, long_samples, COUNT_OF(long_samples), 64);
        rig_train(&rig, &batch.glm);
        double *grads = rig_copy(&rig, &rig.grads);
        sha256_of(digest, grads, (size_t)tensor_count(&rig.grads) * sizeof *grads);
        sha256_hex(hex, digest);
        if (threads == 1) memcpy(first, hex, sizeof hex);
        assert_string_equal(hex, first);
        free(grads);
        batch_clear(&batch);
        rig_close(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_splits_f64), cmocka_unit_test(test_splits_f32),
        cmocka_unit_test(test_padding),    cmocka_unit_test(test_padding_content),
        cmocka_unit_test(test_isolation),  cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
