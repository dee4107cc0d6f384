#include "train/settings_plan.h"

#include "base/check.h"
#include "data/sample.h"

static const struct cfg_row rows[] = {
    { "plan.card", CFG_STRING, "auto", 0, 0, NULL,
      "the card to plan for: h200, h100, a100-80gb, l40s, rtx4090, ..., cpu, or a GPU's own name; "
      "auto = train.device" },
    { "plan.memory_bytes", CFG_INT, "0", 0, 1e15, NULL,
      "memory of the card, where it is not what the table says; 0 = as there (bytes)" },
    { "plan.spare", CFG_FLOAT, "3", 0, 50, NULL,
      "part of the card that must stay free: predictions are not exact (percent)" },
    { "plan.rates", CFG_STRING, "", 0, 0, NULL,
      "measured speeds by GPU, in place of assumed ones (path of a JSON file)" },
    /* SMILECHAT by ChatGLM-6B's tokenizer: 275,726 samples of 311.6 rows, 53.9 of them trained. */
    { "plan.context", CFG_INT, "258", 1, SAMPLE_LIMIT_MAX, NULL,
      "rows of a mean sample before the target, where data.dir holds no corpus (tokens)" },
    { "plan.target", CFG_INT, "54", 1, SAMPLE_LIMIT_MAX, NULL,
      "trained tokens of a mean sample, where data.dir holds no corpus (tokens)" },
};

const struct cfg_table plan_settings = { rows, COUNT_OF(rows) };
