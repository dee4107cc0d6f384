/*
 * prepare.h - the work of `soulchat prepare`: corpora in, a prepared directory out.
 *
 *     first pass   read -> tidy, hash, sign (in parallel) -> spool, in the order of the corpus
 *     plan         which dialogues are duplicates, which split each of the others is in
 *     second pass  spool -> tokenize (in parallel) -> shards, in the order of the corpus
 *
 * The bytes written depend on the sources and the options alone, not on the number of threads.
 * Which dialogues are written, and into which split each goes, does not depend on the order of the
 * sources either. The directory appears whole or not at all (data/shard.h).
 *
 * A folder OUT.work beside the output holds the spool, the plan and a journal of finished shards.
 * A run that was stopped or killed after the plan was made leaves it, with the finished shards in
 * OUT.tmp; the same command then goes on behind the last finished shard and writes the bytes that
 * an undisturbed run writes. Anything that would change them (a source's bytes, a setting, the
 * tokenizer, the program) makes it begin anew. Memory does not grow with the corpus but for 20
 * bytes for each dialogue.
 */
#ifndef DATA_PREPARE_H
#define DATA_PREPARE_H

#include "base/buf.h"
#include "base/cfg.h"
#include "base/err.h"
#include "data/chat.h"
#include "data/clean.h"
#include "data/corpus.h"
#include "data/shard.h"

#include <stdbool.h>
#include <stdint.h>

/* One more whenever the same corpus and settings would give something else: a rule finds other
 * words, a dialogue gets another split. Part of the recipe, so that no older work is gone on with.
 */
#define PREPARE_REVISION 2

#define PREPARE_SOURCES_MAX  256
#define PREPARE_THREADS_MAX  256
#define PREPARE_EXAMPLES_MAX 5 /* of near duplicates */

struct prepare_source {
    const char *path;
    const char *name; /* as kept in the shards: the last part of the path, if that tells it apart */
};

enum prepare_duplicates {
    DUPLICATES_DROP_NEAR,  /* of exact and near duplicates the best one stays */
    DUPLICATES_DROP_EXACT, /* near duplicates stay, and share a split */
    DUPLICATES_KEEP,       /* all stay, and share a split */
};
enum prepare_openings {
    OPENINGS_TOGETHER, /* dialogues of one opening (data/dedup.h) share a split */
    OPENINGS_APART,
};
enum prepare_split_rule { SPLIT_STRATIFIED, SPLIT_HASH }; /* data/split.h */

struct prepare_options {
    struct prepare_source source[PREPARE_SOURCES_MAX];
    int64_t source_count;
    char *source_text; /* what the sources borrow from */
    enum corpus_form form;
    enum corpus_on_bad_record on_bad_record;
    const char *tokenizer, *out; /* borrowed from the settings */
    const char *licence, *attribution;
    const char *rules; /* clean_spec.actions; borrowed */
    int64_t long_turn; /* characters */
    struct chat_template template;
    struct shard_writer_spec shards;
    enum prepare_duplicates duplicates;
    double near_threshold; /* Jaccard similarity of near duplicates */
    enum prepare_split_rule split_rule;
    enum prepare_openings openings;
    uint64_t split_seed;
    int64_t validation_permyriad, test_permyriad;
    int64_t max_dialogues;       /* read no more; 0 = all */
    int64_t threads;             /* 0 = one for each processor */
    bool resume;                 /* go on where an equal run was stopped */
    bool (*stop)(void *context); /* asked often; true: ERR_INTERRUPTED. NULL = never */
    void *stop_context;
};

/* From section `data`; ERR_USAGE names what is missing. prepare_options_clear it. */
MUST_USE err_t prepare_options_from_cfg(struct prepare_options *out, const struct cfg *cfg);
void prepare_options_clear(struct prepare_options *o);

/* The rules that these options ask for; clean_rules_close them. ERR_USAGE as clean_rules_open. */
MUST_USE err_t prepare_rules_open(struct clean_rules **out, const struct prepare_options *o);

/* What was found in one source. dialogues = dropped + exact + near + written. */
struct prepare_source_counts {
    enum corpus_form form;
    char layout[16], packing[8];    /* corpus_layout_name, corpus_packing_name */
    int64_t bytes, text_bytes;      /* of the file as it lies there; unpacked, as read */
    int64_t dialogues, bad_records; /* dialogues as read */
    int64_t rule[CLEAN_RULE_COUNT]; /* what each rule found, in its own unit */
    int64_t dropped;                /* dialogues that a rule dropped */
    int64_t exact, near;            /* dialogues dropped as duplicates */
    int64_t written, samples;       /* dialogues; replies of theirs that are trained */
    uint8_t sha256[SHA256_BYTES];   /* of the file's bytes */
};

struct prepare_split_counts {
    int64_t dialogues, samples;
};

/* Two dialogues that are near duplicates, by their beginnings. */
struct prepare_near_example {
    double similarity;
    int32_t kept_source, other_source; /* indices in the options */
    char kept[CLEAN_SNIPPET_MAX], other[CLEAN_SNIPPET_MAX];
};

/* Duplicates, whether dropped or kept, and what of the held-out splits is alike in training. */
struct prepare_duplicate_counts {
    int64_t exact;          /* dialogues that equal a better one */
    int64_t near;           /* others that are near duplicates of a better one */
    int64_t compared;       /* pairs compared exactly */
    int64_t clusters;       /* of two or more dialogues */
    int64_t same_opening;   /* written dialogues that share their opening with another one */
    int64_t spilled_runs;   /* 0: everything was sorted in memory */
    int64_t held_out;       /* dialogues of validation and test that were checked */
    int64_t leaked_exact;   /* of these: with an exact duplicate in training */
    int64_t leaked_near;    /* with a near duplicate in training */
    int64_t leaked_opening; /* with a dialogue of the same opening in training */
    int64_t leaked_alike;   /* at a similarity of 0.5 or more, as far as seen (about a quarter of
                               those at 0.5, nearly all at 0.7) */
    int64_t example_count;
    struct prepare_near_example example[PREPARE_EXAMPLES_MAX]; /* the longest ones */
};

/* Everything that is counted; printed by prepare_report_*. It holds no pointers and no times but
 * `seconds`, and is the same for any number of threads and after any number of interruptions. */
struct prepare_counts {
    struct prepare_source_counts source[PREPARE_SOURCES_MAX];
    struct clean_found found; /* over all sources, with examples */
    struct prepare_duplicate_counts duplicates;
    struct prepare_split_counts split[SPLIT_COUNT];
    int64_t read, bad_records;         /* dialogues as read; records that were not dialogues */
    int64_t tidied;                    /* dialogues that no rule dropped */
    int64_t dialogues, turns, samples; /* written; a sample is a reply that is trained */
    int64_t crisis_dialogues;          /* written with the flag */
    int64_t tokens, prompt_line_tokens, target_tokens; /* all; in ctx runs; in targets */
    int64_t first_stored;                              /* turns whose first run had to be kept */
    uint8_t
        recipe[SHA256_BYTES]; /* names the result: inputs, rules, template, tokenizer, version */
    double seconds;
};

/*
 * ERR_FORMAT: a source without a dialogue, no dialogue left after cleaning (the message has the
 * counters), a bad record with on_bad_record = fail. ERR_ARG: `out` exists, or another run is at
 * work on it. ERR_IO: also when the disk has less room than the work needs. ERR_INTERRUPTED:
 * stopped. After any error `out` is as it was; what can be gone on from stays in OUT.work.
 */
MUST_USE err_t prepare_run(struct prepare_counts *counts, const struct prepare_options *o);

/*
 * Whether a corpus is what these settings would prepare: the template, the cleaning rules, the
 * split seed and, where data.tokenizer is given, the tokenizer. Only settings that somebody gave
 * count, so that a corpus can be used without its configuration. ERR_USAGE names the part that
 * differs and both values.
 */
MUST_USE err_t prepare_check_shards(const struct shards *shards, const struct cfg *cfg);

/* The report as a JSON object (it goes into prepared.json: no times) and as a table for people. */
MUST_USE err_t prepare_report_json(struct buf *out, const struct prepare_counts *counts,
                                   const struct prepare_options *o);
MUST_USE err_t prepare_report_table(struct buf *out, const struct prepare_counts *counts,
                                    const struct prepare_options *o);

#endif
