/*
 * clean.h - the rules by which a dialogue is tidied before it is tokenized: one table, each row a
 * rule with its name, its help, what it counts, what it may do about a finding and what it does
 * unless told otherwise. Reports are printed from this table, so no change goes uncounted.
 *
 *     struct clean_rules *rules;
 *     const struct clean_spec spec = { .actions = "crisis=drop, url=keep" };
 *     TRY(clean_rules_open(&rules, &spec));
 *     TRY_DONE(clean_load(&d, &dialogue));
 *     clean_apply(rules, &d, &found);
 *     if (!d.dropped) ...                        // d.turns[d.turn_count]
 *     clean_clear(&d);
 *     clean_rules_close(rules);
 *
 * The rules of a run are immutable: any number of threads may apply them, each to dialogues and
 * findings of its own. What they leave is valid UTF-8, alternates between client and counsellor,
 * has no empty turn and at least one reply. All of them are written for precision: a rule that is
 * unsure leaves the text alone.
 */
#ifndef DATA_CLEAN_H
#define DATA_CLEAN_H

#include "base/buf.h"
#include "base/digest.h"
#include "base/err.h"
#include "data/corpus.h"

#include <stdbool.h>
#include <stdint.h>

#define CLEAN_EXAMPLES_MAX 3    /* kept for each rule */
#define CLEAN_SNIPPET_MAX  160  /* bytes of each side of an example, with the NUL */
#define CLEAN_LONG_CHARS   2000 /* characters: the default of clean_spec.long_turn */

/* In the order in which they are reported; the work is done in about this order. */
enum clean_rule_id {
    CLEAN_NO_TURN,
    CLEAN_SYSTEM_TURN,
    CLEAN_LINE_END,
    CLEAN_MOJIBAKE,
    CLEAN_GARBLED,
    CLEAN_HTML,
    CLEAN_CONTROL,
    CLEAN_NEWLINES,
    CLEAN_ROLE_NAME,
    CLEAN_STRIP,
    CLEAN_EMPTY_TURN,
    CLEAN_ROLE_OTHER,
    CLEAN_MERGE,
    CLEAN_LONG_TURN,
    CLEAN_ID_CARD,
    CLEAN_PHONE,
    CLEAN_EMAIL,
    CLEAN_URL,
    CLEAN_QQ,
    CLEAN_WECHAT,
    CLEAN_ADDRESS,
    CLEAN_IDENTITY_AI,
    CLEAN_IDENTITY_NAMED,
    CLEAN_CRISIS,
    CLEAN_NO_REPLY,
    CLEAN_COUNSELLOR_FIRST,
    CLEAN_CLIENT_LAST,
    CLEAN_RULE_COUNT
};

/* What is done about a finding. */
enum clean_action {
    CLEAN_OFF,     /* it is not looked for */
    CLEAN_KEEP,    /* counted, and left as it is */
    CLEAN_FIX,     /* put right, as the rule's help says */
    CLEAN_MASK,    /* replaced by a placeholder such as [电话] */
    CLEAN_CONTEXT, /* the turn stays as context and is never a target of training */
    CLEAN_TAG,     /* the turn and its dialogue are flagged in the shards */
    CLEAN_DROP,    /* the dialogue goes */
    CLEAN_ACTION_COUNT
};

struct clean_rule {
    const char *name;
    const char *unit; /* "turns", "dialogues" or "places": what is counted */
    const char *help; /* what the rule finds and does, in words for a person */
    enum clean_action standard;
    uint32_t allowed; /* bit 1 << action */
};

enum clean_turn_flag {
    CLEAN_TURN_CONTEXT = 1, /* no target of training */
    CLEAN_TURN_CRISIS = 2,  /* speaks of suicide or self-harm */
};

struct clean_turn {
    enum role role;
    char *text; /* in the dialogue's own memory; rules rewrite it in place and never lengthen it */
    int64_t size;
    uint8_t flags;   /* enum clean_turn_flag */
    unsigned traits; /* for the rules: what the text may have, enum text_trait */
};

/* A copy of a dialogue that rules may change. A zeroed struct is empty. */
struct clean_dialogue {
    struct buf text;
    struct clean_turn *turns;
    int64_t turn_count, turn_capacity;
    bool dropped; /* a rule decided that it is of no use */
};

/* One place before and after; `after` is empty where nothing took its place. UTF-8, one line. */
struct clean_example {
    char before[CLEAN_SNIPPET_MAX], after[CLEAN_SNIPPET_MAX];
};

/* What rules found. Zero it to begin; counts and examples only grow. */
struct clean_found {
    int64_t count[CLEAN_RULE_COUNT];
    int64_t example_count[CLEAN_RULE_COUNT];
    struct clean_example example[CLEAN_RULE_COUNT][CLEAN_EXAMPLES_MAX]; /* the first ones */
};

struct clean_spec {
    const char *actions; /* "rule=action, rule=action"; NULL or "" = the standard ones */
    int64_t long_turn;   /* characters that make a turn over-long; 0 = CLEAN_LONG_CHARS */
    const char *client_name, *counsellor_name; /* of the template, may be NULL; copied */
};

struct clean_rules;

/* ERR_USAGE names an unknown rule, an action that it does not have (and those it has), or a rule
 * given twice. ERR_NOMEM. */
MUST_USE err_t clean_rules_open(struct clean_rules **out, const struct clean_spec *spec);
void clean_rules_close(struct clean_rules *r); /* NULL allowed */

const struct clean_rule *clean_rule_at(int64_t index); /* 0 .. CLEAN_RULE_COUNT - 1 */
const char *clean_action_name(enum clean_action action);
enum clean_action clean_rules_action(const struct clean_rules *r, int64_t index);
/* sha256 over the rules in order, each as its name, or "name=action" where that is not the standard
 * one (long_turn has its limit too where that is not the standard one), with a NUL: two corpora
 * with the same value were tidied alike. */
void clean_rules_sha256(char hex[SHA256_HEX_SIZE], const struct clean_rules *r);

/* Copy a dialogue. ERR_NOMEM. */
MUST_USE err_t clean_load(struct clean_dialogue *d, const struct dialogue_text *from);
/* Apply all rules; one that drops is the last. `found` grows by what they found. */
void clean_apply(const struct clean_rules *r, struct clean_dialogue *d, struct clean_found *found);
/* The rules of form alone, for a conversation that is to be answered: system and empty turns, line
 * ends, newlines, surrounding blanks, same-role neighbours. Drops nothing. */
void clean_tidy(struct clean_dialogue *d);
void clean_clear(struct clean_dialogue *d);

/* Add what `from` found to `to`; examples while there is room. */
void clean_found_add(struct clean_found *to, const struct clean_found *from);

/* The rules of form for one text (line ends, repeated newlines, surrounding blanks), in place;
 * returns the new start. */
char *clean_text(char *text, int64_t *size);

#endif
