/* layer: data */
/* A packed file of any bytes: the same text whatever is asked for at once, or the same error. */
#include "fuzz/fuzz.h"

#include "base/check.h"
#include "data/input.h"

#include <stdbool.h>
#include <string.h>

#define TEXT_BYTES_MAX 4096

/* Does a zstd frame begin here that wants a window above 1 MiB? Taking and poisoning up to 128 MiB
 * for it is nearly all of the time of a run, and tests/test_data_input.c has such frames. */
static bool wants_much(const uint8_t *p, size_t size)
{
    if (size < 10 || memcmp(p, "\x28\xb5\x2f\xfd", 4) != 0) return false;
    if ((p[4] & 0x20) == 0) return p[5] >> 3 > 10; /* Window_Descriptor: 2^(10 + exponent) */
    return p[4] >> 6 == 3 || (p[4] >> 6 == 2 && (p[7] > 0x10 || p[8] > 0)); /* content size */
}

/* Up to TEXT_BYTES_MAX bytes of text, `step` at a time. */
static err_t read_text(char *text, int64_t *text_size, const uint8_t *bytes, size_t size,
                       int64_t step)
{
    struct input in;
    int64_t got = step;
    *text_size = 0;
    err_t rc = input_open_memory(&in, "fuzz", bytes, (int64_t)size);
    ASSERT(rc == ERR_OK);
    while (rc == ERR_OK && got == step && *text_size + step <= TEXT_BYTES_MAX) {
        rc = input_read(&in, text + *text_size, step, &got);
        ASSERT(got >= 0 && got <= step);
        *text_size += got;
        ASSERT(input_position(&in) >= 0 && input_position(&in) <= (int64_t)size);
    }
    ASSERT(rc == ERR_OK || rc == ERR_FORMAT);
    input_close(&in);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static char whole[TEXT_BYTES_MAX], pieces[TEXT_BYTES_MAX];
    int64_t whole_size, pieces_size;
    for (size_t at = 0; at < size; at++)
        if (wants_much(bytes + at, size - at)) return 0;
    const err_t rc = read_text(whole, &whole_size, bytes, size, TEXT_BYTES_MAX);
    const err_t again = read_text(pieces, &pieces_size, bytes, size, 64);
    if (whole_size == TEXT_BYTES_MAX || rc != ERR_OK) return 0;
    ASSERT(again == ERR_OK && pieces_size == whole_size);
    ASSERT(memcmp(whole, pieces, (size_t)whole_size) == 0);
    return 0;
}
