/* arena.h: alignment, zeros, growth, and the red zones between objects. */
#include "testing.h"

#include "base/arena.h"
#include "base/fault.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void assert_zero(const uint8_t *bytes, int64_t size)
{
    for (int64_t i = 0; i < size; i++) assert_int_equal(bytes[i], 0);
}

/* Many objects of many sizes: none overlaps another, which their contents would show. */
static void push_many(struct arena *a)
{
    enum { COUNT = 2000 };
    static uint8_t *objects[COUNT];
    for (int64_t i = 0; i < COUNT; i++) {
        const int64_t bytes = i * 37 % 401, align = (int64_t)1 << (i % 13);
        void *at;
        assert_ok(arena_push(a, &at, bytes, align));
        assert_int_equal((uintptr_t)at % (uintptr_t)align, 0);
        assert_zero(at, bytes);
        memset(at, (int)(i % 255) + 1, (size_t)bytes);
        objects[i] = at;
    }
    for (int64_t i = 0; i < COUNT; i++)
        for (int64_t k = 0; k < i * 37 % 401; k++) assert_int_equal(objects[i][k], i % 255 + 1);
}

static void test_push(void **state)
{
    (void)state;
    struct arena a = { 0 };
    push_many(&a);
    void *at;
    assert_ok(arena_push(&a, &at, (int64_t)5 << 20, 4096)); /* larger than any block so far */
    memset(at, 1, (size_t)5 << 20);
    assert_ok(arena_push(&a, &at, 0, 1));
    assert_non_null(at);
    push_many(&a);
    arena_clear(&a);
    assert_null(a.head);
    arena_clear(&a);
    push_many(&a); /* of use again */
    arena_clear(&a);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct arena a = { 0 };
    void *at = NULL;
    assert_err(arena_push(&a, &at, INT64_MAX, 4096), NOMEM, "9223372036854775807 bytes wanted");
    assert_err(arena_push(&a, &at, (int64_t)1 << 60, 1), NOMEM, "bytes wanted");
    fault_arm("arena.block", 1);
    assert_err(arena_push(&a, &at, 7, 1), NOMEM, "arena: 7 bytes wanted");
    fault_arm("", 0);
    assert_null(at);
    assert_null(a.head);
    arena_clear(&a);
}

static void test_malloc_mode(void **state)
{
    (void)state;
    setenv("SOULCHAT_ARENA", "malloc", 1);
    struct arena a = { 0 };
    push_many(&a);
    fault_arm("arena.block", 1000000);
    push_many(&a);
    assert_int_equal(fault_hits(), 2000); /* one allocation for each object */
    fault_arm("", 0);
    unsetenv("SOULCHAT_ARENA");
    arena_clear(&a);
}

/* Whether reading at[offset] stops the program. */
static int is_guarded(const uint8_t *at, int64_t offset)
{
    const pid_t child = fork();
    if (child == 0) {
        close(STDERR_FILENO); /* the report is expected */
        const volatile uint8_t *byte = at + offset;
        (void)*byte;
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status != 0;
}

static void test_red_zones(void **state)
{
    (void)state;
#ifndef __SANITIZE_ADDRESS__
    skip();
#endif
    struct arena a = { 0 };
    void *first, *second;
    assert_ok(arena_push(&a, &first, 24, 8));
    assert_ok(arena_push(&a, &second, 24, 8));
    assert_false(is_guarded(first, 23));
    assert_true(is_guarded(first, 24));
    assert_true(is_guarded(second, -1));
    assert_true(is_guarded(second, 24));
    arena_clear(&a);
    assert_true(is_guarded(first, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_push),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_malloc_mode),
        cmocka_unit_test(test_red_zones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
