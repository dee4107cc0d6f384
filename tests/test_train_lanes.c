/* lanes.h: the sum of lanes has the bits of the tree in its header, for every number of lanes. */
#include "testing.h"

#include "base/check.h"
#include "base/rng.h"
#include "train/lanes.h"

#include <math.h>
#include <string.h>

#define COUNT    37 /* elements, not a multiple of any vector width */
#define LANE_MAX 17

/* Values of very different size, so that another order of adding gives other bits. */
static float value(int64_t lane, int64_t i)
{
    const uint64_t index = (uint64_t)(lane * COUNT + i);
    const double spread = exp(8.0 * rng_normal(5, RNG_TEST, 1000000 + index));
    return (float)(spread * rng_normal(5, RNG_TEST, index));
}

/* The definition: sum(a,b) = sum(a,m) + sum(m,b), m = a + the largest power of two below b-a. */
static float tree_sum(int64_t a, int64_t b, int64_t i)
{
    if (b - a == 1) return value(a, i);
    int64_t half = 1;
    while (2 * half < b - a) half *= 2;
    return tree_sum(a, a + half, i) + tree_sum(a + half, b, i);
}

static float plain_sum(int64_t lanes, int64_t i)
{
    float sum = 0.0f;
    for (int64_t lane = 0; lane < lanes; lane++) sum += value(lane, i);
    return sum;
}

static void run_lanes(float *out, struct lanes *lanes, int64_t count)
{
    struct tensor grads;
    for (int64_t lane = 0; lane < count; lane++) {
        assert_ok(lanes_begin(lanes, &grads));
        float *x = grads.data;
        for (int64_t i = 0; i < COUNT; i++) assert_true(x[i] == 0.0f);
        for (int64_t i = 0; i < COUNT; i++) x[i] += value(lane, i);
        assert_ok(lanes_end(lanes));
    }
    assert_ok(lanes_sum(lanes, &grads));
    assert_int_equal(tensor_count(&grads), COUNT);
    memcpy(out, grads.data, COUNT * sizeof *out);
}

/* The largest power of two below the width. */
static void test_cuts(void **state)
{
    (void)state;
    static const struct {
        struct lanes_node node;
        int64_t cut;
    } cases[] = { { { 0, 2 }, 1 },  { { 0, 3 }, 2 },   { { 0, 4 }, 2 },   { { 0, 5 }, 4 },
                  { { 0, 12 }, 8 }, { { 8, 12 }, 10 }, { { 16, 33 }, 32 } };
    for (int64_t i = 0; i < COUNT_OF(cases); i++)
        assert_int_equal(lanes_cut(&cases[i].node), cases[i].cut);
}

/* The nodes of 12 lanes on 1, 2, 3 and 4 ranks. */
static void test_nodes(void **state)
{
    (void)state;
    static const struct {
        int64_t first, end, count;
        struct lanes_node node[2];
    } cases[] = {
        { 0, 12, 1, { { 0, 12 } } },           { 0, 6, 2, { { 0, 4 }, { 4, 6 } } },
        { 6, 12, 2, { { 6, 8 }, { 8, 12 } } }, { 4, 8, 1, { { 4, 8 } } },
        { 3, 6, 2, { { 3, 4 }, { 4, 6 } } },
    };
    for (int64_t i = 0; i < COUNT_OF(cases); i++) {
        struct lanes_node got[LANES_NODES_MAX];
        const int64_t count = lanes_nodes(got, 12, cases[i].first, cases[i].end);
        assert_int_equal(count, cases[i].count);
        assert_memory_equal(got, cases[i].node, (size_t)count * sizeof *got);
    }
}

static void test_tree(void **state)
{
    (void)state;
    struct dev *dev;
    int64_t other_bits = 0;
    assert_ok(dev_open(&dev, "cpu", 1));
    for (int64_t count = 1; count <= LANE_MAX; count++) {
        struct lanes lanes;
        float got[COUNT], again[COUNT];
        int64_t log2_count = 0;
        while ((2 << log2_count) <= count) log2_count++;
        assert_ok(lanes_init(&lanes, dev, count, 0, count, COUNT, DTYPE_F32));
        assert_int_equal(lanes.buffer_count, log2_count + 1);
        run_lanes(got, &lanes, count);
        run_lanes(again, &lanes, count);
        for (int64_t i = 0; i < COUNT; i++) {
            const float want = tree_sum(0, count, i), plain = plain_sum(count, i);
            assert_memory_equal(&got[i], &want, sizeof want);
            assert_memory_equal(&again[i], &want, sizeof want);
            if (memcmp(&plain, &want, sizeof want) != 0) other_bits++;
        }
        lanes_clear(&lanes);
        assert_int_equal(dev->stats.alloc_bytes, 0);
    }
    assert_true(other_bits > 100); /* else the values could not tell one order from another */
    dev_close(dev);
}

/* A step that was given up leaves nothing in the next one. */
static void test_reset(void **state)
{
    (void)state;
    struct dev *dev;
    struct lanes lanes;
    struct tensor grads;
    float got[COUNT];
    assert_ok(dev_open(&dev, "cpu", 1));
    assert_ok(lanes_init(&lanes, dev, 5, 0, 5, COUNT, DTYPE_F32));
    for (int lane = 0; lane < 3; lane++) {
        assert_ok(lanes_begin(&lanes, &grads));
        memset(grads.data, 0x7f, COUNT * sizeof(float));
        if (lane < 2) assert_ok(lanes_end(&lanes));
    }
    lanes_reset(&lanes);
    run_lanes(got, &lanes, 5);
    for (int64_t i = 0; i < COUNT; i++) assert_true(got[i] == tree_sum(0, 5, i));
    lanes_clear(&lanes);
    dev_close(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_nodes),
        cmocka_unit_test(test_tree),
        cmocka_unit_test(test_reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
