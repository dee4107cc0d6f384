/*
 * prepare_spool.h - tidied dialogues between the two passes of prepare: their texts in one file of
 * the work folder, a row of 136 bytes for each in another. Internal to prepare.
 *
 * The first pass appends, the second reads any range; so text is read from its sources, parsed and
 * tidied once, and what decides about a dialogue (its rows) is small enough to be looked at whole.
 */
#ifndef DATA_PREPARE_SPOOL_H
#define DATA_PREPARE_SPOOL_H

#include "base/buf.h"
#include "base/check.h"
#include "base/file.h"
#include "data/clean.h"
#include "data/dedup.h"

#include <stdint.h>

struct spool_row {
    int64_t text_off; /* of the dialogue's record in the text file */
    uint64_t exact;   /* of dedup_signature */
    uint64_t opening; /* of dedup_signature */
    uint64_t stratum; /* of source and topic: dialogues with the same are split alike */
    uint8_t hash[8];  /* of the content, as in the shards */
    int32_t text_size, turn_count;
    int32_t chars;  /* of dedup_signature */
    int32_t source; /* index in the options */
    uint32_t band[DEDUP_BANDS];
};
STATIC_ASSERT(sizeof(struct spool_row) == 136, "rows have no padding");

/* Append a record to *out: its bytes are what row.text_size counts. ERR_NOMEM. */
MUST_USE err_t spool_encode(struct buf *out, const struct clean_dialogue *d, const char *topic);
/* Take a record apart: texts are borrowed from it, and flags are enum clean_turn_flag (NULL: not
 * wanted); both are the caller's [turn_count]. ERR_FORMAT: not what spool_encode wrote. */
MUST_USE err_t spool_decode(struct turn_text *turns, uint8_t *flags, const char **topic,
                            int64_t *topic_size, const char *record, int64_t size,
                            int64_t turn_count);

struct spool_writer {
    struct file_writer text, rows;
    int64_t count;
};
/* In folder `dir`; both files appear at commit. Zero the struct before; close it in any case. */
MUST_USE err_t spool_writer_open(struct spool_writer *w, const char *dir);
/* Rows with text_off relative to `text`; they become relative to the file. */
MUST_USE err_t spool_writer_append(struct spool_writer *w, struct spool_row *rows, int64_t count,
                                   const struct buf *text);
MUST_USE err_t spool_writer_commit(struct spool_writer *w);
void spool_writer_close(struct spool_writer *w);

/* Reading is safe from several threads at once. */
struct spool {
    struct file_reader text, rows;
    int64_t count;
};
MUST_USE err_t spool_open(struct spool *s, const char *dir);
MUST_USE err_t spool_rows(const struct spool *s, struct spool_row *out, int64_t first,
                          int64_t count);
/* The records of these rows, which lie one after another, as one piece. ERR_NOMEM, ERR_IO. */
MUST_USE err_t spool_text(const struct spool *s, struct buf *out, const struct spool_row *rows,
                          int64_t count);
void spool_close(struct spool *s);

#endif
