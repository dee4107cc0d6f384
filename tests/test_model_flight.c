/* Micro-batches in flight, and the timeline of a step. */
#include "model_fixture.h"

#include "base/trace.h"
#include "model/glm_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct sample samples[] = { { 0, 4, 9 }, { 1, 1, 5 }, { 2, 7, 8 } };
#define ROWS 32

static const char *const devices[] = { "cpu", "ref", "ref16", "emu", "emu16" };

/* ---- in flight ---- */

static void spoil(struct batch *b)
{
    memset(b->ids, 0x7f, (size_t)b->glm.rows * sizeof *b->ids);
    memset(b->pos, 0x7f, (size_t)b->glm.rows * sizeof *b->pos);
    memset(b->block, 0x7f, (size_t)b->glm.rows * sizeof *b->block);
    memset(b->order, 0x7f, (size_t)b->glm.rows * sizeof *b->order);
    memset(b->segments, 0x7f, (size_t)b->glm.segment_count * sizeof *b->segments);
    memset(b->labels, 0x7f, (size_t)b->glm.target_count * sizeof *b->labels);
    memset(b->target_rows, 0x7f, (size_t)b->glm.target_count * sizeof *b->target_rows);
    memset(b->weights, 0x7f, (size_t)b->glm.target_count * sizeof *b->weights);
}

/* Micro-batches of one sample each; two in flight give what one after the other gives, even if the
 * batch is destroyed as soon as begin returns. */
static void check_tickets(const char *device)
{
    const struct glm_config config = tiny_config(true);
    const struct glm_options options = tiny_options(ROWS);
    struct rig single, two;
    double nll[2][3][ROWS] = { { { 0 } } };
    int ticket[3];
    rig_open(&single, device, 2, &config, &options);
    rig_open(&two, device, 2, &config, &options);
    rig_randomize(&single, 5);
    rig_randomize(&two, 5);
    const struct glm_grads a = { .arena = single.grads }, b = { .arena = two.grads };
    for (int i = 0; i < 3; i++) {
        struct batch batch;
        batch_make(&batch, samples + i, 1, i);
        assert_ok(glm_train_micro(single.glm, &batch.glm, &a, nll[0][i]));
        if (i == 2) assert_ok(glm_train_end(two.glm, ticket[0], nll[1][0]));
        assert_ok(glm_train_begin(two.glm, &ticket[i], &batch.glm, &b));
        spoil(&batch);
        batch_clear(&batch);
    }
    assert_ok(glm_train_end(two.glm, ticket[1], nll[1][1]));
    assert_ok(glm_train_end(two.glm, ticket[2], nll[1][2]));
    assert_memory_equal(nll[0], nll[1], sizeof nll[0]);
    double *ga = rig_copy(&single, &single.grads), *gb = rig_copy(&two, &two.grads);
    assert_memory_equal(ga, gb, (size_t)tensor_count(&two.grads) * sizeof *gb);
    free(ga);
    free(gb);
    rig_close(&single);
    rig_close(&two);
}

static void test_tickets(void **state)
{
    (void)state;
    for (int64_t d = 0; d < COUNT_OF(devices); d++)
        if (rig_has(devices[d])) check_tickets(devices[d]);
}

static void test_ticket_order(void **state)
{
    (void)state;
    const struct glm_config config = tiny_config(true);
    const struct glm_options options = tiny_options(ROWS);
    struct rig rig;
    struct batch batch, empty;
    double nll[ROWS];
    int first, second, third;
    rig_open(&rig, "cpu", 1, &config, &options);
    rig_randomize(&rig, 5);
    batch_make(&batch, samples, 1, 0);
    batch_make(&empty, samples, 1, 0);
    empty.glm.target_count = 0;
    const struct glm_grads grads = { .arena = rig.grads };
    assert_err(glm_train_end(rig.glm, 0, nll), ARG, "ticket 0 is not the oldest");
    assert_ok(glm_train_begin(rig.glm, &first, &batch.glm, &grads));
    assert_ok(glm_train_begin(rig.glm, &second, &empty.glm, &grads));
    assert_int_not_equal(first, second);
    assert_err(glm_train_begin(rig.glm, &third, &batch.glm, &grads), ARG, "2 micro-batches are in");
    assert_int_equal(third, -1);
    assert_err(glm_train_end(rig.glm, second, nll), ARG, "is not the oldest");
    assert_err(glm_train_end(rig.glm, 12, nll), ARG, "ticket 12");
    assert_ok(glm_train_end(rig.glm, first, nll));
    assert_ok(glm_train_end(rig.glm, second, nll));
    assert_err(glm_train_end(rig.glm, first, nll), ARG, "is not the oldest");
    /* One without targets takes its turn like any other. */
    assert_ok(glm_train_begin(rig.glm, &first, &empty.glm, &grads));
    assert_ok(glm_train_begin(rig.glm, &second, &batch.glm, &grads));
    assert_ok(glm_train_end(rig.glm, first, nll));
    assert_ok(glm_train_end(rig.glm, second, nll));

    /* A batch that is refused opens no ticket. */
    batch.ids[0] = -1;
    assert_err(glm_train_begin(rig.glm, &first, &batch.glm, &grads), ARG, "token id");
    batch.ids[0] = 0;
    batch_sort(&batch);
    assert_ok(glm_train_begin(rig.glm, &first, &batch.glm, &grads));
    batch_clear(&batch);
    batch_clear(&empty);
    rig_close(&rig); /* with a ticket open */
}

/* ---- a device that is busy ---- */

/* The reference device whose copies to the host arrive only when somebody waits for the event after
 * them. */
struct lazy {
    struct dev_memory memory;
    const char *batch; /* the model's batch buffers */
    int64_t batch_bytes;
    void *to;
    const void *from;
    int64_t bytes, waits, syncs, transfers;
};

static struct lazy *lazy_of(const struct dev *dev) { return dev->state; }

static err_t lazy_copy(struct dev *dev, enum dev_queue queue, void *to, const void *from,
                       int64_t bytes)
{
    struct lazy *l = lazy_of(dev);
    assert_int_equal(queue, DEV_COMPUTE); /* in the order of the operators */
    if ((char *)to >= l->batch && (char *)to < l->batch + l->batch_bytes) {
        memcpy(to, from, (size_t)bytes);
        return ERR_OK;
    }
    assert_null(l->to); /* one copy back */
    l->to = to;
    l->from = from;
    l->bytes = bytes;
    return ERR_OK;
}

static err_t lazy_event_sync(struct dev *dev, struct dev_event *event)
{
    struct lazy *l = lazy_of(dev);
    (void)event;
    l->waits++;
    memcpy(l->to, l->from, (size_t)l->bytes);
    l->to = NULL;
    return ERR_OK;
}

static err_t lazy_sync(struct dev *dev)
{
    lazy_of(dev)->syncs++;
    return ERR_OK;
}

static err_t lazy_transfer(struct dev *dev, void *to, const void *from, int64_t bytes)
{
    lazy_of(dev)->transfers++;
    memcpy(to, from, (size_t)bytes);
    return ERR_OK;
}

/* begin calls nothing that may wait, and uploads may; end waits for the event and nothing else. */
static void test_begin_does_not_wait(void **state)
{
    (void)state;
    const struct glm_config config = tiny_config(true);
    const struct glm_options options = tiny_options(ROWS);
    struct rig rig;
    struct batch batch;
    struct lazy lazy = { .to = NULL };
    double expected[ROWS] = { 0 }, nll[ROWS] = { 0 };
    int ticket;
    rig_open(&rig, "ref", 1, &config, &options);
    rig_randomize(&rig, 5);
    batch_make(&batch, samples, COUNT_OF(samples), 0);
    assert_ok(glm_eval_micro(rig.glm, &batch.glm, expected));

    lazy.memory = *rig.dev->memory;
    lazy.memory.copy = lazy_copy;
    lazy.memory.event_sync = lazy_event_sync;
    lazy.memory.sync = lazy_sync;
    lazy.memory.upload = lazy_transfer;
    lazy.memory.download = lazy_transfer;
    lazy.batch = rig.glm->memory[GLM_BUF_BATCH];
    lazy.batch_bytes = rig.glm->plan.class_bytes[GLM_BUF_BATCH];
    rig.dev->memory = &lazy.memory;
    rig.dev->state = &lazy;
    const struct glm_grads grads = { .arena = rig.grads };
    assert_ok(glm_train_begin(rig.glm, &ticket, &batch.glm, &grads));
    assert_int_equal(lazy.waits + lazy.syncs + lazy.transfers, 0);
    assert_ok(glm_train_end(rig.glm, ticket, nll));
    assert_int_equal(lazy.waits, 1);
    assert_int_equal(lazy.syncs + lazy.transfers, 0);
    assert_memory_equal(nll, expected, sizeof nll);

    /* Closing waits only for what is still in flight. */
    assert_ok(glm_train_begin(rig.glm, &ticket, &batch.glm, &grads));
    glm_close(rig.glm);
    rig.glm = NULL;
    assert_int_equal(lazy.syncs, 1);
    batch_clear(&batch);
    rig_close(&rig);
}

/* ---- the timeline ---- */

#define SPANS_MAX 256

struct span {
    char name[32];
    double begin_us, end_us;
};

/* How many spans of this name there are, and how many of them lie inside one of the outer name. */
static void count_spans(int *all, int *inside, const struct span *spans, int count,
                        const char *name, const char *outer)
{
    const double slack = 0.002; /* times are written in thousandths of a microsecond */
    *all = *inside = 0;
    for (int i = 0; i < count; i++) {
        if (strcmp(spans[i].name, name) != 0) continue;
        bool found = false;
        for (int k = 0; k < count && !found; k++)
            found = strcmp(spans[k].name, outer) == 0 &&
                    spans[k].begin_us <= spans[i].begin_us + slack &&
                    spans[k].end_us >= spans[i].end_us - slack;
        *all += 1;
        *inside += found;
    }
}

static int read_spans(struct span spans[SPANS_MAX], const char *path)
{
    int count = 0;
    char line[256];
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        struct span s = { .begin_us = 0 };
        double duration_us;
        if (sscanf(line, "{\"name\":\"%31[a-z_]\",\"ph\":\"X\",\"ts\":%lf,\"dur\":%lf", s.name,
                   &s.begin_us, &duration_us) != 3)
            continue;
        assert_true(count < SPANS_MAX);
        s.end_us = s.begin_us + duration_us;
        spans[count++] = s;
    }
    fclose(file);
    return count;
}

/* Operators lie in layers, layers in passes, passes in micro-batches. */
static void test_timeline(void **state)
{
    (void)state;
    static const struct {
        const char *name, *outer;
        int count;
    } expected[] = {
        { "forward", "micro_batch", 1 },
        { "backward", "micro_batch", 1 },
        { "embedding", "forward", 1 },
        { "layer", "forward", 3 },
        { "head", "backward", 1 },
        { "layer_bwd", "backward", 3 },
        { "layer_again", "layer_bwd", 3 },
        { "embedding_bwd", "backward", 1 },
        { "embed_fwd", "embedding", 1 },
        { "embed_bwd", "embedding_bwd", 1 },
        { "linear_ce", "head", 1 },
        { "attn_bwd", "layer_bwd", 3 },
        { "wait_for_losses", "whole_test", 1 },
    };
    struct glm_config config = tiny_config(true);
    struct glm_options options = tiny_options(ROWS);
    struct span spans[SPANS_MAX];
    struct rig rig;
    struct batch batch;
    char path[256];
    snprintf(path, sizeof path, "%s/trace.json", testing_dir());
    config.layer_count = 3;
    options.activations = GLM_RECOMPUTE;
    assert_ok(trace_open(path));
    struct trace_span whole = trace_begin("whole_test");
    rig_open(&rig, "cpu", 1, &config, &options); /* planning leaves no spans */
    rig_randomize(&rig, 5);
    batch_make(&batch, samples, COUNT_OF(samples), 0);
    rig_train(&rig, &batch.glm);
    trace_end(&whole);
    trace_close();
    const int count = read_spans(spans, path);
    for (int64_t i = 0; i < COUNT_OF(expected); i++) {
        int all, inside;
        count_spans(&all, &inside, spans, count, expected[i].name, expected[i].outer);
        assert_int_equal(all, expected[i].count);
        assert_int_equal(inside, expected[i].count);
    }
    batch_clear(&batch);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tickets),
        cmocka_unit_test(test_ticket_order),
        cmocka_unit_test(test_begin_does_not_wait),
        cmocka_unit_test(test_timeline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
