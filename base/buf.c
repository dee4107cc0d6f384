#include "base/buf.h"

#include "base/check.h"
#include "base/fault.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Grow to hold `wanted` elements; doubling keeps appending linear in total. */
static err_t grow(void **data, size_t *capacity, size_t wanted, size_t element_bytes)
{
    size_t count = *capacity < 64 ? 64 : *capacity;
    while (count < wanted && count <= SIZE_MAX / 2) count *= 2;
    if (count < wanted) count = wanted;

    size_t bytes;
    void *moved = NULL;
    if (fault_point("buf.grow") == ERR_OK && !__builtin_mul_overflow(count, element_bytes, &bytes))
        moved = realloc(*data, bytes);
    if (moved == NULL)
        RAISE(NOMEM, "growing a buffer from %zu to %zu elements of %zu bytes", *capacity, count,
              element_bytes);
    *data = moved;
    *capacity = count;
    return ERR_OK;
}

err_t buf_reserve(struct buf *b, size_t extra_bytes)
{
    size_t wanted; /* with the NUL */
    if (__builtin_add_overflow(b->size, extra_bytes, &wanted) || wanted >= PTRDIFF_MAX)
        RAISE(NOMEM, "a buffer of %zu bytes cannot grow by %zu", b->size, extra_bytes);
    wanted++;
    if (wanted <= b->capacity) return ERR_OK;
    void *data = b->data;
    TRY(grow(&data, &b->capacity, wanted, 1));
    b->data = data;
    b->data[b->size] = '\0';
    return ERR_OK;
}

err_t buf_append(struct buf *b, const void *bytes, size_t size)
{
    TRY(buf_reserve(b, size));
    if (size > 0) memcpy(b->data + b->size, bytes, size);
    b->size += size;
    b->data[b->size] = '\0';
    return ERR_OK;
}

err_t buf_puts(struct buf *b, const char *text) { return buf_append(b, text, strlen(text)); }

err_t buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    const int size = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    ASSERT(size >= 0);

    TRY(buf_reserve(b, (size_t)size));
    va_start(ap, fmt);
    vsnprintf(b->data + b->size, (size_t)size + 1, fmt, ap);
    va_end(ap);
    b->size += (size_t)size;
    return ERR_OK;
}

void buf_reset(struct buf *b)
{
    b->size = 0;
    if (b->data != NULL) b->data[0] = '\0';
}

void buf_clear(struct buf *b)
{
    free(b->data);
    *b = (struct buf){ 0 };
}

err_t array_grow(void **items, int64_t *capacity, int64_t wanted, size_t item_bytes)
{
    size_t count = (size_t)*capacity;
    ASSERT(wanted > *capacity);
    TRY(grow(items, &count, (size_t)wanted, item_bytes));
    *capacity = (int64_t)count;
    return ERR_OK;
}

err_t i32_buf_reserve(struct i32_buf *b, int64_t extra)
{
    ASSERT(extra >= 0);
    if (extra > INT64_MAX / 4 - b->count)
        RAISE(NOMEM, "an array of %lld int32 cannot grow by %lld", (long long)b->count,
              (long long)extra);
    ARRAY_GROW(b->data, b->capacity, b->count + extra);
    return ERR_OK;
}

err_t i32_buf_append(struct i32_buf *b, const int32_t *values, int64_t count)
{
    TRY(i32_buf_reserve(b, count));
    if (count > 0) memcpy(b->data + b->count, values, (size_t)count * sizeof *values);
    b->count += count;
    return ERR_OK;
}

err_t i32_buf_push(struct i32_buf *b, int32_t value) { return i32_buf_append(b, &value, 1); }

void i32_buf_reset(struct i32_buf *b) { b->count = 0; }

void i32_buf_clear(struct i32_buf *b)
{
    free(b->data);
    *b = (struct i32_buf){ 0 };
}
