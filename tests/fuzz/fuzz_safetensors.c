/* layer: model */
/* A safetensors file: if it opens, everything that it declares can be read, and nothing else is. */
#include "fuzz/fuzz.h"

#include "base/check.h"
#include "base/num.h"
#include "model/safetensors.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct weight_source *s = NULL;
    const err_t rc = safetensors_source_open_memory(&s, bytes, (int64_t)size, "fuzz");
    ASSERT(rc == ERR_OK || rc == ERR_FORMAT || rc == ERR_UNSUPPORTED);
    if (rc != ERR_OK) return 0;

    int64_t declared = 0;
    for (int64_t i = 0; i < weight_source_count(s); i++) {
        const struct weight_info info = weight_source_info(s, i);
        uint8_t out[64 * 8];
        const int64_t n = min_i64(info.count, 64);
        ASSERT(weight_source_find(s, info.name) == i);
        if (info.dtype == DTYPE_COUNT) continue;
        declared += info.count * dtype_bytes(info.dtype);
        ASSERT(declared <= (int64_t)size); /* tensors do not share bytes */
        ASSERT(weight_source_read(s, out, i, 0, n) == ERR_OK);
        ASSERT(weight_source_read(s, out, i, info.count - n, n) == ERR_OK);
    }
    weight_source_close(s);
    return 0;
}
