#include "eval/gen.h"

#include "base/check.h"
#include "base/log.h"
#include "base/num.h"
#include "base/progress.h"
#include "data/chat.h"
#include "data/seq.h"
#include "data/tok.h"
#include "eval/gen_model.h"
#include "eval/punct.h"
#include "eval/sampler.h"
#include "model/glm.h"

#include <stdlib.h>
#include <string.h>

/* One conversation. */
struct slot {
    struct gen_reply reply;
    struct i32_buf ids;   /* the prompt with its special tokens, then the reply */
    struct seq prompt;    /* its extents */
    int32_t last_pos;     /* of the prompt's last row */
    int64_t decoded;      /* bytes of text that left the tokenizer */
    struct punct punct;   /* on its way from there to the reply */
    float *logits;        /* of the last row, for the next token */
    int64_t invalid_rows; /* of logits that were not finite */
    uint64_t index;
    double begin_s;
    bool busy;
};

struct gen {
    struct gen_model model; /* device, network, tokenizer */
    struct glm_cache *cache;
    struct sampler sampler;
    struct sampler_memory sampler_memory;
    bool full_width;
    int64_t vocab;  /* tokens that the tokenizer knows */
    int64_t stride; /* floats of a row of logits */
    struct slot *slots;
    int64_t slot_count;
    float *prompt_logits, *step_logits;                     /* [slot_count, stride] */
    int32_t *pos, *block;                                   /* [rows of a prompt] */
    int32_t *step_slots, *step_ids, *step_pos, *step_block; /* [slot_count] */
    struct i32_buf prompt;
    struct buf text;
};

/* ---- open, close ---- */

static err_t allocate(void **out, int64_t count, int64_t bytes)
{
    int64_t total;
    *out = checked_mul(&total, count, bytes) ? malloc((size_t)total) : NULL;
    if (*out == NULL)
        RAISE(NOMEM, "generate: no memory for %lld times %lld bytes", (long long)count,
              (long long)bytes);
    return ERR_OK;
}

static err_t open_buffers(struct gen *g, int64_t slots)
{
    const int64_t row_bytes = g->stride * (int64_t)sizeof(float);
    TRY(allocate((void **)&g->slots, slots, sizeof *g->slots));
    memset(g->slots, 0, (size_t)slots * sizeof *g->slots);
    g->slot_count = slots;
    TRY(allocate((void **)&g->prompt_logits, slots, row_bytes));
    TRY(allocate((void **)&g->step_logits, slots, row_bytes));
    TRY(allocate((void **)&g->pos, g->model.prompt_rows, sizeof *g->pos));
    TRY(allocate((void **)&g->block, g->model.prompt_rows, sizeof *g->block));
    TRY(allocate((void **)&g->step_slots, 4 * slots, sizeof *g->step_slots));
    g->step_ids = g->step_slots + slots;
    g->step_pos = g->step_ids + slots;
    g->step_block = g->step_pos + slots;
    TRY(sampler_memory_init(&g->sampler_memory, g->vocab));
    return glm_cache_create(&g->cache, g->model.glm, slots,
                            g->model.prompt_rows + g->model.reply_tokens);
}

static err_t open_all(struct gen *g, const struct cfg *cfg, int64_t slots)
{
    TRY(gen_model_open(&g->model, cfg, slots));
    g->stride = glm_config(g->model.glm)->vocab_size;
    g->vocab = tok_vocab_size(g->model.tok);
    g->sampler = sampler_from_cfg(cfg, tok_specials(g->model.tok)->space);
    g->full_width =
        cfg_bool(cfg, "generate.full_width_punctuation") && tok_family(g->model.tok) == TOK_CHATGLM;
    return open_buffers(g, slots);
}

err_t gen_open(struct gen **out, const struct cfg *cfg, int64_t slots)
{
    ASSERT(slots > 0 && slots <= INT32_MAX);
    struct gen *g = calloc(1, sizeof *g);
    *out = NULL;
    if (g == NULL) RAISE(NOMEM, "generate: no memory for %zu bytes", sizeof *g);
    const err_t rc = open_all(g, cfg, slots);
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
    for (int64_t i = 0; i < g->slot_count; i++) {
        buf_clear(&g->slots[i].reply.text);
        i32_buf_clear(&g->slots[i].ids);
    }
    glm_cache_close(g->cache);
    sampler_memory_clear(&g->sampler_memory);
    i32_buf_clear(&g->prompt);
    buf_clear(&g->text);
    free(g->slots);
    free(g->prompt_logits);
    free(g->step_logits);
    free(g->pos);
    free(g->block);
    free(g->step_slots);
    gen_model_close(&g->model);
    free(g);
}

/* ---- a reply begins ---- */

/* A slot as it was, its memory kept. */
static void reset(struct slot *s)
{
    struct buf text = s->reply.text;
    struct i32_buf ids = s->ids;
    buf_reset(&text);
    i32_buf_reset(&ids);
    *s = (struct slot){ .reply.text = text, .ids = ids };
}

/* Lay out the prompt; positions are in g->pos and g->block. */
static err_t lay_out(struct gen *g, struct slot *s, const struct turn_text *turns,
                     int64_t turn_count)
{
    const enum tok_family family = tok_family(g->model.tok);
    const int64_t specials = seq_len(family, 0, 0, false);
    i32_buf_reset(&g->prompt);
    TRY(chat_prompt(&g->prompt, g->model.tok, &g->model.chat, turns, turn_count,
                    g->model.prompt_rows - specials, &s->reply.turns_dropped,
                    &s->reply.tokens_cut));
    for (int64_t i = 0; i < g->prompt.count + specials; i++) TRY(i32_buf_push(&s->ids, 0));
    seq_build(&s->prompt, s->ids.data, g->pos, g->block, family, tok_specials(g->model.tok),
              g->prompt.data, g->prompt.count, NULL, 0, false);
    s->last_pos = g->pos[s->prompt.len - 1];
    s->reply.prompt_tokens = s->prompt.len;
    return ERR_OK;
}

err_t gen_begin(struct gen *g, int64_t slot, const struct turn_text *turns, int64_t turn_count,
                uint64_t index)
{
    ASSERT(slot >= 0 && slot < g->slot_count && !g->slots[slot].busy);
    struct slot *s = &g->slots[slot];
    float *logits = g->prompt_logits + slot * g->stride;
    reset(s);
    s->begin_s = time_now_s();
    s->index = index;
    TRY(lay_out(g, s, turns, turn_count));
    TRY(glm_prefill(g->cache, logits, slot, s->ids.data, g->pos, g->block, s->prompt.len,
                    s->prompt.ctx));
    s->logits = logits;
    s->reply.prefill_s = time_now_s() - s->begin_s;
    s->busy = true;
    return ERR_OK;
}

/* ---- a reply grows ---- */

/* What became final goes to the reply. */
static err_t give_out(struct gen *g, struct slot *s, bool last)
{
    buf_reset(&g->text);
    TRY(tok_decode_stream(g->model.tok, &g->text, &s->decoded, s->ids.data + s->prompt.len,
                          s->ids.count - s->prompt.len, last));
    if (!g->full_width) return buf_append(&s->reply.text, g->text.data, g->text.size);
    TRY(punct_push(&s->punct, &s->reply.text, g->text.data, (int64_t)g->text.size));
    return last ? punct_end(&s->punct, &s->reply.text) : ERR_OK;
}

static err_t end_reply(struct gen *g, struct slot *s, enum gen_stop stop)
{
    s->busy = false;
    s->reply.stop = stop;
    s->reply.decode_s = time_now_s() - s->begin_s - s->reply.prefill_s;
    if (s->invalid_rows > 0)
        LOG_W("generate",
              "reply %llu: the network gave values that are not finite for %lld of its "
              "tokens; spaces stand in their place",
              (unsigned long long)s->index, (long long)s->invalid_rows);
    return give_out(g, s, true);
}

/* The next token of a busy slot, which it may end. */
static err_t choose(struct gen *g, struct slot *s)
{
    const int64_t invalid_rows = g->sampler_memory.invalid_rows;
    const int32_t id =
        sampler_choose(&g->sampler, &g->sampler_memory, s->logits, g->vocab, s->ids.data,
                       s->ids.count, s->index, (uint64_t)s->reply.new_tokens);
    s->invalid_rows += g->sampler_memory.invalid_rows - invalid_rows;
    if (id == g->model.end_id) return end_reply(g, s, GEN_STOP_END);
    TRY(i32_buf_push(&s->ids, id));
    s->reply.new_tokens++;
    if (s->reply.new_tokens == g->model.reply_tokens) return end_reply(g, s, GEN_STOP_LENGTH);
    return give_out(g, s, false);
}

/* Queue a slot's newest token. Its positions: ChatGLM-6B keeps the first stream where the prompt
 * left it, at the mask, and goes on counting in the second, where <sop> has 1; a causal model
 * counts rows. */
static void queue(struct gen *g, int64_t at, int64_t slot)
{
    const struct slot *s = &g->slots[slot];
    const int64_t row = s->ids.count - 1;
    const bool frozen = s->prompt.ctx > 0;
    g->step_slots[at] = (int32_t)slot;
    g->step_ids[at] = s->ids.data[row];
    g->step_pos[at] = frozen ? s->last_pos : (int32_t)row;
    g->step_block[at] = frozen ? (int32_t)(row - s->prompt.ctx + 1) : 0;
}

err_t gen_step(struct gen *g)
{
    int64_t count = 0;
    for (int64_t i = 0; i < g->slot_count; i++) {
        if (!g->slots[i].busy) continue;
        TRY(choose(g, &g->slots[i]));
        if (g->slots[i].busy) queue(g, count++, i);
    }
    if (count == 0) return ERR_OK;
    TRY(glm_decode(g->cache, g->step_logits, g->step_slots, g->step_ids, g->step_pos, g->step_block,
                   count));
    for (int64_t i = 0; i < count; i++)
        g->slots[g->step_slots[i]].logits = g->step_logits + i * g->stride;
    return ERR_OK;
}

err_t gen_stop(struct gen *g, int64_t slot)
{
    ASSERT(gen_is_busy(g, slot));
    return end_reply(g, &g->slots[slot], GEN_STOP_REQUESTED);
}

/* ---- what there is ---- */

bool gen_is_busy(const struct gen *g, int64_t slot)
{
    ASSERT(slot >= 0 && slot < g->slot_count);
    return g->slots[slot].busy;
}

const struct gen_reply *gen_reply(const struct gen *g, int64_t slot)
{
    ASSERT(slot >= 0 && slot < g->slot_count);
    return &g->slots[slot].reply;
}

const struct chat_template *gen_names(const struct gen *g) { return &g->model.chat; }

const char *gen_stop_name(enum gen_stop stop)
{
    static const char *const names[] = { "end", "length", "requested" };
    ASSERT((int64_t)stop < COUNT_OF(names));
    return names[stop];
}
