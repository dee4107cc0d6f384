/*
 * punct.h - punctuation as Chinese readers expect it. ChatGLM-6B's tokenizer turns ，！：；？ into
 * , ! : ; ? and so do its replies; its chat() turns a mark back that stands beside a Chinese
 * character: "你好,世界!a,b" becomes "你好，世界！a,b".
 *
 *     struct punct p = { 0 };
 *     TRY(punct_push(&p, &out, piece, size));    // as often as text comes
 *     TRY(punct_end(&p, &out));                  // a mark may still be held back
 *
 * The rule, of process_response in modeling_chatglm.py of THUDM/chatglm-6b: each of , ! : ; ? whose
 * neighbour before or after it is in U+4E00..U+9FFF becomes full-width. Both neighbours are those
 * of the text that goes in, so the rule needs to see one character ahead and no more: however the
 * text is cut into pieces, the same comes out.
 */
#ifndef EVAL_PUNCT_H
#define EVAL_PUNCT_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* A zeroed struct is the beginning of a text. */
struct punct {
    bool after_chinese; /* the last character was Chinese */
    char held;          /* a mark that waits for its next neighbour; 0: none */
};

/* Append what is decided by text[size], whole characters of UTF-8, to *out. ERR_NOMEM. */
MUST_USE err_t punct_push(struct punct *p, struct buf *out, const char *text, int64_t size);
/* The text is at its end: append what was held back, and begin anew. ERR_NOMEM. */
MUST_USE err_t punct_end(struct punct *p, struct buf *out);

#endif
