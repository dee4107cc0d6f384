#include "base/cli_help.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Options stand two columns in, what they mean here; a longer one has a line of its own. */
#define TEXT_COLUMN 32

/*
 * Append the words of a text, on lines of at most `columns` that begin at `indent`. `at` is the
 * column reached so far. Bytes count as columns: a Chinese character has one more of them than it
 * takes columns, so its line is a little short, never too long.
 */
static err_t put_words(struct buf *out, int64_t at, const char *text, int64_t indent,
                       int64_t columns)
{
    if (at > 0 && at + 1 > indent) { /* no room for a space between */
        TRY(buf_puts(out, "\n"));
        at = 0;
    }
    TRY(buf_printf(out, "%*s", (int)(indent - at), ""));
    at = indent;
    bool begins_line = true;
    for (const char *word = text; *word != '\0'; word += strspn(word, " ")) {
        const int64_t size = (int64_t)strcspn(word, " ");
        if (!begins_line && at + 1 + size > columns) {
            TRY(buf_printf(out, "\n%*s", (int)indent, ""));
            at = indent;
            begins_line = true;
        }
        TRY(buf_printf(out, "%s%.*s", begins_line ? "" : " ", (int)size, word));
        at += size + !begins_line;
        begins_line = false;
        word += size;
    }
    return buf_puts(out, "\n");
}

/* "  --name=VALUE    what it means" */
static err_t put_row(struct buf *out, const char *name, const char *value, const char *text,
                     int64_t columns)
{
    const size_t begin = out->size;
    TRY(buf_printf(out, "  %s%s%s", name, value != NULL ? "=" : "", value != NULL ? value : ""));
    return put_words(out, (int64_t)(out->size - begin), text, TEXT_COLUMN, columns);
}

static err_t put_options(struct buf *out, const struct cli_spec *spec, int64_t columns)
{
    TRY(buf_puts(out, "\nOptions:\n"));
    for (const struct cli_option *o = spec->options; o != NULL && o->name != NULL; o++) {
        char name[CFG_KEY_MAX];
        snprintf(name, sizeof name, "--%s", o->name);
        TRY(put_row(out, name, o->value, o->help, columns));
    }
    TRY(put_row(out, "--config", "FILE", "settings from this YAML file; the command line wins",
                columns));
    return put_row(out, "-h, --help", NULL, "show this help", columns);
}

static const char *const placeholders[] = {
    [CFG_INT] = "INT",   [CFG_FLOAT] = "NUMBER", [CFG_BOOL] = "true|false",
    [CFG_ENUM] = "NAME", [CFG_STRING] = "TEXT",
};

/* Help, what is allowed where the placeholder does not say it, the default. */
static err_t put_setting(struct buf *out, struct buf *text, const struct cfg_row *row,
                         int64_t columns)
{
    char name[CFG_KEY_MAX + 2], allowed[CFG_KEY_MAX * 4];
    snprintf(name, sizeof name, "--%s", row->key);
    buf_reset(text);
    TRY(buf_printf(text, "%s [", row->help));
    if (row->type != CFG_BOOL && row->type != CFG_STRING) {
        cfg_describe(allowed, row);
        TRY(buf_printf(text, "%s; ", allowed));
    }
    TRY(buf_printf(text, "default %s]", row->value[0] != '\0' ? row->value : "empty"));
    return put_row(out, name, placeholders[row->type], text->data, columns);
}

/* Whether "data|train" names the section of a row. */
static bool is_listed(const char *sections, const struct cfg_row *row)
{
    const size_t size = strcspn(row->key, ".");
    for (const char *s = sections; s != NULL; s = strchr(s, '|') ? strchr(s, '|') + 1 : NULL)
        if (strcspn(s, "|") == size && memcmp(s, row->key, size) == 0) return true;
    return false;
}

static bool is_same_section(const struct cfg_row *a, const struct cfg_row *b)
{
    const size_t size = strcspn(a->key, ".") + 1;
    return strncmp(a->key, b->key, size) == 0;
}

/* A section stands where its first row does, with the rows that later tables add to it. */
static err_t put_settings(struct buf *out, struct buf *text, const struct cli_spec *spec,
                          const struct cfg *cfg, int64_t columns)
{
    bool has_header = false;
    for (int64_t i = 0; i < cfg_row_count(cfg); i++) {
        const struct cfg_row *row = cfg_row_at(cfg, i);
        bool is_first = is_listed(spec->sections, row);
        for (int64_t j = 0; j < i; j++)
            is_first = is_first && !is_same_section(row, cfg_row_at(cfg, j));
        if (!is_first) continue;
        if (!has_header)
            TRY(buf_puts(out, "\nSettings, as --section.key=value or in the file of --config:\n"));
        has_header = true;
        TRY(buf_puts(out, "\n"));
        for (int64_t j = i; j < cfg_row_count(cfg); j++)
            if (is_same_section(row, cfg_row_at(cfg, j)))
                TRY(put_setting(out, text, cfg_row_at(cfg, j), columns));
    }
    return ERR_OK;
}

/* Each line of it is a command, to be copied as it is. */
static err_t put_example(struct buf *out, const char *example)
{
    TRY(buf_puts(out, "\nExample:\n"));
    while (*example != '\0') {
        example += strspn(example, " ");
        const int size = (int)strcspn(example, "\n");
        TRY(buf_printf(out, "  %.*s\n", size, example));
        example += size + (example[size] == '\n');
    }
    return ERR_OK;
}

static err_t format(struct buf *out, struct buf *text, const struct cli_spec *spec,
                    const struct cfg *cfg, int64_t columns)
{
    TRY(buf_printf(out, "Usage: soulchat %s [OPTION...]%s%s\n\n", spec->command,
                   spec->positional != NULL ? " " : "",
                   spec->positional != NULL ? spec->positional : ""));
    TRY(put_words(out, 0, spec->purpose, 0, columns));
    TRY(put_example(out, spec->example));
    TRY(put_options(out, spec, columns));
    return put_settings(out, text, spec, cfg, columns);
}

err_t cli_help_format(struct buf *out, const struct cli_spec *spec, const struct cfg *cfg,
                      int64_t columns)
{
    struct buf text = { 0 };
    if (columns < CLI_HELP_COLUMNS_MIN) columns = CLI_HELP_COLUMNS_MIN;
    if (columns > CLI_HELP_COLUMNS_MAX) columns = CLI_HELP_COLUMNS_MAX;
    const err_t rc = format(out, &text, spec, cfg, columns);
    buf_clear(&text);
    return rc;
}
