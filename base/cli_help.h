/*
 * cli_help.h - the text of `soulchat COMMAND --help`; base/cli.h prints it.
 *
 *     TRY(cli_help_format(&text, &spec, cfg, 80));
 *
 * Usage, purpose and examples first, then the options, then the settings by section in the order
 * of their tables, each with its range or choices and its default. No line is longer than
 * `columns`, except examples, which stay whole to be copied, and single words that do not fit.
 */
#ifndef BASE_CLI_HELP_H
#define BASE_CLI_HELP_H

#include "base/buf.h"
#include "base/cli.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CLI_HELP_COLUMNS_MIN 40
#define CLI_HELP_COLUMNS_MAX 100 /* longer lines are hard to read, however wide the terminal */

/* Appended to *out. columns is clamped to the limits above. ERR_NOMEM. */
MUST_USE err_t cli_help_format(struct buf *out, const struct cli_spec *spec, const struct cfg *cfg,
                               int64_t columns);

#ifdef __cplusplus
}
#endif
#endif
