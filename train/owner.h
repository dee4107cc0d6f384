/*
 * owner.h - which rank owns which elements of the parameter table: it finishes their gradient sums
 * and, from ZeRO 1 on, keeps their optimizer state and updates them. Pure arithmetic.
 *
 *     TRY(owner_create(&owner, params, layout, size));
 *     const struct owner_share *mine = owner_share(&owner, unit, rank);
 *     owner_row(&first, &count, &owner, params, row, rank);
 *     owner_clear(&owner);
 *
 * The rows of a unit are cut into chunks of SUMSQ_CHUNK logical elements, in table order; of a
 * unit's K chunks rank r of n owns [rK/n, (r+1)K/n). So no chunk sum of the gradient norm, and no
 * block of 8-bit moments, is ever cut, whatever n is; and what a rank owns of a unit is one
 * contiguous span of the layout, the padding between and behind rows included: one piece of an
 * exchange. The spans of a unit, by rank, cover it without gaps.
 */
#ifndef TRAIN_OWNER_H
#define TRAIN_OWNER_H

#include "base/err.h"
#include "model/glm_params.h"

#include <stdint.h>

/* What one rank owns of one unit; begin == end: nothing. */
struct owner_share {
    int64_t begin, end;             /* elements of the layout, from the unit's begin; multiples
                                       of 32 */
    int64_t chunk_begin, chunk_end; /* of the table, counted over all units */
};

struct owner {
    int64_t size, unit_count, chunk_count;
    struct owner_share *share; /* [unit_count * size] */
    int64_t *row_chunk;        /* [params.count + 1] first chunk of each row */
};

/* Yours; owner_clear it, also after a failure. ERR_NOMEM. */
MUST_USE err_t owner_create(struct owner *out, const struct glm_params *params,
                            const struct glm_layout *layout, int64_t size);
void owner_clear(struct owner *owner);

/* The same with the table and the layout it is of, from a model's sizes alone: of arenas that hold
 * every unit in its own place, embedding and head padded to `vocab_multiple` rows. */
struct owner_table {
    struct glm_params params;
    struct glm_layout layout;
    struct owner owner;
};
/* Yours; owner_table_clear it, also after a failure. Errors of glm_params_create and
 * glm_layout_create; ERR_NOMEM. */
MUST_USE err_t owner_table_create(struct owner_table *out, const struct glm_config *config,
                                  int64_t vocab_multiple, int64_t size);
void owner_table_clear(struct owner_table *table);

const struct owner_share *owner_share(const struct owner *owner, int64_t unit, int64_t rank);
/* Logical elements first .. first+count-1 of a row; count = 0: none. */
void owner_row(int64_t *first, int64_t *count, const struct owner *owner,
               const struct glm_params *params, int64_t row, int64_t rank);
/* The most elements that one rank owns of this unit. */
int64_t owner_span_max(const struct owner *owner, int64_t unit);

#endif
