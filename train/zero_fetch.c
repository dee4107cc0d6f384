#include "train/zero_fetch.h"

#include "base/check.h"
#include "base/num.h"

#include <stdlib.h>
#include <string.h>

#define SLOTS GLM_GRAD_SLOTS

static bool is_layer(const struct owner *owner, int64_t unit)
{
    return unit > 0 && unit < owner->unit_count - 1;
}

int64_t zero_fetch_extra(const struct owner *owner, int64_t rank)
{
    int64_t count = 0;
    for (int64_t unit = 0; unit < owner->unit_count; unit++) {
        const struct owner_share *s = owner_share(owner, unit, rank);
        if (is_layer(owner, unit)) count += s->end - s->begin;
    }
    return count;
}

/* ---- where things lie ---- */

/* Row i, as if its unit began where it would for the owned span to lie at its home. */
static void place_homes(struct zero_fetch *f)
{
    const struct glm_params *params = glm_params(f->glm);
    const struct glm_layout *whole = glm_layout(f->glm), *slots = glm_weight_layout(f->glm);
    const int64_t rank = comm_rank(f->comm);
    int64_t end = slots->element_count;
    for (int64_t unit = 0; unit < params->unit_count; unit++) {
        const struct owner_share *s = owner_share(f->owner, unit, rank);
        f->home.unit_offset[unit] =
            is_layer(f->owner, unit) ? end - s->begin : slots->unit_offset[unit];
        if (is_layer(f->owner, unit)) end += s->end - s->begin;
    }
    f->home.unit_offset[params->unit_count] = f->home.element_count = end;
    for (int64_t i = 0; i < params->count; i++) {
        const int64_t unit = params->row[i].unit;
        f->home.offset[i] = f->home.unit_offset[unit] + whole->offset[i] - whole->unit_offset[unit];
    }
}

static char *element(const struct zero_fetch *f, int64_t at)
{
    const struct tensor arena = glm_weights(f->glm);
    return (char *)arena.data + at * dtype_bytes(arena.dtype);
}

/* ---- fetching ---- */

static int64_t slot_of(int64_t unit) { return (unit - 1) % SLOTS; }

static err_t begin_fetch(struct zero_fetch *f, int64_t unit)
{
    const struct tensor arena = glm_weights(f->glm);
    const struct owner_share *mine = owner_share(f->owner, unit, comm_rank(f->comm));
    const int64_t slot = slot_of(unit);
    if (f->slot_unit[slot] == unit) return ERR_OK;
    TRY(comm_end(f->comm, &f->request[slot]));
    f->slot_unit[slot] = unit;
    return exchange_spread_begin(f->exchange, &f->request[slot], &arena,
                                 glm_weight_layout(f->glm)->unit_offset[unit],
                                 element(f, f->home.unit_offset[unit] + mine->begin), unit);
}

static err_t want(void *context, int64_t unit, int64_t next)
{
    struct zero_fetch *f = context;
    TRY(begin_fetch(f, unit));
    TRY(comm_end(f->comm, &f->request[slot_of(unit)]));
    return next >= 0 ? begin_fetch(f, next) : ERR_OK;
}

/* Initial values: of layers, what is owned. */
static err_t put(void *context, int64_t index, int64_t first, const void *values, int64_t count)
{
    const struct zero_fetch *f = context;
    const struct glm_params *params = glm_params(f->glm);
    const int64_t size = dtype_bytes(glm_weights(f->glm).dtype);
    int64_t from = 0, owned = params->row[index].count;
    if (is_layer(f->owner, params->row[index].unit))
        owner_row(&from, &owned, f->owner, params, index, comm_rank(f->comm));
    const int64_t begin = max_i64(first, from), end = min_i64(first + count, from + owned);
    if (begin >= end) return ERR_OK;
    return dev_upload(glm_dev(f->glm), element(f, f->home.offset[index] + begin),
                      (const char *)values + (begin - first) * size, (end - begin) * size);
}

/* As model/glm_net.c. */
err_t zero_fetch_idle(struct zero_fetch *f, bool backward, const struct glm_grads *hooks)
{
    const int64_t last = f->owner->unit_count - 2;
    TRY(want(f, 1, -1));
    for (int64_t unit = 1; unit <= last; unit++) {
        TRY(want(f, unit, unit < last ? unit + 1 : -1));
        if (unit < last) TRY(want(f, unit + 1, -1));
    }
    if (!backward) return ERR_OK;
    if (hooks->unit_done != NULL) TRY(hooks->unit_done(hooks->context, last + 1));
    for (int64_t unit = last; unit >= 1; unit--) {
        TRY(want(f, unit, unit > 1 ? unit - 1 : -1));
        if (hooks->unit_done != NULL) TRY(hooks->unit_done(hooks->context, unit));
    }
    return hooks->unit_done != NULL ? hooks->unit_done(hooks->context, 0) : ERR_OK;
}

err_t zero_fetch_renew(struct zero_fetch *f)
{
    const struct tensor arena = glm_weights(f->glm);
    const int64_t ends[] = { 0, f->owner->unit_count - 1 };
    for (int slot = 0; slot < SLOTS; slot++) {
        TRY(comm_end(f->comm, &f->request[slot]));
        f->slot_unit[slot] = -1;
    }
    for (int i = 0; i < 2; i++) {
        struct comm_request *request = NULL;
        TRY(exchange_spread_begin(f->exchange, &request, &arena, f->home.unit_offset[ends[i]], NULL,
                                  ends[i]));
        TRY(comm_end(f->comm, &request));
    }
    return ERR_OK;
}

/* ---- life cycle ---- */

err_t zero_fetch_open(struct zero_fetch *f, struct glm *glm, struct exchange *exchange)
{
    const struct glm_params *params = glm_params(glm);
    *f = (struct zero_fetch){ .glm = glm,
                              .comm = exchange->args.comm,
                              .exchange = exchange,
                              .owner = exchange->args.owner,
                              .slot_unit = { -1, -1 } };
    f->home.offset = calloc((size_t)params->count, sizeof *f->home.offset);
    f->home.unit_offset = calloc((size_t)params->unit_count + 1, sizeof *f->home.unit_offset);
    if (f->home.offset == NULL || f->home.unit_offset == NULL)
        RAISE(NOMEM, "places of %lld parameters: no memory", (long long)params->count);
    place_homes(f);
    glm_set_fetch(glm, &(struct glm_fetch){ .want = want, .put = put, .context = f });
    return ERR_OK;
}

void zero_fetch_close(struct zero_fetch *f)
{
    glm_layout_clear(&f->home);
    memset(f, 0, sizeof *f);
}
