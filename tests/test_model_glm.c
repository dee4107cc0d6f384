/* The model as its callers see it: initial loss, what is refused, what may be looked at. */
#include "model_fixture.h"

#include "base/fault.h"
#include "model/glm_plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct sample samples[] = { { 0, 4, 9 }, { 1, 1, 5 }, { 2, 7, 8 } };

/* A fresh model knows nothing: its loss is ln V, tied or not. */
static void check_first_loss(bool tied)
{
    static const struct sample few[] = { { 0, 4, 20 }, { 1, 9, 16 } };
    struct glm_config config = tiny_config(tied);
    struct glm_options options = tiny_options(64);
    struct rig rig;
    struct batch batch;
    config.vocab_size = 8000;
    config.hidden_size = 1024;
    config.head_count = config.kv_head_count = 8;
    config.ffn_size = 4096;
    config.layer_count = 1;
    options.train = false;
    rig_open(&rig, "cpu", 2, &config, &options);
    assert_ok(glm_init(rig.glm, 42));
    batch_make(&batch, few, COUNT_OF(few), 0);
    double nll[64], mean = 0.0;
    assert_ok(glm_eval_micro(rig.glm, &batch.glm, nll));
    for (int64_t i = 0; i < batch.glm.target_count; i++)
        mean += nll[i] / (double)batch.glm.target_count;
    assert_true(fabs(mean - log(8000.0)) < 0.1);
    batch_clear(&batch);
    rig_close(&rig);
}

static void test_first_loss(void **state)
{
    (void)state;
    check_first_loss(true);
    check_first_loss(false);
}

/* glm_init puts into the arena what glm_param_init says. */
static void test_init(void **state)
{
    (void)state;
    const struct glm_config config = tiny_config(false);
    const struct glm_options options = tiny_options(8);
    struct rig cpu, ref;
    rig_open(&cpu, "cpu", 1, &config, &options);
    rig_open(&ref, "ref", 1, &config, &options);
    assert_ok(glm_init(cpu.glm, 11));
    assert_ok(glm_init(ref.glm, 11));
    const struct tensor w32 = glm_weights(cpu.glm), w64 = glm_weights(ref.glm);
    double *a = rig_copy(&cpu, &w32), *b = rig_copy(&ref, &w64);
    assert_memory_equal(a, b, (size_t)tensor_count(&w32) * sizeof *a);

    const struct glm_params *p = glm_params(cpu.glm);
    const int64_t i = glm_params_find(p, GLM_HEAD, -1);
    float *head = malloc((size_t)p->row[i].count * sizeof *head);
    glm_param_init(head, p, &config, i, 11, 0, p->row[i].count);
    for (int64_t e = 0; e < p->row[i].count; e++)
        assert_true(a[glm_layout(cpu.glm)->offset[i] + e] == (double)head[e]);
    free(head);
    free(a);
    free(b);
    rig_close(&cpu);
    rig_close(&ref);
}

/* Padding for ranks and of the vocabulary changes no bit of loss or gradients, and stays zero. */
static void test_padded_layout(void **state)
{
    (void)state;
    const struct glm_config config = tiny_config(false);
    struct rig rig[2];
    struct batch batch;
    double *grads[2], loss[2];
    int64_t inside = 0, nonzero = 0;
    batch_make(&batch, samples, COUNT_OF(samples), 4);
    for (int padded = 0; padded < 2; padded++) {
        struct glm_options options = tiny_options(32);
        options.ranks = padded ? 3 : 1;
        options.vocab_multiple = padded ? 64 : 0;
        rig_open(&rig[padded], "cpu", 2, &config, &options);
        rig_randomize(&rig[padded], 5);
        loss[padded] = rig_train(&rig[padded], &batch.glm);
        grads[padded] = rig_copy(&rig[padded], &rig[padded].grads);
    }
    assert_true(loss[0] == loss[1]);
    const struct glm_params *params = glm_params(rig[0].glm);
    const struct glm_layout *plain = glm_layout(rig[0].glm), *wide = glm_layout(rig[1].glm);
    assert_true(wide->element_count > plain->element_count);
    for (int64_t i = 0; i < params->count; i++) {
        const double *a = grads[0] + plain->offset[i], *b = grads[1] + wide->offset[i];
        assert_memory_equal(a, b, (size_t)params->row[i].count * sizeof *a);
        for (int64_t e = 0; e < params->row[i].count; e++) inside += b[e] != 0.0;
    }
    for (int64_t e = 0; e < wide->element_count; e++) nonzero += grads[1][e] != 0.0;
    assert_int_equal(nonzero, inside);
    for (int padded = 0; padded < 2; padded++) {
        free(grads[padded]);
        rig_close(&rig[padded]);
    }
    batch_clear(&batch);
}

/* The CPU backend in float32 against the reference in float64, through the whole network. */
static void test_cpu_against_ref(void **state)
{
    (void)state;
    const struct glm_config config = tiny_config(false);
    const struct glm_options options = tiny_options(32);
    struct rig cpu, ref;
    struct batch batch;
    rig_open(&cpu, "cpu", 2, &config, &options);
    rig_open(&ref, "ref", 1, &config, &options);
    rig_randomize(&cpu, 6);
    rig_randomize(&ref, 6);
    batch_make(&batch, samples, COUNT_OF(samples), 1);
    const double a = rig_train(&cpu, &batch.glm), b = rig_train(&ref, &batch.glm);
    double *da = rig_copy(&cpu, &cpu.grads), *db = rig_copy(&ref, &ref.grads);
    assert_true(fabs(a - b) <= 1e-6 * fabs(b));
    assert_true(largest_error(da, db, tensor_count(&ref.grads)) <= 1e-5);
    free(da);
    free(db);
    batch_clear(&batch);
    rig_close(&cpu);
    rig_close(&ref);
}

/* A model without room for training gives the same losses and refuses the rest. */
static void test_eval_only(void **state)
{
    (void)state;
    const struct glm_config config = tiny_config(true);
    struct glm_options options = tiny_options(32);
    struct rig full, eval;
    struct batch batch;
    rig_open(&full, "cpu", 1, &config, &options);
    options.train = false;
    rig_open(&eval, "cpu", 1, &config, &options);
    rig_randomize(&full, 6);
    rig_randomize(&eval, 6);
    batch_make(&batch, samples, COUNT_OF(samples), 0);
    assert_true(rig_eval(&full, &batch.glm) == rig_eval(&eval, &batch.glm));

    double nll[32];
    assert_err(
        glm_train_micro(eval.glm, &batch.glm, &(struct glm_grads){ .arena = eval.grads }, nll), ARG,
        "without room");
    batch_clear(&batch);
    rig_close(&full);
    rig_close(&eval);
}

/* ---- hostile batches ---- */

typedef void (*spoil_fn)(struct batch *b);

static void spoil_id(struct batch *b) { b->ids[3] = 53; }
static void spoil_id_sign(struct batch *b) { b->ids[3] = -1; }
static void spoil_pos(struct batch *b) { b->pos[2] = 64; }
static void spoil_block(struct batch *b) { b->block[2] = -5; }
static void spoil_rows(struct batch *b) { b->glm.rows = 33; }
static void spoil_no_rows(struct batch *b) { b->glm.rows = 0; }
static void spoil_overlap(struct batch *b) { b->segments[1].start = 8; }
static void spoil_len(struct batch *b) { b->segments[2].len = 9; }
static void spoil_ctx(struct batch *b) { b->segments[0].ctx = 10; }
static void spoil_start(struct batch *b) { b->segments[2].start = INT32_MAX; }
static void spoil_segments(struct batch *b) { b->glm.segment_count = 0; }
static void spoil_label(struct batch *b) { b->labels[0] = 53; }
static void spoil_target(struct batch *b) { b->target_rows[1] = b->target_rows[0]; }
static void spoil_target_end(struct batch *b) { b->target_rows[b->glm.target_count - 1] = 22; }
static void spoil_target_count(struct batch *b) { b->glm.target_count = 33; }
static void spoil_padding(struct batch *b)
{
    b->segments[2].ctx = 1;
    b->segments[2].len = 3;
}
static void spoil_order(struct batch *b) { b->order[5] = b->order[4]; }
static void spoil_order_range(struct batch *b) { b->order[5] = 22; }

static const struct {
    spoil_fn spoil;
    const char *part;
} hostile[] = {
    { spoil_id, "token id of row 3 is 53; expected 0 .. 52" },
    { spoil_id_sign, "token id of row 3 is -1" },
    { spoil_pos, "position of row 2 is 64; expected 0 .. 63" },
    { spoil_block, "block position of row 2 is -5" },
    { spoil_rows, "33 rows; this model has room for 1 .. 32" },
    { spoil_no_rows, "0 rows" },
    { spoil_overlap, "segment 1: start 8" },
    { spoil_len, "segment 2" },
    { spoil_ctx, "segment 0: start 0, ctx 10" },
    { spoil_start, "segment 2" },
    { spoil_segments, "0 segments" },
    { spoil_label, "label of row 0 is 53" },
    { spoil_target, "target 1 is row 3; expected rows that increase" },
    { spoil_target_end, "is row 22" },
    { spoil_target_count, "33 targets" },
    { spoil_padding, "is in no segment" },
    { spoil_order, "order does not sort" },
    { spoil_order_range, "order of row 5 is 22" },
};

static void test_hostile(void **state)
{
    (void)state;
    const struct glm_config config = tiny_config(true);
    const struct glm_options options = tiny_options(32);
    struct rig rig;
    double nll[64];
    rig_open(&rig, "cpu", 1, &config, &options);
    rig_randomize(&rig, 6);
    for (int64_t i = 0; i < COUNT_OF(hostile); i++) {
        struct batch batch;
        batch_make(&batch, samples, COUNT_OF(samples), 0);
        hostile[i].spoil(&batch);
        const struct glm_grads grads = { .arena = rig.grads };
        assert_err(glm_train_micro(rig.glm, &batch.glm, &grads, nll), ARG, hostile[i].part);
        batch_clear(&batch);
    }
    const float *grads = rig.grads.data; /* the host's own memory */
    for (int64_t i = 0; i < tensor_count(&rig.grads); i++) assert_true(grads[i] == 0.0f);
    rig_close(&rig);
}

static void test_wrong_grads(void **state)
{
    (void)state;
    const struct glm_config config = tiny_config(true);
    const struct glm_options options = tiny_options(32);
    struct rig rig;
    struct batch batch;
    double nll[32];
    rig_open(&rig, "cpu", 1, &config, &options);
    batch_make(&batch, samples, COUNT_OF(samples), 0);
    struct glm_grads grads = { .arena = rig.grads };
    grads.arena.dtype = DTYPE_F64;
    assert_err(glm_train_micro(rig.glm, &batch.glm, &grads, nll), DTYPE, "expected f32");
    grads.arena = rig.grads;
    grads.arena.dim[0]--;
    assert_err(glm_train_micro(rig.glm, &batch.glm, &grads, nll), SHAPE, "the model's have");
    batch_clear(&batch);
    rig_close(&rig);
}

/* No targets: nothing to learn, nothing added, and the forward pass still runs. */
static void test_no_targets(void **state)
{
    (void)state;
    const struct glm_config config = tiny_config(true);
    const struct glm_options options = tiny_options(32);
    struct rig rig;
    struct batch batch;
    rig_open(&rig, "cpu", 1, &config, &options);
    rig_randomize(&rig, 6);
    batch_make(&batch, samples, COUNT_OF(samples), 0);
    batch.glm.target_count = 0;
    assert_true(rig_train(&rig, &batch.glm) == 0.0);
    const float *grads = rig.grads.data;
    for (int64_t i = 0; i < tensor_count(&rig.grads); i++) assert_true(grads[i] == 0.0f);
    assert_true(rig_eval(&rig, &batch.glm) == 0.0);
    batch_clear(&batch);
    rig_close(&rig);
}

/* nll is what the logits say. */
static void test_loss_of_logits(void **state)
{
    (void)state;
    const struct glm_config config = tiny_config(true);
    const struct glm_options options = tiny_options(32);
    struct rig rig;
    struct batch batch;
    double logits[53], nll[32], sum = 0.0;
    rig_open(&rig, "cpu", 1, &config, &options);
    rig_randomize(&rig, 6);
    batch_make(&batch, samples, COUNT_OF(samples), 0);
    assert_ok(glm_eval_micro(rig.glm, &batch.glm, nll));
    assert_ok(glm_look_logits(rig.glm, logits, batch.glm.rows, batch.target_rows[0], 1));
    for (int v = 0; v < 53; v++) sum += exp(logits[v]);
    assert_true(fabs(log(sum) - logits[batch.labels[0]] - nll[0]) < 1e-5);
    batch_clear(&batch);
    rig_close(&rig);
}

/* Refused before anything is allocated; a backend may lack a dtype. */
static void test_dtype_of_device(void **state)
{
    (void)state;
    const struct glm_config config = tiny_config(true);
    struct glm_options options = tiny_options(32);
    struct dev *dev;
    struct glm *glm;
    options.dtype = DTYPE_BF16;
    assert_ok(dev_open(&dev, "cpu", 1));
    assert_err(glm_create(&glm, dev, &config, &options), UNSUPPORTED,
               "cpu backend computes in f32");
    assert_null(glm);
    assert_int_equal(dev->stats.alloc_count, 0);
    dev_close(dev);
}

/* Every allocation in its turn fails: an error that names it, and nothing stays allocated. */
static void test_out_of_memory(void **state)
{
    (void)state;
    const struct glm_config config = tiny_config(true);
    const struct glm_options options = tiny_options(32);
    struct dev *dev;
    struct glm *glm = NULL;
    int failures = 0;
    assert_ok(dev_open(&dev, "cpu", 1));
    for (int n = 1; glm == NULL; n++) {
        fault_arm("dev.", n);
        const err_t rc = glm_create(&glm, dev, &config, &options);
        fault_arm("", 0);
        if (rc == ERR_OK) break;
        assert_int_equal(rc, ERR_NOMEM);
        assert_null(glm);
        assert_int_equal(dev->stats.alloc_bytes, 0);
        failures++;
    }
    assert_int_equal(failures, GLM_BUF_CLASSES + GLM_TICKETS);
    glm_close(glm);
    dev_close(dev);
}

static void test_family(void **state)
{
    (void)state;
    struct glm_config config = tiny_config(true);
    struct glm_options options = tiny_options(32);
    struct dev *dev;
    struct glm *glm;
    config.family = GLM_CHATGLM2;
    assert_ok(dev_open(&dev, "cpu", 1));
    assert_err(glm_create(&glm, dev, &config, &options), UNSUPPORTED, "ChatGLM2-6B");
    assert_null(glm);
    dev_close(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_loss),      cmocka_unit_test(test_init),
        cmocka_unit_test(test_padded_layout),   cmocka_unit_test(test_cpu_against_ref),
        cmocka_unit_test(test_eval_only),       cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_wrong_grads),     cmocka_unit_test(test_no_targets),
        cmocka_unit_test(test_loss_of_logits),  cmocka_unit_test(test_family),
        cmocka_unit_test(test_dtype_of_device), cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
