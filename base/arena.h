/*
 * arena.h - a bump allocator: one block, pushes in order, freed together. For data whose lifetimes
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
    struct arena_block *head;  /* in use, the newest first */
    struct arena_block *spare; /* kept by arena_reset for the next pushes */
    int64_t used_bytes;     /* handed out since init or reset */
    int64_t used_bytes_max; /* high-water mark */
};

/* Zeroed memory; bytes >= 0, align a power of two <= 4096. ERR_NOMEM names the bytes wanted. */
MUST_USE err_t arena_push(struct arena *a, void **out, int64_t bytes, int64_t align);
/* Everything handed out is gone; the memory is kept (with SOULCHAT_ARENA=malloc it is released). */
void arena_reset(struct arena *a);
/* Memory released; used_bytes_max is kept for a report. */
void arena_clear(struct arena *a);

#ifdef __cplusplus
}
#endif
#endif
