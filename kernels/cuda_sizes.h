/*
 * cuda_sizes.h - memory that the CUDA backend's operators set aside in their scratch for NVIDIA's
 * libraries and for pieces of matrices: for the backend, and for plans that are made where it is
 * not (train/plan_dev.c). The emulator has less of both, so that tests meet pieces, unless it
 * stands for a card (dev_info.planned).
 */
#ifndef KERNELS_CUDA_SIZES_H
#define KERNELS_CUDA_SIZES_H

#include "base/num.h"

#include <stdint.h>

/* Of a product: what NVIDIA recommends for Hopper; smaller cards get by with less, at no gain worth
 * a rule. */
#define CUDA_GEMM_WORKSPACE_BYTES (INT64_C(32) << 20)
/* Of a matrix that waits between a product and its result, and of a matrix that is widened. */
#define CUDA_GEMM_PIECE_BYTES (INT64_C(256) << 20)

/* Targets whose float32 logits, of `row_bytes` each, are held at a time: as many as fit four
 * pieces, 128 to 4096. The weights are read three times for each such chunk and their gradient once
 * more, so it should be long: 2048 targets of ChatGLM-6B's 130,528 words are 1.07 GB. */
static inline int64_t cuda_logits_targets(int64_t targets, int64_t row_bytes, int64_t piece_bytes)
{
    const int64_t fit = 4 * piece_bytes / row_bytes / 128 * 128;
    return min_i64(targets, min_i64(4096, max_i64(128, fit)));
}

/* cuDNN's attention: what plans want beside their scores (17 KiB in the versions that were
 * measured), and the scores of its deterministic backward pass. */
#define CUDNN_WORKSPACE_BYTES (INT64_C(1) << 20)
#define CUDNN_SCORE_BYTES_MAX (INT64_C(512) << 20)
/* Arrays of offsets and lengths: what a row of the micro-batch adds at most. */
#define CUDNN_BLOCK_BYTES_PER_ROW 760
/* Prefix rows whose dk and dv are set aside at a time. */
#define CUDNN_CONTEXT_ROWS_MAX 4096

#endif
