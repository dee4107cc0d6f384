#include "data/tok_trie.h"

#include "base/check.h"
#include "base/num.h"
#include "base/utf8.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>

/* The root has its place by this entry, which no step asks for: characters are not negative. */
#define ROOT_POINT (-1)
#define HUGE_PAGE  (2 << 20)

static err_t make_table(struct tok_trie *t, const char *path, int64_t node_count)
{
    int bits = 8;
    while ((INT64_C(1) << bits) < 2 * node_count) bits++;
    t->mask = (UINT64_C(1) << bits) - 1;
    t->shift = 64 - bits;
    const size_t bytes = ((size_t)t->mask + 1) * sizeof *t->nodes;
    t->nodes = aligned_alloc(bytes < HUGE_PAGE ? 64 : HUGE_PAGE, bytes);
    if (t->nodes == NULL) RAISE(NOMEM, "%s: a table of %" PRIu64 " places", path, t->mask + 1);
    if (bytes >= HUGE_PAGE) madvise(t->nodes, bytes, MADV_HUGEPAGE); /* refused: only slower */
    for (uint64_t i = 0; i <= t->mask; i++)
        t->nodes[i] = (struct tok_trie_node){ .parent = TOK_TRIE_NONE, .piece = -1 };
    t->nodes[TOK_TRIE_ROOT].parent = TOK_TRIE_ROOT;
    t->nodes[TOK_TRIE_ROOT].point = ROOT_POINT;
    return ERR_OK;
}

/* The node behind `node` by a character, made where there is none: there is room for it. */
static uint32_t add_step(struct tok_trie *t, uint32_t node, int32_t point, int64_t *node_count)
{
    uint64_t at = tok_trie_hash(node, point) >> t->shift;
    t->nodes[node].follows |= tok_trie_bit(point);
    for (;; at++) {
        struct tok_trie_node *n = &t->nodes[at & t->mask];
        if (n->point == point && n->parent == node) return (uint32_t)(at & t->mask);
        if (n->parent != TOK_TRIE_NONE) continue;
        n->parent = node;
        n->point = point;
        ++*node_count;
        return (uint32_t)(at & t->mask);
    }
}

static bool is_in_texts(const struct tok_model *m, int64_t id)
{
    return m->kind[id] == TOK_PIECE_NORMAL || m->kind[id] == TOK_PIECE_USER_DEFINED ||
           m->kind[id] == TOK_PIECE_UNUSED;
}

/* *full: the table is half full, and the name is not in it. */
static err_t add_name(struct tok_trie *t, bool *full, int64_t *node_count, const char *path,
                      const struct tok_model *m, int64_t id)
{
    uint32_t node = TOK_TRIE_ROOT;
    int64_t depth = 0;
    for (int64_t at = m->name_offset[id], length; at < m->name_offset[id + 1]; at += length) {
        const int64_t left = m->name_offset[id + 1] - at;
        *full = 2 * *node_count > (int64_t)t->mask;
        if (*full) return ERR_OK;
        node = add_step(t, node, utf8_decode(&length, m->names.data + at, left), node_count);
        depth++;
    }
    struct tok_trie_node *n = &t->nodes[node];
    if (n->piece >= 0)
        RAISE(FORMAT, "%s: pieces %d and %" PRId64 " have one name", path, n->piece, id);
    n->piece = (int32_t)id;
    n->score = m->score[id];
    n->kind = m->kind[id];
    t->depth = max_i64(t->depth, depth);
    return ERR_OK;
}

static err_t add_names(struct tok_trie *t, bool *full, const char *path, const struct tok_model *m)
{
    int64_t node_count = 1;
    *full = false;
    for (int64_t id = 0; id < m->piece_count && !*full; id++)
        if (is_in_texts(m, id)) TRY(add_name(t, full, &node_count, path, m, id));
    return ERR_OK;
}

/*
 * The smallest table with twice as many places as nodes: it keeps what texts need in the caches.
 * Each name has a node of its own; how many more there are is seen when a table has no room left.
 */
err_t tok_trie_open(struct tok_trie *out, const char *path, const struct tok_model *model)
{
    int64_t room = 1;
    bool full = true;
    for (int64_t id = 0; id < model->piece_count; id++) room += is_in_texts(model, id);
    for (; full; room *= 2) {
        tok_trie_close(out);
        TRY(make_table(out, path, room));
        TRY(add_names(out, &full, path, model));
    }
    out->first = malloc(TOK_TRIE_FIRST_COUNT * sizeof *out->first);
    if (out->first == NULL) RAISE(NOMEM, "%s: a table of first characters", path);
    for (int32_t point = 0; point < TOK_TRIE_FIRST_COUNT; point++)
        out->first[point] = tok_trie_step(out, TOK_TRIE_ROOT, point);
    return ERR_OK;
}

void tok_trie_close(struct tok_trie *t)
{
    free(t->nodes);
    free(t->first);
    *t = (struct tok_trie){ 0 };
}
