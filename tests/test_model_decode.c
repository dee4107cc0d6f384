/*
 * Decoding with a cache against the full forward pass of the same tokens.
 *
 * Bars: both paths add the same products in another order; 1e-5 of the largest logit in float32,
 * 1e-12 in float64. In bf16 by the reference operators both are float64 sums rounded at the same
 * places, so bits are equal. Other kernels in bf16 may round the two paths differently: an RMS
 * error of 0.6 % each against exact results (the parity test), three times that at the worst logit,
 * for both paths together 2^-5.
 */
#include "model_fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define VOCAB 53
#define STEPS 12

#define BAR_BF16 0x1p-5

/* A prompt of `len` tokens, the last of them <sop>, and the tokens that follow it. */
struct text {
    int32_t ids[64], pos[64], block[64];
    int64_t len, ctx;
};

static struct text prompt_of(int64_t seed, int64_t len)
{
    struct text t = { .len = len, .ctx = len - 1 };
    for (int64_t i = 0; i < 64; i++) {
        t.ids[i] = (int32_t)((seed * 31 + i * 17 + i * i) % 48);
        t.pos[i] = (int32_t)(i < t.ctx ? i : t.ctx - 1);
        t.block[i] = (int32_t)(i < t.ctx ? 0 : i - t.ctx + 1);
    }
    return t;
}

static const char *const emulated[] = { "emu", "emu16" };

static int32_t argmax(const double *x)
{
    int32_t best = 0;
    for (int32_t v = 1; v < VOCAB; v++)
        if (x[v] > x[best]) best = v;
    return best;
}

static void widen(double *out, const float *x)
{
    for (int64_t v = 0; v < VOCAB; v++) out[v] = (double)x[v];
}

/* Logits after the first `len` tokens, without a cache. */
static void forward_logits(struct rig *rig, double *out, const struct text *t, int64_t len)
{
    const struct attn_segment segment = { 0, (int32_t)t->ctx, (int32_t)len };
    const struct glm_batch batch = { .rows = len,
                                     .ids = t->ids,
                                     .pos = t->pos,
                                     .block = t->block,
                                     .segment_count = 1,
                                     .segments = &segment };
    assert_ok(glm_eval_micro(rig->glm, &batch, NULL));
    assert_ok(glm_look_logits(rig->glm, out, len, len - 1, 1));
}

static void prefill(struct glm_cache *cache, double *out, int64_t slot, const struct text *t)
{
    float logits[VOCAB];
    assert_ok(glm_prefill(cache, logits, slot, t->ids, t->pos, t->block, t->len, t->ctx));
    widen(out, logits);
}

static void open_rig(struct rig *rig, const char *device, dtype_t weights)
{
    const struct glm_config config = tiny_config(true);
    struct glm_options options = tiny_options(48);
    options.train = false;
    options.weight_dtype = weights;
    rig_open(rig, device, 2, &config, &options);
    rig_randomize(rig, 12);
}

/* Greedy, each step compared with the full forward pass. logits[STEPS][VOCAB] when wanted. */
static void check_greedy(const char *device, dtype_t weights, double bar, int64_t prompt_len)
{
    struct rig rig;
    struct glm_cache *cache;
    struct text t = prompt_of(1, prompt_len);
    double cached[VOCAB], full[VOCAB];
    open_rig(&rig, device, weights);
    assert_ok(glm_cache_create(&cache, rig.glm, 2, 40));
    prefill(cache, cached, 1, &t);
    for (int64_t step = 0; step < STEPS; step++) {
        const int64_t len = t.len + step;
        const int32_t slot = 1;
        float logits[VOCAB];
        forward_logits(&rig, full, &t, len);
        assert_true(largest_error(cached, full, VOCAB) <= bar);
        if (bar < BAR_BF16) assert_int_equal(argmax(cached), argmax(full));
        t.ids[len] = argmax(cached);
        assert_ok(glm_decode(cache, logits, &slot, &t.ids[len], &t.pos[len], &t.block[len], 1));
        widen(cached, logits);
    }
    glm_cache_close(cache);
    rig_close(&rig);
}

static void test_greedy(void **state)
{
    (void)state;
    for (int64_t len = 2; len <= 20; len += 6) {
        check_greedy("cpu", DTYPE_F32, 1e-5, len);
        check_greedy("cpu", DTYPE_F16, 1e-5, len);
        check_greedy("cpu", DTYPE_BF16, 1e-5, len);
        check_greedy("ref", DTYPE_F32, 1e-6, len); /* logits leave as float32 */
        check_greedy("ref16", DTYPE_F32, 0.0, len);
    }
    for (int64_t i = 0; i < COUNT_OF(emulated); i++)
        if (rig_has(emulated[i])) check_greedy(emulated[i], DTYPE_F32, i ? BAR_BF16 : 1e-5, 9);
}

/* Several slots of different lengths in one step: what each would get alone. */
static void check_batch(const char *device, dtype_t weights, double bar)
{
    enum { SLOTS = 4 };
    static const int64_t lens[SLOTS] = { 3, 17, 8, 2 };
    struct rig rig;
    struct glm_cache *batched, *single;
    struct text t[SLOTS];
    double ignored[VOCAB], a[VOCAB], b[VOCAB];
    float logits[SLOTS * VOCAB], one[VOCAB];
    open_rig(&rig, device, weights);
    assert_ok(glm_cache_create(&batched, rig.glm, SLOTS, 40));
    assert_ok(glm_cache_create(&single, rig.glm, 1, 40));
    for (int64_t s = 0; s < SLOTS; s++) {
        t[s] = prompt_of(s, lens[s]);
        prefill(batched, ignored, s, &t[s]);
    }
    /* Step by step, the slots in an order that changes; then each alone. */
    double all[STEPS][SLOTS][VOCAB];
    for (int64_t step = 0; step < STEPS; step++) {
        int32_t slots[SLOTS], ids[SLOTS], pos[SLOTS], block[SLOTS];
        for (int64_t i = 0; i < SLOTS; i++) {
            const int64_t s = (i + step) % SLOTS, at = t[s].len + step;
            slots[i] = (int32_t)s;
            ids[i] = t[s].ids[at];
            pos[i] = t[s].pos[at];
            block[i] = t[s].block[at];
        }
        assert_ok(glm_decode(batched, logits, slots, ids, pos, block, SLOTS));
        for (int64_t i = 0; i < SLOTS; i++) widen(all[step][slots[i]], logits + i * VOCAB);
    }
    for (int64_t s = 0; s < SLOTS; s++) {
        prefill(single, ignored, 0, &t[s]); /* the slot is used again */
        for (int64_t step = 0; step < STEPS; step++) {
            const int64_t at = t[s].len + step;
            const int32_t slot = 0;
            assert_ok(
                glm_decode(single, one, &slot, &t[s].ids[at], &t[s].pos[at], &t[s].block[at], 1));
            widen(a, one);
            memcpy(b, all[step][s], sizeof b);
            assert_true(largest_error(b, a, VOCAB) <= bar);
            if (bar < BAR_BF16) assert_int_equal(argmax(a), argmax(b));
        }
    }
    glm_cache_close(batched);
    glm_cache_close(single);
    rig_close(&rig);
}

static void test_batch(void **state)
{
    (void)state;
    check_batch("cpu", DTYPE_F32, 1e-5);
    check_batch("cpu", DTYPE_F16, 1e-5);
    check_batch("ref", DTYPE_F32, 0.0); /* row by row: the same bits */
    check_batch("ref16", DTYPE_F32, 0.0);
    for (int64_t i = 0; i < COUNT_OF(emulated); i++)
        if (rig_has(emulated[i])) check_batch(emulated[i], DTYPE_F32, i ? BAR_BF16 : 1e-5);
}

/* Keys and values: layers x 2 x slots x tokens x hidden, and little else. */
static void check_memory(const char *device, int64_t width)
{
    struct rig rig;
    struct glm_cache *cache;
    struct text t = prompt_of(3, 5);
    double logits[VOCAB];
    float row[VOCAB];
    const int32_t slot = 2;
    open_rig(&rig, device, DTYPE_F32);
    const int64_t before = rig.dev->stats.alloc_bytes;
    assert_ok(glm_cache_create(&cache, rig.glm, 3, 40));
    const int64_t bytes = rig.dev->stats.alloc_bytes - before;
    const int64_t kv_bytes = 2 * 2 * 3 * 40 * 24 * width;
    assert_true(bytes >= kv_bytes + 3 * VOCAB * width);
    assert_true(bytes < 2 * kv_bytes);
    const int64_t calls = rig.dev->stats.alloc_count;
    prefill(cache, logits, 2, &t);
    assert_ok(glm_decode(cache, row, &slot, &t.ids[5], &t.pos[5], &t.block[5], 1));
    assert_int_equal(rig.dev->stats.alloc_count, calls);
    glm_cache_close(cache);
    assert_int_equal(rig.dev->stats.alloc_bytes, before);
    glm_cache_close(NULL);
    rig_close(&rig);
}

static void test_memory(void **state)
{
    (void)state;
    check_memory("cpu", 4);
    check_memory("ref16", 2);
}

static void test_refused(void **state)
{
    (void)state;
    struct rig rig;
    struct glm_cache *cache;
    struct text t = prompt_of(4, 8);
    float row[2 * VOCAB];
    const int32_t slot = 0, slots[] = { 0, 0 }, beyond = 2, empty = 1, two[] = { 3, 4 };
    const int32_t bad_id = VOCAB;
    open_rig(&rig, "cpu", DTYPE_F32);
    assert_err(glm_cache_create(&cache, rig.glm, 0, 10), ARG, "must be positive");
    assert_err(glm_cache_create(&cache, rig.glm, 1, 65), ARG, "64 positions");
    assert_null(cache);
    assert_ok(glm_cache_create(&cache, rig.glm, 2, 9));

    assert_err(glm_decode(cache, row, &slot, two, two, two, 1), ARG, "slot 0 holds no prompt");
    assert_err(glm_prefill(cache, row, 2, t.ids, t.pos, t.block, 8, 7), ARG, "slot 2");
    assert_err(glm_prefill(cache, row, 0, t.ids, t.pos, t.block, 10, 7), ARG, "room for 9");
    assert_err(glm_prefill(cache, row, 0, t.ids, t.pos, t.block, 8, 9), ARG, "9 of them context");
    assert_err(glm_prefill(cache, row, 0, &bad_id, t.pos, t.block, 1, 1), ARG, "token id");
    assert_ok(glm_prefill(cache, row, 0, t.ids, t.pos, t.block, 8, 7));
    assert_err(glm_decode(cache, row, slots, two, two, two, 2), ARG, "slot 0 twice");
    assert_err(glm_decode(cache, row, &beyond, two, two, two, 1), ARG, "slot 2");
    assert_err(glm_decode(cache, row, &empty, two, two, two, 1), ARG, "slot 1 holds no prompt");
    assert_err(glm_decode(cache, row, slots, two, two, two, 3), ARG, "3 slots in one step");
    assert_err(glm_decode(cache, row, &slot, &bad_id, two, two, 1), ARG, "token id");
    assert_ok(glm_decode(cache, row, &slot, two, two, two, 1));
    assert_err(glm_decode(cache, row, &slot, two, two, two, 1), ARG, "slot 0 is full: 9 tokens");
    glm_cache_close(cache);
    rig_close(&rig);
}

static err_t no_linear(struct dev *dev, const struct linear_fwd_args *args)
{
    (void)dev;
    (void)args;
    RAISE(CUDA, "no product today");
}

/* A slot whose new prompt did not get in holds none; the old one is gone. */
static void test_prefill_that_fails(void **state)
{
    (void)state;
    struct rig rig;
    struct glm_cache *cache;
    struct text t = prompt_of(4, 8);
    float row[VOCAB];
    const int32_t slot = 0, token = 3;
    open_rig(&rig, "cpu", DTYPE_F32);
    assert_ok(glm_cache_create(&cache, rig.glm, 1, 12));
    assert_ok(glm_prefill(cache, row, 0, t.ids, t.pos, t.block, 8, 7));
    const struct ops_table *ops = rig.dev->ops;
    struct ops_table broken = *ops;
    broken.linear_fwd = no_linear;
    rig.dev->ops = &broken;
    assert_err(glm_prefill(cache, row, 0, t.ids, t.pos, t.block, 8, 7), CUDA, "no product");
    rig.dev->ops = ops;
    assert_err(glm_decode(cache, row, &slot, &token, &token, &token, 1), ARG, "holds no prompt");
    assert_ok(glm_prefill(cache, row, 0, t.ids, t.pos, t.block, 8, 7));
    assert_ok(glm_decode(cache, row, &slot, &token, &token, &token, 1));
    glm_cache_close(cache);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_batch),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_prefill_that_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
