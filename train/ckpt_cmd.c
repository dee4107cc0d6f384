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
    { "full", NULL, "list: check the digests of all files, not their sizes alone" },
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

/* ---- which folders ---- */

struct folders {
    char root[FILE_PATH_MAX];
    int64_t *step; /* newest first */
    int64_t count;
    int64_t best; /* -1: none is marked */
    double best_loss;
};

static err_t open_folders(struct folders *f, const char *path)
{
    *f = (struct folders){ .best = -1 };
    if (!dir_exists(path)) RAISE(NOTFOUND, "%s: no such folder", path);
    TRY(path_join(f->root, path, "ckpt"));
    if (!dir_exists(f->root)) TRY(path_copy(f->root, path));
    TRY(ckpt_list(&f->step, &f->count, f->root));
    if (f->count == 0) RAISE(NOTFOUND, "%s: no checkpoint in it", path);
    return ckpt_best(&f->best, &f->best_loss, f->root);
}

static bool is_one(const char *path)
{
    char state[FILE_PATH_MAX], manifest[FILE_PATH_MAX];
    return path_join(state, path, "state.json") == ERR_OK &&
           path_join(manifest, path, "MANIFEST.json") == ERR_OK &&
           (file_exists(state) || file_exists(manifest));
}

/* ---- one checkpoint as an object ---- */

/* ISO 8601, UTC; "" where there is no manifest. */
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

static json_t *state_json(const char *dir)
{
    struct ckpt_state s;
    json_t *out = NULL;
    if (ckpt_state_read(&s, dir) == ERR_OK)
        out = json_pack("{s:I, s:I, s:s, s:b, s:s, s:s}", "step", (json_int_t)s.step, "samples",
                        (json_int_t)s.samples, "precision", dtype_name(s.formats.precision),
                        "master", (int)s.formats.master, "moments",
                        formats_moments_name(s.formats.moments), "program", s.program);
    ckpt_state_clear(&s);
    return out != NULL ? out : json_null();
}

/* {dir, whole, why, bytes, date, state}; want of memory alone is an error here. */
static err_t describe(json_t **out, const char *dir, bool full)
{
    char date[32], why[ERR_TEXT_MAX] = "";
    const err_t verdict = full ? ckpt_verify(dir) : ckpt_verify_sizes(dir);
    if (verdict == ERR_NOMEM) return verdict;
    if (verdict != ERR_OK) memcpy(why, err_last()->text, sizeof why);
    date_of(date, dir);
    *out =
        json_pack("{s:s, s:b, s:s, s:I, s:s, s:o}", "dir", dir, "whole", verdict == ERR_OK, "why",
                  why, "bytes", (json_int_t)bytes_of(dir), "date", date, "state", state_json(dir));
    if (*out == NULL) RAISE(NOMEM, "%s: no memory to describe it", dir);
    return ERR_OK;
}

static bool is_whole(const json_t *one) { return json_is_true(json_object_get(one, "whole")); }

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

/* ---- verify, list ---- */

static err_t describe_all(json_t *list, struct folders *f, bool full)
{
    for (int64_t i = 0; i < f->count; i++) {
        char dir[FILE_PATH_MAX];
        json_t *one;
        TRY(ckpt_path(dir, f->root, f->step[i]));
        TRY(describe(&one, dir, full));
        json_object_set_new(one, "best", json_boolean(f->step[i] == f->best));
        json_object_set_new(one, "last", json_boolean(i == 0));
        if (json_array_append_new(list, one) != 0) RAISE(NOMEM, "no memory for a list");
    }
    return ERR_OK;
}

static void print_verdict(const json_t *one)
{
    if (is_whole(one))
        printf("%s: whole, %.3f GB\n", text_of(one, "dir"),
               (double)json_integer_value(json_object_get(one, "bytes")) / 1e9);
    else
        printf("%s: NOT WHOLE: %s\n", text_of(one, "dir"), text_of(one, "why"));
}

static void print_row(const json_t *one)
{
    const json_t *state = json_object_get(one, "state");
    const char *name = strrchr(text_of(one, "dir"), '/');
    char formats[64] = "?";
    if (json_is_object(state))
        snprintf(formats, sizeof formats, "%s%s, moments %s", text_of(state, "precision"),
                 json_is_true(json_object_get(state, "master")) ? " + master" : "",
                 text_of(state, "moments"));
    printf("%-16s %11.3f  %-20s  %-24s  %s%s%s\n", name != NULL ? name + 1 : text_of(one, "dir"),
           (double)json_integer_value(json_object_get(one, "bytes")) / 1e9, text_of(one, "date"),
           formats, is_whole(one) ? "whole" : "NOT WHOLE",
           json_is_true(json_object_get(one, "best")) ? ", best" : "",
           json_is_true(json_object_get(one, "last")) ? ", last" : "");
    if (!is_whole(one)) printf("    %s\n", text_of(one, "why"));
}

static err_t print_list(json_t *list, const char *path, bool json, void (*print)(const json_t *))
{
    const json_t *one;
    size_t i;
    int64_t broken = 0;
    json_array_foreach(list, i, one)
    {
        broken += !is_whole(one);
        if (!json) print(one);
    }
    if (json) {
        json_t *all = json_pack("{s:O}", "checkpoints", list);
        json_dumpf(all, stdout, JSON_INDENT(1));
        printf("\n");
        json_decref(all);
    }
    if (broken > 0)
        RAISE(CHECKSUM, "%s: %lld of %zu checkpoints are not whole", path, (long long)broken,
              json_array_size(list));
    return ERR_OK;
}

static err_t verify(json_t *list, const char *path, bool json)
{
    struct folders f = { .count = 0 };
    json_t *one;
    if (is_one(path)) {
        TRY(describe(&one, path, true));
        if (json_array_append_new(list, one) != 0) RAISE(NOMEM, "no memory for a list");
    } else {
        err_t rc = open_folders(&f, path);
        if (rc == ERR_OK) rc = describe_all(list, &f, true);
        free(f.step);
        TRY(rc);
    }
    return print_list(list, path, json, print_verdict);
}

static err_t list_run(json_t *list, const char *path, bool full, bool json)
{
    struct folders f;
    err_t rc = open_folders(&f, path);
    if (rc == ERR_OK) rc = describe_all(list, &f, full);
    free(f.step);
    TRY(rc);
    if (!json) printf("%-16s %11s  %-20s  %-24s\n", "checkpoint", "GB", "written (UTC)", "formats");
    return print_list(list, path, json, print_row);
}

/* ---- diff ---- */

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
        json_dumpf(report, stdout, JSON_INDENT(1));
        printf("\n");
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

    json_t *list = json_array();
    if (list == NULL) RAISE(NOMEM, "no memory for a list");
    const err_t rc =
        strcmp(what, "verify") == 0
            ? verify(list, args.positional[1], json)
            : list_run(list, args.positional[1], cli_option(&args, &spec, "full") != NULL, json);
    json_decref(list);
    return rc;
}
