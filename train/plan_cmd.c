/* soulchat plan: what a training setup takes of a card, before anything is bought or allocated. */
#include "train/commands.h"

#include "train/plan_print.h"
#include "train/plan_scaling.h"

static const struct cli_option options[] = {
    { "json", NULL, "print one JSON object instead of the tables" },
    { "scaling", NULL, "print what 1 to 512 cards make of it" },
    { NULL, NULL, NULL },
};

static const struct cli_spec spec = {
    .command = "plan",
    .purpose = "Predict memory and time of a training setup on a card; where it does not fit, find "
               "the smallest change that does.",
    .example = "soulchat plan --config configs/chatglm-6b-1x80gb.yaml --plan.card=h100\n"
               "soulchat plan --plan.card=rtx4090 --train.precision=bf16 --json\n"
               "soulchat plan --config configs/chatglm-6b-1x141gb.yaml --plan.card=h100 "
               "--plan.ranks=8\n"
               "soulchat plan --config configs/chatglm-6b-1x141gb.yaml --plan.card=h200 --scaling\n"
               "soulchat plan --config configs/tiny.yaml --plan.card=cpu",
    .options = options,
    .sections = "plan|train|batch|model|data",
};

static err_t answer(struct plan_answer *a, struct plan *plan)
{
    TRY(plan_compute(plan));
    TRY(plan_efficiency(&a->efficiency, plan));
    TRY(plan_micro_max(&a->micro_max, plan));
    return plan->fits ? ERR_OK : plan_search(&a->better, &a->found, plan);
}

static err_t print_plan(struct plan_setup *setup, bool as_json)
{
    struct plan_answer a = { .setup = setup };
    struct plan *p = &setup->plan;
    TRY(answer(&a, p));
    if (as_json)
        TRY(plan_print_json(stdout, &a));
    else
        plan_print_table(stdout, &a);
    if (p->fits) return ERR_OK;
    RAISE(NOMEM, "%.2f GB are wanted, and %s may fill %.2f GB of %.2f",
          (double)p->memory.device_bytes / 1e9, p->card.name, (double)plan_budget(p) / 1e9,
          (double)p->card.memory_bytes / 1e9);
}

static err_t print_scaling(const struct plan_setup *setup)
{
    struct plan_scaling scaling;
    TRY(plan_scaling(&scaling, &setup->plan));
    plan_scaling_print(stdout, setup, &scaling);
    return ERR_OK;
}

err_t cmd_plan(struct cfg *cfg, int argc, char **argv)
{
    struct cli_args args;
    struct plan_setup setup;
    bool help_shown = false;
    TRY(cli_parse(&args, &help_shown, &spec, cfg, argc, argv));
    if (help_shown) return ERR_OK;

    const bool as_json = cli_option(&args, &spec, "json") != NULL;
    const bool scaling = cli_option(&args, &spec, "scaling") != NULL;
    if (as_json && scaling) RAISE(USAGE, "plan --json is of one plan; --scaling prints tables");
    err_t rc = plan_setup_open(&setup, cfg);
    if (rc == ERR_OK) rc = scaling ? print_scaling(&setup) : print_plan(&setup, as_json);
    plan_setup_close(&setup);
    return rc;
}
