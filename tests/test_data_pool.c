/* The pool: results come in the order of the items, an error with its own record, and stopping
 * early is clean. */
#include "testing.h"

#include "data/pool.h"

enum { SLOTS = 7, ITEMS = 20000, BAD = 777 };

struct item {
    int64_t in, out;
};

static err_t square(const void *context, void *arg)
{
    struct item *item = arg;
    item->out = item->in * item->in + *(const int64_t *)context;
    if (item->in == BAD) RAISE(IO, "item %d", BAD);
    return ERR_OK;
}

static int64_t take(struct pool *p, int64_t expected)
{
    void *taken;
    const err_t rc = pool_take(p, &taken);
    const struct item *item = taken;
    assert_int_equal(item->in, expected);
    assert_int_equal(item->out, expected * expected + 5);
    if (expected != BAD) return rc;
    assert_int_equal(rc, ERR_IO);
    assert_string_equal(err_last()->text, "item 777");
    return ERR_OK;
}

static void test_order(void **state)
{
    (void)state;
    const int64_t offset = 5;
    for (int64_t threads = 1; threads <= 8; threads *= 2) {
        struct pool *p;
        struct item items[SLOTS];
        int64_t taken = 0;
        assert_ok(pool_open(&p, threads, SLOTS, square, &offset));
        for (int64_t i = 0; i < ITEMS; i++) {
            if (pool_in_flight(p) == SLOTS) assert_int_equal(take(p, taken++), ERR_OK);
            items[i % SLOTS] = (struct item){ .in = i };
            pool_put(p, &items[i % SLOTS]);
        }
        while (pool_in_flight(p) > 0) assert_int_equal(take(p, taken++), ERR_OK);
        assert_int_equal(taken, ITEMS);
        pool_close(p);
    }
}

static void test_close_early(void **state)
{
    (void)state;
    const int64_t offset = 0;
    for (int i = 0; i < 200; i++) {
        struct pool *p;
        struct item items[SLOTS] = { { .in = 1 } };
        assert_ok(pool_open(&p, 3, SLOTS, square, &offset));
        for (int k = 0; k < i % (SLOTS + 1); k++) pool_put(p, &items[k]);
        pool_close(p);
    }
    pool_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_order),
                                        cmocka_unit_test(test_close_early) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
