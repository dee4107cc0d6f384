/*
 * clean_rules.h - the rules of a run: what each does, and the words they look for. Internal to
 * cleaning; the table of all rules is in clean_rules.c.
 */
#ifndef DATA_CLEAN_RULES_H
#define DATA_CLEAN_RULES_H

#include "data/clean.h"
#include "data/clean_words.h"

#include <stdint.h>

struct clean_rules {
    uint8_t action[CLEAN_RULE_COUNT]; /* enum clean_action */
    int64_t long_turn;
    char name[2][64]; /* of the template, by role */
    struct word_set words;
};

#endif
