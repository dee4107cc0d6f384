/*
 * starved.h - whether a library that says only "failed" did so for want of memory: an allocator for
 * it that notes failures, per thread, like the record of an error (base/err.h).
 *
 *     json_set_alloc_funcs(starved_malloc, free);
 *     starved_reset();
 *     value = json_loadb(...);
 *     if (starved()) RAISE(NOMEM, ...);
 */
#ifndef BASE_STARVED_H
#define BASE_STARVED_H

#include <stdbool.h>
#include <stddef.h>

void *starved_malloc(size_t size);
void starved_reset(void);
/* Whether an allocation of this thread failed since. */
bool starved(void);

#endif
