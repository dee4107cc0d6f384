/*
 * pool.h - worker threads that finish items in the order they were given.
 *
 *     TRY(pool_open(&pool, threads, slots, work, context));
 *     while (there is more) {
 *         if (pool_in_flight(pool) == slots) { TRY_DONE(pool_take(pool, &item)); use(item); }
 *         pool_put(pool, item);
 *     }
 *     while (pool_in_flight(pool) > 0) { TRY_DONE(pool_take(pool, &item)); use(item); }
 *     pool_close(pool);
 *
 * One thread puts and takes; `work` runs on the others, one item on one thread. The order of taking
 * is that of putting, so results do not depend on the number of threads.
 */
#ifndef DATA_POOL_H
#define DATA_POOL_H

#include "base/err.h"

#include <stdint.h>

/* Done by a worker; its error reaches the pool_take of that item with its record. */
typedef err_t (*pool_work)(const void *context, void *item);

struct pool;

/* `slots` items may be in flight, at least one. ERR_NOMEM when threads cannot be had. */
MUST_USE err_t pool_open(struct pool **out, int64_t threads, int64_t slots, pool_work work,
                         const void *context);
/* Queue an item, which is borrowed until it is taken; ASSERTs that a slot is free. */
void pool_put(struct pool *p, void *item);
/* Wait for the oldest item; ASSERTs that there is one. Returns what its work returned. */
MUST_USE err_t pool_take(struct pool *p, void **item);
int64_t pool_in_flight(const struct pool *p);
/* Items not begun are not worked on any more. NULL allowed. */
void pool_close(struct pool *p);

#endif
