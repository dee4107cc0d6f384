/*
 * answer.h - replies for a file of conversations: as many at once as the gen has slots, written in
 * the order of the file, one JSON object a line:
 *
 *     {"id":"17","reference":"...","reply":"...","stop":"end","prompt_tokens":80,"new_tokens":31}
 *
 * "reference" is the counsellor's turn after the question, where the file has one; texts are
 * tidied as prepare does. "turns_dropped" and "tokens_cut" are there when the conversation did not
 * fit. Each line is written at once and whole, so what stands in the output when the program ends
 * stays good, and --skip goes on behind it. The random stream of a reply is the number of its
 * conversation in the file, whatever was skipped.
 */
#ifndef EVAL_ANSWER_H
#define EVAL_ANSWER_H

#include "base/cfg.h"
#include "base/err.h"
#include "eval/gen.h"

#include <stdint.h>

struct answer_options {
    int64_t skip;  /* replies that the output has already */
    int64_t limit; /* replies wanted; 0 = all */
    int64_t slots; /* of the gen: conversations answered together */
};

/*
 * Conversations with no client's turn to answer are passed over with a warning and count nowhere.
 * The file is read once before the first reply, which finds its faults early and knows how much
 * there is to do. Settings: data.form, data.on_bad_record. ERR_INTERRUPTED after Ctrl-C, with
 * the way to go on; else as corpus.h, gen.h, console.h.
 */
MUST_USE err_t answer_file(struct gen *gen, const char *path, const struct cfg *cfg,
                           const struct answer_options *options);

#endif
