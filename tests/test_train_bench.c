/* Micro-batches of benchmarks: the formula, the file, and what a step is said to cost. */
#include "testing.h"

#include "base/check.h"
#include "base/file.h"
#include "base/stop.h"
#include "data/settings.h"
#include "data/settings_batch.h"
#include "model/settings.h"
#include "train/bench_batch.h"
#include "train/bench_packs.h"
#include "train/bench_step.h"
#include "train/settings.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* Not file_replace, which waits for the disk. */
static void write_plain(const char *path, const void *bytes, int64_t size)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, (size_t)size, f), size);
    assert_int_equal(fclose(f), 0);
}

static void assert_same(const void *a, const void *b, int64_t count)
{
    assert_memory_equal(a, b, (size_t)count * 4);
}

static void assert_same_batch(const struct glm_batch *a, const struct glm_batch *b)
{
    assert_int_equal(a->rows, b->rows);
    assert_int_equal(a->segment_count, b->segment_count);
    assert_int_equal(a->target_count, b->target_count);
    assert_same(a->ids, b->ids, a->rows);
    assert_same(a->pos, b->pos, a->rows);
    assert_same(a->block, b->block, a->rows);
    assert_same(a->order, b->order, a->rows);
    assert_same(a->segments, b->segments, 3 * a->segment_count);
    assert_same(a->target_rows, b->target_rows, a->target_count);
    assert_same(a->labels, b->labels, a->target_count);
    assert_same(a->weights, b->weights, a->target_count);
}

static void test_round_trip(void **state)
{
    (void)state;
    struct bench_packs made, read;
    assert_ok(bench_packs_formula(&made, 2, 3, 512, 640));
    assert_int_equal(made.micro_count, 6);
    assert_ok(bench_packs_write(&made, testing_path("packs.safetensors")));
    assert_ok(bench_packs_read(&read, testing_path("packs.safetensors")));
    assert_int_equal(read.vocab_size, 640);
    assert_int_equal(read.steps, 2);
    assert_same(read.step_first, made.step_first, 3);
    for (int64_t i = 0; i < made.micro_count; i++)
        assert_same_batch(&read.micro[i], &made.micro[i]);
    bench_packs_clear(&read);
    bench_packs_clear(&made);
}

/* What the header says of a sample: its positions, its blocks, its trained tokens. */
static void test_formula(void **state)
{
    (void)state;
    enum { ROWS = 512, VOCAB = 640, CTX = 121, LEN = 153 };
    struct glm_batch b;
    assert_ok(bench_batch_create(&b, ROWS, VOCAB));
    assert_int_equal(b.segment_count, 3);
    assert_int_equal(b.segments[0].ctx, CTX);
    assert_int_equal(b.segments[0].len, LEN);
    assert_int_equal(b.segments[1].start, LEN);
    for (int32_t i = 0; i < LEN; i++) {
        assert_int_equal(b.ids[i], (i * 7919 + 13) % (VOCAB - 8));
        assert_int_equal(b.pos[i], i < CTX ? i : CTX - 1);
        assert_int_equal(b.block[i], i < CTX ? 0 : i - CTX + 1);
    }
    for (int32_t t = 0; t < LEN - CTX; t++) {
        assert_int_equal(b.target_rows[t], CTX - 1 + t);
        assert_int_equal(b.labels[t], b.ids[CTX + t]);
    }
    assert_int_equal(b.target_rows[LEN - CTX], LEN + 211 - 1);
    bench_batch_clear(&b);
}

/* The weights of a step's trained tokens add up to 1, however many micro-batches it has. */
static void test_weights(void **state)
{
    (void)state;
    for (int64_t micro = 1; micro <= 4; micro *= 2) {
        struct bench_packs packs;
        double sum = 0.0;
        assert_ok(bench_packs_formula(&packs, 1, micro, 512, 640));
        for (int64_t i = 0; i < packs.micro_count; i++)
            for (int64_t t = 0; t < packs.micro[i].target_count; t++)
                sum += (double)packs.micro[i].weights[t];
        assert_true(fabs(sum - 1.0) < 1e-5);
        bench_packs_clear(&packs);
    }
}

static void test_bounds(void **state)
{
    (void)state;
    struct bench_packs packs;
    assert_ok(bench_packs_formula(&packs, 1, 2, 512, 640));
    packs.micro[1].target_count -= 1; /* as if it were smaller; nothing else looks */
    const struct bench_bounds bounds = bench_packs_bounds(&packs);
    assert_int_equal(bounds.rows, 512);
    assert_int_equal(bounds.segments, packs.micro[0].segment_count);
    assert_int_equal(bounds.targets, packs.micro[0].target_count);
    bench_packs_clear(&packs);
}

/* Every byte of the file changed, one at a time: refused in one line, or read as other numbers. */
static void test_hostile(void **state)
{
    (void)state;
    struct bench_packs packs;
    struct buf file = { 0 };
    assert_ok(bench_packs_formula(&packs, 1, 1, 128, 64));
    assert_ok(bench_packs_write(&packs, testing_path("whole")));
    bench_packs_clear(&packs);
    assert_ok(file_read_all(&file, testing_path("whole"), 1 << 20));
    for (int64_t i = 0; i < (int64_t)file.size; i += i < 1200 ? 1 : 37) {
        file.data[i] ^= 0x11;
        write_plain(testing_path("changed"), file.data, (int64_t)file.size);
        if (bench_packs_read(&packs, testing_path("changed")) == ERR_OK) bench_packs_clear(&packs);
        file.data[i] ^= 0x11;
    }
    for (int64_t size = 0; size < (int64_t)file.size; size += 97) {
        write_plain(testing_path("cut"), file.data, size);
        assert_err(bench_packs_read(&packs, testing_path("cut")), FORMAT, "cut");
    }
    buf_clear(&file);
    assert_err(bench_packs_read(&packs, testing_path("absent")), NOTFOUND, "absent");
}

/* One segment of context 3 and length 5 sees 9 + 6 + 3 pairs; see bench_step.h. */
static void test_flop(void **state)
{
    (void)state;
    const struct glm_config config = {
        .vocab_size = 100, .hidden_size = 8, .layer_count = 2, .ffn_size = 32
    };
    const struct attn_segment segment = { 0, 3, 5 };
    const struct glm_batch batch = {
        .rows = 128, .segment_count = 1, .segments = &segment, .target_count = 2
    };
    const double matrices = 2 * 12 * 64.0;
    assert_true(bench_model_flop(&config, &batch) ==
                6 * matrices * 5 + 6 * 100.0 * 8 * 2 + 12 * 2 * 8.0 * 18);
}

/* ---- whole steps ---- */

/* A tiny model in float32 with these settings: key, value, ..., NULL; cfg_close it. */
static struct cfg *bench_cfg(const char *const *settings)
{
    static const char *const tiny[] = {
        "bench.hidden", "32",  "bench.layers",  "3",   "bench.heads", "2",
        "bench.vocab",  "640", "bench.rows",    "512", "bench.steps", "3",
        "bench.probe",  "64",  "train.threads", "1",   NULL
    };
    const struct cfg_table tables[] = { data_settings, batch_settings, model_settings,
                                        train_settings };
    const char *const *const lists[] = { tiny, settings };
    struct cfg *cfg;
    assert_ok(cfg_create(&cfg, tables, COUNT_OF(tables)));
    for (int64_t l = 0; l < COUNT_OF(lists); l++)
        for (const char *const *s = lists[l]; s[0] != NULL; s += 2)
            assert_ok(cfg_set(cfg, s[0], s[1], "test"));
    return cfg;
}

static err_t measure(struct bench_step *b, struct bench_result *r, const char *const *settings)
{
    struct cfg *cfg = bench_cfg(settings);
    err_t rc = bench_step_open(b, cfg);
    if (rc == ERR_OK) rc = bench_step_measure(b, r);
    cfg_close(cfg);
    return rc;
}

/* Updates in the backward pass are the same updates: the losses have the same bits, unclipped. */
static void test_update_in_backward(void **state)
{
    (void)state;
    struct bench_step whole, released;
    struct bench_result r;
    assert_ok(measure(&whole, &r, (const char *const[]){ "train.max_grad_norm", "0", NULL }));
    assert_true(r.part_s[BENCH_UPDATE] > 0.0);
    assert_ok(measure(
        &released, &r,
        (const char *const[]){ "train.max_grad_norm", "0", "train.update", "backward", NULL }));
    assert_true(r.part_s[BENCH_MODEL] > 0.0 && r.part_s[BENCH_UPDATE] == 0.0);
    assert_int_equal(whole.losses_count, released.losses_count);
    assert_memory_equal(whole.losses, released.losses,
                        (size_t)whole.losses_count * sizeof *whole.losses);
    assert_true(whole.losses[4] < whole.losses[0]);
    assert_true(tensor_count(&released.grads) < tensor_count(&whole.grads));
    bench_step_close(&whole);
    bench_step_close(&released);
}

static void test_update_in_backward_wants_one_micro(void **state)
{
    (void)state;
    struct bench_step b;
    struct bench_result r;
    assert_err(measure(&b, &r,
                       (const char *const[]){ "train.max_grad_norm", "0", "train.update",
                                              "backward", "bench.micro", "2", NULL }),
               USAGE, "2 micro-batches");
    bench_step_close(&b);
}

/* Asked to stop, none measures anything, and no file is written. */
static void test_stopped(void **state)
{
    (void)state;
    struct bench_step b;
    struct bench_result r;
    struct bench_packs packs;
    assert_ok(bench_packs_formula(&packs, 2, 3, 512, 640));
    testing_signal(SIGTERM);
    assert_err(measure(&b, &r, (const char *const[]){ NULL }), INTERRUPTED, "was measured");
    bench_step_close(&b);
    assert_err(bench_packs_write(&packs, testing_path("stopped.safetensors")), INTERRUPTED,
               "as it was");
    assert_false(file_exists(testing_path("stopped.safetensors")));
    assert_false(file_exists(testing_path("stopped.safetensors.tmp")));
    stop_reset();
    bench_packs_clear(&packs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_formula),
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_flop),
        cmocka_unit_test(test_update_in_backward),
        cmocka_unit_test(test_update_in_backward_wants_one_micro),
        cmocka_unit_test(test_stopped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
