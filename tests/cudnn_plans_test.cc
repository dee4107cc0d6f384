/*
 * Plans of cuDNN attention for a described H200, on a machine without one: heuristics, support
 * checks and code generation of the installed cuDNN are run, and its code is taken by a driver
 * that runs nothing (refusing_driver.c). What the code computes is not seen here.
 *
 *     cudnn_plans LIBCUDNN DEVICE.json
 */
extern "C" {
#include "testing.h"
}

#include "kernels/cuda/cudnn_pack.h"
#include "kernels/cuda/cudnn_sdpa.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fixture {
    struct cudnn_lib lib;
    struct cudnn_target target;
};

/* ChatGLM-6B's heads, q, k and v side by side per head; dk and dv of the context set aside. */
static struct cudnn_sdpa_shape shape_of(enum cudnn_pack_call call, bool backward, int64_t head_dim,
                                        int64_t batch, int64_t queries, int64_t keys)
{
    struct cudnn_sdpa_shape s;
    memset(&s, 0, sizeof s);
    s.batch = batch;
    s.queries = queries;
    s.keys = keys;
    s.heads = 32;
    s.head_dim = head_dim;
    s.qkv_head_stride = 3 * head_dim;
    s.qkv_row_stride = 3 * s.heads * head_dim;
    s.diagonal = call == CUDNN_PACK_TARGET;
    s.backward = backward;
    s.deterministic = backward;
    if (!backward) return s;
    s.dkv_head_stride = s.diagonal ? s.qkv_head_stride : head_dim;
    s.dkv_row_stride = s.diagonal ? s.qkv_row_stride : 2 * s.heads * head_dim;
    return s;
}

static void check_plan(const struct fixture *f, const struct cudnn_sdpa_shape *s, char *choice)
{
    struct cudnn_sdpa_plan plan;
    assert_ok(cudnn_sdpa_build(&plan, &f->target, s));
    const int64_t scores = 2 * s->batch * s->heads * s->queries * s->keys;
    const int64_t bound = (s->backward && s->deterministic ? scores : 0) + (1 << 20);
    printf("%s %s D %d, batch %d, queries %d, keys %d: %s, workspace %lld\n",
           s->backward ? (s->deterministic ? "bwd" : "bwd (nondeterministic)") : "fwd",
           s->diagonal ? "target" : "context", (int)s->head_dim, (int)s->batch, (int)s->queries,
           (int)s->keys, plan.plan.choice, (long long)plan.plan.workspace_bytes);
    assert_true(plan.plan.workspace_bytes >= 0 && plan.plan.workspace_bytes <= bound);
    if (choice[0] == '\0') strcpy(choice, plan.plan.choice);
    assert_string_equal(plan.plan.choice, choice);
    cudnn_sdpa_clear(&plan);
}

/* Both calls, both directions, both head widths, at the corners of the buckets: each can be built,
 * within the workspace that is set aside, and by one engine for all lengths and batches, so that
 * results do not depend on what else is in a micro-batch. */
static void check_direction(const struct fixture *f, bool backward)
{
    static const int64_t corners[][3] = {
        { 4, 256, 256 },
        { 2, 2048, 2048 },
        { 64, 256, 4096 },
    };
    for (int64_t head_dim = 64; head_dim <= 128; head_dim *= 2) {
        char choice[96] = "";
        for (size_t i = 0; i < sizeof corners / sizeof corners[0]; i++) {
            const int64_t *c = corners[i];
            struct cudnn_sdpa_shape s =
                shape_of(CUDNN_PACK_TARGET, backward, head_dim, c[0], c[1], c[2]);
            check_plan(f, &s, choice);
            s = shape_of(CUDNN_PACK_CONTEXT, backward, head_dim, c[0], c[1], c[1]);
            check_plan(f, &s, choice);
        }
    }
}

static void test_forward(void **state) { check_direction((struct fixture *)*state, false); }
static void test_backward(void **state) { check_direction((struct fixture *)*state, true); }

static void test_backward_nondeterministic(void **state)
{
    char choice[96] = "";
    struct cudnn_sdpa_shape s = shape_of(CUDNN_PACK_TARGET, true, 128, 16, 2048, 2048);
    s.deterministic = false;
    check_plan((struct fixture *)*state, &s, choice);
}

/* 16384 rows of ChatGLM-6B: samples of 2048 rows, two a group, in the default share of memory. */
static void test_workspace_of_a_micro_batch(void **state)
{
    const struct fixture *f = (const struct fixture *)*state;
    const struct cudnn_pack_limits limits = { (int64_t)512 << 20, 32, 0 };
    const int64_t batch = cudnn_pack_batch_max(&limits, 2048, 2048);
    const struct cudnn_sdpa_shape s = shape_of(CUDNN_PACK_TARGET, true, 128, batch, 2048, 2048);
    struct cudnn_sdpa_plan plan;
    assert_ok(cudnn_sdpa_build(&plan, &f->target, &s));
    assert_true(plan.plan.workspace_bytes <=
                cudnn_pack_score_bytes_max(16384, &limits) + (1 << 20));
    cudnn_sdpa_clear(&plan);
}

/* An engine that does not exist is a refusal, not a failure: the caller has another way. */
static void test_refusal(void **state)
{
    const struct fixture *f = (const struct fixture *)*state;
    const struct cudnn_sdpa_shape s = shape_of(CUDNN_PACK_TARGET, true, 131, 4, 256, 256);
    struct cudnn_sdpa_plan plan;
    const err_t rc = cudnn_sdpa_build(&plan, &f->target, &s);
    assert_int_equal(rc, ERR_UNSUPPORTED);
    cudnn_sdpa_clear(&plan);
}

static void test_cache(void **state)
{
    const struct fixture *f = (const struct fixture *)*state;
    struct cudnn_sdpa_cache *cache = (struct cudnn_sdpa_cache *)calloc(1, sizeof *cache);
    const struct cudnn_sdpa_plan *a = NULL, *b = NULL, *again = NULL;
    struct cudnn_sdpa_shape s = shape_of(CUDNN_PACK_CONTEXT, false, 128, 4, 256, 256);
    assert_non_null(cache);
    assert_ok(cudnn_sdpa_find(&a, cache, &f->target, &s));
    s.diagonal = true;
    assert_ok(cudnn_sdpa_find(&b, cache, &f->target, &s));
    s.diagonal = false;
    assert_ok(cudnn_sdpa_find(&again, cache, &f->target, &s));
    assert_ptr_equal(a, again);
    assert_ptr_not_equal(a, b);
    assert_int_equal(cache->count, 2);
    cudnn_sdpa_cache_clear(cache);
    assert_int_equal(cache->count, 0);
    free(cache);
}

/* Whatever call fails, the error comes back and nothing is left behind. */
static void test_faults(void **state)
{
    const struct fixture *f = (const struct fixture *)*state;
    const struct cudnn_sdpa_shape s = shape_of(CUDNN_PACK_TARGET, true, 128, 4, 256, 256);
    fault_arm("cudnn.", 1 << 20);
    struct cudnn_sdpa_plan plan;
    assert_ok(cudnn_sdpa_build(&plan, &f->target, &s));
    const int points = fault_hits();
    cudnn_sdpa_clear(&plan);
    assert_true(points > 300);
    /* A sample: those behind code generation take time. */
    for (int n = 1; n <= points; n += n < points - 1 ? 37 : 1) {
        fault_arm("cudnn.", n);
        assert_err(cudnn_sdpa_build(&plan, &f->target, &s), IO, "injected fault at cudnn.");
        cudnn_sdpa_clear(&plan);
    }
    fault_arm("", 0);
}

static void test_versions(void **state)
{
    (void)state;
    static const int64_t refused[] = { 8907, 90501, 90600, 90900, 91000, 91001, 100000 };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        assert_err(cudnn_lib_check_version(refused[i]), UNSUPPORTED, "expected 9.10.2");
    assert_err(cudnn_lib_check_version(91001), UNSUPPORTED, "cuDNN 9.10.1; expected 9.10.2");
    assert_ok(cudnn_lib_check_version(91002));
    assert_ok(cudnn_lib_check_version(91900));
    assert_ok(cudnn_lib_check_version(92600));
}

static void test_open(void **state)
{
    (void)state;
    struct cudnn_lib lib;
    assert_err(cudnn_lib_open(&lib, "/no/such/libcudnn.so.9"), UNSUPPORTED, "no cuDNN");
    assert_null(lib.library);
    assert_err(cudnn_lib_open(&lib, "libm.so.6"), UNSUPPORTED, "no function cudnnGetVersion");
    assert_null(lib.library);
    cudnn_lib_close(&lib);
}

static void test_bad_device(void **state)
{
    const struct fixture *f = (const struct fixture *)*state;
    struct cudnn_target target;
    assert_true(cudnn_target_describe(&target, &f->lib, "{ \"warpSize\": ") != ERR_OK);
    assert_null(target.properties);
    cudnn_target_close(&target);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: cudnn_plans LIBCUDNN DEVICE.json\n");
        return 2;
    }
    struct fixture f;
    if (cudnn_lib_open(&f.lib, argv[1]) != ERR_OK) testing_skip_all(err_last()->text);
    printf("cuDNN %lld\n", (long long)f.lib.version);
    static char json[4096];
    FILE *file = fopen(argv[2], "r");
    if (file == NULL || fread(json, 1, sizeof json - 1, file) == 0) {
        fprintf(stderr, "%s: cannot read it\n", argv[2]);
        return 1;
    }
    fclose(file);
    if (cudnn_target_describe(&f.target, &f.lib, json) != ERR_OK) {
        fprintf(stderr, "%s\n", err_last()->text);
        return 1;
    }
#define WITH_FIXTURE(test) cmocka_unit_test_prestate(test, &f)
    const struct CMUnitTest tests[] = {
        WITH_FIXTURE(test_forward),
        WITH_FIXTURE(test_backward),
        WITH_FIXTURE(test_backward_nondeterministic),
        WITH_FIXTURE(test_workspace_of_a_micro_batch),
        WITH_FIXTURE(test_refusal),
        WITH_FIXTURE(test_cache),
        WITH_FIXTURE(test_faults),
        WITH_FIXTURE(test_versions),
        WITH_FIXTURE(test_open),
        WITH_FIXTURE(test_bad_device),
    };
#undef WITH_FIXTURE
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cudnn_target_close(&f.target);
    cudnn_lib_close(&f.lib);
    return failed;
}
