#include "train/settings.h"

#include "base/check.h"

static const struct cfg_row rows[] = {
    { "train.out", CFG_STRING, "runs/run", 0, 0, NULL,
      "run folder: checkpoints, metrics.jsonl, the resolved settings (path)" },
    { "train.device", CFG_STRING, "cpu", 0, 0, NULL, "cpu, or cuda, cuda:1, ... where built" },
    { "train.threads", CFG_INT, "0", 0, 4096, NULL,
      "CPU threads; 0 = all that this process may use (threads)" },
    { "train.activations", CFG_ENUM, "keep", 0, 0, "keep|lean",
      "keep = every activation; lean = recompute norms and GELU: same bits, less memory" },
    { "train.steps", CFG_INT, "0", 0, 1e9, NULL,
      "optimizer updates in all; 0 = take train.epochs (steps)" },
    { "train.epochs", CFG_FLOAT, "1", 0, 1e6, NULL,
      "passes over the training split, where train.steps is 0 (epochs)" },
    { "train.schedule", CFG_ENUM, "warmup_decay", 0, 0,
      "warmup_decay|warmup_decay_deepspeed_0_9_0|cosine|linear|constant",
      "shape of the learning rate" },
    { "train.warmup_shape", CFG_ENUM, "log", 0, 0, "log|linear",
      "rise of the two warmup_decay schedules" },
    { "train.warmup_steps", CFG_INT, "0", 0, 1e9, NULL, "updates until the full rate (steps)" },
    { "train.lr", CFG_FLOAT, "5e-5", 0, 10, NULL, "highest learning rate (per update)" },
    { "train.lr_min", CFG_FLOAT, "0", 0, 10, NULL, "lowest learning rate (per update)" },
    { "train.beta1", CFG_FLOAT, "0.9", 0, 0.999999, NULL, "AdamW: decay of the first moment" },
    { "train.beta2", CFG_FLOAT, "0.999", 0, 0.99999999, NULL, "AdamW: decay of the second moment" },
    { "train.adam_eps", CFG_FLOAT, "1e-8", 1e-20, 1, NULL, "AdamW: epsilon" },
    { "train.weight_decay", CFG_FLOAT, "0", 0, 10, NULL,
      "AdamW: decoupled decay, on matrices only (per unit of learning rate)" },
    { "train.max_grad_norm", CFG_FLOAT, "1", 0, 1e9, NULL,
      "clip the gradient's global norm; 0 = no clipping" },
    { "train.validate_every", CFG_INT, "500", 0, 1e9, NULL,
      "validation loss every so many steps and at the end; 0 = never (steps)" },
    { "train.validate_samples", CFG_INT, "500", 1, 1e9, NULL,
      "samples of the validation split that are used (samples)" },
    { "train.save_every", CFG_INT, "1000", 0, 1e9, NULL,
      "checkpoint every so many steps and at the end; 0 = at the end only (steps)" },
    { "train.keep_last", CFG_INT, "3", 1, 1e6, NULL, "checkpoints kept, newest first (count)" },
    { "train.log_every", CFG_INT, "1", 1, 1e6, NULL,
      "a line of metrics.jsonl every so many steps (steps)" },
};

const struct cfg_table train_settings = { rows, COUNT_OF(rows) };
