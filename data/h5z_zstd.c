#include "data/h5z_zstd.h"

#include <stdlib.h>
#include <zstd.h>

/* HDF5's contract: on success *buf is replaced by memory from H5allocate_memory and the new size is
 * returned; on failure 0 is returned and nothing has changed. */
static size_t replace(void **buf, size_t *buf_size, void *data, size_t capacity, size_t size)
{
    H5free_memory(*buf);
    *buf = data;
    *buf_size = capacity;
    return size;
}

static size_t compress(int level, size_t size, size_t *buf_size, void **buf)
{
    const size_t capacity = ZSTD_compressBound(size);
    void *out = H5allocate_memory(capacity, 0);
    if (out == NULL) return 0;
    const size_t written = ZSTD_compress(out, capacity, *buf, size, level);
    if (!ZSTD_isError(written)) return replace(buf, buf_size, out, capacity, written);
    H5free_memory(out);
    return 0;
}

static size_t decompress(size_t expected, size_t size, size_t *buf_size, void **buf)
{
    const unsigned long long stated = ZSTD_getFrameContentSize(*buf, size);
    if (stated == ZSTD_CONTENTSIZE_UNKNOWN || stated == ZSTD_CONTENTSIZE_ERROR) return 0;
    if (stated == 0 || stated > H5Z_ZSTD_CHUNK_BYTES_MAX) return 0;
    if (expected != 0 && stated != expected) return 0;
    void *out = H5allocate_memory((size_t)stated, 0);
    if (out == NULL) return 0;
    const size_t written = ZSTD_decompress(out, (size_t)stated, *buf, size);
    if (!ZSTD_isError(written) && written == stated)
        return replace(buf, buf_size, out, (size_t)stated, written);
    H5free_memory(out);
    return 0;
}

static size_t filter(unsigned flags, size_t value_count, const unsigned values[], size_t size,
                     size_t *buf_size, void **buf)
{
    if (flags & H5Z_FLAG_REVERSE)
        return decompress(value_count > 1 ? values[1] : 0, size, buf_size, buf);
    return compress(value_count > 0 ? (int)values[0] : ZSTD_CLEVEL_DEFAULT, size, buf_size, buf);
}

const H5Z_class2_t h5z_zstd_class = {
    .version = H5Z_CLASS_T_VERS,
    .id = H5Z_ZSTD_ID,
    .encoder_present = 1,
    .decoder_present = 1,
    .name = "zstd",
    .filter = filter,
};
