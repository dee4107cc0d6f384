#include "train/bench_packs.h"

#include "base/check.h"
#include "base/num.h"
#include "data/batch.h"
#include "data/batch_spec.h"
#include "data/settings_batch.h"
#include "train/bench_batch.h"
#include "train/feed.h"

#include <stdlib.h>
#include <string.h>

static err_t allocate(struct bench_packs *p, int64_t steps, int64_t micro_count, int64_t vocab)
{
    *p = (struct bench_packs){ .vocab_size = vocab, .steps = steps, .micro_count = micro_count };
    p->step_first = calloc((size_t)steps + 1, sizeof *p->step_first);
    p->micro = calloc((size_t)max_i64(micro_count, 1), sizeof *p->micro);
    if (p->step_first == NULL || p->micro == NULL)
        RAISE(NOMEM, "benchmark: no memory for %lld micro-batches", (long long)micro_count);
    return ERR_OK;
}

void bench_packs_clear(struct bench_packs *p)
{
    for (int64_t i = 0; p->micro != NULL && i < p->micro_count; i++)
        bench_batch_clear(&p->micro[i]);
    free(p->micro);
    free(p->step_first);
    *p = (struct bench_packs){ 0 };
}

struct bench_bounds bench_packs_bounds(const struct bench_packs *p)
{
    struct bench_bounds most = { 0, 0, 0 };
    for (int64_t i = 0; i < p->micro_count; i++) {
        most.rows = max_i64(most.rows, p->micro[i].rows);
        most.segments = max_i64(most.segments, p->micro[i].segment_count);
        most.targets = max_i64(most.targets, p->micro[i].target_count);
    }
    return most;
}

/* ---- from the formula ---- */

static err_t fill_formula(struct bench_packs *p, int64_t micro, int64_t rows)
{
    for (int64_t s = 0; s <= p->steps; s++) p->step_first[s] = (int32_t)(s * micro);
    for (int64_t i = 0; i < p->micro_count; i++) {
        TRY(bench_batch_create(&p->micro[i], rows, p->vocab_size));
        float *weights = (float *)(uintptr_t)p->micro[i].weights; /* not given out yet */
        for (int64_t t = 0; t < p->micro[i].target_count; t++) weights[t] /= (float)micro;
    }
    return ERR_OK;
}

err_t bench_packs_formula(struct bench_packs *out, int64_t steps, int64_t micro, int64_t rows,
                          int64_t vocab_size)
{
    err_t rc = allocate(out, steps, steps * micro, vocab_size);
    if (rc == ERR_OK) rc = fill_formula(out, micro, rows);
    if (rc != ERR_OK) bench_packs_clear(out);
    return rc;
}

/* ---- from a corpus ---- */

struct packs_corpus {
    struct shards *shards;
    struct sample_set *set;
    struct batch_spec spec;
    struct batcher *batcher;
    struct micro_batch micro;
};

static err_t packs_corpus_open(struct packs_corpus *c, const struct cfg *cfg, const char *dir)
{
    struct sample_limits limits;
    sample_limits_from_cfg(&limits, cfg);
    TRY(shards_open(&c->shards, dir, true));
    TRY(sample_set_open(&c->set, c->shards, SPLIT_TRAIN, &limits));
    TRY(batch_spec_from_cfg(&c->spec, cfg));
    c->spec.lanes = 1;
    TRY(batcher_open(&c->batcher, c->set, &c->spec));
    return ERR_OK;
}

static void packs_corpus_close(struct packs_corpus *c)
{
    micro_batch_clear(&c->micro);
    batcher_close(c->batcher);
    sample_set_close(c->set);
    shards_close(c->shards);
}

static err_t copied(void *out, const void *from, int64_t bytes)
{
    void *copy = malloc((size_t)max_i64(bytes, 1));
    if (copy == NULL) RAISE(NOMEM, "benchmark: no memory for %lld bytes", (long long)bytes);
    memcpy(copy, from, (size_t)bytes);
    memcpy(out, &copy, sizeof copy);
    return ERR_OK;
}

static err_t copy_micro(struct glm_batch *out, const struct micro_batch *m)
{
    const struct glm_batch from = glm_batch_from_micro(m);
    const int64_t rows = from.rows * 4, targets = from.target_count * 4;
    out->rows = from.rows;
    out->segment_count = from.segment_count;
    out->target_count = from.target_count;
    TRY(copied(&out->ids, from.ids, rows));
    TRY(copied(&out->pos, from.pos, rows));
    TRY(copied(&out->block, from.block, rows));
    TRY(copied(&out->order, from.order, rows));
    TRY(copied(&out->segments, from.segments, from.segment_count * (int64_t)sizeof *from.segments));
    TRY(copied(&out->target_rows, from.target_rows, targets));
    TRY(copied(&out->labels, from.labels, targets));
    return copied(&out->weights, from.weights, targets);
}

/* Micro-batches of one step are appended. */
static err_t append_step(struct bench_packs *p, struct packs_corpus *c, int64_t step)
{
    struct step_plan plan;
    TRY(batcher_plan(c->batcher, &plan, step));
    const int64_t count = p->micro_count + plan.micro_count[0];
    struct glm_batch *grown = realloc(p->micro, (size_t)count * sizeof *grown);
    if (grown == NULL)
        RAISE(NOMEM, "benchmark: no memory for %lld micro-batches", (long long)count);
    p->micro = grown;
    memset(grown + p->micro_count, 0, (size_t)plan.micro_count[0] * sizeof *grown);
    for (int64_t m = 0; m < plan.micro_count[0]; m++) {
        TRY(batcher_fill(c->batcher, &c->micro, 0, m));
        TRY(copy_micro(&p->micro[p->micro_count++], &c->micro));
    }
    p->step_first[step + 1] = (int32_t)p->micro_count;
    return ERR_OK;
}

err_t bench_packs_corpus(struct bench_packs *out, const struct cfg *cfg, const char *dir,
                         int64_t steps)
{
    err_t rc = ERR_OK;
    struct packs_corpus corpus = { 0 };
    *out = (struct bench_packs){ 0 };
    TRY_DONE(packs_corpus_open(&corpus, cfg, dir));
    TRY_DONE(allocate(out, steps, 0, shards_info(corpus.shards)->vocab_size));
    for (int64_t s = 0; s < steps; s++) TRY_DONE(append_step(out, &corpus, s));
done:
    packs_corpus_close(&corpus);
    if (rc != ERR_OK) bench_packs_clear(out);
    return rc;
}
