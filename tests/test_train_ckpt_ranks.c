/* ckpt.h on several ranks: the bytes are those of one rank, each rank gives and takes its own part,
 * and the failure of one is everyone's. */
#include "ckpt_fixture.h"
#include "ranks_fixture.h"
#include "state_rig.h"

#include "base/check.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/num.h"
#include "train/snapshot.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct optim_format formats[] = {
    { .weights = DTYPE_F32 },
    { .weights = DTYPE_F32, .moments = OPTIM_MOMENTS_8BIT },
    { .weights = DTYPE_BF16, .master = true },
    { .weights = DTYPE_BF16, .moments = OPTIM_MOMENTS_8BIT, .place = OPTIM_ON_HOST },
};
static const struct ckpt_keep one = { .last = 1 };

/* One rank of a run: a rig, what of it is its own, and its weights before they were spoilt. */
struct rank {
    struct state_rig rig;
    struct ckpt_ranks ranks;
    struct ckpt_state state;
    int64_t rank, size;
    char *kept;
};

/* A range of whole blocks of each row; who has which differs from row to row. */
static void owned(const void *context, int64_t row, int64_t *first, int64_t *count)
{
    const struct rank *r = context;
    const int64_t all = r->rig.params.row[row].count;
    const int64_t per = div_ceil(div_ceil(all, r->size), ADAMW_BLOCK) * ADAMW_BLOCK;
    *first = min_i64(all, (r->rank + row) % r->size * per);
    *count = min_i64(all - *first, per);
}

static int64_t weight_bytes(const struct rank *r)
{
    return tensor_count(&r->rig.weights) * dtype_bytes(r->rig.weights.dtype);
}

static void rank_open_rig(struct rank *r, const struct optim_format *format, struct comm *comm,
                          void (*open)(struct state_rig *, struct dev *,
                                       const struct optim_format *))
{
    memset(r, 0, sizeof *r);
    r->rank = comm_rank(comm);
    r->size = comm_size(comm);
    r->ranks = (struct ckpt_ranks){ .comm = comm, .owned = owned, .context = r };
    open(&r->rig, state_rig_cpu(), format);
    r->kept = malloc((size_t)weight_bytes(r));
    assert_non_null(r->kept);
    r->state = (struct ckpt_state){ .step = 7, .updates = 7, .lanes = 1, .model = micro_config() };
    r->state.formats = formats_stored(&optim_plan_of(r->rig.optim)->format);
    memset(r->state.corpus_sha256, 'c', SHA256_HEX_SIZE - 1);
    assert_ok(buf_puts(&r->state.settings, "train:\n  steps: 12\n"));
}

static void rank_open(struct rank *r, const struct optim_format *format, struct comm *comm)
{
    rank_open_rig(r, format, comm, state_rig_open);
}

static void rank_close(struct rank *r)
{
    ckpt_state_clear(&r->state);
    free(r->kept);
    state_rig_close(&r->rig);
}

static void rank_train(struct rank *r)
{
    assert_ok(state_rig_fill(&r->rig));
    assert_ok(state_rig_train(&r->rig, 1, 4));
    memcpy(r->kept, r->rig.weights.data, (size_t)weight_bytes(r));
}

static char *weights_at(const struct rank *r, int64_t row)
{
    return (char *)r->rig.weights.data +
           r->rig.layout.offset[row] * dtype_bytes(r->rig.weights.dtype);
}

/* What is not this rank's becomes nonsense: nobody must ask it for that. */
static void spoil_part(struct rank *r, int part, int64_t row, int64_t count)
{
    static uint8_t nonsense[1 << 20];
    const int64_t per = optim_part_per((enum optim_part)part);
    int64_t first, mine;
    owned(r, row, &first, &mine);
    first /= per;
    mine = div_ceil(mine, per);
    if (mine == 0) first = 0;
    const int64_t end = first + mine;
    assert_true(count * 8 <= (int64_t)sizeof nonsense);
    memset(nonsense, 0x3a, sizeof nonsense);
    assert_ok(optim_write_state(r->rig.optim, (enum optim_part)part, row, 0, nonsense, first));
    assert_ok(
        optim_write_state(r->rig.optim, (enum optim_part)part, row, end, nonsense, count - end));
}

static void spoil_weights(struct rank *r, int64_t row)
{
    const int64_t unit = dtype_bytes(r->rig.weights.dtype);
    const int64_t all = r->rig.params.row[row].count;
    int64_t first, count;
    owned(r, row, &first, &count);
    if (count == 0) first = 0;
    memset(weights_at(r, row), 0x3a, (size_t)(first * unit));
    memset(weights_at(r, row) + (first + count) * unit, 0x3a,
           (size_t)((all - first - count) * unit));
}

static void spoil_others(struct rank *r)
{
    const struct optim_plan *plan = optim_plan_of(r->rig.optim);
    for (int64_t i = 0; i < r->rig.params.count; i++) {
        spoil_weights(r, i);
        for (int p = 0; p < OPTIM_PARTS; p++) {
            const int64_t n =
                optim_part_count(&plan->format, &r->rig.params.row[i], (enum optim_part)p);
            if (n > 0) spoil_part(r, p, i, n);
        }
    }
}

/* ---- bytes ---- */

static const char *root_of(int64_t format, int64_t size, const char *what)
{
    static char name[8][64];
    static int turn;
    char *out = name[turn++ % 8];
    snprintf(out, sizeof name[0], "f%lld-r%lld-%s", (long long)format, (long long)size, what);
    return out;
}

/* Weights that are spread: a rank reads and writes its own, and touches no others. */
static void check_scattered(struct comm *comm, int64_t f, const char *same_as)
{
    const char *root = root_of(f, comm_size(comm), "scattered");
    struct rank r;
    rank_open_rig(&r, &formats[f], comm, state_rig_open_scattered);
    memset(r.rig.weights.data, 0x3a, (size_t)weight_bytes(&r));
    assert_ok(ckpt_load(ckpt_step_dir(same_as, 7), &r.state.formats, r.rig.optim, &r.ranks));
    memcpy(r.kept, r.rig.weights.data, (size_t)weight_bytes(&r));
    for (int64_t i = 0; i < r.rig.params.count; i++) spoil_weights(&r, i);
    assert_memory_equal(r.rig.weights.data, r.kept, (size_t)weight_bytes(&r));
    assert_ok(ckpt_save(testing_path(root), &r.state, r.rig.optim, &one, &r.ranks));
    ckpt_assert_same(ckpt_step_dir(root, 7), ckpt_step_dir(same_as, 7));
    rank_close(&r);
}

/* In the background: what changes after the copy does not show. */
static void check_snapshot(struct rank *r, int64_t f, const char *same_as)
{
    const char *root = root_of(f, r->size, "snapshot");
    struct snapshot *snapshot;
    assert_ok(snapshot_open(&snapshot, r->rig.optim, true, &r->ranks));
    for (int round = 0; round < 2; round++) {
        assert_ok(ckpt_load(ckpt_step_dir(same_as, 7), &r->state.formats, r->rig.optim, &r->ranks));
        assert_ok(snapshot_save(snapshot, testing_path(root), &r->state, &one));
        assert_ok(state_rig_train(&r->rig, 5, 5));
        /* As steps do: mostly it is there then. */
        for (int64_t step = 0; step < 40 && round == 1; step++) {
            assert_ok(snapshot_poll(snapshot));
            usleep(1000);
        }
        assert_ok(snapshot_wait(snapshot));
        ckpt_assert_same(ckpt_step_dir(root, 7), ckpt_step_dir(same_as, 7));
        assert_ok(comm_barrier(r->ranks.comm));
    }
    snapshot_close(snapshot);
}

/* arg: the format's index. Size 1 saves without ranks what the others are compared with. */
static void save_body(struct comm *comm, void *arg)
{
    const int64_t f = *(const int64_t *)arg, size = comm_size(comm);
    const char *root = root_of(f, size, "saved"), *again = root_of(f, size, "again");
    int64_t newest;
    struct rank from, to;
    rank_open(&from, &formats[f], comm);
    rank_open(&to, &formats[f], comm);
    rank_train(&from);
    if (size == 1) {
        assert_ok(ckpt_save(testing_path(root), &from.state, from.rig.optim, &one, NULL));
        assert_ok(ckpt_verify(ckpt_step_dir(root, 7)));
    }
    if (size > 1) {
        spoil_others(&from);
        assert_ok(ckpt_save(testing_path(root), &from.state, from.rig.optim, &one, &from.ranks));
        ckpt_assert_same(ckpt_step_dir(root, 7), ckpt_step_dir(root_of(f, 1, "saved"), 7));
    }

    /* Whole weights, state of one's own. */
    assert_ok(ckpt_newest(&newest, testing_path(root), &from.ranks));
    assert_int_equal(newest, 7);
    assert_ok(ckpt_load(ckpt_step_dir(root, 7), &to.state.formats, to.rig.optim, &to.ranks));
    for (int64_t i = 0; i < to.rig.params.count; i++)
        assert_memory_equal(
            weights_at(&to, i), from.kept + (weights_at(&from, i) - (char *)from.rig.weights.data),
            (size_t)(to.rig.params.row[i].count * dtype_bytes(to.rig.weights.dtype)));
    assert_ok(ckpt_save(testing_path(again), &to.state, to.rig.optim, &one, &to.ranks));
    ckpt_assert_same(ckpt_step_dir(again, 7), ckpt_step_dir(root, 7));

    check_snapshot(&to, f, root);
    check_scattered(comm, f, root);
    rank_close(&from);
    rank_close(&to);
}

static void test_bytes_of_one_rank(void **state)
{
    (void)state;
    for (int64_t f = 0; f < COUNT_OF(formats); f++)
        for (int64_t size = 1; size <= 4; size++) ranks_run("shm", size, save_body, &f);
}

/* f32 weights from a master, and a master from f32 weights, each rank its part. */
static void convert_body(struct comm *comm, void *arg)
{
    static const int64_t pairs[][2] = { { 0, 2 }, { 2, 0 } };
    (void)arg;
    for (int64_t i = 0; i < COUNT_OF(pairs); i++) {
        struct rank to;
        const int64_t from = pairs[i][0];
        struct stored_formats stored = formats_stored(&formats[from]);
        const char *root = root_of(from, comm_size(comm), "converted");
        rank_open(&to, &formats[pairs[i][1]], comm);
        assert_ok(ckpt_load(ckpt_step_dir(root_of(from, 1, "saved"), 7), &stored, to.rig.optim,
                            &to.ranks));
        assert_ok(ckpt_save(testing_path(root), &to.state, to.rig.optim, &one, &to.ranks));
        if (comm_size(comm) > 1)
            ckpt_assert_same(ckpt_step_dir(root, 7),
                             ckpt_step_dir(root_of(from, 1, "converted"), 7));
        rank_close(&to);
    }
}

static void test_converting(void **state)
{
    (void)state;
    for (int64_t size = 1; size <= 3; size++) ranks_run("shm", size, convert_body, NULL);
}

/* ---- failures ---- */

static int64_t count_names(const char *dir)
{
    int64_t count = 0;
    DIR *folder = opendir(dir);
    assert_non_null(folder);
    for (const struct dirent *e; (e = readdir(folder)) != NULL;) count += e->d_name[0] != '.';
    closedir(folder);
    return count;
}

/* Each step of the save fails once on rank *arg: all ranks have the error, with its cause, nothing
 * new is there, and the next save succeeds. */
static void failing_body(struct comm *comm, void *arg)
{
    const int64_t failing = *(const int64_t *)arg;
    const char *root = failing == 0 ? "failing0" : "failing1";
    struct rank r;
    bool done = false;
    int n = 1;
    rank_open(&r, &formats[0], comm);
    rank_train(&r);
    assert_ok(ckpt_save(testing_path(root), &r.state, r.rig.optim, &one, &r.ranks));
    r.state.step = 8;
    for (; !done; n++) {
        int64_t hits = INT64_MAX, all[2];
        if (r.rank == failing) fault_arm("file.", n);
        const err_t rc = ckpt_save(testing_path(root), &r.state, r.rig.optim, &one, &r.ranks);
        if (r.rank == failing) hits = fault_hits();
        fault_arm("", 0);
        assert_ok(comm_gather_host(comm, all, &hits, sizeof hits));
        done = all[failing] < n;
        if (rc == ERR_OK) break; /* what fails from here on is pruning */
        assert_err(rc, IO, r.rank == failing ? "injected" : "rank ");
        assert_err(rc, IO, "injected fault at file.");
        assert_ok(comm_barrier(comm));
        if (r.rank == 0) {
            char newer[FILE_PATH_MAX];
            assert_ok(ckpt_verify(ckpt_step_dir(root, 7)));
            assert_ok(ckpt_path(newer, testing_path(root), 8));
            if (!dir_exists(newer)) assert_int_equal(count_names(testing_path(root)), 1);
        }
        assert_ok(comm_barrier(comm));
    }
    assert_true(n > (failing == 0 ? 15 : 4));
    rank_close(&r);
}

static void test_failure_of_one(void **state)
{
    (void)state;
    for (int64_t failing = 0; failing < 2; failing++) ranks_run("shm", 2, failing_body, &failing);
}

/* The same in the background: the error comes with the next call, everywhere. */
static void failing_snapshot_body(struct comm *comm, void *arg)
{
    const int64_t failing = *(const int64_t *)arg;
    const char *root = failing == 0 ? "behind0" : "behind1";
    struct rank r;
    struct snapshot *snapshot;
    int failures = 0;
    rank_open(&r, &formats[0], comm);
    rank_train(&r);
    assert_ok(snapshot_open(&snapshot, r.rig.optim, true, &r.ranks));
    assert_ok(snapshot_save(snapshot, testing_path(root), &r.state, &one));
    assert_ok(snapshot_wait(snapshot));
    r.state.step = 8;
    for (int n = 1; n <= 16; n += 3) {
        if (r.rank == failing) fault_arm("file.", n);
        err_t rc = snapshot_save(snapshot, testing_path(root), &r.state, &one);
        if (rc == ERR_OK) rc = snapshot_wait(snapshot);
        fault_arm("", 0);
        assert_ok(comm_barrier(comm));
        if (rc == ERR_OK) break;
        failures++;
        assert_err(rc, IO, "injected fault at file.");
        if (r.rank == 0) assert_int_equal(count_names(testing_path(root)), 1);
        assert_ok(ckpt_verify(ckpt_step_dir(root, 7)));
        assert_ok(comm_barrier(comm));
    }
    assert_true(failures >= 2);
    assert_ok(snapshot_save(snapshot, testing_path(root), &r.state, &one));
    assert_ok(snapshot_wait(snapshot));
    snapshot_close(snapshot);
    rank_close(&r);
}

static void test_failure_behind(void **state)
{
    (void)state;
    for (int64_t failing = 0; failing < 2; failing++)
        ranks_run("shm", 2, failing_snapshot_body, &failing);
}

/* Ranges with a hole: nobody publishes a file with zeros in it. */
static void owns_nothing(const void *context, int64_t row, int64_t *first, int64_t *count)
{
    owned(context, row, first, count);
    if (row == 3) *first = *count = 0;
}

static void hole_body(struct comm *comm, void *arg)
{
    struct rank r;
    (void)arg;
    rank_open(&r, &formats[0], comm);
    r.ranks.owned = owns_nothing;
    assert_err(ckpt_save(testing_path("hole"), &r.state, r.rig.optim, &one, &r.ranks), ARG,
               "the ranks have written");
    /* Whoever is told so ends, and may end rank 0: by then it has cleaned up. */
    assert_int_equal(count_names(testing_path("hole")), 0);
    rank_close(&r);
}

static void test_hole(void **state)
{
    (void)state;
    ranks_run("shm", 2, hole_body, NULL);
}

/* Rank 0 looks; all know, also that there is nothing that could be used. */
static void newest_body(struct comm *comm, void *arg)
{
    struct rank r;
    int64_t newest;
    (void)arg;
    rank_open(&r, &formats[0], comm);
    assert_ok(ckpt_newest(&newest, testing_path("none"), &r.ranks));
    assert_int_equal(newest, -1);
    if (r.rank == 0) assert_ok(dir_create(testing_path("empty/step-00000003")));
    assert_err(ckpt_newest(&newest, testing_path("empty"), &r.ranks), FORMAT,
               "none of its 1 checkpoints is whole");
    rank_close(&r);
}

static void test_newest(void **state)
{
    (void)state;
    ranks_run("shm", 3, newest_body, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_of_one_rank),
        cmocka_unit_test(test_converting),
        cmocka_unit_test(test_failure_of_one),
        cmocka_unit_test(test_hole),
        cmocka_unit_test(test_newest),
        cmocka_unit_test(test_failure_behind),
    };
    assert_ok(log_init("off"));
    testing_dir(); /* one for all ranks */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
