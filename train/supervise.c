#include "train/supervise.h"

#include "base/check.h"
#include "base/log.h"
#include "base/num.h"
#include "base/stop.h"
#include "train/ckpt.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STATUS_FAILED  1
#define STATUS_USAGE   2
#define STATUS_NO_EXEC 127
#define PAUSE_MAX_S    60.0

static const int passed_on[] = { SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGTSTP };

struct supervisor {
    char **argv; /* of the child; --resume, when it is wanted, is the last */
    int argc;
    bool resumes;
    bool asked_to_stop; /* a signal that ends the run was passed on */
    sigset_t signals, before;
};

bool supervise_is_crash(int status)
{
    static const int final[] = { 0, STATUS_USAGE, STOP_STATUS_AGAIN, STOP_STATUS_ASKED,
                                 STATUS_NO_EXEC };
    for (int64_t i = 0; i < COUNT_OF(final); i++)
        if (status == final[i]) return false;
    return true;
}

double supervise_pause_s(int64_t failures)
{
    if (failures <= 1) return 0.0;
    return fmin(ldexp(1.0, (int)min_i64(failures - 2, 30)), PAUSE_MAX_S);
}

/* The arguments without ours: "--restarts N", "--restarts=N", "--resume". */
static err_t copy_arguments(struct supervisor *s, int argc, char *const *argv)
{
    static char program[] = "soulchat";
    s->argv = calloc((size_t)argc + 3, sizeof *s->argv);
    if (s->argv == NULL) RAISE(NOMEM, "--restarts: no memory for %d arguments", argc);
    s->argv[s->argc++] = program;
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--restarts") == 0)
            i++;
        else if (strcmp(argv[i], "--resume") == 0)
            s->resumes = true;
        else if (strncmp(argv[i], "--restarts=", strlen("--restarts=")) != 0)
            s->argv[s->argc++] = argv[i];
    }
    return ERR_OK;
}

/* 0: there is none, or the folder cannot be read; the child will say so. */
static int64_t newest_step(const char *ckpt_root)
{
    int64_t *steps, count;
    if (ckpt_list(&steps, &count, ckpt_root) != ERR_OK) return 0;
    const int64_t newest = count > 0 ? steps[0] : 0;
    free(steps);
    return newest;
}

__attribute__((noreturn)) static void become_child(struct supervisor *s, pid_t parent)
{
    static char resume[] = "--resume";
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(STATUS_NO_EXEC); /* it died before the line above */
    /* A group of its own: Ctrl-C reaches the parent alone, and the child once, from there. */
    setpgid(0, 0);
    sigprocmask(SIG_SETMASK, &s->before, NULL);
    stop_hold();
    s->argv[s->argc] = s->resumes ? resume : NULL;
    execv("/proc/self/exe", s->argv);
    fprintf(stderr, "soulchat: --restarts: the run does not start: %s\n", strerror(errno));
    _exit(STATUS_NO_EXEC);
}

static void pass_on(struct supervisor *s, pid_t child, int signal_number)
{
    if (signal_number == SIGCHLD || stop_is_ignored(signal_number)) return;
    if (signal_number != SIGUSR1 && signal_number != SIGTSTP) s->asked_to_stop = true;
    if (child > 0) kill(child, signal_number);
    if (signal_number != SIGTSTP) return;
    stop_suspend();
    if (child > 0) kill(child, SIGCONT);
}

static err_t run_child(struct supervisor *s, int *status)
{
    const pid_t parent = getpid();
    int how;
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) become_child(s, parent);
    if (child < 0) RAISE(NOMEM, "--restarts: the run does not start: %s", strerror(errno));
    while (waitpid(child, &how, WNOHANG) != child) {
        const int came = sigwaitinfo(&s->signals, NULL);
        if (came > 0) pass_on(s, child, came);
    }
    *status = WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
    if (WIFSIGNALED(how))
        LOG_E("train", "the run ended by signal %d (%s)", WTERMSIG(how), strsignal(WTERMSIG(how)));
    return ERR_OK;
}

/* Waits, unless a signal says that there is nothing to wait for. */
static void pause_before_start(struct supervisor *s, double seconds)
{
    const struct timespec nap = { .tv_sec = (time_t)seconds,
                                  .tv_nsec = (long)(1e9 * (seconds - floor(seconds))) };
    if (seconds <= 0.0) return;
    const int came = sigtimedwait(&s->signals, NULL, &nap);
    if (came > 0) pass_on(s, 0, came);
}

static err_t run_until_done(struct supervisor *s, int *status, const struct supervise_args *args)
{
    for (int64_t failures = 0, starts = 0;; starts++) {
        const int64_t before = newest_step(args->ckpt_root);
        TRY(run_child(s, status));
        if (!supervise_is_crash(*status) || s->asked_to_stop) return ERR_OK;
        if (starts == 0 && *status == STATUS_FAILED && access(args->record, F_OK) != 0)
            return ERR_OK;
        const int64_t now = newest_step(args->ckpt_root);
        failures = now > before ? 1 : failures + 1;
        if (failures > args->failures_max) {
            LOG_E("train",
                  "status %d: given up after %lld failures in a row without a new "
                  "checkpoint, the newest is of step %lld",
                  *status, (long long)failures, (long long)now);
            return ERR_OK;
        }
        LOG_W("train", "status %d: starting again (restart %lld) from step %lld in %.0f s", *status,
              (long long)starts + 1, (long long)now, supervise_pause_s(failures));
        s->resumes = true;
        pause_before_start(s, supervise_pause_s(failures));
        if (s->asked_to_stop) return ERR_OK;
    }
}

err_t supervise(int *status, const struct supervise_args *args)
{
    struct supervisor s = { .resumes = false };
    TRY(copy_arguments(&s, args->argc, args->argv));
    (void)signal(SIGCHLD, SIG_DFL); /* inherited as ignored, the child could not be waited for */
    sigemptyset(&s.signals);
    sigaddset(&s.signals, SIGCHLD);
    for (int64_t i = 0; i < COUNT_OF(passed_on); i++) sigaddset(&s.signals, passed_on[i]);
    sigprocmask(SIG_BLOCK, &s.signals, &s.before);
    const err_t rc = run_until_done(&s, status, args);
    sigprocmask(SIG_SETMASK, &s.before, NULL);
    free(s.argv);
    return rc;
}
