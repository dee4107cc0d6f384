/*
 * mma_emu.h - mma.cuh on the host: the lanes of a warp meet, and one of them computes for all.
 * Eight products and what was there before are added exactly and cut off toward zero, which is how
 * matrix units were found to round (Fasi, Higham, Mikaitis, Pranesh 2021, "Numerical behavior of
 * NVIDIA tensor cores"): a bias that rounding to nearest would hide. They may add in other groups,
 * so that results agree within rounding and not to the bit.
 */
#ifndef KERNELS_EMU_MMA_EMU_H
#define KERNELS_EMU_MMA_EMU_H

#include "kernels/emu/emu.h"

namespace emu
{

inline float half_of(uint32_t pair, int which)
{
    return bf16_to_f32(static_cast<uint16_t>(pair >> (16 * which)));
}

inline float toward_zero(double x)
{
    const float nearest = static_cast<float>(x);
    const bool above = fabs(static_cast<double>(nearest)) > fabs(x);
    return __uint_as_float(__float_as_uint(nearest) - above);
}

/* c[0..15] += a[0..7] * b[0..7][0..15] */
inline void mma_row(float (&c)[16], const float *a, const float (*b)[16])
{
    double sum[16];
    for (int col = 0; col < 16; col++) sum[col] = static_cast<double>(c[col]);
    for (int k = 0; k < 8; k++)
        for (int col = 0; col < 16; col++) sum[col] += static_cast<double>(a[k] * b[k][col]);
    for (int col = 0; col < 16; col++) c[col] = toward_zero(sum[col]);
}

struct mma_part {
    float *left, *right;
    const uint32_t *a, *b;
};

inline void mma_work(void *const parts[32])
{
    float a[16][16], b[16][16], c[16][16]; /* a[row][k], b[k][col] */
    for (int lane = 0; lane < 32; lane++) {
        const mma_part &p = *static_cast<const mma_part *>(parts[lane]);
        const int g = lane / 4, t = lane % 4;
        for (int r = 0; r < 4; r++)
            for (int i = 0; i < 2; i++) {
                a[g + r % 2 * 8][2 * t + r / 2 * 8 + i] = half_of(p.a[r], i);
                b[2 * t + r % 2 * 8 + i][g + r / 2 * 8] = half_of(p.b[r], i);
            }
        for (int r = 0; r < 4; r++) {
            c[g + r / 2 * 8][2 * t + r % 2] = p.left[r];
            c[g + r / 2 * 8][2 * t + r % 2 + 8] = p.right[r];
        }
    }
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < 16; k += 8) mma_row(c[row], &a[row][k], &b[k]);
    for (int lane = 0; lane < 32; lane++) {
        const mma_part &p = *static_cast<const mma_part *>(parts[lane]);
        const int g = lane / 4, t = lane % 4;
        for (int r = 0; r < 4; r++) {
            p.left[r] = c[g + r / 2 * 8][2 * t + r % 2];
            p.right[r] = c[g + r / 2 * 8][2 * t + r % 2 + 8];
        }
    }
}

struct matrices_part {
    const bf16 *row;
    uint32_t *out;
    bool transposed;
};

inline void matrices_work(void *const parts[32])
{
    for (int m = 0; m < 4; m++) {
        const void *rows[8];
        for (int r = 0; r < 8; r++)
            rows[r] = static_cast<const matrices_part *>(parts[8 * m + r])->row;
        require_banks(rows, "ldmatrix");
    }
    for (int lane = 0; lane < 32; lane++) {
        const matrices_part &p = *static_cast<const matrices_part *>(parts[lane]);
        const int g = lane / 4, t = lane % 4;
        for (int m = 0; m < 4; m++) {
            uint32_t pair = 0;
            for (int i = 0; i < 2; i++) {
                const int row = p.transposed ? 2 * t + i : g, col = p.transposed ? g : 2 * t + i;
                const bf16 *from = static_cast<const matrices_part *>(parts[8 * m + row])->row;
                pair |= static_cast<uint32_t>(from[col].bits) << (16 * i);
            }
            p.out[m] = pair;
        }
    }
}

} // namespace emu

inline void mma_16x16x16(float (&left)[4], float (&right)[4], const uint32_t (&a)[4],
                         const uint32_t (&b)[4])
{
    emu::mma_part part = { left, right, a, b };
    emu::warp_together(&part, emu::mma_work, "mma");
}

inline void load_matrices(uint32_t (&out)[4], const bf16 *row)
{
    emu::require_shared(row, 16, "ldmatrix");
    emu::matrices_part part = { row, out, false };
    emu::warp_together(&part, emu::matrices_work, "ldmatrix");
}

inline void load_matrices_transposed(uint32_t (&out)[4], const bf16 *row)
{
    emu::require_shared(row, 16, "ldmatrix.trans");
    emu::matrices_part part = { row, out, true };
    emu::warp_together(&part, emu::matrices_work, "ldmatrix.trans");
}

inline uint32_t round_pair(float low, float high)
{
    return to_bf16(low).bits | static_cast<uint32_t>(to_bf16(high).bits) << 16;
}

#endif
