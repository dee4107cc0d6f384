/* loader.h: the same micro-batches in the same order as without a thread, errors where they belong,
 * and an end at any moment. */
#include "testing.h"

#include "base/check.h"
#include "data/batch_source.h"
#include "data/loader.h"

#include <stdatomic.h>
#include <string.h>
#include <time.h>

#define SAMPLES 200

struct fake {
    int32_t len[SAMPLES], target_count[SAMPLES];
    int64_t bad;         /* this sample cannot be read; -1 = none */
    atomic_int in_fill;  /* fills going on now */
    atomic_llong filled; /* and so far */
};

static err_t fake_fill(void *self, int64_t index, struct seq *seq, int32_t *ids, int32_t *pos,
                       int32_t *block)
{
    struct fake *f = self;
    if (index == f->bad) RAISE(CHECKSUM, "sample %lld is damaged", (long long)index);
    atomic_fetch_add(&f->in_fill, 1);
    const int32_t len = f->len[index], targets = f->target_count[index];
    *seq = (struct seq){
        .len = len, .ctx = len - targets, .target_first = len - targets - 1, .target_count = targets
    };
    for (int64_t r = 0; r < len; r++) {
        ids[r] = (int32_t)((index * 31 + r * 7) % 97);
        pos[r] = (int32_t)r;
        block[r] = (int32_t)index;
    }
    atomic_fetch_add(&f->filled, 1);
    atomic_fetch_sub(&f->in_fill, 1);
    return ERR_OK;
}

static void fake_init(struct fake *f)
{
    memset(f, 0, sizeof *f);
    f->bad = -1;
    for (int64_t i = 0; i < SAMPLES; i++) {
        f->len[i] = (int32_t)(8 + i * 37 % 90);
        f->target_count[i] = (int32_t)(1 + i % 6);
    }
}

static struct batcher *open_batcher(struct fake *f, enum batch_unit unit, int64_t lanes)
{
    struct batcher *b = NULL;
    const struct batch_source source = { .self = f,
                                         .count = SAMPLES,
                                         .len = f->len,
                                         .target_count = f->target_count,
                                         .fill = fake_fill };
    const struct batch_spec spec = { .unit = unit,
                                     .size = unit == BATCH_TOKENS ? 768 : 24,
                                     .lanes = lanes,
                                     .micro_tokens = 256,
                                     .pack_len = 128,
                                     .seed = 7 };
    assert_ok(batcher_open_source(&b, &source, &spec));
    return b;
}

static void check_equal(const struct micro_batch *a, const struct micro_batch *b)
{
    const size_t rows = (size_t)a->rows * 4, targets = (size_t)a->target_count * 4;
    assert_int_equal(a->rows, b->rows);
    assert_int_equal(a->segment_count, b->segment_count);
    assert_int_equal(a->target_count, b->target_count);
    assert_memory_equal(a->ids, b->ids, rows);
    assert_memory_equal(a->pos, b->pos, rows);
    assert_memory_equal(a->block, b->block, rows);
    assert_memory_equal(a->order, b->order, rows);
    assert_memory_equal(a->segments, b->segments, (size_t)a->segment_count * 12);
    assert_memory_equal(a->samples, b->samples, (size_t)a->segment_count * 8);
    assert_memory_equal(a->stream, b->stream, (size_t)a->segment_count * 8);
    assert_memory_equal(a->target_rows, b->target_rows, targets);
    assert_memory_equal(a->labels, b->labels, targets);
    assert_memory_equal(a->weights, b->weights, targets);
    assert_memory_equal(a->target_segment, b->target_segment, targets);
}

static void check_plan(const struct step_plan *a, const struct step_plan *b, int64_t lanes)
{
    assert_int_equal(a->step, b->step);
    assert_int_equal(a->sample_count, b->sample_count);
    assert_int_equal(a->trained_tokens, b->trained_tokens);
    assert_int_equal(a->rows_padded, b->rows_padded);
    assert_memory_equal(a->micro_count, b->micro_count, (size_t)lanes * 8);
}

/* Take everything, `held` at a time, and compare with a batcher that has no thread; returns how
 * many steps had nothing in these lanes. */
static int64_t check_run(enum batch_unit unit, int64_t lanes, const struct loader_spec *spec)
{
    struct fake f;
    struct loader *l;
    const struct step_plan *got_plan;
    const struct loaded *got[8];
    struct micro_batch want = { 0 };
    struct step_plan plan;
    int64_t taken = 0, back = 0, empty = 0;
    fake_init(&f);
    struct batcher *mine = open_batcher(&f, unit, lanes), *its = open_batcher(&f, unit, lanes);
    assert_ok(loader_open(&l, its, spec));
    for (int64_t step = spec->step_first; step < spec->step_end; step++) {
        const int64_t before = taken;
        assert_ok(batcher_plan(mine, &plan, step));
        assert_ok(loader_plan(l, &got_plan));
        check_plan(got_plan, &plan, lanes);
        const int64_t expected = loader_left(l);
        for (int64_t lane = spec->lane_first; lane < spec->lane_end; lane++)
            for (int64_t i = 0; i < plan.micro_count[lane]; i++) {
                if (taken - back == spec->held) {
                    loader_give_back(l);
                    back++;
                }
                assert_ok(loader_take(l, &got[taken % 8]));
                const struct loaded *g = got[taken++ % 8];
                assert_int_equal(g->lane, lane);
                assert_int_equal(g->index, i);
                assert_ok(batcher_fill(mine, &want, lane, i));
                check_equal(&g->micro, &want);
                if (taken - back > 1) /* what was taken before is still as it was */
                    assert_int_not_equal(got[(taken - 2) % 8]->micro.rows, 0);
            }
        assert_int_equal(taken - before, expected);
        assert_int_equal(loader_left(l), 0);
        empty += taken == before;
        for (; back < taken; back++) loader_give_back(l);
        check_plan(got_plan, &plan, lanes); /* whatever was filled since */
    }
    for (int i = 0; i < 2; i++) {
        assert_ok(loader_plan(l, &got_plan));
        assert_null(got_plan);
    }
    assert_true(loader_waited_s(l) >= 0.0);
    loader_close(l);
    micro_batch_clear(&want);
    batcher_close(mine);
    batcher_close(its);
    return empty;
}

static void test_same_as_without(void **state)
{
    (void)state;
    const int64_t held[] = { 1, 2, 3 }, ahead[] = { 1, 2, 7 };
    for (int64_t i = 0; i < COUNT_OF(held) * COUNT_OF(ahead); i++) {
        const struct loader_spec all = { .step_first = 0,
                                         .step_end = 30,
                                         .lane_end = 3,
                                         .ahead = ahead[i % 3],
                                         .held = held[i / 3] };
        struct loader_spec part = all, last = all;
        part.step_first = 5;
        part.step_end = 12;
        part.lane_first = 1;
        part.lane_end = 2;
        part.lane_count = 3;
        last.lane_first = 5;
        last.lane_end = 6;
        assert_int_equal(check_run(BATCH_TOKENS, 3, &all), 0);
        assert_int_equal(check_run(BATCH_SAMPLES, 3, &all), 0);
        assert_int_equal(check_run(BATCH_SAMPLES, 3, &part), 0);
        /* An epoch's last step has no sixth pack. */
        assert_true(check_run(BATCH_TOKENS, 6, &last) > 0);
    }
}

/* The next micro-batch, of whatever step. */
static err_t take_next(struct loader *l, const struct loaded **got, int64_t *left)
{
    const struct step_plan *plan;
    *got = NULL;
    if (*left == 0) {
        TRY(loader_plan(l, &plan));
        *left = plan->micro_count[0];
    }
    TRY(loader_take(l, got));
    --*left;
    return ERR_OK;
}

/* Everything before the damaged sample arrives, then the error with its own words, every time. */
static void test_error_is_handed_over(void **state)
{
    (void)state;
    struct fake f;
    struct loader *l;
    const struct loaded *got;
    int64_t left = 0;
    struct micro_batch m = { 0 };
    struct step_plan plan;
    int64_t before = 0;
    const struct loader_spec spec = { .step_end = 9, .lane_end = 1, .ahead = 3 };
    fake_init(&f);
    f.bad = 77;
    struct batcher *b = open_batcher(&f, BATCH_SAMPLES, 1);
    for (int64_t step = 0, rc = ERR_OK; rc == ERR_OK; step++) {
        assert_ok(batcher_plan(b, &plan, step));
        for (int64_t i = 0; i < plan.micro_count[0] && rc == ERR_OK; i++) {
            rc = batcher_fill(b, &m, 0, i);
            before += rc == ERR_OK;
        }
    }
    assert_true(before > 0);
    assert_ok(loader_open(&l, b, &spec));
    for (int64_t i = 0; i < before; i++) {
        assert_ok(take_next(l, &got, &left));
        loader_give_back(l);
    }
    for (int i = 0; i < 2; i++) {
        assert_err(take_next(l, &got, &left), CHECKSUM, "sample 77 is damaged");
        assert_null(got);
    }
    loader_close(l);
    micro_batch_clear(&m);
    batcher_close(b);
}

static void test_bounded(void **state)
{
    (void)state;
    struct fake f;
    struct loader *l;
    const struct loaded *got;
    int64_t left = 0;
    const struct timespec moment = { .tv_nsec = 20000000 };
    const struct loader_spec spec = { .step_end = 1000, .lane_end = 1, .ahead = 2 };
    fake_init(&f);
    struct batcher *b = open_batcher(&f, BATCH_TOKENS, 1);
    assert_ok(loader_open(&l, b, &spec));
    assert_ok(take_next(l, &got, &left));
    nanosleep(&moment, NULL);
    /* One taken, two ahead, and none begun beyond: far from a thousand steps. */
    assert_true(atomic_load(&f.filled) < SAMPLES);
    loader_close(l); /* with one still taken */
    batcher_close(b);
}

/* While it is paused the thread touches nothing. */
static void test_pause(void **state)
{
    (void)state;
    struct fake f;
    struct loader *l;
    const struct loaded *got;
    int64_t left = 0;
    const struct timespec moment = { .tv_nsec = 5000000 };
    const struct loader_spec spec = { .step_end = 1000, .lane_end = 1, .ahead = 64 };
    fake_init(&f);
    struct batcher *b = open_batcher(&f, BATCH_TOKENS, 1);
    assert_ok(loader_open(&l, b, &spec));
    for (int i = 0; i < 20; i++) {
        assert_ok(take_next(l, &got, &left));
        loader_give_back(l);
        loader_pause(l);
        const long long filled = atomic_load(&f.filled);
        assert_int_equal(atomic_load(&f.in_fill), 0);
        nanosleep(&moment, NULL);
        assert_int_equal(atomic_load(&f.filled), filled);
        loader_resume(l);
    }
    loader_pause(l);
    loader_close(l);
    batcher_close(b);
}

static void test_wrong_specs(void **state)
{
    (void)state;
    struct loader *l;
    const struct loader_spec wrong[] = {
        { .step_first = 3, .step_end = 2, .lane_end = 1, .ahead = 1 },
        { .step_end = 2, .lane_end = 0, .ahead = 1 },
        { .step_end = 2, .lane_end = 3, .lane_count = 2, .ahead = 1 },
        { .step_end = 2, .lane_end = 1, .ahead = 0 },
        { .step_end = 2, .lane_end = 1, .ahead = 1, .held = LOADER_SLOTS_MAX },
        { .step_end = 2, .lane_end = 1, .ahead = INT64_MAX, .held = INT64_MAX },
    };
    for (int64_t i = 0; i < COUNT_OF(wrong); i++) {
        assert_err(loader_open(&l, NULL, &wrong[i]), ARG, "loader");
        assert_null(l);
    }
    loader_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_as_without), cmocka_unit_test(test_error_is_handed_over),
        cmocka_unit_test(test_bounded),         cmocka_unit_test(test_pause),
        cmocka_unit_test(test_wrong_specs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
