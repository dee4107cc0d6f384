/* tok_internal.h - what tok_open.c, tok_encode.c and tok_decode.c share; for nobody else. */
#ifndef DATA_TOK_INTERNAL_H
#define DATA_TOK_INTERNAL_H

#include "base/digest.h"
#include "base/file.h"
#include "data/tok.h"
#include "data/tok_model.h"
#include "data/tok_spm.h"
#include "data/tok_unigram.h"

/* ChatGLM-6B has one piece for each run of 2 to 80 spaces, "<|blank_2|>" to "<|blank_80|>". */
#define TOK_BLANK_MIN 2
#define TOK_BLANK_MAX 80

/* ChatGLM2 numbers these after the file's pieces: [MASK] [gMASK] [sMASK] sop eop. */
#define TOK_EXTRA_COUNT 5

struct tok {
    enum tok_family family;
    struct tok_model model;
    struct tok_unigram *unigram; /* ChatGLM-6B; borrows the model. NULL: the library encodes */
    struct tok_spm *spm;
    struct tok_specials specials;
    int64_t vocab_size;
    char path[FILE_PATH_MAX];
    char sha256[SHA256_HEX_SIZE];
};

/* Names of the ids after the file's pieces, in order; for ChatGLM2. */
extern const char *const TOK_EXTRA_NAMES[TOK_EXTRA_COUNT];

#endif
