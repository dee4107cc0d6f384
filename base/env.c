#include "base/env.h"

#include "base/check.h"
#include "base/nearest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PREFIX "SOULCHAT_"

static const struct env_row rows[] = {
    { "SOULCHAT_LOG", "log levels, all or by subsystem: info,ckpt:debug" },
    { "SOULCHAT_TRACE", "write a timeline for ui.perfetto.dev to this file; ranks, to .rankN: "
                        "trace.json" },
    { "SOULCHAT_FAULT", "make the n-th step of a kind fail, in test builds: file.write:3" },
    { "SOULCHAT_ARENA", "\"malloc\": one allocation for each object, for valgrind" },
    { "SOULCHAT_TUNE", "file that keeps the GPU's product algorithms, or off: gemm.tune" },
    { "SOULCHAT_FUSE", "what the GPU's products do besides multiplying, to measure it: dgelu" },
    { "SOULCHAT_JOB", "name that the ranks of one job share, and no other job: 20260104-a" },
    { "SOULCHAT_PORT", "port where rank 0 listens, instead of MASTER_PORT: 29500" },
    { "SOULCHAT_LAUNCH", "set by \"soulchat train --ranks\" for its ranks" },
    { "SOULCHAT_NCCL", "path of the NCCL library, instead of libnccl.so.2" },
    { "SOULCHAT_CUDNN", "path of cuDNN's graph library, instead of libcudnn_graph.so.9" },
    { "SOULCHAT_EMU_GUARD", "1: the host cannot touch the emulated GPU's memory, for tests" },
    { "SOULCHAT_EMU_SEED", "order in which the emulated GPU runs threads, for tests: 7" },
    { "SOULCHAT_ATTENTION", "attention of a GPU by this way alone: plain, mma or cudnn" },
    { "SOULCHAT_SHARED", "folder of reference material for tests: ../shared" },
};

int64_t env_row_count(void) { return COUNT_OF(rows); }

const struct env_row *env_row_at(int64_t index)
{
    ASSERT(index >= 0 && index < COUNT_OF(rows));
    return &rows[index];
}

/* The row whose name is the first `size` bytes of `name`, or NULL. */
static const struct env_row *find(const char *name, size_t size)
{
    for (int64_t i = 0; i < COUNT_OF(rows); i++)
        if (strlen(rows[i].name) == size && memcmp(rows[i].name, name, size) == 0) return &rows[i];
    return NULL;
}

err_t env_check(void)
{
    for (char *const *entry = environ; *entry != NULL; entry++) {
        if (strncmp(*entry, PREFIX, strlen(PREFIX)) != 0) continue;
        const size_t size = strcspn(*entry, "=");
        if (find(*entry, size) != NULL) continue;
        char name[NEAREST_WORD_MAX + 1];
        snprintf(name, sizeof name, "%.*s", (int)size, *entry);
        struct nearest n = { .word = name };
        for (int64_t i = 0; i < COUNT_OF(rows); i++) nearest_offer(&n, rows[i].name);
        RAISE(USAGE, "environment: there is no switch %s; the nearest is %s", name, n.best);
    }
    return ERR_OK;
}

const char *env_get(const char *name)
{
    ASSERT(find(name, strlen(name)) != NULL);
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}
