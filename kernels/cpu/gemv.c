#include "kernels/cpu/gemv.h"

#include "base/check.h"
#include "base/num.h"
#include "kernels/cpu/convert.h"

#include <string.h>

/* GCC and clang lower this to whatever registers the machine has. */
#define LANES 16
typedef float vec_t __attribute__((vector_size(LANES * sizeof(float))));

#define PANEL_COLS 4    /* rows of b in flight: enough streams to hide the latency of memory */
#define RUN        1024 /* elements of k taken at a time, so that widened rows stay in cache */

typedef vec_t panel_sums_t[GEMV_ROWS_MAX][PANEL_COLS];

static inline void load(vec_t *out, const float *from, int64_t count)
{
    if (count < LANES) *out = (vec_t){ 0 };
    memcpy(out, from, (size_t)(count < LANES ? count : LANES) * sizeof *from);
}

/* sums[i][j] += products of a row i with b row j over `count` elements, lane by lane. `rows` is a
 * constant in every caller, so that the loops over it unroll and the sums stay in registers. */
static inline __attribute__((always_inline)) void panel(panel_sums_t sums, const int rows,
                                                        const float *a, int64_t lda,
                                                        const float *const b[PANEL_COLS],
                                                        int64_t count)
{
    vec_t sum[GEMV_ROWS_MAX][PANEL_COLS];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < PANEL_COLS; j++) sum[i][j] = sums[i][j];
    for (int64_t at = 0; at < count; at += LANES) {
        vec_t b_vec[PANEL_COLS];
        for (int j = 0; j < PANEL_COLS; j++) load(&b_vec[j], b[j] + at, count - at);
        for (int i = 0; i < rows; i++) {
            vec_t a_vec;
            load(&a_vec, a + i * lda + at, count - at);
            for (int j = 0; j < PANEL_COLS; j++) sum[i][j] += a_vec * b_vec[j];
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < PANEL_COLS; j++) sums[i][j] = sum[i][j];
}

#define PANEL_ROWS_LIST(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8)

#define X(ROWS)                                                                                 \
    static void panel_##ROWS(panel_sums_t sums, const float *a, int64_t lda,                    \
                             const float *const b[PANEL_COLS], int64_t count)                   \
    {                                                                                           \
        panel(sums, ROWS, a, lda, b, count);                                                    \
    }
PANEL_ROWS_LIST(X)
#undef X

typedef void (*panel_fn)(panel_sums_t sums, const float *a, int64_t lda,
                         const float *const b[PANEL_COLS], int64_t count);

static const panel_fn panels[] = {
#define X(ROWS) panel_##ROWS,
    PANEL_ROWS_LIST(X)
#undef X
};
STATIC_ASSERT(sizeof panels / sizeof panels[0] == GEMV_ROWS_MAX, "one panel per number of rows");

/* Neighbours first, so that the order is that of a tree. */
static float fold(const vec_t *sum)
{
    float lane[LANES];
    memcpy(lane, sum, sizeof lane);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) lane[i] = lane[2 * i] + lane[2 * i + 1];
    return lane[0];
}

void gemv_columns(float *c, int64_t ldc, const float *a, int64_t lda, int64_t rows, const void *b,
                  dtype_t b_dtype, int64_t ldb, int64_t col, int64_t cols, int64_t k,
                  bool accumulate)
{
    ASSERT(rows >= 1 && rows <= GEMV_ROWS_MAX);
    float wide[PANEL_COLS][RUN];
    for (int64_t j0 = 0; j0 < cols; j0 += PANEL_COLS) {
        const int64_t width = min_i64(PANEL_COLS, cols - j0);
        panel_sums_t sums;
        memset(sums, 0, sizeof sums);
        for (int64_t k0 = 0; k0 < k; k0 += RUN) {
            const int64_t count = min_i64(RUN, k - k0);
            const float *b_row[PANEL_COLS];
            for (int64_t j = 0; j < PANEL_COLS; j++) {
                /* past the last column: the last one again, its sums are dropped */
                const int64_t first = (col + j0 + min_i64(j, width - 1)) * ldb + k0;
                b_row[j] = (const float *)b + first;
                if (b_dtype == DTYPE_F32) continue;
                widen_run(wide[j], b, b_dtype, first, count);
                b_row[j] = wide[j];
            }
            panels[rows - 1](sums, a + k0, lda, b_row, count);
        }
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < width; j++) {
                float *out = c + i * ldc + col + j0 + j;
                *out = accumulate ? *out + fold(&sums[i][j]) : fold(&sums[i][j]);
            }
    }
}
