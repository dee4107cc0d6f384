#include "plan_fixture.h"

struct glm_config plan_6b(bool tied)
{
    struct glm_config config = glm_chatglm_6b;
    config.tied = tied;
    return config;
}

struct cost_settings plan_full(void)
{
    return (struct cost_settings){ .dtype = DTYPE_BF16,
                                   .grad_dtype = DTYPE_F32,
                                   .master = true,
                                   .activations = GLM_KEEP_ALL,
                                   .lanes = 1,
                                   .ranks = 1 };
}

struct plan plan_make(struct plan_dev *device, const char *card)
{
    struct plan plan = {
        .config = plan_6b(true),
        .settings = plan_full(),
        .batch = { .unit = BATCH_SAMPLES,
                   .size = 80,
                   .lanes = 1,
                   .micro_tokens = 16384,
                   .pack_len = 2048,
                   .seed = 1 },
        .text = { .sample_rows = 310,
                  .sample_targets = 54,
                  .sample_pairs = cost_pairs(256, 54),
                  .longest = 2048,
                  .fill = 1 },
    };
    assert_ok(card_find(&plan.card, card, NULL));
    plan_dev_formulas(device, &plan.card);
    plan.dev = device->dev;
    return plan;
}
