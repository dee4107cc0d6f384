#include "kernels/cpu/gemm.h"

#include "base/check.h"
#include "base/num.h"
#include "kernels/cpu/convert.h"
#include "kernels/cpu/gemv.h"
#include "kernels/cpu/ops_cpu.h"
#include "kernels/cpu/sgemm.h"

#include <omp.h>

/* Sixteen equal tiles keep 2, 4, 8 and 16 cores busy; larger tiles pack less. A tile at the maximum
 * runs at 97 percent of an undivided product, one at the minimum at some 85. Rows and columns are
 * rounded to multiples of what oneDNN's AVX-512 kernel takes at a time. */
#define TILES_WANTED  16
#define TILE_MAX      1024
#define TILE_MIN      64
#define TILE_ROW_UNIT 8
#define TILE_COL_UNIT 16

/* Widened pieces of b must stay in the second-level cache beside what oneDNN packs. */
#define WIDEN_COLS_MAX 512
#define WIDEN_K        256

/* Up to here a 16-bit b is multiplied as it is: faster than widening it for oneDNN, which packs it
 * once more (at 16 rows 73 against 55 GFLOP/s of a core). */
#define GEMV_ROWS_16_BIT 24

static int64_t part_of(int64_t total, int64_t parts, int64_t unit)
{
    return align_up(div_ceil(total, parts), unit);
}

struct gemm_tile gemm_tile_of(int64_t m, int64_t n, dtype_t b_dtype)
{
    const int64_t cols_max = b_dtype == DTYPE_F32 ? TILE_MAX : WIDEN_COLS_MAX;
    int64_t row_parts = div_ceil(m, TILE_MAX), col_parts = div_ceil(n, cols_max);
    struct gemm_tile tile;
    for (;;) {
        tile.rows = part_of(m, row_parts, TILE_ROW_UNIT);
        tile.cols = part_of(n, col_parts, TILE_COL_UNIT);
        if (row_parts * col_parts >= TILES_WANTED) return tile;
        if (max_i64(tile.rows, tile.cols) < 2 * TILE_MIN) return tile;
        if (tile.rows > tile.cols)
            row_parts *= 2;
        else
            col_parts *= 2;
    }
}

void gemm_region_begin(void) { omp_set_num_threads(1); }

bool gemm_one_thread(bool a_transposed, bool b_transposed, int64_t m, int64_t n, int64_t k,
                     float alpha, const float *a, int64_t lda, const float *b, int64_t ldb,
                     float beta, float *c, int64_t ldc)
{
    return sgemm(&(struct sgemm_args){ .a_transposed = a_transposed,
                                       .b_transposed = b_transposed,
                                       .m = m,
                                       .n = n,
                                       .k = k,
                                       .alpha = alpha,
                                       .a = a,
                                       .lda = lda,
                                       .b = b,
                                       .ldb = ldb,
                                       .beta = beta,
                                       .c = c,
                                       .ldc = ldc });
}

static bool needs_widening(const struct gemm_args *g) { return g->b_dtype != DTYPE_F32; }

/* Floats of scratch of one thread: a tile of the product, a piece of a 16-bit b. */
static int64_t tile_floats(const struct gemm_args *g, struct gemm_tile tile)
{
    return g->tiles_in_scratch ? align_up(tile.rows * tile.cols, 16) : 0;
}

static int64_t piece_floats(const struct gemm_args *g, struct gemm_tile tile)
{
    return needs_widening(g) ? align_up(tile.cols * WIDEN_K, 16) : 0;
}

/* No tile of this product, nor of one with fewer rows or columns, is larger: tiles themselves
 * shrink where a product is cut once more, but scratch for a large product has to serve small ones.
 */
static struct gemm_tile tile_bound(int64_t m, int64_t n, dtype_t b_dtype)
{
    const int64_t cols_max = b_dtype == DTYPE_F32 ? TILE_MAX : WIDEN_COLS_MAX;
    return (struct gemm_tile){ .rows = part_of(min_i64(m, TILE_MAX), 1, TILE_ROW_UNIT),
                               .cols = part_of(min_i64(n, cols_max), 1, TILE_COL_UNIT) };
}

int64_t gemm_scratch_bytes(const struct dev *dev, const struct gemm_args *g)
{
    if (g->m == 0 || g->n == 0) return 0;
    const struct gemm_tile tile = tile_bound(g->m, g->n, g->b_dtype);
    return dev->threads * (tile_floats(g, tile) + piece_floats(g, tile)) * (int64_t)sizeof(float);
}

struct tile_place {
    int64_t row, rows, col, cols;
};

static bool tile_product(const struct gemm_args *g, struct tile_place at, float *c, int64_t ldc,
                         int64_t k0, int64_t k_count, const float *b, int64_t ldb)
{
    const float *a = g->a_transposed ? g->a + k0 * g->lda + at.row : g->a + at.row * g->lda + k0;
    const bool add = g->accumulate || k0 > 0;
    return gemm_one_thread(g->a_transposed, g->b_transposed, at.rows, at.cols, k_count, 1.0f, a,
                           g->lda, b, ldb, add ? 1.0f : 0.0f, c, ldc);
}

/* The tile as a sum over pieces of k, each piece of b widened into `piece` first. */
static bool tile_widened(const struct gemm_args *g, struct tile_place at, float *c, int64_t ldc,
                         float *piece)
{
    for (int64_t k0 = 0; k0 < g->k; k0 += WIDEN_K) {
        const int64_t k_count = min_i64(WIDEN_K, g->k - k0);
        const int64_t rows = g->b_transposed ? at.cols : k_count;
        const int64_t cols = g->b_transposed ? k_count : at.cols;
        const int64_t first = g->b_transposed ? at.col * g->ldb + k0 : k0 * g->ldb + at.col;
        for (int64_t r = 0; r < rows; r++)
            widen_run(piece + r * cols, g->b, g->b_dtype, first + r * g->ldb, cols);
        if (!tile_product(g, at, c, ldc, k0, k_count, piece, cols)) return false;
    }
    return true;
}

static bool tile_run(const struct gemm_args *g, struct tile_place at, float *tile_space,
                     float *piece)
{
    float *c = g->tiles_in_scratch ? tile_space : g->c + at.row * g->ldc + at.col;
    const int64_t ldc = g->tiles_in_scratch ? at.cols : g->ldc;
    const float *b = g->b;
    bool ok;
    if (needs_widening(g))
        ok = tile_widened(g, at, c, ldc, piece);
    else
        ok = tile_product(g, at, c, ldc, 0, g->k,
                          g->b_transposed ? b + at.col * g->ldb : b + at.col, g->ldb);
    if (ok && g->finish != NULL)
        g->finish(g->finish_context, c, ldc, at.row, at.rows, at.col, at.cols);
    return ok;
}

/* Few rows against rows of b: reading b is all the work. */
static bool is_gemv(const struct gemm_args *g)
{
    const int64_t rows_max = needs_widening(g) ? GEMV_ROWS_16_BIT : GEMV_ROWS_MAX;
    return g->m <= rows_max && !g->a_transposed && g->b_transposed && !g->accumulate &&
           !g->tiles_in_scratch;
}

/* Columns of b are read from memory once; further groups of rows find them in the cache. */
static void run_gemv(struct dev *dev, const struct gemm_args *g)
{
    const int64_t group = div_ceil(g->m, div_ceil(g->m, GEMV_ROWS_MAX));
#pragma omp parallel for num_threads(dev->threads) schedule(dynamic)
    for (int64_t col = 0; col < g->n; col += GEMV_COLS_MAX) {
        const int64_t cols = min_i64(GEMV_COLS_MAX, g->n - col);
        for (int64_t row = 0; row < g->m; row += group)
            gemv_columns(&(struct gemv_args){ .c = g->c + row * g->ldc,
                                              .ldc = g->ldc,
                                              .a = g->a + row * g->lda,
                                              .lda = g->lda,
                                              .rows = min_i64(group, g->m - row),
                                              .b = g->b,
                                              .b_dtype = g->b_dtype,
                                              .ldb = g->ldb,
                                              .k = g->k },
                         col, cols);
        if (g->finish != NULL) g->finish(g->finish_context, g->c + col, g->ldc, 0, g->m, col, cols);
    }
}

static bool run_tiles(struct dev *dev, const struct gemm_args *g)
{
    const struct gemm_tile tile = gemm_tile_of(g->m, g->n, g->b_dtype);
    const int64_t row_tiles = div_ceil(g->m, tile.rows), col_tiles = div_ceil(g->n, tile.cols);
    const int64_t tile_size = tile_floats(g, tile), piece_size = piece_floats(g, tile);
    ASSERT(g->scratch.bytes >= gemm_scratch_bytes(dev, g));
    float *scratch = g->scratch.data;
    bool failed = false;

#pragma omp parallel num_threads(dev->threads) reduction(|| : failed)
    {
        gemm_region_begin();
        float *tile_space = scratch + omp_get_thread_num() * (tile_size + piece_size);
        float *piece = tile_space + tile_size;
#pragma omp for schedule(dynamic)
        for (int64_t t = 0; t < row_tiles * col_tiles; t++) {
            const int64_t row = t % row_tiles * tile.rows, col = t / row_tiles * tile.cols;
            const struct tile_place at = { row, min_i64(tile.rows, g->m - row), col,
                                           min_i64(tile.cols, g->n - col) };
            failed = !tile_run(g, at, tile_space, piece) || failed;
        }
    }
    return !failed;
}

err_t gemm_f32(struct dev *dev, const struct gemm_args *g)
{
    ASSERT(!(g->a_transposed && g->b_transposed) && g->k > 0);
    ASSERT(!g->tiles_in_scratch || (g->finish != NULL && !g->accumulate));
    if (g->m == 0 || g->n == 0) return ERR_OK;

    bool ok = true;
    const double start = omp_get_wtime();
    if (is_gemv(g))
        run_gemv(dev, g);
    else
        ok = run_tiles(dev, g);
    dev->stats.gemm_s += omp_get_wtime() - start;
    dev->stats.gemm_flop += 2.0 * (double)g->m * (double)g->n * (double)g->k;
    if (!ok)
        RAISE(NOMEM, "product %lld x %lld x %lld: no memory for packing operands", (long long)g->m,
              (long long)g->n, (long long)g->k);
    return ERR_OK;
}
