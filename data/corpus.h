/*
 * corpus.h - dialogues from the files people have, one at a time, in constant memory.
 *
 *     struct corpus *c;
 *     TRY(corpus_open(&c, "SoulChatCorpus-sft-multi-Turn.json", CORPUS_AUTO, CORPUS_FAIL));
 *     while ((rc = corpus_next(c, &dialogue, &found)) == ERR_OK && found) ...
 *     corpus_close(c);
 *
 * Forms, detected from the first record or named by the user, and the turns they become:
 *
 *   soulchat  {"id","topic","messages":[{"role","content"}]}
 *   openai    the same without "topic" ("normalizedTag" stands in); a "content" that is a list of
 *             parts {"type":"text","text"} becomes a turn for each
 *   smile     {"id"?,"topic"?,"dialogue":[{"role","content"}]}; CPsyCounD and CPsyCounE as JSON too
 *   sharegpt  {"id"?,"system"?,"conversations":[{"from","value"}]}
 *   emollm    {"conversation":[{"system"?,"input","output"}]}: each round a client turn and a
 *             counsellor turn
 *   alpaca    {"system"?,"instruction","input"?,"output","history"?:[[q,a],...]}: the history, then
 *             instruction and input as two client turns, then the output
 *   psyqa     {"question","description"?,"keywords"?,"answers":[{"answer_text"}],"questionID"?}: a
 *             dialogue for each answer, with question and description as two client turns; the id
 *             is "questionID/1" and so on, the topic the first of the keywords
 *   bianque   CSV with the columns input and target (others are passed over; id and topic are
 *             used), or JSON with these members: input is "病人：…\n医生：…\n病人：…\n医生：" and is
 *             cut into turns there, target is the reply (data/turn_list.h). Rows that repeat a
 *             dialogue with one exchange more each are dialogues of their own
 *   cpsycoun  text: lines "来访者：…" and "心理咨询师：…" (data/blocks.h)
 *
 * JSON comes as one array, as one record a line, or as objects over several lines one after
 * another. Neighbours of one role stay as they are; the rules of data/clean.h join them by a
 * newline. An optional text that is absent, null or "" is no turn. Names of roles are those of
 * data/turn_list.h.
 *
 * A file may be packed with gzip or zstd, whatever its name (data/input.h), and may begin with a
 * byte order mark. It is streamed whatever its size; one record has at most CORPUS_RECORD_BYTES_MAX
 * bytes of text.
 */
#ifndef DATA_CORPUS_H
#define DATA_CORPUS_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define CORPUS_RECORD_BYTES_MAX (32 << 20)
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
    int64_t byte_offset; /* of the record in its unpacked file: for messages. Dialogues of one
                            record (psyqa: the answers to one question) share it. */
};

/* The numbers follow the choices of the setting data.form. */
enum corpus_form {
    CORPUS_AUTO,
    CORPUS_SOULCHAT,
    CORPUS_SMILE,
    CORPUS_SHAREGPT,
    CORPUS_ALPACA,
    CORPUS_OPENAI,
    CORPUS_EMOLLM,
    CORPUS_PSYQA,
    CORPUS_BIANQUE,
    CORPUS_CPSYCOUN,
};
#define CORPUS_FORM_CHOICES                                                                        \
    "auto|soulchat|smile|sharegpt|alpaca|openai|emollm|psyqa|bianque|cpsycoun"

enum corpus_on_bad_record {
    CORPUS_FAIL, /* ERR_FORMAT "file:line (byte N): what was found, what was expected" */
    CORPUS_SKIP, /* count it and go on; a file whose next record cannot be found still fails: an
                    array, a quote or a packed stream without its end */
};

struct corpus;

/* ERR_NOTFOUND, ERR_IO; ERR_FORMAT for what is not UTF-8 text, saying how to convert it. */
MUST_USE err_t corpus_open(struct corpus **out, const char *path, enum corpus_form form,
                           enum corpus_on_bad_record on_bad_record);
/* The same from memory, which must outlive it; `name` stands for the path in messages. */
MUST_USE err_t corpus_open_memory(struct corpus **out, const char *name, const void *bytes,
                                  int64_t size, enum corpus_form form,
                                  enum corpus_on_bad_record on_bad_record);
/* *found = false at the end. The dialogue is borrowed until the next call or close. */
MUST_USE err_t corpus_next(struct corpus *c, struct dialogue_text *out, bool *found);
void corpus_close(struct corpus *c);

/* As detected; AUTO before the first record. */
enum corpus_form corpus_form(const struct corpus *c);
const char *corpus_form_name(enum corpus_form form);
/* How the records lie in the file: "JSON array", "JSON lines", "JSON objects", "CSV", "text";
 * "none" before the first. */
const char *corpus_layout_name(const struct corpus *c);
/* "plain", "gzip" or "zstd". */
const char *corpus_packing_name(const struct corpus *c);
int64_t corpus_skipped(const struct corpus *c);
/* Bytes read and in all, of the file as it lies there: for progress. */
void corpus_position(const struct corpus *c, int64_t *bytes_done, int64_t *bytes_total);
/* Bytes of text read, unpacked: for speeds. */
int64_t corpus_text_bytes(const struct corpus *c);

#endif
