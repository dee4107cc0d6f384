#include "train/lanes.h"

#include "base/check.h"
#include "base/num.h"
#include "kernels/ops_optim.h"

#include <string.h>

int64_t lanes_cut(const struct lanes_node *node)
{
    int64_t half = 1;
    ASSERT(node->end - node->begin >= 2);
    while (2 * half < node->end - node->begin) half *= 2;
    return node->begin + half;
}

struct lanes_node lanes_of_rank(int64_t lane_count, int64_t rank, int64_t ranks)
{
    ASSERT(rank >= 0 && rank < ranks);
    return (struct lanes_node){ rank * lane_count / ranks, (rank + 1) * lane_count / ranks };
}

/* Goes down the tree from the left; a stack of right halves, which get smaller by half each. */
int64_t lanes_nodes(struct lanes_node out[LANES_NODES_MAX], int64_t lane_count, int64_t first,
                    int64_t end)
{
    struct lanes_node stack[LANES_DEPTH_MAX + 1] = { { 0, lane_count } };
    int64_t depth = 1, count = 0;
    ASSERT(first >= 0 && first < end);
    ASSERT(end <= lane_count && lane_count < (int64_t)1 << LANES_DEPTH_MAX);
    while (depth > 0) {
        const struct lanes_node node = stack[--depth];
        if (node.end <= first || node.begin >= end) continue;
        if (node.begin >= first && node.end <= end) {
            out[count++] = node;
            continue;
        }
        const int64_t cut = lanes_cut(&node);
        stack[depth++] = (struct lanes_node){ cut, node.end };
        stack[depth++] = (struct lanes_node){ node.begin, cut };
    }
    return count;
}

/* While node k is summed, the k before it wait. */
static int64_t count_buffers(const struct lanes_node *node, int64_t count)
{
    int64_t most = 0;
    for (int64_t k = 0; k < count; k++) {
        int64_t depth = 0;
        for (int64_t lanes = node[k].end - node[k].begin; lanes > 0; lanes /= 2) depth++;
        most = max_i64(most, k + depth);
    }
    return most;
}

int64_t lanes_buffers(int64_t lane_count, int64_t first, int64_t end)
{
    struct lanes_node node[LANES_NODES_MAX];
    return count_buffers(node, lanes_nodes(node, lane_count, first, end));
}

err_t lanes_init(struct lanes *l, struct dev *dev, int64_t lane_count, int64_t first, int64_t end,
                 int64_t element_count, dtype_t dtype)
{
    memset(l, 0, sizeof *l);
    l->dev = dev;
    l->node_count = lanes_nodes(l->node, lane_count, first, end);
    const int64_t buffers = count_buffers(l->node, l->node_count);
    ASSERT(buffers <= LANES_NODES_MAX);
    for (; l->buffer_count < buffers; l->buffer_count++) {
        void *data;
        TRY(dev_alloc(dev, &data, element_count * dtype_bytes(dtype), "gradients"));
        l->buffer[l->buffer_count] = tensor_1d(data, dtype, element_count, "gradients");
    }
    return ERR_OK;
}

void lanes_clear(struct lanes *l)
{
    for (int64_t i = 0; i < LANES_NODES_MAX; i++)
        if (l->buffer[i].data != NULL) dev_free(l->dev, l->buffer[i].data);
    memset(l, 0, sizeof *l);
}

err_t lanes_begin(struct lanes *l, struct tensor *grads)
{
    ASSERT(l->depth < l->buffer_count && l->done < l->node_count);
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

/* Lanes of the present node that are on the stack. */
static int64_t lanes_here(const struct lanes *l)
{
    int64_t lanes = 0;
    for (int64_t i = l->done; i < l->depth; i++) lanes += l->width[i];
    return lanes;
}

err_t lanes_end(struct lanes *l)
{
    const struct lanes_node *node = &l->node[l->done];
    l->width[l->depth++] = 1;
    while (l->depth - l->done >= 2 && l->width[l->depth - 1] == l->width[l->depth - 2])
        TRY(merge_top(l));
    if (lanes_here(l) < node->end - node->begin) return ERR_OK;
    while (l->depth - l->done >= 2) TRY(merge_top(l));
    l->done++;
    return ERR_OK;
}

err_t lanes_sum(struct lanes *l, struct tensor *grads)
{
    ASSERT(l->node_count == 1 && l->done == 1);
    *grads = l->buffer[0];
    lanes_reset(l);
    return ERR_OK;
}

void lanes_reset(struct lanes *l) { l->depth = l->done = 0; }
