/* A prepared corpus against the settings of a run that is to train on it. */
#include "base/check.h"
#include "data/prepare.h"

#include <stdio.h>
#include <string.h>

static err_t differs(const struct cfg *cfg, const char *key, const char *corpus, const char *now)
{
    RAISE(USAGE,
          "%s was prepared with %s = %s; it is %s now: prepare it again, or train with what "
          "it has",
          cfg_str(cfg, "data.dir"), key, corpus, now);
}

static err_t check_texts(const struct shard_info *info, const struct cfg *cfg)
{
    const struct {
        const char *key, *corpus;
    } texts[] = {
        { "data.client_name", info->client_name },
        { "data.counsellor_name", info->counsellor_name },
        { "data.separator", info->separator },
    };
    for (int64_t i = 0; i < COUNT_OF(texts); i++)
        if (cfg_is_set(cfg, texts[i].key) &&
            strcmp(cfg_str(cfg, texts[i].key), texts[i].corpus) != 0)
            return differs(cfg, texts[i].key, texts[i].corpus, cfg_str(cfg, texts[i].key));
    if (cfg_is_set(cfg, "data.split_seed") &&
        (uint64_t)cfg_int(cfg, "data.split_seed") != info->split_seed) {
        char corpus[32];
        snprintf(corpus, sizeof corpus, "%llu", (unsigned long long)info->split_seed);
        return differs(cfg, "data.split_seed", corpus, cfg_text(cfg, "data.split_seed"));
    }
    return ERR_OK;
}

/* Corpora made elsewhere may say that no rules were used. */
static err_t check_rules(const struct shard_info *info, const struct cfg *cfg)
{
    char hex[SHA256_HEX_SIZE];
    struct clean_rules *rules;
    const struct clean_spec spec = { .actions = cfg_str(cfg, "data.rules"),
                                     .long_turn = cfg_int(cfg, "data.long_turn") };
    if (!cfg_is_set(cfg, "data.rules") && !cfg_is_set(cfg, "data.long_turn")) return ERR_OK;
    TRY(clean_rules_open(&rules, &spec));
    clean_rules_sha256(hex, rules);
    clean_rules_close(rules);
    if (strcmp(hex, info->rules_sha256) != 0)
        return differs(cfg, "the cleaning rules (data.rules, data.long_turn) of sha256",
                       info->rules_sha256[0] != '\0' ? info->rules_sha256 : "(none)", hex);
    return ERR_OK;
}

static err_t check_tokenizer(const struct shard_info *info, const struct cfg *cfg)
{
    err_t rc = ERR_OK;
    struct tok *tok;
    if (!cfg_is_set(cfg, "data.tokenizer")) return ERR_OK;
    TRY(tok_open(&tok, cfg_str(cfg, "data.tokenizer")));
    if (strcmp(tok_sha256(tok), info->tokenizer_sha256) != 0)
        rc = differs(cfg, "a tokenizer (data.tokenizer) of sha256", info->tokenizer_sha256,
                     tok_sha256(tok));
    tok_close(tok);
    return rc;
}

err_t prepare_check_shards(const struct shards *shards, const struct cfg *cfg)
{
    const struct shard_info *info = shards_info(shards);
    TRY(check_texts(info, cfg));
    TRY(check_rules(info, cfg));
    return check_tokenizer(info, cfg);
}
