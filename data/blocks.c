#include "data/blocks.h"

#include "base/num.h"
#include "base/utf8.h"

#include <stdio.h>
#include <string.h>

static bool is_blank(const char *line, int64_t size)
{
    for (int64_t i = 0; i < size; i++)
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r') return false;
    return true;
}

/* Three or more of one character. */
static bool is_rule(const char *line, int64_t size)
{
    if (size < 3 || (line[0] != '-' && line[0] != '=' && line[0] != '*')) return false;
    for (int64_t i = 1; i < size; i++)
        if (line[i] != line[0]) return false;
    return true;
}

/* "==> NAME <==": what stands between, without folders and ".txt". NULL when it is none. */
static const char *name_line(const char *line, int64_t size, int64_t *name_size)
{
    if (size < 8 || memcmp(line, "==> ", 4) != 0 || memcmp(line + size - 4, " <==", 4) != 0)
        return NULL;
    const char *name = line + 4, *end = line + size - 4;
    for (const char *p = name; p < end; p++)
        if (*p == '/') name = p + 1;
    if (end - name > 4 && memcmp(end - 4, ".txt", 4) == 0) end -= 4;
    *name_size = end - name;
    return name;
}

static bool is_separator(const char *line, int64_t size)
{
    int64_t name_size;
    return is_rule(line, size) || name_line(line, size, &name_size) != NULL;
}

bool blocks_begin_with(const char *line, int64_t size)
{
    enum role role;
    return is_separator(line, size) || role_label(&role, line, size) > 0;
}

/* ---- one dialogue ---- */

/* The next line without its end, at most one byte more than a record may have. */
static err_t peek_line(struct window *w, const char **line, int64_t *size, bool *at_end)
{
    bool whole;
    window_trim(w);
    TRY(window_line(w, w->at, CORPUS_RECORD_BYTES_MAX + 1, size, &whole));
    *line = w->bytes.data + w->at;
    *at_end = *size == 0 && w->at == (int64_t)w->bytes.size;
    if (*size > 0 && (*line)[*size - 1] == '\r') (*size)--;
    return ERR_OK;
}

static void take_separator(struct blocks *b, const char *line, int64_t size)
{
    int64_t name_size = 0;
    const char *name = name_line(line, size, &name_size);
    if (utf8_valid_prefix(line, size) != size) name_size = 0;
    snprintf(b->next_id, sizeof b->next_id, "%.*s", (int)min_i64(name_size, BLOCK_ID_BYTES - 1),
             name != NULL ? name : "");
    /* A name that was cut may end within a character. */
    b->next_id[utf8_valid_prefix(b->next_id, (int64_t)strlen(b->next_id))] = '\0';
}

/* Pass over the rest of a dialogue that is of no use. */
static err_t skip_dialogue(struct blocks *b, struct window *w)
{
    for (;;) {
        const char *line;
        int64_t size;
        bool at_end;
        TRY(peek_line(w, &line, &size, &at_end));
        const bool ends = is_separator(line, size);
        if (ends) take_separator(b, line, size);
        TRY(window_skip_line(w));
        if (ends || at_end) return ERR_OK;
    }
}

static err_t fail(struct blocks *b, struct window *w, int64_t line, int64_t byte_offset,
                  const char *what)
{
    TRY(skip_dialogue(b, w));
    w->resumable = true;
    return window_raise(w, line, byte_offset, "%s", what);
}

/* The turn being read: its text began at text.data[begin]; its pointer is set at the end, because
 * the buffer moves. */
static err_t end_turn(struct blocks *b, struct turn_list *turns, int64_t begin)
{
    if (turns->count == 0) return ERR_OK;
    while ((int64_t)b->text.size > begin && b->text.data[b->text.size - 1] == '\n') b->text.size--;
    turns->turns[turns->count - 1].size = (int64_t)b->text.size - begin;
    return buf_append(&b->text, "", 1);
}

/* A line of a dialogue, into its turns. ERR_FORMAT without the place. */
static err_t take_line(struct blocks *b, struct turn_list *turns, const char *line, int64_t size,
                       int64_t *begin)
{
    enum role role;
    const int64_t label = role_label(&role, line, size);
    if (label == 0 && turns->count == 0)
        RAISE(FORMAT,
              "found \"%.*s\", expected a role's name and a colon, such as 来访者： or "
              "心理咨询师：",
              (int)utf8_valid_prefix(line, min_i64(size, 40)), line);
    if ((int64_t)b->text.size + size > CORPUS_RECORD_BYTES_MAX)
        RAISE(FORMAT, "a dialogue of more than %d MiB", CORPUS_RECORD_BYTES_MAX >> 20);
    if (utf8_valid_prefix(line, size) != size)
        RAISE(FORMAT, "a line that is not UTF-8; if the file is in another encoding, convert it "
                      "first: iconv -f GB18030 -t UTF-8");
    if (label == 0) {
        TRY(buf_append(&b->text, "\n", 1));
        return buf_append(&b->text, line, (size_t)size);
    }
    TRY(end_turn(b, turns, *begin));
    *begin = (int64_t)b->text.size;
    TRY(turn_list_append(turns, role, NULL, 0));
    return buf_append(&b->text, line + label, (size_t)(size - label));
}

static void set_pointers(struct blocks *b, struct turn_list *turns)
{
    char *text = b->text.data;
    for (int64_t i = 0; i < turns->count; i++) {
        turns->turns[i].text = text;
        text += turns->turns[i].size + 1;
    }
}

static void begin_dialogue(struct blocks *b, const struct window *w)
{
    memcpy(b->id, b->next_id, sizeof b->id);
    b->next_id[0] = '\0';
    b->line = w->line;
    b->byte_offset = window_offset(w);
}

err_t blocks_next(struct blocks *b, struct window *w, struct turn_list *turns, bool *found)
{
    int64_t begin = 0;
    *found = false;
    w->resumable = false;
    turns->count = 0;
    buf_reset(&b->text);
    for (bool ended = false; !ended;) {
        const char *line;
        int64_t size;
        TRY(peek_line(w, &line, &size, &ended));
        const bool separator = is_separator(line, size);
        if (separator && turns->count > 0) ended = true;
        if (turns->count == 0 && !is_blank(line, size) && !separator) begin_dialogue(b, w);
        if (separator) {
            take_separator(b, line, size);
        } else if (!ended && (turns->count > 0 || !is_blank(line, size))) {
            const int64_t number = w->line, byte_offset = window_offset(w);
            const err_t rc = take_line(b, turns, line, size, &begin);
            if (rc == ERR_FORMAT) {
                char what[ERR_TEXT_MAX];
                snprintf(what, sizeof what, "%s", err_last()->text);
                return fail(b, w, number, byte_offset, what);
            }
            TRY(rc);
        }
        TRY(window_skip_line(w));
    }
    if (turns->count == 0) return ERR_OK;
    TRY(end_turn(b, turns, begin));
    set_pointers(b, turns);
    *found = true;
    return ERR_OK;
}

void blocks_clear(struct blocks *b) { buf_clear(&b->text); }
