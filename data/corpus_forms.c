#include "data/corpus_forms.h"

#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What corpora call the two people. */
static const struct {
    const char *name;
    enum role role;
} role_names[] = {
    { "user", ROLE_CLIENT },          { "client", ROLE_CLIENT },
    { "human", ROLE_CLIENT },         { "assistant", ROLE_COUNSELLOR },
    { "counselor", ROLE_COUNSELLOR }, { "counsellor", ROLE_COUNSELLOR },
    { "gpt", ROLE_COUNSELLOR },       { "system", ROLE_SYSTEM },
};

static const char *type_name(const json_t *value)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "an array", [JSON_STRING] = "a string",
        [JSON_INTEGER] = "a number", [JSON_REAL] = "a number",  [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",      [JSON_NULL] = "null",
    };
    return value == NULL ? "nothing" : names[json_typeof(value)];
}

static err_t append(struct turn_list *list, enum role role, const json_t *text, const char *where)
{
    if (!json_is_string(text)) RAISE(FORMAT, "%s is %s, expected a string", where, type_name(text));
    if (list->count == CORPUS_TURNS_MAX)
        RAISE(FORMAT, "more than %d turns in one dialogue", CORPUS_TURNS_MAX);
    if (list->count == list->capacity) {
        const int64_t capacity = list->capacity ? 2 * list->capacity : 64;
        void *turns = realloc(list->turns, (size_t)capacity * sizeof *list->turns);
        if (turns == NULL) RAISE(NOMEM, "%lld turns", (long long)capacity);
        list->turns = turns;
        list->capacity = capacity;
    }
    list->turns[list->count++] =
        (struct turn_text){ role, json_string_value(text), (int64_t)json_string_length(text) };
    return ERR_OK;
}

static err_t parse_role(enum role *out, const json_t *name, const char *key)
{
    if (!json_is_string(name))
        RAISE(FORMAT, "\"%s\" is %s, expected a string", key, type_name(name));
    for (int64_t i = 0; i < COUNT_OF(role_names); i++)
        if (strcmp(json_string_value(name), role_names[i].name) == 0) {
            *out = role_names[i].role;
            return ERR_OK;
        }
    RAISE(FORMAT,
          "%s \"%.40s\", expected user, client, human, assistant, counselor, counsellor, gpt or "
          "system",
          key, json_string_value(name));
}

/* [{role_key: name, text_key: text}, ...] */
static err_t read_messages(struct turn_list *list, const json_t *messages, const char *key,
                           const char *role_key, const char *text_key)
{
    if (!json_is_array(messages))
        RAISE(FORMAT, "\"%s\" is %s, expected an array", key, type_name(messages));
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *message = json_array_get(messages, i);
        enum role role = ROLE_CLIENT;
        char where[64];
        snprintf(where, sizeof where, "\"%s\" of %s[%zu]", text_key, key, i);
        if (!json_is_object(message))
            RAISE(FORMAT, "%s[%zu] is %s, expected an object", key, i, type_name(message));
        TRY(parse_role(&role, json_object_get(message, role_key), role_key));
        TRY(append(list, role, json_object_get(message, text_key), where));
    }
    return ERR_OK;
}

/* A "system" text beside the turns, as some collections have it. */
static err_t read_system(struct turn_list *list, const json_t *record)
{
    const json_t *text = json_object_get(record, "system");
    if (text == NULL || json_is_null(text)) return ERR_OK;
    return append(list, ROLE_SYSTEM, text, "\"system\"");
}

static err_t read_soulchat(struct turn_list *list, const json_t *record)
{
    return read_messages(list, json_object_get(record, "messages"), "messages", "role", "content");
}

static err_t read_smile(struct turn_list *list, const json_t *record)
{
    return read_messages(list, json_object_get(record, "dialogue"), "dialogue", "role", "content");
}

static err_t read_sharegpt(struct turn_list *list, const json_t *record)
{
    TRY(read_system(list, record));
    return read_messages(list, json_object_get(record, "conversations"), "conversations", "from",
                         "value");
}

/* history: [[question, answer], ...] or absent. */
static err_t read_history(struct turn_list *list, const json_t *history)
{
    if (history == NULL || json_is_null(history)) return ERR_OK;
    if (!json_is_array(history))
        RAISE(FORMAT, "\"history\" is %s, expected an array", type_name(history));
    for (size_t i = 0; i < json_array_size(history); i++) {
        const json_t *pair = json_array_get(history, i);
        if (!json_is_array(pair) || json_array_size(pair) != 2)
            RAISE(FORMAT, "history[%zu] is not a pair of question and answer", i);
        TRY(append(list, ROLE_CLIENT, json_array_get(pair, 0), "a question of \"history\""));
        TRY(append(list, ROLE_COUNSELLOR, json_array_get(pair, 1), "an answer of \"history\""));
    }
    return ERR_OK;
}

/* Instruction and input are two client turns; the merging of neighbours joins them by a newline. */
static err_t read_alpaca(struct turn_list *list, const json_t *record)
{
    const json_t *input = json_object_get(record, "input");
    TRY(read_system(list, record));
    TRY(read_history(list, json_object_get(record, "history")));
    TRY(append(list, ROLE_CLIENT, json_object_get(record, "instruction"), "\"instruction\""));
    if (input != NULL && !json_is_null(input)) TRY(append(list, ROLE_CLIENT, input, "\"input\""));
    return append(list, ROLE_COUNSELLOR, json_object_get(record, "output"), "\"output\"");
}

static const struct corpus_form_row rows[] = {
    [CORPUS_SOULCHAT] = { "soulchat", "messages", read_soulchat },
    [CORPUS_SMILE] = { "smile", "dialogue", read_smile },
    [CORPUS_SHAREGPT] = { "sharegpt", "conversations", read_sharegpt },
    [CORPUS_ALPACA] = { "alpaca", "instruction", read_alpaca },
};

const struct corpus_form_row *corpus_form_row(enum corpus_form form)
{
    ASSERT((unsigned)form < sizeof rows / sizeof rows[0]);
    return form == CORPUS_AUTO ? NULL : &rows[form];
}

enum corpus_form corpus_form_detect(const json_t *record)
{
    for (int64_t i = 0; i < COUNT_OF(rows); i++)
        if (rows[i].key != NULL && json_object_get(record, rows[i].key) != NULL)
            return (enum corpus_form)i;
    return CORPUS_AUTO;
}

const char *corpus_form_name(enum corpus_form form)
{
    return form == CORPUS_AUTO ? "auto" : corpus_form_row(form)->name;
}
