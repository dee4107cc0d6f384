/* soulchat chat: a conversation in the terminal, streamed. In a pipe: a line in, a reply out. */
#include "eval/commands.h"

#include "base/check.h"
#include "base/stop.h"
#include "eval/console.h"
#include "eval/gen.h"
#include "eval/question.h"
#include "eval/stream.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINE_BYTES_MAX (4 << 20) /* what follows on the same line is left out */

static const char HELP[] = "/reset begins a new conversation, /help shows this, /quit or Ctrl-D "
                           "ends; Ctrl-C stops a reply.\n";

static const struct cli_spec spec = {
    .command = "chat",
    .purpose = "Talk with a trained model in the terminal; from a pipe, each line is a turn and "
               "only replies are printed.",
    .example = "soulchat chat --generate.model=runs/tiny\n"
               "printf '我最近总是失眠\\n' | soulchat chat --generate.model=runs/tiny",
    .sections = "generate|data",
};

struct chat {
    struct gen *gen;
    struct turn_text *turns; /* texts are owned */
    int64_t count, capacity;
    struct question question;
    struct buf line;
    char input[4096]; /* read and not yet taken: from input_at on */
    ssize_t input_at, input_count;
    uint64_t replies; /* so far: each has a random stream of its own */
    bool is_terminal; /* a person types */
};

/* ---- the conversation so far ---- */

static void forget(struct chat *c)
{
    for (int64_t i = 0; i < c->count; i++) free((char *)c->turns[i].text);
    c->count = 0;
}

static err_t remember(struct chat *c, enum role role, const struct buf *text)
{
    ARRAY_GROW(c->turns, c->capacity, c->count + 1);
    char *copy = malloc(text->size + 1);
    if (copy == NULL) RAISE(NOMEM, "chat: no memory for a turn of %zu bytes", text->size);
    if (text->size > 0) memcpy(copy, text->data, text->size);
    copy[text->size] = '\0';
    c->turns[c->count++] = (struct turn_text){ role, copy, (int64_t)text->size };
    return ERR_OK;
}

/* ---- the person's line ---- */

/* At the prompt Ctrl-C leaves. */
static err_t stop_if_asked(void)
{
    if (stop_requested()) RAISE(INTERRUPTED, "the chat was stopped");
    return ERR_OK;
}

/* The next byte of standard input; *found = false at its end. */
static err_t read_byte(struct chat *c, char *byte, bool *found)
{
    if (c->input_at == c->input_count) {
        if (!stop_wait_readable(STDIN_FILENO) && c->is_terminal) TRY(console_puts("\n"));
        TRY(stop_if_asked());
        c->input_at = 0;
        do c->input_count = read(STDIN_FILENO, c->input, sizeof c->input);
        while (c->input_count < 0 && errno == EINTR);
    }
    if (c->input_count < 0 && console_is_gone(STDIN_FILENO, errno))
        RAISE(INTERRUPTED, "the terminal was closed");
    if (c->input_count < 0) RAISE(IO, "read standard input: %s", strerror(errno));
    *found = c->input_count > 0;
    if (*found) *byte = c->input[c->input_at++];
    return ERR_OK;
}

/* A line without its end, bytes as they are; *found = false at the end of input. The last line may
 * lack its end. */
static err_t read_line(struct chat *c, bool *found)
{
    int64_t left_out = 0;
    buf_reset(&c->line);
    *found = false;
    for (;;) {
        char byte = '\n';
        bool has_byte;
        TRY(read_byte(c, &byte, &has_byte));
        if (!has_byte && !*found) return ERR_OK;
        *found = true;
        if (byte == '\n') break;
        if (c->line.size == LINE_BYTES_MAX)
            left_out++;
        else
            TRY(buf_append(&c->line, &byte, 1));
    }
    if (left_out > 0)
        fprintf(stderr, "(only the first %d bytes of this line were read)\n", LINE_BYTES_MAX);
    return ERR_OK;
}

static err_t prompt(const struct chat *c, const char *name)
{
    if (!c->is_terminal) return ERR_OK;
    TRY(console_puts(name));
    return console_puts(gen_names(c->gen)->separator);
}

/* ---- the reply ---- */

static void tell_what_is_odd(const struct gen_reply *reply)
{
    if (reply->turns_dropped > 0)
        fprintf(stderr, "(oldest turns that no longer fit and were left out: %lld)\n",
                (long long)reply->turns_dropped);
    if (reply->tokens_cut > 0)
        fprintf(stderr, "(too long: the first %lld tokens were left out)\n",
                (long long)reply->tokens_cut);
    if (reply->text.size == 0 && reply->stop == GEN_STOP_END)
        fprintf(stderr, "(the model gave an empty reply)\n");
    if (reply->stop == GEN_STOP_LENGTH) fprintf(stderr, "(cut at generate.max_new_tokens)\n");
}

static err_t answer(struct chat *c)
{
    const struct gen_reply *reply = gen_reply(c->gen, 0);
    TRY(prompt(c, gen_names(c->gen)->counsellor_name));
    TRY(stream_reply(c->gen, &c->question, c->replies++));
    tell_what_is_odd(reply);
    if (reply->stop == GEN_STOP_REQUESTED) {
        if (!c->is_terminal || stop_signal() != SIGINT) return stop_if_asked();
        stop_reset(); /* Ctrl-C ends this reply, not the chat */
    }
    return remember(c, ROLE_COUNSELLOR, &reply->text);
}

/* ---- commands ---- */

enum line_kind { LINE_QUESTION, LINE_EMPTY, LINE_QUIT, LINE_RESET, LINE_HELP, LINE_UNKNOWN };

/* Tidies the line as well. */
static enum line_kind line_kind(struct buf *line)
{
    static const struct {
        const char *text;
        enum line_kind kind;
    } commands[] = { { "/quit", LINE_QUIT },
                     { "/exit", LINE_QUIT },
                     { "/reset", LINE_RESET },
                     { "/help", LINE_HELP } };
    if (line->size == 0) return LINE_EMPTY;
    int64_t size = (int64_t)line->size;
    const char *text = clean_text(line->data, &size);
    memmove(line->data, text, (size_t)size);
    line->size = (size_t)size;
    if (size == 0) return LINE_EMPTY;
    for (int64_t i = 0; i < COUNT_OF(commands); i++)
        if (line->size == strlen(commands[i].text) &&
            memcmp(line->data, commands[i].text, line->size) == 0)
            return commands[i].kind;
    return line->data[0] == '/' ? LINE_UNKNOWN : LINE_QUESTION;
}

static err_t converse(struct chat *c)
{
    bool found = true;
    if (c->is_terminal)
        fprintf(stderr, "Replies are generated by a model and are no medical advice.\n%s", HELP);
    for (;;) {
        TRY(stop_if_asked());
        TRY(prompt(c, gen_names(c->gen)->client_name));
        TRY(read_line(c, &found));
        if (!found) return c->is_terminal ? console_puts("\n") : ERR_OK;
        const enum line_kind kind = line_kind(&c->line);
        if (kind == LINE_QUIT) return ERR_OK;
        if (kind == LINE_RESET) forget(c);
        if (kind == LINE_HELP) fputs(HELP, stderr);
        if (kind == LINE_UNKNOWN) fprintf(stderr, "(no such command) %s", HELP);
        if (kind != LINE_QUESTION) continue;
        TRY(remember(c, ROLE_CLIENT, &c->line));
        TRY(question_set(&c->question, c->turns, c->count));
        TRY(answer(c));
    }
}

err_t cmd_chat(struct cfg *cfg, int argc, char **argv)
{
    err_t rc = ERR_OK;
    struct cli_args args;
    struct chat chat = { .is_terminal = isatty(STDIN_FILENO) == 1 };
    bool help_shown = false;
    TRY(cli_parse(&args, &help_shown, &spec, cfg, argc, argv));
    if (help_shown) return ERR_OK;
    TRY(stop_catch());
    console_open();
    TRY_DONE(gen_open(&chat.gen, cfg, 1));
    TRY_DONE(converse(&chat));
done:
    forget(&chat);
    free(chat.turns);
    question_clear(&chat.question);
    buf_clear(&chat.line);
    gen_close(chat.gen);
    return rc;
}
