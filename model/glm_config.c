#include "model/glm_config.h"

#include "base/check.h"
#include "base/file.h"
#include "model/json_in.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct glm_config glm_chatglm_6b = {
    .family = GLM_CHATGLM,
    .vocab_size = 130528,
    .hidden_size = 4096,
    .layer_count = 28,
    .head_count = 32,
    .kv_head_count = 32,
    .ffn_size = 16384,
    .position_max = 2048,
    .norm_eps = 1e-5,
    .residual_alpha = GLM_RESIDUAL_ALPHA,
    .tied = true,
    .rotary = GLM_ROTARY_FP16_ANGLE,
    .pad_id = 3,
    .mask_id = 130000,
    .gmask_id = 130001,
    .bos_id = 130004,
    .eos_id = 130005,
};

/* ---- the fields, once: names in ChatGLM-6B's config.json, places, and allowed ranges ---- */

struct field {
    const char *key;
    size_t offset;
    bool is_id; /* int32, from 0 below vocab_size; else int64, from 1 below 2^31 */
};

#define SIZE(member) offsetof(struct glm_config, member), false
#define ID(member)   offsetof(struct glm_config, member), true

static const struct field fields[] = {
    { "vocab_size", SIZE(vocab_size) }, /* before the ids, which are checked against it */
    { "hidden_size", SIZE(hidden_size) },
    { "num_layers", SIZE(layer_count) },
    { "num_attention_heads", SIZE(head_count) },
    { "inner_hidden_size", SIZE(ffn_size) },
    { "max_sequence_length", SIZE(position_max) },
    { "pad_token_id", ID(pad_id) },
    { "mask_token_id", ID(mask_id) },
    { "gmask_token_id", ID(gmask_id) },
    { "bos_token_id", ID(bos_id) },
    { "eos_token_id", ID(eos_id) },
};

static const char *const rotary_names[] = { "fp16_angle", "fp32_angle" };

static int64_t field_get(const struct glm_config *config, const struct field *field)
{
    const char *at = (const char *)config + field->offset;
    int64_t wide;
    int32_t id;
    if (field->is_id) {
        memcpy(&id, at, sizeof id);
        return id;
    }
    memcpy(&wide, at, sizeof wide);
    return wide;
}

static void field_set(struct glm_config *config, const struct field *field, int64_t value)
{
    char *at = (char *)config + field->offset;
    const int32_t id = (int32_t)value;
    if (field->is_id)
        memcpy(at, &id, sizeof id);
    else
        memcpy(at, &value, sizeof value);
}

const char *glm_rotary_name(enum glm_rotary rotary)
{
    ASSERT((int64_t)rotary < COUNT_OF(rotary_names));
    return rotary_names[rotary];
}

/* ---- reading ---- */

static err_t check_family(const json_t *root, const char *name)
{
    if (json_object_get(root, "padded_vocab_size") ||
        json_object_get(root, "multi_query_attention"))
        RAISE(UNSUPPORTED,
              "%s: a model of the ChatGLM2 family or later; only ChatGLM-6B (the first) "
              "is known here",
              name);
    if (!json_object_get(root, "inner_hidden_size"))
        RAISE(FORMAT, "%s: no key inner_hidden_size; not the configuration of a ChatGLM-6B", name);

    bool two_streams = true;
    TRY(json_in_bool_maybe(&two_streams, root, "position_encoding_2d", name));
    if (!two_streams)
        RAISE(UNSUPPORTED, "%s: position_encoding_2d is false; only true is known here", name);
    double bits = 0, prefix = 0;
    TRY(json_in_real_maybe(&bits, root, "quantization_bit", name));
    TRY(json_in_real_maybe(&prefix, root, "pre_seq_len", name));
    if (bits != 0)
        RAISE(UNSUPPORTED, "%s: quantization_bit is %g; quantized weights cannot be trained", name,
              bits);
    if (prefix != 0)
        RAISE(UNSUPPORTED, "%s: pre_seq_len is %g; prefix encoders are not known here", name,
              prefix);
    return ERR_OK;
}

static err_t read_rotary(enum glm_rotary *out, const json_t *root, const char *name)
{
    const json_t *value = json_object_get(root, "soulchat_rotary");
    *out = GLM_ROTARY_FP16_ANGLE;
    if (!value) return ERR_OK;
    for (int64_t i = 0; json_is_string(value) && i < COUNT_OF(rotary_names); i++) {
        if (strcmp(json_string_value(value), rotary_names[i]) != 0) continue;
        *out = (enum glm_rotary)i;
        return ERR_OK;
    }
    RAISE(FORMAT, "%s: soulchat_rotary is neither \"fp16_angle\" nor \"fp32_angle\"", name);
}

static err_t check_values(const struct glm_config *config, const char *name)
{
    if (config->hidden_size % config->head_count != 0 ||
        config->hidden_size / config->head_count % 4 != 0)
        RAISE(FORMAT,
              "%s: hidden_size %lld and num_attention_heads %lld; a head must have a whole "
              "multiple of 4 columns",
              name, (long long)config->hidden_size, (long long)config->head_count);
    if (!isfinite(config->norm_eps) || config->norm_eps <= 0)
        RAISE(FORMAT, "%s: layernorm_epsilon is %g; a number above 0 is wanted", name,
              config->norm_eps);
    if (!isfinite(config->residual_alpha) || config->residual_alpha <= 0)
        RAISE(FORMAT, "%s: residual_alpha is %g; a number above 0 is wanted", name,
              config->residual_alpha);
    return ERR_OK;
}

static err_t read_object(struct glm_config *out, const json_t *root, const char *name)
{
    struct glm_config config = { .family = GLM_CHATGLM,
                                 .tied = true,
                                 .residual_alpha = GLM_RESIDUAL_ALPHA };
    TRY(check_family(root, name));
    for (int64_t i = 0; i < COUNT_OF(fields); i++) {
        int64_t value = 0;
        const int64_t max = fields[i].is_id ? config.vocab_size - 1 : INT32_MAX;
        TRY(json_in_int(&value, root, fields[i].key, !fields[i].is_id, max, name));
        field_set(&config, &fields[i], value);
    }
    config.kv_head_count = config.head_count;
    TRY(json_in_real(&config.norm_eps, root, "layernorm_epsilon", name));
    TRY(json_in_real_maybe(&config.residual_alpha, root, "residual_alpha", name));
    TRY(json_in_bool_maybe(&config.tied, root, "tie_word_embeddings", name));
    TRY(read_rotary(&config.rotary, root, name));
    TRY(check_values(&config, name));
    *out = config;
    return ERR_OK;
}

err_t glm_config_parse(struct glm_config *out, const char *text, int64_t size, const char *name)
{
    json_t *root = NULL;
    TRY(json_in_parse(&root, text, size, name));
    const err_t rc = read_object(out, root, name);
    json_decref(root);
    return rc;
}

err_t glm_config_read(struct glm_config *out, const char *dir)
{
    char path[FILE_PATH_MAX];
    json_t *root = NULL;
    TRY(path_join(path, dir, "config.json"));
    if (!file_exists(path) && !dir_exists(path))
        RAISE(NOTFOUND, "%s: no such file; expected the folder of a model", path);
    TRY(json_in_file(&root, path, GLM_CONFIG_BYTES_MAX));
    const err_t rc = read_object(out, root, path);
    json_decref(root);
    return rc;
}

err_t glm_config_apply(struct glm_config *config, const struct cfg *cfg)
{
    const char *rotary = cfg_str(cfg, "model.rotary"), *tie = cfg_str(cfg, "model.tie");
    for (int64_t i = 0; i < COUNT_OF(rotary_names); i++)
        if (strcmp(rotary, rotary_names[i]) == 0) config->rotary = (enum glm_rotary)i;
    if (strcmp(tie, "auto") != 0) config->tied = strcmp(tie, "true") == 0;
    return ERR_OK;
}

/* ---- writing ---- */

/* The shortest decimal text that reads back as the same double: 1e-05, not 0.00001000...08. */
static void real_text(char text[32], double value)
{
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, 32, "%.*g", digits, value);
        if (strtod(text, NULL) == value) return;
    }
}

err_t glm_config_write(struct buf *json, const struct glm_config *config, const char *dtype_name)
{
    ASSERT(config->family == GLM_CHATGLM);
    char text[32];
    TRY(buf_puts(json, "{\n"
                       "  \"_name_or_path\": \"THUDM/chatglm-6b\",\n"
                       "  \"architectures\": [\"ChatGLMModel\"],\n"
                       "  \"auto_map\": {\n"
                       "    \"AutoConfig\": \"configuration_chatglm.ChatGLMConfig\",\n"
                       "    \"AutoModel\": \"modeling_chatglm.ChatGLMForConditionalGeneration\",\n"
                       "    \"AutoModelForSeq2SeqLM\": "
                       "\"modeling_chatglm.ChatGLMForConditionalGeneration\"\n"
                       "  },\n"
                       "  \"model_type\": \"chatglm\",\n"));
    for (int64_t i = 0; i < COUNT_OF(fields); i++)
        TRY(buf_printf(json, "  \"%s\": %lld,\n", fields[i].key,
                       (long long)field_get(config, &fields[i])));
    real_text(text, config->norm_eps);
    TRY(buf_printf(json, "  \"layernorm_epsilon\": %s,\n", text));
    if (config->residual_alpha != GLM_RESIDUAL_ALPHA) {
        real_text(text, config->residual_alpha);
        TRY(buf_printf(json, "  \"residual_alpha\": %s,\n", text));
    }
    if (config->rotary != GLM_ROTARY_FP16_ANGLE)
        TRY(buf_printf(json, "  \"soulchat_rotary\": \"%s\",\n", glm_rotary_name(config->rotary)));
    TRY(buf_printf(json,
                   "  \"position_encoding_2d\": true,\n"
                   "  \"tie_word_embeddings\": %s,\n"
                   "  \"torch_dtype\": \"%s\",\n"
                   "  \"transformers_version\": \"4.27.1\",\n"
                   "  \"use_cache\": true\n"
                   "}\n",
                   config->tied ? "true" : "false", dtype_name));
    return ERR_OK;
}

/* ---- comparison ---- */

const char *glm_config_difference(const struct glm_config *a, const struct glm_config *b,
                                  char *text, int64_t text_size)
{
    const size_t size = (size_t)text_size;
    for (int64_t i = 0; i < COUNT_OF(fields); i++) {
        const int64_t x = field_get(a, &fields[i]), y = field_get(b, &fields[i]);
        if (x == y) continue;
        snprintf(text, size, "%s %lld against %lld", fields[i].key, (long long)x, (long long)y);
        return text;
    }
    if (a->family != b->family)
        snprintf(text, size, "family %d against %d", (int)a->family, (int)b->family);
    else if (a->kv_head_count != b->kv_head_count)
        snprintf(text, size, "key/value heads %lld against %lld", (long long)a->kv_head_count,
                 (long long)b->kv_head_count);
    else if (a->norm_eps != b->norm_eps)
        snprintf(text, size, "layernorm_epsilon %.17g against %.17g", a->norm_eps, b->norm_eps);
    else if (a->residual_alpha != b->residual_alpha)
        snprintf(text, size, "residual_alpha %.17g against %.17g", a->residual_alpha,
                 b->residual_alpha);
    else if (a->tied != b->tied)
        snprintf(text, size, "tie_word_embeddings %s against %s", a->tied ? "true" : "false",
                 b->tied ? "true" : "false");
    else if (a->rotary != b->rotary)
        snprintf(text, size, "rotary %s against %s", glm_rotary_name(a->rotary),
                 glm_rotary_name(b->rotary));
    else
        return NULL;
    return text;
}
