#include "base/cli.h"
#include "base/log.h"
#include "base/stop.h"
#include "data/commands.h"
#include "data/prepare.h"
#include "data/report_html.h"

#include <errno.h>
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

static bool is_stopped(void *context)
{
    (void)context;
    return stop_requested();
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
    TRY(stop_catch());
    TRY(prepare_options_from_cfg(&options, cfg));
    options.stop = is_stopped;
    TRY_DONE(prepare_run(&counts, &options));
    report_limits_from_cfg(&limits, cfg);
    if (report_write(&counts, &options, &limits) != ERR_OK) /* the corpus is whole all the same */
        LOG_W("prepare", "%s has no report: %s", options.out, err_last()->text);
    TRY_DONE(print_report(&counts, &options, cli_option(&args, &SPEC, "json") != NULL));
done:
    prepare_options_clear(&options);
    return rc;
}
