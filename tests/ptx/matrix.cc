/*
 * Matrices over the lanes of a warp. With g = lane/4 and t = lane%4, of each register's two numbers
 * the one in the low half first:
 *     ldmatrix      matrix m: (row g, 2t..2t+1); transposed (row 2t.., column g)
 *     mma.m16n8k16  a: (g, 2t..) (g+8, 2t..) (g, 2t+8..) (g+8, 2t+8..)   b: (2t.., g) (2t+8.., g)
 *                   c: (g, 2t) (g, 2t+1) (g+8, 2t) (g+8, 2t+1)
 */
#include "ptx/operations.h"

namespace ptx
{

namespace
{

void require_whole(const warp &w)
{
    if (w.lanes != ALL_LANES) fault(w, -1, "wants all 32 lanes, has " + hex(w.lanes));
}

/* Lane 8m+r holds the address of row r, 16 bytes, of matrix m. */
template <bool TRANSPOSED> void load_matrices(warp &w, const inst &i)
{
    if (!together(w, w.alive)) return;
    require_whole(w);
    uint64_t row[WARP];
    each_lane(ALL_LANES, [&](int lane) {
        row[lane] = address(w, i, i.at[4], lane);
        if (row[lane] % 16 != 0)
            fault(w, lane, "row at " + std::to_string(row[lane]) + " is misaligned");
    });
    for (int m = 0; m < 4; m++)
        each_lane(ALL_LANES, [&](int lane) {
            const int g = lane / 4, t = lane % 4;
            uint16_t pair[2];
            for (int k = 0; k < 2; k++) {
                const int r = TRANSPOSED ? 2 * t + k : g, c = TRANSPOSED ? g : 2 * t + k;
                const uint64_t at = row[8 * m + r] + 2 * static_cast<uint64_t>(c);
                if (!w.home->shared.read(&pair[k], at, 2, w.index * WARP + lane))
                    fault(w, lane, w.home->shared.wrong());
            }
            put(w, i.at[m], lane, static_cast<uint32_t>(pair[1]) << 16 | pair[0]);
        });
}

float from_bf16(uint32_t bits)
{
    bits <<= 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* d = a b + c. Products are exact; in which order and with which roundings they are summed is not
 * specified: here exactly enough, then rounded once. */
void multiply(warp &w, const inst &i)
{
    if (!together(w, w.alive)) return;
    require_whole(w);
    float a[16][16], b[16][8];
    each_lane(ALL_LANES, [&](int lane) {
        const int g = lane / 4, t = lane % 4;
        for (int r = 0; r < 4; r++) {
            const uint32_t pair = get<uint32_t>(w, i.at[4 + r], lane);
            const int row = g + 8 * (r % 2), k = 2 * t + 8 * (r / 2);
            a[row][k] = from_bf16(pair & 0xffff);
            a[row][k + 1] = from_bf16(pair >> 16);
        }
        for (int r = 0; r < 2; r++) {
            const uint32_t pair = get<uint32_t>(w, i.at[8 + r], lane);
            const int k = 2 * t + 8 * r;
            b[k][g] = from_bf16(pair & 0xffff);
            b[k + 1][g] = from_bf16(pair >> 16);
        }
    });
    each_lane(ALL_LANES, [&](int lane) {
        const int g = lane / 4, t = lane % 4;
        for (int r = 0; r < 4; r++) {
            const int row = g + 8 * (r / 2), col = 2 * t + r % 2;
            double sum = get<float>(w, i.at[10 + r], lane);
            for (int k = 0; k < 16; k++) sum += static_cast<double>(a[row][k]) * b[k][col];
            put(w, i.at[r], lane, static_cast<float>(sum));
        }
    });
}

} // namespace

void add_matrix(operation_table &t)
{
    t.emplace("ldmatrix.sync.aligned.m8n8.x4.shared.b16",
              operation{ "wwwwm", load_matrices<false> });
    t.emplace("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16",
              operation{ "wwwwm", load_matrices<true> });
    t.emplace("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
              operation{ "wwwwwwwwwwwwww", multiply });
}

} // namespace ptx
