/* soulchat bench: the speed of training steps, beside the ceiling measured in the same run; of what
 * ranks exchange; and of a preparation, beside the bare tokenizer. */
#include "train/commands.h"

#include "base/stop.h"
#include "data/prepare_bench.h"
#include "train/bench_comm.h"
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
               "the micro-batches that they work on; measure the exchanges of such a step between "
               "ranks, the parts of a preparation, or how fast a prepared corpus is read.",
    .example =
        "soulchat bench step\n"
        "soulchat bench step --device cpu --bench.hidden=1024 --train.threads=2 --json\n"
        "scripts/launch/node.sh --nproc 2 -- soulchat bench comm\n"
        "soulchat bench packs packs.safetensors --bench.corpus=runs/corpus --bench.steps=4\n"
        "soulchat bench prepare --data.source=smile.jsonl --data.tokenizer=models/chatglm-6b "
        "--data.dir=runs/corpus\n"
        "soulchat bench load --data.dir=runs/corpus",
    .positional = "step | comm | packs FILE | prepare | load",
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
    if (r->part_s[BENCH_MODEL] > 0.0) {
        printf("parts        one more step, waiting after each:");
        for (int i = 0; i < BENCH_PARTS; i++) printf(" %s %.4f s", part_names[i], r->part_s[i]);
        printf("\n");
    }
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

/* After the figures of what was done. */
static err_t check_stop(int64_t done, int64_t wanted, const char *unit)
{
    if (!stop_requested()) return ERR_OK;
    RAISE(INTERRUPTED, "stopped after %lld of %lld %s", (long long)done, (long long)wanted, unit);
}

static err_t run_bench_step(const struct cfg *cfg, bool as_json)
{
    struct bench_step bench;
    struct bench_result result;
    err_t rc = bench_step_open(&bench, cfg);
    if (rc == ERR_OK) rc = bench_step_measure(&bench, &result);
    if (rc == ERR_OK) (as_json ? print_json : print_table)(&bench, &result);
    if (rc == ERR_OK) rc = check_stop(bench.steps, cfg_int(cfg, "bench.steps"), "steps");
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

/* ---- exchanges between ranks ---- */

static void print_comm_table(const struct bench_comm *b, const struct bench_comm_result *r)
{
    static const char *const says[BENCH_COMM_PARTS] = {
        [BENCH_COMM_MOVE] = "gradients to their owners, not added up",
        [BENCH_COMM_TREE] = "and added up there in lanes' order, as in training",
        [BENCH_COMM_RING] = "a ring's reduce-scatter of the same bytes, in place",
        [BENCH_COMM_GATHER] = "owners' spans to everyone",
        [BENCH_COMM_ADD] = "one arena added to another: a lane more on a rank",
    };
    printf("ranks        %lld over %s; %.1f MB of gradients, of which each sends %.1f MB\n",
           (long long)comm_size(b->ranks->comm), comm_kind(b->ranks->comm),
           (double)r->elements * 4 / 1e6, (double)r->sent_bytes / 1e6);
    for (int i = 0; i < BENCH_COMM_PARTS; i++)
        printf("%-12s %.5f s   %s\n", bench_comm_part_name((enum bench_comm_part)i), r->seconds[i],
               says[i]);
    printf("ratios       tree / ring %.3f, tree / move %.3f (medians of %lld rounds in turns)\n",
           r->tree_over_ring, r->tree_over_move, (long long)r->rounds);
    printf("link         %.2f GB/s of each rank each way: plan.intra or plan.inter\n",
           r->bytes_per_s / 1e9);
}

static void print_comm_json(const struct bench_comm *b, const struct bench_comm_result *r)
{
    printf("{\"ranks\":%lld,\"kind\":\"%s\",\"elements\":%lld,\"sent_bytes\":%lld,\"seconds\":{",
           (long long)comm_size(b->ranks->comm), comm_kind(b->ranks->comm), (long long)r->elements,
           (long long)r->sent_bytes);
    for (int i = 0; i < BENCH_COMM_PARTS; i++)
        printf("%s\"%s\":%.6f", i == 0 ? "" : ",", bench_comm_part_name((enum bench_comm_part)i),
               r->seconds[i]);
    printf("},\"tree_over_ring\":%.4f,\"tree_over_move\":%.4f,\"gb_per_s\":%.4f}\n",
           r->tree_over_ring, r->tree_over_move, r->bytes_per_s / 1e9);
}

/* Every rank measures, the first one speaks. */
static err_t run_bench_comm(const struct cfg *cfg, bool as_json)
{
    struct bench_comm bench;
    struct bench_comm_result result;
    err_t rc = bench_comm_open(&bench, cfg);
    if (rc == ERR_OK) rc = bench_comm_measure(&bench, &result);
    if (rc == ERR_OK && comm_rank(bench.ranks->comm) == 0)
        (as_json ? print_comm_json : print_comm_table)(&bench, &result);
    if (rc == ERR_OK) rc = check_stop(result.rounds, bench.rounds, "rounds");
    return bench_comm_close(&bench, rc);
}

/* ---- preparation ---- */

static bool is_stopped(void *context)
{
    (void)context;
    return stop_requested();
}

/* Asked to stop, it prints the parts that are done. */
static err_t run_bench_prepare(const struct cfg *cfg, bool as_json)
{
    err_t rc = ERR_OK;
    struct prepare_options o;
    struct prepare_bench result;
    struct buf text = { 0 };
    TRY(prepare_options_from_cfg(&o, cfg));
    o.stop = is_stopped;
    const err_t ran = prepare_bench_run(&result, &o);
    if (ran != ERR_INTERRUPTED) TRY_DONE(ran);
    TRY_DONE((as_json ? prepare_bench_json : prepare_bench_table)(&text, &result));
    fputs(text.data, stdout);
    if (ran != ERR_OK) RAISE_DONE(INTERRUPTED, "stopped before all parts were measured");
done:
    buf_clear(&text);
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
    return check_stop(r.steps, r.steps_wanted, "steps");
}

err_t cmd_bench(struct cfg *cfg, int argc, char **argv)
{
    struct cli_args args;
    bool help_shown = false;
    TRY(cli_parse(&args, &help_shown, &spec, cfg, argc, argv));
    if (help_shown) return ERR_OK;
    TRY(stop_catch());
    const char *what = args.positional_count > 0 ? args.positional[0] : "";
    const char *device = cli_option(&args, &spec, "device");
    if (device != NULL) TRY(cfg_set(cfg, "train.device", device, "--device"));
    if (strcmp(what, "step") == 0 && args.positional_count == 1)
        return run_bench_step(cfg, cli_option(&args, &spec, "json") != NULL);
    if (strcmp(what, "comm") == 0 && args.positional_count == 1)
        return run_bench_comm(cfg, cli_option(&args, &spec, "json") != NULL);
    if (strcmp(what, "packs") == 0 && args.positional_count == 2)
        return run_bench_packs(cfg, args.positional[1]);
    if (strcmp(what, "prepare") == 0 && args.positional_count == 1)
        return run_bench_prepare(cfg, cli_option(&args, &spec, "json") != NULL);
    if (strcmp(what, "load") == 0 && args.positional_count == 1)
        return run_bench_load(cfg, cli_option(&args, &spec, "json") != NULL);
    RAISE(USAGE,
          "bench measures \"step\", \"comm\", \"prepare\" or \"load\", or writes \"packs FILE\"; "
          "found \"%s\"",
          what);
}
