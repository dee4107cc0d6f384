/* sched.h: every schedule against values worked out by hand from the formulas of its header. */
#include "testing.h"

#include "train/sched.h"

#include <math.h>

static struct sched soulchat(enum sched_kind kind, bool warmup_log)
{
    return (struct sched){ kind, warmup_log, 5e-5, 0.0, 1000, 30000 };
}

static void assert_rate(const struct sched *s, int64_t update, double expected)
{
    const double got = sched_lr(s, update);
    if (fabs(got - expected) > 1e-12 * fmax(1e-5, fabs(expected)))
        fail_msg("update %lld: rate %.17g, expected %.17g", (long long)update, got, expected);
}

/* The engine of that version steps the optimizer first: update 0 at the full rate, then t = k-1. */
static void test_deepspeed_0_9_0(void **state)
{
    (void)state;
    const struct sched s = soulchat(SCHED_DEEPSPEED_0_9_0, true);
    const double max = 5e-5, ln_W = log(1000.0);
    assert_rate(&s, 0, max);
    assert_rate(&s, 1, 0.0);
    assert_rate(&s, 2, max * log(2.0) / ln_W);
    assert_rate(&s, 32, max * log(32.0) / ln_W);
    assert_true(fabs(sched_lr(&s, 32) / max - 0.5) < 0.002); /* half the rate after 32 updates */
    assert_rate(&s, 1000, max * log(1000.0) / ln_W);
    assert_rate(&s, 1001, max);
    assert_rate(&s, 1002, max * (30000.0 - 1001.0) / 29000.0);
    assert_rate(&s, 15501, max * 0.5);
    assert_rate(&s, 30000, max * 1.0 / 29000.0);
    assert_rate(&s, 30001, 0.0);
}

static void test_deepspeed_linear(void **state)
{
    (void)state;
    const struct sched s = soulchat(SCHED_DEEPSPEED_0_9_0, false);
    assert_rate(&s, 1, 0.0);
    assert_rate(&s, 501, 2.5e-5);
}

static void test_warmup_decay(void **state)
{
    (void)state;
    const struct sched s = soulchat(SCHED_WARMUP_DECAY, true);
    assert_rate(&s, 0, 5e-5 * log(2.0) / log(1000.0));
    assert_rate(&s, 998, 5e-5 * log(1000.0) / log(1000.0));
    assert_rate(&s, 1000, 5e-5);
    assert_rate(&s, 15500, 2.5e-5);
    assert_rate(&s, 29999, 5e-5 / 29000.0);
    for (int64_t k = 0; k < 30000; k++) assert_true(sched_lr(&s, k) > 0.0);
}

static void test_warmup_decay_without_warmup(void **state)
{
    (void)state;
    const struct sched s = { SCHED_WARMUP_DECAY, true, 1.0, 0.0, 0, 10 };
    for (int64_t k = 1; k < 10; k++) assert_true(sched_lr(&s, k) <= sched_lr(&s, k - 1));
    assert_true(sched_lr(&s, 0) > 0.0 && sched_lr(&s, 9) > 0.0);
}

static void test_cosine_linear_constant(void **state)
{
    (void)state;
    struct sched s = { SCHED_COSINE, false, 1.0, 0.1, 10, 110 };
    assert_rate(&s, 0, 0.1 + 0.9 * 0.1);
    assert_rate(&s, 9, 1.0);
    assert_rate(&s, 10, 1.0);
    assert_rate(&s, 60, 0.1 + 0.9 * 0.5);
    assert_rate(&s, 110, 0.1);
    s.kind = SCHED_LINEAR;
    assert_rate(&s, 60, 0.1 + 0.9 * 0.5);
    assert_rate(&s, 109, 0.1 + 0.9 * 0.01);
    s.kind = SCHED_CONSTANT;
    assert_rate(&s, 4, 0.1 + 0.9 * 0.5);
    assert_rate(&s, 109, 1.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deepspeed_0_9_0),
        cmocka_unit_test(test_deepspeed_linear),
        cmocka_unit_test(test_warmup_decay),
        cmocka_unit_test(test_warmup_decay_without_warmup),
        cmocka_unit_test(test_cosine_linear_constant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
