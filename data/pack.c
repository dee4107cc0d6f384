#include "data/pack.h"

#include "base/check.h"
#include "base/num.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/*
 * Open packs are kept in one leftist heap per room left (0 .. capacity), the lowest pack on top,
 * and a bitset says which heaps are not empty: the best fit for an item is the first set bit at or
 * above its length. Heap nodes are the packs themselves, so nothing is allocated while packing.
 */
struct heap_node {
    int32_t left, right; /* packs; -1 = none */
    int32_t rank;        /* steps to the nearest missing child, along the right spine */
};

struct packer {
    int64_t capacity;
    int32_t *root;          /* [capacity + 1] top pack of each room, -1 = none */
    uint64_t *rooms;        /* bit r: some pack has exactly r rows left */
    struct heap_node *node; /* [count] by pack */
    int32_t *order;         /* [count] items longest first, equal ones by index */
    int32_t *pack_of;       /* [count] */
    int64_t pack_count;
};

static int32_t heap_merge(struct heap_node *node, int32_t a, int32_t b)
{
    if (a < 0) return b;
    if (b < 0) return a;
    if (b < a) {
        const int32_t swap = a;
        a = b;
        b = swap;
    }
    /* The right spine has at most log2(count) nodes: that bounds the recursion. */
    node[a].right = heap_merge(node, node[a].right, b);
    const int32_t left = node[a].left, right = node[a].right;
    const int32_t left_rank = left < 0 ? 0 : node[left].rank;
    const int32_t right_rank = right < 0 ? 0 : node[right].rank;
    if (left_rank < right_rank) {
        node[a].left = right;
        node[a].right = left;
    }
    node[a].rank = 1 + (int32_t)min_i64(left_rank, right_rank);
    return a;
}

static void put_pack(struct packer *p, int32_t pack, int64_t room)
{
    p->node[pack] = (struct heap_node){ .left = -1, .right = -1, .rank = 1 };
    p->root[room] = heap_merge(p->node, p->root[room], pack);
    p->rooms[room / 64] |= (uint64_t)1 << (room % 64);
}

static int32_t take_lowest_pack(struct packer *p, int64_t room)
{
    const int32_t pack = p->root[room];
    ASSERT(pack >= 0);
    p->root[room] = heap_merge(p->node, p->node[pack].left, p->node[pack].right);
    if (p->root[room] < 0) p->rooms[room / 64] &= ~((uint64_t)1 << (room % 64));
    return pack;
}

/* The least room >= len that some pack has, or -1. */
static int64_t best_room(const struct packer *p, int64_t len)
{
    const int64_t words = p->capacity / 64 + 1;
    int64_t w = len / 64;
    uint64_t bits = p->rooms[w] & (~(uint64_t)0 << (len % 64));
    while (bits == 0 && ++w < words) bits = p->rooms[w];
    return bits == 0 ? -1 : w * 64 + __builtin_ctzll(bits);
}

static void place_items(struct packer *p, const int32_t *len, int64_t count)
{
    for (int64_t k = 0; k < count; k++) {
        const int32_t item = p->order[k];
        int64_t room = best_room(p, len[item]);
        int32_t pack;
        if (room >= 0) {
            pack = take_lowest_pack(p, room);
        } else {
            room = p->capacity;
            pack = (int32_t)p->pack_count++;
        }
        p->pack_of[item] = pack;
        put_pack(p, pack, room - len[item]);
    }
}

/* Counting sort: stable, so equal lengths stay in order of index. `start` has capacity + 2 entries.
 */
static void sort_longest_first(int32_t *order, int64_t *start, const int32_t *len, int64_t count,
                               int64_t capacity)
{
    memset(start, 0, (size_t)(capacity + 2) * sizeof *start);
    for (int64_t i = 0; i < count; i++) start[capacity - len[i] + 1]++;
    for (int64_t k = 0; k <= capacity; k++) start[k + 1] += start[k];
    for (int64_t i = 0; i < count; i++) order[start[capacity - len[i]]++] = (int32_t)i;
}

/* From the pack of each item to the items of each pack, ascending. */
static void list_by_pack(struct pack_plan *out, const int32_t *pack_of)
{
    memset(out->first, 0, (size_t)(out->pack_count + 1) * sizeof *out->first);
    for (int64_t i = 0; i < out->item_count; i++) out->first[pack_of[i] + 1]++;
    for (int64_t p = 0; p < out->pack_count; p++) out->first[p + 1] += out->first[p];
    /* Each first[p] walks to the start of pack p+1 and is moved back by one pack at the end. */
    for (int64_t i = 0; i < out->item_count; i++) out->item[out->first[pack_of[i]]++] = i;
    for (int64_t p = out->pack_count; p > 0; p--) out->first[p] = out->first[p - 1];
    out->first[0] = 0;
}

static err_t check_lengths(const int32_t *len, int64_t count, int64_t capacity)
{
    ASSERT(count >= 0);
    if (capacity < 1 || capacity > PACK_CAPACITY_MAX)
        RAISE(ARG, "pack capacity %lld; expected 1 to %d rows", (long long)capacity,
              PACK_CAPACITY_MAX);
    if (count > PACK_ITEMS_MAX)
        RAISE(ARG, "%lld items to pack; at most %d", (long long)count, PACK_ITEMS_MAX);
    for (int64_t i = 0; i < count; i++) {
        if (len[i] < 1 || len[i] > capacity)
            RAISE(ARG, "item %lld has %d rows; a pack takes items of 1 to %lld rows", (long long)i,
                  len[i], (long long)capacity);
    }
    return ERR_OK;
}

err_t pack_best_fit(struct pack_plan *out, const int32_t *len, int64_t count, int64_t capacity)
{
    err_t rc = ERR_OK;
    int64_t *start = NULL;
    struct packer p = { .capacity = capacity };
    struct pack_plan plan = { .item_count = count };

    TRY(check_lengths(len, count, capacity));
    const size_t n = (size_t)max_i64(count, 1);
    start = malloc((size_t)(capacity + 2) * sizeof *start);
    p.root = malloc((size_t)(capacity + 1) * sizeof *p.root);
    p.rooms = calloc((size_t)(capacity / 64 + 1), sizeof *p.rooms);
    p.node = malloc(n * sizeof *p.node);
    p.order = malloc(n * sizeof *p.order);
    p.pack_of = malloc(n * sizeof *p.pack_of);
    plan.item = malloc(n * sizeof *plan.item);
    if (!start || !p.root || !p.rooms || !p.node || !p.order || !p.pack_of || !plan.item)
        RAISE_DONE(NOMEM, "no memory to pack %lld items", (long long)count);
    memset(p.root, 0xff, (size_t)(capacity + 1) * sizeof *p.root); /* -1 everywhere */

    sort_longest_first(p.order, start, len, count, capacity);
    place_items(&p, len, count);

    plan.pack_count = p.pack_count;
    plan.first = malloc((size_t)(plan.pack_count + 1) * sizeof *plan.first);
    if (!plan.first) RAISE_DONE(NOMEM, "no memory for %lld packs", (long long)plan.pack_count);
    list_by_pack(&plan, p.pack_of);

    int64_t rows = 0;
    for (int64_t i = 0; i < count; i++) rows += len[i];
    if (count > 0) plan.fill = (double)rows / ((double)plan.pack_count * (double)capacity);
    *out = plan;
    plan = (struct pack_plan){ 0 };

done:
    free(start);
    free(p.root);
    free(p.rooms);
    free(p.node);
    free(p.order);
    free(p.pack_of);
    pack_plan_clear(&plan);
    return rc;
}

void pack_plan_clear(struct pack_plan *plan)
{
    free(plan->first);
    free(plan->item);
    *plan = (struct pack_plan){ 0 };
}
