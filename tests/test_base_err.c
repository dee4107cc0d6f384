/* err.h: what a record holds, and how far it grows. */
#include "testing.h"

#include <string.h>

static err_t fail_with(const char *text) { RAISE(FORMAT, "%s", text); }

static err_t pass_on(int times)
{
    if (times == 0) RAISE(IO, "the bottom");
    TRY(pass_on(times - 1));
    return ERR_OK;
}

/* Messages are one line, cut where they are too long. */
static void test_text(void **state)
{
    (void)state;
    char text[2 * ERR_TEXT_MAX];
    assert_err(fail_with("one\ntwo\n"), FORMAT, "one two ");
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    assert_err(fail_with(text), FORMAT, "xxx");
    assert_int_equal(strlen(err_last()->text), ERR_TEXT_MAX - 1);
    assert_err(fail_with("short"), FORMAT, "");
    assert_string_equal(err_last()->text, "short");
    assert_err(fail_with(err_last()->text), FORMAT, ""); /* the record's own text */
    assert_string_equal(err_last()->text, "short");
}

/* Frames are in the order in which a failure passed them; the outermost are dropped. */
static void test_frames(void **state)
{
    (void)state;
    assert_err(pass_on(0), IO, "the bottom");
    assert_int_equal(err_last()->frame_count, 1);
    assert_err(pass_on(2), IO, "the bottom");
    assert_int_equal(err_last()->frame_count, 3);
    assert_true(err_last()->frames[0].line < err_last()->frames[1].line);
    assert_string_equal(err_last()->frames[0].expr, "");
    assert_string_equal(err_last()->frames[2].expr, "pass_on(times - 1)");
    assert_err(pass_on(ERR_FRAMES_MAX + 5), IO, "the bottom");
    assert_int_equal(err_last()->frame_count, ERR_FRAMES_MAX);
    assert_string_equal(err_last()->frames[0].expr, "");
}

/* A code that nobody raised here still comes with a record. */
static void test_pass_of_another(void **state)
{
    (void)state;
    assert_err(pass_on(0), IO, "");
    assert_int_equal(err_pass(ERR_CUDA, "there.c", 7, "f()"), ERR_CUDA);
    assert_int_equal(err_last()->code, ERR_CUDA);
    assert_string_equal(err_last()->text, "ERR_CUDA");
    assert_int_equal(err_last()->frames[0].line, 7);
}

static void test_adopt(void **state)
{
    (void)state;
    assert_err(pass_on(1), IO, "");
    const struct err_record first = *err_last();
    assert_err(fail_with("another"), FORMAT, "");
    assert_int_equal(err_adopt(&first), ERR_IO);
    assert_string_equal(err_last()->text, "the bottom");
    assert_int_equal(err_last()->frame_count, 2);
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(err_name(ERR_OK), "ERR_OK");
    assert_string_equal(err_name(ERR_INTERRUPTED), "ERR_INTERRUPTED");
    assert_string_equal(err_name(ERR_COUNT), "ERR_?");
    assert_string_equal(err_name((err_t)-1), "ERR_?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_pass_of_another),
        cmocka_unit_test(test_adopt),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
