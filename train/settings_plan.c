#include "train/settings_plan.h"

#include "base/check.h"
#include "data/sample.h"
#include "train/comm.h"

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
    { "plan.ranks", CFG_INT, "1", 1, COMM_SIZE_MAX, NULL,
      "cards to plan for, one of train's ranks on each" },
    { "plan.ranks_per_node", CFG_INT, "0", 0, COMM_SIZE_MAX, NULL,
      "ranks of one machine; 0 = up to 8 cards, all of a processor's" },
    { "plan.intra", CFG_STRING, "auto", 0, 0, NULL,
      "link between cards of a machine: nvlink4, pcie5, ..., or GB/s of one card each way; auto = "
      "by the card" },
    { "plan.inter", CFG_STRING, "ndr", 0, 0, NULL,
      "link between machines: ndr, hdr, 100gbe, 25gbe, 10gbe, ..., or GB/s each way" },
    { "plan.inter_links", CFG_INT, "0", 0, 64, NULL,
      "such links of a machine, which its ranks share; 0 = one for each rank" },
    { "plan.message_us", CFG_FLOAT, "5", 0, 1e6, NULL,
      "what a message to one other rank takes beside its bytes, and the sum of it (microseconds)" },
};

const struct cfg_table plan_settings = { rows, COUNT_OF(rows) };
