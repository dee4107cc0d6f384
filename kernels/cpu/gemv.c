#include "kernels/cpu/gemv.h"

#include "base/check.h"
#include "base/num.h"
#include "kernels/cpu/convert.h"

/*
 * The work on one piece of columns goes through k in runs; the run of a is packed once, because
 * rows that are a power of two apart would share the sets of the first-level cache. Inside a run,
 * panels of four rows of b are multiplied with all rows of a, lane by lane, while the next panel is
 * fetched.
 */
#define PANEL_COLS 4
#define PANELS_MAX (GEMV_COLS_MAX / PANEL_COLS)
#define RUN        512 /* packed a of 8 rows is 17 KiB, sums of 32 columns 16 KiB */
#define RUN_STRIDE (RUN + LANES)

typedef f32_lanes_t panel_sums_t[GEMV_ROWS_MAX][PANEL_COLS];

struct panel {
    const float *a; /* [rows, RUN_STRIDE] */
    const char *b[PANEL_COLS];
    const char *next[PANEL_COLS]; /* what will be b soon */
    int64_t count;                /* a multiple of LANES */
};

/* sums[i][j] += a row i times b row j, lane by lane. `rows` and `from` are constants in every
 * caller, so that the loops over rows unroll and the sums stay in registers. */
static inline __attribute__((always_inline)) void panel_add(panel_sums_t sums, const int rows,
                                                            lanes_from_fn from, int64_t bytes,
                                                            const struct panel *p)
{
    panel_sums_t sum;
    memcpy(sum, sums, sizeof sum[0] * (size_t)rows);
    for (int64_t at = 0; at < p->count; at += LANES) {
        f32_lanes_t a, b[PANEL_COLS];
        for (int j = 0; j < PANEL_COLS; j++) {
            from(&b[j], p->b[j] + at * bytes);
            __builtin_prefetch(p->next[j] + at * bytes, 0, 2);
        }
        for (int i = 0; i < rows; i++) {
            lanes_from_f32(&a, p->a + i * RUN_STRIDE + at);
            for (int j = 0; j < PANEL_COLS; j++) sum[i][j] += a * b[j];
        }
    }
    memcpy(sums, sum, sizeof sum[0] * (size_t)rows);
}

#define PANEL_LIST(X, FORMAT, BYTES)                                                            \
    X(1, FORMAT, BYTES) X(2, FORMAT, BYTES) X(3, FORMAT, BYTES) X(4, FORMAT, BYTES)             \
    X(5, FORMAT, BYTES) X(6, FORMAT, BYTES) X(7, FORMAT, BYTES) X(8, FORMAT, BYTES)

#define X(ROWS, FORMAT, BYTES)                                                                  \
    static void panel_##FORMAT##_##ROWS(panel_sums_t sums, const struct panel *p)               \
    {                                                                                           \
        panel_add(sums, ROWS, lanes_from_##FORMAT, BYTES, p);                                   \
    }
PANEL_LIST(X, f32, 4)
PANEL_LIST(X, f16, 2)
PANEL_LIST(X, bf16, 2)
#undef X

typedef void (*panel_fn)(panel_sums_t sums, const struct panel *p);

#define X(ROWS, FORMAT, BYTES) panel_##FORMAT##_##ROWS,
static const panel_fn panels[DTYPE_COUNT][GEMV_ROWS_MAX] = {
    [DTYPE_F32] = { PANEL_LIST(X, f32, 4) },
    [DTYPE_F16] = { PANEL_LIST(X, f16, 2) },
    [DTYPE_BF16] = { PANEL_LIST(X, bf16, 2) },
};
#undef X

/* Neighbours first, so that the order is that of a tree. */
static float fold(const f32_lanes_t *sum)
{
    float lane[LANES];
    memcpy(lane, sum, sizeof lane);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) lane[i] = lane[2 * i] + lane[2 * i + 1];
    return lane[0];
}

/* The row of b behind column j of a panel; past the last column the last one again, whose sums are
 * dropped. */
static const char *b_at(const struct gemv_args *g, int64_t col, int64_t cols, int64_t j, int64_t k0)
{
    const int64_t row = col + min_i64(j, cols - 1);
    return (const char *)g->b + (row * g->ldb + k0) * dtype_bytes(g->b_dtype);
}

/* What a run leaves over of k, fewer than LANES elements: widened and padded with zeros. */
static void add_rest(panel_sums_t sums, const struct gemv_args *g, const struct panel *p,
                     int64_t rest)
{
    float wide[PANEL_COLS][LANES] = { { 0 } };
    struct panel last = { .a = p->a + p->count, .count = LANES };
    for (int j = 0; j < PANEL_COLS; j++) {
        widen_run(wide[j], p->b[j], g->b_dtype, p->count, rest);
        last.b[j] = last.next[j] = (const char *)wide[j];
    }
    panels[DTYPE_F32][g->rows - 1](sums, &last);
}

void gemv_columns(const struct gemv_args *g, int64_t col, int64_t cols)
{
    ASSERT(g->rows >= 1 && g->rows <= GEMV_ROWS_MAX && cols <= GEMV_COLS_MAX);
    const int64_t panel_count = div_ceil(cols, PANEL_COLS);
    panel_sums_t sums[PANELS_MAX];
    float a[GEMV_ROWS_MAX * RUN_STRIDE];
    memset(sums, 0, sizeof sums[0] * (size_t)panel_count);

    for (int64_t k0 = 0; k0 < g->k; k0 += RUN) {
        const int64_t count = min_i64(RUN, g->k - k0), whole = count / LANES * LANES;
        for (int64_t i = 0; i < g->rows; i++) {
            memcpy(a + i * RUN_STRIDE, g->a + i * g->lda + k0, (size_t)count * sizeof *a);
            memset(a + i * RUN_STRIDE + count, 0, LANES * sizeof *a);
        }
        for (int64_t n = 0; n < panel_count; n++) {
            struct panel p = { .a = a, .count = whole };
            const bool last = n + 1 == panel_count;
            for (int64_t j = 0; j < PANEL_COLS; j++) {
                p.b[j] = b_at(g, col, cols, n * PANEL_COLS + j, k0);
                p.next[j] = last ? b_at(g, col, cols, j, min_i64(k0 + RUN, g->k - 1))
                                 : b_at(g, col, cols, (n + 1) * PANEL_COLS + j, k0);
            }
            panels[g->b_dtype][g->rows - 1](sums[n], &p);
            if (whole < count) add_rest(sums[n], g, &p, count - whole);
        }
    }
    for (int64_t i = 0; i < g->rows; i++)
        for (int64_t j = 0; j < cols; j++)
            g->c[i * g->ldc + col + j] = fold(&sums[j / PANEL_COLS][i][j % PANEL_COLS]);
}
