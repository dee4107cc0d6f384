#include "eval/gen.h"

#include "base/check.h"
#include "base/file.h"
#include "base/num.h"
#include "base/progress.h"
#include "base/stop.h"
#include "data/seq.h"
#include "data/tok.h"
#include "eval/gen_model.h"
#include "eval/sampler.h"
#include "model/glm.h"

#include <stdlib.h>
#include <string.h>

struct gen {
    struct gen_model model; /* device, network, tokenizer */
    struct glm_cache *cache;
    struct chat_template chat;
    struct sampler sampler;
    struct sampler_memory sampler_memory;
    int64_t prompt_max;     /* rows of a prompt with its special tokens */
    int64_t new_tokens_max;
    float *logits;          /* [vocab] */
    int32_t *pos, *block;   /* [prompt_max] */
    struct i32_buf prompt, ids; /* ids: the whole sequence, then the reply's part is ids[prompt rows..] */
};

static err_t open_buffers(struct gen *g)
{
    const int64_t vocab = glm_config(g->model.glm)->vocab_size;
    g->logits = malloc((size_t)vocab * sizeof *g->logits);
    g->pos = malloc((size_t)g->prompt_max * sizeof *g->pos);
    g->block = malloc((size_t)g->prompt_max * sizeof *g->block);
    if (g->logits == NULL || g->pos == NULL || g->block == NULL)
        RAISE(NOMEM, "generate: no memory for a vocabulary of %lld", (long long)vocab);
    TRY(sampler_memory_init(&g->sampler_memory, vocab));
    return glm_cache_create(&g->cache, g->model.glm, 1, g->prompt_max + g->new_tokens_max);
}

static err_t open_all(struct gen *g, const struct cfg *cfg)
{
    g->new_tokens_max = cfg_int(cfg, "generate.max_new_tokens");
    TRY(chat_template_from_cfg(&g->chat, cfg));
    TRY(gen_model_open(&g->model, cfg, &g->prompt_max));
    g->sampler = sampler_from_cfg(cfg, tok_specials(g->model.tok)->space);
    return open_buffers(g);
}

err_t gen_open(struct gen **out, const struct cfg *cfg)
{
    struct gen *g = calloc(1, sizeof *g);
    *out = NULL;
    if (g == NULL) RAISE(NOMEM, "generate: no memory for %zu bytes", sizeof *g);
    const err_t rc = open_all(g, cfg);
    if (rc != ERR_OK) {
        gen_close(g);
        return rc;
    }
    *out = g;
    return ERR_OK;
}

void gen_close(struct gen *g)
{
    if (g == NULL) return;
    glm_cache_close(g->cache);
    sampler_memory_clear(&g->sampler_memory);
    i32_buf_clear(&g->prompt);
    i32_buf_clear(&g->ids);
    free(g->logits);
    free(g->pos);
    free(g->block);
    gen_model_close(&g->model);
    free(g);
}

/* Lay out the prompt and run it; logits of its last row are ready afterwards. */
static err_t prefill(struct gen *g, struct seq *seq, struct gen_stats *stats,
                     const struct turn_text *turns, int64_t turn_count)
{
    const enum tok_family family = tok_family(g->model.tok);
    const int64_t specials = seq_len(family, 0, 0, false);
    i32_buf_reset(&g->prompt);
    i32_buf_reset(&g->ids);
    TRY(chat_prompt(&g->prompt, g->model.tok, &g->chat, turns, turn_count,
                    g->prompt_max - specials, &stats->turns_dropped, &stats->tokens_cut));
    for (int64_t i = 0; i < g->prompt.count + specials; i++) TRY(i32_buf_push(&g->ids, 0));
    seq_build(seq, g->ids.data, g->pos, g->block, family, tok_specials(g->model.tok),
              g->prompt.data, g->prompt.count, NULL, 0, false);
    stats->prompt_tokens = seq->len;
    return glm_prefill(g->cache, g->logits, 0, g->ids.data, g->pos, g->block, seq->len, seq->ctx);
}

/* Give out what became final, to the caller's text and to on_text. */
static err_t emit(struct gen *g, struct buf *reply, int64_t *emitted, int64_t first, bool last,
                  gen_on_text on_text, void *user)
{
    const size_t before = reply->size;
    TRY(tok_decode_stream(g->model.tok, reply, emitted, g->ids.data + first, g->ids.count - first,
                          last));
    if (on_text == NULL || reply->size == before) return ERR_OK;
    return on_text(user, reply->data + before, (int64_t)(reply->size - before));
}

/* Positions of the next token: ChatGLM-6B freezes the first stream at the mask and counts in the second. */
static err_t decode_one(struct gen *g, const struct seq *seq, int32_t id)
{
    const int64_t row = g->ids.count - 1;
    const bool frozen = seq->ctx > 0;
    const int32_t slot = 0;
    const int32_t pos = frozen ? g->pos[seq->len - 1] : (int32_t)row;
    const int32_t block = frozen ? (int32_t)(row - seq->ctx + 1) : 0;
    return glm_decode(g->cache, g->logits, &slot, &id, &pos, &block, 1);
}

err_t gen_reply(struct gen *g, struct buf *reply, struct gen_stats *stats,
                const struct turn_text *turns, int64_t turn_count, uint64_t index,
                gen_on_text on_text, void *user)
{
    const int64_t vocab = min_i64(glm_config(g->model.glm)->vocab_size,
                                  tok_vocab_size(g->model.tok));
    const int32_t end = g->model.end_id;
    struct seq seq;
    int64_t emitted = 0;
    memset(stats, 0, sizeof *stats);
    stats->stop = GEN_STOP_LENGTH;

    const double begin_s = time_now_s();
    TRY(prefill(g, &seq, stats, turns, turn_count));
    stats->prefill_s = time_now_s() - begin_s;
    while (stats->new_tokens < g->new_tokens_max) {
        const int32_t id = sampler_choose(&g->sampler, &g->sampler_memory, g->logits, vocab,
                                          g->ids.data, g->ids.count, index,
                                          (uint64_t)stats->new_tokens);
        if (id == end) stats->stop = GEN_STOP_END;
        if (stop_requested()) stats->stop = GEN_STOP_REQUESTED;
        if (stats->stop != GEN_STOP_LENGTH) break;
        stats->new_tokens++;
        TRY(i32_buf_push(&g->ids, id));
        TRY(emit(g, reply, &emitted, seq.len, false, on_text, user));
        if (stats->new_tokens < g->new_tokens_max) TRY(decode_one(g, &seq, id));
    }
    TRY(emit(g, reply, &emitted, seq.len, true, on_text, user));
    stats->decode_s = time_now_s() - begin_s - stats->prefill_s;
    return ERR_OK;
}
