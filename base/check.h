/*
 * check.h - broken invariants stop the program, in release builds too: a training run whose
 * invariants do not hold is worth less than a stopped one. ASSERT_SLOW is for hot inner loops
 * and compiles away unless SOULCHAT_SLOW_CHECKS is defined (the asan preset defines it).
 */
#ifndef BASE_CHECK_H
#define BASE_CHECK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Print "file:line: ASSERT(expr)" with a backtrace to stderr and abort. */
__attribute__((noreturn)) void check_failed(const char *file, int line, const char *expr);

#define ASSERT(expr) ((expr) ? (void)0 : check_failed(__FILE__, __LINE__, #expr))

#ifdef SOULCHAT_SLOW_CHECKS
#define ASSERT_SLOW(expr) ASSERT(expr)
#else
#define ASSERT_SLOW(expr) ((void)sizeof(!(expr)))
#endif

#ifdef __cplusplus
#define STATIC_ASSERT(expr, text) static_assert(expr, text)
#else
#define STATIC_ASSERT(expr, text) _Static_assert(expr, text)
#endif
#define COUNT_OF(array)           ((int64_t)(sizeof(array) / sizeof((array)[0])))

/* Files are read and written as they lie in memory, and sizes are 64 bit. */
STATIC_ASSERT(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "soulchat needs a little-endian machine");
STATIC_ASSERT(sizeof(void *) == 8, "soulchat needs a 64-bit machine");

#ifdef __cplusplus
}
#endif
#endif
