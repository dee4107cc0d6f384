#include "ckpt_fixture.h"

#include "base/rng.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

void ckpt_rig_open_padded(struct ckpt_rig *r, const struct glm_config *config,
                          enum optim_moments moments, int64_t ranks, int64_t vocab_multiple)
{
    const struct glm_options options = { .dtype = DTYPE_F32,
                                         .train = true,
                                         .rows_max = 128,
                                         .segments_max = 1,
                                         .targets_max = 1,
                                         .ranks = ranks,
                                         .vocab_multiple = vocab_multiple };
    const struct optim_options optim = {
        .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .format.moments = moments
    };
    memset(r, 0, sizeof *r);
    assert_ok(dev_open(&r->dev, "cpu", 1));
    assert_ok(glm_create(&r->glm, r->dev, config, &options));
    assert_ok(optim_create(&r->optim, r->glm, &optim));
    r->state.formats = formats_stored(&optim_plan_of(r->optim)->format);
    r->state.model = *config;
    r->state.lanes = 1;
    r->state.seed = 42;
    strcpy(r->state.program, SOULCHAT_VERSION);
    memset(r->state.corpus_sha256, 'c', SHA256_HEX_SIZE - 1);
    strcpy(r->state.tokenizer_dir, "models/chatglm");
    assert_ok(buf_puts(&r->state.settings, "train:\n  steps: 12 # 训练\n"));
    assert_ok(buf_puts(&r->state.tuning, "soulchat-tune 1\ncrc32c 00000000\n"));
}

void ckpt_rig_open(struct ckpt_rig *r, const struct glm_config *config)
{
    ckpt_rig_open_padded(r, config, OPTIM_MOMENTS_F32, 1, 0);
}

void ckpt_rig_close(struct ckpt_rig *r)
{
    ckpt_state_clear(&r->state);
    optim_close(r->optim);
    glm_close(r->glm);
    dev_close(r->dev);
}

/* Any numbers: of a part of the state, or, with kind = OPTIM_PARTS, the weights. */
static void fill(void *out, dtype_t dtype, int64_t step, int64_t row, int kind, int64_t count)
{
    const uint64_t stream = (uint64_t)RNG_TEST | (uint64_t)(1000 * step + 10 * row + kind) << 8;
    for (int64_t e = 0; e < count; e++) {
        if (dtype == DTYPE_U8)
            ((uint8_t *)out)[e] = (uint8_t)rng_u64(4, stream, (uint64_t)e);
        else
            ((float *)out)[e] = (float)rng_normal(4, stream, (uint64_t)e);
    }
}

/* Step, weights and state become functions of `step`; padding is left alone. */
void ckpt_rig_set(struct ckpt_rig *r, int64_t step)
{
    const struct glm_params *params = glm_params(r->glm);
    const struct optim_plan *plan = optim_plan_of(r->optim);
    float *values = malloc((size_t)params->element_count * sizeof *values);
    for (int64_t i = 0; i < params->count; i++) {
        fill((float *)glm_weights(r->glm).data + glm_layout(r->glm)->offset[i], DTYPE_F32, step, i,
             OPTIM_PARTS, params->row[i].count);
        for (int p = 0; p < OPTIM_PARTS; p++) {
            const enum optim_part part = (enum optim_part)p;
            const int64_t count = optim_part_count(&plan->format, &params->row[i], part);
            fill(values, optim_part_dtype(&plan->format, part), step, i, p, count);
            assert_ok(optim_write_state(r->optim, part, i, 0, values, count));
        }
    }
    free(values);
    r->state.step = r->state.updates = step;
    r->state.samples = r->state.stream_index = 80 * step;
}

err_t ckpt_rig_save(struct ckpt_rig *r, const char *root, int64_t step, int64_t keep_last)
{
    const struct ckpt_keep keep = { .last = keep_last };
    ckpt_rig_set(r, step);
    return ckpt_save(testing_path(root), &r->state, r->optim, &keep, NULL);
}

/* ---- folders ---- */

const char *ckpt_step_dir(const char *root, int64_t step)
{
    static char dir[4][FILE_PATH_MAX];
    static int turn;
    char *out = dir[turn++ % 4];
    assert_ok(ckpt_path(out, testing_path(root), step));
    return out;
}

/* The names in a folder, sorted, each followed by a blank. */
const char *ckpt_names_in(const char *root)
{
    static char text[4096];
    struct dirent **names;
    const int count = scandir(testing_path(root), &names, NULL, alphasort);
    assert_true(count >= 0);
    text[0] = '\0';
    for (int i = 0; i < count; i++) {
        if (names[i]->d_name[0] != '.') strcat(strcat(text, names[i]->d_name), " ");
        free(names[i]);
    }
    free(names);
    return text;
}

void ckpt_read_file(struct buf *out, const char *dir, const char *name)
{
    char path[FILE_PATH_MAX];
    assert_ok(path_join(path, dir, name));
    assert_ok(file_read_all(out, path, 1 << 26));
}

const char *const ckpt_files[CKPT_FILES] = { "MANIFEST.json", "model.0000.safetensors",
                                             "optim.0000.safetensors", "state.json" };

void ckpt_assert_same(const char *dir_a, const char *dir_b)
{
    for (int64_t i = 0; i < CKPT_FILES; i++) {
        struct buf a = { 0 }, b = { 0 };
        ckpt_read_file(&a, dir_a, ckpt_files[i]);
        ckpt_read_file(&b, dir_b, ckpt_files[i]);
        assert_int_equal(a.size, b.size);
        assert_memory_equal(a.data, b.data, a.size);
        buf_clear(&a);
        buf_clear(&b);
    }
}
