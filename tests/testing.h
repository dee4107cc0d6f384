/*
 * testing.h - what every test file includes: cmocka, and a few helpers of ours.
 *
 *     static void test_round_trip(void **state) { ... assert_ok(file_replace(path, "x", 1)); }
 *     int main(void) { const struct CMUnitTest tests[] = { cmocka_unit_test(test_round_trip) };
 *                      return cmocka_run_group_tests(tests, NULL, NULL); }
 */
#ifndef TESTS_TESTING_H
#define TESTS_TESTING_H

#include "base/err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include <cmocka.h>

/* The call must succeed; otherwise print its error with frames and fail the test. */
#define assert_ok(call) testing_assert_code((call), ERR_OK, "", #call, __FILE__, __LINE__)
/* The call must fail with this code, and its message must contain `part`. */
#define assert_err(call, code, part) \
    testing_assert_code((call), ERR_##code, part, #call, __FILE__, __LINE__)
void testing_assert_code(err_t got, err_t expected, const char *part, const char *expr,
                         const char *file, int line);

/* A fresh directory below $TMPDIR or /tmp, removed when the process ends; borrowed. */
const char *testing_dir(void);
/* testing_dir()/name; borrowed, good for eight calls. */
const char *testing_path(const char *name);

/* The signal comes to this process, and stop.h has taken note of it. A test that uses threads calls
 * stop_catch first of all. */
void testing_signal(int signal_number);

/* The path of shared reference material ("golden/chatglm-tiny"), or NULL when it is not there.
 * Looked for in $SOULCHAT_SHARED, then ../shared from the project's root. Borrowed. */
const char *testing_shared(const char *relative);

/* The emulated GPU, "emu", or what $SOULCHAT_TEST_GPU names instead ("cuda"): where a GPU is, the
 * tests of the network run on it. Borrowed. */
const char *testing_gpu(void);
/* Whether tests are wanted on this device: always, unless $SOULCHAT_TEST_DEVICES lists others
 * ("cuda" or "cpu,cuda"). */
int testing_wants(const char *device);

/* Print "SKIP: reason" and exit with 77, which ctest counts as skipped. Call it in main() only. */
__attribute__((noreturn)) void testing_skip_all(const char *reason);

#ifdef __cplusplus
}
#endif

#endif
