#include "kernels/dev.h"

#include "base/check.h"
#include "kernels/backend.h"
#include "kernels/backend_load.h"
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
    host_describe(&dev->info);
}

/* "cuda:3" is device 3 of backend "cuda"; without a number, device 0. */
static err_t parse_name(const char *name, char backend[BACKEND_NAME_MAX], int *index)
{
    const size_t length = strcspn(name, ":");
    char *end = NULL;
    *index = 0;
    if (length > 0 && length < BACKEND_NAME_MAX) {
        memcpy(backend, name, length);
        backend[length] = '\0';
        if (name[length] == '\0') return ERR_OK;
        const char *digits = name + length + 1;
        const long number = strtol(digits, &end, 10);
        if (*digits >= '0' && *digits <= '9' && *end == '\0' && number < 1024 &&
            strcmp(backend, "cpu") != 0) {
            *index = (int)number;
            return ERR_OK;
        }
    }
    RAISE(USAGE, "device \"%s\"; expected cpu, cuda or cuda:N", name);
}

static err_t open_backend(struct dev *dev, const char *name)
{
    char backend[BACKEND_NAME_MAX];
    int index;
    TRY(parse_name(name, backend, &index));
    if (strcmp(backend, "cpu") == 0) return ERR_OK;
    if (strcmp(backend, "cuda") != 0 && strcmp(backend, "emu") != 0)
        RAISE(USAGE, "device \"%s\"; expected cpu, cuda or cuda:N", name);
    TRY(backend_load(&dev->backend, backend));
    return dev->backend->open(dev, index);
}

err_t dev_open(struct dev **out, const char *name, int threads)
{
    ASSERT(out != NULL && name != NULL);
    *out = NULL;
    if (threads < 0) RAISE(USAGE, "threads = %d; expected 0 (all cores) or more", threads);

    struct dev *dev = malloc(sizeof *dev);
    if (dev == NULL) RAISE(NOMEM, "device %s: %zu bytes wanted", name, sizeof *dev);
    dev_init_host(dev, &ops_cpu, threads);
    const err_t rc = open_backend(dev, name);
    if (rc != ERR_OK) {
        free(dev);
        return rc;
    }
    *out = dev;
    return ERR_OK;
}

void dev_close(struct dev *dev)
{
    if (dev == NULL) return;
    ASSERT(dev->stats.alloc_bytes == 0);
    if (dev->backend != NULL) dev->backend->close(dev);
    free(dev);
}

err_t dev_tuning_write(struct buf *out, struct dev *dev)
{
    return dev->backend == NULL ? ERR_OK : dev->backend->tuning_write(out, dev);
}

err_t dev_tuning_adopt(struct dev *dev, const char *text, int64_t size)
{
    return dev->backend == NULL ? ERR_OK : dev->backend->tuning_adopt(dev, text, size);
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

err_t dev_host_alloc(struct dev *dev, void **out, int64_t bytes, const char *what)
{
    ASSERT(out != NULL && bytes >= 0 && what != NULL);
    *out = NULL;
    return dev->memory->host_alloc(dev, out, bytes, what);
}

void dev_host_free(struct dev *dev, void *data)
{
    if (data != NULL) dev->memory->host_free(dev, data);
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

err_t dev_copy(struct dev *dev, enum dev_queue queue, void *to, const void *from, int64_t bytes)
{
    ASSERT(bytes >= 0 && (int)queue >= 0 && queue < DEV_QUEUES);
    return dev->memory->copy(dev, queue, to, from, bytes);
}

err_t dev_zero(struct dev *dev, void *data, int64_t bytes)
{
    ASSERT(bytes >= 0);
    return dev->memory->zero(dev, data, bytes);
}

err_t dev_sync(struct dev *dev) { return dev->memory->sync(dev); }

err_t dev_event_create(struct dev *dev, struct dev_event **out)
{
    ASSERT(out != NULL);
    *out = NULL;
    return dev->memory->event_create(dev, out);
}

void dev_event_destroy(struct dev *dev, struct dev_event *event)
{
    if (event != NULL) dev->memory->event_destroy(dev, event);
}

err_t dev_event_record(struct dev *dev, struct dev_event *event, enum dev_queue queue)
{
    ASSERT(event != NULL && (int)queue >= 0 && queue < DEV_QUEUES);
    return dev->memory->event_record(dev, event, queue);
}

err_t dev_event_wait(struct dev *dev, struct dev_event *event, enum dev_queue queue)
{
    ASSERT(event != NULL && (int)queue >= 0 && queue < DEV_QUEUES);
    return dev->memory->event_wait(dev, event, queue);
}

err_t dev_event_sync(struct dev *dev, struct dev_event *event)
{
    ASSERT(event != NULL);
    return dev->memory->event_sync(dev, event);
}

struct trace_span dev_span_begin(struct dev *dev, const char *name)
{
    const struct trace_span span = trace_begin(name);
    if (span.name != NULL && dev->memory->span_begin != NULL) dev->memory->span_begin(dev, name);
    return span;
}

void dev_span_end(struct dev *dev, struct trace_span *span)
{
    if (span->name != NULL && dev->memory->span_end != NULL) dev->memory->span_end(dev);
    trace_end(span);
}
