/*
 * parity.c - does this program compute what the reference computes?
 *
 *     build/tests/parity DIR [--device cpu|emu|cuda[:N]|ref] [--dtype f32|bf16]
 *                        [--grad-dtype f32|bf16] [--threads N] [--verbose]
 *
 * DIR holds config.json, weights as Hugging Face files, and golden.safetensors (or golden.h5) with
 * what the reference made of them: hidden states, logits, loss, gradients, weights after AdamW
 * steps, a greedy continuation (layout: tests/golden/README.md). Nothing about the model is assumed
 * but what those files say.
 *
 * One line per quantity: the largest |ours - reference| over the largest |reference|. Rows of
 * padding do not count. Hidden states are judged layer by layer and gradients tensor by tensor,
 * each against its own largest entry, so that a wrong bias cannot hide behind a large matrix; a
 * tensor whose largest gradient is below 1/1000 of the largest of all is judged against that
 * thousandth, since its values are rounding noise of larger ones. Weights after AdamW are judged
 * against the largest weight of all: a step has the size of the learning rate in every tensor, and
 * where a gradient is near zero its rounding decides the step. --verbose prints every comparison.
 * The last line is JSON. In bf16 the question is another one: parity_bf16.h.
 *
 * Exit status: 0 all within bounds, 1 not so or the folder is bad, 2 wrong usage, 77 the device is
 * not in this build or does not compute in that dtype.
 */
#include "glm_look.h"
#include "parity_bf16.h"
#include "parity_case.h"
#include "ref_positions.h"

#include "base/num.h"
#include "kernels/ops_optim.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SMALL_TENSOR 1e-3

/* ---- errors of quantities ---- */

enum quantity { Q_LOGITS, Q_LOSS, Q_HIDDEN, Q_GRAD, Q_GRAD_NORM, Q_ADAMW, Q_COUNT };

static const struct {
    const char *name;
    double bar;
} quantities[Q_COUNT] = {
    [Q_LOGITS] = { "logits", 2e-6 },       [Q_LOSS] = { "loss", 2e-6 },
    [Q_HIDDEN] = { "hidden", 2e-6 },       [Q_GRAD] = { "grad", 5e-6 },
    [Q_GRAD_NORM] = { "grad_norm", 5e-6 }, [Q_ADAMW] = { "adamw", 1e-4 },
};

struct report {
    bool verbose; /* print every comparison */
    double error[Q_COUNT];
    char where[Q_COUNT][160]; /* the worst place */
    int64_t greedy_equal, greedy_count;
};

static void note(struct report *r, enum quantity q, double error, const char *where)
{
    if (isnan(error)) error = INFINITY;
    if (r->verbose) printf("  %-10s %.2e  %s\n", quantities[q].name, error, where);
    if (error < r->error[q]) return;
    r->error[q] = error;
    snprintf(r->where[q], sizeof r->where[q], "%s", where);
}

static double largest(const double *x, int64_t count)
{
    double most = 0.0;
    for (int64_t i = 0; i < count; i++) {
        if (isnan(x[i])) return NAN;
        most = fmax(most, fabs(x[i]));
    }
    return most;
}

static double largest_difference(const double *a, const double *b, int64_t count)
{
    double most = 0.0;
    for (int64_t i = 0; i < count; i++) {
        const double d = fabs(a[i] - b[i]);
        if (isnan(d)) return INFINITY;
        most = fmax(most, d);
    }
    return most;
}

/* ---- forward ---- */

/* ours [rows, width] against golden [B, S, width], row by row of the run. */
static err_t compare_rows_of(struct report *r, enum quantity q, const struct parity *p,
                             const double *ours, const char *name, int64_t width)
{
    struct golden_array a;
    double most = 0.0, error = 0.0;
    TRY(golden_read(&a, p->golden, name, 3));
    if (a.dim[0] != p->B || a.dim[1] != p->S || a.dim[2] != width) {
        golden_array_clear(&a);
        RAISE(FORMAT, "golden numbers: %s is not %lld x %lld x %lld", name, (long long)p->B,
              (long long)p->S, (long long)width);
    }
    for (int64_t i = 0; i < p->batch.rows; i++) {
        const double *row = a.value + p->row_of[i] * width;
        most = fmax(most, largest(row, width));
        error = fmax(error, largest_difference(ours + i * width, row, width));
    }
    golden_array_clear(&a);
    note(r, q, error / most, name);
    return ERR_OK;
}

static double mean_loss(const struct parity *p)
{
    double sum = 0.0;
    for (int64_t i = 0; i < p->batch.target_count; i++) sum += p->nll[i];
    return sum / (double)p->batch.target_count;
}

static err_t check_forward(struct report *r, struct parity *p)
{
    err_t rc = ERR_OK;
    const int64_t rows = p->batch.rows, C = p->config.hidden_size, V = p->config.vocab_size;
    double expected = 0.0;
    double *out = malloc((size_t)(rows * max_i64(C, V)) * sizeof *out);
    if (out == NULL) RAISE_DONE(NOMEM, "logits of %lld rows", (long long)rows);

    TRY_DONE(glm_eval_micro(p->glm, &p->batch, p->nll));
    TRY_DONE(golden_attribute(&expected, p->golden, "forward", "loss"));
    note(r, Q_LOSS, fabs(mean_loss(p) - expected) / fabs(expected), "forward");
    TRY_DONE(glm_look_logits(p->glm, out, rows, 0, rows));
    TRY_DONE(compare_rows_of(r, Q_LOGITS, p, out, "forward/logits", V));
    for (int64_t l = 0; l < p->config.layer_count; l++) {
        char name[64];
        snprintf(name, sizeof name, "forward/hidden_%lld", (long long)l);
        TRY_DONE(glm_look_hidden(p->glm, out, rows, l));
        TRY_DONE(compare_rows_of(r, Q_HIDDEN, p, out, name, C));
    }
done:
    free(out);
    return rc;
}

/* ---- gradients and weights ---- */

/* group/NAME of every tensor of the table, and no other; their largest entry. */
static err_t read_group(struct golden_array *out, double *most, const struct parity *p,
                        const char *group)
{
    const struct glm_params *params = glm_params(p->glm);
    int64_t members = 0;
    TRY(golden_group_count(&members, p->golden, group));
    if (members != params->count)
        RAISE(FORMAT, "golden numbers: %s holds %lld tensors; the model has %lld", group,
              (long long)members, (long long)params->count);
    *most = 0.0;
    for (int64_t i = 0; i < params->count; i++) {
        char name[160];
        const struct glm_param *row = &params->row[i];
        snprintf(name, sizeof name, "%s/%s", group, row->name);
        TRY(golden_read(&out[i], p->golden, name, row->dims));
        if (out[i].dim[0] != row->dim[0] || out[i].count != row->count)
            RAISE(FORMAT, "golden numbers: %s does not have the model's shape", name);
        *most = fmax(*most, largest(out[i].value, row->count));
    }
    return ERR_OK;
}

/* An arena of the model against group/NAME, tensor by tensor. A tensor is judged against its
 * largest entry, but not against less than `least` times the largest of all. */
static err_t compare_arena(struct report *r, enum quantity q, const struct parity *p,
                           const struct tensor *arena, const char *group, double least)
{
    err_t rc = ERR_OK;
    const struct glm_params *params = glm_params(p->glm);
    double most = 0.0;
    double *ours = NULL;
    struct golden_array *golden = calloc((size_t)params->count, sizeof *golden);
    if (golden == NULL) RAISE_DONE(NOMEM, "%s", group);
    TRY_DONE(read_group(golden, &most, p, group));
    TRY_DONE(parity_arena(&ours, p, arena));
    for (int64_t i = 0; i < params->count; i++) {
        const int64_t count = params->row[i].count;
        const double *x = ours + glm_layout(p->glm)->offset[i];
        const double scale = fmax(largest(golden[i].value, count), least * most);
        note(r, q, largest_difference(x, golden[i].value, count) / scale, params->row[i].name);
    }
done:
    for (int64_t i = 0; golden != NULL && i < params->count; i++) golden_array_clear(&golden[i]);
    free(golden);
    free(ours);
    return rc;
}

/* ---- AdamW ---- */

/* State and segments of three steps: one segment per tensor, chunks of the norm in table order. */
struct adamw {
    struct tensor exp_avg, exp_avg_sq, chunks;
    struct adamw_segment *segments;
    struct sumsq_segment *sums;
    int64_t chunk_count;
    double *chunks_host;
    double lr, beta1, beta2, eps, weight_decay, max_grad_norm;
};

static err_t adamw_settings(struct adamw *a, struct golden *golden)
{
    const struct {
        const char *name;
        double *value;
    } settings[] = {
        { "lr", &a->lr },
        { "beta1", &a->beta1 },
        { "beta2", &a->beta2 },
        { "eps", &a->eps },
        { "weight_decay", &a->weight_decay },
        { "max_grad_norm", &a->max_grad_norm },
    };
    for (int64_t i = 0; i < COUNT_OF(settings); i++)
        TRY(golden_attribute(settings[i].value, golden, "adamw", settings[i].name));
    return ERR_OK;
}

static err_t device_arena(struct tensor *out, struct parity *p, dtype_t dtype, int64_t count,
                          const char *name)
{
    void *data;
    TRY(dev_alloc(p->dev, &data, count * dtype_bytes(dtype), name));
    *out = tensor_1d(data, dtype, count, name);
    return ERR_OK;
}

static err_t adamw_begin(struct adamw *a, struct parity *p)
{
    const struct glm_params *params = glm_params(p->glm);
    const int64_t *offset = glm_layout(p->glm)->offset;
    const int64_t count = tensor_count(&p->grads);
    TRY(adamw_settings(a, p->golden));
    a->segments = calloc((size_t)params->count, sizeof *a->segments);
    a->sums = calloc((size_t)params->count, sizeof *a->sums);
    if (a->segments == NULL || a->sums == NULL) RAISE(NOMEM, "AdamW segments");
    for (int64_t i = 0; i < params->count; i++) {
        const struct glm_param *row = &params->row[i];
        a->segments[i] = (struct adamw_segment){ .weight_offset = offset[i],
                                                 .grad_offset = offset[i],
                                                 .state_offset = offset[i],
                                                 .count = row->count,
                                                 .decay = row->decay,
                                                 .tensor = (uint32_t)i };
        a->sums[i] = (struct sumsq_segment){ offset[i], row->count, a->chunk_count };
        a->chunk_count += div_ceil(row->count, SUMSQ_CHUNK);
    }
    a->chunks_host = calloc((size_t)a->chunk_count, sizeof *a->chunks_host);
    if (a->chunks_host == NULL) RAISE(NOMEM, "AdamW chunks");
    TRY(device_arena(&a->exp_avg, p, p->grads.dtype, count, "exp_avg"));
    TRY(device_arena(&a->exp_avg_sq, p, p->grads.dtype, count, "exp_avg_sq"));
    return device_arena(&a->chunks, p, DTYPE_F64, a->chunk_count, "chunks");
}

static void adamw_end(struct adamw *a, struct parity *p)
{
    dev_free(p->dev, a->chunks.data);
    dev_free(p->dev, a->exp_avg_sq.data);
    dev_free(p->dev, a->exp_avg.data);
    free(a->chunks_host);
    free(a->sums);
    free(a->segments);
}

static err_t gradient_norm(double *out, struct adamw *a, struct parity *p)
{
    double sum = 0.0;
    TRY(op_sumsq_chunks(p->dev, &(struct sumsq_chunks_args){
                                    .out = &a->chunks,
                                    .x = &p->grads,
                                    .segments = a->sums,
                                    .segment_count = glm_params(p->glm)->count,
                                }));
    TRY(dev_download(p->dev, a->chunks_host, a->chunks.data, a->chunk_count * 8));
    for (int64_t c = 0; c < a->chunk_count; c++) sum += a->chunks_host[c];
    *out = sqrt(sum);
    return ERR_OK;
}

static err_t adamw_step(struct adamw *a, struct parity *p, double norm, int64_t update)
{
    struct tensor weight = glm_weights(p->glm);
    return op_adamw_segments(p->dev, &(struct adamw_segments_args){
                                         .weight = &weight,
                                         .exp_avg = &a->exp_avg,
                                         .exp_avg_sq = &a->exp_avg_sq,
                                         .grad = &p->grads,
                                         .segments = a->segments,
                                         .segment_count = glm_params(p->glm)->count,
                                         .lr = a->lr,
                                         .beta1 = a->beta1,
                                         .beta2 = a->beta2,
                                         .eps = a->eps,
                                         .weight_decay = a->weight_decay,
                                         .grad_scale = fmin(1.0, a->max_grad_norm / (norm + 1e-6)),
                                         .update = update,
                                     });
}

/* Steps on the golden batch; the gradients of the first are those of group grad. */
static err_t check_training(struct report *r, struct parity *p)
{
    err_t rc = ERR_OK;
    struct adamw a = { 0 };
    struct golden_array losses = { 0 }, norms = { 0 };
    const int64_t bytes = tensor_count(&p->grads) * dtype_bytes(p->grads.dtype);
    double norm = 0.0, expected = 0.0;
    const struct tensor weights = glm_weights(p->glm);

    TRY_DONE(golden_read(&losses, p->golden, "adamw/losses", 1));
    TRY_DONE(golden_read(&norms, p->golden, "adamw/grad_norms", 1));
    if (losses.count != norms.count)
        RAISE_DONE(FORMAT, "golden numbers: adamw/losses and grad_norms");
    TRY_DONE(golden_attribute(&expected, p->golden, "grad", "global_norm"));
    TRY_DONE(adamw_begin(&a, p));
    for (int64_t step = 0; step < losses.count; step++) {
        const enum quantity loss_q = step == 0 ? Q_LOSS : Q_ADAMW;
        const enum quantity norm_q = step == 0 ? Q_GRAD_NORM : Q_ADAMW;
        TRY_DONE(dev_zero(p->dev, p->grads.data, bytes));
        TRY_DONE(
            glm_train_micro(p->glm, &p->batch, &(struct glm_grads){ .arena = p->grads }, p->nll));
        TRY_DONE(gradient_norm(&norm, &a, p));
        if (step == 0) {
            TRY_DONE(compare_arena(r, Q_GRAD, p, &p->grads, "grad", SMALL_TENSOR));
            note(r, Q_GRAD_NORM, fabs(norm - expected) / expected, "grad");
        }
        note(r, loss_q, fabs(mean_loss(p) / losses.value[step] - 1.0), "adamw/losses");
        note(r, norm_q, fabs(norm / norms.value[step] - 1.0), "adamw/grad_norms");
        TRY_DONE(adamw_step(&a, p, norm, step + 1));
    }
    TRY_DONE(compare_arena(r, Q_ADAMW, p, &weights, "adamw/weights_after_3", 1.0));
done:
    adamw_end(&a, p);
    golden_array_clear(&losses);
    golden_array_clear(&norms);
    return rc;
}

/* ---- generation ---- */

static int32_t argmax(const float *x, int64_t count)
{
    int64_t best = 0;
    for (int64_t i = 1; i < count; i++)
        if (x[i] > x[best]) best = i;
    return (int32_t)best;
}

/* Prompt, then one token at a time; a later token keeps the position of <sop> and counts blocks
 * on. */
static err_t generate(struct report *r, struct parity *p, struct glm_cache *cache, int32_t *pos,
                      int32_t *block, float *logits)
{
    const struct tok_specials specials = parity_specials(&p->config);
    const int32_t slot = 0;
    int64_t ctx = 0;
    TRY(ref_positions(&ctx, pos, block, p->prompt, p->prompt_len, &specials));
    TRY(glm_prefill(cache, logits, slot, p->prompt, pos, block, p->prompt_len, ctx));
    int32_t next_pos = pos[p->prompt_len - 1], next_block = block[p->prompt_len - 1];
    for (int64_t i = 0; i < p->greedy_len; i++) {
        const int32_t id = argmax(logits, p->config.vocab_size);
        if (id == p->greedy[i]) r->greedy_equal++;
        next_block++;
        TRY(glm_decode(cache, logits, &slot, &id, &next_pos, &next_block, 1));
    }
    return ERR_OK;
}

static err_t check_greedy(struct report *r, struct parity *p)
{
    err_t rc = ERR_OK;
    struct glm_cache *cache = NULL;
    const size_t len = (size_t)p->prompt_len;
    int32_t *positions = calloc(len * 2, sizeof *positions);
    float *logits = calloc((size_t)p->config.vocab_size, sizeof *logits);
    r->greedy_count = p->greedy_len;
    if (positions == NULL || logits == NULL) RAISE_DONE(NOMEM, "generation");
    TRY_DONE(glm_cache_create(&cache, p->glm, 1, p->prompt_len + p->greedy_len));
    TRY_DONE(generate(r, p, cache, positions, positions + len, logits));
done:
    glm_cache_close(cache);
    free(logits);
    free(positions);
    return rc;
}

/* ---- the program ---- */

struct arguments {
    const char *dir;
    struct parity_how how;
    bool verbose;
};

/* The value of --dtype or --grad-dtype. */
static bool parse_dtype(dtype_t *out, const char *text)
{
    static const dtype_t known[] = { DTYPE_F32, DTYPE_BF16, DTYPE_F64 };
    for (int64_t i = 0; i < COUNT_OF(known); i++) {
        *out = known[i];
        if (strcmp(text, dtype_name(known[i])) == 0) return true;
    }
    return false;
}

static bool is_device(const char *name)
{
    static const char *const known[] = { "cpu", "ref", "emu", "cuda" };
    for (int64_t i = 0; i < COUNT_OF(known); i++)
        if (strcmp(name, known[i]) == 0) return true;
    return strncmp(name, "cuda:", 5) == 0;
}

static bool parse_threads(int *out, const char *text)
{
    char *end = NULL;
    const long threads = strtol(text, &end, 10);
    *out = (int)threads;
    return end != text && *end == '\0' && threads >= 0 && threads <= 4096;
}

static bool parse(struct arguments *out, int argc, char **argv)
{
    struct parity_how *how = &out->how;
    *out = (struct arguments){ .how.device = "cpu" };
    how->dtype = DTYPE_COUNT;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        bool used = value != NULL; /* the value belongs to the option */
        if (used && strcmp(argv[i], "--device") == 0) {
            how->device = value;
        } else if (used && strcmp(argv[i], "--threads") == 0) {
            if (!parse_threads(&how->threads, value)) return false;
        } else if (used && strcmp(argv[i], "--dtype") == 0) {
            if (!parse_dtype(&how->dtype, value)) return false;
        } else if (used && strcmp(argv[i], "--grad-dtype") == 0) {
            if (!parse_dtype(&how->grad_dtype, value)) return false;
        } else {
            used = false;
            if (strcmp(argv[i], "--verbose") == 0)
                out->verbose = true;
            else if (argv[i][0] != '-' && out->dir == NULL)
                out->dir = argv[i];
            else
                return false;
        }
        if (used) i++;
    }
    const bool is_ref = strcmp(how->device, "ref") == 0;
    if (how->dtype == DTYPE_COUNT) how->dtype = is_ref ? DTYPE_F64 : DTYPE_F32;
    return out->dir != NULL && is_device(how->device);
}

/* Weights change last: training comes after everything that needs them as they were read. */
static err_t run(struct report *r, const struct arguments *args)
{
    err_t rc = ERR_OK;
    struct parity p;
    TRY_DONE(parity_open(&p, args->dir, &args->how));
    TRY_DONE(check_forward(r, &p));
    TRY_DONE(check_greedy(r, &p));
    TRY_DONE(check_training(r, &p));
done:
    parity_close(&p);
    return rc;
}

static bool print_report(const struct report *r)
{
    const bool greedy_equal = r->greedy_equal == r->greedy_count;
    bool ok = greedy_equal;
    for (int q = 0; q < Q_COUNT; q++) {
        const bool within = r->error[q] <= quantities[q].bar;
        ok = ok && within;
        printf("%-10s %.2e  bar %.0e  %s  (worst: %s)\n", quantities[q].name, r->error[q],
               quantities[q].bar, within ? "ok" : "FAILED", r->where[q]);
    }
    printf("%-10s %lld of %lld ids equal  %s\n", "greedy", (long long)r->greedy_equal,
           (long long)r->greedy_count, greedy_equal ? "ok" : "FAILED");
    printf("{");
    for (int q = 0; q < Q_COUNT; q++) {
        if (isfinite(r->error[q]))
            printf("\"%s\": %.3e, ", quantities[q].name, r->error[q]);
        else
            printf("\"%s\": null, ", quantities[q].name); /* JSON has no infinity */
    }
    printf("\"greedy_equal\": %s}\n", greedy_equal ? "true" : "false");
    return ok;
}

int main(int argc, char **argv)
{
    struct arguments args;
    struct report report = { 0 };
    bool ok = false;
    if (!parse(&args, argc, argv)) {
        fprintf(stderr, "usage: parity DIR [--device cpu|emu|cuda[:N]|ref] [--dtype f32|bf16] "
                        "[--grad-dtype f32|bf16] [--threads N] [--verbose]\n");
        return 2;
    }
    report.verbose = args.verbose;
    err_t rc;
    if (args.how.dtype == DTYPE_BF16) {
        rc = parity_bf16(&ok, args.dir, &args.how, args.verbose);
    } else {
        rc = run(&report, &args);
        if (rc == ERR_OK) ok = print_report(&report);
    }
    if (rc == ERR_UNSUPPORTED) {
        printf("SKIP: %s\n", err_last()->text);
        return 77;
    }
    if (rc != ERR_OK) fprintf(stderr, "parity: %s\n", err_last()->text);
    return ok ? 0 : 1;
}
