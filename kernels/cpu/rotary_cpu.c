/* Rotary positions, in place. */
#include "kernels/cpu/ops_cpu.h"
#include "kernels/ops_attn.h"

/* Pairs (j, j + quarter) of one half of a head. */
static void rotate_halves(float *restrict x, const float *restrict cos_row,
                          const float *restrict sin_row, float sign, int64_t quarter)
{
    float *restrict low = x, *restrict high = x + quarter;
#pragma omp simd
    for (int64_t j = 0; j < quarter; j++) {
        const float a = low[j], b = high[j], s = sign * sin_row[j];
        low[j] = a * cos_row[j] - b * s;
        high[j] = b * cos_row[j] + a * s;
    }
}

/* Pairs (2j, 2j+1). */
static void rotate_neighbours(float *restrict x, const float *restrict cos_row,
                              const float *restrict sin_row, float sign, int64_t quarter)
{
#pragma omp simd
    for (int64_t j = 0; j < quarter; j++) {
        const float a = x[2 * j], b = x[2 * j + 1], s = sign * sin_row[j];
        x[2 * j] = a * cos_row[j] - b * s;
        x[2 * j + 1] = b * cos_row[j] + a * s;
    }
}

static void rotate_heads(const struct rotary_args *a, int64_t r, int64_t offset, int64_t stride,
                         int64_t heads)
{
    const int64_t D = a->layout.head_dim, quarter = D / 4;
    const float sign = a->inverse ? -1.0f : 1.0f;
    const int64_t pos = i32_data(a->pos)[r];
    const float *cos_pos = f32_row(a->cos, pos), *sin_pos = f32_row(a->sin, pos);
    float *row = f32_row(a->qkv, r) + offset;

    if (a->kind == ROTARY_HALF_INTERLEAVED) {
        for (int64_t h = 0; h < heads; h++)
            rotate_neighbours(row + h * stride, cos_pos, sin_pos, sign, quarter);
        return;
    }
    const int64_t block = i32_data(a->block)[r];
    const float *cos_block = f32_row(a->cos, block), *sin_block = f32_row(a->sin, block);
    for (int64_t h = 0; h < heads; h++) {
        rotate_halves(row + h * stride, cos_pos, sin_pos, sign, quarter);
        rotate_halves(row + h * stride + D / 2, cos_block, sin_block, sign, quarter);
    }
}

err_t rotary_cpu(struct dev *dev, const struct rotary_args *a)
{
    TRY(cpu_require_f32(a->qkv));
    const struct qkv_layout *l = &a->layout;
    const int64_t R = a->qkv->dim[0], P = a->cos->dim[0];
    const int32_t *pos = i32_data(a->pos);
    const int32_t *block = a->kind == ROTARY_TWO_STREAM ? i32_data(a->block) : pos;

#pragma omp parallel for num_threads(dev->threads) schedule(static)
    for (int64_t r = 0; r < R; r++) {
        ASSERT(pos[r] >= 0 && pos[r] < P && block[r] >= 0 && block[r] < P);
        rotate_heads(a, r, l->q_offset, l->q_stride, l->heads);
        rotate_heads(a, r, l->k_offset, l->k_stride, l->kv_heads);
    }
    return ERR_OK;
}
