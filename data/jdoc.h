/*
 * jdoc.h - one JSON text (RFC 8259) as a flat table of nodes, made quickly and read in place.
 *
 *     struct jdoc d = { 0 };
 *     TRY_DONE(jdoc_parse(&d, text, size, &error_at));
 *     const struct jdoc_node *turns = jdoc_get(jdoc_root(&d), "dialogue");
 *     for (const struct jdoc_node *t = jdoc_first(turns); t != NULL; t = jdoc_next(turns, t)) ...
 *     jdoc_clear(&d);
 *
 * A corpus is parsed record by record, and a general library, which allocates each string and
 * hashes each member, takes about as long for it as the tokenizer. This parser keeps its memory
 * from one text to the next and takes a tenth of that (docs/corpora.md).
 *
 * It is strict: UTF-8 well-formed (no surrogates, escaped or not, except in pairs), no member twice
 * in one object, no NaN and no Infinity, nothing after the value. Numbers are kept as they are
 * written. Nesting goes JDOC_DEPTH_MAX deep, and a text has at most JDOC_NODES_MAX values and keys.
 */
#ifndef DATA_JDOC_H
#define DATA_JDOC_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define JDOC_DEPTH_MAX 256
#define JDOC_NODES_MAX (1 << 20)

enum jdoc_type {
    JDOC_NULL,
    JDOC_FALSE,
    JDOC_TRUE,
    JDOC_NUMBER,
    JDOC_STRING,
    JDOC_ARRAY,
    JDOC_OBJECT,
};

struct jdoc_node {
    enum jdoc_type type;
    int32_t span;     /* nodes of this value with all within; in an object each member is a string,
                         the key, and the value after it */
    int32_t count;    /* elements or members */
    int32_t at;       /* its first byte in the text that was parsed */
    const char *text; /* strings: unescaped; numbers: as written. NUL-terminated; may contain NUL */
    int64_t size;     /* bytes */
};

struct jdoc {
    struct jdoc_node *nodes;
    int64_t count, capacity;
    struct buf text; /* what the strings point to */
    const struct jdoc_node **keys;
    int64_t key_capacity;
};

/*
 * Replace *d by what text[size] says, size < 2^31. ERR_FORMAT: the message says what was found and
 * expected, without the place, which is *error_at, a byte of text; ERR_NOMEM. After an error only
 * another jdoc_parse and jdoc_clear are allowed.
 */
MUST_USE err_t jdoc_parse(struct jdoc *d, const char *text, int64_t size, int64_t *error_at);
void jdoc_clear(struct jdoc *d);

const struct jdoc_node *jdoc_root(const struct jdoc *d);
/* The member of an object; NULL when there is none or when `object` is not an object or NULL. */
const struct jdoc_node *jdoc_get(const struct jdoc_node *object, const char *key);
/* The elements of an array, in order; NULL at the end, and for what is not an array. */
const struct jdoc_node *jdoc_first(const struct jdoc_node *array);
const struct jdoc_node *jdoc_next(const struct jdoc_node *array, const struct jdoc_node *element);
/* "a string", "null"; NULL is "nothing". */
const char *jdoc_type_name(const struct jdoc_node *node);

#endif
