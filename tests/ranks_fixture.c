#include "ranks_fixture.h"

#include "base/progress.h"
#include "kernels/dev.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define RANKS_MAX 64

struct child {
    ranks_raw_body *body;
    int64_t rank, size;
    void *arg;
    pid_t pid; /* 0: ended */
    bool stopped;
    int words; /* a file of what it says */
};

static void child_test(void **state)
{
    const struct child *child = *state;
    child->body(child->rank, child->size, child->arg);
}

/* A failed assertion jumps to the runner of this process: the rank has one of its own. */
__attribute__((noreturn)) static void run_child(const struct child *child)
{
    struct child copy = *child;
    const struct CMUnitTest tests[] = { { "rank", child_test, NULL, NULL, &copy } };
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(RANKS_LIMIT_S);
    dup2(child->words, STDOUT_FILENO);
    dup2(child->words, STDERR_FILENO);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    fflush(NULL);
    _exit(failed == 0 ? 0 : 1);
}

/* What a rank that did not end well has said. */
static void show_words(const struct child *child)
{
    char text[4096];
    ssize_t n;
    fprintf(stderr, "---- rank %lld of %lld:\n", (long long)child->rank, (long long)child->size);
    lseek(child->words, 0, SEEK_SET);
    while ((n = read(child->words, text, sizeof text)) > 0) fwrite(text, 1, (size_t)n, stderr);
}

static void note_end(struct child *child, int *status, int how)
{
    *status = WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
    if (*status == 1) show_words(child);
    child->pid = 0;
}

/* Without waiting; counts the ranks that still run, stopped ones apart. */
static void reap(struct child children[], int status[], int64_t size, int64_t *running,
                 int64_t *stopped)
{
    *running = *stopped = 0;
    for (int64_t i = 0; i < size; i++) {
        int how = 0;
        if (children[i].pid == 0) continue;
        const pid_t found = waitpid(children[i].pid, &how, WNOHANG | WUNTRACED);
        if (found == children[i].pid && WIFSTOPPED(how)) children[i].stopped = true;
        if (found == children[i].pid && !WIFSTOPPED(how)) note_end(&children[i], &status[i], how);
        if (children[i].pid != 0) ++*(children[i].stopped ? stopped : running);
    }
}

static void kill_all(const struct child children[], int64_t size)
{
    for (int64_t i = 0; i < size; i++)
        if (children[i].pid != 0) kill(children[i].pid, SIGKILL);
}

static void wait_all(struct child children[], int status[], int64_t size)
{
    int64_t running = size, stopped = 0;
    double first_end_s = 0;
    while (running + stopped > 0) {
        reap(children, status, size, &running, &stopped);
        const double now_s = time_now_s();
        if (running < size && first_end_s == 0) first_end_s = now_s;
        if (stopped > 0 && running == 0) kill_all(children, size);
        if (first_end_s > 0 && now_s > first_end_s + RANKS_ENDED_S) kill_all(children, size);
        usleep(1000);
    }
}

static void start_child(struct child *out, ranks_raw_body *body, int64_t rank, int64_t size,
                        void *arg)
{
    *out = (struct child){ .body = body, .rank = rank, .size = size, .arg = arg };
    out->words = memfd_create("words", MFD_CLOEXEC);
    out->pid = fork();
    assert_true(out->pid >= 0 && out->words >= 0);
    if (out->pid == 0) run_child(out);
}

void ranks_fork_during(int status[], int64_t size, ranks_raw_body *body, void *arg,
                       ranks_during *during)
{
    struct child children[RANKS_MAX];
    pid_t pids[RANKS_MAX];
    assert_in_range(size, 1, RANKS_MAX);
    fflush(NULL);
    for (int64_t i = 0; i < size; i++) {
        start_child(&children[i], body, i, size, arg);
        pids[i] = children[i].pid;
    }
    if (during != NULL) during(pids, size, arg);
    wait_all(children, status, size);
    for (int64_t i = 0; i < size; i++) close(children[i].words);
}

void ranks_fork(int status[], int64_t size, ranks_raw_body *body, void *arg)
{
    ranks_fork_during(status, size, body, arg, NULL);
}

void ranks_pool(int64_t count, int64_t at_once, ranks_raw_body *body, void *arg)
{
    struct child children[RANKS_MAX] = { 0 };
    int status[RANKS_MAX] = { 0 };
    int64_t begun = 0, running = 0, failed = 0;
    assert_in_range(at_once, 1, RANKS_MAX);
    fflush(NULL);
    while (begun < count || running > 0) {
        running = 0;
        for (int64_t i = 0; i < at_once; i++) {
            struct child *child = &children[i];
            int how = 0;
            if (child->pid > 0 && waitpid(child->pid, &how, WNOHANG) == child->pid) {
                note_end(child, &status[i], how);
                close(child->words);
                failed += status[i] != 0;
            }
            if (child->pid == 0 && begun < count) start_child(child, body, begun++, count, arg);
            running += child->pid > 0;
        }
        usleep(1000);
    }
    if (failed > 0) fail_msg("%d of %d ended with a failure", (int)failed, (int)count);
}

void *ranks_shared(int64_t bytes)
{
    void *data =
        mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(data != MAP_FAILED);
    return data;
}

struct open_body {
    struct comm_args args;
    ranks_body *body;
    void *arg;
};

static void open_and_run(int64_t rank, int64_t size, void *arg)
{
    const struct open_body *open_body = arg;
    struct comm_args args = open_body->args;
    struct comm *comm;
    (void)size;
    args.rank = rank;
    assert_ok(dev_open(&args.dev, "cpu", 1));
    assert_ok(comm_open(&comm, &args));
    open_body->body(comm, open_body->arg);
    comm_close(comm);
    dev_close(args.dev);
}

void ranks_run(const char *kind, int64_t size, ranks_body *body, void *arg)
{
    int status[RANKS_MAX];
    struct open_body open_body = {
        .args = { .kind = kind, .size = size, .timeout_s = RANKS_LIMIT_S / 2 },
        .body = body,
        .arg = arg,
    };
    assert_ok(comm_invite(open_body.args.blob, kind, size, NULL));
    ranks_fork(status, size, open_and_run, &open_body);
    for (int64_t i = 0; i < size; i++) {
        if (status[i] != 0)
            fprintf(stderr, "rank %lld of %lld ended with status %d\n", (long long)i,
                    (long long)size, status[i]);
        assert_int_equal(status[i], 0);
    }
}
