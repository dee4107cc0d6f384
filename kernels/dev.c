#include "kernels/dev.h"

#include "base/check.h"
#include "kernels/cpu/host.h"

#include <stdlib.h>
#include <string.h>

void dev_init_host(struct dev *dev, const struct ops_table *ops, int threads)
{
    ASSERT(dev != NULL && ops != NULL && threads >= 0);
    *dev = (struct dev){
        .ops = ops,
        .memory = &host_memory,
        .threads = threads > 0 ? threads : host_thread_count(),
    };
}

err_t dev_open(struct dev **out, const char *name, int threads)
{
    ASSERT(out != NULL && name != NULL);
    *out = NULL;
    if (strcmp(name, "cuda") == 0 || strncmp(name, "cuda:", 5) == 0)
        RAISE(UNSUPPORTED, "device %s: this build has no CUDA backend; use cpu", name);
    if (strcmp(name, "cpu") != 0) RAISE(USAGE, "device \"%s\"; expected cpu, cuda or cuda:N", name);
    if (threads < 0) RAISE(USAGE, "threads = %d; expected 0 (all cores) or more", threads);

    struct dev *dev = malloc(sizeof *dev);
    if (dev == NULL) RAISE(NOMEM, "device %s: %zu bytes wanted", name, sizeof *dev);
    dev_init_host(dev, &ops_cpu, threads);
    *out = dev;
    return ERR_OK;
}

void dev_close(struct dev *dev)
{
    if (dev == NULL) return;
    ASSERT(dev->stats.alloc_bytes == 0);
    free(dev);
}

err_t dev_alloc(struct dev *dev, void **out, int64_t bytes, const char *what)
{
    ASSERT(out != NULL && bytes >= 0 && what != NULL);
    *out = NULL;
    return dev->memory->alloc(dev, out, bytes, what);
}

void dev_free(struct dev *dev, void *data)
{
    if (data != NULL) dev->memory->free(dev, data);
}

err_t dev_upload(struct dev *dev, void *to_dev, const void *from_host, int64_t bytes)
{
    ASSERT(bytes >= 0);
    return dev->memory->upload(dev, to_dev, from_host, bytes);
}

err_t dev_download(struct dev *dev, void *to_host, const void *from_dev, int64_t bytes)
{
    ASSERT(bytes >= 0);
    return dev->memory->download(dev, to_host, from_dev, bytes);
}

err_t dev_zero(struct dev *dev, void *data, int64_t bytes)
{
    ASSERT(bytes >= 0);
    return dev->memory->zero(dev, data, bytes);
}

err_t dev_sync(struct dev *dev) { return dev->memory->sync(dev); }
