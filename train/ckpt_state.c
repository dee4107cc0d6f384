/* state.json: where training stands, and what it must agree with to go on. */
#include "train/ckpt_impl.h"

#include "base/check.h"
#include "model/json_in.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define STATE_NAME      "state.json"
#define STATE_BYTES_MAX (16 << 20)

void ckpt_state_clear(struct ckpt_state *s)
{
    buf_clear(&s->settings);
    buf_clear(&s->tuning);
}

static json_t *write_formats(const struct stored_formats *f)
{
    return json_pack("{s:s, s:b, s:s}", "precision", dtype_name(f->precision), "master",
                     (int)f->master, "moments", formats_moments_name(f->moments));
}

err_t ckpt_state_write(struct buf *out, const struct ckpt_state *s)
{
    err_t rc = ERR_OK;
    struct buf model = { 0 };
    char *text = NULL;
    json_t *root = NULL;
    json_error_t error;
    TRY_DONE(glm_config_write(&model, &s->model, "float32"));
    root = json_pack_ex(
        &error, 0,
        "{s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:s, s:s, s:o, s:s, s:b, s:s%, s:s%, s:o, "
        "s:I}",
        "version", CKPT_VERSION, "program", s->program, "step", (json_int_t)s->step, "updates",
        (json_int_t)s->updates, "samples", (json_int_t)s->samples, "stream_index",
        (json_int_t)s->stream_index, "lanes", (json_int_t)s->lanes, "seed", (json_int_t)s->seed,
        "sampler_version", CKPT_SAMPLER_VERSION, "corpus_sha256", s->corpus_sha256, "tokenizer_dir",
        s->tokenizer_dir, "formats", write_formats(&s->formats), "rotary",
        glm_rotary_name(s->model.rotary), "tied", (int)s->model.tied, "model_config", model.data,
        model.size, "settings", s->settings.size > 0 ? s->settings.data : "", s->settings.size,
        "guard", guard_state_to_json(&s->guard), "crc32c", (json_int_t)s->crc32c);
    if (root == NULL && json_error_code(&error) == json_error_invalid_utf8)
        RAISE_DONE(ARG, STATE_NAME ": model.dir or another setting is not UTF-8");
    if (root != NULL && s->grad_norm > 0.0 &&
        json_object_set_new(root, "grad_norm", json_real(s->grad_norm)) != 0)
        RAISE_DONE(NOMEM, STATE_NAME ": no memory for its text");
    if (root != NULL && s->validation_due &&
        json_object_set_new(root, "validation_due", json_true()) != 0)
        RAISE_DONE(NOMEM, STATE_NAME ": no memory for its text");
    if (root != NULL && s->tuning.size > 0 &&
        json_object_set_new(root, "tuning", json_stringn(s->tuning.data, s->tuning.size)) != 0)
        RAISE_DONE(NOMEM, STATE_NAME ": no memory for its text");
    text = root == NULL ? NULL : json_dumps(root, JSON_INDENT(1));
    if (text == NULL) RAISE_DONE(NOMEM, STATE_NAME ": no memory for its text");
    TRY_DONE(buf_puts(out, text));
done:
    free(text);
    json_decref(root);
    buf_clear(&model);
    return rc;
}

/* The version decides how the rest is read, so it is looked at first. */
static err_t check_version(const json_t *root, const char *key, int64_t known, const char *name)
{
    const json_t *version = json_object_get(root, key);
    if (!json_is_integer(version)) RAISE(FORMAT, "%s: %s is missing or no integer", name, key);
    if (json_integer_value(version) != known)
        RAISE(UNSUPPORTED, "%s: %s %lld; this program (%s) reads %lld", name, key,
              (long long)json_integer_value(version), SOULCHAT_VERSION, (long long)known);
    return ERR_OK;
}

static err_t copy_text(char *out, size_t size, const char *text, const char *key, const char *name)
{
    const size_t length = strlen(text);
    if (length >= size)
        RAISE(FORMAT, "%s: %s has %zu bytes, at most %zu are expected", name, key, length,
              size - 1);
    memcpy(out, text, length + 1);
    return ERR_OK;
}

static err_t check_counts(const struct ckpt_state *s, int64_t sum, const char *name)
{
    const struct {
        const char *key;
        int64_t value, min, max;
    } counts[] = {
        { "step", s->step, 0, INT64_MAX },       { "updates", s->updates, 0, s->step },
        { "samples", s->samples, 0, INT64_MAX }, { "stream_index", s->stream_index, -1, INT64_MAX },
        { "lanes", s->lanes, 1, INT64_MAX },     { "seed", s->seed, 0, INT64_MAX },
        { "crc32c", sum, 0, UINT32_MAX },
    };
    for (int64_t i = 0; i < COUNT_OF(counts); i++)
        if (counts[i].value < counts[i].min || counts[i].value > counts[i].max)
            RAISE(FORMAT, "%s: %s is %lld; expected %lld to %lld", name, counts[i].key,
                  (long long)counts[i].value, (long long)counts[i].min, (long long)counts[i].max);
    return ERR_OK;
}

/* The text of a config.json, and the two fields that repeat what it says. */
static err_t read_model(struct glm_config *out, const char *text, const char *rotary, int tied,
                        const char *name)
{
    TRY(glm_config_parse(out, text, (int64_t)strlen(text), name));
    if (strcmp(rotary, glm_rotary_name(out->rotary)) != 0 || (tied != 0) != out->tied)
        RAISE(FORMAT, "%s: rotary %.40s, tied %s; its model_config says %s, %s", name, rotary,
              tied ? "true" : "false", glm_rotary_name(out->rotary), out->tied ? "true" : "false");
    return ERR_OK;
}

/* NULL: of a version that knew f32 alone. */
static err_t read_formats(struct stored_formats *out, json_t *formats, const char *name)
{
    const char *precision, *moments;
    int master;
    json_error_t error;
    *out = (struct stored_formats){ DTYPE_F32, false, OPTIM_MOMENTS_F32 };
    if (formats == NULL) return ERR_OK;
    if (json_unpack_ex(formats, &error, 0, "{s:s, s:b, s:s !}", "precision", &precision, "master",
                       &master, "moments", &moments) != 0)
        return json_in_failure(&error, name);
    static const dtype_t dtypes[] = { DTYPE_F32, DTYPE_BF16, DTYPE_F64 };
    bool known = false;
    for (int64_t i = 0; i < COUNT_OF(dtypes); i++) {
        if (strcmp(precision, dtype_name(dtypes[i])) != 0) continue;
        out->precision = dtypes[i];
        known = true;
    }
    const bool coded = strcmp(moments, formats_moments_name(OPTIM_MOMENTS_8BIT)) == 0;
    known = known && (coded || strcmp(moments, formats_moments_name(OPTIM_MOMENTS_F32)) == 0);
    out->master = master != 0;
    out->moments = coded ? OPTIM_MOMENTS_8BIT : OPTIM_MOMENTS_F32;
    if (!known || (out->master && (coded || out->precision != DTYPE_BF16)))
        RAISE(FORMAT, "%s: precision %.20s, master %s, moments %.20s: no formats of a run", name,
              precision, master ? "true" : "false", moments);
    return ERR_OK;
}

static err_t read_grad_norm(double *out, const json_t *norm, const char *name)
{
    *out = 0.0;
    if (norm == NULL) return ERR_OK;
    *out = json_real_value(norm);
    if (!(*out > 0.0)) RAISE(FORMAT, "%s: grad_norm is no norm", name);
    return ERR_OK;
}

static err_t parse(struct ckpt_state *s, json_t *root, const char *name)
{
    json_t *formats = NULL, *grad_norm = NULL, *guard = NULL;
    json_int_t step, updates, samples, stream_index, lanes, seed, sum = 0;
    const char *program, *corpus, *tokenizer, *rotary, *model, *settings, *tuning = "";
    int version, sampler, tied, validation_due = 0;
    json_error_t error;
    TRY(check_version(root, "version", CKPT_VERSION, name));
    TRY(check_version(root, "sampler_version", CKPT_SAMPLER_VERSION, name));
    if (json_unpack_ex(root, &error, 0,
                       "{s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:s, s:s, s?o, s?o, s:s, "
                       "s:b, s:s, s:s, s?o, s?I, s?b, s?s !}",
                       "version", &version, "program", &program, "step", &step, "updates", &updates,
                       "samples", &samples, "stream_index", &stream_index, "lanes", &lanes, "seed",
                       &seed, "sampler_version", &sampler, "corpus_sha256", &corpus,
                       "tokenizer_dir", &tokenizer, "formats", &formats, "grad_norm", &grad_norm,
                       "rotary", &rotary, "tied", &tied, "model_config", &model, "settings",
                       &settings, "guard", &guard, "crc32c", &sum, "validation_due",
                       &validation_due, "tuning", &tuning) != 0)
        return json_in_failure(&error, name);
    s->step = step;
    s->updates = updates;
    s->samples = samples;
    s->stream_index = stream_index;
    s->lanes = lanes;
    s->seed = seed;
    TRY(check_counts(s, sum, name));
    s->crc32c = (uint32_t)sum;
    s->validation_due = validation_due != 0;
    TRY(copy_text(s->program, sizeof s->program, program, "program", name));
    TRY(copy_text(s->corpus_sha256, sizeof s->corpus_sha256, corpus, "corpus_sha256", name));
    TRY(copy_text(s->tokenizer_dir, sizeof s->tokenizer_dir, tokenizer, "tokenizer_dir", name));
    TRY(read_formats(&s->formats, formats, name));
    TRY(read_grad_norm(&s->grad_norm, grad_norm, name));
    TRY(guard_state_from_json(&s->guard, guard, name));
    TRY(read_model(&s->model, model, rotary, tied, name));
    TRY(buf_puts(&s->settings, settings));
    return buf_puts(&s->tuning, tuning);
}

err_t ckpt_state_parse(struct ckpt_state *out, const char *text, int64_t size, const char *name)
{
    json_error_t error;
    memset(out, 0, sizeof *out);
    json_t *root = json_in_load(&error, text, size);
    if (root == NULL) return json_in_failure(&error, name);
    const err_t rc = parse(out, root, name);
    json_decref(root);
    return rc;
}

err_t ckpt_state_read(struct ckpt_state *out, const char *dir)
{
    err_t rc = ERR_OK;
    char path[FILE_PATH_MAX];
    struct buf text = { 0 };
    memset(out, 0, sizeof *out);
    TRY_DONE(path_join(path, dir, STATE_NAME));
    TRY_DONE(file_read_all(&text, path, STATE_BYTES_MAX));
    TRY_DONE(ckpt_state_parse(out, text.data, (int64_t)text.size, path));
done:
    buf_clear(&text);
    return rc;
}
