#include "train_fixture.h"

#include "base/check.h"
#include "batch_fixture.h"
#include "data/settings.h"
#include "data/settings_batch.h"
#include "model/settings.h"
#include "lazy_dev.h"
#include "ref_ops.h"
#include "train/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

err_t micro_run_start(struct run *run, struct cfg *cfg, bool resume)
{
    const struct ranks_place alone = { .size = 1, .listen_fd = -1 };
    return run_open(run, cfg, resume, &alone);
}

struct glm_config micro_config(void)
{
    return (struct glm_config){
        .family = GLM_CHATGLM,
        .vocab_size = 1000,
        .hidden_size = 32,
        .layer_count = 2,
        .head_count = 4,
        .kv_head_count = 4,
        .ffn_size = 64,
        .position_max = 256,
        .norm_eps = 1e-5,
        .residual_alpha = GLM_RESIDUAL_ALPHA,
        .tied = true,
        .rotary = GLM_ROTARY_FP32_ANGLE,
        .pad_id = 3,
        .mask_id = 900,
        .gmask_id = 901,
        .bos_id = 904,
        .eos_id = 905,
    };
}

struct glm_config grain_config(void)
{
    struct glm_config config = micro_config();
    config.vocab_size = 16;
    config.hidden_size = config.ffn_size = 8;
    config.layer_count = config.head_count = config.kv_head_count = 1;
    config.mask_id = 10;
    config.gmask_id = 11;
    config.bos_id = 12;
    config.eos_id = 13;
    return config;
}

/* Runs side by side share a folder that is there. */
static bool has_text(const char *path, const struct buf *text)
{
    struct buf found = { 0 };
    const bool same = file_read_all(&found, path, 1 << 20) == ERR_OK && found.size == text->size &&
                      memcmp(found.data, text->data, text->size) == 0;
    buf_clear(&found);
    return same;
}

const char *micro_model(const char *name, const struct glm_config *config)
{
    const char *dir = testing_path(name);
    struct buf text = { 0 };
    char path[FILE_PATH_MAX];
    assert_ok(glm_config_write(&text, config, "float32"));
    assert_ok(dir_create(dir));
    assert_ok(path_join(path, dir, "config.json"));
    if (!has_text(path, &text)) assert_ok(file_replace(path, text.data, (int64_t)text.size));
    buf_clear(&text);
    return dir;
}

/* Turns of dialogue d: client and counsellor in turn, lengths that differ from sample to sample. */
static int64_t make_turns(struct fixture_turn turns[6], int64_t d, int32_t longer)
{
    const int64_t samples = 1 + d % 3;
    for (int64_t s = 0; s < samples; s++) {
        const int32_t length = (int32_t)(4 + (5 * d + 3 * s) % 9) + longer;
        turns[2 * s] = (struct fixture_turn){ ROLE_CLIENT, length, 0, -1 };
        turns[2 * s + 1] = (struct fixture_turn){ ROLE_COUNSELLOR, length + 2, 0, length };
    }
    return 2 * samples;
}

void micro_corpus(const char *name, int64_t train_count, int64_t validation_count)
{
    enum { DIALOGUES_MAX = 64 };
    static struct fixture_turn turns[DIALOGUES_MAX][6];
    struct fixture_dialogue dialogues[DIALOGUES_MAX];
    const int64_t count = train_count + validation_count;
    ASSERT(count <= DIALOGUES_MAX);
    for (int64_t d = 0; d < count; d++) {
        const bool trains = d < train_count;
        dialogues[d].split = trains ? SPLIT_TRAIN : SPLIT_VALIDATION;
        dialogues[d].turn_count = make_turns(turns[d], d, trains ? 0 : 8);
        dialogues[d].turns = turns[d];
    }
    shards_close(fixture_open(name, TOK_CHATGLM, dialogues, count));
}

void micro_set(struct cfg *cfg, const char *key, const char *value)
{
    assert_ok(cfg_set(cfg, key, value, "test"));
}

struct cfg *micro_cfg(const char *corpus, const char *out)
{
    const struct cfg_table tables[] = { data_settings, batch_settings, model_settings,
                                        train_settings };
    const struct glm_config config = micro_config();
    struct cfg *cfg;
    assert_ok(cfg_create(&cfg, tables, COUNT_OF(tables)));
    micro_set(cfg, "data.dir", testing_path(corpus));
    micro_set(cfg, "model.dir", micro_model("model", &config));
    micro_set(cfg, "model.init", "random");
    micro_set(cfg, "batch.size", "4");
    micro_set(cfg, "batch.micro_tokens", "256");
    micro_set(cfg, "batch.max_input", "128");
    micro_set(cfg, "batch.max_target", "64");
    micro_set(cfg, "train.out", testing_path(out));
    micro_set(cfg, "train.threads", "1");
    micro_set(cfg, "train.schedule", "constant");
    micro_set(cfg, "train.lr", "1e-3");
    return cfg;
}

static void open_data(struct run *run)
{
    const struct sample_limits limits = { cfg_int(run->cfg, "batch.max_input"),
                                          cfg_int(run->cfg, "batch.max_target"), TARGET_DROP };
    assert_ok(shards_open(&run->shards, cfg_str(run->cfg, "data.dir"), true));
    assert_ok(sample_set_open(&run->train_set, run->shards, SPLIT_TRAIN, &limits));
    assert_ok(batch_spec_from_cfg(&run->batch, run->cfg));
    assert_ok(batcher_open(&run->batcher, run->train_set, &run->batch));
    run->bounds = batcher_bounds(run->batcher);
}

void micro_run_open(struct run *run, struct cfg *cfg, const char *device)
{
    const struct glm_config config = micro_config();
    micro_run_open_ranked(run, cfg, device, &config, NULL);
}

void micro_run_open_ranked(struct run *run, struct cfg *cfg, const char *device,
                           const struct glm_config *config, struct comm *comm)
{
    const int64_t stage = cfg_enum(cfg, "train.zero") - 1;
    const bool is_ref = strcmp(device, "ref") == 0;
    memset(run, 0, sizeof *run);
    run->cfg = cfg;
    run->metrics.fd = run->lock_fd = -1;
    assert_ok(formats_from_cfg(&run->formats, cfg));
    if (is_ref) run->formats.precision = run->formats.state.weights = DTYPE_F64;
    run->state.formats = formats_stored(&run->formats.state);
    open_data(run);
    struct glm_options options = {
        .dtype = run->formats.precision,
        .grad_dtype = run->formats.grad_dtype,
        .grad_keep = run->formats.grad_keep,
        .train = true,
        .activations = run->formats.activations,
        .rows_max = run->bounds.rows,
        .segments_max = run->bounds.segments,
        .targets_max = run->bounds.targets,
        .ranks = 1,
    };
    if (is_ref) {
        run->dev = calloc(1, sizeof *run->dev);
        assert_non_null(run->dev);
        dev_init_host(run->dev, &ops_ref, 1);
    } else if (strncmp(device, "lazy:", 5) == 0) {
        run->dev = lazy_dev_open(strtoull(device + 5, NULL, 10));
    } else {
        assert_ok(dev_open(&run->dev, device, (int)cfg_int(cfg, "train.threads")));
    }
    assert_ok(zero_open(&run->zero, comm, stage < 0 ? 1 : (int)stage, run->batch.lanes));
    assert_ok(zero_share_model(&run->zero, &options, run->dev, config));
    assert_ok(glm_create(&run->glm, run->dev, config, &options));
    assert_ok(lanes_init(&run->lanes, run->dev, run->batch.lanes, run->zero.lane_first,
                         run->zero.lane_end, glm_grad_layout(run->glm)->element_count,
                         glm_grad_dtype(run->glm)));
    assert_ok(zero_attach(&run->zero, run->glm, &run->lanes));
    assert_ok(glm_init(run->glm, 1));
    const struct optim_options optim = optim_options_from_cfg(cfg, &run->formats.state);
    assert_ok(optim_create_on(&run->optim, &run->zero.target, &optim));
    run->total_steps = 1000;
    assert_ok(sched_from_cfg(&run->sched, cfg, run->total_steps));
}

void micro_run_close(struct run *run)
{
    struct dev *dev = run->dev;
    const bool is_ref = dev->ops == &ops_ref, is_lazy = lazy_dev_is(dev);
    if (!is_ref && !is_lazy) {
        run_close(run);
        return;
    }
    if (dev_sync(dev) != ERR_OK) print_message("closed after: %s\n", err_last()->text);
    zero_close(&run->zero);
    lanes_clear(&run->lanes);
    optim_close(run->optim);
    glm_close(run->glm);
    if (is_lazy)
        lazy_dev_close(dev);
    else
        free(dev);   /* dev_init_host's */
    run->dev = NULL; /* what follows closes the rest */
    run->optim = NULL;
    run->glm = NULL;
    run_close(run);
}

double *micro_copy(const struct glm *glm, const struct tensor *arena, int64_t *count)
{
    const struct glm_params *params = glm_params(glm);
    double *out = malloc((size_t)params->element_count * sizeof *out);
    assert_non_null(out);
    *count = 0;
    for (int64_t i = 0; i < params->count; i++) {
        const struct tensor t =
            glm_param_tensor(params, glm_layout(glm), i, arena->data, arena->dtype);
        for (int64_t e = 0; e < params->row[i].count; e++) out[(*count)++] = ref_get(&t, e);
    }
    assert_int_equal(*count, params->element_count);
    return out;
}

double *micro_state(struct optim *optim, enum optim_part part, int64_t *count)
{
    const struct glm_params *params = optim_target(optim)->params;
    const dtype_t dtype = optim_part_dtype(&optim_plan_of(optim)->format, part);
    double *out = malloc((size_t)params->element_count * sizeof *out);
    void *space = malloc((size_t)params->element_count * sizeof(double));
    assert_true(out != NULL && space != NULL);
    *count = 0;
    for (int64_t i = 0; i < params->count; i++) {
        const int64_t n = optim_part_count(&optim_plan_of(optim)->format, &params->row[i], part);
        assert_ok(optim_read_state(optim, space, part, i, 0, n));
        const struct tensor t = tensor_1d(space, dtype, n, "state");
        for (int64_t e = 0; e < n; e++)
            out[(*count)++] = dtype == DTYPE_U8 ? (double)((uint8_t *)space)[e] : ref_get(&t, e);
    }
    free(space);
    return out;
}
