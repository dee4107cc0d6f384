/*
 * input_codec.h - one way of compression, as a table of functions. Internal to input.c.
 */
#ifndef DATA_INPUT_CODEC_H
#define DATA_INPUT_CODEC_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct input_step {
    const char *packed; /* [packed_size] in; moved on by what was used */
    int64_t packed_size;
    char *text; /* [text_size] out; moved on by what was written */
    int64_t text_size;
    bool frame_ended; /* out: this step finished a member or frame */
};

struct input_codec {
    const char *name;
    const char *unpack; /* the command that does it by hand, for messages */
    /* Do these first bytes begin a member or frame? */
    bool (*begins)(const char *bytes, int64_t size);
    MUST_USE err_t (*open)(void **decoder);
    /* One step; ERR_FORMAT with what is wrong, without the place. After frame_ended the next step
     * begins another frame. */
    MUST_USE err_t (*step)(void *decoder, struct input_step *s);
    void (*close)(void *decoder);
};

extern const struct input_codec input_gzip, input_zstd;

#endif
