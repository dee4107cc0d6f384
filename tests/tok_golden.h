/*
 * tok_golden.h - compare a tokenizer with a file of goldens, one JSON object a line: text, ids,
 * decoded and, where present, special_ids. Every row is also streamed and compared with the whole.
 */
#ifndef TESTS_TOK_GOLDEN_H
#define TESTS_TOK_GOLDEN_H

#include "testing.h"

#include "data/tok.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline void assert_ids(const char *what, const json_t *expected, const struct i32_buf *got,
                              const char *text)
{
    bool equal = (int64_t)json_array_size(expected) == got->count;
    for (int64_t i = 0; i < got->count && equal; i++)
        equal = json_integer_value(json_array_get(expected, (size_t)i)) == got->data[i];
    if (equal) return;
    fprintf(stderr, "%s of \"%s\":", what, text);
    for (int64_t i = 0; i < got->count; i++) fprintf(stderr, " %d", got->data[i]);
    fprintf(stderr, "\n");
    fail();
}

/* Give the ids one by one; what comes out piece by piece must be whole characters and add up. */
static inline void assert_streams(const struct tok *tok, const struct i32_buf *ids)
{
    struct buf whole = { 0 }, joined = { 0 };
    int64_t emitted = 0;
    assert_ok(tok_decode(tok, &whole, ids->data, ids->count));
    for (int64_t count = 0; count <= ids->count; count++) {
        const size_t before = joined.size;
        assert_ok(tok_decode_stream(tok, &joined, &emitted, ids->data, count, count == ids->count));
        assert_int_equal(emitted, joined.size);
        if (joined.size > before) assert_int_not_equal((uint8_t)joined.data[before] & 0xC0, 0x80);
    }
    assert_int_equal(joined.size, whole.size);
    if (whole.size > 0) assert_memory_equal(joined.data, whole.data, whole.size);
    buf_clear(&whole);
    buf_clear(&joined);
}

static inline void assert_golden_row(const struct tok *tok, const json_t *row)
{
    const json_t *text = json_object_get(row, "text");
    const json_t *special_ids = json_object_get(row, "special_ids");
    const json_t *decoded = json_object_get(row, "decoded");
    const int64_t size = (int64_t)json_string_length(text);
    struct i32_buf ids = { 0 };
    struct buf back = { 0 };
    if (special_ids != NULL) {
        assert_ok(tok_encode(tok, &ids, json_string_value(text), size, TOK_PARSE_SPECIAL));
        assert_ids("special ids", special_ids, &ids, json_string_value(text));
        assert_streams(tok, &ids);
        i32_buf_reset(&ids);
    }
    assert_ok(tok_encode(tok, &ids, json_string_value(text), size, TOK_PLAIN));
    assert_ids("ids", json_object_get(row, "ids"), &ids, json_string_value(text));
    assert_ok(tok_decode(tok, &back, ids.data, ids.count));
    assert_int_equal(back.size, json_string_length(decoded));
    if (back.size > 0) assert_memory_equal(back.data, json_string_value(decoded), back.size);
    assert_streams(tok, &ids);
    i32_buf_clear(&ids);
    buf_clear(&back);
}

/* Every row of the file must agree; there must be `row_count` of them. */
static inline void assert_golden_file(const struct tok *tok, const char *path, int row_count)
{
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;
    int rows = 0;
    while ((size = getline(&line, &capacity, file)) >= 0) {
        json_t *row = json_loadb(line, (size_t)size, JSON_ALLOW_NUL, NULL);
        assert_non_null(row);
        assert_golden_row(tok, row);
        json_decref(row);
        rows++;
    }
    assert_int_equal(rows, row_count);
    free(line);
    fclose(file);
}

#endif
