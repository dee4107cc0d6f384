#include "model/settings.h"

#include "base/check.h"

static const struct cfg_row rows[] = {
    { "model.dir", CFG_STRING, "", 0, 0, NULL,
      "folder with config.json, the tokenizer and, for init: weights, the weights (path)" },
    { "model.init", CFG_ENUM, "weights", 0, 0, "weights|random",
      "start from the folder's weights, or from scratch" },
    { "model.rotary", CFG_ENUM, "auto", 0, 0, "auto|fp16_angle|fp32_angle",
      "rounding of rotary angles; auto: what config.json says, else fp16_angle, as published "
      "weights were trained" },
    { "model.tie", CFG_ENUM, "auto", 0, 0, "auto|true|false",
      "output layer is the embedding; auto: what config.json says, else true" },
    { "model.init_seed", CFG_INT, "1", 0, 9007199254740992.0, NULL,
      "seed of random initial weights, where no weights are read" },
    { "export.dtype", CFG_ENUM, "f16", 0, 0, "f16|bf16|f32",
      "type of matrices, embeddings and biases in the files; norms are always f32" },
    { "export.shard_bytes", CFG_INT, "2000000000", 1, 1e15, NULL,
      "about this much in each weight file (bytes)" },
    { "export.replace", CFG_BOOL, "false", 0, 0, NULL,
      "replace OUT_DIR if it holds a model already" },
    { "export.any_alpha", CFG_BOOL, "false", 0, 0, NULL,
      "export a residual_alpha other than sqrt(56), which other programs will not know" },
};

const struct cfg_table model_settings = { rows, COUNT_OF(rows) };
