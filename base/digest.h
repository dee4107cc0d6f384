/*
 * digest.h - crc32c (Castagnoli; SSE4.2 where the CPU has it, tables elsewhere) against
 * accidents, sha256 (FIPS 180-4; SHA extensions where present) for identity. Pure functions of
 * their bytes.
 */
#ifndef BASE_DIGEST_H
#define BASE_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Continue a crc32c; start with crc = 0. crc32c(0, "123456789", 9) == 0xe3069283. */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t size);

#define SHA256_BYTES    32
#define SHA256_HEX_SIZE 65 /* 64 digits and the NUL */

struct sha256 {
    uint32_t state[8];
    uint64_t byte_count;
    uint8_t block[64];
};

void sha256_init(struct sha256 *s);
void sha256_update(struct sha256 *s, const void *bytes, size_t size);
void sha256_final(struct sha256 *s, uint8_t digest[SHA256_BYTES]);
void sha256_of(uint8_t digest[SHA256_BYTES], const void *bytes, size_t size);
void sha256_hex(char hex[SHA256_HEX_SIZE], const uint8_t digest[SHA256_BYTES]);

#ifdef __cplusplus
}
#endif
#endif
