#include "data/corpus.h"

#include "data/corpus_forms.h"
#include "data/corpus_json.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct corpus {
    struct json_records records;
    enum corpus_form form;
    enum corpus_on_bad_record on_bad_record;
    json_t *record; /* the dialogue given out last borrows from it */
    struct turn_list turns;
    char id[64];
    int64_t skipped;
};

err_t corpus_open(struct corpus **out, const char *path, enum corpus_form form,
                  enum corpus_on_bad_record on_bad_record)
{
    *out = NULL;
    struct corpus *c = calloc(1, sizeof *c);
    if (c == NULL) RAISE(NOMEM, "a corpus reader");
    c->form = form;
    c->on_bad_record = on_bad_record;
    const err_t rc = json_records_open(&c->records, path);
    if (rc != ERR_OK) {
        corpus_close(c);
        return rc;
    }
    *out = c;
    return ERR_OK;
}

void corpus_close(struct corpus *c)
{
    if (c == NULL) return;
    json_decref(c->record);
    free(c->turns.turns);
    json_records_close(&c->records);
    free(c);
}

static err_t parse_json(struct corpus *c, const struct json_slice *slice)
{
    json_error_t e;
    json_decref(c->record);
    c->record =
        json_loadb(slice->text, (size_t)slice->size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e);
    if (c->record == NULL)
        RAISE(FORMAT, "%s:%lld (byte %lld): %s", c->records.file.path,
              (long long)(slice->line + e.line - 1), (long long)(slice->byte_offset + e.position),
              e.text);
    return ERR_OK;
}

static err_t detect_form(struct corpus *c)
{
    if (!json_is_object(c->record)) RAISE(FORMAT, "a record that is not an object");
    if (c->form == CORPUS_AUTO) c->form = corpus_form_detect(c->record);
    if (c->form == CORPUS_AUTO)
        RAISE(FORMAT, "a record with none of the members \"messages\" (soulchat), \"dialogue\" "
                      "(smile), \"conversations\" (sharegpt), \"instruction\" (alpaca)");
    return ERR_OK;
}

static const char *member_text(const json_t *record, const char *key)
{
    const char *text = json_string_value(json_object_get(record, key));
    return text != NULL ? text : "";
}

static const char *record_id(struct corpus *c, const struct json_slice *slice)
{
    const json_t *id = json_object_get(c->record, "id");
    if (json_is_string(id)) return json_string_value(id);
    if (json_is_integer(id))
        snprintf(c->id, sizeof c->id, "%lld", (long long)json_integer_value(id));
    else if (c->records.layout == JSON_LAYOUT_LINES)
        snprintf(c->id, sizeof c->id, "line %lld", (long long)slice->line);
    else
        snprintf(c->id, sizeof c->id, "record %lld", (long long)c->records.record_count);
    return c->id;
}

static err_t read_turns(struct corpus *c)
{
    TRY(detect_form(c));
    c->turns.count = 0;
    return corpus_form_row(c->form)->read(&c->turns, c->record);
}

static err_t read_record(struct corpus *c, struct dialogue_text *out,
                         const struct json_slice *slice)
{
    TRY(parse_json(c, slice));
    const err_t rc = read_turns(c);
    if (rc == ERR_FORMAT)
        RAISE(FORMAT, "%s:%lld (byte %lld): %s", c->records.file.path, (long long)slice->line,
              (long long)slice->byte_offset, err_last()->text);
    TRY(rc);
    *out = (struct dialogue_text){
        .id = record_id(c, slice),
        .topic = member_text(c->record, "topic"),
        .turns = c->turns.turns,
        .turn_count = c->turns.count,
        .byte_offset = slice->byte_offset,
    };
    return ERR_OK;
}

err_t corpus_next(struct corpus *c, struct dialogue_text *out, bool *found)
{
    for (;;) {
        struct json_slice slice;
        TRY(json_records_next(&c->records, &slice, found));
        if (!*found) return ERR_OK;
        const err_t rc = read_record(c, out, &slice);
        if (rc == ERR_OK) return ERR_OK;
        *found = false;
        if (rc != ERR_FORMAT || c->on_bad_record == CORPUS_FAIL) return rc;
        c->skipped++;
    }
}

enum corpus_form corpus_form(const struct corpus *c) { return c->form; }

int64_t corpus_skipped(const struct corpus *c) { return c->skipped; }

void corpus_position(const struct corpus *c, int64_t *bytes_done, int64_t *bytes_total)
{
    *bytes_done = c->records.window_offset + c->records.at;
    *bytes_total = c->records.file.size;
}
