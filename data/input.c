#include "data/input.h"

#include "base/check.h"
#include "base/num.h"
#include "data/input_codec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PACKED_BYTES ((int64_t)256 << 10)
#define MAGIC_BYTES  4 /* enough for every codec's `begins` */

static const struct input_codec *const codecs[] = { &input_gzip, &input_zstd };

/* ---- the bytes as they lie there ---- */

static err_t read_raw(struct input *in, void *bytes, int64_t size, int64_t *got)
{
    const int64_t n = min_i64(size, in->size - in->offset);
    *got = 0;
    if (n <= 0) return ERR_OK;
    if (in->memory != NULL)
        memcpy(bytes, in->memory + in->offset, (size_t)n);
    else
        TRY(file_reader_pread(&in->file, bytes, n, in->offset));
    in->offset += n;
    *got = n;
    return ERR_OK;
}

static err_t detect_codec(struct input *in)
{
    char magic[MAGIC_BYTES];
    int64_t got;
    TRY(read_raw(in, magic, sizeof magic, &got));
    in->offset = 0;
    for (int64_t i = 0; i < COUNT_OF(codecs); i++)
        if (codecs[i]->begins(magic, got)) in->codec = codecs[i];
    if (in->codec == NULL) return ERR_OK;
    in->packed = malloc((size_t)min_i64(PACKED_BYTES, in->size));
    if (in->packed == NULL) RAISE(NOMEM, "a buffer for %s", in->file.path);
    return in->codec->open(&in->decoder);
}

err_t input_open(struct input *in, const char *path)
{
    *in = (struct input){ .file = { .fd = -1 } };
    TRY(file_reader_open(&in->file, path));
    in->size = in->file.size;
    const err_t rc = detect_codec(in);
    if (rc != ERR_OK) input_close(in);
    return rc;
}

err_t input_open_memory(struct input *in, const char *name, const void *bytes, int64_t size)
{
    *in = (struct input){ .file = { .fd = -1 }, .memory = bytes, .size = size };
    if (bytes == NULL) in->memory = "";
    snprintf(in->file.path, sizeof in->file.path, "%s", name);
    const err_t rc = detect_codec(in);
    if (rc != ERR_OK) input_close(in);
    return rc;
}

void input_close(struct input *in)
{
    if (in->decoder != NULL) in->codec->close(in->decoder);
    free(in->packed);
    if (in->memory == NULL) file_reader_close(&in->file);
    *in = (struct input){ .file = { .fd = -1 } };
}

/* ---- what they decompress to ---- */

static int64_t packed_left(const struct input *in) { return in->packed_size - in->packed_at; }

static err_t refill(struct input *in)
{
    if (packed_left(in) > 0) return ERR_OK;
    in->packed_at = 0;
    return read_raw(in, in->packed, min_i64(PACKED_BYTES, in->size), &in->packed_size);
}

static err_t raise_broken(const struct input *in, const char *what)
{
    char text[160];
    snprintf(text, sizeof text, "%s", what); /* may be the last error's own text */
    RAISE(FORMAT, "%s: %s stream broken near byte %lld of %lld (byte %lld of its text): %s",
          in->file.path, in->codec->name, (long long)input_position(in), (long long)in->size,
          (long long)in->text_bytes, text);
}

static err_t check_ratio(const struct input *in)
{
    if (in->text_bytes <= INPUT_RATIO_FREE_BYTES ||
        in->text_bytes / INPUT_RATIO_MAX <= input_position(in))
        return ERR_OK;
    RAISE(FORMAT,
          "%s: %lld bytes of %s became %lld, more than %d times as many: not a corpus; if it is "
          "one, unpack it first: %s",
          in->file.path, (long long)input_position(in), in->codec->name, (long long)in->text_bytes,
          INPUT_RATIO_MAX, in->codec->unpack);
}

/* One step of the decoder into text[size]; *made = 0 with bytes left to use is progress too. */
static err_t decode_some(struct input *in, char *text, int64_t size, int64_t *made)
{
    struct input_step s = { in->packed + in->packed_at, packed_left(in), text, size, false };
    const err_t rc = in->codec->step(in->decoder, &s);
    const int64_t used = packed_left(in) - s.packed_size;
    *made = size - s.text_size;
    in->packed_at += used;
    in->text_bytes += *made;
    if (rc == ERR_FORMAT) return raise_broken(in, err_last()->text);
    TRY(rc);
    in->in_frame = !s.frame_ended;
    if (used == 0 && *made == 0 && !s.frame_ended)
        return raise_broken(in, "the decoder stands still");
    return check_ratio(in);
}

/* A frame must begin here: bytes that are something else would be dropped in silence. */
static err_t check_frame(struct input *in)
{
    if (packed_left(in) < MAGIC_BYTES && in->offset < in->size) {
        const int64_t kept = packed_left(in);
        int64_t got;
        memmove(in->packed, in->packed + in->packed_at, (size_t)kept);
        in->packed_at = 0;
        in->packed_size = kept;
        TRY(read_raw(in, in->packed + kept, min_i64(PACKED_BYTES, in->size) - kept, &got));
        in->packed_size += got;
    }
    if (!in->codec->begins(in->packed + in->packed_at, packed_left(in)))
        return raise_broken(in, "what follows the compressed data is not compressed");
    return ERR_OK;
}

static err_t read_packed(struct input *in, char *bytes, int64_t size, int64_t *got)
{
    while (*got < size) {
        int64_t made;
        TRY(refill(in));
        if (packed_left(in) == 0 && !in->in_frame) return ERR_OK;
        if (packed_left(in) > 0 && !in->in_frame) TRY(check_frame(in));
        /* With nothing left to use, the decoder may still hold text it had no room for. */
        const bool drained = packed_left(in) == 0;
        const err_t rc = decode_some(in, bytes + *got, size - *got, &made);
        if (drained && rc == ERR_FORMAT && made == 0)
            return raise_broken(in, "the file is cut: its end is missing");
        TRY(rc);
        *got += made;
    }
    return ERR_OK;
}

err_t input_read(struct input *in, void *bytes, int64_t size, int64_t *got)
{
    *got = 0;
    if (in->codec != NULL) return read_packed(in, bytes, size, got);
    TRY(read_raw(in, bytes, size, got));
    in->text_bytes += *got;
    return ERR_OK;
}

const char *input_codec_name(const struct input *in)
{
    return in->codec != NULL ? in->codec->name : "plain";
}

int64_t input_position(const struct input *in) { return in->offset - packed_left(in); }
