#include "data/batch_spec.h"

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
