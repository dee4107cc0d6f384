/*
 * utf8.h - one character of UTF-8 at a time, strictly: overlong forms, surrogates and values above
 * U+10FFFF are not characters (The Unicode Standard, table 3-7).
 */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of the character at text[0..size), 1 to 4, with its code point in *out; 0, with *out
 * untouched, when there is none: size is 0 or the bytes are not UTF-8. */
static inline int utf8_decode(uint32_t *out, const char *text, size_t size)
{
    static const uint32_t least[5] = { 0, 0, 0x80, 0x800, 0x10000 };
    if (size == 0) return 0;
    const uint8_t first = (uint8_t)text[0];
    const int count = first < 0x80 ? 1 : first < 0xc0 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3
                      : first < 0xf8 ? 4 : 0;
    if (count == 0 || (size_t)count > size) return 0;
    uint32_t c = count == 1 ? first : first & (0x7fu >> count);
    for (int i = 1; i < count; i++) {
        if (((uint8_t)text[i] & 0xc0u) != 0x80u) return 0;
        c = c << 6 | ((uint8_t)text[i] & 0x3fu);
    }
    if (c < least[count] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return 0;
    *out = c;
    return count;
}

#ifdef __cplusplus
}
#endif
#endif
