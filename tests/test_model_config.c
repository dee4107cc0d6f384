/* config.json: what is read, what is refused, and that what is written reads back the same. */
#include "base/file.h"
#include "model/glm_config.h"
#include "model/settings.h"
#include "testing.h"

#include <stdio.h>
#include <string.h>

/* The published file's shape with small numbers; a case appends or replaces one key. */
#define REQUIRED                                                                                   \
    "\"vocab_size\":1280,\"hidden_size\":64,\"num_layers\":3,\"num_attention_heads\":4,"           \
    "\"inner_hidden_size\":256,\"max_sequence_length\":256,\"layernorm_epsilon\":1e-05,"           \
    "\"mask_token_id\":1272,\"gmask_token_id\":1273,\"bos_token_id\":1276,"                        \
    "\"eos_token_id\":1277,\"pad_token_id\":3"

static err_t parse(struct glm_config *out, const char *text)
{
    return glm_config_parse(out, text, (int64_t)strlen(text), "config.json");
}

static void test_golden_config(void **state)
{
    (void)state;
    struct glm_config c;
    assert_ok(glm_config_read(&c, "tests/golden/chatglm-tiny"));
    assert_int_equal(c.family, GLM_CHATGLM);
    assert_int_equal(c.vocab_size, 1280);
    assert_int_equal(c.hidden_size, 64);
    assert_int_equal(c.layer_count, 3);
    assert_int_equal(c.head_count, 4);
    assert_int_equal(c.kv_head_count, 4);
    assert_int_equal(c.ffn_size, 256);
    assert_int_equal(c.position_max, 256);
    assert_true(c.norm_eps == 1e-5);
    assert_true(c.residual_alpha * c.residual_alpha - 56 < 1e-13);
    assert_true(c.tied); /* silent, so the default of transformers */
    assert_int_equal(c.rotary, GLM_ROTARY_FP16_ANGLE);
    assert_int_equal(c.pad_id, 3);
    assert_int_equal(c.mask_id, 1272);
    assert_int_equal(c.gmask_id, 1273);
    assert_int_equal(c.bos_id, 1276);
    assert_int_equal(c.eos_id, 1277);
}

static void test_published_config(void **state)
{
    (void)state;
    struct glm_config c;
    char text[128];
    const char *dir = testing_shared("assets/chatglm-6b");
    if (!dir) skip();
    assert_ok(glm_config_read(&c, dir));
    assert_null(glm_config_difference(&c, &glm_chatglm_6b, text, sizeof text));
    dir = testing_shared("assets/chatglm2-6b");
    if (dir) assert_err(glm_config_read(&c, dir), UNSUPPORTED, "ChatGLM2");
}

static void test_choices(void **state)
{
    (void)state;
    struct glm_config c;
    assert_ok(parse(&c, "{" REQUIRED ",\"tie_word_embeddings\":false,\"residual_alpha\":2.5,"
                        "\"soulchat_rotary\":\"fp32_angle\",\"quantization_bit\":0,"
                        "\"pre_seq_len\":null,\"prefix_projection\":false}"));
    assert_false(c.tied);
    assert_true(c.residual_alpha == 2.5);
    assert_int_equal(c.rotary, GLM_ROTARY_FP32_ANGLE);
}

/* The class defaults of the published code are stale, so nothing that they hold may be absent. */
static void test_every_required_key(void **state)
{
    (void)state;
    static const char *const keys[] = {
        "vocab_size",     "hidden_size",         "num_layers",        "num_attention_heads",
        "mask_token_id",  "max_sequence_length", "layernorm_epsilon", "inner_hidden_size",
        "gmask_token_id", "bos_token_id",        "eos_token_id",      "pad_token_id",
    };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char text[1024], quoted[64], message[64];
        struct glm_config c;
        snprintf(text, sizeof text, "{%s}", REQUIRED);
        snprintf(quoted, sizeof quoted, "\"%s\"", keys[i]);
        snprintf(message, sizeof message, "no key %s", keys[i]);
        strstr(text, quoted)[1] = '~';
        assert_err(parse(&c, text), FORMAT, message);
    }
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *found, *replacement;
        err_t code;
        const char *part;
    } cases[] = {
        { "\"vocab_size\":1280", "\"vocab_size\":1277", ERR_FORMAT, "eos_token_id is 1277" },
        { "\"vocab_size\":1280", "\"vocab_size\":0", ERR_FORMAT, "vocab_size is 0" },
        { "\"vocab_size\":1280", "\"vocab_size\":2147483648", ERR_FORMAT,
          "vocab_size is 2147483648" },
        { "\"vocab_size\":1280", "\"vocab_size\":1280.0", ERR_FORMAT, "an integer is wanted" },
        { "\"vocab_size\":1280", "\"vocab_size\":\"1280\"", ERR_FORMAT, "is a string" },
        { "\"vocab_size\":1280", "\"vocab_size\":1280,\"vocab_size\":1281", ERR_FORMAT,
          "duplicate" },
        { "\"vocab_size\":1280", "\"vocab_size\":99999999999999999999", ERR_FORMAT, "not JSON" },
        { "\"num_layers\":3", "\"num_layers\":-3", ERR_FORMAT, "num_layers is -3" },
        { "\"hidden_size\":64", "\"hidden_size\":66", ERR_FORMAT, "multiple of 4" },
        { "\"hidden_size\":64", "\"hidden_size\":24", ERR_FORMAT, "multiple of 4" },
        { "\"pad_token_id\":3", "\"pad_token_id\":-1", ERR_FORMAT, "pad_token_id is -1" },
        { "\"pad_token_id\":3", "\"pad_token_id\":null", ERR_FORMAT, "is null" },
        { "1e-05", "0", ERR_FORMAT, "layernorm_epsilon is 0" },
        { "1e-05", "1e-05,\"residual_alpha\":-1", ERR_FORMAT, "residual_alpha is -1" },
        { "1e-05", "1e-05,\"soulchat_rotary\":\"fp8_angle\"", ERR_FORMAT, "soulchat_rotary" },
        { "1e-05", "1e-05,\"soulchat_rotary\":1", ERR_FORMAT, "soulchat_rotary" },
        { "1e-05", "1e-05,\"tie_word_embeddings\":1", ERR_FORMAT, "true or false" },
        { "1e-05", "1e-05,\"position_encoding_2d\":false", ERR_UNSUPPORTED,
          "position_encoding_2d" },
        { "1e-05", "1e-05,\"quantization_bit\":4", ERR_UNSUPPORTED, "quantization_bit is 4" },
        { "1e-05", "1e-05,\"pre_seq_len\":128", ERR_UNSUPPORTED, "pre_seq_len is 128" },
        { "1e-05", "1e-05,\"multi_query_attention\":true", ERR_UNSUPPORTED, "ChatGLM2" },
        { "1e-05", "1e-05,\"padded_vocab_size\":65024", ERR_UNSUPPORTED, "ChatGLM2" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[1024], changed[1024];
        struct glm_config c;
        snprintf(text, sizeof text, "{%s}", REQUIRED);
        const char *at = strstr(text, cases[i].found);
        assert_non_null(at);
        snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text, cases[i].replacement,
                 at + strlen(cases[i].found));
        testing_assert_code(parse(&c, changed), cases[i].code, cases[i].part, cases[i].replacement,
                            __FILE__, __LINE__);
    }
}

static void test_not_json(void **state)
{
    (void)state;
    struct glm_config c;
    assert_err(parse(&c, ""), FORMAT, "config.json:1:0: not JSON");
    assert_err(parse(&c, "[1]"), FORMAT, "an object is wanted");
    assert_err(parse(&c, "{\"a\":\"\xff\"}"), FORMAT, "not JSON");
    assert_err(glm_config_read(&c, testing_dir()), NOTFOUND, "config.json");
}

static void test_written_reads_back(void **state)
{
    (void)state;
    static const struct {
        bool tied;
        double alpha, eps;
        enum glm_rotary rotary;
    } cases[] = {
        { true, GLM_RESIDUAL_ALPHA, 1e-5, GLM_ROTARY_FP16_ANGLE },
        { false, 1.0 / 3.0, 0.1, GLM_ROTARY_FP32_ANGLE },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct glm_config c, back;
        struct buf json = { 0 };
        char text[128];
        assert_ok(parse(&c, "{" REQUIRED "}"));
        c.tied = cases[i].tied;
        c.residual_alpha = cases[i].alpha;
        c.norm_eps = cases[i].eps;
        c.rotary = cases[i].rotary;
        assert_ok(glm_config_write(&json, &c, "float16"));
        assert_ok(parse(&back, json.data));
        assert_null(glm_config_difference(&c, &back, text, sizeof text));
        assert_non_null(strstr(json.data, "\"torch_dtype\": \"float16\""));
        assert_non_null(strstr(json.data, cases[i].tied ? "\"tie_word_embeddings\": true"
                                                        : "\"tie_word_embeddings\": false"));
        /* Keys that other programs do not know appear only where they say something. */
        assert_int_equal(strstr(json.data, "soulchat_rotary") != NULL, i == 1);
        assert_int_equal(strstr(json.data, "residual_alpha") != NULL, i == 1);
        buf_clear(&json);
    }
}

static void test_difference_names_the_field(void **state)
{
    (void)state;
    struct glm_config a, b;
    char text[128];
    assert_ok(parse(&a, "{" REQUIRED "}"));
    b = a;
    b.hidden_size = 128;
    assert_string_equal(glm_config_difference(&a, &b, text, sizeof text),
                        "hidden_size 64 against 128");
    b = a;
    b.eos_id = 5;
    assert_string_equal(glm_config_difference(&a, &b, text, sizeof text),
                        "eos_token_id 1277 against 5");
    b = a;
    b.tied = false;
    assert_string_equal(glm_config_difference(&a, &b, text, sizeof text),
                        "tie_word_embeddings true against false");
    b = a;
    b.rotary = GLM_ROTARY_FP32_ANGLE;
    assert_string_equal(glm_config_difference(&a, &b, text, sizeof text),
                        "rotary fp16_angle against fp32_angle");
    b = a;
    b.residual_alpha = 1;
    assert_non_null(strstr(glm_config_difference(&a, &b, text, sizeof text), "residual_alpha"));
    b = a;
    b.norm_eps = 1;
    assert_non_null(strstr(glm_config_difference(&a, &b, text, sizeof text), "layernorm_epsilon"));
}

static void test_settings_override(void **state)
{
    (void)state;
    struct glm_config c;
    struct cfg *cfg;
    assert_ok(parse(&c, "{" REQUIRED ",\"tie_word_embeddings\":false}"));
    assert_ok(cfg_create(&cfg, &model_settings, 1));
    assert_ok(glm_config_apply(&c, cfg));
    assert_false(c.tied);
    assert_int_equal(c.rotary, GLM_ROTARY_FP16_ANGLE);
    assert_ok(cfg_set(cfg, "model.tie", "true", "test"));
    assert_ok(cfg_set(cfg, "model.rotary", "fp32_angle", "test"));
    assert_ok(glm_config_apply(&c, cfg));
    assert_true(c.tied);
    assert_int_equal(c.rotary, GLM_ROTARY_FP32_ANGLE);
    cfg_close(cfg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_config),
        cmocka_unit_test(test_published_config),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_every_required_key),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_not_json),
        cmocka_unit_test(test_written_reads_back),
        cmocka_unit_test(test_difference_names_the_field),
        cmocka_unit_test(test_settings_override),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
