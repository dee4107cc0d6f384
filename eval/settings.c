#include "eval/settings.h"

#include "base/check.h"

static const struct cfg_row rows[] = {
    { "generate.model", CFG_STRING, "", 0, 0, NULL,
      "model to answer with: an exported or Hugging Face folder, a run folder or a checkpoint "
      "(path)" },
    { "generate.tokenizer", CFG_STRING, "", 0, 0, NULL,
      "folder with the model's tokenizer; empty: the model's own, or what its run was prepared "
      "with (path)" },
    { "generate.device", CFG_STRING, "cpu", 0, 0, NULL, "cpu, or cuda, cuda:1, ... where built" },
    { "generate.threads", CFG_INT, "0", 0, 4096, NULL,
      "CPU threads; 0 = all that this process may use (threads)" },
    { "generate.weights", CFG_ENUM, "auto", 0, 0, "auto|f32|f16|bf16",
      "matrices in memory; auto: as in the model's files, half of f32 where those have 16 bits; a "
      "GPU keeps f16 as bf16 (dtype)" },
    { "generate.batch", CFG_INT, "8", 1, 256, NULL,
      "conversations of a file answered together; each takes memory for a whole prompt and reply "
      "(count)" },
    { "generate.max_new_tokens", CFG_INT, "512", 1, 1e6, NULL,
      "longest reply; by default no more than a quarter of the model's positions (tokens)" },
    { "generate.max_input", CFG_INT, "1536", 8, 1e6, NULL,
      "longest prompt with [gMASK]; whole oldest turns are dropped beyond it (tokens)" },
    { "generate.greedy", CFG_BOOL, "false", 0, 0, NULL, "always the most probable token" },
    { "generate.temperature", CFG_FLOAT, "0.95", 1e-4, 100, NULL,
      "below 1 sharper, above 1 flatter; 0.95 is SoulChat's (divides logits)" },
    { "generate.top_k", CFG_INT, "0", 0, 1e9, NULL, "keep this many tokens; 0 = all (tokens)" },
    { "generate.top_p", CFG_FLOAT, "0.75", 1e-6, 1, NULL,
      "keep the most probable tokens up to this mass; 0.75 is SoulChat's; 1 = all (probability)" },
    { "generate.repetition_penalty", CFG_FLOAT, "1", 0.01, 100, NULL,
      "above 1 makes tokens that occurred less likely; 1 = off (factor)" },
    { "generate.seed", CFG_INT, "42", 0, 9e15, NULL, "same seed, same replies" },
    { "generate.full_width_punctuation", CFG_BOOL, "true", 0, 0, NULL,
      "ChatGLM-6B writes , ! : ; ? for full-width ones; turn them back beside Chinese characters" },
};

const struct cfg_table eval_settings = { rows, COUNT_OF(rows) };
