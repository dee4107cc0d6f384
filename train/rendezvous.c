/* The part of the ranks but rank 0 in a meeting; and the meeting itself. */
#include "train/rendezvous_impl.h"

#include "base/check.h"
#include "base/progress.h"
#include "base/stop.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ATTEMPT_S   5   /* one try to connect */
#define PAUSE_MS    100 /* between tries */
#define LOOK_S      0.5 /* whether we are asked to stop, while nothing comes */
#define LAST_WORD_S 2   /* rank 0 gives up first, and says who did not come */
#define BEAT_S      1.0
#define SILENCE_S   5.0

STATIC_ASSERT(sizeof(struct welcome) <= WIRE_INBOX_BYTES, "a welcome fits into an inbox");

/* What rank 0 has to say at last. ERR_NOTFOUND: it is of another job. */
static err_t read_answer(struct rendezvous *meeting, const struct rendezvous_args *args,
                         const struct wire_frame *frame, const struct wire_inbox *inbox)
{
    struct welcome welcome;
    char text[RENDEZVOUS_TEXT_MAX];
    if (frame->kind == WIRE_FAILED || frame->kind == WIRE_REFUSED) {
        snprintf(text, sizeof text, "%.*s", (int)frame->bytes, (const char *)inbox->payload);
        hello_clean_text(text, sizeof text);
        if (frame->kind == WIRE_REFUSED) RAISE(NOTFOUND, "%s", text);
        RAISE(COMM, "%s", text);
    }
    if (frame->kind != WIRE_WELCOME || frame->bytes != (int64_t)sizeof welcome)
        RAISE(COMM, "sends message %d of %lld bytes where a welcome is expected", (int)frame->kind,
              (long long)frame->bytes);
    memcpy(&welcome, inbox->payload, sizeof welcome);
    hello_clean_text(welcome.host, sizeof welcome.host);
    memcpy(meeting->seats[0].host, welcome.host, sizeof welcome.host);
    if (args->term_bytes > 0) memcpy(args->terms, welcome.terms, (size_t)args->term_bytes);
    return ERR_OK;
}

err_t rendezvous_check_stop(void)
{
    if (stop_requested()) RAISE(INTERRUPTED, "stopped before all ranks had come");
    return ERR_OK;
}

/* wire_wait, unless we are asked to stop. */
static err_t wait_for_word(int fd, struct wire_inbox *inbox, struct wire_frame *frame,
                           double until_s)
{
    for (;;) {
        TRY(rendezvous_check_stop());
        const double look_s = fmin(until_s, time_now_s() + LOOK_S);
        const err_t rc = wire_wait(fd, inbox, frame, look_s);
        if (rc != ERR_COMM || time_now_s() < look_s || look_s >= until_s) return rc;
    }
}

/* After the hello. Rank 0 keeps the deadline from when it has said that it lives; then it is lost
 * when it falls silent. ERR_NOTFOUND: it closed the connection before. */
static err_t await_answer(struct rendezvous *meeting, const struct rendezvous_args *args,
                          double deadline_s)
{
    uint8_t payload[WIRE_INBOX_BYTES];
    struct wire_inbox inbox = wire_inbox_of(payload, sizeof payload);
    struct wire_frame frame;
    double until_s = deadline_s + LAST_WORD_S;
    for (bool heard = false;; heard = true) {
        const err_t rc = wait_for_word(meeting->fds[0], &inbox, &frame, until_s);
        if (rc == ERR_IO && !heard)
            RAISE(NOTFOUND, "its port is open, but whoever listens there closes the connection");
        if (rc == ERR_COMM && heard && time_now_s() >= until_s)
            RAISE(COMM, "has not been heard of for %g s", args->silence_s);
        TRY(rc);
        if (frame.kind != WIRE_BEAT) return read_answer(meeting, args, &frame, &inbox);
        until_s = time_now_s() + args->silence_s;
    }
}

/* One try. ERR_NOTFOUND: rank 0 may come yet. */
static err_t call_rank0(struct rendezvous *meeting, const struct rendezvous_args *args,
                        const struct hello *mine, double deadline_s)
{
    int *fd = &meeting->fds[0];
    TRY(wire_connect(fd, args->host, args->port, fmin(deadline_s, time_now_s() + ATTEMPT_S)));
    if (wire_send(*fd, WIRE_HELLO, mine, (int64_t)sizeof *mine, deadline_s) != ERR_OK)
        RAISE(NOTFOUND, "its port is open, but it went away");
    return await_answer(meeting, args, deadline_s);
}

static err_t visit_rank0(struct rendezvous *meeting, const struct rendezvous_args *args,
                         const struct hello *mine)
{
    const double deadline_s = time_now_s() + args->timeout_s;
    char text[ERR_TEXT_MAX] = "";
    for (;;) {
        const err_t rc = call_rank0(meeting, args, mine, deadline_s);
        if (rc == ERR_OK) return ERR_OK;
        TRY(rendezvous_check_stop());
        /* A try that the deadline cuts short tells less than the one before it. */
        if (rc != ERR_NOTFOUND || text[0] == '\0' || time_now_s() < deadline_s)
            snprintf(text, sizeof text, "%s", err_last()->text);
        if (meeting->fds[0] >= 0) close(meeting->fds[0]);
        meeting->fds[0] = -1;
        if (rc != ERR_NOTFOUND) RAISE(COMM, "rank 0 at %s:%d: %s", args->host, args->port, text);
        if (time_now_s() + PAUSE_MS * 1e-3 >= deadline_s)
            RAISE(COMM,
                  "rank 0 was not to be found at %s:%d within %g s: %s; MASTER_ADDR and "
                  "MASTER_PORT say where it is",
                  args->host, args->port, args->timeout_s, text);
        nanosleep(&(struct timespec){ .tv_nsec = PAUSE_MS * 1000000L }, NULL);
    }
}

/* ---- the meeting ---- */

void rendezvous_take_seat(struct rendezvous *meeting, const struct hello *its)
{
    struct rendezvous_seat *seat = &meeting->seats[its->rank];
    memcpy(seat->host, its->host, sizeof seat->host);
    seat->local_rank = its->local_rank;
}

void rendezvous_close(struct rendezvous *meeting)
{
    if (meeting == NULL) return;
    for (int64_t i = 0; i < meeting->size && meeting->fds != NULL; i++)
        if (meeting->fds[i] >= 0) close(meeting->fds[i]);
    free(meeting->fds);
    free(meeting->seats);
    free(meeting);
}

static err_t create(struct rendezvous **out, int64_t rank, int64_t size)
{
    struct rendezvous *meeting = calloc(1, sizeof *meeting);
    *out = meeting;
    if (meeting == NULL) RAISE(NOMEM, "rendezvous: no memory");
    meeting->rank = rank;
    meeting->size = size;
    meeting->fds = malloc((size_t)size * sizeof *meeting->fds);
    meeting->seats = calloc((size_t)size, sizeof *meeting->seats);
    for (int64_t i = 0; i < size && meeting->fds != NULL; i++) meeting->fds[i] = -1;
    if (meeting->fds == NULL || meeting->seats == NULL) RAISE(NOMEM, "rendezvous: no memory");
    return ERR_OK;
}

err_t rendezvous_join(struct rendezvous **out, const struct rendezvous_args *given)
{
    struct rendezvous_args args = *given;
    struct hello mine;
    ASSERT(args.size >= 1 && args.rank >= 0 && args.rank < args.size);
    ASSERT(args.part_count >= 0 && args.part_count <= RENDEZVOUS_PARTS_MAX);
    ASSERT(args.term_bytes >= 0 && args.term_bytes <= RENDEZVOUS_TERMS_MAX);
    if (args.beat_s <= 0) args.beat_s = BEAT_S;
    if (args.silence_s <= 0) args.silence_s = SILENCE_S;
    hello_fill(&mine, &args);
    err_t rc = create(out, args.rank, args.size);
    if (rc == ERR_OK) {
        rendezvous_take_seat(*out, &mine);
        rc = args.rank == 0 ? rendezvous_host_ranks(*out, &args, &mine)
                            : visit_rank0(*out, &args, &mine);
    } else if (args.rank == 0 && args.listen_fd >= 0) {
        close(args.listen_fd);
    }
    if (rc == ERR_OK) return ERR_OK;
    rendezvous_close(*out);
    *out = NULL;
    return rc;
}

int64_t rendezvous_rank(const struct rendezvous *meeting) { return meeting->rank; }
int64_t rendezvous_size(const struct rendezvous *meeting) { return meeting->size; }

const char *rendezvous_host(const struct rendezvous *meeting, int64_t rank)
{
    ASSERT(rank >= 0 && rank < meeting->size);
    return meeting->seats[rank].host;
}

int rendezvous_fd(const struct rendezvous *meeting, int64_t rank)
{
    ASSERT(rank >= 0 && rank < meeting->size);
    return meeting->fds[rank];
}
