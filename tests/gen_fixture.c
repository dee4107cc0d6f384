#include "gen_fixture.h"

#include "base/file.h"
#include "base/rng.h"
#include "data/settings.h"
#include "eval/settings.h"
#include "model/glm_params.h"
#include "model/safetensors.h"
#include "model/settings.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TENSORS_MAX 64
#define END_ID      1605

static const char CONFIG[] =
    "{\"model_type\":\"chatglm\",\"vocab_size\":1984,\"hidden_size\":48,\"num_layers\":2,"
    "\"num_attention_heads\":3,\"inner_hidden_size\":192,\"max_sequence_length\":160,"
    "\"layernorm_epsilon\":1e-05,\"mask_token_id\":1600,\"gmask_token_id\":1601,"
    "\"bos_token_id\":1604,\"eos_token_id\":1605,\"pad_token_id\":3,"
    "\"soulchat_rotary\":\"fp32_angle\",\"tie_word_embeddings\":false}";

/* Values that matter: logits of some units, norms not one, biases not zero. */
static float value(const struct glm_params *p, int64_t index, int64_t element)
{
    const struct glm_param *row = &p->row[index];
    const double x = rng_normal(9, RNG_TEST | (uint64_t)index << 8, (uint64_t)element);
    if (row->role == GLM_EMBED || row->role == GLM_HEAD) return (float)(0.4 * x);
    if (row->init == GLM_INIT_ONE) return (float)(1 + 0.2 * x);
    return (float)(row->dims == 2 ? x / sqrt((double)row->dim[1]) : 0.2 * x);
}

/* The final norm's shift also goes along the output row of <eop>, so that this logit grows. */
static void add_end(float *shift, const struct glm_params *p, int64_t count, double end)
{
    const int64_t head = glm_params_find(p, GLM_HEAD, -1), output = head >= 0 ? head : 0;
    double square = 0;
    for (int64_t e = 0; e < count; e++) square += pow(value(p, output, END_ID * count + e), 2);
    for (int64_t e = 0; e < count; e++)
        shift[e] += (float)(end / square) * value(p, output, END_ID * count + e);
}

static float *make_values(const struct glm_params *p, int64_t index, const struct gen_weights *w)
{
    const struct glm_param *row = &p->row[index];
    float *values = malloc((size_t)row->count * sizeof *values);
    assert_non_null(values);
    for (int64_t e = 0; e < row->count; e++) values[e] = value(p, index, e);
    if (row->role == GLM_FINAL_BETA) {
        add_end(values, p, row->count, w->end);
        values[0] += w->broken;
    }
    return values;
}

static void write_tensors(const char *path, const struct glm_params *p, const struct gen_weights *w)
{
    struct safetensors_entry entries[TENSORS_MAX];
    struct safetensors_writer writer;
    assert_true(p->count <= TENSORS_MAX && p->row[0].role == GLM_EMBED);
    for (int64_t i = 0; i < p->count; i++) {
        const struct glm_param *row = &p->row[i];
        entries[i] = (struct safetensors_entry){
            row->name, DTYPE_F32, row->dims, { row->dim[0], row->dim[1] }
        };
    }
    assert_ok(safetensors_writer_open(&writer, path, entries, p->count, NULL));
    for (int64_t i = 0; i < p->count; i++) {
        float *values = make_values(p, i, w);
        assert_ok(safetensors_writer_write(&writer, i, values, p->row[i].count * 4, 0));
        free(values);
    }
    assert_ok(safetensors_writer_commit(&writer));
    safetensors_writer_close(&writer);
}

void gen_model_write(const char *dir, const struct gen_weights *w)
{
    const char *text = w->config != NULL ? w->config : CONFIG;
    char path[FILE_PATH_MAX];
    struct glm_config config;
    struct glm_params params;
    assert_ok(dir_create(dir));
    assert_ok(path_join(path, dir, "config.json"));
    assert_ok(file_replace(path, text, strlen(text)));
    assert_ok(glm_config_read(&config, dir));
    assert_ok(glm_params_create(&params, &config));
    assert_ok(path_join(path, dir, "model.safetensors"));
    write_tensors(path, &params, w);
    glm_params_clear(&params);
}

void gen_set(struct cfg *cfg, const char *key, const char *text)
{
    assert_ok(cfg_set(cfg, key, text, "test"));
}

struct cfg *gen_cfg(const char *dir)
{
    const struct cfg_table tables[] = { data_settings, model_settings, eval_settings };
    struct cfg *cfg;
    assert_ok(cfg_create(&cfg, tables, 3));
    gen_set(cfg, "generate.model", dir);
    gen_set(cfg, "generate.tokenizer", GEN_TOKENIZER);
    return cfg;
}
