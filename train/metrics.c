#include "train/metrics.h"

#include "base/check.h"
#include "base/fault.h"
#include "train/goodput.h"
#include "train/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LINE_MAX_BYTES 1024

static err_t write_line(struct metrics *m, const char *fmt, ...) PRINTF_LIKE(2, 3);

static err_t write_line(struct metrics *m, const char *fmt, ...)
{
    char line[LINE_MAX_BYTES] = "\n";
    if (m->fd < 0) return ERR_OK;
    const int begin = m->cut ? 1 : 0; /* end the cut line first */
    va_list ap;
    va_start(ap, fmt);
    const int size = begin + vsnprintf(line + begin, sizeof line - 1, fmt, ap);
    va_end(ap);
    ASSERT(size >= begin && size < LINE_MAX_BYTES - 1);
    for (ssize_t done = 0; done < size;) {
        TRY(fault_point("metrics.write"));
        const ssize_t n = write(m->fd, line + done, (size_t)(size - done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) RAISE(IO, "write %s: %s", m->path, n < 0 ? strerror(errno) : "nothing written");
        done += n;
        m->cut = done < size;
    }
    return ERR_OK;
}

/* JSON has no NaN: a non-finite number is written as null. */
static const char *number(char text[32], double value)
{
    if (isfinite(value))
        snprintf(text, 32, "%.9g", value);
    else
        snprintf(text, 32, "null");
    return text;
}

err_t metrics_open(struct metrics *m, const char *path)
{
    char last = '\n';
    *m = (struct metrics){ .fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666),
                           .path = path };
    if (m->fd < 0) RAISE(IO, "open %s: %s", path, strerror(errno));
    const off_t end = lseek(m->fd, 0, SEEK_END);
    if (end > 0 && pread(m->fd, &last, 1, end - 1) != 1) {
        const int reason = errno;
        metrics_close(m);
        RAISE(IO, "read %s: %s", path, strerror(reason));
    }
    m->cut = last != '\n';
    return ERR_OK;
}

err_t metrics_step(struct metrics *m, const struct metrics_step *s)
{
    char loss[32], lr[32], norm[32], scale[32], epoch[32], seconds[32], waited[32];
    return write_line(
        m,
        "{\"step\":%lld,\"epoch\":%s,\"loss\":%s,\"lr\":%s,\"grad_norm\":%s,\"clip_scale\":%s,"
        "\"samples\":%lld,\"stream_first\":%lld,\"tokens\":%lld,\"tokens_padded\":%lld,"
        "\"trained_tokens\":%lld,\"seconds\":%s,\"waited_seconds\":%s}\n",
        (long long)s->step, number(epoch, s->epoch), number(loss, s->loss), number(lr, s->lr),
        number(norm, s->grad_norm), number(scale, s->clip_scale), (long long)s->samples,
        (long long)s->stream_first, (long long)s->tokens, (long long)s->tokens_padded,
        (long long)s->trained_tokens, number(seconds, s->seconds), number(waited, s->waited_s));
}

err_t metrics_validation(struct metrics *m, int64_t step, double loss, int64_t tokens)
{
    char text[32];
    return write_line(m, "{\"step\":%lld,\"validation_loss\":%s,\"validation_tokens\":%lld}\n",
                      (long long)step, number(text, loss), (long long)tokens);
}

err_t metrics_base_loss(struct metrics *m, double loss)
{
    char text[32];
    return write_line(m, "{\"step\":0,\"validation_loss_f32\":%s}\n", number(text, loss));
}

err_t metrics_weight_change(struct metrics *m, int64_t step, double change, int64_t since)
{
    char text[32];
    return write_line(m, "{\"step\":%lld,\"weight_change\":%s,\"since_step\":%lld}\n",
                      (long long)step, number(text, change), (long long)since);
}

err_t metrics_clock(struct metrics *m, int64_t step, const char *event, double time)
{
    return write_line(m, "{\"step\":%lld,\"event\":\"%s\",\"time\":%.3f}\n", (long long)step, event,
                      time);
}

err_t metrics_save(struct metrics *m, int64_t step, double time, double seconds, double useful)
{
    return write_line(m,
                      "{\"step\":%lld,\"event\":\"save\",\"time\":%.3f,\"seconds\":%.6f,"
                      "\"useful_seconds\":%.6f}\n",
                      (long long)step, time, seconds, useful);
}

err_t metrics_published(struct metrics *m, int64_t step, double time, double seconds)
{
    return write_line(m, "{\"step\":%lld,\"event\":\"published\",\"time\":%.3f,\"seconds\":%.6f}\n",
                      (long long)step, time, seconds);
}

err_t metrics_goodput(struct metrics *m, int64_t step, const struct goodput_report *g)
{
    return write_line(m,
                      "{\"step\":%lld,\"event\":\"end\",\"goodput\":%.6f,"
                      "\"useful_seconds\":%.6f,\"wall_seconds\":%.6f,\"save_seconds\":%.6f,"
                      "\"waited_seconds\":%.6f,\"restarts\":%lld,\"repeated_steps\":%lld}\n",
                      (long long)step, g->share, g->useful_s, g->wall_s, g->here.paused_s,
                      g->here.waited_s, (long long)g->restarts, (long long)g->repeated);
}

err_t metrics_guard(struct metrics *m, int64_t step, const struct guard_decision *d, double loss,
                    double grad_norm)
{
    static const char *const events[] = { "spike", "skip", "rollback", "guard_stop" };
    char text[3][32];
    return write_line(m,
                      "{\"step\":%lld,\"event\":\"%s\",\"cause\":\"%s\",\"loss\":%s,"
                      "\"grad_norm\":%s,\"limit\":%s}\n",
                      (long long)step, events[d->action], guard_cause_text(d->cause),
                      number(text[0], loss), number(text[1], grad_norm), number(text[2], d->limit));
}

err_t metrics_sync(struct metrics *m)
{
    if (m->fd < 0) return ERR_OK;
    TRY(fault_point("metrics.sync"));
    if (fsync(m->fd) != 0) RAISE(IO, "fsync %s: %s", m->path, strerror(errno));
    return ERR_OK;
}

void metrics_close(struct metrics *m)
{
    if (m->fd >= 0) close(m->fd);
    m->fd = -1;
}
