/* ckpt_diff.h: what two checkpoints do not have in common. */
#include "ckpt_fixture.h"

#include "base/log.h"
#include "train/ckpt_diff.h"

#include <math.h>
#include <string.h>

static json_t *diff(const char *a, const char *b)
{
    struct cfg *cfg = micro_cfg("corpus", "run");
    json_t *report;
    assert_ok(ckpt_diff(&report, ckpt_step_dir(a, 3), ckpt_step_dir(b, 3), cfg));
    cfg_close(cfg);
    return report;
}

/* The object of `list` whose `key` is `value`; NULL: none. */
static const json_t *find(const json_t *report, const char *list, const char *key,
                          const char *value)
{
    const json_t *one;
    size_t i;
    json_array_foreach(json_object_get(report, list), i,
                       one) if (strcmp(json_string_value(json_object_get(one, key)), value) ==
                                0) return one;
    return NULL;
}

static void save(const char *root, const struct glm_config *config, enum optim_moments moments,
                 const char *settings)
{
    struct ckpt_rig r;
    ckpt_rig_open_padded(&r, config, moments, 1, 0);
    buf_reset(&r.state.settings);
    assert_ok(buf_puts(&r.state.settings, settings));
    assert_ok(ckpt_rig_save(&r, root, 3, 1));
    ckpt_rig_close(&r);
}

static void test_values(void **state)
{
    (void)state;
    const struct glm_config config = grain_config();
    const struct ckpt_keep keep = { .last = 1 };
    struct ckpt_rig r;
    save("one", &config, OPTIM_MOMENTS_8BIT, "train:\n  steps: 12\n");
    ckpt_rig_open_padded(&r, &config, OPTIM_MOMENTS_8BIT, 1, 0);
    ckpt_rig_set(&r, 3);
    const struct glm_params *params = glm_params(r.glm);
    const int64_t row = glm_params_find(params, GLM_FC1_WEIGHT, 0);
    float *weights = optim_target_weights(optim_target(r.optim), row, 0);
    weights[5] += 0.5f;
    weights[7] = NAN; /* as far as can be */
    uint8_t code;
    assert_ok(optim_read_state(r.optim, &code, OPTIM_EXP_AVG_CODES, row, 2, 1));
    const uint8_t other = code ^ 0x40;
    assert_ok(optim_write_state(r.optim, OPTIM_EXP_AVG_CODES, row, 2, &other, 1));
    assert_ok(ckpt_save(testing_path("two"), &r.state, r.optim, &keep, NULL));

    json_t *report = diff("one", "two");
    assert_int_equal(json_array_size(json_object_get(report, "tensors")), 2);
    const json_t *t = find(report, "tensors", "name", params->row[row].name);
    assert_int_equal(json_integer_value(json_object_get(t, "differ")), 2);
    assert_int_equal(json_integer_value(json_object_get(t, "at")), 7);
    assert_true(json_is_null(json_object_get(t, "max_abs")));
    char name[128];
    snprintf(name, sizeof name, "exp_avg_codes.%s", params->row[row].name);
    t = find(report, "tensors", "name", name);
    assert_int_equal(json_integer_value(json_object_get(t, "at")), 2);
    assert_true(json_real_value(json_object_get(t, "max_abs")) == 0x40);
    json_decref(report);
    ckpt_rig_close(&r);
}

/* By value; the text that holds them is no difference of its own. */
static void test_settings(void **state)
{
    (void)state;
    const struct glm_config config = grain_config();
    save("a", &config, OPTIM_MOMENTS_F32, "train:\n  steps: 12\n  lr: 5e-5\n  skips_max: 3\n");
    save("b", &config, OPTIM_MOMENTS_F32, "train:\n  steps: 012\n  lr: 0.00005\n  skips_max: 4\n");
    json_t *report = diff("a", "b");
    assert_int_equal(json_array_size(json_object_get(report, "settings")), 1);
    assert_non_null(find(report, "settings", "key", "train.skips_max"));
    assert_int_equal(json_array_size(json_object_get(report, "state")), 0);
    json_decref(report);
}

static void test_other_tensors(void **state)
{
    (void)state;
    struct glm_config config = grain_config();
    save("grain", &config, OPTIM_MOMENTS_F32, "train:\n  steps: 12\n");
    save("coded", &config, OPTIM_MOMENTS_8BIT, "train:\n  steps: 12\n");
    json_t *report = diff("grain", "coded");
    const json_t *a = find(report, "tensors", "only", "a"),
                 *b = find(report, "tensors", "only", "b");
    assert_true(strncmp(json_string_value(json_object_get(a, "name")), "exp_avg", 7) == 0);
    assert_non_null(strstr(json_string_value(json_object_get(b, "name")), "_absmax."));
    json_decref(report);

    config.vocab_size += 8;
    save("larger", &config, OPTIM_MOMENTS_F32, "train:\n  steps: 12\n");
    report = diff("grain", "larger");
    const json_t *t = find(report, "tensors", "file", "model.0000.safetensors");
    assert_non_null(json_object_get(t, "shapes"));
    json_decref(report);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_other_tensors),
    };
    assert_ok(log_init("off"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
