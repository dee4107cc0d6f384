/* The model of a step on n ranks: its bytes are those that a communicator counts; its clock gives
 * what sums by hand do. */
#include "plan_fixture.h"
#include "ranks_fixture.h"
#include "train_fixture.h"

#include "base/num.h"
#include "kernels/dev.h"
#include "train/scale.h"
#include "train/step.h"
#include "train/zero_memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STEPS      3
#define RANKS_MOST 6

/* ---- bytes, against what is sent ---- */

struct job {
    const char *zero, *lanes;
    int64_t layers;
    const char *more[8]; /* settings: key, value, ... */
};

struct errand {
    const struct job *job;
    struct cfg *cfg;
    int64_t machine_size; /* of emulated GPUs; 0: CPU ranks, which gather in one level */
    struct scale *scale;  /* [ranks] of the last step, shared */
    uint8_t blob[COMM_BLOB_BYTES];
};

static int64_t passes_of(const struct run *run, const int64_t *micro_count)
{
    int64_t most = 0;
    for (int64_t r = 0; r < run->zero.size; r++) {
        const struct lanes_node its = lanes_of_rank(run->batch.lanes, r, run->zero.size);
        int64_t passes = 0;
        for (int64_t lane = its.begin; lane < its.end; lane++) passes += micro_count[lane];
        most = max_i64(most, passes);
    }
    return most;
}

static void train(struct comm *comm, void *arg)
{
    const struct errand *errand = arg;
    struct step_memory memory = { 0 };
    struct run run;
    struct glm_config config = micro_config();
    const int64_t machine_size = errand->machine_size;
    /* Of 3 and 1 CPU ranks, the model lets gathers go straight. */
    const struct fabric fabric = { machine_size > 0 ? machine_size : 3, 1, 1, 0 };
    config.layer_count = errand->job->layers;
    micro_run_open_ranked(&run, errand->cfg, "cpu", &config, comm);
    for (int64_t step = 0; step < STEPS; step++) {
        const struct comm_stats before = comm_stats(comm);
        struct step_result result;
        struct scale *scale = &errand->scale[comm_rank(comm)];
        assert_ok(step_run(&run, &memory, &result, step));
        run.state.updates++;
        const struct comm_stats after = comm_stats(comm);
        assert_ok(scale_step(scale, &(struct scale_args){
                                        .config = &config,
                                        .vocab_multiple = glm_vocab_multiple(0),
                                        .ranks = comm_size(comm),
                                        .rank = comm_rank(comm),
                                        .lanes = run.batch.lanes,
                                        .stage = run.zero.stage,
                                        .weights = DTYPE_F32,
                                        .grads = DTYPE_F32,
                                        .passes = passes_of(&run, result.plan.micro_count),
                                        .samples = result.plan.sample_count,
                                        .fabric = fabric,
                                    }));
        assert_int_equal(after.sent_bytes - before.sent_bytes, scale->sent_bytes);
        assert_int_equal(after.received_bytes - before.received_bytes, scale->received_bytes);
        if (machine_size > 0)
            assert_int_equal(after.far_bytes - before.far_bytes, scale->inter_bytes);
    }
    assert_ok(comm_barrier(comm));
    step_memory_clear(&memory);
    micro_run_close(&run);
}

/* Emulated GPUs exchange, over a fake NCCL; the memory is the host's, so processors compute. */
static void train_over_nccl(int64_t rank, int64_t size, void *arg)
{
    struct errand *errand = arg;
    struct comm *comm;
    struct comm_args args = { .kind = "nccl",
                              .rank = rank,
                              .size = size,
                              .machine_size = errand->machine_size,
                              .timeout_s = RANKS_LIMIT_S / 2 };
    memcpy(args.blob, errand->blob, sizeof args.blob);
    assert_ok(dev_open(&args.dev, "emu", 1));
    assert_ok(comm_open(&comm, &args));
    train(comm, errand);
    comm_close(comm);
    dev_close(args.dev);
}

static void run_over_nccl(int64_t ranks, struct errand *errand)
{
    int status[RANKS_MOST];
    struct dev *dev;
    assert_in_range(ranks, 1, RANKS_MOST);
    assert_ok(dev_open(&dev, "emu", 1));
    assert_ok(comm_invite(errand->blob, "nccl", ranks, dev));
    dev_close(dev);
    ranks_fork(status, ranks, train_over_nccl, errand);
    for (int64_t r = 0; r < ranks; r++) assert_int_equal(status[r], 0);
}

/* Every rank's bytes are checked where it runs; between them, none is lost. */
static void check_bytes(const struct job *job, int64_t ranks, int64_t machine_size)
{
    struct errand errand = { .job = job,
                             .cfg = micro_cfg("corpus", "run"),
                             .machine_size = machine_size,
                             .scale = ranks_shared(ranks * (int64_t)sizeof *errand.scale) };
    int64_t sent[SCALE_KINDS] = { 0 }, received[SCALE_KINDS] = { 0 };
    micro_set(errand.cfg, "batch.size", "24");
    micro_set(errand.cfg, "batch.micro_tokens", "128");
    micro_set(errand.cfg, "batch.lanes", job->lanes);
    micro_set(errand.cfg, "train.zero", job->zero);
    for (int i = 0; i < COUNT_OF(job->more) && job->more[i] != NULL; i += 2)
        micro_set(errand.cfg, job->more[i], job->more[i + 1]);
    if (machine_size > 0)
        run_over_nccl(ranks, &errand);
    else
        ranks_run(ranks == 1 ? "self" : "shm", ranks, train, &errand);
    for (int64_t r = 0; r < ranks; r++)
        for (int k = 0; k < SCALE_KINDS; k++) {
            sent[k] += errand.scale[r].sent[k];
            received[k] += errand.scale[r].received[k];
        }
    for (int k = 0; k < SCALE_KINDS; k++) assert_int_equal(sent[k], received[k]);
    assert_true((sent[SCALE_GRADIENTS] > 0) == (ranks > 1));
    assert_true((sent[SCALE_FETCHED] > 0) == (ranks > 1 && strcmp(job->zero, "3") == 0));
    cfg_close(errand.cfg);
}

static void test_bytes_are_counted(void **state)
{
    (void)state;
    static const char *const stages[] = { "0", "1", "2", "3" };
    static const char *const each[] = { "1", "2", "3", "4" };
    for (int64_t ranks = 1; ranks <= 4; ranks++)
        for (int s = 0; s < 4; s++) {
            check_bytes(&(struct job){ stages[s], "12", 5, { NULL } }, ranks, 0);
            check_bytes(&(struct job){ stages[s], each[ranks - 1], 5, { NULL } }, ranks, 0);
        }
}

/* Fewer layers than slots; ranks that have nothing to do at the end of an epoch; layers computed
 * twice. */
static void test_bytes_of_odd_runs(void **state)
{
    (void)state;
    check_bytes(&(struct job){ "3", "2", 1, { NULL } }, 2, 0);
    check_bytes(&(struct job){ "1", "7", 2, { NULL } }, 3, 0);
    check_bytes(&(struct job){ "3", "5", 5, { NULL } }, 4, 0);
    check_bytes(&(struct job){ "3", "2", 2, { NULL } }, 2, 0);
    check_bytes(&(struct job){ "3", "4", 3, { "train.activations", "recompute" } }, 4, 0);
    check_bytes(
        &(struct job){
            "3", "3", 5, { "batch.unit", "tokens", "batch.size", "512", "batch.pack_len", "128" } },
        3, 0);
}

/* Machines of two and three; with more lanes than ranks; where no machine has two. */
static void test_bytes_between_machines(void **state)
{
    (void)state;
    static const char *const stages[] = { "0", "1", "2", "3" };
    for (int s = 0; s < 4; s++) check_bytes(&(struct job){ stages[s], "4", 5, { NULL } }, 4, 2);
    check_bytes(&(struct job){ "3", "6", 3, { NULL } }, 6, 2);
    check_bytes(&(struct job){ "2", "12", 2, { NULL } }, 6, 3);
    check_bytes(&(struct job){ "2", "3", 2, { NULL } }, 3, 1);
}

/* ---- against sums by hand ---- */

/* Two ranks of two machines and ChatGLM-6B, of which each owns one half, give or take chunks. */
#define EMBED   (INT64_C(130560) * 4096)
#define LAYER   INT64_C(201392128)
#define END     INT64_C(16384)
#define N       (EMBED + 28 * LAYER + END)
#define LINK    10e9
#define FORWARD 1.4
#define HEAD    0.1
#define BACK    2.8

static struct scale of_fabric(int stage, int64_t ranks, int64_t lanes, int64_t passes,
                              struct fabric fabric)
{
    const struct glm_config config = plan_6b(true);
    struct scale scale;
    assert_ok(scale_step(&scale, &(struct scale_args){ .config = &config,
                                                       .vocab_multiple = glm_vocab_multiple(90),
                                                       .ranks = ranks,
                                                       .rank = ranks - 1,
                                                       .lanes = lanes,
                                                       .stage = stage,
                                                       .weights = DTYPE_BF16,
                                                       .grads = DTYPE_F32,
                                                       .passes = passes,
                                                       .samples = 0,
                                                       .fabric = fabric,
                                                       .forward_s = FORWARD,
                                                       .head_s = HEAD,
                                                       .backward_s = BACK }));
    return scale;
}

static struct scale of_6b(int stage, int64_t ranks, int64_t lanes, int64_t passes, double link)
{
    return of_fabric(stage, ranks, lanes, passes, (struct fabric){ 1, link, link, 0 });
}

static void expect_near(double got, double want, double part)
{
    if (fabs(got - want) > part * want) fail_msg("%.6g; expected %.6g", got, want);
}

/* Shares are whole chunks, and those of norms and biases, nine rows of a layer, are not full: what
 * a rank owns of a unit is its part to within ten chunks. */
static void expect_within(int64_t bytes, double want, double chunks_of_unit)
{
    const double slack = 30 * chunks_of_unit * 16384 * 4;
    if (fabs((double)bytes - want) > slack)
        fail_msg("%lld bytes; expected %.0f", (long long)bytes, want);
}

static void test_volume_of_6b(void **state)
{
    (void)state;
    for (int64_t n = 2; n <= 512; n *= 2) {
        const double part = (double)(n - 1) / (double)n, others = (double)(n - 1);
        struct scale s = of_6b(0, n, n, 1, LINK);
        expect_within(s.sent[SCALE_GRADIENTS], 4 * N * part, 10);
        expect_within(s.received[SCALE_GRADIENTS], 4 * N * part, 10 * others);
        expect_within(s.sent[SCALE_SPREAD], 4 * N * part, 10 * others);
        expect_within(s.received[SCALE_SPREAD], 4 * N * part, 10);
        assert_int_equal(s.sent[SCALE_SCALARS], 0);
        s = of_6b(2, n, n, 1, LINK);
        expect_within(s.received[SCALE_SPREAD], 2 * N * part, 10);
        assert_int_equal(s.inter_bytes, s.sent_bytes);
        s = of_6b(3, n, n, 4, LINK); /* 28 and 26 layers, then 26 and 26 three times */
        expect_within(s.received[SCALE_FETCHED], 2.0 * (54 + 3 * 52) * LAYER * part, 10 * 8);
        expect_within(s.received[SCALE_SPREAD], 2.0 * (EMBED + END) * part, 1);
    }
    /* 12 lanes: two ranks send two sums each. */
    expect_within(of_6b(1, 2, 12, 1, LINK).sent[SCALE_GRADIENTS], 2 * 4 * N / 2.0, 20);
}

/* Nothing is hidden in stages 0 and 1, nor with several lanes. In stage 2, with links that are
 * faster than a layer's computation: what comes after the pass. */
static void test_waiting(void **state)
{
    (void)state;
    const double half = 4 * N / 2.0 / LINK, spread = 2 * N / 2.0 / LINK;
    struct scale s = of_6b(1, 2, 2, 1, LINK);
    expect_near(s.exposed_s, half + spread, 1e-3);
    expect_near(s.exchange_s, s.exposed_s, 1e-3);
    s = of_6b(0, 2, 2, 1, LINK);
    expect_near(s.exposed_s, 2 * half, 1e-3);
    s = of_6b(2, 2, 4, 1, LINK);
    expect_near(s.exposed_s, half + spread, 1e-3);
    /* 0.04 s a layer against 0.1 s of computing it */
    s = of_6b(2, 2, 2, 1, LINK);
    expect_near(s.exposed_s, (4 * (EMBED + LAYER) / 2.0) / LINK + spread, 1e-3);
    /* Ten times slower: the links are busy from the first gradients on, a layer after the begin. */
    s = of_6b(2, 2, 2, 1, LINK / 10);
    expect_near(s.exposed_s, 10 * (half + spread) - BACK * 27 / 28, 1e-3);
    /* Stage 3: the first layer of the step is waited for, and what is at the end; in the last pass
     * gradients and weights share the links, and both together take less than a layer. */
    s = of_6b(3, 2, 2, 1, LINK);
    expect_near(s.exposed_s,
                (2 * LAYER / 2.0 + 4 * (EMBED + LAYER) / 2.0 + 2 * (EMBED + END) / 2.0) / LINK,
                1e-3);
}

/* Of machines of eight each card sends its part of the weights to the others of its place, and then
 * passes on what came from there. Machines of unequal numbers: straight to everyone. */
static void test_two_levels(void **state)
{
    (void)state;
    const double inter = 10e9, intra = 90e9, weights = 2.0 * N, grads = 4.0 * N;
    for (int64_t n = 8; n <= 512; n *= 2) {
        const double part = 1.0 / (double)n, machines = (double)(n / 8);
        const struct scale s = of_fabric(1, n, n, 1, (struct fabric){ 8, intra, inter, 0 });
        const double gradients = grads * part * (double)(n - 8);
        expect_within(s.received[SCALE_SPREAD], weights * part * (double)(n - 1), 10);
        expect_within(s.inter_bytes, gradients + weights * part * (machines - 1), 10 * machines);
        const double far_s = (gradients + weights * part * (machines - 1)) / inter;
        const double passed_s = weights * part * (machines - 1) * 7 / intra;
        if (n > 8 && n <= 64) expect_near(s.exposed_s, far_s + passed_s, 0.01);
    }
    struct scale s = of_fabric(1, 12, 12, 1, (struct fabric){ 8, intra, inter, 0 });
    expect_within(s.inter_bytes, (weights + grads) / 12 * 8, 10 * 8);
    s = of_fabric(1, 12, 12, 1, (struct fabric){ 4, intra, inter, 0 });
    expect_within(s.inter_bytes, grads / 12 * 8 + weights / 12 * 2, 10 * 8);
}

static void test_messages(void **state)
{
    (void)state;
    const struct fabric f = { .ranks_per_node = 8, .intra = 100, .inter = 10, .message_s = 0.5 };
    assert_true(fabric_seconds(&f, 1000, 50, 4) == 10 + 2);
    assert_true(fabric_seconds(&f, 0, 50, 0) == 5);
    /* A layer goes in one piece, the embedding in three; norm and losses are two gathers more. */
    const struct scale s = of_6b(2, 8, 8, 1, LINK);
    assert_int_equal(s.messages, 7 * (28 + 1 + 3 + 30 + 2));
    /* Two levels have as many: every piece comes once. */
    assert_int_equal(of_fabric(2, 8, 8, 1, (struct fabric){ 4, LINK, LINK, 0 }).messages,
                     s.messages);
}

static void test_alone(void **state)
{
    (void)state;
    const struct scale none = { 0 }, s = of_6b(3, 1, 1, 1, LINK);
    assert_memory_equal(&s, &none, sizeof s);
}

/* ---- links ---- */

static void test_links(void **state)
{
    (void)state;
    double rate;
    assert_ok(fabric_link(&rate, "nvlink4", "plan.intra"));
    assert_true(rate == 450e9 * 0.8);
    assert_ok(fabric_link(&rate, "10gbe", "plan.inter"));
    assert_true(rate == 1e9);
    assert_ok(fabric_link(&rate, "12.5", "plan.inter"));
    assert_true(rate == 12.5e9);
    assert_err(fabric_link(&rate, "nvlink6", "plan.intra"), USAGE, "the nearest is nvlink");
    assert_err(fabric_link(&rate, "", "plan.intra"), USAGE, "plan.intra is \"\"");
    assert_err(fabric_link(&rate, "5 GB", "plan.intra"), USAGE, "expected GB/s");
    assert_err(fabric_link(&rate, "0", "plan.intra"), USAGE, "expected 1e-6 to 1e6");
    assert_err(fabric_link(&rate, "-1", "plan.intra"), USAGE, "expected 1e-6 to 1e6");
    assert_err(fabric_link(&rate, "nan", "plan.intra"), USAGE, "expected 1e-6 to 1e6");
    assert_err(fabric_link(&rate, "1e-300", "plan.intra"), USAGE, "expected 1e-6 to 1e6");
}

/* ---- plans ---- */

static struct plan plan_on(struct plan_dev *device, int64_t ranks)
{
    struct plan p = plan_make(device, "h200");
    p.batch.lanes = p.settings.lanes = p.settings.ranks = ranks;
    p.fabric = (struct fabric){ 8, 360e9, 40e9, 5e-6 };
    return p;
}

/* What grows with the stage: nothing. The rank that memory is counted for is the widest. */
static void test_memory_of_stages(void **state)
{
    (void)state;
    struct plan_dev device;
    for (int64_t n = 2; n <= 512; n *= 4) {
        int64_t before = INT64_MAX;
        for (int stage = 0; stage <= 3; stage++) {
            struct plan p = plan_on(&device, n);
            p.settings.zero = stage;
            p.batch.size = 512;
            assert_ok(plan_compute(&p));
            assert_true(p.memory.device_bytes <= before);
            before = p.memory.device_bytes;
            assert_int_equal(p.memory.zero.parameters, INT64_C(6173286400));
            if (stage == 0) assert_int_equal(p.memory.zero.owned, p.memory.zero.parameters);
            if (stage > 0)
                expect_near((double)p.memory.zero.owned, 6173286400.0 / (double)n, 1e-3 * n);
        }
    }
}

static void test_widest(void **state)
{
    (void)state;
    struct plan_dev device;
    const int64_t cases[][2] = { { 2, 2 },  { 12, 4 }, { 12, 3 }, { 8, 8 },
                                 { 24, 8 }, { 5, 2 },  { 9, 4 } };
    for (int i = 0; i < COUNT_OF(cases); i++)
        for (int stage = 0; stage <= 3; stage++) {
            const struct plan p = plan_make(&device, "h200");
            const struct glm_options options = { .dtype = DTYPE_BF16,
                                                 .train = true,
                                                 .rows_max = 1024,
                                                 .segments_max = 16,
                                                 .targets_max = 512,
                                                 .ranks = 1 };
            const struct optim_format format = { .weights = DTYPE_BF16, .master = true };
            const struct zero_need need = { &p.config, &options, &format, cases[i][0] };
            struct zero_memory widest, other;
            assert_ok(zero_memory(&widest, &need, p.dev, stage, ZERO_WIDEST, cases[i][1]));
            for (int64_t r = 0; r < cases[i][1]; r++) {
                assert_ok(zero_memory(&other, &need, p.dev, stage, r, cases[i][1]));
                assert_true((double)other.bytes <= (double)widest.bytes * 1.0005);
            }
        }
}

/* Each rank's card says what fits it: all take the highest stage that one of them needs. On
 * processors nobody asks. */
static void choose_on_cards(struct comm *comm, void *arg)
{
    const int64_t me = comm_rank(comm);
    struct plan_dev device;
    const struct plan p = plan_make(&device, "h200");
    const struct glm_options options = { .dtype = DTYPE_BF16,
                                         .train = true,
                                         .rows_max = 64,
                                         .segments_max = 2,
                                         .targets_max = 32,
                                         .ranks = 1 };
    const struct optim_format format = { .weights = DTYPE_BF16, .master = true };
    const struct zero_need need = { &p.config, &options, &format, comm_size(comm) };
    struct zero_memory memory;
    int stage = -1;
    (void)arg;
    for (int fits = 0; fits <= 3; fits++) {
        /* Stages 1 and 2 take the same. */
        const int expected = fits == 2 ? 1 : fits;
        assert_ok(zero_memory(&memory, &need, p.dev, me == 1 ? fits : 0, me, comm_size(comm)));
        p.dev->info.memory_free_bytes = (int64_t)((double)memory.bytes / (1.0 - ZERO_SPARE)) + 1;
        assert_ok(zero_choose(&stage, &need, p.dev, comm));
        assert_int_equal(stage, expected);
    }
    p.dev->info.capability = 0;
    assert_ok(zero_choose(&stage, &need, p.dev, comm));
    assert_int_equal(stage, 1);
}

static void test_choose(void **state)
{
    (void)state;
    ranks_run("shm", 3, choose_on_cards, NULL);
}

/* A step that all ranks share: work and rows are conserved, and no rank is faster than a link of
 * any speed would let it be. */
static void test_plan_of_ranks(void **state)
{
    (void)state;
    struct plan_dev device;
    struct plan alone = plan_on(&device, 1);
    double efficiency;
    assert_ok(plan_compute(&alone));
    assert_ok(plan_efficiency(&efficiency, &alone));
    assert_true(efficiency == 1.0 && alone.scale.sent_bytes == 0);
    assert_true(alone.work.rows == alone.rank_work.rows);
    for (int64_t n = 2; n <= 64; n *= 2) {
        struct plan p = plan_on(&device, n);
        p.settings.zero = 2;
        assert_ok(plan_compute(&p));
        assert_true(p.work.rows == alone.work.rows);
        const int64_t samples = 80 / n + (80 % n > 0);
        expect_near(p.rank_work.rows, (double)samples * 310, 1e-12);
        assert_ok(plan_efficiency(&efficiency, &p));
        assert_true(efficiency > 0.0 && efficiency < 1.05);
        expect_near(p.time.tokens_per_s, p.work.rows / p.time.step_s, 1e-12);
        assert_true(p.time.seconds[COST_T_EXCHANGE] == p.scale.exposed_s);
    }
}

/* Stage 0 does not fit: a higher one is offered before anything else, by its number. */
static void test_higher_stage(void **state)
{
    (void)state;
    struct plan_dev device;
    struct plan p = plan_on(&device, 8), better;
    char changes[PLAN_CHANGES_MAX][PLAN_CHANGE_MAX];
    bool found;
    p.batch.micro_tokens = 4096;
    p.card.memory_bytes = INT64_C(85000000000);
    p.settings.zero = 0;
    assert_ok(plan_compute(&p));
    assert_false(p.fits);
    assert_ok(plan_search(&better, &found, &p));
    assert_true(found && better.settings.zero == 1);
    assert_int_equal(plan_changes(changes, &p, &better), 1);
    assert_string_equal(changes[0], "--train.zero=1");
    p.zero_auto = true; /* which needs no advice */
    assert_ok(plan_compute(&p));
    assert_true(p.fits && p.settings.zero == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_are_counted),
        cmocka_unit_test(test_bytes_of_odd_runs),
        cmocka_unit_test(test_bytes_between_machines),
        cmocka_unit_test(test_volume_of_6b),
        cmocka_unit_test(test_waiting),
        cmocka_unit_test(test_two_levels),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_links),
        cmocka_unit_test(test_memory_of_stages),
        cmocka_unit_test(test_widest),
        cmocka_unit_test(test_choose),
        cmocka_unit_test(test_plan_of_ranks),
        cmocka_unit_test(test_higher_stage),
    };
    micro_corpus("corpus", 30, 8);
    setenv("SOULCHAT_NCCL", FAKE_NCCL, 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
