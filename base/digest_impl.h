/*
 * digest_impl.h - the two ways to compute each digest, for digest.c, which chooses, and for the
 * tests, which compare. Include base/digest.h instead.
 */
#ifndef BASE_DIGEST_IMPL_H
#define BASE_DIGEST_IMPL_H

#include <stddef.h>
#include <stdint.h>

typedef uint32_t (*digest_crc32c_fn)(uint32_t crc, const void *bytes, size_t size);
/* Take `count` blocks of 64 bytes into the eight words of state. */
typedef void (*digest_sha256_fn)(uint32_t state[8], const uint8_t *blocks, size_t count);

extern const uint32_t digest_sha256_k[64]; /* the round constants of FIPS 180-4 */

uint32_t digest_crc32c_plain(uint32_t crc, const void *bytes, size_t size);
void digest_sha256_plain(uint32_t state[8], const uint8_t *blocks, size_t count);

/* What this CPU has instructions for; NULL when it has none. */
digest_crc32c_fn digest_crc32c_hardware(void);
digest_sha256_fn digest_sha256_hardware(void);

#endif
