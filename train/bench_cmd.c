/* soulchat bench: the speed of training steps, beside the ceiling measured in the same run; and of
 * a preparation, beside the bare tokenizer. */
#include "train/commands.h"

#include "data/prepare_bench.h"
#include "train/bench_load.h"
#include "train/bench_step.h"

#include <stdio.h>
#include <string.h>

static const struct cli_option options[] = {
    { "device", "NAME", "the device to measure, as train.device" },
    { "json", NULL, "print one JSON object instead of the table" },
    { NULL, NULL, NULL },
};

static const struct cli_spec spec = {
    .command = "bench",
    .purpose = "Measure training steps (forward, backward, norm, AdamW) of a random model; write "
               "the micro-batches that they work on; or measure the parts of a preparation, or "
               "how fast a prepared corpus is read.",
    .example =
        "soulchat bench step\n"
        "soulchat bench step --device cpu --bench.hidden=1024 --train.threads=2 --json\n"
        "soulchat bench packs packs.safetensors --bench.corpus=runs/corpus --bench.steps=4\n"
        "soulchat bench prepare --data.source=smile.jsonl --data.tokenizer=models/chatglm-6b "
        "--data.dir=runs/corpus\n"
        "soulchat bench load --data.dir=runs/corpus",
    .positional = "step | packs FILE | prepare | load",
    .positional_max = 2,
    .options = options,
    .sections = "bench|batch|train|data",
};

static const char *const part_names[BENCH_PARTS] = { "zero", "model", "norm", "update" };

static const char *device_name(const struct dev *dev)
{
    return dev->info.name[0] != '\0' ? dev->info.name : dev->ops->name;
}

static void print_table(const struct bench_step *b, const struct bench_result *r)
{
    printf("model        %lld parameters, %s; %.0f tokens a step, %.0f trained; %s, %d threads\n",
           (long long)glm_params(b->glm)->element_count, dtype_name(glm_weights(b->glm).dtype),
           r->tokens, r->targets, device_name(b->dev), b->dev->threads);
    printf("step         %.4f s (median of %lld; %.4f to %.4f), %.0f tokens/s\n", r->step_s,
           (long long)b->steps, r->step_s_min, r->step_s_max, r->tokens_per_s);
    printf("parts        one more step, waiting after each:");
    for (int i = 0; i < BENCH_PARTS; i++) printf(" %s %.4f s", part_names[i], r->part_s[i]);
    printf("\n");
    if (r->gemm_share > 0.0)
        printf("products     %.1f %% of the time, at %.1f GFLOP/s: %.1f %% of the ceiling\n",
               100.0 * r->gemm_share, r->gemm_flop_per_s / 1e9,
               100.0 * r->gemm_flop_per_s / r->ceiling_flop_per_s);
    printf(
        "ceiling      %.1f GFLOP/s (product of side %lld, same run); the step's %.2f GFLOP reach "
        "%.1f %% of it\n",
        r->ceiling_flop_per_s / 1e9, (long long)b->probe_side, r->model_flop / 1e9,
        100.0 * r->model_flop / r->step_s / r->ceiling_flop_per_s);
    printf("memory       %.1f MB planned and allocated, %.1f MB resident at most; %lld allocations "
           "after the first steps\n",
           (double)r->device_bytes / 1e6, (double)r->rss_bytes_max / 1e6,
           (long long)r->allocations);
    printf("loss         %.4f, then %.4f\n", b->losses[0], b->losses[b->losses_count - 1]);
}

static void print_json(const struct bench_step *b, const struct bench_result *r)
{
    printf("{\"device\":\"%s\",\"parameters\":%lld,\"dtype\":\"%s\",\"tokens\":%.1f,"
           "\"targets\":%.1f,\"threads\":%d,\"step_s\":%.6f,\"step_s_min\":%.6f,"
           "\"step_s_max\":%.6f,\"tokens_per_s\":%.1f,",
           device_name(b->dev), (long long)glm_params(b->glm)->element_count,
           dtype_name(glm_weights(b->glm).dtype), r->tokens, r->targets, b->dev->threads, r->step_s,
           r->step_s_min, r->step_s_max, r->tokens_per_s);
    printf("\"parts_s\":{");
    for (int i = 0; i < BENCH_PARTS; i++)
        printf("%s\"%s\":%.6f", i == 0 ? "" : ",", part_names[i], r->part_s[i]);
    printf("},\"model_gflop\":%.4f,\"gemm_share\":%.4f,\"gemm_gflops\":%.2f,"
           "\"ceiling_gflops\":%.2f,\"of_ceiling\":%.4f,\"device_bytes\":%lld,"
           "\"device_bytes_max\":%lld,\"rss_bytes_max\":%lld,\"allocations_after_first\":%lld,",
           r->model_flop / 1e9, r->gemm_share, r->gemm_flop_per_s / 1e9,
           r->ceiling_flop_per_s / 1e9, r->model_flop / r->step_s / r->ceiling_flop_per_s,
           (long long)r->device_bytes, (long long)r->device_bytes_max, (long long)r->rss_bytes_max,
           (long long)r->allocations);
    printf("\"losses\":[");
    for (int64_t i = 0; i < b->losses_count; i++) printf("%s%.9g", i == 0 ? "" : ",", b->losses[i]);
    printf("]}\n");
}

static err_t run_bench_step(const struct cfg *cfg, bool as_json)
{
    struct bench_step bench;
    struct bench_result result;
    err_t rc = bench_step_open(&bench, cfg);
    if (rc == ERR_OK) rc = bench_step_measure(&bench, &result);
    if (rc == ERR_OK) (as_json ? print_json : print_table)(&bench, &result);
    bench_step_close(&bench);
    return rc;
}

static err_t run_bench_packs(const struct cfg *cfg, const char *path)
{
    const char *corpus = cfg_str(cfg, "bench.corpus");
    const int64_t steps = cfg_int(cfg, "bench.steps");
    struct bench_packs packs;
    if (corpus[0] != '\0')
        TRY(bench_packs_corpus(&packs, cfg, corpus, steps));
    else
        TRY(bench_packs_formula(&packs, steps, cfg_int(cfg, "bench.micro"),
                                cfg_int(cfg, "bench.rows"), cfg_int(cfg, "bench.vocab")));
    const err_t rc = bench_packs_write(&packs, path);
    if (rc == ERR_OK)
        printf("%s: %lld steps, %lld micro-batches\n", path, (long long)packs.steps,
               (long long)packs.micro_count);
    bench_packs_clear(&packs);
    return rc;
}

/* ---- preparation ---- */

/* What `part` takes of `whole`, by the clock and by the processors. */
static void print_ratio(const char *label, const struct prepare_bench *r,
                        enum prepare_bench_part part, enum prepare_bench_part whole, double less)
{
    printf("%-44s %6.1f %% %8.1f %%\n", label, 100.0 * (r->wall_s[part] / r->wall_s[whole] - less),
           100.0 * (r->cpu_s[part] / r->cpu_s[whole] - less));
}

static void print_prepare_table(const struct prepare_bench *r)
{
    printf("corpus       %lld dialogues, %lld turns, %.1f MB of text; %lld threads\n",
           (long long)r->dialogues, (long long)r->turns, (double)r->text_bytes / 1e6,
           (long long)r->threads);
    printf("tokenizer    %lld strings, %.1f MB, %lld tokens\n", (long long)r->strings,
           (double)r->string_bytes / 1e6, (long long)r->tokens);
    printf("%-12s %10s %14s\n", "part", "clock (s)", "processor (s)");
    for (int i = 0; i < BENCH_PREPARE_PARTS; i++)
        printf("%-12s %10.3f %14.3f\n", prepare_bench_names[i], r->wall_s[i], r->cpu_s[i]);
    printf("%-44s %8s %10s\n", "ratio", "clock", "processor");
    print_ratio("bare tokenizer / parse, tokenize, write", r, BENCH_TOKENIZE, BENCH_STREAM, 0.0);
    print_ratio("cleaning, duplicates, splits add to these", r, BENCH_PREPARE, BENCH_STREAM, 1.0);
    printf("loader       %.2fM tokens/s by the clock, %.2fM by the processor\n",
           (double)r->load_rows / 1e6 / r->wall_s[BENCH_LOAD],
           (double)r->load_rows / 1e6 / r->cpu_s[BENCH_LOAD]);
}

static void print_prepare_json(const struct prepare_bench *r)
{
    printf("{\"threads\":%lld,\"dialogues\":%lld,\"turns\":%lld,\"text_bytes\":%lld,"
           "\"strings\":%lld,\"string_bytes\":%lld,\"tokens\":%lld,\"load_rows\":%lld,"
           "\"parts\":{",
           (long long)r->threads, (long long)r->dialogues, (long long)r->turns,
           (long long)r->text_bytes, (long long)r->strings, (long long)r->string_bytes,
           (long long)r->tokens, (long long)r->load_rows);
    for (int i = 0; i < BENCH_PREPARE_PARTS; i++)
        printf("%s\"%s\":{\"wall_s\":%.6f,\"cpu_s\":%.6f}", i == 0 ? "" : ",",
               prepare_bench_names[i], r->wall_s[i], r->cpu_s[i]);
    printf("}}\n");
}

static err_t run_bench_prepare(const struct cfg *cfg, bool as_json)
{
    struct prepare_options o;
    struct prepare_bench result;
    TRY(prepare_options_from_cfg(&o, cfg));
    const err_t rc = prepare_bench_run(&result, &o);
    if (rc == ERR_OK) (as_json ? print_prepare_json : print_prepare_table)(&result);
    prepare_options_clear(&o);
    return rc;
}

/* ---- loading ---- */

static err_t run_bench_load(const struct cfg *cfg, bool as_json)
{
    struct bench_load r;
    TRY(bench_load_measure(&r, cfg));
    const double clock = (double)r.rows / r.wall_s, processor = (double)r.rows / r.cpu_s;
    if (as_json)
        printf("{\"steps\":%lld,\"micro_batches\":%lld,\"rows\":%lld,\"open_s\":%.6f,"
               "\"wall_s\":%.6f,\"cpu_s\":%.6f,\"tokens_per_s\":%.0f}\n",
               (long long)r.steps, (long long)r.micro_batches, (long long)r.rows, r.open_s,
               r.wall_s, r.cpu_s, clock);
    else
        printf("loader       %lld steps, %lld micro-batches, %.1fM tokens: %.2fM tokens/s by the "
               "clock, %.2fM by the processor; opened in %.2f s\n",
               (long long)r.steps, (long long)r.micro_batches, (double)r.rows / 1e6, clock / 1e6,
               processor / 1e6, r.open_s);
    return ERR_OK;
}

err_t cmd_bench(struct cfg *cfg, int argc, char **argv)
{
    struct cli_args args;
    bool help_shown = false;
    TRY(cli_parse(&args, &help_shown, &spec, cfg, argc, argv));
    if (help_shown) return ERR_OK;
    const char *what = args.positional_count > 0 ? args.positional[0] : "";
    const char *device = cli_option(&args, &spec, "device");
    if (device != NULL) TRY(cfg_set(cfg, "train.device", device, "--device"));
    if (strcmp(what, "step") == 0 && args.positional_count == 1)
        return run_bench_step(cfg, cli_option(&args, &spec, "json") != NULL);
    if (strcmp(what, "packs") == 0 && args.positional_count == 2)
        return run_bench_packs(cfg, args.positional[1]);
    if (strcmp(what, "prepare") == 0 && args.positional_count == 1)
        return run_bench_prepare(cfg, cli_option(&args, &spec, "json") != NULL);
    if (strcmp(what, "load") == 0 && args.positional_count == 1)
        return run_bench_load(cfg, cli_option(&args, &spec, "json") != NULL);
    RAISE(
        USAGE,
        "bench measures \"step\", \"prepare\" or \"load\", or writes \"packs FILE\"; found \"%s\"",
        what);
}
