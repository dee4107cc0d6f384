#include "train/comm_ring.h"

#include "base/check.h"
#include "base/fault.h"
#include "base/num.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ALL_RINGS_BYTES (INT64_C(64) << 20)
#define RING_BYTES_MAX  (INT64_C(1) << 20)

static const uint8_t ring_magic[8] = { 's', 'o', 'u', 'l', 'r', 'i', 'n', 'g' };

STATIC_ASSERT(sizeof(struct ring_bell) == RING_LINE, "a bell fills a line");
STATIC_ASSERT(sizeof(struct ring_ends) == 2 * RING_LINE, "each end fills a line");

/* ---- the memory ---- */

static int64_t ring_bytes_for(int64_t size)
{
    int64_t bytes = RING_BYTES_MAX;
    while (bytes * size * size > ALL_RINGS_BYTES) bytes /= 2;
    return bytes;
}

/* Where the parts begin. */
static int64_t bells_at(void)
{
    return (int64_t)(sizeof(struct ring_head) + RING_LINE - 1) / RING_LINE * RING_LINE;
}

static int64_t ends_at(int64_t size)
{
    return bells_at() + size * (int64_t)sizeof(struct ring_bell);
}

static int64_t data_at(int64_t size)
{
    return ends_at(size) + size * size * (int64_t)sizeof(struct ring_ends);
}

static int64_t memory_bytes(int64_t size)
{
    return data_at(size) + size * size * ring_bytes_for(size);
}

static err_t fill_memory(int fd, int64_t size)
{
    struct ring_head head = { .size = size, .ring_bytes = ring_bytes_for(size) };
    const int64_t bytes = memory_bytes(size);
    memcpy(head.magic, ring_magic, sizeof head.magic);
    /* Taken now: memory that is missing later would be a SIGBUS. */
    if (fault_point("comm.shm") != ERR_OK || ftruncate(fd, bytes) != 0 ||
        fallocate(fd, 0, 0, bytes) != 0)
        RAISE(NOMEM, "communicator shm: %lld bytes of shared memory wanted: %s", (long long)bytes,
              strerror(errno));
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0 ||
        pwrite(fd, &head, sizeof head, 0) != (ssize_t)sizeof head)
        RAISE(COMM, "communicator shm: shared memory: %s", strerror(errno));
    return ERR_OK;
}

err_t ring_create(int *fd, char *path, int64_t path_size, int64_t size)
{
    ASSERT(size >= 1);
    *fd = -1;
    if (size > RING_RANKS_MAX)
        RAISE(ARG, "communicator shm: %lld ranks, at most %d", (long long)size, RING_RANKS_MAX);
    *fd = memfd_create("soulchat-ranks", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (*fd < 0) RAISE(COMM, "communicator shm: no shared memory: %s", strerror(errno));
    const err_t rc = fill_memory(*fd, size);
    if (rc != ERR_OK) {
        close(*fd);
        *fd = -1;
        return rc;
    }
    const int length = snprintf(path, (size_t)path_size, "/proc/%d/fd/%d", (int)getpid(), *fd);
    ASSERT(length > 0 && length < path_size);
    return ERR_OK;
}

static err_t map_file(struct ring_map *map, int fd, const char *path, int64_t size)
{
    struct stat st;
    const int64_t bytes = memory_bytes(size);
    if (fstat(fd, &st) != 0 || st.st_size != bytes)
        RAISE(COMM, "communicator shm: %s holds %lld bytes, %lld expected for %lld ranks", path,
              (long long)st.st_size, (long long)bytes, (long long)size);
    char *base = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) RAISE(NOMEM, "communicator shm: %s: %s", path, strerror(errno));
    *map = (struct ring_map){
        .head = (struct ring_head *)base,
        .bells = (struct ring_bell *)(base + bells_at()),
        .ends = (struct ring_ends *)(base + ends_at(size)),
        .data = base + data_at(size),
        .bytes = bytes,
    };
    if (memcmp(map->head->magic, ring_magic, sizeof ring_magic) != 0 || map->head->size != size ||
        map->head->ring_bytes != ring_bytes_for(size)) {
        ring_close(map);
        RAISE(COMM, "communicator shm: %s is not the memory of this run", path);
    }
    return ERR_OK;
}

err_t ring_open(struct ring_map *map, const char *path, int64_t size)
{
    memset(map, 0, sizeof *map);
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        RAISE(COMM,
              "communicator shm: %s: %s; its ranks are processes of one user on one machine (and "
              "in one container)",
              path, strerror(errno));
    const err_t rc = map_file(map, fd, path, size);
    if (rc != ERR_OK) memset(map, 0, sizeof *map);
    close(fd);
    return rc;
}

void ring_close(struct ring_map *map)
{
    if (map->head != NULL) munmap(map->head, (size_t)map->bytes);
    memset(map, 0, sizeof *map);
}

/* ---- bytes ---- */

static struct ring_ends *ends_of(const struct ring_map *map, int64_t from, int64_t to)
{
    return &map->ends[from * map->head->size + to];
}

static char *data_of(const struct ring_map *map, int64_t from, int64_t to)
{
    return map->data + (from * map->head->size + to) * map->head->ring_bytes;
}

int64_t ring_filled(const struct ring_map *map, int64_t from, int64_t to)
{
    const struct ring_ends *ends = ends_of(map, from, to);
    return (int64_t)(atomic_load_explicit(&ends->written, memory_order_acquire) -
                     atomic_load_explicit(&ends->read, memory_order_acquire));
}

int64_t ring_room(const struct ring_map *map, int64_t from, int64_t to)
{
    return map->head->ring_bytes - ring_filled(map, from, to);
}

int64_t ring_write(struct ring_map *map, int64_t from, int64_t to, const void *bytes, int64_t count)
{
    const int64_t ring_bytes = map->head->ring_bytes, n = min_i64(count, ring_room(map, from, to));
    struct ring_ends *ends = ends_of(map, from, to);
    const uint64_t written = atomic_load_explicit(&ends->written, memory_order_relaxed);
    const int64_t at = (int64_t)(written % (uint64_t)ring_bytes);
    const int64_t first = min_i64(n, ring_bytes - at);
    if (n <= 0) return 0;
    char *data = data_of(map, from, to);
    memcpy(data + at, bytes, (size_t)first);
    if (n > first) memcpy(data, (const char *)bytes + first, (size_t)(n - first));
    atomic_store_explicit(&ends->written, written + (uint64_t)n, memory_order_release);
    return n;
}

int64_t ring_read(struct ring_map *map, int64_t from, int64_t to, void *bytes, int64_t count)
{
    const int64_t ring_bytes = map->head->ring_bytes;
    const int64_t n = min_i64(count, ring_filled(map, from, to));
    struct ring_ends *ends = ends_of(map, from, to);
    const uint64_t read = atomic_load_explicit(&ends->read, memory_order_relaxed);
    const int64_t at = (int64_t)(read % (uint64_t)ring_bytes);
    const int64_t first = min_i64(n, ring_bytes - at);
    if (n <= 0) return 0;
    const char *data = data_of(map, from, to);
    memcpy(bytes, data + at, (size_t)first);
    if (n > first) memcpy((char *)bytes + first, data, (size_t)(n - first));
    atomic_store_explicit(&ends->read, read + (uint64_t)n, memory_order_release);
    return n;
}

/* ---- bells ---- */

uint32_t bell_ticket(struct ring_map *map, int64_t rank)
{
    return atomic_load(&map->bells[rank].count);
}

void bell_ring(struct ring_map *map, int64_t rank)
{
    struct ring_bell *bell = &map->bells[rank];
    atomic_fetch_add(&bell->count, 1);
    /* Sequentially consistent on both sides: either we see the sleeper, or it sees the count. */
    if (atomic_load(&bell->sleeping) != 0)
        syscall(SYS_futex, &bell->count, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

void bell_sleep(struct ring_map *map, int64_t rank, uint32_t ticket, double seconds)
{
    struct ring_bell *bell = &map->bells[rank];
    const struct timespec limit = { .tv_sec = (time_t)seconds,
                                    .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9) };
    atomic_store(&bell->sleeping, 1);
    if (atomic_load(&bell->count) == ticket)
        syscall(SYS_futex, &bell->count, FUTEX_WAIT, ticket, &limit, NULL, 0);
    atomic_store(&bell->sleeping, 0);
}

/* ---- giving up ---- */

void ring_abort(struct ring_map *map, int64_t rank, const char *cause)
{
    int nobody = 0;
    if (!atomic_compare_exchange_strong(&map->head->aborted_by, &nobody, -1)) return;
    snprintf(map->head->cause, sizeof map->head->cause, "%s", cause);
    atomic_store(&map->head->aborted_by, (int)rank + 1);
    for (int64_t i = 0; i < map->head->size; i++) bell_ring(map, i);
}

err_t ring_check(const struct ring_map *map)
{
    const int by = atomic_load(&map->head->aborted_by);
    if (by <= 0) return ERR_OK; /* below 0 its cause is being written: the bell will ring */
    RAISE(COMM, "rank %d gave up: %s", by - 1, map->head->cause);
}
