/*
 * fuzz.h - the function that every fuzz_<name>.c defines. It feeds the bytes to one parser and
 * returns 0; whatever the bytes are, the parser must return, free what it took, and stay within
 * its memory. Properties are ASSERTed (base/check.h), so that breaking one is a crash.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

#ifdef __cplusplus
}
#endif
#endif
