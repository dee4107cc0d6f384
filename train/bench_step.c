#include "train/bench_step.h"

#include "base/check.h"
#include "base/num.h"
#include "base/progress.h"
#include "model/hf_folder.h"
#include "train/formats.h"
#include "train/release.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define WARMUP_STEPS  2
#define LEARNING_RATE 1e-4

/* ---- opening ---- */

static err_t sizes_from_cfg(struct glm_config *config, const struct cfg *cfg)
{
    const int64_t C = cfg_int(cfg, "bench.hidden"), H = cfg_int(cfg, "bench.heads");
    const int64_t V = cfg_int(cfg, "bench.vocab");
    if (C % (4 * H) != 0)
        RAISE(USAGE, "bench.hidden is %lld; expected a multiple of 4 * bench.heads = %lld",
              (long long)C, (long long)(4 * H));
    *config = (struct glm_config){
        .family = GLM_CHATGLM,
        .vocab_size = V,
        .hidden_size = C,
        .layer_count = cfg_int(cfg, "bench.layers"),
        .head_count = H,
        .kv_head_count = H,
        .ffn_size = 4 * C,
        .position_max = 2048,
        .norm_eps = 1e-5,
        .residual_alpha = GLM_RESIDUAL_ALPHA,
        .tied = true,
        .rotary = GLM_ROTARY_FP32_ANGLE,
        .pad_id = 3,
        .mask_id = (int32_t)V - 8,
        .gmask_id = (int32_t)V - 7,
        .bos_id = (int32_t)V - 4,
        .eos_id = (int32_t)V - 3,
    };
    return ERR_OK;
}

err_t bench_config_from_cfg(struct glm_config *config, const struct cfg *cfg)
{
    const char *folder = cfg_str(cfg, "bench.model");
    if (folder[0] == '\0') return sizes_from_cfg(config, cfg);
    TRY(glm_config_read(config, folder));
    config->rotary = GLM_ROTARY_FP32_ANGLE;
    return glm_config_apply(config, cfg);
}

static err_t open_packs(struct bench_packs *out, const struct cfg *cfg, int64_t vocab_size)
{
    const char *path = cfg_str(cfg, "bench.packs");
    if (path[0] == '\0')
        return bench_packs_formula(out, 1, cfg_int(cfg, "bench.micro"), cfg_int(cfg, "bench.rows"),
                                   vocab_size);
    TRY(bench_packs_read(out, path));
    if (out->vocab_size <= vocab_size) return ERR_OK;
    RAISE(USAGE, "%s: ids go up to %lld; the model has %lld rows (bench.vocab)", path,
          (long long)out->vocab_size - 1, (long long)vocab_size);
}

/* A gradient that is used at once has nothing to be added to. */
static err_t check_one_micro(const struct bench_packs *packs)
{
    for (int64_t i = 0; i < packs->steps; i++)
        if (packs->step_first[i + 1] - packs->step_first[i] != 1)
            RAISE(USAGE,
                  "train.update is backward, and step %lld of the benchmark has %lld "
                  "micro-batches: it must be one",
                  (long long)i + 1, (long long)(packs->step_first[i + 1] - packs->step_first[i]));
    return ERR_OK;
}

static err_t load_weights(struct bench_step *b, const char *folder)
{
    struct weight_source *source;
    const struct glm_sink master = optim_master_sink(b->optim);
    if (folder[0] == '\0') return bench_init_weights(b->glm, b->optim);
    TRY(hf_folder_open(&source, folder));
    const err_t rc = glm_load_exact(b->glm, source, &master);
    weight_source_close(source);
    return rc;
}

static err_t open_host_memory(struct bench_step *b, int64_t targets)
{
    b->step_s = malloc((size_t)b->steps * sizeof *b->step_s);
    b->losses = malloc((size_t)(b->steps + WARMUP_STEPS) * sizeof *b->losses);
    bool ok = b->step_s != NULL && b->losses != NULL;
    for (int i = 0; i < GLM_TICKETS; i++)
        ok = (b->nll[i] = malloc((size_t)targets * sizeof *b->nll[i])) != NULL && ok;
    if (!ok) RAISE(NOMEM, "benchmark: no memory for %lld steps", (long long)b->steps);
    return ERR_OK;
}

err_t bench_step_open(struct bench_step *b, const struct cfg *cfg)
{
    struct train_formats formats;
    struct glm_config config;
    void *grads;
    *b = (struct bench_step){ .steps = cfg_int(cfg, "bench.steps"),
                              .probe_side = cfg_int(cfg, "bench.probe") };
    TRY(formats_from_cfg(&formats, cfg));
    const struct optim_options optim = optim_options_from_cfg(cfg, &formats.state);
    b->releases = formats.grad_keep == GLM_GRADS_RELEASED;
    TRY(bench_config_from_cfg(&config, cfg));
    TRY(open_packs(&b->packs, cfg, config.vocab_size));
    if (b->releases) TRY(check_one_micro(&b->packs));
    const struct bench_bounds bounds = bench_packs_bounds(&b->packs);
    TRY(open_host_memory(b, bounds.targets));
    const struct glm_options glm_options = {
        .dtype = formats.precision,
        .grad_dtype = formats.grad_dtype,
        .grad_keep = formats.grad_keep,
        .train = true,
        .activations = formats.activations,
        .rows_max = bounds.rows,
        .segments_max = bounds.segments,
        .targets_max = bounds.targets,
        .ranks = 1,
    };
    TRY(dev_open(&b->dev, cfg_str(cfg, "train.device"), (int)cfg_int(cfg, "train.threads")));
    TRY(glm_create(&b->glm, b->dev, &config, &glm_options));
    TRY(optim_create(&b->optim, b->glm, &optim));
    TRY(load_weights(b, cfg_str(cfg, "bench.model")));
    const int64_t elements = glm_grad_layout(b->glm)->element_count;
    const dtype_t dtype = glm_grad_dtype(b->glm);
    TRY(dev_alloc(b->dev, &grads, elements * dtype_bytes(dtype), "gradients"));
    b->grads = tensor_1d(grads, dtype, elements, "gradients");
    return ERR_OK;
}

void bench_step_close(struct bench_step *b)
{
    if (b->grads.data != NULL) dev_free(b->dev, b->grads.data);
    optim_close(b->optim);
    glm_close(b->glm);
    dev_close(b->dev);
    bench_packs_clear(&b->packs);
    for (int i = 0; i < GLM_TICKETS; i++) free(b->nll[i]);
    free(b->losses);
    free(b->step_s);
}

/* ---- one step ---- */

static const struct glm_batch *micro_of(const struct bench_step *b, int64_t step, int64_t *count)
{
    const int32_t *first = &b->packs.step_first[step % b->packs.steps];
    *count = first[1] - first[0];
    return &b->packs.micro[first[0]];
}

static double loss_of(const struct glm_batch *batch, const double *nll)
{
    double sum = 0.0;
    for (int64_t i = 0; i < batch->target_count; i++) sum += nll[i] * (double)batch->weights[i];
    return sum;
}

/* Two micro-batches are in flight: one is queued while the other runs. */
static err_t run_model(struct bench_step *b, double *loss, const struct glm_batch *micro,
                       int64_t count, const struct glm_grads *grads)
{
    int ticket[GLM_TICKETS];
    *loss = 0.0;
    for (int64_t i = 0; i < count + GLM_TICKETS - 1; i++) {
        if (i < count) TRY(glm_train_begin(b->glm, &ticket[i % GLM_TICKETS], &micro[i], grads));
        const int64_t done = i - (GLM_TICKETS - 1);
        if (done < 0) continue;
        double *nll = b->nll[done % GLM_TICKETS];
        TRY(glm_train_end(b->glm, ticket[done % GLM_TICKETS], nll));
        *loss += loss_of(&micro[done], nll);
    }
    return ERR_OK;
}

/* What an interval ends with, where parts are timed. */
static err_t part_end(double *part_s, struct bench_step *b, enum bench_part part, double *begin_s)
{
    if (part_s == NULL) return ERR_OK;
    TRY(dev_sync(b->dev));
    const double now_s = time_now_s();
    part_s[part] = now_s - *begin_s;
    *begin_s = now_s;
    return ERR_OK;
}

static err_t run_whole(struct bench_step *b, double *part_s, double *loss, int64_t step)
{
    double norm, begin_s = time_now_s();
    int64_t count;
    const struct glm_batch *micro = micro_of(b, step, &count);
    const struct glm_grads grads = { .arena = b->grads };
    TRY(optim_prefetch(b->optim));
    TRY(dev_zero(b->dev, b->grads.data, tensor_count(&b->grads) * dtype_bytes(b->grads.dtype)));
    TRY(part_end(part_s, b, BENCH_ZERO, &begin_s));
    TRY(run_model(b, loss, micro, count, &grads));
    TRY(part_end(part_s, b, BENCH_MODEL, &begin_s));
    TRY(optim_grad_norm(b->optim, &norm, &b->grads));
    TRY(part_end(part_s, b, BENCH_NORM, &begin_s));
    TRY(optim_step(b->optim, &b->grads, LEARNING_RATE, optim_clip_scale(b->optim, norm), step + 1));
    return part_end(part_s, b, BENCH_UPDATE, &begin_s);
}

/* train.update: backward. Only the end of the norm is a part of its own. */
static err_t run_released(struct bench_step *b, double *part_s, double *loss, int64_t step)
{
    double begin_s = time_now_s();
    int64_t count;
    const struct glm_batch *micro = micro_of(b, step, &count);
    struct release release = {
        .glm = b->glm,
        .optim = b->optim,
        .arena = b->grads,
        .lr = LEARNING_RATE,
        .grad_scale = b->norm > 0.0 ? optim_clip_scale(b->optim, b->norm) : 1.0,
        .update = step + 1,
        .step = step,
    };
    const struct glm_grads grads = release_grads(&release);
    if (part_s != NULL) part_s[BENCH_ZERO] = part_s[BENCH_UPDATE] = 0.0;
    TRY(run_model(b, loss, micro, count, &grads));
    TRY(part_end(part_s, b, BENCH_MODEL, &begin_s));
    TRY(optim_norm(b->optim, &b->norm));
    return part_end(part_s, b, BENCH_NORM, &begin_s);
}

/* part_s: NULL, or the parts' times, each waited for. */
static err_t run_step(struct bench_step *b, double *part_s, double *loss, int64_t step)
{
    TRY((b->releases ? run_released : run_whole)(b, part_s, loss, step));
    return dev_sync(b->dev);
}

/* ---- measuring ---- */

static void summarise(struct bench_step *b, struct bench_result *r)
{
    const double steps = (double)b->steps;
    double total_s = 0.0;
    for (int64_t i = 0; i < b->steps; i++) {
        int64_t count;
        const struct glm_batch *micro = micro_of(b, i + WARMUP_STEPS, &count);
        total_s += b->step_s[i];
        for (int64_t m = 0; m < count; m++) {
            for (int64_t s = 0; s < micro[m].segment_count; s++)
                r->tokens += micro[m].segments[s].len / steps;
            r->targets += (double)micro[m].target_count / steps;
            r->model_flop += bench_model_flop(glm_config(b->glm), &micro[m]) / steps;
        }
    }
    r->step_s = median_f64(b->step_s, b->steps); /* sorts */
    r->step_s_min = b->step_s[0];
    r->step_s_max = b->step_s[b->steps - 1];
    /* Steps of a corpus differ in size: the rate is that of all of them. */
    r->tokens_per_s = b->packs.steps == 1 ? r->tokens / r->step_s : r->tokens * steps / total_s;
    if (r->gemm_share > 0.0) r->gemm_share /= total_s;
}

static err_t run_steps(struct bench_step *b, struct bench_result *r)
{
    struct progress progress;
    struct dev_stats before = { 0 };
    const int64_t steps = b->steps + WARMUP_STEPS;
    progress_begin(&progress, "bench", "steps", steps);
    for (int64_t i = 0; i < steps; i++) {
        if (i == WARMUP_STEPS) before = b->dev->stats;
        const double begin_s = time_now_s();
        TRY(run_step(b, NULL, &b->losses[i], i));
        b->losses_count = i + 1;
        if (i >= WARMUP_STEPS) b->step_s[i - WARMUP_STEPS] = time_now_s() - begin_s;
        progress_update(&progress, i + 1, "loss %.4f", b->losses[i]);
    }
    progress_end(&progress);
    const struct dev_stats after = b->dev->stats;
    r->gemm_share = after.gemm_s - before.gemm_s; /* of all steps; summarise() divides */
    if (r->gemm_share > 0.0)
        r->gemm_flop_per_s = (after.gemm_flop - before.gemm_flop) / r->gemm_share;
    r->allocations = after.alloc_count - before.alloc_count;
    r->device_bytes = after.alloc_bytes;
    r->device_bytes_max = after.alloc_bytes_max;
    return ERR_OK;
}

err_t bench_step_measure(struct bench_step *b, struct bench_result *r)
{
    const dtype_t dtype = glm_weights(b->glm).dtype;
    double again, loss;
    struct rusage usage;
    *r = (struct bench_result){ 0 };
    TRY(bench_product_rate(&r->ceiling_flop_per_s, b->dev, dtype, b->probe_side));
    TRY(run_steps(b, r));
    TRY(run_step(b, r->part_s, &loss, b->losses_count));
    TRY(bench_product_rate(&again, b->dev, dtype, b->probe_side));
    if (again > r->ceiling_flop_per_s) r->ceiling_flop_per_s = again;
    summarise(b, r);
    getrusage(RUSAGE_SELF, &usage);
    r->rss_bytes_max = (int64_t)usage.ru_maxrss * 1024;
    return ERR_OK;
}
