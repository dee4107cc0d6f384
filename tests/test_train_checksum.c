/* checksum.h: a flipped bit is found and named, on one rank and between ranks. */
#include "train_runs.h"

#include "base/check.h"
#include "base/log.h"
#include "base/rng.h"
#include "ranks_fixture.h"
#include "train/checksum.h"
#include "train/checksum_run.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALL (CHECKSUM_WEIGHTS | CHECKSUM_STATE)

static char *weight_of(struct run *run, int64_t row, int64_t element)
{
    const int64_t at = glm_layout(run->glm)->offset[row] + element;
    return (char *)glm_weights(run->glm).data + at * (int64_t)sizeof(float);
}

/* One bit of one tensor changes the sum of that tensor alone, wherever it is. */
static void test_one_bit(void **state)
{
    (void)state;
    struct run run;
    struct checksum want, got;
    uint32_t whole, total;
    int64_t bytes;
    struct cfg *cfg = micro_cfg(RUNS_CORPUS, "unused");
    micro_run_open(&run, cfg, "cpu");
    const struct glm_params *params = glm_params(run.glm);
    assert_ok(checksum_measure(&want, run.optim, ALL));
    assert_int_equal(want.bytes, 12 * params->element_count);
    assert_ok(checksum_total(&whole, &bytes, run.optim, NULL));
    assert_int_equal(bytes, want.bytes);
    for (int64_t i = 0; i < 100; i++) {
        const int64_t row = i % params->count;
        const int64_t element =
            rng_permute(7, RNG_SHUFFLE, i % params->row[row].count, params->row[row].count);
        char *byte = weight_of(&run, row, element) + i % 4;
        const char kept = *byte;
        float value = 0;
        if (i % 2 == 0) {
            *byte = (char)(kept ^ (1 << i % 8));
        } else {
            value = 1e-30F;
            assert_ok(optim_write_state(run.optim, OPTIM_EXP_AVG_SQ, row, element, &value, 1));
        }
        assert_ok(checksum_measure(&got, run.optim, ALL));
        assert_ok(checksum_total(&total, &bytes, run.optim, NULL));
        assert_true(total != whole);
        const int64_t changed = i % 2 == 0 ? row : params->count + row;
        for (int64_t k = 0; k < 2 * params->count; k++)
            assert_true((got.row[k] == want.row[k]) == (k != changed));
        checksum_clear(&got);
        *byte = kept;
        value = 0;
        assert_ok(optim_write_state(run.optim, OPTIM_EXP_AVG_SQ, row, element, &value, 1));
    }
    checksum_clear(&want);
    micro_run_close(&run);
    cfg_close(cfg);
}

/* The total tells where a value is, not only that it is there. */
static void test_places(void **state)
{
    (void)state;
    static const struct {
        enum optim_part part;
        enum glm_role role;
        int64_t layer;
    } places[] = {
        { OPTIM_EXP_AVG, GLM_QKV_BIAS, 0 },
        { OPTIM_EXP_AVG_SQ, GLM_QKV_BIAS, 0 },
        { OPTIM_EXP_AVG, GLM_QKV_BIAS, 1 },
    };
    uint32_t total[COUNT_OF(places)];
    struct run run;
    struct cfg *cfg = micro_cfg(RUNS_CORPUS, "unused");
    micro_run_open(&run, cfg, "cpu");
    for (int64_t i = 0; i < COUNT_OF(places); i++) {
        const int64_t row = glm_params_find(glm_params(run.glm), places[i].role, places[i].layer);
        float value = 0.5F;
        int64_t bytes;
        assert_ok(optim_write_state(run.optim, places[i].part, row, 1, &value, 1));
        assert_ok(checksum_total(&total[i], &bytes, run.optim, NULL));
        value = 0;
        assert_ok(optim_write_state(run.optim, places[i].part, row, 1, &value, 1));
        for (int64_t k = 0; k < i; k++) assert_int_not_equal(total[k], total[i]);
    }
    micro_run_close(&run);
    cfg_close(cfg);
}

/* The same values in another layout have the same sum. */
static void test_layouts(void **state)
{
    (void)state;
    uint32_t total[2];
    for (int i = 0; i < 2; i++) {
        struct run run;
        int64_t bytes;
        struct cfg *cfg = micro_cfg(RUNS_CORPUS, "unused");
        if (i == 1) micro_set(cfg, "train.moments_place", "host");
        micro_run_open(&run, cfg, "cpu");
        assert_ok(checksum_total(&total[i], &bytes, run.optim, NULL));
        micro_run_close(&run);
        cfg_close(cfg);
    }
    assert_int_equal(total[0], total[1]);
}

/* The rank outside the majority is the one named. */
static void test_majority(void **state)
{
    (void)state;
    struct glm_params params;
    const struct glm_config config = micro_config();
    assert_ok(glm_params_create(&params, &config));
    const int64_t stride = 2 * params.count;
    uint32_t *all = calloc((size_t)(4 * stride), sizeof *all);
    for (int64_t r = 0; r < 4; r++)
        for (int64_t i = 0; i < stride; i++) all[r * stride + i] = (uint32_t)(i * 77 + 1);
    assert_ok(checksum_compare(all, 4, &params, 9));
    all[0 * stride + 3] ^= 1;
    assert_err(checksum_compare(all, 4, &params, 9), CHECKSUM, params.row[3].name);
    assert_non_null(strstr(err_last()->text, "step 9: weights of "));
    assert_non_null(strstr(err_last()->text, "rank 0 has"));
    assert_non_null(strstr(err_last()->text, "as most have"));
    all[0 * stride + 3] ^= 1;
    all[2 * stride + params.count + 5] ^= 0x80;
    assert_err(checksum_compare(all, 3, &params, 9), CHECKSUM, "optimizer state of");
    assert_non_null(strstr(err_last()->text, "rank 2 has"));
    all[1 * stride + 4] ^= 2;
    assert_err(checksum_compare(all, 2, &params, 9), CHECKSUM, "no value has a majority");
    free(all);
    glm_params_clear(&params);
}

/* Each rank has the whole model; rank 1's has a bit flipped. */
static void body_ranks(struct comm *comm, void *arg)
{
    struct cfg *cfg = arg;
    struct run run;
    struct checksum sum;
    micro_run_open(&run, cfg, "cpu");
    assert_ok(checksum_measure(&sum, run.optim, ALL));
    assert_ok(checksum_compare_ranks(&sum, comm, 12));
    checksum_clear(&sum);
    const int64_t row = glm_params_find(glm_params(run.glm), GLM_QKV_WEIGHT, 1);
    if (comm_rank(comm) == 1) *weight_of(&run, row, 77) ^= 0x10;
    assert_ok(checksum_measure(&sum, run.optim, CHECKSUM_WEIGHTS));
    assert_err(checksum_compare_ranks(&sum, comm, 12), CHECKSUM,
               glm_params(run.glm)->row[row].name);
    assert_non_null(strstr(err_last()->text, "rank 1 has"));
    assert_non_null(strstr(err_last()->text, "as most have"));
    checksum_clear(&sum);
    micro_run_close(&run);
}

/* What one rank finds before a save stops all, by name. */
static void body_not_finite(struct comm *comm, void *arg)
{
    struct cfg *cfg = arg;
    const struct glm_config config = micro_config();
    struct run run;
    micro_run_open_ranked(&run, cfg, "cpu", &config, comm);
    assert_ok(checksum_run_saving(&run));
    const struct ckpt_ranks *ranks = zero_ckpt(&run.zero);
    int64_t row = 0, first = 0, count = 0;
    for (; count == 0; row++) ranks->owned(ranks->context, row, &first, &count);
    const float infinite = INFINITY;
    if (comm_rank(comm) == 1) memcpy(weight_of(&run, row - 1, first), &infinite, sizeof infinite);
    assert_err(checksum_run_saving(&run), NUMERIC, "holds weights that are not finite");
    assert_true((strstr(err_last()->text, "rank 1: step 0") != NULL) == (comm_rank(comm) != 1));
    micro_run_close(&run);
}

static void test_not_finite(void **state)
{
    (void)state;
    struct cfg *cfg = micro_cfg(RUNS_CORPUS, "unused");
    micro_set(cfg, "batch.lanes", "3");
    ranks_run("shm", 3, body_not_finite, cfg);
    cfg_close(cfg);
}

static void test_ranks(void **state)
{
    (void)state;
    struct cfg *cfg = micro_cfg(RUNS_CORPUS, "unused");
    ranks_run("shm", 3, body_ranks, cfg);
    cfg_close(cfg);
}

/* What was saved is what is loaded, even where the files agree with their manifest. */
static void test_loading(void **state)
{
    (void)state;
    const char *const settings[] = { "train.steps", "2", "train.check_every", "1", NULL };
    int64_t step;
    assert_ok(runs_train(&step, "sums", false, settings));
    struct cfg *cfg = runs_cfg("sums", settings);
    assert_ok(runs_open(cfg, true));
    char dir[FILE_PATH_MAX], path[FILE_PATH_MAX];
    struct ckpt_state s;
    static const char *const files[] = { "model.0000.safetensors", "optim.0000.safetensors",
                                         "state.json" };
    struct ckpt_manifest manifest = { .step = 2 };
    struct buf text = { 0 };
    strcpy(dir, testing_path("sums/ckpt/step-00000002"));
    assert_ok(ckpt_state_read(&s, dir));
    assert_true(s.crc32c != 0);
    s.crc32c ^= 4;
    assert_ok(ckpt_state_write(&text, &s));
    assert_ok(path_join(path, dir, "state.json"));
    assert_ok(file_replace(path, text.data, (int64_t)text.size));
    buf_reset(&text);
    assert_ok(path_join(path, dir, "MANIFEST.json"));
    for (int i = 0; i < 3; i++) assert_ok(ckpt_manifest_measure(&manifest, dir, files[i]));
    assert_ok(ckpt_manifest_write(&text, &manifest));
    assert_ok(file_replace(path, text.data, (int64_t)text.size));
    ckpt_manifest_clear(&manifest);
    ckpt_state_clear(&s);
    buf_clear(&text);
    assert_ok(ckpt_verify(dir));
    assert_err(runs_open(cfg, true), CHECKSUM, "before they were saved");
    micro_set(cfg, "train.check_every", "0");
    assert_ok(runs_open(cfg, true));
    cfg_close(cfg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks), /* before any threads */
        cmocka_unit_test(test_not_finite), cmocka_unit_test(test_one_bit),
        cmocka_unit_test(test_places),     cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_majority),   cmocka_unit_test(test_loading),
    };
    micro_corpus(RUNS_CORPUS, 10, 4);
    assert_ok(log_init("off"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
