#include "train/scale.h"

#include "base/check.h"
#include "base/num.h"
#include "train/exchange.h"
#include "train/owner.h"

#include <math.h>
#include <string.h>

#define SLOTS GLM_GRAD_SLOTS

const char *scale_kind_name(enum scale_kind kind)
{
    static const char *const names[SCALE_KINDS] = { "gradients", "spread", "fetched", "scalars" };
    ASSERT((int)kind >= 0 && kind < SCALE_KINDS);
    return names[kind];
}

/* Bytes of an exchange, apart by where the other ranks are. */
struct bytes {
    int64_t sent_intra, sent_inter, received_intra, received_inter;
};

struct walk {
    const struct scale_args *args;
    struct owner_table table;
    int64_t near_first, near_end;  /* ranks of this machine */
    int64_t stride;                /* every so many-th rank sends its pieces of a gather here */
    int64_t nodes;                 /* sums over lanes that this rank sends */
    int64_t near_nodes, far_nodes; /* and that others do, of this machine and not */
    int64_t calls;                 /* the most that one rank does */
    int64_t piece_elements;
    double now_s, links_s; /* computing is at; the links are busy until */
    double computed_s;
    double piece_end_s[EXCHANGE_DEPTH];
    int64_t begun, ended;     /* pieces of gradients */
    int64_t slot_unit[SLOTS]; /* stage 3: whose weights are there; -1: none */
    double slot_end_s[SLOTS];
    struct scale out;
};

static bool is_near(const struct walk *w, int64_t rank)
{
    return rank >= w->near_first && rank < w->near_end;
}

/* ---- the two clocks ---- */

static void compute(struct walk *w, double seconds)
{
    w->now_s += seconds;
    w->computed_s += seconds;
}

static void wait_until(struct walk *w, double then_s) { w->now_s = fmax(w->now_s, then_s); }

/* An exchange begins now, after those before it; returns when it ends. */
static double begin(struct walk *w, enum scale_kind kind, const struct bytes *b, int64_t messages)
{
    const double intra = (double)max_i64(b->sent_intra, b->received_intra);
    const double inter = (double)max_i64(b->sent_inter, b->received_inter);
    const double seconds = fabric_seconds(&w->args->fabric, intra, inter, (double)messages);
    w->links_s = fmax(w->links_s, w->now_s) + seconds;
    w->out.exchange_s += seconds;
    w->out.sent[kind] += b->sent_intra + b->sent_inter;
    w->out.received[kind] += b->received_intra + b->received_inter;
    w->out.inter_bytes += b->sent_inter;
    w->out.messages += messages;
    return w->links_s;
}

/* ---- gradients to their owners ---- */

static int64_t span(const struct walk *w, int64_t unit, int64_t rank)
{
    const struct owner_share *s = owner_share(&w->table.owner, unit, rank);
    return s->end - s->begin;
}

/* Elements of a piece that `rank` owns: a piece begins at element `from` of every owner's span. */
static int64_t piece_of(const struct walk *w, int64_t unit, int64_t rank, int64_t from)
{
    return max_i64(min_i64(span(w, unit, rank) - from, w->piece_elements), 0);
}

static void piece_bytes(struct bytes *b, const struct walk *w, int64_t unit, int64_t from)
{
    const int64_t g = dtype_bytes(w->args->grads), me = w->args->rank;
    const int64_t mine = piece_of(w, unit, me, from);
    int64_t near = 0, far = 0;
    for (int64_t r = 0; r < w->args->ranks; r++) {
        if (r == me) continue;
        if (is_near(w, r))
            near += piece_of(w, unit, r, from);
        else
            far += piece_of(w, unit, r, from);
    }
    *b = (struct bytes){ w->nodes * near * g, w->nodes * far * g, w->near_nodes * mine * g,
                         w->far_nodes * mine * g };
}

/* As exchange_unit: a few pieces are under way, and who wants to begin another one waits. */
static void send_unit(struct walk *w, int64_t unit)
{
    const int64_t most = owner_span_max(&w->table.owner, unit);
    for (int64_t from = 0; from < most; from += w->piece_elements) {
        struct bytes bytes;
        if (w->begun - w->ended == EXCHANGE_DEPTH)
            wait_until(w, w->piece_end_s[w->ended++ % EXCHANGE_DEPTH]);
        piece_bytes(&bytes, w, unit, from);
        w->piece_end_s[w->begun++ % EXCHANGE_DEPTH] =
            begin(w, SCALE_GRADIENTS, &bytes, w->calls * (w->args->ranks - 1));
    }
}

static void send_rest(struct walk *w, int64_t unit)
{
    for (; unit >= 0; unit--) send_unit(w, unit);
    wait_until(w, w->links_s);
}

/* ---- from owners to all ---- */

/* Bytes of a gather by how they come: from this rank, from it or others of its machine, straight
 * from other machines, and all. */
struct pieces {
    int64_t mine, near, far, all;
};

static void add_piece(struct pieces *p, const struct walk *w, int64_t rank, int64_t bytes)
{
    const int64_t me = w->args->rank;
    p->all += bytes;
    if (rank == me) p->mine += bytes;
    if (is_near(w, rank))
        p->near += bytes;
    else if (rank % w->stride == me % w->stride)
        p->far += bytes;
}

/* As kernels/dev_comm.h has it: straight from the owners, then what has come so is passed on to
 * this machine's ranks. Where machines have unequal numbers everything goes straight. */
static double gather(struct walk *w, enum scale_kind kind, const struct pieces *p)
{
    const int64_t others = w->args->ranks - 1, beside = w->near_end - w->near_first - 1;
    const int64_t away = w->stride > 1 ? w->args->ranks / w->stride - 1 : others - beside;
    const struct bytes straight = { p->mine * beside, p->mine * away, p->near - p->mine, p->far };
    const struct bytes passed_on = { p->far * beside, 0, p->all - p->near - p->far, 0 };
    const double end_s = begin(w, kind, &straight, beside + away);
    return beside + away < others ? begin(w, kind, &passed_on, others - beside - away) : end_s;
}

static double spread_unit(struct walk *w, enum scale_kind kind, int64_t unit, dtype_t dtype)
{
    struct pieces p = { 0 };
    for (int64_t r = 0; r < w->args->ranks; r++)
        add_piece(&p, w, r, span(w, unit, r) * dtype_bytes(dtype));
    return gather(w, kind, &p);
}

static void spread(struct walk *w, dtype_t dtype)
{
    const int64_t last = w->table.owner.unit_count - 1;
    for (int64_t unit = 0; unit <= last; unit++)
        if (w->args->stage < 3 || unit == 0 || unit == last)
            spread_unit(w, SCALE_SPREAD, unit, dtype);
    wait_until(w, w->links_s);
}

/* ---- weights of layers, as zero_fetch.c ---- */

static void fetch(struct walk *w, int64_t unit)
{
    const int64_t slot = (unit - 1) % SLOTS;
    if (w->args->stage < 3 || w->slot_unit[slot] == unit) return;
    w->slot_unit[slot] = unit;
    w->slot_end_s[slot] = spread_unit(w, SCALE_FETCHED, unit, w->args->weights);
}

/* A layer is computed while the next one comes. */
static void layer(struct walk *w, int64_t unit, int64_t next, double seconds)
{
    fetch(w, unit);
    if (w->args->stage == 3) wait_until(w, w->slot_end_s[(unit - 1) % SLOTS]);
    if (next > 0) fetch(w, next);
    compute(w, seconds);
}

/* ---- a step ---- */

static void pass(struct walk *w, bool sends)
{
    const struct scale_args *a = w->args;
    const int64_t last = w->table.owner.unit_count - 2; /* layers are units 1 .. last */
    for (int64_t unit = 1; unit <= last; unit++)
        layer(w, unit, unit < last ? unit + 1 : -1, a->forward_s / (double)last);
    compute(w, a->head_s);
    if (sends) send_unit(w, last + 1);
    for (int64_t unit = last; unit >= 1; unit--) {
        layer(w, unit, unit - 1, a->backward_s / (double)last);
        if (sends) send_unit(w, unit);
    }
    if (sends) send_unit(w, 0);
}

/* The norm's sums, from stage 1 on; one float64 a chunk. */
static void gather_norm(struct walk *w)
{
    struct pieces p = { 0 };
    if (w->args->stage == 0) return;
    for (int64_t unit = 0; unit < w->table.owner.unit_count; unit++)
        for (int64_t r = 0; r < w->args->ranks; r++) {
            const struct owner_share *s = owner_share(&w->table.owner, unit, r);
            add_piece(&p, w, r, (s->chunk_end - s->chunk_begin) * 8);
        }
    wait_until(w, gather(w, SCALE_SCALARS, &p));
}

static void gather_losses(struct walk *w)
{
    struct pieces p = { 0 };
    for (int64_t r = 0; r < w->args->ranks; r++) add_piece(&p, w, r, w->args->samples * 8);
    wait_until(w, gather(w, SCALE_SCALARS, &p));
}

static void walk_step(struct walk *w)
{
    const struct scale_args *a = w->args;
    const bool overlaps = a->stage >= 2 && a->lanes == a->ranks;
    for (int64_t i = 0; i < a->passes; i++) pass(w, overlaps && i == a->passes - 1);
    send_rest(w, overlaps && a->passes > 0 ? -1 : w->table.owner.unit_count - 1);
    if (a->stage == 0) spread(w, a->grads);
    gather_norm(w);
    gather_losses(w);
    if (a->stage > 0) spread(w, a->weights);
}

static void count_nodes(struct walk *w)
{
    const struct scale_args *a = w->args;
    for (int64_t r = 0; r < a->ranks; r++) {
        const int64_t count = exchange_nodes(a->lanes, r, a->ranks);
        w->calls = max_i64(w->calls, count);
        if (r == a->rank)
            w->nodes = count;
        else if (is_near(w, r))
            w->near_nodes += count;
        else
            w->far_nodes += count;
    }
}

static err_t open_walk(struct walk *w)
{
    const struct scale_args *a = w->args;
    TRY(owner_table_create(&w->table, a->config, a->vocab_multiple, a->ranks));
    w->near_first = a->rank - a->rank % a->fabric.ranks_per_node;
    w->near_end = min_i64(w->near_first + a->fabric.ranks_per_node, a->ranks);
    w->stride = a->ranks % a->fabric.ranks_per_node == 0 ? a->fabric.ranks_per_node : 1;
    w->piece_elements =
        exchange_piece_elements(&(struct exchange_args){ .owner = &w->table.owner });
    for (int i = 0; i < SLOTS; i++) w->slot_unit[i] = -1;
    count_nodes(w);
    return ERR_OK;
}

err_t scale_step(struct scale *out, const struct scale_args *args)
{
    struct walk w = { .args = args };
    *out = w.out;
    if (args->ranks == 1) return ERR_OK;
    ASSERT(args->lanes >= args->ranks && args->fabric.ranks_per_node >= 1);
    const err_t rc = open_walk(&w);
    if (rc == ERR_OK) {
        walk_step(&w);
        for (int k = 0; k < SCALE_KINDS; k++) {
            w.out.sent_bytes += w.out.sent[k];
            w.out.received_bytes += w.out.received[k];
        }
        /* Who waits, waits for busy links; what is more is rounding. */
        w.out.exposed_s = fmin(w.now_s - w.computed_s, w.out.exchange_s);
        *out = w.out;
    }
    owner_table_clear(&w.table);
    return rc;
}
