/*
 * The table is a double-array trie of byte sequences, `units`, with places in `strings` where a
 * replacement begins; tok_model.c has checked that no step leaves it. A unit: bit 31 it is a value;
 * else bits 10..30 the offset to its children, shifted left by 8 when bit 9 is set; bit 8 a value
 * hangs at label 0; bits 0..7 its own label. At each place the longest rule counts.
 */
#include "data/tok_norm.h"

#include "base/check.h"
#include "base/utf8.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define SIMPLE_COUNT 65536
#define SIMPLE_NONE  (-1)

static uint32_t unit_label(uint32_t unit) { return unit & 0x800000FFu; }
static uint32_t unit_offset(uint32_t unit) { return (unit >> 10) << ((unit >> 9 & 1) * 8); }
static bool unit_has_value(uint32_t unit) { return (unit >> 8 & 1) != 0; }

/* The longest rule at text[size]: its bytes, 0 = none, and its replacement. *place is where in the
 * trie the text ended, or -1 when it left the trie before. */
static int64_t longest_rule(const char **replacement, int64_t *place, const struct tok_norm *n,
                            const char *text, int64_t size)
{
    int64_t found = 0;
    uint32_t at = unit_offset(n->units[0]);
    *place = -1;
    for (int64_t i = 0; i < size; i++) {
        const uint8_t byte = (uint8_t)text[i];
        at ^= byte;
        const uint32_t unit = n->units[at];
        if (unit_label(unit) != byte) return found;
        at ^= unit_offset(unit);
        if (!unit_has_value(unit)) continue;
        *replacement = n->strings + (n->units[at] & 0x7FFFFFFFu);
        found = i + 1;
    }
    *place = at;
    return found;
}

/* May a longer rule begin with what led to this place? Label 0 is where values hang. */
static bool goes_on(const struct tok_norm *n, int64_t place)
{
    for (uint32_t byte = 1; place >= 0 && byte < 256; byte++)
        if (unit_label(n->units[place ^ byte]) == byte) return true;
    return false;
}

/* What a character becomes by itself, if it is one character and no longer rule begins with it. */
static int32_t simple_form(const struct tok_norm *n, int32_t point)
{
    char text[4];
    const char *replacement = NULL;
    int64_t place, length;
    if (n->units == NULL) return point;
    const int64_t size = utf8_put(text, point);
    const int64_t found = longest_rule(&replacement, &place, n, text, size);
    if (goes_on(n, place) || (found != 0 && found != size)) return SIMPLE_NONE;
    if (found == 0) return point;
    const int64_t replaced = (int64_t)strlen(replacement);
    if (replaced == 0) return SIMPLE_NONE;
    const int32_t other = utf8_decode(&length, replacement, replaced);
    return length == replaced ? other : SIMPLE_NONE;
}

/* Whether rules begin with the bytes that the 64 characters from `point` on have in common. */
static bool has_rules(const struct tok_norm *n, int32_t point)
{
    char text[4];
    const char *replacement;
    int64_t place;
    if (n->units == NULL) return false;
    const int64_t common = utf8_put(text, point) - 1;
    return longest_rule(&replacement, &place, n, text, common) > 0 || place >= 0;
}

static void fill_simple(struct tok_norm *n)
{
    const struct tok_model *m = n->model;
    for (int32_t block = 0; block < SIMPLE_COUNT; block += 64) {
        const bool rules = has_rules(n, block);
        for (int32_t point = block; point < block + 64; point++)
            n->simple[point] = rules ? simple_form(n, point) : point;
    }
    for (int64_t id = 0; id < m->piece_count; id++) {
        int64_t length;
        const int64_t begin = m->name_offset[id], size = m->name_offset[id + 1] - begin;
        if (m->kind[id] != TOK_PIECE_USER_DEFINED) continue;
        const int32_t point = utf8_decode(&length, m->names.data + begin, size);
        if (point < SIMPLE_COUNT) n->simple[point] = SIMPLE_NONE;
    }
}

err_t tok_norm_open(struct tok_norm *out, const char *path, const struct tok_model *model,
                    const struct tok_trie *trie)
{
    const struct buf *map = &model->charsmap;
    uint32_t trie_bytes = 0;
    *out = (struct tok_norm){ .model = model, .trie = trie };
    out->simple = malloc(SIMPLE_COUNT * sizeof *out->simple);
    if (map->size > 0) {
        memcpy(&trie_bytes, map->data, sizeof trie_bytes);
        out->strings = map->data + sizeof trie_bytes + trie_bytes;
        out->units = malloc(trie_bytes);
    }
    if (out->simple == NULL || (map->size > 0 && out->units == NULL))
        RAISE(NOMEM, "%s: tables of the normalisation", path);
    if (map->size > 0) memcpy(out->units, map->data + sizeof trie_bytes, trie_bytes);
    fill_simple(out);
    return ERR_OK;
}

void tok_norm_close(struct tok_norm *n)
{
    free(n->units);
    free(n->simple);
    *n = (struct tok_norm){ 0 };
}

/* ---- a text ---- */

/* A text on its way; `out` has room for as many points as there are bytes left. */
struct norm_run {
    const struct tok_norm *norm;
    struct i32_buf *out;
    const char *at, *end;
    bool after_space; /* further spaces go */
};

/* The bytes of the longest user-defined piece at the run's place; 0 = none. */
static int64_t user_defined(const struct norm_run *r)
{
    const struct tok_trie *t = r->norm->trie;
    int64_t found = 0, length;
    uint32_t node = TOK_TRIE_ROOT;
    for (const char *at = r->at; at < r->end; at += length) {
        node = tok_trie_step(t, node, utf8_decode(&length, at, r->end - at));
        if (node == TOK_TRIE_NONE) break;
        if (t->nodes[node].kind == TOK_PIECE_USER_DEFINED) found = at + length - r->at;
    }
    return found;
}

/* Text that stands for what was read: spaces behind a space go, the others become "▁". */
static err_t put_text(struct norm_run *r, const char *text, int64_t size)
{
    while (r->after_space && size > 0 && text[0] == ' ') {
        text++;
        size--;
    }
    if (size == 0) return ERR_OK;
    TRY(i32_buf_reserve(r->out, size + (r->end - r->at)));
    for (int64_t at = 0, length; at < size; at += length) {
        const int32_t point = utf8_decode(&length, text + at, size - at);
        r->out->data[r->out->count++] = point == ' ' ? TOK_SPACE_POINT : point;
    }
    r->after_space = text[size - 1] == ' ';
    return ERR_OK;
}

/* What the table of simple forms does not know: pieces that stay whole, rules of several characters
 * and rules that remove or multiply. */
static err_t step_by_rule(struct norm_run *r)
{
    const char *text = r->at, *replacement = NULL;
    int64_t place, length = user_defined(r);
    if (length > 0) {
        r->at += length;
        return put_text(r, text, length);
    }
    if (r->norm->units != NULL)
        length = longest_rule(&replacement, &place, r->norm, text, r->end - text);
    if (length > 0) {
        r->at += length;
        return put_text(r, replacement, (int64_t)strlen(replacement));
    }
    if (utf8_decode(&length, text, r->end - text) < 0) { /* a rule ended inside of a character */
        r->at++;
        return put_text(r, UTF8_REPLACEMENT, 3);
    }
    r->at += length;
    return put_text(r, text, length);
}

/* The code point at well-formed text of up to 3 bytes; 0 for what is longer or, behind a rule that
 * ended inside of a character, is not the beginning of one. */
static int32_t short_point(int64_t *length, const char *text, int64_t size)
{
    const uint8_t *b = (const uint8_t *)text;
    if (b[0] < 0x80) {
        *length = 1;
        return b[0];
    }
    if (b[0] >= 0xE0 && b[0] < 0xF0 && size >= 3) {
        *length = 3;
        return (b[0] & 0x0F) << 12 | (b[1] & 0x3F) << 6 | (b[2] & 0x3F);
    }
    if (b[0] >= 0xC0 && b[0] < 0xE0 && size >= 2) {
        *length = 2;
        return (b[0] & 0x1F) << 6 | (b[1] & 0x3F);
    }
    *length = 0;
    return 0;
}

static err_t apply_all(struct norm_run *r)
{
    const int32_t *simple = r->norm->simple;
    while (r->at < r->end) {
        int64_t length;
        int32_t point = short_point(&length, r->at, r->end - r->at);
        point = length > 0 ? simple[point] : SIMPLE_NONE;
        if (point == SIMPLE_NONE) {
            TRY(step_by_rule(r));
            continue;
        }
        r->at += length;
        if (point == ' ' && r->after_space) continue;
        r->after_space = point == ' ';
        r->out->data[r->out->count++] = point == ' ' ? TOK_SPACE_POINT : point;
    }
    return ERR_OK;
}

err_t tok_norm_apply(const struct tok_norm *n, struct i32_buf *points, const char *text,
                     int64_t size)
{
    const int64_t begin = points->count;
    struct norm_run r = { n, points, text, text + size, .after_space = true };
    TRY(i32_buf_reserve(points, size + 1));
    points->data[points->count++] = TOK_SPACE_POINT;
    TRY(apply_all(&r));
    while (points->count > begin && points->data[points->count - 1] == TOK_SPACE_POINT)
        points->count--;
    return ERR_OK;
}
