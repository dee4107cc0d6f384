/*
 * The calls of cuBLASLt that the CUDA backend makes, as the library's documentation describes them
 * and in plain loops: column-major matrices, an algorithm of opaque words, proposals of which some
 * do not work. With it kernels/cuda/gemm_lt.cc runs without a GPU: what it says to the library, and
 * how it chooses. Any algorithm gives the same sums.
 *
 * With FAKE_CUBLASLT_LATE it computes when its stream gets to it (softgpu/README.md).
 *
 * FAKE_CUBLASLT=minor    the first minor version of the headers' major one
 * FAKE_CUBLASLT=major    the major version before
 */
#include "base/num.h"
#include "softgpu/late.h"

#include <cublasLt.h>
#include <cmath>
#include <cstdlib>
#include <cstring>

namespace
{

struct layout {
    cudaDataType type;
    int64_t rows, cols, ld;
};

struct desc {
    cublasOperation_t op_a, op_b;
    uint32_t epilogue;
    const void *bias, *aux;
    int64_t ld_aux;
};

struct preference {
    uint64_t workspace;
    uint32_t reductions, align_a, align_b, align_c, align_d;
};

static_assert(sizeof(layout) <= sizeof(cublasLtMatrixLayoutOpaque_t), "layout");
static_assert(sizeof(desc) <= sizeof(cublasLtMatmulDescOpaque_t), "desc");
static_assert(sizeof(preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t), "preference");

template <class A, class B> A &as(B *opaque) { return *reinterpret_cast<A *>(opaque); }

/* Algorithms: what their first word says. */
constexpr uint64_t GOOD = 0x600d, FAILS_WHEN_RUN = 0xbad;

float get(const void *data, cudaDataType type, int64_t i)
{
    return type == CUDA_R_32F ? static_cast<const float *>(data)[i]
                              : bf16_to_f32(static_cast<const uint16_t *>(data)[i]);
}

void put(void *data, cudaDataType type, int64_t i, float value)
{
    if (type == CUDA_R_32F)
        static_cast<float *>(data)[i] = value;
    else
        static_cast<uint16_t *>(data)[i] = f32_to_bf16(value);
}

/* op(x)[row, col] */
float at(const void *data, const layout &l, cublasOperation_t op, int64_t row, int64_t col)
{
    return get(data, l.type, op == CUBLAS_OP_N ? row + col * l.ld : col + row * l.ld);
}

float gelu_slope(float u)
{
    const double c = 0.7978845608028654, x = static_cast<double>(u);
    const double t = std::tanh(c * x * (1.0 + 0.044715 * x * x));
    return static_cast<float>(0.5 * (1.0 + t) +
                              0.5 * x * (1.0 - t * t) * c * (1.0 + 3.0 * 0.044715 * x * x));
}

bool agree(const desc &d, const layout &a, const layout &b, const layout &c)
{
    const int64_t m = d.op_a == CUBLAS_OP_N ? a.rows : a.cols;
    const int64_t k = d.op_a == CUBLAS_OP_N ? a.cols : a.rows;
    const int64_t k_b = d.op_b == CUBLAS_OP_N ? b.rows : b.cols;
    const int64_t n = d.op_b == CUBLAS_OP_N ? b.cols : b.rows;
    return m == c.rows && n == c.cols && k == k_b && a.ld >= a.rows && b.ld >= b.rows &&
           c.ld >= c.rows && a.type == b.type &&
           (d.epilogue != CUBLASLT_EPILOGUE_DGELU || (d.ld_aux >= c.rows && d.ld_aux % 8 == 0));
}

bool is_aligned(const void *p, uint64_t bytes)
{
    return reinterpret_cast<uintptr_t>(p) % bytes == 0;
}

/* What the epilogue reads, and how well that is aligned: the library goes by the pointer's value
 * where it proposes and checks, and counts on it where it runs. */
const void *epilogue_reads(const desc &d)
{
    return d.epilogue == CUBLASLT_EPILOGUE_BIAS    ? d.bias
           : d.epilogue == CUBLASLT_EPILOGUE_DGELU ? d.aux
                                                   : nullptr;
}

uint64_t epilogue_alignment(const desc &d)
{
    const uintptr_t bits = reinterpret_cast<uintptr_t>(epilogue_reads(d)) | 256;
    return bits & (~bits + 1);
}

/* d = op(a) op(b) * scale + keep * c, with the epilogue. */
void multiply(const desc &o, const layout &a, const layout &b, const layout &d, const void *a_data,
              const void *b_data, const void *c_data, void *d_data, float scale, float keep)
{
    const int64_t depth = o.op_a == CUBLAS_OP_N ? a.cols : a.rows;
    for (int64_t col = 0; col < d.cols; col++)
        for (int64_t row = 0; row < d.rows; row++) {
            float sum = 0.0f;
            for (int64_t k = 0; k < depth; k++)
                sum += at(a_data, a, o.op_a, row, k) * at(b_data, b, o.op_b, k, col);
            sum *= scale;
            if (keep != 0.0f) sum += keep * get(c_data, d.type, row + col * d.ld);
            if (o.epilogue == CUBLASLT_EPILOGUE_BIAS) sum += get(o.bias, d.type, row);
            if (o.epilogue == CUBLASLT_EPILOGUE_DGELU)
                sum *= gelu_slope(get(o.aux, d.type, row + col * o.ld_aux));
            put(d_data, d.type, row + col * d.ld, sum);
        }
}

#ifdef FAKE_CUBLASLT_LATE
void queue(cudaStream_t stream, std::function<void()> work)
{
    soft::later(stream, std::move(work));
}
#else
void queue(cudaStream_t, const std::function<void()> &work) { work(); }
#endif

} // namespace

extern "C" {

size_t cublasLtGetVersion(void)
{
    const char *plan = std::getenv("FAKE_CUBLASLT");
    if (plan == nullptr) return CUBLAS_VERSION;
    return (CUBLAS_VER_MAJOR - (std::strcmp(plan, "major") == 0)) * 10000;
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_NOT_SUPPORTED ? "not supported" : "another status";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    *handle = reinterpret_cast<cublasLtHandle_t>(new char);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    delete reinterpret_cast<char *>(handle);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t out, size_t size,
                                                 cudaDataType type, uint64_t rows, uint64_t cols,
                                                 int64_t ld)
{
    memset(out, 0, size);
    as<layout>(out) = { type, static_cast<int64_t>(rows), static_cast<int64_t>(cols), ld };
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t out, size_t size,
                                               cublasComputeType_t compute, cudaDataType_t scale)
{
    memset(out, 0, size);
    as<desc>(out) = { CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, nullptr, nullptr, 0 };
    return compute == CUBLAS_COMPUTE_32F && scale == CUDA_R_32F ? CUBLAS_STATUS_SUCCESS
                                                                : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t opaque,
                                              cublasLtMatmulDescAttributes_t what,
                                              const void *value, size_t size)
{
    desc &d = as<desc>(opaque);
    const struct {
        cublasLtMatmulDescAttributes_t what;
        void *field;
        size_t size;
    } fields[] = {
        { CUBLASLT_MATMUL_DESC_TRANSA, &d.op_a, sizeof(int32_t) },
        { CUBLASLT_MATMUL_DESC_TRANSB, &d.op_b, sizeof(int32_t) },
        { CUBLASLT_MATMUL_DESC_EPILOGUE, &d.epilogue, sizeof(uint32_t) },
        { CUBLASLT_MATMUL_DESC_BIAS_POINTER, &d.bias, sizeof(void *) },
        { CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &d.aux, sizeof(void *) },
        { CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &d.ld_aux, sizeof(int64_t) },
    };
    for (const auto &f : fields) {
        if (f.what != what) continue;
        if (f.size != size) return CUBLAS_STATUS_INVALID_VALUE;
        memcpy(f.field, value, size);
        return CUBLAS_STATUS_SUCCESS;
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t out, size_t size)
{
    memset(out, 0, size);
    as<preference>(out) = { 0, CUBLASLT_REDUCTION_SCHEME_MASK, 256, 256, 256, 256 };
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t opaque,
                                                    cublasLtMatmulPreferenceAttributes_t what,
                                                    const void *value, size_t size)
{
    preference &p = as<preference>(opaque);
    const struct {
        cublasLtMatmulPreferenceAttributes_t what;
        void *field;
        size_t size;
    } fields[] = {
        { CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &p.workspace, 8 },
        { CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &p.reductions, 4 },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &p.align_a, 4 },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &p.align_b, 4 },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &p.align_c, 4 },
        { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &p.align_d, 4 },
    };
    for (const auto &f : fields) {
        if (f.what != what) continue;
        if (f.size != size) return CUBLAS_STATUS_INVALID_VALUE;
        memcpy(f.field, value, size);
        return CUBLAS_STATUS_SUCCESS;
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

/* Three proposals: one that works, one that the library takes back, one that fails when run. An
 * algorithm remembers what alignment it may count on. */
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t op,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t pref, int wanted,
                                              cublasLtMatmulHeuristicResult_t out[], int *count)
{
    const preference &p = as<preference>(pref);
    if (wanted < 3 || !agree(as<desc>(op), as<layout>(a), as<layout>(b), as<layout>(d)))
        return CUBLAS_STATUS_INVALID_VALUE;
    for (int i = 0; i < 3; i++) {
        out[i] = {};
        out[i].state = i == 1 ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
        out[i].workspaceSize = p.workspace;
        const uint64_t words[8] = { i == 2 ? FAILS_WHEN_RUN : GOOD,
                                    p.workspace,
                                    p.align_a,
                                    p.align_b,
                                    p.align_c,
                                    p.align_d,
                                    p.reductions,
                                    epilogue_alignment(as<desc>(op)) };
        memcpy(&out[i].algo, words, sizeof words);
    }
    *count = 3;
    return CUBLAS_STATUS_SUCCESS;
}

/* Refuses words that no proposal had. */
cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t op,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algo,
                                       cublasLtMatmulHeuristicResult_t *result)
{
    *result = {};
    result->workspaceSize = algo->data[1];
    return algo->data[0] == GOOD && algo->data[7] <= epilogue_alignment(as<desc>(op)) &&
                   agree(as<desc>(op), as<layout>(a), as<layout>(b), as<layout>(d))
               ? CUBLAS_STATUS_SUCCESS
               : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t op, const void *alpha,
                              const void *a_data, cublasLtMatrixLayout_t a_opaque,
                              const void *b_data, cublasLtMatrixLayout_t b_opaque, const void *beta,
                              const void *c_data, cublasLtMatrixLayout_t, void *d_data,
                              cublasLtMatrixLayout_t d_opaque, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t bytes, cudaStream_t stream)
{
    const desc o = as<desc>(op);
    const layout a = as<layout>(a_opaque), b = as<layout>(b_opaque), d = as<layout>(d_opaque);
    const float scale = *static_cast<const float *>(alpha),
                keep = *static_cast<const float *>(beta);
    const uint64_t *words = algo->data;
    if (words[0] != GOOD) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (!agree(o, a, b, d) || bytes < words[1] || !is_aligned(workspace, 16) ||
        !is_aligned(a_data, words[2]) || !is_aligned(b_data, words[3]) ||
        !is_aligned(c_data, words[4]) || !is_aligned(d_data, words[5]) ||
        !is_aligned(epilogue_reads(o), words[7]))
        return CUBLAS_STATUS_INVALID_VALUE;
    queue(stream, [=, bytes = words[1]] {
        memset(workspace, 0xff, bytes); /* the library's own */
        multiply(o, a, b, d, a_data, b_data, c_data, d_data, scale, keep);
    });
    return CUBLAS_STATUS_SUCCESS;
}

} // extern "C"
