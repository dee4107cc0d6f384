/*
 * clean_words.h - words that rules look for, all in one pass: at each character the words that
 * begin with its six bytes. Internal to clean.c.
 *
 *     struct word_set set;
 *     word_set_init(&set);
 *     while (word_find(&hit, &set, text, size, &at)) ...
 */
#ifndef DATA_CLEAN_WORDS_H
#define DATA_CLEAN_WORDS_H

#include "data/corpus.h"

#include <stdbool.h>
#include <stdint.h>

#define WORD_HEADS 4096

enum word_kind {
    WORD_CRISIS, /* suicide and self-harm */
    WORD_AI,     /* the name of a machine that talks */
    WORD_I_AM,   /* 我是: may introduce a counsellor or a machine */
    WORD_AS,     /* 作为 and the like: may introduce a machine */
};

struct word_set {
    uint8_t head[WORD_HEADS]; /* first word of a list + 1, by a hash of its first six bytes */
    uint8_t next[128];        /* the next word of the list + 1 */
    uint8_t size[128];        /* of a word, in bytes */
};
void word_set_init(struct word_set *set);

struct word_hit {
    enum word_kind kind;
    int64_t begin, end;
};
/* The next hit at or after *at, which moves behind its beginning. */
bool word_find(struct word_hit *out, const struct word_set *set, const char *text, int64_t size,
               int64_t *at);

/* Whether a hit of WORD_I_AM is the speaker's own introduction as a counsellor: a clause that ends
 * with a title, alone or with a name, not quoted and not part of a sentence about something else.
 */
bool word_names_counsellor(const char *text, int64_t size, const struct word_hit *hit);

/* Whether after a hit of WORD_I_AM or WORD_AS the speaker is a machine (我是一个 AI 助手,
 * 作为人工智能), or was made by somebody (我是由某团队开发的). What people are (人工智能专业的) is
 * left alone, as is what is supposed or quoted. */
bool word_names_machine(const char *text, int64_t size, const struct word_hit *hit);

/* A speaker's name with a colon, as "支持者：", where a line or sentence begins. */
struct speaker {
    enum role role;
    bool label; /* a mere label of what follows: at the start of a line, or a title as 医生. Another
                 * name amid a line ("...吗？求助者：...") divides it between two speakers. */
    int64_t begin, end; /* end is behind the colon and the blanks that follow it */
};
/* The next one at or after *at, which moves behind it. `names` of the template, may be NULL, are
 * names besides the usual ones. `speaker` is who says the text: names that are also nouns of
 * ordinary talk (医生, 用户) count only where they are the speaker's own. */
bool speaker_find(struct speaker *out, const char *text, int64_t size, enum role speaker,
                  const char *const names[2], int64_t *at);

#endif
