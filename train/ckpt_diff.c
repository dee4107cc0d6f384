#include "train/ckpt_diff.h"

#include "base/check.h"
#include "base/num.h"
#include "model/json_in.h"
#include "train/ckpt_impl.h"
#include "train/settings_kind.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_ELEMENTS 65536
#define TEXT_MAX       (16 << 20)

/* One of the two. */
struct side {
    const char *dir;
    struct ckpt_manifest manifest;
    struct ckpt_state state;
    json_t *json; /* state.json */
};

static void side_close(struct side *s)
{
    ckpt_manifest_clear(&s->manifest);
    ckpt_state_clear(&s->state);
    json_decref(s->json);
}

static err_t side_open(struct side *s, const char *dir)
{
    err_t rc = ERR_OK;
    struct buf text = { 0 };
    char path[FILE_PATH_MAX];
    json_error_t error;
    *s = (struct side){ .dir = dir };
    TRY_DONE(ckpt_manifest_read(&s->manifest, dir));
    TRY_DONE(ckpt_state_read(&s->state, dir));
    TRY_DONE(path_join(path, dir, "state.json"));
    TRY_DONE(file_read_all(&text, path, TEXT_MAX));
    s->json = json_in_load(&error, text.data, (int64_t)text.size);
    if (s->json == NULL) TRY_DONE(json_in_failure(&error, path));
done:
    buf_clear(&text);
    return rc;
}

/* jansson takes the new reference also where it fails. */
static err_t append(json_t *list, json_t *item)
{
    if (item == NULL || json_array_append_new(list, item) != 0)
        RAISE(NOMEM, "no memory for the list of differences");
    return ERR_OK;
}

/* ---- state and settings ---- */

static err_t diff_keys(json_t *out, json_t *a, json_t *b, bool only_missing)
{
    const char *key;
    json_t *value;
    json_object_foreach(a, key, value)
    {
        json_t *other = json_object_get(b, key);
        if (strcmp(key, "settings") == 0 || strcmp(key, "model_config") == 0) continue;
        if (only_missing ? other != NULL : other != NULL && json_equal(value, other)) continue;
        json_t *none = json_null();
        TRY(append(out, only_missing
                            ? json_pack("{s:s, s:O, s:O}", "key", key, "a", none, "b", value)
                            : json_pack("{s:s, s:O, s:O}", "key", key, "a", value, "b",
                                        other != NULL ? other : none)));
    }
    return ERR_OK;
}

static err_t diff_settings(json_t *out, const struct side *a, const struct side *b,
                           const struct cfg *cfg)
{
    err_t rc = ERR_OK;
    const struct side *sides[2] = { a, b };
    struct cfg *in[2] = { NULL, NULL };
    for (int i = 0; i < 2; i++) {
        TRY_DONE(cfg_create_like(&in[i], cfg));
        TRY_DONE(cfg_parse_yaml(in[i], sides[i]->state.settings.data,
                                (int64_t)sides[i]->state.settings.size, sides[i]->dir));
    }
    for (int64_t i = 0; i < cfg_row_count(cfg); i++) {
        const struct cfg_row *row = cfg_row_at(cfg, i);
        if (settings_same_value(in[0], in[1], row)) continue;
        TRY_DONE(append(out, json_pack("{s:s, s:s, s:s}", "key", row->key, "a",
                                       cfg_text(in[0], row->key), "b", cfg_text(in[1], row->key))));
    }
done:
    cfg_close(in[0]);
    cfg_close(in[1]);
    return rc;
}

/* ---- tensors ---- */

struct files {
    const char *name; /* of both */
    struct weight_source *a, *b;
    json_t *out;
    int64_t *compared;
    uint8_t *raw[2]; /* [PIECE_ELEMENTS * 8] each */
    double *wide[2]; /* [PIECE_ELEMENTS] each */
};

struct distance {
    int64_t differ, at; /* where it is largest */
    double max_abs;
};

static err_t read_wide(struct files *f, int side, int64_t index, dtype_t dtype, int64_t first,
                       int64_t count)
{
    struct weight_source *source = side == 0 ? f->a : f->b;
    TRY(weight_source_read(source, f->raw[side], index, first, count));
    if (dtype != DTYPE_U8)
        return weight_source_read_as(source, f->wide[side], DTYPE_F64, index, first, count);
    for (int64_t i = 0; i < count; i++) f->wide[side][i] = f->raw[side][i];
    return ERR_OK;
}

/* By bytes; NaNs and zeros of another sign have the distance of their values. */
static void measure(struct distance *d, const struct files *f, int64_t unit, int64_t first,
                    int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        if (memcmp(f->raw[0] + i * unit, f->raw[1] + i * unit, (size_t)unit) == 0) continue;
        const double gap = fabs(f->wide[0][i] - f->wide[1][i]);
        const double far = isnan(gap) ? INFINITY : gap;
        if (d->differ++ == 0 || far > d->max_abs) {
            d->max_abs = far;
            d->at = first + i;
        }
    }
}

static err_t diff_tensor(struct files *f, int64_t index_a, int64_t index_b)
{
    const struct weight_info a = weight_source_info(f->a, index_a);
    const struct weight_info b = weight_source_info(f->b, index_b);
    const int64_t unit = dtype_bytes(a.dtype);
    struct distance d = { .differ = 0 };
    char x[WEIGHT_SHAPE_TEXT_MAX], y[WEIGHT_SHAPE_TEXT_MAX];
    weight_shape_text(x, a.dims, a.dim);
    weight_shape_text(y, b.dims, b.dim);
    ++*f->compared;
    if (a.dtype != b.dtype || strcmp(x, y) != 0)
        return append(f->out,
                      json_pack("{s:s, s:s, s:o}", "name", a.name, "file", f->name, "shapes",
                                json_sprintf("%s %s in a, %s %s in b", dtype_name(a.dtype), x,
                                             dtype_name(b.dtype), y)));
    for (int64_t first = 0; first < a.count; first += PIECE_ELEMENTS) {
        const int64_t count = min_i64(PIECE_ELEMENTS, a.count - first);
        TRY(read_wide(f, 0, index_a, a.dtype, first, count));
        TRY(read_wide(f, 1, index_b, a.dtype, first, count));
        measure(&d, f, unit, first, count);
    }
    if (d.differ == 0) return ERR_OK;
    /* JSON has no infinity */
    json_t *most = isfinite(d.max_abs) ? json_real(d.max_abs) : json_null();
    return append(f->out, json_pack("{s:s, s:s, s:I, s:I, s:o, s:I}", "name", a.name, "file",
                                    f->name, "elements", (json_int_t)a.count, "differ",
                                    (json_int_t)d.differ, "max_abs", most, "at", (json_int_t)d.at));
}

static err_t note_only(json_t *out, const char *name, const char *file, const char *side)
{
    return append(out, json_pack("{s:s, s:s, s:s}", "name", name, "file", file, "only", side));
}

static err_t diff_sources(struct files *f)
{
    for (int64_t i = 0; i < weight_source_count(f->a); i++) {
        const char *name = weight_source_info(f->a, i).name;
        const int64_t other = weight_source_find(f->b, name);
        if (other < 0)
            TRY(note_only(f->out, name, f->name, "a"));
        else
            TRY(diff_tensor(f, i, other));
    }
    for (int64_t i = 0; i < weight_source_count(f->b); i++) {
        const char *name = weight_source_info(f->b, i).name;
        if (weight_source_find(f->a, name) < 0) TRY(note_only(f->out, name, f->name, "b"));
    }
    return ERR_OK;
}

static err_t open_source(struct weight_source **out, const char *dir, const char *name)
{
    char path[FILE_PATH_MAX];
    TRY(path_join(path, dir, name));
    return safetensors_source_open(out, path);
}

/* A file that both have and that is not the same. */
static err_t diff_file(json_t *out, int64_t *compared, const char *name, const char *a,
                       const char *b)
{
    err_t rc = ERR_OK;
    struct files f = { .name = name, .out = out, .compared = compared };
    for (int i = 0; i < 2; i++) {
        f.raw[i] = malloc(PIECE_ELEMENTS * sizeof(double));
        f.wide[i] = malloc(PIECE_ELEMENTS * sizeof(double));
        if (f.raw[i] == NULL || f.wide[i] == NULL)
            RAISE_DONE(NOMEM, "%s: no memory to compare it", name);
    }
    TRY_DONE(open_source(&f.a, a, name));
    TRY_DONE(open_source(&f.b, b, name));
    TRY_DONE(diff_sources(&f));
done:
    weight_source_close(f.a);
    weight_source_close(f.b);
    for (int i = 0; i < 2; i++) {
        free(f.raw[i]);
        free(f.wide[i]);
    }
    return rc;
}

/* ---- files ---- */

static const struct ckpt_file *find_file(const struct ckpt_manifest *m, const char *name)
{
    for (int64_t i = 0; i < m->file_count; i++)
        if (strcmp(m->file[i].name, name) == 0) return &m->file[i];
    return NULL;
}

static bool is_tensors(const char *name) { return strstr(name, ".safetensors") != NULL; }

static err_t count_tensors(int64_t *sum, const char *dir, const char *name)
{
    struct weight_source *source;
    TRY(open_source(&source, dir, name));
    *sum += weight_source_count(source);
    weight_source_close(source);
    return ERR_OK;
}

static err_t diff_files(json_t *out, int64_t *compared, const struct side *a, const struct side *b)
{
    for (int64_t i = 0; i < a->manifest.file_count; i++) {
        const struct ckpt_file *x = &a->manifest.file[i];
        const struct ckpt_file *y = find_file(&b->manifest, x->name);
        if (!is_tensors(x->name)) continue;
        if (y == NULL)
            TRY(note_only(out, "*", x->name, "a"));
        else if (strcmp(x->sha256, y->sha256) == 0)
            TRY(count_tensors(compared, a->dir, x->name));
        else
            TRY(diff_file(out, compared, x->name, a->dir, b->dir));
    }
    for (int64_t i = 0; i < b->manifest.file_count; i++) {
        const char *name = b->manifest.file[i].name;
        if (is_tensors(name) && find_file(&a->manifest, name) == NULL)
            TRY(note_only(out, "*", name, "b"));
    }
    return ERR_OK;
}

err_t ckpt_diff(json_t **out, const char *dir_a, const char *dir_b, const struct cfg *cfg)
{
    err_t rc = ERR_OK;
    struct side a = { .dir = dir_a }, b = { .dir = dir_b };
    int64_t compared = 0;
    json_t *state = json_array(), *settings = json_array(), *tensors = json_array();
    *out = NULL;
    if (state == NULL || settings == NULL || tensors == NULL)
        RAISE_DONE(NOMEM, "no memory for the list of differences");
    TRY_DONE(side_open(&a, dir_a));
    TRY_DONE(side_open(&b, dir_b));
    TRY_DONE(diff_keys(state, a.json, b.json, false));
    TRY_DONE(diff_keys(state, b.json, a.json, true));
    TRY_DONE(diff_settings(settings, &a, &b, cfg));
    TRY_DONE(diff_files(tensors, &compared, &a, &b));
    *out = json_pack("{s:O, s:O, s:O, s:I}", "state", state, "settings", settings, "tensors",
                     tensors, "compared", (json_int_t)compared);
    if (*out == NULL) RAISE_DONE(NOMEM, "no memory for the list of differences");
done:
    json_decref(state);
    json_decref(settings);
    json_decref(tensors);
    side_close(&a);
    side_close(&b);
    return rc;
}
