#include "data/dedup.h"

#include "base/check.h"
#include "base/num.h"
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

#define MARK 1 /* + role: the first turn's, and where a turn begins; no character of a text */

void dedup_work_clear(struct dedup_work *w)
{
    free(w->stream);
    *w = (struct dedup_work){ 0 };
}

/* ---- the stream ---- */

/* What is left of a character: 0 for white space, punctuation and signs. */
static uint32_t fold(int32_t c)
{
    if (c >= 0xff01 && c <= 0xff5e) c -= 0xfee0; /* full-width forms of ASCII */
    if (c < 0x80) {
        if (c >= 'A' && c <= 'Z') return (uint32_t)c + 32;
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ? (uint32_t)c : 0;
    }
    const bool sign = c < 0xc0 || (c >= 0x2000 && c <= 0x206f) || (c >= 0x2190 && c <= 0x2bff) ||
                      (c >= 0x3000 && c <= 0x303f) || (c >= 0xfe00 && c <= 0xfe6f) ||
                      (c >= 0xff00 && c <= 0xffef) || c >= 0x1f000;
    return sign ? 0 : (uint32_t)c;
}

static err_t make_stream(struct dedup_work *w, const struct turn_text *turns, int64_t turn_count)
{
    w->stream_count = 0;
    for (int64_t i = 0; i < turn_count; i++) {
        const unsigned char *at = (const unsigned char *)turns[i].text, *end = at + turns[i].size;
        ARRAY_GROW(w->stream, w->stream_capacity, w->stream_count + 1 + turns[i].size);
        uint32_t *out = w->stream + w->stream_count;
        *out++ = MARK + (uint32_t)turns[i].role;
        while (at < end) {
            int64_t length = 3;
            int32_t c;
            /* Nearly all characters: three bytes, of them the ideographs U+4000 .. U+9FFF stay as
             * they are. */
            if (*at >= 0xe0 && *at <= 0xef && end - at >= 3) {
                c = (at[0] & 15) << 12 | (at[1] & 63) << 6 | (at[2] & 63);
                if (*at < 0xe4 || *at > 0xe9) c = (int32_t)fold(c);
            } else {
                c = (int32_t)fold(utf8_decode(&length, (const char *)at, end - at));
            }
            if (c > 0) *out++ = (uint32_t)c;
            at += length;
        }
        w->stream_count = out - w->stream;
    }
    return ERR_OK;
}

/* ---- shingles ---- */

/* The finalizer of MurmurHash3: every bit of the input changes half of the bits of the output. */
static uint64_t mix(uint64_t h)
{
    h = (h ^ (h >> 33)) * 0xff51afd7ed558ccdu;
    h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53u;
    return h ^ (h >> 33);
}

/* Enough for a shingle, whose characters a polynomial has mixed: high bits reach low ones. */
static uint64_t mix_shingle(uint64_t h)
{
    h *= 0xff51afd7ed558ccdu;
    return h ^ (h >> 32);
}

#define ROLL 0x9e3779b97f4a7c15u /* odd: the rolling polynomial loses no bit */

static int64_t shingle_count(const struct dedup_work *w)
{
    return w->stream_count == 0 ? 0 : max_i64(1, w->stream_count - DEDUP_SHINGLE + 1);
}

/* The polynomial of the shingle before the first: what shingle_next rolls on. */
static uint64_t shingle_begin(const struct dedup_work *w)
{
    uint64_t h = 0;
    for (int64_t i = 0; i < min_i64(DEDUP_SHINGLE - 1, w->stream_count); i++)
        h = h * ROLL + w->stream[i];
    return h;
}

/* Roll to shingle i; a stream that is shorter than a shingle is one by itself. */
static inline uint64_t shingle_next(const struct dedup_work *w, uint64_t h, int64_t i)
{
    const uint64_t roll5 = ROLL * ROLL * ROLL * ROLL * ROLL; /* of the character that leaves */
    if (w->stream_count < DEDUP_SHINGLE) return h;
    h = h * ROLL + w->stream[i + DEDUP_SHINGLE - 1];
    return i > 0 ? h - w->stream[i - 1] * roll5 : h;
}

/* The hash of the first DEDUP_OPENING characters of the client's first turn that has so many. */
static uint64_t opening_of(const struct dedup_work *w)
{
    int64_t mark = -1;
    for (int64_t i = 0; i < w->stream_count; i++) {
        if (w->stream[i] <= MARK + ROLE_SYSTEM) {
            mark = w->stream[i] == MARK + ROLE_CLIENT ? i : -1;
        } else if (mark >= 0 && i - mark == DEDUP_OPENING) {
            uint64_t h = 0;
            for (int64_t k = mark + 1; k <= i; k++) h = h * ROLL + w->stream[k];
            return mix(h) | 1;
        }
    }
    return 0;
}

/* An empty bin takes the value of one that is not, found by a random walk of its own. */
static void densify(uint32_t bin[DEDUP_BINS])
{
    uint32_t filled[DEDUP_BINS];
    for (unsigned b = 0; b < DEDUP_BINS; b++) {
        unsigned from = b;
        for (unsigned k = 1; bin[from] == UINT32_MAX; k++)
            from = (unsigned)(mix((uint64_t)b << 32 | k) % DEDUP_BINS);
        filled[b] = bin[from];
    }
    memcpy(bin, filled, sizeof filled);
}

err_t dedup_sign(struct dedup_signature *out, struct dedup_work *w, const struct turn_text *turns,
                 int64_t turn_count)
{
    uint32_t bin[DEDUP_BINS];
    TRY(make_stream(w, turns, turn_count));
    *out = (struct dedup_signature){ 0 };
    out->chars = (int32_t)min_i64(w->stream_count - turn_count, INT32_MAX);
    memset(bin, 0xff, sizeof bin);
    uint64_t h = shingle_begin(w), exact = (uint64_t)w->stream_count;
    const int64_t count = shingle_count(w);
    for (int64_t i = 0; i < count; i++) {
        h = shingle_next(w, h, i);
        const uint64_t mixed = mix_shingle(h);
        uint32_t *b = &bin[(mixed >> 32) * DEDUP_BINS >> 32];
        const uint32_t value = (uint32_t)mixed;
        if (value < *b) *b = value;
        exact += mixed * (2 * (uint64_t)i + 1); /* tells where a shingle is */
    }
    out->exact = exact = mix(exact);
    out->opening = opening_of(w);
    if (count == 0 || count > DEDUP_CHARS_MAX) { /* bands that agree with nobody else's */
        for (unsigned b = 0; b < DEDUP_BANDS; b++) out->band[b] = (uint32_t)mix(exact + b);
        return ERR_OK;
    }
    /* A value of UINT32_MAX reads as an empty bin: once in 2^32, and harmless. */
    bool any = false;
    for (int b = 0; b < DEDUP_BINS; b++) any |= bin[b] != UINT32_MAX;
    if (any) densify(bin);
    for (int b = 0; b < DEDUP_BANDS; b++) {
        uint64_t sum = (uint64_t)b;
        for (int k = 0; k < DEDUP_BAND_BINS; k++)
            sum = mix(sum * ROLL + bin[b * DEDUP_BAND_BINS + k]);
        out->band[b] = (uint32_t)sum;
    }
    return ERR_OK;
}

/* ---- exact comparison ---- */

static int compare_u64(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

err_t shingle_set_fill(struct shingle_set *out, struct dedup_work *w,
                       const struct turn_text *turns, int64_t turn_count)
{
    TRY(make_stream(w, turns, turn_count));
    const int64_t count = shingle_count(w);
    ARRAY_GROW(out->hash, out->capacity, count);
    uint64_t h = shingle_begin(w);
    for (int64_t i = 0; i < count; i++) out->hash[i] = h = shingle_next(w, h, i);
    if (count > 0) qsort(out->hash, (size_t)count, sizeof *out->hash, compare_u64);
    out->count = 0;
    for (int64_t i = 0; i < count; i++)
        if (i == 0 || out->hash[i] != out->hash[out->count - 1])
            out->hash[out->count++] = out->hash[i];
    return ERR_OK;
}

void shingle_set_clear(struct shingle_set *s)
{
    free(s->hash);
    *s = (struct shingle_set){ 0 };
}

double shingle_set_jaccard(const struct shingle_set *a, const struct shingle_set *b)
{
    int64_t i = 0, k = 0, both = 0;
    while (i < a->count && k < b->count) {
        both += a->hash[i] == b->hash[k];
        const uint64_t x = a->hash[i], y = b->hash[k];
        i += x <= y;
        k += y <= x;
    }
    const int64_t either = a->count + b->count - both;
    return either > 0 ? (double)both / (double)either : 1.0;
}
