#include "data/prepare.h"

#include "base/check.h"
#include "base/progress.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char *const split_names[SPLIT_COUNT] = { "train", "validation", "test" };

/* ---- JSON ---- */

static json_t *settings_json(const struct prepare_options *o)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I}", "form", corpus_form_name(o->form),
                     "client_name", o->template.client_name, "counsellor_name",
                     o->template.counsellor_name, "separator", o->template.separator, "split_seed",
                     (json_int_t)o->split_seed, "validation_permyriad",
                     (json_int_t)o->validation_permyriad, "test_permyriad",
                     (json_int_t)o->test_permyriad, "max_dialogues", (json_int_t)o->max_dialogues);
}

static json_t *sources_json(const struct prepare_counts *c, const struct prepare_options *o)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < o->source_count; i++)
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:I, s:I, s:I}", "name", o->source[i].name,
                                        "form", corpus_form_name(c->source[i].form), "bytes",
                                        (json_int_t)c->source[i].bytes, "dialogues",
                                        (json_int_t)c->source[i].dialogues, "bad_records",
                                        (json_int_t)c->source[i].bad_records));
    return list;
}

static json_t *rules_json(const struct prepare_counts *c)
{
    json_t *rules = json_object();
    for (int64_t i = 0; i < clean_rule_count(); i++)
        json_object_set_new(rules, clean_rule_at(i)->name, json_integer(c->rule[i]));
    return rules;
}

static json_t *splits_json(const struct prepare_counts *c)
{
    json_t *splits = json_object();
    for (int i = 0; i < SPLIT_COUNT; i++)
        json_object_set_new(splits, split_names[i],
                            json_pack("{s:I, s:I}", "dialogues", (json_int_t)c->split[i].dialogues,
                                      "samples", (json_int_t)c->split[i].samples));
    return splits;
}

static json_t *written_json(const struct prepare_counts *c)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "dialogues", (json_int_t)c->dialogues,
                     "turns", (json_int_t)c->turns, "samples", (json_int_t)c->samples, "tokens",
                     (json_int_t)c->tokens, "prompt_line_tokens", (json_int_t)c->prompt_line_tokens,
                     "target_tokens", (json_int_t)c->target_tokens, "first_stored",
                     (json_int_t)c->first_stored);
}

err_t prepare_report_json(struct buf *out, const struct prepare_counts *c,
                          const struct prepare_options *o)
{
    err_t rc = ERR_OK;
    char *text = NULL;
    json_t *root = json_pack("{s:o, s:o, s:I, s:I, s:o, s:o, s:o}", "settings", settings_json(o),
                             "sources", sources_json(c, o), "read", (json_int_t)c->read,
                             "bad_records", (json_int_t)c->bad_records, "rules", rules_json(c),
                             "written", written_json(c), "splits", splits_json(c));
    if (root == NULL) RAISE_DONE(NOMEM, "the report of prepare");
    text = json_dumps(root, JSON_INDENT(2));
    if (text == NULL) RAISE_DONE(NOMEM, "the report of prepare");
    TRY_DONE(buf_puts(out, text));
done:
    free(text);
    json_decref(root);
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
        TRY(buf_printf(out, "  %-18s %12lld  dialogues (%s, %.1f MB)\n", o->source[i].name,
                       (long long)c->source[i].dialogues, corpus_form_name(c->source[i].form),
                       (double)c->source[i].bytes / 1e6));
    return row(out, "bad_record", c->bad_records, "records that are not dialogues, passed over");
}

err_t prepare_report_table(struct buf *out, const struct prepare_counts *c,
                           const struct prepare_options *o)
{
    char time[24];
    int64_t bytes = 0;
    for (int64_t i = 0; i < o->source_count; i++) bytes += c->source[i].bytes;
    TRY(sources_table(out, c, o));
    TRY(buf_puts(out, "rules\n"));
    for (int64_t i = 0; i < clean_rule_count(); i++)
        TRY(row(out, clean_rule_at(i)->name, c->rule[i], clean_rule_at(i)->help));
    TRY(buf_puts(out, "written\n"));
    TRY(row(out, "dialogues", c->dialogues, ""));
    TRY(row(out, "turns", c->turns, ""));
    TRY(row(out, "samples", c->samples, "replies with something before them"));
    TRY(row(out, "tokens", c->tokens, "in all runs"));
    TRY(row(out, "target_tokens", c->target_tokens, "in replies"));
    TRY(row(out, "first_stored", c->first_stored, "turns with a first-line run of their own"));
    for (int i = 0; i < SPLIT_COUNT; i++)
        TRY(buf_printf(out, "  %-18s %12lld  dialogues, %lld samples\n", split_names[i],
                       (long long)c->split[i].dialogues, (long long)c->split[i].samples));
    time_format(time, c->seconds);
    return buf_printf(out, "%s in %s, %.1f MB/s\n", o->out, time,
                      c->seconds > 0 ? (double)bytes / 1e6 / c->seconds : 0.0);
}
