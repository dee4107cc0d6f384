#include "data/tok_model.h"

#include "base/check.h"
#include "base/num.h"
#include "base/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A protobuf message being read, and one field of it. */
struct reader {
    const char *path;
    const uint8_t *begin; /* of the file, for offsets in messages */
    const uint8_t *at, *end;
};

enum wire { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

struct field {
    uint64_t number;
    unsigned wire;
    uint64_t value;       /* varint, fixed32 and fixed64 */
    const uint8_t *bytes; /* WIRE_BYTES */
    int64_t size;
};

static int64_t offset_of(const struct reader *r) { return r->at - r->begin; }

static err_t read_varint(uint64_t *value, struct reader *r)
{
    *value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
        if (r->at == r->end)
            RAISE(FORMAT, "%s: cut short or damaged at byte %" PRId64 "; fetch the file again",
                  r->path, offset_of(r));
        const uint8_t byte = *r->at++;
        if (shift < 64) *value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) return ERR_OK;
    }
    RAISE(FORMAT, "%s: a number of more than 10 bytes ends at byte %" PRId64, r->path,
          offset_of(r));
}

static err_t read_field(struct field *f, struct reader *r)
{
    uint64_t key, size;
    TRY(read_varint(&key, r));
    *f = (struct field){ .number = key >> 3, .wire = key & 7 };
    if (f->number == 0) RAISE(FORMAT, "%s: field 0 at byte %" PRId64, r->path, offset_of(r));
    if (f->wire == WIRE_VARINT) {
        TRY(read_varint(&f->value, r));
        return ERR_OK;
    }
    if (f->wire == WIRE_BYTES) {
        TRY(read_varint(&size, r));
    } else if (f->wire == WIRE_FIXED32 || f->wire == WIRE_FIXED64) {
        size = f->wire == WIRE_FIXED32 ? 4 : 8;
    } else {
        RAISE(FORMAT, "%s: not a SentencePiece model (wire type %u at byte %" PRId64 ")", r->path,
              f->wire, offset_of(r));
    }
    if (size > (uint64_t)(r->end - r->at))
        RAISE(FORMAT,
              "%s: cut short or damaged: %" PRIu64 " bytes expected at byte %" PRId64
              ", %td are there; fetch the file again",
              r->path, size, offset_of(r), r->end - r->at);
    f->bytes = r->at;
    f->size = (int64_t)size;
    if (f->wire != WIRE_BYTES) memcpy(&f->value, r->at, size);
    r->at += size;
    return ERR_OK;
}

static struct reader reader_inside(const struct reader *outer, const struct field *f)
{
    return (struct reader){
        .path = outer->path, .begin = outer->begin, .at = f->bytes, .end = f->bytes + f->size
    };
}

/* "<0x00>" to "<0xFF>", or -1. */
static int byte_of_name(const char *name, int64_t size)
{
    static const char DIGITS[] = "0123456789ABCDEF";
    if (size != 6 || memcmp(name, "<0x", 3) != 0 || name[5] != '>') return -1;
    const char *high = memchr(DIGITS, name[3], 16), *low = memchr(DIGITS, name[4], 16);
    if (high == NULL || low == NULL) return -1;
    return (int)((high - DIGITS) * 16 + (low - DIGITS));
}

static err_t parse_piece(struct tok_model *model, int64_t id, const struct reader *outer,
                         const struct field *piece)
{
    struct reader r = reader_inside(outer, piece);
    const char *name = NULL;
    int64_t name_size = 0;
    uint64_t kind = TOK_PIECE_NORMAL;
    float score = 0.0f;
    while (r.at < r.end) {
        struct field f;
        TRY(read_field(&f, &r));
        if (f.number == 1 && f.wire == WIRE_BYTES) {
            name = (const char *)f.bytes;
            name_size = f.size;
        } else if (f.number == 2 && f.wire == WIRE_FIXED32) {
            score = bits_to_f32((uint32_t)f.value);
        } else if (f.number == 3 && f.wire == WIRE_VARINT) {
            kind = f.value;
        }
    }
    if (name_size == 0 || memchr(name, '\0', (size_t)name_size) != NULL ||
        utf8_valid_prefix(name, name_size) != name_size)
        RAISE(FORMAT, "%s: the name of piece %" PRId64 " is empty or not text", r.path, id);
    if (kind < TOK_PIECE_NORMAL || kind > TOK_PIECE_BYTE)
        RAISE(FORMAT, "%s: piece %" PRId64 " has kind %" PRIu64 ", expected 1 to 6", r.path, id,
              kind);
    if (!isfinite(score))
        RAISE(FORMAT, "%s: piece %" PRId64 " has a score that is not finite", r.path, id);

    model->kind[id] = (uint8_t)kind;
    model->score[id] = score;
    model->name_offset[id] = (int64_t)model->names.size;
    TRY(buf_append(&model->names, name, (size_t)name_size));
    model->byte_value[id] = -1;
    if (kind == TOK_PIECE_BYTE) {
        const int byte = byte_of_name(name, name_size);
        if (byte < 0 || model->byte_piece[byte] >= 0)
            RAISE(FORMAT, "%s: byte piece %" PRId64 " is named twice or not <0x00>..<0xFF>", r.path,
                  id);
        model->byte_value[id] = (int16_t)byte;
        model->byte_piece[byte] = (int32_t)id;
    }
    if (kind == TOK_PIECE_UNKNOWN) {
        if (model->unknown >= 0)
            RAISE(FORMAT, "%s: pieces %d and %" PRId64 " are both the unknown piece", r.path,
                  model->unknown, id);
        model->unknown = (int32_t)id;
    }
    return ERR_OK;
}

/*
 * The normalisation table: uint32 bytes of a double-array trie, the trie (uint32 units), then
 * NUL-terminated replacement strings. The library follows it without bounds checks, so every step
 * it can take from any unit must stay inside: a step goes to (i ^ offset) ^ label, label 0..255,
 * and a value is an offset into the strings. Layout of a unit: bit 31 value; else bits 10..30
 * offset, shifted left by 8 when bit 9 is set; bit 8 says that a value hangs at label 0.
 */
static err_t check_charsmap(const struct reader *r, const struct field *map)
{
    uint32_t trie_bytes = 0;
    if (map->size == 0) return ERR_OK;
    if (map->size > 4) memcpy(&trie_bytes, map->bytes, 4);
    const int64_t strings_size = map->size - 4 - (int64_t)trie_bytes;
    if (trie_bytes == 0 || trie_bytes % 1024 != 0 || strings_size <= 0 ||
        map->bytes[map->size - 1] != '\0')
        RAISE(FORMAT, "%s: the normalisation table is cut or damaged", r->path);
    const int64_t unit_count = trie_bytes / 4;
    const char *strings = (const char *)map->bytes + 4 + trie_bytes;
    if (utf8_valid_prefix(strings, strings_size) != strings_size)
        RAISE(FORMAT, "%s: a replacement of the normalisation table is not text", r->path);
    for (int64_t i = 0; i < unit_count; i++) {
        uint32_t unit, target;
        memcpy(&unit, map->bytes + 4 + i * 4, 4);
        if (unit >> 31 && i > 0) continue; /* the root is followed whatever it says */
        const int64_t base = i ^ (int64_t)((uint64_t)(unit >> 10) << ((unit >> 9 & 1) * 8));
        if ((base | 255) >= unit_count)
            RAISE(FORMAT, "%s: unit %" PRId64 " of the normalisation table points outside", r->path,
                  i);
        if ((unit >> 8 & 1) == 0) continue;
        memcpy(&target, map->bytes + 4 + base * 4, 4);
        if ((int64_t)(target & 0x7FFFFFFFu) >= strings_size)
            RAISE(FORMAT, "%s: unit %" PRId64 " of the normalisation table has no string", r->path,
                  i);
    }
    return ERR_OK;
}

static err_t parse_training(struct tok_model *model, const struct reader *outer,
                            const struct field *message)
{
    struct reader r = reader_inside(outer, message);
    bool suffix_spaces = false;
    uint64_t algorithm = TOK_ALGORITHM_UNIGRAM;
    bool bytes_used = false;
    while (r.at < r.end) {
        struct field f;
        TRY(read_field(&f, &r));
        if (f.wire != WIRE_VARINT) continue;
        if (f.number == 3) algorithm = f.value;
        if (f.number == 24) suffix_spaces = f.value != 0;
        if (f.number == 35) bytes_used = f.value != 0;
    }
    if (algorithm != TOK_ALGORITHM_UNIGRAM && algorithm != TOK_ALGORITHM_BPE)
        RAISE(UNSUPPORTED, "%s: SentencePiece algorithm %" PRIu64 "; ChatGLM uses unigram or BPE",
              r.path, algorithm);
    if (suffix_spaces || !bytes_used)
        RAISE(UNSUPPORTED, "%s: a SentencePiece model, but not one of the ChatGLM family (%s)",
              r.path, suffix_spaces ? "spaces end words" : "no byte fallback");
    model->algorithm = (int)algorithm;
    return ERR_OK;
}

/* Every setting is true unless the file says otherwise. */
static err_t parse_normalizer(struct tok_model *model, const struct reader *outer,
                              const struct field *message)
{
    struct reader r = reader_inside(outer, message);
    bool dummy_prefix = true, escaped = true;
    model->strip_spaces = true;
    while (r.at < r.end) {
        struct field f;
        TRY(read_field(&f, &r));
        if (f.number == 2 && f.wire == WIRE_BYTES) {
            TRY(check_charsmap(&r, &f));
            buf_reset(&model->charsmap);
            TRY(buf_append(&model->charsmap, f.bytes, (size_t)f.size));
        }
        if (f.wire != WIRE_VARINT) continue;
        if (f.number == 3) dummy_prefix = f.value != 0;
        if (f.number == 4) model->strip_spaces = f.value != 0;
        if (f.number == 5) escaped = f.value != 0;
    }
    if (!dummy_prefix || !escaped)
        RAISE(UNSUPPORTED, "%s: a SentencePiece model, but not one of the ChatGLM family (%s)",
              r.path, dummy_prefix ? "spaces are not escaped" : "no leading space is added");
    return ERR_OK;
}

/* The whole file in a first pass: pieces are counted, so that arrays are allocated once. */
static err_t count_pieces(int64_t *piece_count, int message_count[6], struct reader r)
{
    *piece_count = 0;
    while (r.at < r.end) {
        struct field f;
        TRY(read_field(&f, &r));
        if (f.number > 5 || f.wire != WIRE_BYTES)
            RAISE(FORMAT,
                  "%s: not a SentencePiece model (field %" PRIu64 " before byte %" PRId64 ")",
                  r.path, f.number, offset_of(&r));
        *piece_count += f.number == 1;
        message_count[f.number]++;
    }
    if (*piece_count == 0 || *piece_count > TOK_MODEL_PIECES_MAX)
        RAISE(FORMAT, "%s: %" PRId64 " pieces; a SentencePiece model has 1 to %d", r.path,
              *piece_count, TOK_MODEL_PIECES_MAX);
    if (message_count[2] != 1 || message_count[3] != 1)
        RAISE(FORMAT,
              "%s: %d training and %d normalisation settings, expected one of each; the "
              "file is cut short or damaged",
              r.path, message_count[2], message_count[3]);
    if (message_count[5] != 0)
        RAISE(UNSUPPORTED, "%s: has a denormalisation table, which no ChatGLM has", r.path);
    return ERR_OK;
}

err_t tok_model_parse(struct tok_model *out, const char *path, const void *bytes, int64_t size)
{
    const uint8_t *begin = bytes;
    struct reader r = { .path = path, .begin = begin, .at = begin, .end = begin + size };
    int message_count[6] = { 0 };
    *out = (struct tok_model){ .unknown = -1 };
    for (int i = 0; i < 256; i++) out->byte_piece[i] = -1;
    TRY(count_pieces(&out->piece_count, message_count, r));

    const size_t count = (size_t)out->piece_count;
    out->name_offset = calloc(count + 1, sizeof *out->name_offset);
    out->kind = calloc(count, sizeof *out->kind);
    out->score = calloc(count, sizeof *out->score);
    out->byte_value = calloc(count, sizeof *out->byte_value);
    if (out->name_offset == NULL || out->kind == NULL || out->score == NULL ||
        out->byte_value == NULL)
        RAISE(NOMEM, "%s: tables for %zu pieces", path, count);

    int64_t id = 0;
    while (r.at < r.end) {
        struct field f;
        TRY(read_field(&f, &r));
        if (f.number == 1) TRY(parse_piece(out, id++, &r, &f));
        if (f.number == 2) TRY(parse_training(out, &r, &f));
        if (f.number == 3) TRY(parse_normalizer(out, &r, &f));
    }
    ASSERT(id == out->piece_count);
    out->name_offset[id] = (int64_t)out->names.size;

    if (out->unknown < 0) RAISE(FORMAT, "%s: no piece for unknown text", path);
    for (int i = 0; i < 256; i++)
        if (out->byte_piece[i] < 0) RAISE(FORMAT, "%s: no piece <0x%02X>", path, i);
    return ERR_OK;
}

void tok_model_clear(struct tok_model *model)
{
    buf_clear(&model->names);
    free(model->name_offset);
    free(model->kind);
    free(model->score);
    buf_clear(&model->charsmap);
    free(model->byte_value);
    *model = (struct tok_model){ 0 };
}

int32_t tok_model_find(const struct tok_model *model, const char *name)
{
    const int64_t size = (int64_t)strlen(name);
    for (int64_t id = 0; id < model->piece_count; id++) {
        const int64_t begin = model->name_offset[id];
        if (model->name_offset[id + 1] - begin == size &&
            memcmp(model->names.data + begin, name, (size_t)size) == 0)
            return (int32_t)id;
    }
    return -1;
}
