/* The plan is what is allocated, byte for byte, and nothing is allocated afterwards. */
#include "model_fixture.h"

#include "base/num.h"
#include "model/glm_plan.h"

#include <stdlib.h>

static const struct sample samples[] = { { 0, 4, 9 }, { 1, 1, 5 } };

struct plan_case {
    bool train, tied;
    enum glm_activations activations;
    dtype_t weights; /* 16 bits: on the cpu only */
};

static const struct plan_case cases[] = {
    { true, true, GLM_KEEP_ALL, DTYPE_F32 },  { true, false, GLM_LEAN, DTYPE_F32 },
    { true, true, GLM_RECOMPUTE, DTYPE_F32 }, { false, true, GLM_KEEP_ALL, DTYPE_F32 },
    { false, true, GLM_KEEP_ALL, DTYPE_F16 }, { false, false, GLM_KEEP_ALL, DTYPE_BF16 },
};

static const char *const devices[] = { "cpu", "ref", "ref16", "emu", "emu16" };

/* The bytes a device hands out equal the plan's, through training, evaluation and decoding. */
static void check_allocations(const char *device, const struct plan_case *c)
{
    const struct glm_config config = tiny_config(c->tied);
    struct glm_options options = tiny_options(20);
    struct rig rig;
    struct batch batch;
    struct glm_plan plan;
    options.train = c->train;
    options.activations = c->activations;
    options.weight_dtype = c->weights;
    rig_open(&rig, device, 2, &config, &options);
    options.dtype = rig_dtype(device);
    assert_ok(glm_plan_create(&plan, rig.dev, &config, &options));
    const int64_t grads_bytes = tensor_count(&rig.grads) * dtype_bytes(rig.grads.dtype);
    assert_int_equal(rig.dev->stats.alloc_bytes, plan.bytes + grads_bytes);
    assert_int_equal(plan.grad_bytes, c->train ? grads_bytes : 0);

    rig_randomize(&rig, 1);
    batch_make(&batch, samples, COUNT_OF(samples), 2);
    const int64_t calls = rig.dev->stats.alloc_count;
    for (int step = 0; step < 3; step++) {
        rig_eval(&rig, &batch.glm);
        if (c->train) rig_train(&rig, &batch.glm);
    }
    assert_int_equal(rig.dev->stats.alloc_count, calls);
    assert_int_equal(rig.dev->stats.alloc_bytes_max, plan.bytes + grads_bytes);
    batch_clear(&batch);
    rig_close(&rig);
}

static void test_allocations(void **state)
{
    (void)state;
    for (int64_t d = 0; d < COUNT_OF(devices); d++) {
        if (!rig_has(devices[d])) continue;
        for (int64_t i = 0; i < COUNT_OF(cases); i++)
            if (d == 0 || cases[i].weights == DTYPE_F32) check_allocations(devices[d], &cases[i]);
    }
}

static err_t plan_of(struct glm_plan *plan, const struct glm_config *config,
                     struct glm_options options)
{
    struct dev *dev;
    TRY(dev_open(&dev, "cpu", 2));
    const err_t rc = glm_plan_create(plan, dev, config, &options);
    dev_close(dev);
    return rc;
}

static void test_sums(void **state)
{
    (void)state;
    const struct glm_config config = tiny_config(true);
    struct glm_plan plan;
    assert_ok(plan_of(&plan, &config, tiny_options(20)));
    int64_t class_bytes[GLM_BUF_CLASSES] = { 0 }, bytes = 0;
    for (int64_t i = 0; i < GLM_B_COUNT; i++) {
        const struct glm_buffer *b = &plan.buffer[i];
        assert_non_null(b->name);
        assert_int_equal(b->bytes % 64, 0);
        assert_int_equal(b->offset, class_bytes[b->klass]); /* end to end */
        class_bytes[b->klass] += b->bytes * b->copies;
        bytes += b->bytes * b->copies;
    }
    for (int k = 0; k < GLM_BUF_CLASSES; k++) assert_int_equal(plan.class_bytes[k], class_bytes[k]);
    assert_int_equal(plan.bytes, bytes);
    /* 2 layers of qkv 24x72, dense 24x24, fc1 and fc2 24x40; two operations each. */
    assert_true(plan.forward_flop_per_row == 2.0 * 2.0 * (24 * 72 + 24 * 24 + 2 * 24 * 40));
}

/* ChatGLM-6B as published: 2 bytes for each element of a matrix, 4 for norms and biases. */
static void test_weights_of_6b(void **state)
{
    (void)state;
    struct glm_options options = tiny_options(16);
    struct glm_plan wide, half;
    options.train = false;
    assert_ok(plan_of(&wide, &glm_chatglm_6b, options));
    options.weight_dtype = DTYPE_F16;
    assert_ok(plan_of(&half, &glm_chatglm_6b, options));
    const int64_t vectors = 28 * (4 * 4096 + 3 * 4096 + 4096 + 16384 + 4096) + 2 * 4096;
    const int64_t matrices = INT64_C(130528) * 4096 + INT64_C(28) * 4096 * (4 * 4096 + 2 * 16384);
    assert_int_equal(matrices + vectors, INT64_C(6173286400));
    /* Padding of a unit is less than 16,384 elements; here only vectors are followed by any. */
    assert_in_range(wide.class_bytes[GLM_BUF_WEIGHTS], 4 * (matrices + vectors),
                    4 * (matrices + vectors + 30 * 16384));
    assert_int_equal(wide.class_bytes[GLM_BUF_WEIGHTS] - half.class_bytes[GLM_BUF_WEIGHTS],
                     2 * matrices);
    assert_int_equal(wide.class_bytes[GLM_BUF_ACTIVATIONS], half.class_bytes[GLM_BUF_ACTIVATIONS]);
}

/* Lean drops L copies of a, L-1 of m and of g; inference keeps one layer. */
static void test_lean_is_smaller(void **state)
{
    (void)state;
    struct glm_config config = tiny_config(true);
    config.layer_count = 7;
    struct glm_options options = tiny_options(16);
    struct glm_plan keep, lean, eval;
    assert_ok(plan_of(&keep, &config, options));
    options.activations = GLM_LEAN;
    assert_ok(plan_of(&lean, &config, options));
    options.train = false;
    assert_ok(plan_of(&eval, &config, options));
    const int64_t row = 16 * 4; /* rows x bytes */
    assert_int_equal(keep.bytes - lean.bytes, 7 * row * 24 + 6 * row * 24 + 6 * row * 40);
    assert_int_equal(eval.buffer[GLM_B_QKV].copies, 1);
    assert_int_equal(eval.buffer[GLM_B_U].copies, 0);
    assert_true(eval.bytes < lean.bytes);
}

/* Recomputation keeps L+1 inputs and one layer's workspace; inference keeps one input too. */
static void test_recompute_is_smaller(void **state)
{
    (void)state;
    struct glm_config config = tiny_config(true);
    config.layer_count = 7;
    struct glm_options options = tiny_options(16);
    struct glm_plan lean, again, eval;
    options.activations = GLM_LEAN;
    assert_ok(plan_of(&lean, &config, options));
    options.activations = GLM_RECOMPUTE;
    assert_ok(plan_of(&again, &config, options));
    options.train = false;
    assert_ok(plan_of(&eval, &config, options));
    const int64_t row = 16 * 4;                                          /* rows x bytes */
    const int64_t elements = 72 + 24 + 24 + 40;                          /* qkv, attn, h1, u */
    const int64_t statistics = 6 * (2 * row + 16 * 3 * 4) + 7 * 2 * row; /* norm 2, lse; norm 1 */
    assert_int_equal(lean.bytes - again.bytes, 6 * row * elements + statistics);
    assert_int_equal(again.buffer[GLM_B_HIDDEN].copies, 8);
    for (int id = GLM_B_MEAN1; id <= GLM_B_G; id++) assert_int_equal(again.buffer[id].copies, 1);
    /* Beyond inference: the inputs, u, and the gradients dh, dy, dqkv; order; other scratch. */
    const int64_t more = 7 * row * 24 + row * 40 + row * (24 + 24 + 72) + row;
    const int64_t scratch = again.buffer[GLM_B_SCRATCH].bytes - eval.buffer[GLM_B_SCRATCH].bytes;
    assert_int_equal(again.bytes - eval.bytes, more + scratch);
}

/* What the caller allocates, and what lies outside the device. */
static void test_gradients(void **state)
{
    (void)state;
    struct glm_config config = tiny_config(false);
    struct glm_options options = tiny_options(16);
    struct glm_plan all, released, half, eval;
    config.layer_count = 7;
    assert_ok(plan_of(&all, &config, options));
    options.grad_keep = GLM_GRADS_RELEASED;
    assert_ok(plan_of(&released, &config, options));
    /* 4 gammas and betas, 4 matrices with biases; a unit is a multiple of 16,384 elements. */
    const int64_t layer = align_up(4 * 32 + 24 * (72 + 24 + 2 * 40) + 96 + 32 + 64 + 32, 16384);
    assert_int_equal(all.grad_elements, 9 * 16384);
    assert_int_equal(all.grad_elements - released.grad_elements, 5 * layer);
    assert_int_equal(all.grad_bytes, 4 * all.grad_elements);
    assert_int_equal(all.bytes, released.bytes);
    assert_int_equal(all.host_bytes, 2 * all.class_bytes[GLM_BUF_BATCH]);
    options.dtype = options.grad_dtype = DTYPE_BF16;
    assert_ok(plan_of(&half, &config, options));
    assert_int_equal(half.grad_bytes, 2 * released.grad_elements);
    assert_int_equal(half.host_bytes, all.host_bytes);
    options.train = false;
    assert_ok(plan_of(&eval, &config, options));
    assert_int_equal(eval.grad_bytes + eval.host_bytes, 0);
}

/* bf16 halves weights and activations, but not the statistics. */
static void test_bf16_is_half(void **state)
{
    (void)state;
    const struct glm_config config = tiny_config(true);
    struct glm_options options = tiny_options(64);
    struct glm_plan wide, half;
    assert_ok(plan_of(&wide, &config, options));
    options.dtype = DTYPE_BF16;
    assert_ok(plan_of(&half, &config, options));
    for (int id = 0; id < GLM_B_SCRATCH; id++) {
        const struct glm_buffer *w = &wide.buffer[id], *h = &half.buffer[id];
        const bool halves = id == GLM_B_WEIGHTS || h->dtype == DTYPE_BF16;
        assert_int_equal(w->copies, h->copies);
        if (id == GLM_B_LOGITS) /* one row, less than its alignment asks for */
            assert_int_equal(h->bytes, align_up(53 * 2, 64));
        else
            assert_int_equal(w->bytes, halves ? 2 * h->bytes : h->bytes);
    }
}

/* A GPU's tiles want a round number of rows; ChatGLM-6B's 130,528 become 130,560. */
static void test_vocabulary(void **state)
{
    (void)state;
    struct glm_config config = tiny_config(true);
    struct glm_options options = tiny_options(4);
    struct glm_plan none, some, all;
    struct dev *dev;
    config.vocab_size = 130528;
    config.hidden_size = 4096;
    config.head_count = config.kv_head_count = 32;
    assert_int_equal(glm_vocab_multiple(0), 1);
    assert_ok(plan_of(&none, &config, options));
    options.vocab_multiple = glm_vocab_multiple(90);
    assert_ok(plan_of(&some, &config, options));
    assert_int_equal(some.grad_elements - none.grad_elements, 32 * 4096);
    assert_ok(dev_open(&dev, "cpu", 1));
    dev->info.capability = 90;
    options.vocab_multiple = 0;
    assert_ok(glm_plan_create(&all, dev, &config, &options));
    assert_int_equal(all.grad_elements, some.grad_elements);
    assert_int_equal(all.class_bytes[GLM_BUF_WEIGHTS], some.class_bytes[GLM_BUF_WEIGHTS]);
    options.vocab_multiple = 1;
    assert_ok(glm_plan_create(&all, dev, &config, &options));
    assert_int_equal(all.grad_elements, none.grad_elements);
    dev_close(dev);
}

/* Scratch is planned for the largest micro-batch and serves every smaller one, so it must never be
 * the smaller batch that asks for more. In each case another operator asks for the most. */
static void check_scratch_grows(int64_t hidden, int64_t ffn, int64_t vocab, int64_t targets,
                                dtype_t weights)
{
    struct glm_config config = tiny_config(true);
    config.hidden_size = hidden;
    config.head_count = config.kv_head_count = 1;
    config.ffn_size = ffn;
    config.vocab_size = vocab;
    config.layer_count = 1;
    int64_t bytes = 0;
    for (int64_t rows = 1; rows <= 4200; rows++) {
        struct glm_options options = tiny_options(rows);
        struct glm_plan plan;
        options.targets_max = targets > 0 ? targets : rows;
        options.train = weights == DTYPE_F32;
        options.weight_dtype = weights;
        assert_ok(plan_of(&plan, &config, options));
        assert_true(plan.buffer[GLM_B_SCRATCH].bytes >= bytes);
        bytes = plan.buffer[GLM_B_SCRATCH].bytes;
    }
}

static void test_scratch_grows(void **state)
{
    (void)state;
    check_scratch_grows(8, 4096, 64, 1, DTYPE_F32);
    check_scratch_grows(512, 16, 64, 1, DTYPE_F32);
    check_scratch_grows(8, 16, 9000, 0, DTYPE_F32);
    check_scratch_grows(8, 4096, 64, 1, DTYPE_F16);
    check_scratch_grows(8, 16, 9000, 0, DTYPE_F16);
}

static void test_refused(void **state)
{
    (void)state;
    struct glm_config config = tiny_config(true);
    struct glm_options options = tiny_options(16);
    struct glm_plan plan;
    options.dtype = DTYPE_F16;
    assert_err(plan_of(&plan, &config, options), DTYPE, "found f16");
    options = tiny_options(16);
    options.grad_dtype = DTYPE_BF16;
    assert_err(plan_of(&plan, &config, options), DTYPE, "gradients in bf16 of a model in f32");
    options.dtype = DTYPE_BF16;
    options.grad_dtype = DTYPE_F64;
    assert_err(plan_of(&plan, &config, options), DTYPE, "gradients in f64 of a model in bf16");
    options = tiny_options(16);
    options.weight_dtype = DTYPE_F16;
    assert_err(plan_of(&plan, &config, options), DTYPE, "f16 can be read but not trained");
    options.train = false;
    options.weight_dtype = DTYPE_F64;
    assert_err(plan_of(&plan, &config, options), DTYPE, "matrices in f64");
    options.dtype = DTYPE_F64;
    options.weight_dtype = DTYPE_BF16;
    assert_err(plan_of(&plan, &config, options), DTYPE, "computes in f64");
    options = tiny_options(0);
    assert_err(plan_of(&plan, &config, options), ARG, "rows_max 0");
    options = tiny_options(16);
    options.rows_max = (int64_t)1 << 40;
    assert_err(plan_of(&plan, &config, options), ARG, "rows_max");
    options = tiny_options(16);
    options.ranks = 0;
    assert_err(plan_of(&plan, &config, options), ARG, "ranks 0");
    options = tiny_options(INT32_MAX);
    config.vocab_size = config.ffn_size = INT32_MAX;
    config.hidden_size = 1 << 20;
    config.head_count = config.kv_head_count = 1;
    config.layer_count = 100000;
    assert_err(plan_of(&plan, &config, options), ARG, "overflow");
    config = tiny_config(true);
    config.family = GLM_CHATGLM2;
    assert_err(plan_of(&plan, &config, tiny_options(16)), UNSUPPORTED, "ChatGLM2-6B");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_allocations),     cmocka_unit_test(test_sums),
        cmocka_unit_test(test_lean_is_smaller), cmocka_unit_test(test_scratch_grows),
        cmocka_unit_test(test_refused),         cmocka_unit_test(test_weights_of_6b),
        cmocka_unit_test(test_gradients),       cmocka_unit_test(test_recompute_is_smaller),
        cmocka_unit_test(test_bf16_is_half),    cmocka_unit_test(test_vocabulary),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
