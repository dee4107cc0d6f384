/*
 * cfg.h - settings: one table says what exists; a YAML file and --section.key=value fill it.
 *
 * A layer exports a table of rows (data_settings, model_settings, train_settings,
 * eval_settings); the program joins them, so every command knows every key and an unknown one is
 * an error wherever it is written. Reading order: defaults, file, command line; the last wins.
 *
 *     static const struct cfg_row rows[] = {
 *         { "train.steps", CFG_INT, "1000", 1, 1e9, "optimizer updates to run (steps)" },
 *         ...
 *     };
 *     struct cfg *cfg;
 *     TRY(cfg_create(&cfg, tables, table_count));
 *     TRY_DONE(cfg_load_yaml(cfg, "configs/tiny.yaml"));
 *     steps = cfg_int(cfg, "train.steps");
 *
 * YAML is restricted to one document of two levels of mappings with scalar values (section: key:
 * value), without anchors, aliases and tags. Every scalar is taken as text and typed by the table.
 * Errors name file:line:column, the key, the value found and what is allowed; for an unknown key
 * the nearest known one is offered. After an error while filling, the settings before the wrong one
 * are in place; the caller reports and closes.
 * Not thread-safe while being filled; reading is.
 */
#ifndef BASE_CFG_H
#define BASE_CFG_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CFG_KEY_MAX        64      /* bytes of "section.key" with the NUL */
#define CFG_VALUE_MAX      65536   /* bytes of a value with the NUL */
#define CFG_FILE_BYTES_MAX 1048576 /* of a YAML file */

enum cfg_type {
    CFG_INT,    /* decimal, optional sign; 16_384 is 16384; "auto" is -1 if min <= -1 */
    CFG_FLOAT,  /* as strtod in the C locale, finite */
    CFG_BOOL,   /* true | false */
    CFG_STRING, /* any UTF-8 text; may be empty */
    CFG_ENUM,   /* one of `choices`, separated by | */
};

struct cfg_row {
    const char *key; /* "section.key" */
    enum cfg_type type;
    const char *value;   /* default, as it would be written */
    double min, max;     /* inclusive, for INT and FLOAT; both 0 = unbounded */
    const char *choices; /* for ENUM: "samples|tokens"; else NULL */
    const char *help;    /* one line with the unit in parentheses where there is one */
};

struct cfg_table {
    const struct cfg_row *rows;
    int64_t count;
};

struct cfg;

/* Yours; cfg_close it. The tables are borrowed. ASSERTs that no key appears twice and that every
 * default is valid. ERR_NOMEM. */
MUST_USE err_t cfg_create(struct cfg **out, const struct cfg_table *tables, int64_t table_count);
void cfg_close(struct cfg *cfg);
/* The same rows with their defaults: to read settings that were stored earlier beside the present
 * ones. */
MUST_USE err_t cfg_create_like(struct cfg **out, const struct cfg *other);

/* ERR_NOTFOUND, ERR_IO, ERR_FORMAT (too large), ERR_NOMEM, and ERR_USAGE for what the text says:
 * not YAML, not two levels, unknown or repeated key, wrong type, out of range. */
MUST_USE err_t cfg_load_yaml(struct cfg *cfg, const char *path);
/* The same from memory; `name` is used in messages. */
MUST_USE err_t cfg_parse_yaml(struct cfg *cfg, const char *text, int64_t size, const char *name);
/* One setting from the command line: key "train.steps", value "100"; `origin` begins the message of
 * an error, as "command line" or "file.yaml:3:7". ERR_USAGE, ERR_NOMEM; then the setting is as it
 * was. */
MUST_USE err_t cfg_set(struct cfg *cfg, const char *key, const char *value, const char *origin);

/* Typed reads; ASSERT that the key exists and has that type. Strings are borrowed from cfg. */
int64_t cfg_int(const struct cfg *cfg, const char *key);
double cfg_float(const struct cfg *cfg, const char *key);
bool cfg_bool(const struct cfg *cfg, const char *key);
const char *cfg_str(const struct cfg *cfg, const char *key); /* STRING and ENUM */
/* Whether file or command line gave it (false: it is the default). */
bool cfg_is_set(const struct cfg *cfg, const char *key);
/* The value of any type as it was written: for comparing and printing. */
const char *cfg_text(const struct cfg *cfg, const char *key);
/* Position in `choices` of an ENUM. */
int64_t cfg_enum(const struct cfg *cfg, const char *key);

/* All settings as YAML, in table order by section, with help as comments when `comments`; parsing
 * it gives the same settings. ERR_NOMEM. */
MUST_USE err_t cfg_dump_yaml(const struct cfg *cfg, struct buf *out, bool comments);
/* The same, without comments, of those settings for which `keeps` says yes. */
MUST_USE err_t cfg_dump_yaml_part(const struct cfg *cfg, struct buf *out,
                                  bool (*keeps)(const char *key));
/* The row of a key, or NULL; borrowed. */
const struct cfg_row *cfg_find(const struct cfg *cfg, const char *key);
/* The row whose key is most like a wrong one, or NULL where there are no rows. *distance counts the
 * edits between the two, or between what follows their sections where those are fewer. */
const struct cfg_row *cfg_nearest(int *distance, const struct cfg *cfg, const char *key);
/* What a row accepts, in words ("an integer from 1 to 80"), cut to out[CFG_KEY_MAX * 4]. */
void cfg_describe(char out[CFG_KEY_MAX * 4], const struct cfg_row *row);
/* Rows, for --help and for tests. */
int64_t cfg_row_count(const struct cfg *cfg);
const struct cfg_row *cfg_row_at(const struct cfg *cfg, int64_t index);

#ifdef __cplusplus
}
#endif
#endif
