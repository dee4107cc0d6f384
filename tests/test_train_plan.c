/* The search for the smallest change: on cards that are built so that one is known. */
#include "plan_fixture.h"

#include "base/check.h"

#include <stdio.h>
#include <string.h>

static int64_t bytes_of(const struct plan *plan)
{
    struct plan p = *plan;
    assert_ok(plan_compute(&p));
    return p.memory.device_bytes;
}

/* The changes as one text, in the order in which they are printed. */
static const char *changes_text(const struct plan *from, const struct plan *to)
{
    static char text[PLAN_CHANGES_MAX * PLAN_CHANGE_MAX];
    char changes[PLAN_CHANGES_MAX][PLAN_CHANGE_MAX];
    const int64_t count = plan_changes(changes, from, to);
    text[0] = '\0';
    for (int64_t i = 0; i < count; i++) {
        if (i > 0) strcat(text, " ");
        strcat(text, changes[i]);
    }
    return text;
}

/* Search on a card of `bytes`. */
static bool search(struct plan *better, struct plan *base, int64_t bytes)
{
    bool found;
    base->card.memory_bytes = bytes;
    assert_ok(plan_compute(base));
    assert_false(base->fits);
    assert_ok(plan_search(better, &found, base));
    if (found) {
        assert_true(better->fits);
        assert_true(better->memory.device_bytes <= bytes);
    }
    return found;
}

/* A card that is exactly as large as one change needs gets that change and no other. */
static void test_single_changes(void **state)
{
    (void)state;
    struct plan_dev device;
    struct plan base = plan_make(&device, "h200"), changed, better;

    changed = base;
    changed.settings.activations = GLM_LEAN;
    const int64_t lean = bytes_of(&changed);
    assert_true(search(&better, &base, lean));
    assert_string_equal(changes_text(&base, &better), "--train.activations=lean");

    /* A byte less: half the micro-batch with everything kept takes less than lean does. */
    assert_true(search(&better, &base, lean - 1));
    assert_int_equal(better.settings.activations, GLM_KEEP_ALL);
    assert_true(better.batch.micro_tokens < 16384 && better.batch.micro_tokens % 128 == 0);
    changed = base;
    changed.batch.micro_tokens = better.batch.micro_tokens + 128; /* it is the largest */
    assert_true(bytes_of(&changed) > lean - 1);
}

/* Settings whose milder neighbours are used up already. */
static void test_each_rung(void **state)
{
    (void)state;
    struct plan_dev device;
    struct plan base = plan_make(&device, "h200"), better, wanted;
    base.batch.micro_tokens = 2048; /* the longest sample: cannot shrink */
    base.settings.activations = GLM_LEAN;

    wanted = base;
    wanted.settings.grad_dtype = DTYPE_BF16;
    assert_true(search(&better, &base, bytes_of(&wanted)));
    assert_string_equal(changes_text(&base, &better), "--train.grad_dtype=bf16");

    base = wanted;
    wanted.settings.activations = GLM_RECOMPUTE;
    assert_true(search(&better, &base, bytes_of(&wanted)));
    assert_string_equal(changes_text(&base, &better), "--train.activations=recompute");

    base = wanted;
    wanted.settings.master = false;
    assert_true(search(&better, &base, bytes_of(&wanted)));
    assert_string_equal(changes_text(&base, &better), "--train.master=off");

    base = wanted;
    wanted.settings.moments_8bit = true;
    assert_true(search(&better, &base, bytes_of(&wanted)));
    assert_string_equal(changes_text(&base, &better), "--train.moments=8bit");

    base = wanted;
    wanted.settings.state_on_host = true;
    assert_true(search(&better, &base, bytes_of(&wanted)));
    assert_string_equal(changes_text(&base, &better), "--train.moments_place=host");

    base = wanted;
    wanted.settings.update_in_backward = true;
    wanted.batch.unit = BATCH_TOKENS;
    wanted.batch.size = 2048;
    assert_true(search(&better, &base, bytes_of(&wanted)));
    assert_string_equal(changes_text(&base, &better),
                        "--batch.unit=tokens --batch.size=2048 --train.update=backward "
                        "--train.clip_norm_from=previous");

    base = wanted; /* nothing is left */
    assert_false(search(&better, &base, bytes_of(&base) - 1));
}

/* 8-bit moments take no master: both changes come together. */
static void test_combination(void **state)
{
    (void)state;
    struct plan_dev device;
    struct plan base = plan_make(&device, "a100-80gb"), better, wanted;
    base.batch.micro_tokens = 2048;
    base.settings.activations = GLM_RECOMPUTE;
    base.settings.grad_dtype = DTYPE_BF16;
    wanted = base;
    wanted.settings.master = false;
    wanted.settings.moments_8bit = true;
    assert_true(search(&better, &base, bytes_of(&wanted)));
    assert_string_equal(changes_text(&base, &better), "--train.master=off --train.moments=8bit");
}

static void test_precision(void **state)
{
    (void)state;
    struct plan_dev device;
    struct plan base = plan_make(&device, "h200"), better;
    base.settings.dtype = DTYPE_F32;
    base.settings.master = false;
    base.settings.activations = GLM_LEAN;
    base.batch.micro_tokens = 2048;
    struct plan wanted = base;
    wanted.settings.dtype = DTYPE_BF16;
    wanted.settings.master = true;
    /* A master costs what narrow weights save; activations are halved. */
    const int64_t bytes = bytes_of(&wanted);
    assert_true(bytes_of(&base) > bytes - (INT64_C(13) << 30));
    if (bytes < bytes_of(&base)) {
        assert_true(search(&better, &base, bytes));
        assert_string_equal(changes_text(&base, &better),
                            "--train.precision=bf16 --train.master=on");
    }
    /* A processor computes in float32: nothing about precision is offered. */
    base.card.capability = base.dev->info.capability = 0;
    base.card.rates.gemm_bf16 = 0;
    assert_true(search(&better, &base, bytes_of(&base) - (INT64_C(20) << 30)));
    assert_int_equal(better.settings.dtype, DTYPE_F32);
    assert_false(better.settings.state_on_host);
}

/* Cards of every size: what is found fits, and smaller cards never get milder changes. */
static void test_all_sizes(void **state)
{
    (void)state;
    struct plan_dev device;
    int strongest = 0, found_count = 0;
    for (int64_t gb = 170; gb > 4; gb -= 3) {
        struct plan base = plan_make(&device, "rtx4090"), better;
        if (!search(&better, &base, gb * 1000000000)) break;
        const struct cost_settings *s = &better.settings;
        const int rung = s->update_in_backward ? 7
                         : s->state_on_host    ? 6
                         : s->moments_8bit     ? 5
                         : !s->master          ? 4
                                               : 0;
        assert_true(rung >= strongest);
        strongest = rung;
        found_count++;
        assert_true(better.batch.micro_tokens >= 2048 && better.batch.micro_tokens <= 16384);
        if (s->update_in_backward) {
            assert_int_equal(better.batch.size, better.batch.micro_tokens);
            assert_int_equal(better.batch.size % better.batch.pack_len, 0);
        }
    }
    assert_int_equal(strongest, 7);
    assert_true(found_count > 48); /* down to some 18 GB */
}

/* What must stay free is not used. */
static void test_spare(void **state)
{
    (void)state;
    struct plan_dev device;
    struct plan p = plan_make(&device, "h200");
    p.card.memory_bytes = bytes_of(&p);
    assert_ok(plan_compute(&p));
    assert_true(p.fits);
    assert_int_equal(plan_budget(&p), p.card.memory_bytes);
    p.spare = 0.01;
    assert_ok(plan_compute(&p));
    assert_false(p.fits);
}

static void test_micro_max(void **state)
{
    (void)state;
    struct plan_dev device;
    struct plan p = plan_make(&device, "h200");
    int64_t micro;
    p.settings.activations = GLM_LEAN;
    assert_ok(plan_compute(&p));
    assert_ok(plan_micro_max(&micro, &p));
    assert_true(micro > 2048 && micro < 24800); /* not the whole step */
    p.batch.micro_tokens = micro;
    assert_ok(plan_compute(&p));
    assert_true(p.fits);
    p.batch.micro_tokens = micro + 128;
    assert_ok(plan_compute(&p));
    assert_false(p.fits);

    p.card.memory_bytes = INT64_C(1) << 40; /* room for a whole step */
    assert_ok(plan_micro_max(&micro, &p));
    assert_in_range(micro, 80 * 310, 80 * 310 + 256);
    p.card.memory_bytes = 1 << 20;
    assert_ok(plan_micro_max(&micro, &p));
    assert_int_equal(micro, 0);
}

/* Steps: 80 samples of 310 rows; packs; lanes. */
static void test_steps(void **state)
{
    (void)state;
    struct plan_dev device;
    struct plan p = plan_make(&device, "h200");
    plan_step(&p);
    assert_true(p.work.rows == 24800 && p.work.targets == 4320 && p.work.micro_batches == 2);
    assert_true(p.work.pairs == 80 * cost_pairs(256, 54));
    assert_int_equal(p.bounds.rows, 16384);
    p.batch.lanes = 4;
    plan_step(&p);
    assert_true(p.work.micro_batches == 4);
    /* Of 4 lanes two have one sample more, and both may be on one rank of two. */
    p.batch.size = 82;
    p.settings.ranks = 2;
    plan_step(&p);
    assert_true(p.rank_work.rows == 42 * 310);
    p.settings.ranks = 4;
    plan_step(&p);
    assert_true(p.rank_work.rows == 21 * 310);
    p.settings.ranks = 1;
    p.batch = (struct batch_spec){
        .unit = BATCH_TOKENS, .size = 65536, .lanes = 1, .micro_tokens = 16384, .pack_len = 2048
    };
    p.text.fill = 0.5;
    plan_step(&p);
    assert_true(p.work.rows == 32768 && p.work.rows_padded == 65536);
    assert_true(p.work.micro_batches == 4);
}

/* Bounds of a corpus hold for its micro_tokens and grow with others. */
static void test_bounds(void **state)
{
    (void)state;
    struct plan_dev device;
    struct plan p = plan_make(&device, "h200");
    p.text.bounds = (struct batch_bounds){ .rows = 16384, .segments = 200, .targets = 5000 };
    p.text.micro_tokens = 16384;
    plan_step(&p);
    assert_int_equal(p.bounds.targets, 5000);
    p.batch.micro_tokens = 8192;
    plan_step(&p);
    assert_int_equal(p.bounds.rows, 8192);
    assert_int_equal(p.bounds.segments, 100);
    assert_int_equal(p.bounds.targets, 2500);
    p.text.bounds.rows = 5120; /* the largest step: it does not grow with micro_tokens */
    p.batch.micro_tokens = 32768;
    plan_step(&p);
    assert_int_equal(p.bounds.rows, 5120);
}

static void test_backward_of_two(void **state)
{
    (void)state;
    struct plan_dev device;
    struct plan p = plan_make(&device, "h200");
    p.settings.update_in_backward = true;
    assert_err(plan_compute(&p), USAGE, "batch.size");
    p.batch.size = 40;
    assert_ok(plan_compute(&p));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_single_changes), cmocka_unit_test(test_each_rung),
        cmocka_unit_test(test_combination),    cmocka_unit_test(test_precision),
        cmocka_unit_test(test_all_sizes),      cmocka_unit_test(test_spare),
        cmocka_unit_test(test_micro_max),      cmocka_unit_test(test_steps),
        cmocka_unit_test(test_bounds),         cmocka_unit_test(test_backward_of_two),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
