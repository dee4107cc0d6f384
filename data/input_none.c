/* Packed input of a build without zlib and zstd: it is recognised, and not read. */
#include "data/input_codec.h"

#include <string.h>

#define WITHOUT "this build unpacks nothing: configure with -DSOULCHAT_WITH_HDF5=ON, or first run "

static bool begins_gzip(const char *bytes, int64_t size)
{
    return size >= 2 && bytes[0] == '\x1f' && bytes[1] == '\x8b';
}

static bool begins_zstd(const char *bytes, int64_t size)
{
    return size >= 4 && memcmp(bytes, "\x28\xb5\x2f\xfd", 4) == 0;
}

static err_t open_gzip(void **decoder)
{
    *decoder = NULL;
    RAISE(UNSUPPORTED, "a file packed with gzip; " WITHOUT "gunzip -k FILE");
}

static err_t open_zstd(void **decoder)
{
    *decoder = NULL;
    RAISE(UNSUPPORTED, "a file packed with zstd; " WITHOUT "zstd -d FILE");
}

const struct input_codec input_gzip = { .name = "gzip", .begins = begins_gzip, .open = open_gzip };
const struct input_codec input_zstd = { .name = "zstd", .begins = begins_zstd, .open = open_zstd };
