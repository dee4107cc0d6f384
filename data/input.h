/*
 * input.h - the bytes of a file as if it were not compressed: plain, gzip or zstd, told apart by
 * their first bytes and not by the name.
 *
 *     struct input in;
 *     rc = input_open(&in, "smilechat.jsonl.zst");
 *     while (rc == ERR_OK && (rc = input_read(&in, bytes, sizeof bytes, &got)) == ERR_OK && got)
 *         use(bytes, got);
 *     input_close(&in);
 *
 * Several gzip members or zstd frames one after another, also skippable ones, are one stream, as
 * for gunzip and zstd. Checksums are verified where the file has them. Memory is bounded: two
 * buffers and the decoder's window, at most 128 MiB where a zstd frame was made with --long.
 *
 * A stream that is cut, broken or followed by other bytes is ERR_FORMAT with the position in the
 * compressed file and in the text; so is one that grows beyond INPUT_RATIO_MAX times its compressed
 * size once it is larger than INPUT_RATIO_FREE_BYTES: that is a bomb and not a corpus (dialogues
 * shrink to a fifth, at best to a tenth).
 */
#ifndef DATA_INPUT_H
#define DATA_INPUT_H

#include "base/err.h"
#include "base/file.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define INPUT_RATIO_MAX        200
#define INPUT_RATIO_FREE_BYTES ((int64_t)64 << 20)

struct input_codec;

struct input {
    struct file_reader file;         /* closed where memory is read */
    const char *memory;              /* or NULL */
    int64_t size;                    /* of the file as it lies there */
    int64_t offset;                  /* next unread byte of it */
    int64_t text_bytes;              /* given out so far */
    const struct input_codec *codec; /* NULL: not compressed */
    void *decoder;                   /* the codec's own */
    char *packed;                    /* compressed bytes on their way into the decoder */
    int64_t packed_at, packed_size;
    bool in_frame; /* between the first and the last byte of a member or frame */
};

/* ERR_NOTFOUND; ERR_IO, also for what is not a regular file; ERR_UNSUPPORTED for packed files where
 * the build leaves out the libraries (data/input_none.c). */
MUST_USE err_t input_open(struct input *in, const char *path);
/* The same from memory, which must outlive it; `name` is for messages. */
MUST_USE err_t input_open_memory(struct input *in, const char *name, const void *bytes,
                                 int64_t size);
/* Exactly `size` bytes, fewer only at the end. ERR_FORMAT, ERR_IO, ERR_NOMEM. */
MUST_USE err_t input_read(struct input *in, void *bytes, int64_t size, int64_t *got);
/* "plain", "gzip", "zstd". */
const char *input_codec_name(const struct input *in);
/* Bytes of the file, as it lies there, that were used: for progress. */
int64_t input_position(const struct input *in);
/* Safe after a failure to open, and on a zeroed struct. */
void input_close(struct input *in);

#ifdef __cplusplus
}
#endif
#endif
