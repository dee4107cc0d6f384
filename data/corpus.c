#include "data/corpus.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/num.h"
#include "base/utf8.h"
#include "data/blocks.h"
#include "data/corpus_forms.h"
#include "data/corpus_json.h"
#include "data/csv.h"
#include "data/jdoc.h"
#include "data/turn_list.h"
#include "data/window.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEMBERS_TOLD_MAX 8

enum container { CONTAINER_UNKNOWN, CONTAINER_JSON, CONTAINER_CSV, CONTAINER_BLOCKS };

/* The columns of a CSV file that mean something; -1: there is none. */
struct columns {
    int64_t input, target, id, topic;
};

struct corpus {
    struct window window;
    enum container container;
    enum corpus_form form;
    enum corpus_on_bad_record on_bad_record;
    struct json_records json;
    struct jdoc record; /* the dialogue given out last borrows from it, or from one of these two */
    struct csv csv;
    struct blocks blocks;
    struct columns columns;
    struct turn_list turns;
    struct buf id, topic;
    int64_t byte_offset, line;     /* of the record */
    int64_t part_next, part_count; /* dialogues of the record */
    int64_t skipped;
};

/* ---- open and close ---- */

static err_t create(struct corpus **out, enum corpus_form form,
                    enum corpus_on_bad_record on_bad_record)
{
    *out = calloc(1, sizeof **out);
    if (*out == NULL) RAISE(NOMEM, "a corpus reader");
    (*out)->form = form;
    (*out)->on_bad_record = on_bad_record;
    return ERR_OK;
}

static err_t finish_opening(struct corpus **out, err_t rc)
{
    if (rc == ERR_OK) return ERR_OK;
    corpus_close(*out);
    *out = NULL;
    return rc;
}

err_t corpus_open(struct corpus **out, const char *path, enum corpus_form form,
                  enum corpus_on_bad_record on_bad_record)
{
    TRY(create(out, form, on_bad_record));
    return finish_opening(out, window_open(&(*out)->window, path));
}

err_t corpus_open_memory(struct corpus **out, const char *name, const void *bytes, int64_t size,
                         enum corpus_form form, enum corpus_on_bad_record on_bad_record)
{
    TRY(create(out, form, on_bad_record));
    return finish_opening(out, window_open_memory(&(*out)->window, name, bytes, size));
}

void corpus_close(struct corpus *c)
{
    if (c == NULL) return;
    window_close(&c->window);
    jdoc_clear(&c->record);
    csv_clear(&c->csv);
    blocks_clear(&c->blocks);
    turn_list_clear(&c->turns);
    buf_clear(&c->id);
    buf_clear(&c->topic);
    free(c);
}

/* ---- what kind of file ---- */

/* The first row of a CSV file. ERR_FORMAT without the columns that are needed. */
static err_t read_columns(struct corpus *c)
{
    bool found;
    TRY(csv_next(&c->csv, &c->window, &found));
    if (!found) return ERR_OK;
    c->columns = (struct columns){ csv_column(&c->csv, "input"), csv_column(&c->csv, "target"),
                                   csv_column(&c->csv, "id"), csv_column(&c->csv, "topic") };
    if (c->columns.input < 0 || c->columns.target < 0)
        return window_raise(&c->window, c->line, c->byte_offset,
                            "a first row without the columns input and target");
    return ERR_OK;
}

/* Nothing fits: say how the file begins and what would have fitted. */
static err_t raise_unknown(struct corpus *c, const char *beginning)
{
    return window_raise(&c->window, c->line, c->byte_offset,
                        "found \"%s\", expected '[' or '{' (JSON), a row of names with the columns "
                        "input and target (CSV), or a role's name and a colon such as 来访者： "
                        "(text); data.form names the form",
                        beginning);
}

/* How the file begins, as far as it can be printed: the first line, cut within no character. */
static err_t peek_beginning(struct corpus *c, char *text, int64_t capacity, bool *blocks)
{
    int64_t size;
    bool whole;
    struct window *w = &c->window;
    TRY(window_line(w, w->at, CORPUS_RECORD_BYTES_MAX, &size, &whole));
    const char *line = w->bytes.data + w->at;
    if (size > 0 && line[size - 1] == '\r') size--;
    *blocks = whole && blocks_begin_with(line, size);
    const int64_t shown = utf8_valid_prefix(line, min_i64(size, capacity - 1));
    for (int64_t i = 0; i < shown; i++)
        text[i] = (unsigned char)line[i] < ' ' || line[i] == 0x7f ? '?' : line[i];
    text[shown] = '\0';
    return ERR_OK;
}

static err_t detect_text(struct corpus *c)
{
    char beginning[48];
    bool blocks;
    TRY(peek_beginning(c, beginning, sizeof beginning, &blocks));
    if (c->form == CORPUS_CPSYCOUN || (c->form == CORPUS_AUTO && blocks)) {
        c->container = CONTAINER_BLOCKS;
        c->form = CORPUS_CPSYCOUN;
        return ERR_OK;
    }
    const err_t rc = read_columns(c);
    c->window.resumable = false;
    if (rc == ERR_FORMAT && c->form == CORPUS_AUTO) return raise_unknown(c, beginning);
    TRY(rc);
    c->container = CONTAINER_CSV;
    c->form = CORPUS_BIANQUE;
    return ERR_OK;
}

/* The first byte tells, and where a form is named that is always JSON, the form. */
static err_t detect_container(struct corpus *c)
{
    int byte;
    TRY(window_skip_blanks(&c->window, &byte));
    if (byte < 0) return ERR_OK;
    c->line = c->window.line;
    c->byte_offset = window_offset(&c->window);
    const bool text_form = c->form == CORPUS_BIANQUE || c->form == CORPUS_CPSYCOUN;
    const bool json_begins = byte == '[' || byte == '{';
    if (c->form == CORPUS_CPSYCOUN || (!json_begins && (text_form || c->form == CORPUS_AUTO)))
        return detect_text(c);
    c->container = CONTAINER_JSON;
    return ERR_OK;
}

/* ---- JSON ---- */

/* The line of a byte within a record. */
static int64_t line_at(const struct window_slice *slice, int64_t byte)
{
    int64_t line = slice->line;
    for (int64_t i = 0; i < min_i64(byte, slice->size); i++) line += slice->text[i] == '\n';
    return line;
}

static err_t parse_json(struct corpus *c, const struct window_slice *slice)
{
    int64_t at = 0;
    const err_t rc = jdoc_parse(&c->record, slice->text, slice->size, &at);
    if (rc != ERR_FORMAT) return rc;
    const char *packing = corpus_packing_name(c);
    const bool damaged =
        strcmp(packing, "plain") != 0 && utf8_valid_prefix(slice->text, slice->size) != slice->size;
    return window_raise(&c->window, line_at(slice, at), slice->byte_offset + at, "%s%s%s%s",
                        err_last()->text, damaged ? "; or the file is damaged: " : "",
                        damaged ? packing : "", damaged ? " -t tells" : "");
}

static err_t raise_no_form(struct corpus *c, const struct jdoc_node *record)
{
    err_t rc = ERR_OK;
    struct buf text = { 0 };
    TRY_DONE(buf_puts(&text, record->count > 0 ? "a record with" : "a record without members"));
    const struct jdoc_node *key = record + 1;
    for (int i = 0; i < record->count && i < MEMBERS_TOLD_MAX; i++, key += 1 + key[1].span)
        TRY_DONE(buf_printf(&text, "%s \"%.20s\"", i > 0 ? "," : "", key->text));
    TRY_DONE(buf_puts(&text, "; expected "));
    TRY_DONE(corpus_forms_list(&text));
    rc = window_raise(&c->window, c->line, c->byte_offset, "%s", text.data);
done:
    buf_clear(&text);
    return rc;
}

static err_t detect_form(struct corpus *c, const struct jdoc_node *record)
{
    if (record->type != JDOC_OBJECT)
        return window_raise(&c->window, c->line, c->byte_offset,
                            "a record that is %s and not an object", jdoc_type_name(record));
    if (c->form == CORPUS_AUTO) c->form = corpus_form_detect(record);
    return c->form == CORPUS_AUTO ? raise_no_form(c, record) : ERR_OK;
}

static err_t set_id(struct corpus *c, const struct jdoc_node *id)
{
    buf_reset(&c->id);
    if (id != NULL && (id->type == JDOC_STRING || id->type == JDOC_NUMBER)) {
        TRY(buf_puts(&c->id, id->text));
    } else if (c->json.layout == JSON_LAYOUT_LINES) {
        TRY(buf_printf(&c->id, "line %lld", (long long)c->line));
    } else {
        TRY(buf_printf(&c->id, "record %lld", (long long)c->json.count));
    }
    if (c->part_count > 1) TRY(buf_printf(&c->id, "/%lld", (long long)c->part_next));
    return ERR_OK;
}

/* Of "a,b,c" the first, which is the widest. */
static err_t set_topic(struct corpus *c, const struct jdoc_node *topic)
{
    buf_reset(&c->topic);
    if (topic == NULL || topic->type != JDOC_STRING) return buf_puts(&c->topic, "");
    const bool list = c->form == CORPUS_PSYQA;
    return buf_append(&c->topic, topic->text,
                      list ? strcspn(topic->text, ",") : strlen(topic->text));
}

/* What the form's reader said, and which form the record has if it is another. */
static err_t raise_other_form(struct corpus *c, const struct jdoc_node *record)
{
    const enum corpus_form other = corpus_form_detect(record);
    if (other == CORPUS_AUTO || other == c->form)
        return window_raise(&c->window, c->line, c->byte_offset, "%s", err_last()->text);
    return window_raise(&c->window, c->line, c->byte_offset,
                        "%s; the record looks like %s, and is read as %s (data.form)",
                        err_last()->text, corpus_form_name(other), corpus_form_name(c->form));
}

/* The next dialogue of the record that is parsed. */
static err_t read_part(struct corpus *c)
{
    const struct jdoc_node *record = jdoc_root(&c->record);
    const struct corpus_form_row *form = corpus_form_row(c->form);
    const int64_t part = c->part_next++;
    c->turns.count = 0;
    const err_t rc = form->read(&c->turns, record, part);
    if (rc == ERR_FORMAT) return raise_other_form(c, record);
    TRY(rc);
    TRY(set_id(c, jdoc_get(record, form->id_key)));
    const struct jdoc_node *topic = jdoc_get(record, form->topic_key);
    return set_topic(c, topic != NULL ? topic : jdoc_get(record, "topic"));
}

static err_t read_json(struct corpus *c, bool *found)
{
    if (c->part_next < c->part_count) {
        *found = true;
        return read_part(c);
    }
    struct window_slice slice;
    TRY(json_records_next(&c->json, &c->window, &slice, found));
    if (!*found) return ERR_OK;
    c->window.resumable = true; /* whatever is wrong inside, the next record's place is known */
    c->line = slice.line;
    c->byte_offset = slice.byte_offset;
    c->part_next = c->part_count = 0;
    TRY(parse_json(c, &slice));
    const struct jdoc_node *record = jdoc_root(&c->record);
    TRY(detect_form(c, record));
    const struct corpus_form_row *form = corpus_form_row(c->form);
    c->part_count = form->part_count != NULL ? form->part_count(record) : 1;
    return read_part(c);
}

/* ---- CSV and text ---- */

static err_t set_text(struct buf *out, const char *text)
{
    buf_reset(out);
    return buf_puts(out, text);
}

static err_t read_csv(struct corpus *c, bool *found)
{
    struct csv *csv = &c->csv;
    TRY(csv_next(csv, &c->window, found));
    if (!*found) return ERR_OK;
    c->line = csv->line;
    c->byte_offset = csv->byte_offset;
    c->window.resumable = true;
    c->turns.count = 0;
    err_t rc =
        turn_list_split(&c->turns, csv_field(csv, c->columns.input), csv->size[c->columns.input]);
    if (rc == ERR_OK)
        rc = turn_list_append(&c->turns, ROLE_COUNSELLOR, csv_field(csv, c->columns.target),
                              csv->size[c->columns.target]);
    if (rc == ERR_FORMAT)
        return window_raise(&c->window, c->line, c->byte_offset, "%s", err_last()->text);
    TRY(rc);
    if (c->columns.id >= 0)
        TRY(set_text(&c->id, csv_field(csv, c->columns.id)));
    else {
        buf_reset(&c->id);
        TRY(buf_printf(&c->id, "line %lld", (long long)c->line));
    }
    return set_text(&c->topic, c->columns.topic >= 0 ? csv_field(csv, c->columns.topic) : "");
}

static err_t read_blocks(struct corpus *c, bool *found)
{
    TRY(blocks_next(&c->blocks, &c->window, &c->turns, found));
    if (!*found) return ERR_OK;
    c->line = c->blocks.line;
    c->byte_offset = c->blocks.byte_offset;
    buf_reset(&c->id);
    if (c->blocks.id[0] != '\0')
        TRY(buf_puts(&c->id, c->blocks.id));
    else
        TRY(buf_printf(&c->id, "line %lld", (long long)c->line));
    return set_text(&c->topic, "");
}

/* ---- the public part ---- */

static err_t read_next(struct corpus *c, bool *found)
{
    c->window.resumable = false;
    if (c->container == CONTAINER_UNKNOWN) TRY(detect_container(c));
    switch (c->container) {
    case CONTAINER_JSON:
        return read_json(c, found);
    case CONTAINER_CSV:
        return read_csv(c, found);
    case CONTAINER_BLOCKS:
        return read_blocks(c, found);
    case CONTAINER_UNKNOWN:
        break; /* an empty file */
    }
    return ERR_OK;
}

err_t corpus_next(struct corpus *c, struct dialogue_text *out, bool *found)
{
    for (;;) {
        *found = false;
        const err_t rc = read_next(c, found);
        if (rc == ERR_OK) break;
        *found = false;
        c->part_next = c->part_count = 0; /* one mistake spoils the record */
        if (rc != ERR_FORMAT || c->on_bad_record == CORPUS_FAIL || !c->window.resumable) return rc;
        c->skipped++;
    }
    *out = (struct dialogue_text){
        .id = c->id.data,
        .topic = c->topic.data,
        .turns = c->turns.turns,
        .turn_count = c->turns.count,
        .byte_offset = c->byte_offset,
    };
    return ERR_OK;
}

enum corpus_form corpus_form(const struct corpus *c) { return c->form; }

const char *corpus_layout_name(const struct corpus *c)
{
    static const char *const json_names[] = {
        [JSON_LAYOUT_UNKNOWN] = "none",
        [JSON_LAYOUT_ARRAY] = "JSON array",
        [JSON_LAYOUT_LINES] = "JSON lines",
        [JSON_LAYOUT_OBJECTS] = "JSON objects",
    };
    static const char *const names[] = { "none", "JSON", "CSV", "text" };
    return c->container == CONTAINER_JSON ? json_names[c->json.layout] : names[c->container];
}

const char *corpus_packing_name(const struct corpus *c) { return input_codec_name(&c->window.in); }

int64_t corpus_skipped(const struct corpus *c) { return c->skipped; }

void corpus_position(const struct corpus *c, int64_t *bytes_done, int64_t *bytes_total)
{
    const struct window *w = &c->window;
    /* Of a packed file the decoder's place; otherwise exactly what was passed. */
    *bytes_done = w->in.codec != NULL ? input_position(&w->in) : window_offset(w);
    *bytes_total = w->in.size;
}

int64_t corpus_text_bytes(const struct corpus *c) { return window_offset(&c->window); }
