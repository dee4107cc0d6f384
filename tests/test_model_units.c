/* Passes with gradients: units and their hooks, gradients that are released, layers that are
 * recomputed. */
#include "model_fixture.h"

#include <stdlib.h>
#include <string.h>

static const struct sample samples[] = { { 0, 4, 9 }, { 1, 1, 5 }, { 2, 7, 8 } };
#define ROWS 32

static const char *const devices[] = { "cpu", "ref", "ref16", "emu", "emu16" };

static struct glm_config three_layers(bool tied)
{
    struct glm_config config = tiny_config(tied);
    config.layer_count = 3; /* one slot is used twice, the other once */
    return config;
}

static int64_t unit_size(const struct glm *glm, int64_t unit)
{
    const int64_t *place = glm_layout(glm)->unit_offset;
    return place[unit + 1] - place[unit];
}

/* ---- order of units ---- */

#define EVENTS_MAX 64

/* What the hooks were called with: 100 + unit for begin, 200 + unit for done. */
struct record {
    int64_t event[EVENTS_MAX], count;
    int64_t fail_at; /* the call that fails, -1: none */
};

static err_t note(struct record *r, int64_t event)
{
    assert_true(r->count < EVENTS_MAX);
    r->event[r->count] = event;
    if (r->count++ == r->fail_at) RAISE(INTERRUPTED, "hook %lld", (long long)event);
    return ERR_OK;
}

static err_t note_begin(void *context, int64_t unit) { return note(context, 100 + unit); }
static err_t note_done(void *context, int64_t unit) { return note(context, 200 + unit); }

static struct glm_grads noted(const struct rig *rig, struct record *record)
{
    return (struct glm_grads){ rig->grads, note_begin, note_done, record };
}

static void check_order(bool tied, const int64_t *expected, int64_t count)
{
    const struct glm_config config = three_layers(tied);
    const struct glm_options options = tiny_options(ROWS);
    struct rig rig;
    struct batch batch;
    double nll[ROWS];
    rig_open(&rig, "cpu", 1, &config, &options);
    rig_randomize(&rig, 5);
    batch_make(&batch, samples, COUNT_OF(samples), 0);

    struct record all = { .fail_at = -1 };
    const struct glm_grads grads = noted(&rig, &all);
    assert_ok(glm_train_micro(rig.glm, &batch.glm, &grads, nll));
    assert_int_equal(all.count, count);
    assert_memory_equal(all.event, expected, (size_t)count * sizeof *expected);

    /* A hook that fails is the last that is called, and the model goes on afterwards. */
    for (int64_t i = 0; i < count; i++) {
        struct record some = { .fail_at = i };
        const struct glm_grads failing = noted(&rig, &some);
        int ticket = 7;
        assert_err(glm_train_micro(rig.glm, &batch.glm, &failing, nll), INTERRUPTED, "hook");
        assert_int_equal(some.count, i + 1);
        assert_memory_equal(some.event, expected, (size_t)(i + 1) * sizeof *expected);
        some = (struct record){ .fail_at = i };
        assert_err(glm_train_begin(rig.glm, &ticket, &batch.glm, &failing), INTERRUPTED, "hook");
        assert_int_equal(ticket, -1);
    }
    struct record again = { .fail_at = -1 };
    const struct glm_grads whole = noted(&rig, &again);
    assert_ok(glm_train_micro(rig.glm, &batch.glm, &whole, nll));
    assert_int_equal(again.count, count);

    batch.glm.target_count = 0;
    struct record none = { .fail_at = -1 };
    const struct glm_grads idle = noted(&rig, &none);
    assert_ok(glm_train_micro(rig.glm, &batch.glm, &idle, nll));
    assert_int_equal(none.count, 0);
    batch_clear(&batch);
    rig_close(&rig);
}

/* Units: 0 embedding, 1..3 layers, 4 final. */
static void test_order(void **state)
{
    (void)state;
    static const int64_t tied[] = { 100, 104, 204, 103, 203, 102, 202, 101, 201, 200 };
    static const int64_t untied[] = { 104, 204, 103, 203, 102, 202, 101, 201, 100, 200 };
    check_order(true, tied, COUNT_OF(tied));
    check_order(false, untied, COUNT_OF(untied));
}

/* What lies in a unit's range changes between its begin and its done, and at no other time. */
struct watch {
    struct rig *rig;
    char *before;   /* the arena when a hook was last called */
    bool *open;     /* [units] */
    int64_t errors; /* units that changed while they were closed */
};

static void look(struct watch *w)
{
    const struct tensor *arena = &w->rig->grads;
    const int64_t width = dtype_bytes(arena->dtype);
    const int64_t *place = glm_grad_layout(w->rig->glm)->unit_offset;
    for (int64_t u = 0; u < glm_params(w->rig->glm)->unit_count; u++) {
        const size_t at = (size_t)(place[u] * width);
        const size_t bytes = (size_t)(unit_size(w->rig->glm, u) * width);
        const bool same = memcmp(w->before + at, (char *)arena->data + at, bytes) == 0;
        if (!same && !w->open[u]) w->errors++;
    }
    memcpy(w->before, arena->data, (size_t)(tensor_count(arena) * width));
}

static err_t watch_begin(void *context, int64_t unit)
{
    struct watch *w = context;
    look(w);
    assert_false(w->open[unit]);
    w->open[unit] = true;
    return ERR_OK;
}

static err_t watch_done(void *context, int64_t unit)
{
    struct watch *w = context;
    look(w);
    assert_true(w->open[unit]);
    w->open[unit] = false;
    return ERR_OK;
}

static void check_ranges(bool tied, enum glm_activations activations)
{
    const struct glm_config config = three_layers(tied);
    struct glm_options options = tiny_options(ROWS);
    struct rig rig;
    struct batch batch;
    double nll[ROWS];
    options.activations = activations;
    rig_open(&rig, "cpu", 1, &config, &options);
    rig_randomize(&rig, 5);
    batch_make(&batch, samples, COUNT_OF(samples), 0);
    const int64_t units = glm_params(rig.glm)->unit_count;
    struct watch w = { .rig = &rig };
    w.before = calloc((size_t)tensor_count(&rig.grads), sizeof(float));
    w.open = calloc((size_t)units, sizeof *w.open);
    const struct glm_grads grads = { rig.grads, watch_begin, watch_done, &w };
    assert_ok(glm_train_micro(rig.glm, &batch.glm, &grads, nll));
    look(&w);
    assert_int_equal(w.errors, 0);
    for (int64_t u = 0; u < units; u++) assert_false(w.open[u]);
    free(w.before);
    free(w.open);
    batch_clear(&batch);
    rig_close(&rig);
}

static void test_ranges(void **state)
{
    (void)state;
    for (int tied = 0; tied < 2; tied++) {
        check_ranges(tied, GLM_KEEP_ALL);
        check_ranges(tied, GLM_RECOMPUTE);
    }
}

/* ---- released gradients ---- */

/* Consumes units into a whole arena on the host. */
struct collector {
    struct rig *rig;
    char *whole; /* laid out like the weights */
};

static err_t clear_unit(void *context, int64_t unit)
{
    const struct collector *c = context;
    const struct tensor *arena = &c->rig->grads;
    const int64_t width = dtype_bytes(arena->dtype);
    const int64_t at = glm_grad_layout(c->rig->glm)->unit_offset[unit];
    return dev_zero(c->rig->dev, (char *)arena->data + at * width,
                    unit_size(c->rig->glm, unit) * width);
}

static err_t take_unit(void *context, int64_t unit)
{
    const struct collector *c = context;
    const struct tensor *arena = &c->rig->grads;
    const int64_t width = dtype_bytes(arena->dtype);
    const int64_t from = glm_grad_layout(c->rig->glm)->unit_offset[unit];
    const int64_t to = glm_layout(c->rig->glm)->unit_offset[unit];
    return dev_download(c->rig->dev, c->whole + to * width, (char *)arena->data + from * width,
                        unit_size(c->rig->glm, unit) * width);
}

static void check_released(const char *device, bool tied, enum glm_activations activations,
                           dtype_t grad_dtype)
{
    const struct glm_config config = three_layers(tied);
    struct glm_options options = tiny_options(ROWS);
    struct rig kept, released;
    struct batch batch;
    double nll[2][ROWS] = { { 0 } };
    options.activations = activations;
    options.grad_dtype = grad_dtype;
    options.vocab_multiple = 64;
    rig_open(&kept, device, 2, &config, &options);
    options.grad_keep = GLM_GRADS_RELEASED;
    rig_open(&released, device, 2, &config, &options);
    rig_randomize(&kept, 5);
    rig_randomize(&released, 5);
    batch_make(&batch, samples, COUNT_OF(samples), 3);

    const int64_t count = tensor_count(&kept.grads);
    const size_t bytes = (size_t)(count * dtype_bytes(kept.grads.dtype));
    struct collector c = { &released, calloc(bytes, 1) };
    char *expected = malloc(bytes);
    const struct glm_grads grads = { released.grads, clear_unit, take_unit, &c };
    assert_int_equal(kept.grads.dtype, released.grads.dtype);
    assert_int_equal(count - tensor_count(&released.grads), unit_size(kept.glm, 1)); /* 3 - 2 */
    for (int pass = 0; pass < 2; pass++) { /* the second finds what the first left in the slots */
        rig_zero_grads(&kept);
        const struct glm_grads all = { .arena = kept.grads };
        assert_ok(glm_train_micro(kept.glm, &batch.glm, &all, nll[0]));
        assert_ok(glm_train_micro(released.glm, &batch.glm, &grads, nll[1]));
        assert_ok(dev_download(kept.dev, expected, kept.grads.data, (int64_t)bytes));
        assert_memory_equal(nll[0], nll[1], sizeof nll[0]);
        assert_memory_equal(c.whole, expected, bytes);
    }
    free(expected);
    free(c.whole);
    batch_clear(&batch);
    rig_close(&kept);
    rig_close(&released);
}

static void test_released(void **state)
{
    (void)state;
    for (int64_t d = 0; d < COUNT_OF(devices); d++) {
        if (!rig_has(devices[d])) continue;
        check_released(devices[d], true, GLM_KEEP_ALL, DTYPE_F32);
        check_released(devices[d], false, GLM_LEAN, DTYPE_F32);
        check_released(devices[d], true, GLM_RECOMPUTE, rig_dtype(devices[d]));
    }
}

static void test_released_refuses(void **state)
{
    (void)state;
    const struct glm_config config = three_layers(true);
    struct glm_options options = tiny_options(ROWS);
    struct rig rig;
    struct batch batch;
    double nll[ROWS];
    options.grad_keep = GLM_GRADS_RELEASED;
    rig_open(&rig, "cpu", 1, &config, &options);
    batch_make(&batch, samples, COUNT_OF(samples), 0);
    struct record record = { .fail_at = -1 };
    struct glm_grads grads = noted(&rig, &record);
    grads.unit_done = NULL;
    assert_err(glm_train_micro(rig.glm, &batch.glm, &grads, nll), ARG, "unit_done to consume");
    grads = noted(&rig, &record);
    grads.arena.dim[0] = glm_layout(rig.glm)->element_count;
    assert_err(glm_train_micro(rig.glm, &batch.glm, &grads, nll), SHAPE, "the model's have");
    assert_int_equal(record.count, 0);
    batch_clear(&batch);
    rig_close(&rig);
}

/* One and two layers have slots of their own. */
static void test_shared_layout(void **state)
{
    (void)state;
    for (int64_t layers = 1; layers <= 5; layers++) {
        struct glm_config config = tiny_config(false);
        struct glm_params params;
        struct glm_layout whole, shared;
        config.layer_count = layers;
        assert_ok(glm_params_create(&params, &config));
        assert_ok(glm_layout_create(&whole, &params, 3, 64));
        assert_ok(glm_layout_create_shared(&shared, &params, &whole));
        const int64_t slot = whole.unit_offset[2] - whole.unit_offset[1];
        const int64_t saved = layers > GLM_GRAD_SLOTS ? layers - GLM_GRAD_SLOTS : 0;
        assert_int_equal(shared.element_count, whole.element_count - saved * slot);
        assert_int_equal(shared.unit_offset[0], 0);
        for (int64_t l = 0; l < layers; l++)
            assert_int_equal(shared.unit_offset[1 + l], whole.unit_offset[1] + l % 2 * slot);
        for (int64_t i = 0; i < params.count; i++) {
            const int64_t unit = params.row[i].unit;
            assert_int_equal(shared.offset[i] - shared.unit_offset[unit],
                             whole.offset[i] - whole.unit_offset[unit]);
            assert_true(shared.offset[i] + params.row[i].count <= shared.element_count);
        }
        glm_layout_clear(&shared);
        glm_layout_clear(&whole);
        glm_params_clear(&params);
    }
}

/* ---- activations ---- */

/* Three modes, one result. */
static void check_modes(const char *device, bool tied)
{
    static const enum glm_activations modes[] = { GLM_KEEP_ALL, GLM_LEAN, GLM_RECOMPUTE };
    const struct glm_config config = three_layers(tied);
    const size_t hidden_bytes = (ROWS - 6) * 24 * sizeof(double);
    struct batch batch;
    double *grads[3], hidden[3][3][ROWS * 24], loss[3];
    int64_t bytes[3], count = 0;
    batch_make(&batch, samples, COUNT_OF(samples), 4);
    assert_int_equal(batch.glm.rows, ROWS - 6);
    for (int m = 0; m < 3; m++) {
        struct glm_options options = tiny_options(ROWS);
        struct rig rig;
        options.activations = modes[m];
        rig_open(&rig, device, 2, &config, &options);
        rig_randomize(&rig, 5);
        rig_eval(&rig, &batch.glm);
        for (int64_t l = 0; l < 3; l++)
            assert_ok(glm_look_hidden(rig.glm, hidden[m][l], batch.glm.rows, l));
        loss[m] = rig_train(&rig, &batch.glm);
        loss[m] += rig_train(&rig, &batch.glm);
        grads[m] = rig_copy(&rig, &rig.grads);
        count = tensor_count(&rig.grads);
        bytes[m] = rig.dev->stats.alloc_bytes_max;
        rig_close(&rig);
    }
    for (int m = 1; m < 3; m++) {
        for (int l = 0; l < 3; l++) assert_memory_equal(hidden[0][l], hidden[m][l], hidden_bytes);
        assert_true(loss[0] == loss[m]);
        assert_memory_equal(grads[0], grads[m], (size_t)count * sizeof(double));
        assert_true(bytes[m] < bytes[m - 1]);
        free(grads[m]);
    }
    free(grads[0]);
    batch_clear(&batch);
}

static void test_modes(void **state)
{
    (void)state;
    for (int64_t d = 0; d < COUNT_OF(devices); d++)
        for (int tied = 0; tied < 2 && rig_has(devices[d]); tied++) check_modes(devices[d], tied);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),         cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_released),      cmocka_unit_test(test_released_refuses),
        cmocka_unit_test(test_shared_layout), cmocka_unit_test(test_modes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
