#include "base/num.h"
#include "data/input_codec.h"

#include <limits.h>
#include <stdlib.h>
#include <zlib.h>

static bool begins(const char *bytes, int64_t size)
{
    return size >= 2 && bytes[0] == '\x1f' && bytes[1] == '\x8b';
}

static err_t open_decoder(void **decoder)
{
    z_stream *z = calloc(1, sizeof *z);
    if (z == NULL) RAISE(NOMEM, "a gzip decoder");
    if (inflateInit2(z, 15 + 16) != Z_OK) { /* the largest window, gzip's header and sum */
        free(z);
        RAISE(NOMEM, "a gzip decoder");
    }
    *decoder = z;
    return ERR_OK;
}

static err_t step(void *decoder, struct input_step *s)
{
    z_stream *z = decoder;
    const int64_t in = min_i64(s->packed_size, INT_MAX), out = min_i64(s->text_size, INT_MAX);
    z->next_in = (Bytef *)(uintptr_t)s->packed; /* zlib's field is not const; it only reads */
    z->avail_in = (uInt)in;
    z->next_out = (Bytef *)s->text;
    z->avail_out = (uInt)out;
    const int rc = inflate(z, Z_NO_FLUSH);
    const int64_t used = in - z->avail_in, made = out - z->avail_out;
    s->packed += used;
    s->packed_size -= used;
    s->text += made;
    s->text_size -= made;
    s->frame_ended = rc == Z_STREAM_END;
    if (rc == Z_MEM_ERROR) RAISE(NOMEM, "gzip: no memory");
    if (rc == Z_NEED_DICT) RAISE(FORMAT, "it needs a dictionary");
    if (rc != Z_OK && rc != Z_BUF_ERROR && rc != Z_STREAM_END)
        RAISE(FORMAT, "%s", z->msg != NULL ? z->msg : "broken data");
    if (s->frame_ended && inflateReset(z) != Z_OK) RAISE(NOMEM, "gzip: cannot begin again");
    return ERR_OK;
}

static void close_decoder(void *decoder)
{
    inflateEnd(decoder);
    free(decoder);
}

const struct input_codec input_gzip = {
    .name = "gzip",
    .unpack = "gunzip -k FILE",
    .begins = begins,
    .open = open_decoder,
    .step = step,
    .close = close_decoder,
};
