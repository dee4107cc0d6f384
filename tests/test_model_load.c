/* glm_load against sources in memory: what is complete loads, what is not is named. */
#include "model_fixture.h"

#include "base/num.h"
#include "base/stop.h"
#include "model/weights.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TENSORS_MAX 64

/* A source that holds the tensors of a model: f16, f32 or a mixture, as tests make them. */
struct memory_source {
    struct weight_source base; /* first: the address of one is the address of the other */
    int64_t count;
    struct weight_info info[TENSORS_MAX];
    char name[TENSORS_MAX][GLM_NAME_MAX];
    void *data[TENSORS_MAX];
};

static int64_t memory_count(const struct weight_source *s)
{
    return ((const struct memory_source *)s)->count;
}

static struct weight_info memory_info(const struct weight_source *s, int64_t index)
{
    return ((const struct memory_source *)s)->info[index];
}

static err_t memory_read(struct weight_source *s, void *out, int64_t index, int64_t first,
                         int64_t count)
{
    const struct memory_source *m = (const struct memory_source *)s;
    const int64_t size = dtype_bytes(m->info[index].dtype);
    assert_true(first >= 0 && first + count <= m->info[index].count);
    memcpy(out, (const char *)m->data[index] + first * size, (size_t)(count * size));
    return ERR_OK;
}

static void memory_close(struct weight_source *s) { (void)s; }

static const struct weight_source_ops memory_ops = {
    .count = memory_count,
    .info = memory_info,
    .read = memory_read,
    .close = memory_close,
};

/* Values that tell tensor and element: exact in f16. */
static float value_at(int64_t tensor, int64_t e)
{
    return (float)((tensor * 7 + e) % 64) / 64.0f - 0.5f;
}

static int64_t add(struct memory_source *m, const char *name, dtype_t dtype, int dims, int64_t d0,
                   int64_t d1, int64_t values)
{
    const int64_t i = m->count++, count = d0 * (dims == 2 ? d1 : 1);
    assert_true(i < TENSORS_MAX && (dtype == DTYPE_F16 || dtype == DTYPE_F32));
    snprintf(m->name[i], sizeof m->name[i], "%s", name);
    m->info[i] = (struct weight_info){ m->name[i], dtype, dims, { d0, d1, 1, 1 }, count };
    m->data[i] = malloc((size_t)(count * dtype_bytes(dtype)));
    for (int64_t e = 0; e < count; e++) {
        const float x = value_at(values, e);
        if (dtype == DTYPE_F16)
            ((uint16_t *)m->data[i])[e] = f32_to_f16(x);
        else
            ((float *)m->data[i])[e] = x;
    }
    return i;
}

/* Everything a folder of the published kind holds: matrices f16, norms f32, frequencies, both tied
 * names. */
static void fill(struct memory_source *m, const struct glm_params *p)
{
    memset(m, 0, sizeof *m);
    m->base.ops = &memory_ops;
    for (int64_t i = p->count - 1; i >= 0; i--) { /* in another order than the table's */
        const struct glm_param *row = &p->row[i];
        const dtype_t dtype = row->init == GLM_INIT_ONE ? DTYPE_F32 : DTYPE_F16;
        add(m, row->name, dtype, row->dims, row->dim[0], row->dim[1], i);
        if (row->name_tied[0] != '\0')
            add(m, row->name_tied, dtype, row->dims, row->dim[0], row->dim[1], i);
    }
    add(m, "transformer.layers.0.attention.rotary_emb.inv_freq", DTYPE_F16, 1, 2, 1, 0);
}

static void empty(struct memory_source *m)
{
    for (int64_t i = 0; i < m->count; i++) free(m->data[i]);
}

static int64_t index_of(const struct memory_source *m, const char *name)
{
    const int64_t i = weight_source_find(&m->base, name);
    assert_true(i >= 0);
    return i;
}

static void remove_tensor(struct memory_source *m, const char *name)
{
    const int64_t i = index_of(m, name), last = --m->count;
    free(m->data[i]);
    m->info[i] = m->info[last];
    m->data[i] = m->data[last];
    memcpy(m->name[i], m->name[last], sizeof m->name[i]);
    m->info[i].name = m->name[i];
}

struct load_rig {
    struct rig rig;
    struct memory_source source;
};

static void open_load_as(struct load_rig *l, const char *device, bool tied, dtype_t weights)
{
    const struct glm_config config = tiny_config(tied);
    struct glm_options options = tiny_options(4);
    options.train = weights == DTYPE_F32;
    options.weight_dtype = weights;
    rig_open(&l->rig, device, 1, &config, &options);
    fill(&l->source, glm_params(l->rig.glm));
}

static void open_load(struct load_rig *l, const char *device, bool tied)
{
    open_load_as(l, device, tied, DTYPE_F32);
}

static void close_load(struct load_rig *l)
{
    empty(&l->source);
    rig_close(&l->rig);
}

static void check_loaded(const struct load_rig *l)
{
    const struct glm_params *p = glm_params(l->rig.glm);
    for (int64_t i = 0; i < p->count; i++) {
        const struct tensor w = glm_weight(l->rig.glm, i);
        double *values = rig_copy(&l->rig, &w);
        for (int64_t e = 0; e < p->row[i].count; e++)
            assert_true(values[e] == (double)value_at(i, e));
        free(values);
    }
}

static void test_loads(void **state)
{
    (void)state;
    for (int tied = 0; tied < 2; tied++)
        for (int ref = 0; ref < 2; ref++) {
            struct load_rig l;
            open_load(&l, ref ? "ref" : "cpu", tied);
            assert_ok(glm_load(l.rig.glm, &l.source.base));
            check_loaded(&l);
            close_load(&l);
        }
}

/* Matrices stay in 16 bits, norms and biases are widened, and the values are those of the files. */
static void test_loads_16_bits(void **state)
{
    (void)state;
    static const dtype_t dtypes[] = { DTYPE_F16, DTYPE_BF16 };
    for (int64_t d = 0; d < COUNT_OF(dtypes); d++)
        for (int tied = 0; tied < 2; tied++) {
            struct load_rig l;
            open_load_as(&l, "cpu", tied, dtypes[d]);
            const struct glm_params *p = glm_params(l.rig.glm);
            for (int64_t i = 0; i < p->count; i++)
                assert_int_equal(glm_weight(l.rig.glm, i).dtype,
                                 p->row[i].dims == 2 ? dtypes[d] : DTYPE_F32);
            assert_ok(glm_load(l.rig.glm, &l.source.base));
            check_loaded(&l);
            close_load(&l);
        }
}

/* A matrix stored wider is rounded; a number that does not fit is named, and fits elsewhere. */
static void test_rounds_wider_files(void **state)
{
    (void)state;
    static const char name[] = "transformer.layers.1.attention.dense.weight";
    static const dtype_t dtypes[] = { DTYPE_F16, DTYPE_BF16, DTYPE_F32 };
    for (int64_t d = 0; d < COUNT_OF(dtypes); d++) {
        struct load_rig l;
        open_load_as(&l, "cpu", true, dtypes[d]);
        const int64_t row = glm_params_find_name(glm_params(l.rig.glm), name);
        remove_tensor(&l.source, name);
        float *values = l.source.data[add(&l.source, name, DTYPE_F32, 2, 24, 24, row)];
        values[5] = 0x1.0002p0f; /* rounds to 1 */
        assert_ok(glm_load(l.rig.glm, &l.source.base));
        const struct tensor w = glm_weight(l.rig.glm, row);
        double *loaded = rig_copy(&l.rig, &w);
        assert_true(loaded[5] == (dtypes[d] == DTYPE_F32 ? 0x1.0002p0 : 1.0));
        assert_true(loaded[6] == (double)value_at(row, 6));
        free(loaded);

        values[575] = -70000.0f;
        if (dtypes[d] == DTYPE_F16)
            assert_err(glm_load(l.rig.glm, &l.source.base), NUMERIC,
                       "transformer.layers.1.attention.dense.weight: element 575 is -70000, "
                       "beyond f16");
        else
            assert_ok(glm_load(l.rig.glm, &l.source.base));
        close_load(&l);
    }
}

/* ---- exact values on the way ---- */

/* What a sink has received: every element once, in order. */
struct received {
    const struct glm_params *params;
    float **value; /* [params->count][row count] */
    int64_t index, first;
    int64_t puts, fail_at; /* the call that fails, -1: none */
};

static err_t receive(void *context, int64_t index, int64_t first, const float *values,
                     int64_t count)
{
    struct received *r = context;
    if (r->puts++ == r->fail_at) RAISE(IO, "no more room for row %lld", (long long)index);
    assert_int_equal(index, r->index);
    assert_int_equal(first, r->first);
    assert_true(count >= 1 && first + count <= r->params->row[index].count);
    memcpy(r->value[index] + first, values, (size_t)count * sizeof *values);
    r->first += count;
    if (r->first < r->params->row[index].count) return ERR_OK;
    r->index++;
    r->first = 0;
    return ERR_OK;
}

static void received_make(struct received *r, const struct glm_params *params)
{
    *r = (struct received){ .params = params, .fail_at = -1 };
    r->value = calloc((size_t)params->count, sizeof *r->value);
    for (int64_t i = 0; i < params->count; i++)
        r->value[i] = calloc((size_t)params->row[i].count, sizeof **r->value);
}

static void received_clear(struct received *r)
{
    for (int64_t i = 0; i < r->params->count; i++) free(r->value[i]);
    free(r->value);
}

/* What the model has is the rounding of what the sink received. */
static void check_rounded(const struct rig *rig, const struct received *r)
{
    for (int64_t i = 0; i < r->params->count; i++) {
        const struct tensor w = glm_weight(rig->glm, i);
        const int64_t count = r->params->row[i].count;
        double *kept = rig_copy(rig, &w);
        for (int64_t e = 0; e < count; e++) {
            const float exact = r->value[i][e];
            const bool is_bf16 = w.dtype == DTYPE_BF16, is_f16 = w.dtype == DTYPE_F16;
            const float rounded = is_bf16  ? bf16_to_f32(f32_to_bf16(exact))
                                  : is_f16 ? f16_to_f32(f32_to_f16(exact))
                                           : exact;
            assert_true(kept[e] == (double)rounded);
        }
        free(kept);
    }
}

static void check_exact(const char *device, bool tied, dtype_t weights)
{
    static const char name[] = "transformer.layers.1.attention.dense.weight";
    struct load_rig l;
    struct received r;
    open_load_as(&l, device, tied, weights);
    const struct glm_params *params = glm_params(l.rig.glm);
    const int64_t row = glm_params_find_name(params, name);
    uint16_t *values = l.source.data[index_of(&l.source, name)];
    values[5] = f32_to_f16(0x1.008p0f); /* f16 has it, bf16 does not */
    received_make(&r, params);
    const struct glm_sink sink = { .put = receive, .context = &r };
    assert_ok(glm_load_exact(l.rig.glm, &l.source.base, &sink));
    assert_int_equal(r.index, params->count);
    for (int64_t i = 0; i < params->count; i++)
        for (int64_t e = 0; e < params->row[i].count; e++)
            assert_true(r.value[i][e] == (i == row && e == 5 ? 0x1.008p0f : value_at(i, e)));
    check_rounded(&l.rig, &r);

    /* From the seed: what a float32 model begins with. */
    r.index = 0;
    assert_ok(glm_init_exact(l.rig.glm, 9, &sink));
    assert_int_equal(r.index, params->count);
    float *initial = malloc((size_t)params->row[row].count * sizeof *initial);
    glm_param_init(initial, params, glm_config(l.rig.glm), row, 9, 0, params->row[row].count);
    assert_memory_equal(initial, r.value[row], (size_t)params->row[row].count * sizeof *initial);
    free(initial);
    check_rounded(&l.rig, &r);

    r.puts = r.index = 0;
    r.fail_at = 3;
    assert_err(glm_load_exact(l.rig.glm, &l.source.base, &sink), IO, "no more room for row 3");
    r.puts = r.index = 0;
    assert_err(glm_init_exact(l.rig.glm, 9, &sink), IO, "no more room for row 3");
    received_clear(&r);
    close_load(&l);
}

static void test_exact(void **state)
{
    (void)state;
    check_exact("cpu", true, DTYPE_F32);
    check_exact("cpu", false, DTYPE_F16);
    check_exact("cpu", true, DTYPE_BF16);
    check_exact("ref", true, DTYPE_F32);
    for (int tied = 0; tied < 2; tied++) check_exact("ref16", tied, DTYPE_F32);
    if (rig_has("emu16")) check_exact("emu16", true, DTYPE_F32);
}

/* A table so large that it comes in several pieces. */
static void test_exact_in_pieces(void **state)
{
    (void)state;
    struct glm_config config = tiny_config(true);
    struct glm_options options = tiny_options(4);
    struct load_rig l;
    struct received r;
    config.vocab_size = 50000;
    options.train = false;
    rig_open(&l.rig, "ref16", 1, &config, &options);
    fill(&l.source, glm_params(l.rig.glm));
    received_make(&r, glm_params(l.rig.glm));
    const struct glm_sink sink = { .put = receive, .context = &r };
    assert_ok(glm_load_exact(l.rig.glm, &l.source.base, &sink));
    assert_true(r.puts > r.params->count); /* or nothing was cut */
    check_loaded(&l);
    check_rounded(&l.rig, &r);
    received_clear(&r);
    close_load(&l);
}

/* A load that may be stopped is. */
static void test_stopped(void **state)
{
    (void)state;
    struct load_rig l;
    open_load(&l, "cpu", true);
    testing_signal(SIGTERM);
    assert_err(glm_load_exact(l.rig.glm, &l.source.base, &(struct glm_sink){ .stops = true }),
               INTERRUPTED, "while the weights were loaded");
    assert_err(glm_init_exact(l.rig.glm, 9, &(struct glm_sink){ .stops = true }), INTERRUPTED,
               "while random weights were made");
    assert_ok(glm_load(l.rig.glm, &l.source.base));
    stop_reset();
    assert_ok(glm_load_exact(l.rig.glm, &l.source.base, &(struct glm_sink){ .stops = true }));
    close_load(&l);
}

/* A tied model needs one of the two names. */
static void test_one_name(void **state)
{
    (void)state;
    static const char *const names[] = { "lm_head.weight", "transformer.word_embeddings.weight" };
    for (int64_t i = 0; i < COUNT_OF(names); i++) {
        struct load_rig l;
        open_load(&l, "cpu", true);
        remove_tensor(&l.source, names[i]);
        assert_ok(glm_load(l.rig.glm, &l.source.base));
        check_loaded(&l);
        close_load(&l);
    }
}

static void test_twins_differ(void **state)
{
    (void)state;
    struct load_rig l;
    open_load(&l, "cpu", true);
    const int64_t head = index_of(&l.source, "lm_head.weight");
    ((uint16_t *)l.source.data[head])[31 * 24 + 5] ^= 1;
    ((uint16_t *)l.source.data[head])[40 * 24] ^= 1;
    assert_err(glm_load(l.rig.glm, &l.source.base), FORMAT, "differ first in row 31");
    assert_err(glm_load(l.rig.glm, &l.source.base), FORMAT, "model.tie: false");
    close_load(&l);

    /* The same values in another dtype are the same table. */
    open_load(&l, "cpu", true);
    remove_tensor(&l.source, "lm_head.weight");
    add(&l.source, "lm_head.weight", DTYPE_F32, 2, 53, 24, 0);
    assert_ok(glm_load(l.rig.glm, &l.source.base));
    check_loaded(&l);
    close_load(&l);
}

static void test_missing(void **state)
{
    (void)state;
    struct load_rig l;
    open_load(&l, "cpu", false);
    remove_tensor(&l.source, "lm_head.weight");
    assert_err(glm_load(l.rig.glm, &l.source.base), FORMAT, "lm_head.weight: not in the files");
    close_load(&l);
    open_load(&l, "cpu", true);
    remove_tensor(&l.source, "transformer.layers.1.mlp.dense_4h_to_h.bias");
    assert_err(glm_load(l.rig.glm, &l.source.base), FORMAT,
               "transformer.layers.1.mlp.dense_4h_to_h.bias: not in the files");
    close_load(&l);
}

static void test_extra(void **state)
{
    (void)state;
    static const char *const names[] = { "transformer.layers.2.input_layernorm.bias",
                                         "transformer.prefix_encoder.embedding.weight",
                                         "rotary_emb.inv_freq.weight", "" };
    for (int64_t i = 0; i < COUNT_OF(names); i++) {
        struct load_rig l;
        char part[128];
        snprintf(part, sizeof part, "%s: in the files, but no tensor of this model", names[i]);
        open_load(&l, "cpu", true);
        add(&l.source, names[i], DTYPE_F16, 1, 24, 1, 0);
        assert_err(glm_load(l.rig.glm, &l.source.base), FORMAT, part);
        close_load(&l);
    }
}

static void test_shapes(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int dims;
        int64_t d0, d1;
        const char *part;
    } rows[] = {
        { "transformer.layers.0.attention.dense.weight", 2, 24, 25,
          "shape [24, 25]; expected [24, 24]" },
        { "transformer.layers.0.mlp.dense_h_to_4h.weight", 2, 24, 40,
          "shape [24, 40]; expected [40, 24]" },
        { "transformer.layers.0.attention.dense.weight", 1, 576, 1, "expected [24, 24]" },
        { "transformer.final_layernorm.bias", 1, 23, 1, "shape [23]; expected [24]" },
        { "transformer.final_layernorm.bias", 2, 24, 1, "shape [24, 1]; expected [24]" },
        { "lm_head.weight", 2, 54, 24, "shape [54, 24]; expected [53, 24]" },
    };
    for (int64_t i = 0; i < COUNT_OF(rows); i++) {
        struct load_rig l;
        open_load(&l, "cpu", true);
        remove_tensor(&l.source, rows[i].name);
        add(&l.source, rows[i].name, DTYPE_F16, rows[i].dims, rows[i].d0, rows[i].d1, 0);
        assert_err(glm_load(l.rig.glm, &l.source.base), FORMAT, rows[i].part);
        close_load(&l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loads),         cmocka_unit_test(test_one_name),
        cmocka_unit_test(test_twins_differ),  cmocka_unit_test(test_missing),
        cmocka_unit_test(test_extra),         cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_loads_16_bits), cmocka_unit_test(test_rounds_wider_files),
        cmocka_unit_test(test_exact),         cmocka_unit_test(test_exact_in_pieces),
        cmocka_unit_test(test_stopped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
