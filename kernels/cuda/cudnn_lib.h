/*
 * cudnn_lib.h - cuDNN's graph library opened at run time, the few functions used of it, and for
 * which device its plans are made. Nothing links against it: a machine without cuDNN runs our own
 * kernels.
 *
 *     struct cudnn_lib lib;
 *     TRY(cudnn_lib_open(&lib, NULL));
 *     TRY_DONE(cudnn_target_open(&target, &lib));          // the current CUDA device
 *     ...
 *     cudnn_target_close(&target);
 *     cudnn_lib_close(&lib);
 */
#ifndef KERNELS_CUDA_CUDNN_LIB_H
#define KERNELS_CUDA_CUDNN_LIB_H

#include "base/err.h"
#include "base/fault.h"

#include <cudnn_graph.h>

#include <stdint.h>

/* 9.10.2. Before 9.6 no ragged batches with a bottom-right diagonal; 9.6 to 9.9 want another
 * backward graph (a second padding mask); 9.10.0 and 9.10.1 have wrong gradients. */
#define CUDNN_LIB_VERSION_MIN 91002

#define CUDNN_FUNCTIONS(X)                                                                         \
    X(GetVersion)                                                                                  \
    X(GetCudartVersion)                                                                            \
    X(GetErrorString)                                                                              \
    X(GetLastErrorString)                                                                          \
    X(Create)                                                                                      \
    X(Destroy)                                                                                     \
    X(SetStream)                                                                                   \
    X(BackendCreateDescriptor)                                                                     \
    X(BackendDestroyDescriptor)                                                                    \
    X(BackendFinalize)                                                                             \
    X(BackendSetAttribute)                                                                         \
    X(BackendGetAttribute)                                                                         \
    X(BackendExecute)

struct cudnn_lib {
    void *library;   /* dlopen's; NULL: closed */
    int64_t version; /* 91900 is 9.19.0 */
#define X(name) decltype(&cudnn##name) name;
    CUDNN_FUNCTIONS(X)
#undef X
};

/*
 * path NULL: libcudnn_graph.so.9 where the loader looks. Not libcudnn.so.9, which only forwards its
 * calls to that one, and ends the program where it does not find it.
 * ERR_UNSUPPORTED, in one line with what was found, what is needed and what then happens: no such
 * library, not a cuDNN, a version that cudnn_lib_check_version refuses, or one made for a CUDA
 * whose cuBLASLt is not here.
 */
MUST_USE err_t cudnn_lib_open(struct cudnn_lib *lib, const char *path);
void cudnn_lib_close(struct cudnn_lib *lib); /* closing twice is allowed */

/* ERR_UNSUPPORTED: too old, known to be wrong, or not version 9. */
MUST_USE err_t cudnn_lib_check_version(int64_t version);

/*
 * What a status means: ERR_OK; ERR_UNSUPPORTED for cuDNN's NOT_SUPPORTED family (the caller has
 * another way); ERR_CUDA for the rest. The message names the object, the call, the status and
 * what cuDNN says of it.
 */
MUST_USE err_t cudnn_lib_verdict(const struct cudnn_lib *lib, cudnnStatus_t status,
                                 const char *object, const char *call);

/* Every call into the library that can fail goes through here. */
#define CUDNN_TRY(lib, object, function, ...)                                                      \
    do {                                                                                           \
        TRY(fault_point("cudnn." #function));                                                      \
        TRY(cudnn_lib_verdict((lib), (lib)->function(__VA_ARGS__), (object), #function));          \
    } while (0)

/* The device for which plans are built: a real one, by its handle, or one described in words, for
 * which plans can be built as far as loading their code but not run. */
struct cudnn_target {
    const struct cudnn_lib *lib;         /* borrowed; must live longer */
    cudnnHandle_t handle;                /* NULL: described */
    cudnnBackendDescriptor_t properties; /* NULL: real */
};

/* For the CUDA device that is current in this thread. */
MUST_USE err_t cudnn_target_open(struct cudnn_target *target, const struct cudnn_lib *lib);
/* For a device that need not be here; json is cuDNN's own description of one (9.8 and later). */
MUST_USE err_t cudnn_target_describe(struct cudnn_target *target, const struct cudnn_lib *lib,
                                     const char *json);
void cudnn_target_close(struct cudnn_target *target); /* closing twice is allowed */

#endif
