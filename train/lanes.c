#include "train/lanes.h"

#include "base/check.h"
#include "kernels/ops_optim.h"

#include <string.h>

err_t lanes_init(struct lanes *l, struct dev *dev, int64_t lane_count, int64_t element_count,
                 dtype_t dtype)
{
    memset(l, 0, sizeof *l);
    l->dev = dev;
    l->lane_count = lane_count;
    ASSERT(lane_count >= 1 && lane_count < (int64_t)1 << LANES_DEPTH_MAX);
    for (int64_t lanes = lane_count; lanes > 0; lanes /= 2, l->buffer_count++) {
        void *data;
        TRY(dev_alloc(dev, &data, element_count * dtype_bytes(dtype), "gradients"));
        l->buffer[l->buffer_count] = tensor_1d(data, dtype, element_count, "gradients");
    }
    return ERR_OK;
}

void lanes_clear(struct lanes *l)
{
    for (int64_t i = 0; i < LANES_DEPTH_MAX; i++)
        if (l->buffer[i].data != NULL) dev_free(l->dev, l->buffer[i].data);
    memset(l, 0, sizeof *l);
}

err_t lanes_begin(struct lanes *l, struct tensor *grads)
{
    ASSERT(l->depth < l->buffer_count);
    *grads = l->buffer[l->depth];
    return dev_zero(l->dev, grads->data, tensor_count(grads) * dtype_bytes(grads->dtype));
}

/* The two topmost buffers become one; the left one keeps the sum. */
static err_t merge_top(struct lanes *l)
{
    struct tensor *left = &l->buffer[l->depth - 2];
    TRY(op_add(l->dev, &(struct add_args){ .y_acc = left, .x = &l->buffer[l->depth - 1] }));
    l->width[l->depth - 2] += l->width[l->depth - 1];
    l->depth--;
    return ERR_OK;
}

err_t lanes_end(struct lanes *l)
{
    l->width[l->depth++] = 1;
    while (l->depth >= 2 && l->width[l->depth - 1] == l->width[l->depth - 2]) TRY(merge_top(l));
    return ERR_OK;
}

err_t lanes_sum(struct lanes *l, struct tensor *grads)
{
    while (l->depth >= 2) TRY(merge_top(l));
    ASSERT(l->depth == 1 && l->width[0] == l->lane_count);
    *grads = l->buffer[0];
    l->depth = 0;
    return ERR_OK;
}

void lanes_reset(struct lanes *l) { l->depth = 0; }
