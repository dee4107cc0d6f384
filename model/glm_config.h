/*
 * glm_config.h - what a model is: sizes, family, special ids, and the few choices that published
 * files leave open. Read from a Hugging Face config.json, and written back on export.
 */
#ifndef MODEL_GLM_CONFIG_H
#define MODEL_GLM_CONFIG_H

#include "base/buf.h"
#include "base/cfg.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum glm_family { GLM_CHATGLM, GLM_CHATGLM2 };

#define GLM_RESIDUAL_ALPHA   7.483314773547883 /* sqrt(2 * 28), whatever the number of layers */
#define GLM_CONFIG_BYTES_MAX (1 << 20)

/*
 * Rotary angles: published ChatGLM-6B weights were trained and run with angles rounded to fp16
 * (pos * inv_freq in half precision), and differ visibly otherwise; models initialised here, and
 * the golden data, use float32 angles (inv_freq itself is rounded to fp16 in both). Tables are
 * always built on the host and stored in the accumulator dtype.
 */
enum glm_rotary { GLM_ROTARY_FP16_ANGLE, GLM_ROTARY_FP32_ANGLE };

struct glm_config {
    enum glm_family family;
    int64_t vocab_size;    /* rows of the embedding, V */
    int64_t hidden_size;   /* C */
    int64_t layer_count;   /* L */
    int64_t head_count;    /* H; head width D = C/H, a multiple of 4 */
    int64_t kv_head_count; /* G; == H for ChatGLM-6B */
    int64_t ffn_size;      /* F; 4C for ChatGLM-6B */
    int64_t position_max;  /* max_sequence_length */
    double norm_eps;
    double residual_alpha; /* sqrt(56) at any depth, as in the reference; exported if it differs */
    bool tied; /* output layer is the embedding (true when config.json is silent, for ChatGLM-6B) */
    enum glm_rotary rotary;
    /* All must be in the file; bos = <sop>, eos = <eop>. */
    int32_t pad_id, mask_id, gmask_id, bos_id, eos_id;
};

extern const struct glm_config glm_chatglm_6b; /* THUDM/chatglm-6b, as its config.json has it */

/*
 * Read dir/config.json. Family by `inner_hidden_size` (ChatGLM-6B) or
 * `padded_vocab_size`/`multi_query_attention` (ChatGLM2-6B and later: ERR_UNSUPPORTED for now, in
 * one clear line). Old class defaults are never used: a missing size or special id is ERR_FORMAT
 * naming the key. Sizes are checked (positive, below 2^31, head width a multiple of 4, ids below
 * vocab_size). rotary: fp16_angle unless the file says "soulchat_rotary": "fp32_angle", which our
 * own export writes for models initialised here.
 */
MUST_USE err_t glm_config_read(struct glm_config *out, const char *dir);
/* The same from the text of a config.json (checkpoints keep it); `name` is for messages. */
MUST_USE err_t glm_config_parse(struct glm_config *out, const char *text, int64_t size,
                                const char *name);
/* Settings model.rotary (auto|fp16_angle|fp32_angle) and model.tie (auto|true|false) override the
 * file. */
MUST_USE err_t glm_config_apply(struct glm_config *config, const struct cfg *cfg);
/* The config.json of an export, as text. `dtype_name`: "float16" and so on. */
MUST_USE err_t glm_config_write(struct buf *json, const struct glm_config *config,
                                const char *dtype_name);
const char *glm_rotary_name(enum glm_rotary rotary);
/* The first field that differs, as "hidden_size 64 against 128" in `text` (returned), or NULL when
 * equal. */
const char *glm_config_difference(const struct glm_config *a, const struct glm_config *b,
                                  char *text, int64_t text_size);

#endif
