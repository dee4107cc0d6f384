/* comm_nccl.h - GPUs exchanging memory through NCCL, as kernels/dev_comm.h asks for. */
#ifndef KERNELS_CUDA_COMM_NCCL_H
#define KERNELS_CUDA_COMM_NCCL_H

#include "kernels/dev_comm.h"

extern const struct dev_comm_ops comm_nccl_ops;

#endif
