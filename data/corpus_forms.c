#include "data/corpus_forms.h"

#include "base/check.h"

#include <stdio.h>
#include <string.h>

static err_t append(struct turn_list *list, enum role role, const struct jdoc_node *text,
                    const char *where)
{
    if (text == NULL || text->type != JDOC_STRING)
        RAISE(FORMAT, "%s is %s, expected a string", where, jdoc_type_name(text));
    return turn_list_append(list, role, text->text, text->size);
}

/* A text that need not be there: absent, null and "" are no turn. */
static err_t append_optional(struct turn_list *list, enum role role, const struct jdoc_node *text,
                             const char *where)
{
    if (text == NULL || text->type == JDOC_NULL) return ERR_OK;
    if (text->type == JDOC_STRING && text->size == 0) return ERR_OK;
    return append(list, role, text, where);
}

static err_t expect_array(const struct jdoc_node *value, const char *key)
{
    if (value == NULL || value->type != JDOC_ARRAY)
        RAISE(FORMAT, "\"%s\" is %s, expected an array", key, jdoc_type_name(value));
    return ERR_OK;
}

static err_t parse_role(enum role *out, const struct jdoc_node *name, const char *key)
{
    if (name == NULL || name->type != JDOC_STRING)
        RAISE(FORMAT, "\"%s\" is %s, expected a string", key, jdoc_type_name(name));
    if (role_parse(out, name->text, name->size)) return ERR_OK;
    RAISE(FORMAT, "%s \"%.40s\", expected " ROLE_NAMES_TEXT, key, name->text);
}

/* A message's text; OpenAI's may be a list of parts, each of which becomes a turn of that role. */
static err_t append_content(struct turn_list *list, enum role role, const struct jdoc_node *content,
                            const char *where)
{
    if (content == NULL || content->type != JDOC_ARRAY) return append(list, role, content, where);
    for (const struct jdoc_node *p = jdoc_first(content); p != NULL; p = jdoc_next(content, p)) {
        const struct jdoc_node *type = jdoc_get(p, "type");
        if (type == NULL || type->type != JDOC_STRING || strcmp(type->text, "text") != 0)
            RAISE(FORMAT, "a part of %s has type \"%.40s\", expected text", where,
                  type != NULL && type->text != NULL ? type->text : "");
        TRY(append(list, role, jdoc_get(p, "text"), where));
    }
    return ERR_OK;
}

/* [{role_key: name, text_key: text}, ...] */
static err_t read_messages(struct turn_list *list, const struct jdoc_node *record, const char *key,
                           const char *role_key, const char *text_key)
{
    const struct jdoc_node *messages = jdoc_get(record, key);
    TRY(expect_array(messages, key));
    int i = 0;
    for (const struct jdoc_node *m = jdoc_first(messages); m != NULL; m = jdoc_next(messages, m)) {
        enum role role = ROLE_CLIENT;
        char where[64];
        snprintf(where, sizeof where, "\"%s\" of %s[%d]", text_key, key, i);
        if (m->type != JDOC_OBJECT)
            RAISE(FORMAT, "%s[%d] is %s, expected an object", key, i, jdoc_type_name(m));
        TRY(parse_role(&role, jdoc_get(m, role_key), role_key));
        TRY(append_content(list, role, jdoc_get(m, text_key), where));
        i++;
    }
    return ERR_OK;
}

/* A "system" text beside the turns, as some collections have it. */
static err_t read_system(struct turn_list *list, const struct jdoc_node *record)
{
    return append_optional(list, ROLE_SYSTEM, jdoc_get(record, "system"), "\"system\"");
}

static err_t read_soulchat(struct turn_list *list, const struct jdoc_node *record, int64_t part)
{
    (void)part;
    return read_messages(list, record, "messages", "role", "content");
}

static err_t read_smile(struct turn_list *list, const struct jdoc_node *record, int64_t part)
{
    (void)part;
    return read_messages(list, record, "dialogue", "role", "content");
}

static err_t read_sharegpt(struct turn_list *list, const struct jdoc_node *record, int64_t part)
{
    (void)part;
    TRY(read_system(list, record));
    return read_messages(list, record, "conversations", "from", "value");
}

/* history: [[question, answer], ...] or absent. */
static err_t read_history(struct turn_list *list, const struct jdoc_node *history)
{
    if (history == NULL || history->type == JDOC_NULL) return ERR_OK;
    TRY(expect_array(history, "history"));
    int i = 0;
    for (const struct jdoc_node *h = jdoc_first(history); h != NULL; h = jdoc_next(history, h)) {
        if (h->type != JDOC_ARRAY || h->count != 2)
            RAISE(FORMAT, "history[%d] is not a pair of question and answer", i);
        const struct jdoc_node *question = jdoc_first(h);
        TRY(append(list, ROLE_CLIENT, question, "a question of \"history\""));
        TRY(append(list, ROLE_COUNSELLOR, jdoc_next(h, question), "an answer of \"history\""));
        i++;
    }
    return ERR_OK;
}

static err_t read_alpaca(struct turn_list *list, const struct jdoc_node *record, int64_t part)
{
    (void)part;
    TRY(read_system(list, record));
    TRY(read_history(list, jdoc_get(record, "history")));
    TRY(append(list, ROLE_CLIENT, jdoc_get(record, "instruction"), "\"instruction\""));
    TRY(append_optional(list, ROLE_CLIENT, jdoc_get(record, "input"), "\"input\""));
    return append(list, ROLE_COUNSELLOR, jdoc_get(record, "output"), "\"output\"");
}

static err_t read_emollm(struct turn_list *list, const struct jdoc_node *record, int64_t part)
{
    (void)part;
    const struct jdoc_node *rounds = jdoc_get(record, "conversation");
    TRY(expect_array(rounds, "conversation"));
    int i = 0;
    for (const struct jdoc_node *r = jdoc_first(rounds); r != NULL; r = jdoc_next(rounds, r)) {
        char input[64], output[64];
        snprintf(input, sizeof input, "\"input\" of conversation[%d]", i);
        snprintf(output, sizeof output, "\"output\" of conversation[%d]", i);
        if (r->type != JDOC_OBJECT)
            RAISE(FORMAT, "conversation[%d] is %s, expected an object", i, jdoc_type_name(r));
        TRY(read_system(list, r));
        TRY(append(list, ROLE_CLIENT, jdoc_get(r, "input"), input));
        TRY(append(list, ROLE_COUNSELLOR, jdoc_get(r, "output"), output));
        i++;
    }
    return ERR_OK;
}

static int64_t count_answers(const struct jdoc_node *record)
{
    const struct jdoc_node *answers = jdoc_get(record, "answers");
    return answers != NULL && answers->type == JDOC_ARRAY && answers->count > 0 ? answers->count
                                                                                : 1;
}

static err_t read_psyqa(struct turn_list *list, const struct jdoc_node *record, int64_t part)
{
    const struct jdoc_node *answers = jdoc_get(record, "answers");
    TRY(expect_array(answers, "answers"));
    TRY(append(list, ROLE_CLIENT, jdoc_get(record, "question"), "\"question\""));
    TRY(append_optional(list, ROLE_CLIENT, jdoc_get(record, "description"), "\"description\""));
    const struct jdoc_node *answer = jdoc_first(answers);
    for (int64_t i = 0; i < part && answer != NULL; i++) answer = jdoc_next(answers, answer);
    if (answer == NULL) return ERR_OK;
    char where[64];
    snprintf(where, sizeof where, "\"answer_text\" of answers[%lld]", (long long)part);
    return append(list, ROLE_COUNSELLOR, jdoc_get(answer, "answer_text"), where);
}

static err_t read_bianque(struct turn_list *list, const struct jdoc_node *record, int64_t part)
{
    (void)part;
    const struct jdoc_node *input = jdoc_get(record, "input");
    if (input == NULL || input->type != JDOC_STRING)
        RAISE(FORMAT, "\"input\" is %s, expected a string", jdoc_type_name(input));
    /* The text is ours, in the parsed record's memory, and ends with a NUL. */
    TRY(turn_list_split(list, (char *)(uintptr_t)input->text, input->size));
    return append(list, ROLE_COUNSELLOR, jdoc_get(record, "target"), "\"target\"");
}

/* The order of detection differs from that of the enum where one form has the members of another
 * and more. */
static const struct corpus_form_row rows[] = {
    [CORPUS_SOULCHAT] = { "soulchat", "messages", "topic", "id", "topic", NULL, read_soulchat },
    [CORPUS_SMILE] = { "smile", "dialogue", NULL, "id", "topic", NULL, read_smile },
    [CORPUS_SHAREGPT] = { "sharegpt", "conversations", NULL, "id", "topic", NULL, read_sharegpt },
    [CORPUS_ALPACA] = { "alpaca", "instruction", NULL, "id", "topic", NULL, read_alpaca },
    [CORPUS_OPENAI] = { "openai", "messages", NULL, "id", "normalizedTag", NULL, read_soulchat },
    [CORPUS_EMOLLM] = { "emollm", "conversation", NULL, "id", "topic", NULL, read_emollm },
    [CORPUS_PSYQA] = { "psyqa", "question", "answers", "questionID", "keywords", count_answers,
                       read_psyqa },
    [CORPUS_BIANQUE] = { "bianque", "input", "target", "id", "topic", NULL, read_bianque },
    [CORPUS_CPSYCOUN] = { "cpsycoun", NULL, NULL, NULL, NULL, NULL, NULL },
};

const struct corpus_form_row *corpus_form_row(enum corpus_form form)
{
    ASSERT((int64_t)form < COUNT_OF(rows));
    return form == CORPUS_AUTO ? NULL : &rows[form];
}

enum corpus_form corpus_form_detect(const struct jdoc_node *record)
{
    for (int64_t i = 0; i < COUNT_OF(rows); i++)
        if (rows[i].key != NULL && jdoc_get(record, rows[i].key) != NULL &&
            (rows[i].other_key == NULL || jdoc_get(record, rows[i].other_key) != NULL))
            return (enum corpus_form)i;
    return CORPUS_AUTO;
}

err_t corpus_forms_list(struct buf *out)
{
    const char *before = "";
    for (int64_t i = 0; i < COUNT_OF(rows); i++) {
        const struct corpus_form_row *r = &rows[i];
        if (r->key == NULL) continue;
        TRY(buf_printf(out, "%s\"%s\"", before, r->key));
        if (r->other_key != NULL) TRY(buf_printf(out, " and \"%s\"", r->other_key));
        TRY(buf_printf(out, " (%s)", r->name));
        before = ", ";
    }
    return ERR_OK;
}

const char *corpus_form_name(enum corpus_form form)
{
    return form == CORPUS_AUTO ? "auto" : corpus_form_row(form)->name;
}
