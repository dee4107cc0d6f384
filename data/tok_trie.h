/*
 * tok_trie.h - which pieces a text begins with: the names of a model's pieces, character by
 * character. Internal to the tokenizer.
 *
 *     uint32_t node = tok_trie_first(t, points[at++]);
 *     while (node != TOK_TRIE_NONE) {
 *         if (t->nodes[node].piece >= 0) ...
 *         node = at < count ? tok_trie_step(t, node, points[at++]) : TOK_TRIE_NONE;
 *     }
 *
 * One hash table of open addressing; a node is the place of its entry, found by its parent's place
 * and its character. Steps wait for memory, not for arithmetic: so most of those that lead nowhere
 * are refused by 64 bits in the parent that say which characters may follow, first characters have
 * a table of their own, and a step can be asked for ahead of time (tok_trie_prefetch).
 */
#ifndef DATA_TOK_TRIE_H
#define DATA_TOK_TRIE_H

#include "base/err.h"
#include "data/tok_model.h"

#include <stdint.h>

#define TOK_TRIE_ROOT        0u
#define TOK_TRIE_NONE        UINT32_MAX
#define TOK_TRIE_FIRST_COUNT 65536

struct tok_trie_node {
    uint32_t parent;  /* TOK_TRIE_NONE: this place is free */
    int32_t point;    /* the character */
    int32_t piece;    /* the id of the piece that ends here; -1 = none */
    float score;      /* of the piece, as in the model */
    uint64_t follows; /* bit tok_trie_bit(c) is set where character c may follow */
    uint64_t kind;    /* of the piece, enum tok_piece_kind; 0 = none */
};

struct tok_trie {
    struct tok_trie_node *nodes; /* [mask + 1]; place 0 is the root's */
    uint64_t mask;
    int shift;
    int64_t depth;   /* characters of the longest name */
    uint32_t *first; /* [TOK_TRIE_FIRST_COUNT] the nodes behind the root */
};

/* The pieces that occur in texts: normal, user-defined and unused ones. ERR_FORMAT: a name twice;
 * ERR_NOMEM. Close it in any case; zero it before. */
MUST_USE err_t tok_trie_open(struct tok_trie *out, const char *path, const struct tok_model *model);
void tok_trie_close(struct tok_trie *t);

static inline uint64_t tok_trie_hash(uint32_t parent, int32_t point)
{
    return ((uint64_t)parent << 21 ^ (uint64_t)point) * UINT64_C(0x9E3779B97F4A7C15);
}

static inline uint64_t tok_trie_bit(int32_t point) { return UINT64_C(1) << (point & 63); }

/* The node behind `node` by a character, or TOK_TRIE_NONE. */
static inline uint32_t tok_trie_step(const struct tok_trie *t, uint32_t node, int32_t point)
{
    if (!(t->nodes[node].follows & tok_trie_bit(point))) return TOK_TRIE_NONE;
    for (uint64_t at = tok_trie_hash(node, point) >> t->shift;; at++) {
        const struct tok_trie_node *n = &t->nodes[at & t->mask];
        if (n->point == point && n->parent == node) return (uint32_t)(at & t->mask);
        if (n->parent == TOK_TRIE_NONE) return TOK_TRIE_NONE;
    }
}

static inline uint32_t tok_trie_first(const struct tok_trie *t, int32_t point)
{
    return point < TOK_TRIE_FIRST_COUNT ? t->first[point] : tok_trie_step(t, TOK_TRIE_ROOT, point);
}

/* Fetch what the step from `node` by a character will look at. */
static inline void tok_trie_prefetch(const struct tok_trie *t, uint32_t node, int32_t point)
{
    __builtin_prefetch(&t->nodes[tok_trie_hash(node, point) >> t->shift]);
}

#endif
