/*
 * soulchat - prepares counselling dialogues, trains ChatGLM-6B on them, exports and chats.
 * This file is the table of commands and nothing else; each command lives in the layer whose
 * work it is.
 */
#include "base/check.h"
#include "base/cli.h"
#include "base/env.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"
#include "base/nearest.h"
#include "base/stop.h"
#include "base/trace.h"
#include "data/commands.h"
#include "data/settings.h"
#include "data/settings_batch.h"
#include "eval/commands.h"
#include "eval/settings.h"
#include "kernels/commands.h"
#include "model/commands.h"
#include "model/settings.h"
#include "train/commands.h"
#include "train/ranks.h"
#include "train/settings.h"
#include "train/settings_plan.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    cli_command run;
    const char *purpose;
} commands[] = {
    { "prepare", cmd_prepare, "turn a corpus into token shards" },
    { "inspect", cmd_inspect, "look into a prepared corpus, its samples and batches" },
    { "tokenize", cmd_tokenize, "turn text into token ids and back" },
    { "plan", cmd_plan, "predict memory and time of a training setup on a card" },
    { "train", cmd_train, "fine-tune all parameters, with checkpoints and resume" },
    { "ckpt", cmd_ckpt, "verify, list and compare checkpoints" },
    { "export", cmd_export, "write a checkpoint as a Hugging Face folder" },
    { "generate", cmd_generate, "answer a file of conversations, or one question" },
    { "chat", cmd_chat, "talk with a model in the terminal" },
    { "bench", cmd_bench, "measure speed beside what the machine can do at most" },
    { "doctor", cmd_doctor, "list devices and libraries, and test the operators on them" },
};

static void print_usage(FILE *out)
{
    fprintf(out, "soulchat - train and run counselling dialogue models (ChatGLM-6B)\n\n"
                 "usage: soulchat COMMAND [--config FILE] [--section.key=value ...] [options]\n\n");
    for (int64_t i = 0; i < COUNT_OF(commands); i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].purpose);
    fprintf(out, "\nsoulchat COMMAND --help, or soulchat help COMMAND, shows examples and "
                 "every setting.\n"
                 "A first run in two commands: see README.md, or README.zh.md in Chinese.\n\n"
                 "Environment, with an example value:\n");
    for (int64_t i = 0; i < env_row_count(); i++)
        fprintf(out, "  %-18s %s\n", env_row_at(i)->name, env_row_at(i)->help);
}

/* Ranks that a launcher started write a file each; contradictions are the command's to tell. */
static err_t open_trace(void)
{
    struct ranks_place place;
    char path[FILE_PATH_MAX];
    const char *wanted = env_get("SOULCHAT_TRACE");
    if (wanted == NULL || ranks_find(&place) != ERR_OK || place.size == 1)
        return trace_open(wanted);
    snprintf(path, sizeof path, "%s.rank%lld", wanted, (long long)place.rank);
    return trace_open(path);
}

static err_t raise_no_command(const char *word)
{
    struct nearest n = { .word = word };
    if (word[0] == '-')
        RAISE(USAGE, "\"%.80s\" stands before the command; expected soulchat COMMAND and then "
              "options; soulchat --help lists the commands", word);
    for (int64_t i = 0; i < COUNT_OF(commands); i++) nearest_offer(&n, commands[i].name);
    RAISE(USAGE, "there is no command \"%.80s\"; the nearest is %s; soulchat --help lists them",
          word, n.best);
}

static err_t run_command(int argc, char **argv)
{
    const struct cfg_table tables[] = { data_settings,  batch_settings, model_settings,
                                        train_settings, plan_settings,  eval_settings };
    struct cfg *cfg;
    for (int64_t i = 0; i < COUNT_OF(commands); i++) {
        if (strcmp(argv[1], commands[i].name) != 0) continue;
        TRY(env_check());
        TRY(log_init(env_get("SOULCHAT_LOG")));
        TRY(fault_init(env_get("SOULCHAT_FAULT")));
        TRY(open_trace());
        TRY(cfg_create(&cfg, tables, COUNT_OF(tables)));
        const err_t rc = commands[i].run(cfg, argc - 1, argv + 1);
        cfg_close(cfg);
        trace_close();
        return rc;
    }
    return raise_no_command(argv[1]);
}

/* Ranks stop together. */
static bool is_told_by_rank_0(void)
{
    struct ranks_place place;
    const struct err_record why = *err_last();
    const bool is_other = ranks_find(&place) == ERR_OK && place.rank > 0;
    err_adopt(&why);
    return is_other;
}

/* One line for people; the frames for us, when SOULCHAT_LOG asks for debug lines. */
static int report(err_t rc)
{
    const struct err_record *rec = err_last();
    if (rc == ERR_OK) return 0;
    if (rc == ERR_INTERRUPTED && is_told_by_rank_0()) return stop_status();
    fprintf(stderr, "soulchat: %s%s\n", rc == ERR_NOMEM ? "out of memory: " : "", rec->text);
    const char *spec = getenv("SOULCHAT_LOG");
    if (spec != NULL && strstr(spec, "debug") != NULL)
        for (int i = 0; i < rec->frame_count; i++)
            fprintf(stderr, "  %s at %s:%d %s\n", i == 0 ? err_name(rc) : "", rec->frames[i].file,
                    rec->frames[i].line, rec->frames[i].expr);
    static const struct {
        err_t code;
        int status;
    } others[] = { { ERR_USAGE, 2 }, { ERR_COMM, RANKS_STATUS_LOST } };
    for (int64_t i = 0; i < COUNT_OF(others); i++)
        if (rc == others[i].code) return others[i].status;
    return rc == ERR_INTERRUPTED ? stop_status() : 1;
}

/*
 * What every command leans on. A closed stream gets a stand-in that fails when it is used, so that
 * no file opened later takes its number and the output. A limit on the size of files is to be an
 * error of a write, not a signal.
 */
static void set_up_process(void)
{
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd)
            abort();
    signal(SIGXFSZ, SIG_IGN);
}

/* Output that was lost, as on a full disk, is a failure of any command. */
static err_t finish_output(void)
{
    const bool had_failed = ferror(stdout) != 0;
    if (fflush(stdout) == 0 && !had_failed) return ERR_OK;
    RAISE(IO, "standard output: %s", had_failed ? "a write failed" : strerror(errno));
}

static int end(err_t rc)
{
    return report(rc == ERR_OK ? finish_output() : rc);
}

int main(int argc, char **argv)
{
    set_up_process();
    const char *first = argc > 1 ? argv[1] : "";
    if (strcmp(first, "help") == 0 && argc > 2) { /* soulchat help COMMAND */
        char *words[] = { argv[0], argv[2], (char *)"--help" };
        return end(run_command(COUNT_OF(words), words));
    }
    if (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0 || strcmp(first, "help") == 0) {
        print_usage(stdout);
        return end(ERR_OK);
    }
    if (strcmp(first, "--version") == 0) {
        printf("soulchat %s\n", SOULCHAT_VERSION);
        return end(ERR_OK);
    }
    if (argc < 2) {
        print_usage(stderr);
        return 2;
    }
    return end(run_command(argc, argv));
}
