/* Gradients of lanes spread over ranks: the owners' sums are those of one rank, to the bit. */
#include "ranks_fixture.h"
#include "train_fixture.h"

#include "base/num.h"
#include "train/exchange.h"

#include <stdlib.h>
#include <string.h>

struct job {
    int64_t lanes, piece;
    bool integers; /* else values whose sum depends on the order */
};

static float value_of(const struct job *job, int64_t lane, int64_t e)
{
    const uint32_t mixed = (uint32_t)(e * 2654435761u + (uint64_t)lane * 40503u * 65537u) >> 8;
    if (job->integers) return (float)((int32_t)(mixed % 2001) - 1000);
    return (float)mixed / (float)(1 + lane * lane * 977);
}

static void fill(const struct tensor *t, const struct job *job, int64_t lane)
{
    float *x = t->data;
    for (int64_t e = 0; e < tensor_count(t); e++) x[e] += value_of(job, lane, e);
}

static void run_lanes(struct lanes *lanes, const struct job *job, int64_t first, int64_t end)
{
    for (int64_t lane = first; lane < end; lane++) {
        struct tensor grads;
        assert_ok(lanes_begin(lanes, &grads));
        fill(&grads, job, lane);
        assert_ok(lanes_end(lanes));
    }
}

struct rig {
    struct dev *dev;
    struct glm_params params;
    struct glm_layout layout;
    struct owner owner;
    struct lanes lanes, all; /* this rank's; all of them, to compare with */
};

static void rig_open(struct rig *r, struct comm *comm, const struct job *job)
{
    const struct lanes_node mine = lanes_of_rank(job->lanes, comm_rank(comm), comm_size(comm));
    struct glm_config config = micro_config();
    assert_ok(dev_open(&r->dev, "cpu", 1));
    assert_ok(glm_params_create(&r->params, &config));
    assert_ok(glm_layout_create(&r->layout, &r->params, 1, 0));
    assert_ok(owner_create(&r->owner, &r->params, &r->layout, comm_size(comm)));
    assert_ok(lanes_init(&r->lanes, r->dev, job->lanes, mine.begin, mine.end,
                         r->layout.element_count, DTYPE_F32));
    assert_ok(
        lanes_init(&r->all, r->dev, job->lanes, 0, job->lanes, r->layout.element_count, DTYPE_F32));
    run_lanes(&r->lanes, job, mine.begin, mine.end);
    run_lanes(&r->all, job, 0, job->lanes);
    assert_int_equal(r->lanes.done, r->lanes.node_count);
}

static void rig_close(struct rig *r)
{
    lanes_clear(&r->lanes);
    lanes_clear(&r->all);
    owner_clear(&r->owner);
    glm_layout_clear(&r->layout);
    glm_params_clear(&r->params);
    assert_int_equal(r->dev->stats.alloc_bytes, 0);
    dev_close(r->dev);
}

/* The exact sum, for integers: no order can change it. */
static void expect_integers(const struct rig *r, const struct job *job)
{
    const float *sum = r->all.buffer[0].data;
    for (int64_t e = 0; e < r->layout.element_count; e++) {
        float want = 0.0f;
        for (int64_t lane = 0; lane < job->lanes; lane++) want += value_of(job, lane, e);
        assert_true(sum[e] == want);
    }
}

static void exchange_body(struct comm *comm, void *arg)
{
    const struct job *job = arg;
    struct rig r;
    struct exchange x;
    rig_open(&r, comm, job);
    if (job->integers) expect_integers(&r, job);
    assert_ok(exchange_open(&x, &(struct exchange_args){ .dev = r.dev,
                                                         .comm = comm,
                                                         .owner = &r.owner,
                                                         .layout = &r.layout,
                                                         .lane_count = job->lanes,
                                                         .dtype = DTYPE_F32,
                                                         .piece_elements = job->piece }));
    for (int64_t unit = r.params.unit_count - 1; unit >= 0; unit--)
        assert_ok(exchange_unit(&x, r.lanes.buffer, unit));
    assert_ok(exchange_finish(&x));
    const char *got = r.lanes.buffer[0].data, *want = r.all.buffer[0].data;
    for (int64_t unit = 0; unit < r.params.unit_count; unit++) {
        const struct owner_share *mine = owner_share(&r.owner, unit, comm_rank(comm));
        const int64_t begin = (r.layout.unit_offset[unit] + mine->begin) * 4;
        assert_memory_equal(got + begin, want + begin, (size_t)(mine->end - mine->begin) * 4);
    }
    assert_ok(exchange_spread(&x, &r.lanes.buffer[0]));
    assert_memory_equal(got, want, (size_t)r.layout.element_count * 4);
    assert_ok(comm_barrier(comm));
    exchange_close(&x);
    rig_close(&r);
}

static void test_sums(void **state)
{
    (void)state;
    const struct {
        int64_t ranks;
        struct job job;
    } cases[] = {
        { 2, { 12, 0, true } },     { 2, { 12, 992, false } },  { 3, { 12, 0, false } },
        { 4, { 12, 4096, false } }, { 4, { 12, 4096, true } },  { 3, { 3, 32 * 100, false } },
        { 2, { 2, 0, false } },     { 4, { 28, 8192, false } }, { 5, { 35, 0, false } },
        { 5, { 12, 0, false } },    { 4, { 5, 4096, false } },  { 3, { 7, 0, true } },
        { 2, { 13, 8192, false } },
    };
    for (int i = 0; i < COUNT_OF(cases); i++)
        ranks_run("shm", cases[i].ranks, exchange_body, (void *)&cases[i].job);
}

static void expect_nodes(int64_t lanes, int64_t first, int64_t end, const int64_t *want)
{
    struct lanes_node node[LANES_NODES_MAX];
    const int64_t count = lanes_nodes(node, lanes, first, end);
    for (int64_t k = 0; k < count; k++) {
        assert_int_equal(node[k].begin, want[k]);
        assert_int_equal(node[k].end, want[k + 1]);
    }
    assert_int_equal(want[count], end);
}

static void test_nodes(void **state)
{
    (void)state;
    expect_nodes(12, 0, 12, (int64_t[]){ 0, 12 });
    expect_nodes(12, 0, 6, (int64_t[]){ 0, 4, 6 });
    expect_nodes(12, 6, 12, (int64_t[]){ 6, 8, 12 });
    expect_nodes(12, 4, 8, (int64_t[]){ 4, 8 });
    expect_nodes(12, 3, 6, (int64_t[]){ 3, 4, 6 });
    expect_nodes(12, 9, 12, (int64_t[]){ 9, 10, 12 });
    expect_nodes(7, 6, 7, (int64_t[]){ 6, 7 });
    assert_int_equal(lanes_buffers(12, 0, 12), 4);
    assert_int_equal(lanes_buffers(12, 0, 6), 3);
    assert_int_equal(lanes_buffers(12, 6, 12), 4);
    assert_int_equal(lanes_buffers(12, 4, 8), 3);
    assert_int_equal(lanes_buffers(12, 9, 12), 3);
    assert_int_equal(lanes_buffers(8, 3, 4), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nodes),
        cmocka_unit_test(test_sums),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
