/*
 * svg.h - bar charts as SVG that stands inside an HTML page: no scripts, no fonts, no network.
 *
 *     const struct svg_bars chart = { .value = counts, .count = 12, .first = 0, .width = 2,
 *                                     .x_label = "turns", .y_label = "dialogues" };
 *     TRY(svg_bars(&page, &chart));
 *
 * A drawing is 420 units wide and scales with its container, so that its letters are readable on a
 * telephone. It takes its colours from the page: class `bar` for bars, `axis` for lines,
 * currentColor for letters.
 */
#ifndef DATA_SVG_H
#define DATA_SVG_H

#include "base/buf.h"
#include "base/err.h"

#include <stdint.h>

#define SVG_BARS_MAX 60

/* A histogram of whole numbers: bar i counts what is in first + i*width .. first + (i+1)*width-1.
 */
struct svg_bars {
    const int64_t *value; /* [count], >= 0 */
    int64_t count;        /* 1 .. SVG_BARS_MAX */
    int64_t first, width;
    const char *x_label, *y_label; /* escaped here */
};

/* Appends one <svg> element. Each bar has a title with its numbers. ERR_NOMEM. */
MUST_USE err_t svg_bars(struct buf *out, const struct svg_bars *chart);

/* Text as content of an element or as an attribute's value: markup becomes entities, control
 * characters and those that turn the direction of writing become U+FFFD. Valid UTF-8 in and out. */
MUST_USE err_t svg_text(struct buf *out, const char *text);

/* 1234567 as "1,234,567" into out[28]. */
void svg_number(char out[28], int64_t number);

#endif
