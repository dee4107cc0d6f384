#include "train/settings_plan.h"

#include "base/check.h"
#include "data/sample.h"
#include "train/comm.h"

static const struct cfg_row rows[] = {
    { "plan.card", CFG_STRING, "auto", 0, 0, NULL,
      "the card to plan for: h200, h100, a100-80gb, l40s, rtx4090, ..., cpu, or a GPU's own "
      "name; auto = train.device" },
    { "plan.memory_bytes", CFG_INT, "0", 0, 1e15, NULL,
      "memory of the card; 0 = as the table of cards says (bytes)" },
    { "plan.spare", CFG_FLOAT, "3", 0, 50, NULL,
      "share of the card that must stay free, since predictions are not exact (percent)" },
    { "plan.rates", CFG_STRING, "", 0, 0, NULL,
      "measured speeds by GPU, to be used instead of assumed ones (path of a JSON file)" },
    /* SMILECHAT by ChatGLM-6B's tokenizer: 275,726 samples of 311.6 rows, 53.9 of them trained. */
    { "plan.context", CFG_INT, "258", 1, SAMPLE_LIMIT_MAX, NULL,
      "mean rows of a sample before its target, if data.dir holds no corpus (tokens)" },
    { "plan.target", CFG_INT, "54", 1, SAMPLE_LIMIT_MAX, NULL,
      "mean trained tokens of a sample, if data.dir holds no corpus (tokens)" },
    { "plan.ranks", CFG_INT, "1", 1, COMM_SIZE_MAX, NULL,
      "cards to plan for, one rank on each (count)" },
    { "plan.ranks_per_node", CFG_INT, "0", 0, COMM_SIZE_MAX, NULL,
      "ranks on one machine; 0 = up to 8 cards, or all ranks on a CPU (count)" },
    { "plan.intra", CFG_STRING, "auto", 0, 0, NULL,
      "link between the cards of a machine: nvlink4, pcie5, ..., or GB/s of one card each way; "
      "auto = as the card has" },
    { "plan.inter", CFG_STRING, "ndr", 0, 0, NULL,
      "link between machines: ndr, hdr, 100gbe, 25gbe, 10gbe, ..., or GB/s each way" },
    { "plan.inter_links", CFG_INT, "0", 0, 64, NULL,
      "such links of a machine, shared by its ranks; 0 = one per rank (count)" },
    { "plan.message_us", CFG_FLOAT, "5", 0, 1e6, NULL,
      "time that a message to another rank takes apart from its bytes, adding up its parts "
      "included (microseconds)" },
};

const struct cfg_table plan_settings = { rows, COUNT_OF(rows) };
