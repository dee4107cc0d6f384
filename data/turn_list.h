/*
 * turn_list.h - the turns of one record while it is read, and what corpora call the two people.
 * Internal to the readers of corpora.
 */
#ifndef DATA_TURN_LIST_H
#define DATA_TURN_LIST_H

#include "base/err.h"
#include "data/corpus.h"

#include <stdbool.h>
#include <stdint.h>

struct turn_list {
    struct turn_text *turns; /* texts are borrowed from whatever the record lies in */
    int64_t count, capacity;
};

/* ERR_FORMAT: more than CORPUS_TURNS_MAX turns. */
MUST_USE err_t turn_list_append(struct turn_list *list, enum role role, const char *text,
                                int64_t size);
void turn_list_clear(struct turn_list *list);

/* The role of a name as it stands in a "role" member: "user", "counselor", "来访者". */
bool role_parse(enum role *role, const char *name, int64_t size);
/* What `role_parse` knows, for messages. */
#define ROLE_NAMES_TEXT                                                                            \
    "user, client, human, assistant, counselor, counsellor, gpt, system or a name like 来访者"

/*
 * Does text[size] begin with such a name and a colon, wide or not ("心理咨询师：")? Returns the
 * bytes of both, or 0. These are the names that stand in texts: the Chinese ones, and the English
 * ones with a capital letter; "system" is none of them.
 */
int64_t role_label(enum role *role, const char *text, int64_t size);

/*
 * Cut "病人：…\n医生：…" into turns, appended to the list. A turn begins with a label at the
 * beginning, after a newline, or after the two characters backslash and n, which is how BianQue
 * writes a newline; a text without any label is one client turn. A last turn without text is only
 * the cue for the reply and is left out. Each turn gets its NUL in text[0..size], so text[size]
 * must be writable.
 */
MUST_USE err_t turn_list_split(struct turn_list *list, char *text, int64_t size);

#endif
