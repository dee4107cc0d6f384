/*
 * dev_cuda.h - what one opened CUDA device holds beyond the runtime, and helpers for the files with
 * operators. Private to kernels/cuda.
 */
#ifndef KERNELS_CUDA_DEV_CUDA_H
#define KERNELS_CUDA_DEV_CUDA_H

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/timeline.h"

#define UPLOAD_SLOTS 2
#define UPLOAD_BYTES (INT64_C(4) << 20)

struct gemm_lib;   /* gemm.h */
struct attn_cudnn; /* attn_cudnn.h */
struct attn_path;  /* attn.h */

/* Memory by address: the device's, so that freeing knows the size, and page-locked memory. */
struct cuda_block {
    struct cuda_block *next;
    void *data;
    int64_t bytes;
};

struct dev_cuda {
    struct gpu gpu; /* first: dev->state is both */
    struct cuda_block *blocks, *host_blocks;
    void *staging[UPLOAD_SLOTS]; /* page-locked, UPLOAD_BYTES each */
    void *staged[UPLOAD_SLOTS];  /* events: the slot's copy is done */
    int64_t upload_count;
    struct timeline timeline;
    struct gemm_lib *gemm;
    struct attn_cudnn *cudnn;
    const struct attn_path *attn_library; /* attention by a library that was found; NULL: none */
    const char *attn_forced;              /* name of the only way to be taken; NULL: the fastest */
};

static inline struct dev_cuda *dev_cuda_of(const struct dev *dev)
{
    return (struct dev_cuda *)dev->state;
}

#endif
