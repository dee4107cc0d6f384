#include "base/cli.h"

#include "base/arena.h"
#include "base/check.h"
#include "base/nearest.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading ---- */

enum item_kind { ITEM_END, ITEM_POSITIONAL, ITEM_CONFIG, ITEM_OPTION, ITEM_SETTING };

struct item {
    enum item_kind kind;
    int64_t option;    /* index in spec->options */
    const char *value; /* of the option or setting, or the positional itself */
    char name[CFG_KEY_MAX];
};

/* One walk over argv; the same words are walked once for each purpose. */
struct cursor {
    const struct cli_spec *spec;
    const struct cfg *cfg;
    char **argv;
    int argc, next;
    bool options_ended; /* "--" was seen */
};

static int64_t option_count(const struct cli_spec *spec)
{
    int64_t count = 0;
    while (spec->options != NULL && spec->options[count].name != NULL) count++;
    ASSERT(count <= CLI_OPTIONS_MAX);
    return count;
}

static int64_t option_index(const struct cli_spec *spec, const char *name)
{
    for (int64_t i = 0; i < option_count(spec); i++)
        if (strcmp(spec->options[i].name, name) == 0) return i;
    return -1;
}

static err_t raise_unknown(const struct cursor *c, const char *name)
{
    struct nearest n = { .word = name };
    nearest_offer(&n, "help");
    nearest_offer(&n, "config");
    for (int64_t i = 0; i < option_count(c->spec); i++) nearest_offer(&n, c->spec->options[i].name);
    for (int64_t i = 0; i < cfg_row_count(c->cfg); i++)
        nearest_offer(&n, cfg_row_at(c->cfg, i)->key);
    RAISE(USAGE, "%s: there is no option --%.80s; the nearest is --%s", c->spec->command, name,
          n.best);
}

/* Find what --name is and whether it takes a value. */
static err_t identify(struct item *it, bool *takes_value, const struct cursor *c)
{
    it->kind = ITEM_CONFIG;
    *takes_value = true;
    if (strcmp(it->name, "config") == 0) return ERR_OK;
    it->kind = ITEM_OPTION;
    it->option = option_index(c->spec, it->name);
    if (it->option >= 0) {
        *takes_value = c->spec->options[it->option].value != NULL;
        return ERR_OK;
    }
    it->kind = ITEM_SETTING;
    if (cfg_find(c->cfg, it->name) != NULL) return ERR_OK;
    return raise_unknown(c, it->name);
}

static err_t next_item(struct item *it, struct cursor *c)
{
    *it = (struct item){ .kind = ITEM_END };
    if (!c->options_ended && c->next < c->argc && strcmp(c->argv[c->next], "--") == 0) {
        c->options_ended = true;
        c->next++;
    }
    if (c->next == c->argc) return ERR_OK;
    const char *word = c->argv[c->next++];
    if (c->options_ended || word[0] != '-' || word[1] == '\0') {
        it->kind = ITEM_POSITIONAL;
        it->value = word;
        return ERR_OK;
    }
    if (word[1] != '-')
        RAISE(USAGE, "%s: %.80s: options begin with two dashes; see --help", c->spec->command,
              word);

    const char *name = word + 2;
    const size_t name_size = strcspn(name, "=");
    const char *attached = name[name_size] == '=' ? name + name_size + 1 : NULL;
    snprintf(it->name, sizeof it->name, "%.*s", (int)name_size, name); /* known names fit */
    bool takes_value;
    TRY(identify(it, &takes_value, c));
    if (!takes_value && attached != NULL)
        RAISE(USAGE, "%s: --%s takes no value, found \"%.80s\"", c->spec->command, it->name,
              attached);
    if (takes_value && attached == NULL && c->next == c->argc)
        RAISE(USAGE, "%s: --%s needs a value: --%s=VALUE", c->spec->command, it->name, it->name);
    it->value = !takes_value ? "1" : attached ? attached : c->argv[c->next++];
    return ERR_OK;
}

static err_t take_positional(struct cli_args *out, const struct cli_spec *spec, const char *word)
{
    ASSERT(spec->positional_max <= CLI_POSITIONAL_MAX);
    if (spec->positional_max == 0)
        RAISE(USAGE, "%s: \"%.80s\" is not an option, and nothing else is expected; settings are "
              "written --section.key=value", spec->command, word);
    if (out->positional_count == spec->positional_max)
        RAISE(USAGE, "%s: \"%.80s\" is one too many; at most %lld (%s)", spec->command, word,
              (long long)spec->positional_max, spec->positional);
    out->positional[out->positional_count++] = word;
    return ERR_OK;
}

/* Names first, so that a typo is reported before a file is read. */
static err_t take_own(struct cli_args *out, struct cursor c)
{
    struct item it;
    for (;;) {
        TRY(next_item(&it, &c));
        if (it.kind == ITEM_END) return ERR_OK;
        if (it.kind == ITEM_OPTION) out->option[it.option] = it.value;
        if (it.kind == ITEM_POSITIONAL) TRY(take_positional(out, c.spec, it.value));
    }
}

static err_t load_configs(struct cfg *cfg, struct cursor c)
{
    struct item it;
    for (;;) {
        TRY(next_item(&it, &c));
        if (it.kind == ITEM_END) return ERR_OK;
        if (it.kind == ITEM_CONFIG) TRY(cfg_load_yaml(cfg, it.value));
    }
}

static err_t apply_settings(struct cfg *cfg, struct cursor c)
{
    struct item it;
    for (;;) {
        TRY(next_item(&it, &c));
        if (it.kind == ITEM_END) return ERR_OK;
        if (it.kind == ITEM_SETTING) TRY(cfg_set(cfg, it.name, it.value, "command line"));
    }
}

/* ---- help ---- */

/* A line of text that lives as long as the arena. */
static err_t keep_text(const char **out, struct arena *a, const struct buf *text)
{
    void *copy;
    TRY(arena_push(a, &copy, (int64_t)text->size + 1, 1));
    memcpy(copy, text->data, text->size + 1);
    *out = copy;
    return ERR_OK;
}

/* Whether "data|train" names the section of a row. */
static bool is_listed(const char *sections, const struct cfg_row *row)
{
    const size_t size = strcspn(row->key, ".");
    for (const char *s = sections; s != NULL; s = strchr(s, '|') ? strchr(s, '|') + 1 : NULL)
        if (strcspn(s, "|") == size && memcmp(s, row->key, size) == 0) return true;
    return false;
}

/* An ENUM shows its choices. */
static const char *const placeholders[] = {
    [CFG_INT] = "INT", [CFG_FLOAT] = "NUMBER", [CFG_BOOL] = "true|false", [CFG_STRING] = "TEXT",
};

enum { GROUP_OWN = 1, GROUP_SETTINGS = 2 };

/* argp wants a nonzero key for each option; above 127 there is no short form. */
#define KEY_WITHOUT_LETTER 256

static err_t describe_settings(struct argp_option *rows, int64_t *count, struct arena *a,
                               struct buf *text, const struct cli_spec *spec, const struct cfg *cfg)
{
    bool has_header = false;
    for (int64_t i = 0; i < cfg_row_count(cfg); i++) {
        const struct cfg_row *row = cfg_row_at(cfg, i);
        if (!is_listed(spec->sections, row)) continue;
        if (!has_header)
            rows[(*count)++] = (struct argp_option){
                .doc = "Settings (also section: key: value in the file of --config):",
                .group = GROUP_SETTINGS };
        has_header = true;
        buf_reset(text);
        TRY(buf_printf(text, "%s; default \"%s\"", row->help, row->value));
        if (row->type == CFG_INT || row->type == CFG_FLOAT) {
            char allowed[CFG_KEY_MAX * 4];
            cfg_describe(allowed, row);
            TRY(buf_printf(text, ", %s", allowed));
        }
        struct argp_option *o = &rows[(*count)++];
        *o = (struct argp_option){ .name = row->key, .key = KEY_WITHOUT_LETTER + (int)*count,
                                   .arg = row->type == CFG_ENUM ? row->choices
                                                                : placeholders[row->type],
                                   .group = GROUP_SETTINGS };
        TRY(keep_text(&o->doc, a, text));
    }
    return ERR_OK;
}

static err_t show_help(const struct cli_spec *spec, const struct cfg *cfg)
{
    err_t rc = ERR_OK;
    struct arena a = { 0 };
    struct buf text = { 0 };
    void *rows = NULL;
    int64_t count = 0;
    const char *doc, *name;
    const int64_t rows_max = option_count(spec) + cfg_row_count(cfg) + 4;
    TRY_DONE(arena_push(&a, &rows, rows_max * (int64_t)sizeof(struct argp_option), 16));

    struct argp_option *options = rows;
    for (int64_t i = 0; i < option_count(spec); i++) {
        const struct cli_option *o = &spec->options[i];
        options[count++] = (struct argp_option){ .name = o->name, .arg = o->value, .doc = o->help,
                                                 .key = KEY_WITHOUT_LETTER + (int)i,
                                                 .group = GROUP_OWN };
    }
    options[count++] = (struct argp_option){ .name = "config", .arg = "FILE", .group = GROUP_OWN,
                                             .key = 'c' + KEY_WITHOUT_LETTER,
                                             .doc = "read settings from this YAML file first" };
    options[count++] = (struct argp_option){ .name = "help", .key = 'h', .group = GROUP_OWN,
                                             .doc = "show this help" };
    TRY_DONE(describe_settings(options, &count, &a, &text, spec, cfg));
    ASSERT(count < rows_max); /* a zeroed row ends the list */

    buf_reset(&text);
    TRY_DONE(buf_printf(&text, "%s\vExample:\n%s\n", spec->purpose, spec->example));
    TRY_DONE(keep_text(&doc, &a, &text));
    buf_reset(&text);
    TRY_DONE(buf_printf(&text, "soulchat %s", spec->command));
    TRY_DONE(keep_text(&name, &a, &text));
    const struct argp argp = { .options = options, .args_doc = spec->positional, .doc = doc };
    argp_help(&argp, stdout, ARGP_HELP_SHORT_USAGE | ARGP_HELP_LONG | ARGP_HELP_DOC, (char *)name);
done:
    buf_clear(&text);
    arena_clear(&a);
    return rc;
}

static bool asks_for_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return true;
    return false;
}

/* ---- the whole ---- */

err_t cli_parse(struct cli_args *out, bool *help_shown, const struct cli_spec *spec,
                struct cfg *cfg, int argc, char **argv)
{
    ASSERT(argc >= 1);
    ASSERT(option_index(spec, "config") < 0 && option_index(spec, "help") < 0);
    *out = (struct cli_args){ 0 };
    *help_shown = asks_for_help(argc, argv);
    if (*help_shown) return show_help(spec, cfg);

    const struct cursor begin = { .spec = spec, .cfg = cfg, .argv = argv, .argc = argc, .next = 1 };
    TRY(take_own(out, begin));
    TRY(load_configs(cfg, begin));
    return apply_settings(cfg, begin);
}

const char *cli_option(const struct cli_args *args, const struct cli_spec *spec, const char *name)
{
    const int64_t index = option_index(spec, name);
    ASSERT(index >= 0);
    return args->option[index];
}
