/*
 * Settings as YAML: libyaml's events one after another, so a nested or huge text costs nothing
 * beyond the place where it goes wrong.
 */
#include "base/cfg_impl.h"

#include "base/check.h"
#include "base/file.h"
#include "base/nearest.h"
#include "base/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

/* ---- parsing ---- */

struct reader {
    struct cfg *cfg;
    const char *name; /* of the text, for messages */
    yaml_parser_t parser;
    yaml_event_t event; /* the current one */
    bool *section_seen; /* by the row that is the first of the section */
};

#define ORIGIN_MAX 160

/* "file.yaml:3:7", where the current event begins. */
static void format_origin(char out[ORIGIN_MAX], const struct reader *r)
{
    const yaml_mark_t *at = &r->event.start_mark;
    snprintf(out, ORIGIN_MAX, "%.120s:%zu:%zu", r->name, at->line + 1, at->column + 1);
}

static err_t raise_at_event(const struct reader *r, const char *problem)
{
    char origin[ORIGIN_MAX];
    format_origin(origin, r);
    RAISE(USAGE, "%s: %s", origin, problem);
}

static err_t raise_parser_problem(const struct reader *r)
{
    const yaml_parser_t *p = &r->parser;
    const char *problem = p->problem ? p->problem : "not YAML";
    /* libyaml calls a tab "character that cannot start any token". */
    if (p->error == YAML_SCANNER_ERROR && p->buffer.pointer < p->buffer.last &&
        *p->buffer.pointer == '\t')
        problem = "a tab; YAML is indented with spaces";
    if (p->error == YAML_MEMORY_ERROR) RAISE(NOMEM, "%.120s: reading YAML", r->name);
    if (p->error == YAML_READER_ERROR)
        RAISE(USAGE, "%.120s: %s at byte %zu", r->name, problem, p->problem_offset);
    RAISE(USAGE, "%.120s:%zu:%zu: %s", r->name, p->problem_mark.line + 1,
          p->problem_mark.column + 1, problem);
}

/* Move to the next event, refusing what settings do not have. */
static err_t advance(struct reader *r)
{
    yaml_event_delete(&r->event);
    if (!yaml_parser_parse(&r->parser, &r->event)) {
        memset(&r->event, 0, sizeof r->event);
        return raise_parser_problem(r);
    }
    const yaml_event_t *e = &r->event;
    if (e->type == YAML_ALIAS_EVENT)
        return raise_at_event(r, "an alias (*name); write the value itself");
    if ((e->type == YAML_SCALAR_EVENT && (e->data.scalar.anchor || e->data.scalar.tag)) ||
        (e->type == YAML_MAPPING_START_EVENT &&
         (e->data.mapping_start.anchor || e->data.mapping_start.tag)))
        return raise_at_event(r, "an anchor (&name) or a tag (!name); write the value alone");
    if (e->type == YAML_SEQUENCE_START_EVENT)
        return raise_at_event(r, "a list; settings have the form section: key: value");
    if (e->type == YAML_SCALAR_EVENT &&
        memchr(e->data.scalar.value, '\0', e->data.scalar.length) != NULL)
        return raise_at_event(r, "a NUL byte in a text");
    return ERR_OK;
}

static const char *scalar_text(const struct reader *r)
{
    return (const char *)r->event.data.scalar.value;
}

/* Nothing was written: "section:" with all its keys commented out. */
static bool is_empty_scalar(const struct reader *r)
{
    return r->event.type == YAML_SCALAR_EVENT && r->event.data.scalar.length == 0 &&
           r->event.data.scalar.plain_implicit;
}

/* The current event is a value: store it. `key_origin` is where its key stands. */
static err_t take_value(struct reader *r, const char *key, const char *key_origin)
{
    const int64_t index = cfg_index(r->cfg, key);
    if (index >= 0 && r->event.type != YAML_SCALAR_EVENT)
        return raise_at_event(r, "a third level; settings have the form section: key: value");
    if (index >= 0 && r->cfg->values[index].load_set == r->cfg->load_count)
        RAISE(USAGE, "%s: %s is given a second time", key_origin, key);
    char origin[ORIGIN_MAX];
    format_origin(origin, r);
    TRY(cfg_set(r->cfg, key, index >= 0 ? scalar_text(r) : "", index >= 0 ? origin : key_origin));
    r->cfg->values[index].load_set = r->cfg->load_count;
    return ERR_OK;
}

/* The mapping below a section; the current event is its start. */
static err_t parse_keys(struct reader *r, const char *section)
{
    for (;;) {
        TRY(advance(r));
        if (r->event.type == YAML_MAPPING_END_EVENT) return ERR_OK;
        if (r->event.type != YAML_SCALAR_EVENT)
            return raise_at_event(r, "a mapping where the name of a setting is expected");
        char key[2 * CFG_KEY_MAX + 2], origin[ORIGIN_MAX];
        snprintf(key, sizeof key, "%s.%.*s", section, CFG_KEY_MAX, scalar_text(r));
        format_origin(origin, r);
        TRY(advance(r));
        TRY(take_value(r, key, origin));
    }
}

static void section_of(char out[CFG_KEY_MAX], const struct cfg_row *row)
{
    snprintf(out, CFG_KEY_MAX, "%.*s", (int)strcspn(row->key, "."), row->key);
}

static err_t raise_unknown_section(const struct reader *r, const char *name)
{
    char origin[ORIGIN_MAX], section[CFG_KEY_MAX], best[CFG_KEY_MAX] = "";
    int distance = 0;
    for (int64_t i = 0; i < r->cfg->count; i++) {
        struct nearest n = { .word = name };
        section_of(section, r->cfg->rows[i]);
        nearest_offer(&n, section);
        if (best[0] != '\0' && n.distance >= distance) continue;
        distance = n.distance;
        memcpy(best, section, sizeof best);
    }
    format_origin(origin, r);
    const struct cfg_row *row = cfg_nearest(&distance, r->cfg, name);
    if (distance == 0)
        RAISE(USAGE, "%s: %.80s is no section; expected \"%.*s:\" and below it, indented, "
              "\"%s: ...\"", origin, name, (int)strcspn(row->key, "."), row->key,
              strchr(row->key, '.') + 1);
    RAISE(USAGE, "%s: there is no section %.80s; the nearest is %s", origin, name, best);
}

/* Mark the section named by the current event as seen. */
static err_t enter_section(struct reader *r, char section[CFG_KEY_MAX])
{
    const char *name = scalar_text(r);
    int64_t i = 0;
    while (i < r->cfg->count && !cfg_row_in_section(r->cfg->rows[i], name)) i++;
    if (i == r->cfg->count) return raise_unknown_section(r, name);
    section_of(section, r->cfg->rows[i]);
    if (r->section_seen[i]) return raise_at_event(r, "a section that was given before");
    r->section_seen[i] = true;
    return ERR_OK;
}

/* The outer mapping; the current event is its start. */
static err_t parse_sections(struct reader *r)
{
    for (;;) {
        TRY(advance(r));
        if (r->event.type == YAML_MAPPING_END_EVENT) return ERR_OK;
        if (r->event.type != YAML_SCALAR_EVENT)
            return raise_at_event(r, "a mapping where the name of a section is expected");
        char section[CFG_KEY_MAX];
        TRY(enter_section(r, section));
        TRY(advance(r));
        if (is_empty_scalar(r)) continue;
        if (r->event.type != YAML_MAPPING_START_EVENT)
            return raise_at_event(r, "a value where key: value lines are expected");
        TRY(parse_keys(r, section));
    }
}

static err_t parse_document(struct reader *r)
{
    TRY(advance(r));
    ASSERT(r->event.type == YAML_STREAM_START_EVENT);
    TRY(advance(r));
    if (r->event.type == YAML_STREAM_END_EVENT) return ERR_OK; /* nothing, or comments alone */
    ASSERT(r->event.type == YAML_DOCUMENT_START_EVENT);
    TRY(advance(r));
    if (r->event.type == YAML_MAPPING_START_EVENT)
        TRY(parse_sections(r));
    else if (!is_empty_scalar(r))
        return raise_at_event(r, "a text; settings have the form section: key: value");
    TRY(advance(r));
    ASSERT(r->event.type == YAML_DOCUMENT_END_EVENT);
    TRY(advance(r));
    if (r->event.type != YAML_STREAM_END_EVENT)
        return raise_at_event(r, "a second document; settings are one");
    return ERR_OK;
}

err_t cfg_parse_yaml(struct cfg *cfg, const char *text, int64_t size, const char *name)
{
    ASSERT(size >= 0);
    if (size > CFG_FILE_BYTES_MAX)
        RAISE(FORMAT, "%.120s: %lld bytes, at most %d are read", name, (long long)size,
              CFG_FILE_BYTES_MAX);
    err_t rc = ERR_OK;
    struct reader r = { .cfg = cfg, .name = name };
    if (!yaml_parser_initialize(&r.parser)) RAISE(NOMEM, "%.120s: reading YAML", name);
    r.section_seen = calloc((size_t)cfg->count + 1, sizeof *r.section_seen);
    if (r.section_seen == NULL) RAISE_DONE(NOMEM, "%.120s: reading YAML", name);

    cfg->load_count++;
    const char *input = size > 0 ? text : ""; /* an empty buffer may be NULL, libyaml's input not */
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)input, (size_t)size);
    TRY_DONE(parse_document(&r));
done:
    yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    free(r.section_seen);
    return rc;
}

err_t cfg_load_yaml(struct cfg *cfg, const char *path)
{
    err_t rc = ERR_OK;
    struct buf text = { 0 };
    TRY_DONE(file_read_all(&text, path, CFG_FILE_BYTES_MAX));
    TRY_DONE(cfg_parse_yaml(cfg, text.data, (int64_t)text.size, path));
done:
    buf_clear(&text);
    return rc;
}

/* ---- writing ---- */

/* Text that reads the same without quotes wherever a value may stand. */
static bool is_plain(const char *text)
{
    const size_t word = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                     "0123456789_./+-");
    return word > 0 && text[word] == '\0' && text[0] != '-' && text[0] != '.';
}

/* What YAML takes as it is between double quotes, on one line. */
static bool is_printable(int32_t c)
{
    return (c >= 0x20 && c < 0x7f && c != '"' && c != '\\') ||
           (c >= 0xa0 && c != 0x2028 && c != 0x2029 && c != 0xfeff && c != 0xfffe && c != 0xffff);
}

static err_t dump_quoted(struct buf *out, const char *text)
{
    TRY(buf_puts(out, "\""));
    for (int64_t left = (int64_t)strlen(text), count; left > 0; text += count, left -= count) {
        const int32_t c = utf8_decode(&count, text, left);
        ASSERT(c >= 0); /* cfg_set took nothing else */
        if (is_printable(c))
            TRY(buf_append(out, text, (size_t)count));
        else
            TRY(buf_printf(out, c > 0xffff ? "\\U%08x" : "\\u%04x", (unsigned)c));
    }
    return buf_puts(out, "\"");
}

static err_t dump_row(struct buf *out, const struct cfg *cfg, int64_t index, bool comments)
{
    const struct cfg_row *row = cfg->rows[index];
    const char *text = cfg->values[index].text;
    if (comments) {
        char allowed[CFG_KEY_MAX * 4];
        cfg_describe(allowed, row);
        TRY(buf_printf(out, "  # %s: %s\n", row->help, allowed));
    }
    TRY(buf_printf(out, "  %s: ", strchr(row->key, '.') + 1));
    TRY(is_plain(text) ? buf_puts(out, text) : dump_quoted(out, text));
    return buf_puts(out, "\n");
}

/* What a dump has of each row; NULL: every row. */
struct dump {
    bool (*keeps)(const char *key);
    bool comments;
};

static bool is_in_dump(const struct dump *d, const struct cfg_row *row, const char *section)
{
    return cfg_row_in_section(row, section) && (d->keeps == NULL || d->keeps(row->key));
}

/* A section is written where its first row stands, with all its rows, so it appears once even when
 * two tables add to it. */
static err_t dump(const struct cfg *cfg, struct buf *out, const struct dump *d)
{
    for (int64_t i = 0; i < cfg->count; i++) {
        char section[CFG_KEY_MAX];
        section_of(section, cfg->rows[i]);
        bool is_first = is_in_dump(d, cfg->rows[i], section);
        for (int64_t j = 0; j < i; j++)
            is_first = is_first && !is_in_dump(d, cfg->rows[j], section);
        if (!is_first) continue;
        TRY(buf_printf(out, "%s:\n", section));
        for (int64_t j = i; j < cfg->count; j++)
            if (is_in_dump(d, cfg->rows[j], section)) TRY(dump_row(out, cfg, j, d->comments));
    }
    return ERR_OK;
}

err_t cfg_dump_yaml(const struct cfg *cfg, struct buf *out, bool comments)
{
    const struct dump all = { .comments = comments };
    return dump(cfg, out, &all);
}

err_t cfg_dump_yaml_part(const struct cfg *cfg, struct buf *out, bool (*keeps)(const char *key))
{
    const struct dump part = { .keeps = keeps };
    return dump(cfg, out, &part);
}
