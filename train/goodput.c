#include "train/goodput.h"

#include "base/num.h"
#include "model/json_in.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

double goodput_clock_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

#define STEPS_MAX 100000000 /* of a file that can be believed */

/* What reading the lines has found so far. */
struct reader {
    double begun, stopped; /* of the first start; of the last line if it was a stop. 0: none */
    double idle;           /* from stops to the starts after them */
    double *useful;        /* [reached + 1] seconds of the steps that led to each */
    int64_t reached, room; /* the last step seen */
    int64_t restarts, lost;
};

static double number(const json_t *line, const char *key)
{
    return json_number_value(json_object_get(line, key));
}

/* `step` is where the run is now; steps between that have no lines took no time that we know of. */
static err_t reach(struct reader *r, int64_t step, double useful)
{
    if (step >= r->room) {
        const int64_t room = 2 * step + 1024;
        double *more = realloc(r->useful, (size_t)room * sizeof *more);
        if (more == NULL) RAISE(NOMEM, "goodput: no memory for %lld steps", (long long)room);
        if (r->room == 0) more[0] = 0.0;
        r->useful = more;
        r->room = room;
    }
    for (int64_t i = r->reached + 1; i < step; i++) r->useful[i] = r->useful[r->reached];
    r->useful[step] = useful;
    r->reached = step;
    return ERR_OK;
}

static double useful_at(const struct reader *r, int64_t step)
{
    return r->room > 0 ? r->useful[min_i64(step, r->reached)] : 0.0;
}

static err_t take_event(struct reader *r, int64_t step, const json_t *line, const char *event)
{
    const double time = number(line, "time");
    if (r->begun == 0.0) r->begun = time;
    if (r->stopped > 0.0) r->idle += fmax(time - r->stopped, 0.0);
    r->stopped = strcmp(event, "stop") == 0 ? time : 0.0;
    if (strcmp(event, "start") == 0 || strcmp(event, "resume") == 0) {
        r->lost += max_i64(r->reached - step, 0);
        r->restarts++;
        return reach(r, step, useful_at(r, step));
    }
    if (strcmp(event, "save") == 0) return reach(r, step, number(line, "useful_seconds"));
    return ERR_OK;
}

/* A step that is not beyond the last one comes after a rollback. */
static err_t take_step(struct reader *r, int64_t step, double seconds)
{
    r->lost += max_i64(r->reached - (step - 1), 0);
    return reach(r, step, useful_at(r, step - 1) + seconds);
}

/* A line that says nothing, or was cut by a crash, is passed over. */
static err_t take_line(struct reader *r, const char *text, const char *path)
{
    err_t rc = ERR_OK;
    json_error_t error;
    json_t *line = json_in_load(&error, text, (int64_t)strlen(text));
    if (line == NULL) return json_in_failure(&error, path) == ERR_NOMEM ? ERR_NOMEM : ERR_OK;
    const char *event = json_string_value(json_object_get(line, "event"));
    const int64_t step = json_integer_value(json_object_get(line, "step"));
    if (step >= 0 && step <= STEPS_MAX && event != NULL && json_object_get(line, "time") != NULL)
        rc = take_event(r, step, line, event);
    else if (step > 0 && step <= STEPS_MAX && event == NULL && json_object_get(line, "lr") != NULL)
        rc = take_step(r, step, number(line, "seconds"));
    json_decref(line);
    return rc;
}

static err_t read_lines(struct reader *r, FILE *file, const char *path)
{
    err_t rc = ERR_OK;
    char *line = NULL;
    size_t room = 0;
    while (rc == ERR_OK && getline(&line, &room, file) >= 0) rc = take_line(r, line, path);
    free(line);
    if (rc == ERR_OK && ferror(file)) RAISE(IO, "read %s: %s", path, strerror(errno));
    return rc;
}

err_t goodput_open(struct goodput *out, const char *path, int64_t step)
{
    struct reader r = { .restarts = 0 };
    *out = (struct goodput){ .begun_s = goodput_clock_s() };
    FILE *file = fopen(path, "re");
    if (file == NULL && errno == ENOENT) return ERR_OK;
    if (file == NULL) RAISE(IO, "open %s: %s", path, strerror(errno));
    const err_t rc = read_lines(&r, file, path);
    fclose(file);
    if (rc == ERR_OK && r.begun > 0.0) { /* else of a version that did not tell the time */
        if (r.stopped > 0.0) r.idle += fmax(out->begun_s - r.stopped, 0.0);
        out->before_s = fmax(out->begun_s - r.begun - r.idle, 0.0);
        out->useful_s = out->saved_s = useful_at(&r, step);
        out->restarts = r.restarts;
        out->repeated = r.lost + max_i64(r.reached - step, 0);
    }
    free(r.useful);
    return rc;
}

struct goodput_report goodput_now(const struct goodput *g)
{
    struct goodput_report report = { .wall_s = g->before_s + goodput_clock_s() - g->begun_s,
                                     .useful_s = g->useful_s,
                                     .restarts = g->restarts,
                                     .repeated = g->repeated,
                                     .here = g->here };
    report.share = report.wall_s > 0.0 ? report.useful_s / report.wall_s : 0.0;
    return report;
}
