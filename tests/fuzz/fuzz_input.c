/* layer: data */
/* A packed file of any bytes: the same text whatever is asked for at once, or the same error. */
#include "fuzz/fuzz.h"

#include "base/check.h"
#include "data/input.h"

#include <string.h>

#define TEXT_BYTES_MAX 4096

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
    const err_t rc = read_text(whole, &whole_size, bytes, size, TEXT_BYTES_MAX);
    const err_t again = read_text(pieces, &pieces_size, bytes, size, 64);
    if (whole_size == TEXT_BYTES_MAX || rc != ERR_OK) return 0;
    ASSERT(again == ERR_OK && pieces_size == whole_size);
    ASSERT(memcmp(whole, pieces, (size_t)whole_size) == 0);
    return 0;
}
