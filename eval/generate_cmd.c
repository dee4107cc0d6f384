/* soulchat generate: replies for a file of conversations, or for one question. */
#include "eval/commands.h"

#include "base/log.h"
#include "base/progress.h"
#include "base/stop.h"
#include "data/corpus.h"
#include "eval/gen.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cli_option options[] = {
    { "text", "TEXT", "answer this one question instead of a file; prints the reply as text" },
    { "limit", "N", "stop after N conversations" },
    { NULL, NULL, NULL },
};

static const struct cli_spec spec = {
    .command = "generate",
    .purpose = "Answer each conversation of a file (any corpus form); a last counsellor's turn is kept as "
               "\"reference\". One JSON object a line on standard output.",
    .example = "soulchat generate --generate.model=runs/tiny --text 我最近总是失眠\n"
               "soulchat generate --generate.model=runs/tiny data/sample/corpus.json > replies.jsonl",
    .positional = "FILE",
    .positional_max = 1,
    .options = options,
    .sections = "generate|data",
};

static const char *stop_name(enum gen_stop stop)
{
    static const char *const names[] = { "end", "length", "requested" };
    return names[stop];
}

static err_t print_piece(void *user, const char *text, int64_t size)
{
    (void)user;
    if (fwrite(text, 1, (size_t)size, stdout) != (size_t)size || fflush(stdout) != 0)
        RAISE(IO, "write to standard output: %s", strerror(errno));
    return ERR_OK;
}

static err_t answer_text(struct gen *gen, const char *text)
{
    const struct turn_text turn = { ROLE_CLIENT, text, (int64_t)strlen(text) };
    struct buf reply = { 0 };
    struct gen_stats stats;
    const err_t rc = gen_reply(gen, &reply, &stats, &turn, 1, 0, print_piece, NULL);
    buf_clear(&reply);
    TRY(rc);
    TRY(print_piece(NULL, "\n", 1));
    LOG_I("generate", "%lld prompt tokens in %.2f s, %lld new tokens in %.2f s (%.1f tokens/s)",
          (long long)stats.prompt_tokens, stats.prefill_s, (long long)stats.new_tokens,
          stats.decode_s, (double)stats.new_tokens / stats.decode_s);
    if (stats.stop == GEN_STOP_REQUESTED) RAISE(INTERRUPTED, "stopped before the reply's end");
    return ERR_OK;
}

static err_t print_line(const struct dialogue_text *d, const struct buf *reply,
                        const struct gen_stats *stats, const struct turn_text *reference)
{
    json_t *line = json_pack("{s:s, s:s%, s:s, s:I, s:I}", "id", d->id, "reply",
                             reply->size > 0 ? reply->data : "", reply->size, "stop",
                             stop_name(stats->stop), "prompt_tokens",
                             (json_int_t)stats->prompt_tokens, "new_tokens",
                             (json_int_t)stats->new_tokens);
    if (reference != NULL)
        json_object_set_new(line, "reference",
                            json_stringn(reference->text, (size_t)reference->size));
    char *text = line == NULL ? NULL : json_dumps(line, JSON_COMPACT);
    json_decref(line);
    if (text == NULL) RAISE(FORMAT, "%s: the reply is not UTF-8", d->id);
    const int failed = printf("%s\n", text) < 0 || fflush(stdout) != 0;
    free(text);
    if (failed) RAISE(IO, "write to standard output: %s", strerror(errno));
    return ERR_OK;
}

static err_t answer_dialogue(struct gen *gen, const struct dialogue_text *d, uint64_t index)
{
    err_t rc = ERR_OK;
    struct buf reply = { 0 };
    struct gen_stats stats;
    int64_t count = d->turn_count;
    const struct turn_text *reference = NULL;
    if (count > 0 && d->turns[count - 1].role == ROLE_COUNSELLOR) reference = &d->turns[--count];
    if (count == 0 || d->turns[count - 1].role != ROLE_CLIENT) {
        LOG_W("generate", "%s: passed over: no client's turn to answer", d->id);
        return ERR_OK;
    }
    TRY_DONE(gen_reply(gen, &reply, &stats, d->turns, count, index, NULL, NULL));
    if (stats.stop == GEN_STOP_REQUESTED)
        RAISE_DONE(INTERRUPTED, "stopped inside the reply to %s", d->id);
    TRY_DONE(print_line(d, &reply, &stats, reference));
done:
    buf_clear(&reply);
    return rc;
}

static err_t answer_file(struct gen *gen, const char *path, int64_t limit)
{
    err_t rc = ERR_OK;
    struct corpus *corpus;
    struct dialogue_text dialogue;
    struct progress progress;
    bool found = true;
    int64_t done = 0;
    TRY(corpus_open(&corpus, path, CORPUS_AUTO, CORPUS_FAIL));
    progress_begin(&progress, "generate", "replies", limit);
    while (limit == 0 || done < limit) {
        TRY_DONE(corpus_next(corpus, &dialogue, &found));
        if (!found) break;
        if (stop_requested()) RAISE_DONE(INTERRUPTED, "stopped after %lld replies", (long long)done);
        TRY_DONE(answer_dialogue(gen, &dialogue, (uint64_t)done));
        progress_update(&progress, ++done, "%s", "");
    }
done:
    progress_end(&progress);
    corpus_close(corpus);
    return rc;
}

static err_t parse_limit(int64_t *limit, const char *text)
{
    char *end;
    *limit = 0;
    if (text == NULL) return ERR_OK;
    *limit = strtoll(text, &end, 10);
    if (*limit < 1 || *end != '\0') RAISE(USAGE, "--limit is \"%s\"; expected a number above 0", text);
    return ERR_OK;
}

err_t cmd_generate(struct cfg *cfg, int argc, char **argv)
{
    struct cli_args args;
    struct gen *gen;
    int64_t limit;
    bool help_shown = false;
    TRY(cli_parse(&args, &help_shown, &spec, cfg, argc, argv));
    if (help_shown) return ERR_OK;
    const char *text = cli_option(&args, &spec, "text");
    if ((text == NULL) == (args.positional_count == 0))
        RAISE(USAGE, "generate takes either a FILE of conversations or --text TEXT");
    TRY(parse_limit(&limit, cli_option(&args, &spec, "limit")));

    stop_catch();
    TRY(gen_open(&gen, cfg));
    const err_t rc = text != NULL ? answer_text(gen, text)
                                  : answer_file(gen, args.positional[0], limit);
    gen_close(gen);
    return rc;
}
