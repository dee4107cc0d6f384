#include "glm_look.h"

#include "model/glm_impl.h"

#include <stdlib.h>

static err_t fetch(struct glm *glm, double *out, const struct tensor *t)
{
    const int64_t count = tensor_count(t), bytes = count * dtype_bytes(t->dtype);
    void *raw = malloc((size_t)bytes + 1);
    if (raw == NULL) RAISE(NOMEM, "%s: %lld bytes", t->name, (long long)bytes);
    const err_t rc = dev_download(glm->dev, raw, t->data, bytes);
    if (rc == ERR_OK) glm_widen(out, raw, t->dtype, count);
    free(raw);
    return rc;
}

err_t glm_look_hidden(struct glm *glm, double *out, int64_t rows, int64_t layer)
{
    ASSERT(glm->options.train && layer >= 0 && layer < glm->config.layer_count);
    const struct tensor h = glm_view(glm, GLM_B_HIDDEN, layer + 1, rows);
    return fetch(glm, out, &h);
}

err_t glm_look_logits(struct glm *glm, double *out, int64_t rows, int64_t first, int64_t count)
{
    struct glm_pass p = glm_pass_begin(glm, PASS_BATCH, rows);
    struct tensor logits = glm_view(glm, GLM_B_LOGITS, 0, 1);
    for (int64_t i = 0; i < count; i++) {
        TRY(glm_head(&p, &logits, first + i, 1));
        TRY(fetch(glm, out + i * glm->config.vocab_size, &logits));
    }
    return ERR_OK;
}

err_t glm_train_micro(struct glm *glm, const struct glm_batch *batch, const struct glm_grads *grads,
                      double *nll)
{
    int ticket;
    TRY(glm_train_begin(glm, &ticket, batch, grads));
    return glm_train_end(glm, ticket, nll);
}
