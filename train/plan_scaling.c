#include "train/plan_scaling.h"

#include "base/num.h"

static bool has_part_for_each(const struct plan *p)
{
    const int64_t parts =
        p->batch.unit == BATCH_TOKENS ? p->batch.size / p->batch.pack_len : p->batch.size;
    return p->settings.ranks <= parts;
}

static err_t compute(struct plan_scaling_row *row, const struct plan *base, int64_t ranks)
{
    struct plan *p = &row->plan;
    *p = *base;
    p->settings.ranks = p->settings.lanes = p->batch.lanes = row->ranks = ranks;
    row->possible = has_part_for_each(p);
    if (!row->possible) return ERR_OK;
    TRY(plan_compute(p));
    return plan_efficiency(&row->efficiency, p);
}

static struct plan grown(const struct plan *base, int64_t ranks)
{
    struct plan p = *base;
    const int64_t pack = p.batch.pack_len;
    p.batch.unit = BATCH_TOKENS;
    p.batch.micro_tokens = max_i64(p.batch.micro_tokens / pack, 1) * pack;
    p.batch.size = ranks * p.batch.micro_tokens;
    return p;
}

err_t plan_scaling(struct plan_scaling *out, const struct plan *base)
{
    const struct cost_settings *s = &base->settings;
    if (s->update_in_backward || s->grad_dtype != dtype_accumulator(s->dtype))
        RAISE(USAGE, "several ranks add gradients up in float32, after the whole step; set "
                     "train.update: step and train.grad_dtype: f32");
    for (int i = 0; i < PLAN_SCALING_ROWS; i++) {
        const int64_t ranks = (int64_t)1 << i;
        const struct plan wide = grown(base, ranks);
        TRY(compute(&out->fixed[i], base, ranks));
        TRY(compute(&out->grown[i], &wide, ranks));
    }
    return ERR_OK;
}

/* ---- output ---- */

static void print_rows(FILE *out, const struct plan_scaling_row *rows)
{
    fprintf(out, "%5s %5s %7s %9s %10s %9s %9s %11s %9s\n", "cards", "zero", "GB", "sent GB",
            "rows/card", "step s", "waits s", "tokens/s", "of ideal");
    for (int i = 0; i < PLAN_SCALING_ROWS; i++) {
        const struct plan *p = &rows[i].plan;
        if (!rows[i].possible) {
            fprintf(out, "%5lld   no sample for each card\n", (long long)rows[i].ranks);
            continue;
        }
        fprintf(out, "%5lld %5d %7.1f %9.2f %10.0f %9.3f %9.3f %11.0f %7.1f %%%s\n",
                (long long)rows[i].ranks, p->settings.zero, (double)p->memory.device_bytes / 1e9,
                (double)p->scale.sent_bytes / 1e9, p->rank_work.rows, p->time.step_s,
                p->scale.exposed_s, p->time.tokens_per_s, 100.0 * rows[i].efficiency,
                p->fits ? "" : "   does not fit");
    }
}

void plan_scaling_print(FILE *out, const struct plan_setup *setup, const struct plan_scaling *s)
{
    const struct plan *p = &setup->plan;
    fprintf(out, "%s, machines of %lld (%s); rates %s\n", p->card.name,
            (long long)p->fabric.ranks_per_node, setup->links_source, setup->rates_source);
    fprintf(out, "\na step of %lld %s, whatever the number of cards\n", (long long)p->batch.size,
            p->batch.unit == BATCH_SAMPLES ? "samples" : "tokens");
    print_rows(out, s->fixed);
    fprintf(out, "\na step of %lld tokens on each card\n",
            (long long)s->grown[0].plan.batch.micro_tokens);
    print_rows(out, s->grown);
    fprintf(out, "\nof ideal: against as many cards as one, with room for everything, would be "
                 "worth; waits s: for other ranks, not hidden\n");
}
