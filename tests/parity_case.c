#include "parity_case.h"

#include "ref_ops.h"
#include "ref_positions.h"

#include "base/num.h"
#include "model/hf_folder.h"

#include <stdlib.h>
#include <string.h>

struct tok_specials parity_specials(const struct glm_config *c)
{
    return (struct tok_specials){ .unk = -1,
                                  .pad = c->pad_id,
                                  .mask = c->mask_id,
                                  .gmask = c->gmask_id,
                                  .smask = -1,
                                  .sop = c->bos_id,
                                  .eop = c->eos_id,
                                  .eos = c->eos_id,
                                  .newline = -1,
                                  .space = -1 };
}

static err_t allocate_batch(struct parity *p, int64_t rows)
{
    int32_t **arrays[] = { &p->ids, &p->pos, &p->block, &p->order, &p->target_rows, &p->labels };
    for (int64_t i = 0; i < COUNT_OF(arrays); i++) {
        *arrays[i] = calloc((size_t)rows, sizeof **arrays[i]);
        if (*arrays[i] == NULL) RAISE(NOMEM, "golden batch");
    }
    p->weights = calloc((size_t)rows, sizeof *p->weights);
    p->row_of = calloc((size_t)rows, sizeof *p->row_of);
    p->nll = calloc((size_t)rows, sizeof *p->nll);
    p->segments = calloc((size_t)p->B, sizeof *p->segments);
    if (p->weights == NULL || p->row_of == NULL || p->nll == NULL || p->segments == NULL)
        RAISE(NOMEM, "golden batch");
    return ERR_OK;
}

/* Sample b becomes rows of its own: no padding, labels shifted by one. */
static err_t add_sample(struct parity *p, int64_t b, int64_t len, const double *ids,
                        const double *labels)
{
    const struct tok_specials specials = parity_specials(&p->config);
    const int64_t at = p->batch.rows;
    int64_t ctx = 0;
    for (int64_t i = 0; i < len; i++) {
        p->ids[at + i] = (int32_t)ids[i];
        p->row_of[at + i] = b * p->S + i;
        if (i + 1 == len || labels[i + 1] < 0) continue;
        p->target_rows[p->batch.target_count] = (int32_t)(at + i);
        p->labels[p->batch.target_count++] = (int32_t)labels[i + 1];
    }
    TRY(ref_positions(&ctx, p->pos + at, p->block + at, p->ids + at, len, &specials));
    p->segments[b] = (struct attn_segment){ (int32_t)at, (int32_t)ctx, (int32_t)len };
    p->batch.rows += len;
    return ERR_OK;
}

static int compare_rows(const void *a, const void *b, void *ids_arg)
{
    const int32_t *ids = ids_arg;
    const int32_t r0 = *(const int32_t *)a, r1 = *(const int32_t *)b;
    if (ids[r0] != ids[r1]) return ids[r0] < ids[r1] ? -1 : 1;
    return r0 < r1 ? -1 : 1;
}

static err_t read_batch(struct parity *p)
{
    err_t rc = ERR_OK;
    int64_t rows = 0;
    struct golden_array ids = { 0 }, labels = { 0 }, lengths = { 0 };
    TRY_DONE(golden_read(&ids, p->golden, "batch/input_ids", 2));
    TRY_DONE(golden_read(&labels, p->golden, "batch/labels", 2));
    TRY_DONE(golden_read(&lengths, p->golden, "batch/lengths", 1));
    p->B = ids.dim[0];
    p->S = ids.dim[1];
    if (labels.dim[0] != p->B || labels.dim[1] != p->S || lengths.count != p->B)
        RAISE_DONE(FORMAT, "golden numbers: labels or lengths do not fit input_ids of %lld x %lld",
                   (long long)p->B, (long long)p->S);
    for (int64_t b = 0; b < p->B; b++) {
        if (!(lengths.value[b] >= 1 && lengths.value[b] <= (double)p->S))
            RAISE_DONE(FORMAT, "golden numbers: length %lld of sample %lld; expected 1 .. %lld",
                       (long long)lengths.value[b], (long long)b, (long long)p->S);
        rows += (int64_t)lengths.value[b];
    }
    TRY_DONE(allocate_batch(p, rows));
    for (int64_t b = 0; b < p->B; b++)
        TRY_DONE(add_sample(p, b, (int64_t)lengths.value[b], ids.value + b * p->S,
                            labels.value + b * p->S));
    if (p->batch.target_count == 0) RAISE_DONE(FORMAT, "golden numbers: no label is trained");
    for (int64_t i = 0; i < p->batch.target_count; i++)
        p->weights[i] = 1.0f / (float)p->batch.target_count;
    for (int64_t r = 0; r < rows; r++) p->order[r] = (int32_t)r;
    qsort_r(p->order, (size_t)rows, sizeof *p->order, compare_rows, p->ids);
    p->batch = (struct glm_batch){
        .rows = rows,
        .ids = p->ids,
        .pos = p->pos,
        .block = p->block,
        .order = p->order,
        .segment_count = p->B,
        .segments = p->segments,
        .target_count = p->batch.target_count,
        .target_rows = p->target_rows,
        .labels = p->labels,
        .weights = p->weights,
    };
done:
    golden_array_clear(&ids);
    golden_array_clear(&labels);
    golden_array_clear(&lengths);
    return rc;
}

static err_t read_ids(int32_t **out, int64_t *count, struct golden *golden, const char *name)
{
    struct golden_array a;
    TRY(golden_read(&a, golden, name, 1));
    *count = a.count;
    *out = calloc((size_t)a.count, sizeof **out);
    for (int64_t i = 0; *out != NULL && i < a.count; i++) (*out)[i] = (int32_t)a.value[i];
    golden_array_clear(&a);
    if (*out == NULL) RAISE(NOMEM, "%s", name);
    return ERR_OK;
}

static err_t load_weights(struct glm *glm, const char *dir)
{
    struct weight_source *source;
    TRY(hf_folder_open(&source, dir));
    const err_t rc = glm_load(glm, source);
    weight_source_close(source);
    return rc;
}

static err_t open_device(struct parity *p, const struct parity_how *how)
{
    if (strcmp(how->device, "ref") != 0) return dev_open(&p->dev, how->device, how->threads);
    dev_init_host(&p->ref_dev, how->dtype == DTYPE_F64 ? &ops_ref : &ops_ref_rounded, 1);
    p->dev = &p->ref_dev;
    return ERR_OK;
}

/* Every weight to bf16 and back, on the device that is the host's memory. */
static void round_weights(struct parity *p)
{
    for (int64_t i = 0; i < glm_params(p->glm)->count; i++) {
        const struct tensor t = glm_weight(p->glm, i);
        for (int64_t e = 0; e < tensor_count(&t); e++)
            ref_put(&t, e, (double)bf16_to_f32(f32_to_bf16((float)ref_get(&t, e))));
    }
}

err_t parity_open(struct parity *p, const char *dir, const struct parity_how *how)
{
    void *grads = NULL;
    *p = (struct parity){ .dev = NULL };
    TRY(glm_config_read(&p->config, dir));
    p->config.rotary = GLM_ROTARY_FP32_ANGLE; /* the reference ran in float32 */
    TRY(golden_open(&p->golden, dir));
    TRY(read_batch(p));
    TRY(read_ids(&p->prompt, &p->prompt_len, p->golden, "generate/prompt_ids"));
    TRY(read_ids(&p->greedy, &p->greedy_len, p->golden, "generate/greedy_ids"));
    TRY(open_device(p, how));

    const struct glm_options options = {
        .dtype = how->dtype,
        .grad_dtype = how->grad_dtype,
        .train = true,
        .rows_max = max_i64(p->batch.rows, p->prompt_len + p->greedy_len),
        .segments_max = p->B,
        .targets_max = p->batch.target_count,
        .ranks = 1,
    };
    TRY(glm_create(&p->glm, p->dev, &p->config, &options));
    TRY(load_weights(p->glm, dir));
    ASSERT(!how->round_weights || p->dev == &p->ref_dev);
    if (how->round_weights) round_weights(p);
    const int64_t count = glm_grad_layout(p->glm)->element_count;
    const dtype_t dtype = glm_grad_dtype(p->glm);
    TRY(dev_alloc(p->dev, &grads, count * dtype_bytes(dtype), "gradients"));
    p->grads = tensor_1d(grads, dtype, count, "gradients");
    return ERR_OK;
}

err_t parity_arena(double **out, const struct parity *p, const struct tensor *arena)
{
    const int64_t count = tensor_count(arena);
    err_t rc = ERR_OK;
    struct tensor host = *arena;
    *out = malloc((size_t)count * sizeof **out);
    host.data = malloc((size_t)(count * dtype_bytes(arena->dtype)));
    if (*out == NULL || host.data == NULL)
        RAISE_DONE(NOMEM, "%s: %lld values", arena->name, (long long)count);
    TRY_DONE(dev_download(p->dev, host.data, arena->data, count * dtype_bytes(arena->dtype)));
    for (int64_t i = 0; i < count; i++) (*out)[i] = ref_get(&host, i);
done:
    free(host.data);
    return rc;
}

void parity_close(struct parity *p)
{
    if (p->dev != NULL) dev_free(p->dev, p->grads.data);
    glm_close(p->glm);
    if (p->dev != &p->ref_dev) dev_close(p->dev);
    golden_close(p->golden);
    void *const host[] = { p->row_of, p->ids,     p->pos,      p->block, p->order,  p->target_rows,
                           p->labels, p->weights, p->segments, p->nll,   p->prompt, p->greedy };
    for (int64_t i = 0; i < COUNT_OF(host); i++) free(host[i]);
}
