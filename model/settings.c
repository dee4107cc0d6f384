#include "model/settings.h"

#include "base/check.h"

static const struct cfg_row rows[] = {
    { "model.dir", CFG_STRING, "", 0, 0, NULL,
      "folder with config.json, the tokenizer and, for init: weights, the weights (path)" },
    { "model.init", CFG_ENUM, "weights", 0, 0, "weights|random",
      "start from the folder's weights, or from scratch" },
    { "model.rotary", CFG_ENUM, "auto", 0, 0, "auto|fp16_angle|fp32_angle",
      "rounding of rotary angles; auto = as config.json says, else fp16_angle, with which the "
      "published weights were trained" },
    { "model.tie", CFG_ENUM, "auto", 0, 0, "auto|true|false",
      "whether the output layer is the embedding; auto = as config.json says, else true" },
    { "model.init_seed", CFG_INT, "1", 0, 9007199254740992.0, NULL,
      "seed of random initial weights" },
    { "export.dtype", CFG_ENUM, "f16", 0, 0, "f16|bf16|f32",
      "type of matrices, embeddings and biases in the files; norms are always f32" },
    { "export.shard_bytes", CFG_INT, "2000000000", 1, 1e15, NULL,
      "approximate size of each weight file (bytes)" },
    { "export.replace", CFG_BOOL, "false", 0, 0, NULL,
      "replace OUT_DIR if it already holds a model" },
    { "export.any_alpha", CFG_BOOL, "false", 0, 0, NULL,
      "export a residual_alpha other than sqrt(56), which other programs do not know" },
};

const struct cfg_table model_settings = { rows, COUNT_OF(rows) };
