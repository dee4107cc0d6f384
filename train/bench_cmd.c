/* soulchat bench: the speed of training steps, beside the ceiling measured in the same run. */
#include "train/commands.h"

#include "base/progress.h"
#include "kernels/probe.h"
#include "model/glm.h"
#include "train/bench_batch.h"
#include "train/optim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define WARMUP_STEPS 2
#define PROBE_N      2048
#define PROBE_S      1.0

static const struct cli_option options[] = {
    { "device", "NAME", "the device to measure, as train.device" },
    { "json", NULL, "print one JSON object instead of the table" },
    { NULL, NULL, NULL },
};

static const struct cli_spec spec = {
    .command = "bench",
    .purpose = "Measure training steps (forward, backward, norm, AdamW) of a random model.",
    .example = "soulchat bench step\n"
               "soulchat bench step --device cpu --bench.hidden=1024 --train.threads=2 --json",
    .positional = "step",
    .positional_max = 1,
    .options = options,
    .sections = "bench|train",
};

struct bench {
    struct dev *dev;
    struct glm *glm;
    struct optim *optim;
    struct glm_batch batch;
    struct tensor grads;
    double *nll;
    double *step_s; /* [steps] */
    int64_t steps;
};

struct bench_result {
    double step_s, tokens_per_s; /* medians */
    double gemm_share;           /* of the steps' wall time */
    double gemm_flop_per_s;      /* inside matrix products */
    double ceiling_flop_per_s;   /* probe before and after, the higher one */
    int64_t allocations;         /* device allocations after the first step */
    int64_t device_bytes, rss_bytes_max;
    double first_loss, last_loss;
};

static err_t make_config(struct glm_config *config, const struct cfg *cfg)
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
        .residual_alpha = 7.483314773547883, /* sqrt(56) */
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

static err_t open_model(struct bench *b, const struct cfg *cfg)
{
    const struct optim_options optim = optim_options_from_cfg(cfg);
    struct glm_config config;
    void *grads;
    TRY(make_config(&config, cfg));
    TRY(bench_batch_create(&b->batch, cfg_int(cfg, "bench.rows"), config.vocab_size));
    const struct glm_options glm_options = {
        .dtype = DTYPE_F32,
        .train = true,
        .activations = (enum glm_activations)cfg_enum(cfg, "train.activations"),
        .rows_max = b->batch.rows,
        .segments_max = b->batch.segment_count,
        .targets_max = b->batch.target_count,
        .ranks = 1,
    };
    TRY(dev_open(&b->dev, cfg_str(cfg, "train.device"), (int)cfg_int(cfg, "train.threads")));
    TRY(glm_create(&b->glm, b->dev, &config, &glm_options));
    TRY(glm_init(b->glm, 1));
    TRY(optim_create(&b->optim, b->glm, &optim));
    const int64_t elements = glm_layout(b->glm)->element_count;
    TRY(dev_alloc(b->dev, &grads, elements * dtype_bytes(DTYPE_F32), "gradients"));
    b->grads = tensor_1d(grads, DTYPE_F32, elements, "gradients");
    b->steps = cfg_int(cfg, "bench.steps");
    b->nll = malloc((size_t)b->batch.target_count * sizeof *b->nll);
    b->step_s = malloc((size_t)b->steps * sizeof *b->step_s);
    if (b->nll == NULL || b->step_s == NULL)
        RAISE(NOMEM, "benchmark: no memory for %lld steps", (long long)b->steps);
    return ERR_OK;
}

static void close_model(struct bench *b)
{
    if (b->grads.data != NULL) dev_free(b->dev, b->grads.data);
    optim_close(b->optim);
    glm_close(b->glm);
    dev_close(b->dev);
    bench_batch_clear(&b->batch);
    free(b->nll);
    free(b->step_s);
}

static err_t run_step(struct bench *b, double *loss, int64_t update)
{
    double norm;
    TRY(dev_zero(b->dev, b->grads.data, tensor_count(&b->grads) * dtype_bytes(b->grads.dtype)));
    TRY(glm_train_micro(b->glm, &b->batch, &(struct glm_grads){ .arena = b->grads }, b->nll));
    TRY(optim_grad_norm(b->optim, &norm, &b->grads));
    TRY(optim_step(b->optim, &b->grads, 1e-4, optim_clip_scale(b->optim, norm), update));
    TRY(dev_sync(b->dev));
    *loss = 0.0;
    for (int64_t i = 0; i < b->batch.target_count; i++)
        *loss += b->nll[i] * (double)b->batch.weights[i];
    return ERR_OK;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static err_t measure(struct bench *b, struct bench_result *r)
{
    struct progress progress;
    struct dev_stats before = { 0 };
    double ceiling, total_s = 0.0;
    TRY(probe_gemm(&r->ceiling_flop_per_s, b->dev, PROBE_N, PROBE_S));
    progress_begin(&progress, "bench", "steps", b->steps + WARMUP_STEPS);
    for (int64_t i = 0; i < b->steps + WARMUP_STEPS; i++) {
        if (i == WARMUP_STEPS) before = b->dev->stats;
        const double begin_s = time_now_s();
        TRY(run_step(b, &r->last_loss, i + 1));
        if (i == 0) r->first_loss = r->last_loss;
        if (i >= WARMUP_STEPS) b->step_s[i - WARMUP_STEPS] = time_now_s() - begin_s;
        progress_update(&progress, i + 1, "loss %.4f", r->last_loss);
    }
    progress_end(&progress);
    const struct dev_stats after = b->dev->stats;
    TRY(probe_gemm(&ceiling, b->dev, PROBE_N, PROBE_S));
    if (ceiling > r->ceiling_flop_per_s) r->ceiling_flop_per_s = ceiling;

    for (int64_t i = 0; i < b->steps; i++) total_s += b->step_s[i];
    qsort(b->step_s, (size_t)b->steps, sizeof *b->step_s, ascending);
    r->step_s = b->step_s[b->steps / 2];
    r->tokens_per_s = (double)b->batch.rows / r->step_s;
    r->gemm_share = (after.gemm_s - before.gemm_s) / total_s;
    r->gemm_flop_per_s = (after.gemm_flop - before.gemm_flop) / (after.gemm_s - before.gemm_s);
    r->allocations = after.alloc_count - before.alloc_count;
    r->device_bytes = after.alloc_bytes;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    r->rss_bytes_max = (int64_t)usage.ru_maxrss * 1024;
    return ERR_OK;
}

static void print_table(const struct bench *b, const struct bench_result *r)
{
    printf("model        %lld parameters; %lld rows in %lld segments, %lld trained, %d threads\n",
           (long long)glm_params(b->glm)->element_count, (long long)b->batch.rows,
           (long long)b->batch.segment_count, (long long)b->batch.target_count, b->dev->threads);
    printf("step         %.4f s (median of %lld), %.0f tokens/s\n", r->step_s, (long long)b->steps,
           r->tokens_per_s);
    printf("products     %.1f %% of the time, at %.1f GFLOP/s\n", 100.0 * r->gemm_share,
           r->gemm_flop_per_s / 1e9);
    printf("ceiling      %.1f GFLOP/s (largest product, same run): products reach %.1f %%\n",
           r->ceiling_flop_per_s / 1e9, 100.0 * r->gemm_flop_per_s / r->ceiling_flop_per_s);
    printf("memory       %.1f MB planned and allocated, %.1f MB resident at most; %lld allocations "
           "after the first steps\n",
           (double)r->device_bytes / 1e6, (double)r->rss_bytes_max / 1e6,
           (long long)r->allocations);
    printf("loss         %.4f, then %.4f\n", r->first_loss, r->last_loss);
}

static void print_json(const struct bench *b, const struct bench_result *r)
{
    printf("{\"parameters\":%lld,\"rows\":%lld,\"targets\":%lld,\"threads\":%d,\"step_s\":%.6f,"
           "\"tokens_per_s\":%.1f,\"gemm_share\":%.4f,\"gemm_gflops\":%.2f,\"ceiling_gflops\":%.2f,"
           "\"gemm_fraction\":%.4f,\"device_bytes\":%lld,\"rss_bytes_max\":%lld,"
           "\"allocations_after_first\":%lld,\"first_loss\":%.6f,\"last_loss\":%.6f}\n",
           (long long)glm_params(b->glm)->element_count, (long long)b->batch.rows,
           (long long)b->batch.target_count, b->dev->threads, r->step_s, r->tokens_per_s,
           r->gemm_share, r->gemm_flop_per_s / 1e9, r->ceiling_flop_per_s / 1e9,
           r->gemm_flop_per_s / r->ceiling_flop_per_s, (long long)r->device_bytes,
           (long long)r->rss_bytes_max, (long long)r->allocations, r->first_loss, r->last_loss);
}

err_t cmd_bench(struct cfg *cfg, int argc, char **argv)
{
    struct cli_args args;
    struct bench bench;
    struct bench_result result;
    bool help_shown = false;
    TRY(cli_parse(&args, &help_shown, &spec, cfg, argc, argv));
    if (help_shown) return ERR_OK;
    if (args.positional_count != 1 || strcmp(args.positional[0], "step") != 0)
        RAISE(USAGE, "bench measures \"step\"; found \"%s\"",
              args.positional_count > 0 ? args.positional[0] : "");
    const char *device = cli_option(&args, &spec, "device");
    if (device != NULL) TRY(cfg_set(cfg, "train.device", device, "--device"));
    memset(&bench, 0, sizeof bench);
    memset(&result, 0, sizeof result);
    err_t rc = open_model(&bench, cfg);
    if (rc == ERR_OK) rc = measure(&bench, &result);
    const bool as_json = cli_option(&args, &spec, "json") != NULL;
    if (rc == ERR_OK) (as_json ? print_json : print_table)(&bench, &result);
    close_model(&bench);
    return rc;
}
