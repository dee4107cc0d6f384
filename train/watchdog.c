#include "train/watchdog.h"

#include "base/check.h"
#include "base/log.h"
#include "base/progress.h"
#include "train/comm.h"
#include "train/ranks.h"
#include "train/rendezvous.h"
#include "train/rendezvous_wire.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define BEAT_S    1.0
#define SILENCE_S 5.0
#define FINISH_S  1800.0
#define ABORT_S   1.0 /* for the communicator to let go of its devices */
#define SETTLE_S  1.0 /* for the loss to show that a failure of the communicator comes from */
#define TEXT_MAX  WIRE_INBOX_BYTES /* of a line about a loss */
#define PLACE_MAX 128

/* A beat's payload, little-endian. */
struct beat {
    int64_t step, seq;
    char phase[COMM_PHASE_MAX], collective[16];
};

STATIC_ASSERT(sizeof(struct beat) == 48, "no padding in a beat");

struct peer {
    int64_t rank;
    int fd;
    struct wire_inbox inbox;
    uint8_t words[WIRE_INBOX_BYTES]; /* what the inbox holds */
    struct beat beat;                /* the last one */
    bool has_beat;
    bool bye;  /* has done its work: it may close the connection */
    bool mute; /* sending failed: what is wrong shows on receiving */
    double heard_s;
};

struct watchdog {
    struct rendezvous *meeting;
    int64_t rank, size;
    double beat_s, silence_s, finish_s;
    double longest_s;   /* silence of a peer that was heard again */
    struct peer *peers; /* the thread's, like the next two */
    int64_t peer_count;
    struct pollfd *polls;
    int wake_fd;
    pthread_t thread;

    pthread_mutex_t comm_lock; /* held while the thread uses the communicator */
    struct comm *comm;
    struct comm_activity activity; /* the last one seen of it */
    double broken_s;               /* since when it reports an error; 0: it does not */
    atomic_bool finishing, failing;
    char cause[TEXT_MAX]; /* of failing; written before it is set */
    bool said_bye;        /* the thread's, like the next two */
    double finish_by_s;   /* 0: this rank has not finished */
    int64_t late;         /* a rank that had not finished by then; -1: none */
};

/* ---- telling ---- */

static void get_activity(struct watchdog *w, struct beat *out)
{
    pthread_mutex_lock(&w->comm_lock);
    if (w->comm != NULL) comm_activity(w->comm, &w->activity);
    const struct comm_activity now = w->activity;
    pthread_mutex_unlock(&w->comm_lock);
    memset(out, 0, sizeof *out);
    out->step = now.step;
    out->seq = now.collective_seq;
    snprintf(out->phase, sizeof out->phase, "%s", now.phase);
    snprintf(out->collective, sizeof out->collective, "%s", now.collective);
}

/* "step 12, forward, in allgatherv 40" */
static void describe(char out[PLACE_MAX], const struct beat *beat)
{
    char step[32] = "no step yet";
    if (beat->step >= 0) snprintf(step, sizeof step, "step %lld", (long long)beat->step);
    if (strcmp(beat->collective, "none") == 0)
        snprintf(out, PLACE_MAX, "%s, %s, in no collective", step, beat->phase);
    else
        snprintf(out, PLACE_MAX, "%s, %s, in %s %lld", step, beat->phase, beat->collective,
                 (long long)beat->seq);
}

static void tell(struct peer *peer, enum wire_kind kind, const void *payload, int64_t bytes)
{
    if (peer->mute || peer->fd < 0) return;
    if (wire_send(peer->fd, kind, payload, bytes, time_now_s()) == ERR_OK) return;
    LOG_D("ranks", "rank %lld cannot be told: %s", (long long)peer->rank, err_last()->text);
    peer->mute = true; /* half a frame may be out: nothing sensible can follow */
}

static void tell_all(struct watchdog *w, enum wire_kind kind, const void *payload, int64_t bytes)
{
    for (int64_t i = 0; i < w->peer_count; i++) tell(&w->peers[i], kind, payload, bytes);
}

/* ---- leaving ---- */

static void *end_soon(void *arg)
{
    (void)arg;
    nanosleep(&(struct timespec){ .tv_sec = (time_t)ABORT_S }, NULL);
    _exit(RANKS_STATUS_LOST);
}

__attribute__((noreturn)) static void leave(struct watchdog *w, const char *line)
{
    char place[PLACE_MAX];
    struct beat mine;
    pthread_t timer;
    /* Neither a log that nobody reads nor aborting may become another way to hang. */
    const bool is_timed = pthread_create(&timer, NULL, end_soon, NULL) == 0;
    get_activity(w, &mine);
    describe(place, &mine);
    LOG_E("ranks", "%s; rank %lld, at %s, ends with status %d: resume with --resume", line,
          (long long)w->rank, place, RANKS_STATUS_LOST);
    if (!is_timed) _exit(RANKS_STATUS_LOST);
    pthread_mutex_lock(&w->comm_lock);
    if (w->comm != NULL) comm_abort(w->comm, line);
    _exit(RANKS_STATUS_LOST);
}

/* In words that whoever hears them can pass on: they name this rank. */
static void tell_failure(struct watchdog *w, const char *cause)
{
    char line[TEXT_MAX], place[PLACE_MAX];
    struct beat mine;
    get_activity(w, &mine);
    describe(place, &mine);
    snprintf(line, sizeof line, "rank %lld on %s failed: %.260s; last heard of at %s",
             (long long)w->rank, rendezvous_host(w->meeting, w->rank), cause, place);
    tell_all(w, WIRE_FAILED, line, (int64_t)strlen(line) + 1);
}

/* A peer is lost: rank 0 tells the others, the others tell rank 0 in case it wakes up again. */
__attribute__((noreturn)) static void lose(struct watchdog *w, const struct peer *peer,
                                           const char *why)
{
    char line[TEXT_MAX], place[PLACE_MAX] = "start";
    if (peer->has_beat) describe(place, &peer->beat);
    snprintf(line, sizeof line, "rank %lld on %s %s; last heard of at %s", (long long)peer->rank,
             rendezvous_host(w->meeting, peer->rank), why, place);
    tell_all(w, WIRE_FAILED, line, (int64_t)strlen(line) + 1);
    leave(w, line);
}

/* ---- hearing ---- */

static void take_beat(struct peer *peer, int64_t bytes)
{
    if (bytes != (int64_t)sizeof peer->beat) return;
    memcpy(&peer->beat, peer->words, sizeof peer->beat);
    peer->beat.phase[sizeof peer->beat.phase - 1] = '\0';
    peer->beat.collective[sizeof peer->beat.collective - 1] = '\0';
    peer->has_beat = true;
}

/* A rank that comes back late says whether the time allowed is too short for this machine. */
static void note_heard(struct watchdog *w, struct peer *peer)
{
    const double now_s = time_now_s(), silent_s = now_s - peer->heard_s;
    w->longest_s = fmax(w->longest_s, silent_s);
    if (silent_s > w->silence_s / 2)
        LOG_W("ranks", "rank %lld was silent for %.1f s; after %g s it would count as lost",
              (long long)peer->rank, silent_s, w->silence_s);
    peer->heard_s = now_s;
}

static void take_frame(struct watchdog *w, struct peer *peer, const struct wire_frame *frame)
{
    note_heard(w, peer);
    if (frame->kind == WIRE_BEAT) {
        take_beat(peer, frame->bytes);
    } else if (frame->kind == WIRE_BYE) {
        peer->bye = true;
    } else if (frame->kind == WIRE_FAILED) {
        char line[TEXT_MAX];
        snprintf(line, sizeof line, "%.*s", (int)frame->bytes, (const char *)peer->words);
        if (w->rank == 0) tell_all(w, WIRE_FAILED, line, (int64_t)strlen(line) + 1);
        leave(w, line);
    }
}

static void hear(struct watchdog *w, struct peer *peer)
{
    struct wire_frame frame;
    bool complete = true;
    while (complete && peer->fd >= 0) {
        const err_t rc = wire_poll(peer->fd, &peer->inbox, &frame, &complete);
        if (rc == ERR_OK && complete) take_frame(w, peer, &frame);
        if (rc == ERR_OK) continue;
        if (!peer->bye) lose(w, peer, err_last()->text);
        peer->fd = -1; /* the rendezvous closes it */
    }
}

static void judge(struct watchdog *w)
{
    const double now_s = time_now_s();
    char why[64];
    for (int64_t i = 0; i < w->peer_count; i++) {
        struct peer *peer = &w->peers[i];
        if (peer->bye || now_s - peer->heard_s <= w->silence_s) continue;
        snprintf(why, sizeof why, "has not been heard of for %.1f s", now_s - peer->heard_s);
        lose(w, peer, why);
    }
}

/* A communicator that this rank itself has given up is the main thread's to report. */
static void judge_comm(struct watchdog *w)
{
    char cause[TEXT_MAX];
    pthread_mutex_lock(&w->comm_lock);
    const bool broken =
        w->comm != NULL && comm_check(w->comm) != ERR_OK && comm_check_aborted(w->comm) == ERR_OK;
    pthread_mutex_unlock(&w->comm_lock);
    const double now_s = time_now_s();
    if (!broken || w->broken_s == 0) w->broken_s = broken ? now_s : 0;
    if (!broken || now_s - w->broken_s < SETTLE_S) return;
    snprintf(cause, sizeof cause, "communicator: %.300s", err_last()->text);
    tell_failure(w, cause);
    leave(w, cause);
}

/* ---- the thread ---- */

/* A rank that has not finished; -1: all have. */
static int64_t unfinished(const struct watchdog *w)
{
    for (int64_t i = 0; i < w->peer_count; i++)
        if (!w->peers[i].bye) return w->peers[i].rank;
    return -1;
}

/* Rank 0 says bye when all others have, they when they are done themselves. Whether all is over. */
static bool say_bye(struct watchdog *w)
{
    const int64_t missing = unfinished(w);
    const double now_s = time_now_s();
    if (!atomic_load(&w->finishing)) return false;
    if (!w->said_bye && (w->rank != 0 || missing < 0)) {
        tell_all(w, WIRE_BYE, NULL, 0);
        w->said_bye = true;
    }
    if (w->finish_by_s == 0) w->finish_by_s = now_s + w->finish_s;
    if (missing >= 0 && now_s > w->finish_by_s) w->late = missing;
    return missing < 0 || w->late >= 0;
}

/* Until a frame, the next beat or a wake(), which asks for a beat; returns when to send that. */
static double wait_for_news(struct watchdog *w, double until_s)
{
    struct pollfd *polls = w->polls;
    uint64_t count;
    for (int64_t i = 0; i < w->peer_count; i++)
        polls[i] = (struct pollfd){ .fd = w->peers[i].fd, .events = POLLIN };
    polls[w->peer_count] = (struct pollfd){ .fd = w->wake_fd, .events = POLLIN };
    const double left_s = fmax(0, until_s - time_now_s());
    (void)poll(polls, (nfds_t)w->peer_count + 1, (int)ceil(left_s * 1e3));
    return read(w->wake_fd, &count, sizeof count) > 0 ? 0 : until_s;
}

/* After a time in which this process itself was stopped, silence says nothing about the others. */
static void forgive(struct watchdog *w, double since_s)
{
    if (time_now_s() - since_s <= w->silence_s / 2) return;
    for (int64_t i = 0; i < w->peer_count; i++) w->peers[i].heard_s = time_now_s();
}

static void *run(void *arg)
{
    struct watchdog *w = arg;
    double beat_at_s = 0, awake_s = time_now_s();
    for (;;) {
        if (time_now_s() >= beat_at_s) {
            struct beat mine;
            get_activity(w, &mine);
            tell_all(w, WIRE_BEAT, &mine, (int64_t)sizeof mine);
            beat_at_s = time_now_s() + w->beat_s;
            judge_comm(w);
        }
        beat_at_s = wait_for_news(w, beat_at_s);
        forgive(w, awake_s);
        awake_s = time_now_s();
        for (int64_t i = 0; i < w->peer_count; i++) hear(w, &w->peers[i]);
        judge(w);
        if (say_bye(w) || atomic_load(&w->failing)) break;
    }
    if (w->late >= 0) tell_failure(w, "waited too long for the others to finish");
    if (atomic_load(&w->failing)) tell_failure(w, w->cause);
    LOG_D("ranks", "watchdog: the longest silence was %.2f s of %g allowed", w->longest_s,
          w->silence_s);
    return NULL;
}

/* ---- starting and ending ---- */

static void release(struct watchdog *w)
{
    if (w->wake_fd >= 0) close(w->wake_fd);
    pthread_mutex_destroy(&w->comm_lock);
    free(w->polls);
    free(w->peers);
    free(w);
}

static err_t make_peers(struct watchdog *w)
{
    w->peers = calloc((size_t)w->size, sizeof *w->peers);
    w->polls = calloc((size_t)w->size + 1, sizeof *w->polls);
    w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->peers == NULL || w->polls == NULL || w->wake_fd < 0)
        RAISE(NOMEM, "watchdog of %lld ranks: %s", (long long)w->size, strerror(errno));
    for (int64_t rank = 0; rank < w->size; rank++) {
        const int fd = rendezvous_fd(w->meeting, rank);
        if (fd < 0) continue;
        struct peer *peer = &w->peers[w->peer_count++];
        *peer = (struct peer){ .rank = rank, .fd = fd, .heard_s = time_now_s() };
        peer->inbox = wire_inbox_of(peer->words, sizeof peer->words);
    }
    return ERR_OK;
}

err_t watchdog_start(struct watchdog **out, const struct watchdog_args *args)
{
    *out = NULL;
    struct watchdog *w = calloc(1, sizeof *w);
    if (w == NULL) RAISE(NOMEM, "watchdog: no memory");
    w->meeting = args->meeting;
    w->rank = rendezvous_rank(args->meeting);
    w->size = rendezvous_size(args->meeting);
    w->beat_s = args->beat_s > 0 ? args->beat_s : BEAT_S;
    w->silence_s = args->silence_s > 0 ? args->silence_s : SILENCE_S;
    w->finish_s = args->finish_s > 0 ? args->finish_s : FINISH_S;
    ASSERT(w->silence_s > 2 * w->beat_s);
    w->wake_fd = w->late = -1;
    w->activity = (struct comm_activity){ .step = -1, .phase = "start", .collective = "none" };
    pthread_mutex_init(&w->comm_lock, NULL);
    err_t rc = make_peers(w);
    if (rc == ERR_OK && pthread_create(&w->thread, NULL, run, w) != 0)
        rc = err_raise(ERR_NOMEM, __FILE__, __LINE__, "watchdog: no thread");
    if (rc == ERR_OK)
        *out = w;
    else
        release(w);
    return rc;
}

static void wake(struct watchdog *w)
{
    const uint64_t one = 1;
    if (write(w->wake_fd, &one, sizeof one) < 0) LOG_D("ranks", "watchdog: %s", strerror(errno));
}

void watchdog_watch(struct watchdog *w, struct comm *comm)
{
    pthread_mutex_lock(&w->comm_lock);
    if (w->comm != NULL) comm_activity(w->comm, &w->activity);
    w->comm = comm;
    pthread_mutex_unlock(&w->comm_lock);
    wake(w); /* to tell at once that this rank is under way */
}

void watchdog_settle(const struct watchdog *w)
{
    if (w != NULL) nanosleep(&(struct timespec){ .tv_sec = (time_t)SETTLE_S }, NULL);
}

/* Returns the rank that was too late; -1: none. */
static int64_t end(struct watchdog *w)
{
    wake(w);
    pthread_join(w->thread, NULL);
    const int64_t late = w->late;
    release(w);
    return late;
}

void watchdog_fail(struct watchdog *w, const char *cause)
{
    if (w == NULL) return;
    snprintf(w->cause, sizeof w->cause, "%s", cause);
    atomic_store(&w->failing, true);
    end(w);
}

err_t watchdog_finish(struct watchdog *w)
{
    if (w == NULL) return ERR_OK;
    const double finish_s = w->finish_s;
    atomic_store(&w->finishing, true);
    const int64_t late = end(w);
    if (late < 0) return ERR_OK;
    RAISE(COMM, "rank %lld has not finished within %g s of this one", (long long)late, finish_s);
}
