/* soulchat ckpt: what checkpoints there are, whether they are whole, what sets two apart. */
#include "train/commands.h"

#include "base/check.h"
#include "model/hf_checkpoint.h"
#include "train/ckpt.h"
#include "train/ckpt_diff.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static const struct cli_option options[] = {
    { "json", NULL, "print one JSON object instead of text" },
    { NULL, NULL, NULL },
};

static const struct cli_spec spec = {
    .command = "ckpt",
    .purpose = "Look at checkpoints: check every digest, list those of a run, compare two.",
    .example = "soulchat ckpt verify runs/run\n"
               "soulchat ckpt list runs/run\n"
               "soulchat ckpt diff runs/a/ckpt/step-00001200 runs/b",
    .positional = "verify|list PATH | diff A B",
    .positional_max = 3,
    .options = options,
};

/* ---- one checkpoint ---- */

struct found {
    const char *dir;
    char why[ERR_TEXT_MAX]; /* it is not whole; "": it is */
    char date[32];          /* ISO 8601, UTC; "" where there is no manifest */
    int64_t bytes;
    bool has_state; /* the next four are known */
    int64_t step, samples;
    struct stored_formats formats;
    char program[CKPT_PROGRAM_MAX];
};

static void date_of(char text[32], const char *dir)
{
    char path[FILE_PATH_MAX];
    struct stat st;
    struct tm tm;
    text[0] = '\0';
    if (path_join(path, dir, "MANIFEST.json") != ERR_OK || stat(path, &st) != 0) return;
    if (gmtime_r(&st.st_mtime, &tm) != NULL) strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

static int64_t bytes_of(const char *dir)
{
    struct ckpt_manifest m;
    int64_t bytes = 0;
    if (ckpt_manifest_read(&m, dir) == ERR_OK)
        for (int64_t i = 0; i < m.file_count; i++) bytes += m.file[i].bytes;
    ckpt_manifest_clear(&m);
    return bytes;
}

static void read_state(struct found *f)
{
    struct ckpt_state s;
    f->has_state = ckpt_state_read(&s, f->dir) == ERR_OK;
    f->step = s.step;
    f->samples = s.samples;
    f->formats = s.formats;
    memcpy(f->program, s.program, sizeof f->program);
    ckpt_state_clear(&s);
}

/* An error here: it cannot be told whether it is whole. */
static err_t look_at(struct found *f, const char *dir, bool verify)
{
    *f = (struct found){ .dir = dir, .bytes = bytes_of(dir) };
    date_of(f->date, dir);
    read_state(f);
    const err_t verdict = verify ? ckpt_verify(dir) : ckpt_verify_sizes(dir);
    if (verdict == ERR_OK) return ERR_OK;
    if (!ckpt_is_damage(verdict) && verdict != ERR_UNSUPPORTED) return verdict;
    memcpy(f->why, err_last()->text, sizeof f->why);
    return ERR_OK;
}

/* ---- the report on one or several ---- */

struct report {
    json_t *list; /* for --json: what is printed at the end; else NULL */
    bool verify;  /* all digests, and a verdict each; else sizes, and a row each */
    int64_t count, broken;
};

static void print_verdict(const struct found *f)
{
    if (f->why[0] == '\0')
        printf("%s: whole, %.3f GB\n", f->dir, (double)f->bytes / 1e9);
    else
        printf("%s: NOT WHOLE: %s\n", f->dir, f->why);
}

static void print_row(const struct found *f, const char *marks)
{
    const char *slash = strrchr(f->dir, '/');
    char formats[64] = "?";
    if (f->has_state)
        snprintf(formats, sizeof formats, "%s%s, moments %s", dtype_name(f->formats.precision),
                 f->formats.master ? " + master" : "", formats_moments_name(f->formats.moments));
    printf("%-16s %11.3f  %-20s  %-24s  %s%s\n", slash != NULL ? slash + 1 : f->dir,
           (double)f->bytes / 1e9, f->date, formats, f->why[0] == '\0' ? "whole" : "NOT WHOLE",
           marks);
    if (f->why[0] != '\0') printf("    %s\n", f->why);
}

static err_t to_json(json_t **out, const struct found *f)
{
    json_error_t error;
    json_t *state = json_null();
    if (f->has_state)
        state = json_pack("{s:I, s:I, s:s, s:b, s:s, s:s}", "step", (json_int_t)f->step, "samples",
                          (json_int_t)f->samples, "precision", dtype_name(f->formats.precision),
                          "master", (int)f->formats.master, "moments",
                          formats_moments_name(f->formats.moments), "program", f->program);
    *out = json_pack_ex(&error, 0, "{s:s, s:b, s:s, s:I, s:s, s:o}", "dir", f->dir, "whole",
                        f->why[0] == '\0', "why", f->why, "bytes", (json_int_t)f->bytes, "date",
                        f->date, "state", state);
    if (*out == NULL && json_error_code(&error) == json_error_invalid_utf8)
        RAISE(ARG, "%s: not UTF-8, as JSON must be; leave --json out", f->dir);
    if (*out == NULL) RAISE(NOMEM, "%s: no memory to describe it", f->dir);
    return ERR_OK;
}

static err_t report_one(struct report *r, json_t **one, const char *dir, const char *marks)
{
    struct found f;
    TRY(look_at(&f, dir, r->verify));
    r->count++;
    r->broken += f.why[0] != '\0';
    if (r->list == NULL) {
        if (r->verify)
            print_verdict(&f);
        else
            print_row(&f, marks);
        return ERR_OK;
    }
    TRY(to_json(one, &f));
    if (json_array_append_new(r->list, *one) != 0) RAISE(NOMEM, "no memory for a list");
    return ERR_OK;
}

static err_t report_folders(struct report *r, const char *root, const int64_t *steps, int64_t count)
{
    int64_t best;
    double loss;
    TRY(ckpt_best(&best, &loss, root));
    if (r->list == NULL && !r->verify)
        printf("%-16s %11s  %-20s  %-24s\n", "checkpoint", "GB", "written (UTC)", "formats");
    for (int64_t i = 0; i < count; i++) {
        char dir[FILE_PATH_MAX], marks[32];
        json_t *one = NULL; /* the list's */
        const bool is_best = steps[i] == best, is_last = i == 0;
        snprintf(marks, sizeof marks, "%s%s", is_best ? ", best" : "", is_last ? ", last" : "");
        TRY(ckpt_path(dir, root, steps[i]));
        TRY(report_one(r, &one, dir, marks));
        if (one == NULL) continue;
        json_object_set_new(one, "best", json_boolean(is_best));
        json_object_set_new(one, "last", json_boolean(is_last));
    }
    return ERR_OK;
}

/* All below `path`, a run's folder or that of its checkpoints. */
static err_t report_all(struct report *r, const char *path)
{
    err_t rc = ERR_OK;
    char root[FILE_PATH_MAX];
    int64_t *steps, count;
    if (!dir_exists(path)) RAISE(NOTFOUND, "%s: no such folder", path);
    TRY(path_join(root, path, "ckpt"));
    if (!dir_exists(root)) TRY(path_copy(root, path));
    TRY(ckpt_list(&steps, &count, root));
    if (count == 0) RAISE_DONE(NOTFOUND, "%s: no checkpoint in it", path);
    TRY_DONE(report_folders(r, root, steps, count));
done:
    free(steps);
    return rc;
}

static bool is_one(const char *path)
{
    char state[FILE_PATH_MAX], manifest[FILE_PATH_MAX];
    return path_join(state, path, "state.json") == ERR_OK &&
           path_join(manifest, path, "MANIFEST.json") == ERR_OK &&
           (file_exists(state) || file_exists(manifest));
}

static void print_json(json_t *object)
{
    json_dumpf(object, stdout, JSON_INDENT(1));
    printf("\n");
}

static err_t verify_or_list(const char *path, bool verify, bool json)
{
    struct report r = { .verify = verify };
    json_t *all = json ? json_pack("{s:[]}", "checkpoints") : NULL, *one;
    if (json && all == NULL) RAISE(NOMEM, "no memory for a list");
    r.list = json_object_get(all, "checkpoints");
    const err_t rc = verify && is_one(path) ? report_one(&r, &one, path, "") : report_all(&r, path);
    if (rc == ERR_OK && json) print_json(all);
    json_decref(all);
    TRY(rc);
    if (r.broken > 0)
        RAISE(CHECKSUM, "%s: %lld of %lld checkpoints are not whole", path, (long long)r.broken,
              (long long)r.count);
    return ERR_OK;
}

/* ---- diff ---- */

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

static void print_pairs(const json_t *report, const char *what)
{
    const json_t *list = json_object_get(report, what), *pair;
    size_t i;
    json_array_foreach(list, i, pair)
    {
        char *a = json_dumps(json_object_get(pair, "a"), JSON_ENCODE_ANY);
        char *b = json_dumps(json_object_get(pair, "b"), JSON_ENCODE_ANY);
        printf("%-9s %-28s %s | %s\n", what, text_of(pair, "key"), a ? a : "?", b ? b : "?");
        free(a);
        free(b);
    }
}

static void print_tensor(const json_t *t)
{
    if (json_object_get(t, "only") != NULL) {
        printf("tensor    %s of %s: only in %s\n", text_of(t, "name"), text_of(t, "file"),
               text_of(t, "only"));
    } else if (json_object_get(t, "shapes") != NULL) {
        printf("tensor    %s: %s\n", text_of(t, "name"), text_of(t, "shapes"));
    } else {
        const json_t *most = json_object_get(t, "max_abs");
        printf("tensor    %s: %lld of %lld elements differ, by %g at most (element %lld)\n",
               text_of(t, "name"), (long long)json_integer_value(json_object_get(t, "differ")),
               (long long)json_integer_value(json_object_get(t, "elements")),
               json_is_null(most) ? (double)INFINITY : json_real_value(most),
               (long long)json_integer_value(json_object_get(t, "at")));
    }
}

static err_t diff(const char *path_a, const char *path_b, const struct cfg *cfg, bool json)
{
    char a[FILE_PATH_MAX], b[FILE_PATH_MAX];
    json_t *report;
    size_t i;
    TRY(hf_checkpoint_find(a, path_a));
    TRY(hf_checkpoint_find(b, path_b));
    TRY(ckpt_diff(&report, a, b, cfg));
    const json_t *tensors = json_object_get(report, "tensors"), *t;
    if (json) {
        json_object_set_new(report, "a", json_string(a)); /* not there where it is not UTF-8 */
        json_object_set_new(report, "b", json_string(b));
        print_json(report);
    } else {
        printf("a = %s\nb = %s\n", a, b);
        print_pairs(report, "state");
        print_pairs(report, "settings");
        json_array_foreach(tensors, i, t) print_tensor(t);
        printf("%zu differences in %lld tensors that both have\n", json_array_size(tensors),
               (long long)json_integer_value(json_object_get(report, "compared")));
    }
    json_decref(report);
    return ERR_OK;
}

err_t cmd_ckpt(struct cfg *cfg, int argc, char **argv)
{
    struct cli_args args;
    bool help_shown = false;
    TRY(cli_parse(&args, &help_shown, &spec, cfg, argc, argv));
    if (help_shown) return ERR_OK;
    const bool json = cli_option(&args, &spec, "json") != NULL;
    const char *what = args.positional_count > 0 ? args.positional[0] : "";
    const bool is_diff = strcmp(what, "diff") == 0;
    if (args.positional_count != (is_diff ? 3 : 2) ||
        (!is_diff && strcmp(what, "verify") != 0 && strcmp(what, "list") != 0))
        RAISE(USAGE, "ckpt: expected `verify PATH`, `list RUN` or `diff A B`");
    if (is_diff) return diff(args.positional[1], args.positional[2], cfg, json);
    return verify_or_list(args.positional[1], strcmp(what, "verify") == 0, json);
}
