/*
 * bench_ops - how fast the operators of a device are, beside what the device can do.
 *
 *     bench_ops [--device NAME] [--dtype f32|bf16] [--threads N] [--only PREFIX] [--seconds S]
 *               [--sizes tiny|host|gpu] [--json FILE]
 *
 * One line per operator and shape: the bytes it must move and the FLOP it must do, the floor that
 * follows from the ceilings, the median measured and the share of the floor in it. Ceilings are
 * measured in turns with the operator (bench.h). --json appends an object per line.
 * Exit status 1 where a row failed.
 */
#include "bench/bench.h"

#include "base/num.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    void (*run)(struct bench *b);
} groups[] = {
    { "gemm", bench_gemm },     { "linear", bench_linear },     { "attn", bench_attn },
    { "loss", bench_loss },     { "norm", bench_norm },         { "optim", bench_optim },
    { "rotary", bench_rotary }, { "act", bench_act },           { "embed", bench_embed },
    { "decode", bench_decode }, { "cache", bench_decode_attn },
};

struct arguments {
    const char *device, *json;
    int threads;
};

/* *out = the place of `text` among names. */
static bool one_of(int *out, const char *text, const char *const *names, int count)
{
    for (*out = 0; *out < count; (*out)++)
        if (strcmp(names[*out], text) == 0) return true;
    return false;
}

static bool parse_option(struct bench *b, struct arguments *args, const char *name,
                         const char *value)
{
    static const char *const sizes[] = { "tiny", "host", "gpu" };
    static const char *const dtypes[] = { "f32", "bf16" };
    int found = 0;
    bool ok = true;
    if (strcmp(name, "--threads") == 0)
        args->threads = atoi(value);
    else if (strcmp(name, "--device") == 0)
        args->device = value;
    else if (strcmp(name, "--json") == 0)
        args->json = value;
    else if (strcmp(name, "--only") == 0)
        b->only = value;
    else if (strcmp(name, "--seconds") == 0)
        b->seconds = atof(value);
    else if (strcmp(name, "--sizes") == 0)
        b->sizes = (ok = one_of(&found, value, sizes, COUNT_OF(sizes))) ? (enum bench_sizes)found
                                                                        : BENCH_SIZES;
    else if (strcmp(name, "--dtype") == 0)
        b->dtype = (ok = one_of(&found, value, dtypes, COUNT_OF(dtypes))) && found == 1 ? DTYPE_BF16
                                                                                        : DTYPE_F32;
    else
        ok = false;
    return ok;
}

static bool parse(struct bench *b, struct arguments *args, int argc, char **argv)
{
    for (int i = 1; i < argc; i += 2)
        if (i + 1 == argc || !parse_option(b, args, argv[i], argv[i + 1])) return false;
    return true;
}

int main(int argc, char **argv)
{
    struct bench b = { .only = "", .seconds = 0.4, .dtype = DTYPE_F32, .sizes = BENCH_SIZES };
    struct arguments args = { .device = "cpu" };
    if (!parse(&b, &args, argc, argv)) {
        printf("usage: bench_ops [--device NAME] [--dtype f32|bf16] [--threads N] [--only PREFIX] "
               "[--seconds S] [--sizes tiny|host|gpu] [--json FILE]\nprefixes:");
        for (int64_t k = 0; k < COUNT_OF(groups); k++) printf(" %s", groups[k].name);
        printf("\n");
        return 2;
    }
    if (args.json != NULL && (b.json = fopen(args.json, "a")) == NULL) {
        fprintf(stderr, "bench_ops: %s: cannot be written\n", args.json);
        return 1;
    }
    bench_open(&b, args.device, args.threads);
    for (int64_t k = 0; k < COUNT_OF(groups); k++)
        if (strncmp(groups[k].name, b.only, strlen(b.only)) == 0) groups[k].run(&b);
    bench_close(&b);
    if (b.json != NULL) fclose(b.json);
    return b.failed > 0 ? 1 : 0;
}
