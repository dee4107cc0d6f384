/* The emulated device with SOULCHAT_EMU_GUARD=1: its memory is reached by its own work alone. */
#include "testing.h"

#include "kernels/ops_optim.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COUNT = 1000 };

static struct tensor flat(float *data) { return tensor_1d(data, DTYPE_F32, COUNT, "flat"); }

/* Run `body` in a child: the signal that ends it, 0 for none. */
static int signal_of(void (*body)(struct dev *, float *, float *), struct dev *dev, float *on_dev,
                     float *on_host)
{
    int status;
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        signal(SIGABRT, SIG_DFL);
        (void)!freopen("/dev/null", "w", stderr);
        body(dev, on_dev, on_host);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
}

static void read_there(struct dev *dev, float *on_dev, float *on_host)
{
    (void)dev;
    *(volatile float *)on_host = *(volatile float *)on_dev;
}

static void write_there(struct dev *dev, float *on_dev, float *on_host)
{
    (void)dev;
    *(volatile float *)on_dev = on_host[0];
}

static void sum_from_host(struct dev *dev, float *on_dev, float *on_host)
{
    const struct sumsq_segment all = { .count = COUNT };
    struct tensor out = tensor_1d(on_dev, DTYPE_F64, 1, "out"), x = flat(on_host);
    (void)!op_sumsq_chunks(dev, &(struct sumsq_chunks_args){
                                    .out = &out, .x = &x, .segments = &all, .segment_count = 1 });
}

static void test_guard(void **state)
{
    (void)state;
    struct dev *dev = NULL;
    void *memory = NULL;
    _Alignas(16) float host[COUNT];
    assert_ok(dev_open(&dev, "emu", 1));
    assert_ok(dev_alloc(dev, &memory, sizeof host, "guarded"));
    for (int i = 0; i < COUNT; i++) host[i] = (float)i;

    assert_ok(dev_upload(dev, memory, host, sizeof host));
    struct tensor t = flat(memory);
    assert_ok(op_add(dev, &(struct add_args){ .y_acc = &t, .x = &t }));
    assert_ok(dev_download(dev, host, memory, sizeof host));
    for (int i = 0; i < COUNT; i++) assert_true(host[i] == 2.0f * (float)i);

    assert_int_not_equal(signal_of(read_there, dev, memory, host), 0);
    assert_int_not_equal(signal_of(write_there, dev, memory, host), 0);
    assert_int_not_equal(signal_of(sum_from_host, dev, memory, host), 0);
    dev_free(dev, memory);
    dev_close(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_guard) };
    if (setenv("SOULCHAT_EMU_GUARD", "1", 1) != 0) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
