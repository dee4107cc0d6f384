/*
 * The blocked product of Goto and van de Geijn ("Anatomy of High-Performance Matrix
 * Multiplication", 2008): panels of a and b are copied into the order in which the innermost loop
 * reads them, and that loop keeps a small tile of c in registers.
 *
 *     for each K_BLOCK of k, for each ROWS_BLOCK of m:  pack a: stays in the second-level cache
 *         for each TILE_COLS of n:                      pack b: stays in the first-level cache
 *             for each TILE_ROWS:                       tile of c += panel of a times panel of b
 */
#include "kernels/cpu/sgemm.h"

#include "base/num.h"

#include <stdlib.h>
#include <string.h>

/* A tile of c fills the vector registers but for two of b and one of a. */
#if defined(__AVX512F__)
#define VECTOR_FLOATS 16
#define TILE_ROWS     14
#else
#define VECTOR_FLOATS 8
#define TILE_ROWS     6
#endif
#define TILE_COLS  (2 * VECTOR_FLOATS)
#define K_BLOCK    256
#define ROWS_BLOCK (TILE_ROWS * 48)

typedef float vector_t __attribute__((vector_size(VECTOR_FLOATS * 4)));
/* The same in memory that is aligned for floats alone, such as rows of c. */
typedef float loose_vector_t __attribute__((vector_size(VECTOR_FLOATS * 4), aligned(4)));

/* Rows row .. row+rows of op(a), k0 .. k0+k: panels of TILE_ROWS rows, [k][TILE_ROWS] each, with
 * zeros for rows that are not there. */
static void pack_a(float *out, const struct sgemm_args *g, int64_t row, int64_t rows, int64_t k0,
                   int64_t k)
{
    for (int64_t r = 0; r < rows; r += TILE_ROWS, out += TILE_ROWS * k) {
        const int64_t count = min_i64(TILE_ROWS, rows - r);
        if (count < TILE_ROWS) memset(out, 0, (size_t)(TILE_ROWS * k) * sizeof *out);
        if (g->a_transposed) {
            const float *from = g->a + k0 * g->lda + row + r;
            for (int64_t p = 0; p < k; p++)
                memcpy(out + p * TILE_ROWS, from + p * g->lda, (size_t)count * sizeof *out);
        } else {
            const float *from = g->a + (row + r) * g->lda + k0;
            for (int64_t i = 0; i < count; i++)
                for (int64_t p = 0; p < k; p++) out[p * TILE_ROWS + i] = from[i * g->lda + p];
        }
    }
}

/* Columns col .. col+cols of op(b) as [k][TILE_COLS], cols <= TILE_COLS, zeros beyond. */
static void pack_b(float *out, const struct sgemm_args *g, int64_t col, int64_t cols, int64_t k0,
                   int64_t k)
{
    if (cols < TILE_COLS) memset(out, 0, (size_t)(TILE_COLS * k) * sizeof *out);
    if (g->b_transposed) {
        const float *from = g->b + col * g->ldb + k0;
        for (int64_t p0 = 0; p0 < k; p0 += VECTOR_FLOATS) /* a line of each row at a time */
            for (int64_t j = 0; j < cols; j++)
                for (int64_t p = p0; p < min_i64(p0 + VECTOR_FLOATS, k); p++)
                    out[p * TILE_COLS + j] = from[j * g->ldb + p];
    } else {
        const float *from = g->b + k0 * g->ldb + col;
        for (int64_t p = 0; p < k; p++)
            memcpy(out + p * TILE_COLS, from + p * g->ldb, (size_t)cols * sizeof *out);
    }
}

/* sum[TILE_ROWS][TILE_COLS] = panel of a times panel of b. */
static void tile_product(vector_t sum[TILE_ROWS][2], const float *a, const float *b, int64_t k)
{
    vector_t acc[TILE_ROWS][2] = { 0 };
    for (int64_t p = 0; p < k; p++, a += TILE_ROWS, b += TILE_COLS) {
        const vector_t b0 = *(const vector_t *)b, b1 = *(const vector_t *)(b + VECTOR_FLOATS);
        for (int i = 0; i < TILE_ROWS; i++) {
            acc[i][0] += a[i] * b0;
            acc[i][1] += a[i] * b1;
        }
    }
    memcpy(sum, acc, sizeof acc);
}

/* c[rows, cols] = alpha * sum + beta * c, for a tile that may reach over the edge. */
static void tile_store(const struct sgemm_args *g, float *c, int64_t rows, int64_t cols, float beta,
                       const vector_t sum[TILE_ROWS][2])
{
    for (int64_t i = 0; i < rows; i++, c += g->ldc) {
        if (cols == TILE_COLS) {
            for (int j = 0; j < 2; j++) {
                loose_vector_t *to = (loose_vector_t *)(c + j * VECTOR_FLOATS);
                *to = beta == 0.0f ? g->alpha * sum[i][j] : g->alpha * sum[i][j] + beta * *to;
            }
            continue;
        }
        for (int64_t j = 0; j < cols; j++) {
            const float value = g->alpha * sum[i][j / VECTOR_FLOATS][j % VECTOR_FLOATS];
            c[j] = beta == 0.0f ? value : value + beta * c[j];
        }
    }
}

static void block_product(const struct sgemm_args *g, int64_t row, int64_t rows, int64_t k0,
                          int64_t k, const float *a_packed, float *b_packed)
{
    const float beta = k0 == 0 ? g->beta : 1.0f;
    for (int64_t col = 0; col < g->n; col += TILE_COLS) {
        const int64_t cols = min_i64(TILE_COLS, g->n - col);
        pack_b(b_packed, g, col, cols, k0, k);
        for (int64_t r = 0; r < rows; r += TILE_ROWS) {
            vector_t sum[TILE_ROWS][2];
            tile_product(sum, a_packed + r * k, b_packed, k);
            tile_store(g, g->c + (row + r) * g->ldc + col, min_i64(TILE_ROWS, rows - r), cols, beta,
                       sum);
        }
    }
}

bool sgemm_own(const struct sgemm_args *g)
{
    const int64_t k_block = min_i64(K_BLOCK, g->k);
    const int64_t a_rows = min_i64(ROWS_BLOCK, align_up(g->m, TILE_ROWS));
    const int64_t a_floats = align_up(a_rows * k_block, VECTOR_FLOATS);
    const size_t bytes = (size_t)(a_floats + TILE_COLS * k_block) * sizeof(float);
    if (g->m == 0 || g->n == 0) return true;
    float *packed = aligned_alloc(64, (size_t)align_up((int64_t)bytes, 64));
    if (packed == NULL) return false;
    for (int64_t k0 = 0; k0 < g->k; k0 += K_BLOCK) {
        const int64_t k = min_i64(K_BLOCK, g->k - k0);
        for (int64_t row = 0; row < g->m; row += ROWS_BLOCK) {
            const int64_t rows = min_i64(ROWS_BLOCK, g->m - row);
            pack_a(packed, g, row, rows, k0, k);
            block_product(g, row, rows, k0, k, packed, packed + a_floats);
        }
    }
    free(packed);
    return true;
}
