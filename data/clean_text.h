/*
 * clean_text.h - what rules do to one text, in place. Internal to clean.c. No function lengthens a
 * text, and what was UTF-8 stays UTF-8.
 */
#ifndef DATA_CLEAN_TEXT_H
#define DATA_CLEAN_TEXT_H

#include "data/clean.h"

/* What one look at a text finds; a rule whose traits are absent has nothing to do. */
enum text_trait {
    TRAIT_RETURN = 1,    /* \r */
    TRAIT_NEWLINES = 2,  /* \n\n */
    TRAIT_CONTROL = 4,   /* a character that shows nothing */
    TRAIT_MARKUP = 8,    /* < or & */
    TRAIT_LATIN = 16,    /* U+0080 .. U+00FF: what UTF-8 read as Latin-1 looks like */
    TRAIT_GARBLED = 32,  /* U+FFFD or the first of 锟斤拷 */
    TRAIT_PERSONAL = 64, /* a digit, an @, or a Latin letter: may be personal data */
    TRAIT_COLON = 128,   /* : or ： may end a role's name */
};
unsigned text_traits(const char *text, int64_t size);

/* Each returns whether it changed the text. */
bool text_line_ends(struct clean_turn *t); /* \r\n and a lone \r become \n */
bool text_newlines(struct clean_turn *t);  /* repeated newlines become one */
bool text_strip(struct clean_turn *t);     /* white space around it goes */
bool text_control(struct clean_turn *t);   /* characters that show nothing go */
bool text_html(struct clean_turn *t);      /* known tags go, <br> and </p> become \n, entities
                                              become their characters */
bool text_mojibake(struct clean_turn *t);  /* UTF-8 that was read as Latin-1 or Windows-1252 */

/* Whether characters are lost for good: U+FFFD, 锟斤拷. */
bool text_garbled(const struct clean_turn *t);

int64_t text_char_count(const char *text, int64_t size);
/* Bytes of the character that begins with this byte; 1 for what begins none. */
static inline int64_t text_step(unsigned char lead)
{
    return lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

#endif
