/* Bytes and seconds against sums done by hand. Letters as in train/cost.c. */
#include "plan_fixture.h"

#include <math.h>
#include <stdio.h>

/* ChatGLM-6B, tied: every element counted once. Stored, the vocabulary has 130,560 rows, and each
 * unit (embedding, layer, final norm) is a multiple of 16,384 elements. */
#define EMBED        (INT64_C(130528) * 4096)
#define MATRICES     (INT64_C(12) * 4096 * 4096) /* of a layer */
#define LAYER        (MATRICES + 4 * 4096 + 3 * 4096 + 4096 + 16384 + 4096)
#define N            (EMBED + 28 * LAYER + 2 * 4096)
#define STORED_EMBED (INT64_C(130560) * 4096)
#define STORED_LAYER INT64_C(201392128)
#define STORED       (STORED_EMBED + 28 * STORED_LAYER + 16384)

static struct cost_memory memory_of(const struct glm_config *config,
                                    const struct cost_settings *settings, int64_t rows)
{
    const struct batch_bounds bounds = { .rows = rows, .segments = 64, .targets = 4096 };
    struct plan_dev device;
    struct cost_memory m;
    struct card h200;
    card_at(&h200, 0);
    plan_dev_formulas(&device, &h200);
    assert_ok(cost_memory(&m, device.dev, config, settings, &bounds));
    return m;
}

/* Machines without the backend's host build plan with formulas: never less than it asks for, and
 * hardly more. */
static void test_formulas_bound_the_backend(void **state)
{
    (void)state;
    static const int64_t rows[] = { 512, 2048, 16384 }, targets[] = { 1, 300, 4096, 9000 };
    const struct glm_config config = plan_6b(true);
    struct plan_dev backend, formulas;
    struct card card;
    for (int64_t c = 0; c < card_count(); c++) {
        card_at(&card, c);
        assert_ok(plan_dev_open(&backend, &card, 1));
        if (backend.dev == &backend.own) skip(); /* it is not here */
        plan_dev_formulas(&formulas, &card);
        for (int64_t r = 0; r < COUNT_OF(rows) * COUNT_OF(targets); r++) {
            const struct batch_bounds bounds = { .rows = rows[r % COUNT_OF(rows)],
                                                 .segments = 64,
                                                 .targets = targets[r / COUNT_OF(rows)] };
            const struct cost_settings s = plan_full();
            struct cost_memory asked, bound;
            if (bounds.targets > bounds.rows) continue;
            assert_ok(cost_memory(&asked, backend.dev, &config, &s, &bounds));
            assert_ok(cost_memory(&bound, formulas.dev, &config, &s, &bounds));
            const int64_t a = asked.bytes[COST_SCRATCH], b = bound.bytes[COST_SCRATCH];
            if (a > b || b > a + a / 50)
                fail_msg("%s, %lld rows, %lld targets: %lld bytes are asked for, by formula %lld",
                         card.gpu, (long long)bounds.rows, (long long)bounds.targets, (long long)a,
                         (long long)b);
        }
        plan_dev_close(&backend);
    }
}

static void test_bytes_of_6b(void **state)
{
    (void)state;
    const struct glm_config config = plan_6b(true);
    struct cost_settings s = plan_full();
    struct cost_memory m = memory_of(&config, &s, 1024);
    assert_int_equal(N, INT64_C(6173286400));
    assert_int_equal(m.zero.parameters, N);
    assert_int_equal(m.zero.elements, STORED);
    assert_int_equal(m.bytes[COST_WEIGHTS], INT64_C(12347539456)); /* 2 * STORED */
    assert_int_equal(m.bytes[COST_GRADIENTS], 4 * STORED);
    assert_int_equal(m.bytes[COST_MASTER], 4 * N);
    assert_int_equal(m.bytes[COST_MOMENTS], 8 * N);
    assert_int_equal(m.bytes[COST_STAGING], 0);
    assert_int_equal(m.bytes[COST_CONTEXT], INT64_C(768) << 20);

    s.grad_dtype = DTYPE_BF16;
    s.master = false;
    s.moments_8bit = true; /* matrices of layers: a byte each, a float per 256 of them */
    m = memory_of(&config, &s, 1024);
    const int64_t coded = 28 * MATRICES, moments = 2 * (coded + coded / 64) + 8 * (N - coded);
    assert_int_equal(m.bytes[COST_GRADIENTS], 2 * STORED);
    assert_int_equal(m.bytes[COST_MASTER], 0);
    assert_int_equal(m.bytes[COST_MOMENTS], moments);
    assert_int_equal(moments, INT64_C(15739584512));

    s.state_on_host = true;
    s.update_in_backward = true; /* two layers' gradients, the embedding's, the final norm's */
    m = memory_of(&config, &s, 1024);
    assert_int_equal(m.bytes[COST_MOMENTS], 0);
    assert_in_range(m.host_bytes, moments, moments + (4 << 20)); /* and what losses pass through */
    assert_int_equal(m.bytes[COST_GRADIENTS], 2 * (STORED_EMBED + 2 * STORED_LAYER + 16384));
    /* Two slices of at most 2^24 elements, float32 ones of the embedding being the widest. */
    assert_int_equal(m.bytes[COST_STAGING], 2 * 8 * (INT64_C(1) << 24));
}

static void test_sum(void **state)
{
    (void)state;
    const struct glm_config config = plan_6b(true);
    const struct cost_settings s = plan_full();
    const struct cost_memory m = memory_of(&config, &s, 1024);
    int64_t sum = 0;
    for (int i = 0; i < COST_CLASSES; i++) sum += m.bytes[i];
    assert_int_equal(m.device_bytes, sum);
}

/* Lanes' gradients are folded in a binary counter: one more buffer per power of two. */
static void test_lanes(void **state)
{
    (void)state;
    const struct glm_config config = plan_6b(true);
    struct cost_settings s = plan_full();
    const int64_t lanes[] = { 1, 2, 3, 4, 8 }, buffers[] = { 1, 2, 2, 3, 4 };
    for (int i = 0; i < 5; i++) {
        s.lanes = lanes[i];
        const struct cost_memory m = memory_of(&config, &s, 1024);
        assert_int_equal(m.bytes[COST_GRADIENTS], buffers[i] * 4 * STORED);
    }
}

/* Planned budgets, in GB to one place, from bytes per parameter alone; padding adds 0.01. */
static void test_static_table(void **state)
{
    (void)state;
    const struct {
        bool tied, master;
        dtype_t grad;
        double gb;
    } rows[] = {
        { false, true, DTYPE_BF16, 107.3 }, { true, true, DTYPE_BF16, 98.8 },
        { false, true, DTYPE_F32, 120.7 },  { true, true, DTYPE_F32, 111.1 },
        { false, false, DTYPE_BF16, 80.5 }, { true, false, DTYPE_BF16, 74.1 },
    };
    for (int i = 0; i < 6; i++) {
        const struct glm_config config = plan_6b(rows[i].tied);
        struct cost_settings s = plan_full();
        s.grad_dtype = rows[i].grad;
        s.master = rows[i].master;
        const struct cost_memory m = memory_of(&config, &s, 1024);
        const int64_t bytes = m.bytes[COST_WEIGHTS] + m.bytes[COST_GRADIENTS] +
                              m.bytes[COST_MASTER] + m.bytes[COST_MOMENTS];
        assert_true(fabs((double)bytes / 1e9 - rows[i].gb) < 0.05 + 0.012);
    }
}

/* Bytes that one more row costs: in each layer 20 C of bf16 when lean (x, qkv, attention, h1, u),
 * 12 C more when all is kept (both norms, GELU), 2 C alone when layers are recomputed; statistics
 * 4 float32 per norm pair and one per head; and one layer's worth of working memory. */
static void test_activations_per_row(void **state)
{
    (void)state;
    const struct glm_config config = plan_6b(true);
    struct cost_settings s = plan_full();
    const double C = 4096, L = 28, mean[3] = { L * 32 * C, L * 20 * C, L * 2 * C };
    const double millions[3] = { 3.67, 2.29, 0.229 };
    for (int a = 0; a < 3; a++) {
        s.activations = (enum glm_activations)a;
        const struct cost_memory small = memory_of(&config, &s, 8192);
        const struct cost_memory large = memory_of(&config, &s, 16384);
        const double row =
            (double)(large.bytes[COST_ACTIVATIONS] - small.bytes[COST_ACTIVATIONS]) / 8192.0;
        assert_true(fabs(mean[a] / 1e6 - millions[a]) < 0.006);
        assert_true(row >= mean[a] && row <= mean[a] + 50.0 * C);
    }
}

/* ---- time ---- */

/* A card without limits but those that a test sets. */
static struct card bare_card(double gemm, double copy)
{
    struct card card;
    card_at(&card, 0);
    card.rates = (struct card_rates){ .gemm_bf16 = gemm,
                                      .gemm_f32 = gemm / 10,
                                      .gemm_share = 1,
                                      .attn_fwd = 620e12,
                                      .attn_bwd = 480e12,
                                      .copy = copy,
                                      .pcie = 25e9 };
    return card;
}

static struct cost_work work_of(double context, double target, double rows, double micro_batches)
{
    const double samples = rows / (context + target);
    return (struct cost_work){ .rows = rows,
                               .rows_padded = rows,
                               .targets = samples * target,
                               .pairs = samples * cost_pairs(context, target),
                               .micro_batches = micro_batches };
}

static struct cost_time time_of(const struct cost_settings *s, const struct cost_work *w,
                                const struct card *card)
{
    const struct glm_config config = plan_6b(true);
    const struct cost_memory m = memory_of(&config, s, 16384);
    struct cost_time t;
    cost_time(&t, &config, s, w, &m, card);
    return t;
}

static void test_pairs(void **state)
{
    (void)state;
    /* Two rows see both of themselves; the third sees three, the fourth four. */
    assert_true(cost_pairs(2, 2) == 4 + 3 + 4);
    assert_true(cost_pairs(1536, 512) == 3277056.0);
    assert_true(cost_pairs(0, 3) == 6.0);
}

static void test_flop(void **state)
{
    (void)state;
    const struct cost_settings s = plan_full();
    const struct card card = bare_card(790e12, 4.3e12);
    const struct {
        double context, target, gflop; /* per row */
    } rows[] = { { 384, 128, 35.18 },
                 { 768, 256, 35.73 },
                 { 1536, 512, 36.83 },
                 { 1024, 1024, 37.19 },
                 { 256, 1792, 38.06 } };
    for (int i = 0; i < 5; i++) {
        const struct cost_work w = work_of(rows[i].context, rows[i].target, 65536, 4);
        const struct cost_time t = time_of(&s, &w, &card);
        assert_true(fabs(t.flop / w.rows / 1e9 - rows[i].gflop) < 0.005);
        assert_true(fabs(t.flop_per_s - t.flop / t.step_s) < 1.0);
    }
}

/* Products, head and attention alone, at 790 TFLOP/s and 620/480 for attention. */
static void test_floor(void **state)
{
    (void)state;
    const struct cost_settings s = plan_full();
    const struct card card = bare_card(790e12, 1e20);
    const struct {
        double context, target, rows, seconds;
    } rows[] = { { 1536, 512, 16384, 0.800 },  { 384, 128, 16384, 0.739 },
                 { 1536, 512, 65536, 3.201 },  { 384, 128, 65536, 2.954 },
                 { 1536, 512, 262144, 12.80 }, { 384, 128, 262144, 11.82 } };
    for (int i = 0; i < 6; i++) {
        const struct cost_work w = work_of(rows[i].context, rows[i].target, rows[i].rows, 4);
        const struct cost_time t = time_of(&s, &w, &card);
        assert_true(fabs(t.step_s / rows[i].seconds - 1.0) < 0.001);
    }
}

/* 28 bytes a parameter and the like, at 4.3 TB/s, of which kernels reach 0.9. */
static void test_optimizer(void **state)
{
    (void)state;
    const struct card card = bare_card(790e12, 4.3e12 / 0.9);
    const struct cost_work w = work_of(384, 128, 16384, 1);
    struct cost_settings s = plan_full();
    s.grad_dtype = DTYPE_BF16;
    struct cost_time t = time_of(&s, &w, &card);
    assert_true(fabs(t.optimizer_bytes - 28.0) < 1e-9);
    assert_true(fabs(t.seconds[COST_T_OPTIMIZER] - 0.0402) < 0.0001);
    s.grad_dtype = DTYPE_F32;
    assert_true(fabs(time_of(&s, &w, &card).optimizer_bytes - 30.0) < 1e-9);
    s.grad_dtype = DTYPE_BF16;
    s.master = false;
    t = time_of(&s, &w, &card);
    assert_true(fabs(t.optimizer_bytes - 22.0) < 1e-9);
    assert_true(fabs(t.seconds[COST_T_OPTIMIZER] - 0.0316) < 0.0001);
    s.moments_8bit = true; /* 10.06 for the layers' matrices, 22 for the rest */
    t = time_of(&s, &w, &card);
    const double coded = 28.0 * MATRICES / (double)N;
    assert_true(fabs(t.optimizer_bytes - (coded * 10.0625 + (1 - coded) * 22.0)) < 1e-9);
}

/* Arenas of gradients are zeroed, read and written by each micro-batch, read for the norm; every
 * lane but the first is added to another: two read, one written. */
static void test_gradients(void **state)
{
    (void)state;
    const struct card card = bare_card(790e12, 4.3e12 / 0.9);
    struct cost_settings s = plan_full();
    const double sweep_s = 4.0 * (double)STORED / 4.3e12;
    struct cost_work w = work_of(384, 128, 16384, 1);
    assert_true(fabs(time_of(&s, &w, &card).seconds[COST_T_GRADIENTS] / sweep_s - 4.0) < 1e-9);
    w.micro_batches = 3;
    assert_true(fabs(time_of(&s, &w, &card).seconds[COST_T_GRADIENTS] / sweep_s - 8.0) < 1e-9);
    s.lanes = 3;
    assert_true(fabs(time_of(&s, &w, &card).seconds[COST_T_GRADIENTS] / sweep_s - 14.0) < 1e-9);
    s.grad_dtype = DTYPE_BF16;
    assert_true(fabs(time_of(&s, &w, &card).seconds[COST_T_GRADIENTS] / sweep_s - 7.0) < 1e-9);
}

/* What is bound by memory: 33 C and 3 F elements per row and layer, 12 C at both ends; lean repeats
 * 4 C and 2 F of it. 65,536 rows at 0.9 of 4.3 TB/s. */
static void test_rows(void **state)
{
    (void)state;
    const struct card card = bare_card(790e12, 4.3e12);
    const struct cost_work w = work_of(384, 128, 65536, 4);
    struct cost_settings s = plan_full();
    s.activations = GLM_LEAN;
    const struct cost_time t = time_of(&s, &w, &card);
    assert_true(fabs(t.seconds[COST_T_ROWS] - 0.17646) < 1e-5);
    assert_true(fabs(t.seconds[COST_T_RECOMPUTE] - 0.04661) < 1e-5);
    s.activations = GLM_KEEP_ALL;
    assert_true(time_of(&s, &w, &card).seconds[COST_T_RECOMPUTE] == 0.0);
}

/* The loss: three products, three sweeps over bf16 logits, and the weight's float32 gradient read
 * and written for every chunk of 2,048 targets, at least once a micro-batch. */
static void test_head(void **state)
{
    (void)state;
    const struct card card = bare_card(790e12, 4.3e12 / 0.9);
    const struct cost_settings s = plan_full();
    struct cost_work w = work_of(384, 128, 65536, 4); /* 16,384 targets */
    const double flop_s = 6.0 * (double)EMBED * 16384 / 790e12;
    const double logits_s = 6.0 * 130528 * 16384 / 4.3e12;
    const double chunk_s = 8.0 * (double)EMBED / 4.3e12;
    double head_s = time_of(&s, &w, &card).seconds[COST_T_HEAD];
    assert_true(fabs(head_s / (flop_s + logits_s + 8.0 * chunk_s) - 1.0) < 1e-9);
    w.micro_batches = 20;
    head_s = time_of(&s, &w, &card).seconds[COST_T_HEAD];
    assert_true(fabs(head_s / (flop_s + logits_s + 20.0 * chunk_s) - 1.0) < 1e-9);
}

/* The estimate for one H200, 64k rows a step, lean, products at 740 TFLOP/s on average: 3.64 s. */
static void test_whole_step(void **state)
{
    (void)state;
    struct cost_settings s = plan_full();
    s.grad_dtype = DTYPE_BF16;
    s.activations = GLM_LEAN;
    const struct cost_work w = work_of(1536, 512, 65536, 4);
    struct card h200;
    card_at(&h200, 0);
    const struct cost_time t = time_of(&s, &w, &h200);
    assert_true(fabs(t.step_s / 3.64 - 1.0) < 0.03);
    double sum = 0.0;
    for (int i = 0; i < COST_PARTS; i++) sum += t.seconds[i];
    assert_true(fabs(sum - t.step_s) < 1e-12);
    assert_true(fabs(t.tokens_per_s * t.step_s - 65536.0) < 1e-6);
}

/* Recomputing layers repeats the forward pass: 31 to 33 % of the floor. */
static void test_recompute(void **state)
{
    (void)state;
    const struct card card = bare_card(790e12, 1e20);
    const struct cost_work w = work_of(1536, 512, 65536, 4);
    struct cost_settings s = plan_full();
    const double floor_s = time_of(&s, &w, &card).step_s;
    s.activations = GLM_RECOMPUTE;
    const double more = time_of(&s, &w, &card).step_s / floor_s - 1.0;
    assert_true(more > 0.31 && more < 0.33);
}

/* States on the host: after the step only the update hides them, in backward the whole pass. */
static void test_transfer(void **state)
{
    (void)state;
    const struct card card = bare_card(150e12, 0.9e12);
    const struct cost_work w = work_of(256, 54, 16384, 1);
    struct cost_settings s = plan_full();
    s.state_on_host = true;
    struct cost_time t = time_of(&s, &w, &card);
    assert_true(fabs(t.transfer_s - 12.0 * (double)N / 25e9) < 1e-6);
    assert_true(fabs(t.seconds[COST_T_TRANSFER] - (t.transfer_s - t.seconds[COST_T_OPTIMIZER])) <
                1e-9);
    s.update_in_backward = true; /* 3.0 s of states under some 2.6 s of backward and update */
    const double exposed_s = time_of(&s, &w, &card).seconds[COST_T_TRANSFER];
    assert_true(exposed_s > 0.0 && exposed_s < 0.25 * t.seconds[COST_T_TRANSFER]);
    s.master = false;
    s.moments_8bit = true;
    t = time_of(&s, &w, &card);
    assert_true(t.transfer_s > 0.6 && t.seconds[COST_T_TRANSFER] == 0.0);
}

/* A micro-batch of few rows waits for the weights. */
static void test_few_rows(void **state)
{
    (void)state;
    const struct card card = bare_card(790e12, 4.3e12 / 0.9);
    const struct cost_settings s = plan_full();
    const struct cost_work few = work_of(64, 64, 128, 1);
    const double weights_s = 3.0 * 28.0 * MATRICES * 2.0 / 4.3e12;
    assert_true(fabs(time_of(&s, &few, &card).seconds[COST_T_PRODUCTS] / weights_s - 1.0) < 1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_of_6b),  cmocka_unit_test(test_formulas_bound_the_backend),
        cmocka_unit_test(test_sum),          cmocka_unit_test(test_lanes),
        cmocka_unit_test(test_static_table), cmocka_unit_test(test_activations_per_row),
        cmocka_unit_test(test_pairs),        cmocka_unit_test(test_flop),
        cmocka_unit_test(test_floor),        cmocka_unit_test(test_optimizer),
        cmocka_unit_test(test_whole_step),   cmocka_unit_test(test_recompute),
        cmocka_unit_test(test_transfer),     cmocka_unit_test(test_few_rows),
        cmocka_unit_test(test_gradients),    cmocka_unit_test(test_rows),
        cmocka_unit_test(test_head),

    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
