/* Plans from settings: a corpus is used where there is one, and on a processor the memory planned
 * is the memory that a run allocates. */
#include "train_fixture.h"

#include "base/check.h"
#include "data/settings.h"
#include "data/settings_batch.h"
#include "model/settings.h"
#include "train/plan_print.h"
#include "train/settings.h"
#include "train/settings_plan.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

/* micro_cfg with the settings of plans. */
static struct cfg *plan_cfg(const char *corpus, const char *out)
{
    const struct cfg_table tables[] = { data_settings, batch_settings, model_settings,
                                        train_settings, plan_settings };
    struct cfg *cfg, *micro = micro_cfg(corpus, out);
    assert_ok(cfg_create(&cfg, tables, COUNT_OF(tables)));
    for (int64_t i = 0; i < cfg_row_count(micro); i++) {
        const char *key = cfg_row_at(micro, i)->key;
        if (cfg_is_set(micro, key)) micro_set(cfg, key, cfg_text(micro, key));
    }
    cfg_close(micro);
    return cfg;
}

/* The plan of these settings equals what a run with them has allocated at most. */
static void check_run(const char *const (*settings)[2], int64_t count)
{
    struct cfg *cfg = plan_cfg("corpus", "run");
    struct plan_setup setup;
    struct run run;
    for (int64_t i = 0; i < count; i++) micro_set(cfg, settings[i][0], settings[i][1]);
    assert_ok(plan_setup_open(&setup, cfg));
    struct plan *p = &setup.plan;
    assert_ok(plan_compute(p));
    assert_true(p->fits && p->text.measured);
    assert_ok(micro_run_start(&run, cfg, false));
    assert_int_equal(p->bounds.rows, run.bounds.rows);
    assert_int_equal(p->bounds.segments, run.bounds.segments);
    assert_int_equal(p->bounds.targets, run.bounds.targets);
    assert_int_equal(p->memory.device_bytes, run.dev->stats.alloc_bytes_max);
    run_close(&run);
    plan_setup_close(&setup);
    cfg_close(cfg);
}

static void test_memory_of_runs(void **state)
{
    (void)state;
    micro_corpus("corpus", 12, 4);
    check_run(NULL, 0);
    const char *const lean[][2] = { { "train.activations", "lean" },
                                    { "batch.lanes", "3" },
                                    { "train.out", testing_path("run-lean") } };
    check_run(lean, COUNT_OF(lean));
    const char *const again[][2] = { { "train.activations", "recompute" },
                                     { "batch.unit", "tokens" },
                                     { "batch.size", "512" },
                                     { "batch.pack_len", "256" },
                                     { "train.moments", "8bit" },
                                     { "train.out", testing_path("run-again") } };
    check_run(again, COUNT_OF(again));
}

/* Means of a corpus: what its samples sum up to. */
static void test_text(void **state)
{
    (void)state;
    micro_corpus("text", 8, 2);
    struct cfg *cfg = plan_cfg("text", "none");
    struct plan_setup setup;
    struct shards *shards;
    struct sample_set *set;
    struct sample_limits limits;
    double pairs = 0;
    assert_ok(plan_setup_open(&setup, cfg));
    sample_limits_from_cfg(&limits, cfg);
    assert_ok(shards_open(&shards, cfg_str(cfg, "data.dir"), true));
    assert_ok(sample_set_open(&set, shards, SPLIT_TRAIN, &limits));
    const double count = (double)sample_set_count(set);
    for (int64_t i = 0; i < sample_set_count(set); i++) { /* row by row */
        const struct sample *s = sample_set_at(set, i);
        const int64_t context = s->prompt_len + 1;
        for (int64_t row = 0; row < s->len; row++)
            pairs += (double)(row < context ? context : row + 1);
    }
    const struct plan_text *t = &setup.plan.text;
    assert_true(fabs(t->sample_pairs * count / pairs - 1.0) < 1e-12);
    const struct sample_counts *counts = sample_set_counts(set);
    assert_true(fabs(t->sample_rows * count / (double)counts->rows - 1.0) < 1e-12);
    assert_true(fabs(t->sample_targets * count / (double)counts->trained_tokens - 1.0) < 1e-12);
    sample_set_close(set);
    shards_close(shards);
    plan_setup_close(&setup);
    cfg_close(cfg);
}

/* Updates in backward: a corpus with a step of two micro-batches is found before the run. */
static void test_one_micro(void **state)
{
    (void)state;
    micro_corpus("steps", 12, 2);
    struct cfg *cfg = plan_cfg("steps", "none");
    struct plan_setup setup;
    micro_set(cfg, "plan.card", "l40s");
    micro_set(cfg, "train.precision", "bf16");
    micro_set(cfg, "train.update", "backward");
    micro_set(cfg, "train.max_grad_norm", "0");
    micro_set(cfg, "batch.size", "16");
    assert_err(plan_setup_open(&setup, cfg), USAGE, "micro-batches");
    plan_setup_close(&setup);
    micro_set(cfg, "batch.micro_tokens", "4096");
    assert_ok(plan_setup_open(&setup, cfg));
    assert_ok(plan_compute(&setup.plan));
    plan_setup_close(&setup);
    cfg_close(cfg);
}

/* The host memory of a background save is that of the files; a run that waits takes none. */
static void test_copy(void **state)
{
    (void)state;
    struct cfg *cfg = plan_cfg("corpus", "none");
    struct plan_setup setup;
    micro_set(cfg, "data.dir", "");
    micro_set(cfg, "model.dir", "");
    micro_set(cfg, "plan.card", "h200");
    assert_ok(plan_setup_open(&setup, cfg));
    assert_ok(plan_compute(&setup.plan));
    /* Weights and two moments in f32, and less than a page of alignment for each of some tensors.
     */
    const int64_t exact = INT64_C(6173286400) * 12;
    assert_in_range(setup.plan.copy_bytes, exact, exact + 1000 * 64);
    plan_setup_close(&setup);
    micro_set(cfg, "train.save", "wait");
    assert_ok(plan_setup_open(&setup, cfg));
    assert_ok(plan_compute(&setup.plan));
    assert_int_equal(setup.plan.copy_bytes, 0);
    plan_setup_close(&setup);
    cfg_close(cfg);
}

/* No corpus, no model: assumptions, which are said. */
static void test_assumed(void **state)
{
    (void)state;
    struct cfg *cfg = plan_cfg("corpus", "none");
    struct plan_setup setup;
    micro_set(cfg, "data.dir", testing_path("nowhere"));
    micro_set(cfg, "model.dir", testing_path("nowhere"));
    micro_set(cfg, "plan.card", "l40s");
    micro_set(cfg, "plan.context", "100");
    micro_set(cfg, "plan.target", "20");
    assert_ok(plan_setup_open(&setup, cfg));
    assert_false(setup.plan.text.measured);
    assert_true(setup.plan.text.sample_rows == 120 && setup.plan.text.sample_targets == 20);
    assert_int_equal(setup.plan.text.longest, 128 + 64);
    assert_int_equal(setup.plan.config.layer_count, 28);
    assert_non_null(strstr(setup.model_source, "ChatGLM-6B as published: no config.json in "));
    assert_non_null(strstr(setup.text_source, "assumed"));
    assert_non_null(strstr(setup.rates_source, "assumed"));
    assert_string_equal(cfg_str(cfg, "train.device"), "cuda");
    plan_setup_close(&setup);

    micro_set(cfg, "plan.memory_bytes", "1000000");
    assert_ok(plan_setup_open(&setup, cfg));
    assert_int_equal(setup.plan.card.memory_bytes, 1000000);
    plan_setup_close(&setup);
    cfg_close(cfg);
}

/* Changes, given back as settings, are the plan that was found. */
static void test_round_trip(void **state)
{
    (void)state;
    char changes[PLAN_CHANGES_MAX][PLAN_CHANGE_MAX];
    for (int64_t gb = 150; gb > 16; gb -= 11) {
        struct cfg *cfg = plan_cfg("corpus", "none");
        struct plan_setup setup, again;
        struct plan better;
        bool found;
        micro_set(cfg, "data.dir", "");
        micro_set(cfg, "model.dir", "");
        micro_set(cfg, "plan.card", "h100");
        micro_set(cfg, "batch.size", "80");
        micro_set(cfg, "batch.micro_tokens", "16384");
        micro_set(cfg, "train.precision", "bf16");
        assert_ok(plan_setup_open(&setup, cfg));
        setup.plan.card.memory_bytes = gb * 1000000000;
        assert_ok(plan_compute(&setup.plan));
        assert_false(setup.plan.fits);
        assert_ok(plan_search(&better, &found, &setup.plan));
        assert_true(found);
        const int64_t count = plan_changes(changes, &setup.plan, &better);
        for (int64_t i = 0; i < count; i++) {
            char *value = strchr(changes[i], '=');
            *value = '\0';
            micro_set(cfg, changes[i] + 2, value + 1);
        }
        assert_ok(plan_setup_open(&again, cfg));
        assert_ok(plan_compute(&again.plan));
        assert_int_equal(again.plan.memory.device_bytes, better.memory.device_bytes);
        assert_true(again.plan.time.step_s == better.time.step_s);
        plan_setup_close(&again);
        plan_setup_close(&setup);
        cfg_close(cfg);
    }
}

static void test_json(void **state)
{
    (void)state;
    struct cfg *cfg = plan_cfg("corpus", "none");
    struct plan_setup setup;
    struct plan_answer answer = { .setup = &setup };
    json_error_t error;
    micro_set(cfg, "data.dir", "a \"b\" \\c"); /* quoted */
    micro_set(cfg, "model.dir", "");
    micro_set(cfg, "plan.card", "l40s");
    assert_ok(plan_setup_open(&setup, cfg));
    assert_ok(plan_compute(&setup.plan));
    assert_ok(plan_search(&answer.better, &answer.found, &setup.plan));
    FILE *file = tmpfile();
    assert_non_null(file);
    assert_ok(plan_print_json(file, &answer));
    rewind(file);
    json_t *root = json_loadf(file, JSON_REJECT_DUPLICATES, &error);
    assert_non_null(root);
    const json_t *memory = json_object_get(root, "memory");
    assert_int_equal(json_integer_value(json_object_get(memory, "device_bytes")),
                     setup.plan.memory.device_bytes);
    assert_true(json_is_false(json_object_get(memory, "fits")));
    assert_int_equal(json_integer_value(json_object_get(root, "parameters")), INT64_C(6173286400));
    const json_t *change = json_object_get(root, "smallest_change");
    assert_true(json_array_size(json_object_get(change, "settings")) > 0);
    json_decref(root);
    fclose(file);
    plan_setup_close(&setup);
    cfg_close(cfg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_of_runs), cmocka_unit_test(test_text),
        cmocka_unit_test(test_copy),           cmocka_unit_test(test_assumed),
        cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_json),
        cmocka_unit_test(test_one_micro),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
