#include "plan_fixture.h"

struct glm_config plan_6b(bool tied)
{
    return (struct glm_config){
        .family = GLM_CHATGLM,
        .vocab_size = 130528,
        .hidden_size = 4096,
        .layer_count = 28,
        .head_count = 32,
        .kv_head_count = 32,
        .ffn_size = 16384,
        .position_max = 2048,
        .norm_eps = 1e-5,
        .residual_alpha = GLM_RESIDUAL_ALPHA,
        .tied = tied,
        .pad_id = 3,
        .mask_id = 130000,
        .gmask_id = 130001,
        .bos_id = 130004,
        .eos_id = 130005,
    };
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
