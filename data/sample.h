/*
 * sample.h - training samples as views of a prepared corpus: one for every counsellor turn that has
 * something before it.
 *
 * max_input counts the rows before the target, max_target the trained tokens, special tokens
 * included:
 *                 max_input counts        max_target counts        1536/512 leaves prompt, reply
 *   ChatGLM-6B    prompt [gMASK]          <sop> reply <eop>        1535, 510
 *   ChatGLM2-6B   [gMASK] sop prompt      reply eos                1534, 511
 * so a sample has at most max_input + max_target rows; for ChatGLM-6B these are the reference's
 * limits. Too long a prompt drops whole oldest turns until it fits (the first turn kept may be
 * anyone's); a current question that alone is too long loses its oldest tokens but keeps role name
 * and cue.
 */
#ifndef DATA_SAMPLE_H
#define DATA_SAMPLE_H

#include "base/buf.h"
#include "base/err.h"
#include "data/seq.h"
#include "data/shard.h"

#include <stdint.h>

#define SAMPLE_LIMIT_MAX (1 << 20) /* of max_input and of max_target */

enum over_long_target {
    TARGET_DROP,             /* the sample is left out and counted */
    TARGET_CUT_NO_END,       /* cut, and <eop> is not trained */
    TARGET_CUT_AS_REFERENCE, /* cut, <eop> trained after the cut: teaches to stop mid-sentence */
};

struct sample_limits {
    int64_t max_input, max_target; /* tokens, as above */
    enum over_long_target over_long_target;
};

/* One sample; how its prompt is cut was decided when the set was built. */
struct sample {
    int64_t dialogue;
    int32_t turn;          /* the counsellor's turn that is the target */
    int32_t turn_first;    /* where the prompt begins */
    int32_t question_skip; /* tokens cut from the start of the only question's text; 0 mostly */
    int32_t prompt_len;    /* tokens with cue, without special tokens */
    int32_t reply_len;     /* tokens trained as reply */
    int32_t len;           /* rows, special tokens included */
    uint8_t with_end;      /* whether the end token is there, and trained */
};

struct sample_counts {
    int64_t samples, trained_tokens, rows;
    int64_t prompts_cut_turns;    /* samples whose prompt lacks oldest turns */
    int64_t prompts_cut_question; /* samples whose question is cut; may be among those above */
    int64_t targets_dropped;      /* left out: no samples */
    int64_t targets_cut;
};

struct sample_set;
struct sample_mix;

/*
 * All samples of a split, in corpus order; may be none. The shards are borrowed until close. One
 * thread at a time. ERR_USAGE: limits that leave no room for a prompt or a reply; ERR_FORMAT: a
 * corpus that breaks its own rules.
 */
MUST_USE err_t sample_set_open(struct sample_set **out, struct shards *shards, enum split split,
                               const struct sample_limits *limits);
/* The same with samples repeated or left out by source (data/sample_mix.h; copied): for training.
 * NULL = each once. The copies of a sample lie together. */
MUST_USE err_t sample_set_open_mixed(struct sample_set **out, struct shards *shards,
                                     enum split split, const struct sample_limits *limits,
                                     const struct sample_mix *mix);
void sample_set_close(struct sample_set *set);
int64_t sample_set_count(const struct sample_set *set);
const struct sample *sample_set_at(const struct sample_set *set, int64_t index);
const struct sample_counts *sample_set_counts(const struct sample_set *set);
const struct shards *sample_set_shards(const struct sample_set *set);
/* Trained tokens of sample: reply + <sop> + <eop> as the family trains them. */
int64_t sample_target_count(const struct sample_set *set, int64_t index);
/* [count] rows, and trained rows, of every sample; borrowed. */
const int32_t *sample_set_lens(const struct sample_set *set);
const int32_t *sample_set_target_counts(const struct sample_set *set);

/* Lay out a sample into arrays of at least `len` entries (see seq_build). Errors: shards_tokens. */
MUST_USE err_t sample_fill(struct sample_set *set, int64_t index, struct seq *seq, int32_t *ids,
                           int32_t *pos, int32_t *block);

#endif
