#include "data/prepare.h"

#include "base/check.h"
#include "base/progress.h"
#include "data/split.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* ---- JSON ---- */

static json_t *settings_json(const struct prepare_options *o)
{
    static const char *const duplicates[] = { "drop_near", "drop_exact", "keep" };
    static const char *const splits[] = { "stratified", "hash" };
    static const char *const openings[] = { "together", "apart" };
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:s, s:f, s:s, s:s, s:I, s:I, s:I, s:I}",
                     "form", corpus_form_name(o->form), "client_name", o->template.client_name,
                     "counsellor_name", o->template.counsellor_name, "separator",
                     o->template.separator, "rules", o->rules, "long_turn",
                     (json_int_t)o->long_turn, "duplicates", duplicates[o->duplicates],
                     "near_threshold", o->near_threshold, "split", splits[o->split_rule],
                     "openings", openings[o->openings], "split_seed", (json_int_t)o->split_seed,
                     "validation_permyriad", (json_int_t)o->validation_permyriad, "test_permyriad",
                     (json_int_t)o->test_permyriad, "max_dialogues", (json_int_t)o->max_dialogues);
}

static json_t *source_rules_json(const struct prepare_source_counts *s)
{
    json_t *rules = json_object();
    for (int64_t i = 0; i < CLEAN_RULE_COUNT; i++)
        json_object_set_new(rules, clean_rule_at(i)->name, json_integer(s->rule[i]));
    return rules;
}

static json_t *sources_json(const struct prepare_counts *c, const struct prepare_options *o)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < o->source_count; i++) {
        const struct prepare_source_counts *s = &c->source[i];
        char hex[SHA256_HEX_SIZE];
        sha256_hex(hex, s->sha256);
        json_array_append_new(
            list,
            json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
                      "s:o}",
                      "name", o->source[i].name, "form", corpus_form_name(s->form), "layout",
                      s->layout, "packing", s->packing, "sha256", hex, "bytes",
                      (json_int_t)s->bytes, "text_bytes", (json_int_t)s->text_bytes, "dialogues",
                      (json_int_t)s->dialogues, "bad_records", (json_int_t)s->bad_records,
                      "dropped", (json_int_t)s->dropped, "exact", (json_int_t)s->exact, "near",
                      (json_int_t)s->near, "written", (json_int_t)s->written, "samples",
                      (json_int_t)s->samples, "rules", source_rules_json(s)));
    }
    return list;
}

static json_t *examples_json(const struct clean_found *found, int64_t rule)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < found->example_count[rule]; i++)
        json_array_append_new(list,
                              json_pack("{s:s, s:s}", "before", found->example[rule][i].before,
                                        "after", found->example[rule][i].after));
    return list;
}

/* The action of each rule is in the rules' own table; the options name those that differ. */
static err_t rules_json(json_t **out, const struct prepare_counts *c,
                        const struct prepare_options *o)
{
    struct clean_rules *rules;
    TRY(prepare_rules_open(&rules, o));
    *out = json_array();
    for (int64_t i = 0; i < CLEAN_RULE_COUNT; i++) {
        const struct clean_rule *rule = clean_rule_at(i);
        json_array_append_new(
            *out, json_pack("{s:s, s:s, s:s, s:s, s:I, s:o}", "name", rule->name, "help",
                            rule->help, "action", clean_action_name(clean_rules_action(rules, i)),
                            "unit", rule->unit, "count", (json_int_t)c->found.count[i], "examples",
                            examples_json(&c->found, i)));
    }
    clean_rules_close(rules);
    return ERR_OK;
}

static json_t *near_examples_json(const struct prepare_duplicate_counts *d,
                                  const struct prepare_options *o)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < d->example_count; i++) {
        const struct prepare_near_example *e = &d->example[i];
        json_array_append_new(
            list, json_pack("{s:f, s:s, s:s, s:s, s:s}", "similarity", e->similarity, "kept_source",
                            o->source[e->kept_source].name, "kept", e->kept, "other_source",
                            o->source[e->other_source].name, "other", e->other));
    }
    return list;
}

static json_t *duplicates_json(const struct prepare_counts *c, const struct prepare_options *o)
{
    const struct prepare_duplicate_counts *d = &c->duplicates;
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:o, s:{s:I, s:I, s:I, s:I, s:I}}", "exact",
                     (json_int_t)d->exact, "near", (json_int_t)d->near, "compared",
                     (json_int_t)d->compared, "clusters", (json_int_t)d->clusters, "same_opening",
                     (json_int_t)d->same_opening, "examples", near_examples_json(d, o), "leakage",
                     "held_out", (json_int_t)d->held_out, "exact", (json_int_t)d->leaked_exact,
                     "near", (json_int_t)d->leaked_near, "alike", (json_int_t)d->leaked_alike,
                     "opening", (json_int_t)d->leaked_opening);
}

static json_t *splits_json(const struct prepare_counts *c)
{
    json_t *splits = json_object();
    for (int i = 0; i < SPLIT_COUNT; i++)
        json_object_set_new(splits, split_name((enum split)i),
                            json_pack("{s:I, s:I}", "dialogues", (json_int_t)c->split[i].dialogues,
                                      "samples", (json_int_t)c->split[i].samples));
    return splits;
}

static json_t *written_json(const struct prepare_counts *c)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "dialogues",
                     (json_int_t)c->dialogues, "turns", (json_int_t)c->turns, "samples",
                     (json_int_t)c->samples, "crisis_dialogues", (json_int_t)c->crisis_dialogues,
                     "tokens", (json_int_t)c->tokens, "prompt_line_tokens",
                     (json_int_t)c->prompt_line_tokens, "target_tokens",
                     (json_int_t)c->target_tokens, "first_stored", (json_int_t)c->first_stored);
}

err_t prepare_report_json(struct buf *out, const struct prepare_counts *c,
                          const struct prepare_options *o)
{
    err_t rc = ERR_OK;
    char *text = NULL, recipe[SHA256_HEX_SIZE];
    json_t *root = NULL, *rules = NULL;
    sha256_hex(recipe, c->recipe);
    TRY_DONE(rules_json(&rules, c, o));
    root = json_pack("{s:s, s:o, s:o, s:I, s:I, s:O, s:o, s:o, s:o}", "recipe_sha256", recipe,
                     "settings", settings_json(o), "sources", sources_json(c, o), "read",
                     (json_int_t)c->read, "bad_records", (json_int_t)c->bad_records, "rules", rules,
                     "duplicates", duplicates_json(c, o), "written", written_json(c), "splits",
                     splits_json(c));
    if (root == NULL) RAISE_DONE(NOMEM, "the report of prepare");
    text = json_dumps(root, JSON_INDENT(2));
    if (text == NULL) RAISE_DONE(NOMEM, "the report of prepare");
    TRY_DONE(buf_puts(out, text));
done:
    free(text);
    json_decref(root);
    json_decref(rules);
    return rc;
}

/* ---- for people ---- */

static err_t row(struct buf *out, const char *name, int64_t count, const char *help)
{
    return buf_printf(out, "  %-18s %12lld  %s\n", name, (long long)count, help);
}

static err_t sources_table(struct buf *out, const struct prepare_counts *c,
                           const struct prepare_options *o)
{
    TRY(buf_puts(out, "read\n"));
    for (int64_t i = 0; i < o->source_count; i++)
        TRY(buf_printf(out, "  %-18s %12lld  dialogues (%s, %s, %s; %.1f MB)\n", o->source[i].name,
                       (long long)c->source[i].dialogues, corpus_form_name(c->source[i].form),
                       c->source[i].layout, c->source[i].packing,
                       (double)c->source[i].bytes / 1e6));
    return row(out, "bad_record", c->bad_records, "records that are not dialogues, passed over");
}

/* Rules that found something; on one's screen the others would hide them. */
static err_t rules_table(struct buf *out, const struct prepare_counts *c)
{
    int64_t idle_count = 0;
    TRY(buf_puts(out, "rules\n"));
    for (int64_t i = 0; i < CLEAN_RULE_COUNT; i++) {
        idle_count += c->found.count[i] == 0;
        if (c->found.count[i] > 0)
            TRY(row(out, clean_rule_at(i)->name, c->found.count[i], clean_rule_at(i)->help));
    }
    return buf_printf(out, "  %lld of %lld rules found nothing (soulchat prepare --list-rules)\n",
                      (long long)idle_count, (long long)CLEAN_RULE_COUNT);
}

err_t prepare_report_table(struct buf *out, const struct prepare_counts *c,
                           const struct prepare_options *o)
{
    char time[24];
    int64_t bytes = 0;
    for (int64_t i = 0; i < o->source_count; i++) bytes += c->source[i].text_bytes;
    TRY(sources_table(out, c, o));
    TRY(rules_table(out, c));
    TRY(buf_puts(out, "duplicates\n"));
    TRY(row(out, "exact", c->duplicates.exact, "dialogues that equal a better one"));
    TRY(row(out, "near", c->duplicates.near, "others that are nearly a better one"));
    TRY(row(out, "same_opening", c->duplicates.same_opening,
            "dialogues that begin as another one does, which is kept"));
    TRY(buf_printf(out,
                   "  %-18s %12lld  of %lld held-out dialogues have one in training, "
                   "%lld near it, %lld alike, %lld of its opening\n",
                   "leaked", (long long)c->duplicates.leaked_exact,
                   (long long)c->duplicates.held_out, (long long)c->duplicates.leaked_near,
                   (long long)c->duplicates.leaked_alike, (long long)c->duplicates.leaked_opening));
    TRY(buf_puts(out, "written\n"));
    TRY(row(out, "dialogues", c->dialogues, ""));
    TRY(row(out, "turns", c->turns, ""));
    TRY(row(out, "samples", c->samples, "replies with something before them, trained"));
    TRY(row(out, "crisis", c->crisis_dialogues, "dialogues with the flag"));
    TRY(row(out, "tokens", c->tokens, "in all runs"));
    TRY(row(out, "target_tokens", c->target_tokens, "in replies"));
    TRY(row(out, "first_stored", c->first_stored, "turns with a first-line run of their own"));
    for (int i = 0; i < SPLIT_COUNT; i++)
        TRY(buf_printf(out, "  %-18s %12lld  dialogues, %lld samples\n", split_name((enum split)i),
                       (long long)c->split[i].dialogues, (long long)c->split[i].samples));
    time_format(time, c->seconds);
    return buf_printf(out, "%s in %s, %.1f MB/s of text\n", o->out, time,
                      c->seconds > 0 ? (double)bytes / 1e6 / c->seconds : 0.0);
}
