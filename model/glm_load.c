/* Weights from a source of named tensors: every one of the table, and nothing that the table does
 * not know. */
#include "model/glm.h"

#include "base/num.h"
#include "base/stop.h"
#include "model/glm_find.h"
#include "model/glm_impl.h"
#include "model/weights.h"

#include <stdlib.h>
#include <string.h>

#define LOAD_CHUNK (1 << 20) /* elements read at a time */

/* Published files carry the rotary frequencies as buffers; the reference ignores them, and so do
 * we. */
static bool is_ignored(const char *name)
{
    static const char suffix[] = "rotary_emb.inv_freq";
    const size_t size = strlen(name), suffix_size = sizeof suffix - 1;
    return size >= suffix_size && strcmp(name + size - suffix_size, suffix) == 0;
}

static err_t check_extra(const struct glm_params *params, const struct weight_source *source)
{
    for (int64_t i = 0; i < weight_source_count(source); i++) {
        const char *name = weight_source_info(source, i).name;
        if (glm_params_find_name(params, name) < 0 && !is_ignored(name))
            RAISE(FORMAT, "weights: %s: in the files, but no tensor of this model", name);
    }
    return ERR_OK;
}

/* What one load carries from tensor to tensor. */
struct load {
    struct glm *glm;
    struct weight_source *source;
    const struct glm_sink *sink;
    char *values;                /* [LOAD_CHUNK] of the widest dtype */
};

/* Elements first .. first+count-1 of row `index` from tensor `from` of the source. */
static err_t load_chunk(struct load *load, int64_t index, int64_t from, int64_t first,
                        int64_t count)
{
    const struct glm_sink *sink = load->sink;
    const struct tensor to = glm_weight(load->glm, index);
    if (sink->put != NULL) {
        float *exact = (float *)(void *)load->values;
        TRY(weight_source_read_as(load->source, exact, DTYPE_F32, from, first, count));
        TRY(sink->put(sink->context, index, first, exact, count));
    }
    TRY(weight_source_read_as(load->source, load->values, to.dtype, from, first, count));
    return glm_put(load->glm, index, first, load->values, count);
}

static err_t load_row(struct load *load, int64_t index)
{
    const struct glm_param *row = &load->glm->params.row[index];
    int64_t found;
    TRY(glm_find(&found, row, load->source));
    for (int64_t e = 0; e < row->count; e += LOAD_CHUNK) {
        const int64_t count = min_i64(LOAD_CHUNK, row->count - e);
        if (load->sink->stops && stop_requested())
            RAISE(INTERRUPTED, "stopped while the weights were loaded");
        TRY(load_chunk(load, index, found, e, count));
    }
    return ERR_OK;
}

err_t glm_load_exact(struct glm *glm, struct weight_source *source, const struct glm_sink *sink)
{
    err_t rc = ERR_OK;
    struct load load = { .glm = glm, .source = source, .sink = sink };
    load.values = malloc((size_t)LOAD_CHUNK * sizeof(double)); /* the widest dtype */
    if (load.values == NULL) RAISE(NOMEM, "loading weights: %d values wanted", LOAD_CHUNK);
    TRY_DONE(check_extra(&glm->params, source));
    for (int64_t i = 0; i < glm->params.count; i++) TRY_DONE(load_row(&load, i));
    TRY_DONE(dev_sync(glm->dev));
done:
    free(load.values);
    return rc;
}

err_t glm_load(struct glm *glm, struct weight_source *source)
{
    return glm_load_exact(glm, source, &(struct glm_sink){ 0 });
}
