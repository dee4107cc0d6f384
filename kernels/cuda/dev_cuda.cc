/* A CUDA device as the rest of the program sees it: memory with its accounting, queues, opening. */
#include "kernels/cuda/dev_cuda.h"

#include "base/check.h"
#include "base/num.h"
#include "kernels/backend.h"
#include "kernels/cuda/attn.h"
#include "kernels/cuda/comm_nccl.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/ops_cuda.h"

#include <stdlib.h>
#include <string.h>

/* ---- memory ---- */

static err_t cuda_zero(struct dev *dev, void *data, int64_t bytes)
{
    return gpu_zero(gpu_of(dev), DEV_COMPUTE, data, bytes);
}

static struct cuda_block *take_block(struct cuda_block **list, const void *data)
{
    while (*list != NULL && (*list)->data != data) list = &(*list)->next;
    struct cuda_block *block = *list;
    ASSERT(block != NULL); /* freed twice, or not of this device */
    *list = block->next;
    return block;
}

static void cuda_free(struct dev *dev, void *data)
{
    struct cuda_block *block = take_block(&dev_cuda_of(dev)->blocks, data);
    dev->stats.alloc_bytes -= block->bytes;
    gpu_free(gpu_of(dev), data);
    free(block);
}

static err_t cuda_alloc(struct dev *dev, void **out, int64_t bytes, const char *what)
{
    struct dev_cuda *cuda = dev_cuda_of(dev);
    struct cuda_block *block = (struct cuda_block *)malloc(sizeof *block);
    void *data = NULL;
    if (block == NULL) RAISE(NOMEM, "%s: %zu bytes of host memory wanted", what, sizeof *block);
    const err_t rc = gpu_malloc(&cuda->gpu, &data, max_i64(bytes, 1), what);
    if (rc != ERR_OK) {
        free(block);
        return rc;
    }
    *block = { cuda->blocks, data, bytes };
    cuda->blocks = block;
    dev->stats.alloc_count++;
    dev->stats.alloc_bytes += bytes;
    dev->stats.alloc_bytes_max = max_i64(dev->stats.alloc_bytes_max, dev->stats.alloc_bytes);
    /* Waited for: other queues may write to it at once. */
    err_t zeroed = cuda_zero(dev, data, bytes);
    if (zeroed == ERR_OK) zeroed = gpu_queue_sync(&cuda->gpu, DEV_COMPUTE);
    if (zeroed != ERR_OK) {
        cuda_free(dev, data);
        return zeroed;
    }
    *out = data;
    return ERR_OK;
}

static err_t cuda_host_alloc(struct dev *dev, void **out, int64_t bytes, const char *what)
{
    struct dev_cuda *cuda = dev_cuda_of(dev);
    struct cuda_block *block = (struct cuda_block *)malloc(sizeof *block);
    if (block == NULL) RAISE(NOMEM, "%s: %zu bytes of host memory wanted", what, sizeof *block);
    const err_t rc = gpu_host_malloc(&cuda->gpu, out, max_i64(bytes, 1), what);
    if (rc != ERR_OK) {
        free(block);
        return rc;
    }
    memset(*out, 0, (size_t)bytes);
    *block = { cuda->host_blocks, *out, bytes };
    cuda->host_blocks = block;
    return ERR_OK;
}

static void cuda_host_free(struct dev *dev, void *data)
{
    free(take_block(&dev_cuda_of(dev)->host_blocks, data));
    gpu_host_free(gpu_of(dev), data);
}

static bool is_page_locked(const struct dev_cuda *cuda, const void *data, int64_t bytes)
{
    const char *const begin = (const char *)data;
    for (const struct cuda_block *b = cuda->host_blocks; b != NULL; b = b->next) {
        const char *const first = (const char *)b->data;
        if (begin >= first && begin + bytes <= first + b->bytes) return true;
    }
    return false;
}

/* ---- copies ---- */

/* By way of page-locked slots, each waited for before it is filled again: what the caller holds is
 * its own again when the call returns, and the device is never waited for. */
static err_t cuda_upload(struct dev *dev, void *to_dev, const void *from_host, int64_t bytes)
{
    struct dev_cuda *cuda = dev_cuda_of(dev);
    for (int64_t done = 0; done < bytes;) {
        const int64_t slot = cuda->upload_count++ % UPLOAD_SLOTS;
        const int64_t piece = min_i64(UPLOAD_BYTES, bytes - done);
        TRY(gpu_event_sync(&cuda->gpu, cuda->staged[slot]));
        memcpy(cuda->staging[slot], (const char *)from_host + done, (size_t)piece);
        TRY(gpu_copy(&cuda->gpu, DEV_COMPUTE, (char *)to_dev + done, cuda->staging[slot], piece));
        TRY(gpu_event_record(&cuda->gpu, cuda->staged[slot], DEV_COMPUTE));
        done += piece;
    }
    return ERR_OK;
}

static err_t cuda_download(struct dev *dev, void *to_host, const void *from_dev, int64_t bytes)
{
    struct dev_cuda *cuda = dev_cuda_of(dev);
    if (bytes > 0 && is_page_locked(cuda, to_host, bytes)) {
        TRY(gpu_copy(&cuda->gpu, DEV_COMPUTE, to_host, from_dev, bytes));
        return gpu_queue_sync(&cuda->gpu, DEV_COMPUTE);
    }
    for (int64_t done = 0; done < bytes;) {
        const int64_t piece = min_i64(UPLOAD_BYTES, bytes - done);
        const int64_t slot = cuda->upload_count++ % UPLOAD_SLOTS;
        TRY(gpu_event_sync(&cuda->gpu, cuda->staged[slot]));
        TRY(gpu_copy(&cuda->gpu, DEV_COMPUTE, cuda->staging[slot], (const char *)from_dev + done,
                     piece));
        TRY(gpu_queue_sync(&cuda->gpu, DEV_COMPUTE));
        memcpy((char *)to_host + done, cuda->staging[slot], (size_t)piece);
        done += piece;
    }
    return ERR_OK;
}

static err_t cuda_copy(struct dev *dev, enum dev_queue queue, void *to, const void *from,
                       int64_t bytes)
{
    return bytes == 0 ? ERR_OK : gpu_copy(gpu_of(dev), queue, to, from, bytes);
}

static err_t cuda_sync(struct dev *dev)
{
    for (int queue = 0; queue < DEV_QUEUES; queue++)
        TRY(gpu_queue_sync(gpu_of(dev), (enum dev_queue)queue));
    timeline_flush(&dev_cuda_of(dev)->timeline, gpu_of(dev));
    return ERR_OK;
}

/* ---- events ---- */

static err_t cuda_event_create(struct dev *dev, struct dev_event **out)
{
    void *event = NULL;
    TRY(gpu_event_create(gpu_of(dev), &event));
    *out = (struct dev_event *)event;
    return ERR_OK;
}

static void cuda_event_destroy(struct dev *dev, struct dev_event *event)
{
    gpu_event_destroy(gpu_of(dev), event);
}

static err_t cuda_event_record(struct dev *dev, struct dev_event *event, enum dev_queue queue)
{
    return gpu_event_record(gpu_of(dev), event, queue);
}

static err_t cuda_event_wait(struct dev *dev, struct dev_event *event, enum dev_queue queue)
{
    return gpu_event_wait(gpu_of(dev), event, queue);
}

static err_t cuda_event_sync(struct dev *dev, struct dev_event *event)
{
    return gpu_event_sync(gpu_of(dev), event);
}

static void cuda_span_begin(struct dev *dev, const char *name)
{
    timeline_begin(&dev_cuda_of(dev)->timeline, gpu_of(dev), name);
}

static void cuda_span_end(struct dev *dev)
{
    timeline_end(&dev_cuda_of(dev)->timeline, gpu_of(dev));
}

/* ---- opening ---- */

static const struct dev_memory memory_cuda = {
    .alloc = cuda_alloc,
    .free = cuda_free,
    .host_alloc = cuda_host_alloc,
    .host_free = cuda_host_free,
    .upload = cuda_upload,
    .download = cuda_download,
    .copy = cuda_copy,
    .zero = cuda_zero,
    .sync = cuda_sync,
    .event_create = cuda_event_create,
    .event_destroy = cuda_event_destroy,
    .event_record = cuda_event_record,
    .event_wait = cuda_event_wait,
    .event_sync = cuda_event_sync,
    .span_begin = cuda_span_begin,
    .span_end = cuda_span_end,
};

static err_t open_parts(struct dev *dev)
{
    struct dev_cuda *cuda = dev_cuda_of(dev);
    for (int slot = 0; slot < UPLOAD_SLOTS; slot++) {
        TRY(gpu_host_malloc(&cuda->gpu, &cuda->staging[slot], UPLOAD_BYTES, "upload staging"));
        TRY(gpu_event_create(&cuda->gpu, &cuda->staged[slot]));
    }
    return gemm_lib_open(&cuda->gemm, dev);
}

/* What is queued may still use what the libraries hold, after a failure say. */
static void wait_for_all(struct gpu *gpu)
{
    for (int queue = 0; queue < DEV_QUEUES; queue++) {
        const err_t rc = gpu_queue_sync(gpu, (enum dev_queue)queue);
        (void)rc; /* has been told, or concerns nobody any more */
    }
}

static void backend_close(struct dev *dev)
{
    struct dev_cuda *cuda = dev_cuda_of(dev);
    ASSERT(cuda->blocks == NULL && cuda->host_blocks == NULL);
    wait_for_all(&cuda->gpu);
    attn_library_close(dev);
    gemm_lib_close(cuda->gemm, dev);
    timeline_close(&cuda->timeline, &cuda->gpu);
    for (int slot = 0; slot < UPLOAD_SLOTS; slot++) {
        if (cuda->staged[slot] != NULL) gpu_event_destroy(&cuda->gpu, cuda->staged[slot]);
        if (cuda->staging[slot] != NULL) gpu_host_free(&cuda->gpu, cuda->staging[slot]);
    }
    gpu_close(&cuda->gpu);
    free(cuda);
    dev->state = NULL;
}

static err_t backend_open(struct dev *dev, int index)
{
    struct dev_cuda *cuda = (struct dev_cuda *)calloc(1, sizeof *cuda);
    if (cuda == NULL)
        RAISE(NOMEM, "device %d: %zu bytes of host memory wanted", index, sizeof *cuda);
    err_t rc = gpu_open(&cuda->gpu, &dev->info, index);
    if (rc != ERR_OK) {
        free(cuda);
        return rc;
    }
    dev->state = cuda;
    dev->ops = &ops_cuda;
    dev->memory = &memory_cuda;
    rc = attn_read_switch(dev);
    if (rc == ERR_OK) rc = attn_library_open(dev);
    if (rc == ERR_OK) rc = open_parts(dev);
    if (rc != ERR_OK) backend_close(dev);
    return rc;
}

static err_t backend_describe(struct buf *out)
{
    TRY(gpu_describe(out));
    TRY(gemm_describe(out));
    return attn_library_describe(out);
}

static err_t backend_tuning_write(struct buf *out, struct dev *dev)
{
    return gemm_lib_write_choices(out, dev_cuda_of(dev)->gemm);
}

static err_t backend_tuning_adopt(struct dev *dev, const char *text, int64_t size)
{
    return gemm_lib_adopt_choices(dev_cuda_of(dev)->gemm, text, size);
}

extern "C" const struct backend *soulchat_backend(void)
{
    static const struct backend backend = {
        .version = SOULCHAT_VERSION,
        .dev_bytes = sizeof(struct dev),
        .table_bytes = sizeof(struct ops_table),
        .open = backend_open,
        .close = backend_close,
        .describe = backend_describe,
        .tuning_write = backend_tuning_write,
        .tuning_adopt = backend_tuning_adopt,
        .comm = &comm_nccl_ops,
        .host_memory = gpu_is_host(),
    };
    return &backend;
}
