#include "train/release.h"

static err_t unit_begin(void *context, int64_t unit)
{
    const struct release *r = context;
    const int64_t *whole = glm_layout(r->glm)->unit_offset, bytes = dtype_bytes(r->arena.dtype);
    char *begin = (char *)r->arena.data + glm_grad_layout(r->glm)->unit_offset[unit] * bytes;
    return dev_zero(glm_dev(r->glm), begin, (whole[unit + 1] - whole[unit]) * bytes);
}

static err_t unit_done(void *context, int64_t unit)
{
    struct release *r = context;
    bool finite = true;
    TRY(optim_unit_norm(r->optim, &r->arena, unit));
    if (r->units_done++ == 0) TRY(optim_unit_is_finite(r->optim, &finite, unit));
    if (!finite)
        RAISE(NUMERIC,
              "step %lld: loss or gradients are not finite; the weights are as they were before "
              "this step; a lower train.lr or a longer warm-up may help",
              (long long)r->step + 1);
    return optim_unit_step(r->optim, &r->arena, unit, r->lr, r->grad_scale, r->update);
}

struct glm_grads release_grads(struct release *r)
{
    return (struct glm_grads){
        .arena = r->arena, .unit_begin = unit_begin, .unit_done = unit_done, .context = r
    };
}
