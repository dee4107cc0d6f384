#include "eval/question.h"

#include <stdlib.h>
#include <string.h>

err_t question_set(struct question *q, const struct turn_text *turns, int64_t turn_count)
{
    const struct dialogue_text dialogue = { .turns = turns, .turn_count = turn_count };
    q->turn_count = 0;
    q->reference = NULL;
    TRY(clean_load(&q->tidy, &dialogue));
    clean_tidy(&q->tidy);
    ARRAY_GROW(q->turns, q->turn_capacity, q->tidy.turn_count);
    int64_t count = q->tidy.turn_count;
    for (int64_t i = 0; i < count; i++) {
        const struct clean_turn *t = &q->tidy.turns[i];
        q->turns[i] = (struct turn_text){ t->role, t->text, t->size };
    }
    if (count > 0 && q->turns[count - 1].role == ROLE_COUNSELLOR) q->reference = &q->turns[--count];
    q->turn_count = count;
    return ERR_OK;
}

void question_clear(struct question *q)
{
    clean_clear(&q->tidy);
    free(q->turns);
    *q = (struct question){ 0 };
}
