#include "data/report_html.h"

#include "base/check.h"
#include "base/num.h"
#include "base/progress.h"
#include "data/svg.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* The policy forbids whatever a text of the corpus might have wanted to load or run, should it ever
 * get past the escaping. */
static const char PAGE_HEAD[] =
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
    "style-src 'unsafe-inline'\">\n<title>Prepared corpus</title>\n<style>\n"
    ":root{color-scheme:light dark;--bar:#3572b0;--line:#8884;--soft:#8881}\n"
    "body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:0 auto;padding:0 .8rem 3rem}\n"
    "h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem;border-bottom:1px solid "
    "var(--line)}\n"
    "table{border-collapse:collapse;font-size:.9rem}.wide{overflow-x:auto}\n"
    "td,th{padding:.15rem .7rem .15rem 0;text-align:left;vertical-align:top}\n"
    "tr{border-bottom:1px solid var(--line)}.n{text-align:right;white-space:nowrap}\n"
    ".rule{min-width:13rem;max-width:26rem}.zero{opacity:.55}code{font-size:.85em;overflow-wrap:"
    "anywhere}\n"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:.6rem}\n"
    ".tiles div{background:var(--soft);padding:.5rem .7rem;border-radius:.4rem}\n"
    ".tiles b{display:block;font-size:1.2rem}\n"
    ".plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));"
    "gap:1rem}\n"
    "figure{margin:0}figcaption{font-size:.85rem}svg{width:100%;height:auto}\n"
    ".bar{fill:var(--bar)}.axis{stroke:var(--line)}\n"
    ".share{display:block;background:var(--bar);height:.7rem;margin-top:.35rem}\n"
    "blockquote{margin:.4rem 0;padding:.3rem .6rem;background:var(--soft);border-radius:.3rem;"
    "overflow-wrap:anywhere;white-space:pre-wrap}\n"
    "summary{cursor:pointer}\n"
    "</style>\n</head>\n<body>\n";

/* ---- values ---- */

static int64_t number_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static double real_of(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

/* The member of a member. */
static const json_t *below(const json_t *root, const char *outer, const char *inner)
{
    return json_object_get(json_object_get(root, outer), inner);
}

static double percent(int64_t part, int64_t whole)
{
    return whole > 0 ? 100.0 * (double)part / (double)whole : 0.0;
}

/* ---- pieces of a page ---- */

static err_t cell_text(struct buf *out, const char *text)
{
    TRY(buf_puts(out, "<td><bdi>"));
    TRY(svg_text(out, text));
    return buf_puts(out, "</bdi></td>");
}

static err_t cell_number(struct buf *out, int64_t number)
{
    char digits[28];
    svg_number(digits, number);
    return buf_printf(out, "<td class=\"n%s\">%s</td>", number == 0 ? " zero" : "", digits);
}

static err_t cell_percent(struct buf *out, double value)
{
    return buf_printf(out, "<td class=\"n\">%.2f&nbsp;%%</td>", value);
}

/* Names of columns; one that begins with '#' is of numbers. */
static err_t table_begin(struct buf *out, const char *const *names, int64_t count)
{
    TRY(buf_puts(out, "<div class=\"wide\"><table>\n<tr>"));
    for (int64_t i = 0; i < count; i++) {
        const bool numbers = names[i][0] == '#';
        TRY(buf_printf(out, "<th%s><bdi>", numbers ? " class=\"n\"" : ""));
        TRY(svg_text(out, names[i] + numbers));
        TRY(buf_puts(out, "</bdi></th>"));
    }
    return buf_puts(out, "</tr>\n");
}

static err_t table_end(struct buf *out) { return buf_puts(out, "</table></div>\n"); }

static err_t quote(struct buf *out, const char *label, const char *text)
{
    TRY(buf_puts(out, "<blockquote>"));
    TRY(svg_text(out, label));
    TRY(buf_puts(out, " <bdi>"));
    TRY(svg_text(out, text));
    return buf_puts(out, "</bdi></blockquote>\n");
}

static err_t tile(struct buf *out, const char *name, const char *value)
{
    TRY(buf_puts(out, "<div>"));
    TRY(svg_text(out, name));
    TRY(buf_puts(out, "<b>"));
    TRY(svg_text(out, value));
    return buf_puts(out, "</b></div>\n");
}

static err_t tile_number(struct buf *out, const char *name, int64_t number)
{
    char digits[28];
    svg_number(digits, number);
    return tile(out, name, digits);
}

/* ---- sections ---- */

static err_t put_summary(struct buf *out, const json_t *root)
{
    char text[64], time[24];
    const json_t *prepare = json_object_get(root, "prepare");
    const json_t *written = json_object_get(prepare, "written");
    const json_t *speed = json_object_get(root, "speed");
    TRY(buf_puts(out, "<h1>Prepared corpus <bdi>"));
    TRY(svg_text(out, text_of(root, "directory")));
    TRY(buf_puts(out, "</bdi></h1>\n<p>Recipe <code>"));
    TRY(svg_text(out, text_of(prepare, "recipe_sha256")));
    TRY(buf_puts(out, "</code></p>\n<div class=\"tiles\">\n"));
    TRY(tile_number(out, "dialogues read", number_of(prepare, "read")));
    TRY(tile_number(out, "dialogues written", number_of(written, "dialogues")));
    TRY(tile_number(out, "turns", number_of(written, "turns")));
    TRY(tile_number(out, "samples", number_of(written, "samples")));
    TRY(tile_number(out, "tokens stored", number_of(written, "tokens")));
    TRY(tile_number(out, "with the crisis flag", number_of(written, "crisis_dialogues")));
    snprintf(text, sizeof text, "%.2f %%", 100.0 * real_of(json_object_get(root, "packs"), "fill"));
    TRY(tile(out, "fill of packs", text));
    time_format(time, real_of(speed, "seconds"));
    snprintf(text, sizeof text, "%s, %.1f MB/s", time, real_of(speed, "text_mb_per_s"));
    TRY(tile(out, "time, text read", text));
    return buf_puts(out, "</div>\n");
}

static err_t put_sources(struct buf *out, const json_t *prepare)
{
    static const char *const names[] = { "source", "form",     "layout",   "packing",  "#bytes",
                                         "#text",  "#read",    "#bad",     "#dropped", "#exact",
                                         "#near",  "#written", "#samples", "sha256" };
    static const char *const keys[] = { "bytes",       "text_bytes", "dialogues",
                                        "bad_records", "dropped",    "exact",
                                        "near",        "written",    "samples" };
    size_t i;
    json_t *s;
    TRY(buf_puts(out, "<h2>Sources</h2>\n"));
    TRY(table_begin(out, names, COUNT_OF(names)));
    json_array_foreach(json_object_get(prepare, "sources"), i, s)
    {
        TRY(buf_puts(out, "<tr>"));
        for (int k = 0; k < 4; k++) {
            static const char *const texts[] = { "name", "form", "layout", "packing" };
            TRY(cell_text(out, text_of(s, texts[k])));
        }
        for (int64_t k = 0; k < COUNT_OF(keys); k++) TRY(cell_number(out, number_of(s, keys[k])));
        TRY(buf_printf(out, "<td><code>%.12s</code></td></tr>\n", text_of(s, "sha256")));
    }
    TRY(table_end(out));
    return buf_puts(out, "<p>Dialogues read are those that a rule dropped, exact and near "
                         "duplicates that were dropped, and those written. Bad records were passed "
                         "over. Samples are replies that can be trained.</p>\n");
}

static err_t rule_header(struct buf *out, const json_t *sources)
{
    size_t i;
    json_t *s;
    TRY(buf_puts(out, "<div class=\"wide\"><table>\n<tr><th>rule</th><th>action</th><th>counts</th>"
                      "<th class=\"n\">found</th>"));
    json_array_foreach(sources, i, s)
    {
        if (json_array_size(sources) == 1) break;
        TRY(buf_puts(out, "<th class=\"n\"><bdi>"));
        TRY(svg_text(out, text_of(s, "name")));
        TRY(buf_puts(out, "</bdi></th>"));
    }
    return buf_puts(out, "</tr>\n");
}

static err_t put_rule_name(struct buf *out, const json_t *rule)
{
    TRY(buf_puts(out, "<td class=\"rule\"><b>"));
    TRY(svg_text(out, text_of(rule, "name")));
    TRY(buf_puts(out, "</b><br><small>"));
    TRY(svg_text(out, text_of(rule, "help")));
    return buf_puts(out, "</small></td>");
}

static err_t put_rules(struct buf *out, const json_t *prepare)
{
    size_t i, k;
    json_t *rule, *s;
    const json_t *sources = json_object_get(prepare, "sources");
    TRY(buf_puts(out, "<h2>Cleaning rules</h2>\n"));
    TRY(rule_header(out, sources));
    json_array_foreach(json_object_get(prepare, "rules"), i, rule)
    {
        TRY(buf_puts(out, "<tr>"));
        TRY(put_rule_name(out, rule));
        TRY(cell_text(out, text_of(rule, "action")));
        TRY(cell_text(out, text_of(rule, "unit")));
        TRY(cell_number(out, number_of(rule, "count")));
        json_array_foreach(sources, k, s)
        {
            if (json_array_size(sources) == 1) break;
            TRY(cell_number(out, number_of(json_object_get(s, "rules"), text_of(rule, "name"))));
        }
        TRY(buf_puts(out, "</tr>\n"));
    }
    return table_end(out);
}

static err_t put_rule_examples(struct buf *out, const json_t *rule)
{
    size_t i;
    json_t *e;
    const json_t *list = json_object_get(rule, "examples");
    if (json_array_size(list) == 0) return ERR_OK;
    TRY(buf_puts(out, "<details><summary>"));
    TRY(svg_text(out, text_of(rule, "name")));
    TRY(buf_printf(out, " (%zu shown of %lld)</summary>\n", json_array_size(list),
                   (long long)number_of(rule, "count")));
    json_array_foreach(list, i, e)
    {
        TRY(quote(out, "before", text_of(e, "before")));
        if (text_of(e, "after")[0] != '\0') TRY(quote(out, "after", text_of(e, "after")));
    }
    return buf_puts(out, "</details>\n");
}

static err_t put_examples(struct buf *out, const json_t *prepare)
{
    size_t i;
    json_t *rule;
    TRY(buf_puts(out, "<h3>Examples</h3>\n"));
    json_array_foreach(json_object_get(prepare, "rules"), i, rule)
        TRY(put_rule_examples(out, rule));
    return ERR_OK;
}

static err_t put_duplicates(struct buf *out, const json_t *prepare)
{
    static const char *const names[] = { "duplicates", "#dialogues" };
    static const struct {
        const char *group, *key, *label;
    } rows[] = {
        { NULL, "exact", "equal a better one" },
        { NULL, "near", "are nearly a better one" },
        { NULL, "clusters", "clusters of two or more" },
        { NULL, "same_opening", "written dialogues that begin as another one does" },
        { NULL, "compared", "pairs compared" },
        { "leakage", "held_out", "held out for validation and test" },
        { "leakage", "exact", "of these with an exact duplicate in training" },
        { "leakage", "near", "of these with a near duplicate in training" },
        { "leakage", "opening", "of these with a dialogue in training that begins as they do" },
        { "leakage", "alike", "of these with one at a similarity of 0.5 or more, as far as seen" },
    };
    size_t i;
    json_t *e;
    const json_t *d = json_object_get(prepare, "duplicates");
    TRY(buf_puts(out, "<h2>Duplicates and leakage</h2>\n"));
    TRY(table_begin(out, names, COUNT_OF(names)));
    for (int64_t k = 0; k < COUNT_OF(rows); k++) {
        const json_t *from = rows[k].group != NULL ? json_object_get(d, rows[k].group) : d;
        TRY(buf_printf(out, "<tr><td>%s</td>", rows[k].label));
        TRY(cell_number(out, number_of(from, rows[k].key)));
        TRY(buf_puts(out, "</tr>\n"));
    }
    TRY(table_end(out));
    if (json_array_size(json_object_get(d, "examples")) > 0)
        TRY(buf_puts(out, "<h3>The longest near duplicates, by their beginnings</h3>\n"));
    json_array_foreach(json_object_get(d, "examples"), i, e)
    {
        TRY(buf_printf(out, "<p>similarity %.3f</p>\n", real_of(e, "similarity")));
        TRY(quote(out, text_of(e, "kept_source"), text_of(e, "kept")));
        TRY(quote(out, text_of(e, "other_source"), text_of(e, "other")));
    }
    return ERR_OK;
}

static err_t put_splits(struct buf *out, const json_t *root)
{
    static const char *const names[] = {
        "split",         "#dialogues",        "#share",      "#samples", "#oldest turns cut",
        "#question cut", "#replies left out", "#replies cut"
    };
    static const char *const cuts[] = { "prompts_cut_turns", "prompts_cut_question",
                                        "replies_left_out", "replies_cut" };
    const char *name;
    json_t *split;
    const json_t *limits = json_object_get(root, "limits");
    const json_t *prepare = json_object_get(root, "prepare");
    const int64_t all = number_of(json_object_get(prepare, "written"), "dialogues");
    TRY(buf_puts(out, "<h2>Splits and truncation</h2>\n"));
    TRY(table_begin(out, names, COUNT_OF(names)));
    json_object_foreach((json_t *)(uintptr_t)json_object_get(prepare, "splits"), name, split)
    {
        const json_t *cut = json_object_get(json_object_get(limits, "splits"), name);
        TRY(buf_puts(out, "<tr>"));
        TRY(cell_text(out, name));
        TRY(cell_number(out, number_of(split, "dialogues")));
        TRY(cell_percent(out, percent(number_of(split, "dialogues"), all)));
        TRY(cell_number(out, number_of(split, "samples")));
        for (int64_t k = 0; k < COUNT_OF(cuts); k++) TRY(cell_number(out, number_of(cut, cuts[k])));
        TRY(buf_puts(out, "</tr>\n"));
    }
    TRY(table_end(out));
    return buf_printf(out,
                      "<p>Samples whose prompt loses its oldest turns or part of its only question "
                      "at %lld tokens (<code>batch.max_input</code>), and replies beyond %lld "
                      "(<code>batch.max_target</code>), which are left out or cut as "
                      "<code>batch.over_long_target</code> says.</p>\n",
                      (long long)number_of(limits, "max_input"),
                      (long long)number_of(limits, "max_target"));
}

static err_t put_histogram(struct buf *out, const json_t *h, const char *x, const char *y,
                           const char *title)
{
    int64_t value[SVG_BARS_MAX];
    size_t i;
    json_t *bin;
    const json_t *bins = json_object_get(h, "bins");
    struct svg_bars chart = { .value = value,
                              .count = (int64_t)json_array_size(bins),
                              .first = number_of(h, "first"),
                              .width = max_i64(1, number_of(h, "width")),
                              .x_label = x,
                              .y_label = y };
    if (chart.count < 1 || chart.count > SVG_BARS_MAX) return ERR_OK;
    json_array_foreach(bins, i, bin) value[i] = max_i64(0, json_integer_value(bin));
    TRY(buf_printf(out,
                   "<figure><figcaption><b>%s</b><br>median %lld, mean %.1f, 95 %% up to "
                   "%lld, longest %lld%s</figcaption>\n",
                   title, (long long)number_of(h, "median"), real_of(h, "mean"),
                   (long long)number_of(h, "p95"), (long long)number_of(h, "max"),
                   number_of(h, "max") >= chart.first + chart.count * chart.width
                       ? " (the last bar has all longer ones)"
                       : ""));
    TRY(svg_bars(out, &chart));
    return buf_puts(out, "</figure>\n");
}

static err_t put_lengths(struct buf *out, const json_t *root)
{
    const json_t *packs = json_object_get(root, "packs");
    char count[28];
    svg_number(count, number_of(packs, "packs"));
    TRY(buf_puts(out, "<h2>Lengths</h2>\n<div class=\"plots\">\n"));
    TRY(put_histogram(out, below(root, "lengths", "turns"), "turns", "dialogues",
                      "Turns of a dialogue"));
    TRY(put_histogram(out, below(root, "lengths", "samples"), "tokens", "samples",
                      "Tokens of a training sample"));
    TRY(put_histogram(out, below(root, "lengths", "replies"), "tokens", "samples",
                      "Trained tokens of a sample"));
    TRY(buf_puts(out, "</div>\n"));
    return buf_printf(out,
                      "<p>The training split fills %s packs of %lld tokens to %.3f %%; planned in "
                      "%.2f s.</p>\n",
                      count, (long long)number_of(packs, "pack_len"),
                      100.0 * real_of(packs, "fill"), real_of(packs, "plan_seconds"));
}

static err_t put_topic(struct buf *out, const json_t *t, const char *name, int64_t all)
{
    const double share = percent(number_of(t, "dialogues"), all);
    TRY(buf_puts(out, "<tr>"));
    TRY(cell_text(out, name));
    TRY(cell_number(out, number_of(t, "dialogues")));
    TRY(cell_percent(out, share));
    TRY(cell_number(out, number_of(t, "train")));
    TRY(cell_number(out, number_of(t, "validation")));
    TRY(cell_number(out, number_of(t, "test")));
    return buf_printf(out, "<td><span class=\"share\" style=\"width:%.2frem\"></span></td></tr>\n",
                      share / 5.0);
}

static err_t put_topics(struct buf *out, const json_t *root)
{
    static const char *const names[] = { "topic",       "#dialogues", "#share", "#train",
                                         "#validation", "#test",      "" };
    char other[48];
    size_t i;
    json_t *t;
    const json_t *topics = json_object_get(root, "topics");
    const int64_t all = number_of(below(root, "prepare", "written"), "dialogues");
    TRY(buf_puts(out, "<h2>Topics</h2>\n"));
    TRY(table_begin(out, names, COUNT_OF(names)));
    json_array_foreach(json_object_get(topics, "list"), i, t)
    {
        const char *name = text_of(t, "name");
        TRY(put_topic(out, t, name[0] != '\0' ? name : "(none)", all));
    }
    snprintf(other, sizeof other, "%lld others", (long long)number_of(topics, "other_topics"));
    if (number_of(topics, "other_topics") > 0)
        TRY(put_topic(out, json_object_get(topics, "other"), other, all));
    return table_end(out);
}

/* Names and values of an object, one a row. */
static err_t put_pairs(struct buf *out, const char *title, const json_t *object)
{
    static const char *const names[] = { "name", "value" };
    const char *key;
    json_t *value;
    TRY(buf_printf(out, "<h2>%s</h2>\n", title));
    TRY(table_begin(out, names, COUNT_OF(names)));
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        TRY(buf_puts(out, "<tr>"));
        TRY(cell_text(out, key));
        if (json_is_string(value))
            TRY(cell_text(out, json_string_value(value)));
        else if (json_is_integer(value))
            TRY(cell_number(out, json_integer_value(value)));
        else
            TRY(buf_printf(out, "<td class=\"n\">%.3f</td>", json_number_value(value)));
        TRY(buf_puts(out, "</tr>\n"));
    }
    return table_end(out);
}

static err_t put_page(struct buf *out, const json_t *root)
{
    const json_t *prepare = json_object_get(root, "prepare");
    TRY(buf_puts(out, PAGE_HEAD));
    TRY(put_summary(out, root));
    TRY(put_sources(out, prepare));
    TRY(put_splits(out, root));
    TRY(put_lengths(out, root));
    TRY(put_topics(out, root));
    TRY(put_rules(out, prepare));
    TRY(put_examples(out, prepare));
    TRY(put_duplicates(out, prepare));
    TRY(put_pairs(out, "Written", json_object_get(prepare, "written")));
    TRY(put_pairs(out, "Speed", json_object_get(root, "speed")));
    TRY(put_pairs(out, "Settings", json_object_get(prepare, "settings")));
    return buf_puts(out, "</body>\n</html>\n");
}

err_t report_html(struct buf *out, const char *json)
{
    json_error_t why;
    json_t *root = json_loads(json, 0, &why);
    if (root == NULL) RAISE(FORMAT, "the report: line %d: %s", why.line, why.text);
    const err_t rc = put_page(out, root);
    json_decref(root);
    return rc;
}
