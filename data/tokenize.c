#include "data/tokenize.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* One line's work, with buffers that live from line to line. */
struct worker {
    const struct tok *tok;
    const struct tokenize_options *options;
    int64_t line;
    struct i32_buf ids;
    struct buf text;
};

static err_t names_of(json_t *names, struct worker *w)
{
    for (int64_t i = 0; i < w->ids.count; i++) {
        buf_reset(&w->text);
        TRY(tok_piece(w->tok, &w->text, w->ids.data[i]));
        if (json_array_append_new(names, json_stringn(w->text.data, w->text.size)) != 0)
            RAISE(NOMEM, "line %" PRId64 ": %" PRId64 " pieces", w->line, w->ids.count);
    }
    return ERR_OK;
}

static err_t encode_line(json_t **answer, struct worker *w, const json_t *value)
{
    if (!json_is_string(value))
        RAISE(FORMAT, "line %" PRId64 ": expected a JSON string, such as \"你好\"", w->line);
    i32_buf_reset(&w->ids);
    TRY(tok_encode(w->tok, &w->ids, json_string_value(value), (int64_t)json_string_length(value),
                   w->options->special ? TOK_PARSE_SPECIAL : TOK_PLAIN));

    json_t *ids = json_array();
    *answer = json_object();
    int failed = json_object_set_new(*answer, "ids", ids);
    for (int64_t i = 0; i < w->ids.count && !failed; i++)
        failed = json_array_append_new(ids, json_integer(w->ids.data[i]));
    if (w->options->pieces && !failed) {
        json_t *names = json_array();
        failed = json_object_set_new(*answer, "pieces", names);
        if (!failed) TRY(names_of(names, w));
    }
    if (failed) RAISE(NOMEM, "line %" PRId64 ": %" PRId64 " ids", w->line, w->ids.count);
    return ERR_OK;
}

static err_t decode_line(json_t **answer, struct worker *w, const json_t *value)
{
    const json_t *ids = json_is_object(value) ? json_object_get(value, "ids") : value;
    if (!json_is_array(ids))
        RAISE(FORMAT, "line %" PRId64 ": expected {\"ids\":[...]} or an array of ids", w->line);
    i32_buf_reset(&w->ids);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        const json_int_t number = json_is_integer(id) ? json_integer_value(id) : -1;
        if (number < 0 || number > INT32_MAX)
            RAISE(FORMAT, "line %" PRId64 ": element %zu is not an id", w->line, i);
        TRY(i32_buf_push(&w->ids, (int32_t)number));
    }
    buf_reset(&w->text);
    TRY(tok_decode(w->tok, &w->text, w->ids.data, w->ids.count));
    *answer = json_stringn(w->text.size > 0 ? w->text.data : "", w->text.size);
    if (*answer == NULL) RAISE(NOMEM, "line %" PRId64 ": %zu bytes", w->line, w->text.size);
    return ERR_OK;
}

static err_t write_answer(FILE *out, const json_t *answer)
{
    const int dumped = json_dumpf(answer, out, JSON_COMPACT | JSON_ENCODE_ANY);
    if (dumped != 0 || fputc('\n', out) == EOF || fflush(out) != 0)
        RAISE(IO, "writing the result: %s", strerror(errno));
    return ERR_OK;
}

static err_t answer_line(FILE *out, struct worker *w, const char *line, size_t size)
{
    err_t rc = ERR_OK;
    json_t *answer = NULL;
    json_error_t why;
    json_t *value = json_loadb(line, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
    if (value == NULL)
        RAISE(FORMAT, "line %" PRId64 ", byte %d: %s", w->line, why.position, why.text);
    if (w->options->decode)
        TRY_DONE(decode_line(&answer, w, value));
    else
        TRY_DONE(encode_line(&answer, w, value));
    TRY_DONE(write_answer(out, answer));
done:
    json_decref(answer);
    json_decref(value);
    return rc;
}

err_t tokenize_lines(FILE *out, FILE *in, const struct tok *tok,
                     const struct tokenize_options *options)
{
    err_t rc = ERR_OK;
    struct worker w = { .tok = tok, .options = options };
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;
    while ((size = getline(&line, &capacity, in)) >= 0) {
        w.line++;
        TRY_DONE(answer_line(out, &w, line, (size_t)size));
    }
    if (!feof(in)) RAISE_DONE(IO, "reading line %" PRId64 ": %s", w.line + 1, strerror(errno));
done:
    free(line);
    i32_buf_clear(&w.ids);
    buf_clear(&w.text);
    return rc;
}
