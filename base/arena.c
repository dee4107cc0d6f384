#include "base/arena.h"

#include "base/check.h"
#include "base/env.h"
#include "base/fault.h"
#include "base/num.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN_MAX       4096
#define BLOCK_BYTES_MIN ((int64_t)1 << 16)
#define BLOCK_BYTES_TOP ((int64_t)1 << 26) /* blocks double up to this size */

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
void __asan_poison_memory_region(void const volatile *addr, size_t size);
void __asan_unpoison_memory_region(void const volatile *addr, size_t size);
#define POISON(at, bytes)   __asan_poison_memory_region(at, (size_t)(bytes))
#define UNPOISON(at, bytes) __asan_unpoison_memory_region(at, (size_t)(bytes))
#define RED_ZONE_BYTES      32
#else
#define POISON(at, bytes)   ((void)(at), (void)(bytes))
#define UNPOISON(at, bytes) ((void)(at), (void)(bytes))
#define RED_ZONE_BYTES      0
#endif

struct arena_block {
    struct arena_block *next;
    int64_t capacity;
    int64_t used;
    bool is_single; /* SOULCHAT_ARENA=malloc: holds one object, exactly */
    uint8_t bytes[];
};

/* Where the next object would begin, and with it whether it fits. */
static bool fits(int64_t *offset, const struct arena_block *block, int64_t bytes, int64_t align)
{
    const uintptr_t free_at = (uintptr_t)block->bytes + (uintptr_t)block->used;
    const uintptr_t at = (free_at + (uintptr_t)align - 1) & ~((uintptr_t)align - 1);
    *offset = (int64_t)(at - (uintptr_t)block->bytes);
    return *offset <= block->capacity && bytes <= block->capacity - *offset;
}

/* A new head of at least `bytes`. */
static err_t add_block(struct arena *a, int64_t bytes, int64_t align)
{
    const char *mode = a->head ? NULL : env_get("SOULCHAT_ARENA");
    const bool is_single = a->head ? a->head->is_single : mode && strcmp(mode, "malloc") == 0;
    int64_t capacity = a->head ? min_i64(2 * a->head->capacity, BLOCK_BYTES_TOP) : BLOCK_BYTES_MIN;
    int64_t needed, total;
    const bool is_size = checked_add(&needed, bytes, align - 1);
    capacity = is_size && (is_single || needed > capacity) ? needed : capacity;

    struct arena_block *block = NULL;
    if (is_size && checked_add(&total, capacity, (int64_t)sizeof *block) &&
        fault_point("arena.block") == ERR_OK)
        block = malloc((size_t)total);
    if (block == NULL) RAISE(NOMEM, "arena: %lld bytes wanted", (long long)bytes);
    *block = (struct arena_block){ a->head, capacity, 0, is_single };
    POISON(block->bytes, capacity);
    a->head = block;
    return ERR_OK;
}

err_t arena_push(struct arena *a, void **out, int64_t bytes, int64_t align)
{
    ASSERT(bytes >= 0);
    ASSERT(align > 0 && align <= ALIGN_MAX && (align & (align - 1)) == 0);
    int64_t offset;
    const bool has_room = a->head && !a->head->is_single && fits(&offset, a->head, bytes, align);
    if (!has_room) {
        TRY(add_block(a, bytes, align));
        ASSERT(fits(&offset, a->head, bytes, align));
    }
    uint8_t *at = a->head->bytes + offset;
    UNPOISON(at, bytes);
    memset(at, 0, (size_t)bytes);
    a->head->used = min_i64(offset + bytes + RED_ZONE_BYTES, a->head->capacity);
    *out = at;
    return ERR_OK;
}

void arena_clear(struct arena *a)
{
    while (a->head != NULL) {
        struct arena_block *block = a->head;
        a->head = block->next;
        UNPOISON(block->bytes, block->capacity);
        free(block);
    }
}
