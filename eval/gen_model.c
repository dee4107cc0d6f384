#include "eval/gen_model.h"

#include "base/file.h"
#include "base/num.h"
#include "model/model_source.h"

#include <string.h>

/* The longest prompt that leaves room for a whole reply among the model's positions. */
static err_t prompt_room(int64_t *prompt_rows, const struct cfg *cfg, const struct glm_config *config)
{
    const int64_t wanted = cfg_int(cfg, "generate.max_input") + 1; /* + <sop> */
    const int64_t reply = cfg_int(cfg, "generate.max_new_tokens");
    const int64_t room = config->position_max - reply;
    if (room < 16)
        RAISE(USAGE, "generate.max_new_tokens is %lld; the model has %lld positions for prompt and "
              "reply together",
              (long long)reply, (long long)config->position_max);
    *prompt_rows = min_i64(wanted, room);
    return ERR_OK;
}

static err_t open_network(struct gen_model *m, const struct cfg *cfg, struct model_source *source,
                          int64_t *prompt_rows)
{
    TRY(glm_config_apply(&source->config, cfg));
    TRY(prompt_room(prompt_rows, cfg, &source->config));
    TRY(tok_open(&m->tok, source->tokenizer_dir));
    TRY(dev_open(&m->dev, cfg_str(cfg, "generate.device"),
                 (int)cfg_int(cfg, "generate.threads")));
    const struct glm_options options = {
        .dtype = DTYPE_F32,
        .rows_max = *prompt_rows,
        .segments_max = 1,
        .targets_max = 1,
        .ranks = 1,
    };
    TRY(glm_create(&m->glm, m->dev, &source->config, &options));
    TRY(glm_load(m->glm, source->weights));
    m->end_id = source->config.eos_id;
    return ERR_OK;
}

err_t gen_model_open(struct gen_model *out, const struct cfg *cfg, int64_t *prompt_rows)
{
    const char *path = cfg_str(cfg, "generate.model");
    struct model_source source;
    memset(out, 0, sizeof *out);
    if (path[0] == '\0')
        RAISE(USAGE, "generate.model is not set; expected an exported folder, a Hugging Face folder, "
              "a run folder or a checkpoint");
    err_t rc = model_source_open(&source, path);
    if (rc == ERR_OK) rc = open_network(out, cfg, &source, prompt_rows);
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
