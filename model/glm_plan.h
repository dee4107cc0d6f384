/*
 * glm_plan.h - every buffer of a model with its size and lifetime, computed before anything is allocated.
 * `soulchat plan` prints it, glm_create allocates exactly it, and a test compares both.
 */
#ifndef MODEL_GLM_PLAN_H
#define MODEL_GLM_PLAN_H

#include "base/err.h"
#include "kernels/dev.h"
#include "model/glm.h"

#include <stdint.h>

enum glm_buffer_class { GLM_BUF_WEIGHTS, GLM_BUF_ACTIVATIONS, GLM_BUF_BATCH, GLM_BUF_SCRATCH, GLM_BUF_TABLES, GLM_BUF_CLASSES };

struct glm_buffer {
    const char *name;            /* "qkv", "h1", ...; a literal */
    enum glm_buffer_class klass;
    int64_t bytes;               /* of one copy */
    int64_t copies;              /* one per layer, or 1 */
};

#define GLM_BUFFERS_MAX 64

struct glm_plan {
    struct glm_buffer buffer[GLM_BUFFERS_MAX];
    int64_t count;
    int64_t class_bytes[GLM_BUF_CLASSES];
    int64_t bytes; /* in all */
    double forward_flop_per_row; /* matrix products of one row without attention and head */
};

/* Scratch sizes depend on the device's operators. ERR_ARG: sizes that overflow. */
MUST_USE err_t glm_plan_create(struct glm_plan *out, const struct dev *dev,
                               const struct glm_config *config, const struct glm_options *options);
const char *glm_buffer_class_name(enum glm_buffer_class klass);

#endif
