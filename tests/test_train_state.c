/* optim_plan.h, optim.h: where state lies, in which formats, and that its place changes no bit. */
#include "train_fixture.h"

#include "lazy_dev.h"
#include "ref_ops.h"
#include "state_rig.h"

#include "base/check.h"
#include "base/num.h"
#include "train/drift.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- plans ---- */

static const struct optim_format formats[] = {
    { .weights = DTYPE_F32 },
    { .weights = DTYPE_F32, .moments = OPTIM_MOMENTS_8BIT },
    { .weights = DTYPE_BF16 },
    { .weights = DTYPE_BF16, .master = true },
    { .weights = DTYPE_BF16, .moments = OPTIM_MOMENTS_8BIT },
    { .weights = DTYPE_F64 },
};

/* Every element of every row in exactly one piece, pieces side by side in their parts, parts side
 * by side in their slices, slices side by side in memory. */
static void check_plan(const struct optim_plan *p, const struct glm_params *params)
{
    int64_t slice = 0, memory = 0, room[2] = { 0 };
    for (int64_t row = 0; row < params->count; row++) {
        int64_t covered = 0;
        for (int64_t i = p->row_piece[row]; i < p->row_piece[row + 1]; i++) {
            const struct optim_piece *piece = &p->piece[i];
            if (i == p->slice[slice].piece_end) {
                slice++;
                room[0] = room[1] = 0;
            }
            const struct optim_slice *s = &p->slice[slice];
            assert_true(i >= s->piece_first && i < s->piece_end);
            assert_int_equal(s->unit, params->row[row].unit);
            assert_int_equal(piece->row, row);
            assert_int_equal(piece->first, covered);
            assert_int_equal(piece->first % ADAMW_BLOCK, 0);
            assert_true(piece->count > 0);
            const bool coded = piece->state == ADAMW_STATE_BLOCK8;
            assert_int_equal(coded, p->format.moments == OPTIM_MOMENTS_8BIT &&
                                        params->row[row].layer >= 0 && params->row[row].dims == 2);
            assert_true(piece->offset >= room[coded] && piece->offset < room[coded] + ADAMW_BLOCK);
            assert_int_equal(piece->offset % (coded ? ADAMW_BLOCK : 32), 0);
            room[coded] = piece->offset + piece->count;
            const int part = coded ? OPTIM_EXP_AVG_CODES : OPTIM_EXP_AVG;
            assert_true(room[coded] <= s->part_count[part]);
            covered += piece->count;
        }
        assert_int_equal(covered, params->row[row].count);
    }
    assert_int_equal(slice, p->slice_count - 1);
    for (int64_t i = 0; i < p->slice_count; i++) {
        const struct optim_slice *s = &p->slice[i];
        int64_t end = 0;
        assert_int_equal(s->offset, memory);
        for (int part = 0; part < OPTIM_PARTS; part++) {
            assert_true(s->part_offset[part] == align_up(end, 64));
            end = s->part_offset[part] +
                  s->part_count[part] *
                      dtype_bytes(optim_part_dtype(&p->format, (enum optim_part)part));
        }
        assert_int_equal(s->bytes, align_up(end, 64));
        memory += s->bytes;
        if (p->format.place == OPTIM_ON_HOST) assert_true(s->bytes <= p->staging_bytes);
        assert_true(p->unit_slice[s->unit] <= i && i < p->unit_slice[s->unit + 1]);
    }
    assert_int_equal(p->state_bytes, memory);
}

static void test_plans_cover_the_table(void **state)
{
    (void)state;
    static const int64_t sizes[] = { 1024, 4096, 0 };
    const struct glm_config configs[] = { micro_config(), grain_config(), glm_chatglm_6b };
    for (int64_t c = 0; c < COUNT_OF(configs); c++) {
        struct glm_params params;
        assert_ok(glm_params_create(&params, &configs[c]));
        for (int64_t f = 0; f < COUNT_OF(formats); f++) {
            for (int64_t s = 0; s < COUNT_OF(sizes); s++) {
                struct optim_plan plan;
                struct optim_format format = formats[f];
                format.place = OPTIM_ON_HOST;
                format.slice_elements = c == 2 ? 0 : sizes[s];
                assert_ok(optim_plan_create(&plan, &params, &format, NULL, 0));
                check_plan(&plan, &params);
                if (c == 0 && sizes[s] == 1024) assert_true(plan.slice_count > plan.unit_count);
                optim_plan_clear(&plan);
            }
            struct optim_plan plan;
            assert_ok(optim_plan_create(&plan, &params, &formats[f], NULL, 0));
            check_plan(&plan, &params);
            assert_int_equal(plan.slice_count, plan.unit_count);
            assert_int_equal(plan.staging_bytes, 0);
            optim_plan_clear(&plan);
        }
        glm_params_clear(&params);
    }
}

/* Bytes of ChatGLM-6B with a tied head, by hand: 28 layers of 12 * 4096^2 matrix elements, and all
 * else. */
static void test_bytes_of_the_published_model(void **state)
{
    (void)state;
    const int64_t all = 6173286400, coded = 5637144576, rest = all - coded;
    const struct glm_config config = glm_chatglm_6b;
    struct glm_params params;
    struct optim_plan plan;
    assert_ok(glm_params_create(&params, &config));
    assert_int_equal(params.element_count, all);

    assert_ok(optim_plan_create(&plan, &params, &formats[3], NULL, 0));
    assert_int_equal(plan.part_bytes[OPTIM_MASTER], 4 * all);
    assert_int_equal(plan.part_bytes[OPTIM_EXP_AVG], 4 * all);
    assert_int_equal(plan.part_bytes[OPTIM_EXP_AVG_SQ], 4 * all);
    assert_int_equal(plan.part_bytes[OPTIM_EXP_AVG_CODES], 0);
    assert_int_equal(plan.state_bytes, 12 * all); /* nothing needs padding */
    assert_int_equal(plan.bytes[OPTIM_ON_DEVICE], 12 * all + 8 * plan.chunk_count);
    assert_int_equal(plan.bytes[OPTIM_ON_HOST], 8 * plan.chunk_count);
    optim_plan_clear(&plan);

    struct optim_format format = formats[4];
    format.place = OPTIM_ON_HOST;
    assert_ok(optim_plan_create(&plan, &params, &format, NULL, 0));
    assert_int_equal(plan.part_bytes[OPTIM_MASTER], 0);
    assert_int_equal(plan.part_bytes[OPTIM_EXP_AVG], 4 * rest);
    assert_int_equal(plan.part_bytes[OPTIM_EXP_AVG_CODES], coded);
    assert_int_equal(plan.part_bytes[OPTIM_EXP_AVG_SQ_CODES], coded);
    assert_int_equal(plan.part_bytes[OPTIM_EXP_AVG_ABSMAX], coded / 64);
    assert_int_equal(plan.state_bytes, 8 * rest + 2 * coded + coded / 32);
    /* 2^24 elements of the embedding, in f32, are the largest slice: 134 MB, twice. */
    assert_int_equal(plan.staging_bytes, 8 << 24);
    assert_int_equal(plan.bytes[OPTIM_ON_DEVICE], (16 << 24) + 8 * plan.chunk_count);
    optim_plan_clear(&plan);
    glm_params_clear(&params);
}

static void expect_no_plan(const struct glm_params *params, struct optim_format format,
                           const char *part)
{
    struct optim_plan plan;
    assert_err(optim_plan_create(&plan, params, &format, NULL, 0), ARG, part);
    optim_plan_clear(&plan);
}

static void test_plans_that_cannot_be(void **state)
{
    (void)state;
    const struct glm_config config = micro_config();
    struct glm_params params;
    assert_ok(glm_params_create(&params, &config));
    expect_no_plan(&params, (struct optim_format){ .weights = DTYPE_F16 }, "f16");
    expect_no_plan(&params, (struct optim_format){ .weights = DTYPE_F32, .master = true },
                   "a master of f32");
    expect_no_plan(&params,
                   (struct optim_format){
                       .weights = DTYPE_BF16, .master = true, .moments = OPTIM_MOMENTS_8BIT },
                   "beside 8-bit");
    expect_no_plan(&params, (struct optim_format){ .weights = DTYPE_F32, .slice_elements = 1023 },
                   "at least 1024");
    glm_params_clear(&params);
}

/* ---- places ---- */

static struct optim_format on_host(struct optim_format format, int64_t slice_elements)
{
    format.place = OPTIM_ON_HOST;
    format.slice_elements = slice_elements;
    return format;
}

static err_t train_all(struct state_rig *r)
{
    TRY(state_rig_fill(r));
    return state_rig_train(r, 1, 20);
}

/* F64 is the reference table's, which is no device with queues. */
#define FORMATS (COUNT_OF(formats) - 1)

static void test_places_have_the_same_bits(void **state)
{
    (void)state;
    static const int64_t sizes[] = { 1024, 8192, 0 };
    for (int64_t f = 0; f < FORMATS; f++) {
        struct state_rig want, got;
        state_rig_open(&want, state_rig_cpu(), &formats[f]);
        assert_ok(train_all(&want));
        for (int64_t s = 0; s < COUNT_OF(sizes); s++) {
            const struct optim_format host = on_host(formats[f], sizes[s]);
            state_rig_open(&got, state_rig_cpu(), &host);
            assert_ok(train_all(&got));
            if (!state_rig_same(&want, &got))
                fail_msg("format %d, slices of %d", (int)f, (int)sizes[s]);
            state_rig_close(&got);
        }
        state_rig_close(&want);
    }
}

/* The same on a device whose queues run as late as events allow (seed 0), or in random order. */
static void test_queues_in_any_order(void **state)
{
    (void)state;
    for (int64_t f = 0; f < FORMATS; f++) {
        struct state_rig want, got;
        const struct optim_format host = on_host(formats[f], 4096);
        state_rig_open(&want, state_rig_cpu(), &formats[f]);
        assert_ok(train_all(&want));
        for (uint64_t seed = 0; seed < 4; seed++) {
            state_rig_open(&got, lazy_dev_open(seed), &host);
            assert_ok(train_all(&got));
            if (!state_rig_same(&want, &got)) fail_msg("format %d, seed %d", (int)f, (int)seed);
            assert_true(lazy_dev_late(got.dev) > 100);
            state_rig_close(&got);
        }
        state_rig_close(&want);
    }
}

/* State that is read right after an update is what the update made. */
static void test_reading_waits(void **state)
{
    (void)state;
    const struct optim_format host = on_host(formats[0], 4096);
    struct state_rig r[2];
    float read[2][2048];
    state_rig_open(&r[0], state_rig_cpu(), &formats[0]);
    state_rig_open(&r[1], lazy_dev_open(0), &host);
    for (int i = 0; i < 2; i++) {
        const int64_t row = glm_params_find(&r[i].params, GLM_FC1_WEIGHT, 1);
        assert_ok(train_all(&r[i]));
        assert_ok(optim_step(r[i].optim, &r[i].grads, 1e-3, 0.9, 21));
        assert_ok(optim_read_state(r[i].optim, read[i], OPTIM_EXP_AVG, row, 0, 2048));
        state_rig_close(&r[i]);
    }
    assert_memory_equal(read[0], read[1], sizeof read[0]);
}

/* A queue that does not wait is noticed by the test above: in each of the three something is
 * needed. */
static void test_queues_that_do_not_wait(void **state)
{
    (void)state;
    const struct optim_format host = on_host(formats[0], 4096);
    struct state_rig want, got;
    state_rig_open(&want, state_rig_cpu(), &formats[0]);
    assert_ok(train_all(&want));
    for (int queue = 0; queue < DEV_QUEUES; queue++) {
        bool noticed = false;
        for (uint64_t seed = 0; seed < 4; seed++) {
            state_rig_open(&got, lazy_dev_open(seed), &host);
            lazy_dev_deafen(got.dev, (enum dev_queue)queue);
            assert_ok(train_all(&got));
            noticed = noticed || !state_rig_same(&want, &got);
            state_rig_close(&got);
        }
        if (!noticed) fail_msg("queue %d waits for nothing, and nothing changes", queue);
    }
    state_rig_close(&want);
}

/* Whatever fails in a queue comes out as its error, and closing afterwards is safe. */
static void test_queued_work_that_fails(void **state)
{
    (void)state;
    const struct optim_format host = on_host(formats[0], 8192);
    for (int64_t n = 1; n < 60; n += 7) {
        struct state_rig r;
        state_rig_open(&r, lazy_dev_open((uint64_t)n), &host);
        lazy_dev_fail(r.dev, n);
        assert_err(train_all(&r), CUDA, "queued earlier failed");
        state_rig_close(&r);
    }
}

/* ---- reading and writing state ---- */

static void test_state_in_parts(void **state)
{
    (void)state;
    for (int64_t f = 0; f < FORMATS; f++) {
        struct state_rig r;
        const struct optim_format host = on_host(formats[f], 1024);
        state_rig_open(&r, state_rig_cpu(), &host);
        const int64_t row = glm_params_find(&r.params, GLM_FC1_WEIGHT, 1);
        const bool coded = formats[f].moments == OPTIM_MOMENTS_8BIT;
        const enum optim_part part = coded ? OPTIM_EXP_AVG_ABSMAX : OPTIM_EXP_AVG;
        const int64_t count =
            optim_part_count(&optim_plan_of(r.optim)->format, &r.params.row[row], part);
        assert_int_equal(count, coded ? 2048 / ADAMW_BLOCK : 2048);
        float values[2048], back[2048];
        for (int64_t i = 0; i < count; i++) values[i] = (float)i + 0.5f;
        for (int64_t at = 0; at < count; at += 3) /* in threes, over the ends of pieces */
            assert_ok(
                optim_write_state(r.optim, part, row, at, values + at, min_i64(3, count - at)));
        assert_ok(optim_read_state(r.optim, back, part, row, 0, count));
        assert_memory_equal(values, back, (size_t)count * sizeof *values);
        assert_ok(optim_read_state(r.optim, back, part, row, count / 2, 4));
        assert_memory_equal(values + count / 2, back, 4 * sizeof *values);

        int64_t all;
        double *everything = micro_state(r.optim, part, &all), sum = 0.0;
        for (int64_t i = 0; i < all; i++) sum += everything[i];
        assert_true(sum == 0.5 * (double)(count * count)); /* nothing else was written */
        free(everything);
        state_rig_close(&r);
    }
}

static void test_bytes_are_what_is_allocated(void **state)
{
    (void)state;
    for (int64_t f = 0; f < FORMATS; f++) {
        for (int place = 0; place < OPTIM_PLACES; place++) {
            struct state_rig r;
            struct optim_format format = formats[f];
            format.place = (enum optim_place)place;
            state_rig_open(&r, state_rig_cpu(), &format);
            const int64_t arenas =
                r.layout.element_count * (dtype_bytes(format.weights) + dtype_bytes(DTYPE_F32));
            assert_int_equal(r.dev->stats.alloc_bytes - arenas,
                             optim_plan_of(r.optim)->bytes[OPTIM_ON_DEVICE]);
            const int64_t allocations = r.dev->stats.alloc_count;
            assert_ok(train_all(&r));
            assert_int_equal(r.dev->stats.alloc_count, allocations);
            state_rig_close(&r);
        }
    }
}

/* ---- how far weights move ---- */

/* Every matrix times 1.25 is a change of 0.25, exactly so in bf16; nothing is one of 0. */
static void test_drift(void **state)
{
    (void)state;
    for (int64_t f = 0; f < FORMATS; f++) {
        struct state_rig r;
        struct drift *drift;
        double change = NAN;
        state_rig_open(&r, state_rig_cpu(), &formats[f]);
        const int64_t bytes = dtype_bytes(r.weights.dtype);
        for (int64_t i = 0; i < tensor_count(&r.weights); i++) ref_put(&r.weights, i, 0.5);
        assert_ok(drift_open(&drift, optim_target(r.optim)));
        assert_ok(drift_measure(drift, &change));
        assert_true(change == 0.0);
        for (int64_t i = 0; i < tensor_count(&r.weights); i++) ref_put(&r.weights, i, 0.625);
        assert_ok(drift_measure(drift, &change));
        assert_true(change == 0.25);
        memset(r.weights.data, 0, (size_t)(tensor_count(&r.weights) * bytes));
        assert_ok(drift_measure(drift, &change));
        assert_true(change == 1.0);
        assert_ok(drift_measure(drift, &change));
        assert_true(change == 0.0); /* all weights are 0 */
        drift_close(drift);
        state_rig_close(&r);
    }
    drift_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plans_cover_the_table),
        cmocka_unit_test(test_bytes_of_the_published_model),
        cmocka_unit_test(test_plans_that_cannot_be),
        cmocka_unit_test(test_places_have_the_same_bits),
        cmocka_unit_test(test_queues_in_any_order),
        cmocka_unit_test(test_reading_waits),
        cmocka_unit_test(test_queues_that_do_not_wait),
        cmocka_unit_test(test_queued_work_that_fails),
        cmocka_unit_test(test_state_in_parts),
        cmocka_unit_test(test_bytes_are_what_is_allocated),
        cmocka_unit_test(test_drift),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
