#include "ranked_runs.h"

#include "base/log.h"
#include "train/loop.h"
#include "train/rendezvous_wire.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct errand {
    struct ranked_run *run;
    struct cfg *cfg;
    struct ranks_place place; /* of rank 0 */
};

static const char *words_path(const struct ranked_run *run, int64_t rank)
{
    char name[256];
    snprintf(name, sizeof name, "%s.words-%lld", run->out, (long long)rank);
    return testing_path(name);
}

const char *ranked_words(const struct ranked_run *run, int64_t rank)
{
    static char text[16384];
    FILE *f = fopen(words_path(run, rank), "r");
    assert_non_null(f);
    const size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    return text;
}

static void redirect(const struct ranked_run *run, int64_t rank)
{
    const int fd = open(words_path(run, rank), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0 && dup2(fd, STDERR_FILENO) >= 0);
    close(fd);
    assert_ok(log_init("warn"));
}

/* As the command does it. */
static err_t train(const struct errand *errand, const struct ranks_place *place)
{
    struct run run;
    err_t rc = run_open(&run, errand->cfg, errand->run->resume, place);
    if (rc == ERR_OK && !run_is_done(&run)) rc = loop_run(&run);
    rc = run_leave(&run, rc);
    run_close(&run);
    return rc;
}

static void body(int64_t rank, int64_t size, void *arg)
{
    const struct errand *errand = arg;
    struct ranks_place place = errand->place;
    place.rank = place.local_rank = rank;
    place.size = size;
    if (rank != 0) {
        close(place.listen_fd);
        place.listen_fd = -1;
    }
    redirect(errand->run, rank);
    if (errand->run->prepare != NULL) errand->run->prepare(rank, errand->run->arg);
    const err_t rc = train(errand, &place);
    if (rc != ERR_OK) fprintf(stderr, "%s: %s\n", err_name(rc), err_last()->text);
    if (errand->run->finish != NULL) errand->run->finish(rank, rc, errand->run->arg);
    fflush(NULL);
    if (rc != ERR_OK) _exit(rc == ERR_COMM ? RANKS_STATUS_LOST : 2);
}

void ranked_run(struct ranked_run *run)
{
    struct errand errand = { .run = run, .cfg = runs_cfg(run->out, run->settings) };
    struct ranks_place *place = &errand.place;
    assert_in_range(run->size, 1, RANKED_MAX);
    *place = (struct ranks_place){ .launcher = "soulchat", .host = "127.0.0.1", .listen_fd = -1 };
    snprintf(place->job, sizeof place->job, "test %d %s", (int)getpid(), run->out);
    assert_ok(wire_listen(&place->listen_fd, &place->port, "127.0.0.1", 0));
    ranks_fork(run->status, run->size, body, &errand);
    close(place->listen_fd);
    cfg_close(errand.cfg);
}

void ranked_run_well(struct ranked_run *run)
{
    ranked_run(run);
    for (int64_t i = 0; i < run->size; i++)
        if (run->status[i] != 0)
            fail_msg("%s: rank %d of %d ended with status %d:\n%s", run->out, (int)i,
                     (int)run->size, run->status[i], ranked_words(run, i));
}
