#include "base/cli.h"
#include "data/commands.h"
#include "data/inspect.h"
#include "data/pack.h"
#include "data/sample_mix.h"
#include "data/settings_batch.h"
#include "data/split.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct cli_option options[] = {
    { "sample", "N", "rows of sample N of the split" },
    { "pack", "N", "rows of pack N, packs of batch.pack_len rows in the order they were made" },
    { "step", "N", "how step N is dealt to lanes and cut into micro-batches" },
    { "lane", "L", "with --step: rows of a micro-batch of lane L (default 0)" },
    { "micro", "M", "with --step: rows of micro-batch M of the lane (default 0)" },
    { "split", "NAME", "train, validation or test (default train)" },
    { "model", "DIR", "folder of the tokenizer, to show pieces beside ids" },
    { "json", NULL, "one JSON object instead of text" },
    { NULL, NULL, NULL },
};

static const struct cli_spec spec = {
    .command = "inspect",
    .purpose =
        "Look into a prepared corpus: counts and lengths; or the rows of a sample, a pack or "
        "a micro-batch with ids, labels, weights, segments and both position streams.",
    .example = "soulchat inspect data/smile\n"
               "soulchat inspect data/smile --sample 17 --model models/chatglm-6b\n"
               "soulchat inspect data/smile --step 0 --lane 0 --micro 1 --json",
    .positional = "DIR",
    .positional_max = 1,
    .options = options,
    .sections = "batch",
};

/* What was asked for; indices are -1 where not given. */
struct request {
    const char *dir, *model;
    int64_t sample, pack, step, lane, micro;
    enum split split;
    enum inspect_form form;
    struct sample_limits limits;
    struct batch_spec batch;
};

static err_t read_index(int64_t *out, const struct cli_args *args, const char *name)
{
    const char *text = cli_option(args, &spec, name);
    *out = -1;
    if (text == NULL) return ERR_OK;
    char *end;
    errno = 0;
    const long long value = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || value < 0)
        RAISE(USAGE, "--%s %s: expected a number from 0", name, text);
    *out = value;
    return ERR_OK;
}

static err_t read_split(enum split *out, const char *name)
{
    *out = SPLIT_TRAIN;
    if (name == NULL) return ERR_OK;
    for (int s = 0; s < SPLIT_COUNT; s++) {
        if (strcmp(name, split_name((enum split)s)) != 0) continue;
        *out = (enum split)s;
        return ERR_OK;
    }
    RAISE(USAGE, "--split %s: expected train, validation or test", name);
}

static enum inspect_form choose_form(const struct cli_args *args)
{
    const char *no_colour = getenv("NO_COLOR");
    if (cli_option(args, &spec, "json") != NULL) return INSPECT_JSON;
    if (no_colour != NULL && no_colour[0] != '\0') return INSPECT_TEXT;
    return isatty(STDOUT_FILENO) ? INSPECT_COLOUR : INSPECT_TEXT;
}

static err_t read_request(struct request *out, const struct cli_args *args, const struct cfg *cfg)
{
    if (args->positional_count != 1)
        RAISE(USAGE, "inspect needs the directory that `soulchat prepare` wrote");
    out->dir = args->positional[0];
    out->model = cli_option(args, &spec, "model");
    out->form = choose_form(args);
    TRY(read_index(&out->sample, args, "sample"));
    TRY(read_index(&out->pack, args, "pack"));
    TRY(read_index(&out->step, args, "step"));
    TRY(read_index(&out->lane, args, "lane"));
    TRY(read_index(&out->micro, args, "micro"));
    TRY(read_split(&out->split, cli_option(args, &spec, "split")));
    if ((out->sample >= 0) + (out->pack >= 0) + (out->step >= 0) > 1)
        RAISE(USAGE, "--sample, --pack and --step exclude each other");
    if (out->step < 0 && (out->lane >= 0 || out->micro >= 0))
        RAISE(USAGE, "--lane and --micro need --step");
    sample_limits_from_cfg(&out->limits, cfg);
    TRY(batch_spec_from_cfg(&out->batch, cfg));
    return ERR_OK;
}

static err_t check_index(const char *what, int64_t index, int64_t count, const char *where)
{
    if (index >= count)
        RAISE(USAGE, "%s %lld: %s has %lld", what, (long long)index, where, (long long)count);
    return ERR_OK;
}

static err_t fill_sample(struct micro_batch *m, const struct request *r, struct sample_set *set)
{
    TRY(check_index("--sample", r->sample, sample_set_count(set), split_name(r->split)));
    TRY(micro_batch_from_samples(m, set, &r->sample, 1, r->batch.loss_mean, false));
    return ERR_OK;
}

static err_t fill_pack(struct micro_batch *m, const struct request *r, struct sample_set *set)
{
    err_t rc = ERR_OK;
    struct pack_plan plan = { 0 };
    TRY_DONE(pack_best_fit(&plan, sample_set_lens(set), sample_set_count(set), r->batch.pack_len));
    TRY_DONE(check_index("--pack", r->pack, plan.pack_count, split_name(r->split)));
    const int64_t first = plan.first[r->pack];
    TRY_DONE(micro_batch_from_samples(m, set, plan.item + first, plan.first[r->pack + 1] - first,
                                      r->batch.loss_mean, false));

done:
    pack_plan_clear(&plan);
    return rc;
}

static err_t fill_micro(struct micro_batch *m, const struct request *r, struct batcher *b,
                        int64_t lane, int64_t micro)
{
    struct step_plan plan;
    TRY(batcher_plan(b, &plan, r->step));
    TRY(check_index("--lane", lane, r->batch.lanes, "the step"));
    TRY(check_index("--micro", micro, plan.micro_count[lane], "the lane"));
    TRY(batcher_fill(b, m, lane, micro));
    return ERR_OK;
}

/* --step: the plan of the step, or one of its micro-batches with its rows. */
static err_t show_step(struct buf *out, const struct request *r, struct sample_set *set,
                       const struct tok *tok)
{
    err_t rc = ERR_OK;
    struct batcher *b = NULL;
    struct micro_batch m = { 0 };
    TRY_DONE(batcher_open(&b, set, &r->batch));
    if (r->lane < 0 && r->micro < 0) {
        TRY_DONE(inspect_write_step(out, b, &r->batch, r->step, r->form));
        goto done;
    }
    char title[128];
    const int64_t lane = r->lane < 0 ? 0 : r->lane, micro = r->micro < 0 ? 0 : r->micro;
    TRY_DONE(fill_micro(&m, r, b, lane, micro));
    snprintf(title, sizeof title, "step %lld, lane %lld, micro-batch %lld of %s",
             (long long)r->step, (long long)lane, (long long)micro, split_name(r->split));
    const struct inspect_rows rows = { .title = title, .micro = &m, .set = set, .tok = tok };
    TRY_DONE(inspect_write_rows(out, &rows, r->form));

done:
    micro_batch_clear(&m);
    batcher_close(b);
    return rc;
}

/* --sample and --pack. */
static err_t show_rows(struct buf *out, const struct request *r, struct sample_set *set,
                       const struct tok *tok)
{
    err_t rc = ERR_OK;
    struct micro_batch m = { 0 };
    char title[128];
    const bool pack = r->pack >= 0;
    TRY_DONE(pack ? fill_pack(&m, r, set) : fill_sample(&m, r, set));
    snprintf(title, sizeof title, "%s %lld of %s", pack ? "pack" : "sample",
             (long long)(pack ? r->pack : r->sample), split_name(r->split));
    const struct inspect_rows rows = { .title = title, .micro = &m, .set = set, .tok = tok };
    TRY_DONE(inspect_write_rows(out, &rows, r->form));

done:
    micro_batch_clear(&m);
    return rc;
}

static err_t show_summary(struct buf *out, const struct request *r, struct shards *shards,
                          const struct sample_mix *mix)
{
    struct corpus_summary summary;
    TRY(inspect_summarise(&summary, r->dir, shards, &r->limits, &r->batch, mix));
    TRY(inspect_write_summary(out, &summary, r->form));
    return ERR_OK;
}

static err_t open_tokenizer(struct tok **out, const char *model, const struct shards *shards)
{
    if (model == NULL) return ERR_OK;
    TRY(tok_open(out, model));
    if (strcmp(tok_sha256(*out), shards_info(shards)->tokenizer_sha256) != 0)
        RAISE(USAGE, "%s is not the tokenizer that the corpus was prepared with (sha256 %s)",
              tok_path(*out), shards_info(shards)->tokenizer_sha256);
    return ERR_OK;
}

err_t cmd_inspect(struct cfg *cfg, int argc, char **argv)
{
    err_t rc = ERR_OK;
    struct cli_args args;
    bool help_shown = false;
    struct request r;
    struct shards *shards = NULL;
    struct sample_mix mix;
    struct sample_set *set = NULL;
    struct tok *tok = NULL;
    struct buf out = { 0 };

    TRY(cli_parse(&args, &help_shown, &spec, cfg, argc, argv));
    if (help_shown) return ERR_OK;
    TRY(read_request(&r, &args, cfg));
    TRY_DONE(shards_open(&shards, r.dir, false));
    TRY_DONE(open_tokenizer(&tok, r.model, shards));
    TRY_DONE(sample_mix_parse(&mix, cfg_str(cfg, "batch.source_weights"), shards));
    if (r.sample < 0 && r.pack < 0 && r.step < 0) {
        TRY_DONE(show_summary(&out, &r, shards, &mix));
    } else {
        TRY_DONE(sample_set_open_mixed(&set, shards, r.split, &r.limits,
                                       r.split == SPLIT_TRAIN ? &mix : NULL));
        TRY_DONE(r.step >= 0 ? show_step(&out, &r, set, tok) : show_rows(&out, &r, set, tok));
    }
    if (fwrite(out.data, 1, out.size, stdout) != out.size || fflush(stdout) != 0)
        RAISE_DONE(IO, "standard output: %s", strerror(errno));

done:
    buf_clear(&out);
    sample_set_close(set);
    tok_close(tok);
    shards_close(shards);
    return rc;
}
