/*
 * question.h - a conversation made ready to be answered: tidied by the very rules of prepare
 * (data/clean.h), so that what a person types becomes the tokens that training saw.
 *
 *     struct question q = { 0 };
 *     TRY_DONE(question_set(&q, turns, turn_count));
 *     if (q.turn_count > 0) TRY_DONE(gen_begin(gen, slot, q.turns, q.turn_count, index));
 *     question_clear(&q);
 */
#ifndef EVAL_QUESTION_H
#define EVAL_QUESTION_H

#include "base/err.h"
#include "data/clean.h"
#include "data/corpus.h"

#include <stdint.h>

/* A zeroed struct is empty. Texts live in `tidy` until the next question_set; use their sizes. */
struct question {
    struct clean_dialogue tidy;
    struct turn_text *turns;
    int64_t turn_count; /* up to the client's last turn; 0: nothing to answer */
    int64_t turn_capacity;
    const struct turn_text *reference; /* the counsellor's turn after it, or NULL */
};

/* ERR_NOMEM. */
MUST_USE err_t question_set(struct question *q, const struct turn_text *turns, int64_t turn_count);
void question_clear(struct question *q);

#endif
