#include "data/svg.h"

#include "base/check.h"
#include "base/num.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* ---- text ---- */

static const char *entity_of(unsigned char c)
{
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return NULL;
    }
}

/* Bytes of a character at `s` that must not reach a page as it is; 0 = it may. U+0080..U+009F,
 * U+200E, U+200F, U+202A..U+202E and U+2066..U+2069 by their UTF-8. */
static size_t unprintable(const unsigned char *s)
{
    if (s[0] == 0x7f || (s[0] < 0x20 && s[0] != '\n' && s[0] != '\t')) return 1;
    if (s[0] == 0xc2 && s[1] >= 0x80 && s[1] <= 0x9f) return 2;
    if (s[0] != 0xe2) return 0;
    if (s[1] == 0x80 && (s[2] == 0x8e || s[2] == 0x8f || (s[2] >= 0xaa && s[2] <= 0xae))) return 3;
    return s[1] == 0x81 && s[2] >= 0xa6 && s[2] <= 0xa9 ? 3 : 0;
}

err_t svg_text(struct buf *out, const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    while (*s != '\0') {
        const char *entity = entity_of(*s);
        const size_t hidden = unprintable(s);
        if (entity != NULL)
            TRY(buf_puts(out, entity));
        else if (hidden > 0)
            TRY(buf_puts(out, "\xef\xbf\xbd"));
        else
            TRY(buf_append(out, s, 1));
        s += hidden > 0 ? hidden : 1;
    }
    return ERR_OK;
}

void svg_number(char out[28], int64_t number)
{
    char digits[24];
    const int size = snprintf(digits, sizeof digits, "%" PRId64, number);
    int64_t at = 0;
    for (int i = 0; i < size; i++) {
        const bool boundary = i > 0 && (size - i) % 3 == 0 && digits[i - 1] != '-';
        if (boundary) out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = '\0';
}

/* ---- a chart ---- */

enum {
    CHART_WIDTH = 420,
    CHART_HEIGHT = 210,
    LEFT = 62,
    RIGHT = 10,
    TOP = 22,
    BOTTOM = 40,
    PLOT_WIDTH = CHART_WIDTH - LEFT - RIGHT,
    PLOT_HEIGHT = CHART_HEIGHT - TOP - BOTTOM,
    Y_STEPS_MAX = 5,
    X_LABELS_MAX = 8,
};

/* The smallest of 1, 2, 5, 10, 20, ... that divides `most` into at most Y_STEPS_MAX steps. */
static int64_t step_of(int64_t most)
{
    int64_t step = 1;
    for (int64_t k = 0; most > step * Y_STEPS_MAX; k++) step = k % 3 == 1 ? step / 2 * 5 : step * 2;
    return step;
}

static err_t draw_y_axis(struct buf *out, const char *label, int64_t step, int64_t top)
{
    char number[28];
    for (int64_t v = 0; v <= top; v += step) {
        const double y = TOP + PLOT_HEIGHT * (1.0 - (double)v / (double)top);
        svg_number(number, v);
        TRY(buf_printf(out,
                       "<line class=\"axis\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>"
                       "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
                       LEFT, CHART_WIDTH - RIGHT, y, y, LEFT - 5, y + 4.0, number));
    }
    TRY(buf_puts(out, "<text x=\"2\" y=\"12\">"));
    TRY(svg_text(out, label));
    return buf_puts(out, "</text>\n");
}

static err_t draw_x_axis(struct buf *out, const struct svg_bars *c, double bar)
{
    const int64_t every = div_ceil(c->count, X_LABELS_MAX);
    for (int64_t i = 0; i < c->count; i += every) {
        char number[28];
        svg_number(number, c->first + i * c->width);
        TRY(buf_printf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n",
                       LEFT + (c->width == 1 ? (double)i + 0.5 : (double)i) * bar,
                       CHART_HEIGHT - BOTTOM + 15, number));
    }
    TRY(buf_printf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">", CHART_WIDTH - RIGHT,
                   CHART_HEIGHT - 6));
    TRY(svg_text(out, c->x_label));
    return buf_puts(out, "</text>\n");
}

static err_t draw_bar(struct buf *out, const struct svg_bars *c, int64_t i, double bar, int64_t top)
{
    char from[28], to[28], value[28];
    const double height = PLOT_HEIGHT * (double)c->value[i] / (double)top;
    svg_number(from, c->first + i * c->width);
    svg_number(to, c->first + (i + 1) * c->width - 1);
    svg_number(value, c->value[i]);
    TRY(buf_printf(out,
                   "<rect class=\"bar\" x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\">"
                   "<title>%s",
                   LEFT + ((double)i + 0.08) * bar, TOP + PLOT_HEIGHT - height, 0.84 * bar, height,
                   from));
    if (c->width > 1) TRY(buf_printf(out, " to %s", to));
    TRY(buf_puts(out, " "));
    TRY(svg_text(out, c->x_label));
    TRY(buf_printf(out, ": %s ", value));
    TRY(svg_text(out, c->y_label));
    return buf_puts(out, "</title></rect>\n");
}

err_t svg_bars(struct buf *out, const struct svg_bars *c)
{
    int64_t most = 1;
    ASSERT(c->count >= 1 && c->count <= SVG_BARS_MAX && c->width >= 1);
    for (int64_t i = 0; i < c->count; i++) most = max_i64(most, c->value[i]);
    const int64_t step = step_of(most), top = align_up(most, step);
    const double bar = (double)PLOT_WIDTH / (double)c->count;
    TRY(buf_printf(out,
                   "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" role=\"img\" "
                   "fill=\"currentColor\" font-family=\"sans-serif\" font-size=\"12\">\n",
                   CHART_WIDTH, CHART_HEIGHT));
    TRY(draw_y_axis(out, c->y_label, step, top));
    for (int64_t i = 0; i < c->count; i++) TRY(draw_bar(out, c, i, bar, top));
    TRY(draw_x_axis(out, c, bar));
    return buf_puts(out, "</svg>\n");
}
