#include "data/settings_batch.h"

#include "base/check.h"
#include "base/num.h"
#include "data/batch.h"

static const struct cfg_row rows[] = {
    { "batch.unit", CFG_ENUM, "samples", 0, 0, "samples|tokens",
      "what batch.size counts: samples (the published recipe), or rows of full packs" },
    { "batch.size", CFG_INT, "80", 1, BATCH_TOKENS_MAX, NULL,
      "size of a step (samples or rows, see batch.unit)" },
    { "batch.lanes", CFG_INT, "0", 0, BATCH_LANES_MAX, NULL,
      "parts that a step is divided into; results do not depend on how many ranks share them; 0 "
      "= the number of ranks when the run begins (count)" },
    { "batch.micro_tokens", CFG_INT, "16384", BATCH_ROW_MULTIPLE, BATCH_ROWS_MAX, NULL,
      "at most this many rows are computed at once, a multiple of 128 (rows)" },
    { "batch.pack_len", CFG_INT, "2048", 1, BATCH_ROWS_MAX, NULL,
      "length of a pack; must divide batch.micro_tokens and batch.size (rows)" },
    { "batch.loss_mean", CFG_ENUM, "token", 0, 0, "token|sample",
      "the loss is the mean over a step's trained tokens, or over its samples' means" },
    { "batch.source_weights", CFG_STRING, "", 0, 0, NULL,
      "how many times an epoch each source is trained on, as name=weight separated by commas; "
      "those not named, once" },
    { "batch.seed", CFG_INT, "42", 0, 9e15, NULL, "decides the order of samples and packs" },
    { "batch.max_input", CFG_INT, "1536", 4, SAMPLE_LIMIT_MAX, NULL,
      "most rows before the target: prompt and [gMASK] (tokens)" },
    { "batch.max_target", CFG_INT, "512", 3, SAMPLE_LIMIT_MAX, NULL,
      "most trained rows: <sop>, reply and <eop> (tokens)" },
    { "batch.over_long_target", CFG_ENUM, "drop", 0, 0, "drop|cut_no_end|cut_as_reference",
      "a reply beyond batch.max_target: drop it; cut it and teach no end; or cut it and teach "
      "to stop there, as the reference does" },
};

const struct cfg_table batch_settings = { rows, COUNT_OF(rows) };

STATIC_ASSERT(BATCH_SAMPLES == 0 && BATCH_TOKENS == 1, "as in the choices of batch.unit");
STATIC_ASSERT(LOSS_MEAN_TOKEN == 0 && LOSS_MEAN_SAMPLE == 1, "as in the choices of loss_mean");
STATIC_ASSERT(TARGET_DROP == 0 && TARGET_CUT_NO_END == 1 && TARGET_CUT_AS_REFERENCE == 2,
              "as in the choices of over_long_target");

/* ---- the rules between them ---- */

static err_t check_range(const char *key, int64_t value, int64_t max)
{
    if (value < 1 || value > max)
        RAISE(USAGE, "batch.%s is %lld; expected 1 to %lld", key, (long long)value, (long long)max);
    return ERR_OK;
}

static err_t check_packs(const struct batch_spec *spec)
{
    TRY(check_range("pack_len", spec->pack_len, BATCH_ROWS_MAX));
    if (spec->micro_tokens % spec->pack_len != 0)
        RAISE(USAGE, "batch.pack_len %lld does not divide batch.micro_tokens %lld",
              (long long)spec->pack_len, (long long)spec->micro_tokens);
    if (spec->size % spec->pack_len != 0)
        RAISE(USAGE,
              "batch.size %lld is no multiple of batch.pack_len %lld; with batch.unit tokens it "
              "counts rows, 65536 for example",
              (long long)spec->size, (long long)spec->pack_len);
    return ERR_OK;
}

err_t batch_spec_check(const struct batch_spec *spec)
{
    const bool tokens = spec->unit == BATCH_TOKENS;
    TRY(check_range("micro_tokens", spec->micro_tokens, BATCH_ROWS_MAX));
    if (spec->micro_tokens % BATCH_ROW_MULTIPLE != 0)
        RAISE(USAGE, "batch.micro_tokens %lld is no multiple of %d", (long long)spec->micro_tokens,
              BATCH_ROW_MULTIPLE);
    TRY(check_range("size", spec->size, tokens ? BATCH_TOKENS_MAX : BATCH_SAMPLES_MAX));
    TRY(check_range("lanes", spec->lanes, BATCH_LANES_MAX));
    if (tokens) TRY(check_packs(spec));

    const int64_t parts = tokens ? spec->size / spec->pack_len : spec->size;
    if (spec->lanes > parts)
        RAISE(USAGE, "batch.lanes %lld, but a step has only %lld %s to deal",
              (long long)spec->lanes, (long long)parts, tokens ? "packs" : "samples");
    return ERR_OK;
}

err_t batch_spec_from_cfg(struct batch_spec *out, const struct cfg *cfg)
{
    const struct batch_spec spec = {
        .unit = (enum batch_unit)cfg_enum(cfg, "batch.unit"),
        .size = cfg_int(cfg, "batch.size"),
        .lanes = max_i64(cfg_int(cfg, "batch.lanes"), 1),
        .micro_tokens = cfg_int(cfg, "batch.micro_tokens"),
        .pack_len = cfg_int(cfg, "batch.pack_len"),
        .loss_mean = (enum loss_mean)cfg_enum(cfg, "batch.loss_mean"),
        .seed = (uint64_t)cfg_int(cfg, "batch.seed"),
    };
    TRY(batch_spec_check(&spec));
    *out = spec;
    return ERR_OK;
}

void sample_limits_from_cfg(struct sample_limits *out, const struct cfg *cfg)
{
    out->max_input = cfg_int(cfg, "batch.max_input");
    out->max_target = cfg_int(cfg, "batch.max_target");
    out->over_long_target = (enum over_long_target)cfg_enum(cfg, "batch.over_long_target");
}
