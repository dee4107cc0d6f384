#include "train/goodput.h"

#include "base/num.h"

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

/* What reading the lines has found so far. */
struct reader {
    double begun, stopped;  /* of the first start; of the last line if it was a stop. 0: none */
    double idle;            /* from stops to the starts after them */
    double useful;          /* behind the checkpoint of `step` */
    int64_t step, reached;  /* where this start begins; the last step seen */
    int64_t restarts, lost; /* lost: steps repeated by earlier starts */
};

static double number(const json_t *line, const char *key)
{
    return json_number_value(json_object_get(line, key));
}

static void take_event(struct reader *r, const json_t *line, const char *event)
{
    const int64_t step = json_integer_value(json_object_get(line, "step"));
    const double time = number(line, "time");
    if (r->begun == 0.0) r->begun = time;
    if (strcmp(event, "resume") == 0) {
        r->restarts++;
        r->lost += max_i64(r->reached - step, 0);
        r->reached = step;
    }
    if (r->stopped > 0.0) r->idle += fmax(time - r->stopped, 0.0);
    r->stopped = strcmp(event, "stop") == 0 ? time : 0.0;
    if (strcmp(event, "save") == 0 && step == r->step) r->useful = number(line, "useful_seconds");
}

static void take_line(struct reader *r, const char *text)
{
    json_t *line = json_loads(text, 0, NULL);
    const char *event = json_string_value(json_object_get(line, "event"));
    if (event != NULL && json_object_get(line, "time") != NULL)
        take_event(r, line, event);
    else if (json_object_get(line, "grad_norm") != NULL && event == NULL)
        r->reached = json_integer_value(json_object_get(line, "step"));
    json_decref(line);
}

err_t goodput_open(struct goodput *out, const char *path, int64_t step)
{
    struct reader r = { .step = step };
    char *line = NULL;
    size_t room = 0;
    *out = (struct goodput){ .begun_s = goodput_clock_s() };
    FILE *file = fopen(path, "re");
    if (file == NULL && errno == ENOENT) return ERR_OK;
    if (file == NULL) RAISE(IO, "open %s: %s", path, strerror(errno));
    while (getline(&line, &room, file) >= 0) take_line(&r, line);
    free(line);
    fclose(file);
    if (r.begun == 0.0) return ERR_OK; /* of a version that did not tell the time */
    if (r.stopped > 0.0) r.idle += fmax(out->begun_s - r.stopped, 0.0);
    out->before_s = fmax(out->begun_s - r.begun - r.idle, 0.0);
    out->useful_s = out->saved_s = step > 0 ? r.useful : 0.0;
    out->restarts = r.restarts + 1;
    out->repeated = r.lost + max_i64(r.reached - step, 0);
    return ERR_OK;
}

struct goodput_report goodput_now(const struct goodput *g)
{
    struct goodput_report report = { .wall_s = g->before_s + goodput_clock_s() - g->begun_s,
                                     .useful_s = g->useful_s,
                                     .restarts = g->restarts,
                                     .repeated = g->repeated };
    report.share = report.wall_s > 0.0 ? report.useful_s / report.wall_s : 0.0;
    return report;
}
