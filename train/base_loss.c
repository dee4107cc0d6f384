#include "train/base_loss.h"

#include "base/log.h"
#include "model/hf_folder.h"
#include "train/run.h"
#include "train/validate.h"

#include <math.h>
#include <string.h>

static bool is_of_interest(const struct run *r)
{
    return r->formats.precision == DTYPE_BF16 &&
           strcmp(cfg_str(r->cfg, "model.init"), "random") != 0 && run_validates(r);
}

static err_t load(struct glm **out, const struct run *r)
{
    struct weight_source *source;
    *out = NULL;
    TRY(hf_folder_open(&source, cfg_str(r->cfg, "model.dir")));
    const struct glm_options options = {
        .dtype = DTYPE_F32,
        .weight_dtype = weight_source_matrix_dtype(source),
        .rows_max = r->bounds.rows,
        .segments_max = r->bounds.segments,
        .targets_max = r->bounds.targets,
        .ranks = 1,
    };
    err_t rc = glm_create(out, r->dev, &r->state.model, &options);
    if (rc == ERR_OK) rc = glm_load_exact(*out, source, &(struct glm_sink){ .stops = true });
    weight_source_close(source);
    return rc;
}

/* Ranks have room, or not, together: whoever evaluates alone would wait for the others. */
static err_t load_everywhere(struct glm **out, const struct run *r, struct zero *zero)
{
    const err_t rc = load(out, r);
    bool is_short = rc == ERR_NOMEM;
    if (is_short)
        LOG_W("train", "the validation loss in float32 is left out, as memory is short: %s",
              err_last()->text);
    TRY(zero_agree_to_stop(zero, is_short ? ERR_OK : rc));
    TRY(zero_any(zero, &is_short));
    if (!is_short) return ERR_OK;
    glm_close(*out);
    *out = NULL;
    return ERR_OK;
}

err_t base_loss_measure(double *out, const struct run *r)
{
    err_t rc = ERR_OK;
    struct zero zero = { 0 }; /* no weights are shared: stage 0, whatever the run's is */
    struct glm *glm = NULL;
    struct validation v;
    *out = NAN;
    if (!is_of_interest(r)) return ERR_OK;
    LOG_I("train", "validating the given weights in float32");
    TRY_DONE(zero_open(&zero, r->zero.comm, 0, r->batch.lanes));
    TRY_DONE(load_everywhere(&glm, r, &zero));
    if (glm == NULL) goto done;
    TRY_DONE(validate(&v, &zero, glm, r->validation_set, cfg_int(r->cfg, "train.validate_samples"),
                      &r->bounds));
    *out = v.loss;
done:
    glm_close(glm);
    zero_close(&zero);
    return rc;
}

err_t base_loss_report(struct run *r, double bf16)
{
    if (isnan(r->base_loss)) return ERR_OK;
    LOG_I("train", "the same in float32: %.4f; bf16 changes it by %+.4f", r->base_loss,
          bf16 - r->base_loss);
    return metrics_base_loss(&r->metrics, r->base_loss);
}
