/*
 * corpus.h - dialogues from the files people have, one at a time, in constant memory.
 *
 *     struct corpus *c;
 *     TRY(corpus_open(&c, "SoulChatCorpus-sft-multi-Turn.json", CORPUS_AUTO, CORPUS_FAIL));
 *     while ((rc = corpus_next(c, &dialogue, &found)) == ERR_OK && found) ...
 *     corpus_close(c);
 *
 * Forms (detected from the first record, or named by the user):
 *   soulchat  {"id","topic","messages":[{"role":"user"|"assistant","content"}]}
 *   smile     {"id"?,"dialogue":[{"role":"client"|"counselor","content"}]}
 *   sharegpt  {"id"?,"system"?,"conversations":[{"from":"human"|"gpt","value"}]}
 *   alpaca    {"instruction","input"?,"output","history"?:[[q,a],...]}
 * each as one array, as one record a line, or as objects over several lines one after another; any
 * of the role names user, client, human, assistant, counselor, counsellor, gpt, system. A file is
 * streamed record by record whatever its size; one record has at most CORPUS_RECORD_BYTES_MAX
 * bytes.
 */
#ifndef DATA_CORPUS_H
#define DATA_CORPUS_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define CORPUS_RECORD_BYTES_MAX (128 << 20)
#define CORPUS_TURNS_MAX        4096

enum role { ROLE_CLIENT, ROLE_COUNSELLOR, ROLE_SYSTEM };

struct turn_text {
    enum role role;
    const char *text; /* UTF-8, NUL-terminated for convenience; may contain NUL: use size */
    int64_t size;     /* bytes */
};

struct dialogue_text {
    const char *id;    /* as written in the file, or "line 17" / "record 17"; never NULL */
    const char *topic; /* "" where there is none */
    const struct turn_text *turns;
    int64_t turn_count;
    int64_t byte_offset; /* of the record in its file: for messages */
};

enum corpus_form { CORPUS_AUTO, CORPUS_SOULCHAT, CORPUS_SMILE, CORPUS_SHAREGPT, CORPUS_ALPACA };
enum corpus_on_bad_record {
    CORPUS_FAIL, /* ERR_FORMAT "file:line (byte N): what was found, what was expected" */
    CORPUS_SKIP, /* count it and go on; an array that is broken itself still fails */
};

struct corpus;

MUST_USE err_t corpus_open(struct corpus **out, const char *path, enum corpus_form form,
                           enum corpus_on_bad_record on_bad_record);
/* *found = false at the end. The dialogue is borrowed until the next call or close. */
MUST_USE err_t corpus_next(struct corpus *c, struct dialogue_text *out, bool *found);
void corpus_close(struct corpus *c);

/* As detected; AUTO before the first record. */
enum corpus_form corpus_form(const struct corpus *c);
const char *corpus_form_name(enum corpus_form form);
int64_t corpus_skipped(const struct corpus *c);
/* Bytes read and in all: for progress. */
void corpus_position(const struct corpus *c, int64_t *bytes_done, int64_t *bytes_total);

#endif
