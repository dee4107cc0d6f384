#include "base/cli.h"
#include "data/commands.h"
#include "data/tok.h"
#include "data/tokenize.h"

#include <signal.h>
#include <stdio.h>

static const struct cli_option OPTIONS[] = {
    { "model", "DIR", "model folder, or a .model file (required)" },
    { "decode", NULL, "read {\"ids\":[...]} or [...] a line, write a JSON string" },
    { "special", NULL, "names such as <sop> in the text become special ids" },
    { "pieces", NULL, "add the names of the pieces" },
    { NULL, NULL, NULL },
};
static const struct cli_spec SPEC = {
    .command = "tokenize",
    .purpose = "Turn text into token ids and back, one JSON value a line.",
    .example = "  echo '\"你好\"' | soulchat tokenize --model data/sample/model",
    .options = OPTIONS,
};

err_t cmd_tokenize(struct cfg *cfg, int argc, char **argv)
{
    err_t rc = ERR_OK;
    struct tok *tok = NULL;
    struct cli_args args;
    bool help_shown = false;
    TRY(cli_parse(&args, &help_shown, &SPEC, cfg, argc, argv));
    if (help_shown) return ERR_OK;
    const char *model = cli_option(&args, &SPEC, "model");
    if (model == NULL) RAISE(USAGE, "tokenize: --model DIR is missing");

    const struct tokenize_options options = {
        .decode = cli_option(&args, &SPEC, "decode") != NULL,
        .special = cli_option(&args, &SPEC, "special") != NULL,
        .pieces = cli_option(&args, &SPEC, "pieces") != NULL,
    };
    if (options.decode && (options.special || options.pieces))
        RAISE(USAGE, "tokenize: --decode does not go with --special or --pieces");
    signal(SIGPIPE, SIG_IGN); /* a reader that left is an error of write_answer(), not a death */
    TRY_DONE(tok_open(&tok, model));
    TRY_DONE(tokenize_lines(stdout, stdin, tok, &options));
done:
    tok_close(tok);
    return rc;
}
