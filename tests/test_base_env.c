/* env.h: known switches, and the typo that must not go unnoticed. nearest.h: which word is near. */
#include "testing.h"

#include "base/env.h"
#include "base/nearest.h"

#include <stdlib.h>
#include <string.h>

static void test_check(void **state)
{
    (void)state;
    assert_ok(env_check());
    setenv("SOULCHAT_LGO", "info", 1);
    assert_err(env_check(), USAGE, "there is no switch SOULCHAT_LGO; the nearest is SOULCHAT_LOG");
    unsetenv("SOULCHAT_LGO");
    setenv("SOULCHAT_", "", 1);
    assert_err(env_check(), USAGE, "there is no switch SOULCHAT_;");
    unsetenv("SOULCHAT_");
    setenv("SOULCHATTER", "", 1); /* another program's */
    assert_ok(env_check());
    for (int64_t i = 0; i < env_row_count(); i++) {
        assert_int_equal(strncmp(env_row_at(i)->name, "SOULCHAT_", 9), 0);
        setenv(env_row_at(i)->name, "x", 1);
    }
    assert_ok(env_check());
}

static void test_get(void **state)
{
    (void)state;
    unsetenv("SOULCHAT_LOG");
    assert_null(env_get("SOULCHAT_LOG"));
    setenv("SOULCHAT_LOG", "", 1);
    assert_null(env_get("SOULCHAT_LOG"));
    setenv("SOULCHAT_LOG", "debug", 1);
    assert_string_equal(env_get("SOULCHAT_LOG"), "debug");
    unsetenv("SOULCHAT_LOG");
}

static int distance(const char *a, const char *b)
{
    struct nearest n = { .word = a };
    nearest_offer(&n, b);
    return n.distance;
}

static void test_nearest(void **state)
{
    (void)state;
    assert_int_equal(distance("", ""), 0);
    assert_int_equal(distance("", "abc"), 3);
    assert_int_equal(distance("abc", ""), 3);
    assert_int_equal(distance("kitten", "sitting"), 3);
    assert_int_equal(distance("sitting", "kitten"), 3);
    assert_int_equal(distance("flaw", "lawn"), 2);
    char longer[200];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    assert_int_equal(distance(longer, ""), NEAREST_WORD_MAX);

    struct nearest n = { .word = "stepz" };
    nearest_offer(&n, "lr");
    nearest_offer(&n, "steps");
    nearest_offer(&n, "step");
    assert_string_equal(n.best, "steps");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_get),
        cmocka_unit_test(test_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
