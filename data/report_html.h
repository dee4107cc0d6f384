/*
 * report_html.h - the report of a preparation: report.json for programs, report.html for people.
 *
 *     TRY(prepare_run(&counts, &options));
 *     TRY(report_write(&counts, &options, &REPORT_LIMITS)); // both files, beside prepared.json
 *
 * report.json holds what prepared.json has (member "prepare") and what was seen in the finished
 * shards: lengths, topics, what the limits of a sample cut, packs, speed. report.html is made from
 * that text and nothing else, so that both say the same. The page is one file: it asks for nothing
 * from a network, runs no script, and shows texts of the corpus as text whatever is in them.
 */
#ifndef DATA_REPORT_HTML_H
#define DATA_REPORT_HTML_H

#include "base/buf.h"
#include "base/err.h"
#include "data/prepare.h"
#include "data/report_stats.h"

#define REPORT_JSON_NAME "report.json"
#define REPORT_HTML_NAME "report.html"

MUST_USE err_t report_json(struct buf *out, const struct prepare_counts *counts,
                           const struct prepare_options *o, const struct report_stats *stats);
/* From what report_json wrote. ERR_FORMAT: something else; ERR_NOMEM. */
MUST_USE err_t report_html(struct buf *out, const char *json);
/* Look at the shards in o->out and write both files there. Errors as report_stats_read,
 * file_replace.
 */
MUST_USE err_t report_write(const struct prepare_counts *counts, const struct prepare_options *o,
                            const struct report_limits *limits);

#endif
