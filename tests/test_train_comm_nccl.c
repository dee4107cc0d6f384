/*
 * The communicator of GPUs, on emulated ones and over a fake NCCL: which calls it makes, what it
 * makes of their answers, and that nothing hangs. The real library has not been called yet.
 */
#include "ranks_fixture.h"

#include "base/fault.h"
#include "kernels/dev.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SIZE 3

struct nccl_case {
    uint8_t blob[COMM_BLOB_BYTES];
    const char *plan; /* FAKE_NCCL of rank 1 */
    char log[512];    /* of rank 0 */
    double timeout_s;
    int fault_n; /* of rank 1 */
    bool passed_all;
};

static struct nccl_case *make_case(const char *name, const char *plan, double timeout_s)
{
    struct nccl_case *c = ranks_shared(sizeof *c);
    struct dev *dev;
    c->plan = plan;
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
    *args =
        (struct comm_args){ .kind = "nccl", .rank = rank, .size = size, .timeout_s = c->timeout_s };
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
    int status[SIZE];
    ranks_fork(status, SIZE, body, c);
    for (int i = 0; i < SIZE; i++) assert_int_equal(status[i], 0);
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
                       "AllGather\n"                              /* opening's barrier */
                       "AllGather\n"                              /* equal */
                       "GroupStart\nSend\nSend\nRecv\nGroupEnd\n" /* uneven */
                       "AlltoAll\n"
                       "GroupStart\nSend\nRecv\nGroupEnd\n"
                       "Broadcast\n"
                       "AllGather\n" /* barrier */
                       "AllGather\n" /* of host data */
                       "CommFinalize\nCommDestroy\n");
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
        cmocka_unit_test(test_calls),  cmocka_unit_test(test_async_error),
        cmocka_unit_test(test_stuck),  cmocka_unit_test(test_abort),
        cmocka_unit_test(test_faults), cmocka_unit_test(test_library),
    };
    alarm(2 * RANKS_LIMIT_S);
    setenv("SOULCHAT_NCCL", FAKE_NCCL, 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
