/*
 * gemm.h by cuBLASLt. The library thinks in column-major matrices: a row-major d = op(a) op(b) is
 * the column-major d' = op(b)' op(a)', so its A is our b and its B is our a, and a forward product
 * x w' is its "TN" form.
 */
#include "kernels/cuda/gemm.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/num.h"
#include "kernels/cuda/dev_cuda.h"
#include "kernels/cuda/gemm_tune.h"
#include "kernels/cuda_sizes.h"

#include <cublasLt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Tests compile this file with less of both. */
#ifndef WORKSPACE_BYTES
#define WORKSPACE_BYTES CUDA_GEMM_WORKSPACE_BYTES
#define PIECE_BYTES     CUDA_GEMM_PIECE_BYTES
#endif
#define PROPOSALS_MAX 16
#define TIMED_RUNS    5
#define TIMED_ROUNDS  2 /* over all proposals: the first may meet a card that still wakes up */
/* Partial sums of a split k stay in float32: neither summed in place nor kept in the output's
 * dtype. */
#define REDUCTIONS (CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)

/* A product ready to be queued; pointers are set for each call. */
struct plan {
    cublasLtMatmulDescOpaque_t desc;
    cublasLtMatrixLayoutOpaque_t a, b, d; /* of the library: a is our b */
    cublasLtMatmulAlgo_t algo;
};

struct gemm_lib {
    cublasLtHandle_t handle;
    void *begin, *end; /* events for timing */
    struct tune_settings settings;
    struct tune_book book;
    struct product_table table;
    struct plan *plan[PRODUCT_SLOTS]; /* by slot of the table */
};

STATIC_ASSERT(sizeof(cublasLtMatmulAlgo_t) == TUNE_WORDS * sizeof(uint64_t), "opaque algorithm");

int64_t gemm_workspace_bytes(const struct dev *dev)
{
    (void)dev;
    return WORKSPACE_BYTES;
}

int64_t gemm_piece_bytes(const struct dev *dev)
{
    (void)dev;
    return PIECE_BYTES;
}

/* One line for a failed call of the library; g = NULL: about no product. */
static err_t check(cublasStatus_t status, const char *site, const char *call, const struct gemm *g)
{
    const bool injected = status == CUBLAS_STATUS_SUCCESS && fault_point(site) != ERR_OK;
    if (status == CUBLAS_STATUS_SUCCESS && !injected) return ERR_OK;
    char product[TUNE_KEY_MAX] = "";
    if (g != NULL) tune_name(product, g);
    RAISE(CUDA, "%s%s%s: %s", call, g == NULL ? "" : " for ", product,
          injected ? "injected fault" : cublasLtGetStatusString(status));
}

static cudaDataType_t type_of(dtype_t dtype)
{
    ASSERT(dtype == DTYPE_F32 || dtype == DTYPE_BF16);
    return dtype == DTYPE_F32 ? CUDA_R_32F : CUDA_R_16BF;
}

/* ---- a product as the library sees it ---- */

template <class A>
static err_t set(struct plan *p, cublasLtMatmulDescAttributes_t what, const A &value,
                 const struct gemm *g)
{
    return check(cublasLtMatmulDescSetAttribute(&p->desc, what, &value, sizeof value),
                 "gemm.describe", "cublasLtMatmulDescSetAttribute", g);
}

/* What the epilogue reads. */
static err_t set_pointer(struct plan *p, const struct gemm *g, const void *pointer)
{
    if (g->epilogue == GEMM_BIAS) TRY(set(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, pointer, g));
    if (g->epilogue == GEMM_DGELU)
        TRY(set(p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, pointer, g));
    return ERR_OK;
}

static err_t point(struct plan *p, const struct gemm *g)
{
    return set_pointer(p, g, g->epilogue == GEMM_BIAS ? g->bias : g->pre.data);
}

/* The library tells from the pointer's value how well aligned all later ones will be. The number of
 * bytes that we promise is itself an address aligned so and no better. */
static err_t promise_alignment(struct plan *p, const struct gemm *g)
{
    return set_pointer(p, g, (const void *)(intptr_t)tune_epilogue_alignment(g));
}

static err_t describe_epilogue(struct plan *p, const struct gemm *g)
{
    static const cublasLtEpilogue_t epilogues[] = { CUBLASLT_EPILOGUE_DEFAULT,
                                                    CUBLASLT_EPILOGUE_BIAS,
                                                    CUBLASLT_EPILOGUE_DGELU };
    TRY(set(p, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogues[g->epilogue], g));
    if (g->epilogue == GEMM_DGELU) TRY(set(p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, g->pre.ld, g));
    return promise_alignment(p, g);
}

/* A row-major matrix [rows, cols] as stored. */
static err_t layout(cublasLtMatrixLayoutOpaque_t *out, dtype_t dtype, int64_t rows, int64_t cols,
                    int64_t ld, const struct gemm *g)
{
    return check(cublasLtMatrixLayoutInit(out, type_of(dtype), (uint64_t)cols, (uint64_t)rows, ld),
                 "gemm.describe", "cublasLtMatrixLayoutInit", g);
}

static err_t describe(struct plan *p, const struct gemm *g)
{
    const cublasOperation_t op_a = g->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t op_b = g->a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    *p = {};
    TRY(check(cublasLtMatmulDescInit(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), "gemm.describe",
              "cublasLtMatmulDescInit", g));
    TRY(set(p, CUBLASLT_MATMUL_DESC_TRANSA, op_a, g));
    TRY(set(p, CUBLASLT_MATMUL_DESC_TRANSB, op_b, g));
    TRY(describe_epilogue(p, g));
    TRY(layout(&p->a, g->in_dtype, g->b_transposed ? g->n : g->k, g->b_transposed ? g->k : g->n,
               g->b.ld, g));
    TRY(layout(&p->b, g->in_dtype, g->a_transposed ? g->k : g->m, g->a_transposed ? g->m : g->k,
               g->a.ld, g));
    return layout(&p->d, g->out_dtype, g->m, g->n, g->d.ld, g);
}

static cublasStatus_t queue(struct dev *dev, struct plan *p, const struct gemm *g,
                            const cublasLtMatmulAlgo_t *algo)
{
    const struct dev_cuda *cuda = dev_cuda_of(dev);
    const float alpha = 1.0f, beta = g->accumulate ? 1.0f : 0.0f;
    return cublasLtMatmul(cuda->gemm->handle, &p->desc, &alpha, g->b.data, &p->a, g->a.data, &p->b,
                          &beta, g->d.data, &p->d, g->d.data, &p->d, algo, g->workspace.data,
                          (size_t)WORKSPACE_BYTES, (cudaStream_t)cuda->gpu.queue[DEV_COMPUTE]);
}

/* ---- which algorithm ---- */

struct proposals {
    cublasLtMatmulHeuristicResult_t of[PROPOSALS_MAX];
    int count;
};

template <class A>
static err_t prefer(cublasLtMatmulPreferenceOpaque_t *pref,
                    cublasLtMatmulPreferenceAttributes_t what, A value, const struct gemm *g)
{
    return check(cublasLtMatmulPreferenceSetAttribute(pref, what, &value, sizeof value),
                 "gemm.propose", "cublasLtMatmulPreferenceSetAttribute", g);
}

static err_t state_preferences(cublasLtMatmulPreferenceOpaque_t *pref, const struct gemm *g)
{
    const uint32_t a = (uint32_t)tune_alignment(g->b.data, g->b.ld, g->in_dtype);
    const uint32_t b = (uint32_t)tune_alignment(g->a.data, g->a.ld, g->in_dtype);
    const uint32_t d = (uint32_t)tune_alignment(g->d.data, g->d.ld, g->out_dtype);
    const uint64_t workspace = WORKSPACE_BYTES;
    const uint32_t reductions = REDUCTIONS;
    TRY(check(cublasLtMatmulPreferenceInit(pref), "gemm.propose", "cublasLtMatmulPreferenceInit",
              g));
    TRY(prefer(pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace, g));
    TRY(prefer(pref, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions, g));
    TRY(prefer(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, a, g));
    TRY(prefer(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, b, g));
    TRY(prefer(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, d, g));
    return prefer(pref, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, d, g);
}

/* In the order the library expects them to be quick; at least one. */
static err_t propose(struct proposals *out, struct gemm_lib *lib, struct plan *p,
                     const struct gemm *g)
{
    cublasLtMatmulPreferenceOpaque_t pref;
    struct proposals all = {};
    *out = {};
    TRY(state_preferences(&pref, g));
    TRY(check(cublasLtMatmulAlgoGetHeuristic(lib->handle, &p->desc, &p->a, &p->b, &p->d, &p->d,
                                             &pref, PROPOSALS_MAX, all.of, &all.count),
              "gemm.propose", "cublasLtMatmulAlgoGetHeuristic", g));
    for (int i = 0; i < all.count; i++)
        if (all.of[i].state == CUBLAS_STATUS_SUCCESS) out->of[out->count++] = all.of[i];
    if (out->count == 0)
        return check(CUBLAS_STATUS_NOT_SUPPORTED, "gemm.propose", "cublasLtMatmulAlgoGetHeuristic",
                     g);
    return ERR_OK;
}

/* Microseconds of one run on the caller's data; HUGE_VAL for one that the library then refuses. */
static err_t time_algo(double *us, struct dev *dev, struct plan *p, const struct gemm *g,
                       const cublasLtMatmulAlgo_t *algo)
{
    struct dev_cuda *cuda = dev_cuda_of(dev);
    struct gemm_lib *lib = cuda->gemm;
    float ms = 0.0f;
    *us = HUGE_VAL;
    if (queue(dev, p, g, algo) != CUBLAS_STATUS_SUCCESS) return ERR_OK;
    TRY(gpu_event_record(&cuda->gpu, lib->begin, DEV_COMPUTE));
    for (int run = 0; run < TIMED_RUNS; run++)
        TRY(check(queue(dev, p, g, algo), "gemm.time", "cublasLtMatmul", g));
    TRY(gpu_event_record(&cuda->gpu, lib->end, DEV_COMPUTE));
    TRY(gpu_event_sync(&cuda->gpu, lib->end));
    TRY(gpu_event_ms(&cuda->gpu, &ms, lib->begin, lib->end));
    *us = (double)ms * 1e3 / TIMED_RUNS;
    return ERR_OK;
}

static err_t time_all(int *best, double *best_us, struct dev *dev, struct plan *p,
                      const struct gemm *g, const struct proposals *from)
{
    *best = 0;
    *best_us = HUGE_VAL;
    for (int timed = 0; timed < TIMED_ROUNDS * from->count; timed++) {
        const int i = timed % from->count;
        double us;
        TRY(time_algo(&us, dev, p, g, &from->of[i].algo));
        if (!(us < *best_us)) continue;
        *best = i;
        *best_us = us;
    }
    return ERR_OK;
}

/* Timing runs write d, which this very product overwrites afterwards; but where it accumulates, d
 * holds sums that must survive: they wait on the host meanwhile, with what lies between rows. */
static err_t time_kept(int *best, double *best_us, struct dev *dev, struct plan *p,
                       const struct gemm *g, const struct proposals *from)
{
    err_t rc = ERR_OK;
    struct gpu *gpu = gpu_of(dev);
    const int64_t bytes = ((g->m - 1) * g->d.ld + g->n) * dtype_bytes(g->out_dtype);
    void *kept = NULL;
    if (!g->accumulate) return time_all(best, best_us, dev, p, g, from);

    TRY(gpu_host_malloc(gpu, &kept, bytes, "sums kept while products are timed"));
    TRY_DONE(gpu_copy(gpu, DEV_COMPUTE, kept, g->d.data, bytes));
    TRY_DONE(gpu_queue_sync(gpu, DEV_COMPUTE));
    TRY_DONE(time_all(best, best_us, dev, p, g, from));
    TRY_DONE(gpu_copy(gpu, DEV_COMPUTE, g->d.data, kept, bytes));
    TRY_DONE(gpu_queue_sync(gpu, DEV_COMPUTE));
done:
    gpu_host_free(gpu, kept);
    return rc;
}

/* Time the proposals and put the quickest into the book. */
static err_t tune(struct dev *dev, struct plan *p, const struct gemm *g, const char *key,
                  const struct proposals *from)
{
    struct gemm_lib *lib = dev_cuda_of(dev)->gemm;
    uint64_t words[TUNE_WORDS];
    int best;
    double us;
    TRY(point(p, g));
    const err_t rc = time_kept(&best, &us, dev, p, g, from);
    TRY(promise_alignment(p, g));
    if (rc == ERR_NOMEM) {
        LOG_W("gemm", "%s: %s; taking the library's first proposal", key, err_last()->text);
        return ERR_OK;
    }
    TRY(rc);
    if (us == HUGE_VAL) return check(CUBLAS_STATUS_NOT_SUPPORTED, "gemm.time", "cublasLtMatmul", g);
    memcpy(words, &from->of[best].algo, sizeof words);
    LOG_D("gemm", "%s: proposal %d of %d, %.1f us, %.0f TFLOP/s", key, best + 1, from->count, us,
          2e-6 * (double)g->m * (double)g->n * (double)g->k / us);
    return tune_book_add(&lib->book, key, words, us);
}

/* The book's choice for this bucket, where it can also compute this very shape. */
static bool choose_from_book(struct gemm_lib *lib, struct plan *p, const char *key)
{
    const struct tune_choice *choice = tune_book_find(&lib->book, key);
    cublasLtMatmulHeuristicResult_t result;
    cublasLtMatmulAlgo_t algo;
    if (choice == NULL) return false;
    memcpy(&algo, choice->words, sizeof algo);
    if (cublasLtMatmulAlgoCheck(lib->handle, &p->desc, &p->a, &p->b, &p->d, &p->d, &algo,
                                &result) != CUBLAS_STATUS_SUCCESS ||
        result.workspaceSize > (size_t)WORKSPACE_BYTES)
        return false;
    p->algo = algo;
    return true;
}

/* A choice that fits its bucket but not this shape stays the bucket's: this shape then has the
 * library's first proposal, in every program. */
static err_t choose(struct dev *dev, struct plan *p, const struct gemm *g)
{
    struct gemm_lib *lib = dev_cuda_of(dev)->gemm;
    struct proposals proposals;
    char key[TUNE_KEY_MAX];
    tune_key(key, g);
    if (!lib->settings.is_off && tune_book_find(&lib->book, key) == NULL)
        TRY(tune_book_load(&lib->book)); /* somebody else may have timed it by now */
    if (!lib->settings.is_off && choose_from_book(lib, p, key)) return ERR_OK;
    TRY(propose(&proposals, lib, p, g));
    p->algo = proposals.of[0].algo;
    if (lib->settings.is_off || tune_book_find(&lib->book, key) != NULL) return ERR_OK;
    TRY(tune(dev, p, g, key, &proposals));
    (void)choose_from_book(lib, p, key);
    return ERR_OK;
}

/* ---- products ---- */

static void forget_plans(struct gemm_lib *lib)
{
    for (struct plan *&p : lib->plan) {
        free(p);
        p = NULL;
    }
    lib->table = {};
}

/* A plan stays where it was made: descriptors are not ours to copy. */
static err_t make_plan(struct plan **out, struct dev *dev, const struct gemm *g)
{
    struct plan *p = (struct plan *)malloc(sizeof *p);
    if (p == NULL) RAISE(NOMEM, "product: %zu bytes of host memory wanted", sizeof *p);
    err_t rc = describe(p, g);
    if (rc == ERR_OK) rc = choose(dev, p, g);
    if (rc == ERR_OK)
        *out = p;
    else
        free(p);
    return rc;
}

static err_t prepare(struct plan **out, struct dev *dev, const struct gemm *g)
{
    struct gemm_lib *lib = dev_cuda_of(dev)->gemm;
    int64_t key[PRODUCT_WORDS];
    product_key(key, g);
    const int64_t slot = product_find(&lib->table, key);
    if (slot >= 0) {
        *out = lib->plan[slot];
    } else {
        TRY(make_plan(out, dev, g));
        if (product_is_full(&lib->table)) forget_plans(lib);
        lib->plan[product_add(&lib->table, key)] = *out;
    }
    return point(*out, g);
}

err_t gemm_run(struct dev *dev, const struct gemm *g)
{
    struct plan *p;
    ASSERT(g->m > 0 && g->n > 0 && g->k > 0 && g->workspace.bytes >= WORKSPACE_BYTES);
    ASSERT(g->epilogue == GEMM_PLAIN || !g->accumulate);
    ASSERT(g->epilogue != GEMM_DGELU || (g->pre.ld % 8 == 0 && g->pre.data != g->d.data));
    TRY(prepare(&p, dev, g));
    TRY(check(queue(dev, p, g, &p->algo), "gemm.run", "cublasLtMatmul", g));
    dev->stats.gemm_flop += 2.0 * (double)g->m * (double)g->n * (double)g->k;
    return ERR_OK;
}

/* ---- opening ---- */

/* Descriptors say how large they are, and what is called here is as old as the major version: an
 * earlier minor version than this was compiled against will do. */
static err_t check_version(void)
{
    const int64_t found = (int64_t)cublasLtGetVersion(), major = 10000, minor = 100;
    if (found / major == CUBLAS_VER_MAJOR) return ERR_OK;
    RAISE(CUDA,
          "cuBLASLt %lld.%lld is installed; this build needs a %d.x: update CUDA's libraries, or "
          "build with the ones that are installed",
          (long long)(found / major), (long long)(found % major / minor), CUBLAS_VER_MAJOR);
}

static err_t open_parts(struct gemm_lib *lib, struct dev *dev)
{
    char owner[TUNE_OWNER_MAX];
    TRY(check_version());
    TRY(tune_settings_read(&lib->settings));
    snprintf(owner, sizeof owner, "%s, cuBLASLt %lld", dev->info.name,
             (long long)cublasLtGetVersion());
    tune_book_init(&lib->book, lib->settings.path, owner);
    if (!lib->settings.is_off) TRY(tune_book_load(&lib->book));
    TRY(check(cublasLtCreate(&lib->handle), "gemm.open", "cublasLtCreate", NULL));
    TRY(gpu_event_create(gpu_of(dev), &lib->begin));
    return gpu_event_create(gpu_of(dev), &lib->end);
}

err_t gemm_lib_open(struct gemm_lib **out, struct dev *dev)
{
    *out = NULL;
    struct gemm_lib *lib = (struct gemm_lib *)calloc(1, sizeof *lib);
    if (lib == NULL) RAISE(NOMEM, "product library: %zu bytes of host memory wanted", sizeof *lib);
    const err_t rc = open_parts(lib, dev);
    if (rc != ERR_OK) {
        gemm_lib_close(lib, dev);
        return rc;
    }
    *out = lib;
    return ERR_OK;
}

void gemm_lib_close(struct gemm_lib *lib, struct dev *dev)
{
    if (lib == NULL) return;
    if (lib->begin != NULL) gpu_event_destroy(gpu_of(dev), lib->begin);
    if (lib->end != NULL) gpu_event_destroy(gpu_of(dev), lib->end);
    if (lib->handle != NULL) (void)cublasLtDestroy(lib->handle);
    forget_plans(lib);
    tune_book_clear(&lib->book);
    free(lib);
}

err_t gemm_lib_write_choices(struct buf *out, struct gemm_lib *lib)
{
    if (lib->settings.is_off) return ERR_OK;
    TRY(tune_book_load(&lib->book));
    return tune_book_write(out, &lib->book);
}

err_t gemm_lib_adopt_choices(struct gemm_lib *lib, const char *text, int64_t size)
{
    if (lib->settings.is_off) return ERR_OK;
    TRY(tune_book_adopt(&lib->book, text, size));
    forget_plans(lib);
    return ERR_OK;
}

bool gemm_fuses_dgelu(const struct gemm_lib *lib) { return lib->settings.fuse_dgelu; }

err_t gemm_describe(struct buf *out)
{
    const int64_t found = (int64_t)cublasLtGetVersion();
    return buf_printf(out, "cuBLASLt %lld.%lld.%lld, built with %d.%d\n",
                      (long long)(found / 10000), (long long)(found / 100 % 100),
                      (long long)(found % 100), CUBLAS_VER_MAJOR, CUBLAS_VER_MINOR);
}
