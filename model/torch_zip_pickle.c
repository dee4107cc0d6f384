#include "model/torch_zip_pickle.h"

#include "base/check.h"
#include "model/torch_zip_machine.h"
#include "model/weight_file.h"

#include <string.h>

/* ---- what a pickle may name: three calls and the storage classes ---- */

static err_t call_ordered_dict(struct machine *m, struct value *out, const struct value *args)
{
    void *dict;
    if (args->count != 0) REFUSE(m, "OrderedDict with arguments");
    TRY(arena_push(m->arena, &dict, (int64_t)sizeof(struct dict), 8));
    *out = (struct value){ .kind = VALUE_DICT, .dict = dict };
    return ERR_OK;
}

/* (storage, offset, size, stride, requires_grad, backward_hooks) */
static err_t call_rebuild_tensor(struct machine *m, struct value *out, const struct value *args)
{
    const struct value *a = args->item;
    if (args->count != 6 || a[0].kind != VALUE_STORAGE || a[1].kind != VALUE_INT ||
        a[2].kind != VALUE_TUPLE || a[3].kind != VALUE_TUPLE || a[4].kind != VALUE_BOOL)
        REFUSE(m, "a tensor is (storage, offset, size, stride, requires_grad, hooks)");
    if (a[2].count != a[3].count)
        REFUSE(m, "a tensor of %lld dimensions with %lld strides", (long long)a[2].count,
               (long long)a[3].count);
    if (a[2].count > WEIGHT_DIMS_MAX)
        RAISE(UNSUPPORTED, "%s: a tensor of %lld dimensions, at most %d are read here", m->file,
              (long long)a[2].count, WEIGHT_DIMS_MAX);
    if (a[1].count < 0 || a[1].count > a[0].storage->storage_count)
        REFUSE(m, "a tensor begins at element %lld of a storage of %lld", (long long)a[1].count,
               (long long)a[0].storage->storage_count);

    void *memory;
    TRY(arena_push(m->arena, &memory, (int64_t)sizeof(struct torch_tensor), 8));
    struct torch_tensor *t = memory;
    *t = *a[0].storage;
    t->offset = a[1].count;
    t->dims = (int)a[2].count;
    for (int i = 0; i < t->dims; i++) {
        if (a[2].item[i].kind != VALUE_INT || a[3].item[i].kind != VALUE_INT)
            REFUSE(m, "size and stride of a tensor are integers");
        t->dim[i] = a[2].item[i].count;
        t->stride[i] = a[3].item[i].count;
    }
    *out = (struct value){ .kind = VALUE_TENSOR, .tensor = t };
    return ERR_OK;
}

/* (tensor, requires_grad, backward_hooks) */
static err_t call_rebuild_parameter(struct machine *m, struct value *out, const struct value *args)
{
    if (args->count != 3 || args->item[0].kind != VALUE_TENSOR)
        REFUSE(m, "a parameter is (tensor, requires_grad, hooks)");
    *out = args->item[0];
    return ERR_OK;
}

static const struct global globals[] = {
    { "collections", "OrderedDict", call_ordered_dict, 0, DTYPE_COUNT },
    { "torch._utils", "_rebuild_tensor_v2", call_rebuild_tensor, 0, DTYPE_COUNT },
    { "torch._utils", "_rebuild_parameter", call_rebuild_parameter, 0, DTYPE_COUNT },
    { "torch", "HalfStorage", NULL, 2, DTYPE_F16 },
    { "torch", "BFloat16Storage", NULL, 2, DTYPE_BF16 },
    { "torch", "FloatStorage", NULL, 4, DTYPE_F32 },
    { "torch", "DoubleStorage", NULL, 8, DTYPE_F64 },
    { "torch", "LongStorage", NULL, 8, DTYPE_I64 },
    { "torch", "IntStorage", NULL, 4, DTYPE_I32 },
    { "torch", "ShortStorage", NULL, 2, DTYPE_COUNT },
    { "torch", "CharStorage", NULL, 1, DTYPE_COUNT },
    { "torch", "ByteStorage", NULL, 1, DTYPE_U8 },
    { "torch", "BoolStorage", NULL, 1, DTYPE_COUNT },
};

/* ---- storages ---- */

static bool text_is(const struct value *v, const char *text)
{
    return v->kind == VALUE_TEXT && v->count == (int64_t)strlen(text) &&
           memcmp(v->text, text, (size_t)v->count) == 0;
}

/* ('storage', class, key, location, element count) */
static err_t make_storage(struct machine *m, struct value *out, const struct value *id)
{
    const struct value *item = id->item;
    void *storage, *key;
    if (id->count != 5 || !text_is(&item[0], "storage") || item[1].kind != VALUE_GLOBAL ||
        item[1].global->call || item[2].kind != VALUE_TEXT || item[3].kind != VALUE_TEXT ||
        item[4].kind != VALUE_INT || item[4].count < 0)
        REFUSE(m, "a storage is ('storage', class, key, location, count)");
    if (item[2].count >= WEIGHT_NAME_MAX || memchr(item[2].text, '\0', (size_t)item[2].count))
        REFUSE(m, "a storage key of %lld bytes or with a NUL", (long long)item[2].count);

    TRY(arena_push(m->arena, &storage, (int64_t)sizeof(struct torch_tensor), 8));
    TRY(arena_push(m->arena, &key, item[2].count + 1, 1));
    memcpy(key, item[2].text, (size_t)item[2].count);
    *(struct torch_tensor *)storage = (struct torch_tensor){
        .key = key,
        .dtype = item[1].global->dtype,
        .element_bytes = item[1].global->element_bytes,
        .storage_count = item[4].count,
    };
    *out = (struct value){ .kind = VALUE_STORAGE, .storage = storage };
    return ERR_OK;
}

/* ---- the dictionary ---- */

/* The one value left must be a dictionary from names to tensors. */
static err_t collect(struct torch_pickle *out, struct machine *m)
{
    struct value *root;
    void *names, *tensors;
    TRY(machine_peek(m, &root, 0, VALUE_DICT, "a dictionary of tensors"));
    if (m->stack_count != 1) REFUSE(m, "%lld values are left over", (long long)m->stack_count - 1);
    const int64_t count = root->dict->count / 2;
    TRY(arena_push(m->arena, &names, count * (int64_t)sizeof *out->name, 8));
    TRY(arena_push(m->arena, &tensors, count * (int64_t)sizeof *out->tensor, 8));
    out->name = names;
    out->tensor = tensors;
    for (int64_t i = 0; i < count; i++) {
        const struct value *key = &root->dict->pair[2 * i], *value = key + 1;
        void *name;
        if (key->kind != VALUE_TEXT || key->count >= WEIGHT_NAME_MAX ||
            memchr(key->text, '\0', (size_t)key->count))
            REFUSE(m, "key %lld is not a text of at most %d bytes", (long long)i,
                   WEIGHT_NAME_MAX - 1);
        if (value->kind != VALUE_TENSOR)
            REFUSE(m, "%.*s is not a tensor; a plain state_dict is wanted", (int)key->count,
                   key->text);
        TRY(arena_push(m->arena, &name, key->count + 1, 1));
        memcpy(name, key->text, (size_t)key->count);
        out->name[i] = name;
        out->tensor[i] = value->tensor;
    }
    out->count = count;
    return ERR_OK;
}

err_t torch_pickle_read(struct torch_pickle *out, const void *bytes, int64_t size, const char *file)
{
    err_t rc = ERR_OK;
    *out = (struct torch_pickle){ 0 };
    struct machine m = {
        .arena = &out->arena,
        .file = file,
        .bytes = bytes,
        .size = size,
        .globals = globals,
        .global_count = COUNT_OF(globals),
        .make_storage = make_storage,
    };
    TRY_DONE(machine_run(&m));
    TRY_DONE(collect(out, &m));
done:
    machine_clear(&m);
    return rc;
}

void torch_pickle_clear(struct torch_pickle *p)
{
    arena_clear(&p->arena);
    *p = (struct torch_pickle){ 0 };
}
