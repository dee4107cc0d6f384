/*
 * starved.h - whether a library that says only "failed" did so for want of memory: an allocator for
 * it that notes failures, per thread, like the record of an error (base/err.h).
 *
 *     json_set_alloc_funcs(starved_malloc, free);
 *     if (starved_begin(size)) value = json_loadb(text, size, ...);
 *     if (starved_end()) RAISE(NOMEM, ...);
 *
 * jansson does not look at all of its allocations: without one of them it goes on with a text that
 * lacks characters, up to an assertion of its own. So memory is set aside first, and given out from
 * the first failure on: the library comes to an end, and what it made is thrown away.
 */
#ifndef BASE_STARVED_H
#define BASE_STARVED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A failed allocation is noted and, where memory was set aside, tried again with that. */
void *starved_malloc(size_t size);
/* Sets memory aside, plenty for a JSON text of so many bytes and of no use to others; false: not
 * even that is there. A call of starved_end follows in any case. */
bool starved_begin(int64_t text_bytes);
/* Gives it back; whether an allocation of this thread failed since starved_begin. */
bool starved_end(void);
/* The same, later: until the next starved_begin. */
bool starved(void);

#endif
