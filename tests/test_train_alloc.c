/* Whole runs in which the n-th allocation fails: a clean error, nothing leaks, and the next start
 * goes on. Of one rank, and of two.
 *
 *     test_train_alloc         some forty n of each run, spread over all
 *     test_train_alloc all     every n
 */
#include "crash_shim.h"
#include "ranked_runs.h"

#include "base/log.h"
#include "base/num.h"
#include "train/loop.h"

#include <stdio.h>
#include <string.h>

#define SOME    40
#define AT_ONCE 8
#define STEPS   "3" /* a save after the second, and one at the end */

static bool all_of_them;

static const char *const *settings(void)
{
    static const char *const list[] = { "train.steps",
                                        STEPS,
                                        "train.save_every",
                                        "2",
                                        "train.validate_every",
                                        "2",
                                        "train.keep_best",
                                        "true",
                                        "train.check_every",
                                        "2",
                                        "train.log_every",
                                        "1",
                                        "batch.lanes",
                                        "2",
                                        "train.join_timeout",
                                        "2",
                                        NULL };
    return list;
}

/* ---- one rank ---- */

static err_t start(struct cfg *cfg, bool resume)
{
    struct run run;
    err_t rc = micro_run_start(&run, cfg, resume);
    if (rc == ERR_OK && !run_is_done(&run)) rc = loop_run(&run);
    rc = run_leave(&run, rc);
    run_close(&run);
    return rc;
}

/* A start with the n-th allocation failing; *count: how many there were, up to the failure. */
static err_t start_without(int64_t *count, int64_t n, bool resume)
{
    struct cfg *cfg = runs_cfg("run", settings());
    const int64_t live = shim_live();
    shim_fail_allocation(n);
    const err_t rc = start(cfg, resume);
    *count = shim_allocations();
    shim_fail_allocation(0);
    if (shim_live() != live)
        fail_msg("allocation %d of a %s: %d leaked; %s", (int)n, resume ? "resume" : "run",
                 (int)(shim_live() - live), rc == ERR_OK ? "it went well" : err_last()->text);
    if (rc != ERR_OK && rc != ERR_NOMEM)
        fail_msg("allocation %d of a %s: %s", (int)n, resume ? "resume" : "run", err_last()->text);
    cfg_close(cfg);
    return rc;
}

/* Step 3 is gone: a resume has something to do. */
static void prepare_resume(void)
{
    assert_ok(dir_remove(testing_path("run")));
    int64_t count;
    assert_ok(start_without(&count, 0, false));
    assert_ok(dir_remove(testing_path("run/ckpt/step-00000003")));
}

static void fail_each(bool resume)
{
    int64_t count, total, failed = 0, tried = 0;
    prepare_resume();
    if (!resume) assert_ok(dir_remove(testing_path("run")));
    assert_ok(start_without(&total, 0, resume));
    assert_true(total > 100);
    const int64_t stride = all_of_them ? 1 : total / SOME + 1;
    for (int64_t n = 1; n <= total; n += stride, tried++) {
        if (resume)
            prepare_resume();
        else
            assert_ok(dir_remove(testing_path("run")));
        if (start_without(&count, n, resume) != ERR_OK) failed++;
        /* There is memory again: what was done is found, and the rest follows. */
        if (!all_of_them || n % 16 == 0) assert_ok(start_without(&count, 0, true));
    }
    print_message("%s: %d allocations, %d tried, %d ended it\n", resume ? "resume" : "run",
                  (int)total, (int)tried, (int)failed);
    assert_true(failed > 0);
}

static void test_run(void **state)
{
    (void)state;
    fail_each(false);
}

static void test_resume(void **state)
{
    (void)state;
    fail_each(true);
}

/* ---- two ranks ---- */

struct shortage {
    int64_t victim, n;
    int64_t live;            /* before, in a rank's own memory */
    int64_t *count, *leaked; /* shared: allocations of the victim up to its failure; [2] */
};

static void take_memory(int64_t rank, void *arg)
{
    struct shortage *s = arg;
    s->live = shim_live();
    shim_fail_allocation(rank == s->victim ? s->n : 0);
}

static void count_memory(int64_t rank, err_t rc, void *arg)
{
    const struct shortage *s = arg;
    (void)rc;
    s->leaked[rank] = shim_live() - s->live;
    if (rank == s->victim) *s->count = shim_allocations();
}

static void run_two(struct ranked_run *run, struct shortage *s, const char *out)
{
    assert_ok(dir_remove(testing_path(out)));
    *run = (struct ranked_run){ .size = 2,
                                .out = out,
                                .settings = settings(),
                                .prepare = take_memory,
                                .finish = count_memory,
                                .arg = s };
    ranked_run(run);
}

static bool is_error(int status) { return status == 2 || status == RANKS_STATUS_LOST; }

/* Both end well, or both end: the victim for want of memory, the other because of that; or both
 * with that, where they agree on how it went (a checkpoint). */
static void check_two(const struct ranked_run *run, const struct shortage *s)
{
    const int victim = run->status[s->victim], other = run->status[1 - s->victim];
    const char *words = ranked_words(run, s->victim);
    const bool ended = is_error(victim) && is_error(other);
    const bool named =
        victim == 0 || strstr(words, "ERR_NOMEM") != NULL || strstr(words, "memory") != NULL;
    if (!named || !(ended || (victim == 0 && other == 0)))
        fail_msg("allocation %d of rank %d: rank 0 ended with %d, rank 1 with %d:\n%s", (int)s->n,
                 (int)s->victim, run->status[0], run->status[1], words);
    if (s->leaked[0] != 0 || s->leaked[1] != 0)
        fail_msg("allocation %d of rank %d: %d and %d leaked", (int)s->n, (int)s->victim,
                 (int)s->leaked[0], (int)s->leaked[1]);
}

/* Runs side by side: one that loses a rank before the ranks have met waits for it. */
struct shortages {
    int64_t victim, first, stride, total;
    int64_t count[AT_ONCE], leaked[AT_ONCE][2], ended[AT_ONCE];
};

static void starve(int64_t index, int64_t count, void *arg)
{
    struct shortages *all = arg;
    struct shortage s = { .victim = all->victim,
                          .n = all->first + index * all->stride,
                          .count = &all->count[index],
                          .leaked = all->leaked[index] };
    struct ranked_run run;
    char out[32];
    (void)count;
    if (s.n > all->total) return;
    snprintf(out, sizeof out, "two-%d", (int)index);
    s.leaked[0] = s.leaked[1] = 0;
    run_two(&run, &s, out);
    check_two(&run, &s);
    all->ended[index] += run.status[s.victim] != 0;
}

static void test_two_ranks(void **state)
{
    (void)state;
    struct shortages *all = ranks_shared(sizeof *all);
    for (int64_t victim = 0; victim < 2; victim++) {
        int64_t ended = 0;
        struct shortage none = { .victim = victim, .count = all->count, .leaked = all->leaked[0] };
        struct ranked_run run;
        run_two(&run, &none, "two-0");
        check_two(&run, &none);
        assert_int_equal(run.status[0], 0);
        *all = (struct shortages){ .victim = victim, .first = 1, .total = all->count[0] };
        all->stride = all_of_them ? 1 : all->total / SOME + 1;
        for (; all->first <= all->total; all->first += AT_ONCE * all->stride) {
            int status[AT_ONCE];
            ranks_fork(status, AT_ONCE, starve, all);
            for (int i = 0; i < AT_ONCE; i++) assert_int_equal(status[i], 0);
        }
        for (int i = 0; i < AT_ONCE; i++) ended += all->ended[i];
        print_message("rank %d of 2: %d allocations, every %d-th failed, %d times it ended\n",
                      (int)victim, (int)all->total, (int)all->stride, (int)ended);
        assert_true(ended > 0);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_two_ranks),
    };
    all_of_them = argc > 1 && strcmp(argv[1], "all") == 0;
    assert_ok(log_init("off"));
    micro_corpus(RUNS_CORPUS, 12, 6);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
