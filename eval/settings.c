#include "eval/settings.h"

#include "base/check.h"

static const struct cfg_row rows[] = {
    { "generate.model", CFG_STRING, "", 0, 0, NULL,
      "model to answer with: an exported or Hugging Face folder, a run folder or a checkpoint "
      "(path)" },
    { "generate.tokenizer", CFG_STRING, "", 0, 0, NULL,
      "folder with the model's tokenizer; empty = the model's own, or the one its run was "
      "prepared with (path)" },
    { "generate.device", CFG_STRING, "cpu", 0, 0, NULL,
      "cpu; cuda, cuda:1, ... if the CUDA backend is built" },
    { "generate.threads", CFG_INT, "0", 0, 4096, NULL,
      "CPU threads; 0 = all that this process may use (threads)" },
    { "generate.weights", CFG_ENUM, "auto", 0, 0, "auto|f32|f16|bf16",
      "type of the matrices in memory; auto = as in the model's files, so that 16 bits take "
      "half of f32; a GPU keeps f16 as bf16" },
    { "generate.batch", CFG_INT, "8", 1, 256, NULL,
      "conversations of a file that are answered together; each takes memory for a whole prompt "
      "and reply (count)" },
    { "generate.max_new_tokens", CFG_INT, "512", 1, 1e6, NULL,
      "longest reply; if not set, at most a quarter of the model's positions (tokens)" },
    { "generate.max_input", CFG_INT, "1536", 8, 1e6, NULL,
      "longest prompt, with [gMASK]; beyond it the oldest turns are left out (tokens)" },
    { "generate.greedy", CFG_BOOL, "false", 0, 0, NULL, "always take the most probable token" },
    { "generate.temperature", CFG_FLOAT, "0.95", 1e-4, 100, NULL,
      "divides the logits: below 1 sharper, above 1 flatter; SoulChat's is 0.95" },
    { "generate.top_k", CFG_INT, "50", 0, 1e9, NULL,
      "draw from this many of the most probable tokens; 50 is what transformers does unasked, and "
      "so SoulChat's program; 0 = all (tokens)" },
    { "generate.top_p", CFG_FLOAT, "0.75", 1e-6, 1, NULL,
      "draw from the most probable tokens that together have this probability; SoulChat's is "
      "0.75; 1 = all" },
    { "generate.repetition_penalty", CFG_FLOAT, "1", 0.01, 100, NULL,
      "above 1, makes tokens that have occurred less likely; 1 = off (factor)" },
    { "generate.seed", CFG_INT, "42", 0, 9e15, NULL, "the same seed gives the same replies" },
    { "generate.full_width_punctuation", CFG_BOOL, "true", 0, 0, NULL,
      "turn the , ! : ; ? that ChatGLM-6B writes beside Chinese characters back into full-width "
      "ones" },
};

const struct cfg_table eval_settings = { rows, COUNT_OF(rows) };
