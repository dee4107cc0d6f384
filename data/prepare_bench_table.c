#include "data/prepare_bench.h"

#include "base/check.h"
#include "base/num.h"

#include <stdbool.h>

/* A ratio of seconds and what it should be at least or at most, in percent. */
struct ratio {
    const char *label;
    enum prepare_bench_part part, whole;
    double less; /* of the ratio, which then says what `part` adds to `whole` */
    bool at_most;
    double bar;
};

static const struct ratio ratios[] = {
    { "bare tokenizer / parse, tokenize, write", BENCH_TOKENIZE, BENCH_STREAM, 0.0, false, 75.0 },
    { "the library / parse, tokenize, write", BENCH_LIBRARY, BENCH_STREAM, 0.0, false, 75.0 },
    { "cleaning, duplicates, splits add to these", BENCH_PREPARE, BENCH_STREAM, 1.0, true, 40.0 },
};

static double percent(const double *seconds, const struct ratio *r)
{
    return seconds[r->whole] > 0.0 ? 100.0 * (seconds[r->part] / seconds[r->whole] - r->less) : 0.0;
}

/* By the processors, whose seconds are the ones to compare on a busy machine. */
static bool is_met(const struct ratio *r, const struct prepare_bench *b)
{
    const double value = percent(b->cpu_s, r);
    return r->at_most ? value <= r->bar : value >= r->bar;
}

static err_t put_ratios(struct buf *out, const struct prepare_bench *b)
{
    TRY(buf_printf(out, "%-42s %8s %10s   %s\n", "ratio", "clock", "processor", "should be"));
    for (int64_t i = 0; i < COUNT_OF(ratios); i++) {
        const struct ratio *r = &ratios[i];
        if (b->cpu_s[r->part] <= 0.0 || b->cpu_s[r->whole] <= 0.0) continue;
        TRY(buf_printf(out, "%-42s %6.1f %% %8.1f %%   %s %.0f %%: %s\n", r->label,
                       percent(b->wall_s, r), percent(b->cpu_s, r),
                       r->at_most ? "<=" : ">=", r->bar, is_met(r, b) ? "met" : "missed"));
    }
    return ERR_OK;
}

err_t prepare_bench_table(struct buf *out, const struct prepare_bench *b)
{
    TRY(buf_printf(out, "corpus       %lld dialogues, %lld turns, %.1f MB of text; %lld threads\n",
                   (long long)b->dialogues, (long long)b->turns, (double)b->text_bytes / 1e6,
                   (long long)b->threads));
    TRY(buf_printf(out, "tokenizer    %lld strings, %.1f MB, %lld tokens\n", (long long)b->strings,
                   (double)b->string_bytes / 1e6, (long long)b->tokens));
    TRY(buf_printf(out, "%-12s %10s %14s\n", "part", "clock (s)", "processor (s)"));
    for (int i = 0; i < BENCH_PREPARE_PARTS; i++)
        if (b->wall_s[i] > 0.0)
            TRY(buf_printf(out, "%-12s %10.3f %14.3f\n", prepare_bench_names[i], b->wall_s[i],
                           b->cpu_s[i]));
    TRY(put_ratios(out, b));
    if (b->cpu_s[BENCH_LIBRARY] > 0.0)
        TRY(buf_printf(out, "library      %.1f times our tokenizer's seconds; %lld turns differ\n",
                       b->cpu_s[BENCH_LIBRARY] / b->cpu_s[BENCH_TOKENIZE],
                       (long long)b->other_lines));
    if (b->wall_s[BENCH_LOAD] <= 0.0) return ERR_OK;
    TRY(buf_printf(out, "random       %.1f us a sample by the processor, of %lld\n",
                   1e6 * b->cpu_s[BENCH_RANDOM] / (double)max_i64(b->random_samples, 1),
                   (long long)b->random_samples));
    return buf_printf(out,
                      "loader       %.2fM tokens/s by the clock, %.2fM by the processor "
                      "(should be >= 1M by the clock)\n",
                      (double)b->load_rows / 1e6 / b->wall_s[BENCH_LOAD],
                      (double)b->load_rows / 1e6 / b->cpu_s[BENCH_LOAD]);
}

err_t prepare_bench_json(struct buf *out, const struct prepare_bench *b)
{
    TRY(buf_printf(out,
                   "{\"threads\":%lld,\"dialogues\":%lld,\"turns\":%lld,\"text_bytes\":%lld,"
                   "\"strings\":%lld,\"string_bytes\":%lld,\"tokens\":%lld,"
                   "\"other_lines\":%lld,\"random_samples\":%lld,\"load_rows\":%lld,\"parts\":{",
                   (long long)b->threads, (long long)b->dialogues, (long long)b->turns,
                   (long long)b->text_bytes, (long long)b->strings, (long long)b->string_bytes,
                   (long long)b->tokens, (long long)b->other_lines, (long long)b->random_samples,
                   (long long)b->load_rows));
    for (int i = 0; i < BENCH_PREPARE_PARTS; i++)
        TRY(buf_printf(out, "%s\"%s\":{\"wall_s\":%.6f,\"cpu_s\":%.6f}", i == 0 ? "" : ",",
                       prepare_bench_names[i], b->wall_s[i], b->cpu_s[i]));
    return buf_puts(out, "}}\n");
}
