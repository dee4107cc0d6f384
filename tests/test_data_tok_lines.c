/* The JSON lines of `soulchat tokenize`. */
#include "testing.h"

#include "data/tokenize.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static err_t run(struct tokenize_options options, const char *input, size_t size, char **output)
{
    struct tok *tok = NULL;
    size_t output_size = 0;
    assert_ok(tok_open(&tok, "data/sample/model"));
    FILE *in = fmemopen((void *)(uintptr_t)input, size, "r");
    FILE *out = open_memstream(output, &output_size);
    assert_true(in != NULL && out != NULL);
    const err_t rc = tokenize_lines(out, in, tok, &options);
    fclose(in);
    fclose(out);
    tok_close(tok);
    return rc;
}

static void assert_lines(struct tokenize_options options, const char *input, const char *expected)
{
    char *output = NULL;
    assert_ok(run(options, input, strlen(input), &output));
    assert_string_equal(output, expected);
    free(output);
}

static void test_encode(void **state)
{
    (void)state;
    assert_lines((struct tokenize_options){ 0 }, "\"\"\n\"我\\n我\"\n  \"\\u0000\" \r\n\"<sop>\"",
                 "{\"ids\":[]}\n{\"ids\":[5,10,4,10]}\n{\"ids\":[5,1688]}\n"
                 "{\"ids\":[5,1306,1252,1256,1255,1304]}\n");
    assert_lines((struct tokenize_options){ .special = true, .pieces = true }, "\"我 <sop>\"\n",
                 "{\"ids\":[5,10,1604],\"pieces\":[\"▁\",\"我\",\"<sop>\"]}\n");
}

static void test_decode(void **state)
{
    (void)state;
    assert_lines((struct tokenize_options){ .decode = true },
                 "{\"ids\":[5,10,4,1604,10]}\n[]\n[5,1688]\n", "\"我\\n我\"\n\"\"\n\"\\u0000\"\n");
}

static void assert_refused(struct tokenize_options options, const char *input, err_t code,
                           const char *part)
{
    char *output = NULL;
    testing_assert_code(run(options, input, strlen(input), &output), code, part, input, __FILE__,
                        __LINE__);
    free(output);
}

static void test_bad_lines(void **state)
{
    (void)state;
    const struct tokenize_options encode = { 0 }, decode = { .decode = true };
    assert_refused(encode, "\"a\"\n\"b\n", ERR_FORMAT, "line 2");
    assert_refused(encode, "\"a\"\n\n\"b\"\n", ERR_FORMAT, "line 2");
    assert_refused(encode, "[1]\n", ERR_FORMAT, "line 1: expected a JSON string");
    assert_refused(encode, "\"\\ud800\"\n", ERR_FORMAT, "line 1");
    assert_refused(encode, "\"\xFF\"\n", ERR_FORMAT, "line 1");
    assert_refused(decode, "[5]\n\"x\"\n", ERR_FORMAT, "line 2: expected {\"ids\"");
    assert_refused(decode, "{\"id\":[5]}\n", ERR_FORMAT, "line 1");
    assert_refused(decode, "[5,1.5]\n", ERR_FORMAT, "element 1");
    assert_refused(decode, "[-1]\n", ERR_FORMAT, "element 0");
    assert_refused(decode, "[4294967301]\n", ERR_FORMAT, "element 0");
    assert_refused(decode, "[99999]\n", ERR_ARG, "ids 0 to 1943");
}

/* What was answered before a bad line has been written. */
static void test_answers_before_an_error(void **state)
{
    (void)state;
    char *output = NULL;
    const err_t rc = run((struct tokenize_options){ 0 }, "\"我\"\nx\n", 8, &output);
    assert_int_equal(rc, ERR_FORMAT);
    assert_string_equal(output, "{\"ids\":[5,10]}\n");
    free(output);
}

static void test_long_line(void **state)
{
    (void)state;
    const size_t size = (1 << 20) + 2;
    char *input = malloc(size), *output = NULL;
    assert_non_null(input);
    memset(input, 'a', size);
    input[0] = input[size - 1] = '"';
    assert_ok(run((struct tokenize_options){ 0 }, input, size, &output));
    assert_true(strlen(output) > 1 << 20);
    free(input);
    free(output);
}

static void test_full_disk(void **state)
{
    (void)state;
    static char input[] = "\"我\"\n";
    struct tok *tok = NULL;
    FILE *full = fopen("/dev/full", "w"), *in = fmemopen(input, sizeof input - 1, "r");
    assert_ok(tok_open(&tok, "data/sample/model"));
    assert_true(full != NULL && in != NULL);
    const struct tokenize_options options = { 0 };
    assert_err(tokenize_lines(full, in, tok, &options), IO, "No space left");
    fclose(in);
    fclose(full);
    tok_close(tok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encode),
        cmocka_unit_test(test_decode),
        cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_answers_before_an_error),
        cmocka_unit_test(test_long_line),
        cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
