#include "data/clean_text.h"

#include "base/check.h"
#include "base/utf8.h"

#include <string.h>

/* ---- one look ---- */

/* By first byte; characters of several bytes that matter are looked at below. */
static const uint8_t traits_of_byte[256] = {
    [0x00 ... 0x08] = TRAIT_CONTROL,
    [0x0b ... 0x0c] = TRAIT_CONTROL,
    ['\r'] = TRAIT_RETURN,
    [0x0e ... 0x1f] = TRAIT_CONTROL,
    ['&'] = TRAIT_MARKUP,
    ['<'] = TRAIT_MARKUP,
    [':'] = TRAIT_COLON,
    ['0' ... '9'] = TRAIT_PERSONAL,
    ['@' ... 'Z'] = TRAIT_PERSONAL,
    ['a' ... 'z'] = TRAIT_PERSONAL,
    [0x7f] = TRAIT_CONTROL,
    [0xc2 ... 0xc3] = TRAIT_LATIN,
};

/* Shows nothing and joins nothing: C0 but \t \n \r, DEL, C1, soft hyphen, zero-width space and
 * non-joiner, direction marks, word joiner, byte order mark. The zero-width joiner stays, emoji are
 * made with it. */
static bool is_control(int32_t c)
{
    return (c < 0x20 && c != '\t' && c != '\n' && c != '\r') || (c >= 0x7f && c <= 0x9f) ||
           c == 0xad || c == 0x200b || c == 0x200c || c == 0x200e || c == 0x200f ||
           (c >= 0x202a && c <= 0x202e) || c == 0x2060 || (c >= 0x2066 && c <= 0x2069) ||
           c == 0xfeff;
}

static unsigned traits_of_wide(const unsigned char *at)
{
    const int32_t c = (at[0] & 15) << 12 | (at[1] & 63) << 6 | (at[2] & 63);
    if (is_control(c)) return TRAIT_CONTROL;
    if (c == 0xff1a) return TRAIT_COLON;
    return c == 0xfffd || c == 0x951f ? TRAIT_GARBLED : 0;
}

unsigned text_traits(const char *text, int64_t size)
{
    const unsigned char *at = (const unsigned char *)text, *end = at + size;
    unsigned traits = 0;
    while (at < end) {
        const unsigned char lead = *at;
        traits |= traits_of_byte[lead];
        /* Of the characters of three bytes only those of these rows can matter. */
        if (lead == 0xe2 || lead == 0xe9 || lead == 0xef)
            traits |= end - at >= 3 ? traits_of_wide(at) : 0;
        else if (lead == 0xc2)
            traits |= end - at >= 2 && (at[1] < 0xa0 || at[1] == 0xad) ? TRAIT_CONTROL : 0;
        else if (lead == '\n')
            traits |= end - at >= 2 && at[1] == '\n' ? TRAIT_NEWLINES : 0;
        at += text_step(lead);
    }
    return traits;
}

int64_t text_char_count(const char *text, int64_t size)
{
    int64_t count = 0;
    for (int64_t i = 0; i < size; i++) count += ((unsigned char)text[i] & 0xc0) != 0x80;
    return count;
}

/* ---- white space ---- */

bool text_line_ends(struct clean_turn *t)
{
    char *out = t->text;
    if (memchr(t->text, '\r', (size_t)t->size) == NULL) return false;
    for (int64_t i = 0; i < t->size; i++) {
        const bool pair = t->text[i] == '\r' && i + 1 < t->size && t->text[i + 1] == '\n';
        if (!pair) *out++ = t->text[i] == '\r' ? '\n' : t->text[i];
    }
    t->size = out - t->text;
    return true;
}

bool text_newlines(struct clean_turn *t)
{
    int64_t out = 0;
    for (int64_t i = 0; i < t->size; i++)
        if (out == 0 || t->text[i] != '\n' || t->text[out - 1] != '\n') t->text[out++] = t->text[i];
    const bool changed = out != t->size;
    t->size = out;
    return changed;
}

bool text_strip(struct clean_turn *t)
{
    const int64_t before = t->size, leading = utf8_leading_space(t->text, t->size);
    t->text += leading;
    t->size -= leading;
    t->size -= utf8_trailing_space(t->text, t->size);
    return t->size != before;
}

char *clean_text(char *text, int64_t *size)
{
    struct clean_turn t = { .text = text, .size = *size };
    text_line_ends(&t);
    text_newlines(&t);
    text_strip(&t);
    *size = t.size;
    return t.text;
}

/* ---- characters ---- */

bool text_control(struct clean_turn *t)
{
    int64_t out = 0, length;
    for (int64_t i = 0; i < t->size; i += length) {
        if (is_control(utf8_decode(&length, t->text + i, t->size - i))) continue;
        memmove(t->text + out, t->text + i, (size_t)length);
        out += length;
    }
    const bool changed = out != t->size;
    t->size = out;
    return changed;
}

bool text_garbled(const struct clean_turn *t)
{
    static const char *const signs[] = { UTF8_REPLACEMENT, "锟斤拷" };
    for (int64_t i = 0; i < COUNT_OF(signs); i++)
        if (memmem(t->text, (size_t)t->size, signs[i], strlen(signs[i])) != NULL) return true;
    return false;
}

/* The byte that Windows-1252 shows as this character, -1 for none; Latin-1 where that differs. */
static int byte_of_windows_1252(int32_t c)
{
    static const uint16_t high[32] = { 0x20ac, 0,      0x201a, 0x0192, 0x201e, 0x2026, 0x2020,
                                       0x2021, 0x02c6, 0x2030, 0x0160, 0x2039, 0x0152, 0,
                                       0x017d, 0,      0,      0x2018, 0x2019, 0x201c, 0x201d,
                                       0x2022, 0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a,
                                       0x0153, 0,      0x017e, 0x0178 };
    if (c >= 0x80 && c <= 0xff) return c;
    for (int i = 0; i < 32; i++)
        if (high[i] != 0 && high[i] == c) return 0x80 + i;
    return -1;
}

/* One CJK character (three bytes E3..E9) that was read byte by byte; returns how many bytes of the
 * text it takes, 0 when there is none. Three such characters in a row, the first one of ã ä å æ ç è
 * é and the others no letters, are not met in what people write. */
static int64_t misread_character(char out[3], const char *text, int64_t size)
{
    int64_t at = 0, length;
    for (int i = 0; i < 3; i++, at += length) {
        if (at == size) return 0;
        const int byte = byte_of_windows_1252(utf8_decode(&length, text + at, size - at));
        if (byte < 0 || (i == 0 ? byte < 0xe3 || byte > 0xe9 : byte < 0x80 || byte > 0xbf))
            return 0;
        out[i] = (char)byte;
    }
    return utf8_valid_prefix(out, 3) == 3 ? at : 0;
}

bool text_mojibake(struct clean_turn *t)
{
    int64_t out = 0, step;
    bool changed = false;
    for (int64_t i = 0; i < t->size; i += step) {
        char character[3];
        const char *from = character;
        int64_t size = 3;
        step = (unsigned char)t->text[i] == 0xc3
                   ? misread_character(character, t->text + i, t->size - i)
                   : 0;
        changed |= step > 0;
        if (step == 0) {
            step = size = text_step((unsigned char)t->text[i]);
            from = t->text + i;
        }
        memmove(t->text + out, from, (size_t)size);
        out += size;
    }
    t->size = out;
    return changed;
}

/* ---- HTML ---- */

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/* Only names of this list are tags, so that "a<b" and "<3" stay. `breaks`: leaves a newline. */
static const struct {
    const char *name;
    bool breaks;
} tags[] = {
    { "a", false },      { "b", false },     { "i", false },         { "u", false },
    { "p", true },       { "br", true },     { "hr", true },         { "li", true },
    { "ul", false },     { "ol", false },    { "em", false },        { "h1", true },
    { "h2", true },      { "h3", true },     { "h4", true },         { "td", false },
    { "th", false },     { "tr", true },     { "div", true },        { "img", false },
    { "pre", true },     { "sub", false },   { "sup", false },       { "font", false },
    { "span", false },   { "code", false },  { "strong", false },    { "table", false },
    { "script", false }, { "style", false }, { "blockquote", true },
};

/* A tag at `text`, which begins with '<': its bytes, 0 when it is none. */
static int64_t tag_size(bool *breaks, const char *text, int64_t size)
{
    int64_t at = 1, name;
    const bool closing = at < size && text[at] == '/';
    at += closing;
    name = at;
    while (at < size && (is_letter(text[at]) || (text[at] >= '0' && text[at] <= '9'))) at++;
    const int64_t name_size = at - name;
    const char *end = memchr(text + at, '>', (size_t)(size - at < 256 ? size - at : 256));
    if (end == NULL || (text[at] != '>' && text[at] != ' ' && text[at] != '/')) return 0;
    for (int64_t i = 0; i < COUNT_OF(tags); i++)
        if ((int64_t)strlen(tags[i].name) == name_size &&
            strncasecmp(tags[i].name, text + name, (size_t)name_size) == 0) {
            const bool empty = strcmp(tags[i].name, "br") == 0 || strcmp(tags[i].name, "hr") == 0;
            *breaks = tags[i].breaks && (closing || empty);
            return end + 1 - text;
        }
    return 0;
}

static const struct {
    const char *name, *text;
} entities[] = {
    { "&nbsp;", " " },   { "&lt;", "<" },    { "&gt;", ">" },     { "&amp;", "&" },
    { "&quot;", "\"" },  { "&apos;", "'" },  { "&hellip;", "…" }, { "&mdash;", "—" },
    { "&ldquo;", "“" },  { "&rdquo;", "”" }, { "&lsquo;", "‘" },  { "&rsquo;", "’" },
    { "&middot;", "·" }, { "&bull;", "•" },  { "&ensp;", " " },   { "&emsp;", " " },
};

/* &#39; and &#x4f60; of a character that shows something; never shorter than what it stands for. */
static int64_t numeric_entity(char out[4], int64_t *out_size, const char *text, int64_t size)
{
    const bool hex = size > 2 && (text[2] == 'x' || text[2] == 'X');
    int64_t at = hex ? 3 : 2, digits = 0;
    uint32_t c = 0;
    for (; at < size && digits < 7; at++, digits++) {
        const char d = text[at];
        const int value = d >= '0' && d <= '9'          ? d - '0'
                          : hex && d >= 'a' && d <= 'f' ? d - 'a' + 10
                          : hex && d >= 'A' && d <= 'F' ? d - 'A' + 10
                                                        : -1;
        if (value < 0) break;
        c = c * (hex ? 16 : 10) + (uint32_t)value;
    }
    if (digits == 0 || at == size || text[at] != ';' || c < 0x20 || c > 0x10ffff ||
        (c >= 0xd800 && c < 0xe000) || is_control((int32_t)c))
        return 0;
    *out_size = utf8_put(out, (int32_t)c);
    return *out_size <= at + 1 ? at + 1 : 0;
}

/* An entity at `text`, which begins with '&': its bytes and what it stands for; 0 for none. */
static int64_t entity(char out[4], int64_t *out_size, const char *text, int64_t size)
{
    if (size > 1 && text[1] == '#') return numeric_entity(out, out_size, text, size);
    for (int64_t i = 0; i < COUNT_OF(entities); i++) {
        const int64_t name_size = (int64_t)strlen(entities[i].name);
        if (name_size > size || memcmp(text, entities[i].name, (size_t)name_size) != 0) continue;
        *out_size = (int64_t)strlen(entities[i].text);
        memcpy(out, entities[i].text, (size_t)*out_size);
        return name_size;
    }
    return 0;
}

bool text_html(struct clean_turn *t)
{
    int64_t out = 0, step;
    const int64_t before = t->size;
    for (int64_t i = 0; i < t->size; i += step) {
        char text[4];
        bool breaks = false;
        int64_t size = 0;
        step = 0;
        if (t->text[i] == '<') {
            step = tag_size(&breaks, t->text + i, t->size - i);
            text[0] = '\n';
            size = step > 0 && breaks;
        } else if (t->text[i] == '&') {
            step = entity(text, &size, t->text + i, t->size - i);
        }
        if (step == 0) {
            step = size = 1;
            text[0] = t->text[i];
        }
        memcpy(t->text + out, text, (size_t)size);
        out += size;
    }
    t->size = out;
    return out != before;
}
