/* Ranks that are lost: the others end with status 75, soon, whatever they were doing. */
#include "ranks_fixture.h"

#include "base/log.h"
#include "base/rng.h"
#include "kernels/dev.h"
#include "train/ranks.h"
#include "train/rendezvous_wire.h"
#include "train/watchdog.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the ranks of one job do; in shared memory. */
struct plan {
    struct ranks_place place; /* of rank 0; the others differ in rank */
    int64_t victim;
    int signal, after_us;
    int busy_s; /* rank 1 computes for so long */
    double silence_s;
    bool victim_fails;
    _Atomic int64_t steps[8]; /* done by each rank */
};

static void *strike(void *arg)
{
    const struct plan *plan = arg;
    usleep((useconds_t)plan->after_us);
    kill(getpid(), plan->signal);
    return NULL;
}

static void train(struct plan *plan, struct ranks *ranks, int64_t steps)
{
    static char data[2][400000];
    struct comm_span spans[8];
    struct comm *comm = ranks->comm;
    const int64_t n = comm_size(comm), me = comm_rank(comm);
    for (int64_t i = 0; i < n; i++) spans[i] = (struct comm_span){ i * 50000, 50000 - i };
    for (int64_t step = 0; step < steps; step++) {
        struct comm_request *request;
        comm_note(comm, step, "forward");
        usleep(200);
        if (me == 1 && step == 2) sleep((unsigned)plan->busy_s);
        comm_note(comm, step, "backward");
        if (comm_allgatherv_begin(
                comm, &request,
                &(struct comm_allgatherv_args){ .data = data[step % 2], .spans = spans }) != ERR_OK)
            _exit(ranks_leave(ranks, ERR_COMM) == ERR_COMM ? RANKS_STATUS_LOST : 3);
        usleep(200);
        if (comm_end(comm, &request) != ERR_OK || comm_barrier(comm) != ERR_OK)
            _exit(ranks_leave(ranks, ERR_COMM) == ERR_COMM ? RANKS_STATUS_LOST : 3);
        plan->steps[me]++;
    }
}

static void body(int64_t rank, int64_t size, void *arg)
{
    struct plan *plan = arg;
    struct ranks_place place = plan->place;
    struct ranks *ranks;
    struct dev *dev;
    pthread_t thread;
    place.rank = rank;
    place.size = size;
    if (rank != 0) place.listen_fd = -1;
    if (rank == plan->victim && plan->signal != 0) pthread_create(&thread, NULL, strike, plan);
    assert_ok(dev_open(&dev, "cpu", 1));
    /* The place says "soulchat" so that shared memory is chosen. */
    const err_t rc = ranks_join(
        &ranks,
        &(struct ranks_args){
            .place = &place, .dev = dev, .join_s = 6, .comm_s = 20, .silence_s = plan->silence_s });
    if (rc != ERR_OK) _exit(RANKS_STATUS_LOST); /* the victim went before it came */
    train(plan, ranks, plan->signal != 0 ? 1000000 : 5);
    if (plan->victim_fails && rank == plan->victim) {
        err_raise(ERR_IO, __FILE__, __LINE__, "the disk of this test is full");
        assert_err(ranks_leave(ranks, ERR_IO), IO, "disk");
    } else if (plan->victim_fails) {
        sleep(20); /* does not look at the communicator: the watchdog ends it */
    } else {
        assert_ok(ranks_leave(ranks, ERR_OK));
    }
    dev_close(dev);
}

static struct plan *make_plan(int64_t victim)
{
    struct plan *plan = ranks_shared(sizeof *plan);
    plan->victim = victim;
    plan->silence_s = 3; /* nobody is silent, but the machine may be slow */
    plan->place = (struct ranks_place){ .launcher = "soulchat", .host = "127.0.0.1" };
    snprintf(plan->place.job, sizeof plan->place.job, "test %d", (int)getpid());
    assert_ok(wire_listen(&plan->place.listen_fd, &plan->place.port, "127.0.0.1", 0));
    return plan;
}

static void run(struct plan *plan, int status[], int64_t size)
{
    ranks_fork(status, size, body, plan);
    close(plan->place.listen_fd);
}

static void test_all_well(void **state)
{
    int status[3];
    struct plan *plan = make_plan(-1);
    (void)state;
    run(plan, status, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(status[i], 0);
        assert_int_equal(plan->steps[i], 5);
    }
}

/* Longer than silence would be allowed to last. */
static void test_busy_is_alive(void **state)
{
    int status[2];
    struct plan *plan = make_plan(-1);
    (void)state;
    plan->busy_s = 2;
    plan->silence_s = 1;
    run(plan, status, 2);
    assert_int_equal(status[0], 0);
    assert_int_equal(status[1], 0);
}

static void test_failure_is_told(void **state)
{
    (void)state;
    for (int64_t victim = 0; victim < 3; victim++) {
        int status[3];
        struct plan *plan = make_plan(victim);
        plan->victim_fails = true;
        run(plan, status, 3);
        for (int64_t i = 0; i < 3; i++)
            assert_int_equal(status[i], i == victim ? 0 : RANKS_STATUS_LOST);
    }
}

/* Any rank, rank 0 too, at any moment from before the rendezvous on. */
static void lose_one(int signal_number, uint64_t turn)
{
    enum { SIZE = 3 };
    int status[SIZE];
    struct plan *plan = make_plan((int64_t)(rng_u64(4, RNG_TEST, 2 * turn) % SIZE));
    plan->signal = signal_number;
    if (signal_number == SIGSTOP) plan->silence_s = 1;
    plan->after_us = (int)(rng_u64(4, RNG_TEST, 2 * turn + 1) % 60000);
    run(plan, status, SIZE);
    for (int64_t i = 0; i < SIZE; i++) {
        const int expected = i == plan->victim ? 128 + SIGKILL : RANKS_STATUS_LOST;
        if (status[i] != expected)
            fprintf(stderr, "turn %llu: victim %lld after %d us, rank %lld ended with %d\n",
                    (unsigned long long)turn, (long long)plan->victim, plan->after_us, (long long)i,
                    status[i]);
        assert_int_equal(status[i], expected);
    }
}

static void test_killed(void **state)
{
    (void)state;
    for (uint64_t turn = 0; turn < 20; turn++) lose_one(SIGKILL, turn);
}

/* Jobs side by side, because each takes the second of silence. */
static void body_stop_one(int64_t turn, int64_t count, void *arg)
{
    (void)count;
    lose_one(SIGSTOP, 100 + (uint64_t)(*(const int64_t *)arg + turn));
}

static void test_stopped(void **state)
{
    enum { AT_ONCE = 10, TURNS = 20 };
    (void)state;
    for (int64_t first = 0; first < TURNS; first += AT_ONCE) {
        int status[AT_ONCE];
        ranks_fork(status, AT_ONCE, body_stop_one, &first);
        for (int i = 0; i < AT_ONCE; i++) assert_int_equal(status[i], 0);
    }
}

/* ---- the launcher, with a program of its own ---- */

/* The shell makes way for the program: the pid is the launcher's. */
static pid_t start_program(const char *arguments)
{
    char command[1024];
    snprintf(command, sizeof command, "SOULCHAT_LOG=info exec " RANKS_PROGRAM " %s > %s/out 2>&1",
             arguments, testing_dir());
    fflush(NULL);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    return pid;
}

static int end_program(pid_t pid)
{
    int how;
    assert_int_equal(waitpid(pid, &how, 0), pid);
    return WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
}

static int run_program(const char *arguments) { return end_program(start_program(arguments)); }

static void assert_printed(const char *text)
{
    char path[512], found[16384];
    snprintf(path, sizeof path, "%s/out", testing_dir());
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    const size_t n = fread(found, 1, sizeof found - 1, f);
    fclose(f);
    found[n] = '\0';
    if (strstr(found, text) == NULL) {
        fprintf(stderr, "not printed: \"%s\", but:\n%s", text, found);
        fail();
    }
}

static void test_launcher(void **state)
{
    (void)state;
    assert_int_equal(run_program("--ranks 3"), 0);
    assert_printed("done: 3 ranks by soulchat over shm");
    assert_int_equal(run_program("--steps 3"), 0);
    assert_printed("done: 1 ranks by nobody over self");
    assert_int_equal(run_program("--ranks 3 --victim 2 --fail"), 1);
    assert_printed("ranks_program: the disk of this test is full");
    assert_printed("rank 2 on ");
    assert_printed("failed: the disk of this test is full");
    assert_printed("rank 2 ended with status 1");
}

static void test_launcher_losses(void **state)
{
    (void)state;
    assert_int_equal(
        run_program("--ranks 3 --steps 100000 --victim 1 --after-us 600000 --signal 9"),
        128 + SIGKILL);
    assert_printed("rank 1 ended by signal 9 (Killed)");
    assert_printed("rank 0 ended with status 75");
    assert_printed("closed the connection; last heard of at ");
    /* The stopped rank never ends by itself. */
    assert_int_equal(
        run_program("--ranks 2 --steps 100000 --victim 0 --after-us 200000 --signal 19"),
        RANKS_STATUS_LOST);
    assert_printed("rank 0 on ");
    assert_printed("has not been heard of for ");
    assert_printed("rank 0 ended by signal 9 (Killed)");
    /* Passed on, and answered by all ranks together. */
    const pid_t pid = start_program("--ranks 2 --steps 100000");
    usleep(500000);
    assert_int_equal(kill(pid, SIGTERM), 0);
    assert_int_equal(end_program(pid), 130);
    assert_printed("rank 0 ended with status 130");
    assert_printed("rank 1 ended with status 130");
}

/* Before and while the ranks meet nobody but the launcher misses one that is stopped. */
static void test_launcher_meeting(void **state)
{
    (void)state;
    static const char *const sites[] = { "wire.send:1", "wire.receive:1", "comm.barrier:1" };
    for (int victim = 0; victim < 3; victim++) {
        for (int i = 0; i < COUNT_OF(sites); i++) {
            char arguments[128];
            snprintf(arguments, sizeof arguments, "--ranks 3 --victim %d --fault %s:kill", victim,
                     sites[i]);
            assert_int_equal(run_program(arguments), 128 + SIGKILL);
            assert_printed("ended by signal 9 (Killed)");
        }
        char arguments[128], expected[64];
        snprintf(arguments, sizeof arguments, "--ranks 3 --victim %d --fault wire.:1:stop", victim);
        snprintf(expected, sizeof expected, "rank %d has been stopped for ", victim);
        assert_int_equal(run_program(arguments), RANKS_STATUS_LOST);
        assert_printed(expected);
        assert_printed("all 3 ranks are killed");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_well),        cmocka_unit_test(test_busy_is_alive),
        cmocka_unit_test(test_failure_is_told), cmocka_unit_test(test_killed),
        cmocka_unit_test(test_stopped),         cmocka_unit_test(test_launcher),
        cmocka_unit_test(test_launcher_losses), cmocka_unit_test(test_launcher_meeting),
    };
    alarm(3 * RANKS_LIMIT_S);
    if (log_init("error") != ERR_OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
