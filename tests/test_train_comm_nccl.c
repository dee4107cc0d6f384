/*
 * The communicator of GPUs, on emulated ones and over a fake NCCL: which calls it makes, what it
 * makes of their answers, and that nothing hangs. The real library has not been called yet.
 */
#include "ranks_fixture.h"

#include "base/fault.h"
#include "kernels/dev.h"
#include "train/ranks.h"
#include "train/rendezvous_wire.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SIZE      3
#define SIZE_MOST 6

struct nccl_case {
    uint8_t blob[COMM_BLOB_BYTES];
    const char *plan; /* FAKE_NCCL of rank 1 */
    char log[512];    /* of rank 0 */
    double timeout_s;
    int fault_n; /* of rank 1 */
    bool passed_all;
    int64_t size, machine_size;
    int64_t ints[SIZE_MOST];                 /* of the ranks' pieces */
    bool apart;                              /* one's own piece is sent from another buffer */
    int64_t sent[SIZE_MOST], far[SIZE_MOST]; /* bytes, as the library saw them */
};

static struct nccl_case *make_case(const char *name, const char *plan, double timeout_s)
{
    struct nccl_case *c = ranks_shared(sizeof *c);
    struct dev *dev;
    c->plan = plan;
    c->size = SIZE;
    c->timeout_s = timeout_s;
    snprintf(c->log, sizeof c->log, "%s/%s", testing_dir(), name);
    assert_ok(dev_open(&dev, "emu", 1));
    assert_ok(comm_invite(c->blob, "nccl", SIZE, dev));
    dev_close(dev);
    return c;
}

static err_t open_rank(struct comm **comm, struct comm_args *args, int64_t rank, int64_t size,
                       const struct nccl_case *c)
{
    *args = (struct comm_args){ .kind = "nccl",
                                .rank = rank,
                                .size = size,
                                .machine_size = c->machine_size,
                                .timeout_s = c->timeout_s };
    memcpy(args->blob, c->blob, sizeof args->blob);
    if (rank == 0) setenv("FAKE_NCCL_LOG", c->log, 1);
    if (rank == 1 && c->plan != NULL) setenv("FAKE_NCCL", c->plan, 1);
    assert_ok(dev_open(&args->dev, "emu", 1));
    return comm_open(comm, args);
}

/* Gathers, equal and uneven; alltoall, equal and uneven; bcast; numbers say where they are from. */
static err_t exchange_all(struct comm *comm, struct dev *dev)
{
    const int64_t me = comm_rank(comm);
    struct comm_span equal[SIZE], uneven[SIZE];
    int64_t *a, *b, host[2 * SIZE];
    void *data = NULL;
    err_t rc = dev_alloc(dev, &data, 64 * SIZE, "test");
    a = data;
    b = a + 2 * SIZE;
    for (int64_t i = 0; i < SIZE; i++) {
        equal[i] = (struct comm_span){ i * 8, 8 };
        uneven[i] = (struct comm_span){ i * 16, i == 1 ? 0 : 16 };
    }
    a[me] = 100 + me;
    if (rc == ERR_OK)
        rc = comm_allgatherv(comm, &(struct comm_allgatherv_args){ .data = a, .spans = equal });
    for (int64_t i = 0; i < SIZE && rc == ERR_OK; i++) assert_int_equal(a[i], 100 + i);
    for (int64_t i = 0; i < 2 * SIZE; i++) a[i] = me == i / 2 ? i : -1;
    if (rc == ERR_OK)
        rc = comm_allgatherv(comm, &(struct comm_allgatherv_args){ .data = a, .spans = uneven });
    for (int64_t i = 0; i < 2 * SIZE && rc == ERR_OK; i++)
        assert_int_equal(a[i], i / 2 == 1 && me != 1 ? -1 : i);
    for (int64_t i = 0; i < SIZE; i++) a[i] = me * 10 + i;
    const struct comm_alltoallv_args to_all = {
        .recv = b, .recv_spans = equal, .send = a, .send_spans = equal
    };
    if (rc == ERR_OK) rc = comm_alltoallv(comm, &to_all);
    for (int64_t i = 0; i < SIZE && rc == ERR_OK; i++) assert_int_equal(b[i], i * 10 + me);
    /* To the next rank only, and to oneself in place. */
    struct comm_span send[SIZE] = { { 0, 0 } }, recv[SIZE] = { { 0, 0 } };
    send[(me + 1) % SIZE] = (struct comm_span){ 8, 8 };
    recv[(me + SIZE - 1) % SIZE] = (struct comm_span){ 16, 8 };
    send[me] = recv[me] = (struct comm_span){ 0, 8 };
    if (rc == ERR_OK)
        rc = comm_alltoallv(comm,
                            &(struct comm_alltoallv_args){
                                .recv = a, .recv_spans = recv, .send = a, .send_spans = send });
    if (rc == ERR_OK) assert_int_equal(a[2], (me + SIZE - 1) % SIZE * 10 + 1);
    a[0] = me;
    if (rc == ERR_OK) rc = comm_bcast(comm, &(struct comm_bcast_args){ a, 8, 2 });
    if (rc == ERR_OK) assert_int_equal(a[0], 2);
    if (rc == ERR_OK) rc = comm_barrier(comm);
    if (rc == ERR_OK) rc = comm_gather_host(comm, host, &me, 8);
    for (int64_t i = 0; i < SIZE && rc == ERR_OK; i++) assert_int_equal(host[i], i);
    dev_free(dev, data);
    return rc;
}

static void body_calls(int64_t rank, int64_t size, void *arg)
{
    struct comm *comm;
    struct comm_args args;
    assert_ok(open_rank(&comm, &args, rank, size, arg));
    assert_ok(exchange_all(comm, args.dev));
    assert_ok(comm_check(comm));
    comm_close(comm);
    dev_close(args.dev);
}

static void run(struct nccl_case *c, ranks_raw_body *body)
{
    int status[SIZE_MOST];
    ranks_fork(status, c->size, body, c);
    for (int64_t i = 0; i < c->size; i++) assert_int_equal(status[i], 0);
}

static void assert_log(const char *path, const char *expected)
{
    char found[4096];
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    const size_t n = fread(found, 1, sizeof found - 1, f);
    fclose(f);
    found[n] = '\0';
    assert_string_equal(found, expected);
}

static void test_calls(void **state)
{
    struct nccl_case *c = make_case("calls", NULL, 20);
    (void)state;
    run(c, body_calls);
    assert_log(c->log, "CommInitRankConfig\n"
                       "AllGather\n" /* opening's barrier */
                       "AllGather\n" /* equal */
                       "GroupStart\nSend 16 to 1\nSend 16 to 2\nRecv 16 from 2\nGroupEnd\n"
                       "GroupStart\nSend 8 to 0\nRecv 8 from 0\nSend 8 to 1\nRecv 8 from 1\n"
                       "Send 8 to 2\nRecv 8 from 2\nGroupEnd\n" /* alltoall */
                       "GroupStart\nSend 8 to 1\nRecv 8 from 2\nGroupEnd\n"
                       "Broadcast\n"
                       "AllGather\n" /* barrier */
                       "AllGather\n" /* of host data */
                       "CommFinalize\nCommDestroy\n");
}

/* ---- machines ---- */

static void rank_log(char path[600], const struct nccl_case *c, int64_t rank)
{
    snprintf(path, 600, "%s.%lld", c->log, (long long)rank);
}

/* What the library was told to send to other ranks. */
static void add_up_log(struct nccl_case *c, int64_t rank)
{
    char path[600], line[64];
    rank_log(path, c, rank);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL) {
        long long bytes, to;
        if (sscanf(line, "Send %lld to %lld", &bytes, &to) != 2 || to == rank) continue;
        c->sent[rank] += bytes;
        if (to / c->machine_size != rank / c->machine_size) c->far[rank] += bytes;
    }
    fclose(f);
}

/* Spans with gaps between them, that nobody writes to. */
static int64_t place_pieces(struct comm_span spans[], const struct nccl_case *c)
{
    int64_t at = 1;
    for (int64_t i = 0; i < c->size; i++) {
        spans[i] = (struct comm_span){ at * 8, c->ints[i] * 8 };
        at += c->ints[i] + 1;
    }
    return at;
}

static void body_machines(int64_t rank, int64_t size, void *arg)
{
    struct nccl_case *c = arg;
    struct comm *comm;
    struct comm_args args;
    struct comm_span spans[SIZE_MOST];
    char log[600];
    int64_t expected[64];
    void *data = NULL, *own = NULL;
    const int64_t count = place_pieces(spans, c);
    assert_in_range(count, 1, 64);
    assert_ok(open_rank(&comm, &args, rank, size, c));
    assert_ok(dev_alloc(args.dev, &data, count * 8, "test"));
    assert_ok(dev_alloc(args.dev, &own, (c->ints[rank] + 1) * 8, "test"));
    for (int64_t i = 0; i < count; i++) expected[i] = ((int64_t *)data)[i] = -1;
    for (int64_t r = 0; r < size; r++)
        for (int64_t i = 0; i < c->ints[r]; i++) expected[spans[r].offset / 8 + i] = r * 100 + i;
    int64_t *mine = c->apart ? own : (int64_t *)data + spans[rank].offset / 8;
    for (int64_t i = 0; i < c->ints[rank]; i++) mine[i] = rank * 100 + i;
    rank_log(log, c, rank);
    setenv("FAKE_NCCL_LOG", log, 1);
    const struct comm_stats before = comm_stats(comm);
    assert_ok(
        comm_allgatherv(comm, &(struct comm_allgatherv_args){
                                  .data = data, .spans = spans, .send = c->apart ? own : NULL }));
    unsetenv("FAKE_NCCL_LOG");
    const struct comm_stats after = comm_stats(comm);
    assert_memory_equal(data, expected, (size_t)count * 8);
    add_up_log(c, rank);
    assert_int_equal(after.sent_bytes - before.sent_bytes, c->sent[rank]);
    assert_int_equal(after.far_bytes - before.far_bytes, c->far[rank]);
    dev_free(args.dev, data);
    dev_free(args.dev, own);
    comm_close(comm);
    dev_close(args.dev);
}

static struct nccl_case *gather_over(const char *name, int64_t size, int64_t machine_size,
                                     const int64_t *ints, bool apart)
{
    struct nccl_case *c = make_case(name, NULL, 20);
    c->size = size;
    c->machine_size = machine_size;
    c->apart = apart;
    memcpy(c->ints, ints, (size_t)size * sizeof *ints);
    run(c, body_machines);
    return c;
}

static void assert_calls(const struct nccl_case *c, const char *const expected[])
{
    char path[600];
    for (int64_t r = 0; r < c->size; r++) {
        rank_log(path, c, r);
        assert_log(path, expected[r]);
    }
}

/* Two machines of two. Rank 1 has nothing. */
static void test_two_levels(void **state)
{
    (void)state;
    assert_calls(
        gather_over("levels", 4, 2, (const int64_t[]){ 3, 0, 5, 1 }, false),
        (const char *const[]){
            "GroupStart\nSend 24 to 1\nSend 24 to 2\nRecv 40 from 2\nGroupEnd\n"
            "GroupStart\nSend 40 to 1\nRecv 8 from 1\nGroupEnd\n",
            "GroupStart\nRecv 24 from 0\nRecv 8 from 3\nGroupEnd\n"
            "GroupStart\nSend 8 to 0\nRecv 40 from 0\nGroupEnd\n",
            "GroupStart\nSend 40 to 0\nRecv 24 from 0\nSend 40 to 3\nRecv 8 from 3\nGroupEnd\n"
            "GroupStart\nSend 24 to 3\nGroupEnd\n",
            "GroupStart\nSend 8 to 1\nSend 8 to 2\nRecv 40 from 2\nGroupEnd\n"
            "GroupStart\nRecv 24 from 2\nGroupEnd\n",
        });
    assert_calls(gather_over("apart", 4, 2, (const int64_t[]){ 0, 2, 0, 0 }, true),
                 (const char *const[]){
                     "GroupStart\nRecv 16 from 1\nGroupEnd\nGroupStart\nGroupEnd\n",
                     "GroupStart\nSend 16 to 0\nSend 16 to 1\nRecv 16 from 1\nSend 16 to 3\n"
                     "GroupEnd\nGroupStart\nGroupEnd\n",
                     "GroupStart\nGroupEnd\nGroupStart\nRecv 16 from 3\nGroupEnd\n",
                     "GroupStart\nRecv 16 from 1\nGroupEnd\n"
                     "GroupStart\nSend 16 to 2\nGroupEnd\n",
                 });
}

/* However the ranks lie, every piece comes to each rank once and to each other machine once. */
static void test_every_machine_once(void **state)
{
    (void)state;
    static const int64_t layouts[][2] = { { 4, 1 }, { 4, 4 }, { 6, 2 }, { 6, 3 } };
    static const int64_t ints[][SIZE_MOST] = { { 1, 2, 3, 4, 5, 6 }, { 0, 7, 0, 2, 2, 0 } };
    for (int l = 0; l < 4; l++)
        for (int k = 0; k < 2; k++) {
            const int64_t size = layouts[l][0], machine_size = layouts[l][1];
            char name[32];
            snprintf(name, sizeof name, "once%d%d", l, k);
            const struct nccl_case *c = gather_over(name, size, machine_size, ints[k], k == 1);
            int64_t all = 0, sent = 0, far = 0;
            for (int64_t r = 0; r < size; r++) {
                all += ints[k][r] * 8;
                sent += c->sent[r];
                far += c->far[r];
            }
            assert_int_equal(sent, all * (size - 1));
            assert_int_equal(far, all * (machine_size == 1 ? size - 1 : size / machine_size - 1));
        }
}

/* ---- answers ---- */

/* Rank 1 hears of an error: it says so, aborts its communicator, and never calls NCCL again. */
static void body_error(int64_t rank, int64_t size, void *arg)
{
    struct nccl_case *c = arg;
    struct comm *comm = NULL;
    struct comm_args args;
    if (rank == 1) setenv("FAKE_NCCL_LOG", c->log, 1);
    err_t rc = open_rank(&comm, &args, rank, size, c);
    if (rank == 0) unsetenv("FAKE_NCCL_LOG");
    while (rc == ERR_OK) rc = exchange_all(comm, args.dev);
    assert_int_equal(rc, ERR_COMM);
    if (rank == 1) {
        assert_non_null(strstr(err_last()->text, "remote process exited: what was fake about it"));
        assert_non_null(strstr(err_last()->text, "rank 1 of 3"));
    } else {
        assert_non_null(strstr(err_last()->text, "still in progress after 0.5 s"));
    }
    if (comm != NULL) assert_err(comm_barrier(comm), COMM, "");
    comm_close(comm);
    dev_close(args.dev);
}

static void test_async_error(void **state)
{
    (void)state;
    run(make_case("error", "error:40", 0.5), body_error);
}

static void body_stuck(int64_t rank, int64_t size, void *arg)
{
    struct comm *comm = NULL;
    struct comm_args args;
    err_t rc = open_rank(&comm, &args, rank, size, arg);
    while (rc == ERR_OK) rc = exchange_all(comm, args.dev);
    assert_err(rc, COMM, "still in progress after 0.5 s");
    comm_close(comm);
    dev_close(args.dev);
}

static void test_stuck(void **state)
{
    (void)state;
    run(make_case("stuck", "stuck:30", 0.5), body_stuck);
    run(make_case("never", "stuck:1", 0.5), body_stuck); /* while opening */
}

/* A thread, as the watchdog is one, ends the waiting of another. */
static void *abort_later(void *arg)
{
    usleep(200000);
    comm_abort(arg, "rank 2 is lost");
    return NULL;
}

static void body_abort(int64_t rank, int64_t size, void *arg)
{
    struct comm *comm;
    struct comm_args args;
    pthread_t thread;
    assert_ok(open_rank(&comm, &args, rank, size, arg));
    assert_ok(comm_check(comm));
    if (rank != 2) { /* rank 2 does not come */
        assert_int_equal(pthread_create(&thread, NULL, abort_later, comm), 0);
        assert_err(comm_barrier(comm), COMM, "barrier at step -1, rank ");
        pthread_join(thread, NULL);
        assert_err(comm_check(comm), COMM, "rank 2 is lost");
    } else {
        comm_abort(comm, "on its own");
    }
    comm_close(comm);
    dev_close(args.dev);
}

static void test_abort(void **state)
{
    (void)state;
    run(make_case("abort", NULL, 30), body_abort);
}

/* A rank that fails ends, whatever NCCL makes of the abort: by itself, or as the watchdog of the
 * other one does. */
static void body_grip(int64_t rank, int64_t size, void *arg)
{
    struct ranks_place place = *(const struct ranks_place *)arg;
    struct ranks *ranks;
    struct dev *dev;
    place.rank = rank;
    place.size = size;
    if (rank != 0) place.listen_fd = -1;
    setenv("FAKE_NCCL", "grip", 1);
    assert_ok(dev_open(&dev, "emu", 1));
    assert_ok(
        ranks_join(&ranks, &(struct ranks_args){ .place = &place, .dev = dev, .kind = "nccl" }));
    if (rank != 0) sleep(RANKS_LIMIT_S);
    err_raise(ERR_IO, __FILE__, __LINE__, "the disk of this test is full");
    _exit(ranks_leave(ranks, ERR_IO) == ERR_IO ? 3 : 4);
}

static void test_grip(void **state)
{
    int status[2];
    struct ranks_place *place = ranks_shared(sizeof *place);
    (void)state;
    *place = (struct ranks_place){ .launcher = "soulchat", .host = "127.0.0.1", .job = "grip" };
    assert_ok(wire_listen(&place->listen_fd, &place->port, place->host, 0));
    ranks_fork(status, 2, body_grip, place);
    close(place->listen_fd);
    assert_int_equal(status[0], 1);
    assert_int_equal(status[1], RANKS_STATUS_LOST);
}

/* ---- faults ---- */

/* The n-th call of rank 1 fails, for all n: no rank hangs, none crashes. */
static void body_fault(int64_t rank, int64_t size, void *arg)
{
    struct nccl_case *c = arg;
    struct comm *comm = NULL;
    struct comm_args args;
    if (rank == 1) fault_arm("nccl.", c->fault_n);
    err_t rc = open_rank(&comm, &args, rank, size, c);
    if (rc == ERR_OK) rc = exchange_all(comm, args.dev);
    if (rank == 1 && rc == ERR_OK && fault_hits() < c->fault_n) c->passed_all = true;
    if (rc != ERR_OK) assert_int_equal(rc, ERR_COMM);
    fault_arm("", 0);
    comm_close(comm);
    dev_close(args.dev);
}

static void test_faults(void **state)
{
    bool passed_all = false;
    (void)state;
    for (int n = 1; !passed_all; n++) {
        struct nccl_case *c = make_case("faults", NULL, 0.3);
        assert_in_range(n, 1, 12);
        c->fault_n = n;
        run(c, body_fault);
        passed_all = c->passed_all;
    }
}

static void test_library(void **state)
{
    struct dev *dev;
    uint8_t blob[COMM_BLOB_BYTES];
    const char *fake = getenv("SOULCHAT_NCCL");
    (void)state;
    assert_ok(dev_open(&dev, "emu", 1));
    setenv("FAKE_NCCL", "old", 1);
    assert_err(comm_invite(blob, "nccl", 2, dev), UNSUPPORTED, "NCCL 21700 is too old");
    unsetenv("FAKE_NCCL");
    char kept[512];
    snprintf(kept, sizeof kept, "%s", fake);
    setenv("SOULCHAT_NCCL", "/no/such/libnccl.so", 1);
    assert_err(comm_invite(blob, "nccl", 2, dev), UNSUPPORTED, "/no/such/libnccl.so");
    setenv("SOULCHAT_NCCL", kept, 1);
    dev_close(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_two_levels),
        cmocka_unit_test(test_every_machine_once),
        cmocka_unit_test(test_async_error),
        cmocka_unit_test(test_stuck),
        cmocka_unit_test(test_abort),
        cmocka_unit_test(test_grip),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_library),
    };
    alarm(2 * RANKS_LIMIT_S);
    setenv("SOULCHAT_NCCL", FAKE_NCCL, 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
