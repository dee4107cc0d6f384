/*
 * The communicator of GPUs over the real NCCL: whole numbers summed over ranks, exchanges in the
 * order of the queues, several at once, and an abort. One rank for each GPU, one of them with a
 * single GPU, which still goes through every call; over emulated GPUs and a fake NCCL elsewhere.
 * Four cards or more are also taken for several machines of two, for gathers in two levels.
 *
 *     SOULCHAT_TEST_GPUS=4 build/tests/test_train_comm_gpu      # four cards of this machine
 */
#include "ranks_fixture.h"

#include "kernels/dev.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RANKS_MOST   8
#define STATUS_SKIP  77
#define SLICE_FLOATS ((int64_t)1 << 20) /* of the first rank; those after it have less */

/* What ranks share before they have a communicator. */
struct meeting {
    const char *device;   /* "cuda", "emu" */
    int64_t machine_size; /* so many ranks take each other for one machine's; 0: all */
    int64_t slice_floats;
    uint8_t blob[COMM_BLOB_BYTES];
    atomic_int invited; /* 1: the blob is there; -1: there will be none */
    char why[512];
};

static struct meeting *make_meeting(const char *device, int64_t machine_size, int64_t slice_floats)
{
    struct meeting *m = ranks_shared(sizeof *m);
    m->device = device;
    m->machine_size = machine_size;
    m->slice_floats = slice_floats;
    return m;
}

/* ---- opening ---- */

struct rank {
    struct dev *dev;
    struct comm *comm;
    int64_t me, size;
    struct comm_span slices[RANKS_MOST]; /* of the ranks, of unequal sizes, the last one's 0 */
    int64_t floats;                      /* in all of them */
};

static void skip_rank(struct meeting *m)
{
    snprintf(m->why, sizeof m->why, "%s", err_last()->text);
    m->invited = -1;
    _exit(STATUS_SKIP);
}

static void share_slices(struct rank *r, int64_t slice_floats)
{
    for (int64_t i = 0; i < r->size; i++) {
        const bool none = r->size > 2 && i == r->size - 1;
        const int64_t count = none ? 0 : slice_floats - 37 * i;
        r->slices[i] = (struct comm_span){ r->floats * 4, count * 4 };
        r->floats += count;
    }
}

static void open_rank(struct rank *r, int64_t rank, int64_t size, struct meeting *m)
{
    char name[32];
    const bool numbered = strcmp(m->device, "cuda") == 0;
    *r = (struct rank){ .me = rank, .size = size };
    snprintf(name, sizeof name, numbered ? "cuda:%lld" : "emu", (long long)rank);
    const err_t rc = dev_open(&r->dev, name, 1);
    if (rc != ERR_OK && numbered) skip_rank(m);
    assert_ok(rc);
    if (rank == 0) {
        if (comm_invite(m->blob, "nccl", size, r->dev) != ERR_OK) skip_rank(m);
        m->invited = 1;
    }
    while (m->invited == 0) usleep(1000);
    if (m->invited < 0) _exit(STATUS_SKIP);
    struct comm_args args = { .kind = "nccl",
                              .rank = rank,
                              .size = size,
                              .machine_size = m->machine_size,
                              .dev = r->dev,
                              .timeout_s = 30 };
    memcpy(args.blob, m->blob, sizeof args.blob);
    assert_ok(comm_open(&r->comm, &args));
    assert_int_equal(comm_rank(r->comm), rank);
    assert_int_equal(comm_size(r->comm), size);
    share_slices(r, m->slice_floats);
}

static void close_rank(struct rank *r)
{
    comm_close(r->comm);
    dev_close(r->dev);
}

static float *alloc_floats(const struct rank *r, int64_t count)
{
    void *data = NULL;
    assert_ok(dev_alloc(r->dev, &data, count * 4, "test"));
    return data;
}

/* ---- sums of whole numbers ---- */

/* Element i of a rank's gradients: whole, so that sums over ranks are exact in any order. */
static float value(int64_t rank, int64_t i) { return (float)((i * 7 + rank * 13) % 1009); }

static void fill(const struct rank *r, float *host, int64_t rank)
{
    for (int64_t i = 0; i < r->floats; i++) host[i] = value(rank, i);
}

/* As a step does: slices to their owners, who add them up; the sums to everyone. */
static void sum_and_spread(const struct rank *r, float *host, float *sum)
{
    const struct comm_span mine = r->slices[r->me];
    const int64_t count = mine.bytes / 4;
    struct comm_span from[RANKS_MOST];
    float *grads = alloc_floats(r, r->floats), *parts = alloc_floats(r, r->size * count + 1);
    for (int64_t i = 0; i < r->size; i++)
        from[i] = (struct comm_span){ i * mine.bytes, mine.bytes };
    fill(r, host, r->me);
    assert_ok(dev_upload(r->dev, grads, host, r->floats * 4));
    assert_ok(comm_alltoallv(
        r->comm, &(struct comm_alltoallv_args){
                     .recv = parts, .recv_spans = from, .send = grads, .send_spans = r->slices }));
    assert_ok(dev_download(r->dev, host, parts, r->size * mine.bytes));
    for (int64_t i = 0; i < count; i++) {
        sum[i] = 0;
        for (int64_t rank = 0; rank < r->size; rank++) sum[i] += host[rank * count + i];
    }
    assert_ok(dev_zero(r->dev, grads, r->floats * 4));
    assert_ok(dev_upload(r->dev, (char *)grads + mine.offset, sum, mine.bytes));
    assert_ok(comm_allgatherv(r->comm, &(struct comm_allgatherv_args){ grads, r->slices, NULL }));
    assert_ok(dev_download(r->dev, host, grads, r->floats * 4));
    dev_free(r->dev, grads);
    dev_free(r->dev, parts);
}

static void body_sums(int64_t rank, int64_t size, void *arg)
{
    const struct meeting *m = arg;
    struct rank r;
    open_rank(&r, rank, size, arg);
    float *host = malloc((size_t)(size * m->slice_floats) * sizeof *host);
    float *sum = malloc((size_t)m->slice_floats * sizeof *sum);
    assert_true(host != NULL && sum != NULL);
    sum_and_spread(&r, host, sum);
    for (int64_t i = 0; i < r.floats; i++) {
        float expected = 0;
        for (int64_t other = 0; other < size; other++) expected += value(other, i);
        if (host[i] != expected)
            fail_msg("element %lld: %g, expected %g", (long long)i, host[i], expected);
    }
    free(host);
    free(sum);
    close_rank(&r);
}

/* ---- order, and several at once ---- */

/* What is queued before an exchange is in it, and what is queued after it sees it, without the host
 * waiting in between; exchanges end in another order than they began. */
static void body_order(int64_t rank, int64_t size, void *arg)
{
    struct rank r;
    struct comm_request *gather, *bcast, *barrier;
    open_rank(&r, rank, size, arg);
    const int64_t bytes = r.floats * 4, last = size - 1;
    float *source = alloc_floats(&r, r.floats), *all = alloc_floats(&r, r.floats);
    float *copy = alloc_floats(&r, r.floats), *word = alloc_floats(&r, r.floats);
    float *host = malloc((size_t)bytes);
    assert_non_null(host);
    for (int64_t owner = 0; owner < size; owner++)
        for (int64_t i = 0; i < r.slices[owner].bytes / 4; i++)
            host[r.slices[owner].offset / 4 + i] = owner == rank ? value(rank, i) : -1;
    for (int round = 0; round < 5; round++) {
        assert_ok(dev_upload(r.dev, source, host, bytes));
        assert_ok(dev_copy(r.dev, DEV_COMPUTE, all, source, bytes));
        assert_ok(dev_copy(r.dev, DEV_COMPUTE, word, source, bytes));
        assert_ok(comm_allgatherv_begin(r.comm, &gather,
                                        &(struct comm_allgatherv_args){ all, r.slices, NULL }));
        assert_ok(comm_bcast_begin(r.comm, &bcast, &(struct comm_bcast_args){ word, bytes, last }));
        assert_ok(comm_barrier_begin(r.comm, &barrier));
        assert_ok(comm_end(r.comm, &barrier));
        assert_ok(comm_end(r.comm, &bcast));
        assert_ok(comm_end(r.comm, &gather));
        assert_ok(dev_copy(r.dev, DEV_COMPUTE, copy, all, bytes));
        assert_ok(dev_zero(r.dev, all, bytes));
        float *found = malloc((size_t)bytes);
        assert_non_null(found);
        assert_ok(dev_download(r.dev, found, copy, bytes));
        for (int64_t owner = 0; owner < size; owner++)
            for (int64_t i = 0; i < r.slices[owner].bytes / 4; i++)
                assert_true(found[r.slices[owner].offset / 4 + i] == value(owner, i));
        assert_ok(dev_download(r.dev, found, word, bytes));
        for (int64_t i = 0; i < r.slices[0].bytes / 4; i++)
            assert_true(found[i] == (last == 0 ? value(0, i) : -1));
        free(found);
    }
    free(host);
    dev_free(r.dev, source);
    dev_free(r.dev, all);
    dev_free(r.dev, copy);
    dev_free(r.dev, word);
    close_rank(&r);
}

/* ---- numbers of the host, checks, and the end by force ---- */

static void body_abort(int64_t rank, int64_t size, void *arg)
{
    struct rank r;
    int64_t all[RANKS_MOST], mine = 100 + rank;
    open_rank(&r, rank, size, arg);
    assert_ok(comm_gather_host(r.comm, all, &mine, sizeof mine));
    for (int64_t i = 0; i < size; i++) assert_int_equal(all[i], 100 + i);
    assert_ok(comm_check(r.comm));
    comm_abort(r.comm, "enough of it");
    assert_err(comm_check(r.comm), COMM, "enough of it");
    assert_err(comm_barrier(r.comm), COMM, "enough of it");
    close_rank(&r);
}

/* ---- where ---- */

/* Returns whether it could be tried. */
static bool run_all(const char *device, int64_t size, int64_t machine_size, int64_t slice_floats)
{
    ranks_raw_body *const bodies[] = { body_sums, body_order, body_abort };
    for (size_t b = 0; b < sizeof bodies / sizeof *bodies; b++) {
        int status[RANKS_MOST];
        struct meeting *m = make_meeting(device, machine_size, slice_floats);
        ranks_fork(status, size, bodies[b], m);
        for (int64_t i = 0; i < size; i++) {
            if (status[i] == STATUS_SKIP) {
                printf("SKIP: %s: %s\n", device, m->why);
                return false;
            }
            assert_int_equal(status[i], 0);
        }
    }
    return true;
}

static int64_t gpus(void)
{
    const char *text = getenv("SOULCHAT_TEST_GPUS");
    const long count = text != NULL ? strtol(text, NULL, 10) : 1;
    assert_in_range(count, 1, RANKS_MOST);
    return count;
}

static void test_real(void **state)
{
    (void)state;
    if (!run_all("cuda", gpus(), 0, SLICE_FLOATS)) skip();
    if (gpus() > 1) assert_true(run_all("cuda", 1, 0, SLICE_FLOATS));
    if (gpus() >= 4 && gpus() % 2 == 0) assert_true(run_all("cuda", gpus(), 2, SLICE_FLOATS));
}

static void test_fake(void **state)
{
    (void)state;
    setenv("SOULCHAT_NCCL", FAKE_NCCL, 1);
    for (int64_t size = 1; size <= 3; size++) assert_true(run_all("emu", size, 0, 1000));
    assert_true(run_all("emu", 4, 2, 1000));
    assert_true(run_all("emu", 6, 2, 1000));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_real), cmocka_unit_test(test_fake) };
    alarm(2 * RANKS_LIMIT_S);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
