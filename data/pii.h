/*
 * pii.h - places of a text that name a person: numbers, accounts and addresses.
 *
 * One pass over the bytes; each kind has a form strict enough that ordinary talk does not match:
 *
 *   id card   18 digits (the last may be X) with a date of birth and the check digit of ISO 7064
 *   phone     mainland mobiles (1[3-9], 11 digits, +86 allowed) and land lines with area code; a
 *             number that follows 热线 (a public help line) or begins with 400 or 800 is none
 *   e-mail    name@host.tld
 *   URL       http://, https://, www., or a bare host under com, cn, net or org
 *   QQ        5 to 11 digits after QQ or 扣扣, with at most 号码是为加群 and punctuation between
 *   WeChat    an account name or number after 微信, 薇信, 微信号, wechat, weixin, vx, wx
 *   address   a road or estate with a house number, from its province or city on
 */
#ifndef DATA_PII_H
#define DATA_PII_H

#include <stdint.h>

enum pii_kind {
    PII_ID_CARD,
    PII_PHONE,
    PII_EMAIL,
    PII_URL,
    PII_QQ,
    PII_WECHAT,
    PII_ADDRESS,
    PII_KIND_COUNT
};

struct pii_span {
    enum pii_kind kind;
    int64_t begin, end; /* bytes of the text */
};

/* Up to `max` places, in order and apart, that begin at or after *at; *at becomes where to go on,
 * `size` when the text is done. */
int64_t pii_find(struct pii_span *out, int64_t max, int64_t *at, const char *text, int64_t size);

/* What takes the place of `bytes` bytes of that kind: a name in brackets, or *** where that would
 * be longer. */
const char *pii_mask(enum pii_kind kind, int64_t bytes);

#endif
