/*
 * corpus_forms.h - the record forms people have, as one table: how to recognise a parsed record and
 * how to list its turns. Internal to corpus.c.
 */
#ifndef DATA_CORPUS_FORMS_H
#define DATA_CORPUS_FORMS_H

#include "base/err.h"
#include "data/corpus.h"

#include <jansson.h>
#include <stdint.h>

/* Turns of the record being read; texts are borrowed from the parsed record. */
struct turn_list {
    struct turn_text *turns;
    int64_t count, capacity;
};

struct corpus_form_row {
    const char *name; /* as in settings: "soulchat" */
    const char *key;  /* the member whose presence tells this form */
    /* Append the record's turns. ERR_FORMAT says what was found and expected, without the place. */
    err_t (*read)(struct turn_list *list, const json_t *record);
};

/* By form; NULL for CORPUS_AUTO. */
const struct corpus_form_row *corpus_form_row(enum corpus_form form);
/* The form whose key the record has; CORPUS_AUTO when none. */
enum corpus_form corpus_form_detect(const json_t *record);

#endif
