/* trace.h: what lands in the file, and that nothing does when it is off. */
#include "testing.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/trace.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

static void *span_many(void *name)
{
    for (int i = 0; i < 500; i++) {
        struct trace_span span = trace_begin(name);
        trace_end(&span);
    }
    return NULL;
}

static void test_spans(void **state)
{
    (void)state;
    char path[FILE_PATH_MAX];
    assert_ok(path_join(path, testing_dir(), "trace.json"));
    assert_ok(trace_open(path));
    struct trace_span outer = trace_begin("outer");
    pthread_t threads[2];
    assert_int_equal(pthread_create(&threads[0], NULL, span_many, (void *)"first"), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, span_many, (void *)"second"), 0);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    trace_end(&outer);
    trace_close();
    trace_close();

    struct buf text = { 0 };
    assert_ok(file_read_all(&text, path, 1 << 20));
    assert_int_equal(strncmp(text.data, "[\n{\"name\":\"", 11), 0);
    assert_string_equal(text.data + text.size - 5, "}}\n]\n");
    int lines = 0, wrong = 0;
    for (char *line = strtok(text.data, "\n"); line != NULL; line = strtok(NULL, "\n"), lines++) {
        char name[16];
        double begin_us, duration_us;
        int pid, tid, end = 0;
        const int fields = sscanf(line,
                                  "{\"name\":\"%15[a-z]\",\"ph\":\"X\",\"ts\":%lf,"
                                  "\"dur\":%lf,\"pid\":%d,\"tid\":%d},%n",
                                  name, &begin_us, &duration_us, &pid, &tid, &end);
        wrong += fields != 5 || line[end] != '\0' || begin_us < 0 || duration_us < 0;
    }
    assert_int_equal(lines, 1 + 1001 + 2); /* bracket, spans, process name and bracket */
    assert_int_equal(wrong, 3);
    buf_clear(&text);
}

static void test_off(void **state)
{
    (void)state;
    assert_ok(trace_open(NULL));
    struct trace_span span = trace_begin("nothing");
    assert_null(span.name);
    trace_end(&span);
    trace_close();
    assert_err(trace_open("/no/such/folder/trace.json"), IO, "/no/such/folder/trace.json");
    assert_null(trace_begin("nothing").name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spans),
        cmocka_unit_test(test_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
