/*
 * shard.h - token shards: dialogues as token runs in HDF5 + zstd. The only user of HDF5 in the
 * program. The format, byte for byte: docs/shard-format.md.
 *
 * A prepared corpus is a directory: shard-00000.h5, shard-00001.h5, ... and prepared.json (counts,
 * settings, sha256 of each shard). Each turn is stored as token runs made once, and training
 * samples are views of them:
 *   ctx     the turn as a later line of a prompt, "\n用户：...": its first token is the newline
 *           piece
 *   first   the turn as the first line of a prompt, only where it is not [space piece] + ctx[1:]
 *   target  a counsellor's reply as a target: encoded alone, without role name
 * and the cue ("\n心理咨询师：") is stored once per corpus. A prompt that begins at turn j and asks
 * for the reply of turn k is first(j) ctx(j+1) ... ctx(k-1) cue
 *
 * Reading is thread-compatible (one thread at a time per struct shards); one thread owns the HDF5
 * library.
 */
#ifndef DATA_SHARD_H
#define DATA_SHARD_H

#include "base/buf.h"
#include "base/err.h"
#include "data/corpus.h"
#include "data/tok.h"

#include <stdbool.h>
#include <stdint.h>

#define SHARD_FORMAT_VERSION 1
#define SHARD_CUE_MAX        64
#define SHARD_NAME_MAX       64  /* bytes of a template name, with the NUL */
#define SHARD_TEXT_MAX       256 /* bytes of a source, topic, licence, attribution, with the NUL */
#define SHARD_TOKENS_MAX     (256 << 20) /* tokens in one file */

enum split { SPLIT_TRAIN, SPLIT_VALIDATION, SPLIT_TEST, SPLIT_COUNT };

enum turn_flag {
    TURN_FIRST_STORED = 1, /* first_off, first_len are valid; else first = [space] + ctx[1:] */
    TURN_CRISIS = 2,       /* speaks of suicide or self-harm (a rule of data/clean.h) */
};
enum dialogue_flag {
    DIALOGUE_CRISIS = 1, /* one of its turns has TURN_CRISIS */
};

/* One row of dataset `turn`. Offsets index dataset `tokens` of the same shard. */
struct shard_turn {
    int64_t ctx_off, first_off, target_off; /* -1: none */
    int32_t ctx_len, first_len, target_len; /* tokens; target without <sop>/<eop> */
    uint8_t role;                           /* enum role */
    uint8_t flags;                          /* enum turn_flag */
};

/* One row of dataset `dialogue`. */
struct shard_dialogue {
    int64_t turn_off; /* first row in `turn` */
    int32_t turn_count;
    uint16_t source, topic; /* index into the string lists of the shard */
    uint8_t split;          /* enum split */
    uint8_t flags;          /* enum dialogue_flag */
    uint8_t hash[8];        /* first 8 bytes of sha256 over the dialogue's normalised text */
};

/* What must agree between a corpus and the run that trains on it; equal in all shards of a
 * directory. */
struct shard_info {
    enum tok_family family;
    char tokenizer_sha256[SHA256_HEX_SIZE];
    char client_name[SHARD_NAME_MAX], counsellor_name[SHARD_NAME_MAX]; /* of the template */
    char separator[SHARD_NAME_MAX];                                    /* "：" */
    struct tok_specials specials;
    int32_t vocab_size;
    /* Tokens of "\n<counsellor><separator>"; the first is the newline piece. */
    int32_t cue[SHARD_CUE_MAX];
    int32_t cue_len;
    /* Tokens of "<client><separator>" as the first line of a prompt. A question that alone is too
     * long is written client_head, then first[client_head_len + skip ..], then the cue: skip tokens
     * are cut. */
    int32_t client_head[SHARD_CUE_MAX];
    int32_t client_head_len;
    char rules_sha256[SHA256_HEX_SIZE]; /* the cleaning rules (data/clean.h); "" = none were used */
    uint64_t split_seed;
};

/* ---- writing: the whole directory appears at once, or not at all ---- */

struct shard_writer;

struct shard_writer_spec {
    int64_t tokens_per_shard; /* a new file begins beyond that; 1..SHARD_TOKENS_MAX, 0 = 16 Mi */
    int zstd_level;           /* 1..19, 0 = 3 */
    bool replace;             /* an existing prepared directory gives way to this one */
    /* Go on behind these files, which an earlier writer of the same corpus finished in `dir`.tmp:
     * what is added next begins a new one. Borrowed during shard_writer_open. */
    const struct shard_done *done;
    int64_t done_count;
    bool keep; /* a writer closed without commit leaves its finished files in `dir`.tmp */
};

/* A finished file. */
struct shard_done {
    int64_t bytes, dialogues, turns, tokens;
    uint8_t sha256[SHA256_BYTES];
};

/*
 * Write into `dir`.tmp. ERR_ARG: `dir` exists and is not to be replaced, or is no prepared
 * directory. A `dir`.tmp that an earlier, killed run left behind is removed unless spec->done says
 * what is in it; then ERR_CHECKSUM names a file that is not as it was finished.
 */
MUST_USE err_t shard_writer_open(struct shard_writer **out, const char *dir,
                                 const struct shard_info *info,
                                 const struct shard_writer_spec *spec);
/* Licence and attribution of a source; each is "" where this is not called. */
MUST_USE err_t shard_writer_source(struct shard_writer *w, const char *source, const char *licence,
                                   const char *attribution);

/* The files finished so far; borrowed until the next call. The last one grows the list when the
 * dialogue that begins the next one is added, and at commit. */
const struct shard_done *shard_writer_done(const struct shard_writer *w, int64_t *count);

/* A turn's runs for writing; borrowed. NULL first = the rule holds; NULL target = not a
 * counsellor's reply, or one that is not trained. */
struct turn_runs {
    enum role role;
    uint8_t flags; /* enum turn_flag but for TURN_FIRST_STORED, which follows from `first` */
    const int32_t *ctx, *first, *target;
    int32_t ctx_len, first_len, target_len;
};
MUST_USE err_t shard_writer_add(struct shard_writer *w, const struct turn_runs *turns,
                                int64_t turn_count, enum split split, const char *source,
                                const char *topic, const uint8_t hash[8]);
/* Write what is left and prepared.json (`report_json`, an object or NULL, becomes its member
 * "prepare"), sync, read everything back, rename the directory. */
MUST_USE err_t shard_writer_commit(struct shard_writer *w, const char *report_json);
void shard_writer_close(struct shard_writer *w); /* discards what was not committed; NULL allowed */

/* ---- reading ---- */

struct shards;

/*
 * Open a prepared directory: checks every shard's size and whole-file sha256 against prepared.json
 * when `verify`, versions, and that every offset lies inside its dataset. ERR_NOTFOUND, ERR_FORMAT,
 * ERR_CHECKSUM name the file and what differs. Tokens are read when asked for, and unpacked
 * chunks of them stay in memory, SHARD_CACHE_BYTES at most where there are fewer than a hundred
 * shards: a sample in random order that does not find its chunk there unpacks it, 256 KiB.
 */
#define SHARD_CACHE_BYTES (256 << 20)
MUST_USE err_t shards_open(struct shards **out, const char *dir, bool verify);
void shards_close(struct shards *s);

const struct shard_info *shards_info(const struct shards *s);
/* The first part in which two differ, in words ("tokenizer", "cleaning rules"); NULL = in none. */
const char *shard_info_difference(const struct shard_info *a, const struct shard_info *b);
int64_t shards_dialogue_count(const struct shards *s); /* over all shards */
const struct shard_dialogue *shards_dialogue(const struct shards *s, int64_t dialogue);
const struct shard_turn *shards_turn(const struct shards *s, int64_t dialogue, int64_t turn);
const char *shards_source(const struct shards *s, int64_t dialogue);
const char *shards_topic(const struct shards *s, int64_t dialogue);
/* The sha256 over the shards' digests in order: names this corpus in checkpoints. */
const char *shards_sha256(const struct shards *s);
/* Copy `count` tokens of the shard that holds `dialogue`, from `offset`. Checked: every id is in
 * 0..vocab_size-1 (ERR_FORMAT). */
MUST_USE err_t shards_tokens(struct shards *s, int32_t *out, int64_t dialogue, int64_t offset,
                             int64_t count);

#endif
