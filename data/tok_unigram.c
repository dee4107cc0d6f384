#include "data/tok_unigram.h"

#include "base/check.h"
#include "base/num.h"
#include "base/utf8.h"
#include "data/tok_norm.h"
#include "data/tok_trie.h"

#include <float.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* What a character without a piece costs beyond the worst piece, and what a user-defined piece
 * does, which is next to nothing: constants of the library. */
#define UNKNOWN_PENALTY   10.0f
#define USER_DEFINED_COST 0.1

struct tok_unigram {
    const struct tok_model *model;
    struct tok_trie trie;
    struct tok_norm norm;
    float worst, best; /* of the normal pieces */
};

/* A piece that a text has somewhere. The matches of one place follow each other, shortest first. */
struct match {
    double score;
    int32_t piece;
    uint32_t length : 31; /* characters */
    uint32_t last : 1;    /* of its place */
};

struct match_list {
    struct match *items;
    int64_t count, capacity;
};

/* The best way to a place between characters, and its last step. length 0: none yet. */
struct way {
    float score;
    int32_t piece, length;
};

struct work {
    struct i32_buf points[TOK_UNIGRAM_PARTS_MAX];
    struct match_list head, tail; /* of what one text has alone; of what all end with */
    struct way *ways;
    int64_t way_capacity;
};

err_t tok_unigram_open(struct tok_unigram **out, const char *path, const struct tok_model *model)
{
    err_t rc = ERR_OK;
    struct tok_unigram *u = calloc(1, sizeof *u);
    *out = NULL;
    if (u == NULL) RAISE(NOMEM, "%s: a tokenizer", path);
    ASSERT(model->algorithm == TOK_ALGORITHM_UNIGRAM && model->strip_spaces);
    u->model = model;
    u->worst = FLT_MAX;
    u->best = FLT_MIN; /* as in the library: above all scores, which are logarithms */
    for (int64_t id = 0; id < model->piece_count; id++) {
        if (model->kind[id] != TOK_PIECE_NORMAL) continue;
        if (model->score[id] < u->worst) u->worst = model->score[id];
        if (model->score[id] > u->best) u->best = model->score[id];
    }
    TRY_DONE(tok_trie_open(&u->trie, path, model));
    TRY_DONE(tok_norm_open(&u->norm, path, model, &u->trie));
    *out = u;
    u = NULL;
done:
    tok_unigram_close(u);
    return rc;
}

void tok_unigram_close(struct tok_unigram *u)
{
    if (u == NULL) return;
    tok_norm_close(&u->norm);
    tok_trie_close(&u->trie);
    free(u);
}

/* ---- matches ---- */

static double user_defined_score(const struct tok_unigram *u, int32_t piece)
{
    const struct tok_model *m = u->model;
    const int64_t bytes = m->name_offset[piece + 1] - m->name_offset[piece];
    return (float)bytes * u->best - USER_DEFINED_COST;
}

/* All matches that begin at points[0] of points[count], behind which `node` is. */
static void match_here(const struct tok_unigram *u, struct match_list *list, uint32_t node,
                       const int32_t *points, int64_t count)
{
    const struct tok_trie *t = &u->trie;
    struct match *first = list->items + list->count, *to = first;
    for (int64_t length = 1; node != TOK_TRIE_NONE; length++) {
        const struct tok_trie_node *n = &t->nodes[node];
        if (n->kind == TOK_PIECE_NORMAL)
            *to++ = (struct match){ n->score, n->piece, (uint32_t)length, 0 };
        else if (n->kind == TOK_PIECE_USER_DEFINED)
            *to++ =
                (struct match){ user_defined_score(u, n->piece), n->piece, (uint32_t)length, 0 };
        if (length == count) break;
        node = tok_trie_step(t, node, points[length]);
    }
    if (to == first || first->length != 1)
        *to++ = (struct match){ u->worst - UNKNOWN_PENALTY, u->model->unknown, 1, 0 };
    to[-1].last = 1;
    list->count = to - list->items;
}

/* All matches that begin in points[begin, end) of points[count]. The steps from first to second
 * characters are asked for some places ahead: they are the ones that the caches do not have. */
static err_t find_matches(const struct tok_unigram *u, struct match_list *list,
                          const int32_t *points, int64_t begin, int64_t end, int64_t count)
{
    enum { AHEAD = 4 };
    const struct tok_trie *t = &u->trie;
    list->count = 0;
    for (int64_t start = begin; start < end; start++) {
        ARRAY_GROW(list->items, list->capacity, list->count + t->depth + 1);
        if (start + AHEAD + 1 < count) {
            const uint32_t later = tok_trie_first(t, points[start + AHEAD]);
            if (later != TOK_TRIE_NONE) tok_trie_prefetch(t, later, points[start + AHEAD + 1]);
        }
        match_here(u, list, tok_trie_first(t, points[start]), points + start, count - start);
    }
    return ERR_OK;
}

/* ---- the best way ---- */

/* Ways on from `start` by a list of matches; returns the place that they led to. */
static int64_t follow(struct way *ways, int64_t start, const struct match_list *list,
                      int32_t unknown)
{
    float before = ways[start].score;
    for (int64_t i = 0; i < list->count; i++) {
        const struct match *m = &list->items[i];
        struct way *to = &ways[start + m->length];
        /* The library adds float32 to float64 here, but for unknown characters float32. */
        const double score =
            m->piece == unknown ? (double)((float)m->score + before) : m->score + (double)before;
        if (to->length == 0 || score > (double)to->score)
            *to = (struct way){ (float)score, m->piece, (int32_t)m->length };
        if (m->last) before = ways[++start].score;
    }
    return start;
}

static err_t put_ids(struct i32_buf *ids, const struct tok_unigram *u, const struct way *ways,
                     const int32_t *points, int64_t count)
{
    char bytes[4];
    int64_t id_count = 0;
    for (int64_t at = count; at > 0; at -= ways[at].length)
        id_count += ways[at].piece == u->model->unknown ? utf8_put(bytes, points[at - 1]) : 1;
    if (id_count == 0) return ERR_OK;
    TRY(i32_buf_reserve(ids, id_count));
    ids->count += id_count;
    int32_t *to = ids->data + ids->count;
    for (int64_t at = count; at > 0; at -= ways[at].length) {
        if (ways[at].piece != u->model->unknown) {
            *--to = ways[at].piece;
            continue;
        }
        for (int64_t k = utf8_put(bytes, points[at - 1]); k > 0; k--)
            *--to = u->model->byte_piece[(uint8_t)bytes[k - 1]];
    }
    return ERR_OK;
}

static err_t find_way(const struct tok_unigram *u, struct work *w, struct i32_buf *ids,
                      const struct i32_buf *points, int64_t alone)
{
    const int64_t count = points->count;
    if (count + 1 > w->way_capacity) {
        free(w->ways);
        w->way_capacity = count + 1;
        w->ways = malloc((size_t)w->way_capacity * sizeof *w->ways);
        if (w->ways == NULL) RAISE(NOMEM, "%lld places of a text", (long long)w->way_capacity);
    }
    memset(w->ways, 0, (size_t)(count + 1) * sizeof *w->ways);
    TRY(find_matches(u, &w->head, points->data, 0, alone, count));
    int64_t at = follow(w->ways, 0, &w->head, u->model->unknown);
    at = follow(w->ways, at, &w->tail, u->model->unknown);
    ASSERT(at == count);
    return put_ids(ids, u, w->ways, points->data, count);
}

/* The points that all texts end with. */
static int64_t common_end(const struct i32_buf *points, int64_t count)
{
    int64_t common = points[0].count;
    for (int64_t i = 1; i < count; i++) {
        const int32_t *a = points[0].data + points[0].count, *b = points[i].data + points[i].count;
        int64_t n = 0;
        common = min_i64(common, points[i].count);
        while (n < common && a[-n - 1] == b[-n - 1]) n++;
        common = n;
    }
    return common;
}

err_t tok_unigram_encode(const struct tok_unigram *u, struct i32_buf *ids, int64_t *ends,
                         const struct tok_part *parts, int64_t count)
{
    err_t rc = ERR_OK;
    struct work w = { 0 };
    ASSERT(count >= 1 && count <= TOK_UNIGRAM_PARTS_MAX);
    for (int64_t i = 0; i < count; i++)
        TRY_DONE(tok_norm_apply(&u->norm, &w.points[i], parts[i].text, parts[i].size));
    const int64_t common = common_end(w.points, count), longest = w.points[0].count;
    TRY_DONE(find_matches(u, &w.tail, w.points[0].data, longest - common, longest, longest));
    for (int64_t i = 0; i < count; i++) {
        TRY_DONE(find_way(u, &w, ids, &w.points[i], w.points[i].count - common));
        ends[i] = ids->count;
    }
done:
    for (int64_t i = 0; i < count; i++) i32_buf_clear(&w.points[i]);
    free(w.head.items);
    free(w.tail.items);
    free(w.ways);
    return rc;
}
