/*
 * glm_find.h - where a source of named tensors has the values of a parameter.
 *
 *     TRY(glm_find(&index, &params->row[i], source));
 *     TRY(weight_source_read_as(source, values, DTYPE_F64, index, 0, count));
 */
#ifndef MODEL_GLM_FIND_H
#define MODEL_GLM_FIND_H

#include "base/err.h"
#include "model/glm_params.h"
#include "model/weights.h"

#include <stdint.h>

/* Under its name or, where it is tied, under either of two; where both are there, they must be the
 * same. ERR_FORMAT: it is not there, has another shape, or the two differ. */
MUST_USE err_t glm_find(int64_t *index, const struct glm_param *row, struct weight_source *source);

#endif
