#include "eval/answer.h"

#include "base/check.h"
#include "base/log.h"
#include "base/num.h"
#include "base/progress.h"
#include "base/stop.h"
#include "data/corpus.h"
#include "eval/console.h"
#include "eval/question.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Replies that are ready wait here for an earlier one; conversations begun and not yet written. */
#define WINDOW_PER_SLOT 16

struct line {
    json_t *json; /* id and reference, later the rest */
    bool ready;
};

struct answers {
    struct gen *gen;
    const struct answer_options *options;
    struct corpus *corpus;
    struct question question;
    const char *id;  /* of it; borrowed from the corpus */
    int64_t records; /* read, with those passed over */
    bool at_end;
    struct line *window; /* line n is window[n % window_count] */
    int64_t window_count;
    int64_t *line_of_slot;  /* -1: the slot is free */
    int64_t begun, written; /* lines; without what was skipped */
    int64_t tokens;
    struct progress progress;
};

/* ---- conversations in ---- */

static err_t open_corpus(struct answers *a, const char *path, const struct cfg *cfg)
{
    corpus_close(a->corpus);
    a->corpus = NULL;
    a->records = 0;
    a->at_end = false;
    return corpus_open(&a->corpus, path, (enum corpus_form)cfg_enum(cfg, "data.form"),
                       (enum corpus_on_bad_record)cfg_enum(cfg, "data.on_bad_record"));
}

/* The next conversation that can be answered, into a->question; else a->at_end. */
static err_t next_question(struct answers *a, bool tell)
{
    struct dialogue_text dialogue;
    bool found = true;
    for (;;) {
        TRY(corpus_next(a->corpus, &dialogue, &found));
        a->at_end = !found;
        if (!found) return ERR_OK;
        a->records++;
        a->id = dialogue.id;
        TRY(question_set(&a->question, dialogue.turns, dialogue.turn_count));
        if (a->question.turn_count > 0) return ERR_OK;
        if (tell) LOG_W("generate", "%s: passed over: no client's turn to answer", dialogue.id);
    }
}

static bool wants_more(const struct answers *a)
{
    return !a->at_end && (a->options->limit == 0 || a->begun < a->options->limit);
}

static err_t stop_if_asked(const struct answers *a)
{
    const long long done = (long long)(a->options->skip + a->written);
    if (!stop_requested()) return ERR_OK;
    RAISE(INTERRUPTED, "stopped after %lld replies; append the rest with --skip %lld", done, done);
}

/* How many replies there will be. */
static err_t count_replies(int64_t *count, struct answers *a, const char *path,
                           const struct cfg *cfg)
{
    int64_t found = 0;
    TRY(open_corpus(a, path, cfg));
    for (;; found++) {
        TRY(stop_if_asked(a));
        TRY(next_question(a, false));
        if (a->at_end) break;
    }
    *count = max_i64(found - a->options->skip, 0);
    if (a->options->limit > 0) *count = min_i64(*count, a->options->limit);
    if (*count == 0)
        LOG_W("generate", "%s: %lld conversations to answer, %lld skipped: nothing to do", path,
              (long long)found, (long long)a->options->skip);
    return ERR_OK;
}

/* ---- lines out ---- */

static err_t begin_line(struct answers *a, struct line *line)
{
    const struct turn_text *reference = a->question.reference;
    line->ready = false;
    line->json = json_pack("{s:s}", "id", a->id);
    if (line->json != NULL && reference != NULL)
        json_object_set_new(line->json, "reference",
                            json_stringn(reference->text, (size_t)reference->size));
    if (line->json == NULL) RAISE(FORMAT, "%s: its id is not UTF-8", a->id);
    return ERR_OK;
}

static err_t fill_line(struct line *line, const struct gen_reply *reply)
{
    const struct buf *text = &reply->text;
    json_t *rest =
        json_pack("{s:s%, s:s, s:I, s:I}", "reply", text->size > 0 ? text->data : "", text->size,
                  "stop", gen_stop_name(reply->stop), "prompt_tokens",
                  (json_int_t)reply->prompt_tokens, "new_tokens", (json_int_t)reply->new_tokens);
    if (rest != NULL && reply->turns_dropped > 0)
        json_object_set_new(rest, "turns_dropped", json_integer(reply->turns_dropped));
    if (rest != NULL && reply->tokens_cut > 0)
        json_object_set_new(rest, "tokens_cut", json_integer(reply->tokens_cut));
    const int failed = rest == NULL || json_object_update(line->json, rest) != 0;
    json_decref(rest);
    if (failed) RAISE(NOMEM, "a line of output");
    line->ready = true;
    return ERR_OK;
}

static err_t write_line(struct line *line)
{
    err_t rc = ERR_OK;
    struct buf out = { 0 };
    char *text = json_dumps(line->json, JSON_COMPACT);
    if (text == NULL) RAISE_DONE(NOMEM, "a line of output");
    TRY_DONE(buf_puts(&out, text));
    TRY_DONE(buf_append(&out, "\n", 1));
    TRY_DONE(console_write(out.data, (int64_t)out.size));
done:
    free(text);
    buf_clear(&out);
    return rc;
}

/* ---- the two together ---- */

static err_t write_ready(struct answers *a)
{
    for (;;) {
        struct line *line = &a->window[a->written % a->window_count];
        if (a->written == a->begun || !line->ready) return ERR_OK;
        TRY(write_line(line));
        json_decref(line->json);
        *line = (struct line){ 0 };
        a->written++;
        progress_update(&a->progress, a->written, "%.1f tokens/s",
                        (double)a->tokens / (time_now_s() - a->progress.time_begin_s));
    }
}

static err_t begin_more(struct answers *a)
{
    for (int64_t slot = 0; slot < a->options->slots; slot++) {
        if (a->line_of_slot[slot] >= 0) continue;
        if (!wants_more(a) || a->begun - a->written == a->window_count) return ERR_OK;
        TRY(stop_if_asked(a));
        TRY(next_question(a, true));
        if (a->at_end) return ERR_OK;
        TRY(begin_line(a, &a->window[a->begun % a->window_count]));
        a->line_of_slot[slot] = a->begun++;
        TRY(gen_begin(a->gen, slot, a->question.turns, a->question.turn_count,
                      (uint64_t)a->records - 1));
    }
    return ERR_OK;
}

static err_t collect_ended(struct answers *a)
{
    for (int64_t slot = 0; slot < a->options->slots; slot++) {
        const int64_t number = a->line_of_slot[slot];
        if (number < 0 || gen_is_busy(a->gen, slot)) continue;
        a->tokens += gen_reply(a->gen, slot)->new_tokens;
        TRY(fill_line(&a->window[number % a->window_count], gen_reply(a->gen, slot)));
        a->line_of_slot[slot] = -1;
    }
    return ERR_OK;
}

static err_t answer_all(struct answers *a)
{
    for (int64_t i = 0; i < a->options->skip && !a->at_end; i++) {
        TRY(stop_if_asked(a));
        TRY(next_question(a, false));
    }
    for (;;) {
        TRY(begin_more(a));
        if (a->begun == a->written) return ERR_OK;
        TRY(stop_if_asked(a));
        TRY(gen_step(a->gen));
        TRY(collect_ended(a));
        TRY(write_ready(a));
    }
}

static err_t allocate(struct answers *a)
{
    a->window_count = a->options->slots * WINDOW_PER_SLOT;
    a->window = calloc((size_t)a->window_count, sizeof *a->window);
    a->line_of_slot = malloc((size_t)a->options->slots * sizeof *a->line_of_slot);
    if (a->window == NULL || a->line_of_slot == NULL)
        RAISE(NOMEM, "generate: %lld conversations at once", (long long)a->options->slots);
    for (int64_t i = 0; i < a->options->slots; i++) a->line_of_slot[i] = -1;
    return ERR_OK;
}

err_t answer_file(struct gen *gen, const char *path, const struct cfg *cfg,
                  const struct answer_options *options)
{
    err_t rc = ERR_OK;
    struct answers a = { .gen = gen, .options = options };
    int64_t total = 0;
    ASSERT(options->slots > 0 && options->skip >= 0 && options->limit >= 0);
    TRY_DONE(allocate(&a));
    TRY_DONE(count_replies(&total, &a, path, cfg));
    TRY_DONE(open_corpus(&a, path, cfg));
    progress_begin(&a.progress, "generate", "replies", total);
    if (isatty(STDOUT_FILENO) == 1) a.progress.is_tty = false; /* the lines themselves are there */
    rc = answer_all(&a);
    progress_end(&a.progress);
    if (rc == ERR_OK && corpus_skipped(a.corpus) > 0)
        LOG_W("generate", "%s: %lld bad records passed over", path,
              (long long)corpus_skipped(a.corpus));
done:
    for (int64_t i = 0; a.window != NULL && i < a.window_count; i++) json_decref(a.window[i].json);
    free(a.window);
    free(a.line_of_slot);
    question_clear(&a.question);
    corpus_close(a.corpus);
    return rc;
}
