/* Twelve lanes on 1 to 4 ranks and ZeRO 0 to 3: the same bits of weights, state, losses, norms. */
#include "ranks_fixture.h"
#include "train_fixture.h"

#include "base/digest.h"
#include "base/num.h"
#include "train/step.h"
#include "train/validate.h"
#include "train/zero_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEPS  10 /* several epochs */
#define LAYERS 5  /* more than two slots hold */

struct job {
    const char *zero, *lanes;
    int64_t steps;
    const char *more[8]; /* settings: key, value, ... */
};

/* What all ranks find out, in memory that they share with the test. */
struct outcome {
    double loss[STEPS], norm[STEPS], validation;
    int64_t alloc_bytes; /* of rank 0 */
    int64_t bytes;       /* of what follows: weights, then state, in the table's order */
    char state[1 << 22];
};

struct errand {
    const struct job *job;
    struct outcome *outcome;
    struct cfg *cfg;
};

static struct cfg *job_cfg(const struct job *job)
{
    struct cfg *cfg = micro_cfg("corpus", "run");
    micro_set(cfg, "batch.size", "24");
    micro_set(cfg, "batch.micro_tokens", "128");
    micro_set(cfg, "batch.lanes", job->lanes);
    micro_set(cfg, "train.zero", job->zero);
    micro_set(cfg, "train.weight_decay", "0.1");
    for (int i = 0; i < COUNT_OF(job->more) && job->more[i] != NULL; i += 2)
        micro_set(cfg, job->more[i], job->more[i + 1]);
    return cfg;
}

/* Every rank puts what it owns of a part of a row's state at its place. */
static int64_t put_part(char *to, struct run *run, enum optim_part part, int64_t row)
{
    const struct optim_plan *plan = optim_plan_of(run->optim);
    const int64_t all = optim_part_count(&plan->format, &glm_params(run->glm)->row[row], part);
    const int64_t size = dtype_bytes(optim_part_dtype(&plan->format, part));
    const bool per_block = part == OPTIM_EXP_AVG_ABSMAX || part == OPTIM_EXP_AVG_SQ_ABSMAX;
    const int64_t per = per_block ? ADAMW_BLOCK : 1;
    const int64_t first = plan->owned[row].first, count = plan->owned[row].count;
    if (all > 0 && count > 0)
        assert_ok(optim_read_state(run->optim, to + first / per * size, part, row, first / per,
                                   div_ceil(count, per)));
    return all * size;
}

static void put_state(struct outcome *out, struct run *run)
{
    const struct optim_target *target = optim_target(run->optim);
    int64_t end = 0;
    for (int64_t row = 0; row < target->params->count; row++) {
        const int64_t first = optim_plan_of(run->optim)->owned[row].first;
        for (int part = 0; part < OPTIM_PARTS; part++)
            end += put_part(out->state + end, run, (enum optim_part)part, row);
        const float *from = target->weights.data; /* the device is the host */
        memcpy(out->state + end + first * 4, from + target->layout->offset[row] + first,
               (size_t)optim_plan_of(run->optim)->owned[row].count * 4);
        end += target->params->row[row].count * 4;
        assert_true(end <= (int64_t)sizeof out->state);
    }
    out->bytes = end;
}

/* What is allocated is what the choice of a stage goes by. */
static void expect_planned(const struct run *run, const struct glm_config *config)
{
    const struct glm_options options = { .dtype = DTYPE_F32,
                                         .train = true,
                                         .activations = run->formats.activations,
                                         .rows_max = run->bounds.rows,
                                         .segments_max = run->bounds.segments,
                                         .targets_max = run->bounds.targets,
                                         .ranks = 1 };
    const struct zero_need need = { config, &options, &run->formats.state, run->batch.lanes };
    struct zero_memory planned;
    assert_ok(
        zero_memory(&planned, &need, run->dev, run->zero.stage, run->zero.rank, run->zero.size));
    assert_int_equal(run->dev->stats.alloc_bytes, planned.bytes);
}

static void train(struct comm *comm, void *arg)
{
    const struct errand *errand = arg;
    struct outcome *out = errand->outcome;
    const struct sample_limits limits = { 128, 64, TARGET_DROP };
    struct step_memory memory = { 0 };
    struct step_result result;
    struct validation validation;
    struct run run;
    int64_t empty = 0;
    struct glm_config config = micro_config();
    config.layer_count = LAYERS;
    micro_run_open_ranked(&run, errand->cfg, "cpu", &config, comm);
    expect_planned(&run, &config);
    assert_ok(sample_set_open(&run.validation_set, run.shards, SPLIT_VALIDATION, &limits));
    validate_bounds(&run.bounds, run.validation_set);
    for (int64_t step = 0; step < errand->job->steps; step++) {
        assert_ok(step_run(&run, &memory, &result, step));
        run.state.updates++;
        if (result.plan.micro_count[run.batch.lanes - 1] == 0) empty++;
        if (run.zero.rank != 0) continue;
        out->loss[step] = result.loss;
        out->norm[step] = result.grad_norm;
    }
    assert_ok(validate(&validation, &run.zero, run.glm, run.validation_set, 5, &run.bounds));
    put_state(out, &run);
    assert_true(empty > 0 || run.batch.unit == BATCH_SAMPLES);
    if (run.zero.rank == 0) {
        out->validation = validation.loss;
        out->alloc_bytes = run.dev->stats.alloc_bytes;
    }
    assert_ok(comm_barrier(comm));
    step_memory_clear(&memory);
    micro_run_close(&run);
}

static struct outcome *outcome_of(const struct job *job, int64_t ranks)
{
    struct outcome *out = ranks_shared(sizeof *out);
    struct errand errand = { .job = job, .outcome = out, .cfg = job_cfg(job) };
    ranks_run(ranks == 1 ? "self" : "shm", ranks, train, &errand);
    cfg_close(errand.cfg);
    return out;
}

static void expect_same(const struct outcome *got, const struct outcome *want, int64_t steps)
{
    char hex[2][SHA256_HEX_SIZE];
    const struct outcome *both[] = { got, want };
    assert_memory_equal(got->loss, want->loss, (size_t)steps * sizeof(double));
    assert_memory_equal(got->norm, want->norm, (size_t)steps * sizeof(double));
    assert_memory_equal(&got->validation, &want->validation, sizeof(double));
    assert_int_equal(got->bytes, want->bytes);
    for (int i = 0; i < 2; i++) {
        uint8_t digest[32];
        sha256_of(digest, both[i]->state, (size_t)both[i]->bytes);
        sha256_hex(hex[i], digest);
    }
    assert_string_equal(hex[0], hex[1]);
}

static void test_sixteen_runs(void **state)
{
    (void)state;
    static const char *const stages[] = { "0", "1", "2", "3" };
    const struct outcome *want = NULL;
    int64_t bytes[4];
    for (int64_t ranks = 1; ranks <= 4; ranks++) {
        for (int s = 0; s < 4; s++) {
            const struct job job = { stages[s], "12", STEPS, { NULL } };
            const struct outcome *got = outcome_of(&job, ranks);
            if (want == NULL) want = got;
            expect_same(got, want, STEPS);
            bytes[s] = got->alloc_bytes;
        }
        /* Every stage keeps less, as far as it differs from the one before. */
        if (ranks == 1) continue;
        assert_true(bytes[1] < bytes[0]);
        assert_true(bytes[2] == bytes[1]);
        assert_true(bytes[3] < bytes[2]);
    }
    assert_true(want->loss[STEPS - 1] < want->loss[0]);
}

/* Runs of `count` ranks in every stage end as one of one rank does. */
static void expect_stages(struct job job, int64_t ranks)
{
    static const char *const stages[] = { "0", "1", "2", "3" };
    const struct outcome *want = outcome_of(&job, 1);
    for (int s = 0; s < 4; s++) {
        job.zero = stages[s];
        expect_same(outcome_of(&job, ranks), want, job.steps);
    }
}

/* One lane on each rank: gradients leave during the backward pass. */
static void test_one_lane_each(void **state)
{
    (void)state;
    expect_stages((struct job){ "0", "3", 6, { NULL } }, 3);
    expect_stages((struct job){ "0", "4", 6, { "train.activations", "recompute" } }, 4);
}

/* Ranks with unequal numbers of lanes: the same bits all the same. */
static void test_uneven(void **state)
{
    (void)state;
    const struct job packs = {
        "0",
        "4",
        7,
        { "batch.unit", "tokens", "batch.size", "512", "batch.pack_len", "128",
          "batch.micro_tokens", "128" },
    };
    expect_stages((struct job){ "0", "12", 6, { NULL } }, 5);
    expect_stages((struct job){ "0", "4", 6, { NULL } }, 3);
    expect_stages(packs, 3);
}

static void test_formats(void **state)
{
    (void)state;
    expect_stages((struct job){ "0", "6", 4, { "train.moments_place", "host" } }, 3);
    expect_stages((struct job){ "0", "2", 4, { "train.moments", "8bit" } }, 2);
    expect_stages((struct job){ "0", "4", 4, { "train.activations", "lean" } }, 2);
}

/* Steps of packs: at the end of an epoch lanes have fewer micro-batches than others, or none. */
static void test_empty_lanes(void **state)
{
    (void)state;
    const struct job packs = {
        "0",
        "3",
        7,
        { "batch.unit", "tokens", "batch.size", "512", "batch.pack_len", "128",
          "batch.micro_tokens", "128" },
    };
    expect_stages(packs, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sixteen_runs), cmocka_unit_test(test_one_lane_each),
        cmocka_unit_test(test_uneven),       cmocka_unit_test(test_formats),
        cmocka_unit_test(test_empty_lanes),
    };
    micro_corpus("corpus", 30, 8);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
