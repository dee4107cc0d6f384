/* Operands, their place in device memory between canaries, and one call. */
#include "ops_harness.h"

#include "base/num.h"
#include "base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Data begin here in their block: 16-byte aligned as the contract says, and no better. */
enum { FRONT_BYTES = 80, BACK_BYTES = 64, CANARY = 0xff };

static void *host_alloc(int64_t bytes)
{
    void *data = malloc((size_t)bytes + 1);
    ASSERT(data != NULL);
    return data;
}

/* ---- describing ---- */

int64_t operand_count(const struct operand *o)
{
    int64_t count = 1;
    for (int i = 0; i < o->dims; i++) count *= o->dim[i];
    return count;
}

struct operand *ops_operand(struct ops_call *call, int slot, enum ops_role role, const char *name,
                            dtype_t dtype, int64_t rows, int64_t cols)
{
    ASSERT(slot < call->op->operand_count && call->o[slot].role == ROLE_NONE);
    struct operand *o = &call->o[slot];
    *o = (struct operand){ .name = name, .role = role, .dtype = dtype, .dims = cols ? 2 : 1,
                           .dim = { rows, cols ? cols : 1, 1, 1 } };
    return o;
}

static double *values(struct operand *o)
{
    free(o->value);
    o->value = host_alloc(operand_count(o) * (int64_t)sizeof(double));
    return o->value;
}

static uint64_t stream_of(const char *name)
{
    uint64_t hash = 14695981039346656037u;
    for (const char *c = name; *c; c++) hash = (hash ^ (uint64_t)*c) * 1099511628211u;
    return RNG_TEST | hash << 8;
}

void ops_fill_normal(struct operand *o, double magnitude)
{
    double *value = values(o);
    for (int64_t i = 0; i < operand_count(o); i++)
        value[i] = ref_rounded(o->dtype,
                           magnitude * rng_normal(1, stream_of(o->name), (uint64_t)i));
}

void ops_fill_integer(struct operand *o, int64_t limit)
{
    double *value = values(o);
    for (int64_t i = 0; i < operand_count(o); i++) {
        const uint64_t bits = rng_u64(2, stream_of(o->name), (uint64_t)i);
        value[i] = (double)((int64_t)(bits % (uint64_t)(2 * limit + 1)) - limit);
    }
}

void ops_fill_constant(struct operand *o, double value)
{
    double *out = values(o);
    for (int64_t i = 0; i < operand_count(o); i++) out[i] = value;
}

void ops_fill_i32(struct operand *o, const int32_t *in)
{
    double *value = values(o);
    for (int64_t i = 0; i < operand_count(o); i++) value[i] = (double)in[i];
}

static double roundoff(dtype_t dtype)
{
    return dtype == DTYPE_F64    ? 0x1p-53
           : dtype == DTYPE_F32  ? 0x1p-24
           : dtype == DTYPE_F16  ? 0x1p-11
           : dtype == DTYPE_BF16 ? 0x1p-8
                                 : 0.0;
}

void ops_bound(const struct ops_call *call, struct operand *o, double k, int64_t n, double scale)
{
    const double eps = roundoff(dtype_accumulator(call->dtype));
    o->bound = k * eps * sqrt((double)max_i64(n, 1)) * scale;
}

void ops_bound_stored(const struct ops_call *call, struct operand *o, double k, double scale)
{
    if (call->dtype == dtype_accumulator(call->dtype)) return;
    o->bound += k * roundoff(call->dtype) * scale;
    o->stored = true;
}

struct ops_call ops_describe(const struct ops_op *op, dtype_t dtype, int64_t index)
{
    struct ops_call call = { .op = op, .dtype = dtype };
    op->describe(&call, index);
    for (int s = 0; s < op->operand_count; s++)
        ASSERT((call.o[s].value != NULL)
               == (call.o[s].role != ROLE_NONE && call.o[s].role != ROLE_OUT));
    return call;
}

void ops_call_clear(struct ops_call *call)
{
    for (int s = 0; s < OPS_OPERANDS_MAX; s++) {
        free(call->o[s].value);
        call->o[s].value = NULL;
    }
}

/* ---- memory ---- */

static int64_t columns(const struct operand *o) { return o->dim[o->dims - 1]; }

static int64_t rows_of(const struct operand *o)
{
    return columns(o) == 0 ? 0 : operand_count(o) / columns(o);
}

static bool is_written(const struct operand *o)
{
    return o->role == ROLE_OUT || o->role == ROLE_ACC || o->role == ROLE_INPLACE;
}

/* Byte offset of row r in the block. */
static int64_t row_at(const struct ops_laid *laid, int slot, int64_t r)
{
    const struct tensor *t = &laid->tensor[slot];
    return FRONT_BYTES + r * t->row_stride * dtype_bytes(t->dtype);
}

static void store(void *data, dtype_t dtype, int64_t i, double value)
{
    const struct tensor t = tensor_1d(data, dtype, i + 1, "value");
    if (dtype == DTYPE_I32) ((int32_t *)data)[i] = (int32_t)value;
    else ref_put(&t, i, value);
}

static double load(void *data, dtype_t dtype, int64_t i)
{
    const struct tensor t = tensor_1d(data, dtype, i + 1, "value");
    return dtype == DTYPE_I32 ? (double)((const int32_t *)data)[i] : ref_get(&t, i);
}

static void lay_operand(struct ops_laid *laid, int slot)
{
    const struct operand *o = &laid->call->o[slot];
    const bool is_ref = laid->dev->ops == &ops_ref;
    const bool keeps = !is_ref || o->fixed || o->dtype == DTYPE_I32;
    struct tensor *t = &laid->tensor[slot];
    *t = (struct tensor){ NULL, keeps ? o->dtype : DTYPE_F64, o->dims,
                          { o->dim[0], o->dim[1], o->dim[2], o->dim[3] },
                          columns(o) + o->gap, o->name };

    const int64_t cols = columns(o), rows = rows_of(o);
    laid->block_bytes[slot] = row_at(laid, slot, rows) + BACK_BYTES;
    assert_ok(dev_alloc(laid->dev, &laid->block[slot], laid->block_bytes[slot], o->name));
    t->data = (unsigned char *)laid->block[slot] + FRONT_BYTES;
    laid->pointer[slot] = t;

    unsigned char *before = host_alloc(laid->block_bytes[slot]);
    memset(before, CANARY, (size_t)laid->block_bytes[slot]);
    for (int64_t r = 0; r < rows && o->value; r++)
        for (int64_t c = 0; c < cols; c++)
            store(before + row_at(laid, slot, r), t->dtype, c, o->value[r * cols + c]);
    laid->before[slot] = before;
    laid->after[slot] = host_alloc(laid->block_bytes[slot]);
}

void ops_lay(struct ops_laid *laid, struct dev *dev, const struct ops_call *call)
{
    *laid = (struct ops_laid){ .dev = dev, .call = call };
    for (int s = 0; s < call->op->operand_count; s++)
        if (call->o[s].role != ROLE_NONE) lay_operand(laid, s);

    int64_t bytes = 0;
    assert_ok(call->op->invoke(dev, call, laid->pointer, (struct scratch){ 0 }, &bytes));
    assert_true(bytes >= 0);
    if (bytes > 0) {
        laid->scratch_block_bytes = 64 + bytes + BACK_BYTES;
        assert_ok(dev_alloc(dev, &laid->scratch_block, laid->scratch_block_bytes, "scratch"));
        laid->scratch =
            (struct scratch){ (unsigned char *)laid->scratch_block + 64, bytes };
    }
    ops_reset(laid);
}

void ops_reset(struct ops_laid *laid)
{
    for (int s = 0; s < OPS_OPERANDS_MAX; s++)
        if (laid->block[s])
            assert_ok(dev_upload(laid->dev, laid->block[s], laid->before[s],
                                 laid->block_bytes[s]));
    if (laid->scratch_block) {
        void *junk = host_alloc(laid->scratch_block_bytes);
        memset(junk, CANARY, (size_t)laid->scratch_block_bytes);
        assert_ok(dev_upload(laid->dev, laid->scratch_block, junk, laid->scratch_block_bytes));
        free(junk);
    }
}

err_t ops_invoke(struct ops_laid *laid)
{
    const int64_t allocs = laid->dev->stats.alloc_count;
    const struct ops_call *call = laid->call;
    TRY(call->op->invoke(laid->dev, call, laid->pointer, laid->scratch, NULL));
    TRY(dev_sync(laid->dev));
    if (laid->dev->stats.alloc_count != allocs)
        fail_msg("%s/%s: allocated during the call", call->op->name, call->title);
    return ERR_OK;
}

static void check_scratch(struct ops_laid *laid)
{
    unsigned char *got = host_alloc(laid->scratch_block_bytes);
    assert_ok(dev_download(laid->dev, got, laid->scratch_block, laid->scratch_block_bytes));
    for (int64_t i = 0; i < 64; i++)
        if (got[i] != CANARY || got[laid->scratch_block_bytes - 1 - i] != CANARY)
            fail_msg("%s/%s: written outside the scratch", laid->call->op->name,
                     laid->call->title);
    free(got);
}

/* Whatever is not an element of an output must be as before. */
static void check_untouched(const struct ops_laid *laid, int slot)
{
    const struct operand *o = &laid->call->o[slot];
    const unsigned char *after = laid->after[slot], *before = laid->before[slot];
    const int64_t width = columns(o) * dtype_bytes(laid->tensor[slot].dtype);
    int64_t at = 0;
    for (int64_t r = 0; r < rows_of(o) && is_written(o); r++) {
        const int64_t begin = row_at(laid, slot, r);
        if (memcmp(after + at, before + at, (size_t)(begin - at)) != 0)
            fail_msg("%s/%s: written outside %s, before row %lld", laid->call->op->name,
                     laid->call->title, o->name, (long long)r);
        at = begin + width;
    }
    if (memcmp(after + at, before + at, (size_t)(laid->block_bytes[slot] - at)) != 0)
        fail_msg("%s/%s: %s %s", laid->call->op->name, laid->call->title,
                 is_written(o) ? "written past the end of" : "changed its input", o->name);
}

void ops_fetch(struct ops_laid *laid)
{
    for (int s = 0; s < OPS_OPERANDS_MAX; s++) {
        if (laid->block[s] == NULL) continue;
        assert_ok(dev_download(laid->dev, laid->after[s], laid->block[s], laid->block_bytes[s]));
        check_untouched(laid, s);
    }
    if (laid->scratch_block) check_scratch(laid);
}

double ops_result(const struct ops_laid *laid, int slot, int64_t i)
{
    const int64_t cols = columns(&laid->call->o[slot]);
    return load(laid->after[slot] + row_at(laid, slot, i / cols), laid->tensor[slot].dtype,
                i % cols);
}

const void *ops_result_row(const struct ops_laid *laid, int slot, int64_t r, size_t *bytes)
{
    const struct operand *o = &laid->call->o[slot];
    /* A vector has one element per row. */
    const bool vector = o->dims == 1;
    const int64_t width = dtype_bytes(laid->tensor[slot].dtype);
    *bytes = (size_t)(vector ? width : columns(o) * width);
    return laid->after[slot] + (vector ? FRONT_BYTES + r * width : row_at(laid, slot, r));
}

void ops_clear(struct ops_laid *laid)
{
    for (int s = 0; s < OPS_OPERANDS_MAX; s++) {
        dev_free(laid->dev, laid->block[s]);
        free(laid->before[s]);
        free(laid->after[s]);
    }
    dev_free(laid->dev, laid->scratch_block);
    *laid = (struct ops_laid){ 0 };
}

void ops_run(struct ops_laid *laid, struct dev *dev, const struct ops_call *call)
{
    ops_lay(laid, dev, call);
    assert_ok(ops_invoke(laid));
    ops_fetch(laid);
}
