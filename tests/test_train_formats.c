/* formats.h, and what of it reaches checkpoints: contradictions, resuming, conversions. */
#include "state_rig.h"

#include "base/check.h"
#include "base/log.h"
#include "base/num.h"
#include "model/hf_checkpoint.h"
#include "train/formats.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CORPUS "formats-corpus"

/* ---- settings ---- */

/* Up to four settings away from the defaults. */
struct settings {
    const char *text[9];
};

static err_t resolve(struct train_formats *out, const struct settings *s)
{
    struct cfg *cfg = micro_cfg(CORPUS, "unused");
    for (int i = 0; s->text[i] != NULL; i += 2) micro_set(cfg, s->text[i], s->text[i + 1]);
    const err_t rc = formats_from_cfg(out, cfg);
    cfg_close(cfg);
    return rc;
}

static void test_contradictions(void **state)
{
    (void)state;
    static const struct {
        struct settings settings;
        const char *part[2]; /* both settings are named */
    } cases[] = {
        { { { "train.precision", "bf16" } }, { "train.precision is bf16", "train.device is cpu" } },
        { { { "train.grad_dtype", "bf16" } },
          { "train.grad_dtype is bf16", "train.precision is f32" } },
        { { { "train.master", "on" } }, { "train.master is on", "train.precision is f32" } },
        { { { "train.device", "cuda", "train.precision", "bf16", "train.master", "on",
              "train.moments", "8bit" } },
          { "train.master is on", "train.moments is 8bit" } },
        { { { "train.clip_norm_from", "previous" } },
          { "train.clip_norm_from is previous", "train.update is step" } },
        { { { "train.update", "backward" } },
          { "train.max_grad_norm is 1", "train.clip_norm_from: previous" } },
        { { { "train.update", "backward", "train.max_grad_norm", "0", "batch.lanes", "2" } },
          { "train.update is backward", "batch.lanes is 2" } },
        { { { "train.device", "cuda", "train.precision", "bf16", "train.grad_dtype", "bf16",
              "batch.lanes", "2" } },
          { "train.grad_dtype is bf16", "batch.lanes is 2" } },
    };
    for (int64_t i = 0; i < COUNT_OF(cases); i++) {
        struct train_formats f;
        for (int k = 0; k < 2; k++)
            testing_assert_code(resolve(&f, &cases[i].settings), ERR_USAGE, cases[i].part[k],
                                cases[i].settings.text[0], __FILE__, __LINE__);
        assert_non_null(strstr(err_last()->text, "set ")); /* what to do about it */
    }
}

static void test_resolved(void **state)
{
    (void)state;
    struct train_formats f;
    assert_ok(resolve(&f, &(struct settings){ { NULL } }));
    assert_true(f.precision == DTYPE_F32 && f.grad_dtype == DTYPE_F32 && !f.state.master);
    assert_true(f.state.moments == OPTIM_MOMENTS_F32 && f.state.place == OPTIM_ON_DEVICE);
    assert_true(f.grad_keep == GLM_GRADS_ALL && !f.clip_by_previous);

    assert_ok(
        resolve(&f, &(struct settings){ { "train.device", "cuda", "train.precision", "bf16" } }));
    assert_true(f.precision == DTYPE_BF16 && f.state.weights == DTYPE_BF16 && f.state.master);
    assert_ok(resolve(&f, &(struct settings){ { "train.device", "cuda", "train.precision", "bf16",
                                                "train.moments", "8bit" } }));
    assert_true(!f.state.master && f.state.moments == OPTIM_MOMENTS_8BIT);
    assert_ok(
        resolve(&f, &(struct settings){ { "train.device", "cuda", "train.precision", "bf16",
                                          "train.master", "off", "train.grad_dtype", "bf16" } }));
    assert_true(!f.state.master && f.grad_dtype == DTYPE_BF16);
    assert_ok(resolve(&f, &(struct settings){ { "train.update", "backward", "train.clip_norm_from",
                                                "previous", "train.activations", "recompute",
                                                "train.moments_place", "host" } }));
    assert_true(f.grad_keep == GLM_GRADS_RELEASED && f.clip_by_previous);
    assert_true(f.activations == GLM_RECOMPUTE && f.state.place == OPTIM_ON_HOST);
}

/* ---- what may go on as what ---- */

static const struct stored_formats f32 = { DTYPE_F32, false, OPTIM_MOMENTS_F32 };
static const struct stored_formats f32_coded = { DTYPE_F32, false, OPTIM_MOMENTS_8BIT };
static const struct stored_formats bf16 = { DTYPE_BF16, false, OPTIM_MOMENTS_F32 };
static const struct stored_formats master = { DTYPE_BF16, true, OPTIM_MOMENTS_F32 };

static void test_resumes(void **state)
{
    (void)state;
    assert_ok(formats_check_resume(&f32, &f32, "run"));
    assert_ok(formats_check_resume(&f32, &master, "run"));
    assert_ok(formats_check_resume(&master, &f32, "run"));
    assert_ok(formats_check_resume(&master, &bf16, "run"));
    assert_ok(formats_check_resume(&f32, &bf16, "run"));
    assert_err(formats_check_resume(&bf16, &f32, "run"), USAGE, "train.precision is bf16 without");
    assert_err(formats_check_resume(&bf16, &master, "run"), USAGE,
               "keeps float32 values (a master");
    assert_err(formats_check_resume(&f32_coded, &f32, "run"), USAGE,
               "train.moments is 8bit; the run in run keeps its moments in f32");
    assert_err(formats_check_resume(&f32, &f32_coded, "run"), USAGE, "keeps its moments in 8bit");
}

/* ---- checkpoints ---- */

static const struct optim_format formats[] = {
    { .weights = DTYPE_F32 },
    { .weights = DTYPE_F32, .moments = OPTIM_MOMENTS_8BIT },
    { .weights = DTYPE_BF16 },
    { .weights = DTYPE_BF16, .master = true },
    { .weights = DTYPE_BF16, .moments = OPTIM_MOMENTS_8BIT },
};

static void describe(struct ckpt_state *s, const struct state_rig *r, int64_t step)
{
    *s = (struct ckpt_state){ .step = step, .updates = step, .lanes = 1 };
    s->formats = formats_stored(&optim_plan_of(r->optim)->format);
    s->model = micro_config();
    strcpy(s->program, "test");
    memset(s->corpus_sha256, 'c', SHA256_HEX_SIZE - 1);
    assert_ok(buf_puts(&s->settings, "train:\n"));
}

static const char *save(struct state_rig *r, const char *root, int64_t step)
{
    static char dir[4][FILE_PATH_MAX];
    static int turn;
    char *out = dir[turn++ % 4];
    struct ckpt_state s;
    describe(&s, r, step);
    assert_ok(ckpt_save(testing_path(root), &s, r->optim, &(struct ckpt_keep){ .last = 1 }, NULL));
    ckpt_state_clear(&s);
    assert_ok(ckpt_path(out, testing_path(root), step));
    assert_ok(ckpt_verify(out));
    return out;
}

static void load(struct state_rig *r, const char *dir)
{
    struct ckpt_state s;
    assert_ok(ckpt_state_read(&s, dir));
    assert_ok(ckpt_load(dir, &s.formats, r->optim, NULL));
    ckpt_state_clear(&s);
}

static void assert_same_files(const char *a, const char *b)
{
    static const char *const names[] = { "model.0000.safetensors", "optim.0000.safetensors",
                                         "state.json", "MANIFEST.json" };
    for (int64_t i = 0; i < COUNT_OF(names); i++) {
        struct buf x = { 0 }, y = { 0 };
        char path[FILE_PATH_MAX];
        assert_ok(path_join(path, a, names[i]));
        assert_ok(file_read_all(&x, path, 1 << 26));
        assert_ok(path_join(path, b, names[i]));
        assert_ok(file_read_all(&y, path, 1 << 26));
        assert_int_equal(x.size, y.size);
        assert_memory_equal(x.data, y.data, x.size);
        buf_clear(&x);
        buf_clear(&y);
    }
}

/* Each format, through files: the same bits as without, wherever state is kept before and after;
 * and the files say nothing of that. */
static void test_every_format_comes_back(void **state)
{
    (void)state;
    for (int64_t f = 0; f < COUNT_OF(formats); f++) {
        struct state_rig whole, part, back;
        struct optim_format host = formats[f];
        host.place = OPTIM_ON_HOST;
        host.slice_elements = 2048;
        state_rig_open(&whole, state_rig_cpu(), &formats[f]);
        state_rig_open(&part, state_rig_cpu(), &host);
        assert_ok(state_rig_fill(&whole));
        assert_ok(state_rig_fill(&part));
        assert_ok(state_rig_train(&whole, 1, 4));
        assert_ok(state_rig_train(&part, 1, 4));
        const char *dir = save(&whole, "whole", 4);
        assert_same_files(dir, save(&part, "part", 4));
        host.slice_elements = 1024 + 256;
        for (int k = 0; k < 2; k++) {
            state_rig_open(&back, state_rig_cpu(), k == 0 ? &formats[f] : &host);
            load(&back, dir);
            assert_same_files(dir, save(&back, "back", 4));
            assert_ok(state_rig_train(&back, 5, 8));
            if (k == 0) assert_ok(state_rig_train(&whole, 5, 8));
            if (!state_rig_same(&whole, &back)) fail_msg("format %d, place %d", (int)f, k);
            state_rig_close(&back);
        }
        state_rig_close(&part);
        state_rig_close(&whole);
    }
}

/* From f32 to bf16 with a master and back: not a bit of f32 is lost, and the files are the first
 * ones again. */
static void test_conversions_lose_nothing(void **state)
{
    (void)state;
    struct state_rig a, b, c;
    state_rig_open(&a, state_rig_cpu(), &formats[0]);
    state_rig_open(&b, state_rig_cpu(), &formats[3]);
    state_rig_open(&c, state_rig_cpu(), &formats[0]);
    assert_ok(state_rig_fill(&a));
    assert_ok(state_rig_train(&a, 1, 3));
    const char *dir = save(&a, "f32", 3);
    load(&b, dir);
    load(&c, save(&b, "master", 3));
    assert_true(state_rig_same(&a, &c));
    assert_same_files(dir, save(&c, "f32-again", 3));

    /* The update acts on the master: f32 and bf16 with a master go the same way for a while, as
     * far as gradients are given. */
    int64_t count;
    assert_ok(state_rig_train(&a, 4, 6));
    assert_ok(state_rig_train(&b, 4, 6));
    double *values = micro_state(b.optim, OPTIM_MASTER, &count);
    for (int64_t i = 0, at = 0; i < a.params.count; i++)
        for (int64_t e = 0; e < a.params.row[i].count; e++)
            assert_true((double)((float *)a.weights.data)[a.layout.offset[i] + e] == values[at++]);
    free(values);

    /* bf16 alone goes on with a master of its own values. */
    struct state_rig d, e;
    state_rig_open(&d, state_rig_cpu(), &formats[2]);
    state_rig_open(&e, state_rig_cpu(), &formats[3]);
    assert_ok(state_rig_fill(&d));
    load(&e, save(&d, "bf16", 1));
    values = micro_state(e.optim, OPTIM_MASTER, &count);
    for (int64_t i = 0, at = 0; i < d.params.count; i++)
        for (int64_t k = 0; k < d.params.row[i].count; k++) {
            const uint16_t *w = (const uint16_t *)d.weights.data + d.layout.offset[i];
            assert_true((double)bf16_to_f32(w[k]) == values[at++]);
        }
    free(values);
    struct state_rig *all[] = { &a, &b, &c, &d, &e };
    for (int64_t i = 0; i < COUNT_OF(all); i++) state_rig_close(all[i]);
}

/* Whoever reads the model from a checkpoint gets the master, not its rounding. */
static void test_readers_get_the_master(void **state)
{
    (void)state;
    struct state_rig r;
    struct weight_source *source;
    state_rig_open(&r, state_rig_cpu(), &formats[3]);
    assert_ok(state_rig_fill(&r));
    assert_ok(state_rig_train(&r, 1, 2));
    assert_ok(hf_checkpoint_open(&source, save(&r, "read", 2)));
    for (int64_t i = 0; i < r.params.count; i++) {
        const int64_t count = r.params.row[i].count;
        const int64_t index = weight_source_find(source, r.params.row[i].name);
        assert_true(index >= 0);
        assert_int_equal(weight_source_info(source, index).dtype, DTYPE_F32);
        float *want = malloc((size_t)count * sizeof *want), *got = malloc((size_t)count * 4);
        assert_ok(optim_read_state(r.optim, want, OPTIM_MASTER, i, 0, count));
        assert_ok(weight_source_read(source, got, index, 0, count));
        assert_memory_equal(want, got, (size_t)count * sizeof *want);
        free(want);
        free(got);
    }
    weight_source_close(source);
    state_rig_close(&r);
}

/* ---- state.json ---- */

static void parse(struct ckpt_state *out, const char *text)
{
    assert_ok(ckpt_state_parse(out, text, (int64_t)strlen(text), "state.json"));
}

/* The text with `from` replaced once. */
static char *replaced(const char *text, const char *from, const char *to)
{
    const char *at = strstr(text, from);
    assert_non_null(at);
    char *out = malloc(strlen(text) + strlen(to) + 1);
    sprintf(out, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    return out;
}

static void test_state_json(void **state)
{
    (void)state;
    struct state_rig r;
    struct ckpt_state s, back;
    struct buf text = { 0 };
    state_rig_open(&r, state_rig_cpu(), &formats[3]);
    describe(&s, &r, 4);
    s.grad_norm = 0.1; /* no exact binary number */
    assert_ok(ckpt_state_write(&text, &s));
    parse(&back, text.data);
    assert_true(back.grad_norm == 0.1);
    assert_true(back.formats.master && back.formats.precision == DTYPE_BF16);
    ckpt_state_clear(&back);

    /* Files of earlier versions say nothing of either. */
    const char *const formats_text = strstr(text.data, "\"formats\"");
    assert_non_null(formats_text);
    char whole[256];
    snprintf(whole, sizeof whole, "%.*s", (int)(strchr(formats_text, '}') + 2 - formats_text),
             formats_text);
    char *old = replaced(text.data, whole, "");
    parse(&back, old);
    assert_true(back.formats.precision == DTYPE_F32 && !back.formats.master);
    ckpt_state_clear(&back);
    free(old);

    static const char *const bad[][2] = {
        { "\"precision\": \"bf16\"", "\"precision\": \"f8\"" },
        { "\"precision\": \"bf16\"", "\"precision\": \"f32\"" }, /* with a master */
        { "\"moments\": \"f32\"", "\"moments\": \"8bit\"" },     /* too */
        { "\"moments\": \"f32\"", "\"moments\": \"none\"" },
        { "\"master\": true", "\"master\": 1" },
        { "\"master\": true", "\"master\": true, \"more\": 1" },
        { "\"grad_norm\": 0.1", "\"grad_norm\": -0.1" },
        { "\"grad_norm\": 0.1", "\"grad_norm\": \"x\"" },
    };
    for (int64_t i = 0; i < COUNT_OF(bad); i++) {
        char *broken = replaced(text.data, bad[i][0], bad[i][1]);
        testing_assert_code(ckpt_state_parse(&back, broken, (int64_t)strlen(broken), "state.json"),
                            ERR_FORMAT, "state.json", bad[i][1], __FILE__, __LINE__);
        ckpt_state_clear(&back);
        free(broken);
    }
    ckpt_state_clear(&s);
    buf_clear(&text);
    state_rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contradictions),
        cmocka_unit_test(test_resolved),
        cmocka_unit_test(test_resumes),
        cmocka_unit_test(test_every_format_comes_back),
        cmocka_unit_test(test_conversions_lose_nothing),
        cmocka_unit_test(test_readers_get_the_master),
        cmocka_unit_test(test_state_json),
    };
    assert_ok(log_init("off"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
