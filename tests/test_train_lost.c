/* One of three ranks is killed or stopped in each phase of a run: the others end within seconds
 * with status 75, and say which rank it was and where: step, phase and collective.
 *
 * Or a call of its communication fails: all end as soon, and say why.
 *
 *     test_train_lost             every phase; some failures, spread over all
 *     test_train_lost faults      every failure, alone
 *     test_train_lost 200 [S]     so many losses at random places, from seed S on, alone
 */
#include "ranked_runs.h"

#include "base/fault.h"
#include "base/log.h"
#include "base/rng.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZE    3
#define SOME    8 /* failures of each kind and rank */
#define AT_ONCE 6 /* runs, because each that loses a stopped rank takes the time of silence */

/* The n-th time that the victim comes there. */
static const struct place {
    const char *site;
    int n;
    bool all; /* all ranks come there; else only rank 0 */
} places[] = {
    { "comm.barrier", 1, true }, { "load", 1, true },           { "validate", 1, true },
    { "compute", 2, true },      { "comm.alltoallv", 9, true }, { "exchange", 2, true },
    { "comm.end", 30, true },    { "spread weights", 2, true }, { "comm.allgatherv", 25, true },
    { "save", 1, true },         { "file.write", 1, true },     { "file.sync", 1, true },
    { "ckpt.rename", 1, false }, { "save", 2, true },           { "end", 1, true },
};

struct loss {
    const char *site;
    int n, signal_number, stage;
    int64_t victim;
    int64_t *hits; /* shared; NULL: not wanted */
};

static void arm(int64_t rank, void *arg)
{
    const struct loss *loss = arg;
    if (rank == loss->victim) fault_arm_signal(loss->site, loss->n, loss->signal_number);
}

static void count_hits(int64_t rank, err_t rc, void *arg)
{
    const struct loss *loss = arg;
    (void)rc;
    if (loss->hits != NULL && rank == loss->victim) *loss->hits = fault_hits();
}

static void run_with(struct ranked_run *run, const struct loss *loss, const char *out)
{
    const char stage[] = { (char)('0' + loss->stage), '\0' };
    struct loss copy = *loss;
    *run = (struct ranked_run){
        .size = SIZE,
        .out = out,
        .prepare = arm,
        .finish = count_hits,
        .arg = &copy,
        .settings = SETTINGS("batch.lanes", "3", "train.zero", stage, "train.steps", "4",
                             "train.save_every", "2", "train.validate_every", "2", "train.silence",
                             "2", "train.join_timeout", "4"),
    };
    ranked_run(run);
}

/* Whoever is left ends with 75 and a line that names the lost one. */
static void check_survivor(const struct ranked_run *run, const struct loss *loss, int64_t rank)
{
    const char *words = ranked_words(run, rank);
    char who[32];
    snprintf(who, sizeof who, "rank %lld on ", (long long)loss->victim);
    const bool named = strstr(words, who) != NULL && strstr(words, "last heard of at ") != NULL;
    const bool placed = strstr(words, "at step ") != NULL || strstr(words, "no step yet") != NULL;
    if (run->status[rank] != RANKS_STATUS_LOST || !named || !placed)
        fail_msg("%s:%d, signal %d, victim %d: rank %d ended with %d:\n%s", loss->site, loss->n,
                 loss->signal_number, (int)loss->victim, (int)rank, run->status[rank], words);
}

static void lose(const struct loss *loss, int64_t turn)
{
    struct ranked_run run;
    char out[32];
    snprintf(out, sizeof out, "lost-%lld", (long long)turn);
    run_with(&run, loss, out);
    if (run.status[loss->victim] != 128 + SIGKILL)
        fail_msg("%s:%d, signal %d, victim %d: it ended with %d:\n%s", loss->site, loss->n,
                 loss->signal_number, (int)loss->victim, run.status[loss->victim],
                 ranked_words(&run, loss->victim));
    for (int64_t i = 0; i < SIZE; i++)
        if (i != loss->victim) check_survivor(&run, loss, i);
}

/* ---- every phase ---- */

#define LOSSES (COUNT_OF(places) * SIZE * 2)

static void lose_by_number(int64_t index, int64_t count, void *arg)
{
    const int64_t turn = *(const int64_t *)arg + index;
    const struct place *place = &places[turn / 2 % COUNT_OF(places)];
    const int64_t victim = turn / 2 / COUNT_OF(places);
    (void)count;
    if (turn >= LOSSES || (victim != 0 && !place->all)) return;
    lose(&(struct loss){ .site = place->site,
                         .n = place->n,
                         .signal_number = turn % 2 == 0 ? SIGKILL : SIGSTOP,
                         .stage = 1 + (int)(turn / 2 % 3),
                         .victim = victim },
         turn);
}

static void test_every_phase(void **state)
{
    (void)state;
    for (int64_t first = 0; first < LOSSES; first += AT_ONCE) {
        int status[AT_ONCE];
        ranks_fork(status, AT_ONCE, lose_by_number, &first);
        for (int i = 0; i < AT_ONCE; i++) assert_int_equal(status[i], 0);
    }
}

/* ---- calls that fail ---- */

struct failures {
    const char *site;
    int64_t victim, total, first, stride;
    int64_t hits[AT_ONCE], ended[AT_ONCE];
};

static bool is_error(int status) { return status == 2 || status == RANKS_STATUS_LOST; }

/* All end well, or all with an error that tells of the failure, or of the rank that it made silent;
 * before they have met, of who did not come. */
static void check_failure(const struct ranked_run *run, const struct loss *loss)
{
    int64_t well = 0, told = 0;
    char who[32];
    snprintf(who, sizeof who, "rank %lld", (long long)loss->victim);
    for (int64_t i = 0; i < SIZE; i++) {
        const char *words = ranked_words(run, i);
        well += run->status[i] == 0;
        told += is_error(run->status[i]) && (i == loss->victim || strstr(words, who) != NULL ||
                                             strstr(words, "injected fault at ") != NULL ||
                                             strstr(words, "ranks did not come") != NULL ||
                                             strstr(words, "rank 0 at ") != NULL);
    }
    /* A message of the watchdog that is not sent, such as a goodbye, may be missed by one alone. */
    const bool by_message = strcmp(loss->site, "wire.") == 0;
    if (well == SIZE || told == SIZE || (by_message && well + told == SIZE)) return;
    for (int64_t i = 0; i < SIZE; i++)
        print_message("rank %d ended with %d:\n%s", (int)i, run->status[i], ranked_words(run, i));
    fail_msg("%s:%d on rank %d of %d", loss->site, loss->n, (int)loss->victim, SIZE);
}

static void fail_by_number(int64_t index, int64_t count, void *arg)
{
    struct failures *f = arg;
    const int64_t n = f->first + index * f->stride;
    const struct loss loss = { .site = f->site,
                               .n = (int)n,
                               .stage = (int)(n % 4),
                               .victim = f->victim,
                               .hits = &f->hits[index] };
    struct ranked_run run;
    char out[32];
    (void)count;
    if (n > f->total) return;
    snprintf(out, sizeof out, "failed-%lld", (long long)index);
    assert_ok(dir_remove(micro_path(out)));
    run_with(&run, &loss, out);
    check_failure(&run, &loss);
    f->ended[index] += run.status[f->victim] != 0;
}

/* The n-th call of rank `victim`, for every n or some. */
static void fail_calls(const char *site, int64_t victim, bool every)
{
    int64_t ended = 0;
    struct failures *f = ranks_shared(sizeof *f);
    *f = (struct failures){ .site = site, .victim = victim, .total = INT32_MAX };
    f->first = INT32_MAX;
    fail_by_number(0, 1, f); /* none fails */
    assert_int_equal(f->ended[0], 0);
    f->total = f->hits[0];
    assert_true(f->total > 3);
    f->stride = every ? 1 : f->total / SOME + 1;
    for (f->first = 1; f->first <= f->total; f->first += AT_ONCE * f->stride) {
        int status[AT_ONCE];
        ranks_fork(status, AT_ONCE, fail_by_number, f);
        for (int i = 0; i < AT_ONCE; i++) assert_int_equal(status[i], 0);
    }
    for (int i = 0; i < AT_ONCE; i++) ended += f->ended[i];
    print_message("%s of rank %d: %d calls, every %d-th failed, %d times it ended the run\n", site,
                  (int)victim, (int)f->total, (int)f->stride, (int)ended);
    assert_true(ended > 0);
}

static void fail_all(bool every)
{
    static const char *const sites[] = { "comm.", "wire.", "file." };
    for (int i = 0; i < COUNT_OF(sites); i++)
        for (int64_t victim = 0; victim < SIZE; victim++) fail_calls(sites[i], victim, every);
}

static void test_calls_that_fail(void **state)
{
    (void)state;
    fail_all(false);
}

/* ---- random ones ---- */

/* Any fault point, phase or message, as far as a run has so many: else it must end well. */
static void lose_at_random(int64_t index, int64_t count, void *arg)
{
    static const char *const sites[] = { "", "comm.", "comm.end", "file.", "wire." };
    static const int most[] = { 700, 250, 120, 60, 12 };
    const uint64_t seed = *(const uint64_t *)arg + (uint64_t)index;
    const int site = (int)(rng_u64(4, RNG_TEST, 4 * seed) % COUNT_OF(sites));
    const struct loss loss = {
        .site = sites[site],
        .n = 1 + (int)(rng_u64(4, RNG_TEST, 4 * seed + 1) % (uint64_t)most[site]),
        .signal_number = rng_u64(4, RNG_TEST, 4 * seed + 2) % 2 == 0 ? SIGKILL : SIGSTOP,
        .stage = (int)(seed % 4),
        .victim = (int64_t)(rng_u64(4, RNG_TEST, 4 * seed + 3) % SIZE),
    };
    struct ranked_run run;
    char out[32];
    (void)count;
    snprintf(out, sizeof out, "random-%llu", (unsigned long long)seed);
    run_with(&run, &loss, out);
    for (int64_t i = 0; i < SIZE; i++) {
        const int status = run.status[i];
        /* Before the ranks have met, nobody has heard of the victim; past the end, all are well. */
        if (i == loss.victim ? status == 128 + SIGKILL || status == 0
                             : status == RANKS_STATUS_LOST || status == 0)
            continue;
        fail_msg("seed %llu, %s:%d, signal %d, victim %d: rank %d ended with %d:\n%s",
                 (unsigned long long)seed, loss.site, loss.n, loss.signal_number, (int)loss.victim,
                 (int)i, status, ranked_words(&run, i));
    }
    printf("%s:%d signal %d victim %d: %d %d %d\n", loss.site, loss.n, loss.signal_number,
           (int)loss.victim, run.status[0], run.status[1], run.status[2]);
}

static void campaign(int64_t count, uint64_t seed)
{
    int64_t failed = 0;
    for (int64_t done = 0; done < count; done += AT_ONCE) {
        int status[AT_ONCE];
        const uint64_t first = seed + (uint64_t)done;
        ranks_fork(status, AT_ONCE, lose_at_random, (void *)&first);
        for (int i = 0; i < AT_ONCE; i++) failed += status[i] != 0;
    }
    print_message("%lld runs of %d ranks: %lld wrong\n", (long long)count, SIZE, (long long)failed);
    assert_int_equal(failed, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_every_phase),
                                        cmocka_unit_test(test_calls_that_fail) };
    assert_ok(log_init("error"));
    micro_corpus(RUNS_CORPUS, 12, 6);
    cfg_close(micro_cfg(RUNS_CORPUS, "none")); /* the model's folder */
    if (argc > 1 && strcmp(argv[1], "faults") == 0) {
        fail_all(true);
        return 0;
    }
    if (argc > 1) {
        campaign(strtoll(argv[1], NULL, 10), argc > 2 ? strtoull(argv[2], NULL, 10) : 1);
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
