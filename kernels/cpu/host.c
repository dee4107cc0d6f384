#include "kernels/cpu/host.h"

#include "base/check.h"
#include "base/fault.h"
#include "base/num.h"

#include <inttypes.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* In front of every allocation, so that free knows its size and foreign pointers are noticed. */
struct alloc_header {
    uint64_t magic;
    int64_t bytes;
};

#define HEADER_MAGIC UINT64_C(0x736f756c6d656d31)
#define HEADER_BYTES INT64_C(64)
#define PAGE_HUGE    (INT64_C(2) << 20)
#define ZERO_BLOCK   (INT64_C(4) << 20)

STATIC_ASSERT(sizeof(struct alloc_header) <= HEADER_BYTES, "data must stay 64-byte aligned");

int host_thread_count(void) { return omp_get_max_threads(); }

/* The first "model name" of /proc/cpuinfo; other architectures have none. */
static void processor_name(char *name, size_t size)
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "re");
    snprintf(name, size, "unnamed processor");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || colon == NULL) continue;
        snprintf(name, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    if (file != NULL) fclose(file);
}

void host_describe(struct dev_info *info)
{
    const int64_t page = sysconf(_SC_PAGESIZE);
    *info = (struct dev_info){ .memory_bytes = sysconf(_SC_PHYS_PAGES) * page,
                               .memory_free_bytes = sysconf(_SC_AVPHYS_PAGES) * page };
    processor_name(info->name, sizeof info->name);
}

/* In parallel, because the first touch is what places pages and costs the time. */
static err_t host_zero(struct dev *dev, void *data, int64_t bytes)
{
    const int64_t blocks = div_ceil(bytes, ZERO_BLOCK);
#pragma omp parallel for num_threads(dev->threads) schedule(static) if (blocks > 1)
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t first = b * ZERO_BLOCK;
        memset((char *)data + first, 0, (size_t)min_i64(ZERO_BLOCK, bytes - first));
    }
    return ERR_OK;
}

static err_t host_alloc(struct dev *dev, void **out, int64_t bytes, const char *what)
{
    /* Large buffers ask for huge pages: matrix products walk them with long strides. */
    const bool large = bytes >= PAGE_HUGE;
    const int64_t align = large ? PAGE_HUGE : HEADER_BYTES;
    char *block = NULL;
    int64_t total;
    if (checked_add(&total, bytes, HEADER_BYTES + align) && fault_point("dev.alloc") == ERR_OK)
        block = aligned_alloc((size_t)align, (size_t)(total / align * align));
    if (block == NULL)
        RAISE(NOMEM, "%s: %" PRId64 " bytes wanted, %" PRId64 " in use on the host", what, bytes,
              dev->stats.alloc_bytes);
    if (large) (void)madvise(block, (size_t)(total / align * align), MADV_HUGEPAGE);

    const struct alloc_header header = { HEADER_MAGIC, bytes };
    memcpy(block, &header, sizeof header);
    *out = block + HEADER_BYTES;
    TRY(host_zero(dev, *out, bytes));
    dev->stats.alloc_count++;
    dev->stats.alloc_bytes += bytes;
    dev->stats.alloc_bytes_max = max_i64(dev->stats.alloc_bytes_max, dev->stats.alloc_bytes);
    return ERR_OK;
}

static void host_free(struct dev *dev, void *data)
{
    char *block = (char *)data - HEADER_BYTES;
    struct alloc_header header;
    memcpy(&header, block, sizeof header);
    ASSERT(header.magic == HEADER_MAGIC);
    ASSERT(header.bytes >= 0 && header.bytes <= dev->stats.alloc_bytes);
    dev->stats.alloc_bytes -= header.bytes;
    memset(block, 0, sizeof header); /* a second free does not pass the magic */
    free(block);
}

static err_t host_page_alloc(struct dev *dev, void **out, int64_t bytes, const char *what)
{
    (void)dev;
    *out = NULL;
    if (fault_point("dev.host_alloc") == ERR_OK) *out = calloc(1, (size_t)max_i64(bytes, 1));
    if (*out == NULL) RAISE(NOMEM, "%s: %" PRId64 " bytes of host memory wanted", what, bytes);
    return ERR_OK;
}

static void host_page_free(struct dev *dev, void *data)
{
    (void)dev;
    free(data);
}

static err_t host_transfer(struct dev *dev, void *to, const void *from, int64_t bytes)
{
    (void)dev;
    if (bytes > 0) memcpy(to, from, (size_t)bytes);
    return ERR_OK;
}

static err_t host_copy(struct dev *dev, enum dev_queue queue, void *to, const void *from,
                       int64_t bytes)
{
    (void)queue;
    return host_transfer(dev, to, from, bytes);
}

static err_t host_sync(struct dev *dev)
{
    (void)dev;
    return ERR_OK;
}

/* Work is done when its call returns, so an event has nothing to remember. */
static err_t host_event_create(struct dev *dev, struct dev_event **out)
{
    (void)dev;
    *out = malloc(1);
    if (*out == NULL) RAISE(NOMEM, "event: 1 byte wanted");
    return ERR_OK;
}

static void host_event_destroy(struct dev *dev, struct dev_event *event)
{
    (void)dev;
    free(event);
}

static err_t host_event_order(struct dev *dev, struct dev_event *event, enum dev_queue queue)
{
    (void)dev;
    (void)event;
    (void)queue;
    return ERR_OK;
}

static err_t host_event_sync(struct dev *dev, struct dev_event *event)
{
    (void)dev;
    (void)event;
    return ERR_OK;
}

const struct dev_memory host_memory = {
    .alloc = host_alloc,
    .free = host_free,
    .host_alloc = host_page_alloc,
    .host_free = host_page_free,
    .upload = host_transfer,
    .download = host_transfer,
    .copy = host_copy,
    .zero = host_zero,
    .sync = host_sync,
    .event_create = host_event_create,
    .event_destroy = host_event_destroy,
    .event_record = host_event_order,
    .event_wait = host_event_order,
    .event_sync = host_event_sync,
};
