#include "train/rendezvous.h"

#include "base/check.h"
#include "base/digest.h"
#include "base/log.h"
#include "base/num.h"
#include "base/progress.h"
#include "base/stop.h"
#include "train/rendezvous_wire.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PROTOCOL     2
#define HELLO_S      10  /* a guest that has said nothing by then is shown out */
#define GUESTS_EXTRA 32  /* who connected and has not said hello, beyond the ranks */
#define ATTEMPT_S    5   /* one try to connect */
#define PAUSE_MS     100 /* between tries */
#define LOOK_S       0.5 /* whether we are asked to stop, while nothing comes */
#define LAST_WORD_S  2   /* rank 0 gives up first, and says who did not come */
#define BEAT_S       1.0
#define SILENCE_S    5.0
#define VERSION_MAX  28
#define TEXT_MAX     400
#define NAMED_MAX    3 /* things that differ, by name; of the others their number */

struct hello {
    uint32_t protocol, rank, size, part_count;
    uint8_t job[SHA256_BYTES];
    char version[VERSION_MAX];
    uint32_t local_rank;
    char host[RENDEZVOUS_HOST_MAX];
    struct rendezvous_part parts[RENDEZVOUS_PARTS_MAX];
};

struct welcome {
    char host[RENDEZVOUS_HOST_MAX];
    uint8_t terms[RENDEZVOUS_TERMS_MAX];
};

STATIC_ASSERT(sizeof(struct hello) == 144 + 160 * 72, "the hello as the header draws it");
STATIC_ASSERT(sizeof(struct welcome) == 384, "the welcome as the header draws it");
STATIC_ASSERT(sizeof(struct welcome) <= WIRE_INBOX_BYTES, "a welcome fits into an inbox");

/* Who connected and has not yet said hello. */
struct guest {
    int fd; /* -1: a free place */
    double until_s;
    char name[WIRE_NAME_MAX];
    int64_t got;
    uint8_t bytes[WIRE_FRAME_BYTES + sizeof(struct hello)];
};

struct rendezvous {
    int64_t rank, size;
    int *fds;                      /* [size] */
    struct rendezvous_seat *seats; /* [size] */
    /* while joining */
    struct hello mine;
    double beat_s, silence_s;
    /* and on rank 0 */
    int listen_fd;
    struct guest *guests;
    int64_t guest_count;
};

/* ---- hello ---- */

static void fill_hello(struct hello *h, const struct rendezvous_args *args)
{
    memset(h, 0, sizeof *h);
    h->protocol = PROTOCOL;
    h->rank = (uint32_t)args->rank;
    h->size = (uint32_t)args->size;
    h->part_count = (uint32_t)args->part_count;
    h->local_rank = (uint32_t)args->local_rank;
    sha256_of(h->job, args->job, strlen(args->job));
    snprintf(h->version, sizeof h->version, "%s", args->version);
    if (gethostname(h->host, sizeof h->host - 1) != 0) snprintf(h->host, sizeof h->host, "?");
    for (int64_t i = 0; i < args->part_count; i++) h->parts[i] = args->parts[i];
}

static void take_seat(struct rendezvous *meeting, const struct hello *its)
{
    struct rendezvous_seat *seat = &meeting->seats[its->rank];
    memcpy(seat->host, its->host, sizeof seat->host);
    seat->local_rank = its->local_rank;
}

/* Text from the network: ends where it should, and on one line. */
static void clean_text(char *text, int64_t size)
{
    text[size - 1] = '\0';
    for (char *c = text; *c != '\0'; c++)
        if (*c < ' ' || *c > '~') *c = '?';
}

static err_t check_parts(const struct hello *mine, const struct hello *its)
{
    char names[NAMED_MAX * (RENDEZVOUS_NAME_MAX + 2) + 32] = "";
    int64_t count = 0;
    if (its->part_count != mine->part_count)
        RAISE(COMM, "rank %u on %s compares %u things, rank 0 on %s %u", its->rank, its->host,
              its->part_count, mine->host, mine->part_count);
    for (uint32_t i = 0; i < mine->part_count; i++) {
        const struct rendezvous_part *a = &mine->parts[i], *b = &its->parts[i];
        const size_t length = strlen(names);
        if (memcmp(a, b, sizeof *a) == 0 || count++ >= NAMED_MAX) continue;
        snprintf(names + length, sizeof names - length, "%s%s", length > 0 ? ", " : "", a->name);
    }
    if (count > NAMED_MAX)
        snprintf(names + strlen(names), 32, " and %lld more", (long long)(count - NAMED_MAX));
    if (count > 0)
        RAISE(COMM, "rank %u on %s differs from rank 0 on %s in: %s", its->rank, its->host,
              mine->host, names);
    return ERR_OK;
}

/* Whether one of this job fits. */
static err_t check_hello(const struct rendezvous *meeting, const struct hello *its)
{
    const struct hello *mine = &meeting->mine;
    if (its->protocol != mine->protocol || strcmp(its->version, mine->version) != 0)
        RAISE(COMM, "rank %u on %s runs version %s (protocol %u), rank 0 on %s runs %s (%u)",
              its->rank, its->host, its->version, its->protocol, mine->host, mine->version,
              mine->protocol);
    if (its->size != mine->size)
        RAISE(COMM, "rank %u on %s expects %u ranks, rank 0 on %s expects %u", its->rank, its->host,
              its->size, mine->host, mine->size);
    if (its->rank == 0 || its->rank >= mine->size || meeting->fds[its->rank] >= 0)
        RAISE(COMM, "rank %u came twice: on %s and on %s", its->rank,
              its->rank < mine->size ? meeting->seats[its->rank].host : "?", its->host);
    return check_parts(mine, its);
}

static err_t check_stop(void)
{
    if (stop_requested()) RAISE(INTERRUPTED, "stopped before all ranks had come");
    return ERR_OK;
}

/* ---- rank 0 ---- */

/* The last error is about this rank. */
static err_t raise_of(const struct rendezvous *meeting, int64_t rank)
{
    const struct err_record why = *err_last();
    RAISE(COMM, "rank %lld on %s: %.400s", (long long)rank, meeting->seats[rank].host, why.text);
}

static void show_out(struct guest *guest, const char *why)
{
    LOG_W("ranks", "turned away %s: %s", guest->name, why);
    close(guest->fd);
    guest->fd = -1;
}

/* Whom this does not reach sees the connection end. */
static void tell_failure(int fd, const char *why)
{
    char text[TEXT_MAX];
    snprintf(text, sizeof text, "%.399s", why);
    const err_t rc = wire_send(fd, WIRE_FAILED, text, (int64_t)strlen(text) + 1, time_now_s() + 1);
    if (rc != ERR_OK) LOG_D("ranks", "a rank that fails is gone: %s", err_last()->text);
}

/* Rank 0 to one that waits: it lives. */
static err_t tell_alive(const struct rendezvous *meeting, int64_t rank)
{
    if (wire_send(meeting->fds[rank], WIRE_BEAT, NULL, 0, time_now_s()) != ERR_OK)
        return raise_of(meeting, rank);
    return ERR_OK;
}

/* A complete hello: a rank takes its seat, a stranger leaves, a misfit is the error. */
static err_t seat(struct rendezvous *meeting, struct guest *guest)
{
    uint32_t header[4];
    struct hello its;
    memcpy(header, guest->bytes, sizeof header);
    memcpy(&its, guest->bytes + WIRE_FRAME_BYTES, sizeof its);
    if (header[3] != crc32c(0, &its, sizeof its)) {
        show_out(guest, "its hello arrived damaged");
        return ERR_OK;
    }
    clean_text(its.version, sizeof its.version);
    clean_text(its.host, sizeof its.host);
    for (int64_t i = 0; i < RENDEZVOUS_PARTS_MAX; i++)
        clean_text(its.parts[i].name, sizeof its.parts[i].name);
    if (memcmp(its.job, meeting->mine.job, sizeof its.job) != 0) {
        static const char text[] = "rank 0 there is of another job";
        if (wire_send(guest->fd, WIRE_REFUSED, text, (int64_t)sizeof text, time_now_s()) != ERR_OK)
            LOG_D("ranks", "%s: %s", guest->name, err_last()->text);
        show_out(guest, "it is of another job");
        return ERR_OK;
    }
    if (check_hello(meeting, &its) != ERR_OK) {
        const struct err_record why = *err_last();
        tell_failure(guest->fd, why.text);
        return err_adopt(&why);
    }
    meeting->fds[its.rank] = guest->fd;
    guest->fd = -1;
    take_seat(meeting, &its);
    return tell_alive(meeting, its.rank);
}

/* Whether what came so far can be the hello of a rank. */
static bool sounds_right(const struct guest *guest)
{
    static const uint8_t start[12] = { 'S',
                                       'R',
                                       'K',
                                       '1',
                                       WIRE_HELLO,
                                       0,
                                       0,
                                       0,
                                       sizeof(struct hello) & 0xff,
                                       sizeof(struct hello) >> 8 };
    return memcmp(guest->bytes, start, (size_t)min_i64(guest->got, (int64_t)sizeof start)) == 0;
}

static err_t listen_to(struct rendezvous *meeting, struct guest *guest)
{
    const int64_t wanted = (int64_t)sizeof guest->bytes - guest->got;
    const ssize_t n = read(guest->fd, guest->bytes + guest->got, (size_t)wanted);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return ERR_OK;
    if (n <= 0) {
        show_out(guest, n == 0 ? "it left before its hello" : strerror(errno));
        return ERR_OK;
    }
    guest->got += n;
    if (!sounds_right(guest)) {
        show_out(guest, "it speaks another protocol");
        return ERR_OK;
    }
    return n == wanted ? seat(meeting, guest) : ERR_OK;
}

static struct guest *free_place(struct rendezvous *meeting)
{
    for (int64_t i = 0; i < meeting->guest_count; i++)
        if (meeting->guests[i].fd < 0) return &meeting->guests[i];
    return NULL;
}

static err_t let_in(struct rendezvous *meeting)
{
    for (;;) {
        struct guest *guest = free_place(meeting);
        if (guest == NULL) return ERR_OK; /* the others wait in the queue of the socket */
        TRY(wire_accept(&guest->fd, guest->name, meeting->listen_fd));
        if (guest->fd < 0) return ERR_OK;
        guest->got = 0;
        guest->until_s = time_now_s() + HELLO_S;
    }
}

static int64_t missing_count(const struct rendezvous *meeting)
{
    int64_t count = 0;
    for (int64_t i = 1; i < meeting->size; i++) count += meeting->fds[i] < 0;
    return count;
}

static err_t raise_missing(const struct rendezvous *meeting, double timeout_s)
{
    char names[64] = "";
    for (int64_t i = 1; i < meeting->size; i++) {
        const size_t length = strlen(names);
        if (meeting->fds[i] >= 0) continue;
        if (length > sizeof names - 16) {
            snprintf(names + length, sizeof names - length, ", ...");
            break;
        }
        snprintf(names + length, sizeof names - length, "%s%lld", length > 0 ? ", " : "",
                 (long long)i);
    }
    RAISE(COMM, "%lld of %lld ranks did not come within %g s: %s",
          (long long)missing_count(meeting), (long long)meeting->size, timeout_s, names);
}

/* A rank that has said hello says nothing more until it is welcomed: what there is to read is the
 * end of its connection. */
static err_t check_seated(const struct rendezvous *meeting, const struct pollfd polls[])
{
    for (int64_t i = 1; i < meeting->size; i++)
        if (meeting->fds[i] >= 0 && polls[i].fd == meeting->fds[i] && polls[i].revents != 0)
            RAISE(COMM, "rank %lld on %s left before all had come", (long long)i,
                  meeting->seats[i].host);
    return ERR_OK;
}

/* Who can be heard: ranks with a seat, at [rank]; then guests; at [0] the door, which is left alone
 * without a free place, or poll() would return at once. */
static void fill_polls(struct pollfd polls[], struct rendezvous *meeting)
{
    polls[0] = (struct pollfd){ free_place(meeting) != NULL ? meeting->listen_fd : -1, POLLIN, 0 };
    for (int64_t i = 1; i < meeting->size; i++)
        polls[i] = (struct pollfd){ meeting->fds[i], POLLIN, 0 };
    for (int64_t i = 0; i < meeting->guest_count; i++)
        polls[meeting->size + i] = (struct pollfd){ meeting->guests[i].fd, POLLIN, 0 };
}

/* Those that wait learn that rank 0 lives. *next_s: when they are to be told again. */
static err_t tell_all_alive(const struct rendezvous *meeting, double *next_s)
{
    if (time_now_s() < *next_s) return ERR_OK;
    for (int64_t i = 1; i < meeting->size; i++)
        if (meeting->fds[i] >= 0) TRY(tell_alive(meeting, i));
    *next_s = time_now_s() + meeting->beat_s;
    return ERR_OK;
}

/* For poll(); guests, and a request to stop, are looked after twice a second. */
static int wait_ms(double until_s)
{
    return (int)fmin(LOOK_S * 1e3, fmax(0, until_s - time_now_s()) * 1e3 + 1);
}

static err_t gather_ranks(struct rendezvous *meeting, double timeout_s)
{
    const double deadline_s = time_now_s() + timeout_s;
    const int64_t count = meeting->size + meeting->guest_count;
    struct pollfd *polls = calloc((size_t)count, sizeof *polls);
    double beat_at_s = 0;
    err_t rc = ERR_OK;
    if (polls == NULL) RAISE(NOMEM, "rendezvous: no memory");
    while (missing_count(meeting) > 0) {
        const double now_s = time_now_s();
        if (now_s >= deadline_s) {
            rc = raise_missing(meeting, timeout_s);
            break;
        }
        TRY_DONE(tell_all_alive(meeting, &beat_at_s));
        fill_polls(polls, meeting);
        (void)poll(polls, (nfds_t)count, wait_ms(fmin(deadline_s, beat_at_s)));
        TRY_DONE(check_stop()); /* before the others' ends, who may be asked as well */
        TRY_DONE(check_seated(meeting, polls));
        for (int64_t i = 0; i < meeting->guest_count; i++) {
            struct guest *guest = &meeting->guests[i];
            if (guest->fd >= 0 && polls[meeting->size + i].revents != 0)
                TRY_DONE(listen_to(meeting, guest));
            if (guest->fd >= 0 && time_now_s() > guest->until_s)
                show_out(guest, "it said no hello in time");
        }
        TRY_DONE(let_in(meeting));
    }
done:
    free(polls);
    return rc;
}

/* All have come: they learn how the job is laid out. */
static err_t welcome_all(struct rendezvous *meeting, const struct rendezvous_args *args)
{
    struct welcome welcome = { .host = "" };
    memcpy(welcome.host, meeting->mine.host, sizeof welcome.host);
    if (args->settle != NULL)
        TRY(args->settle(welcome.terms, meeting->seats, meeting->size, args->settle_arg));
    for (int64_t i = 1; i < meeting->size; i++)
        if (wire_send(meeting->fds[i], WIRE_WELCOME, &welcome, (int64_t)sizeof welcome,
                      time_now_s() + 1) != ERR_OK)
            return raise_of(meeting, i);
    if (args->term_bytes > 0) memcpy(args->terms, welcome.terms, (size_t)args->term_bytes);
    return ERR_OK;
}

static err_t open_doors(struct rendezvous *meeting, const struct rendezvous_args *args)
{
    int port;
    if (meeting->listen_fd < 0)
        TRY(wire_listen(&meeting->listen_fd, &port, args->host, args->port));
    const int64_t guests_max = args->size + GUESTS_EXTRA;
    meeting->guests = calloc((size_t)guests_max, sizeof *meeting->guests);
    if (meeting->guests == NULL) RAISE(NOMEM, "rendezvous: no memory");
    meeting->guest_count = guests_max;
    for (int64_t i = 0; i < guests_max; i++) meeting->guests[i].fd = -1;
    return ERR_OK;
}

static err_t host_meeting(struct rendezvous *meeting, const struct rendezvous_args *args)
{
    TRY(open_doors(meeting, args));
    err_t rc = gather_ranks(meeting, args->timeout_s);
    if (rc == ERR_OK) rc = welcome_all(meeting, args);
    if (rc == ERR_OK) return ERR_OK;
    const struct err_record why = *err_last();
    for (int64_t i = 1; i < meeting->size; i++) /* everyone who came learns it */
        if (meeting->fds[i] >= 0) tell_failure(meeting->fds[i], why.text);
    return err_adopt(&why);
}

/* ---- the others ---- */

/* What rank 0 has to say at last. ERR_NOTFOUND: it is of another job. */
static err_t read_answer(struct rendezvous *meeting, const struct rendezvous_args *args,
                         const struct wire_frame *frame, const struct wire_inbox *inbox)
{
    struct welcome welcome;
    char text[TEXT_MAX];
    if (frame->kind == WIRE_FAILED || frame->kind == WIRE_REFUSED) {
        snprintf(text, sizeof text, "%.*s", (int)frame->bytes, (const char *)inbox->payload);
        clean_text(text, sizeof text);
        if (frame->kind == WIRE_REFUSED) RAISE(NOTFOUND, "%s", text);
        RAISE(COMM, "%s", text);
    }
    if (frame->kind != WIRE_WELCOME || frame->bytes != (int64_t)sizeof welcome)
        RAISE(COMM, "sends message %d of %lld bytes where a welcome is expected", (int)frame->kind,
              (long long)frame->bytes);
    memcpy(&welcome, inbox->payload, sizeof welcome);
    clean_text(welcome.host, sizeof welcome.host);
    memcpy(meeting->seats[0].host, welcome.host, sizeof welcome.host);
    if (args->term_bytes > 0) memcpy(args->terms, welcome.terms, (size_t)args->term_bytes);
    return ERR_OK;
}

/* wire_wait, unless we are asked to stop. */
static err_t wait_for_word(int fd, struct wire_inbox *inbox, struct wire_frame *frame,
                           double until_s)
{
    for (;;) {
        TRY(check_stop());
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
    struct wire_inbox inbox = { .got = 0 };
    struct wire_frame frame;
    double until_s = deadline_s + LAST_WORD_S;
    for (bool heard = false;; heard = true) {
        const err_t rc = wait_for_word(meeting->fds[0], &inbox, &frame, until_s);
        if (rc == ERR_IO && !heard)
            RAISE(NOTFOUND, "its port is open, but whoever listens there closes the connection");
        if (rc == ERR_COMM && heard && time_now_s() >= until_s)
            RAISE(COMM, "has not been heard of for %g s", meeting->silence_s);
        TRY(rc);
        if (frame.kind != WIRE_BEAT) return read_answer(meeting, args, &frame, &inbox);
        until_s = time_now_s() + meeting->silence_s;
    }
}

/* One try. ERR_NOTFOUND: rank 0 may come yet. */
static err_t call_rank0(struct rendezvous *meeting, const struct rendezvous_args *args,
                        double deadline_s)
{
    int *fd = &meeting->fds[0];
    TRY(wire_connect(fd, args->host, args->port, fmin(deadline_s, time_now_s() + ATTEMPT_S)));
    if (wire_send(*fd, WIRE_HELLO, &meeting->mine, (int64_t)sizeof meeting->mine, deadline_s) !=
        ERR_OK)
        RAISE(NOTFOUND, "its port is open, but it went away");
    return await_answer(meeting, args, deadline_s);
}

static err_t visit_meeting(struct rendezvous *meeting, const struct rendezvous_args *args)
{
    const double deadline_s = time_now_s() + args->timeout_s;
    char text[ERR_TEXT_MAX] = "";
    for (;;) {
        const err_t rc = call_rank0(meeting, args, deadline_s);
        if (rc == ERR_OK) return ERR_OK;
        TRY(check_stop());
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

/* Only the ranks stay: nobody listens any more, whoever said no hello leaves. */
static void close_doors(struct rendezvous *meeting)
{
    if (meeting->listen_fd >= 0) close(meeting->listen_fd);
    meeting->listen_fd = -1;
    for (int64_t i = 0; i < meeting->guest_count; i++)
        if (meeting->guests[i].fd >= 0) close(meeting->guests[i].fd);
    free(meeting->guests);
    meeting->guests = NULL;
    meeting->guest_count = 0;
}

void rendezvous_close(struct rendezvous *meeting)
{
    if (meeting == NULL) return;
    close_doors(meeting);
    for (int64_t i = 0; i < meeting->size && meeting->fds != NULL; i++)
        if (meeting->fds[i] >= 0) close(meeting->fds[i]);
    free(meeting->fds);
    free(meeting->seats);
    free(meeting);
}

err_t rendezvous_join(struct rendezvous **out, const struct rendezvous_args *args)
{
    ASSERT(args->size >= 1 && args->rank >= 0 && args->rank < args->size);
    ASSERT(args->part_count >= 0 && args->part_count <= RENDEZVOUS_PARTS_MAX);
    ASSERT(args->term_bytes >= 0 && args->term_bytes <= RENDEZVOUS_TERMS_MAX);
    *out = NULL;
    struct rendezvous *meeting = calloc(1, sizeof *meeting);
    if (meeting == NULL) {
        if (args->rank == 0 && args->listen_fd >= 0) close(args->listen_fd);
        RAISE(NOMEM, "rendezvous: no memory");
    }
    meeting->beat_s = args->beat_s > 0 ? args->beat_s : BEAT_S;
    meeting->silence_s = args->silence_s > 0 ? args->silence_s : SILENCE_S;
    meeting->rank = args->rank;
    meeting->size = args->size;
    meeting->listen_fd = args->rank == 0 ? args->listen_fd : -1;
    meeting->fds = malloc((size_t)args->size * sizeof *meeting->fds);
    meeting->seats = calloc((size_t)args->size, sizeof *meeting->seats);
    err_t rc = ERR_OK;
    for (int64_t i = 0; i < args->size && meeting->fds != NULL; i++) meeting->fds[i] = -1;
    if (meeting->fds == NULL || meeting->seats == NULL) RAISE_DONE(NOMEM, "rendezvous: no memory");
    fill_hello(&meeting->mine, args);
    take_seat(meeting, &meeting->mine);
    TRY_DONE(args->rank == 0 ? host_meeting(meeting, args) : visit_meeting(meeting, args));
    close_doors(meeting);
    *out = meeting;
done:
    if (rc != ERR_OK) rendezvous_close(meeting);
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
