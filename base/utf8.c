#include "base/utf8.h"

#include "base/check.h"

#include <stdbool.h>
#include <string.h>

/* What may follow a lead byte: how many bytes, and the range of the first of them (Unicode, table
 * 3-7). The others are always 80..BF. */
struct lead {
    uint8_t low, high;    /* lead bytes this row is for */
    uint8_t trail_count;
    uint8_t first_low, first_high;
};

static const struct lead LEADS[] = {
    { 0xC2, 0xDF, 1, 0x80, 0xBF }, { 0xE0, 0xE0, 2, 0xA0, 0xBF }, { 0xE1, 0xEC, 2, 0x80, 0xBF },
    { 0xED, 0xED, 2, 0x80, 0x9F }, { 0xEE, 0xEF, 2, 0x80, 0xBF }, { 0xF0, 0xF0, 3, 0x90, 0xBF },
    { 0xF1, 0xF3, 3, 0x80, 0xBF }, { 0xF4, 0xF4, 3, 0x80, 0x8F },
};

int32_t utf8_decode(int64_t *length, const char *text, int64_t size)
{
    ASSERT(size > 0);
    const uint8_t *bytes = (const uint8_t *)text;
    *length = 1;
    if (bytes[0] < 0x80) return bytes[0];

    const struct lead *lead = NULL;
    for (int64_t i = 0; i < COUNT_OF(LEADS) && lead == NULL; i++)
        if (bytes[0] >= LEADS[i].low && bytes[0] <= LEADS[i].high) lead = &LEADS[i];
    if (lead == NULL) return -1;

    int32_t point = bytes[0] & (0x3F >> lead->trail_count);
    for (int64_t i = 1; i <= lead->trail_count; i++) {
        const uint8_t low = i == 1 ? lead->first_low : 0x80;
        const uint8_t high = i == 1 ? lead->first_high : 0xBF;
        if (i >= size || bytes[i] < low || bytes[i] > high) {
            *length = i;
            return -1;
        }
        point = (point << 6) | (bytes[i] & 0x3F);
    }
    *length = lead->trail_count + 1;
    return point;
}

int64_t utf8_put(char out[4], int32_t point)
{
    static const uint8_t lead[] = { 0x00, 0xC0, 0xE0, 0xF0 };
    const int trail = point < 0x80 ? 0 : point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    ASSERT(point >= 0 && point <= 0x10FFFF);
    out[0] = (char)(lead[trail] | point >> (6 * trail));
    for (int i = 1; i <= trail; i++)
        out[i] = (char)(0x80 | (point >> (6 * (trail - i)) & 0x3F));
    return trail + 1;
}

static bool is_space(int32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

int64_t utf8_leading_space(const char *text, int64_t size)
{
    int64_t at = 0, length;
    while (at < size && is_space(utf8_decode(&length, text + at, size - at))) at += length;
    return at;
}

int64_t utf8_trailing_space(const char *text, int64_t size)
{
    int64_t end = size, length;
    while (end > 0) {
        int64_t begin = end - 1;
        while (begin > 0 && ((uint8_t)text[begin] & 0xc0) == 0x80) begin--;
        if (!is_space(utf8_decode(&length, text + begin, end - begin))) break;
        end = begin;
    }
    return size - end;
}

/* ASCII and the three-byte characters that Chinese text consists of take the short ways. */
int64_t utf8_valid_prefix(const char *text, int64_t size)
{
    int64_t at = 0;
    while (at < size) {
        uint64_t word;
        if (size - at >= 8) {
            memcpy(&word, text + at, 8);
            if ((word & 0x8080808080808080u) == 0) {
                at += 8;
                continue;
            }
            const uint8_t lead = (uint8_t)word;
            if (lead >= 0xE1 && lead <= 0xEC && (word & 0xC0C000u) == 0x808000u) {
                at += 3;
                continue;
            }
        }
        int64_t length;
        if (utf8_decode(&length, text + at, size - at) < 0) return at;
        at += length;
    }
    return at;
}

err_t utf8_append_repaired(struct buf *out, const char *text, int64_t size)
{
    int64_t at = 0;
    while (at < size) {
        const int64_t valid = utf8_valid_prefix(text + at, size - at);
        TRY(buf_append(out, text + at, (size_t)valid));
        at += valid;
        if (at == size) break;
        int64_t length;
        const int32_t point = utf8_decode(&length, text + at, size - at);
        ASSERT(point < 0);
        TRY(buf_append(out, UTF8_REPLACEMENT, 3));
        at += length;
    }
    return ERR_OK;
}
