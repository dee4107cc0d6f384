#include "train/checksum.h"

#include "base/check.h"
#include "base/digest.h"
#include "base/num.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES (4 << 20)

void checksum_clear(struct checksum *s)
{
    free(s->row);
    memset(s, 0, sizeof *s);
}

static err_t sum_weights(struct checksum *s, char *piece, const struct optim_target *target,
                         int64_t row)
{
    const int64_t unit = dtype_bytes(target->weights.dtype), per_piece = PIECE_BYTES / unit;
    const int64_t all = s->params->row[row].count;
    for (int64_t at = 0; at < all; at += per_piece) {
        const int64_t bytes = min_i64(per_piece, all - at) * unit;
        const char *from =
            (const char *)target->weights.data + (target->layout->offset[row] + at) * unit;
        TRY(dev_download(target->dev, piece, from, bytes));
        s->row[row] = crc32c(s->row[row], piece, (size_t)bytes);
        s->bytes += bytes;
    }
    return ERR_OK;
}

static err_t sum_state(struct checksum *s, char *piece, struct optim *optim, int64_t row)
{
    const struct optim_plan *plan = optim_plan_of(optim);
    uint32_t *out = &s->row[s->params->count + row];
    for (int part = 0; part < OPTIM_PARTS; part++) {
        const enum optim_part p = (enum optim_part)part;
        const int64_t unit = dtype_bytes(optim_part_dtype(&plan->format, p));
        const int64_t all = optim_part_count(plan, s->params, p, row);
        for (int64_t at = 0; at < all; at += PIECE_BYTES / unit) {
            const int64_t count = min_i64(PIECE_BYTES / unit, all - at);
            TRY(optim_read_state(optim, piece, p, row, at, count));
            *out = crc32c(*out, piece, (size_t)(count * unit));
            s->bytes += count * unit;
        }
    }
    return ERR_OK;
}

err_t checksum_measure(struct checksum *s, struct optim *optim, int what)
{
    err_t rc = ERR_OK;
    const struct optim_target *target = optim_target(optim);
    const int64_t rows = target->params->count;
    void *piece = NULL;
    *s = (struct checksum){ .params = target->params };
    s->row = calloc((size_t)(2 * rows), sizeof *s->row);
    if (s->row == NULL) RAISE(NOMEM, "checksums of %lld tensors: no memory", (long long)rows);
    TRY(dev_sync(target->dev));
    TRY(dev_host_alloc(target->dev, &piece, PIECE_BYTES, "checksum"));
    for (int64_t i = 0; i < rows; i++) {
        if ((what & CHECKSUM_WEIGHTS) != 0) TRY_DONE(sum_weights(s, piece, target, i));
        if ((what & CHECKSUM_STATE) != 0) TRY_DONE(sum_state(s, piece, optim, i));
    }
    s->total = crc32c(0, s->row, (size_t)(2 * rows) * sizeof *s->row);
done:
    dev_host_free(target->dev, piece);
    return rc;
}

/* ---- between ranks ---- */

/* How many ranks have the value that rank `rank` has. */
static int64_t supporters(const uint32_t *all, int64_t ranks, int64_t stride, int64_t index,
                          int64_t rank)
{
    int64_t count = 0;
    for (int64_t r = 0; r < ranks; r++)
        count += all[r * stride + index] == all[rank * stride + index];
    return count;
}

err_t checksum_compare(const uint32_t *all, int64_t ranks, const struct glm_params *params,
                       int64_t step)
{
    const int64_t stride = 2 * params->count;
    for (int64_t i = 0; i < stride; i++) {
        const char *what = i < params->count ? "weights" : "optimizer state";
        const char *name = params->row[i % params->count].name;
        int64_t right = 0;
        for (int64_t r = 0; r < ranks; r++)
            if (supporters(all, ranks, stride, i, r) > supporters(all, ranks, stride, i, right))
                right = r;
        const bool majority = 2 * supporters(all, ranks, stride, i, right) > ranks;
        for (int64_t r = 0; r < ranks; r++) {
            if (all[r * stride + i] == all[right * stride + i]) continue;
            RAISE(CHECKSUM,
                  "step %lld: %s of %s are not the same on all ranks: rank %lld has %08x, rank "
                  "%lld has %08x%s; memory or a link is at fault, continue from the last "
                  "checkpoint with --resume",
                  (long long)step, what, name, (long long)r, all[r * stride + i], (long long)right,
                  all[right * stride + i],
                  majority ? " as most have" : " and no value has a majority");
        }
    }
    return ERR_OK;
}

err_t checksum_compare_ranks(const struct checksum *s, struct comm *comm, int64_t step)
{
    if (comm == NULL || comm_size(comm) == 1) return ERR_OK;
    const int64_t stride = 2 * s->params->count, bytes = stride * (int64_t)sizeof *s->row;
    uint32_t *all = malloc((size_t)(comm_size(comm) * bytes));
    if (all == NULL) RAISE(NOMEM, "checksums of %lld ranks: no memory", (long long)comm_size(comm));
    err_t rc = comm_gather_host(comm, all, s->row, bytes);
    if (rc == ERR_OK) rc = checksum_compare(all, comm_size(comm), s->params, step);
    free(all);
    return rc;
}

/* ---- finite ---- */

/* A sum of squares in float64 is finite where, and only where, all its float32 values are. */
static err_t find_not_finite(int64_t *out, const struct optim_target *target, struct tensor *sums,
                             const struct sumsq_segment *segments, double *host)
{
    const int64_t rows = target->params->count, chunks = tensor_count(sums);
    *out = -1;
    TRY(op_sumsq_chunks(target->dev, &(struct sumsq_chunks_args){ .out = sums,
                                                                  .x = &target->weights,
                                                                  .segments = segments,
                                                                  .segment_count = rows }));
    TRY(dev_download(target->dev, host, sums->data, chunks * (int64_t)sizeof *host));
    for (int64_t i = rows - 1; i >= 0; i--) {
        const int64_t end = i + 1 < rows ? segments[i + 1].out_index : chunks;
        for (int64_t k = segments[i].out_index; k < end; k++)
            if (!isfinite(host[k])) *out = i;
    }
    return ERR_OK;
}

err_t checksum_weights_finite(struct optim *optim, int64_t step)
{
    err_t rc = ERR_OK;
    const struct optim_target *target = optim_target(optim);
    const int64_t rows = target->params->count, most = optim_plan_of(optim)->chunk_count;
    int64_t chunks = 0, bad;
    void *data = NULL;
    struct sumsq_segment *segments = calloc((size_t)rows, sizeof *segments);
    double *host = calloc((size_t)most, sizeof *host);
    if (segments == NULL || host == NULL) RAISE_DONE(NOMEM, "sums of the weights: no memory");
    for (int64_t i = 0; i < rows; i++) {
        const int64_t count = target->params->row[i].count;
        segments[i] = (struct sumsq_segment){ target->layout->offset[i], count, chunks };
        chunks += div_ceil(count, SUMSQ_CHUNK);
    }
    ASSERT(chunks <= most);
    TRY_DONE(dev_alloc(target->dev, &data, chunks * (int64_t)sizeof *host, "sums of weights"));
    struct tensor sums = tensor_1d(data, DTYPE_F64, chunks, "sums of weights");
    TRY_DONE(find_not_finite(&bad, target, &sums, segments, host));
    if (bad >= 0)
        RAISE_DONE(NUMERIC,
                   "step %lld: %s holds weights that are not finite; they were not saved; continue "
                   "from the last checkpoint with --resume and a lower train.lr",
                   (long long)step, target->params->row[bad].name);
done:
    dev_free(target->dev, data);
    free(segments);
    free(host);
    return rc;
}
