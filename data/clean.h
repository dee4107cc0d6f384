/*
 * clean.h - the rules by which a dialogue is tidied before it is tokenized: one table, each row a
 * rule with its name, its function and what it counts. The report of prepare is printed from this
 * table, so no change goes uncounted.
 *
 *     struct clean_dialogue d = { 0 };
 *     int64_t counts[CLEAN_RULES_MAX] = { 0 };
 *     TRY_DONE(clean_load(&d, &dialogue));
 *     clean_apply(&d, counts);
 *     if (!d.dropped) ...                        // d.turns[d.turn_count]
 *     clean_clear(&d);
 */
#ifndef DATA_CLEAN_H
#define DATA_CLEAN_H

#include "base/buf.h"
#include "base/digest.h"
#include "base/err.h"
#include "data/corpus.h"

#include <stdbool.h>
#include <stdint.h>

#define CLEAN_RULES_MAX 64

struct clean_turn {
    enum role role;
    char *text; /* in the dialogue's own memory; rules rewrite it in place and never lengthen it */
    int64_t size;
};

/* A copy of a dialogue that rules may change. A zeroed struct is empty. */
struct clean_dialogue {
    struct buf text;
    struct clean_turn *turns;
    int64_t turn_count, turn_capacity;
    bool dropped; /* a rule decided that it is of no use */
};

struct clean_rule {
    const char *name;
    /* Apply to a dialogue that is not dropped; returns how many turns or dialogues it concerned. */
    int64_t (*apply)(struct clean_dialogue *d);
    const char *unit; /* "turns" or "dialogues": what is counted */
    const char *help; /* what the rule does, in words for a person */
};

int64_t clean_rule_count(void);
const struct clean_rule *clean_rule_at(int64_t index);
/* sha256 over the rules' names and order: two corpora with the same value were tidied alike. */
void clean_rules_sha256(char hex[SHA256_HEX_SIZE]);

/* Copy a dialogue. ERR_NOMEM. */
MUST_USE err_t clean_load(struct clean_dialogue *d, const struct dialogue_text *from);
/* Apply all rules in order; counts[rule] grows by what each returned; one that drops is the
 * last. */
void clean_apply(struct clean_dialogue *d, int64_t counts[CLEAN_RULES_MAX]);
void clean_clear(struct clean_dialogue *d);

/* The rules for one text (line ends, repeated newlines, surrounding blanks), in place; returns the
 * new start. */
char *clean_text(char *text, int64_t *size);

#endif
