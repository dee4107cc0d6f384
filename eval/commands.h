/* commands.h - subcommands that live in this layer; each is a cli_command (base/cli.h). */
#ifndef EVAL_COMMANDS_H
#define EVAL_COMMANDS_H

#include "base/cli.h"

MUST_USE err_t cmd_generate(struct cfg *cfg, int argc, char **argv);
MUST_USE err_t cmd_chat(struct cfg *cfg, int argc, char **argv);

#endif
