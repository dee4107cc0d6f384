/*
 * corpus_forms.h - the record forms people have, as one table: how to recognise a parsed record and
 * how to list its turns. What becomes of each form is documented in corpus.h. Internal to corpus.c.
 */
#ifndef DATA_CORPUS_FORMS_H
#define DATA_CORPUS_FORMS_H

#include "base/buf.h"
#include "base/err.h"
#include "data/corpus.h"
#include "data/jdoc.h"
#include "data/turn_list.h"

#include <stdint.h>

struct corpus_form_row {
    const char *name;      /* as in settings: "soulchat" */
    const char *key;       /* the member whose presence tells this form; NULL: it is not JSON */
    const char *other_key; /* which must be there too, or NULL */
    const char *id_key;    /* the member with the id */
    const char *topic_key; /* the member with the topic; of "a,b,c" the first counts */
    /* How many dialogues the record holds; NULL = 1. */
    int64_t (*part_count)(const struct jdoc_node *record);
    /* Append the turns of one of them. ERR_FORMAT says what was found and expected, without the
     * place. NULL: not JSON. */
    err_t (*read)(struct turn_list *list, const struct jdoc_node *record, int64_t part);
};

/* By form; NULL for CORPUS_AUTO. */
const struct corpus_form_row *corpus_form_row(enum corpus_form form);
/* The form whose members the record has; CORPUS_AUTO when none. */
enum corpus_form corpus_form_detect(const struct jdoc_node *record);
/* "\"messages\" (soulchat), \"question\" and \"answers\" (psyqa), ...": for messages. */
MUST_USE err_t corpus_forms_list(struct buf *out);

#endif
