/*
 * blocks.h - dialogues as people write them down, the form of CPsyCounD's text files. Internal to
 * corpus.c.
 *
 *     来访者：我觉得我很自私。
 *
 *     心理咨询师：你能详细描述一下吗？
 *     比如什么时候？
 *     ==> case_1.txt <==
 *     来访者：...
 *
 * A line that begins with a role's name and a colon (data/turn_list.h) begins a turn; other lines
 * belong to the turn before them, with their newlines; blank lines around a turn do not. A dialogue
 * ends at a line of three or more of one of - = * and nothing else, or at a line "==> NAME <==",
 * whose name without ".txt" becomes the id of the next: `tail -v -n +1 *.txt > all.txt` puts a
 * folder of dialogues into one file of this form.
 *
 * Text before the first role, text that is not UTF-8, a dialogue above CORPUS_RECORD_BYTES_MAX or
 * CORPUS_TURNS_MAX are ERR_FORMAT with w->resumable: reading goes on with the next dialogue.
 */
#ifndef DATA_BLOCKS_H
#define DATA_BLOCKS_H

#include "base/buf.h"
#include "base/err.h"
#include "data/turn_list.h"
#include "data/window.h"

#include <stdbool.h>
#include <stdint.h>

#define BLOCK_ID_BYTES 128

/* A zeroed struct stands at the beginning. */
struct blocks {
    struct buf text;              /* of the turns, a NUL after each */
    char id[BLOCK_ID_BYTES];      /* of the dialogue read last; "" when it has none */
    char next_id[BLOCK_ID_BYTES]; /* from the line that ended it */
    int64_t byte_offset, line;    /* where the dialogue begins */
};

/* The turns of the next dialogue. *found = false at the end. */
MUST_USE err_t blocks_next(struct blocks *b, struct window *w, struct turn_list *turns,
                           bool *found);
/* Does a file that begins with this line (without its end) look like one? */
bool blocks_begin_with(const char *line, int64_t size);
void blocks_clear(struct blocks *b);

#endif
