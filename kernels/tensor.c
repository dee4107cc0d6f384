#include "kernels/tensor.h"

struct dtype_row {
    const char *name;
    int64_t bytes;
    dtype_t accumulator;
};

static const struct dtype_row dtypes[] = {
    [DTYPE_F32] = { "f32", 4, DTYPE_F32 },  [DTYPE_BF16] = { "bf16", 2, DTYPE_F32 },
    [DTYPE_F16] = { "f16", 2, DTYPE_F32 },  [DTYPE_F64] = { "f64", 8, DTYPE_F64 },
    [DTYPE_I32] = { "i32", 4, DTYPE_F32 },  [DTYPE_I64] = { "i64", 8, DTYPE_F32 },
    [DTYPE_U8] = { "u8", 1, DTYPE_F32 },
};
STATIC_ASSERT(sizeof dtypes / sizeof dtypes[0] == DTYPE_COUNT, "a dtype without a row");

static const struct dtype_row *row_of(dtype_t dtype)
{
    ASSERT((int)dtype >= 0 && dtype < DTYPE_COUNT);
    return &dtypes[dtype];
}

int64_t dtype_bytes(dtype_t dtype) { return row_of(dtype)->bytes; }

const char *dtype_name(dtype_t dtype) { return row_of(dtype)->name; }

dtype_t dtype_accumulator(dtype_t dtype) { return row_of(dtype)->accumulator; }
