#include "base/cli.h"
#include "base/log.h"
#include "base/stop.h"
#include "data/commands.h"
#include "data/prepare.h"
#include "data/report_html.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static const struct cli_option OPTIONS[] = {
    { "json", NULL, "print the report as JSON on stdout" },
    { "list-rules", NULL, "name the cleaning rules and what each can do, and leave" },
    { NULL, NULL, NULL },
};
static const struct cli_spec SPEC = {
    .command = "prepare",
    .purpose = "Read dialogues, tidy and tokenize them, and store them as shards for training.",
    .example = "soulchat prepare --data.source=data/sample/corpus.json "
               "--data.tokenizer=data/sample/model --data.dir=runs/sample",
    .options = OPTIONS,
    .sections = "data|batch",
};

/* Ctrl-C and termination are blocked and asked for between dialogues, so that there is one way out,
 * which cleans up. */
static bool signal_came(void *context)
{
    const sigset_t *signals = context;
    const struct timespec now = { 0 };
    for (int came; (came = sigtimedwait(signals, NULL, &now)) >= 0;)
        if (!stop_is_ignored(came)) return true;
    return false;
}

static err_t run(struct prepare_counts *counts, struct prepare_options *o)
{
    sigset_t signals, before;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    const int failed = pthread_sigmask(SIG_BLOCK, &signals, &before);
    if (failed) RAISE(IO, "block signals: %s", strerror(failed));
    o->stop = signal_came;
    o->stop_context = &signals;
    const err_t rc = prepare_run(counts, o);
    while (signal_came(&signals)) continue; /* too late to stop, or stopped already */
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

static err_t print_report(const struct prepare_counts *counts, const struct prepare_options *o,
                          bool json)
{
    err_t rc = ERR_OK;
    struct buf text = { 0 };
    TRY_DONE(prepare_report_table(&text, counts, o));
    fputs(text.data, stderr);
    buf_reset(&text);
    if (!json) goto done;
    TRY_DONE(prepare_report_json(&text, counts, o));
    if (puts(text.data) == EOF || fflush(stdout) != 0)
        RAISE_DONE(IO, "write the report: %s", strerror(errno));
done:
    buf_clear(&text);
    return rc;
}

/* Each rule, its actions (the standard one first), and what it does. */
static err_t list_rules(void)
{
    for (int64_t i = 0; i < CLEAN_RULE_COUNT; i++) {
        const struct clean_rule *rule = clean_rule_at(i);
        char actions[96];
        int size = snprintf(actions, sizeof actions, "%s", clean_action_name(rule->standard));
        for (int a = 0; a < CLEAN_ACTION_COUNT; a++)
            if ((rule->allowed >> a & 1) && a != (int)rule->standard)
                size += snprintf(actions + size, sizeof actions - (size_t)size, "|%s",
                                 clean_action_name((enum clean_action)a));
        printf("%-18s %-28s %s\n", rule->name, actions, rule->help);
    }
    if (fflush(stdout) != 0) RAISE(IO, "write the list: %s", strerror(errno));
    return ERR_OK;
}

err_t cmd_prepare(struct cfg *cfg, int argc, char **argv)
{
    err_t rc = ERR_OK;
    struct cli_args args;
    struct prepare_options options;
    struct prepare_counts counts;
    struct report_limits limits;
    bool help_shown;
    TRY(cli_parse(&args, &help_shown, &SPEC, cfg, argc, argv));
    if (help_shown) return ERR_OK;
    if (cli_option(&args, &SPEC, "list-rules") != NULL) return list_rules();
    TRY(prepare_options_from_cfg(&options, cfg));
    TRY_DONE(run(&counts, &options));
    report_limits_from_cfg(&limits, cfg);
    if (report_write(&counts, &options, &limits) != ERR_OK) /* the corpus is whole all the same */
        LOG_W("prepare", "%s has no report: %s", options.out, err_last()->text);
    TRY_DONE(print_report(&counts, &options, cli_option(&args, &SPEC, "json") != NULL));
done:
    prepare_options_clear(&options);
    return rc;
}
