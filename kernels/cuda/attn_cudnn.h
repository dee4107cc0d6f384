/*
 * attn_cudnn.h - prefix attention by cuDNN: op_attn_fwd and op_attn_bwd of the CUDA backend where
 * cuDNN can do them. Exact, as two calls over parts of the same packed arrays (cudnn_pack.h).
 *
 *     TRY(attn_cudnn_open(&cudnn, &(struct attn_cudnn_options){ .capability = 90 }));
 *     rc = attn_cudnn_fwd(cudnn, dev, args);
 *     if (rc == ERR_UNSUPPORTED) rc = ...;            // our own kernel; the message says why
 *     attn_cudnn_close(cudnn);
 *
 * Can do: bf16, head_dim 64 or 128, as many key heads as query heads, q, k and v rows of 3*H*D,
 * segments of at most CUDNN_PACK_LEN_MAX rows (less when the deterministic backward pass would
 * want more than its share of memory), compute capability 9.0.
 *
 * ERR_UNSUPPORTED is returned before anything is written. A segment's results depend on that
 * segment's rows alone, to the bit, as long as cuDNN chooses the same engine for all lengths. dk
 * and dv of prefix rows are the rounded sum of two rounded parts. Plans are built on first use of
 * their shape, in a second or so of host time.
 *
 * One thread at a time; the CUDA device must be current.
 */
#ifndef KERNELS_CUDA_ATTN_CUDNN_H
#define KERNELS_CUDA_ATTN_CUDNN_H

#include "kernels/ops_attn.h"

#ifdef __cplusplus
extern "C" {
#endif

struct attn_cudnn;
struct buf;

struct attn_cudnn_options {
    const char *library;     /* NULL: libcudnn_graph.so.9 where the loader looks */
    int capability;          /* of the device: 90 */
    bool nondeterministic;   /* a backward pass whose dq may differ in the last bits each time */
    int64_t score_bytes_max; /* of the deterministic one's workspace; 0: 512 MiB */
};

/* For the current device. ERR_UNSUPPORTED: no cuDNN, a version or device that cannot; ERR_CUDA. */
MUST_USE err_t attn_cudnn_open(struct attn_cudnn **out, const struct attn_cudnn_options *options);
/* NULL allowed; nothing it has queued may still run. */
void attn_cudnn_close(struct attn_cudnn *c);

/* Append a line on the library, found or not, with no need of a device. `library` as above. */
MUST_USE err_t attn_cudnn_describe_library(struct buf *out, const char *library);

/* Queued in the compute queue of `dev`, which is the device of attn_cudnn_open. The arguments are
 * those that op_attn_fwd and op_attn_bwd have checked. */
MUST_USE err_t attn_cudnn_fwd(struct attn_cudnn *c, struct dev *dev,
                              const struct attn_fwd_args *args);
MUST_USE err_t attn_cudnn_bwd(struct attn_cudnn *c, struct dev *dev,
                              const struct attn_bwd_args *args);

/* Functions of the rows, heads and options alone, not of the segments; more rows, more bytes. */
int64_t attn_cudnn_fwd_scratch_bytes(const struct attn_cudnn *c, const struct attn_fwd_args *args);
int64_t attn_cudnn_bwd_scratch_bytes(const struct attn_cudnn *c, const struct attn_bwd_args *args);

/*
 * dk and dv of a group's prefix rows, set aside by the CONTEXT call, into dqkv: added to what the
 * TARGET call wrote there, or stored where it wrote nothing.
 */
struct attn_cudnn_context {
    void *dk, *dv;            /* bf16 at row 0, group 0 of dqkv, changed in place */
    const void *dkv;          /* bf16, rows of [dk of H*D | dv of H*D] */
    int64_t heads, head_dim;  /* head_dim a multiple of 8 */
    int64_t row_stride;       /* elements from row to row of dqkv */
    int64_t head_stride;      /* and from head to head */
    const int64_t *at_kv;     /* [count] on the device: first element of a sample in dqkv */
    const int64_t *at_dkv;    /* [count] on the device: and in dkv */
    const int32_t *key_count; /* [count] on the device: rows of a sample */
    const int32_t *alone;     /* [count] on the device: store, do not add */
    int64_t count;            /* samples, at most 65535 */
    int64_t keys_max;         /* rows of a sample at most */
};
MUST_USE err_t attn_cudnn_add_context(struct dev *dev, const struct attn_cudnn_context *args);

#ifdef __cplusplus
}
#endif
#endif
