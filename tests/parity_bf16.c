#include "parity_bf16.h"

#include "glm_look.h"

#include "base/num.h"
#include "model/json_in.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RATIO_MAX      1.2
#define DEVIATIONS     3.0
#define BF16_FLOOR     (0x1p-9 / 1.7320508075688772) /* sqrt(3) */
#define EXACT_AGREES   1e-6
#define JSON_BYTES_MAX (1 << 20)
#define NAME_MAX_BYTES 160

enum quantity { Q_LOGITS, Q_HIDDEN, Q_GRAD, Q_NLL, Q_COUNT };

static const struct {
    const char *name;
    bool pooled; /* there is a bar for all of its tensors together */
} quantities[Q_COUNT] = {
    [Q_LOGITS] = { "logits", true },
    [Q_HIDDEN] = { "hidden", true },
    [Q_GRAD] = { "grad", true },
    [Q_NLL] = { "nll", false },
};

struct report {
    json_t *tensors; /* of bf16.json */
    bool verbose;
    double ours[Q_COUNT], torch[Q_COUNT]; /* sums of squares over the tensors */
    double worst[Q_COUNT];                /* error over what is allowed */
    char where[Q_COUNT][NAME_MAX_BYTES];
};

static double rms(const double *x, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) sum += x[i] * x[i];
    return sqrt(sum / (double)count);
}

static double rms_difference(const double *x, const double *y, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) sum += (x[i] - y[i]) * (x[i] - y[i]);
    return sqrt(sum / (double)count);
}

/* One tensor against its row of bf16.json. */
static err_t judge(struct report *r, enum quantity q, const char *name, const double *ours,
                   const double *exact, int64_t count)
{
    double torch_rms, torch_error;
    json_t *row = json_object_get(r->tensors, name);
    if (row == NULL || json_unpack(row, "{s:F, s:F}", "rms", &torch_rms, "error", &torch_error))
        RAISE(FORMAT, "bf16.json: no rms and error of %s", name);
    const double scale = rms(exact, count);
    if (!(fabs(scale - torch_rms) <= EXACT_AGREES * torch_rms))
        RAISE(FORMAT, "%s: RMS %.9g in float64, bf16.json says %.9g: another model", name, scale,
              torch_rms);

    const double error = rms_difference(ours, exact, count) / scale;
    const double allowance = RATIO_MAX * (1.0 + DEVIATIONS / sqrt((double)count));
    const double share = error / (allowance * fmax(torch_error, BF16_FLOOR));
    if (r->verbose)
        printf("  %-8s %.2e  PyTorch %.2e  ratio %.2f of %.2f  %s\n", quantities[q].name, error,
               torch_error, error / torch_error, allowance, name);
    r->ours[q] += error * error;
    r->torch[q] += torch_error * torch_error;
    if (share < r->worst[q]) return ERR_OK;
    r->worst[q] = isnan(share) ? INFINITY : share;
    snprintf(r->where[q], sizeof r->where[q], "%s", name);
    return ERR_OK;
}

/* ---- the same tensors of both models ---- */

static err_t judge_logits(struct report *r, struct parity *ours, struct parity *exact, double *a,
                          double *b)
{
    const int64_t rows = ours->batch.rows, V = ours->config.vocab_size;
    TRY(glm_look_logits(ours->glm, a, rows, 0, rows));
    TRY(glm_look_logits(exact->glm, b, rows, 0, rows));
    return judge(r, Q_LOGITS, "logits", a, b, rows * V);
}

static err_t judge_forward(struct report *r, struct parity *ours, struct parity *exact)
{
    err_t rc = ERR_OK;
    const int64_t rows = ours->batch.rows, C = ours->config.hidden_size;
    const size_t count = (size_t)(rows * max_i64(C, ours->config.vocab_size));
    double *a = malloc(count * sizeof *a), *b = malloc(count * sizeof *b);
    if (a == NULL || b == NULL) RAISE_DONE(NOMEM, "logits of %lld rows", (long long)rows);
    TRY_DONE(glm_eval_micro(ours->glm, &ours->batch, ours->nll));
    TRY_DONE(glm_eval_micro(exact->glm, &exact->batch, exact->nll));
    TRY_DONE(judge(r, Q_NLL, "nll", ours->nll, exact->nll, ours->batch.target_count));
    TRY_DONE(judge_logits(r, ours, exact, a, b));
    for (int64_t l = 0; l < ours->config.layer_count; l++) {
        char name[NAME_MAX_BYTES];
        snprintf(name, sizeof name, "hidden_%lld", (long long)l);
        TRY_DONE(glm_look_hidden(ours->glm, a, rows, l));
        TRY_DONE(glm_look_hidden(exact->glm, b, rows, l));
        TRY_DONE(judge(r, Q_HIDDEN, name, a, b, rows * C));
    }
done:
    free(a);
    free(b);
    return rc;
}

static err_t train(double **grads, struct parity *p)
{
    const struct glm_grads where = { .arena = p->grads };
    TRY(glm_train_micro(p->glm, &p->batch, &where, p->nll));
    return parity_arena(grads, p, &p->grads);
}

static err_t judge_gradients(struct report *r, struct parity *ours, struct parity *exact)
{
    err_t rc = ERR_OK;
    double *a = NULL, *b = NULL;
    const struct glm_params *params = glm_params(ours->glm);
    TRY_DONE(train(&a, ours));
    TRY_DONE(train(&b, exact));
    for (int64_t i = 0; i < params->count; i++) {
        char name[NAME_MAX_BYTES];
        snprintf(name, sizeof name, "grad/%s", params->row[i].name);
        TRY_DONE(judge(r, Q_GRAD, name, a + glm_grad_layout(ours->glm)->offset[i],
                       b + glm_grad_layout(exact->glm)->offset[i], params->row[i].count));
    }
done:
    free(a);
    free(b);
    return rc;
}

/* ---- report ---- */

static bool print_report(const struct report *r)
{
    bool ok = true;
    for (int q = 0; q < Q_COUNT; q++) {
        const double ratio = sqrt(r->ours[q] / r->torch[q]);
        const bool within = r->worst[q] <= 1.0 && (!quantities[q].pooled || ratio <= RATIO_MAX);
        ok = ok && within;
        printf("%-8s %.2f times PyTorch's error  %s  (worst tensor: %.2f of its bar, %s)\n",
               quantities[q].name, ratio, within ? "ok" : "FAILED", r->worst[q], r->where[q]);
    }
    printf("{");
    for (int q = 0; q < Q_COUNT; q++) {
        const double ratio = sqrt(r->ours[q] / r->torch[q]);
        printf("\"%s_ratio\": %.4f, ", quantities[q].name, isfinite(ratio) ? ratio : -1.0);
    }
    printf("\"ok\": %s}\n", ok ? "true" : "false");
    return ok;
}

err_t parity_bf16(bool *ok, const char *dir, const struct parity_how *how, bool verbose)
{
    err_t rc = ERR_OK;
    char path[4096];
    json_t *root = NULL;
    struct report r = { .verbose = verbose };
    struct parity ours = { .dev = NULL }, exact = { .dev = NULL };
    const struct parity_how judge_how = { .device = "ref",
                                          .dtype = DTYPE_F64,
                                          .round_weights = true };
    ASSERT(how->dtype == DTYPE_BF16);
    TRY_DONE(parity_open(&ours, dir, how));
    TRY_DONE(parity_open(&exact, dir, &judge_how));
    if (snprintf(path, sizeof path, "%s/bf16.json", dir) >= (int)sizeof path)
        RAISE_DONE(ARG, "%s: path too long", dir);
    TRY_DONE(json_in_file(&root, path, JSON_BYTES_MAX));
    r.tensors = json_object_get(root, "tensors");
    TRY_DONE(judge_forward(&r, &ours, &exact));
    TRY_DONE(judge_gradients(&r, &ours, &exact));
    *ok = print_report(&r);
done:
    json_decref(root);
    parity_close(&exact);
    parity_close(&ours);
    return rc;
}
