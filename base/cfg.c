#include "base/cfg.h"

#include "base/cfg_impl.h"
#include "base/check.h"
#include "base/nearest.h"
#include "base/utf8.h"

#include <ctype.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- rows ---- */

int64_t cfg_index(const struct cfg *cfg, const char *key)
{
    for (int64_t i = 0; i < cfg->count; i++)
        if (strcmp(cfg->rows[i]->key, key) == 0) return i;
    return -1;
}

bool cfg_row_in_section(const struct cfg_row *row, const char *section)
{
    const size_t size = strlen(section);
    return strncmp(row->key, section, size) == 0 && row->key[size] == '.';
}

const struct cfg_row *cfg_find(const struct cfg *cfg, const char *key)
{
    const int64_t index = cfg_index(cfg, key);
    return index < 0 ? NULL : cfg->rows[index];
}

int64_t cfg_row_count(const struct cfg *cfg) { return cfg->count; }

const struct cfg_row *cfg_row_at(const struct cfg *cfg, int64_t index)
{
    ASSERT(index >= 0 && index < cfg->count);
    return cfg->rows[index];
}

static bool is_bounded(const struct cfg_row *row) { return row->min != 0 || row->max != 0; }

static bool takes_auto(const struct cfg_row *row) { return is_bounded(row) && row->min <= -1; }

/* "one of a, b, c": with places to break a line at. */
static void describe_choices(char *out, size_t size, const char *choices)
{
    size_t at = (size_t)snprintf(out, size, "one of ");
    for (; *choices != '\0' && at + 2 < size; choices++) {
        const bool is_bar = *choices == '|';
        out[at++] = is_bar ? ',' : *choices;
        if (is_bar) out[at++] = ' ';
    }
    out[at] = '\0';
}

void cfg_describe(char out[CFG_KEY_MAX * 4], const struct cfg_row *row)
{
    const size_t size = CFG_KEY_MAX * 4;
    switch (row->type) {
    case CFG_INT:
        if (is_bounded(row)) /* in full: 9e15 is not how an integer may be written */
            snprintf(out, size, "an integer from %.0f to %.0f%s", row->min, row->max,
                     takes_auto(row) ? " or auto" : "");
        else
            snprintf(out, size, "an integer");
        return;
    case CFG_FLOAT:
        if (is_bounded(row))
            snprintf(out, size, "a number from %.15g to %.15g", row->min, row->max);
        else
            snprintf(out, size, "a number");
        return;
    case CFG_BOOL:
        snprintf(out, size, "true or false");
        return;
    case CFG_ENUM:
        describe_choices(out, size, row->choices);
        return;
    case CFG_STRING:
        snprintf(out, size, "UTF-8 text of at most %d bytes", CFG_VALUE_MAX - 1);
        return;
    }
}

/* ---- reading one value ---- */

static bool parse_int(int64_t *out, const struct cfg_row *row, const char *text)
{
    if (strcmp(text, "auto") == 0 && takes_auto(row)) {
        *out = -1;
        return true;
    }
    const bool negative = text[0] == '-';
    const char *p = text + (text[0] == '-' || text[0] == '+');
    int64_t value = 0; /* built downwards: the smallest number has no positive twin */
    if (!isdigit((unsigned char)*p)) return false;
    for (; *p != '\0'; p++) {
        if (*p == '_' && isdigit((unsigned char)p[1]) && isdigit((unsigned char)p[-1])) continue;
        if (!isdigit((unsigned char)*p)) return false;
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_sub_overflow(value, *p - '0', &value))
            return false;
    }
    if (!negative && __builtin_sub_overflow(0, value, &value)) return false;
    *out = value;
    return !is_bounded(row) || ((double)value >= row->min && (double)value <= row->max);
}

static bool parse_float(double *out, const struct cfg_row *row, const char *text, locale_t locale)
{
    if (text[0] == '\0' || isspace((unsigned char)text[0])) return false;
    char *end;
    const double value = strtod_l(text, &end, locale);
    if (*end != '\0' || !isfinite(value)) return false;
    *out = value;
    return !is_bounded(row) || (value >= row->min && value <= row->max);
}

static bool parse_enum(int64_t *out, const char *choices, const char *text)
{
    const size_t size = strlen(text);
    int64_t position = 0;
    for (const char *choice = choices; choice != NULL; position++) {
        const size_t choice_size = strcspn(choice, "|");
        if (choice_size == size && memcmp(choice, text, size) == 0) {
            *out = position;
            return true;
        }
        choice = choice[choice_size] == '|' ? choice + choice_size + 1 : NULL;
    }
    return false;
}

static bool parse_value(struct cfg_value *out, const struct cfg *cfg, const struct cfg_row *row,
                        const char *text)
{
    const int64_t size = (int64_t)strnlen(text, CFG_VALUE_MAX);
    if (size == CFG_VALUE_MAX) return false;
    switch (row->type) {
    case CFG_INT: return parse_int(&out->integer, row, text);
    case CFG_FLOAT: return parse_float(&out->real, row, text, cfg->c_locale);
    case CFG_BOOL: return parse_enum(&out->integer, "false|true", text);
    case CFG_ENUM: return parse_enum(&out->integer, row->choices, text);
    case CFG_STRING: return utf8_valid_prefix(text, size) == size;
    }
    return false;
}

/* ---- life ---- */

/* A row that cannot work is a mistake in the program, so it stops the program. */
static void check_row(const struct cfg *cfg, int64_t index)
{
    const struct cfg_row *row = cfg->rows[index];
    const char *dot = strchr(row->key, '.');
    ASSERT(strlen(row->key) < CFG_KEY_MAX);
    ASSERT(dot != NULL && dot != row->key && dot[1] != '\0' && strchr(dot + 1, '.') == NULL);
    ASSERT(cfg_index(cfg, row->key) == index); /* no key twice */
    ASSERT((row->type == CFG_ENUM) == (row->choices != NULL));
    ASSERT(row->min <= row->max);
    ASSERT(row->help != NULL);
    struct cfg_value ignored = { 0 };
    const bool default_is_valid = parse_value(&ignored, cfg, row, row->value);
    if (!default_is_valid) fprintf(stderr, "the default of %s is \"%s\"\n", row->key, row->value);
    ASSERT(default_is_valid);
}

/* An empty cfg with room for `count` rows, none of them there yet. */
static err_t create_empty(struct cfg **out, int64_t count)
{
    struct cfg *cfg = calloc(1, sizeof *cfg);
    if (cfg == NULL) RAISE(NOMEM, "settings");
    cfg->c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    cfg->rows = calloc((size_t)count + 1, sizeof *cfg->rows);
    cfg->values = calloc((size_t)count + 1, sizeof *cfg->values);
    if (cfg->c_locale == (locale_t)0 || cfg->rows == NULL || cfg->values == NULL) {
        cfg_close(cfg);
        RAISE(NOMEM, "%lld settings", (long long)count);
    }
    *out = cfg;
    return ERR_OK;
}

static err_t set_defaults(struct cfg *cfg)
{
    for (int64_t i = 0; i < cfg->count; i++) {
        check_row(cfg, i);
        TRY(cfg_set(cfg, cfg->rows[i]->key, cfg->rows[i]->value, "default"));
        cfg->values[i].is_set = false;
    }
    return ERR_OK;
}

static err_t finish(struct cfg **out, struct cfg *cfg)
{
    const err_t rc = set_defaults(cfg);
    if (rc != ERR_OK) {
        cfg_close(cfg);
        return rc;
    }
    *out = cfg;
    return ERR_OK;
}

err_t cfg_create(struct cfg **out, const struct cfg_table *tables, int64_t table_count)
{
    int64_t count = 0;
    struct cfg *cfg;
    for (int64_t t = 0; t < table_count; t++) count += tables[t].count;
    TRY(create_empty(&cfg, count));
    for (int64_t t = 0; t < table_count; t++)
        for (int64_t i = 0; i < tables[t].count; i++) cfg->rows[cfg->count++] = &tables[t].rows[i];
    return finish(out, cfg);
}

err_t cfg_create_like(struct cfg **out, const struct cfg *other)
{
    struct cfg *cfg;
    TRY(create_empty(&cfg, other->count));
    for (int64_t i = 0; i < other->count; i++) cfg->rows[cfg->count++] = other->rows[i];
    return finish(out, cfg);
}

void cfg_close(struct cfg *cfg)
{
    if (cfg == NULL) return;
    for (int64_t i = 0; i < cfg->count; i++) free(cfg->values[i].text);
    free(cfg->values);
    free(cfg->rows);
    if (cfg->c_locale != (locale_t)0) freelocale(cfg->c_locale);
    free(cfg);
}

/* ---- writing and reading ---- */

static int edits(const char *word, const char *other)
{
    struct nearest n = { .word = word };
    nearest_offer(&n, other);
    return n.distance;
}

static const char *after_dot(const char *key)
{
    const char *dot = strchr(key, '.');
    return dot == NULL ? key : dot + 1;
}

/* The section is what people leave out or mix up, so the key below it counts first. */
const struct cfg_row *cfg_nearest(int *distance, const struct cfg *cfg, const char *key)
{
    const struct cfg_row *best = NULL;
    int best_whole = 0;
    *distance = INT_MAX;
    for (int64_t i = 0; i < cfg->count; i++) {
        const char *candidate = cfg->rows[i]->key;
        const int whole = edits(key, candidate);
        const int below = edits(after_dot(key), after_dot(candidate));
        const int least = whole < below ? whole : below;
        if (least > *distance || (least == *distance && whole >= best_whole)) continue;
        best = cfg->rows[i];
        best_whole = whole;
        *distance = least;
    }
    return best;
}

static err_t raise_unknown(const struct cfg *cfg, const char *key, const char *origin)
{
    int distance;
    const struct cfg_row *nearest = cfg_nearest(&distance, cfg, key);
    RAISE(USAGE, "%s: there is no setting %.80s%s%s", origin, key,
          nearest != NULL ? "; the nearest is " : "", nearest != NULL ? nearest->key : "");
}

err_t cfg_set(struct cfg *cfg, const char *key, const char *value, const char *origin)
{
    const int64_t index = cfg_index(cfg, key);
    if (index < 0) TRY(raise_unknown(cfg, key, origin));

    struct cfg_value *slot = &cfg->values[index];
    struct cfg_value parsed = *slot;
    if (!parse_value(&parsed, cfg, cfg->rows[index], value)) {
        char allowed[CFG_KEY_MAX * 4];
        cfg_describe(allowed, cfg->rows[index]);
        RAISE(USAGE, "%s: %s is \"%.60s\"%s; expected %s", origin, key, value,
              strlen(value) > 60 ? "..." : "", allowed);
    }
    parsed.text = strdup(value);
    if (parsed.text == NULL) RAISE(NOMEM, "value of %s, %zu bytes", key, strlen(value));
    parsed.is_set = true;
    free(slot->text);
    *slot = parsed;
    return ERR_OK;
}

static const struct cfg_value *get(const struct cfg *cfg, const char *key, enum cfg_type type)
{
    const int64_t index = cfg_index(cfg, key);
    if (index < 0) fprintf(stderr, "setting %s is read but is in no table\n", key);
    ASSERT(index >= 0);
    ASSERT(cfg->rows[index]->type == type);
    return &cfg->values[index];
}

int64_t cfg_int(const struct cfg *cfg, const char *key) { return get(cfg, key, CFG_INT)->integer; }

double cfg_float(const struct cfg *cfg, const char *key) { return get(cfg, key, CFG_FLOAT)->real; }

bool cfg_bool(const struct cfg *cfg, const char *key)
{
    return get(cfg, key, CFG_BOOL)->integer != 0;
}

int64_t cfg_enum(const struct cfg *cfg, const char *key)
{
    return get(cfg, key, CFG_ENUM)->integer;
}

const char *cfg_str(const struct cfg *cfg, const char *key)
{
    const struct cfg_row *row = cfg_find(cfg, key);
    return get(cfg, key, row && row->type == CFG_ENUM ? CFG_ENUM : CFG_STRING)->text;
}

bool cfg_is_set(const struct cfg *cfg, const char *key)
{
    const int64_t index = cfg_index(cfg, key);
    ASSERT(index >= 0);
    return cfg->values[index].is_set;
}

const char *cfg_text(const struct cfg *cfg, const char *key)
{
    const int64_t index = cfg_index(cfg, key);
    ASSERT(index >= 0);
    return cfg->values[index].text;
}
