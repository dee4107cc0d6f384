/* Rank 0's part of a meeting: it lets ranks in and strangers out, settles the terms, and tells. */
#include "train/rendezvous_impl.h"

#include "base/check.h"
#include "base/log.h"
#include "base/progress.h"

#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HELLO_S      10 /* a guest that has said nothing by then is shown out */
#define GUESTS_EXTRA 32 /* who connected and has not said hello, beyond the ranks */

STATIC_ASSERT(sizeof(struct welcome) == 384, "the welcome as rendezvous.h draws it");

/* Who connected and has not yet said hello. */
struct guest {
    int fd; /* -1: a free place */
    double until_s;
    char name[WIRE_NAME_MAX];
    struct wire_inbox inbox;
    struct hello hello;
};

struct host {
    struct rendezvous *meeting;
    const struct rendezvous_args *args;
    const struct hello *mine;
    int listen_fd;
    struct guest *guests; /* [guest_count] */
    int64_t guest_count;
    struct pollfd *polls; /* [size + guest_count] */
};

/* ---- telling ---- */

/* The last error is about this rank. */
static err_t raise_of(const struct rendezvous *meeting, int64_t rank)
{
    const struct err_record why = *err_last();
    RAISE(COMM, "rank %lld on %s: %.400s", (long long)rank, meeting->seats[rank].host, why.text);
}

/* Whom this does not reach sees the connection end. */
static void tell_failure(int fd, const char *why)
{
    char text[RENDEZVOUS_TEXT_MAX];
    snprintf(text, sizeof text, "%.399s", why);
    const err_t rc = wire_send(fd, WIRE_FAILED, text, (int64_t)strlen(text) + 1, time_now_s() + 1);
    if (rc != ERR_OK) LOG_D("ranks", "a rank that fails is gone: %s", err_last()->text);
}

static err_t tell_alive(const struct rendezvous *meeting, int64_t rank)
{
    if (wire_send(meeting->fds[rank], WIRE_BEAT, NULL, 0, time_now_s()) != ERR_OK)
        return raise_of(meeting, rank);
    return ERR_OK;
}

/* Those that wait learn that rank 0 lives. *next_s: when they are to be told again. */
static err_t tell_all_alive(const struct host *host, double *next_s)
{
    if (time_now_s() < *next_s) return ERR_OK;
    for (int64_t i = 1; i < host->meeting->size; i++)
        if (host->meeting->fds[i] >= 0) TRY(tell_alive(host->meeting, i));
    *next_s = time_now_s() + host->args->beat_s;
    return ERR_OK;
}

/* ---- guests ---- */

static struct guest *free_place(struct host *host)
{
    for (int64_t i = 0; i < host->guest_count; i++)
        if (host->guests[i].fd < 0) return &host->guests[i];
    return NULL;
}

static err_t let_in(struct host *host)
{
    for (;;) {
        struct guest *guest = free_place(host);
        if (guest == NULL) return ERR_OK; /* the others wait in the queue of the socket */
        TRY(wire_accept(&guest->fd, guest->name, host->listen_fd));
        if (guest->fd < 0) return ERR_OK;
        guest->inbox = wire_inbox_of(&guest->hello, (int64_t)sizeof guest->hello);
        guest->until_s = time_now_s() + HELLO_S;
    }
}

static void show_out(struct guest *guest, const char *why)
{
    LOG_W("ranks", "turned away %s: %s", guest->name, why);
    close(guest->fd);
    guest->fd = -1;
}

static void refuse_stranger(struct guest *guest)
{
    static const char text[] = "rank 0 there is of another job";
    if (wire_send(guest->fd, WIRE_REFUSED, text, (int64_t)sizeof text, time_now_s()) != ERR_OK)
        LOG_D("ranks", "%s: %s", guest->name, err_last()->text);
    show_out(guest, "it is of another job");
}

static err_t check_fits(const struct host *host, const struct hello *its)
{
    const struct rendezvous *meeting = host->meeting;
    TRY(hello_compare(host->mine, its));
    if (its->rank >= meeting->size)
        RAISE(COMM, "rank %u on %s: there are %u ranks, counted from 0", its->rank, its->host,
              its->size);
    if (its->rank == 0 || meeting->fds[its->rank] >= 0)
        RAISE(COMM, "rank %u came twice: on %s and on %s", its->rank,
              meeting->seats[its->rank].host, its->host);
    return ERR_OK;
}

/* A rank takes its seat, a stranger leaves, a misfit is the error. */
static err_t seat(struct host *host, struct guest *guest)
{
    struct hello *its = &guest->hello;
    hello_clean(its);
    if (memcmp(its->job, host->mine->job, sizeof its->job) != 0) {
        refuse_stranger(guest);
        return ERR_OK;
    }
    if (check_fits(host, its) != ERR_OK) {
        const struct err_record why = *err_last();
        tell_failure(guest->fd, why.text);
        return err_adopt(&why);
    }
    host->meeting->fds[its->rank] = guest->fd;
    guest->fd = -1;
    rendezvous_take_seat(host->meeting, its);
    return tell_alive(host->meeting, its->rank);
}

static err_t listen_to(struct host *host, struct guest *guest)
{
    struct wire_frame frame;
    bool complete;
    if (wire_poll(guest->fd, &guest->inbox, &frame, &complete) != ERR_OK) {
        show_out(guest, err_last()->text);
        return ERR_OK;
    }
    if (!complete) return ERR_OK;
    if (frame.kind == WIRE_HELLO && frame.bytes == (int64_t)sizeof guest->hello)
        return seat(host, guest);
    show_out(guest, "what it says is no hello");
    return ERR_OK;
}

static err_t hear_guests(struct host *host)
{
    for (int64_t i = 0; i < host->guest_count; i++) {
        struct guest *guest = &host->guests[i];
        const struct pollfd *p = &host->polls[host->meeting->size + i];
        if (guest->fd >= 0 && p->revents != 0) TRY(listen_to(host, guest));
        if (guest->fd >= 0 && time_now_s() > guest->until_s)
            show_out(guest, "it said no hello in time");
    }
    return ERR_OK;
}

/* ---- ranks ---- */

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
static err_t check_seated(const struct host *host)
{
    const struct rendezvous *meeting = host->meeting;
    for (int64_t i = 1; i < meeting->size; i++)
        if (meeting->fds[i] >= 0 && host->polls[i].revents != 0)
            RAISE(COMM, "rank %lld on %s left before all had come", (long long)i,
                  meeting->seats[i].host);
    return ERR_OK;
}

/* Ranks with a seat at [rank]; then guests; at [0] the door, which is left alone without a free
 * place, or poll() would return at once. Guests are looked after twice a second. */
static void wait_for_words(struct host *host, double until_s)
{
    const int64_t size = host->meeting->size;
    struct pollfd *polls = host->polls;
    polls[0] = (struct pollfd){ free_place(host) != NULL ? host->listen_fd : -1, POLLIN, 0 };
    for (int64_t i = 1; i < size; i++)
        polls[i] = (struct pollfd){ host->meeting->fds[i], POLLIN, 0 };
    for (int64_t i = 0; i < host->guest_count; i++)
        polls[size + i] = (struct pollfd){ host->guests[i].fd, POLLIN, 0 };
    const double left_s = fmin(0.5, fmax(0, until_s - time_now_s()));
    (void)poll(polls, (nfds_t)(size + host->guest_count), (int)ceil(left_s * 1e3));
}

static err_t gather_ranks(struct host *host)
{
    const double timeout_s = host->args->timeout_s, deadline_s = time_now_s() + timeout_s;
    double beat_at_s = 0;
    while (missing_count(host->meeting) > 0) {
        if (time_now_s() >= deadline_s) return raise_missing(host->meeting, timeout_s);
        TRY(tell_all_alive(host, &beat_at_s));
        wait_for_words(host, fmin(deadline_s, beat_at_s));
        TRY(check_seated(host));
        TRY(hear_guests(host));
        TRY(let_in(host));
    }
    return ERR_OK;
}

/* All have come: they learn how the job is laid out. */
static err_t welcome_all(struct rendezvous *meeting, const struct rendezvous_args *args)
{
    struct welcome welcome = { .host = "" };
    memcpy(welcome.host, meeting->seats[0].host, sizeof welcome.host);
    if (args->settle != NULL)
        TRY(args->settle(welcome.terms, meeting->seats, meeting->size, args->settle_arg));
    for (int64_t i = 1; i < meeting->size; i++)
        if (wire_send(meeting->fds[i], WIRE_WELCOME, &welcome, (int64_t)sizeof welcome,
                      time_now_s() + 1) != ERR_OK)
            return raise_of(meeting, i);
    if (args->term_bytes > 0) memcpy(args->terms, welcome.terms, (size_t)args->term_bytes);
    return ERR_OK;
}

/* ---- doors ---- */

static err_t open_doors(struct host *host)
{
    const struct rendezvous_args *args = host->args;
    const int64_t count = args->size + GUESTS_EXTRA;
    int port;
    if (host->listen_fd < 0) TRY(wire_listen(&host->listen_fd, &port, args->host, args->port));
    host->guests = calloc((size_t)count, sizeof *host->guests);
    host->polls = calloc((size_t)(args->size + count), sizeof *host->polls);
    if (host->guests == NULL || host->polls == NULL) RAISE(NOMEM, "rendezvous: no memory");
    host->guest_count = count;
    for (int64_t i = 0; i < count; i++) host->guests[i].fd = -1;
    return ERR_OK;
}

/* Only the ranks stay: nobody listens any more, whoever said no hello leaves. */
static void close_doors(struct host *host)
{
    if (host->listen_fd >= 0) close(host->listen_fd);
    for (int64_t i = 0; i < host->guest_count; i++)
        if (host->guests[i].fd >= 0) close(host->guests[i].fd);
    free(host->guests);
    free(host->polls);
}

err_t rendezvous_host_ranks(struct rendezvous *meeting, const struct rendezvous_args *args,
                            const struct hello *mine)
{
    struct host host = {
        .meeting = meeting, .args = args, .mine = mine, .listen_fd = args->listen_fd
    };
    err_t rc = open_doors(&host);
    if (rc == ERR_OK) rc = gather_ranks(&host);
    close_doors(&host);
    if (rc == ERR_OK) rc = welcome_all(meeting, args);
    if (rc == ERR_OK) return ERR_OK;
    const struct err_record why = *err_last();
    for (int64_t i = 1; i < meeting->size; i++) /* everyone who came learns it */
        if (meeting->fds[i] >= 0) tell_failure(meeting->fds[i], why.text);
    return err_adopt(&why);
}
