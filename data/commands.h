/* commands.h - subcommands that live in this layer; each is a cli_command (base/cli.h). */
#ifndef DATA_COMMANDS_H
#define DATA_COMMANDS_H

#include "base/cli.h"

MUST_USE err_t cmd_tokenize(struct cfg *cfg, int argc, char **argv);
MUST_USE err_t cmd_prepare(struct cfg *cfg, int argc, char **argv);
MUST_USE err_t cmd_inspect(struct cfg *cfg, int argc, char **argv);

#endif
