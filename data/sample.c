#include "data/sample.h"

#include "base/check.h"
#include "base/num.h"
#include "data/sample_mix.h"

#include <stdlib.h>
#include <string.h>

struct sample_set {
    struct shards *shards;
    const struct shard_info *info;
    struct sample_limits limits;
    const struct sample_mix *mix;  /* while the set is built; NULL = each sample once */
    int64_t prompt_max, reply_max; /* tokens, special tokens not counted */

    struct sample *samples;
    int32_t *lens, *target_counts; /* columns of their own: plans read nothing else */
    int64_t count, capacity;
    struct sample_counts counts;

    int32_t *prompt, *reply; /* [prompt_max], [reply_max] for laying out */
};

/* Special tokens that the limits count, by family. */
static const struct {
    int64_t input, target;
} overhead[] = {
    [TOK_CHATGLM] = { .input = 1, .target = 2 },
    [TOK_CHATGLM2] = { .input = 2, .target = 1 },
};

/* ---- which samples there are ---- */

/* Tokens of a turn as the first line of a prompt. */
static int64_t first_len(const struct shard_turn *turn)
{
    return turn->flags & TURN_FIRST_STORED ? turn->first_len : turn->ctx_len;
}

static err_t grow(struct sample_set *set)
{
    if (set->count < set->capacity) return ERR_OK;
    const int64_t capacity = max_i64(1024, set->capacity * 2);
    struct sample *samples = realloc(set->samples, (size_t)capacity * sizeof *samples);
    if (samples) set->samples = samples;
    int32_t *lens = realloc(set->lens, (size_t)capacity * sizeof *lens);
    if (lens) set->lens = lens;
    int32_t *targets = realloc(set->target_counts, (size_t)capacity * sizeof *targets);
    if (targets) set->target_counts = targets;
    if (!samples || !lens || !targets)
        RAISE(NOMEM, "no memory for %lld samples", (long long)capacity);
    set->capacity = capacity;
    return ERR_OK;
}

/* Whether a reply of `len` tokens becomes a target; sets the reply's part of the sample. */
static bool take_reply(struct sample_set *set, struct sample *s, int64_t len)
{
    s->with_end = 1;
    s->reply_len = (int32_t)min_i64(len, set->reply_max);
    if (len <= set->reply_max) return true;
    if (set->limits.over_long_target == TARGET_DROP) {
        set->counts.targets_dropped++;
        return false;
    }
    s->with_end = set->limits.over_long_target == TARGET_CUT_AS_REFERENCE;
    set->counts.targets_cut++;
    return true;
}

/* Append a finished sample, once. */
static err_t append_sample(struct sample_set *set, const struct sample *s)
{
    TRY(grow(set));
    const int32_t targets = s->reply_len + s->with_end + (set->info->family == TOK_CHATGLM);
    set->samples[set->count] = *s;
    set->lens[set->count] = s->len;
    set->target_counts[set->count] = targets;
    set->count++;
    set->counts.samples++;
    set->counts.rows += s->len;
    set->counts.trained_tokens += targets;
    set->counts.prompts_cut_turns += s->turn_first > 0;
    set->counts.prompts_cut_question += s->question_skip > 0;
    return ERR_OK;
}

static err_t add_sample(struct sample_set *set, struct sample *s, int64_t prompt_len)
{
    if (prompt_len > set->prompt_max) {
        const struct shard_turn *question = shards_turn(set->shards, s->dialogue, s->turn_first);
        if (question->role != ROLE_CLIENT)
            RAISE(FORMAT,
                  "dialogue %lld: turn %d has %lld tokens and is not the client's; cannot cut",
                  (long long)s->dialogue, s->turn_first, (long long)first_len(question));
        s->question_skip = (int32_t)(prompt_len - set->prompt_max);
        prompt_len = set->prompt_max;
    }
    s->prompt_len = (int32_t)prompt_len;
    s->len = (int32_t)seq_len(set->info->family, prompt_len, s->reply_len, s->with_end);
    ASSERT(s->len <= set->limits.max_input + set->limits.max_target);
    int64_t times = set->mix ? sample_mix_times(set->mix, set->shards, s->dialogue, s->turn) : 1;
    for (; times > 0; times--) TRY(append_sample(set, s));
    return ERR_OK;
}

static err_t check_turns(const struct sample_set *set, int64_t dialogue, int64_t turn_count)
{
    for (int64_t t = 0; t < turn_count; t++) {
        const struct shard_turn *turn = shards_turn(set->shards, dialogue, t);
        if (turn->ctx_len < 1 || first_len(turn) < 1)
            RAISE(FORMAT, "dialogue %lld: turn %lld has no tokens", (long long)dialogue,
                  (long long)t);
    }
    return ERR_OK;
}

/*
 * Prompts only grow along a dialogue, so where they begin only moves forward: one walk over the
 * turns finds every beginning.
 */
static err_t add_dialogue(struct sample_set *set, int64_t dialogue)
{
    const int64_t turn_count = shards_dialogue(set->shards, dialogue)->turn_count;
    int64_t first = 0, later = 0; /* tokens of turns first+1 .. turn-1 as later lines */
    TRY(check_turns(set, dialogue, turn_count));
    for (int64_t turn = 1; turn < turn_count; turn++) {
        const struct shard_turn *target = shards_turn(set->shards, dialogue, turn);
        if (turn - 1 > first) later += shards_turn(set->shards, dialogue, turn - 1)->ctx_len;
        if (target->role != ROLE_COUNSELLOR || target->target_off < 0) continue;

        int64_t prompt = 0;
        for (;; first++, later -= shards_turn(set->shards, dialogue, first)->ctx_len) {
            prompt =
                first_len(shards_turn(set->shards, dialogue, first)) + later + set->info->cue_len;
            if (prompt <= set->prompt_max || first == turn - 1) break;
        }
        struct sample s = { .dialogue = dialogue,
                            .turn = (int32_t)turn,
                            .turn_first = (int32_t)first };
        if (take_reply(set, &s, target->target_len)) TRY(add_sample(set, &s, prompt));
    }
    return ERR_OK;
}

static err_t check_limits(const struct sample_set *set)
{
    const struct sample_limits *l = &set->limits;
    const int64_t fixed = set->info->client_head_len + set->info->cue_len;
    if (l->max_input > SAMPLE_LIMIT_MAX || l->max_target > SAMPLE_LIMIT_MAX)
        RAISE(USAGE, "batch.max_input %lld, batch.max_target %lld; at most %d each",
              (long long)l->max_input, (long long)l->max_target, SAMPLE_LIMIT_MAX);
    if (set->prompt_max <= fixed)
        RAISE(USAGE, "batch.max_input %lld leaves no room for a question; at least %lld",
              (long long)l->max_input, (long long)(l->max_input - set->prompt_max + fixed + 1));
    if (set->reply_max < 1)
        RAISE(USAGE, "batch.max_target %lld leaves no room for a reply; at least %lld",
              (long long)l->max_target, (long long)(l->max_target - set->reply_max + 1));
    return ERR_OK;
}

err_t sample_set_open(struct sample_set **out, struct shards *shards, enum split split,
                      const struct sample_limits *limits)
{
    return sample_set_open_mixed(out, shards, split, limits, NULL);
}

err_t sample_set_open_mixed(struct sample_set **out, struct shards *shards, enum split split,
                            const struct sample_limits *limits, const struct sample_mix *mix)
{
    err_t rc = ERR_OK;
    struct sample_set *set = calloc(1, sizeof *set);
    if (!set) RAISE_DONE(NOMEM, "no memory for a sample set");
    set->shards = shards;
    set->info = shards_info(shards);
    set->limits = *limits;
    set->mix = mix;
    set->prompt_max = limits->max_input - overhead[set->info->family].input;
    set->reply_max = limits->max_target - overhead[set->info->family].target;
    TRY_DONE(check_limits(set));

    for (int64_t d = 0; d < shards_dialogue_count(shards); d++)
        if (shards_dialogue(shards, d)->split == split) TRY_DONE(add_dialogue(set, d));
    set->prompt = malloc((size_t)set->prompt_max * sizeof *set->prompt);
    set->reply = malloc((size_t)set->reply_max * sizeof *set->reply);
    if (!set->prompt || !set->reply) RAISE_DONE(NOMEM, "no memory to lay out samples");
    set->mix = NULL; /* the caller's */
    *out = set;
    set = NULL;

done:
    sample_set_close(set);
    return rc;
}

void sample_set_close(struct sample_set *set)
{
    if (set == NULL) return;
    free(set->samples);
    free(set->lens);
    free(set->target_counts);
    free(set->prompt);
    free(set->reply);
    free(set);
}

/* ---- what they hold ---- */

/* Tokens from `skip` on of a turn as the first line; returns how many in *count. */
static err_t read_first(const struct sample_set *set, int32_t *out, int64_t *count,
                        int64_t dialogue, const struct shard_turn *turn, int64_t skip)
{
    const int64_t len = first_len(turn);
    ASSERT(skip >= 0 && skip <= len);
    *count = len - skip;
    if (turn->flags & TURN_FIRST_STORED) {
        TRY(shards_tokens(set->shards, out, dialogue, turn->first_off + skip, len - skip));
        return ERR_OK;
    }
    /* A later line begins with the newline piece, a first line with the space piece instead. */
    TRY(shards_tokens(set->shards, out, dialogue, turn->ctx_off + skip, len - skip));
    if (skip == 0) out[0] = set->info->specials.space;
    return ERR_OK;
}

static err_t read_prompt(struct sample_set *set, const struct sample *s)
{
    int64_t filled = 0, count = 0, skip = 0;
    if (s->question_skip > 0) {
        filled = set->info->client_head_len;
        skip = filled + s->question_skip;
        memcpy(set->prompt, set->info->client_head, (size_t)filled * sizeof *set->prompt);
    }
    TRY(read_first(set, set->prompt + filled, &count, s->dialogue,
                   shards_turn(set->shards, s->dialogue, s->turn_first), skip));
    filled += count;
    for (int64_t t = s->turn_first + 1; t < s->turn; t++) {
        const struct shard_turn *turn = shards_turn(set->shards, s->dialogue, t);
        TRY(shards_tokens(set->shards, set->prompt + filled, s->dialogue, turn->ctx_off,
                          turn->ctx_len));
        filled += turn->ctx_len;
    }
    const int64_t cue_len = set->info->cue_len;
    ASSERT(filled + cue_len == s->prompt_len);
    memcpy(set->prompt + filled, set->info->cue, (size_t)cue_len * sizeof *set->prompt);
    return ERR_OK;
}

err_t sample_fill(struct sample_set *set, int64_t index, struct seq *seq, int32_t *ids,
                  int32_t *pos, int32_t *block)
{
    const struct sample *s = sample_set_at(set, index);
    const struct shard_turn *target = shards_turn(set->shards, s->dialogue, s->turn);
    TRY(read_prompt(set, s));
    TRY(shards_tokens(set->shards, set->reply, s->dialogue, target->target_off, s->reply_len));
    seq_build(seq, ids, pos, block, set->info->family, &set->info->specials, set->prompt,
              s->prompt_len, set->reply, s->reply_len, s->with_end);
    ASSERT(seq->len == s->len);
    return ERR_OK;
}

int64_t sample_set_count(const struct sample_set *set) { return set->count; }

const struct sample *sample_set_at(const struct sample_set *set, int64_t index)
{
    ASSERT(index >= 0 && index < set->count);
    return &set->samples[index];
}

const struct sample_counts *sample_set_counts(const struct sample_set *set) { return &set->counts; }

const struct shards *sample_set_shards(const struct sample_set *set) { return set->shards; }

int64_t sample_target_count(const struct sample_set *set, int64_t index)
{
    ASSERT(index >= 0 && index < set->count);
    return set->target_counts[index];
}

const int32_t *sample_set_lens(const struct sample_set *set) { return set->lens; }

const int32_t *sample_set_target_counts(const struct sample_set *set) { return set->target_counts; }
