/* Twelve lanes on 1 to 4 ranks and ZeRO 0 to 3: the same bits of weights, state, losses, norms. */
#include "ranks_fixture.h"
#include "train_fixture.h"

#include "base/digest.h"
#include "base/num.h"
#include "train/step.h"
#include "train/validate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEPS  20
#define LAYERS 5 /* more than two slots hold */

struct job {
    const char *zero, *lanes, *moments_place;
    int64_t steps;
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
    micro_set(cfg, "train.moments_place", job->moments_place);
    micro_set(cfg, "train.weight_decay", "0.1");
    return cfg;
}

/* Every rank puts what it owns at its place. */
static void put_state(struct outcome *out, struct run *run)
{
    const struct optim_target *target = optim_target(run->optim);
    const struct glm_params *params = target->params;
    int64_t end = 0;
    for (int64_t row = 0; row < params->count; row++) {
        const int64_t all = params->row[row].count;
        int64_t first, count;
        optim_owned(run->optim, row, &first, &count);
        for (int part = 0; part < 3; part++, end += all * 4) {
            char *to = out->state + end + first * 4;
            assert_true(end + all * 4 <= (int64_t)sizeof out->state);
            if (count == 0) continue;
            if (part < 2)
                assert_ok(optim_read_state(run->optim, to, (enum optim_part)part, row, first, count));
            else
                assert_ok(dev_download(run->dev, to,
                                       (char *)target->weights.data +
                                           (target->layout->offset[row] + first) * 4,
                                       count * 4));
        }
    }
    out->bytes = end;
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
    struct glm_config config = micro_config();
    config.layer_count = LAYERS;
    micro_run_open_ranked(&run, errand->cfg, "cpu", &config, comm);
    assert_ok(sample_set_open(&run.validation_set, run.shards, SPLIT_VALIDATION, &limits));
    validate_bounds(&run.bounds, run.validation_set);
    for (int64_t step = 0; step < errand->job->steps; step++) {
        assert_ok(step_run(&run, &memory, &result, step));
        run.state.updates++;
        if (run.zero.rank != 0) continue;
        out->loss[step] = result.loss;
        out->norm[step] = result.grad_norm;
    }
    assert_ok(validate(&validation, &run.zero, run.glm, run.validation_set, 5, &run.bounds));
    put_state(out, &run);
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
    struct outcome *want = NULL;
    int64_t bytes[4];
    for (int64_t ranks = 1; ranks <= 4; ranks++) {
        for (int s = 0; s < 4; s++) {
            const struct job job = { stages[s], "12", "device", STEPS };
            struct outcome *got = outcome_of(&job, ranks);
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

/* One lane on each rank: gradients leave during the backward pass. State in host memory. */
static void test_one_lane_each(void **state)
{
    (void)state;
    static const char *const stages[] = { "0", "1", "2", "3" };
    const struct job alone = { "0", "3", "device", 6 };
    struct outcome *want = outcome_of(&alone, 1);
    for (int s = 0; s < 4; s++) {
        const struct job job = { stages[s], "3", s % 2 ? "host" : "device", 6 };
        expect_same(outcome_of(&job, 3), want, 6);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sixteen_runs),
        cmocka_unit_test(test_one_lane_each),
    };
    micro_corpus("corpus", 30, 8);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
