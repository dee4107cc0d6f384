/* soulchat generate: replies for a file of conversations, or for one question. */
#include "eval/commands.h"

#include "base/log.h"
#include "base/num.h"
#include "base/stop.h"
#include "base/utf8.h"
#include "eval/answer.h"
#include "eval/console.h"
#include "eval/gen.h"
#include "eval/question.h"
#include "eval/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct cli_option options[] = {
    { "text", "TEXT", "answer this one question instead of a file; prints the reply as text" },
    { "limit", "N", "stop after N replies" },
    { "skip", "N", "leave out the first N replies, which the output has already" },
    { NULL, NULL, NULL },
};

static const struct cli_spec spec = {
    .command = "generate",
    .purpose = "Answer each conversation of a file (any corpus form); a last counsellor's turn is "
               "kept as \"reference\". One JSON object a line on standard output.",
    .example =
        "soulchat generate --generate.model=runs/tiny --text 我最近总是失眠\n"
        "soulchat generate --generate.model=runs/tiny data/sample/corpus.json > replies.jsonl\n"
        "soulchat generate --generate.model=runs/tiny data/sample/corpus.json "
        "--skip $(wc -l < replies.jsonl) >> replies.jsonl",
    .positional = "FILE",
    .positional_max = 1,
    .options = options,
    .sections = "generate|data",
};

static err_t print_reply(struct gen *gen, const struct question *question)
{
    const struct gen_reply *reply = gen_reply(gen, 0);
    TRY(stream_reply(gen, question, 0));
    if (reply->tokens_cut > 0)
        LOG_W("generate", "the question is too long: its first %lld tokens were left out",
              (long long)reply->tokens_cut);
    LOG_I("generate", "%lld prompt tokens in %.2f s, %lld new tokens in %.2f s (%.1f tokens/s)",
          (long long)reply->prompt_tokens, reply->prefill_s, (long long)reply->new_tokens,
          reply->decode_s, reply->decode_s > 0 ? (double)reply->new_tokens / reply->decode_s : 0);
    if (reply->stop == GEN_STOP_REQUESTED) RAISE(INTERRUPTED, "stopped before the reply's end");
    return ERR_OK;
}

static err_t answer_text(const struct question *question, const struct cfg *cfg)
{
    struct gen *gen;
    TRY(gen_open(&gen, cfg, 1));
    const err_t rc = print_reply(gen, question);
    gen_close(gen);
    return rc;
}

static err_t run_text(const char *text, const struct cfg *cfg)
{
    err_t rc = ERR_OK;
    const struct turn_text turn = { ROLE_CLIENT, text, (int64_t)strlen(text) };
    struct question question = { 0 };
    TRY_DONE(question_set(&question, &turn, 1));
    if (utf8_valid_prefix(text, (int64_t)strlen(text)) != (int64_t)strlen(text))
        RAISE_DONE(USAGE, "--text is not UTF-8 from byte %lld on; is the terminal's encoding "
                   "another?", (long long)utf8_valid_prefix(text, (int64_t)strlen(text)));
    if (question.turn_count == 0) RAISE_DONE(USAGE, "--text is empty; expected a question");
    TRY_DONE(answer_text(&question, cfg));
done:
    question_clear(&question);
    return rc;
}

static err_t run_file(const char *path, const struct cfg *cfg, struct answer_options o)
{
    struct gen *gen;
    o.slots = cfg_int(cfg, "generate.batch");
    if (o.limit > 0) o.slots = min_i64(o.slots, o.limit);
    TRY(gen_open(&gen, cfg, o.slots));
    const err_t rc = answer_file(gen, path, cfg, &o);
    gen_close(gen);
    return rc;
}

/* An option that is a count, `min` or more; `absent` where it was not given. */
static err_t parse_count(int64_t *out, const struct cli_args *args, const char *name, int64_t min,
                         int64_t absent)
{
    const char *text = cli_option(args, &spec, name);
    char *end;
    *out = absent;
    if (text == NULL) return ERR_OK;
    errno = 0;
    *out = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || *out < min)
        RAISE(USAGE, "--%s is \"%s\"; expected a number from %lld on", name, text, (long long)min);
    return ERR_OK;
}

err_t cmd_generate(struct cfg *cfg, int argc, char **argv)
{
    struct cli_args args;
    struct answer_options o = { 0 };
    bool help_shown = false;
    TRY(cli_parse(&args, &help_shown, &spec, cfg, argc, argv));
    if (help_shown) return ERR_OK;
    const char *text = cli_option(&args, &spec, "text");
    if ((text == NULL) == (args.positional_count == 0))
        RAISE(USAGE, "generate takes either a FILE of conversations or --text TEXT");
    TRY(parse_count(&o.limit, &args, "limit", 1, 0));
    TRY(parse_count(&o.skip, &args, "skip", 0, 0));
    if (text != NULL && (o.limit > 0 || o.skip > 0))
        RAISE(USAGE, "--limit and --skip are for a FILE of conversations");

    TRY(stop_catch());
    console_open();
    return text != NULL ? run_text(text, cfg) : run_file(args.positional[0], cfg, o);
}
