#include "base/cli.h"

#include "base/check.h"
#include "base/cli_help.h"
#include "base/nearest.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

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
    int distance;
    const struct cfg_row *setting = cfg_nearest(&distance, c->cfg, name);
    struct nearest n = { .word = name };
    nearest_offer(&n, "help");
    nearest_offer(&n, "config");
    for (int64_t i = 0; i < option_count(c->spec); i++) nearest_offer(&n, c->spec->options[i].name);
    RAISE(USAGE, "%s: there is no option --%.80s; the nearest is --%s", c->spec->command, name,
          setting != NULL && distance < n.distance ? setting->key : n.best);
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

/* "train.steps=5" was meant as a setting; a file of that name can be given as ./train.steps=5. */
static err_t refuse_setting(const struct cursor *c, const char *word)
{
    char key[CFG_KEY_MAX];
    const size_t size = strcspn(word, "=");
    if (c->options_ended || word[size] == '\0' || size >= sizeof key) return ERR_OK;
    snprintf(key, sizeof key, "%.*s", (int)size, word);
    if (cfg_find(c->cfg, key) == NULL) return ERR_OK;
    RAISE(USAGE, "%s: \"%.80s\" is a setting without its dashes; write --%.80s", c->spec->command,
          word, word);
}

static err_t take_positional(struct cli_args *out, const struct cursor *c, const char *word)
{
    const struct cli_spec *spec = c->spec;
    ASSERT(spec->positional_max <= CLI_POSITIONAL_MAX);
    TRY(refuse_setting(c, word));
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
        if (it.kind == ITEM_POSITIONAL) TRY(take_positional(out, &c, it.value));
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

/* Of the terminal that --help is read on; elsewhere as wide as it gets. */
static int64_t columns_of_stdout(void)
{
    struct winsize window;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) != 0 || window.ws_col == 0)
        return CLI_HELP_COLUMNS_MAX;
    return window.ws_col;
}

static err_t show_help(const struct cli_spec *spec, const struct cfg *cfg)
{
    err_t rc = ERR_OK;
    struct buf text = { 0 };
    TRY_DONE(cli_help_format(&text, spec, cfg, columns_of_stdout()));
    fwrite(text.data, 1, text.size, stdout);
done:
    buf_clear(&text);
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
