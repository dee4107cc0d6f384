/* digest.h: published vectors, and the instructions of the CPU against the plain loops. */
#include "testing.h"

#include "base/digest.h"
#include "base/digest_impl.h"

#include <stdlib.h>
#include <string.h>

static void assert_sha256(const char *expected, const void *bytes, size_t size)
{
    uint8_t digest[SHA256_BYTES];
    char hex[SHA256_HEX_SIZE];
    sha256_of(digest, bytes, size);
    sha256_hex(hex, digest);
    assert_string_equal(hex, expected);
}

/* FIPS 180-4's examples, the empty message, and a million letters. */
static void test_sha256_vectors(void **state)
{
    (void)state;
    assert_sha256("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", NULL, 0);
    assert_sha256("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "abc", 3);
    const char *two = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    assert_sha256("248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1", two,
                  strlen(two));
    char *million = malloc(1000000);
    assert_non_null(million);
    memset(million, 'a', 1000000);
    assert_sha256("cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0", million,
                  1000000);
    free(million);
}

static void fill(uint8_t *bytes, size_t size)
{
    uint32_t x = 1;
    for (size_t i = 0; i < size; i++) {
        x = x * 1664525u + 1013904223u;
        bytes[i] = (uint8_t)(x >> 24);
    }
}

/* However a message is cut into updates, the digest is that of the whole. */
static void test_sha256_pieces(void **state)
{
    (void)state;
    uint8_t bytes[300], whole[SHA256_BYTES], pieces[SHA256_BYTES];
    fill(bytes, sizeof bytes);
    for (size_t size = 0; size <= sizeof bytes; size++) {
        sha256_of(whole, bytes, size);
        for (size_t first = 0; first <= size; first += 7) {
            struct sha256 s;
            sha256_init(&s);
            sha256_update(&s, bytes, first);
            sha256_update(&s, bytes + first, 0);
            sha256_update(&s, bytes + first, size - first);
            sha256_final(&s, pieces);
            assert_memory_equal(pieces, whole, SHA256_BYTES);
        }
    }
}

static void test_sha256_hardware(void **state)
{
    (void)state;
    const digest_sha256_fn hardware = digest_sha256_hardware();
    if (hardware == NULL) skip();
    uint8_t blocks[64 * 9 + 1];
    fill(blocks, sizeof blocks);
    for (size_t count = 0; count <= 9; count++) {
        uint32_t a[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, b[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
        hardware(a, blocks + 1, count); /* unaligned */
        digest_sha256_plain(b, blocks + 1, count);
        assert_memory_equal(a, b, sizeof a);
    }
}

/* The check value of the polynomial, and the four patterns of RFC 3720, appendix B.4. */
static void test_crc32c_vectors(void **state)
{
    (void)state;
    uint8_t bytes[32];
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283u);
    assert_int_equal(digest_crc32c_plain(0, "123456789", 9), 0xe3069283u);
    assert_int_equal(crc32c(0, NULL, 0), 0);
    memset(bytes, 0, 32);
    assert_int_equal(crc32c(0, bytes, 32), 0x8a9136aau);
    memset(bytes, 0xff, 32);
    assert_int_equal(crc32c(0, bytes, 32), 0x62a8ab43u);
    for (int i = 0; i < 32; i++) bytes[i] = (uint8_t)i;
    assert_int_equal(crc32c(0, bytes, 32), 0x46dd794eu);
    for (int i = 0; i < 32; i++) bytes[i] = (uint8_t)(31 - i);
    assert_int_equal(crc32c(0, bytes, 32), 0x113fdb5cu);
}

static void test_crc32c_paths(void **state)
{
    (void)state;
    const digest_crc32c_fn hardware = digest_crc32c_hardware();
    uint8_t bytes[200];
    fill(bytes, sizeof bytes);
    const uint32_t whole = crc32c(0, bytes, sizeof bytes);
    for (size_t first = 0; first <= sizeof bytes; first++) {
        const uint32_t part = crc32c(0, bytes, first);
        assert_int_equal(crc32c(part, bytes + first, sizeof bytes - first), whole);
        assert_int_equal(digest_crc32c_plain(0, bytes, first), part);
        if (hardware != NULL) assert_int_equal(hardware(0, bytes, first), part);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256_vectors),  cmocka_unit_test(test_sha256_pieces),
        cmocka_unit_test(test_sha256_hardware), cmocka_unit_test(test_crc32c_vectors),
        cmocka_unit_test(test_crc32c_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
