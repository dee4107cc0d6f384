/*
 * A libcudnn.so.9 that takes every graph at its word: it runs the operations one number at a time,
 * in double, on host memory. So a test sees what our graphs mean and what our calls pass to them.
 * It knows the operations that cudnn_graph.h makes and nothing else of cuDNN.
 *
 * Like the real one, it loads and stores only rows that the query and key counts name. What lies
 * beyond reads as 7: the graph's masks must keep it out of the results.
 */
#include "base/num.h"
#include "kernels/cuda/cudnn_sdpa.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <vector>

namespace
{

struct descriptor {
    cudnnBackendDescriptorType_t type;
    std::map<int, std::vector<char>> attributes;

    template <class A> A get(int name, A otherwise) const
    {
        const auto found = attributes.find(name);
        if (found == attributes.end()) return otherwise;
        A value;
        memcpy(&value, found->second.data(), sizeof value);
        return value;
    }
    const descriptor *link(int name) const { return get<const descriptor *>(name, nullptr); }
    template <class A> std::vector<A> list(int name) const
    {
        const std::vector<char> &bytes = attributes.at(name);
        std::vector<A> values(bytes.size() / sizeof(A));
        memcpy(values.data(), bytes.data(), bytes.size());
        return values;
    }
};

size_t element_bytes(cudnnBackendAttributeType_t type)
{
    switch (type) {
    case CUDNN_TYPE_BOOLEAN:
    case CUDNN_TYPE_CHAR:
        return 1;
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_DOUBLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
        return 8;
    default:
        return 4;
    }
}

/* What a tensor descriptor says. */
struct tensor_view {
    int64_t uid, dim[4], stride[4];
    cudnnDataType_t dtype;
    bool is_virtual, is_value;
    int64_t offsets_uid; /* 0: none */

    explicit tensor_view(const descriptor *d)
    {
        uid = d->get<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID, 0);
        dtype = d->get(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_DATA_FLOAT);
        is_virtual = d->get(CUDNN_ATTR_TENSOR_IS_VIRTUAL, false);
        is_value = d->get(CUDNN_ATTR_TENSOR_IS_BY_VALUE, false);
        const auto dims = d->list<int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS);
        const auto strides = d->list<int64_t>(CUDNN_ATTR_TENSOR_STRIDES);
        for (int i = 0; i < 4; i++) dim[i] = dims[(size_t)i], stride[i] = strides[(size_t)i];
        const descriptor *offsets = d->link(CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC);
        offsets_uid = offsets ? offsets->get<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID, 0) : 0;
    }
    size_t count() const { return (size_t)(dim[1] * dim[2] * dim[3]); }
    /* The dimension whose index is a row of the packed array. */
    int row_dim() const { return stride[3] > stride[2] ? 3 : 2; }
};

double load_number(const void *data, int64_t i, cudnnDataType_t dtype)
{
    if (dtype == CUDNN_DATA_BFLOAT16) return bf16_to_f32(((const uint16_t *)data)[i]);
    if (dtype == CUDNN_DATA_INT32) return ((const int32_t *)data)[i];
    return ((const float *)data)[i];
}

void store_number(void *data, int64_t i, cudnnDataType_t dtype, double value)
{
    if (dtype == CUDNN_DATA_BFLOAT16)
        ((uint16_t *)data)[i] = f32_to_bf16((float)value);
    else
        ((float *)data)[i] = (float)value;
}

/* One sample of one graph: its tensors so far, as [H][dim 2][dim 3]. */
struct sample {
    int64_t index;
    const std::map<int64_t, void *> &memory;
    std::map<int64_t, std::vector<double>> values = {};

    int64_t row_count(const tensor_view &t) const
    {
        const bool of_keys =
            t.offsets_uid == CUDNN_SDPA_AT_KV || t.offsets_uid == CUDNN_SDPA_AT_DKV;
        const int64_t uid = of_keys ? CUDNN_SDPA_KEY_COUNT : CUDNN_SDPA_QUERY_COUNT;
        return ((const int32_t *)memory.at(uid))[index];
    }

    /* Every element of a tensor in memory: f(place in values, element in memory, is a row of
     * this sample). */
    template <class F> void each(const tensor_view &t, F f) const
    {
        const int64_t origin = t.offsets_uid == 0
                                   ? (t.dim[0] > 1 ? index * t.stride[0] : 0)
                                   : ((const int64_t *)memory.at(t.offsets_uid))[index];
        const int64_t rows = t.offsets_uid == 0 ? INT64_MAX : row_count(t);
        size_t i = 0;
        for (int64_t h = 0; h < t.dim[1]; h++)
            for (int64_t x = 0; x < t.dim[2]; x++)
                for (int64_t y = 0; y < t.dim[3]; y++)
                    f(i++, origin + h * t.stride[1] + x * t.stride[2] + y * t.stride[3],
                      (t.row_dim() == 3 ? y : x) < rows);
    }

    const std::vector<double> &read(const tensor_view &t)
    {
        if (t.is_virtual || values.count(t.uid)) return values.at(t.uid);
        std::vector<double> v(t.count());
        const void *data = memory.at(t.uid);
        each(t, [&](size_t i, int64_t at, bool is_row) {
            v[i] = is_row ? load_number(data, at, t.dtype) : 7.0;
        });
        return values[t.uid] = v;
    }

    void write(const tensor_view &t, std::vector<double> v)
    {
        if (t.dtype == CUDNN_DATA_BFLOAT16)
            for (double &x : v) x = bf16_to_f32(f32_to_bf16((float)x));
        if (!t.is_virtual)
            each(t, [&](size_t i, int64_t at, bool is_row) {
                if (is_row) store_number(memory.at(t.uid), at, t.dtype, v[i]);
            });
        values[t.uid] = std::move(v);
    }
};

/* The place in a tensor of shape t for place (h, x, y) of a larger one. */
size_t broadcast(const tensor_view &t, int64_t h, int64_t x, int64_t y)
{
    h = t.dim[1] == 1 ? 0 : h;
    x = t.dim[2] == 1 ? 0 : x;
    y = t.dim[3] == 1 ? 0 : y;
    return (size_t)((h * t.dim[2] + x) * t.dim[3] + y);
}

double apply(cudnnPointwiseMode_t mode, double x, double b, double t)
{
    switch (mode) {
    case CUDNN_POINTWISE_ADD:
        return x + b;
    case CUDNN_POINTWISE_SUB:
        return x - b;
    case CUDNN_POINTWISE_MUL:
        return x * b;
    case CUDNN_POINTWISE_DIV:
        return x / b;
    case CUDNN_POINTWISE_EXP:
        return exp(x);
    case CUDNN_POINTWISE_LOG:
        return log(x);
    case CUDNN_POINTWISE_IDENTITY:
        return x;
    case CUDNN_POINTWISE_CMP_LT:
        return x < b;
    case CUDNN_POINTWISE_CMP_GE:
        return x >= b;
    case CUDNN_POINTWISE_LOGICAL_AND:
        return x != 0 && b != 0;
    case CUDNN_POINTWISE_BINARY_SELECT:
        return t != 0 ? x : b;
    default:
        return NAN;
    }
}

void run_pointwise(sample &s, const descriptor *op)
{
    const descriptor *how = op->link(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
    const auto mode = how->get(CUDNN_ATTR_POINTWISE_MODE, CUDNN_POINTWISE_ADD);
    const int64_t axis = how->get<int64_t>(CUDNN_ATTR_POINTWISE_AXIS, 0);
    const descriptor *b = op->link(CUDNN_ATTR_OPERATION_POINTWISE_BDESC);
    const descriptor *t = op->link(CUDNN_ATTR_OPERATION_POINTWISE_TDESC);
    const tensor_view y(op->link(CUDNN_ATTR_OPERATION_POINTWISE_YDESC));
    const tensor_view vx(op->link(CUDNN_ATTR_OPERATION_POINTWISE_XDESC));
    const tensor_view vb(b ? b : op->link(CUDNN_ATTR_OPERATION_POINTWISE_XDESC));
    const tensor_view vt(t ? t : op->link(CUDNN_ATTR_OPERATION_POINTWISE_XDESC));
    const std::vector<double> &dx = s.read(vx), &db = s.read(vb), &dt = s.read(vt);
    std::vector<double> out(y.count());
    size_t at = 0;
    for (int64_t h = 0; h < y.dim[1]; h++)
        for (int64_t i = 0; i < y.dim[2]; i++)
            for (int64_t j = 0; j < y.dim[3]; j++)
                out[at++] = mode == CUDNN_POINTWISE_GEN_INDEX
                                ? (double)(axis == 2 ? i : j)
                                : apply(mode, dx[broadcast(vx, h, i, j)],
                                        db[broadcast(vb, h, i, j)], dt[broadcast(vt, h, i, j)]);
    s.write(y, out);
}

void run_reduction(sample &s, const descriptor *op)
{
    const descriptor *how = op->link(CUDNN_ATTR_OPERATION_REDUCTION_DESC);
    const bool is_max =
        how->get(CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_REDUCE_TENSOR_ADD) == CUDNN_REDUCE_TENSOR_MAX;
    const tensor_view x(op->link(CUDNN_ATTR_OPERATION_REDUCTION_XDESC));
    const tensor_view y(op->link(CUDNN_ATTR_OPERATION_REDUCTION_YDESC));
    const std::vector<double> &in = s.read(x);
    std::vector<double> out(y.count(), is_max ? -INFINITY : 0.0);
    for (size_t i = 0; i < in.size(); i++) {
        double &to = out[i / (size_t)x.dim[3]];
        to = is_max ? std::max(to, in[i]) : to + in[i];
    }
    s.write(y, out);
}

void run_matmul(sample &s, const descriptor *op)
{
    const tensor_view a(op->link(CUDNN_ATTR_OPERATION_MATMUL_ADESC));
    const tensor_view b(op->link(CUDNN_ATTR_OPERATION_MATMUL_BDESC));
    const tensor_view c(op->link(CUDNN_ATTR_OPERATION_MATMUL_CDESC));
    const std::vector<double> &da = s.read(a), &db = s.read(b);
    const int64_t M = c.dim[2], N = c.dim[3], K = a.dim[3];
    const descriptor *over = op->link(CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC);
    const int64_t k_end = over ? (int64_t)s.read(tensor_view(over))[0] : K;
    std::vector<double> out(c.count(), 0.0);
    for (int64_t h = 0; h < c.dim[1]; h++)
        for (int64_t m = 0; m < M; m++)
            for (int64_t k = 0; k < k_end; k++) {
                const double x = da[(size_t)((h * M + m) * K + k)];
                if (x == 0.0) continue;
                for (int64_t n = 0; n < N; n++)
                    out[(size_t)((h * M + m) * N + n)] += x * db[(size_t)((h * K + k) * N + n)];
            }
    s.write(c, out);
}

/* Views with the last two dimensions exchanged are all the reshapes there are. */
void run_reshape(sample &s, const descriptor *op)
{
    const tensor_view x(op->link(CUDNN_ATTR_OPERATION_RESHAPE_XDESC));
    const tensor_view y(op->link(CUDNN_ATTR_OPERATION_RESHAPE_YDESC));
    const std::vector<double> &in = s.read(x);
    std::vector<double> out(y.count(), NAN);
    const bool is_transposed = x.dim[2] == y.dim[3] && x.dim[3] == y.dim[2] &&
                               x.stride[2] == y.stride[3] && x.stride[3] == y.stride[2];
    size_t at = 0;
    for (int64_t h = 0; is_transposed && h < y.dim[1]; h++)
        for (int64_t i = 0; i < y.dim[2]; i++)
            for (int64_t j = 0; j < y.dim[3]; j++) out[at++] = in[broadcast(x, h, j, i)];
    s.write(y, out);
}

void run_operation(sample &s, const descriptor *op)
{
    switch (op->type) {
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
        run_pointwise(s, op);
        break;
    case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR:
        run_reduction(s, op);
        break;
    case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR:
        run_matmul(s, op);
        break;
    default:
        run_reshape(s, op);
        break;
    }
}

std::vector<const descriptor *> operations_of(const descriptor *plan)
{
    const descriptor *config = plan->link(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
    return config->link(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH)
        ->list<const descriptor *>(CUDNN_ATTR_OPERATIONGRAPH_OPS);
}

/* Scores of a deterministic backward graph, whose last operation writes dq itself: as much
 * workspace as the real one asks for. */
int64_t workspace_bytes(const descriptor *plan)
{
    const auto operations = operations_of(plan);
    const descriptor *last = operations.back(), *scores = nullptr;
    const descriptor *c = last->link(CUDNN_ATTR_OPERATION_MATMUL_CDESC);
    if (c == nullptr || tensor_view(c).uid != CUDNN_SDPA_DQ) return 17152;
    scores = last->link(CUDNN_ATTR_OPERATION_MATMUL_ADESC);
    const tensor_view v(scores);
    return 2 * v.dim[0] * (int64_t)v.count() + 1024;
}

} // namespace

extern "C" {

/* What tests set and read through dlsym: what making a handle and finishing a plan answer, and how
 * many plans were asked for. */
extern int pretend_handle_status, pretend_plan_status, pretend_plans;
int pretend_handle_status, pretend_plan_status, pretend_plans;

size_t cudnnGetVersion(void) { return 91002; }

/* A CUDA that no machine has: its cuBLASLt is a library of the tests. */
size_t cudnnGetCudartVersion(void) { return 99010; }

const char *cudnnGetErrorString(cudnnStatus_t status)
{
    return status == CUDNN_STATUS_BAD_PARAM ? "PRETEND_BAD_PARAM" : "PRETEND";
}

void cudnnGetLastErrorString(char *message, size_t max_size)
{
    if (max_size > 0) message[0] = '\0';
}

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle)
{
    if (pretend_handle_status != 0) return (cudnnStatus_t)pretend_handle_status;
    *handle = (cudnnHandle_t) new int64_t(0);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle)
{
    delete (int64_t *)handle;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t, cudaStream_t) { return CUDNN_STATUS_SUCCESS; }

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t *out)
{
    *out = new descriptor{ type, {} };
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t d)
{
    delete (descriptor *)d;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t d)
{
    if (((const descriptor *)d)->type != CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)
        return CUDNN_STATUS_SUCCESS;
    pretend_plans++;
    return (cudnnStatus_t)pretend_plan_status;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count,
                                       const void *values)
{
    const char *bytes = (const char *)values;
    ((descriptor *)d)->attributes[name].assign(bytes, bytes + (size_t)count * element_bytes(type));
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const d,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t, int64_t, int64_t *count,
                                       void *values)
{
    const descriptor *from = (const descriptor *)d;
    *count = name == CUDNN_ATTR_ENGINECFG_KNOB_CHOICES ? 0 : 1;
    if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS) {
        descriptor *config = *(descriptor **)values;
        config->attributes[CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH] =
            from->attributes.at(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
    }
    if (name == CUDNN_ATTR_ENGINE_GLOBAL_INDEX) *(int64_t *)values = 1;
    if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE)
        *(int64_t *)values = workspace_bytes(from);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t, cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t pack)
{
    const descriptor *p = (const descriptor *)pack;
    const auto uids = p->list<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    const auto data = p->list<void *>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    std::map<int64_t, void *> memory;
    for (size_t i = 0; i < uids.size(); i++) memory[uids[i]] = data[i];
    const auto operations = operations_of((const descriptor *)plan);
    const bool backward = memory.count(CUDNN_SDPA_DOUT) != 0;

    /* This version computes nonsense on workspace that was not cleared. */
    const char *workspace =
        *(char *const *)p->attributes.at(CUDNN_ATTR_VARIANT_PACK_WORKSPACE).data();
    const int64_t bytes = backward ? workspace_bytes((const descriptor *)plan) : 0;
    for (int64_t i = 0; i < bytes; i++)
        if (workspace[i] != 0) return CUDNN_STATUS_BAD_PARAM;

    const tensor_view counts(
        operations[backward ? 3 : 0]->link(CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC));
    for (int64_t b = 0; b < counts.dim[0]; b++) {
        if (((const int32_t *)memory.at(CUDNN_SDPA_QUERY_COUNT))[b] == 0) continue;
        sample s = { b, memory };
        for (const descriptor *op : operations) run_operation(s, op);
    }
    return CUDNN_STATUS_SUCCESS;
}

} /* extern "C" */
