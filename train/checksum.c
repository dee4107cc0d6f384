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
        TRY(dev_download(target->dev, piece, optim_target_weights(target, row, at), bytes));
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
        const int64_t all = optim_part_count(&plan->format, &s->params->row[row], p);
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
        if (supporters(all, ranks, stride, i, 0) == ranks) continue;
        for (int64_t r = 1; r < ranks; r++)
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

/* ---- everything, by chunks ---- */

/* What this rank has of a row. */
static void owned_range(int64_t *first, int64_t *count, const struct optim_target *target,
                        const struct ckpt_ranks *ranks, int64_t row)
{
    *first = 0;
    *count = target->params->row[row].count;
    if (ranks != NULL) ranks->owned(ranks->context, row, first, count);
}

/* A chunk's crc32c and its place, as a number to add. */
static uint32_t chunk_term(int64_t row, int part, int64_t chunk, const void *bytes, int64_t size)
{
    const int64_t place[3] = { row, part, chunk };
    return crc32c(crc32c(0, place, sizeof place), bytes, (size_t)size);
}

struct total {
    struct optim *optim;
    const struct ckpt_ranks *ranks;
    char *piece; /* a chunk of the widest part */
    uint32_t sum;
    int64_t bytes;
};

/* Elements first .. first+count-1 of a row, which lie in one chunk: the weights, and each part of
 * the state, which has one element per element or per block. */
static err_t add_chunk(struct total *t, int64_t row, int64_t first, int64_t count)
{
    const struct optim_target *target = optim_target(t->optim);
    const struct optim_plan *plan = optim_plan_of(t->optim);
    const int64_t chunk = first / SUMSQ_CHUNK;
    int64_t bytes = count * dtype_bytes(target->weights.dtype);
    TRY(dev_download(target->dev, t->piece, optim_target_weights(target, row, first), bytes));
    t->sum += chunk_term(row, OPTIM_PARTS, chunk, t->piece, bytes);
    t->bytes += bytes;
    for (int part = 0; part < OPTIM_PARTS; part++) {
        const enum optim_part p = (enum optim_part)part;
        if (optim_part_count(&plan->format, &target->params->row[row], p) == 0) continue;
        const int64_t per = optim_part_per(p), n = div_ceil(count, per);
        bytes = n * dtype_bytes(optim_part_dtype(&plan->format, p));
        TRY(optim_read_state(t->optim, t->piece, p, row, first / per, n));
        t->sum += chunk_term(row, part, chunk, t->piece, bytes);
        t->bytes += bytes;
    }
    return ERR_OK;
}

static err_t add_rows(struct total *t)
{
    const struct optim_target *target = optim_target(t->optim);
    for (int64_t row = 0; row < target->params->count; row++) {
        int64_t first, count;
        owned_range(&first, &count, target, t->ranks, row);
        for (int64_t at = first; at < first + count; at += SUMSQ_CHUNK)
            TRY(add_chunk(t, row, at, min_i64(SUMSQ_CHUNK, first + count - at)));
    }
    return ERR_OK;
}

/* Addition has no order. */
static err_t add_ranks(uint32_t *sum, struct comm *comm)
{
    uint32_t *all = malloc((size_t)comm_size(comm) * sizeof *all);
    if (all == NULL) RAISE(NOMEM, "checksums of %lld ranks: no memory", (long long)comm_size(comm));
    const err_t rc = comm_gather_host(comm, all, sum, sizeof *sum);
    *sum = 0;
    for (int64_t r = 0; r < comm_size(comm) && rc == ERR_OK; r++) *sum += all[r];
    free(all);
    return rc;
}

err_t checksum_total(uint32_t *total, int64_t *bytes, struct optim *optim,
                     const struct ckpt_ranks *ranks)
{
    struct dev *dev = optim_target(optim)->dev;
    struct total t = { .optim = optim, .ranks = ranks };
    void *piece;
    TRY(dev_sync(dev));
    TRY(dev_host_alloc(dev, &piece, SUMSQ_CHUNK * (int64_t)sizeof(double), "checksum"));
    t.piece = piece;
    err_t rc = add_rows(&t);
    if (rc == ERR_OK && ranks != NULL) rc = add_ranks(&t.sum, ranks->comm);
    dev_host_free(dev, piece);
    *total = t.sum;
    *bytes = t.bytes;
    return rc;
}

/* ---- finite ---- */

/* Chunk sums of what this rank has of a row; a sum of squares in float64 is finite where, and only
 * where, all its float32 values are. */
static err_t row_is_finite(bool *finite, const struct optim_target *target,
                           const struct ckpt_ranks *ranks, struct tensor *sums, double *host,
                           int64_t row)
{
    int64_t first, count;
    *finite = true;
    owned_range(&first, &count, target, ranks, row);
    if (count == 0) return ERR_OK;
    const int64_t chunks = div_ceil(count, SUMSQ_CHUNK);
    const struct sumsq_segment segment = { 0, count, 0 };
    const struct tensor x = tensor_1d(optim_target_weights(target, row, first),
                                      target->weights.dtype, count, "weights");
    struct tensor out = tensor_1d(sums->data, DTYPE_F64, chunks, "sums of weights");
    TRY(op_sumsq_chunks(target->dev,
                        &(struct sumsq_chunks_args){
                            .out = &out, .x = &x, .segments = &segment, .segment_count = 1 }));
    TRY(dev_download(target->dev, host, sums->data, chunks * (int64_t)sizeof *host));
    for (int64_t i = 0; i < chunks; i++) *finite = *finite && isfinite(host[i]);
    return ERR_OK;
}

err_t checksum_weights_finite(struct optim *optim, const struct ckpt_ranks *ranks, int64_t step)
{
    err_t rc = ERR_OK;
    const struct optim_target *target = optim_target(optim);
    int64_t chunks = 0;
    void *data = NULL;
    for (int64_t i = 0; i < target->params->count; i++)
        chunks = max_i64(chunks, div_ceil(target->params->row[i].count, SUMSQ_CHUNK));
    double *host = calloc((size_t)chunks, sizeof *host);
    if (host == NULL) RAISE(NOMEM, "sums of the weights: no memory");
    TRY_DONE(dev_alloc(target->dev, &data, chunks * (int64_t)sizeof *host, "sums of weights"));
    struct tensor sums = tensor_1d(data, DTYPE_F64, chunks, "sums of weights");
    for (int64_t i = 0; i < target->params->count; i++) {
        bool finite;
        TRY_DONE(row_is_finite(&finite, target, ranks, &sums, host, i));
        if (!finite)
            RAISE_DONE(NUMERIC,
                       "step %lld: %s holds weights that are not finite; they were not saved; "
                       "continue from the last checkpoint with --resume and a lower train.lr",
                       (long long)step, target->params->row[i].name);
    }
done:
    dev_free(target->dev, data);
    free(host);
    return rc;
}
