/* Choices of product algorithms: keys, the book and its file, the table of products seen. */
#include "testing.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"
#include "kernels/cuda/gemm_tune.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define OWNER "NVIDIA H200, cuBLASLt 130100"

static struct gemm product(int64_t m)
{
    static _Alignas(16) char memory[64];
    return (struct gemm){ .b_transposed = true,
                          .m = m,
                          .n = 12288,
                          .k = 4096,
                          .in_dtype = DTYPE_BF16,
                          .out_dtype = DTYPE_BF16,
                          .a = { memory, 4096 },
                          .b = { memory, 4096 },
                          .d = { memory, 12288 },
                          .epilogue = GEMM_BIAS };
}

/* ---- keys ---- */

static void test_bucket(void **state)
{
    (void)state;
    static const int64_t pairs[][2] = { { 1, 1 },         { 2, 2 },          { 3, 3 },
                                        { 5, 5 },         { 7, 7 },          { 8, 8 },
                                        { 9, 10 },        { 4096, 4096 },    { 4097, 5120 },
                                        { 12288, 12288 }, { 16256, 16384 },  { 16384, 16384 },
                                        { 16385, 20480 }, { 130528, 131072 } };
    for (int64_t i = 0; i < COUNT_OF(pairs); i++)
        assert_int_equal(tune_bucket(pairs[i][0]), pairs[i][1]);
    for (int64_t size = 1; size < 5000; size++) {
        const int64_t bucket = tune_bucket(size);
        assert_true(bucket >= size && bucket * 4 <= size * 5 + 4);
        assert_int_equal(tune_bucket(bucket), bucket);
        assert_true(tune_bucket(size + 1) >= bucket);
    }
}

static void test_alignment(void **state)
{
    (void)state;
    const void *const at16 = (void *)(uintptr_t)4096, *const at4 = (void *)(uintptr_t)4100;
    assert_int_equal(tune_alignment(at16, 4096, DTYPE_BF16), 16);
    assert_int_equal(tune_alignment(at16, 12, DTYPE_BF16), 8);
    assert_int_equal(tune_alignment(at16, 33, DTYPE_BF16), 2);
    assert_int_equal(tune_alignment(at16, 33, DTYPE_F32), 4);
    assert_int_equal(tune_alignment(at4, 4096, DTYPE_BF16), 4);
}

static void test_key(void **state)
{
    (void)state;
    char key[TUNE_KEY_MAX], other[TUNE_KEY_MAX];
    struct gemm g = product(16000);
    tune_key(key, &g);
    assert_string_equal(key, "nt bf16>bf16 16384x12288x4096 bias a16,16,16");
    tune_name(key, &g);
    assert_string_equal(key, "nt bf16>bf16 16000x12288x4096 bias a16,16,16");

    /* What shares a choice, and what does not. */
    tune_key(key, &g);
    g.m = 16384;
    g.d.ld += 8;
    tune_key(other, &g);
    assert_string_equal(key, other);
    g.d.ld += 1;
    tune_key(other, &g);
    assert_string_not_equal(key, other);
    g = product(16000);
    g.epilogue = GEMM_PLAIN;
    g.accumulate = true;
    g.out_dtype = DTYPE_F32;
    g.a_transposed = true;
    g.b_transposed = false;
    tune_key(other, &g);
    assert_string_equal(other, "tn bf16>f32 16384x12288x4096 add a16,16,16");
    g.accumulate = false;
    g.epilogue = GEMM_DGELU;
    g.out_dtype = DTYPE_BF16;
    g.pre = (struct rows){ g.d.data, 12292 };
    tune_key(other, &g);
    assert_string_equal(other, "tn bf16>bf16 16384x12288x4096 dgelu a16,16,8");
    /* The longest there is fits. */
    g.m = g.n = g.k = INT64_C(1) << 40;
    tune_key(other, &g);
}

/* ---- settings ---- */

static void test_settings(void **state)
{
    (void)state;
    struct tune_settings s;
    setenv("SOULCHAT_TUNE", "off", 1);
    assert_ok(tune_settings_read(&s));
    assert_true(s.is_off && s.path[0] == '\0' && !s.fuse_dgelu);
    setenv("SOULCHAT_TUNE", "there/gemm.tune", 1);
    setenv("SOULCHAT_FUSE", "dgelu", 1);
    assert_ok(tune_settings_read(&s));
    assert_true(!s.is_off && s.fuse_dgelu);
    assert_string_equal(s.path, "there/gemm.tune");
    setenv("SOULCHAT_FUSE", "gelu", 1);
    assert_err(tune_settings_read(&s), USAGE, "SOULCHAT_FUSE=gelu");
    unsetenv("SOULCHAT_FUSE");
    unsetenv("SOULCHAT_TUNE");
    setenv("XDG_CACHE_HOME", "/cache", 1);
    assert_ok(tune_settings_read(&s));
    assert_string_equal(s.path, "/cache/soulchat/gemm.tune");
    setenv("XDG_CACHE_HOME", "relative", 1);
    setenv("HOME", "/home/someone", 1);
    assert_ok(tune_settings_read(&s));
    assert_string_equal(s.path, "/home/someone/.cache/soulchat/gemm.tune");
    unsetenv("HOME");
    assert_ok(tune_settings_read(&s));
    assert_string_equal(s.path, "");
}

/* ---- the book ---- */

static void words_of(uint64_t out[TUNE_WORDS], uint64_t seed)
{
    for (uint64_t w = 0; w < TUNE_WORDS; w++) out[w] = seed * UINT64_C(0x123456789abcdef1) + w;
}

static void add(struct tune_book *book, const char *key, uint64_t seed)
{
    uint64_t words[TUNE_WORDS];
    words_of(words, seed);
    assert_ok(tune_book_add(book, key, words, 10.5 * (double)seed));
}

static void expect(struct tune_book *book, const char *key, uint64_t seed)
{
    uint64_t words[TUNE_WORDS];
    words_of(words, seed);
    const struct tune_choice *choice = tune_book_find(book, key);
    assert_non_null(choice);
    assert_memory_equal(choice->words, words, sizeof words);
    assert_true(choice->time_us == 10.5 * (double)seed);
}

static void test_file(void **state)
{
    (void)state;
    struct tune_book book, again, other;
    const char *path = testing_path("new/folder/gemm.tune");
    tune_book_init(&book, path, OWNER);
    assert_ok(tune_book_load(&book)); /* no file yet */
    assert_null(tune_book_find(&book, "a"));
    for (uint64_t i = 1; i <= 100; i++) {
        char key[32];
        snprintf(key, sizeof key, "nt bf16>bf16 %d", (int)i);
        add(&book, key, i);
    }

    /* Another card's choices live in the same file. */
    tune_book_init(&other, path, "NVIDIA; A100\n, cuBLASLt 130100");
    assert_string_equal(other.owner, "NVIDIA, A100,, cuBLASLt 130100");
    assert_ok(tune_book_load(&other));
    assert_null(tune_book_find(&other, "nt bf16>bf16 7"));
    add(&other, "nt bf16>bf16 7", 1000);

    tune_book_init(&again, path, OWNER);
    assert_ok(tune_book_load(&again));
    assert_int_equal(again.count, 101);
    for (uint64_t i = 100; i >= 1; i--) {
        char key[32];
        snprintf(key, sizeof key, "nt bf16>bf16 %d", (int)i);
        expect(&again, key, i);
    }
    expect(&other, "nt bf16>bf16 7", 1000);
    tune_book_clear(&book);
    tune_book_clear(&again);
    tune_book_clear(&other);
}

/* What a program reads is what others add meanwhile, too; and the first choice for a key stands. */
static void test_shared(void **state)
{
    (void)state;
    struct tune_book first, second, reader;
    const char *path = testing_path("shared.tune");
    tune_book_init(&first, path, OWNER);
    tune_book_init(&second, path, OWNER);
    add(&first, "a", 1);
    add(&second, "b", 2);
    add(&second, "a", 3);
    expect(&second, "a", 1);
    add(&first, "b", 4);
    expect(&first, "b", 2);
    add(&first, "c", 5);
    assert_ok(tune_book_load(&second));
    expect(&second, "c", 5);
    tune_book_init(&reader, path, OWNER);
    assert_ok(tune_book_load(&reader));
    assert_int_equal(reader.count, 3);
    tune_book_clear(&first);
    tune_book_clear(&second);
    tune_book_clear(&reader);
}

/* Programs that add at the same time: each key in the file once, and everybody has that choice. */
static void add_from_here(const char *path, int program, int keys)
{
    struct tune_book book, reader;
    tune_book_init(&book, path, OWNER);
    for (int k = 0; k < keys; k++) {
        char key[32];
        uint64_t words[TUNE_WORDS];
        snprintf(key, sizeof key, "key %d", (k + 5 * program) % keys);
        words_of(words, (uint64_t)(program * keys + k + 1));
        if (tune_book_add(&book, key, words, 1.0) != ERR_OK) _exit(1);
    }
    tune_book_init(&reader, path, OWNER);
    if (tune_book_load(&reader) != ERR_OK || reader.count != keys || book.count != keys) _exit(2);
    for (int k = 0; k < keys; k++) {
        const struct tune_choice *theirs = tune_book_find(&reader, book.choices[k].key);
        if (theirs == NULL || memcmp(theirs, &book.choices[k], sizeof *theirs) != 0) _exit(3);
    }
    _exit(0);
}

static void test_many_programs(void **state)
{
    (void)state;
    enum { PROGRAMS = 4, KEYS = 20 };
    const char *path = testing_path("programs/gemm.tune");
    pid_t child[PROGRAMS];
    for (int i = 0; i < PROGRAMS; i++) {
        child[i] = fork();
        if (child[i] == 0) add_from_here(path, i, KEYS);
        assert_true(child[i] > 0);
    }
    for (int i = 0; i < PROGRAMS; i++) {
        int status;
        assert_int_equal(waitpid(child[i], &status, 0), child[i]);
        assert_int_equal(status, 0);
    }
}

/* Choices as text: the owner's alone, the same bytes however they came; and back. */
static void test_text(void **state)
{
    (void)state;
    struct tune_book book, moved, other;
    struct buf text = { 0 }, again = { 0 };
    const char *path = testing_path("text.tune");
    tune_book_init(&other, path, "another card");
    add(&other, "a", 9);
    tune_book_init(&book, path, OWNER);
    assert_ok(tune_book_write(&text, &book));
    assert_int_equal(text.size, 0);
    add(&book, "b", 2);
    add(&book, "a", 1);
    assert_ok(tune_book_write(&text, &book));
    assert_null(strstr(text.data, "another card"));

    tune_book_init(&moved, NULL, OWNER);
    add(&moved, "b", 7);
    assert_ok(tune_book_adopt(&moved, text.data, (int64_t)text.size));
    expect(&moved, "a", 1);
    expect(&moved, "b", 2);
    assert_ok(tune_book_write(&again, &moved));
    assert_string_equal(again.data, text.data);
    assert_ok(tune_book_adopt(&other, text.data, (int64_t)text.size));
    assert_null(tune_book_find(&other, "b"));
    expect(&other, "a", 9);
    text.data[text.size / 2] ^= 1;
    assert_err(tune_book_adopt(&moved, text.data, (int64_t)text.size), FORMAT, "damaged");
    expect(&moved, "a", 1);
    tune_book_clear(&book);
    tune_book_clear(&moved);
    tune_book_clear(&other);
    buf_clear(&text);
    buf_clear(&again);
}

static void load_bytes(struct tune_book *book, const char *path, const char *bytes, size_t size)
{
    assert_ok(file_replace(path, bytes, (int64_t)size));
    tune_book_init(book, path, OWNER);
    assert_ok(tune_book_load(book));
}

/* Cut anywhere, or with any byte changed, a file is no file; and the next choice replaces it. */
static void test_damage(void **state)
{
    (void)state;
    struct tune_book book;
    struct buf text = { 0 };
    const char *path = testing_path("damaged.tune");
    tune_book_init(&book, path, OWNER);
    add(&book, "nt bf16>bf16 1x2x3", 1);
    add(&book, "nt bf16>f32 1x2x3", 2);
    tune_book_clear(&book);
    assert_ok(file_read_all(&text, path, 1 << 20));

    for (size_t size = 0; size < text.size; size++) {
        load_bytes(&book, path, text.data, size);
        assert_int_equal(book.count, 0);
        tune_book_clear(&book);
    }
    for (size_t i = 0; i < text.size; i++) {
        text.data[i] ^= 0x11;
        load_bytes(&book, path, text.data, text.size);
        text.data[i] ^= 0x11;
        assert_int_equal(book.count, 0);
        tune_book_clear(&book);
    }
    load_bytes(&book, path, "soulchat-tune 2\ncrc32c 00000000\n", 32);
    assert_int_equal(book.count, 0);
    add(&book, "nn f32>f32 4x5x6", 3);
    tune_book_clear(&book);
    tune_book_init(&book, path, OWNER);
    assert_ok(tune_book_load(&book));
    assert_int_equal(book.count, 1);
    expect(&book, "nn f32>f32 4x5x6", 3);
    tune_book_clear(&book);
    buf_clear(&text);
}

/* A file that cannot be written costs the next run its time, nothing else; the old one is whole. */
static void test_unwritable(void **state)
{
    (void)state;
    struct tune_book book, reader;
    const char *path = testing_path("faults.tune");
    for (int n = 1;; n++) {
        tune_book_init(&book, path, OWNER);
        fault_arm("", 0);
        unlink(path);
        add(&book, "kept", 1);
        fault_arm("file.", n);
        add(&book, "added", 2);
        const bool was_reached = fault_hits() >= n;
        fault_arm("", 0);
        expect(&book, "added", 2);
        tune_book_init(&reader, path, OWNER);
        assert_ok(tune_book_load(&reader));
        expect(&reader, "kept", 1);
        tune_book_clear(&reader);
        tune_book_clear(&book);
        if (!was_reached) break;
    }
}

/* ---- products seen ---- */

static void test_table(void **state)
{
    (void)state;
    struct product_table *t = calloc(1, sizeof *t);
    int64_t key[PRODUCT_WORDS], slot[PRODUCT_SLOTS / 4 * 3];
    assert_non_null(t);
    for (int64_t i = 0; i < COUNT_OF(slot); i++) {
        const struct gemm g = product(i + 1);
        product_key(key, &g);
        assert_int_equal(product_find(t, key), -1);
        assert_false(product_is_full(t));
        slot[i] = product_add(t, key);
        assert_true(slot[i] >= 0 && slot[i] < PRODUCT_SLOTS);
    }
    for (int64_t i = 0; i < COUNT_OF(slot); i++) {
        const struct gemm g = product(i + 1);
        product_key(key, &g);
        assert_int_equal(product_find(t, key), slot[i]);
    }
    assert_true(product_is_full(t));
    free(t);
}

/* Each field that a prepared call depends on makes another key. */
static void test_product_key(void **state)
{
    (void)state;
    static _Alignas(16) char memory[64];
    int64_t keys[16][PRODUCT_WORDS];
    struct gemm g[16];
    int64_t count = 0;
    for (int64_t i = 0; i < 16; i++) g[i] = product(64);
    g[count++].m++;
    g[count++].n++;
    g[count++].k++;
    g[count++].a.ld += 8;
    g[count++].b.ld += 8;
    g[count++].d.ld += 8;
    g[count++].a_transposed = true;
    g[count++].b_transposed = false;
    g[count++].accumulate = true;
    g[count++].epilogue = GEMM_PLAIN;
    g[count++].in_dtype = DTYPE_F32;
    g[count++].out_dtype = DTYPE_F32;
    g[count++].a.data = memory + 2;
    g[count++].b.data = memory + 2;
    g[count].epilogue = GEMM_DGELU;
    g[count++].pre.ld = 8;
    assert_int_equal(count, 15); /* and the last is as product() made it */
    for (int64_t i = 0; i < 16; i++) product_key(keys[i], &g[i]);
    for (int64_t i = 0; i < 16; i++)
        for (int64_t j = 0; j < i; j++) assert_memory_not_equal(keys[i], keys[j], sizeof keys[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bucket),      cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_key),         cmocka_unit_test(test_file),
        cmocka_unit_test(test_shared),      cmocka_unit_test(test_many_programs),
        cmocka_unit_test(test_text),        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_unwritable),  cmocka_unit_test(test_table),
        cmocka_unit_test(test_product_key), cmocka_unit_test(test_settings),
    };
    assert_ok(log_init("error")); /* damaged files are many here, and warnings */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
