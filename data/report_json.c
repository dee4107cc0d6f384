#include "data/report_html.h"

#include "base/file.h"
#include "data/split.h"

#include <jansson.h>
#include <stdlib.h>

static json_t *histogram_json(const struct histogram *h)
{
    json_t *bins = json_array();
    for (int64_t i = 0; i < h->bin_count; i++) json_array_append_new(bins, json_integer(h->bin[i]));
    const struct length_stats *l = &h->stats;
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:f, s:I, s:I, s:o}", "count", (json_int_t)l->count,
                     "min", (json_int_t)l->min, "median", (json_int_t)l->median, "p95",
                     (json_int_t)l->p95, "max", (json_int_t)l->max, "mean", l->mean, "first",
                     (json_int_t)h->first, "width", (json_int_t)h->width, "bins", bins);
}

static json_t *topic_json(const struct report_topic *t)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:I}", "name", t->name, "dialogues",
                     (json_int_t)t->dialogues, "train", (json_int_t)t->split[SPLIT_TRAIN],
                     "validation", (json_int_t)t->split[SPLIT_VALIDATION], "test",
                     (json_int_t)t->split[SPLIT_TEST]);
}

static json_t *topics_json(const struct report_stats *s)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < s->topic_count; i++)
        json_array_append_new(list, topic_json(&s->topic[i]));
    return json_pack("{s:o, s:I, s:o}", "list", list, "other_topics", (json_int_t)s->other_topics,
                     "other", topic_json(&s->other));
}

static json_t *cut_json(const struct report_stats *s)
{
    static const char *const over_long[] = { "drop", "cut_no_end", "cut_as_reference" };
    json_t *splits = json_object();
    for (int i = 0; i < SPLIT_COUNT; i++) {
        const struct sample_counts *c = &s->cut[i];
        json_object_set_new(
            splits, split_name((enum split)i),
            json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "samples", (json_int_t)c->samples,
                      "rows", (json_int_t)c->rows, "trained_tokens", (json_int_t)c->trained_tokens,
                      "prompts_cut_turns", (json_int_t)c->prompts_cut_turns, "prompts_cut_question",
                      (json_int_t)c->prompts_cut_question, "replies_left_out",
                      (json_int_t)c->targets_dropped, "replies_cut", (json_int_t)c->targets_cut));
    }
    return json_pack("{s:I, s:I, s:s, s:o}", "max_input", (json_int_t)s->limits.sample.max_input,
                     "max_target", (json_int_t)s->limits.sample.max_target, "over_long_target",
                     over_long[s->limits.sample.over_long_target], "splits", splits);
}

static json_t *packs_json(const struct report_stats *s)
{
    return json_pack("{s:I, s:I, s:f, s:f}", "pack_len", (json_int_t)s->limits.pack_len, "packs",
                     (json_int_t)s->pack_count, "fill", s->pack_fill, "plan_seconds",
                     s->pack_plan_s);
}

static json_t *speed_json(const struct prepare_counts *c, const struct prepare_options *o)
{
    int64_t text_bytes = 0;
    for (int64_t i = 0; i < o->source_count; i++) text_bytes += c->source[i].text_bytes;
    const double seconds = c->seconds > 0.0 ? c->seconds : 1e-9;
    return json_pack("{s:f, s:I, s:f, s:f, s:f}", "seconds", c->seconds, "text_bytes",
                     (json_int_t)text_bytes, "text_mb_per_s", (double)text_bytes / 1e6 / seconds,
                     "dialogues_per_s", (double)c->read / seconds, "tokens_per_s",
                     (double)c->tokens / seconds);
}

err_t report_json(struct buf *out, const struct prepare_counts *counts,
                  const struct prepare_options *o, const struct report_stats *s)
{
    err_t rc = ERR_OK;
    struct buf prepare = { 0 };
    json_t *root = NULL;
    char *text = NULL;
    TRY_DONE(prepare_report_json(&prepare, counts, o));
    root = json_pack("{s:s, s:o, s:{s:o, s:o, s:o}, s:o, s:o, s:o, s:o}", "directory", o->out,
                     "prepare", json_loads(prepare.data, 0, NULL), "lengths", "turns",
                     histogram_json(&s->turns), "samples", histogram_json(&s->samples), "replies",
                     histogram_json(&s->replies), "topics", topics_json(s), "limits", cut_json(s),
                     "packs", packs_json(s), "speed", speed_json(counts, o));
    text = root != NULL ? json_dumps(root, JSON_INDENT(2)) : NULL;
    if (text == NULL) RAISE_DONE(NOMEM, "the report of %s", o->out);
    TRY_DONE(buf_puts(out, text));
    TRY_DONE(buf_puts(out, "\n"));
done:
    free(text);
    json_decref(root);
    buf_clear(&prepare);
    return rc;
}

static err_t write_file(const char *dir, const char *name, const struct buf *text)
{
    char path[FILE_PATH_MAX];
    TRY(path_join(path, dir, name));
    return file_replace(path, text->data, (int64_t)text->size);
}

err_t report_write(const struct prepare_counts *counts, const struct prepare_options *o,
                   const struct report_limits *limits)
{
    err_t rc = ERR_OK;
    struct report_stats stats = { 0 };
    struct buf json = { 0 }, html = { 0 };
    TRY_DONE(report_stats_read(&stats, o->out, limits));
    TRY_DONE(report_json(&json, counts, o, &stats));
    TRY_DONE(report_html(&html, json.data));
    TRY_DONE(write_file(o->out, REPORT_JSON_NAME, &json));
    TRY_DONE(write_file(o->out, REPORT_HTML_NAME, &html));
done:
    buf_clear(&json);
    buf_clear(&html);
    report_stats_clear(&stats);
    return rc;
}
