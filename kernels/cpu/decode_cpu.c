/*
 * Attention of single new tokens over a cache. Bound by reading the cache once; the unit of work is
 * one key/value head of one sequence.
 */
#include "kernels/cpu/ops_cpu.h"
#include "kernels/cpu/vec_math.h"
#include "kernels/ops_attn.h"

#include <omp.h>
#include <string.h>

/* Position `position` of slot `slot`. */
static float *cache_row(const struct tensor *cache, int64_t slot, int64_t position)
{
    return (float *)cache->data + (slot * cache->dim[1] + position) * cache->dim[2];
}

err_t kv_store_cpu(struct dev *dev, const struct kv_store_args *a)
{
    TRY(cpu_require_f32(a->qkv));
    const struct qkv_layout *l = &a->layout;
    const size_t head_bytes = (size_t)l->head_dim * sizeof(float);

#pragma omp parallel for num_threads(dev->threads) schedule(static)
    for (int64_t i = 0; i < a->row_count; i++) {
        const float *row = f32_row(a->qkv, a->row_first + i);
        float *k = cache_row(a->k_cache, a->slot, a->position + i);
        float *v = cache_row(a->v_cache, a->slot, a->position + i);
        for (int64_t g = 0; g < l->kv_heads; g++) {
            memcpy(k + g * l->head_dim, row + l->k_offset + g * l->k_stride, head_bytes);
            memcpy(v + g * l->head_dim, row + l->v_offset + g * l->v_stride, head_bytes);
        }
    }
    return ERR_OK;
}

static float dot(const float *a, const float *b, int64_t count)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < count; c++) sum += a[c] * b[c];
    return sum;
}

static void attend(float *restrict out, const float *q, const float *k, const float *v,
                   int64_t cache_stride, int64_t count, int64_t D, float scale, float *score)
{
    for (int64_t j = 0; j < count; j++) score[j] = scale * dot(q, k + j * cache_stride, D);
    const float inverse = (float)(1.0 / vec_exp_minus(score, count, vec_max(score, count)));
    memset(out, 0, (size_t)D * sizeof *out);
    for (int64_t j = 0; j < count; j++) {
        const float p = score[j] * inverse;
        const float *v_row = v + j * cache_stride;
#pragma omp simd
        for (int64_t c = 0; c < D; c++) out[c] += p * v_row[c];
    }
}

static int64_t thread_floats(const struct decode_attn_args *a)
{
    return align_up(a->k_cache->dim[1], 16);
}

int64_t decode_attn_scratch_cpu(const struct dev *dev, const struct decode_attn_args *a)
{
    return dev->threads * thread_floats(a) * (int64_t)sizeof(float);
}

static void decode_group(const struct decode_attn_args *a, int64_t b, int64_t g, float *score)
{
    const struct qkv_layout *l = &a->layout;
    const int64_t D = l->head_dim, heads = l->heads / l->kv_heads;
    const int64_t slot = i32_data(a->slots)[b], len = i32_data(a->lens)[b];
    ASSERT(slot >= 0 && slot < a->k_cache->dim[0] && len >= 0 && len < a->k_cache->dim[1]);

    const float *row = f32_row(a->qkv, b);
    memcpy(cache_row(a->k_cache, slot, len) + g * D, row + l->k_offset + g * l->k_stride,
           (size_t)D * sizeof(float));
    memcpy(cache_row(a->v_cache, slot, len) + g * D, row + l->v_offset + g * l->v_stride,
           (size_t)D * sizeof(float));
    for (int64_t h = g * heads; h < (g + 1) * heads; h++)
        attend(f32_row(a->out, b) + h * D, row + l->q_offset + h * l->q_stride,
               cache_row(a->k_cache, slot, 0) + g * D, cache_row(a->v_cache, slot, 0) + g * D,
               a->k_cache->dim[2], len + 1, D, (float)a->scale, score);
}

err_t decode_attn_cpu(struct dev *dev, const struct decode_attn_args *a)
{
    TRY(cpu_require_f32(a->qkv));
    const int64_t B = a->qkv->dim[0], G = a->layout.kv_heads;

#pragma omp parallel num_threads(dev->threads)
    {
        float *score = (float *)a->scratch.data + omp_get_thread_num() * thread_floats(a);
#pragma omp for schedule(dynamic) collapse(2)
        for (int64_t b = 0; b < B; b++)
            for (int64_t g = 0; g < G; g++) decode_group(a, b, g, score);
    }
    return ERR_OK;
}
