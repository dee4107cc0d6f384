/* The table of cards, and files of measured rates. */
#include "testing.h"

#include "base/file.h"
#include "train/card.h"

#include <stdio.h>
#include <string.h>

/* A file of rates with this text; borrowed until the next call. */
static const char *rates_file(const char *text)
{
    static char path[FILE_PATH_MAX];
    assert_ok(path_join(path, testing_dir(), "rates.json"));
    assert_ok(file_replace(path, text, (int64_t)strlen(text)));
    return path;
}

static void test_table(void **state)
{
    (void)state;
    for (int64_t i = 0; i < card_count(); i++) {
        struct card row, card;
        card_at(&row, i);
        assert_ok(card_find(&card, row.name, NULL));
        assert_string_equal(card.gpu, row.gpu);
        assert_ok(card_find(&card, row.gpu, ""));
        assert_string_equal(card.name, row.name);
        assert_true(card_is_known(row.name) && card_is_known(row.gpu));
        assert_false(card.measured);
        assert_true(card.memory_bytes > INT64_C(20000000000));
        assert_in_range(card.capability, 80, 130);
        const struct card_rates *r = &card.rates;
        assert_true(r->gemm_bf16 > r->gemm_f32 && r->gemm_f32 > 0 && r->pcie > 0);
        assert_true(r->gemm_share > 0.5 && r->gemm_share <= 1);
        assert_true(r->attn_bwd < r->attn_fwd && r->attn_fwd < r->gemm_bf16);
        assert_true(r->copy > 1e11 && r->copy < 1e13);
    }
}

static void test_names(void **state)
{
    (void)state;
    struct card card;
    assert_ok(card_find(&card, "NVIDIA H100 80GB HBM3", NULL));
    assert_string_equal(card.name, "h100");
    assert_err(card_find(&card, "NVIDIA H1000", NULL), USAGE, "NVIDIA H1000");
    assert_err(card_find(&card, "rtx4091", NULL), USAGE, "the nearest is rtx4090");
    assert_err(card_find(&card, "", NULL), USAGE, "expected cpu, h200");
    char name[200];
    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = '\0';
    assert_err(card_find(&card, name, NULL), USAGE, "199 bytes");
}

static void test_measured(void **state)
{
    (void)state;
    struct card card;
    const char *path = rates_file("{\"NVIDIA L40S\": {\"gemm_bf16\": 2e14, \"copy\": 7e11},"
                                  " \"NVIDIA H200\": {\"gemm_bf16\": 1e15}}");
    assert_ok(card_find(&card, "l40s", path));
    assert_true(card.measured);
    assert_true(card.rates.gemm_bf16 == 2e14 && card.rates.copy == 7e11);
    assert_true(card.rates.pcie == 24e9 && card.memory_bytes == INT64_C(47690000000));
    assert_ok(card_find(&card, "h100", path)); /* not in the file: as in the table */
    assert_false(card.measured);
    /* The driver's longer name in the file. */
    path = rates_file("{\"NVIDIA H100 80GB HBM3\": {\"gemm_bf16\": 7e14}}");
    assert_ok(card_find(&card, "h100", path));
    assert_true(card.measured && card.rates.gemm_bf16 == 7e14);
}

static void test_only_in_file(void **state)
{
    (void)state;
    struct card card;
    const char *path =
        rates_file("{\"GPU 9000\": {\"gemm_bf16\": 2e15, \"gemm_f32\": 1e14, \"gemm_share\": 0.9,"
                   " \"attn_fwd\": 1e15, \"attn_bwd\": 8e14, \"copy\": 7e12, \"pcie\": 1e11,"
                   " \"memory_bytes\": 288000000000, \"capability\": 100,"
                   " \"multiprocessors\": 148}}");
    assert_ok(card_find(&card, "GPU 9000", path));
    assert_string_equal(card.name, "GPU 9000");
    assert_int_equal(card.memory_bytes, INT64_C(288000000000));
    assert_int_equal(card.multiprocessors, 148);
    path = rates_file("{\"GPU 9000\": {\"gemm_bf16\": 2e15}}");
    assert_err(card_find(&card, "GPU 9000", path), FORMAT, "gemm_f32 is 0; expected above 0");
    assert_err(card_find(&card, "GPU 9001", path), USAGE, "and not in plan.rates");
}

/* A card of a known generation and of an unknown one, half as large as the table's. */
static void test_guess(void **state)
{
    (void)state;
    struct card card, h200;
    struct dev_info info = { .name = "NVIDIA H150",
                             .memory_bytes = INT64_C(70000000000),
                             .capability = 90,
                             .multiprocessors = 66 };
    card_at(&h200, 0);
    assert_false(card_is_known(info.name));
    card_guess(&card, &info);
    assert_string_equal(card.gpu, "NVIDIA H150");
    assert_int_equal(card.memory_bytes, info.memory_bytes);
    assert_int_equal(card.multiprocessors, 66);
    assert_true(card.rates.gemm_bf16 == h200.rates.gemm_bf16 / 2);
    assert_true(card.rates.copy == h200.rates.copy);
    info.capability = 87; /* nearest: 8.6, the first with it, an RTX A6000 */
    info.multiprocessors = 84;
    card_guess(&card, &info);
    assert_true(card.rates.gemm_bf16 == 115e12);
    assert_int_equal(card.capability, 87);
}

static void test_bad_files(void **state)
{
    (void)state;
    struct card card;
    assert_err(card_find(&card, "l40s", "/nowhere/rates.json"), NOTFOUND, "rates.json");
    assert_err(card_find(&card, "l40s", rates_file("{\"NVIDIA L40S\": 3}")), FORMAT,
               "NVIDIA L40S is an integer; an object is wanted");
    assert_err(card_find(&card, "l40s", rates_file("[1]")), FORMAT, "an object is wanted");
    assert_err(card_find(&card, "l40s", rates_file("{")), FORMAT, "not JSON");
    assert_err(card_find(&card, "l40s", rates_file("{\"NVIDIA L40S\": {\"copy\": \"fast\"}}")),
               FORMAT, "copy is a string");
    assert_err(card_find(&card, "l40s", rates_file("{\"NVIDIA L40S\": {\"copy\": -1}}")), FORMAT,
               "copy is -1");
    assert_err(card_find(&card, "l40s", rates_file("{\"NVIDIA L40S\": {\"gemm_share\": 1.2}}")),
               FORMAT, "at most 1");
    assert_err(card_find(&card, "l40s", rates_file("{\"NVIDIA L40S\": {\"memory_bytes\": 0}}")),
               FORMAT, "memory_bytes");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),    cmocka_unit_test(test_names),
        cmocka_unit_test(test_measured), cmocka_unit_test(test_only_in_file),
        cmocka_unit_test(test_guess),    cmocka_unit_test(test_bad_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
