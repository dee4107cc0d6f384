/*
 * dev.h - one compute device: its memory, its stream and its table of operators.
 *
 *     struct dev *dev;
 *     TRY(dev_open(&dev, "cpu", 2));
 *     TRY_DONE(dev_alloc(dev, &data, bytes, "activations"));
 *     TRY_DONE(op_linear_fwd(dev, &(struct linear_fwd_args){ .y = &y, .x = &x, .w = &w }));
 *     TRY_DONE(dev_sync(dev));
 *     dev_close(dev);
 *
 * The operator contract. It holds for every op_* function unless its own comment says otherwise:
 *   - tensors are row-major, live on `dev`, and start at addresses that are multiples of 16 bytes;
 *     a row stride wider than the row is accepted where the comment says "strided";
 *   - all floating tensors of one call have one dtype T; statistics have dtype_accumulator(T);
 *     sums are kept in dtype_accumulator(T) or wider; results are rounded once;
 *   - outputs are overwritten; an output whose name ends in _acc is added to;
 *   - an output overlaps no input and no other output, except where "may alias" is written;
 *   - work is queued on dev's stream and the call returns at once; the args struct and the tensor
 *     structs may be reused immediately, the data they point to may not;
 *   - an operator allocates nothing; scratch is passed in, as large as op_<name>_scratch_bytes says
 *     for the same shapes, with undefined contents before and after; more rows, targets or longer
 *     segments never ask for less, so that scratch for the largest micro-batch serves all;
 *   - same inputs, same device, same build: same bits out, for any number of threads;
 *   - arguments are checked before the first write, so an error from the checks leaves every output
 *     untouched: ERR_SHAPE, ERR_DTYPE (tensor named), ERR_ARG (a scalar out of range, misaligned
 *     data, too little scratch), ERR_UNSUPPORTED (this backend has no such operator or dtype);
 *   - a tensor pointer that must be there and is NULL is a programmer's error: ASSERT;
 *   - sizes may be 0 rows: nothing is computed, _acc outputs stay.
 */
#ifndef KERNELS_DEV_H
#define KERNELS_DEV_H

#include "base/err.h"
#include "base/trace.h"
#include "kernels/tensor.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Every operator, once. A backend without one leaves NULL, and test_kernels_ops names it. */
#define OPS_LIST(X)                                                                             \
    X(embed_fwd)                                                                                \
    X(embed_bwd)                                                                                \
    X(residual_norm_fwd)                                                                        \
    X(residual_norm_bwd)                                                                        \
    X(linear_fwd)                                                                               \
    X(linear_bwd)                                                                               \
    X(act_fwd)                                                                                  \
    X(rotary)                                                                                   \
    X(attn_fwd)                                                                                 \
    X(attn_bwd)                                                                                 \
    X(kv_store)                                                                                 \
    X(decode_attn)                                                                              \
    X(linear_ce)                                                                                \
    X(sumsq_chunks)                                                                             \
    X(adamw_segments)                                                                           \
    X(cast)                                                                                     \
    X(add)

struct buf;
struct dev;
#define X(op) struct op##_args;
OPS_LIST(X)
#undef X

/* Working memory of one call. */
struct scratch {
    void *data; /* 64-byte aligned */
    int64_t bytes;
};

struct ops_table {
    const char *name; /* "cpu", "cuda", "ref" */
#define X(op)                                                                                   \
    err_t (*op)(struct dev *dev, const struct op##_args *args);                                 \
    int64_t (*op##_scratch)(const struct dev *dev, const struct op##_args *args); /* NULL: 0 */
    OPS_LIST(X)
#undef X
    /* The backend's best product, see probe.h; NULL: none. */
    err_t (*probe_gemm)(double *flop_per_s, struct dev *dev, int64_t n, double seconds);
};

/* Queues of one device: each runs its work in order, beside the others; events order them. */
enum dev_queue {
    DEV_COMPUTE, /* operators, dev_upload, dev_download, dev_zero */
    DEV_IN,      /* copies to the device beside computation */
    DEV_OUT,     /* copies from it */
    DEV_QUEUES
};

/* A point in a queue's work. */
struct dev_event;

/* Memory and queues of a backend; the dev_* functions below say what each promises. Sizes in bytes;
 * `what` names the buffer in messages. */
struct dev_memory {
    err_t (*alloc)(struct dev *dev, void **out, int64_t bytes, const char *what);
    void (*free)(struct dev *dev, void *data);
    err_t (*host_alloc)(struct dev *dev, void **out, int64_t bytes, const char *what);
    void (*host_free)(struct dev *dev, void *data);
    err_t (*upload)(struct dev *dev, void *to_dev, const void *from_host, int64_t bytes);
    err_t (*download)(struct dev *dev, void *to_host, const void *from_dev, int64_t bytes);
    err_t (*copy)(struct dev *dev, enum dev_queue queue, void *to, const void *from,
                  int64_t bytes);
    err_t (*zero)(struct dev *dev, void *data, int64_t bytes);
    err_t (*sync)(struct dev *dev);
    err_t (*event_create)(struct dev *dev, struct dev_event **out);
    void (*event_destroy)(struct dev *dev, struct dev_event *event);
    err_t (*event_record)(struct dev *dev, struct dev_event *event, enum dev_queue queue);
    err_t (*event_wait)(struct dev *dev, struct dev_event *event, enum dev_queue queue);
    err_t (*event_sync)(struct dev *dev, struct dev_event *event);
    void (*span_begin)(struct dev *dev, const char *name); /* NULL: work is done when queued */
    void (*span_end)(struct dev *dev);
};

/* What a device is: for messages, plans and benchmark reports. */
struct dev_info {
    char name[80];              /* "NVIDIA H200", or the processor's */
    int64_t memory_bytes;       /* in all */
    int64_t memory_free_bytes;  /* when it was opened */
    int capability;             /* 90 for compute capability 9.0; 0: not a GPU */
    int multiprocessors;        /* 0: not a GPU */
    bool planned; /* stands for a device like this, which may not be here: only to be asked for
                     scratch (train/plan_dev.h) */
};

/* What a device has done so far; benchmarks and the no-allocation test read it. */
struct dev_stats {
    double gemm_s;           /* wall time inside matrix products (cpu: measured; cuda: 0) */
    double gemm_flop;        /* 2*M*N*K summed over them */
    int64_t alloc_count;     /* calls of dev_alloc */
    int64_t alloc_bytes;     /* now allocated */
    int64_t alloc_bytes_max; /* high-water mark */
};

struct dev {
    const struct ops_table *ops;
    const struct dev_memory *memory;
    const struct backend *backend; /* backend.h; NULL: compiled in */
    void *state;                   /* the backend's own */
    int threads;                   /* OpenMP threads on the host, >= 1 */
    struct dev_info info;
    struct dev_stats stats;
};

/*
 * "cpu"; "cuda" or "cuda:N"; "emu", the CUDA backend's own kernels run on the host, slowly, for
 * tests. All but "cpu" are libraries of their own, loaded here (backend.h).
 * threads = 0: all cores this process may use.
 * Yours; dev_close it (NULL allowed) after everything allocated on it was freed.
 * ERR_UNSUPPORTED: not in this build; ERR_CUDA: no such device, or one that is too old;
 * ERR_USAGE: another name.
 */
MUST_USE err_t dev_open(struct dev **out, const char *name, int threads);
void dev_close(struct dev *dev);

/*
 * Which measured choices (algorithms of matrix products) this card and its libraries have, as text,
 * appended: nothing where the backend measures nothing, or nothing yet. Results have the same bits
 * where these, the build, the card and its libraries are the same, so checkpoints hold the text.
 */
MUST_USE err_t dev_tuning_write(struct buf *out, struct dev *dev);
/* Use the choices of such a text, where they are of this card and these libraries, before all
 * others. ERR_FORMAT: it is none. */
MUST_USE err_t dev_tuning_adopt(struct dev *dev, const char *text, int64_t size);

/* A host device with another table of operators over plain memory: for the tests' reference. */
void dev_init_host(struct dev *dev, const struct ops_table *ops, int threads);

/* Zeroed, 64-byte aligned. ERR_NOMEM: "<what>: <bytes> bytes wanted, ...". */
MUST_USE err_t dev_alloc(struct dev *dev, void **out, int64_t bytes, const char *what);
void dev_free(struct dev *dev, void *data); /* NULL allowed */
/* Host memory that copies can reach beside computation (page-locked); zeroed. */
MUST_USE err_t dev_host_alloc(struct dev *dev, void **out, int64_t bytes, const char *what);
void dev_host_free(struct dev *dev, void *data); /* NULL allowed */

/* To the device, in the compute queue's order; the host memory may be reused at once. */
MUST_USE err_t dev_upload(struct dev *dev, void *to_dev, const void *from_host, int64_t bytes);
/* To the host; waits until the bytes are there. */
MUST_USE err_t dev_download(struct dev *dev, void *to_host, const void *from_dev, int64_t bytes);
/* Queue a copy between device and device, or device and dev_host_alloc's memory, either way. Both
 * sides stay untouched until an event says that it is done. */
MUST_USE err_t dev_copy(struct dev *dev, enum dev_queue queue, void *to, const void *from,
                        int64_t bytes);
MUST_USE err_t dev_zero(struct dev *dev, void *data, int64_t bytes);
/* Wait for all queues. Failures of queued work appear here at the latest. */
MUST_USE err_t dev_sync(struct dev *dev);

/* Yours; destroy it before the device is closed (NULL allowed). */
MUST_USE err_t dev_event_create(struct dev *dev, struct dev_event **out);
void dev_event_destroy(struct dev *dev, struct dev_event *event);
/* The event now stands for everything queued in `queue` so far; it may be recorded again. */
MUST_USE err_t dev_event_record(struct dev *dev, struct dev_event *event, enum dev_queue queue);
/* What is queued in `queue` from now on starts after the event. Never recorded: no wait. */
MUST_USE err_t dev_event_wait(struct dev *dev, struct dev_event *event, enum dev_queue queue);
/* The host waits for the event. */
MUST_USE err_t dev_event_sync(struct dev *dev, struct dev_event *event);

/*
 * A span of work queued in the compute queue, for the trace (base/trace.h): when the host queued it
 * and, on a device of its own, when it ran there. Spans nest; `name` is a literal. Costs one branch
 * when tracing is off.
 */
struct trace_span dev_span_begin(struct dev *dev, const char *name);
void dev_span_end(struct dev *dev, struct trace_span *span);

extern const struct ops_table ops_cpu;

#ifdef __cplusplus
}
#endif
#endif
