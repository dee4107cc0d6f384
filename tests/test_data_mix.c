/* Sources that are trained on more or less often, and corpora that are not what the settings say.
 */
#include "testing.h"

#include "base/check.h"
#include "base/file.h"
#include "data/prepare.h"
#include "data/sample.h"
#include "data/sample_mix.h"
#include "data/settings.h"

#include <stdio.h>
#include <string.h>

#define SAMPLE_MODEL "data/sample/model"

static const struct sample_limits limits = { .max_input = 1536, .max_target = 512 };
static char corpus_dir[FILE_PATH_MAX];

static struct cfg *make_cfg(void)
{
    struct cfg *cfg;
    assert_ok(cfg_create(&cfg, &data_settings, 1));
    assert_ok(cfg_set(cfg, "data.dir", corpus_dir, "test"));
    return cfg;
}

/* Two sources: the sample corpus, and one made-up dialogue with two replies. */
static int make_corpus(void **state)
{
    (void)state;
    char small[FILE_PATH_MAX], sources[FILE_PATH_MAX + 64];
    struct prepare_options o;
    static struct prepare_counts c;
    assert_ok(path_join(small, testing_dir(), "small=1.json"));
    assert_ok(path_join(corpus_dir, testing_dir(), "corpus"));
    const char *text = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},"
                       "{\"role\":\"assistant\",\"content\":\"b\"},"
                       "{\"role\":\"user\",\"content\":\"c\"},"
                       "{\"role\":\"assistant\",\"content\":\"d\"}]}";
    assert_ok(file_replace(small, text, (int64_t)strlen(text)));
    snprintf(sources, sizeof sources, "data/sample/corpus.json,%s", small);
    struct cfg *cfg = make_cfg();
    assert_ok(cfg_set(cfg, "data.source", sources, "test"));
    assert_ok(cfg_set(cfg, "data.tokenizer", SAMPLE_MODEL, "test"));
    assert_ok(cfg_set(cfg, "data.validation_permyriad", "0", "test"));
    assert_ok(cfg_set(cfg, "data.test_permyriad", "0", "test"));
    assert_ok(cfg_set(cfg, "data.rules", "crisis=keep", "test"));
    assert_ok(prepare_options_from_cfg(&o, cfg));
    assert_ok(prepare_run(&c, &o));
    prepare_options_clear(&o);
    cfg_close(cfg);
    return 0;
}

/* Samples with these weights; *small: of the small source. */
static int64_t count_samples(int64_t *small, struct shards *shards, const char *weights)
{
    struct sample_mix mix;
    struct sample_set *set;
    assert_ok(sample_mix_parse(&mix, weights, shards));
    assert_ok(sample_set_open_mixed(&set, shards, SPLIT_TRAIN, &limits, &mix));
    const int64_t count = sample_set_count(set);
    *small = 0;
    for (int64_t i = 0; i < count; i++)
        *small +=
            strcmp(shards_source(shards, sample_set_at(set, i)->dialogue), "small=1.json") == 0;
    assert_int_equal(sample_set_counts(set)->samples, count);
    sample_set_close(set);
    return count;
}

static void test_weights(void **state)
{
    (void)state;
    struct shards *s;
    int64_t small;
    assert_ok(shards_open(&s, corpus_dir, true));
    const int64_t all = count_samples(&small, s, "");
    assert_int_equal(small, 2);
    assert_int_equal(count_samples(&small, s, "small=1.json=3"), all + 4);
    assert_int_equal(small, 6);
    assert_int_equal(count_samples(&small, s, " corpus.json=0 , small=1.json=1"), 2);
    assert_int_equal(count_samples(&small, s, "corpus.json=2"), 2 * all - 2);
    /* A part of a source: within five standard deviations, and the larger holds the smaller. */
    const double n = (double)(all - 2);
    const int64_t quarter = count_samples(&small, s, "corpus.json=0.25") - 2;
    assert_true(((double)quarter - n / 4) * ((double)quarter - n / 4) < 25 * n * 3 / 16);
    const int64_t more = count_samples(&small, s, "corpus.json=1.25") - 2;
    assert_int_equal(more, all - 2 + quarter);
    shards_close(s);
}

static void test_bad_weights(void **state)
{
    (void)state;
    struct shards *s;
    struct sample_mix mix;
    const char *const bad[][2] = {
        { "corpus.json", "expected name=weight" },
        { "=1", "expected name=weight" },
        { "corpus.json=x", "expected 0 to 1000" },
        { "corpus.json=-1", "expected 0 to" },
        { "corpus.json=nan", "expected 0 to" },
        { "corpus.json=1,corpus.json=2", "twice" },
        { "other.json=1", "no dialogue is from other.json" },
        { "corpus.json=0,small=1.json=0", "every source has weight 0" },
    };
    assert_ok(shards_open(&s, corpus_dir, true));
    for (int64_t i = 0; i < COUNT_OF(bad); i++)
        assert_err(sample_mix_parse(&mix, bad[i][0], s), USAGE, bad[i][1]);
    shards_close(s);
}

static err_t check(const char *key, const char *value)
{
    struct shards *s;
    struct cfg *cfg = make_cfg();
    assert_ok(shards_open(&s, corpus_dir, false));
    if (key != NULL) assert_ok(cfg_set(cfg, key, value, "test"));
    const err_t rc = prepare_check_shards(s, cfg);
    const struct err_record kept = *err_last();
    shards_close(s);
    cfg_close(cfg);
    if (rc != ERR_OK) err_adopt(&kept);
    return rc;
}

static void test_check(void **state)
{
    (void)state;
    assert_ok(check(NULL, NULL)); /* nothing said: any corpus will do */
    assert_ok(check("data.rules", "crisis=keep"));
    assert_ok(check("data.client_name", "用户"));
    assert_ok(check("data.tokenizer", SAMPLE_MODEL));
    assert_ok(check("data.split_seed", "42"));
    assert_err(check("data.rules", "crisis=drop"), USAGE, "the cleaning rules");
    assert_err(check("data.long_turn", "7"), USAGE, "the cleaning rules");
    assert_err(check("data.client_name", "来访者"), USAGE,
               "prepared with data.client_name = 用户; it is 来访者 now");
    assert_err(check("data.separator", ":"), USAGE, "data.separator");
    assert_err(check("data.split_seed", "7"), USAGE, "data.split_seed = 42");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_bad_weights),
        cmocka_unit_test(test_check),
    };
    return cmocka_run_group_tests(tests, make_corpus, NULL);
}
