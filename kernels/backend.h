/*
 * backend.h - a backend as a library of its own: what kernels/dev.c loads, so that one program runs
 * with and without CUDA. The library holds operators and memory; errors, checks and fault points
 * are the program's, whose symbols it uses.
 *
 *     libsoulchat_cuda.so   the CUDA backend
 *     libsoulchat_emu.so    the same sources compiled for the host (kernels/emu), for tests
 *
 * Each exports soulchat_backend(). It is looked for beside the program, in ../lib from there, then
 * where the loader looks.
 */
#ifndef KERNELS_BACKEND_H
#define KERNELS_BACKEND_H

#include "kernels/dev.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct buf;
struct dev_comm_ops;

struct backend {
    const char *version; /* SOULCHAT_VERSION of the library's build */
    int64_t dev_bytes;   /* sizeof(struct dev): another layout is another build */
    int64_t table_bytes; /* sizeof(struct ops_table) */
    /* Fill dev->ops, memory, info and state. ERR_CUDA: one line with what is missing and what to
     * do: no driver, one too old, no device `index`, one this build has no code for. */
    err_t (*open)(struct dev *dev, int index);
    void (*close)(struct dev *dev);
    /* Append lines on libraries and devices found, for `soulchat doctor`. Finding none is no
     * error. */
    err_t (*describe)(struct buf *out);
    err_t (*tuning_write)(struct buf *out, struct dev *dev); /* dev_tuning_write */
    err_t (*tuning_adopt)(struct dev *dev, const char *text, int64_t size);
    const struct dev_comm_ops *comm; /* dev_comm.h; NULL: its devices do not exchange memory */
    bool host_memory; /* its devices' memory is the host's, and queued work is done when queued */
};

const struct backend *soulchat_backend(void);

#ifdef __cplusplus
}
#endif
#endif
