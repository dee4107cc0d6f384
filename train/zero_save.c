/* Checkpoints of several ranks, by way of rank 0. */
#include "train/zero.h"

#include "base/check.h"
#include "base/num.h"

#include <stdlib.h>

#define CARRY_BYTES (1 << 18) /* of each rank at a time */

/* One part of one row on its way to rank 0. */
struct carry {
    struct zero *z;
    struct optim *from, *whole; /* whole: rank 0's; NULL elsewhere */
    char *mine, *all;           /* [CARRY_BYTES], [size * CARRY_BYTES] */
};

/* What a rank owns of a part, in its elements. */
static void part_range(int64_t *first, int64_t *end, const struct carry *c, enum optim_part part,
                       int64_t row, int64_t rank)
{
    const struct glm_params *params = c->z->target.params;
    const int64_t all = optim_part_count(optim_plan_of(c->from), params, part, row);
    const bool per_block = part == OPTIM_EXP_AVG_ABSMAX || part == OPTIM_EXP_AVG_SQ_ABSMAX;
    const int64_t per = per_block ? ADAMW_BLOCK : 1;
    int64_t count;
    owner_row(first, &count, &c->z->owner, params, row, rank);
    *end = min_i64(div_ceil(*first + count, per), all);
    *first = min_i64(*first / per, all);
}

static err_t carry_part(struct carry *c, enum optim_part part, int64_t row)
{
    struct zero *z = c->z;
    const int64_t size = dtype_bytes(optim_part_dtype(&optim_plan_of(c->from)->format, part));
    const int64_t step = CARRY_BYTES / size;
    int64_t most = 0, first, end;
    for (int64_t r = 0; r < z->size; r++) {
        part_range(&first, &end, c, part, row, r);
        most = max_i64(most, end - first);
    }
    for (int64_t at = 0; at < most; at += step) {
        part_range(&first, &end, c, part, row, z->rank);
        const int64_t mine = max_i64(min_i64(end - first - at, step), 0);
        if (mine > 0) TRY(optim_read_state(c->from, c->mine, part, row, first + at, mine));
        TRY(comm_gather_host(z->comm, c->all, c->mine, CARRY_BYTES));
        for (int64_t r = 0; r < z->size && c->whole != NULL; r++) {
            part_range(&first, &end, c, part, row, r);
            const int64_t count = max_i64(min_i64(end - first - at, step), 0);
            if (count > 0)
                TRY(optim_write_state(c->whole, part, row, first + at, c->all + r * CARRY_BYTES,
                                      count));
        }
    }
    return ERR_OK;
}

static err_t carry_all(struct carry *c)
{
    c->mine = calloc(1, CARRY_BYTES);
    c->all = calloc((size_t)c->z->size, CARRY_BYTES);
    if (c->mine == NULL || c->all == NULL) RAISE(NOMEM, "checkpoint: no memory to gather state");
    for (int64_t row = 0; row < c->z->target.params->count; row++)
        for (int part = 0; part < OPTIM_PARTS; part++)
            TRY(carry_part(c, (enum optim_part)part, row));
    return ERR_OK;
}

static err_t open_whole(struct carry *c)
{
    struct optim_target target = c->z->target;
    struct optim_options options = { 0 };
    const struct optim_format *format = &optim_plan_of(c->from)->format;
    target.owner = NULL;
    target.comm = NULL;
    options.master = format->master;
    options.moments = format->moments;
    options.place = OPTIM_ON_HOST;
    return optim_create_on(&c->whole, &target, &options);
}

err_t zero_save(struct zero *z, const char *root, const struct ckpt_state *state,
                struct optim *optim, int64_t keep_last)
{
    err_t rc = ERR_OK;
    struct carry carry = { .z = z, .from = optim };
    if (z->stage == 0) return z->rank == 0 ? ckpt_save(root, state, optim, keep_last) : ERR_OK;
    if (z->rank == 0) TRY_DONE(open_whole(&carry));
    TRY_DONE(carry_all(&carry));
    if (z->rank == 0) TRY_DONE(ckpt_save(root, state, carry.whole, keep_last));
done:
    optim_close(carry.whole);
    free(carry.mine);
    free(carry.all);
    return rc;
}
