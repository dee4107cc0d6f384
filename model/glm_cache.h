/* glm_cache.h - what a layer needs of the key/value cache. Private to the model; the public side is
 * in glm.h. */
#ifndef MODEL_GLM_CACHE_H
#define MODEL_GLM_CACHE_H

#include "model/glm.h"

/* Keys and values of one layer: [slots, tokens_max, C]. */
void glm_cache_tensors(struct tensor *k, struct tensor *v, const struct glm_cache *cache,
                       int64_t layer);

#endif
