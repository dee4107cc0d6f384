/*
 * nccl_api.h - the part of NCCL that comm_nccl.cc calls, declared here, so that a build needs no
 * nccl.h and a program no NCCL until it has several GPUs. The library is opened at run time; any
 * version from NCCL_OLDEST on will do. nccl_check.cc compares this with nccl.h where there is one.
 */
#ifndef KERNELS_CUDA_NCCL_API_H
#define KERNELS_CUDA_NCCL_API_H

#include <stddef.h>

#define NCCL_OLDEST 21801 /* 2.18.1 */

struct nccl_comm; /* ncclComm_t points at it */

struct nccl_id {
    char internal[128];
};

/* ncclResult_t */
enum {
    NCCL_SUCCESS = 0,
    NCCL_REMOTE_ERROR = 6,
    NCCL_IN_PROGRESS = 7,
};

/* ncclDataType_t */
enum { NCCL_UINT8 = 1 };

#define NCCL_UNDEFINED    (-2147483647 - 1)
#define NCCL_CONFIG_MAGIC 0xcafebeefu

/* ncclConfig_t as it was in NCCL_OLDEST; newer ones go by `version` and take defaults. */
struct nccl_config {
    size_t size;
    unsigned int magic;
    unsigned int version;
    int blocking;
    int cga_cluster_size;
    int min_ctas;
    int max_ctas;
    const char *net_name;
    int split_share;
};

/* name, its parameters */
#define NCCL_FUNCTIONS(X)                                                                          \
    X(int, ncclGetVersion, (int *version))                                                         \
    X(int, ncclGetUniqueId, (struct nccl_id * id))                                                 \
    X(int, ncclCommInitRankConfig,                                                                 \
      (struct nccl_comm * *comm, int size, struct nccl_id id, int rank,                            \
       struct nccl_config *config))                                                                \
    X(int, ncclCommGetAsyncError, (struct nccl_comm * comm, int *error))                           \
    X(int, ncclCommFinalize, (struct nccl_comm * comm))                                            \
    X(int, ncclCommDestroy, (struct nccl_comm * comm))                                             \
    X(int, ncclCommAbort, (struct nccl_comm * comm))                                               \
    X(int, ncclGroupStart, (void))                                                                 \
    X(int, ncclGroupEnd, (void))                                                                   \
    X(int, ncclSend,                                                                               \
      (const void *data, size_t count, int type, int peer, struct nccl_comm *comm, void *stream))  \
    X(int, ncclRecv,                                                                               \
      (void *data, size_t count, int type, int peer, struct nccl_comm *comm, void *stream))        \
    X(int, ncclBroadcast,                                                                          \
      (const void *send, void *recv, size_t count, int type, int root, struct nccl_comm *comm,     \
       void *stream))                                                                              \
    X(int, ncclAllGather,                                                                          \
      (const void *send, void *recv, size_t count, int type, struct nccl_comm *comm,               \
       void *stream))                                                                              \
    X(const char *, ncclGetErrorString, (int result))                                              \
    X(const char *, ncclGetLastError, (struct nccl_comm * comm))

struct nccl_api {
#define X(type, name, parameters) type(*name) parameters;
    NCCL_FUNCTIONS(X)
#undef X
};

#endif
