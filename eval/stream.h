/* stream.h - one reply, printed as it is made. */
#ifndef EVAL_STREAM_H
#define EVAL_STREAM_H

#include "base/err.h"
#include "eval/gen.h"
#include "eval/question.h"

#include <stdint.h>

/* The reply to a question in slot 0, and a newline; random stream `index`. Where a stop is asked
 * for it ends early, with GEN_STOP_REQUESTED in gen_reply(gen, 0)->stop. */
MUST_USE err_t stream_reply(struct gen *gen, const struct question *question, uint64_t index);

#endif
