#include "data/jdoc.h"

#include "base/check.h"
#include "base/num.h"
#include "base/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAIRWISE_KEYS_MAX 16 /* objects up to this size are checked for repeated keys directly */

struct parser {
    struct jdoc *d;
    const char *begin, *at, *end;
    char *out; /* where the next string goes, in d->text */
    int depth;
};

/* ---- messages ---- */

static err_t fail_at(struct parser *p, const char *at, const char *expected)
{
    p->at = at;
    if (at >= p->end) RAISE(FORMAT, "the text ends, expected %s", expected);
    const unsigned char c = (unsigned char)*at;
    if (c > ' ' && c < 0x7f) RAISE(FORMAT, "found '%c', expected %s", c, expected);
    RAISE(FORMAT, "found byte 0x%02x, expected %s", c, expected);
}

static err_t fail_utf8(struct parser *p, const char *at)
{
    int64_t length;
    p->at = at;
    if (utf8_decode(&length, at, p->end - at) < 0 && length == p->end - at && length < 4 &&
        (unsigned char)*at >= 0xC2)
        RAISE(FORMAT, "byte 0x%02x is not UTF-8: the text ends inside a character, it is cut short",
              (unsigned char)*at);
    RAISE(FORMAT,
          "byte 0x%02x is not UTF-8; if the file is in another encoding, convert it first: "
          "iconv -f GB18030 -t UTF-8",
          (unsigned char)*at);
}

/* ---- nodes ---- */

static err_t add_node(struct parser *p, enum jdoc_type type, int64_t *index)
{
    struct jdoc *d = p->d;
    if (d->count == JDOC_NODES_MAX)
        RAISE(FORMAT, "more than %d values in one record", JDOC_NODES_MAX);
    ARRAY_GROW(d->nodes, d->capacity, d->count + 1);
    *index = d->count++;
    d->nodes[*index] =
        (struct jdoc_node){ .type = type, .span = 1, .at = (int32_t)(p->at - p->begin) };
    return ERR_OK;
}

/* ---- strings ---- */

static bool is_continuation(char c) { return ((unsigned char)c & 0xc0) == 0x80; }

/* Pass over what stands for itself: to a quote, a backslash, a control character or the end. */
static err_t pass_plain(struct parser *p)
{
    const char *at = p->at, *end = p->end;
    for (;;) {
        while (at < end && (unsigned char)*at >= ' ' && (unsigned char)*at < 0x80 && *at != '"' &&
               *at != '\\')
            at++;
        if (at == end || (unsigned char)*at < 0x80) break;
        /* Three bytes that cannot be overlong or a surrogate: nearly all of a Chinese text. */
        while (end - at >= 3 && (unsigned char)*at > 0xe0 && (unsigned char)*at < 0xf0 &&
               (unsigned char)*at != 0xed && is_continuation(at[1]) && is_continuation(at[2]))
            at += 3;
        if (at == end || (unsigned char)*at < 0x80) continue;
        int64_t length;
        if (utf8_decode(&length, at, end - at) < 0) return fail_utf8(p, at);
        at += length;
    }
    p->at = at;
    return ERR_OK;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* The four digits after "\u"; p->at stands at the first of them and moves behind the last. */
static err_t parse_hex4(struct parser *p, int32_t *value)
{
    *value = 0;
    for (int i = 0; i < 4; i++, p->at++) {
        const int digit = p->at < p->end ? hex_value(*p->at) : -1;
        if (digit < 0) return fail_at(p, p->at, "four hexadecimal digits after \\u");
        *value = *value << 4 | digit;
    }
    return ERR_OK;
}

static err_t parse_unicode_escape(struct parser *p)
{
    const char *begin = p->at - 2;
    int32_t high, low = 0;
    TRY(parse_hex4(p, &high));
    if (high >= 0xd800 && high < 0xe000) {
        const bool pair =
            high < 0xdc00 && p->end - p->at >= 2 && p->at[0] == '\\' && p->at[1] == 'u';
        if (pair) {
            p->at += 2;
            TRY(parse_hex4(p, &low));
        }
        if (low < 0xdc00 || low >= 0xe000) {
            p->at = begin;
            RAISE(FORMAT, "\\u%04x is half of a surrogate pair", (unsigned)high);
        }
        high = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
    }
    p->out += utf8_put(p->out, high);
    return ERR_OK;
}

/* p->at stands behind the backslash. */
static err_t parse_escape(struct parser *p)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *known = p->at < p->end && *p->at != '\0' ? strchr(from, *p->at) : NULL;
    if (known != NULL) {
        *p->out++ = to[known - from];
        p->at++;
        return ERR_OK;
    }
    if (p->at == p->end || *p->at != 'u')
        return fail_at(p, p->at, "one of \"\\/bfnrtu after a backslash");
    p->at++;
    return parse_unicode_escape(p);
}

static err_t parse_string(struct parser *p, int64_t *index)
{
    TRY(add_node(p, JDOC_STRING, index));
    char *out = p->out;
    p->at++; /* the quote */
    for (;;) {
        const char *run = p->at;
        TRY(pass_plain(p));
        memcpy(p->out, run, (size_t)(p->at - run));
        p->out += p->at - run;
        if (p->at == p->end) return fail_at(p, p->at, "the end of a string");
        if (*p->at == '"') break;
        if (*p->at != '\\') return fail_at(p, p->at, "no control character inside a string");
        p->at++;
        TRY(parse_escape(p));
    }
    p->at++;
    p->d->nodes[*index].text = out;
    p->d->nodes[*index].size = p->out - out;
    *p->out++ = '\0'; /* in place of the quotes */
    return ERR_OK;
}

/* ---- numbers and words ---- */

static bool pass_digits(struct parser *p)
{
    const char *begin = p->at;
    while (p->at < p->end && *p->at >= '0' && *p->at <= '9') p->at++;
    return p->at > begin;
}

static err_t parse_number(struct parser *p)
{
    int64_t index;
    const char *begin = p->at;
    TRY(add_node(p, JDOC_NUMBER, &index));
    if (*p->at == '-') p->at++;
    if (p->at < p->end && *p->at == '0')
        p->at++;
    else if (!pass_digits(p))
        return fail_at(p, p->at, "a digit");
    if (p->at < p->end && *p->at == '.') {
        p->at++;
        if (!pass_digits(p)) return fail_at(p, p->at, "a digit after the point");
    }
    if (p->at < p->end && (*p->at == 'e' || *p->at == 'E')) {
        p->at++;
        if (p->at < p->end && (*p->at == '+' || *p->at == '-')) p->at++;
        if (!pass_digits(p)) return fail_at(p, p->at, "a digit of the exponent");
    }
    const size_t size = (size_t)(p->at - begin);
    memcpy(p->out, begin, size);
    p->d->nodes[index].text = p->out;
    p->d->nodes[index].size = (int64_t)size;
    p->out += size;
    *p->out++ = '\0'; /* in place of what separates numbers */
    return ERR_OK;
}

static err_t parse_word(struct parser *p)
{
    static const struct {
        const char *text;
        int size;
        enum jdoc_type type;
    } words[] = { { "null", 4, JDOC_NULL }, { "false", 5, JDOC_FALSE }, { "true", 4, JDOC_TRUE } };
    int64_t index;
    for (int64_t i = 0; i < COUNT_OF(words); i++) {
        if (p->end - p->at < words[i].size ||
            memcmp(p->at, words[i].text, (size_t)words[i].size) != 0)
            continue;
        TRY(add_node(p, words[i].type, &index));
        p->at += words[i].size;
        return ERR_OK;
    }
    return fail_at(p, p->at, "a value");
}

/* ---- arrays and objects ---- */

static void pass_blanks(struct parser *p)
{
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\n' || *p->at == '\t' || *p->at == '\r'))
        p->at++;
}

static bool same_key(const struct jdoc_node *a, const struct jdoc_node *b)
{
    return a->size == b->size && memcmp(a->text, b->text, (size_t)a->size) == 0;
}

static int order_keys(const void *left, const void *right)
{
    const struct jdoc_node *a = *(const struct jdoc_node *const *)left;
    const struct jdoc_node *b = *(const struct jdoc_node *const *)right;
    if (a->size != b->size) return a->size < b->size ? -1 : 1;
    return memcmp(a->text, b->text, (size_t)a->size);
}

/* Sorted, a repeated key stands beside itself. */
static err_t find_repeated_of_many(struct jdoc *d, const struct jdoc_node *object,
                                   const struct jdoc_node **repeated)
{
    ARRAY_GROW(d->keys, d->key_capacity, object->count);
    const struct jdoc_node *key = object + 1;
    for (int64_t i = 0; i < object->count; i++, key += 1 + key[1].span) d->keys[i] = key;
    qsort(d->keys, (size_t)object->count, sizeof *d->keys, order_keys);
    for (int64_t i = 1; i < object->count; i++)
        if (same_key(d->keys[i - 1], d->keys[i])) *repeated = d->keys[i];
    return ERR_OK;
}

static err_t check_keys(struct parser *p, int64_t index)
{
    const struct jdoc_node *object = &p->d->nodes[index], *repeated = NULL;
    const struct jdoc_node *end = object + object->span;
    if (object->count > PAIRWISE_KEYS_MAX) {
        TRY(find_repeated_of_many(p->d, object, &repeated));
    } else {
        for (const struct jdoc_node *a = object + 1; a < end; a += 1 + a[1].span)
            for (const struct jdoc_node *b = object + 1; b < a; b += 1 + b[1].span)
                if (same_key(a, b)) repeated = a;
    }
    if (repeated == NULL) return ERR_OK;
    p->at = p->begin + repeated->at;
    RAISE(FORMAT, "member \"%.40s\" twice in one object", repeated->text);
}

static err_t parse_value(struct parser *p);

static err_t parse_key(struct parser *p)
{
    int64_t key;
    if (p->at == p->end || *p->at != '"') return fail_at(p, p->at, "a member's name in quotes");
    TRY(parse_string(p, &key));
    pass_blanks(p);
    if (p->at == p->end || *p->at != ':') return fail_at(p, p->at, "':' after a member's name");
    p->at++;
    return ERR_OK;
}

/* An array or an object: values between brackets, each with its key in an object. */
static err_t parse_container(struct parser *p, enum jdoc_type type)
{
    const char close = type == JDOC_OBJECT ? '}' : ']';
    int64_t index, count = 0;
    TRY(add_node(p, type, &index));
    if (p->depth == JDOC_DEPTH_MAX) RAISE(FORMAT, "nested more than %d deep", JDOC_DEPTH_MAX);
    p->depth++;
    p->at++;
    pass_blanks(p);
    while (p->at == p->end || *p->at != close || count > 0) {
        if (type == JDOC_OBJECT) TRY(parse_key(p));
        TRY(parse_value(p));
        count++;
        pass_blanks(p);
        if (p->at < p->end && *p->at == close) break;
        if (p->at == p->end || *p->at != ',')
            return fail_at(p, p->at, type == JDOC_OBJECT ? "',' or '}'" : "',' or ']'");
        p->at++;
        pass_blanks(p);
    }
    p->at++;
    p->depth--;
    p->d->nodes[index].count = (int32_t)count;
    p->d->nodes[index].span = (int32_t)(p->d->count - index);
    return type == JDOC_OBJECT ? check_keys(p, index) : ERR_OK;
}

static err_t parse_value(struct parser *p)
{
    int64_t index;
    pass_blanks(p);
    if (p->at == p->end) return fail_at(p, p->at, "a value");
    switch (*p->at) {
    case '{':
        return parse_container(p, JDOC_OBJECT);
    case '[':
        return parse_container(p, JDOC_ARRAY);
    case '"':
        return parse_string(p, &index);
    default:
        if (*p->at == '-' || (*p->at >= '0' && *p->at <= '9')) return parse_number(p);
        return parse_word(p);
    }
}

static err_t parse_all(struct parser *p)
{
    TRY(parse_value(p));
    pass_blanks(p);
    if (p->at < p->end) return fail_at(p, p->at, "nothing after the record");
    return ERR_OK;
}

/* ---- the public part ---- */

err_t jdoc_parse(struct jdoc *d, const char *text, int64_t size, int64_t *error_at)
{
    ASSERT(size >= 0 && size < INT32_MAX);
    /* Unescaped strings are no longer than escaped ones, and the NUL takes the place of a quote or
     * of the separator after a number, which only the last byte of all can lack. */
    buf_reset(&d->text);
    TRY(buf_reserve(&d->text, (size_t)size + 1));
    d->count = 0;
    struct parser p = { d, text, text, text + size, d->text.data, 0 };
    const err_t rc = parse_all(&p);
    *error_at = p.at - p.begin;
    return rc;
}

void jdoc_clear(struct jdoc *d)
{
    free(d->nodes);
    free(d->keys);
    buf_clear(&d->text);
    *d = (struct jdoc){ 0 };
}

const struct jdoc_node *jdoc_root(const struct jdoc *d) { return d->nodes; }

const struct jdoc_node *jdoc_get(const struct jdoc_node *object, const char *key)
{
    if (object == NULL || object->type != JDOC_OBJECT) return NULL;
    const size_t size = strlen(key);
    const struct jdoc_node *end = object + object->span;
    for (const struct jdoc_node *k = object + 1; k < end; k += 1 + k[1].span)
        if ((size_t)k->size == size && memcmp(k->text, key, size) == 0) return k + 1;
    return NULL;
}

const struct jdoc_node *jdoc_first(const struct jdoc_node *array)
{
    return array != NULL && array->type == JDOC_ARRAY && array->count > 0 ? array + 1 : NULL;
}

const struct jdoc_node *jdoc_next(const struct jdoc_node *array, const struct jdoc_node *element)
{
    const struct jdoc_node *next = element + element->span;
    return next < array + array->span ? next : NULL;
}

const char *jdoc_type_name(const struct jdoc_node *node)
{
    static const char *const names[] = {
        [JDOC_NULL] = "null",        [JDOC_FALSE] = "false",     [JDOC_TRUE] = "true",
        [JDOC_NUMBER] = "a number",  [JDOC_STRING] = "a string", [JDOC_ARRAY] = "an array",
        [JDOC_OBJECT] = "an object",
    };
    return node == NULL ? "nothing" : names[node->type];
}
