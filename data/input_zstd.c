#include "data/input_codec.h"

#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

/* A frame, or one of the skippable frames that other programs put in front. */
static bool begins(const char *bytes, int64_t size)
{
    if (size < 4) return false;
    return memcmp(bytes, "\x28\xb5\x2f\xfd", 4) == 0 ||
           ((bytes[0] & 0xf0) == 0x50 && memcmp(bytes + 1, "\x2a\x4d\x18", 3) == 0);
}

static err_t open_decoder(void **decoder)
{
    *decoder = ZSTD_createDStream();
    if (*decoder == NULL) RAISE(NOMEM, "a zstd decoder");
    return ERR_OK;
}

static err_t step(void *decoder, struct input_step *s)
{
    ZSTD_inBuffer in = { s->packed, (size_t)s->packed_size, 0 };
    ZSTD_outBuffer out = { s->text, (size_t)s->text_size, 0 };
    const size_t rc = ZSTD_decompressStream(decoder, &out, &in);
    s->packed += in.pos;
    s->packed_size -= (int64_t)in.pos;
    s->text += out.pos;
    s->text_size -= (int64_t)out.pos;
    s->frame_ended = rc == 0;
    if (!ZSTD_isError(rc)) return ERR_OK;
    if (ZSTD_getErrorCode(rc) == ZSTD_error_memory_allocation) RAISE(NOMEM, "zstd: no memory");
    RAISE(FORMAT, "%s", ZSTD_getErrorName(rc));
}

static void close_decoder(void *decoder) { ZSTD_freeDStream(decoder); }

const struct input_codec input_zstd = {
    .name = "zstd",
    .unpack = "zstd -d FILE",
    .begins = begins,
    .open = open_decoder,
    .step = step,
    .close = close_decoder,
};
