/*
 * A small program of several ranks: the launcher, the rendezvous, the watchdog and the communicator
 * together, without a model. For tests, and for trying launchers by hand:
 *
 *     ranks_program [--ranks N] [--kind KIND] [--steps N] [--ms MS] [--settings TEXT]
 *                   [--device NAME] [--silence-ms MS]
 *                   [--victim RANK --after-us US --signal NUMBER |
 *                    --victim RANK --fail [--leave-ms MS] | --victim RANK --fault site:n:kill]
 *
 * Each step sends every rank's number to every other and checks what came. Rank 0 prints "begun"
 * after the first, when all catch signals, and "done". A victim that fails takes --leave-ms to end.
 */
#include "base/digest.h"
#include "base/env.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/stop.h"
#include "kernels/dev.h"
#include "train/ranks.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SILENCE_MS 10000

struct options {
    long ranks, steps, ms, victim, after_us, signal, fail, leave_ms, silence_ms;
    const char *kind, *device, *settings, *fault;
};

static void parse(struct options *o, int argc, char **argv)
{
    *o = (struct options){ .steps = 10, .ms = 1, .victim = -1, .settings = "same" };
    o->device = "cpu";
    o->silence_ms = SILENCE_MS;
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        if (strcmp(name, "--fail") == 0) {
            o->fail = 1;
            continue;
        }
        const char *value = i + 1 < argc ? argv[++i] : "0";
        if (strcmp(name, "--ranks") == 0) o->ranks = atol(value);
        if (strcmp(name, "--steps") == 0) o->steps = atol(value);
        if (strcmp(name, "--ms") == 0) o->ms = atol(value);
        if (strcmp(name, "--victim") == 0) o->victim = atol(value);
        if (strcmp(name, "--after-us") == 0) o->after_us = atol(value);
        if (strcmp(name, "--signal") == 0) o->signal = atol(value);
        if (strcmp(name, "--leave-ms") == 0) o->leave_ms = atol(value);
        if (strcmp(name, "--silence-ms") == 0) o->silence_ms = atol(value);
        if (strcmp(name, "--kind") == 0) o->kind = value;
        if (strcmp(name, "--device") == 0) o->device = value;
        if (strcmp(name, "--settings") == 0) o->settings = value;
        if (strcmp(name, "--fault") == 0) o->fault = value;
    }
}

/* Ends or stops the process at a moment of its own, after its first step. */
static void *strike(void *arg)
{
    const struct options *o = arg;
    usleep((useconds_t)o->after_us);
    kill(getpid(), (int)o->signal);
    return NULL;
}

static err_t exchange(struct comm *comm, int64_t step, int64_t numbers[2][64])
{
    const int64_t n = comm_size(comm), me = comm_rank(comm);
    struct comm_span spans[64];
    struct comm_request *request;
    for (int64_t i = 0; i < n; i++) {
        spans[i] = (struct comm_span){ i * 8, 8 };
        numbers[0][i] = me * 1000 + i + step * 1000000;
    }
    TRY(comm_alltoallv_begin(
        comm, &request,
        &(struct comm_alltoallv_args){
            .recv = numbers[1], .recv_spans = spans, .send = numbers[0], .send_spans = spans }));
    comm_progress(comm);
    TRY(comm_end(comm, &request));
    for (int64_t i = 0; i < n; i++)
        if (numbers[1][i] != i * 1000 + me + step * 1000000)
            RAISE(NUMERIC, "step %lld: wrong number from rank %lld", (long long)step, (long long)i);
    return ERR_OK;
}

static err_t work(const struct options *o, struct comm *comm)
{
    static int64_t numbers[2][64];
    const struct timespec nap = { .tv_sec = o->ms / 1000, .tv_nsec = o->ms % 1000 * 1000000L };
    pthread_t thread;
    for (int64_t step = 0; step < o->steps; step++) {
        int64_t stop = stop_requested(), all[64];
        if (step == 1 && o->signal > 0 && comm_rank(comm) == o->victim)
            pthread_create(&thread, NULL, strike, (void *)o);
        comm_note(comm, step, "compute");
        nanosleep(&nap, NULL);
        comm_note(comm, step, "exchange");
        TRY(exchange(comm, step, numbers));
        if (o->fail && comm_rank(comm) == o->victim && step == o->steps / 2)
            RAISE(IO, "the disk of this test is full");
        TRY(comm_gather_host(comm, all, &stop, sizeof stop));
        for (int64_t i = 0; i < comm_size(comm); i++)
            if (all[i] != 0) RAISE(INTERRUPTED, "stopped at step %lld", (long long)step);
        if (step == 0 && comm_rank(comm) == 0) {
            printf("begun\n");
            fflush(stdout);
        }
    }
    return ERR_OK;
}

static err_t run(const struct options *o, const struct ranks_place *place)
{
    struct ranks *ranks = NULL;
    struct dev *dev = NULL;
    err_t rc = ERR_OK;
    struct rendezvous_part part = { .name = "settings" };
    sha256_of(part.sha256, o->settings, strlen(o->settings));
    if (place->rank == o->victim) TRY_DONE(fault_init(o->fault));
    TRY_DONE(dev_open(&dev, o->device, 1));
    TRY_DONE(ranks_join(&ranks, &(struct ranks_args){ .place = place,
                                                      .dev = dev,
                                                      .kind = o->kind,
                                                      .parts = &part,
                                                      .part_count = 1,
                                                      .join_s = 20,
                                                      .comm_s = 30,
                                                      .silence_s = (double)o->silence_ms / 1e3 }));
    rc = work(o, ranks->comm);
    const char *kind = comm_kind(ranks->comm);
    rc = ranks_leave(ranks, rc);
    if (rc == ERR_IO) usleep((useconds_t)o->leave_ms * 1000);
    if (rc == ERR_OK && place->rank == 0)
        printf("done: %lld ranks by %s over %s\n", (long long)place->size,
               place->launcher != NULL ? place->launcher : "nobody", kind);
done:
    dev_close(dev);
    return rc;
}

static err_t start(int *status, const struct options *o, char **argv)
{
    struct ranks_place place;
    TRY(env_check());
    TRY(log_init(env_get("SOULCHAT_LOG")));
    TRY(ranks_find(&place));
    if (o->ranks > 1 && place.launcher == NULL)
        return ranks_launch(status, o->ranks, argv, (double)o->silence_ms / 1e3);
    TRY(stop_catch());
    return run(o, &place);
}

int main(int argc, char **argv)
{
    struct options o;
    int status = 0;
    parse(&o, argc, argv);
    const err_t rc = start(&status, &o, argv);
    if (rc == ERR_OK) return status;
    fprintf(stderr, "ranks_program: %s\n", err_last()->text);
    return rc == ERR_USAGE ? 2 : rc == ERR_INTERRUPTED ? 130 : rc == ERR_COMM ? 75 : 1;
}
