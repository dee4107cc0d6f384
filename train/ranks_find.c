/* Which rank this process is, by the variables of whoever started it. */
#include "train/ranks.h"

#include "base/check.h"
#include "base/env.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PORT_DEFAULT 29400
#define PORT_FIRST   20000 /* made from a job's number: 20000 .. 29999 */
#define PORT_COUNT   10000

/* Innermost first. */
enum { BY_SOULCHAT, BY_TORCHRUN, BY_MPIRUN, BY_SRUN, LAUNCHERS };

static const struct launcher {
    const char *name;
    const char *marker; /* without it the other variables are not its own; NULL: needs none */
    const char *rank, *rank_else, *size, *local_rank;
} launchers[LAUNCHERS] = {
    [BY_SOULCHAT] = { "soulchat", "SOULCHAT_LAUNCH", "RANK", NULL, "WORLD_SIZE", "LOCAL_RANK" },
    [BY_TORCHRUN] = { "torchrun", NULL, "RANK", NULL, "WORLD_SIZE", "LOCAL_RANK" },
    [BY_MPIRUN] = { "mpirun", NULL, "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_SIZE",
                    "OMPI_COMM_WORLD_LOCAL_RANK" },
    /* A batch script has SLURM_PROCID, too, and is not a rank: the step makes the difference. */
    [BY_SRUN] = { "srun", "SLURM_STEP_ID", "SLURM_PROCID", NULL, "SLURM_NTASKS", "SLURM_LOCALID" },
};

/* What one launcher says. */
struct claim {
    bool present;
    const char *rank_name;
    int64_t rank, size, local_rank;
};

static const char *value_of(const char *name)
{
    const char *value = name != NULL ? getenv(name) : NULL;
    return value != NULL && value[0] != '\0' ? value : NULL;
}

static err_t read_number(int64_t *out, const char *name, int64_t min, int64_t max)
{
    const char *text = value_of(name);
    char *end;
    const long long value = text != NULL ? strtoll(text, &end, 10) : -1;
    if (text == NULL || *text < '0' || *text > '9' || *end != '\0' || value < min || value > max)
        RAISE(USAGE, "environment: %s=%s; expected a number from %lld to %lld", name,
              text != NULL ? text : "", (long long)min, (long long)max);
    *out = value;
    return ERR_OK;
}

static err_t read_claim(struct claim *out, const struct launcher *l)
{
    *out = (struct claim){ 0 };
    if (l->marker != NULL && getenv(l->marker) == NULL) return ERR_OK;
    out->rank_name = value_of(l->rank) != NULL ? l->rank : l->rank_else;
    const bool has_rank = value_of(out->rank_name) != NULL, has_size = value_of(l->size) != NULL;
    if (out->rank_name == l->rank_else && !has_size) return ERR_OK; /* srun --mpi=pmix */
    if (!has_rank && !has_size) return ERR_OK;
    if (!has_rank || !has_size)
        RAISE(USAGE, "environment: %s is set and %s is not; set both, as %s does, or none",
              has_rank ? out->rank_name : l->size, has_rank ? l->size : l->rank, l->name);
    TRY(read_number(&out->size, l->size, 1, COMM_SIZE_MAX));
    TRY(read_number(&out->rank, out->rank_name, 0, COMM_SIZE_MAX));
    if (out->rank >= out->size)
        RAISE(USAGE, "environment: %s=%lld, but there are %s=%lld ranks, counted from 0",
              out->rank_name, (long long)out->rank, l->size, (long long)out->size);
    out->local_rank = out->rank;
    if (value_of(l->local_rank) != NULL)
        TRY(read_number(&out->local_rank, l->local_rank, 0, COMM_SIZE_MAX));
    out->present = true;
    return ERR_OK;
}

/* Whether launcher `inner` says of itself that it runs inside others. RANK and WORLD_SIZE may also
 * have been set by hand, or be left over. */
static bool says_inner(int inner)
{
    return inner == BY_SOULCHAT || inner == BY_MPIRUN ||
           (inner == BY_TORCHRUN && getenv("TORCHELASTIC_RUN_ID") != NULL);
}

static err_t choose(int *out, const struct claim claims[LAUNCHERS])
{
    *out = -1;
    for (int i = 0; i < LAUNCHERS; i++) {
        if (!claims[i].present) continue;
        if (*out < 0) *out = i;
        const struct claim *a = &claims[*out], *b = &claims[i];
        /* The launcher that set RANK for us set nothing as torchrun. */
        if (i == *out || (*out == BY_SOULCHAT && i == BY_TORCHRUN)) continue;
        if (says_inner(*out) || b->size == 1 || (a->rank == b->rank && a->size == b->size))
            continue;
        RAISE(USAGE,
              "environment: %s=%lld of %s=%lld, but %s=%lld of %s=%lld; unset those that are not "
              "meant",
              a->rank_name, (long long)a->rank, launchers[*out].size, (long long)a->size,
              b->rank_name, (long long)b->rank, launchers[i].size, (long long)b->size);
    }
    return ERR_OK;
}

/* ---- where rank 0 is ---- */

err_t ranks_first_host(char *out, int64_t out_size, const char *list)
{
    int64_t length = 0;
    for (const char *c = list; *c != '\0' && *c != ','; c++) {
        const char *from = c, *to = c + 1;
        if (*c == '[') { /* of a range or a list, its first number as it is written */
            from = c + 1;
            to = from + strcspn(from, "-,]");
            c = strchr(from, ']');
            if (c == NULL || to == from)
                RAISE(USAGE, "environment: \"%s\" is no list of hosts", list);
        }
        if (length + (to - from) >= out_size)
            RAISE(USAGE, "environment: the first host of \"%.100s\" is too long", list);
        memcpy(out + length, from, (size_t)(to - from));
        length += to - from;
    }
    if (length == 0) RAISE(USAGE, "environment: \"%s\" is no list of hosts", list);
    out[length] = '\0';
    return ERR_OK;
}

static err_t set_host(struct ranks_place *place, const char *host)
{
    if (strlen(host) >= sizeof place->host)
        RAISE(USAGE, "environment: MASTER_ADDR=%.50s... is too long", host);
    memcpy(place->host, host, strlen(host) + 1);
    return ERR_OK;
}

static err_t find_host(struct ranks_place *place, int by)
{
    const char *master = value_of("MASTER_ADDR"), *nodes = value_of("SLURM_STEP_NODELIST");
    if (master != NULL) return set_host(place, master);
    if (by == BY_MPIRUN) {
        const char *local = value_of("OMPI_COMM_WORLD_LOCAL_SIZE");
        if (local != NULL && strcmp(local, value_of("OMPI_COMM_WORLD_SIZE")) == 0)
            return set_host(place, "127.0.0.1");
    }
    if (nodes == NULL) nodes = value_of("SLURM_JOB_NODELIST");
    if (by == BY_SRUN && nodes != NULL)
        return ranks_first_host(place->host, (int64_t)sizeof place->host, nodes);
    RAISE(USAGE, "environment: %lld ranks, and MASTER_ADDR does not say on which host rank 0 is%s",
          (long long)place->size, by == BY_MPIRUN ? " (mpirun -x MASTER_ADDR=HOST)" : "");
}

static int port_of_name(const char *name)
{
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (const char *c = name; *c != '\0'; c++) hash = (hash ^ (uint8_t)*c) * 16777619u;
    return PORT_FIRST + (int)(hash % PORT_COUNT);
}

static err_t find_port(struct ranks_place *place, int by)
{
    int64_t port = PORT_DEFAULT;
    if (env_get("SOULCHAT_PORT") != NULL && by != BY_SOULCHAT) {
        TRY(read_number(&port, "SOULCHAT_PORT", 1, 65535));
    } else if (value_of("MASTER_PORT") != NULL) {
        TRY(read_number(&port, "MASTER_PORT", 1, 65534));
        if (by == BY_TORCHRUN && getenv("TORCHELASTIC_RUN_ID") != NULL) port++;
    } else if (place->job[0] != '\0') {
        port = port_of_name(place->job);
    }
    place->port = (int)port;
    return ERR_OK;
}

static void find_job(struct ranks_place *place, int by)
{
    static const char *const names[LAUNCHERS][2] = {
        [BY_TORCHRUN] = { "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT" },
        [BY_MPIRUN] = { "PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid" },
        [BY_SRUN] = { "SLURM_JOB_ID", "SLURM_STEP_ID" },
    };
    const char *own = env_get("SOULCHAT_JOB");
    const char *first = value_of(names[by][0]), *second = value_of(names[by][1]);
    if (own != NULL)
        snprintf(place->job, sizeof place->job, "%s", own);
    else if (first != NULL || second != NULL)
        snprintf(place->job, sizeof place->job, "%s %.100s.%.100s", launchers[by].name,
                 first != NULL ? first : "", second != NULL ? second : "");
}

/* The descriptor that ranks_launch left open for rank 0. */
static err_t find_listener(struct ranks_place *place)
{
    int64_t fd;
    if (place->rank != 0) return ERR_OK;
    TRY(read_number(&fd, "SOULCHAT_LAUNCH", 3, 1 << 20));
    place->listen_fd = (int)fd;
    return ERR_OK;
}

err_t ranks_find(struct ranks_place *out)
{
    struct claim claims[LAUNCHERS];
    int by;
    *out = (struct ranks_place){ .size = 1, .listen_fd = -1 };
    for (int i = 0; i < LAUNCHERS; i++) TRY(read_claim(&claims[i], &launchers[i]));
    TRY(choose(&by, claims));
    if (by < 0) return ERR_OK;
    out->rank = claims[by].rank;
    out->size = claims[by].size;
    out->local_rank = claims[by].local_rank;
    out->launcher = launchers[by].name;
    if (out->size == 1) return ERR_OK;
    find_job(out, by);
    TRY(find_host(out, by));
    TRY(find_port(out, by));
    return by == BY_SOULCHAT ? find_listener(out) : ERR_OK;
}

/* Our own launcher gives all ranks the same variables: one GPU is then too few for them. */
static bool sees_one_gpu(const struct ranks_place *place)
{
    const char *visible = value_of("CUDA_VISIBLE_DEVICES");
    if (strcmp(place->launcher, launchers[BY_SOULCHAT].name) == 0) return false;
    return visible != NULL && strchr(visible, ',') == NULL;
}

const char *ranks_device(char out[RANKS_DEVICE_MAX], const char *device,
                         const struct ranks_place *place)
{
    if (place->size == 1 || strcmp(device, "cuda") != 0) return device;
    const int64_t number = sees_one_gpu(place) ? 0 : place->local_rank;
    snprintf(out, RANKS_DEVICE_MAX, "cuda:%lld", (long long)number);
    return out;
}
