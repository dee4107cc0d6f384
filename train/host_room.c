#include "train/host_room.h"

#include "base/digest.h"
#include "base/num.h"
#include "train/comm.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The number behind `key` on a line of its own, or alone in the file (key ""). */
static bool read_number(int64_t *out, const char *path, const char *key)
{
    char line[256];
    bool found = false;
    FILE *file = fopen(path, "re");
    if (file == NULL) return false;
    while (!found && fgets(line, sizeof line, file) != NULL)
        found = strncmp(line, key, strlen(key)) == 0 &&
                sscanf(line + strlen(key), "%" SCNd64, out) == 1;
    fclose(file);
    return found;
}

/* What the control group still allows; files that it has cached give way. */
static int64_t group_room(void)
{
    int64_t limit, used, cached = 0;
    if (!read_number(&limit, "/sys/fs/cgroup/memory.max", "") ||
        !read_number(&used, "/sys/fs/cgroup/memory.current", ""))
        return INT64_MAX;
    if (!read_number(&cached, "/sys/fs/cgroup/memory.stat", "inactive_file ")) cached = 0;
    return max_i64(0, limit - used + cached);
}

int64_t host_room(void)
{
    int64_t kib;
    if (!read_number(&kib, "/proc/meminfo", "MemAvailable:")) return group_room();
    return min_i64(kib * 1024, group_room());
}

/* What tells this machine from others while it runs; 0 where it does not say. */
static int64_t machine_id(void)
{
    char text[64] = "";
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (file == NULL) return 0;
    const bool found = fgets(text, sizeof text, file) != NULL;
    fclose(file);
    return found ? crc32c(0, text, strlen(text)) : 0;
}

struct wanted {
    int64_t machine, bytes;
};

static err_t bytes_of_machine(int64_t *out, int64_t bytes, struct comm *comm)
{
    *out = bytes;
    if (comm == NULL) return ERR_OK;
    const struct wanted mine = { .machine = machine_id(), .bytes = bytes };
    struct wanted all[COMM_SIZE_MAX];
    TRY(comm_gather_host(comm, all, &mine, sizeof mine));
    *out = 0;
    for (int64_t i = 0; i < comm_size(comm); i++)
        if (all[i].machine == mine.machine) *out += all[i].bytes;
    return ERR_OK;
}

bool host_room_holds(int64_t room, int64_t wanted)
{
    return wanted <= room - room / HOST_ROOM_SPARE;
}

err_t host_room_check(int64_t bytes, struct comm *comm, const char *what)
{
    int64_t wanted;
    TRY(bytes_of_machine(&wanted, bytes, comm));
    const int64_t room = host_room();
    if (host_room_holds(room, wanted)) return ERR_OK;
    RAISE(NOMEM, "%s: %.3f GB of host memory wanted, %.3f GB available", what, (double)wanted / 1e9,
          (double)room / 1e9);
}
