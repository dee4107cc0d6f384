/* The communicator's promises, on data that say where every byte came from. */
#include "ranks_fixture.h"

#include "base/check.h"
#include "base/fault.h"
#include "base/progress.h"
#include "kernels/dev.h"
#include "train/comm_ring.h"
#include "train/ranks.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Byte k of the piece that rank `from` sends to rank `to` in round `round`. */
static uint8_t byte_at(int64_t from, int64_t to, int64_t round, int64_t k)
{
    return (uint8_t)(from * 131 + to * 17 + round * 7 + k * 3 + (k >> 8));
}

/* Uneven, with pieces of 0 and 1 bytes, and pieces that wrap the rings several times. */
static int64_t size_of(int64_t from, int64_t to, int64_t round)
{
    static const int64_t sizes[] = { 0, 1, 23, 4096, 300001, 2500003 };
    return sizes[(from * 5 + to * 3 + round) % 6];
}

struct pieces {
    struct comm_span spans[8];
    uint8_t *data;
};

/* Room for what every rank sends here, or for what is sent to every rank, with gaps. */
static struct pieces make_pieces(struct comm *comm, int64_t round, bool is_send)
{
    struct pieces p;
    const int64_t me = comm_rank(comm);
    int64_t total = 3;
    for (int64_t i = 0; i < comm_size(comm); i++) {
        const int64_t bytes = is_send ? size_of(me, i, round) : size_of(i, me, round);
        p.spans[i] = (struct comm_span){ total, bytes };
        total += bytes + 5;
    }
    p.data = malloc((size_t)total);
    memset(p.data, 0xee, (size_t)total);
    if (!is_send) return p;
    for (int64_t i = 0; i < comm_size(comm); i++)
        for (int64_t k = 0; k < p.spans[i].bytes; k++)
            p.data[p.spans[i].offset + k] = byte_at(me, i, round, k);
    return p;
}

static void check_received(struct comm *comm, const struct pieces *p, int64_t round)
{
    for (int64_t i = 0; i < comm_size(comm); i++) {
        const uint8_t *piece = p->data + p->spans[i].offset;
        for (int64_t k = 0; k < p->spans[i].bytes; k++)
            if (piece[k] != byte_at(i, comm_rank(comm), round, k)) {
                fprintf(stderr, "round %lld: byte %lld from rank %lld is wrong\n", (long long)round,
                        (long long)k, (long long)i);
                fail();
            }
        assert_int_equal(piece[-1], 0xee); /* the gaps stay */
        assert_int_equal(piece[p->spans[i].bytes], 0xee);
    }
}

static void body_alltoallv(struct comm *comm, void *arg)
{
    (void)arg;
    for (int64_t round = 0; round < 6; round++) {
        struct pieces send = make_pieces(comm, round, true);
        struct pieces recv = make_pieces(comm, round, false);
        assert_ok(comm_alltoallv(comm, &(struct comm_alltoallv_args){ .recv = recv.data,
                                                                      .recv_spans = recv.spans,
                                                                      .send = send.data,
                                                                      .send_spans = send.spans }));
        check_received(comm, &recv, round);
        free(send.data);
        free(recv.data);
    }
}

/* Several in flight, ended in another order. */
static void body_overlap(struct comm *comm, void *arg)
{
    enum { COUNT = 12 };
    struct comm_request *requests[COUNT];
    struct pieces send[COUNT], recv[COUNT];
    (void)arg;
    for (int64_t i = 0; i < COUNT; i++) {
        send[i] = make_pieces(comm, i, true);
        recv[i] = make_pieces(comm, i, false);
        assert_ok(comm_alltoallv_begin(comm, &requests[i],
                                       &(struct comm_alltoallv_args){
                                           .recv = recv[i].data,
                                           .recv_spans = recv[i].spans,
                                           .send = send[i].data,
                                           .send_spans = send[i].spans,
                                       }));
        comm_progress(comm);
    }
    for (int64_t i = 0; i < COUNT; i++) {
        const int64_t which = (i * 5 + comm_rank(comm)) % COUNT;
        assert_ok(comm_end(comm, &requests[which]));
        assert_null(requests[which]);
        assert_ok(comm_end(comm, &requests[which])); /* nothing left to end */
        check_received(comm, &recv[which], which);
    }
    for (int64_t i = 0; i < COUNT; i++) {
        free(send[i].data);
        free(recv[i].data);
    }
}

/* Gathered in place and from elsewhere; the own piece in place in alltoallv. */
static void body_allgatherv(struct comm *comm, void *arg)
{
    const int64_t me = comm_rank(comm), n = comm_size(comm);
    struct comm_span spans[8];
    int64_t total = 0;
    (void)arg;
    for (int64_t i = 0; i < n; i++) {
        spans[i] = (struct comm_span){ total, 1000 * i + (i == 1 ? 0 : 1) };
        total += spans[i].bytes;
    }
    for (int pass = 0; pass < 2; pass++) {
        uint8_t *data = calloc(1, (size_t)total + 1), *own = calloc(1, (size_t)spans[me].bytes + 1);
        uint8_t *mine = pass == 0 ? own : data + spans[me].offset;
        for (int64_t k = 0; k < spans[me].bytes; k++) mine[k] = byte_at(me, 0, pass, k);
        assert_ok(comm_allgatherv(comm, &(struct comm_allgatherv_args){
                                            .data = data,
                                            .spans = spans,
                                            .send = pass == 0 ? own : NULL,
                                        }));
        for (int64_t i = 0; i < n; i++)
            for (int64_t k = 0; k < spans[i].bytes; k++)
                assert_int_equal(data[spans[i].offset + k], byte_at(i, 0, pass, k));
        free(data);
        free(own);
    }
}

static void body_bcast(struct comm *comm, void *arg)
{
    static const int64_t sizes[] = { 0, 1, 4097, 3000000 };
    (void)arg;
    for (int64_t root = 0; root < comm_size(comm); root++)
        for (int i = 0; i < 4; i++) {
            uint8_t *data = calloc(1, (size_t)sizes[i] + 1);
            for (int64_t k = 0; k < sizes[i] && root == comm_rank(comm); k++)
                data[k] = byte_at(root, 0, i, k);
            assert_ok(comm_bcast(comm, &(struct comm_bcast_args){ data, sizes[i], root }));
            for (int64_t k = 0; k < sizes[i]; k++)
                if (data[k] != byte_at(root, 0, i, k)) fail();
            assert_int_equal(data[sizes[i]], 0);
            free(data);
        }
}

/* Sums of gathered float64 that are exact: the order of the ranks is all that can be wrong. */
static void body_gather_host(struct comm *comm, void *arg)
{
    enum { COUNT = 40000 }; /* several stagings */
    const int64_t n = comm_size(comm);
    double *mine = malloc(COUNT * sizeof *mine), *all = malloc((size_t)(n * COUNT) * sizeof *all);
    (void)arg;
    for (int64_t k = 0; k < COUNT; k++)
        mine[k] = ldexp(1.0, (int)(k % 20)) + (double)comm_rank(comm);
    assert_ok(comm_gather_host(comm, all, mine, COUNT * (int64_t)sizeof *mine));
    for (int64_t r = 0; r < n; r++)
        for (int64_t k = 0; k < COUNT; k++)
            if (all[r * COUNT + k] != ldexp(1.0, (int)(k % 20)) + (double)r) fail();
    assert_ok(comm_gather_host(comm, all, mine, 0));
    double one = (double)comm_rank(comm) + 1;
    assert_ok(comm_gather_host(comm, all, &one, sizeof one));
    for (int64_t r = 0; r < n; r++) assert_true(all[r] == (double)r + 1);
    free(mine);
    free(all);
}

/* Nobody leaves a barrier before the last has come. */
static void body_barrier(struct comm *comm, void *arg)
{
    _Atomic int64_t *arrived = arg;
    for (int64_t round = 1; round <= 50; round++) {
        if ((comm_rank(comm) + round) % comm_size(comm) == 0) usleep(1000);
        (*arrived)++;
        assert_ok(comm_barrier(comm));
        assert_true(*arrived >= round * comm_size(comm));
    }
}

static void body_activity(struct comm *comm, void *arg)
{
    struct comm_activity now;
    (void)arg;
    comm_activity(comm, &now);
    assert_int_equal(now.step, -1);
    assert_string_equal(now.phase, "start");
    assert_string_equal(now.collective, "none");
    comm_note(comm, 12, "forward");
    comm_activity(comm, &now);
    assert_int_equal(now.step, 12);
    assert_string_equal(now.phase, "forward");
    assert_ok(comm_check(comm));
}

static const struct named_body {
    const char *name;
    ranks_body *body;
} bodies[] = {
    { "alltoallv", body_alltoallv },     { "overlap", body_overlap },
    { "allgatherv", body_allgatherv },   { "bcast", body_bcast },
    { "gather_host", body_gather_host }, { "activity", body_activity },
};

static void test_self(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++)
        ranks_run("self", 1, bodies[i].body, NULL);
}

static void test_shm(void **state)
{
    (void)state;
    for (int64_t size = 1; size <= 4; size++)
        for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++)
            ranks_run("shm", size, bodies[i].body, NULL);
}

static void test_shm_barrier(void **state)
{
    (void)state;
    for (int64_t size = 2; size <= 5; size++)
        ranks_run("shm", size, body_barrier, ranks_shared(sizeof(int64_t)));
}

/* ---- failing ---- */

static void open_rank(struct comm **comm, const uint8_t *blob, int64_t rank, int64_t size,
                      double timeout_s)
{
    struct comm_args args = { .kind = "shm", .rank = rank, .size = size, .timeout_s = timeout_s };
    memcpy(args.blob, blob, sizeof args.blob);
    assert_ok(dev_open(&args.dev, "cpu", 1));
    assert_ok(comm_open(comm, &args));
}

/* Rank 1 calls something else: everyone hears of it, and it is said who is where. */
static void raw_mismatch(int64_t rank, int64_t size, void *arg)
{
    struct comm *comm;
    int64_t value = 0;
    open_rank(&comm, arg, rank, size, 20);
    comm_note(comm, 7, "update");
    if (rank == 1) {
        assert_err(comm_bcast(comm, &(struct comm_bcast_args){ &value, sizeof value, 0 }), COMM,
                   "bcast at step 7, rank 1 of 3: ");
    } else {
        assert_err(comm_barrier(comm), COMM, "barrier at step 7, rank ");
    }
    assert_non_null(strstr(err_last()->text, " where rank "));
    assert_err(comm_barrier(comm), COMM, "barrier at step 7"); /* it stays over */
    assert_err(comm_check(comm), COMM, "");
    comm_close(comm);
}

static void raw_sizes_differ(int64_t rank, int64_t size, void *arg)
{
    struct comm *comm;
    char data[64] = "";
    open_rank(&comm, arg, rank, size, 20);
    err_t rc = comm_bcast(comm, &(struct comm_bcast_args){ data, rank == 0 ? 64 : 32, 0 });
    if (rank == 0 && rc == ERR_OK) rc = comm_barrier(comm); /* it may have sent all before */
    assert_err(rc, COMM, "rank 0 sends 64 bytes where rank 1 expects 32");
    comm_close(comm);
}

/* Rank 2 does not come: the first whose time is over says so. The time is also that of opening, in
 * which all have to be there. */
static void raw_late(int64_t rank, int64_t size, void *arg)
{
    struct comm *comm;
    open_rank(&comm, arg, rank, size, 3);
    if (rank == 2) {
        while (comm_check(comm) == ERR_OK) usleep(10000);
        assert_err(comm_check(comm), COMM, "nothing moved for 3 s");
    } else {
        assert_err(comm_barrier(comm), COMM, "nothing moved for 3 s");
    }
    comm_close(comm);
}

/* A rank that aborts takes the others along, with its cause. */
static void raw_abort(int64_t rank, int64_t size, void *arg)
{
    struct comm *comm;
    open_rank(&comm, arg, rank, size, 20);
    /* Who has passed this knows that all have opened; the others may be in it still. */
    err_t rc = comm_barrier(comm);
    if (rank == 1) {
        assert_ok(rc);
        comm_abort(comm, "disk on fire");
        comm_abort(comm, "later cause");
    }
    if (rc == ERR_OK) rc = comm_barrier(comm);
    assert_err(rc, COMM, "disk on fire");
    comm_close(comm);
}

static void raw_killed(int64_t rank, int64_t size, void *arg)
{
    struct comm *comm;
    open_rank(&comm, arg, rank, size, 3);
    if (rank == 1) raise(SIGKILL);
    assert_err(comm_barrier(comm), COMM, "rank");
    comm_close(comm);
}

static const struct failing {
    const char *name;
    ranks_raw_body *body;
    int64_t size;
    int expected[3]; /* how each rank ends */
} failing[] = {
    { "mismatch", raw_mismatch, 3, { 0 } },
    { "sizes differ", raw_sizes_differ, 2, { 0 } },
    { "late", raw_late, 3, { 0 } },
    { "abort", raw_abort, 3, { 0 } },
    { "killed", raw_killed, 3, { 0, 128 + SIGKILL, 0 } },
};

static void fail_by_number(int64_t index, int64_t count, void *arg)
{
    const struct failing *f = &failing[index];
    int status[3];
    uint8_t *blob = ranks_shared(COMM_BLOB_BYTES);
    (void)count;
    (void)arg;
    assert_ok(comm_invite(blob, "shm", f->size, NULL));
    ranks_fork(status, f->size, f->body, blob);
    for (int64_t i = 0; i < f->size; i++)
        if (status[i] != f->expected[i])
            fail_msg("%s: rank %d of %d ended with status %d", f->name, (int)i, (int)f->size,
                     status[i]);
}

/* Side by side, for those that wait. */
static void test_failing(void **state)
{
    (void)state;
    ranks_pool(COUNT_OF(failing), COUNT_OF(failing), fail_by_number, NULL);
}

/* A rank that gives up is heard of when its cause is there, and no sooner. */
static void test_giving_up(void **state)
{
    struct ring_map map;
    char path[64];
    int fd;
    (void)state;
    assert_ok(ring_create(&fd, path, sizeof path, 2));
    assert_ok(ring_open(&map, path, 2));
    assert_ok(ring_check(&map));
    atomic_store(&map.head->aborted_by, -1); /* as at the beginning of ring_abort */
    assert_ok(ring_check(&map));
    atomic_store(&map.head->aborted_by, 0);
    ring_abort(&map, 1, "disk on fire");
    ring_abort(&map, 0, "later cause");
    assert_err(ring_check(&map), COMM, "rank 1 gave up: disk on fire");
    ring_close(&map);
    close(fd);
}

/* The n-th fault point of rank 1 fails, for every n: an error on all ranks, and no rank hangs. */
static void raw_faults(int64_t rank, int64_t size, void *arg)
{
    struct comm *comm;
    int64_t all[2], mine = rank;
    char data[100] = "";
    const struct comm_span halves[] = { { 0, 50 }, { 50, 50 } };
    uint8_t blob[COMM_BLOB_BYTES];
    int n;
    memcpy(blob, arg, sizeof blob);
    memcpy(&n, (char *)arg + COMM_BLOB_BYTES, sizeof n);
    open_rank(&comm, blob, rank, size, 20);
    if (rank == 1) fault_arm("comm.", n);
    err_t rc = comm_gather_host(comm, all, &mine, sizeof mine);
    if (rc == ERR_OK)
        rc = comm_allgatherv(comm, &(struct comm_allgatherv_args){ .data = data, .spans = halves });
    if (rc == ERR_OK) rc = comm_bcast(comm, &(struct comm_bcast_args){ data, 100, 0 });
    if (rc == ERR_OK) rc = comm_barrier(comm);
    const int hits = fault_hits();
    fault_arm("", 0);
    if (rc == ERR_OK) {
        assert_int_equal(rank == 1 ? hits : 8, 8); /* 4 begins, 4 ends */
        memset((char *)arg + COMM_BLOB_BYTES + sizeof n, 1, 1);
    } else {
        assert_int_equal(rc, ERR_COMM);
        assert_non_null(strstr(err_last()->text, "injected fault"));
    }
    comm_close(comm);
}

static void test_faults(void **state)
{
    int status[2];
    char *arg = ranks_shared(COMM_BLOB_BYTES + 16);
    (void)state;
    if (fault_point("comm.test") == ERR_OK && fault_hits() < 0) skip();
    for (int n = 1; arg[COMM_BLOB_BYTES + sizeof n] == 0; n++) {
        assert_in_range(n, 1, 9);
        memcpy(arg + COMM_BLOB_BYTES, &n, sizeof n);
        assert_ok(comm_invite((uint8_t *)arg, "shm", 2, NULL));
        ranks_fork(status, 2, raw_faults, arg);
        assert_int_equal(status[0], 0);
        assert_int_equal(status[1], 0);
    }
}

static void test_opening(void **state)
{
    struct comm_args args = { .kind = "shm", .size = 2, .timeout_s = 0.3 };
    struct comm *comm;
    (void)state;
    assert_ok(dev_open(&args.dev, "cpu", 1));
    assert_err(comm_open(&comm, &args), ARG, "invitation");
    snprintf((char *)args.blob, sizeof args.blob, "/proc/1/fd/99999");
    assert_err(comm_open(&comm, &args), COMM, "/proc/1/fd/99999");
    assert_ok(comm_invite(args.blob, "shm", 3, args.dev));
    assert_err(comm_open(&comm, &args), COMM, "expected for 2 ranks");
    assert_ok(comm_invite(args.blob, "shm", 2, args.dev));
    assert_err(comm_open(&comm, &args), COMM, "rank 1: nothing moved for 0.3 s");
    assert_err(comm_invite(args.blob, "shm", 65, args.dev), ARG, "at most 64");
    assert_err(comm_invite(args.blob, "tcp", 2, args.dev), USAGE, "\"tcp\"");
    args.kind = "self";
    assert_err(comm_open(&comm, &args), ARG, "2 ranks");
    args.kind = "nccl";
    assert_err(comm_open(&comm, &args), UNSUPPORTED, "device cpu");
    assert_null(comm);
    comm_close(NULL);
    dev_close(args.dev);
}

/* ---- under mpirun, as one rank of several: test_train_comm mpi ---- */

static void test_mpi(void **state)
{
    struct ranks_place place;
    struct comm *comm;
    (void)state;
    assert_ok(ranks_find(&place));
    struct comm_args args = {
        .kind = "mpi", .rank = place.rank, .size = place.size, .timeout_s = RANKS_LIMIT_S
    };
    assert_ok(dev_open(&args.dev, "cpu", 1));
    assert_ok(comm_open(&comm, &args));
    body_activity(comm, NULL);
    body_overlap(comm, NULL);
    body_alltoallv(comm, NULL);
    body_allgatherv(comm, NULL);
    body_bcast(comm, NULL);
    body_gather_host(comm, NULL);
    for (int i = 0; i < 50; i++) assert_ok(comm_barrier(comm));
    comm_close(comm);
    assert_err(comm_open(&comm, &args), COMM, "starts once in a process");
    dev_close(args.dev);
}

/* Sizes that disagree, and a rank that does not come: test_train_comm mpi-short, mpi-long */
static void test_mpi_failing(void **state)
{
    const int64_t sent = *(const int64_t *)*state;
    const char *const expected =
        sent < 64 ? "rank 0 sends 32 bytes where 64 are expected" : "rank 0: MPI_ERR_TRUNCATE";
    struct ranks_place place;
    struct comm *comm;
    char data[128] = "";
    assert_ok(ranks_find(&place));
    struct comm_args args = {
        .kind = "mpi", .rank = place.rank, .size = place.size, .timeout_s = 0.5
    };
    assert_ok(dev_open(&args.dev, "cpu", 1));
    assert_ok(comm_open(&comm, &args));
    if (place.rank == 0) { /* what is sent leaves at once: only the receiver can tell */
        assert_ok(comm_bcast(comm, &(struct comm_bcast_args){ data, sent, 0 }));
        assert_err(comm_barrier(comm), COMM, "not answered within 0.5 s");
    } else {
        assert_err(comm_bcast(comm, &(struct comm_bcast_args){ data, 64, 0 }), COMM, expected);
    }
    assert_err(comm_barrier(comm), COMM, "");
    comm_close(comm);
    dev_close(args.dev);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest mpi[] = { cmocka_unit_test(test_mpi) };
    int64_t sent = argc > 1 && strcmp(argv[1], "mpi-long") == 0 ? 128 : 32;
    const struct CMUnitTest mpi_failing[] = { cmocka_unit_test_prestate(test_mpi_failing, &sent) };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_self),        cmocka_unit_test(test_shm),
        cmocka_unit_test(test_shm_barrier), cmocka_unit_test(test_failing),
        cmocka_unit_test(test_giving_up),   cmocka_unit_test(test_faults),
        cmocka_unit_test(test_opening),
    };
    alarm(2 * RANKS_LIMIT_S);
    if (argc > 1 && strcmp(argv[1], "mpi") == 0) return cmocka_run_group_tests(mpi, NULL, NULL);
    if (argc > 1)                                               /* "mpi-short", "mpi-long" */
        _exit(cmocka_run_group_tests(mpi_failing, NULL, NULL)); /* MPI is not at its end */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
