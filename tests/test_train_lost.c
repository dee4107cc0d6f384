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
#include "base/num.h"
#include "base/rng.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZE    3
#define SOME    8  /* failures of each kind and rank */
#define AT_ONCE 12 /* runs: each that loses a stopped rank sleeps for the time of silence */

enum who { ALL, RANK_0, OTHERS };

/* The n-th time that the victim comes there. The second message of other ranks than 0 is their
 * first after the welcome. */
static const struct place {
    const char *site;
    int n;
    enum who who; /* comes there */
} places[] = {
    { "wire.send", 2, OTHERS },   { "comm.open", 1, ALL }, { "comm.barrier", 1, ALL },
    { "load", 1, ALL },           { "validate", 1, ALL },  { "compute", 2, ALL },
    { "comm.alltoallv", 9, ALL }, { "exchange", 2, ALL },  { "comm.end", 30, ALL },
    { "spread weights", 2, ALL }, { "save", 1, ALL },      { "comm.allgatherv", 25, ALL },
    { "file.write", 1, ALL },     { "file.sync", 1, ALL }, { "ckpt.rename", 1, RANK_0 },
    { "save", 2, ALL },           { "end", 1, ALL },
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

static void lose_by_number(int64_t turn, int64_t count, void *arg)
{
    const struct place *place = &places[turn / 2 % COUNT_OF(places)];
    const int64_t victim = turn / 2 / COUNT_OF(places);
    (void)count;
    (void)arg;
    if (place->who == (victim == 0 ? OTHERS : RANK_0)) return;
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
    ranks_pool(LOSSES, AT_ONCE, lose_by_number, NULL);
}

/* ---- calls that fail ---- */

static const char *const sites[] = { "comm.", "wire.", "file." };

#define KINDS (COUNT_OF(sites) * SIZE)

/* Calls of a site on a rank; kind = site * SIZE + rank. */
struct failures {
    struct failures_kind {
        int64_t total, stride; /* calls of a run in which none fails; every stride-th is to fail */
        _Atomic int64_t ended; /* how often that ended the run of that rank */
    } kinds[KINDS];
};

static bool is_error(int status) { return status == 2 || status == RANKS_STATUS_LOST; }

/* Whether a rank says what made it end: the failure, the rank that it made silent, or, before they
 * have met, who did not come or was gone already. */
static bool tells(const char *words, const struct loss *loss)
{
    char victim[32];
    snprintf(victim, sizeof victim, "rank %lld", (long long)loss->victim);
    const char *const causes[] = { victim, "injected fault at ", "ranks did not come", "rank 0 at ",
                                   "rank 0 was not to be found" };
    for (int64_t i = 0; i < COUNT_OF(causes); i++)
        if (strstr(words, causes[i]) != NULL) return true;
    return false;
}

/* All end well, or all with an error that tells of the failure. */
static void check_failure(const struct ranked_run *run, const struct loss *loss)
{
    int64_t well = 0, told = 0;
    for (int64_t i = 0; i < SIZE; i++) {
        well += run->status[i] == 0;
        told +=
            is_error(run->status[i]) && (i == loss->victim || tells(ranked_words(run, i), loss));
    }
    /* A message of the watchdog that is not sent, such as a goodbye, may be missed by one alone. */
    const bool by_message = strcmp(loss->site, "wire.") == 0;
    if (well == SIZE || told == SIZE || (by_message && well + told == SIZE)) return;
    for (int64_t i = 0; i < SIZE; i++)
        print_message("rank %d ended with %d:\n%s", (int)i, run->status[i], ranked_words(run, i));
    fail_msg("%s:%d on rank %d of %d", loss->site, loss->n, (int)loss->victim, SIZE);
}

/* The n-th call fails; returns how many there were up to the end. */
static int64_t fail_call(struct failures *f, int64_t kind, int64_t n)
{
    int64_t *hits = ranks_shared(sizeof *hits);
    const struct loss loss = { .site = sites[kind / SIZE],
                               .n = (int)n,
                               .stage = (int)(n % 4),
                               .victim = kind % SIZE,
                               .hits = hits };
    struct ranked_run run;
    char out[32];
    snprintf(out, sizeof out, "failed-%lld-%lld", (long long)kind, (long long)n);
    run_with(&run, &loss, out);
    check_failure(&run, &loss);
    f->kinds[kind].ended += run.status[loss.victim] != 0;
    assert_ok(dir_remove(testing_path(out)));
    return *hits;
}

static void count_by_number(int64_t kind, int64_t count, void *arg)
{
    struct failures *f = arg;
    (void)count;
    f->kinds[kind].total = fail_call(f, kind, INT32_MAX); /* none fails */
    assert_int_equal(f->kinds[kind].ended, 0);
    assert_true(f->kinds[kind].total > 3);
}

static void fail_by_number(int64_t index, int64_t count, void *arg)
{
    struct failures *f = arg;
    const int64_t kind = index % KINDS, n = 1 + index / KINDS * f->kinds[kind].stride;
    (void)count;
    if (n <= f->kinds[kind].total) fail_call(f, kind, n);
}

/* Every call, or some, of each kind. */
static void fail_all(bool every)
{
    struct failures *f = ranks_shared(sizeof *f);
    int64_t most = 0;
    ranks_pool(KINDS, AT_ONCE, count_by_number, f);
    for (int64_t i = 0; i < KINDS; i++) {
        struct failures_kind *kind = &f->kinds[i];
        kind->stride = every ? 1 : kind->total / SOME + 1;
        most = max_i64(most, (kind->total + kind->stride - 1) / kind->stride);
    }
    ranks_pool(KINDS * most, AT_ONCE, fail_by_number, f);
    for (int64_t i = 0; i < KINDS; i++) {
        const struct failures_kind *kind = &f->kinds[i];
        print_message("%s of rank %d: %d calls, every %d-th failed, %d times it ended the run\n",
                      sites[i / SIZE], (int)(i % SIZE), (int)kind->total, (int)kind->stride,
                      (int)kind->ended);
        assert_true(kind->ended > 0);
    }
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
    static const struct {
        const char *name;
        uint64_t most;
    } prefixes[] = {
        { "", 700 }, { "comm.", 250 }, { "comm.end", 120 }, { "file.", 60 }, { "wire.", 12 }
    };
    const uint64_t seed = *(const uint64_t *)arg + (uint64_t)index;
    const int prefix = (int)(rng_u64(4, RNG_TEST, 4 * seed) % COUNT_OF(prefixes));
    const struct loss loss = {
        .site = prefixes[prefix].name,
        .n = 1 + (int)(rng_u64(4, RNG_TEST, 4 * seed + 1) % prefixes[prefix].most),
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
        if (status == 0 ||
            (i == loss.victim ? status == 128 + SIGKILL
                              : status == RANKS_STATUS_LOST && tells(ranked_words(&run, i), &loss)))
            continue;
        fail_msg("seed %llu, %s:%d, signal %d, victim %d: rank %d ended with %d:\n%s",
                 (unsigned long long)seed, loss.site, loss.n, loss.signal_number, (int)loss.victim,
                 (int)i, status, ranked_words(&run, i));
    }
    printf("%s:%d signal %d victim %d: %d %d %d\n", loss.site, loss.n, loss.signal_number,
           (int)loss.victim, run.status[0], run.status[1], run.status[2]);
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
        uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
        ranks_pool(strtoll(argv[1], NULL, 10), AT_ONCE, lose_at_random, &seed);
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
