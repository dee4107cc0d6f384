#include "model/weights.h"

#include "base/check.h"
#include "base/num.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Elements converted at a time; 64 KiB of raw bytes keep a block in the nearest caches. */
#define BLOCK_BYTES 65536

int64_t weight_source_count(const struct weight_source *s) { return s->ops->count(s); }

struct weight_info weight_source_info(const struct weight_source *s, int64_t index)
{
    ASSERT(index >= 0 && index < s->ops->count(s));
    return s->ops->info(s, index);
}

int64_t weight_source_find(const struct weight_source *s, const char *name)
{
    if (s->ops->find) return s->ops->find(s, name);
    const int64_t count = s->ops->count(s);
    for (int64_t i = 0; i < count; i++)
        if (strcmp(s->ops->info(s, i).name, name) == 0) return i;
    return -1;
}

err_t weight_source_read(struct weight_source *s, void *out, int64_t index, int64_t first,
                         int64_t count)
{
    const struct weight_info info = weight_source_info(s, index);
    ASSERT(first >= 0 && count >= 0 && first <= info.count && count <= info.count - first);
    if (info.dtype == DTYPE_COUNT)
        RAISE(DTYPE,
              "%s is stored in a type that cannot be read (known: f16, bf16, f32, f64, i32, "
              "i64, u8)",
              info.name);
    if (count == 0) return ERR_OK;
    TRY(s->ops->read(s, out, index, first, count));
    return ERR_OK;
}

/* ---- conversion: one loop per pair of types, chosen by table ---- */

typedef void (*convert_fn)(void *out, const void *in, int64_t count);

/*
 * f16_to_f32 without a branch, so that the loop below becomes vector code: four times as fast, and
 * a 6B model has 13 GB to widen. The half's bits, moved to a float's place, are a float 2^112 too
 * small, subnormals included; infinity and NaN then get the float's largest exponent.
 */
static inline float widen(uint16_t h)
{
    const uint32_t magnitude = (uint32_t)(h & 0x7fffu) << 13;
    const uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0;
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    return bits_to_f32(f32_to_bits(bits_to_f32(magnitude) * 0x1p112f) | special | sign);
}

#define CONVERT(name, out_type, in_type, expr)                                                     \
    static void name(void *out_bytes, const void *in_bytes, int64_t count)                         \
    {                                                                                              \
        out_type *restrict out = out_bytes;                                                        \
        const in_type *restrict in = in_bytes;                                                     \
        _Pragma("omp simd") for (int64_t i = 0; i < count; i++) out[i] = (out_type)(expr);         \
    }

CONVERT(f32_from_f16, float, uint16_t, widen(in[i]))
CONVERT(f32_from_bf16, float, uint16_t, bf16_to_f32(in[i]))
CONVERT(f32_from_f32, float, float, in[i])
CONVERT(f32_from_f64, float, double, in[i])
CONVERT(f64_from_f16, double, uint16_t, widen(in[i]))
CONVERT(f64_from_bf16, double, uint16_t, bf16_to_f32(in[i]))
CONVERT(f64_from_f32, double, float, in[i])
CONVERT(f64_from_f64, double, double, in[i])

static const struct {
    convert_fn to_f32, to_f64;
} converts[DTYPE_COUNT] = {
    [DTYPE_F16] = { f32_from_f16, f64_from_f16 },
    [DTYPE_BF16] = { f32_from_bf16, f64_from_bf16 },
    [DTYPE_F32] = { f32_from_f32, f64_from_f32 },
    [DTYPE_F64] = { f32_from_f64, f64_from_f64 },
};

void weight_widen(float *out, dtype_t dtype, const void *values, int64_t count)
{
    ASSERT(converts[dtype].to_f32 != NULL);
    converts[dtype].to_f32(out, values, count);
}

static bool is_infinite_16(uint16_t half, dtype_t dtype)
{
    return (half & 0x7fffu) == (dtype == DTYPE_F16 ? 0x7c00u : 0x7f80u);
}

int64_t weight_round(void *out, dtype_t dtype, const float *values, int64_t count)
{
    uint16_t *half = out;
    int64_t first = -1;
    if (dtype == DTYPE_F32) {
        memcpy(out, values, (size_t)count * sizeof *values);
        return -1;
    }
    ASSERT(dtype == DTYPE_F16 || dtype == DTYPE_BF16);
    for (int64_t i = count - 1; i >= 0; i--) {
        half[i] = dtype == DTYPE_F16 ? f32_to_f16(values[i]) : f32_to_bf16(values[i]);
        if (is_infinite_16(half[i], dtype) && isfinite(values[i])) first = i;
    }
    return first;
}

/* Block by block to f32 and from there to 16 bits. */
static err_t read_rounded(struct weight_source *s, void *out, dtype_t dtype, int64_t index,
                          int64_t first, int64_t count)
{
    const struct weight_info info = weight_source_info(s, index);
    float wide[BLOCK_BYTES / sizeof(float)];
    for (int64_t done = 0; done < count; done += COUNT_OF(wide)) {
        const int64_t n = min_i64(COUNT_OF(wide), count - done);
        TRY(weight_source_read_as(s, wide, DTYPE_F32, index, first + done, n));
        const int64_t at = weight_round((uint16_t *)out + done, dtype, wide, n);
        if (at >= 0)
            RAISE(NUMERIC, "%s: element %lld is %g, beyond %s; f32 holds it", info.name,
                  (long long)(first + done + at), (double)wide[at], dtype_name(dtype));
    }
    return ERR_OK;
}

err_t weight_source_read_as(struct weight_source *s, void *out, dtype_t dtype, int64_t index,
                            int64_t first, int64_t count)
{
    ASSERT(dtype == DTYPE_F32 || dtype == DTYPE_F64 || dtype == DTYPE_F16 || dtype == DTYPE_BF16);
    const struct weight_info info = weight_source_info(s, index);
    if (info.dtype == dtype || info.dtype == DTYPE_COUNT) {
        TRY(weight_source_read(s, out, index, first, count));
        return ERR_OK;
    }
    if (dtype_bytes(dtype) == 2) return read_rounded(s, out, dtype, index, first, count);
    const convert_fn convert =
        dtype == DTYPE_F32 ? converts[info.dtype].to_f32 : converts[info.dtype].to_f64;
    if (!convert)
        RAISE(DTYPE, "%s is %s; a floating-point tensor is wanted", info.name,
              dtype_name(info.dtype));

    _Alignas(16) uint8_t raw[BLOCK_BYTES];
    const int64_t block = BLOCK_BYTES / dtype_bytes(info.dtype);
    for (int64_t done = 0; done < count; done += block) {
        const int64_t n = min_i64(block, count - done);
        TRY(weight_source_read(s, raw, index, first + done, n));
        convert((uint8_t *)out + done * dtype_bytes(dtype), raw, n);
    }
    return ERR_OK;
}

dtype_t weight_source_matrix_dtype(const struct weight_source *s)
{
    const int64_t count = weight_source_count(s);
    dtype_t common = DTYPE_F32;
    bool found = false;
    for (int64_t i = 0; i < count; i++) {
        const struct weight_info info = weight_source_info(s, i);
        if (info.dims != 2) continue;
        if (found && info.dtype != common) return DTYPE_F32;
        common = info.dtype;
        found = true;
    }
    return common == DTYPE_F16 || common == DTYPE_BF16 ? common : DTYPE_F32;
}

/* ---- comparison ---- */

/* Index of the first element of the block that differs, or n. */
static int64_t first_difference(const uint8_t *a, const uint8_t *b, int64_t n, int64_t bytes,
                                bool by_value)
{
    if (!by_value && memcmp(a, b, (size_t)(n * bytes)) == 0) return n;
    for (int64_t i = 0; i < n; i++) {
        if (by_value ? ((const double *)(const void *)a)[i] != ((const double *)(const void *)b)[i]
                     : memcmp(a + i * bytes, b + i * bytes, (size_t)bytes) != 0)
            return i;
    }
    return n;
}

err_t weight_source_compare(int64_t *row, struct weight_source *s, int64_t index_a, int64_t index_b)
{
    const struct weight_info a = weight_source_info(s, index_a);
    const struct weight_info b = weight_source_info(s, index_b);
    if (a.dims != b.dims || memcmp(a.dim, b.dim, (size_t)a.dims * sizeof a.dim[0]) != 0) {
        char text_a[WEIGHT_SHAPE_TEXT_MAX], text_b[WEIGHT_SHAPE_TEXT_MAX];
        RAISE(SHAPE, "%s is %s, %s is %s", a.name, weight_shape_text(text_a, a.dims, a.dim), b.name,
              weight_shape_text(text_b, b.dims, b.dim));
    }

    _Alignas(16) uint8_t block_a[BLOCK_BYTES], block_b[BLOCK_BYTES];
    const bool by_value = a.dtype != b.dtype;
    const int64_t bytes = by_value || a.dtype == DTYPE_COUNT ? 8 : dtype_bytes(a.dtype);
    const int64_t block = BLOCK_BYTES / bytes;
    const int64_t row_count = a.dims > 0 ? a.dim[0] : 1;
    for (int64_t done = 0; done < a.count; done += block) {
        const int64_t n = min_i64(block, a.count - done);
        if (by_value) {
            TRY(weight_source_read_as(s, block_a, DTYPE_F64, index_a, done, n));
            TRY(weight_source_read_as(s, block_b, DTYPE_F64, index_b, done, n));
        } else {
            TRY(weight_source_read(s, block_a, index_a, done, n));
            TRY(weight_source_read(s, block_b, index_b, done, n));
        }
        const int64_t at = first_difference(block_a, block_b, n, bytes, by_value);
        if (at < n) {
            *row = (done + at) / (a.count / row_count);
            return ERR_OK;
        }
    }
    *row = -1;
    return ERR_OK;
}

const char *weight_shape_text(char text[WEIGHT_SHAPE_TEXT_MAX], int dims, const int64_t *dim)
{
    ASSERT(dims >= 0 && dims <= WEIGHT_DIMS_MAX);
    int used = snprintf(text, WEIGHT_SHAPE_TEXT_MAX, "[");
    for (int i = 0; i < dims; i++)
        used += snprintf(text + used, (size_t)(WEIGHT_SHAPE_TEXT_MAX - used), "%s%lld",
                         i ? ", " : "", (long long)dim[i]);
    snprintf(text + used, (size_t)(WEIGHT_SHAPE_TEXT_MAX - used), "]");
    return text;
}

bool weight_is_lfs_pointer(const void *bytes, int64_t size)
{
    static const char begin[] = "version https://git-lfs.github.com/spec/";
    return size >= (int64_t)sizeof begin - 1 && memcmp(bytes, begin, sizeof begin - 1) == 0;
}

void weight_source_close(struct weight_source *s)
{
    if (s) s->ops->close(s);
}
