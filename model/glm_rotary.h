/*
 * glm_rotary.h - the table of rotary angles, in the rounding the weights were trained with.
 *
 * For a head of width D each stream rotates a half, D/2 wide, in D/4 pairs: pair j of position p
 * turns by
 *     angle[p,j] = p * inv_freq[j],   inv_freq[j] = 10000^(-2j/(D/2))      j < D/4
 * inv_freq is a half-precision buffer of the reference and is rounded to fp16 in both modes. Then
 *     fp32_angle  product, cosine and sine in float32: the reference after .float()
 *     fp16_angle  p, the product, cosine and sine rounded to fp16: the reference in half precision,
 *                 as published weights were trained. The angle is off by up to 0.3 rad at position
 *                 2047, so the two are different models.
 * The table is float32 either way; another accumulator dtype widens it, which is exact.
 *
 * Source: RotaryEmbedding of THUDM/chatglm-6b, modeling_chatglm.py; Su et al. 2021,
 * arXiv:2104.09864.
 */
#ifndef MODEL_GLM_ROTARY_H
#define MODEL_GLM_ROTARY_H

#include "model/glm_config.h"

#include <stdint.h>

/* inv_freq of pair j of `pairs`, in float32: not rounded yet. */
float glm_rotary_frequency(int64_t j, int64_t pairs);

/* cosine and sine: [positions, head_dim/4], row-major, the caller's; head_dim a multiple of 4. */
void glm_rotary_table(float *cosine, float *sine, enum glm_rotary rounding, int64_t positions,
                      int64_t head_dim);

#endif
