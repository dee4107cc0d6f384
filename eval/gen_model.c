#include "eval/gen_model.h"

#include "base/check.h"
#include "base/num.h"
#include "eval/role_names.h"
#include "model/model_source.h"

#include <string.h>

#define PROMPT_ROWS_MIN 16

/* Prompt and reply share the model's positions, as in the reference's max_length. */
static err_t share_positions(struct gen_model *m, const struct cfg *cfg, int64_t positions)
{
    const int64_t prompt = cfg_int(cfg, "generate.max_input") + 1; /* + <sop> */
    m->reply_tokens = cfg_int(cfg, "generate.max_new_tokens");
    if (!cfg_is_set(cfg, "generate.max_new_tokens"))
        m->reply_tokens = min_i64(m->reply_tokens, max_i64(positions / 4, 1));
    m->prompt_rows = min_i64(prompt, positions - m->reply_tokens);
    if (m->prompt_rows < min_i64(prompt, PROMPT_ROWS_MIN))
        RAISE(USAGE,
              "generate.max_new_tokens is %lld; the model has %lld positions for prompt and "
              "reply together",
              (long long)m->reply_tokens, (long long)positions);
    return ERR_OK;
}

static err_t open_tokenizer(struct gen_model *m, const struct cfg *cfg,
                            const struct model_source *source)
{
    const char *wanted = cfg_str(cfg, "generate.tokenizer");
    const char *known = source->tokenizer_dir;
    if (wanted[0] != '\0') return tok_open(&m->tok, wanted);
    if (known[0] == '\0')
        RAISE(NOTFOUND, "%s: its run knew no tokenizer; name its folder with generate.tokenizer",
              source->dir);
    const err_t rc = tok_open(&m->tok, known);
    if (rc == ERR_NOTFOUND)
        RAISE(NOTFOUND, "%s: the tokenizer is not in %s; name its folder with generate.tokenizer",
              source->dir, known);
    return rc;
}

/* A wrong tokenizer gives fluent nonsense, so it is found out here. */
static err_t check_tokenizer(const struct tok *tok, const struct glm_config *config,
                             const char *model)
{
    const struct tok_specials *s = tok_specials(tok);
    const bool chatglm2 = config->family == GLM_CHATGLM2;
    const struct {
        const char *name;
        int32_t of_tokenizer, of_model;
    } ids[] = {
        { "mask", s->mask, config->mask_id },
        { "gmask", s->gmask, config->gmask_id },
        { "bos", s->sop, config->bos_id },
        { "eos", s->eos, config->eos_id },
    };
    if ((tok_family(tok) == TOK_CHATGLM2) != chatglm2)
        RAISE(FORMAT, "%s is the tokenizer of another family than the model %s", tok_path(tok),
              model);
    if (tok_vocab_size(tok) > config->vocab_size)
        RAISE(FORMAT, "%s has %lld tokens, the model %s only %lld: not its tokenizer",
              tok_path(tok), (long long)tok_vocab_size(tok), model, (long long)config->vocab_size);
    for (int64_t i = 0; i < COUNT_OF(ids) && !chatglm2; i++)
        if (ids[i].of_tokenizer != ids[i].of_model)
            RAISE(FORMAT, "%s: %s_token_id is %d, in the model %s it is %d: not its tokenizer",
                  tok_path(tok), ids[i].name, ids[i].of_tokenizer, model, ids[i].of_model);
    return ERR_OK;
}

/* auto changes no value: 16-bit files keep their dtype, everything else is f32. */
static dtype_t weight_dtype(const struct cfg *cfg, const struct weight_source *weights)
{
    static const dtype_t dtypes[] = { DTYPE_COUNT, DTYPE_F32, DTYPE_F16, DTYPE_BF16 };
    const int64_t chosen = cfg_enum(cfg, "generate.weights");
    ASSERT(chosen >= 0 && chosen < COUNT_OF(dtypes));
    return chosen == 0 ? weight_source_matrix_dtype(weights) : dtypes[chosen];
}

/* The CPU computes in f32 whatever the width of the weights; a GPU in f32 or, with 16-bit weights,
 * in bf16, to which f16 is rounded. */
static void choose_dtypes(struct glm_options *o, const struct dev *dev, dtype_t weights)
{
    const bool is_gpu = dev->info.capability > 0;
    o->dtype = is_gpu && weights != DTYPE_F32 ? DTYPE_BF16 : DTYPE_F32;
    o->weight_dtype = is_gpu ? DTYPE_F32 : weights; /* f32: as dtype */
}

static err_t open_network(struct gen_model *m, const struct cfg *cfg, struct model_source *source,
                          int64_t slots)
{
    TRY(glm_config_apply(&source->config, cfg));
    TRY(share_positions(m, cfg, source->config.position_max));
    TRY(open_tokenizer(m, cfg, source));
    TRY(check_tokenizer(m->tok, &source->config, source->dir));
    TRY(role_names_find(&m->chat, cfg, source->dir));
    TRY(dev_open(&m->dev, cfg_str(cfg, "generate.device"), (int)cfg_int(cfg, "generate.threads")));
    struct glm_options options = {
        .rows_max = max_i64(m->prompt_rows, slots),
        .segments_max = 1,
        .targets_max = 1,
        .ranks = 1,
    };
    choose_dtypes(&options, m->dev, weight_dtype(cfg, source->weights));
    TRY(glm_create(&m->glm, m->dev, &source->config, &options));
    TRY(glm_load_exact(m->glm, source->weights, &(struct glm_sink){ .stops = true }));
    m->end_id = source->config.eos_id;
    return ERR_OK;
}

err_t gen_model_open(struct gen_model *out, const struct cfg *cfg, int64_t slots)
{
    const char *path = cfg_str(cfg, "generate.model");
    struct model_source source;
    memset(out, 0, sizeof *out);
    if (path[0] == '\0')
        RAISE(USAGE, "generate.model is not set; expected an exported folder, a Hugging Face "
                     "folder, a run folder or a checkpoint");
    err_t rc = model_source_open(&source, path);
    if (rc == ERR_OK) rc = open_network(out, cfg, &source, slots);
    model_source_close(&source);
    return rc;
}

void gen_model_close(struct gen_model *m)
{
    glm_close(m->glm);
    dev_close(m->dev);
    tok_close(m->tok);
    memset(m, 0, sizeof *m);
}
