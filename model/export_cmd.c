/*
 * soulchat export - a training checkpoint, or a Hugging Face folder in another format, as a Hugging
 * Face folder that other programs load.
 */
#include "base/buf.h"
#include "base/check.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/stop.h"
#include "model/commands.h"
#include "model/hf_folder.h"
#include "model/model_source.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cli_option options[] = {
    { "json", NULL, "print the summary as one JSON object" },
    { "tokenizer", "DIR", "take tokenizer files and model code from here" },
    { 0 },
};

static const struct cli_spec spec = {
    .command = "export",
    .purpose = "Write a checkpoint, or a Hugging Face folder with .bin files, as a Hugging Face "
               "folder of safetensors.",
    .example = "soulchat export runs/first out/chatglm-6b-soulchat\n"
               "soulchat export chatglm-6b out/chatglm-6b-bf16 --export.dtype=bf16",
    .positional = "CHECKPOINT_OR_FOLDER OUT_DIR",
    .positional_max = 2,
    .options = options,
    .sections = "model|export",
};

static err_t open_input(struct model_source *in, const char *path, const char *tokenizer,
                        const struct cfg *cfg)
{
    TRY(model_source_open(in, path));
    if (tokenizer != NULL && !dir_exists(tokenizer))
        RAISE(NOTFOUND, "%s: no such folder", tokenizer);
    if (tokenizer != NULL) TRY(path_copy(in->tokenizer_dir, tokenizer));
    return glm_config_apply(&in->config, cfg);
}

static void warn_of_input(const struct model_source *in)
{
    if (in->tokenizer_dir[0] != '\0' && !dir_exists(in->tokenizer_dir))
        LOG_W("export", "the tokenizer's folder %s is gone; --tokenizer DIR names another",
              in->tokenizer_dir);
    if (in->config.rotary == GLM_ROTARY_FP32_ANGLE)
        LOG_W("export", "this model uses float32 rotary angles; the published code in half "
                        "precision rounds them to float16, so run it in float32 there");
}

static err_t print_summary(const struct model_source *in, const char *out_dir, const char *dtype,
                           const struct hf_export_report *r, double seconds, bool as_json)
{
    if (!as_json) {
        printf("%s: %lld parameters in %s, %lld tensors, %.3f GB in %lld file%s, %.1f s\n", out_dir,
               (long long)r->element_count, dtype, (long long)r->tensor_count,
               (double)r->bytes / 1e9, (long long)r->file_count, r->file_count == 1 ? "" : "s",
               seconds);
        return ERR_OK;
    }
    json_t *root = json_pack(
        "{s:s, s:s, s:s, s:s, s:b, s:I, s:I, s:I, s:I, s:f}", "source", in->dir, "folder", out_dir,
        "dtype", dtype, "rotary", glm_rotary_name(in->config.rotary), "tied", in->config.tied,
        "parameters", (json_int_t)r->element_count, "tensors", (json_int_t)r->tensor_count, "bytes",
        (json_int_t)r->bytes, "files", (json_int_t)r->file_count, "seconds", seconds);
    char *text = root ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(root);
    if (!text) RAISE(ARG, "%s: the summary holds a path that is not UTF-8", out_dir);
    puts(text);
    free(text);
    return ERR_OK;
}

/* transformers imports the model's own code from the folder; say so where it is not there. */
static err_t warn_without_code(const char *out_dir)
{
    char path[FILE_PATH_MAX];
    TRY(path_join(path, out_dir, "modeling_chatglm.py"));
    if (!file_exists(path))
        LOG_W("export",
              "no modeling_chatglm.py was found to go with the model; for use with transformers, "
              "copy the *.py of the original folder to %s",
              out_dir);
    return ERR_OK;
}

err_t cmd_export(struct cfg *cfg, int argc, char **argv)
{
    static const dtype_t dtypes[] = { DTYPE_F16, DTYPE_BF16, DTYPE_F32 }; /* as export.dtype */
    err_t rc = ERR_OK;
    struct cli_args args;
    struct model_source in = { 0 };
    struct hf_export_report report = { 0 };
    bool help_shown = false;
    const double begin_s = time_now_s();

    TRY(cli_parse(&args, &help_shown, &spec, cfg, argc, argv));
    if (help_shown) return ERR_OK;
    if (args.positional_count != 2)
        RAISE(USAGE, "export needs a checkpoint or folder, and the folder to write; see soulchat "
                     "export --help");
    TRY(stop_catch());
    TRY_DONE(open_input(&in, args.positional[0], cli_option(&args, &spec, "tokenizer"), cfg));
    const struct hf_export how = {
        .dtype = dtypes[cfg_enum(cfg, "export.dtype")],
        .shard_bytes_max = cfg_int(cfg, "export.shard_bytes"),
        .tokenizer_dir = in.tokenizer_dir[0] ? in.tokenizer_dir : NULL,
        .replace = cfg_bool(cfg, "export.replace"),
        .any_alpha = cfg_bool(cfg, "export.any_alpha"),
        .show_progress = true,
        .report = &report,
    };
    TRY_DONE(hf_folder_check(args.positional[1], &in.config, &how));
    warn_of_input(&in);
    TRY_DONE(hf_folder_write(args.positional[1], &in.config, in.weights, &how));
    TRY_DONE(warn_without_code(args.positional[1]));
    TRY_DONE(print_summary(&in, args.positional[1], cfg_str(cfg, "export.dtype"), &report,
                           time_now_s() - begin_s, cli_option(&args, &spec, "json") != NULL));
done:
    model_source_close(&in);
    return rc;
}
