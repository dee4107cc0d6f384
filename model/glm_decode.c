/*
 * Decoding: keys and values of every layer are kept, a prompt fills a slot, then one row per token.
 *
 * The cache is one allocation: k and v of layer 0, k and v of layer 1, ...; then what a decoding
 * step needs beside the model's own buffers.
 */
#include "base/num.h"
#include "model/glm_cache.h"
#include "model/glm_impl.h"

#include <stdlib.h>
#include <string.h>

#define CACHE_STEP 64 /* bytes */

struct glm_cache {
    struct glm *glm; /* borrowed */
    int64_t slots, tokens_max;
    int64_t batch_max;   /* rows of one decoding step */
    int64_t layer_bytes; /* of k, and of v */
    char *memory;        /* on the device */
    struct tensor slot_ids, lens, logits;
    struct scratch scratch;
    int32_t *len; /* [slots] tokens now in each, on the host */
    int32_t *lens_host;
    void *rows; /* [batch_max, V] logits as the device has them; NULL where that is float32 */
};

void glm_cache_tensors(struct tensor *k, struct tensor *v, const struct glm_cache *cache,
                       int64_t layer)
{
    const dtype_t T = cache->glm->options.dtype;
    const int64_t C = cache->glm->config.hidden_size;
    char *base = cache->memory ? cache->memory + 2 * layer * cache->layer_bytes : NULL;
    *k = tensor_3d(base, T, cache->slots, cache->tokens_max, C, "k_cache");
    *v = tensor_3d(base ? base + cache->layer_bytes : NULL, T, cache->slots, cache->tokens_max, C,
                   "v_cache");
}

static struct tensor first_rows(struct tensor t, int64_t rows)
{
    t.dim[0] = rows;
    return t;
}

static struct glm_pass decode_pass(struct glm_cache *cache, int64_t count)
{
    struct glm_pass p = glm_pass_begin(cache->glm, PASS_DECODE, count);
    p.cache = cache;
    p.slots = first_rows(cache->slot_ids, count);
    p.lens = first_rows(cache->lens, count);
    p.scratch = cache->scratch;
    return p;
}

/* Scratch depends on the cache's size, so it is measured here and not in the model's plan. */
static err_t measure(int64_t *scratch_bytes, struct glm_cache *cache)
{
    struct glm_pass p = decode_pass(cache, cache->batch_max);
    struct tensor logits = cache->logits;
    p.measure = true;
    TRY(glm_forward(&p));
    TRY(glm_head(&p, &logits, 0, cache->batch_max));
    *scratch_bytes = p.scratch.bytes;
    return ERR_OK;
}

/* Where the next `bytes` of the allocation begin; *end moves on. false: overflow. */
static bool push(int64_t *offset, int64_t *end, int64_t bytes)
{
    *offset = *end;
    if (!checked_add(end, *end, bytes) || *end > INT64_MAX - CACHE_STEP) return false;
    *end = align_up(*end, CACHE_STEP);
    return true;
}

static err_t cache_allocate(struct glm_cache *cache)
{
    const struct glm *glm = cache->glm;
    const dtype_t T = glm->options.dtype;
    const int64_t B = cache->batch_max, V = glm->config.vocab_size;
    int64_t kv_bytes = 0, scratch_bytes = 0, end = 0;
    int64_t at_kv, at_slots, at_lens, at_logits, at_scratch;

    cache->slot_ids = tensor_1d(NULL, DTYPE_I32, B, "slots");
    cache->lens = tensor_1d(NULL, DTYPE_I32, B, "lens");
    cache->logits = tensor_2d(NULL, T, B, V, "logits");
    if (!checked_mul(&kv_bytes, cache->slots, cache->tokens_max) ||
        !checked_mul(&kv_bytes, kv_bytes, glm->config.hidden_size * dtype_bytes(T)) ||
        kv_bytes > INT64_MAX - CACHE_STEP)
        RAISE(ARG, "cache of %lld slots of %lld tokens overflows", (long long)cache->slots,
              (long long)cache->tokens_max);
    cache->layer_bytes = align_up(kv_bytes, CACHE_STEP);
    TRY(measure(&scratch_bytes, cache));

    if (!checked_mul(&kv_bytes, cache->layer_bytes, 2 * glm->config.layer_count) ||
        !push(&at_kv, &end, kv_bytes) || !push(&at_slots, &end, B * 4) ||
        !push(&at_lens, &end, B * 4) || !push(&at_logits, &end, B * V * dtype_bytes(T)) ||
        !push(&at_scratch, &end, scratch_bytes))
        RAISE(ARG, "cache of %lld slots of %lld tokens overflows", (long long)cache->slots,
              (long long)cache->tokens_max);
    TRY(dev_alloc(glm->dev, (void **)&cache->memory, end, "key/value cache"));
    cache->slot_ids.data = cache->memory + at_slots;
    cache->lens.data = cache->memory + at_lens;
    cache->logits.data = cache->memory + at_logits;
    cache->scratch = (struct scratch){ cache->memory + at_scratch, scratch_bytes };
    return ERR_OK;
}

/* Where logits that are not float32 arrive. cache_allocate has seen that the sizes multiply. */
static err_t host_rows(struct glm_cache *cache)
{
    const int64_t count = tensor_count(&cache->logits), width = dtype_bytes(cache->logits.dtype);
    if (cache->logits.dtype == DTYPE_F32) return ERR_OK;
    cache->rows = malloc((size_t)(count * width));
    if (cache->rows == NULL)
        RAISE(NOMEM, "logits on the host: %lld bytes wanted", (long long)(count * width));
    return ERR_OK;
}

err_t glm_cache_create(struct glm_cache **out, struct glm *glm, int64_t slots, int64_t tokens_max)
{
    err_t rc = ERR_OK;
    const int64_t positions = glm->plan.buffer[GLM_B_COS].rows;
    *out = NULL;
    if (slots < 1 || slots > INT32_MAX || tokens_max < 1)
        RAISE(ARG, "cache of %lld slots of %lld tokens; both must be positive", (long long)slots,
              (long long)tokens_max);
    if (tokens_max > positions)
        RAISE(ARG, "cache of %lld tokens; this model has %lld positions (max_sequence_length)",
              (long long)tokens_max, (long long)positions);

    struct glm_cache *cache = calloc(1, sizeof *cache);
    if (cache == NULL) RAISE(NOMEM, "key/value cache: %zu bytes wanted", sizeof *cache);
    cache->glm = glm;
    cache->slots = slots;
    cache->tokens_max = tokens_max;
    cache->batch_max = min_i64(slots, glm->options.rows_max);
    cache->len = calloc((size_t)slots, sizeof *cache->len);
    cache->lens_host = calloc((size_t)cache->batch_max, sizeof *cache->lens_host);
    if (cache->len == NULL || cache->lens_host == NULL)
        RAISE_DONE(NOMEM, "key/value cache: host arrays of %lld slots", (long long)slots);
    TRY_DONE(cache_allocate(cache));
    TRY_DONE(host_rows(cache));
    *out = cache;
done:
    if (rc != ERR_OK) glm_cache_close(cache);
    return rc;
}

void glm_cache_close(struct glm_cache *cache)
{
    if (cache == NULL) return;
    dev_free(cache->glm->dev, cache->memory);
    free(cache->rows);
    free(cache->lens_host);
    free(cache->len);
    free(cache);
}

/* Rows of logits to the caller, as float32: one download for all, since each waits. */
static err_t fetch_logits(struct glm_cache *cache, float *out, const struct tensor *logits)
{
    struct dev *dev = cache->glm->dev;
    const int64_t count = tensor_count(logits), bytes = count * dtype_bytes(logits->dtype);
    if (logits->dtype == DTYPE_F32) return dev_download(dev, out, logits->data, bytes);
    TRY(dev_download(dev, cache->rows, logits->data, bytes));
    weight_widen(out, logits->dtype, cache->rows, count);
    return ERR_OK;
}

err_t glm_prefill(struct glm_cache *cache, float *logits, int64_t slot, const int32_t *ids,
                  const int32_t *pos, const int32_t *block, int64_t rows, int64_t ctx)
{
    struct glm *glm = cache->glm;
    const struct attn_segment segment = { 0, (int32_t)ctx, (int32_t)rows };
    if (slot < 0 || slot >= cache->slots)
        RAISE(ARG, "slot %lld; this cache has 0 .. %lld", (long long)slot,
              (long long)cache->slots - 1);
    TRY(glm_check_rows(glm, rows, ids, pos, block));
    if (rows > cache->tokens_max || ctx < 0 || ctx > rows)
        RAISE(ARG, "prompt of %lld tokens, %lld of them context; a slot has room for %lld",
              (long long)rows, (long long)ctx, (long long)cache->tokens_max);

    cache->len[slot] = 0; /* until the whole prompt is in */
    struct glm_pass p = glm_pass_begin(glm, PASS_PREFILL, rows);
    p.cache = cache;
    p.slot = slot;
    TRY(glm_upload_rows(&p, ids, pos, block));
    TRY(glm_upload_segments(&p, &segment, 1));
    TRY(glm_forward(&p));
    struct tensor last = glm_view(glm, GLM_B_LOGITS, 0, 1);
    TRY(glm_head(&p, &last, rows - 1, 1));
    TRY(fetch_logits(cache, logits, &last));
    cache->len[slot] = (int32_t)rows;
    return ERR_OK;
}

/* Known slots, each once, each with room for one more token; their lengths go to lens_host. */
static err_t check_slots(struct glm_cache *cache, const int32_t *slots, int64_t count)
{
    if (count < 1 || count > cache->batch_max)
        RAISE(ARG, "%lld slots in one step; expected 1 .. %lld", (long long)count,
              (long long)cache->batch_max);
    for (int64_t i = 0; i < count; i++) {
        if (slots[i] < 0 || slots[i] >= cache->slots)
            RAISE(ARG, "slot %d; this cache has 0 .. %lld", slots[i], (long long)cache->slots - 1);
        for (int64_t j = 0; j < i; j++)
            if (slots[j] == slots[i]) RAISE(ARG, "slot %d twice in one step", slots[i]);
        cache->lens_host[i] = cache->len[slots[i]];
        if (cache->lens_host[i] < 1) RAISE(ARG, "slot %d holds no prompt", slots[i]);
        if (cache->lens_host[i] >= cache->tokens_max)
            RAISE(ARG, "slot %d is full: %lld tokens", slots[i], (long long)cache->tokens_max);
    }
    return ERR_OK;
}

err_t glm_decode(struct glm_cache *cache, float *logits, const int32_t *slots, const int32_t *ids,
                 const int32_t *pos, const int32_t *block, int64_t count)
{
    struct glm *glm = cache->glm;
    TRY(check_slots(cache, slots, count));
    TRY(glm_check_rows(glm, count, ids, pos, block));

    struct glm_pass p = decode_pass(cache, count);
    TRY(glm_upload_rows(&p, ids, pos, block));
    TRY(dev_upload(glm->dev, p.slots.data, slots, count * 4));
    TRY(dev_upload(glm->dev, p.lens.data, cache->lens_host, count * 4));
    TRY(glm_forward(&p));
    struct tensor out = first_rows(cache->logits, count);
    TRY(glm_head(&p, &out, 0, count));
    TRY(fetch_logits(cache, logits, &out));
    for (int64_t i = 0; i < count; i++) cache->len[slots[i]]++;
    return ERR_OK;
}
