/* buf.h: growth, termination, and what is left after memory runs out. */
#include "testing.h"

#include "base/buf.h"
#include "base/fault.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void test_append(void **state)
{
    (void)state;
    struct buf b = { 0 };
    assert_ok(buf_append(&b, NULL, 0));
    assert_string_equal(b.data, "");
    for (int i = 0; i < 1000; i++) assert_ok(buf_printf(&b, "%03d,", i));
    assert_int_equal(b.size, 4000);
    assert_memory_equal(b.data + 4 * 789, "789,", 4);
    assert_int_equal(b.data[b.size], '\0');

    assert_ok(buf_append(&b, "a\0b", 3)); /* bytes, not text */
    assert_memory_equal(b.data + 4000, "a\0b\0", 4);
    buf_reset(&b);
    assert_string_equal(b.data, "");
    assert_ok(buf_puts(&b, "again"));
    assert_string_equal(b.data, "again");
    buf_clear(&b);
    assert_null(b.data);
    buf_clear(&b);
}

/* Each boundary of a capacity: the NUL must fit too. */
static void test_boundaries(void **state)
{
    (void)state;
    char text[300];
    memset(text, 'x', sizeof text);
    for (size_t size = 0; size < sizeof text; size++) {
        struct buf b = { 0 };
        assert_ok(buf_append(&b, text, size));
        assert_true(b.capacity > size);
        assert_int_equal(strlen(b.data), size);
        assert_ok(buf_printf(&b, "%.*s", (int)size, text));
        assert_int_equal(strlen(b.data), 2 * size);
        buf_clear(&b);
    }
}

static void test_no_memory(void **state)
{
    (void)state;
    struct buf b = { 0 };
    assert_ok(buf_puts(&b, "kept"));
    assert_err(buf_reserve(&b, SIZE_MAX), NOMEM, "cannot grow");
    assert_err(buf_reserve(&b, SIZE_MAX / 2), NOMEM, "cannot grow");
    fault_arm("buf.", 1);
    assert_err(buf_printf(&b, "%100d", 1), NOMEM, "growing a buffer");
    fault_arm("", 0);
    assert_string_equal(b.data, "kept");
    assert_ok(buf_puts(&b, " on"));
    assert_string_equal(b.data, "kept on");
    buf_clear(&b);
}

static void test_i32(void **state)
{
    (void)state;
    struct i32_buf b = { 0 };
    assert_ok(i32_buf_append(&b, NULL, 0));
    for (int32_t i = 0; i < 1000; i++) assert_ok(i32_buf_push(&b, -i));
    const int32_t more[] = { 7, 8 };
    assert_ok(i32_buf_append(&b, more, 2));
    assert_int_equal(b.count, 1002);
    assert_int_equal(b.data[999], -999);
    assert_int_equal(b.data[1001], 8);
    assert_err(i32_buf_append(&b, more, INT64_MAX / 4), NOMEM, "cannot grow");
    assert_int_equal(b.count, 1002);
    i32_buf_reset(&b);
    assert_int_equal(b.count, 0);
    i32_buf_clear(&b);
    assert_null(b.data);
}

struct things {
    struct { char text[40]; } *item;
    int64_t count, capacity;
};

static err_t add_thing(struct things *t, int64_t number)
{
    ARRAY_GROW(t->item, t->capacity, t->count + 1);
    snprintf(t->item[t->count++].text, sizeof t->item[0].text, "%lld", (long long)number);
    return ERR_OK;
}

static err_t reserve_things(struct things *t, int64_t wanted)
{
    ARRAY_GROW(t->item, t->capacity, wanted);
    return ERR_OK;
}

static void test_array(void **state)
{
    (void)state;
    struct things t = { 0 };
    assert_ok(reserve_things(&t, 0));
    assert_null(t.item);
    for (int64_t i = 0; i < 1000; i++) assert_ok(add_thing(&t, i));
    assert_string_equal(t.item[0].text, "0");
    assert_string_equal(t.item[999].text, "999");
    const int64_t capacity = t.capacity;
    assert_in_range(capacity, 1000, 2000); /* doubled: appending is linear in total */
    assert_ok(reserve_things(&t, capacity));
    assert_int_equal(t.capacity, capacity);
    fault_arm("buf.", 1);
    assert_err(reserve_things(&t, capacity + 1), NOMEM, "growing");
    fault_arm("", 0);
    assert_err(reserve_things(&t, INT64_MAX / 2), NOMEM, "growing");
    assert_int_equal(t.capacity, capacity);
    assert_string_equal(t.item[999].text, "999");
    free(t.item);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_append),
        cmocka_unit_test(test_boundaries),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_i32),
        cmocka_unit_test(test_array),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
