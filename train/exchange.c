#include "train/exchange.h"

#include "base/check.h"
#include "base/num.h"
#include "kernels/ops_optim.h"

#include <stdlib.h>
#include <string.h>

#define SPREADS 8 /* units under way */

/* ---- sizes ---- */

struct counts {
    int64_t calls, foreign;
};

int64_t exchange_nodes(int64_t lane_count, int64_t rank, int64_t size)
{
    struct lanes_node node[LANES_NODES_MAX];
    const struct lanes_node its = lanes_of_rank(lane_count, rank, size);
    return lanes_nodes(node, lane_count, its.begin, its.end);
}

static struct counts count_nodes(int64_t *of_rank, int64_t lane_count, int64_t rank, int64_t size)
{
    struct counts counts = { 0 };
    ASSERT(lane_count >= size);
    for (int64_t r = 0; r < size; r++) {
        const int64_t count = exchange_nodes(lane_count, r, size);
        if (of_rank != NULL) of_rank[r] = count;
        counts.calls = max_i64(counts.calls, count);
        if (r != rank) counts.foreign += count;
    }
    return counts;
}

/* The same on every rank, as all cut alike. */
int64_t exchange_piece_elements(const struct exchange_args *args)
{
    int64_t most = 0;
    if (args->piece_elements > 0) return args->piece_elements;
    for (int64_t u = 1; u < args->owner->unit_count - 1; u++)
        most = max_i64(most, owner_span_max(args->owner, u));
    return most;
}

int64_t exchange_foreign(int64_t lane_count, int64_t rank, int64_t size)
{
    return count_nodes(NULL, lane_count, rank, size).foreign;
}

int64_t exchange_bytes(const struct exchange_args *args, int64_t foreign)
{
    return EXCHANGE_DEPTH * foreign * exchange_piece_elements(args) * dtype_bytes(args->dtype);
}

/* ---- life cycle ---- */

err_t exchange_open(struct exchange *x, const struct exchange_args *args)
{
    const int64_t size = comm_size(args->comm);
    *x = (struct exchange){ .args = *args, .rank = comm_rank(args->comm), .size = size };
    x->node_count = calloc((size_t)size, sizeof *x->node_count);
    x->send = calloc((size_t)size, sizeof *x->send);
    x->recv = calloc((size_t)size, sizeof *x->recv);
    if (x->node_count == NULL || x->send == NULL || x->recv == NULL)
        RAISE(NOMEM, "exchange of gradients: no memory for %lld ranks", (long long)size);
    const struct counts counts = count_nodes(x->node_count, args->lane_count, x->rank, size);
    x->calls = counts.calls;
    x->foreign = counts.foreign;
    x->args.piece_elements = exchange_piece_elements(args);
    ASSERT(EXCHANGE_DEPTH * x->calls <= COMM_REQUESTS_MAX);
    const int64_t bytes = exchange_bytes(args, x->foreign) / EXCHANGE_DEPTH;
    for (int i = 0; i < EXCHANGE_DEPTH && bytes > 0; i++) {
        void *inbox;
        TRY(dev_alloc(args->dev, &inbox, bytes, "gradients of other ranks"));
        x->piece[i].inbox = inbox;
    }
    return ERR_OK;
}

void exchange_close(struct exchange *x)
{
    for (int i = 0; i < EXCHANGE_DEPTH; i++)
        if (x->piece[i].inbox != NULL) dev_free(x->args.dev, x->piece[i].inbox);
    free(x->node_count);
    free(x->send);
    free(x->recv);
    memset(x, 0, sizeof *x);
}

/* ---- a piece goes out ---- */

/* Elements `from` .. of what a rank owns of a unit, as far as a piece goes; count = 0: none. */
static int64_t part_of(int64_t *begin, const struct exchange *x, int64_t unit, int64_t rank,
                       int64_t from)
{
    const struct owner_share *share = owner_share(x->args.owner, unit, rank);
    const int64_t left = share->end - share->begin - from;
    *begin = x->args.layout->unit_offset[unit] + share->begin + from;
    return max_i64(min_i64(left, x->args.piece_elements), 0);
}

/* Node `k` of every rank: mine to each owner, and what I own from each. One's own stays where it
 * is. */
static void lay_out(struct exchange *x, const struct exchange_piece *piece, int64_t k)
{
    const int64_t bytes = dtype_bytes(x->args.dtype);
    const bool sends = k < x->node_count[x->rank];
    int64_t slot = 0;
    for (int64_t r = 0; r < x->size; r++) {
        int64_t begin;
        const int64_t theirs = part_of(&begin, x, piece->unit, r, piece->from);
        const bool other = r != x->rank;
        x->send[r] = (struct comm_span){ begin * bytes, other && sends ? theirs * bytes : 0 };
        const int64_t at = (slot + k) * x->args.piece_elements;
        x->recv[r] = (struct comm_span){ at * bytes,
                                         other && k < x->node_count[r] ? piece->count * bytes : 0 };
        if (x->recv[r].bytes == 0) x->recv[r].offset = 0;
        if (x->send[r].bytes == 0) x->send[r].offset = 0;
        if (other) slot += x->node_count[r];
    }
}

static err_t begin_piece(struct exchange *x, const struct tensor *nodes, int64_t unit, int64_t from)
{
    struct exchange_piece *piece = &x->piece[x->begun % EXCHANGE_DEPTH];
    int64_t begin;
    piece->nodes = nodes;
    piece->unit = unit;
    piece->from = from;
    piece->count = part_of(&begin, x, unit, x->rank, from);
    for (int64_t k = 0; k < x->calls; k++) {
        const bool sends = k < x->node_count[x->rank];
        lay_out(x, piece, k);
        TRY(comm_alltoallv_begin(x->args.comm, &piece->request[k],
                                 &(struct comm_alltoallv_args){ .recv = piece->inbox,
                                                                .recv_spans = x->recv,
                                                                .send = nodes[sends ? k : 0].data,
                                                                .send_spans = x->send }));
    }
    x->begun++;
    return ERR_OK;
}

/* ---- and is summed ---- */

struct fold {
    const struct exchange *x;
    const struct exchange_piece *piece;
    int64_t rank;          /* whose leaves come next */
    int64_t mine, foreign; /* leaves so far */
};

/* The slice that a node's sum is in; `home`: inside my first node, where the total belongs. */
struct slice {
    struct tensor data;
    bool home;
};

static void take_leaf(struct fold *f, struct slice *out)
{
    const struct exchange *x = f->x;
    const int64_t bytes = dtype_bytes(x->args.dtype), rank = f->rank;
    char *data;
    int64_t begin;
    out->home = rank == x->rank && f->mine == 0;
    part_of(&begin, x, f->piece->unit, x->rank, f->piece->from);
    if (rank == x->rank)
        data = (char *)f->piece->nodes[f->mine++].data + begin * bytes;
    else
        data = f->piece->inbox + f->foreign++ * x->args.piece_elements * bytes;
    out->data = tensor_1d(data, x->args.dtype, f->piece->count, "gradient sum");
}

/* Leaves come from the left, as they lie in inbox and nodes. Adding is commutative to the bit, so
 * the sum may be kept on either side: on that where the total belongs. */
static err_t fold_node(struct fold *f, struct slice *out, struct lanes_node node)
{
    const int64_t lane_count = f->x->args.lane_count, size = f->x->size;
    struct slice left, right;
    while (lanes_of_rank(lane_count, f->rank, size).end <= node.begin) f->rank++;
    if (node.end <= lanes_of_rank(lane_count, f->rank, size).end) {
        take_leaf(f, out);
        return ERR_OK;
    }
    const int64_t cut = lanes_cut(&node);
    TRY(fold_node(f, &left, (struct lanes_node){ node.begin, cut }));
    TRY(fold_node(f, &right, (struct lanes_node){ cut, node.end }));
    *out = right.home ? right : left;
    return op_add(f->x->args.dev, &(struct add_args){ .y_acc = &out->data,
                                                      .x = right.home ? &left.data : &right.data });
}

static err_t end_piece(struct exchange *x)
{
    struct exchange_piece *piece = &x->piece[x->ended % EXCHANGE_DEPTH];
    struct slice sum;
    for (int64_t k = 0; k < x->calls; k++) TRY(comm_end(x->args.comm, &piece->request[k]));
    x->ended++;
    if (piece->count == 0) return ERR_OK;
    struct fold fold = { .x = x, .piece = piece };
    TRY(fold_node(&fold, &sum, (struct lanes_node){ 0, x->args.lane_count }));
    ASSERT(sum.home);
    return ERR_OK;
}

err_t exchange_unit(struct exchange *x, const struct tensor *nodes, int64_t unit)
{
    const int64_t most = owner_span_max(x->args.owner, unit);
    for (int64_t from = 0; from < most; from += x->args.piece_elements) {
        if (x->begun - x->ended == EXCHANGE_DEPTH) TRY(end_piece(x));
        TRY(begin_piece(x, nodes, unit, from));
    }
    return ERR_OK;
}

err_t exchange_finish(struct exchange *x)
{
    while (x->ended < x->begun) TRY(end_piece(x));
    return ERR_OK;
}

/* ---- spreading ---- */

err_t exchange_spread_begin(struct exchange *x, struct comm_request **request,
                            const struct tensor *arena, int64_t at, const void *own, int64_t unit)
{
    const int64_t bytes = dtype_bytes(arena->dtype);
    for (int64_t r = 0; r < x->size; r++) {
        const struct owner_share *s = owner_share(x->args.owner, unit, r);
        x->send[r] = (struct comm_span){ (at + s->begin) * bytes, (s->end - s->begin) * bytes };
    }
    return comm_allgatherv_begin(
        x->args.comm, request,
        &(struct comm_allgatherv_args){ .data = arena->data, .spans = x->send, .send = own });
}

err_t exchange_spread(struct exchange *x, const struct tensor *arena)
{
    struct comm_request *request[SPREADS] = { NULL };
    for (int64_t unit = 0; unit < x->args.owner->unit_count; unit++) {
        struct comm_request **r = &request[unit % SPREADS];
        TRY(comm_end(x->args.comm, r));
        TRY(exchange_spread_begin(x, r, arena, x->args.layout->unit_offset[unit], NULL, unit));
    }
    for (int i = 0; i < SPREADS; i++) TRY(comm_end(x->args.comm, &request[i]));
    return ERR_OK;
}
