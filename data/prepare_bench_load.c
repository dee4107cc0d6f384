/* What training does with a prepared corpus: open it, read it in random order, load an epoch. */
#include "data/prepare_bench_parts.h"

#include "base/num.h"
#include "base/rng.h"
#include "data/batch.h"
#include "data/loader.h"
#include "data/report_stats.h"

#include <stdlib.h>

#define RANDOM_SAMPLES 20000
#define SEED           42

/* A corpus opened as training does it. */
struct opened {
    struct shards *shards;
    struct sample_set *set;
    struct batcher *batcher;
    struct micro_batch micro;
};

static err_t open_corpus(struct opened *c, const char *dir)
{
    const int64_t pack = REPORT_LIMITS.pack_len;
    const struct batch_spec spec = { .unit = BATCH_TOKENS,
                                     .size = 8 * pack,
                                     .lanes = 1,
                                     .micro_tokens = 8 * pack,
                                     .pack_len = pack,
                                     .seed = SEED };
    struct step_plan plan;
    TRY(shards_open(&c->shards, dir, false));
    TRY(sample_set_open(&c->set, c->shards, SPLIT_TRAIN, &REPORT_LIMITS.sample));
    TRY(batcher_open(&c->batcher, c->set, &spec));
    TRY(batcher_plan(c->batcher, &plan, 0));
    return batcher_fill(c->batcher, &c->micro, 0, 0);
}

static void close_corpus(struct opened *c)
{
    micro_batch_clear(&c->micro);
    batcher_close(c->batcher);
    sample_set_close(c->set);
    shards_close(c->shards);
}

static err_t read_random(struct bench *b, const struct opened *c)
{
    err_t rc = ERR_OK;
    struct seq seq;
    const int64_t count = sample_set_count(c->set), rows = REPORT_LIMITS.pack_len;
    int32_t *room = malloc((size_t)(3 * rows) * sizeof *room);
    if (room == NULL) RAISE(NOMEM, "a sample");
    b->out->random_samples = min_i64(count, RANDOM_SAMPLES);
    for (int64_t i = 0; i < b->out->random_samples; i++)
        TRY_DONE(sample_fill(c->set, rng_permute(SEED, RNG_SHUFFLE, i, count), &seq, room,
                             room + rows, room + 2 * rows));
done:
    free(room);
    return rc;
}

static err_t take_all(struct bench *b, struct batcher *batcher)
{
    err_t rc = ERR_OK;
    struct loader *loader;
    const struct step_plan *plan;
    const struct loaded *got;
    const struct loader_spec spec = { .step_end = batcher_steps_per_epoch(batcher),
                                      .lane_end = 1,
                                      .ahead = 4 };
    TRY(loader_open(&loader, batcher, &spec));
    for (int64_t step = 0; step < spec.step_end; step++) {
        TRY_DONE(prepare_check_stop(b->options));
        TRY_DONE(loader_plan(loader, &plan));
        b->out->load_rows += plan->rows;
        for (int64_t left = loader_left(loader); left > 0; left--) {
            TRY_DONE(loader_take(loader, &got));
            loader_give_back(loader);
        }
    }
    b->out->load_waited_s = loader_waited_s(loader);
done:
    loader_close(loader);
    return rc;
}

err_t bench_run_load(struct bench *b, const char *dir)
{
    err_t rc = ERR_OK;
    struct opened c = { 0 };
    bench_begin(b);
    TRY_DONE(open_corpus(&c, dir));
    bench_end(b, BENCH_FIRST);
    bench_begin(b);
    TRY_DONE(read_random(b, &c));
    bench_end(b, BENCH_RANDOM);
    bench_begin(b);
    TRY_DONE(take_all(b, c.batcher));
    bench_end(b, BENCH_LOAD);
done:
    close_corpus(&c);
    return rc;
}
