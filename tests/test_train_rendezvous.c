/* Ranks that meet, or do not, over TCP. */
#include "ranks_fixture.h"

#include "base/fault.h"
#include "base/log.h"
#include "base/progress.h"
#include "train/rendezvous.h"
#include "train/rendezvous_wire.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- meeting ---- */

#define LATE_MS 600 /* after the others, which have met rank 0 by then */

/* What each rank says; in shared memory. */
struct meeting_plan {
    struct rendezvous_args args[8];
    struct rendezvous_part parts[8][6];
    int port;
    const char *expect[8]; /* part of rank i's message; NULL: it joins */
    const char *trouble;   /* why rank 0 cannot settle; NULL: it can */
    int delay_ms[8];
    int fault_rank, fault_n;
    bool all_joined;
    void (*disturb)(int port); /* by the last rank, before it comes */
};

/* What rank 0 makes of the seats: all of them. */
struct test_terms {
    int64_t size, local_ranks[8];
};

static err_t settle(void *out, const struct rendezvous_seat seats[], int64_t size, void *arg)
{
    const char *trouble = arg;
    struct test_terms *terms = out;
    if (trouble != NULL) RAISE(UNSUPPORTED, "%s", trouble);
    terms->size = size;
    for (int64_t i = 0; i < size; i++) {
        assert_string_equal(seats[i].host, seats[0].host);
        terms->local_ranks[i] = seats[i].local_rank;
    }
    return ERR_OK;
}

static struct meeting_plan *make_meeting(int64_t size)
{
    struct meeting_plan *plan = ranks_shared(sizeof *plan);
    int fd;
    assert_ok(wire_listen(&fd, &plan->port, "127.0.0.1", 0));
    for (int64_t i = 0; i < size; i++) {
        plan->args[i] = (struct rendezvous_args){ .rank = i,
                                                  .size = size,
                                                  .local_rank = 7 * i + 1,
                                                  .host = "127.0.0.1",
                                                  .port = plan->port,
                                                  .listen_fd = i == 0 ? fd : -1,
                                                  .job = "job",
                                                  .version = "1.0",
                                                  .parts = plan->parts[i],
                                                  .part_count = 2,
                                                  .timeout_s = 10,
                                                  .settle = settle };
        snprintf(plan->parts[i][0].name, RENDEZVOUS_NAME_MAX, "settings");
        snprintf(plan->parts[i][1].name, RENDEZVOUS_NAME_MAX, "corpus");
    }
    return plan;
}

static void check_terms(const struct rendezvous *meeting, const struct test_terms *terms)
{
    char host[RENDEZVOUS_HOST_MAX] = "";
    const int64_t size = rendezvous_size(meeting), me = rendezvous_rank(meeting);
    assert_int_equal(gethostname(host, sizeof host - 1), 0);
    assert_int_equal(terms->size, size);
    for (int64_t i = 0; i < size; i++) {
        assert_int_equal(terms->local_ranks[i], 7 * i + 1);
        assert_string_equal(rendezvous_host(meeting, i), me == 0 || i == 0 || i == me ? host : "");
        assert_int_equal(rendezvous_fd(meeting, i) >= 0, (me == 0) != (i == 0));
    }
}

static void meet(int64_t rank, int64_t size, void *arg)
{
    struct meeting_plan *plan = arg;
    struct rendezvous *meeting = NULL;
    struct test_terms terms;
    struct rendezvous_args args = plan->args[rank];
    args.settle_arg = (void *)plan->trouble;
    args.terms = &terms;
    args.term_bytes = (int64_t)sizeof terms;
    if (rank != 0) close(plan->args[0].listen_fd);
    usleep((useconds_t)plan->delay_ms[rank] * 1000);
    if (plan->disturb != NULL && rank == size - 1) plan->disturb(plan->port);
    const err_t rc = rendezvous_join(&meeting, &args);
    if (plan->expect[rank] != NULL) {
        const err_t code = rank == 0 && plan->trouble != NULL ? ERR_UNSUPPORTED : ERR_COMM;
        testing_assert_code(rc, code, plan->expect[rank], "rendezvous_join", __FILE__, __LINE__);
        assert_null(meeting);
    } else {
        assert_ok(rc);
        check_terms(meeting, &terms);
    }
    rendezvous_close(meeting);
}

static void run_meeting(struct meeting_plan *plan, int64_t size)
{
    int status[8];
    ranks_fork(status, size, meet, plan);
    if (plan->args[0].listen_fd >= 0) close(plan->args[0].listen_fd);
    for (int64_t i = 0; i < size; i++) assert_int_equal(status[i], 0);
}

static void test_meet(void **state)
{
    (void)state;
    for (int64_t size = 1; size <= 5; size++) {
        struct meeting_plan *plan = make_meeting(size);
        for (int64_t i = 0; i < size; i++) plan->delay_ms[i] = (int)((i * 37 + 11) % 50);
        run_meeting(plan, size);
    }
}

/* ---- many at once, as threads ---- */

enum { MANY = 400 }; /* two descriptors each, of 1024 that are sure to be had */

struct one_of_many {
    struct rendezvous_args args;
    struct test_terms terms;
    pthread_t thread;
    err_t rc;
};

static err_t settle_many(void *out, const struct rendezvous_seat seats[], int64_t size, void *arg)
{
    struct test_terms *terms = out;
    (void)arg;
    terms->size = size;
    for (int64_t i = 0; i < size; i++)
        if (seats[i].local_rank != i % 8) RAISE(ARG, "rank %d has another's seat", (int)i);
    return ERR_OK;
}

static void *meet_many(void *arg)
{
    struct one_of_many *one = arg;
    struct rendezvous *meeting;
    one->rc = rendezvous_join(&meeting, &one->args);
    rendezvous_close(meeting);
    return NULL;
}

static void test_many(void **state)
{
    static struct rendezvous_part parts[RENDEZVOUS_PARTS_MAX];
    struct one_of_many *all = calloc(MANY, sizeof *all);
    int fd, port;
    (void)state;
    assert_ok(wire_listen(&fd, &port, "127.0.0.1", 0));
    for (int64_t i = 0; i < MANY; i++) {
        all[i].args = (struct rendezvous_args){ .rank = i,
                                                .size = MANY,
                                                .local_rank = i % 8,
                                                .host = "127.0.0.1",
                                                .port = port,
                                                .listen_fd = fd,
                                                .job = "many",
                                                .version = "1.0",
                                                .parts = parts,
                                                .part_count = RENDEZVOUS_PARTS_MAX,
                                                .timeout_s = 60,
                                                .settle = settle_many,
                                                .terms = &all[i].terms,
                                                .term_bytes = (int64_t)sizeof all[i].terms };
        assert_int_equal(pthread_create(&all[i].thread, NULL, meet_many, &all[i]), 0);
    }
    for (int64_t i = 0; i < MANY; i++) {
        pthread_join(all[i].thread, NULL);
        assert_int_equal(all[i].rc, ERR_OK);
        assert_int_equal(all[i].terms.size, MANY);
    }
    free(all);
}

/* Rank 0 begins to listen when the others have long been calling. */
static void test_rank0_late(void **state)
{
    struct meeting_plan *plan = make_meeting(3);
    (void)state;
    close(plan->args[0].listen_fd);
    plan->args[0].listen_fd = -1;
    plan->delay_ms[0] = 400;
    run_meeting(plan, 3);
}

static void expect_all(struct meeting_plan *plan, int64_t size, const char *text)
{
    for (int64_t i = 0; i < size; i++) plan->expect[i] = text;
}

static void test_misfits(void **state)
{
    (void)state;
    struct meeting_plan *plan = make_meeting(3);
    plan->args[2].version = "0.9";
    plan->delay_ms[2] = LATE_MS;
    expect_all(plan, 3, "runs version 0.9 (protocol 2), rank 0 on ");
    run_meeting(plan, 3);

    plan = make_meeting(3);
    plan->args[1].size = 4;
    plan->delay_ms[1] = LATE_MS;
    expect_all(plan, 3, " expects 4 ranks, rank 0 on ");
    run_meeting(plan, 3);

    plan = make_meeting(3);
    plan->parts[2][1].sha256[31] = 1;
    plan->delay_ms[2] = LATE_MS;
    expect_all(plan, 3, " in: corpus");
    run_meeting(plan, 3);

    /* Of many the first are named, and the others counted. */
    plan = make_meeting(3);
    for (int i = 0; i < 3; i++) plan->args[i].part_count = 6;
    for (int k = 1; k < 6; k++)
        snprintf(plan->parts[2][k].name, RENDEZVOUS_NAME_MAX, "setting.%d", k);
    for (int k = 1; k < 6; k++) plan->parts[1][k] = plan->parts[0][k] = plan->parts[2][k];
    for (int k = 1; k < 6; k++) plan->parts[2][k].sha256[0] = 1;
    plan->delay_ms[2] = LATE_MS;
    expect_all(plan, 3, " in: setting.1, setting.2, setting.3 and 2 more");
    run_meeting(plan, 3);

    plan = make_meeting(3);
    plan->args[2].part_count = 6;
    plan->delay_ms[2] = LATE_MS;
    expect_all(plan, 3, " compares 6 things, rank 0 on ");
    run_meeting(plan, 3);

    plan = make_meeting(3);
    plan->args[2].rank = 1;
    plan->delay_ms[2] = LATE_MS;
    expect_all(plan, 3, "rank 1 came twice: on ");
    run_meeting(plan, 3);
}

static void test_missing(void **state)
{
    (void)state;
    struct meeting_plan *plan = make_meeting(3);
    for (int i = 0; i < 3; i++) plan->args[i].size = 4; /* rank 3 never comes */
    plan->args[0].timeout_s = 2;
    expect_all(plan, 3, "1 of 4 ranks did not come within 2 s: 3");
    run_meeting(plan, 3);

    plan = make_meeting(2); /* rank 1 belongs to a job that is not here */
    plan->args[1].job = "another";
    plan->args[0].timeout_s = 4;
    plan->args[1].timeout_s = 3;
    plan->expect[0] = "1 of 2 ranks did not come within 4 s: 1";
    plan->expect[1] = "within 3 s: rank 0 there is of another job; MASTER_ADDR";
    run_meeting(plan, 2);

    struct rendezvous *meeting;
    struct rendezvous_args nobody = plan->args[1]; /* the port is closed now */
    nobody.timeout_s = 0.3;
    assert_err(rendezvous_join(&meeting, &nobody), COMM, "Connection refused");
    nobody.host = "no.such.host.invalid";
    assert_err(rendezvous_join(&meeting, &nobody), COMM, "no.such.host.invalid");
}

/* All have come, and rank 0 cannot go on: everyone learns why, and rank 0 keeps what it raised. */
static void test_not_settled(void **state)
{
    struct meeting_plan *plan = make_meeting(3);
    (void)state;
    plan->trouble = "no library here";
    expect_all(plan, 3, "no library here");
    run_meeting(plan, 3);
}

/* ---- a rank 0 that stops ---- */

#define SILENCE_S 0.6

static void meet_and_stop(int64_t rank, int64_t size, void *arg)
{
    const struct meeting_plan *plan = arg;
    struct rendezvous *meeting;
    struct rendezvous_args args = plan->args[rank];
    (void)size;
    args.settle = NULL;
    args.beat_s = SILENCE_S / 5;
    args.silence_s = SILENCE_S;
    if (rank != 0) close(plan->args[0].listen_fd);
    usleep((useconds_t)plan->delay_ms[rank] * 1000);
    if (rank == plan->fault_rank) fault_arm_signal("wire.", plan->fault_n, SIGSTOP);
    const err_t rc = rendezvous_join(&meeting, &args);
    if (rc == ERR_OK) rendezvous_close(meeting);
    if (rc != ERR_OK)
        testing_assert_code(rc, ERR_COMM, plan->expect[rank], "rendezvous_join", __FILE__,
                            __LINE__);
    _exit(rc == ERR_OK ? 0 : 75);
}

/* Before each of its messages but the first, which says that it lives: while it waits for rank 2,
 * and between two welcomes. Rank 1 misses it; rank 2, if it came later, finds nobody who answers.
 */
static void test_rank0_stops(void **state)
{
    (void)state;
    bool over = false;
    for (int n = 2; !over; n++) {
        struct meeting_plan *plan = make_meeting(3);
        int status[3];
        assert_in_range(n, 2, 40);
        plan->delay_ms[2] = 150;
        plan->args[2].timeout_s = 1;
        plan->fault_rank = 0;
        plan->fault_n = n;
        plan->expect[1] = "has not been heard of for 0.6 s";
        plan->expect[2] = "";
        ranks_fork(status, 3, meet_and_stop, plan);
        close(plan->args[0].listen_fd);
        over = status[0] == 0;
        assert_int_equal(status[0], over ? 0 : 128 + SIGKILL);
        for (int i = 1; i < 3; i++) assert_true(status[i] == 0 || (status[i] == 75 && !over));
    }
}

/* ---- hostile guests ---- */

static int dial(int port)
{
    int fd;
    assert_ok(wire_connect(&fd, "127.0.0.1", port, time_now_s() + 5));
    return fd;
}

static void say(int fd, const char *text, size_t size)
{
    assert_int_equal(send(fd, text, size, MSG_NOSIGNAL), size);
}

#define HELLO_BYTES 0x2d90 /* rendezvous.h */

/* Other protocols, half a hello, a hello of another job, who leaves at once, who says nothing. */
static void disturb(int port)
{
    static char zeros[HELLO_BYTES];
    for (int i = 0; i < 8; i++) {
        say(dial(port), "GET / HTTP/1.1\r\n\r\n", 18);
        say(dial(port), "SRK1", 4); /* stays connected */
        say(dial(port), zeros, 1000);
        close(dial(port));
    }
    const int fd = dial(port);
    assert_ok(wire_send(fd, WIRE_HELLO, zeros, HELLO_BYTES, time_now_s() + 5));
    char words[WIRE_INBOX_BYTES];
    struct wire_inbox inbox = wire_inbox_of(words, sizeof words);
    struct wire_frame frame;
    assert_ok(wire_wait(fd, &inbox, &frame, time_now_s() + 5));
    assert_int_equal(frame.kind, WIRE_REFUSED);
    assert_string_equal(words, "rank 0 there is of another job");
    const int damaged = dial(port);
    say(damaged, "SRK1\1\0\0\0\x90\x2d\0\0abcd", 16);
    say(damaged, zeros, HELLO_BYTES);
    close(damaged);
}

static void test_strangers(void **state)
{
    struct meeting_plan *plan = make_meeting(3);
    (void)state;
    plan->disturb = disturb;
    run_meeting(plan, 3);
}

/* A frame with any one byte changed, or cut anywhere, is an error or is not complete. */
static void test_frames(void **state)
{
    const struct {
        uint32_t magic, kind, bytes, crc;
    } overlong = { 0x314b5253, WIRE_BEAT, 513, 0 };
    char sent[200], got[200], words[WIRE_INBOX_BYTES];
    int pair[2];
    ssize_t size;
    struct wire_frame frame;
    bool complete;
    (void)state;
    for (int k = 0; k < 48; k++) sent[k] = (char)(k * 7);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_ok(wire_send(pair[0], WIRE_BEAT, sent, 48, time_now_s() + 1));
    size = read(pair[1], got, sizeof got);
    assert_int_equal(size, 64);
    for (int at = -1; at < 64; at++) {
        struct wire_inbox inbox = wire_inbox_of(words, sizeof words);
        char changed[64];
        memcpy(changed, got, 64);
        if (at >= 0) changed[at] ^= 0x40;
        say(pair[0], changed, 20); /* in two parts */
        err_t rc = wire_poll(pair[1], &inbox, &frame, &complete);
        say(pair[0], changed + 20, 44);
        if (rc == ERR_OK) {
            assert_false(complete);
            rc = wire_poll(pair[1], &inbox, &frame, &complete);
        }
        assert_int_equal(rc == ERR_OK && complete, at < 0);
        while (recv(pair[1], changed, 64, MSG_DONTWAIT) > 0) continue;
    }
    struct wire_inbox inbox = wire_inbox_of(words, sizeof words);
    say(pair[0], (const char *)&overlong, sizeof overlong);
    assert_err(wire_poll(pair[1], &inbox, &frame, &complete), COMM, "513 bytes, at most 512");
    inbox.got = 0;
    say(pair[0], got, 30);
    assert_err(wire_wait(pair[1], &inbox, &frame, time_now_s()), COMM, "did not answer in time");
    close(pair[0]);
    assert_err(wire_wait(pair[1], &inbox, &frame, time_now_s() + 1), IO, "closed");
    close(pair[1]);
}

/* ---- addresses ---- */

static bool listens_on_all(const char *host)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    int fd, port;
    assert_ok(wire_listen(&fd, &port, host, 0));
    assert_int_equal(getsockname(fd, (struct sockaddr *)(void *)&address, &length), 0);
    close(fd);
    if (address.ss_family == AF_INET)
        return ((const struct sockaddr_in *)(const void *)&address)->sin_addr.s_addr == 0;
    return IN6_IS_ADDR_UNSPECIFIED(
        &((const struct sockaddr_in6 *)(const void *)&address)->sin6_addr);
}

/* This machine's name, which it may itself take for the loopback, is the one that others call. */
static void test_listens(void **state)
{
    char name[256] = "";
    (void)state;
    assert_int_equal(gethostname(name, sizeof name - 1), 0);
    assert_false(listens_on_all("127.0.0.1"));
    assert_false(listens_on_all("localhost"));
    assert_true(listens_on_all(name));
    assert_true(listens_on_all("192.0.2.1"));
    assert_true(listens_on_all("no.such.host.invalid"));
}

/* Called often enough from ports of the range that it lies in, a port where nobody listens once
 * calls itself. */
static void test_own_call(void **state)
{
    int fd, port;
    (void)state;
    do { /* Linux lends odd ports to those who listen, even ones to callers */
        assert_ok(wire_listen(&fd, &port, "127.0.0.1", 0));
        close(fd);
        port ^= 1;
    } while (wire_listen(&fd, &port, "127.0.0.1", port) != ERR_OK);
    close(fd);
    for (int i = 0; i < 60000; i++)
        assert_err(wire_connect(&fd, "127.0.0.1", port, time_now_s() + 1), NOTFOUND, "refused");
}

typedef int resolver(const char *, const char *, const struct addrinfo *, struct addrinfo **);

/* Of this test, in place of the C library's: "two.test" has the addresses 127.0.0.2 and 127.0.0.1,
 * in that order; other names are as they are. */
int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                struct addrinfo **out)
{
    resolver *real;
    void *symbol = dlsym(RTLD_NEXT, "getaddrinfo");
    memcpy(&real, &symbol, sizeof real);
    if (host == NULL || strcmp(host, "two.test") != 0) return real(host, service, hints, out);
    const int code = real("127.0.0.2", service, hints, out);
    return code != 0 ? code : real("127.0.0.1", service, hints, &(*out)->ai_next);
}

/* Takes no more calls: its queue is full. */
static int deaf_listener(int port)
{
    const struct sockaddr_in address = { .sin_family = AF_INET,
                                         .sin_port = htons((uint16_t)port),
                                         .sin_addr.s_addr = inet_addr("127.0.0.2") };
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int caller;
    if (bind(fd, (const struct sockaddr *)&address, sizeof address) != 0) return -1;
    assert_int_equal(listen(fd, 0), 0);
    while (wire_connect(&caller, "127.0.0.2", port, time_now_s() + 0.1) == ERR_OK) continue;
    assert_non_null(strstr(err_last()->text, "timed out"));
    return fd;
}

/* An address that never answers, as one behind a wall, leaves half the time to the next one. */
static void test_addresses(void **state)
{
    const double deadline_s = time_now_s() + 4;
    int listener, fd, port;
    (void)state;
    assert_ok(wire_listen(&listener, &port, "127.0.0.1", 0));
    const int deaf = deaf_listener(port);
    if (deaf < 0) skip(); /* someone has the port there */
    assert_ok(wire_connect(&fd, "two.test", port, deadline_s));
    assert_true(time_now_s() < deadline_s);
    close(fd);
    close(deaf);
    close(listener);
}

/* ---- faults ---- */

/* Rank 1's n-th message fails: both fail or, when the fault comes after all, both are well. */
static void meet_with_fault(int64_t rank, int64_t size, void *arg)
{
    struct meeting_plan *plan = arg;
    struct rendezvous *meeting = NULL;
    struct rendezvous_args args = plan->args[rank];
    (void)size;
    if (rank != 0) close(plan->args[0].listen_fd);
    if (rank == plan->fault_rank) fault_arm("wire.", plan->fault_n);
    const err_t rc = rendezvous_join(&meeting, &args);
    const int hits = fault_hits();
    fault_arm("", 0);
    if (rc != ERR_OK)
        assert_int_equal(rc, ERR_COMM);
    else if (rank == plan->fault_rank && hits < plan->fault_n)
        plan->all_joined = true;
    rendezvous_close(meeting);
}

static void test_faults(void **state)
{
    (void)state;
    for (int rank = 0; rank < 2; rank++) {
        bool all_joined = false;
        for (int n = 1; !all_joined; n++) {
            int status[2];
            struct meeting_plan *plan = make_meeting(2);
            assert_in_range(n, 1, 8);
            plan->args[0].timeout_s = plan->args[1].timeout_s = 1;
            plan->fault_rank = rank;
            plan->fault_n = n;
            ranks_fork(status, 2, meet_with_fault, plan);
            close(plan->args[0].listen_fd);
            assert_int_equal(status[0], 0);
            assert_int_equal(status[1], 0);
            all_joined = plan->all_joined;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_meet),        cmocka_unit_test(test_rank0_late),
        cmocka_unit_test(test_misfits),     cmocka_unit_test(test_missing),
        cmocka_unit_test(test_strangers),   cmocka_unit_test(test_frames),
        cmocka_unit_test(test_faults),      cmocka_unit_test(test_not_settled),
        cmocka_unit_test(test_rank0_stops), cmocka_unit_test(test_listens),
        cmocka_unit_test(test_addresses),   cmocka_unit_test(test_own_call),
        cmocka_unit_test(test_many),
    };
    alarm(2 * RANKS_LIMIT_S);
    if (log_init("error") != ERR_OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
