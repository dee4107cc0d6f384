/* The ranks of one machine as children of one launcher. */
#include "train/ranks.h"

#include "base/check.h"
#include "base/log.h"
#include "base/num.h"
#include "base/progress.h"
#include "base/stop.h"
#include "train/rendezvous_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STATUS_NO_EXEC 127
#define OTHERS_FIRST_S 1.0 /* ranks that have met find out themselves, and say more */

static const int passed_on[] = { SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGTSTP };

struct launch {
    int64_t size, running;
    pid_t *pids;          /* [size]; 0: ended */
    double *stopped_at_s; /* [size]; 0: it is not stopped */
    double stopped_max_s;
    char *const *argv;
    int listen_fd, port;
    char job[33];
    sigset_t before; /* the signals that were blocked before us */
    cpu_set_t cpus;
    int status;      /* how the first that failed ended */
    double failed_s; /* when that was; 0: nobody has failed yet */
    bool killed;     /* those that were left */
};

/* ---- a rank ---- */

static void put_number(const char *name, int64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)value);
    setenv(name, text, 1);
}

static void put_variables(const struct launch *l, int64_t rank)
{
    put_number("RANK", rank);
    put_number("WORLD_SIZE", l->size);
    put_number("LOCAL_RANK", rank);
    put_number("MASTER_PORT", l->port);
    put_number("SOULCHAT_LAUNCH", l->listen_fd);
    setenv("MASTER_ADDR", "127.0.0.1", 1);
    setenv("SOULCHAT_JOB", l->job, 1);
}

/* The rank's share of the CPUs that we may use, in their order; all of them where there are fewer
 * than ranks. What counts its CPUs to choose a number of threads then finds its own. */
static void take_cpus(const struct launch *l, int64_t rank)
{
    const int64_t count = CPU_COUNT(&l->cpus);
    cpu_set_t mine;
    int64_t seen = 0;
    if (count < l->size) return;
    CPU_ZERO(&mine);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &l->cpus)) continue;
        if (seen >= rank * count / l->size && seen < (rank + 1) * count / l->size)
            CPU_SET(cpu, &mine);
        seen++;
    }
    (void)sched_setaffinity(0, sizeof mine, &mine);
}

__attribute__((noreturn)) static void become_rank(const struct launch *l, int64_t rank,
                                                  pid_t launcher)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != launcher) _exit(STATUS_NO_EXEC); /* it died before the line above */
    /* A group of its own: Ctrl-C reaches the launcher alone, and each rank once, from there. */
    setpgid(0, 0);
    put_variables(l, rank);
    take_cpus(l, rank);
    if (rank == 0) fcntl(l->listen_fd, F_SETFD, 0);
    sigprocmask(SIG_SETMASK, &l->before, NULL);
    stop_hold();
    execv("/proc/self/exe", l->argv);
    fprintf(stderr, "soulchat: rank %lld does not start: %s\n", (long long)rank, strerror(errno));
    _exit(STATUS_NO_EXEC);
}

/* ---- the launcher ---- */

static void signal_all(const struct launch *l, int signal_number)
{
    for (int64_t i = 0; i < l->size; i++)
        if (l->pids[i] > 0) kill(l->pids[i], signal_number);
}

static err_t start_all(struct launch *l)
{
    const pid_t launcher = getpid();
    fflush(NULL);
    for (int64_t i = 0; i < l->size; i++) {
        const pid_t pid = fork();
        if (pid == 0) become_rank(l, i, launcher);
        if (pid < 0)
            RAISE(NOMEM, "rank %lld of %lld does not start: %s", (long long)i, (long long)l->size,
                  strerror(errno));
        l->pids[i] = pid;
        l->running++;
    }
    return ERR_OK;
}

static void note_end(struct launch *l, int64_t rank, int how)
{
    const int status = WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
    l->pids[rank] = 0;
    l->running--;
    if (status == 0) return;
    if (WIFSIGNALED(how))
        LOG_E("ranks", "rank %lld ended by signal %d (%s)", (long long)rank, WTERMSIG(how),
              strsignal(WTERMSIG(how)));
    else if (status != STOP_STATUS_ASKED && status != STOP_STATUS_AGAIN) /* rank 0 has said it */
        LOG_E("ranks", "rank %lld ended with status %d", (long long)rank, status);
    /* Those that ended because another did, by themselves or by us, are not the failure. */
    if (!l->killed && (l->status == 0 || l->status == RANKS_STATUS_LOST)) l->status = status;
    if (l->failed_s == 0) l->failed_s = time_now_s();
}

static void reap(struct launch *l)
{
    for (int64_t i = 0; i < l->size; i++) {
        int how;
        if (l->pids[i] <= 0 ||
            waitpid(l->pids[i], &how, WNOHANG | WUNTRACED | WCONTINUED) != l->pids[i])
            continue;
        l->stopped_at_s[i] = WIFSTOPPED(how) ? time_now_s() : 0;
        if (!WIFSTOPPED(how) && !WIFCONTINUED(how)) note_end(l, i, how);
    }
}

static void kill_all(struct launch *l)
{
    signal_all(l, SIGKILL);
    l->killed = true;
}

/* How long the ranks that are left may take. Those that missed another end within moments; when
 * none but them has ended, the one whose failure it was is still at it, unless it is stopped. */
static double grace_s(const struct launch *l)
{
    if (l->status != RANKS_STATUS_LOST) return RANKS_GRACE_S;
    for (int64_t i = 0; i < l->size; i++)
        if (l->pids[i] > 0 && l->stopped_at_s[i] == 0) return RANKS_CAUSE_S;
    return RANKS_GRACE_S;
}

static void judge_late(struct launch *l)
{
    const double grace = grace_s(l);
    if (l->failed_s == 0 || l->running == 0 || l->killed) return;
    if (time_now_s() <= l->failed_s + grace) return;
    LOG_E("ranks", "%lld ranks did not end within %g s after that: killed", (long long)l->running,
          grace);
    kill_all(l);
}

/* A rank that is stopped before the ranks have met is missed by nobody else. */
static void judge_stopped(struct launch *l)
{
    for (int64_t i = 0; i < l->size && l->failed_s == 0 && !l->killed; i++) {
        if (l->pids[i] == 0 || l->stopped_at_s[i] == 0) continue;
        if (time_now_s() - l->stopped_at_s[i] <= l->stopped_max_s) continue;
        LOG_E("ranks", "rank %lld has been stopped for %.1f s: all %lld ranks are killed",
              (long long)i, time_now_s() - l->stopped_at_s[i], (long long)l->running);
        l->status = RANKS_STATUS_LOST;
        kill_all(l);
    }
}

static void pass_on(const struct launch *l, int signal_number)
{
    LOG_I("ranks", "%s passed on to %lld ranks", strsignal(signal_number), (long long)l->running);
    signal_all(l, signal_number);
    if (signal_number != SIGTSTP) return;
    stop_suspend();
    signal_all(l, SIGCONT);
}

static void wait_all(struct launch *l, const sigset_t *signals)
{
    while (l->running > 0) {
        const struct timespec nap = { .tv_nsec = 200 * 1000000L };
        const int came = sigtimedwait(signals, NULL, &nap);
        if (came > 0 && came != SIGCHLD && !stop_is_ignored(came)) pass_on(l, came);
        reap(l);
        judge_late(l);
        judge_stopped(l);
    }
}

static err_t make_job(struct launch *l)
{
    uint8_t bits[16];
    if (getrandom(bits, sizeof bits, 0) != (ssize_t)sizeof bits)
        RAISE(IO, "no random numbers: %s", strerror(errno));
    for (size_t i = 0; i < sizeof bits; i++) snprintf(l->job + 2 * i, 3, "%02x", bits[i]);
    return ERR_OK;
}

static err_t run_all(struct launch *l, const sigset_t *signals)
{
    TRY(make_job(l));
    TRY(wire_listen(&l->listen_fd, &l->port, "127.0.0.1", 0));
    if (sched_getaffinity(0, sizeof l->cpus, &l->cpus) != 0) CPU_ZERO(&l->cpus);
    const err_t rc = start_all(l);
    close(l->listen_fd);
    if (rc != ERR_OK) {
        const struct err_record why = *err_last();
        signal_all(l, SIGKILL);
        wait_all(l, signals);
        return err_adopt(&why);
    }
    LOG_I("ranks", "%lld ranks on this machine, meeting at port %d", (long long)l->size, l->port);
    wait_all(l, signals);
    return ERR_OK;
}

err_t ranks_launch(int *status, int64_t size, char *const *argv, double silence_s)
{
    struct launch l = { .size = size, .argv = argv, .stopped_max_s = silence_s + OTHERS_FIRST_S };
    err_t rc = ERR_OK;
    sigset_t signals;
    ASSERT(size >= 1 && size <= COMM_SIZE_MAX);
    l.pids = calloc((size_t)size, sizeof *l.pids);
    l.stopped_at_s = calloc((size_t)size, sizeof *l.stopped_at_s);
    if (l.pids == NULL || l.stopped_at_s == NULL)
        RAISE_DONE(NOMEM, "%lld ranks: no memory", (long long)size);
    (void)signal(SIGCHLD, SIG_DFL); /* inherited as ignored, nobody could be waited for */
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    for (int64_t i = 0; i < COUNT_OF(passed_on); i++) sigaddset(&signals, passed_on[i]);
    sigprocmask(SIG_BLOCK, &signals, &l.before);
    rc = run_all(&l, &signals);
    sigprocmask(SIG_SETMASK, &l.before, NULL);
    *status = l.status;
done:
    free(l.pids);
    free(l.stopped_at_s);
    return rc;
}
