#include "kernels/cuda/cudnn_graph.h"

#include "base/check.h"
#include "base/num.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DESCRIPTORS_MAX 512
#define OPERATIONS_MAX  48
#define CANDIDATES_MAX  8
#define KNOBS_MAX       16
/* Virtual tensors count from here, the caller's own stay below. */
#define UID_VIRTUAL 1000

struct cudnn_graph {
    const struct cudnn_target *target;
    cudnnBackendDescriptor_t owned[DESCRIPTORS_MAX];
    int64_t owned_count;
    cudnnBackendDescriptor_t operations[OPERATIONS_MAX];
    int64_t operation_count;
    int64_t uid_next;
};

struct cudnn_shape cudnn_shape_dense(int64_t d0, int64_t d1, int64_t d2, int64_t d3)
{
    return { { d0, d1, d2, d3 }, { d1 * d2 * d3, d2 * d3, d3, 1 } };
}

struct cudnn_shape cudnn_shape_transposed(struct cudnn_shape s)
{
    return { { s.dim[0], s.dim[1], s.dim[3], s.dim[2] },
             { s.stride[0], s.stride[1], s.stride[3], s.stride[2] } };
}

err_t cudnn_graph_create(struct cudnn_graph **out, const struct cudnn_target *target)
{
    *out = NULL;
    TRY(fault_point("cudnn.graph"));
    struct cudnn_graph *graph = (struct cudnn_graph *)calloc(1, sizeof *graph);
    if (graph == NULL) RAISE(NOMEM, "cuDNN graph: %zu bytes wanted", sizeof *graph);
    graph->target = target;
    graph->uid_next = UID_VIRTUAL;
    *out = graph;
    return ERR_OK;
}

void cudnn_graph_destroy(struct cudnn_graph *graph)
{
    if (graph == NULL) return;
    while (graph->owned_count > 0)
        (void)graph->target->lib->BackendDestroyDescriptor(graph->owned[--graph->owned_count]);
    free(graph);
}

/* Descriptors under construction: what they are, whose they are and their name in messages. */
struct making {
    struct cudnn_graph *graph;
    const char *name;
    cudnnBackendDescriptor_t descriptor;
};

static err_t make(struct making *m, struct cudnn_graph *graph, const char *name,
                  cudnnBackendDescriptorType_t type)
{
    ASSERT(graph->owned_count < DESCRIPTORS_MAX);
    *m = { graph, name, NULL };
    CUDNN_TRY(graph->target->lib, name, BackendCreateDescriptor, type, &m->descriptor);
    graph->owned[graph->owned_count++] = m->descriptor;
    return ERR_OK;
}

static err_t set(const struct making *m, cudnnBackendAttributeName_t attribute,
                 cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
    CUDNN_TRY(m->graph->target->lib, m->name, BackendSetAttribute, m->descriptor, attribute, type,
              count, values);
    return ERR_OK;
}

static err_t set_int(const struct making *m, cudnnBackendAttributeName_t attribute, int64_t value)
{
    return set(m, attribute, CUDNN_TYPE_INT64, 1, &value);
}

static err_t set_bool(const struct making *m, cudnnBackendAttributeName_t attribute, bool value)
{
    return set(m, attribute, CUDNN_TYPE_BOOLEAN, 1, &value);
}

static err_t set_dtype(const struct making *m, cudnnBackendAttributeName_t attribute,
                       cudnnDataType_t value)
{
    return set(m, attribute, CUDNN_TYPE_DATA_TYPE, 1, &value);
}

static err_t set_descriptor(const struct making *m, cudnnBackendAttributeName_t attribute,
                            cudnnBackendDescriptor_t value)
{
    return set(m, attribute, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

/* Operands that are not there are not set. */
static err_t set_operand(const struct making *m, cudnnBackendAttributeName_t attribute,
                         const struct cudnn_tensor *tensor)
{
    return tensor == NULL ? ERR_OK : set_descriptor(m, attribute, tensor->descriptor);
}

static err_t finish(const struct making *m)
{
    CUDNN_TRY(m->graph->target->lib, m->name, BackendFinalize, m->descriptor);
    return ERR_OK;
}

static err_t finish_operation(const struct making *m)
{
    ASSERT(m->graph->operation_count < OPERATIONS_MAX);
    TRY(finish(m));
    m->graph->operations[m->graph->operation_count++] = m->descriptor;
    return ERR_OK;
}

err_t cudnn_graph_tensor(struct cudnn_tensor *out, struct cudnn_graph *graph,
                         const struct cudnn_tensor_spec *spec)
{
    ASSERT(spec->uid >= 0 && spec->uid < UID_VIRTUAL);
    ASSERT((spec->uid == 0) == (spec->kind == CUDNN_TENSOR_VIRTUAL));
    struct making m;
    TRY(make(&m, graph, spec->name, CUDNN_BACKEND_TENSOR_DESCRIPTOR));
    TRY(set_dtype(&m, CUDNN_ATTR_TENSOR_DATA_TYPE, spec->dtype));
    TRY(set(&m, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, spec->shape.dim));
    TRY(set(&m, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, spec->shape.stride));
    TRY(set_int(&m, CUDNN_ATTR_TENSOR_UNIQUE_ID, spec->uid > 0 ? spec->uid : graph->uid_next++));
    TRY(set_int(&m, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 16));
    if (spec->kind == CUDNN_TENSOR_VIRTUAL) TRY(set_bool(&m, CUDNN_ATTR_TENSOR_IS_VIRTUAL, true));
    if (spec->kind == CUDNN_TENSOR_VALUE) TRY(set_bool(&m, CUDNN_ATTR_TENSOR_IS_BY_VALUE, true));
    TRY(set_operand(&m, CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC, spec->ragged));
    TRY(finish(&m));
    *out = { m.descriptor, spec->shape };
    return ERR_OK;
}

err_t cudnn_graph_pointwise(struct cudnn_graph *graph, const struct cudnn_pointwise *op)
{
    struct making how, m;
    TRY(make(&how, graph, op->name, CUDNN_BACKEND_POINTWISE_DESCRIPTOR));
    TRY(set(&how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &op->mode));
    TRY(set_dtype(&how, CUDNN_ATTR_POINTWISE_MATH_PREC, op->math));
    if (op->mode == CUDNN_POINTWISE_GEN_INDEX)
        TRY(set_int(&how, CUDNN_ATTR_POINTWISE_AXIS, op->axis));
    TRY(finish(&how));

    TRY(make(&m, graph, op->name, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR));
    TRY(set_descriptor(&m, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how.descriptor));
    TRY(set_operand(&m, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, op->x));
    TRY(set_operand(&m, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, op->b));
    TRY(set_operand(&m, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, op->t));
    TRY(set_operand(&m, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, op->y));
    return finish_operation(&m);
}

err_t cudnn_graph_matmul(struct cudnn_graph *graph, const struct cudnn_matmul *op)
{
    struct making how, m;
    TRY(make(&how, graph, op->name, CUDNN_BACKEND_MATMUL_DESCRIPTOR));
    TRY(set_dtype(&how, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT));
    const double zero = 0.0;
    if (op->zero_padding)
        TRY(set(&how, CUDNN_ATTR_MATMUL_PADDING_VALUE, CUDNN_TYPE_DOUBLE, 1, &zero));
    TRY(finish(&how));

    TRY(make(&m, graph, op->name, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR));
    TRY(set_descriptor(&m, CUDNN_ATTR_OPERATION_MATMUL_DESC, how.descriptor));
    TRY(set_operand(&m, CUDNN_ATTR_OPERATION_MATMUL_ADESC, op->a));
    TRY(set_operand(&m, CUDNN_ATTR_OPERATION_MATMUL_BDESC, op->b));
    TRY(set_operand(&m, CUDNN_ATTR_OPERATION_MATMUL_CDESC, op->c));
    TRY(set_operand(&m, CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC, op->m));
    TRY(set_operand(&m, CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC, op->n));
    TRY(set_operand(&m, CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC, op->k));
    return finish_operation(&m);
}

err_t cudnn_graph_reduce(struct cudnn_graph *graph, const char *name, cudnnReduceTensorOp_t op,
                         const struct cudnn_tensor *y, const struct cudnn_tensor *x)
{
    struct making how, m;
    TRY(make(&how, graph, name, CUDNN_BACKEND_REDUCTION_DESCRIPTOR));
    TRY(set(&how, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &op));
    TRY(set_dtype(&how, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_DATA_FLOAT));
    TRY(finish(&how));

    TRY(make(&m, graph, name, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR));
    TRY(set_descriptor(&m, CUDNN_ATTR_OPERATION_REDUCTION_DESC, how.descriptor));
    TRY(set_operand(&m, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x));
    TRY(set_operand(&m, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y));
    return finish_operation(&m);
}

err_t cudnn_graph_reshape(struct cudnn_graph *graph, const char *name, const struct cudnn_tensor *y,
                          const struct cudnn_tensor *x)
{
    struct making m;
    TRY(make(&m, graph, name, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR));
    TRY(set_operand(&m, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x));
    TRY(set_operand(&m, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y));
    return finish_operation(&m);
}

static err_t get(const struct making *m, cudnnBackendAttributeName_t attribute,
                 cudnnBackendAttributeType_t type, int64_t room, int64_t *count, void *values)
{
    CUDNN_TRY(m->graph->target->lib, m->name, BackendGetAttribute, m->descriptor, attribute, type,
              room, count, values);
    return ERR_OK;
}

static err_t make_operation_graph(struct making *m, struct cudnn_graph *graph, const char *name)
{
    TRY(make(m, graph, name, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR));
    TRY(set(m, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, graph->operation_count,
            graph->operations));
    if (graph->target->handle != NULL)
        TRY(set(m, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &graph->target->handle));
    return finish(m);
}

/* Engine configurations for the graph, cuDNN's favourite first. */
static err_t ask_heuristics(struct making *candidates, int64_t *count, struct cudnn_graph *graph,
                            const char *name)
{
    struct making operations, m;
    TRY(make_operation_graph(&operations, graph, name));
    TRY(make(&m, graph, name, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR));
    const cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    TRY(set_descriptor(&m, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, operations.descriptor));
    TRY(set(&m, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode));
    if (graph->target->properties != NULL)
        TRY(set_descriptor(&m, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, graph->target->properties));
    TRY(finish(&m));

    cudnnBackendDescriptor_t results[CANDIDATES_MAX];
    for (int64_t i = 0; i < CANDIDATES_MAX; i++) {
        TRY(make(&candidates[i], graph, name, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR));
        results[i] = candidates[i].descriptor;
    }
    TRY(get(&m, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, CANDIDATES_MAX, count,
            results));
    *count = min_i64(*count, CANDIDATES_MAX);
    return ERR_OK;
}

/* "eng4_k24=11": the engine's number, then its settings by number and value. */
static err_t describe_candidate(char *text, size_t room, const struct making *config)
{
    struct making engine, knobs[KNOBS_MAX];
    cudnnBackendDescriptor_t results[KNOBS_MAX];
    int64_t number = 0, count = 0;
    TRY(make(&engine, config->graph, config->name, CUDNN_BACKEND_ENGINE_DESCRIPTOR));
    TRY(get(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count,
            &engine.descriptor));
    TRY(get(&engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &count, &number));
    int used = snprintf(text, room, "eng%" PRId64, number);
    for (int64_t i = 0; i < KNOBS_MAX; i++) {
        TRY(make(&knobs[i], config->graph, config->name, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR));
        results[i] = knobs[i].descriptor;
    }
    TRY(get(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, KNOBS_MAX,
            &count, results));
    for (int64_t i = 0; i < min_i64(count, KNOBS_MAX) && used < (int)room; i++) {
        cudnnBackendKnobType_t type;
        int64_t value = 0, one = 0;
        TRY(get(&knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &one, &type));
        TRY(get(&knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &one, &value));
        used += snprintf(text + used, room - (size_t)used, "_k%d=%" PRId64, (int)type, value);
    }
    return ERR_OK;
}

static err_t build(struct cudnn_plan *plan, const struct making *config)
{
    const struct cudnn_target *target = config->graph->target;
    struct making m;
    int64_t count = 0;
    TRY(make(&m, config->graph, config->name, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR));
    TRY(set_descriptor(&m, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config->descriptor));
    if (target->handle != NULL)
        TRY(set(&m, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &target->handle));
    if (target->properties != NULL)
        TRY(set_descriptor(&m, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, target->properties));
    TRY(finish(&m));
    TRY(get(&m, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count,
            &plan->workspace_bytes));
    plan->descriptor = m.descriptor;
    return ERR_OK;
}

err_t cudnn_graph_plan(struct cudnn_plan *plan, struct cudnn_graph *graph, const char *name)
{
    memset(plan, 0, sizeof *plan);
    struct making candidates[CANDIDATES_MAX];
    int64_t count = 0;
    TRY(ask_heuristics(candidates, &count, graph, name));
    for (int64_t i = 0; i < count; i++) {
        TRY(describe_candidate(plan->choice, sizeof plan->choice, &candidates[i]));
        const err_t rc = build(plan, &candidates[i]);
        const bool try_next = rc == ERR_UNSUPPORTED || rc == ERR_CUDA;
        if (!try_next || i == count - 1) return rc;
    }
    RAISE(UNSUPPORTED,
          "cuDNN has no engine for %s on this device, or does not find its libnvrtc", name);
}

/* One launch's addresses, as a descriptor that lives as long as the call. */
static err_t fill_pack(const struct cudnn_lib *lib, cudnnBackendDescriptor_t pack,
                       const struct cudnn_binding *bindings, int64_t count, void *workspace)
{
    const char *object = "addresses";
    int64_t uids[CUDNN_BINDINGS_MAX];
    void *data[CUDNN_BINDINGS_MAX];
    for (int64_t i = 0; i < count; i++) {
        uids[i] = bindings[i].uid;
        data[i] = bindings[i].data;
    }
    CUDNN_TRY(lib, object, BackendSetAttribute, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS,
              CUDNN_TYPE_INT64, count, uids);
    CUDNN_TRY(lib, object, BackendSetAttribute, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS,
              CUDNN_TYPE_VOID_PTR, count, data);
    CUDNN_TRY(lib, object, BackendSetAttribute, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE,
              CUDNN_TYPE_VOID_PTR, 1, &workspace);
    CUDNN_TRY(lib, object, BackendFinalize, pack);
    return ERR_OK;
}

err_t cudnn_plan_run(const struct cudnn_plan *plan, const struct cudnn_target *target,
                     const struct cudnn_binding *bindings, int64_t count, void *workspace,
                     void *stream)
{
    ASSERT(target->handle != NULL && plan->descriptor != NULL);
    ASSERT(count > 0 && count <= CUDNN_BINDINGS_MAX);
    const struct cudnn_lib *lib = target->lib;
    cudnnBackendDescriptor_t pack = NULL;
    err_t rc = ERR_OK;
    CUDNN_TRY(lib, "stream", SetStream, target->handle, (cudaStream_t)stream);
    CUDNN_TRY(lib, "addresses", BackendCreateDescriptor, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR,
              &pack);
    TRY_DONE(fill_pack(lib, pack, bindings, count, workspace));
    TRY_DONE(fault_point("cudnn.BackendExecute"));
    TRY_DONE(cudnn_lib_verdict(lib, lib->BackendExecute(target->handle, plan->descriptor, pack),
                               plan->choice, "BackendExecute"));
done:
    (void)lib->BackendDestroyDescriptor(pack);
    return rc;
}
