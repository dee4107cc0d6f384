#include "state_rig.h"

#include "lazy_dev.h"
#include "ref_ops.h"

#include "base/check.h"
#include "base/rng.h"

#include <stdlib.h>
#include <string.h>

static struct tensor alloc_flat(struct dev *dev, dtype_t dtype, int64_t count)
{
    void *data;
    assert_ok(dev_alloc(dev, &data, count * dtype_bytes(dtype), "arena"));
    return tensor_1d(data, dtype, count, "arena");
}

static void open_rig(struct state_rig *r, struct dev *dev, const struct optim_format *format,
                     bool scattered)
{
    const struct glm_config config = micro_config();
    const struct optim_options options = { .beta1 = 0.9,
                                           .beta2 = 0.95,
                                           .eps = 1e-8,
                                           .weight_decay = 0.1,
                                           .rounding = ADAMW_ROUND_STOCHASTIC,
                                           .seed = 5,
                                           .format = *format };
    memset(r, 0, sizeof *r);
    r->dev = dev;
    assert_ok(glm_params_create(&r->params, &config));
    assert_ok(glm_layout_create(&r->layout, &r->params, 1, 0));
    r->weights = alloc_flat(dev, format->weights, r->layout.element_count);
    r->grads = alloc_flat(dev, DTYPE_F32, r->layout.element_count);
    const struct optim_target target = { .dev = dev,
                                         .params = &r->params,
                                         .layout = &r->layout,
                                         .grad_layout = &r->layout,
                                         .weights = r->weights,
                                         .scattered = scattered };
    assert_ok(optim_create_on(&r->optim, &target, &options));
}

void state_rig_open(struct state_rig *r, struct dev *dev, const struct optim_format *format)
{
    open_rig(r, dev, format, false);
}

void state_rig_open_scattered(struct state_rig *r, struct dev *dev,
                              const struct optim_format *format)
{
    open_rig(r, dev, format, true);
}

void state_rig_close(struct state_rig *r)
{
    if (dev_sync(r->dev) != ERR_OK) print_message("closed after: %s\n", err_last()->text);
    optim_close(r->optim);
    dev_free(r->dev, r->weights.data);
    dev_free(r->dev, r->grads.data);
    glm_layout_clear(&r->layout);
    glm_params_clear(&r->params);
    if (lazy_dev_is(r->dev))
        lazy_dev_close(r->dev);
    else
        dev_close(r->dev);
}

struct dev *state_rig_cpu(void)
{
    struct dev *dev;
    assert_ok(dev_open(&dev, "cpu", 1));
    return dev;
}

/* Normal numbers in every row; padding stays 0. */
static err_t put_random(struct state_rig *r, const struct tensor *t, int64_t key)
{
    const int64_t bytes = tensor_count(t) * dtype_bytes(t->dtype);
    void *host = calloc(1, (size_t)bytes);
    const struct tensor view = tensor_1d(host, t->dtype, tensor_count(t), "host");
    assert_non_null(host);
    for (int64_t i = 0; i < r->params.count; i++) {
        const int64_t first = r->layout.offset[i];
        for (int64_t e = first; e < first + r->params.row[i].count; e++)
            ref_put(&view, e, 0.1 * rng_normal(2, RNG_TEST | (uint64_t)key << 8, (uint64_t)e));
    }
    const err_t rc = dev_upload(r->dev, t->data, host, bytes);
    free(host);
    return rc;
}

static err_t fill_master(struct state_rig *r)
{
    float values[65536];
    for (int64_t i = 0; i < r->params.count; i++) {
        const int64_t count = r->params.row[i].count;
        assert_true(count <= COUNT_OF(values));
        for (int64_t e = 0; e < count; e++)
            values[e] = (float)(0.1 * rng_normal(3, RNG_TEST | (uint64_t)i << 8, (uint64_t)e));
        TRY(optim_write_state(r->optim, OPTIM_MASTER, i, 0, values, count));
    }
    return ERR_OK;
}

err_t state_rig_fill(struct state_rig *r)
{
    TRY(put_random(r, &r->weights, 0));
    return optim_plan_of(r->optim)->format.master ? fill_master(r) : ERR_OK;
}

err_t state_rig_train(struct state_rig *r, int64_t first, int64_t last)
{
    for (int64_t update = first; update <= last; update++) {
        TRY(put_random(r, &r->grads, update));
        if (update % 5 == 3) {
            for (int64_t unit = r->params.unit_count - 1; unit >= 0; unit--)
                TRY(optim_unit_step(r->optim, &r->grads, unit, 1e-3, 0.9, update));
            continue;
        }
        if (update % 2 == 0) TRY(optim_prefetch(r->optim));
        TRY(optim_step(r->optim, &r->grads, 1e-3, 0.9, update));
    }
    return dev_sync(r->dev);
}

/* Weights and all parts of the state as one array. */
static double *all_of(struct state_rig *r, int64_t *count)
{
    const int64_t n = tensor_count(&r->weights), bytes = n * dtype_bytes(r->weights.dtype);
    double *out = malloc((size_t)(n + OPTIM_PARTS * r->params.element_count) * sizeof *out);
    void *host = malloc((size_t)bytes);
    assert_true(out != NULL && host != NULL);
    assert_ok(dev_download(r->dev, host, r->weights.data, bytes));
    const struct tensor view = tensor_1d(host, r->weights.dtype, n, "host");
    for (*count = 0; *count < n; (*count)++) out[*count] = ref_get(&view, *count);
    free(host);
    for (int part = 0; part < OPTIM_PARTS; part++) {
        int64_t more;
        double *values = micro_state(r->optim, (enum optim_part)part, &more);
        memcpy(out + *count, values, (size_t)more * sizeof *out);
        *count += more;
        free(values);
    }
    return out;
}

bool state_rig_same(struct state_rig *a, struct state_rig *b)
{
    int64_t count_a, count_b;
    double *in_a = all_of(a, &count_a), *in_b = all_of(b, &count_b);
    assert_int_equal(count_a, count_b);
    const bool equal = memcmp(in_a, in_b, (size_t)count_a * sizeof *in_a) == 0;
    free(in_a);
    free(in_b);
    return equal;
}
