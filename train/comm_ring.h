/*
 * comm_ring.h - shared memory of the ranks of one machine: a ring of bytes from every rank to every
 * other, and a bell for each rank to sleep on. Private to train/comm_shm.c.
 *
 *     uint32_t ticket = bell_ticket(map, me);
 *     moved = ring_write(map, me, peer, bytes, count);    // as many as there is room for
 *     if (moved == 0) bell_sleep(map, me, ticket, 0.2);   // until someone rings, after the ticket
 *
 * The memory is a memfd, reached through /proc by those it was not inherited by: it has no name
 * that could stay behind, and it is gone with the last process that maps it.
 */
#ifndef TRAIN_COMM_RING_H
#define TRAIN_COMM_RING_H

#include "base/err.h"

#include <stdatomic.h>
#include <stdint.h>

#define RING_RANKS_MAX 64
#define RING_CAUSE_MAX 256
#define RING_LINE      64 /* what one rank writes and another reads lies a cache line apart */

/* At the start of the memory. */
struct ring_head {
    uint8_t magic[8];
    int64_t size, ring_bytes; /* ranks; bytes of one ring, a power of two */
    atomic_int aborted_by;    /* 0: nobody; rank + 1; -1: the cause is being written */
    char cause[RING_CAUSE_MAX];
};

struct ring_bell {
    _Alignas(RING_LINE) _Atomic uint32_t count;
    _Atomic uint32_t sleeping;
};

/* Positions count bytes since the start. */
struct ring_ends {
    _Alignas(RING_LINE) _Atomic uint64_t written;
    _Alignas(RING_LINE) _Atomic uint64_t read;
};

struct ring_map {
    struct ring_head *head;
    struct ring_bell *bells; /* [size] */
    struct ring_ends *ends;  /* [from, to] */
    char *data;              /* [from, to, ring_bytes] */
    int64_t bytes;
};

/* Rank 0: the memory, as a descriptor of this process and the path by which others find it. */
MUST_USE err_t ring_create(int *fd, char *path, int64_t path_size, int64_t size);
/* ERR_COMM: not there, or not for this many ranks. */
MUST_USE err_t ring_open(struct ring_map *map, const char *path, int64_t size);
void ring_close(struct ring_map *map);

/* Move up to `count` bytes; returns how many. The bytes to write, or the room, never wait. */
int64_t ring_write(struct ring_map *map, int64_t from, int64_t to, const void *bytes,
                   int64_t count);
int64_t ring_read(struct ring_map *map, int64_t from, int64_t to, void *bytes, int64_t count);
int64_t ring_room(const struct ring_map *map, int64_t from, int64_t to);
int64_t ring_filled(const struct ring_map *map, int64_t from, int64_t to);

uint32_t bell_ticket(struct ring_map *map, int64_t rank);
void bell_ring(struct ring_map *map, int64_t rank);
/* Returns when the bell has rung since the ticket was drawn, or after `seconds`, or earlier. */
void bell_sleep(struct ring_map *map, int64_t rank, uint32_t ticket, double seconds);

/* Tell all ranks, once: the first cause stays. */
void ring_abort(struct ring_map *map, int64_t rank, const char *cause);
/* ERR_COMM "rank 2 gave up: ..." after someone has. */
MUST_USE err_t ring_check(const struct ring_map *map);

#endif
