#include "base/progress.h"

#include "base/check.h"
#include "base/log.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define DRAW_INTERVAL_S 0.1
#define LOG_INTERVAL_S  10.0

double time_now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void time_format(char out[24], double seconds)
{
    if (!(seconds >= 0 && seconds < 1e4 * 86400)) { /* NaN too */
        memcpy(out, "?", 2);
        return;
    }
    const long all = lround(seconds);
    const int days = (int)(all / 86400), h = (int)(all / 3600 % 24), m = (int)(all / 60 % 60);
    const int s = (int)(all % 60);
    if (all < 60)
        snprintf(out, 24, "%ds", s);
    else if (all < 3600)
        snprintf(out, 24, "%d:%02d", m, s);
    else if (all < 86400)
        snprintf(out, 24, "%d:%02d:%02d", h, m, s);
    else
        snprintf(out, 24, "%dd %02d:%02d:%02d", days, h, m, s);
}

/* "0.42", "38", "1.2k", "3.4M": two or three digits tell a rate. */
static void format_rate(char out[24], double rate)
{
    const char *suffix = rate >= 999.5e3 ? "M" : rate >= 999.5 ? "k" : "";
    const double shown = rate >= 999.5e3 ? rate / 1e6 : rate >= 999.5 ? rate / 1e3 : rate;
    snprintf(out, 24, "%.*f%s", shown < 1 ? 2 : shown < 10 ? 1 : 0, shown, suffix);
}

static double rate_of(const struct progress *p, double elapsed_s)
{
    return elapsed_s > 0 ? (double)(p->done - p->done_before) / elapsed_s : 0;
}

void progress_format(char out[PROGRESS_LINE_MAX], const struct progress *p, double now_s)
{
    const double elapsed = now_s - p->time_begin_s;
    const double rate = rate_of(p, elapsed);
    char rate_text[24], time_text[24];
    format_rate(rate_text, rate);
    if (p->total > 0) {
        const double percent = 100.0 * (double)p->done / (double)p->total;
        const double left = (double)(p->total - p->done);
        time_format(time_text, rate > 0 ? fmax(left, 0) / rate : -1);
        snprintf(out, PROGRESS_LINE_MAX, "%3.0f%% %lld/%lld %s %s/s eta %s", floor(percent),
                 (long long)p->done, (long long)p->total, p->unit, rate_text, time_text);
    } else {
        time_format(time_text, elapsed);
        snprintf(out, PROGRESS_LINE_MAX, "%lld %s %s/s %s", (long long)p->done, p->unit, rate_text,
                 time_text);
    }
}

void progress_begin(struct progress *p, const char *what, const char *unit, int64_t total)
{
    ASSERT(total >= 0);
    const char *term = getenv("TERM");
    const bool is_dumb = term == NULL || strcmp(term, "dumb") == 0;
    *p = (struct progress){ .what = what, .unit = unit, .total = total,
                            .is_tty = isatty(STDERR_FILENO) && !is_dumb };
    p->time_begin_s = time_now_s();
    /* The first drawing is due at once on a terminal, after the interval elsewhere. */
    p->time_drawn_s = p->time_begin_s - (p->is_tty ? DRAW_INTERVAL_S : 0);
}

/* Cut to the terminal's width, at the beginning of a character. */
static void cut_to_width(char *line)
{
    struct winsize window;
    size_t width = 80;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0) width = window.ws_col;
    if (strlen(line) < width) return;
    size_t end = width - 1;
    while (end > 0 && ((unsigned char)line[end] & 0xc0u) == 0x80u) end--;
    line[end] = '\0';
}

void progress_resume(struct progress *p, int64_t done_before)
{
    p->done = p->done_before = done_before;
}

void progress_update(struct progress *p, int64_t done, const char *fmt, ...)
{
    p->done = done;
    const double now_s = time_now_s();
    if (now_s - p->time_drawn_s < (p->is_tty ? DRAW_INTERVAL_S : LOG_INTERVAL_S)) return;
    p->time_drawn_s = now_s;
    if (!log_enabled(LOG_INFO, p->what)) return;

    char figures[PROGRESS_LINE_MAX], more[PROGRESS_LINE_MAX] = "";
    progress_format(figures, p, now_s);
    if (fmt != NULL) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(more, sizeof more, fmt, ap);
        va_end(ap);
    }
    if (!p->is_tty) {
        LOG_I(p->what, "%s %s", figures, more);
        return;
    }
    char line[3 * PROGRESS_LINE_MAX];
    snprintf(line, sizeof line, "%.32s %s %s", p->what, figures, more);
    cut_to_width(line);
    log_status(line);
}

void progress_end(struct progress *p)
{
    const double elapsed = time_now_s() - p->time_begin_s;
    char time_text[24], rate_text[24];
    time_format(time_text, elapsed);
    format_rate(rate_text, rate_of(p, elapsed));
    if (p->is_tty) log_status(NULL);
    LOG_I(p->what, "%lld %s in %s, %s/s", (long long)(p->done - p->done_before), p->unit,
          time_text, rate_text);
}
