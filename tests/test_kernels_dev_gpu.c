/* Devices behind a library: memory, copies, queues, and every call of the runtime failing once. On
 * the emulated GPU, and on a real one where there is one. */
#include "testing.h"
#include "use_device.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/num.h"
#include "base/trace.h"
#include "kernels/backend.h"
#include "kernels/backend_load.h"
#include "kernels/dev.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t pattern(int64_t i) { return (uint32_t)i * 2654435761u ^ 0x5bd1e995u; }

static uint32_t *make_words(int64_t count)
{
    uint32_t *words = malloc((size_t)count * sizeof *words);
    assert_non_null(words);
    for (int64_t i = 0; i < count; i++) words[i] = pattern(i);
    return words;
}

static void test_info(void **state)
{
    const struct dev *dev = *state;
    assert_string_equal(dev->ops->name, "cuda");
    assert_true(strlen(dev->info.name) > 0);
    assert_true(dev->info.capability >= 80 && dev->info.multiprocessors > 0);
    assert_true(dev->info.memory_free_bytes > 0);
    assert_true(dev->info.memory_bytes >= dev->info.memory_free_bytes);
}

/* Larger than the staging slots, and no multiple of them. */
static void test_copies(void **state)
{
    static const int64_t counts[] = { 1, 1000, (4 << 20) / 4, 3 * (4 << 20) / 4 + 17 };
    struct dev *dev = *state;
    for (int64_t c = 0; c < COUNT_OF(counts); c++) {
        const int64_t bytes = counts[c] * 4;
        uint32_t *there = make_words(counts[c]), *back = calloc((size_t)counts[c], 4);
        void *data;
        assert_ok(dev_alloc(dev, &data, bytes, "words"));
        assert_ok(dev_download(dev, back, data, bytes));
        for (int64_t i = 0; i < counts[c]; i++) assert_int_equal(back[i], 0);
        assert_ok(dev_upload(dev, data, there, bytes));
        memset(there, 0, (size_t)counts[c] * 4); /* the caller's again */
        assert_ok(dev_download(dev, back, data, bytes));
        for (int64_t i = 0; i < counts[c]; i++) assert_true(back[i] == pattern(i));
        assert_ok(dev_zero(dev, data, bytes - 1));
        assert_ok(dev_download(dev, back, data, bytes));
        for (int64_t i = 0; i + 1 < counts[c]; i++) assert_int_equal(back[i], 0);
        assert_true(back[counts[c] - 1] == (pattern(counts[c] - 1) & 0xff000000u));
        dev_free(dev, data);
        free(there);
        free(back);
    }
    assert_int_equal(dev->stats.alloc_bytes, 0);
}

/* To page-locked memory, which needs no staging: any part of it, and no more. */
static void test_page_locked(void **state)
{
    enum { COUNT = 3 * (4 << 20) / 4 + 17, FIRST = 5, SKIPPED = 9 };
    struct dev *dev = *state;
    uint32_t *there = make_words(COUNT);
    void *data, *other, *locked;
    assert_ok(dev_alloc(dev, &data, COUNT * 4, "words"));
    assert_ok(dev_host_alloc(dev, &other, 64, "another"));
    assert_ok(dev_host_alloc(dev, &locked, COUNT * 4, "locked"));
    assert_ok(dev_upload(dev, data, there, COUNT * 4));
    const uint32_t *words = locked;
    assert_ok(dev_download(dev, (uint32_t *)locked + FIRST, (uint32_t *)data + SKIPPED,
                           (COUNT - SKIPPED) * 4));
    for (int i = 0; i < FIRST; i++) assert_int_equal(words[i], 0);
    for (int i = 0; i < COUNT - SKIPPED; i++) assert_true(words[FIRST + i] == there[SKIPPED + i]);
    for (int i = COUNT - SKIPPED + FIRST; i < COUNT; i++) assert_int_equal(words[i], 0);
    assert_ok(dev_download(dev, locked, data, 0));
    dev_host_free(dev, locked);
    dev_host_free(dev, other);
    dev_free(dev, data);
    free(there);
}

/* In, over to another buffer, out: on three queues, ordered by events alone. */
static void test_queues(void **state)
{
    enum { COUNT = 100000, BYTES = COUNT * 4 };
    struct dev *dev = *state;
    struct dev_event *in, *moved, *out;
    void *a, *b, *from, *to;
    assert_ok(dev_event_create(dev, &in));
    assert_ok(dev_event_create(dev, &moved));
    assert_ok(dev_event_create(dev, &out));
    assert_ok(dev_alloc(dev, &a, BYTES, "a"));
    assert_ok(dev_alloc(dev, &b, BYTES, "b"));
    assert_ok(dev_host_alloc(dev, &from, BYTES, "from"));
    assert_ok(dev_host_alloc(dev, &to, BYTES, "to"));
    assert_ok(dev_sync(dev)); /* the zeros */
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(((const uint32_t *)to)[i], 0);
        ((uint32_t *)from)[i] = pattern(i);
    }
    assert_ok(dev_event_wait(dev, in, DEV_COMPUTE)); /* never recorded: nothing to wait for */
    assert_ok(dev_copy(dev, DEV_IN, a, from, BYTES));
    assert_ok(dev_event_record(dev, in, DEV_IN));
    assert_ok(dev_event_wait(dev, in, DEV_COMPUTE));
    assert_ok(dev_copy(dev, DEV_COMPUTE, b, a, BYTES));
    assert_ok(dev_event_record(dev, moved, DEV_COMPUTE));
    assert_ok(dev_event_wait(dev, moved, DEV_OUT));
    assert_ok(dev_copy(dev, DEV_OUT, to, b, BYTES));
    assert_ok(dev_event_record(dev, out, DEV_OUT));
    assert_ok(dev_event_sync(dev, out));
    for (int i = 0; i < COUNT; i++) assert_true(((const uint32_t *)to)[i] == pattern(i));
    dev_host_free(dev, from);
    dev_host_free(dev, to);
    dev_host_free(dev, NULL);
    dev_free(dev, a);
    dev_free(dev, b);
    dev_event_destroy(dev, in);
    dev_event_destroy(dev, moved);
    dev_event_destroy(dev, out);
    dev_event_destroy(dev, NULL);
}

/* New memory may be written to by another queue at once: its zeros do not come afterwards. */
static void test_zeros_first(void **state)
{
    enum { BYTES = 4096 };
    struct dev *dev = *state;
    struct dev_event *event;
    void *data, *host;
    assert_ok(dev_host_alloc(dev, &host, BYTES, "host"));
    memset(host, 7, BYTES);
    assert_ok(dev_alloc(dev, &data, BYTES, "data"));
    assert_ok(dev_copy(dev, DEV_IN, data, host, BYTES));
    assert_ok(dev_event_create(dev, &event));
    assert_ok(dev_event_record(dev, event, DEV_IN));
    assert_ok(dev_event_sync(dev, event));
    assert_ok(dev_sync(dev));
    assert_ok(dev_download(dev, host, data, BYTES));
    for (int i = 0; i < BYTES; i++) assert_int_equal(((const uint8_t *)host)[i], 7);
    dev_event_destroy(dev, event);
    dev_host_free(dev, host);
    dev_free(dev, data);
}

static void test_every_failure(void **state)
{
    const struct dev *dev = *state;
    int failures = 0;
    for (int n = 1;; n++) {
        fault_arm("gpu.", n);
        const err_t rc = use_device(dev->backend->host_memory ? "emu" : "cuda");
        fault_arm("", 0);
        if (rc == ERR_OK) break;
        assert_true(rc == ERR_CUDA || rc == ERR_NOMEM);
        assert_true(strlen(err_last()->text) > 0);
        failures++;
    }
    assert_true(failures >= 12);
}

static void test_no_memory(void **state)
{
    struct dev *dev = *state;
    void *data;
    assert_err(dev_alloc(dev, &data, INT64_C(1) << 50, "the moon"), NOMEM, "the moon");
    assert_null(data);
    fault_arm("gpu.malloc", 1);
    assert_err(dev_alloc(dev, &data, 8, "weights"), NOMEM, "weights: 8 bytes wanted");
    fault_arm("gpu.host_malloc", 1);
    assert_err(dev_host_alloc(dev, &data, 8, "moments"), NOMEM, "moments: 8 bytes");
    fault_arm("gpu.zero", 1); /* the memory was there; filling it failed */
    assert_err(dev_alloc(dev, &data, 8, "weights"), CUDA, "");
    fault_arm("", 0);
    assert_int_equal(dev->stats.alloc_bytes, 0);
}

/* More spans than the timeline holds, inside one that stays open: each is in the trace once, inside
 * the open one, on the device's track and on the host's. */
static void test_timeline(void **state)
{
    enum { SPANS = 9000 };
    struct dev *dev = *state;
    char path[FILE_PATH_MAX];
    struct buf text = { 0 };
    int inner = 0, device = 0, outer = 0;
    double outer_begin = -1, outer_end = -1, first = 1e300, last = -1;
    assert_ok(path_join(path, testing_dir(), "trace.json"));
    assert_ok(trace_open(path));
    struct trace_span whole = dev_span_begin(dev, "whole");
    for (int i = 0; i < SPANS; i++) {
        struct trace_span span = dev_span_begin(dev, "part");
        dev_span_end(dev, &span);
        if (i % 2500 == 0) assert_ok(dev_sync(dev));
    }
    dev_span_end(dev, &whole);
    assert_ok(dev_sync(dev));
    trace_close();

    assert_ok(file_read_all(&text, path, 8 << 20));
    for (char *line = strtok(text.data, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        char name[16];
        double begin, duration;
        int pid, tid;
        if (sscanf(
                line,
                "{\"name\":\"%15[a-z]\",\"ph\":\"X\",\"ts\":%lf,\"dur\":%lf,\"pid\":%d,\"tid\":%d",
                name, &begin, &duration, &pid, &tid) != 5)
            continue;
        if (strcmp(name, "part") == 0) inner++;
        if (tid != 1) continue;
        assert_true(duration >= 0);
        if (strcmp(name, "part") == 0) {
            device++;
            first = begin < first ? begin : first;
            last = begin + duration > last ? begin + duration : last;
        } else {
            outer++;
            outer_begin = begin;
            outer_end = begin + duration;
        }
    }
    assert_int_equal(inner, 2 * SPANS);
    assert_int_equal(device, SPANS);
    assert_int_equal(outer, 1);
    assert_true(outer_begin <= first && last <= outer_end + 0.002); /* printed to 0.001 us */
    buf_clear(&text);
}

static void test_names(void **state)
{
    (void)state;
    struct dev *dev;
    assert_err(dev_open(&dev, "emu:1", 1), CUDA, "emu:1");
    assert_null(dev);
    assert_err(dev_open(&dev, "emu:one", 1), USAGE, "emu:one");
}

static void test_describe(void **state)
{
    (void)state;
    const struct backend *backend;
    struct buf text = { 0 };
    assert_ok(backend_load(&backend, "emu"));
    assert_ok(backend->describe(&text));
    assert_non_null(strstr(text.data, "emulated GPU"));
    buf_clear(&text);
}

int main(void)
{
    static const char *const names[] = { "emu", "cuda" };
    int failed = 0;
    for (int64_t i = 0; i < COUNT_OF(names); i++) {
        struct dev *dev;
        const err_t rc = dev_open(&dev, names[i], 1);
        if (rc != ERR_OK) {
            printf("SKIP: %s: %s\n", names[i], err_last()->text);
            if (strcmp(names[i], "emu") == 0) failed++; /* built together with this test */
            continue;
        }
        const struct CMUnitTest tests[] = {
            cmocka_unit_test_prestate(test_info, dev),
            cmocka_unit_test_prestate(test_copies, dev),
            cmocka_unit_test_prestate(test_page_locked, dev),
            cmocka_unit_test_prestate(test_queues, dev),
            cmocka_unit_test_prestate(test_zeros_first, dev),
            cmocka_unit_test_prestate(test_no_memory, dev),
            cmocka_unit_test_prestate(test_timeline, dev),
            cmocka_unit_test_prestate(test_every_failure, dev),
            cmocka_unit_test(test_names),
            cmocka_unit_test(test_describe),
        };
        failed += cmocka_run_group_tests_name(names[i], tests, NULL, NULL);
        if (failed == 0) dev_close(dev);
    }
    return failed;
}
