/*
 * soulchat doctor - what this program finds on this machine: processor, memory, GPUs and their
 * libraries; and whether the operators compute on each device what they should.
 */
#include "base/buf.h"
#include "base/check.h"
#include "kernels/backend_load.h"
#include "kernels/commands.h"
#include "kernels/self_test.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

static const struct cli_option options[] = {
    { "device", "NAME", "test this device instead: cpu, cuda, cuda:1" },
    { 0 },
};

static const struct cli_spec spec = {
    .command = "doctor",
    .purpose = "Show what was found on this machine and test the operators on its devices. Exit "
               "status 1 when a test fails.",
    .example = "soulchat doctor\nsoulchat doctor --device cuda:1",
    .options = options,
};

static void print_program(void)
{
    struct utsname system;
    printf("soulchat %s", SOULCHAT_VERSION);
    if (uname(&system) == 0) printf(" on %s %s %s", system.sysname, system.release, system.machine);
    printf("\n");
}

/* What the CUDA library says, or why there is none; neither is a failure. */
static err_t print_cuda(void)
{
    const struct backend *backend;
    struct buf text = { 0 };
    if (backend_load(&backend, "cuda") != ERR_OK) {
        printf("%s\n", err_last()->text);
        return ERR_OK;
    }
    const err_t rc = backend->describe(&text);
    if (rc == ERR_OK) printf("%s", text.data);
    buf_clear(&text);
    return rc;
}

static void print_device(const char *name, const struct dev *dev)
{
    printf("\n%s: %s", name, dev->info.name);
    if (dev->info.capability > 0)
        printf(", %.1f of %.1f GB free", (double)dev->info.memory_free_bytes / 1e9,
               (double)dev->info.memory_bytes / 1e9);
    else
        printf(", %d thread%s, %.1f GB", dev->threads, dev->threads == 1 ? "" : "s",
               (double)dev->info.memory_bytes / 1e9);
    printf("\n");
}

/* *failed += the cases that did not pass. */
static err_t test_device(int *failed, const char *name)
{
    struct self_test_result results[SELF_TESTS_MAX];
    struct dev *dev;
    int count = 0;
    TRY(dev_open(&dev, name, 0));
    print_device(name, dev);
    const err_t rc = self_test_run(results, &count, dev);
    for (int i = 0; i < count; i++) {
        const struct self_test_result *r = &results[i];
        printf("  %-18s %-5s %s  error %.1e, accepted %.1e\n", r->op, dtype_name(r->dtype),
               r->passed ? "ok  " : "FAIL", r->error, r->accepted);
        *failed += !r->passed;
    }
    dev_close(dev);
    return rc;
}

err_t cmd_doctor(struct cfg *cfg, int argc, char **argv)
{
    struct cli_args args;
    bool help_shown = false;
    int failed = 0;
    TRY(cli_parse(&args, &help_shown, &spec, cfg, argc, argv));
    if (help_shown) return ERR_OK;
    const char *device = cli_option(&args, &spec, "device");

    print_program();
    TRY(print_cuda());
    if (device != NULL) {
        TRY(test_device(&failed, device));
    } else {
        struct dev *gpu;
        const bool has_gpu = dev_open(&gpu, "cuda", 0) == ERR_OK;
        if (has_gpu) dev_close(gpu);
        TRY(test_device(&failed, "cpu"));
        if (has_gpu) TRY(test_device(&failed, "cuda"));
    }
    if (failed > 0)
        RAISE(NUMERIC,
              "%d of the operators compute something else here: do not train with this "
              "build on this machine",
              failed);
    printf("\nall operators agree\n");
    return ERR_OK;
}
