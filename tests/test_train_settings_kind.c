/* settings_kind.h: what of a run's settings its checkpoints hold. */
#include "testing.h"

#include "base/check.h"
#include "data/settings.h"
#include "data/settings_batch.h"
#include "model/settings.h"
#include "train/settings.h"
#include "train/settings_kind.h"

#include <string.h>

static struct cfg *create(void)
{
    const struct cfg_table tables[] = { data_settings, batch_settings, model_settings,
                                        train_settings };
    struct cfg *cfg;
    assert_ok(cfg_create(&cfg, tables, COUNT_OF(tables)));
    return cfg;
}

static void test_kinds(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        enum settings_kind kind;
    } cases[] = {
        { "batch.size", SETTINGS_OF_NUMBERS },      { "batch.lanes", SETTINGS_OF_NUMBERS },
        { "model.init_seed", SETTINGS_OF_NUMBERS }, { "model.dir", SETTINGS_OF_START },
        { "train.lr", SETTINGS_OF_COURSE },         { "train.steps", SETTINGS_OF_COURSE },
        { "train.zero", SETTINGS_OF_START },        { "train.out", SETTINGS_OF_START },
        { "train.silence", SETTINGS_OF_START },     { "data.dir", SETTINGS_OF_START },
    };
    struct cfg *cfg = create();
    for (int i = 0; i < COUNT_OF(cases); i++) {
        assert_non_null(cfg_find(cfg, cases[i].key));
        assert_int_equal(settings_kind(cases[i].key), cases[i].kind);
        assert_true(settings_of_training(cases[i].key));
    }
    assert_false(settings_of_training("bench.rows"));
    cfg_close(cfg);
}

/* Whatever a start is like, the text is the same; what a run is shows in it, and is read again. */
static void test_text(void **state)
{
    (void)state;
    struct cfg *a = create(), *b = create(), *back = create();
    struct buf text[2] = { { 0 }, { 0 } };
    for (int64_t i = 0; i < cfg_row_count(b); i++) {
        const struct cfg_row *row = cfg_row_at(b, i);
        if (settings_kind(row->key) != SETTINGS_OF_START || row->type == CFG_ENUM) continue;
        if (strncmp(row->key, "train.", 6) != 0) continue; /* 7 is not within every range */
        const char *other = row->type == CFG_BOOL ? "true" : row->type == CFG_STRING ? "x" : "7";
        assert_ok(cfg_set(b, row->key, other, "test"));
    }
    assert_ok(cfg_set(b, "train.zero", "3", "test"));
    assert_ok(settings_of_run(&text[0], a));
    assert_ok(settings_of_run(&text[1], b));
    assert_string_equal(text[0].data, text[1].data);
    assert_null(strstr(text[0].data, "zero"));
    buf_reset(&text[1]);
    assert_ok(cfg_set(b, "train.lr", "0.25", "test"));
    assert_ok(settings_of_run(&text[1], b));
    assert_string_not_equal(text[0].data, text[1].data);
    assert_ok(cfg_parse_yaml(back, text[1].data, (int64_t)text[1].size, "text"));
    assert_true(cfg_float(back, "train.lr") == 0.25);
    for (int i = 0; i < 2; i++) buf_clear(&text[i]);
    cfg_close(a);
    cfg_close(b);
    cfg_close(back);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_kinds), cmocka_unit_test(test_text) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
