/* kv_store, decode_attn. */
#include "ops_cases.h"
#include "ops_harness.h"

#include "base/num.h"

#include <math.h>
#include <string.h>

/* As attn_fwd: probabilities carry twice a score's error, eps*sqrt(D)*m^2/sqrt(6) rms, relatively
 * and sum to one; times v, and a sum over the keys. The caches are copies: bit-equal. */
static const double k_out = 8;

static struct qkv_layout layout_of(const struct heads *h)
{
    return h->interleaved ? qkv_layout_interleaved(h->heads, h->head_dim)
                          : qkv_layout_grouped(h->heads, h->kv_heads, h->head_dim);
}

static int64_t width_of(const struct heads *h)
{
    return (h->heads + 2 * h->kv_heads) * h->head_dim + h->spare;
}

/* A [slots, T, G*D] cache that already holds something everywhere. */
static void describe_cache(struct ops_call *call, int slot, const char *name, int64_t slots,
                           int64_t T, int64_t width)
{
    struct operand *o = ops_operand(call, slot, ROLE_INPLACE, name, call->dtype, slots, T);
    o->dims = 3;
    o->dim[2] = width;
    ops_fill_normal(o, 1.0);
}

/* ---- kv_store ---- */

enum { K_CACHE, V_CACHE, QKV, KV_COUNT };

static void describe_kv(struct ops_call *call, int64_t index)
{
    const struct kv_case *c = &kv_cases[index];
    const int64_t width = c->heads.kv_heads * c->heads.head_dim;
    call->title = c->title;
    call->row = c;
    describe_cache(call, K_CACHE, "k_cache", c->slots, c->T, width);
    describe_cache(call, V_CACHE, "v_cache", c->slots, c->T, width);
    struct operand *qkv =
        ops_operand(call, QKV, ROLE_IN, "qkv", call->dtype, c->R, width_of(&c->heads));
    qkv->freedom = FREE_ROWS | FREE_COLS;
    ops_fill_normal(qkv, 1.0);
}

static err_t invoke_kv(struct dev *dev, const struct ops_call *call, struct tensor *const t[],
                       struct scratch scratch, int64_t *bytes)
{
    (void)scratch;
    const struct kv_case *c = call->row;
    OPS_INVOKE(kv_store, .k_cache = t[K_CACHE], .v_cache = t[V_CACHE], .qkv = t[QKV],
               .layout = layout_of(&c->heads), .row_first = c->row_first,
               .row_count = c->row_count, .slot = c->slot, .position = c->position);
}

static const struct ops_op kv_store = { "kv_store", KV_COUNT, COUNT_OF(kv_cases), describe_kv,
                                        invoke_kv };

static void test_kv_store(void **state)
{
    ops_check_table(*state, &kv_store);
    enum { BAD = 8 };
    struct kv_case bad[BAD];
    struct ops_bad rows[BAD];
    for (int i = 0; i < BAD; i++) {
        bad[i] = kv_cases[0];
        rows[i] = (struct ops_bad){ &bad[i], ERR_ARG };
    }
    bad[0].row_first = -1;
    bad[1].row_first = 3; /* rows 3 .. 5 of 5 */
    bad[2].row_count = -1;
    bad[3].slot = 3;
    bad[4].slot = -1;
    bad[5].position = 4; /* positions 4 .. 6 of 6 */
    bad[6].position = -1;
    bad[7].row_count = 6;
    ops_check_refusals(*state, &kv_store, 0, rows, BAD);
}

/* ---- decode_attn ---- */

enum { OUT, K, V, QKV_IN, SLOTS, LENS, DECODE_COUNT };

static void describe_decode(struct ops_call *call, int64_t index)
{
    const struct decode_case *c = &decode_cases[index];
    const dtype_t T = call->dtype;
    const struct qkv_layout l = layout_of(&c->heads);
    const int64_t D = l.head_dim, W = width_of(&c->heads);
    call->title = c->title;
    call->row = c;
    struct operand *out = ops_operand(call, OUT, ROLE_OUT, "out", T, c->B, l.heads * D);
    describe_cache(call, K, "k_cache", c->slots, c->T, l.kv_heads * D);
    describe_cache(call, V, "v_cache", c->slots, c->T, l.kv_heads * D);
    struct operand *qkv = ops_operand(call, QKV_IN, ROLE_IN, "qkv", T, c->B, W);
    qkv->freedom = FREE_COLS;
    ops_fill_normal(qkv, 1.0);
    for (int64_t b = 0; b < c->B; b++)
        for (int64_t i = 0; i < l.heads * D; i++) {
            double *q = &qkv->value[b * W + l.q_offset + i / D * l.q_stride + i % D];
            *q = ref_rounded(T, *q * c->magnitude);
        }
    ops_fill_i32(ops_operand(call, SLOTS, ROLE_IN, "slots", DTYPE_I32, c->B, 0), c->slot);
    ops_fill_i32(ops_operand(call, LENS, ROLE_IN, "lens", DTYPE_I32, c->B, 0), c->len);
    ops_bound(call, out, k_out, max_i64(D, c->T), 1 + c->magnitude);
}

static err_t invoke_decode(struct dev *dev, const struct ops_call *call,
                           struct tensor *const t[], struct scratch scratch, int64_t *bytes)
{
    const struct decode_case *c = call->row;
    OPS_INVOKE(decode_attn, .out = t[OUT], .k_cache = t[K], .v_cache = t[V], .qkv = t[QKV_IN],
               .layout = layout_of(&c->heads), .slots = t[SLOTS], .lens = t[LENS],
               .scale = 1.0 / sqrt((double)c->heads.head_dim), .scratch = scratch);
}

static const struct ops_op decode = { "decode_attn", DECODE_COUNT, COUNT_OF(decode_cases),
                                      describe_decode, invoke_decode };

static void test_decode(void **state)
{
    ops_check_table(*state, &decode);
    ops_check_rows(*state, &decode, 3, QKV_IN, OUT);
    ops_check_refusals(*state, &decode, 0, NULL, 0);
    ops_check_refusals(*state, &decode, 3, NULL, 0);
}

/* A sequence decoded alone has the bits of the same in company, and slots of others and positions
 * from len+1 on do not matter: not even NaN. */
static void check_company(struct ops_env *env, int64_t index)
{
    struct ops_call whole = ops_describe(&decode, env->dtype, index);
    const struct decode_case *c = whole.row;
    struct ops_laid together, alone;
    ops_run(&together, env->dev, &whole);
    for (int64_t b = 0; b < c->B; b++) {
        struct ops_call call = ops_describe(&decode, env->dtype, index);
        struct decode_case own = *c;
        own.B = 1;
        call.row = &own;
        const int64_t W = call.o[QKV_IN].dim[1], width = call.o[K].dim[2];
        memmove(call.o[QKV_IN].value, call.o[QKV_IN].value + b * W, (size_t)W * sizeof(double));
        call.o[SLOTS].value[0] = c->slot[b];
        call.o[LENS].value[0] = c->len[b];
        call.o[OUT].dim[0] = call.o[QKV_IN].dim[0] = 1;
        call.o[SLOTS].dim[0] = call.o[LENS].dim[0] = 1;
        for (int64_t p = 0; p < c->slots * c->T; p++)
            for (int64_t i = 0; i < width; i++)
                if (p / c->T != c->slot[b] || p % c->T > c->len[b])
                    call.o[K].value[p * width + i] = call.o[V].value[p * width + i] = NAN;
        ops_run(&alone, env->dev, &call);
        size_t bytes = 0;
        const void *row = ops_result_row(&alone, OUT, 0, &bytes);
        assert_memory_equal(row, ops_result_row(&together, OUT, b, &bytes), bytes);
        ops_clear(&alone);
        ops_call_clear(&call);
    }
    ops_clear(&together);
    ops_call_clear(&whole);
}

static void test_company(void **state)
{
    for (int64_t index = 0; index < COUNT_OF(decode_cases); index++)
        if (decode_cases[index].B > 1) check_company(*state, index);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kv_store),
        cmocka_unit_test(test_decode),
        cmocka_unit_test(test_company),
    };
    return ops_main("decode", tests, COUNT_OF(tests));
}
