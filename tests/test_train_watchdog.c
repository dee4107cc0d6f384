/* Ranks that are lost: the others end with status 75, soon, whatever they were doing. */
#include "ranks_fixture.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/log.h"
#include "base/num.h"
#include "base/rng.h"
#include "kernels/dev.h"
#include "train/ranks.h"
#include "train/rendezvous_wire.h"
#include "train/watchdog.h"

#include <fcntl.h>
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
    double comm_s; /* how long exchanges, and finishing, may take */
    bool victim_fails;
    bool mute;                /* nobody reads what ranks say */
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

/* As a terminal that was told to wait (Ctrl-S), or a pager that is not read on. */
static void stop_reading_stderr(void)
{
    static const char text[4096];
    int pipe_fds[2];
    assert_int_equal(pipe(pipe_fds), 0);
    assert_true(fcntl(pipe_fds[1], F_SETFL, O_NONBLOCK) == 0);
    while (write(pipe_fds[1], text, sizeof text) > 0) continue;
    assert_true(fcntl(pipe_fds[1], F_SETFL, 0) == 0);
    assert_true(dup2(pipe_fds[1], STDERR_FILENO) == STDERR_FILENO);
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
    if (plan->mute) stop_reading_stderr();
    if (rank == plan->victim && plan->signal != 0) pthread_create(&thread, NULL, strike, plan);
    assert_ok(dev_open(&dev, "cpu", 1));
    /* The place says "soulchat" so that shared memory is chosen. */
    const err_t rc = ranks_join(&ranks, &(struct ranks_args){ .place = &place,
                                                              .dev = dev,
                                                              .join_s = 3,
                                                              .comm_s = plan->comm_s,
                                                              .silence_s = plan->silence_s });
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
    plan->comm_s = 20;
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

/* A rank gives its communicator up and goes on with something else: the other's watchdog finds it,
 * and ends both. */
static void body_broken(int64_t rank, int64_t size, void *arg)
{
    const struct plan *plan = arg;
    struct ranks_place place = plan->place;
    struct ranks *ranks;
    struct dev *dev;
    place.rank = rank;
    place.size = size;
    if (rank != 0) place.listen_fd = -1;
    assert_ok(dev_open(&dev, "cpu", 1));
    assert_ok(ranks_join(&ranks, &(struct ranks_args){ .place = &place, .dev = dev }));
    if (rank == plan->victim) comm_abort(ranks->comm, "a cable is loose");
    sleep(20);
}

static void test_broken(void **state)
{
    (void)state;
    for (int64_t victim = 0; victim < 2; victim++) {
        int status[2];
        struct plan *plan = make_plan(victim);
        ranks_fork(status, 2, body_broken, plan);
        close(plan->place.listen_fd);
        assert_int_equal(status[0], RANKS_STATUS_LOST);
        assert_int_equal(status[1], RANKS_STATUS_LOST);
    }
}

/* One rank is done, and the other never is. */
static void body_late(int64_t rank, int64_t size, void *arg)
{
    struct plan *plan = arg;
    struct rendezvous *meeting;
    struct watchdog *watchdog;
    const struct rendezvous_args args = { .rank = rank,
                                          .size = size,
                                          .host = "127.0.0.1",
                                          .port = plan->place.port,
                                          .listen_fd = plan->place.listen_fd,
                                          .job = "late",
                                          .version = "1",
                                          .timeout_s = 10 };
    if (rank != 0) close(plan->place.listen_fd);
    assert_ok(rendezvous_join(&meeting, &args));
    assert_ok(watchdog_start(
        &watchdog, &(struct watchdog_args){
                       .meeting = meeting, .beat_s = 0.1, .silence_s = 3, .finish_s = 0.5 }));
    if (rank == plan->victim) sleep(20); /* the watchdog ends it */
    assert_err(watchdog_finish(watchdog), COMM, " has not finished within 0.5 s of this one");
    rendezvous_close(meeting);
}

static void test_late(void **state)
{
    (void)state;
    for (int64_t victim = 0; victim < 2; victim++) {
        int status[2];
        struct plan *plan = make_plan(victim);
        ranks_fork(status, 2, body_late, plan);
        close(plan->place.listen_fd);
        assert_int_equal(status[1 - victim], 0);
        assert_int_equal(status[victim], RANKS_STATUS_LOST);
    }
}

/* A loss that cannot be told to anybody ends the ranks all the same. */
static void test_mute(void **state)
{
    int status[2];
    struct plan *plan = make_plan(1);
    (void)state;
    plan->mute = true;
    plan->signal = SIGKILL;
    plan->after_us = 100000;
    run(plan, status, 2);
    assert_int_equal(status[0], RANKS_STATUS_LOST);
    assert_int_equal(status[1], 128 + SIGKILL);
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

/* Jobs side by side, because those that lose a stopped rank take the time of silence. */
enum { TURNS = 20, AT_ONCE = 20 };

static void kill_by_number(int64_t turn, int64_t count, void *arg)
{
    (void)count;
    (void)arg;
    lose_one(SIGKILL, (uint64_t)turn);
}

static void stop_by_number(int64_t turn, int64_t count, void *arg)
{
    (void)count;
    (void)arg;
    lose_one(SIGSTOP, 100 + (uint64_t)turn);
}

static void test_killed(void **state)
{
    (void)state;
    ranks_pool(TURNS, AT_ONCE, kill_by_number, NULL);
}

static void test_stopped(void **state)
{
    (void)state;
    ranks_pool(TURNS, AT_ONCE, stop_by_number, NULL);
}

/* ---- the launcher, with a program of its own ---- */

#define PRINTED_MAX 4

struct program {
    const char *arguments;
    int status;
    const char *printed[PRINTED_MAX];
};

static const struct program programs[] = {
    { "--ranks 3", 0, { "done: 3 ranks by soulchat over shm" } },
    { "--steps 3", 0, { "done: 1 ranks by nobody over self" } },
    { "--ranks 3 --victim 2 --fail",
      1,
      { "ranks_program: the disk of this test is full",
        "the disk of this test is full; last heard of at ", "rank 2 ended with status 1" } },
    { "--ranks 2 --victim 0 --fail", /* rank 0, which the others hear of others from */
      1,
      { "rank 0 on ", " failed: the disk of this test is full; last heard of at " } },
    /* Those that missed it end at once; it, whose failure it was, after all of them. */
    { "--ranks 3 --victim 2 --fail --leave-ms 4000",
      1,
      { "rank 0 ended with status 75", "rank 1 ended with status 75",
        "rank 2 ended with status 1" } },
    { "--ranks 3 --steps 100000 --victim 1 --after-us 50000 --signal 9",
      128 + SIGKILL,
      { "rank 1 ended by signal 9 (Killed)", "rank 0 ended with status 75",
        "closed the connection; last heard of at " } },
    /* The stopped rank never ends by itself. */
    { "--ranks 2 --steps 100000 --victim 0 --after-us 50000 --signal 19 --silence-ms 1500",
      RANKS_STATUS_LOST,
      { "rank 0 on ", "has not been heard of for ", "rank 0 ended by signal 9 (Killed)" } },
/* Before and while the ranks meet nobody but the launcher misses one that is stopped. */
#define KILLED(victim, site)                                                                       \
    {                                                                                              \
        "--ranks 3 --victim " victim " --fault " site ":1:kill", 128 + SIGKILL,                    \
        {                                                                                          \
            "ended by signal 9 (Killed)"                                                           \
        }                                                                                          \
    }
#define MEETING(victim)                                                                            \
    KILLED(victim, "wire.send"), KILLED(victim, "comm.barrier"),                                   \
    {                                                                                              \
        "--ranks 3 --victim " victim " --fault wire.:1:stop --silence-ms 1500", RANKS_STATUS_LOST, \
        {                                                                                          \
            "rank " victim " has been stopped for ", "all 3 ranks are killed"                      \
        }                                                                                          \
    }
    MEETING("0"),
    MEETING("1"),
    MEETING("2"),
    KILLED("1", "wire.receive"),
    KILLED("2", "wire.receive"),
};

/* The shell makes way for the program: the pid is the launcher's. */
static pid_t start_program(const char *arguments, const char *out)
{
    char command[1024];
    snprintf(command, sizeof command, "SOULCHAT_LOG=info exec " RANKS_PROGRAM " %s > %s 2>&1",
             arguments, out);
    fflush(NULL);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        signal(SIGCHLD, SIG_IGN); /* as some parents leave it */
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    return pid;
}

static void end_program(pid_t pid, const struct program *program, const char *out)
{
    struct buf found = { 0 };
    int how;
    assert_int_equal(waitpid(pid, &how, 0), pid);
    const int status = WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
    assert_ok(file_read_all(&found, out, 1 << 20));
    bool printed = true;
    for (int i = 0; i < PRINTED_MAX && program->printed[i] != NULL; i++)
        if (strstr(found.data, program->printed[i]) == NULL) {
            print_message("not printed: \"%s\"\n", program->printed[i]);
            printed = false;
        }
    if (!printed || status != program->status)
        fail_msg("%s: status %d, expected %d:\n%s", program->arguments, status, program->status,
                 found.data);
    buf_clear(&found);
}

static void run_by_number(int64_t index, int64_t count, void *arg)
{
    char name[32];
    (void)count;
    (void)arg;
    snprintf(name, sizeof name, "out-%lld", (long long)index);
    const char *out = testing_path(name);
    end_program(start_program(programs[index].arguments, out), &programs[index], out);
}

static void test_launcher(void **state)
{
    (void)state;
    ranks_pool(COUNT_OF(programs), AT_ONCE, run_by_number, NULL);
}

/* Emulated GPUs have the host's memory, and need no NCCL. */
static void test_launcher_emu(void **state)
{
    static const struct program emulated = { "--ranks 2 --device emu",
                                             0,
                                             { "done: 2 ranks by soulchat over shm" } };
    struct dev *dev;
    (void)state;
    if (dev_open(&dev, "emu", 1) != ERR_OK) skip();
    dev_close(dev);
    const char *out = testing_path("out-emu");
    end_program(start_program(emulated.arguments, out), &emulated, out);
}

/* Passed on, and answered by all ranks together. */
static void test_launcher_signal(void **state)
{
    static const struct program answered = {
        "--ranks 2 --steps 100000",
        130,
        { "rank 0 ended with status 130", "rank 1 ended with status 130" },
    };
    (void)state;
    const char *out = testing_path("out");
    const pid_t pid = start_program(answered.arguments, out);
    struct buf found = { 0 };
    do { /* until all ranks catch signals */
        usleep(10000);
        buf_reset(&found);
        if (file_exists(out)) assert_ok(file_read_all(&found, out, 1 << 20));
    } while (found.size == 0 || strstr(found.data, "begun") == NULL);
    buf_clear(&found);
    assert_int_equal(kill(pid, SIGTERM), 0);
    end_program(pid, &answered, out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_well),        cmocka_unit_test(test_busy_is_alive),
        cmocka_unit_test(test_failure_is_told), cmocka_unit_test(test_late),
        cmocka_unit_test(test_broken),          cmocka_unit_test(test_mute),
        cmocka_unit_test(test_killed),          cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_launcher),        cmocka_unit_test(test_launcher_emu),
        cmocka_unit_test(test_launcher_signal),
    };
    testing_dir(); /* one for all */
    alarm(3 * RANKS_LIMIT_S);
    if (log_init("error") != ERR_OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
