/* commands.h - subcommands that live in this layer; each is a cli_command (base/cli.h). */
#ifndef TRAIN_COMMANDS_H
#define TRAIN_COMMANDS_H

#include "base/cli.h"

MUST_USE err_t cmd_train(struct cfg *cfg, int argc, char **argv);
MUST_USE err_t cmd_bench(struct cfg *cfg, int argc, char **argv);
MUST_USE err_t cmd_ckpt(struct cfg *cfg, int argc, char **argv);
MUST_USE err_t cmd_plan(struct cfg *cfg, int argc, char **argv);

#endif
