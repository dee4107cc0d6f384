/* Packed files: the text is what was packed, or the error says where it breaks. */
#include "testing.h"

#include "base/file.h"
#include "corpus_fixture.h"
#include "data/input.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SKIPPABLE "\x50\x2a\x4d\x18\x04\0\0\0abcd"

typedef void (*pack_fn)(struct buf *out, const void *bytes, int64_t size);

static const struct {
    const char *name;
    pack_fn pack;
} packings[] = { { "gzip", pack_gzip }, { "zstd", pack_zstd } };

/* All of the text, `step` bytes at a time. */
static err_t unpack(struct buf *text, const void *bytes, int64_t size, int64_t step)
{
    struct input in;
    int64_t got = step;
    buf_reset(text);
    TRY(input_open_memory(&in, "file", bytes, size));
    err_t rc = ERR_OK;
    while (rc == ERR_OK && got == step) {
        assert_ok(buf_reserve(text, (size_t)step));
        rc = input_read(&in, text->data + text->size, step, &got);
        text->size += (size_t)got;
        assert_true(input_position(&in) <= size);
    }
    if (rc == ERR_OK) assert_int_equal(input_position(&in), size);
    input_close(&in);
    return rc;
}

static void expect_text(const struct buf *packed, const void *text, int64_t size)
{
    static const int64_t steps[] = { 1, 7, 4096, 1 << 20 };
    struct buf got = { 0 };
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        assert_ok(unpack(&got, packed->data, (int64_t)packed->size, steps[i]));
        assert_int_equal(got.size, size);
        if (size > 0) assert_memory_equal(got.data, text, (size_t)size);
    }
    buf_clear(&got);
}

/* Text that does not shrink to nothing. */
static void fill(struct buf *b, int64_t size)
{
    uint32_t seed = 1;
    for (int64_t i = 0; i < size; i++) {
        seed = seed * 1664525u + 1013904223u;
        const char c = (char)('a' + (seed >> 24) % 20);
        assert_ok(buf_append(b, &c, 1));
    }
}

static void test_round_trip(void **state)
{
    (void)state;
    static const int64_t sizes[] = { 0, 1, 1000, 300000 };
    for (int p = 0; p < 2; p++)
        for (int i = 0; i < 4; i++) {
            struct buf text = { 0 }, packed = { 0 };
            fill(&text, sizes[i]);
            packings[p].pack(&packed, text.data, sizes[i]);
            expect_text(&packed, text.data, sizes[i]);
            buf_clear(&text);
            buf_clear(&packed);
        }
}

static void test_several_members(void **state)
{
    (void)state;
    for (int p = 0; p < 2; p++) {
        struct buf packed = { 0 };
        packings[p].pack(&packed, "one,", 4);
        packings[p].pack(&packed, "", 0);
        if (p == 1) assert_ok(buf_append(&packed, SKIPPABLE, sizeof SKIPPABLE - 1));
        packings[p].pack(&packed, "two", 3);
        expect_text(&packed, "one,two", 7);
        buf_clear(&packed);
    }
    struct buf first = { 0 };
    assert_ok(buf_append(&first, SKIPPABLE, sizeof SKIPPABLE - 1));
    expect_text(&first, "", 0);
    pack_zstd(&first, "x", 1);
    expect_text(&first, "x", 1);
    buf_clear(&first);
}

/* The name means nothing, the bytes everything. */
static void test_by_content(void **state)
{
    (void)state;
    struct input in;
    struct buf packed = { 0 };
    char path[FILE_PATH_MAX], text[8];
    int64_t got;
    assert_ok(path_join(path, testing_dir(), "plain.json"));
    pack_zstd(&packed, "abc", 3);
    assert_ok(file_replace(path, packed.data, (int64_t)packed.size));
    assert_ok(input_open(&in, path));
    assert_string_equal(input_codec_name(&in), "zstd");
    assert_ok(input_read(&in, text, 8, &got));
    assert_int_equal(got, 3);
    assert_memory_equal(text, "abc", 3);
    input_close(&in);
    assert_ok(path_join(path, testing_dir(), "packed.gz"));
    assert_ok(file_replace(path, "abcd", 4));
    assert_ok(input_open(&in, path));
    assert_string_equal(input_codec_name(&in), "plain");
    assert_ok(input_read(&in, text, 2, &got));
    assert_int_equal(input_position(&in), 2);
    input_close(&in);
    assert_err(input_open(&in, "/nonexistent/file"), NOTFOUND, "nonexistent");
    assert_err(input_open(&in, "/"), IO, "directory");
    buf_clear(&packed);
}

/* Cut anywhere: what came out before is right, and the error says so. At a cut between two members
 * nothing is missing as far as anyone can tell. */
static void test_cut_anywhere(void **state)
{
    (void)state;
    for (int p = 0; p < 2; p++) {
        struct buf text = { 0 }, packed = { 0 }, got = { 0 };
        fill(&text, 3000);
        packings[p].pack(&packed, text.data, 2000);
        const int64_t border = (int64_t)packed.size;
        packings[p].pack(&packed, text.data + 2000, 1000);
        for (int64_t size = 4; size < (int64_t)packed.size; size++) {
            const err_t rc = unpack(&got, packed.data, size, 512);
            assert_true(got.size <= 3000);
            if (got.size > 0) assert_memory_equal(got.data, text.data, got.size);
            if (size == border) {
                assert_ok(rc);
                continue;
            }
            char where[64];
            snprintf(where, sizeof where, "file: %s stream broken near byte", packings[p].name);
            testing_assert_code(rc, ERR_FORMAT, where, "cut", __FILE__, __LINE__);
            if (size < border) assert_non_null(strstr(err_last()->text, "the file is cut"));
        }
        buf_clear(&text);
        buf_clear(&packed);
        buf_clear(&got);
    }
}

/* Every byte changed: an error or the right text, as both packings carry a sum of it; only what is
 * no part of the text, such as gzip's time of packing, may change without notice. */
static void test_any_byte_wrong(void **state)
{
    (void)state;
    for (int p = 0; p < 2; p++) {
        struct buf text = { 0 }, packed = { 0 }, got = { 0 };
        fill(&text, 700);
        packings[p].pack(&packed, text.data, 700);
        for (int64_t at = 4; at < (int64_t)packed.size; at++)
            for (int bit = 0; bit < 8; bit++) {
                packed.data[at] ^= (char)(1 << bit);
                const err_t rc = unpack(&got, packed.data, (int64_t)packed.size, 512);
                assert_true(rc == ERR_OK || rc == ERR_FORMAT);
                if (rc == ERR_OK) {
                    assert_int_equal(got.size, 700);
                    assert_memory_equal(got.data, text.data, 700);
                }
                packed.data[at] ^= (char)(1 << bit);
            }
        buf_clear(&text);
        buf_clear(&packed);
        buf_clear(&got);
    }
}

static void test_what_follows(void **state)
{
    (void)state;
    for (int p = 0; p < 2; p++) {
        struct buf packed = { 0 }, got = { 0 };
        packings[p].pack(&packed, "text", 4);
        assert_ok(buf_puts(&packed, "and more"));
        assert_err(unpack(&got, packed.data, (int64_t)packed.size, 100), FORMAT,
                   "what follows the compressed data is not compressed");
        assert_int_equal(got.size, 4);
        buf_clear(&packed);
        buf_clear(&got);
    }
}

/* A packed gigabyte of blanks: an error long before the gigabyte, in little memory. */
static void test_bomb(void **state)
{
    (void)state;
    enum { PIECE = 8 << 20, PIECES = 16 };
    char *blanks = malloc(PIECE);
    assert_non_null(blanks);
    memset(blanks, ' ', PIECE);
    for (int p = 0; p < 2; p++) {
        struct buf packed = { 0 };
        struct input in;
        int64_t got = PIECE, total = 0;
        err_t rc = ERR_OK;
        for (int i = 0; i < PIECES; i++) packings[p].pack(&packed, blanks, PIECE);
        assert_ok(input_open_memory(&in, "bomb", packed.data, (int64_t)packed.size));
        while (rc == ERR_OK && got == PIECE) {
            rc = input_read(&in, blanks, PIECE, &got);
            total += got;
        }
        testing_assert_code(rc, ERR_FORMAT, "unpack it first", "bomb", __FILE__, __LINE__);
        assert_true(total <= INPUT_RATIO_FREE_BYTES + PIECE);
        input_close(&in);
        buf_clear(&packed);
    }
    free(blanks);
}

/* A frame that wants gigabytes for its window is refused before they are taken. */
static void test_huge_window(void **state)
{
    (void)state;
    /* Frame_Header_Descriptor 0: no content size, no sum; Window_Descriptor: exponent 31. */
    static const char frame[] = "\x28\xb5\x2f\xfd\x00\xf8\x01\x00\x00";
    struct buf got = { 0 };
    assert_err(unpack(&got, frame, sizeof frame - 1, 100), FORMAT, "requires too much memory");
    buf_clear(&got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_several_members),
        cmocka_unit_test(test_by_content),     cmocka_unit_test(test_cut_anywhere),
        cmocka_unit_test(test_any_byte_wrong), cmocka_unit_test(test_what_follows),
        cmocka_unit_test(test_bomb),           cmocka_unit_test(test_huge_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
