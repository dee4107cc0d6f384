#include "train/plan_print.h"

#include "base/check.h"
#include "base/num.h"
#include "data/shard.h"

#include <jansson.h>
#include <stdlib.h>

#define NUMBER_MAX 32

/* 6,173,286,400 */
static const char *grouped(char text[NUMBER_MAX], int64_t value)
{
    char digits[NUMBER_MAX];
    const int count = snprintf(digits, sizeof digits, "%lld", (long long)value);
    int at = 0;
    for (int i = 0; i < count; i++) {
        if (i > 0 && (count - i) % 3 == 0) text[at++] = ',';
        text[at++] = digits[i];
    }
    text[at] = '\0';
    return text;
}

static double gb(int64_t bytes) { return (double)bytes / 1e9; }

static void print_head(FILE *out, const struct plan_setup *s)
{
    const struct plan *p = &s->plan;
    const struct cost_settings *c = &p->settings;
    char number[NUMBER_MAX];
    fprintf(out, "model      %s parameters, %lld layers of width %lld, %s head (%s)\n",
            grouped(number, p->memory.zero.parameters), (long long)p->config.layer_count,
            (long long)p->config.hidden_size, p->config.tied ? "tied" : "own", s->model_source);
    fprintf(out, "card       %s (%s), %.2f GB\n", p->card.name, p->card.gpu,
            gb(p->card.memory_bytes));
    fprintf(out,
            "settings   %s, gradients %s, master %s, moments %s, both on the %s, update %s, "
            "activations %s\n",
            dtype_name(c->dtype), dtype_name(c->grad_dtype), c->master ? "on" : "off",
            c->moments_8bit ? "8bit" : "f32", c->state_on_host ? "host" : "device",
            c->update_in_backward ? "in backward" : "after the step",
            cost_activations_name(c->activations));
    fprintf(out, "step       %lld %s: %s rows", (long long)p->batch.size,
            p->batch.unit == BATCH_SAMPLES ? "samples" : "tokens",
            grouped(number, (int64_t)p->work.rows));
    fprintf(out, ", %s trained, %.0f micro-batches of at most",
            grouped(number, (int64_t)p->work.targets), p->work.micro_batches);
    fprintf(out, " %s rows\n", grouped(number, p->bounds.rows));
    if (c->lanes > 1)
        fprintf(out, "lanes      %lld: %lld buffers of gradients\n", (long long)c->lanes,
                (long long)p->memory.zero.grad_buffers);
    if (c->ranks > 1)
        fprintf(out, "ranks      %lld, %lld a machine (%s); train.zero %d%s\n", (long long)c->ranks,
                (long long)min_i64(c->ranks, p->fabric.ranks_per_node), s->links_source, c->zero,
                p->zero_auto ? ", which auto chooses" : "");
    fprintf(out, "samples    %.1f rows, %.1f of them trained (%s)\n", p->text.sample_rows,
            p->text.sample_targets, s->text_source);
}

static void print_memory(FILE *out, const struct plan_setup *s)
{
    const struct plan *p = &s->plan;
    char number[NUMBER_MAX];
    fprintf(out, "\n%-28s %18s %9s\n", "memory", "bytes", "GB");
    for (int i = 0; i < COST_CLASSES; i++)
        if (p->memory.bytes[i] > 0)
            fprintf(out, "%-28s %18s %9.2f\n", cost_class_name((enum cost_class)i),
                    grouped(number, p->memory.bytes[i]), gb(p->memory.bytes[i]));
    const int64_t left = p->card.memory_bytes - p->memory.device_bytes;
    fprintf(out, "%-28s %18s %9.2f\n", "sum", grouped(number, p->memory.device_bytes),
            gb(p->memory.device_bytes));
    const int64_t shown = left < 0 ? -left : left;
    fprintf(out, "%-28s %18s %9.2f   %.1f %% of the card\n", left < 0 ? "missing" : "left",
            grouped(number, shown), gb(shown),
            100.0 * (double)shown / (double)p->card.memory_bytes);
    if (p->memory.host_bytes > 0)
        fprintf(out, "%-28s %18s %9.2f\n", "page-locked, on the host",
                grouped(number, p->memory.host_bytes), gb(p->memory.host_bytes));
    if (p->copy_bytes > 0)
        fprintf(out, "%-28s %18s %9.2f   train.save: background\n", "copy for saving, on the host",
                grouped(number, p->copy_bytes), gb(p->copy_bytes));
    const int64_t tokens_bytes = (int64_t)SHARD_CACHE_BYTES * p->settings.ranks;
    fprintf(out, "%-28s %18s %9.2f   of all ranks, at most\n", "unpacked tokens, on the host",
            grouped(number, tokens_bytes), gb(tokens_bytes));
    if (p->card.capability > 0) fprintf(out, "scratch by %s; context assumed\n", s->device.source);
}

static void print_time(FILE *out, const struct plan_setup *s)
{
    const struct cost_time *t = &s->plan.time;
    fprintf(out, "\n%-28s %18s %9s   (rates %s)\n", "time of a step", "seconds", "%",
            s->rates_source);
    for (int i = 0; i < COST_PARTS; i++)
        if (t->seconds[i] > 0.0)
            fprintf(out, "%-28s %18.4f %9.1f\n", cost_part_label((enum cost_part)i), t->seconds[i],
                    100.0 * t->seconds[i] / t->step_s);
    fprintf(out, "%-28s %18.4f\n", "sum", t->step_s);
    const struct card_rates *r = &s->plan.card.rates;
    const double gemm = s->plan.settings.dtype == DTYPE_BF16 ? r->gemm_bf16 : r->gemm_f32;
    fprintf(out, "%.0f tokens/s; the model's own FLOP at %.2f of the largest products' rate\n",
            t->tokens_per_s, t->flop_per_s / gemm);
    if (t->transfer_s > 0.0)
        fprintf(out, "states travel %.3f s each way, %.3f s of it not hidden\n", t->transfer_s,
                t->seconds[COST_T_TRANSFER]);
}

static void print_exchange(FILE *out, const struct plan_answer *a)
{
    const struct plan *p = &a->setup->plan;
    const struct scale *x = &p->scale;
    char number[2][NUMBER_MAX];
    if (p->settings.ranks == 1) return;
    fprintf(out, "\n%-28s %18s %18s   bytes of one rank and step\n", "exchanged", "sent",
            "received");
    for (int k = 0; k < SCALE_KINDS; k++)
        if (x->sent[k] > 0 || x->received[k] > 0)
            fprintf(out, "%-28s %18s %18s\n", scale_kind_name((enum scale_kind)k),
                    grouped(number[0], x->sent[k]), grouped(number[1], x->received[k]));
    fprintf(out, "%-28s %18s %18s\n", "sum", grouped(number[0], x->sent_bytes),
            grouped(number[1], x->received_bytes));
    if (x->inter_bytes > 0)
        fprintf(out, "%-28s %18s\n", "to other machines", grouped(number[0], x->inter_bytes));
    fprintf(out, "links at work for %.3f s, %.3f s of it beside the computation\n", x->exchange_s,
            x->exchange_s - x->exposed_s);
    fprintf(out, "%.1f %% of %lld times one card with room for everything\n", 100.0 * a->efficiency,
            (long long)p->settings.ranks);
}

static void print_verdict(FILE *out, const struct plan_answer *a)
{
    const struct plan *p = &a->setup->plan;
    char changes[PLAN_CHANGES_MAX][PLAN_CHANGE_MAX];
    if (p->fits) {
        fprintf(out, "\nIt fits, with %.1f %% to stay free.", 100.0 * p->spare);
        if (a->micro_max > 0)
            fprintf(out, " The largest batch.micro_tokens that fits: %lld.",
                    (long long)a->micro_max);
        fprintf(out, "\n");
        return;
    }
    fprintf(out, "\nIt does not fit: %.2f GB too much, with %.1f %% to stay free.\n",
            gb(p->memory.device_bytes - plan_budget(p)), 100.0 * p->spare);
    if (!a->found) {
        fprintf(out, "No change of settings makes it fit.\n");
        return;
    }
    const int64_t count = plan_changes(changes, p, &a->better);
    fprintf(out, "The smallest change that fits:\n   ");
    for (int64_t i = 0; i < count; i++) fprintf(out, " %s", changes[i]);
    fprintf(out, "\n    %.2f GB, %.3f s a step of %.0f rows, %.0f tokens/s\n",
            gb(a->better.memory.device_bytes), a->better.time.step_s, a->better.work.rows,
            a->better.time.tokens_per_s);
}

void plan_print_table(FILE *out, const struct plan_answer *answer)
{
    print_head(out, answer->setup);
    print_memory(out, answer->setup);
    print_time(out, answer->setup);
    print_exchange(out, answer);
    print_verdict(out, answer);
}

/* ---- JSON ---- */

static json_t *card_json(const struct plan_setup *s)
{
    const struct card *c = &s->plan.card;
    const struct card_rates *r = &c->rates;
    json_t *rates =
        json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "gemm_bf16", r->gemm_bf16, "gemm_f32",
                  r->gemm_f32, "gemm_share", r->gemm_share, "attn_fwd", r->attn_fwd, "attn_bwd",
                  r->attn_bwd, "copy", r->copy, "pcie", r->pcie);
    return json_pack("{s:s, s:s, s:I, s:b, s:s, s:o}", "name", c->name, "gpu", c->gpu,
                     "memory_bytes", (json_int_t)c->memory_bytes, "measured", (int)c->measured,
                     "rates_source", s->rates_source, "rates", rates);
}

static json_t *settings_json(const struct plan *p)
{
    const struct cost_settings *c = &p->settings;
    return json_pack(
        "{s:s, s:s, s:b, s:s, s:s, s:s, s:s, s:I}", "precision", dtype_name(c->dtype), "grad_dtype",
        dtype_name(c->grad_dtype), "master", (int)c->master, "moments",
        c->moments_8bit ? "8bit" : "f32", "moments_place", c->state_on_host ? "host" : "device",
        "update", c->update_in_backward ? "backward" : "step", "activations",
        cost_activations_name(c->activations), "micro_tokens", (json_int_t)p->batch.micro_tokens);
}

static json_t *memory_json(const struct plan *p)
{
    json_t *classes = json_object();
    for (int i = 0; i < COST_CLASSES; i++)
        json_object_set_new(classes, cost_class_name((enum cost_class)i),
                            json_integer((json_int_t)p->memory.bytes[i]));
    return json_pack("{s:o, s:I, s:I, s:I, s:I, s:I, s:b}", "classes", classes, "device_bytes",
                     (json_int_t)p->memory.device_bytes, "budget_bytes", (json_int_t)plan_budget(p),
                     "host_bytes", (json_int_t)p->memory.host_bytes, "save_copy_bytes",
                     (json_int_t)p->copy_bytes, "tokens_bytes",
                     (json_int_t)SHARD_CACHE_BYTES * p->settings.ranks, "fits", (int)p->fits);
}

static json_t *time_json(const struct plan *p)
{
    json_t *parts = json_object();
    for (int i = 0; i < COST_PARTS; i++)
        json_object_set_new(parts, cost_part_name((enum cost_part)i),
                            json_real(p->time.seconds[i]));
    return json_pack("{s:o, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "parts", parts, "step_s",
                     p->time.step_s, "tokens_per_s", p->time.tokens_per_s, "transfer_s",
                     p->time.transfer_s, "flop", p->time.flop, "rows", p->work.rows, "targets",
                     p->work.targets, "micro_batches", p->work.micro_batches);
}

static json_t *ranks_json(const struct plan_answer *a)
{
    const struct plan *p = &a->setup->plan;
    const struct scale *x = &p->scale;
    json_t *kinds = json_object();
    for (int k = 0; k < SCALE_KINDS; k++)
        json_object_set_new(kinds, scale_kind_name((enum scale_kind)k),
                            json_pack("{s:I, s:I}", "sent", (json_int_t)x->sent[k], "received",
                                      (json_int_t)x->received[k]));
    return json_pack("{s:I, s:I, s:i, s:o, s:I, s:I, s:I, s:I, s:f, s:f, s:f}", "count",
                     (json_int_t)p->settings.ranks, "per_node",
                     (json_int_t)min_i64(p->settings.ranks, p->fabric.ranks_per_node), "zero",
                     p->settings.zero, "exchanged", kinds, "sent_bytes", (json_int_t)x->sent_bytes,
                     "received_bytes", (json_int_t)x->received_bytes, "inter_bytes",
                     (json_int_t)x->inter_bytes, "messages", (json_int_t)x->messages, "exchange_s",
                     x->exchange_s, "exposed_s", x->exposed_s, "efficiency", a->efficiency);
}

/* null where the plan fits, or where nothing does. */
static json_t *change_json(const struct plan_answer *a)
{
    char changes[PLAN_CHANGES_MAX][PLAN_CHANGE_MAX];
    const struct plan *p = &a->setup->plan;
    if (p->fits || !a->found) return json_null();
    const int64_t count = plan_changes(changes, p, &a->better);
    json_t *list = json_array();
    for (int64_t i = 0; i < count; i++) json_array_append_new(list, json_string(changes[i]));
    return json_pack("{s:o, s:o, s:o}", "settings", list, "memory", memory_json(&a->better), "time",
                     time_json(&a->better));
}

err_t plan_print_json(FILE *out, const struct plan_answer *a)
{
    const struct plan_setup *s = a->setup;
    const struct plan *p = &s->plan;
    json_t *root = json_pack(
        "{s:s, s:I, s:o, s:o, s:s, s:o, s:s, s:o, s:o, s:I, s:o}", "model", s->model_source,
        "parameters", (json_int_t)p->memory.zero.parameters, "card", card_json(s), "settings",
        settings_json(p), "samples", s->text_source, "memory", memory_json(p), "scratch_by",
        s->device.source, "time", time_json(p), "ranks", ranks_json(a), "micro_tokens_max",
        (json_int_t)a->micro_max, "smallest_change", change_json(a));
    char *text = root == NULL ? NULL : json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    json_decref(root);
    if (text == NULL) RAISE(ARG, "plan: model.dir or data.dir is not UTF-8");
    fprintf(out, "%s\n", text);
    free(text);
    return ERR_OK;
}
