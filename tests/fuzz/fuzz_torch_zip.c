/* layer: model */
/*
 * A PyTorch file. The input is the archive; the pickle's CRC-32 in the directory is made right
 * first, so that damage inside the pickle reaches the machine instead of stopping at the sum.
 */
#include "fuzz/fuzz.h"

#include "base/check.h"
#include "base/num.h"
#include "model/torch_zip.h"
#include "model/torch_zip_dir.h"

#include <stdlib.h>
#include <string.h>

#define CENTRAL_BYTES 46

static uint32_t get(const uint8_t *p, int bytes)
{
    uint32_t value = 0;
    for (int i = bytes - 1; i >= 0; i--) value = value << 8 | p[i];
    return value;
}

/* For every central entry that points to a plain local header: its data's own CRC-32. */
static void repair_sums(uint8_t *bytes, size_t size)
{
    for (size_t at = 0; at + CENTRAL_BYTES <= size; at++) {
        uint8_t *p = bytes + at;
        if (memcmp(p, "PK\1\2", 4) != 0) continue;
        const size_t data_bytes = get(p + 24, 4), header = get(p + 42, 4);
        if (header > size || size - header < 30) continue;
        const size_t begin =
            header + 30 + get(bytes + header + 26, 2) + get(bytes + header + 28, 2);
        if (begin > size || data_bytes > size - begin) continue;
        const uint32_t crc = zip_crc32(bytes + begin, data_bytes);
        for (int i = 0; i < 4; i++) p[16 + i] = (uint8_t)(crc >> (8 * i));
    }
}

static void read_all(struct weight_source *s)
{
    for (int64_t i = 0; i < weight_source_count(s); i++) {
        const struct weight_info info = weight_source_info(s, i);
        uint8_t out[64 * 8];
        const int64_t n = min_i64(info.count, 64);
        ASSERT(weight_source_find(s, info.name) == i);
        if (info.dtype == DTYPE_COUNT) continue;
        ASSERT(weight_source_read(s, out, i, 0, n) == ERR_OK);
        ASSERT(weight_source_read(s, out, i, info.count - n, n) == ERR_OK);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct weight_source *s = NULL;
    uint8_t *copy = malloc(size + !size);
    ASSERT(copy);
    memcpy(copy, bytes, size);
    repair_sums(copy, size);
    const err_t rc = torch_zip_source_open_memory(&s, copy, (int64_t)size, "fuzz");
    ASSERT(rc == ERR_OK || rc == ERR_FORMAT || rc == ERR_UNSUPPORTED || rc == ERR_CHECKSUM);
    if (rc == ERR_OK) {
        read_all(s);
        weight_source_close(s);
    }
    free(copy);
    return 0;
}
