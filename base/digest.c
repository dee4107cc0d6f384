#include "base/digest.h"

#include "base/digest_impl.h"

#include <string.h>

/* ---- crc32c: polynomial 0x1edc6f41, reflected ---- */

/* The table is linear in its index, so eight constants, one for each bit, make all of it:
 * CRC_BIT_b is (1 << b) divided through eight steps of the reflected polynomial 0x82f63b78. */
#define CRC_BIT(i, b, k)   (((i) >> (b) & 1u) * (k))
#define CRC_1(i)                                                                                   \
    (CRC_BIT(i, 0, 0xf26b8303u) ^ CRC_BIT(i, 1, 0xe13b70f7u) ^ CRC_BIT(i, 2, 0xc79a971fu) ^        \
     CRC_BIT(i, 3, 0x8ad958cfu) ^ CRC_BIT(i, 4, 0x105ec76fu) ^ CRC_BIT(i, 5, 0x20bd8edeu) ^        \
     CRC_BIT(i, 6, 0x417b1dbcu) ^ CRC_BIT(i, 7, 0x82f63b78u))
#define CRC_4(i)           CRC_1(i), CRC_1((i) + 1u), CRC_1((i) + 2u), CRC_1((i) + 3u)
#define CRC_16(i)          CRC_4(i), CRC_4((i) + 4u), CRC_4((i) + 8u), CRC_4((i) + 12u)
#define CRC_64(i)          CRC_16(i), CRC_16((i) + 16u), CRC_16((i) + 32u), CRC_16((i) + 48u)

static const uint32_t crc_table[256] = { CRC_64(0u), CRC_64(64u), CRC_64(128u), CRC_64(192u) };

uint32_t digest_crc32c_plain(uint32_t crc, const void *bytes, size_t size)
{
    const uint8_t *p = bytes;
    crc = ~crc;
    for (size_t i = 0; i < size; i++) crc = crc >> 8 ^ crc_table[(crc ^ p[i]) & 0xffu];
    return ~crc;
}

uint32_t crc32c(uint32_t crc, const void *bytes, size_t size)
{
    const digest_crc32c_fn hardware = digest_crc32c_hardware();
    return (hardware ? hardware : digest_crc32c_plain)(crc, bytes, size);
}

/* ---- sha256 ---- */

const uint32_t digest_sha256_k[64] = {
    0x428a2f98u, 0x71374491u, 0xb5c0fbcfu, 0xe9b5dba5u, 0x3956c25bu, 0x59f111f1u, 0x923f82a4u,
    0xab1c5ed5u, 0xd807aa98u, 0x12835b01u, 0x243185beu, 0x550c7dc3u, 0x72be5d74u, 0x80deb1feu,
    0x9bdc06a7u, 0xc19bf174u, 0xe49b69c1u, 0xefbe4786u, 0x0fc19dc6u, 0x240ca1ccu, 0x2de92c6fu,
    0x4a7484aau, 0x5cb0a9dcu, 0x76f988dau, 0x983e5152u, 0xa831c66du, 0xb00327c8u, 0xbf597fc7u,
    0xc6e00bf3u, 0xd5a79147u, 0x06ca6351u, 0x14292967u, 0x27b70a85u, 0x2e1b2138u, 0x4d2c6dfcu,
    0x53380d13u, 0x650a7354u, 0x766a0abbu, 0x81c2c92eu, 0x92722c85u, 0xa2bfe8a1u, 0xa81a664bu,
    0xc24b8b70u, 0xc76c51a3u, 0xd192e819u, 0xd6990624u, 0xf40e3585u, 0x106aa070u, 0x19a4c116u,
    0x1e376c08u, 0x2748774cu, 0x34b0bcb5u, 0x391c0cb3u, 0x4ed8aa4au, 0x5b9cca4fu, 0x682e6ff3u,
    0x748f82eeu, 0x78a5636fu, 0x84c87814u, 0x8cc70208u, 0x90befffau, 0xa4506cebu, 0xbef9a3f7u,
    0xc67178f2u,
};

static inline uint32_t rotr(uint32_t x, int n) { return x >> n | x << (32 - n); }

/* Big-endian, as the standard reads its words. */
static inline uint32_t load_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void store_be32(uint8_t *p, uint32_t x)
{
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(x >> (24 - 8 * i));
}

static void expand_message(uint32_t w[64], const uint8_t *block)
{
    for (int t = 0; t < 16; t++) w[t] = load_be32(block + 4 * t);
    for (int t = 16; t < 64; t++) {
        const uint32_t s0 = rotr(w[t - 15], 7) ^ rotr(w[t - 15], 18) ^ w[t - 15] >> 3;
        const uint32_t s1 = rotr(w[t - 2], 17) ^ rotr(w[t - 2], 19) ^ w[t - 2] >> 10;
        w[t] = w[t - 16] + s0 + w[t - 7] + s1;
    }
}

void digest_sha256_plain(uint32_t state[8], const uint8_t *blocks, size_t count)
{
    for (; count > 0; count--, blocks += 64) {
        uint32_t w[64];
        expand_message(w, blocks);
        uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
        uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
        for (int t = 0; t < 64; t++) {
            const uint32_t sum1 = rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25);
            const uint32_t t1 = h + sum1 + ((e & f) ^ (~e & g)) + digest_sha256_k[t] + w[t];
            const uint32_t sum0 = rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22);
            const uint32_t t2 = sum0 + ((a & b) ^ (a & c) ^ (b & c));
            h = g, g = f, f = e, e = d + t1;
            d = c, c = b, b = a, a = t1 + t2;
        }
        state[0] += a, state[1] += b, state[2] += c, state[3] += d;
        state[4] += e, state[5] += f, state[6] += g, state[7] += h;
    }
}

void sha256_init(struct sha256 *s)
{
    *s = (struct sha256){ .state = { 0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au,
                                     0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u } };
}

void sha256_update(struct sha256 *s, const void *bytes, size_t size)
{
    const digest_sha256_fn hardware = digest_sha256_hardware();
    const digest_sha256_fn take = hardware ? hardware : digest_sha256_plain;
    const uint8_t *p = bytes;
    const size_t held = s->byte_count % 64;
    s->byte_count += size;

    if (held > 0) {
        const size_t wanted = size < 64 - held ? size : 64 - held;
        if (wanted > 0) memcpy(s->block + held, p, wanted);
        if (held + wanted < 64) return;
        take(s->state, s->block, 1);
        p += wanted;
        size -= wanted;
    }
    take(s->state, p, size / 64);
    if (size % 64 > 0) memcpy(s->block, p + size / 64 * 64, size % 64);
}

void sha256_final(struct sha256 *s, uint8_t digest[SHA256_BYTES])
{
    /* A one bit, zeros up to 56 modulo 64, then the length in bits as a big-endian 64-bit word. */
    uint8_t tail[128] = { 0x80 };
    const uint64_t bit_count = s->byte_count * 8;
    const size_t held = s->byte_count % 64;
    const size_t zeros_end = (held < 56 ? 56 : 120) - held;
    store_be32(tail + zeros_end, (uint32_t)(bit_count >> 32));
    store_be32(tail + zeros_end + 4, (uint32_t)bit_count);
    sha256_update(s, tail, zeros_end + 8);
    for (int i = 0; i < 8; i++) store_be32(digest + 4 * i, s->state[i]);
}

void sha256_of(uint8_t digest[SHA256_BYTES], const void *bytes, size_t size)
{
    struct sha256 s;
    sha256_init(&s);
    sha256_update(&s, bytes, size);
    sha256_final(&s, digest);
}

void sha256_hex(char hex[SHA256_HEX_SIZE], const uint8_t digest[SHA256_BYTES])
{
    for (int i = 0; i < SHA256_BYTES; i++) {
        hex[2 * i] = "0123456789abcdef"[digest[i] >> 4];
        hex[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
    }
    hex[SHA256_HEX_SIZE - 1] = '\0';
}
