/*
 * buf.h - a growing byte buffer; the one way to build text or bytes of unknown length.
 *
 *     struct buf b = { 0 };
 *     TRY_DONE(buf_printf(&b, "%s-%05d", name, i));
 *     ...
 *     buf_clear(&b);
 *
 * A zeroed struct is an empty buffer. `data` is NUL-terminated after every append (the NUL is
 * not counted in `size`) and may move on append; what is appended must lie outside the buffer.
 * Not for use by several threads at once.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct buf {
    char *data; /* NULL while capacity is 0 */
    size_t size;
    size_t capacity;
};

/* Errors of all: ERR_NOMEM, with the buffer unchanged. */
MUST_USE err_t buf_reserve(struct buf *b, size_t extra_bytes);
MUST_USE err_t buf_append(struct buf *b, const void *bytes, size_t size);
MUST_USE err_t buf_puts(struct buf *b, const char *text);
MUST_USE err_t buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
void buf_reset(struct buf *b); /* size = 0, memory kept */
void buf_clear(struct buf *b); /* memory released, struct zeroed */

/*
 * For arrays of other things: room for `wanted` items in items[capacity], whose capacity is an
 * int64_t and doubles. TRYs; after ERR_NOMEM the array is as it was.
 *
 *     ARRAY_GROW(list->turns, list->capacity, list->count + 1);
 *     list->turns[list->count++] = turn;
 */
#define ARRAY_GROW(items, capacity, wanted)                                                        \
    do {                                                                                           \
        void *grown_ = (items);                                                                    \
        if ((wanted) > (capacity))                                                                 \
            TRY(array_grow(&grown_, &(capacity), wanted, sizeof *(items)));                        \
        (items) = grown_;                                                                          \
    } while (0)
MUST_USE err_t array_grow(void **items, int64_t *capacity, int64_t wanted, size_t item_bytes);

/* int32 arrays: token ids are collected in these. */
struct i32_buf {
    int32_t *data;
    int64_t count;
    int64_t capacity;
};

MUST_USE err_t i32_buf_reserve(struct i32_buf *b, int64_t extra);
MUST_USE err_t i32_buf_append(struct i32_buf *b, const int32_t *values, int64_t count);
MUST_USE err_t i32_buf_push(struct i32_buf *b, int32_t value);
void i32_buf_reset(struct i32_buf *b);
void i32_buf_clear(struct i32_buf *b);

#ifdef __cplusplus
}
#endif
#endif
