/*
 * arena.h - a bump allocator: pushes in order, freed together. For data whose lifetimes
 * end together (a model's host tables, a batch). Under ASan gaps between objects are poisoned;
 * SOULCHAT_ARENA=malloc makes every push a malloc so that valgrind sees each object.
 * A zeroed struct is an empty arena that grows by blocks. One thread at a time.
 */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/err.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct arena_block;

struct arena {
    struct arena_block *head; /* the newest first */
};

/* Zeroed memory; bytes >= 0, align a power of two <= 4096. ERR_NOMEM names the bytes wanted. */
MUST_USE err_t arena_push(struct arena *a, void **out, int64_t bytes, int64_t align);
void arena_clear(struct arena *a);

#ifdef __cplusplus
}
#endif
#endif
