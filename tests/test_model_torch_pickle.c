/*
 * The pickle inside a PyTorch file: every opcode and call that must be refused, its limits, and
 * damage at every byte.
 */
#include "base/num.h"
#include "model/torch_zip.h"
#include "testing.h"
#include "torch_zip_maker.h"

#include <stdlib.h>
#include <string.h>

/* ---- what is refused: pickles ---- */

#define STORAGE(type, key, count)                                                                  \
    "((X\x07\0\0\0storagectorch\n" type "\nX\x01\0\0\0" key "X\x03\0\0\0cpu" count "tQ"
#define REBUILD "ctorch._utils\n_rebuild_tensor_v2\n"
#define HEAD    "\x80\x02}(X\x01\0\0\0w"

static void test_bad_pickles(void **state)
{
    (void)state;
#define CASE(literal, code, part)                                                                  \
    {                                                                                              \
        literal, sizeof(literal) - 1, ERR_##code, part                                             \
    }
    static const struct {
        const char *bytes;
        size_t size;
        err_t code;
        const char *part;
    } cases[] = {
        CASE("\x80\x02"
             "cposix\nsystem\nX\x02\0\0\0id\x85R.",
             FORMAT, "byte 2 (opcode 0x63): global posix.system is not one"),
        CASE("\x80\x02"
             "c__builtin__\neval\n.",
             FORMAT, "global __builtin__.eval"),
        CASE("\x80\x02"
             "ctorch\n_utils._rebuild_tensor_v2\n.",
             FORMAT, "is not one"),
        CASE("\x80\x02"
             "ctorch._utils\n_rebuild_tensor\n.",
             FORMAT, "is not one"),
        CASE("\x80\x02"
             "ccollections",
             FORMAT, "without an end"),
        CASE("\x80\x02i", FORMAT, "this opcode is not one"),
        CASE("\x80\x02"
             "0",
             FORMAT, "opcode 0x30"),
        CASE("\x80\x02\x93", FORMAT, "this opcode is not one"),
        CASE("\x80\x04\x95", FORMAT, "pickle protocol 4"),
        CASE("\x80\x02\x80\x02}.", FORMAT, "once, at the start"),
        CASE("}.", FORMAT, "begins with its protocol"),
        CASE("\x80\x02", FORMAT, "1 bytes wanted, 0 left"),
        CASE("\x80\x02.", FORMAT, "the stack is empty"),
        CASE("\x80\x02}}.", FORMAT, "1 values are left over"),
        CASE("\x80\x02}.x", FORMAT, "1 bytes after the end"),
        CASE("\x80\x02K\x01.", FORMAT, "a dictionary of tensors"),
        CASE("\x80\x02(.", FORMAT, "a dictionary of tensors"),
        CASE("\x80\x02}u.", FORMAT, "no mark"),
        CASE("\x80\x02}(Nu.", FORMAT, "1 values are not pairs"),
        CASE("\x80\x02}(NNu.", FORMAT, "key 0 is not a text"),
        CASE("\x80\x02}(X\x01\0\0\0aNu.", FORMAT, "a is not a tensor"),
        CASE("\x80\x02}(X\x02\0\0\0a\0Nu.", FORMAT, "key 0 is not a text"),
        CASE("\x80\x02}(s.", FORMAT, "a mark where a value"),
        CASE("\x80\x02Ns.", FORMAT, "the stack is empty"),
        CASE("\x80\x02\x85.", FORMAT, "the stack is empty"),
        CASE("\x80\x02N\x87.", FORMAT, "the stack is empty"),
        CASE("\x80\x02}NNb.", FORMAT, "a dictionary of attributes"),
        CASE("\x80\x02N}b.", FORMAT, "the dictionary that has them"),
        CASE("\x80\x02}Na.", FORMAT, "a list is wanted"),
        CASE("\x80\x02](}(eu.", FORMAT, "a list is wanted"),
        CASE("\x80\x02h\x05.", FORMAT, "memo entry 5 was never set"),
        CASE("\x80\x02j\xff\xff\xff\xff.", FORMAT, "memo entry 4294967295 was never set"),
        CASE("\x80\x02Nr\0\0\x10\0.", FORMAT, "memo entry 1048576, at most 1048575"),
        CASE("\x80\x02q\0.", FORMAT, "the stack is empty"),
        CASE("\x80\x02X\xff\xff\xff\x7fxx", FORMAT, "2147483647 bytes wanted"),
        CASE("\x80\x02X\xff\xff\xff\xffxx", FORMAT, "4294967295 bytes wanted"),
        CASE("\x80\x02\x8a\x09"
             "012345678.",
             FORMAT, "an integer of 9 bytes"),
        CASE("\x80\x02NR.", FORMAT, "a tuple of arguments"),
        CASE("\x80\x02N)R.", FORMAT, "a function is wanted"),
        CASE("\x80\x02"
             "ctorch\nHalfStorage\n)R.",
             FORMAT, "a storage class is not called"),
        CASE("\x80\x02"
             "ccollections\nOrderedDict\nN\x85R.",
             FORMAT, "OrderedDict with arguments"),
        CASE("\x80\x02" REBUILD ")R.", FORMAT, "a tensor is (storage"),
        CASE("\x80\x02"
             "ctorch._utils\n_rebuild_parameter\nNNN\x87R.",
             FORMAT, "a parameter is"),
        CASE("\x80\x02)Q.", FORMAT, "a storage is ("),
        CASE("\x80\x02NQ.", FORMAT, "the tuple of a storage"),
        CASE(HEAD REBUILD "((X\x07\0\0\0storageccollections\nOrderedDict\nX\x01\0\0\0"
                          "0X\x03\0\0\0cpuK\x02tQ.",
             FORMAT, "a storage is ("),
        CASE(HEAD REBUILD STORAGE("HalfStorage", "0", "J\xff\xff\xff\xff") ".", FORMAT,
             "a storage is ("),
        CASE(HEAD REBUILD STORAGE("HalfStorage", "\0", "K\x02") ".", FORMAT, "with a NUL"),
        CASE(HEAD REBUILD STORAGE("HalfStorage", "0", "K\x02") "K\x03K\x02\x85K\x01\x85\x89NtRu.",
             FORMAT, "begins at element 3 of a storage of 2"),
        CASE(HEAD REBUILD STORAGE("HalfStorage", "0",
                                  "K\x02") "J\xff\xff\xff\xffK\x02\x85K\x01\x85\x89NtRu.",
             FORMAT, "begins at element -1"),
        CASE(HEAD REBUILD STORAGE("HalfStorage", "0",
                                  "K\x02") "\x8a\x02\xfe\xffK\x02\x85K\x01\x85\x89NtRu.",
             FORMAT, "begins at element -2"),
        CASE(HEAD REBUILD STORAGE("HalfStorage", "0", "K\x02") "K\0K\x02\x85)\x89NtRu.", FORMAT,
             "1 dimensions with 0 strides"),
        CASE(HEAD REBUILD STORAGE("HalfStorage", "0", "K\x02") "K\0N\x85N\x85\x89NtRu.", FORMAT,
             "are integers"),
        CASE(HEAD REBUILD STORAGE("HalfStorage", "0",
                                  "K\x02") "K\0(K\1K\1K\1K\1K\1t(K\1K\1K\1K\1K\1t\x89NtRu.",
             UNSUPPORTED, "5 dimensions, at most 4"),
        /* Below: the pickle is well formed; the archive's one storage has 2 elements. */
        CASE(HEAD REBUILD STORAGE("HalfStorage", "0", "K\x02") "K\1K\x02\x85K\x01\x85\x89NtRu.",
             FORMAT, "reaches over 2 elements, but 1 are stored"),
        CASE(HEAD REBUILD STORAGE("HalfStorage", "0", "K\x02") "K\0K\x02\x85K\x02\x85\x89NtRu.",
             FORMAT, "reaches over 3 elements, but 2 are stored"),
        CASE(HEAD REBUILD STORAGE("HalfStorage", "0",
                                  "K\x02") "K\0J\xfe\xff\xff\xff\x85K\x01\x85\x89NtRu.",
             FORMAT, "negative or beyond"),
        CASE(HEAD REBUILD STORAGE("HalfStorage", "0",
                                  "K\x02") "K\0K\x02\x85J\xff\xff\xff\xff\x85\x89NtRu.",
             FORMAT, "negative or beyond"),
        CASE(
            HEAD REBUILD STORAGE(
                "HalfStorage", "0",
                "K\x02") "K\0\x8a\x08\0\0\0\0\0\0\0\x40\x85\x8a\x08\0\0\0\0\0\0\0\x40\x85\x89NtRu.",
            FORMAT, "negative or beyond"),
        CASE(HEAD REBUILD STORAGE(
                 "HalfStorage", "0",
                 "K\x02") "K\0\x8a\x08\0\0\0\0\0\0\0\x40K\x04\x86K\0K\0\x86\x89NtRu.",
             FORMAT, "negative or beyond"),
        CASE(HEAD REBUILD STORAGE("HalfStorage", "0", "K\x03") "K\0K\x02\x85K\x01\x85\x89NtRu.",
             FORMAT, "storage 0 has 4 bytes; 3 elements of 2 bytes are wanted"),
        CASE(HEAD REBUILD STORAGE("FloatStorage", "0", "K\x02") "K\0K\x02\x85K\x01\x85\x89NtRu.",
             FORMAT, "storage 0 has 4 bytes; 2 elements of 4 bytes"),
        CASE(HEAD REBUILD STORAGE(
                 "DoubleStorage", "0",
                 "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f") "K\0K\x02\x85K\x01\x85\x89NtRu.",
             FORMAT, "storage 0 has 4 bytes"),
        CASE(HEAD REBUILD STORAGE("HalfStorage", "7", "K\x02") "K\0K\x02\x85K\x01\x85\x89NtRu.",
             FORMAT, "no member archive/data/7"),
        CASE("\x80\x02}(X\x01\0\0\0wq\0" REBUILD STORAGE(
                 "HalfStorage", "0", "K\x02") "K\0K\x02\x85K\x01\x85\x89NtRq\1h\0h\1u.",
             FORMAT, "tensor w appears twice"),
    };
    const struct storage storage = { one_two, sizeof one_two };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf p = { 0 };
        struct zip z;
        struct weight_source *s = NULL;
        assert_ok(buf_append(&p, cases[i].bytes, cases[i].size));
        archive(&z, &p, &storage, 1);
        testing_assert_code(open_zip(&s, &z), cases[i].code, cases[i].part, cases[i].part, __FILE__,
                            __LINE__);
        zip_clear(&z);
        buf_clear(&p);
    }
}

/* A dictionary that holds itself, tuples nested beyond any recursion: no walk follows them. */
static void test_recursion(void **state)
{
    (void)state;
    struct buf p = { 0 };
    struct zip z;
    struct weight_source *s = NULL;
    RAW(&p, "\x80\x02}q\0(X\x01\0\0\0ah\0u.");
    archive(&z, &p, NULL, 0);
    assert_err(open_zip(&s, &z), FORMAT, "a is not a tensor");
    zip_clear(&z);
    buf_clear(&p);

    RAW(&p, "\x80\x02}(X\x01\0\0\0aN");
    for (int i = 0; i < 1000000; i++) RAW(&p, "\x85");
    RAW(&p, "u.");
    archive(&z, &p, NULL, 0);
    assert_err(open_zip(&s, &z), FORMAT, "a is not a tensor");
    zip_clear(&z);
    buf_clear(&p);
}

static void test_limits(void **state)
{
    (void)state;
    struct zip z;
    struct weight_source *s = NULL;

    /* The stack: exactly full is fine (and then not a dictionary), one more is not. */
    for (int more = 0; more < 2; more++) {
        struct buf p = { 0 };
        RAW(&p, "\x80\x02");
        for (int i = 0; i < TORCH_STACK_MAX + more; i++) RAW(&p, "N");
        RAW(&p, ".");
        archive(&z, &p, NULL, 0);
        assert_err(open_zip(&s, &z), FORMAT,
                   more ? "more than 1048576 values on the stack" : "a dictionary of tensors");
        zip_clear(&z);
        buf_clear(&p);
    }

    /* The last memo entry can be used. */
    struct buf p = { 0 };
    RAW(&p, "\x80\x02}r\xff\xff\x0f\x00j\xff\xff\x0f\x00.");
    archive(&z, &p, NULL, 0);
    assert_err(open_zip(&s, &z), FORMAT, "1 values are left over");
    zip_clear(&z);
    buf_clear(&p);

    /* A pickle of the size limit is looked at; a larger one is not. */
    char *zeros = calloc(1, TORCH_PICKLE_BYTES_MAX + 1);
    assert_non_null(zeros);
    for (int more = 0; more < 2; more++) {
        z = (struct zip){ 0 };
        zip_add(&z, "a/data.pkl", zeros, (size_t)TORCH_PICKLE_BYTES_MAX + (size_t)more);
        zip_end(&z, false);
        assert_err(open_zip(&s, &z), FORMAT,
                   more ? "at most 67108864" : "begins with its protocol");
        zip_clear(&z);
    }
    free(zeros);
}

/* ---- damage ---- */

static void test_damage(void **state)
{
    (void)state;
    float data[12] = { 0 };
    const struct storage storage = { data, sizeof data };
    struct buf p = { 0 };
    begin(&p);
    text(&p, "plain");
    tensor(&p, (struct view){ "FloatStorage", "0", 12, 0, 2, { 3, 4 }, { 4, 1 } });
    text(&p, "transposed");
    tensor(&p, (struct view){ "FloatStorage", "0", 12, 0, 2, { 4, 3 }, { 1, 4 } });
    struct zip z;
    weight_source_close(open_pickle(&z, &p, &storage, 1));

    uint8_t *bytes = (uint8_t *)z.file.data;
    struct weight_source *s;
    for (size_t size = 0; size < z.file.size; size++) {
        open_and_read(bytes, size);
        assert_err(torch_zip_source_open_memory(&s, bytes, (int64_t)size, "cut"), FORMAT, "cut");
    }
    static const uint8_t flips[] = { 0xff, 0x01, 0x80, 0x20 };
    for (size_t i = 0; i < z.file.size; i++)
        for (size_t k = 0; k < sizeof flips; k++) {
            bytes[i] ^= flips[k];
            open_and_read(bytes, z.file.size);
            bytes[i] ^= flips[k];
        }
    zip_clear(&z);
}

/* The same for the pickle alone, with its CRC made right again so that the machine sees it. */
static void test_damaged_pickle(void **state)
{
    (void)state;
    const struct storage storage = { one_two, sizeof one_two };
    struct buf p = { 0 };
    one_tensor(&p);
    for (size_t i = 0; i < p.size; i++)
        for (int byte = 0; byte < 256; byte++) {
            const char kept = p.data[i];
            struct zip z;
            p.data[i] = (char)byte;
            archive(&z, &p, &storage, 1);
            open_and_read((const uint8_t *)z.file.data, z.file.size);
            zip_clear(&z);
            p.data[i] = kept;
        }
    buf_clear(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_pickles),    cmocka_unit_test(test_recursion),
        cmocka_unit_test(test_limits),         cmocka_unit_test(test_damage),
        cmocka_unit_test(test_damaged_pickle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
