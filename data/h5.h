/*
 * h5.h - the little of HDF5 that shards need, with our errors. Internal to shard_*.c.
 *
 * HDF5 prints its own error stack unless told not to; here it is silenced and its innermost line is
 * put into our message.
 */
#ifndef DATA_H5_H
#define DATA_H5_H

#include "base/err.h"

#include <hdf5.h>
#include <stdint.h>

/* Silence this thread's error stack and register the zstd filter; call before anything else. */
MUST_USE err_t h5_init(void);

/* Raise `code` as "path: what: HDF5's own reason". Use through H5_DONE. */
err_t h5_raise(err_t code, const char *file, int line, const char *path, const char *what);

/* For an HDF5 call that is negative on failure; needs `err_t rc` and a label `done`. */
#define H5_DONE(call, code, path, what)                                                            \
    do {                                                                                           \
        if ((call) < 0) {                                                                          \
            rc = h5_raise(ERR_##code, __FILE__, __LINE__, path, what);                             \
            goto done;                                                                             \
        }                                                                                          \
    } while (0)

/* Attributes of the root group. `path` is for messages. Writers: ERR_NOMEM (files are built in
 * memory). */
MUST_USE err_t h5_write_text(hid_t file, const char *path, const char *name, const char *text);
MUST_USE err_t h5_write_i32(hid_t file, const char *path, const char *name, const int32_t *values,
                            int64_t count);
MUST_USE err_t h5_write_u64(hid_t file, const char *path, const char *name, uint64_t value);

/* Readers: ERR_FORMAT when absent, of another type, or larger than the room given. */
MUST_USE err_t h5_read_text(char *out, int64_t bytes, hid_t file, const char *path,
                            const char *name);
MUST_USE err_t h5_read_i32(int32_t *out, int32_t *count, int64_t count_max, hid_t file,
                           const char *path, const char *name);
MUST_USE err_t h5_read_u64(uint64_t *out, hid_t file, const char *path, const char *name);

#endif
