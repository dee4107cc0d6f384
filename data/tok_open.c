/*
 * Opening: find the file, check it, decide the family by the pieces in it, look up the special ids.
 *
 * ChatGLM-6B, ice_text.model, 130344 pieces:
 *     0 <unk>  1 <s>  2 </s>  3 <pad>  4 <n>  5 "▁"  then text
 *     130000 [MASK] [gMASK] [sMASK] <unused_0>  130004 <sop> <eop> <ENC> <dBLOCK>
 *     130008 <|tab|>  130009 <|blank_2|> .. 130087 <|blank_80|>  130088 <0x00> .. 130343 <0xFF>
 * ChatGLM2-6B, tokenizer.model, 64789 pieces:
 *     0 <unk>  1 <s>  2 </s>  3 <0x00> .. 258 <0xFF>  then text; its special tokens are not in the
 *     file but numbered after it, in the order of TOK_EXTRA_NAMES
 * No number above is used here: a smaller tokenizer with the same special pieces works alike.
 */
#include "data/tok_internal.h"

#include "base/check.h"

#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_BYTES_MAX (1 << 20)

#define NAME_CHATGLM  "ice_text.model"
#define NAME_CHATGLM2 "tokenizer.model"

const char *const TOK_EXTRA_NAMES[TOK_EXTRA_COUNT] = { "[MASK]", "[gMASK]", "[sMASK]", "sop",
                                                       "eop" };

/* Where a special id goes, by the name of its piece. */
struct special_row {
    size_t field;
    const char *name;
    uint8_t kind; /* enum tok_piece_kind it must have */
};

#define FIELD(name) offsetof(struct tok_specials, name)

static const struct special_row SPECIALS_CHATGLM[] = {
    { FIELD(unk), "<unk>", TOK_PIECE_UNKNOWN },
    { FIELD(pad), "<pad>", TOK_PIECE_CONTROL },
    { FIELD(mask), "[MASK]", TOK_PIECE_CONTROL },
    { FIELD(gmask), "[gMASK]", TOK_PIECE_CONTROL },
    { FIELD(smask), "[sMASK]", TOK_PIECE_CONTROL },
    { FIELD(sop), "<sop>", TOK_PIECE_CONTROL },
    { FIELD(eop), "<eop>", TOK_PIECE_CONTROL },
    { FIELD(eos), "<eop>", TOK_PIECE_CONTROL },
    { FIELD(newline), "<n>", TOK_PIECE_USER_DEFINED },
    { FIELD(space), "\xE2\x96\x81", TOK_PIECE_NORMAL },
};
static const struct special_row SPECIALS_CHATGLM2[] = {
    { FIELD(unk), "<unk>", TOK_PIECE_UNKNOWN },
    { FIELD(pad), "<unk>", TOK_PIECE_UNKNOWN },
    { FIELD(eos), "</s>", TOK_PIECE_CONTROL },
    { FIELD(newline), "<0x0A>", TOK_PIECE_BYTE },
    { FIELD(space), "\xE2\x96\x81", TOK_PIECE_NORMAL },
};

static err_t find_specials(struct tok *tok, const struct special_row *rows, int64_t row_count)
{
    for (int64_t i = 0; i < row_count; i++) {
        const int32_t id = tok_model_find(&tok->model, rows[i].name);
        if (id < 0 || tok->model.kind[id] != rows[i].kind)
            RAISE(FORMAT, "%s: no piece \"%s\" of kind %d, which %s has", tok->path, rows[i].name,
                  rows[i].kind, tok_family_name(tok->family));
        memcpy((char *)&tok->specials + rows[i].field, &id, sizeof id);
    }
    return ERR_OK;
}

static err_t open_chatglm(struct tok *tok)
{
    tok->family = TOK_CHATGLM;
    tok->vocab_size = tok->model.piece_count;
    TRY(find_specials(tok, SPECIALS_CHATGLM, COUNT_OF(SPECIALS_CHATGLM)));
    for (int i = TOK_BLANK_MIN - 1; i <= TOK_BLANK_MAX; i++) {
        char name[24] = "<|tab|>";
        if (i >= TOK_BLANK_MIN) snprintf(name, sizeof name, "<|blank_%d|>", i);
        const int32_t id = tok_model_find(&tok->model, name);
        if (id < 0 || tok->model.kind[id] != TOK_PIECE_USER_DEFINED)
            RAISE(FORMAT, "%s: no user-defined piece \"%s\", which chatglm has", tok->path, name);
    }
    return ERR_OK;
}

static err_t open_chatglm2(struct tok *tok)
{
    const int32_t extra = (int32_t)tok->model.piece_count;
    tok->family = TOK_CHATGLM2;
    tok->vocab_size = tok->model.piece_count + TOK_EXTRA_COUNT;
    TRY(find_specials(tok, SPECIALS_CHATGLM2, COUNT_OF(SPECIALS_CHATGLM2)));
    tok->specials.mask = extra;
    tok->specials.gmask = extra + 1;
    tok->specials.smask = extra + 2;
    tok->specials.sop = extra + 3;
    tok->specials.eop = extra + 4;
    return ERR_OK;
}

static err_t open_family(struct tok *tok)
{
    const bool unigram = tok->model.algorithm == TOK_ALGORITHM_UNIGRAM;
    const bool has_gmask = tok_model_find(&tok->model, "[gMASK]") >= 0;
    if (unigram && has_gmask && tok->model.strip_spaces) return open_chatglm(tok);
    if (!unigram && !has_gmask && !tok->model.strip_spaces) return open_chatglm2(tok);
    if (unigram && tok_model_find(&tok->model, "<n>") >= 0)
        RAISE(UNSUPPORTED,
              "%s: has no piece \"[gMASK]\"; this is the ChatGLM-6B tokenizer from before April "
              "2023 (vocabulary 150528); use the later one with 130344 pieces",
              tok->path);
    RAISE(UNSUPPORTED, "%s: a SentencePiece model, but neither ChatGLM-6B's nor ChatGLM2-6B's",
          tok->path);
}

/* GLM-4's file of the same name: lines of a base64 token, a space and its rank. */
static bool is_ranked_base64(const char *bytes, size_t size)
{
    size_t i = 0;
    while (i < size && (isalnum((unsigned char)bytes[i]) || strchr("+/=", bytes[i]) != NULL)) {
        if (bytes[i] == '\0') return false;
        i++;
    }
    if (i == 0 || i + 1 >= size || bytes[i] != ' ') return false;
    return isdigit((unsigned char)bytes[i + 1]) != 0;
}

static err_t refuse_foreign_file(const char *path, const struct buf *bytes)
{
    static const char POINTER[] = "version https://git-lfs.github.com/spec/";
    if (bytes->size == 0) RAISE(FORMAT, "%s: an empty file", path);
    if (bytes->size >= sizeof POINTER - 1 && memcmp(bytes->data, POINTER, sizeof POINTER - 1) == 0)
        RAISE(FORMAT, "%s: a Git LFS pointer of %zu bytes, not the file; run \"git lfs pull\"",
              path, bytes->size);
    if (is_ranked_base64(bytes->data, bytes->size))
        RAISE(UNSUPPORTED, "%s: a list of ranked tokens as GLM-4 uses, not a SentencePiece model",
              path);
    return ERR_OK;
}

/* A config.json beside the tokenizer may say that the folder is another family's (LLaMA has a
 * tokenizer.model of the same structure). No file, or one that says nothing, is fine. */
static err_t refuse_foreign_folder(const char *folder)
{
    char path[FILE_PATH_MAX];
    TRY(path_join(path, folder, "config.json"));
    if (!file_exists(path)) return ERR_OK;

    err_t rc = ERR_OK;
    json_error_t why;
    json_t *config = NULL;
    struct buf text = { 0 };
    TRY_DONE(file_read_all(&text, path, CONFIG_BYTES_MAX));
    config = json_loadb(text.data, text.size, 0, &why);
    if (config == NULL) RAISE_DONE(FORMAT, "%s:%d: %s", path, why.line, why.text);
    const char *type = json_string_value(json_object_get(config, "model_type"));
    if (type != NULL && strcmp(type, "chatglm") != 0)
        RAISE_DONE(UNSUPPORTED, "%s: model_type is \"%s\", expected \"chatglm\"", path, type);
done:
    json_decref(config);
    buf_clear(&text);
    return rc;
}

static err_t find_file(char *out, const char *path)
{
    if (!dir_exists(path)) {
        if (strlen(path) >= FILE_PATH_MAX)
            RAISE(ARG, "a path of %zu bytes; at most %d", strlen(path), FILE_PATH_MAX - 1);
        strcpy(out, path);
        if (file_exists(path)) return ERR_OK;
        RAISE(NOTFOUND, "%s: no such file or folder; expected a model's, with its tokenizer "
              "(%s or %s)", path, NAME_CHATGLM, NAME_CHATGLM2);
    }
    TRY(path_join(out, path, NAME_CHATGLM));
    if (!file_exists(out)) TRY(path_join(out, path, NAME_CHATGLM2));
    if (!file_exists(out))
        RAISE(NOTFOUND, "%s: neither %s nor %s is there", path, NAME_CHATGLM, NAME_CHATGLM2);
    return refuse_foreign_folder(path);
}

static err_t open_tok(struct tok **out, const char *path, bool library)
{
    err_t rc = ERR_OK;
    struct buf bytes = { 0 };
    *out = NULL;
    struct tok *tok = calloc(1, sizeof *tok);
    if (tok == NULL) RAISE(NOMEM, "%s: %zu bytes", path, sizeof *tok);

    TRY_DONE(find_file(tok->path, path));
    TRY_DONE(file_read_all(&bytes, tok->path, TOK_MODEL_BYTES_MAX));
    TRY_DONE(refuse_foreign_file(tok->path, &bytes));
    TRY_DONE(tok_model_parse(&tok->model, tok->path, bytes.data, (int64_t)bytes.size));
    TRY_DONE(open_family(tok));
    if (tok->family == TOK_CHATGLM && !library)
        TRY_DONE(tok_unigram_open(&tok->unigram, tok->path, &tok->model));
    else
        TRY_DONE(tok_spm_open(&tok->spm, tok->path, bytes.data, (int64_t)bytes.size));

    uint8_t digest[SHA256_BYTES];
    sha256_of(digest, bytes.data, bytes.size);
    sha256_hex(tok->sha256, digest);
    *out = tok;
    tok = NULL;
done:
    tok_close(tok);
    buf_clear(&bytes);
    return rc;
}

err_t tok_open(struct tok **out, const char *path) { return open_tok(out, path, false); }

err_t tok_open_library(struct tok **out, const char *path) { return open_tok(out, path, true); }

void tok_close(struct tok *tok)
{
    if (tok == NULL) return;
    tok_unigram_close(tok->unigram);
    tok_spm_close(tok->spm);
    tok_model_clear(&tok->model);
    free(tok);
}

enum tok_family tok_family(const struct tok *tok) { return tok->family; }
const struct tok_specials *tok_specials(const struct tok *tok) { return &tok->specials; }
int64_t tok_vocab_size(const struct tok *tok) { return tok->vocab_size; }
const char *tok_sha256(const struct tok *tok) { return tok->sha256; }
const char *tok_path(const struct tok *tok) { return tok->path; }

const char *tok_family_name(enum tok_family family)
{
    return family == TOK_CHATGLM ? "chatglm" : "chatglm2";
}

err_t tok_piece(const struct tok *tok, struct buf *name, int32_t id)
{
    if (id < 0 || id >= tok->vocab_size)
        RAISE(ARG, "id %d; %s has ids 0 to %lld", id, tok->path, (long long)tok->vocab_size - 1);
    if (id >= tok->model.piece_count) {
        TRY(buf_puts(name, TOK_EXTRA_NAMES[id - tok->model.piece_count]));
        return ERR_OK;
    }
    const int64_t begin = tok->model.name_offset[id];
    TRY(buf_append(name, tok->model.names.data + begin,
                   (size_t)(tok->model.name_offset[id + 1] - begin)));
    return ERR_OK;
}
