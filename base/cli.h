/*
 * cli.h - one command line grammar for every subcommand:
 *
 *     soulchat COMMAND [--config FILE] [--section.key=value ...] [own options] [positional ...]
 *
 * A command describes its own options in a table, and which settings (sections) it shows in --help.
 * --help prints the purpose, worked examples, own options and the settings with type, default and
 * range (base/cli_help.h). Reading and layout are our own: getopt and argp would take any unique
 * beginning of a name for the name, and a typo must be an error that names the nearest option
 * instead; argp does not break a long list of choices.
 * Options and settings may stand anywhere; "--" ends them; "-" is a positional.
 */
#ifndef BASE_CLI_H
#define BASE_CLI_H

#include "base/cfg.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CLI_OPTIONS_MAX    16
#define CLI_POSITIONAL_MAX 64

struct cli_option {
    const char *name;  /* "json", without dashes */
    const char *value; /* placeholder such as "FILE", or NULL for a flag */
    const char *help;
};

struct cli_spec {
    const char *command; /* "train" */
    const char *purpose; /* one sentence */
    const char *example; /* one or more lines, each a command that works */
    const char *positional; /* as shown in usage: "FILE...", or NULL when there are none */
    int64_t positional_max;
    const struct cli_option *options; /* ends with a row whose name is NULL; may be NULL */
    const char *sections; /* "data|train": settings listed in --help; NULL = none */
};

struct cli_args {
    /* Values by index in spec->options; "1" for a flag; NULL = not given. */
    const char *option[CLI_OPTIONS_MAX];
    const char *positional[CLI_POSITIONAL_MAX];
    int64_t positional_count;
};

/*
 * Parse argv (argv[0] is the command's name). Loads --config into cfg, then applies
 * --section.key=value in order. Values are borrowed from argv.
 * Returns ERR_OK; ERR_USAGE with a message; what cfg_load_yaml returns. When --help was asked for,
 * prints it to stdout and sets *help_shown (the command then returns at once with ERR_OK).
 * An option given twice: the last one counts; several --config files are read in order.
 */
MUST_USE err_t cli_parse(struct cli_args *out, bool *help_shown, const struct cli_spec *spec,
                         struct cfg *cfg, int argc, char **argv);
/* The value of an option by name, or NULL. ASSERTs that the spec has it. */
const char *cli_option(const struct cli_args *args, const struct cli_spec *spec, const char *name);

/* A subcommand: parses its arguments, does its work, returns. Declared by each *_cmd.c's layer in
 * <layer>/commands.h; listed in soulchat.c. */
typedef err_t (*cli_command)(struct cfg *cfg, int argc, char **argv);

#ifdef __cplusplus
}
#endif
#endif
