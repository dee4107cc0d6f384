/*
 * cudnn_graph.h - cuDNN's graph descriptors in a few calls: tensors and operations go into a graph,
 * a graph becomes a plan, a plan runs.
 *
 *     struct cudnn_graph *graph;
 *     TRY(cudnn_graph_create(&graph, &target));
 *     TRY_DONE(cudnn_graph_tensor(&x, graph, &(struct cudnn_tensor_spec){ ... }));
 *     TRY_DONE(cudnn_graph_pointwise(&y, graph, &(struct cudnn_pointwise){ ... }));
 *     TRY_DONE(cudnn_graph_plan(&plan, graph, "name"));
 *     TRY_DONE(cudnn_plan_run(&plan, ...));
 *     cudnn_graph_destroy(graph);                  // plan and tensors with it
 *
 * Tensors have four dimensions. A graph owns every descriptor made through it. One thread at a
 * time. Errors are those of cudnn_lib_verdict and name the tensor or operation.
 */
#ifndef KERNELS_CUDA_CUDNN_GRAPH_H
#define KERNELS_CUDA_CUDNN_GRAPH_H

#include "kernels/cuda/cudnn_lib.h"

#include <stdbool.h>

struct cudnn_graph;

struct cudnn_shape {
    int64_t dim[4];
    int64_t stride[4]; /* elements */
};

/* Dense, the last dimension contiguous. */
struct cudnn_shape cudnn_shape_dense(int64_t d0, int64_t d1, int64_t d2, int64_t d3);
/* The last two dimensions exchanged. */
struct cudnn_shape cudnn_shape_transposed(struct cudnn_shape shape);

/* A tensor of one graph; a value to copy. */
struct cudnn_tensor {
    cudnnBackendDescriptor_t descriptor; /* NULL: none */
    struct cudnn_shape shape;
};

enum cudnn_tensor_kind {
    CUDNN_TENSOR_MEMORY,  /* read or written in device memory */
    CUDNN_TENSOR_VIRTUAL, /* lives inside the kernel only */
    CUDNN_TENSOR_VALUE,   /* one number, read from host memory when the plan runs */
};

struct cudnn_tensor_spec {
    const char *name;
    enum cudnn_tensor_kind kind;
    int64_t uid; /* > 0, unique in the graph; 0 for virtual tensors: given here */
    cudnnDataType_t dtype;
    struct cudnn_shape shape;
    const struct cudnn_tensor *ragged; /* NULL, or where each index of dimension 0 begins: [B+1] */
};

MUST_USE err_t cudnn_graph_create(struct cudnn_graph **out, const struct cudnn_target *target);
void cudnn_graph_destroy(struct cudnn_graph *graph); /* NULL allowed */

MUST_USE err_t cudnn_graph_tensor(struct cudnn_tensor *out, struct cudnn_graph *graph,
                                  const struct cudnn_tensor_spec *spec);

/* y = mode(x, b, t). Of BINARY_SELECT: y = t ? x : b; of GEN_INDEX: y = index along `axis`. */
struct cudnn_pointwise {
    const char *name;
    cudnnPointwiseMode_t mode;
    cudnnDataType_t math;
    int64_t axis; /* of GEN_INDEX */
    const struct cudnn_tensor *x;
    const struct cudnn_tensor *b; /* NULL: one operand */
    const struct cudnn_tensor *t; /* NULL: two operands */
    const struct cudnn_tensor *y;
};
MUST_USE err_t cudnn_graph_pointwise(struct cudnn_graph *graph, const struct cudnn_pointwise *op);

/* c = a b over the last two dimensions; m, n, k of every index of dimension 0 may be given by i32
 * tensors [B,1,1,1]. */
struct cudnn_matmul {
    const char *name;
    const struct cudnn_tensor *a, *b, *c;
    const struct cudnn_tensor *m, *n, *k; /* NULL: what the shapes say */
    bool zero_padding;                    /* what lies outside m, n, k counts as 0 */
};
MUST_USE err_t cudnn_graph_matmul(struct cudnn_graph *graph, const struct cudnn_matmul *op);

/* y = sum or maximum of x over the dimensions that are 1 in y. */
MUST_USE err_t cudnn_graph_reduce(struct cudnn_graph *graph, const char *name,
                                  cudnnReduceTensorOp_t op, const struct cudnn_tensor *y,
                                  const struct cudnn_tensor *x);

/* y = the elements of x, under y's dimensions and strides. */
MUST_USE err_t cudnn_graph_reshape(struct cudnn_graph *graph, const char *name,
                                   const struct cudnn_tensor *y, const struct cudnn_tensor *x);

/* An executable graph. `choice` says which engine with which settings: two plans with equal texts
 * compute in the same order. */
struct cudnn_plan {
    cudnnBackendDescriptor_t descriptor; /* the graph's */
    int64_t workspace_bytes;
    char choice[96]; /* "eng4_k24=11" */
};

/* The first of the engines that cuDNN recommends that can be built. ERR_UNSUPPORTED: none can.
 * `plan->choice` is set also on failure, to the last one tried. */
MUST_USE err_t cudnn_graph_plan(struct cudnn_plan *plan, struct cudnn_graph *graph,
                                const char *name);

/* Device address of a tensor by its uid, or host address of a value. */
struct cudnn_binding {
    int64_t uid;
    void *data;
};

#define CUDNN_BINDINGS_MAX 32

/* Queue on `stream` (a cudaStream_t). The target must be a real device. */
MUST_USE err_t cudnn_plan_run(const struct cudnn_plan *plan, const struct cudnn_target *target,
                              const struct cudnn_binding *bindings, int64_t count, void *workspace,
                              void *stream);

#endif
