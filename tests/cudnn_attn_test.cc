/*
 * attn_cudnn.h against plain loops, with a library that runs our graphs word by word in place of
 * cuDNN (cudnn_pretend.cc), and our kernel on the emulator: what the two calls, their offsets,
 * lengths and masks, the addition of prefix gradients and the zeroed padding add up to.
 *
 *     cudnn_attn LIBCUDNN_PRETEND LIBCUBLASLT_COMPANION
 */
extern "C" {
#include "testing.h"
}

#include "base/buf.h"
#include "base/fault.h"
#include "base/num.h"
#include "kernels/cuda/attn.h"
#include "kernels/cuda/attn_cudnn.h"
#include "kernels/cuda/dev_cuda.h"

#include <cudnn_graph.h>

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

static const int64_t H = 2, D = 64;
static const double scale = 0.125;

struct fixture {
    const char *library, *companion;
};

/* A number of cudnn_pretend.cc. */
static int *pretend(const struct fixture *f, const char *name)
{
    void *library = dlopen(f->library, RTLD_NOW);
    assert_non_null(library);
    int *number = (int *)dlsym(library, name);
    assert_non_null(number);
    dlclose(library); /* which stays loaded: cudnn_lib_open sees to that */
    return number;
}

/* A micro-batch: inputs, what the operators made of them, and what plain loops make. */
struct problem {
    int64_t R;
    std::vector<attn_segment> segments;
    qkv_layout layout;
    std::vector<uint16_t> qkv, dout, out, dqkv;
    std::vector<float> lse;
    std::vector<char> scratch;
};

static float uniform(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(*seed >> 40) / (1 << 23) - 1.0);
}

/* Prefixes of no, one, some and all rows; padding at the front, between and behind. */
static void init(struct problem *p, const struct qkv_layout *layout)
{
    p->segments = { { 2, 1, 1 },       { 3, 0, 1 },      { 4, 0, 5 },      { 12, 62, 63 },
                    { 75, 64, 64 },    { 139, 1, 65 },   { 204, 90, 127 }, { 331, 0, 128 },
                    { 459, 128, 129 }, { 590, 150, 192 } };
    p->R = 790;
    p->layout = *layout;
    const size_t rows = (size_t)p->R, width = (size_t)(H * D);
    uint64_t seed = 5;
    p->qkv.resize(rows * 3 * width);
    p->dout.resize(rows * width);
    for (uint16_t &x : p->qkv) x = f32_to_bf16(2.0f * uniform(&seed));
    for (uint16_t &x : p->dout) x = f32_to_bf16(uniform(&seed));
    p->out.assign(rows * width, 0x7fc0); /* NaN */
    p->dqkv.assign(rows * 3 * width, 0x7fc0);
    p->lse.assign(rows * (size_t)H, NAN);
}

static double at(const std::vector<uint16_t> &v, int64_t i) { return bf16_to_f32(v[(size_t)i]); }

static int64_t column_of(const struct problem *p, int64_t row, int64_t offset, int64_t h)
{
    return row * 3 * H * D + offset + h * p->layout.q_stride;
}

static double dot_of(const std::vector<uint16_t> &a, int64_t i, const std::vector<uint16_t> &b,
                     int64_t j)
{
    double sum = 0;
    for (int64_t c = 0; c < D; c++) sum += at(a, i + c) * at(b, j + c);
    return sum;
}

/* Device, tensors and arguments around a problem. */
struct setting {
    struct gpu gpu;
    struct dev dev;
    struct tensor qkv, dout, out, dqkv, lse, segments;
    struct attn_fwd_args fwd;
    struct attn_bwd_args bwd;
};

static struct tensor matrix(void *data, dtype_t dtype, int64_t rows, int64_t cols, const char *name)
{
    return tensor_2d(data, dtype, rows, cols, name);
}

static void set_up(struct setting *s, struct problem *p)
{
    memset(&s->gpu, 0, sizeof s->gpu);
    s->gpu.shared_bytes_max = 227 << 10;
    dev_init_host(&s->dev, &ops_cpu, 1);
    s->dev.state = &s->gpu;
    s->qkv = matrix(p->qkv.data(), DTYPE_BF16, p->R, 3 * H * D, "qkv");
    s->dqkv = matrix(p->dqkv.data(), DTYPE_BF16, p->R, 3 * H * D, "dqkv");
    s->out = matrix(p->out.data(), DTYPE_BF16, p->R, H * D, "out");
    s->dout = matrix(p->dout.data(), DTYPE_BF16, p->R, H * D, "dout");
    s->lse = matrix(p->lse.data(), DTYPE_F32, p->R, H, "lse");
    s->segments = matrix(p->segments.data(), DTYPE_I32, (int64_t)p->segments.size(), 3, "segments");
    s->fwd = { &s->out, &s->lse,    &s->qkv, p->layout, &s->segments, p->segments.data(),
               scale,   { NULL, 0 } };
    s->bwd = { &s->dqkv,     &s->dout,           &s->out, &s->lse,    &s->qkv, p->layout,
               &s->segments, p->segments.data(), scale,   { NULL, 0 } };
}

/* Scratch of the size asked for, full of NaN, with a margin that must stay. */
static struct scratch take_scratch(struct problem *p, int64_t bytes)
{
    p->scratch.assign((size_t)bytes + 128, (char)0xff);
    return { (void *)align_up((int64_t)(intptr_t)p->scratch.data(), 64), bytes };
}

static void check_scratch_margin(const struct problem *p, struct scratch s)
{
    const char *end = p->scratch.data() + p->scratch.size();
    for (const char *x = (const char *)s.data + s.bytes; x < end; x++)
        assert_int_equal((unsigned char)*x, 0xff);
}

static void check_padding_rows(const struct problem *p)
{
    size_t s = 0;
    for (int64_t r = 0; r < p->R; r++) {
        while (s < p->segments.size() && r >= p->segments[s].start + p->segments[s].len) s++;
        if (s < p->segments.size() && r >= p->segments[s].start) continue;
        for (int64_t h = 0; h < H; h++) assert_true(p->lse[(size_t)(r * H + h)] == 0.0f);
        for (int64_t c = 0; c < H * D; c++) assert_int_equal(p->out[(size_t)(r * H * D + c)], 0);
    }
}

/* A rounding to bf16 is at most 2^-8 of the number. Here two: of p, then of out; with their
 * product 2^-7 * (1 + 2^-9) of the sum of |p v|, and a little for the floats of lse and p. */
static void check_forward(const struct problem *p)
{
    for (const attn_segment &seg : p->segments) {
        for (int64_t i = 0; i < seg.len; i++) {
            for (int64_t h = 0; h < H; h++) {
                const int64_t row = seg.start + i, keys = max_i64(seg.ctx, i + 1);
                const int64_t q = column_of(p, row, p->layout.q_offset, h);
                double sum = 0, out[64] = { 0 }, size[64] = { 0 };
                for (int64_t j = 0; j < keys; j++) {
                    const int64_t k = column_of(p, seg.start + j, p->layout.k_offset, h);
                    const int64_t v = column_of(p, seg.start + j, p->layout.v_offset, h);
                    const double e = exp(scale * dot_of(p->qkv, q, p->qkv, k));
                    sum += e;
                    for (int64_t c = 0; c < D; c++) {
                        out[c] += e * at(p->qkv, v + c);
                        size[c] += e * fabs(at(p->qkv, v + c));
                    }
                }
                assert_true(fabs((double)p->lse[(size_t)(row * H + h)] - log(sum)) < 1e-5);
                for (int64_t c = 0; c < D; c++)
                    assert_true(fabs(at(p->out, (row * H + h) * D + c) - out[c] / sum) <=
                                0x1.01p-7 * size[c] / sum);
            }
        }
    }
    check_padding_rows(p);
}

/* What dqkv should be, and the sum of the absolute values of what was added up. */
struct gradient {
    std::vector<double> value, size;

    void add(int64_t i, double x)
    {
        value[(size_t)i] += x;
        size[(size_t)i] += fabs(x);
    }
};

static void expect_row(struct gradient *g, const struct problem *p, const attn_segment &seg,
                       int64_t i, int64_t h)
{
    const int64_t row = seg.start + i, o = (row * H + h) * D;
    const int64_t q = column_of(p, row, p->layout.q_offset, h);
    const double delta = dot_of(p->dout, o, p->out, o);
    for (int64_t j = 0; j < max_i64(seg.ctx, i + 1); j++) {
        const int64_t k = column_of(p, seg.start + j, p->layout.k_offset, h);
        const int64_t v = column_of(p, seg.start + j, p->layout.v_offset, h);
        const double lse = (double)p->lse[(size_t)(row * H + h)];
        const double prob = exp(scale * dot_of(p->qkv, q, p->qkv, k) - lse);
        const double ds = scale * prob * (dot_of(p->dout, o, p->qkv, v) - delta);
        for (int64_t c = 0; c < D; c++) {
            g->add(v + c, prob * at(p->dout, o + c));
            g->add(k + c, ds * at(p->qkv, q + c));
            g->add(q + c, ds * at(p->qkv, k + c));
        }
    }
}

/* Three roundings, each at most 2^-8 of the sum of sizes: of p or ds, of a part, of the sum of two
 * parts; 2^-6 leaves room for their products and for the floats of lse. */
static void check_backward(const struct problem *p)
{
    struct gradient g;
    g.value.resize(p->dqkv.size());
    g.size.resize(p->dqkv.size());
    for (const attn_segment &seg : p->segments)
        for (int64_t i = 0; i < seg.len; i++)
            for (int64_t h = 0; h < H; h++) expect_row(&g, p, seg, i, h);
    for (size_t i = 0; i < p->dqkv.size(); i++) {
        const double found = bf16_to_f32(p->dqkv[i]);
        assert_true(fabs(found - g.value[i]) <= 0x1p-6 * g.size[i]); /* padding: exactly 0 */
    }
}

static struct attn_cudnn *open_pretend(const struct fixture *f, bool nondeterministic,
                                       int64_t score_bytes_max)
{
    struct attn_cudnn *c = NULL;
    struct attn_cudnn_options options;
    memset(&options, 0, sizeof options);
    options.library = f->library;
    options.capability = 90;
    options.nondeterministic = nondeterministic;
    options.score_bytes_max = score_bytes_max;
    assert_ok(attn_cudnn_open(&c, &options));
    return c;
}

/* Of the problem's segments the first few; the rest is padding. */
static void check_both(const struct fixture *f, const struct qkv_layout *layout, size_t S,
                       bool nondeterministic, int64_t score_bytes_max)
{
    struct problem p;
    struct setting s;
    init(&p, layout);
    p.segments.resize(S);
    set_up(&s, &p);
    struct attn_cudnn *c = open_pretend(f, nondeterministic, score_bytes_max);
    s.fwd.scratch = take_scratch(&p, attn_cudnn_fwd_scratch_bytes(c, &s.fwd));
    assert_ok(attn_cudnn_fwd(c, &s.dev, &s.fwd));
    check_scratch_margin(&p, s.fwd.scratch);
    check_forward(&p);
    s.bwd.scratch = take_scratch(&p, attn_cudnn_bwd_scratch_bytes(c, &s.bwd));
    assert_ok(attn_cudnn_bwd(c, &s.dev, &s.bwd));
    check_scratch_margin(&p, s.bwd.scratch);
    check_backward(&p);
    attn_cudnn_close(c);
}

static void test_interleaved(void **state)
{
    const struct qkv_layout layout = qkv_layout_interleaved(H, D);
    check_both((const struct fixture *)*state, &layout, 10, false, 0);
}

/* All q, all k, all v; a workspace so small that every group holds two samples or three. */
static void test_small_groups(void **state)
{
    const struct qkv_layout layout = qkv_layout_grouped(H, H, D);
    check_both((const struct fixture *)*state, &layout, 7, false, 3 * 2 * H * 256 * 256);
}

static void test_nondeterministic(void **state)
{
    const struct qkv_layout layout = qkv_layout_interleaved(H, D);
    check_both((const struct fixture *)*state, &layout, 4, true, 0);
}

/* Nothing is written where cuDNN is not used, and the message says why. */
static void test_refusals(void **state)
{
    const struct qkv_layout layout = qkv_layout_interleaved(H, D);
    struct problem p;
    struct setting s;
    init(&p, &layout);
    set_up(&s, &p);
    struct attn_cudnn *c = open_pretend((const struct fixture *)*state, false, 0);
    s.fwd.scratch = take_scratch(&p, attn_cudnn_fwd_scratch_bytes(c, &s.fwd));
    s.qkv.dtype = DTYPE_F32;
    assert_err(attn_cudnn_fwd(c, &s.dev, &s.fwd), UNSUPPORTED, "f32");
    s.qkv.dtype = DTYPE_BF16;
    s.fwd.layout.head_dim = 32;
    assert_err(attn_cudnn_fwd(c, &s.dev, &s.fwd), UNSUPPORTED, "head_dim 32");
    s.fwd.layout = layout;
    s.fwd.layout.kv_heads = 1;
    assert_err(attn_cudnn_fwd(c, &s.dev, &s.fwd), UNSUPPORTED, "1 kv_heads");
    s.fwd.layout = layout;
    p.segments[9].len = 4097;
    assert_err(attn_cudnn_fwd(c, &s.dev, &s.fwd), UNSUPPORTED, "segment 9: 4097 rows");
    p.segments[9].len = 192;
    s.fwd.scratch.bytes--;
    assert_err(attn_cudnn_fwd(c, &s.dev, &s.fwd), ARG, "scratch");
    for (const uint16_t x : p.out) assert_int_equal(x, 0x7fc0);
    attn_cudnn_close(c);

    struct attn_cudnn_options options;
    memset(&options, 0, sizeof options);
    options.capability = 80;
    assert_err(attn_cudnn_open(&c, &options), UNSUPPORTED, "compute capability 8.0");
    assert_null(c);
}

/* The first test: cuDNN looks for the cuBLASLt of its CUDA and would end the program. */
static void test_no_companion(void **state)
{
    const struct fixture *f = (const struct fixture *)*state;
    struct attn_cudnn *c;
    struct attn_cudnn_options options;
    struct buf text = { 0, 0, 0 };
    memset(&options, 0, sizeof options);
    options.library = f->library;
    options.capability = 90;
    assert_err(attn_cudnn_open(&c, &options), UNSUPPORTED, "libcublasLt.so.99");
    assert_null(c);
    assert_ok(attn_cudnn_describe_library(&text, f->library));
    assert_non_null(strstr(text.data, "made for CUDA 99"));
    assert_non_null(dlopen(f->companion, RTLD_NOW));
    buf_reset(&text);
    assert_ok(attn_cudnn_describe_library(&text, f->library));
    assert_string_equal(text.data, "cuDNN 9.10.2\n");
    buf_clear(&text);
}

/* A plan that cannot be made is a refusal, whatever the reason, and is not tried again. */
static void test_refused_plans(void **state)
{
    const struct fixture *f = (const struct fixture *)*state;
    static const cudnnStatus_t reasons[] = { CUDNN_STATUS_NOT_SUPPORTED,
                                             CUDNN_STATUS_INTERNAL_ERROR_COMPILATION_FAILED };
    const struct qkv_layout layout = qkv_layout_interleaved(H, D);
    struct problem p;
    struct setting s;
    init(&p, &layout);
    set_up(&s, &p);
    for (const cudnnStatus_t reason : reasons) {
        struct attn_cudnn *c = open_pretend(f, false, 0);
        s.fwd.scratch = take_scratch(&p, attn_cudnn_fwd_scratch_bytes(c, &s.fwd));
        *pretend(f, "pretend_plan_status") = (int)reason;
        *pretend(f, "pretend_plans") = 0;
        for (int i = 0; i < 3; i++)
            assert_err(attn_cudnn_fwd(c, &s.dev, &s.fwd), UNSUPPORTED, "no attention forward");
        assert_int_equal(*pretend(f, "pretend_plans"), 1);
        *pretend(f, "pretend_plan_status") = 0;
        for (const uint16_t x : p.out) assert_int_equal(x, 0x7fc0);
        attn_cudnn_close(c);
    }
}

bool gpu_is_host(void) { return true; }

/* What the library path falls back to. */
static int own_calls;
static bool own_takes(const struct dev *dev, const struct tensor *qkv, const struct qkv_layout *l)
{
    (void)dev;
    (void)qkv;
    (void)l;
    return true;
}
static err_t own_fwd(struct dev *dev, const struct attn_fwd_args *a)
{
    (void)dev;
    (void)a;
    own_calls++;
    return ERR_OK;
}
static int64_t own_scratch(const struct dev *dev, const struct attn_fwd_args *a)
{
    (void)dev;
    (void)a;
    return 1;
}
const struct attn_path attn_mma = { "mma",   "anything",  own_takes, own_fwd,
                                    nullptr, own_scratch, nullptr };

/* A cuDNN that does not start, or has no plan, leaves the device usable; where it is the only way
 * allowed, it is an error. */
static void test_fallback(void **state)
{
    const struct fixture *f = (const struct fixture *)*state;
    const struct qkv_layout layout = qkv_layout_interleaved(H, D);
    struct problem p;
    struct setting s;
    struct dev_cuda cuda;
    init(&p, &layout);
    set_up(&s, &p);
    memset((void *)&cuda, 0, sizeof cuda);
    s.dev.state = &cuda;
    s.dev.info.capability = 90;
    setenv("SOULCHAT_CUDNN", f->library, 1);
    *pretend(f, "pretend_handle_status") = CUDNN_STATUS_SUBLIBRARY_LOADING_FAILED;
    assert_ok(attn_library_open(&s.dev));
    assert_null(cuda.attn_library);
    assert_null(cuda.cudnn);
    cuda.attn_forced = "cudnn";
    assert_err(attn_library_open(&s.dev), CUDA, "cuDNN Create of handle");
    cuda.attn_forced = "plain";
    assert_ok(attn_library_open(&s.dev));
    assert_null(cuda.cudnn);
    *pretend(f, "pretend_handle_status") = 0;
    cuda.attn_forced = NULL;
    assert_ok(attn_library_open(&s.dev));
    assert_non_null(cuda.attn_library);
    assert_true(cuda.attn_library->takes(&s.dev, &s.qkv, &layout));

    s.fwd.scratch = take_scratch(&p, cuda.attn_library->fwd_scratch(&s.dev, &s.fwd));
    *pretend(f, "pretend_plan_status") = CUDNN_STATUS_INTERNAL_ERROR_COMPILATION_FAILED;
    assert_ok(cuda.attn_library->fwd(&s.dev, &s.fwd));
    assert_int_equal(own_calls, 1);
    *pretend(f, "pretend_plan_status") = 0;
    attn_library_close(&s.dev);
    unsetenv("SOULCHAT_CUDNN");
}

/* Whatever call fails, the operator says so; afterwards it works. */
static void test_faults(void **state)
{
    const struct qkv_layout layout = qkv_layout_interleaved(H, D);
    struct problem p;
    struct setting s;
    init(&p, &layout);
    p.segments = { { 0, 2, 3 } };
    p.R = 4;
    set_up(&s, &p);
    for (int n = 1;; n += 11) {
        fault_arm("", 0);
        struct attn_cudnn *c = open_pretend((const struct fixture *)*state, false, 0);
        s.bwd.scratch = take_scratch(&p, attn_cudnn_bwd_scratch_bytes(c, &s.bwd));
        fault_arm("cudnn.", n);
        const err_t rc = attn_cudnn_bwd(c, &s.dev, &s.bwd);
        fault_arm("", 0);
        if (rc != ERR_OK) {
            assert_int_equal(rc, ERR_IO);
            assert_non_null(strstr(err_last()->text, "injected fault at cudnn."));
            assert_ok(attn_cudnn_bwd(c, &s.dev, &s.bwd));
        }
        attn_cudnn_close(c);
        if (rc == ERR_OK) break;
    }
}

/* More rows never ask for less, and segments do not matter. */
static void test_scratch_grows(void **state)
{
    const struct qkv_layout layout = qkv_layout_interleaved(32, 128);
    struct tensor qkv = tensor_2d(NULL, DTYPE_BF16, 0, 3 * 32 * 128, "qkv");
    struct attn_fwd_args fwd;
    struct attn_bwd_args bwd;
    memset(&fwd, 0, sizeof fwd);
    memset(&bwd, 0, sizeof bwd);
    fwd.qkv = bwd.qkv = &qkv;
    fwd.layout = bwd.layout = layout;
    for (int nondeterministic = 0; nondeterministic < 2; nondeterministic++) {
        struct attn_cudnn *c =
            open_pretend((const struct fixture *)*state, nondeterministic != 0, 0);
        int64_t fwd_bytes = 0, bwd_bytes = 0;
        for (int64_t R = 1; R <= 16384; R += R < 600 ? 1 : 157) {
            qkv.dim[0] = R;
            const int64_t f = attn_cudnn_fwd_scratch_bytes(c, &fwd);
            const int64_t b = attn_cudnn_bwd_scratch_bytes(c, &bwd);
            assert_true(f >= fwd_bytes && b >= bwd_bytes);
            fwd_bytes = f;
            bwd_bytes = b;
        }
        qkv.dim[0] = 16384;
        printf("R 16384, H 32, D 128: %lld and %lld bytes of scratch\n",
               (long long)attn_cudnn_fwd_scratch_bytes(c, &fwd),
               (long long)attn_cudnn_bwd_scratch_bytes(c, &bwd));
        attn_cudnn_close(c);
    }
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: cudnn_attn LIBCUDNN_PRETEND LIBCUBLASLT_COMPANION\n");
        return 2;
    }
    struct fixture f = { argv[1], argv[2] };
#define WITH_FIXTURE(test) cmocka_unit_test_prestate(test, &f)
    const struct CMUnitTest tests[] = {
        WITH_FIXTURE(test_no_companion),     WITH_FIXTURE(test_interleaved),
        WITH_FIXTURE(test_small_groups),     WITH_FIXTURE(test_nondeterministic),
        WITH_FIXTURE(test_refusals),         WITH_FIXTURE(test_refused_plans),
        WITH_FIXTURE(test_fallback),         WITH_FIXTURE(test_faults),
        WITH_FIXTURE(test_scratch_grows),
    };
#undef WITH_FIXTURE
    return cmocka_run_group_tests(tests, NULL, NULL);
}
