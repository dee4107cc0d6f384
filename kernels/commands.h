/* commands.h - subcommands that live in this layer; each is a cli_command (base/cli.h). */
#ifndef KERNELS_COMMANDS_H
#define KERNELS_COMMANDS_H

#include "base/cli.h"

MUST_USE err_t cmd_doctor(struct cfg *cfg, int argc, char **argv);

#endif
